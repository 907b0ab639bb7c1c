"""Is the forecast better than the last value, and does P(beat) come true? On recorded studies.

    python tests/bench/calibration.py STUDY.npz ...
    python tests/bench/calibration.py STUDY.npz ... --risks 0.04 0.02 0.08

Recorded studies as for ``replay.py``. The tables:

forecast     The first 20 completed configurations of a random order are known, the others are
             forecast when 5 ... 70 % are seen: absolute error of the median (0 is the study's
             median first value, 1 its best; means over studies of the median over runs), Spearman
             correlation with the final value (all runs / the better half of them), coverage of the
             90 % interval, and the mean log density, against the last value.
reliability  The configurations come in four orders: random, good first, bad first (the better half
             before the worse half, random within) and as TPESampler proposes them. At a few
             fractions: predicted P(beat the best so far) against what came true, in bins of P, and
             how often the end lay inside the 90 % interval.
risk         The same replays at several settings of `risk`: the share of the stopped trials that
             would have become the best, which `risk` is meant to bound, and the share of would-be
             best trials that were stopped.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from replay import Arms, finish, in_turn, proposed
from scipy import stats

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import Engine, StudyKnowledge
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.study.history import StudyRecord

ENGINES: dict[str, type] = {"pool": OpinionPool, "closed_form": ClosedForm}
FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7)
ORDERS = ("random", "good first", "bad first", "TPE")


def load(path: Path) -> tuple[np.ndarray, str]:
    """Curves with larger is better, runs that end without a value left out, and the name."""
    data = np.load(path, allow_pickle=True)
    curves = data["curves"].astype(float) * (1.0 if data["maximize"] else -1.0)
    return curves, str(data["name"])


def completed(number: int, curve: np.ndarray) -> FrozenTrial:
    """A finished trial of this curve."""
    values = {i: float(v) for i, v in enumerate(curve)}
    trial = create_trial(
        state=TrialState.COMPLETE, value=float(curve[-1]), intermediate_values=values
    )
    trial.number = number
    return trial


def knowledge_of(trials: list[FrozenTrial], n_steps: int) -> StudyKnowledge:
    """What a study of these trials knows about a training of `n_steps` reports."""
    record = StudyRecord(maximize=True)
    summary = record.update(trials)
    assert summary.scale is not None
    return StudyKnowledge(summary.scale, summary.target, *record.curves(n_steps, 1.0))


def forecasts(path: Path, engine: Engine, n_known: int, n_runs: int) -> Iterator[tuple]:
    """Rows (fraction, final, last, median, inside the 90 % interval, log density)."""
    curves, _ = load(path)
    curves = curves[np.isfinite(curves).all(axis=1)]
    curves = curves[np.random.default_rng(0).permutation(len(curves))]
    n_steps = curves.shape[1]
    known = [completed(i, c) for i, c in enumerate(curves[:n_known])]
    knowledge = knowledge_of(known, n_steps)
    scale = knowledge.scale
    for curve in curves[n_known : n_known + n_runs]:
        final = float(curve[-1])
        for fraction in FRACTIONS:
            n = max(2, round(fraction * n_steps))
            ahead = engine(LearningCurve(np.arange(1.0, n + 1.0), curve[:n], n_steps), knowledge)
            low, high = ahead.interval(0.9)
            z = scale.to_working([final, curve[n - 1], ahead.quantile(0.5)])
            density = np.log(max(float(ahead.pdf(final)) * scale.unit, 1e-12))
            yield (fraction, *z, low <= final <= high, density)


def forecast_table(paths: list[Path], engine: Engine, n_known: int, n_runs: int) -> None:
    """Print the forecast table."""
    rows = {path: np.array(list(forecasts(path, engine, n_known, n_runs))) for path in paths}
    print("forecast after 20 completed trials; means over studies")
    print(
        f"{'seen':>5s} {'error':>7s} {'last':>7s} {'rank':>6s} {'last':>6s} {'rank+':>6s} "
        f"{'last+':>6s} {'cover':>6s} {'log density':>12s}"
    )
    for fraction in FRACTIONS:
        per_study = []
        for table in rows.values():
            final, last, median, inside, density = table[table[:, 0] == fraction].T[1:]
            half = final >= np.median(final)
            per_study.append(
                (
                    np.median(np.abs(median - final)),
                    np.median(np.abs(last - final)),
                    spearman(median, final),
                    spearman(last, final),
                    spearman(median[half], final[half]),
                    spearman(last[half], final[half]),
                    np.mean(inside),
                    np.mean(density),
                )
            )
        mean_row = np.nanmean(per_study, axis=0)
        print(f"{fraction:5.0%} " + " ".join(f"{x:6.3f}" for x in mean_row))
    print()


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN where one side is constant."""
    return float(stats.spearmanr(a, b).statistic)


def arms_in(order: str, path: Path, seed: int, n_trials: int) -> tuple[Arms, int]:
    """The configurations of a study in one of the orders, and the length of a training."""
    curves, _ = load(path)
    shuffled = np.random.default_rng(seed).permutation(len(curves))
    curves = curves[shuffled]
    if order == "TPE":
        hp_json = np.load(path, allow_pickle=True)["hp_json"][shuffled]
        return proposed(curves, hp_json, n_trials), curves.shape[1]
    if order != "random":
        final = np.nan_to_num(curves[:, -1], nan=-np.inf)
        good = final >= np.median(final)
        first = good if order == "good first" else ~good
        curves = np.concatenate([curves[first], curves[~first]])
    return in_turn(curves[:n_trials]), curves.shape[1]


@dataclass
class Looks:
    """What was asked and what came of it.

    Attributes:
        asked: Rows (fraction, P, won, inside the 90 % interval or NaN without an end).
        fates: For each trial that could be stopped, whether it was, and whether it would have
            become the best.
    """

    asked: list[tuple] = field(default_factory=list)
    fates: list[tuple[bool, bool]] = field(default_factory=list)


def look(order: str, path: Path, seed: int, n_trials: int, risk: float, engine: str) -> Looks:
    """Replay one study, asking at ``FRACTIONS``."""
    arms, n_steps = arms_in(order, path, seed, n_trials)
    pruner = LearningCurvePruner(n_steps=n_steps, risk=risk, engine=engine, publish=False)
    study = optuna.create_study(
        direction="maximize", pruner=pruner, sampler=optuna.samplers.TPESampler(seed=seed)
    )
    looks, at = Looks(), {max(1, round(f * n_steps) - 1): f for f in FRACTIONS}
    for trial, curve in arms(study):
        stopped = False
        values = [t.value for t in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])]
        would_win = bool(values and curve[-1] > max(values))
        for step, value in enumerate(curve):
            trial.report(float(value), step)
            stopped = trial.should_prune()
            if step in at:
                decision = pruner.decide(study, study.get_trials(deepcopy=False)[trial.number])
                if decision.p_beat is not None:
                    inside = decision.low <= curve[-1] <= decision.high
                    inside = float(inside) if np.isfinite(curve[-1]) else np.nan
                    looks.asked.append((at[step], decision.p_beat, would_win, inside))
            if stopped:
                break
        if len(values) >= 3:
            looks.fates.append((stopped, would_win))
        finish(study, trial, curve, stopped)
    return looks


def reliability(results: dict[str, Looks], risk: float) -> None:
    """Print the reliability and coverage tables."""
    edges = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0001])
    for order, looks in results.items():
        _, p, won, _ = np.array(looks.asked, dtype=float).T
        print(f"reliability, {order}, risk={risk}: {p.size} looks")
        print(f"{'P':>12s} {'looks':>6s} {'predicted':>10s} {'actual':>7s}")
        for low, high in itertools.pairwise(edges):
            here = (p >= low) & (p < high)
            if np.any(here):
                print(
                    f"{low:5.2f} - {high:4.2f} {here.sum():6d} {p[here].mean():10.3f} "
                    f"{won[here].mean():7.3f}"
                )
        base = won.mean()
        print(f"Brier {np.mean((p - won) ** 2):.4f}, of a constant {base * (1 - base):.4f}\n")
    print("share of ends inside the 90 % interval, by fraction seen")
    print(f"{'order':12s}" + "".join(f"{f:>8.0%}" for f in FRACTIONS))
    for order, looks in results.items():
        fraction, _, _, inside = np.array(looks.asked, dtype=float).T
        ended = np.isfinite(inside)
        cells = (inside[ended & (fraction == f)] for f in FRACTIONS)
        print(f"{order:12s}" + "".join(f"{c.mean():8.3f}" if c.size else "       -" for c in cells))
    print()


def risk_table(results: dict[float, dict[str, Looks]]) -> None:
    """Print how many of the stopped would have become the best, +- the standard error."""
    orders = next(iter(results.values()))
    head = f"{'risk':>6s}" + "".join(f"{order:>20s}" for order in orders)
    for title, given, counted in (
        ("share of the stopped trials that would have become the best", 0, 1),
        ("share of the would-be best trials that were stopped", 1, 0),
    ):
        print(f"{title}\n{head}")
        for risk, by_order in results.items():
            cells = []
            for looks in by_order.values():
                fates = np.array(looks.fates, dtype=bool).T
                share = fates[counted][fates[given]].astype(float)
                error = share.std() / np.sqrt(max(1, share.size))
                cells.append(f"{share.mean() if share.size else 0.0:11.3f} +- {error:5.3f}")
            print(f"{risk:6.2f}" + "".join(cells), flush=True)
        print()


def main() -> None:
    """Parse arguments, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--engine", choices=ENGINES, default="pool")
    parser.add_argument("--known", type=int, default=20, help="completed trials known")
    parser.add_argument("--runs", type=int, default=80, help="runs forecast in each study")
    parser.add_argument("--seeds", type=int, default=1, help="replays in each order")
    parser.add_argument("--trials", type=int, default=100, help="trials of a replay")
    parser.add_argument(
        "--risks", type=float, nargs="*", default=[0.04], help="the first is used for reliability"
    )
    parser.add_argument("--orders", nargs="+", default=ORDERS, choices=ORDERS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    engine = ENGINES[arguments.engine]()
    forecast_table(arguments.studies, engine, arguments.known, arguments.runs)
    results: dict[float, dict[str, Looks]] = {}
    for risk in arguments.risks:
        results[risk] = {order: Looks() for order in arguments.orders}
        for order, looks in results[risk].items():
            for path, seed in itertools.product(arguments.studies, range(arguments.seeds)):
                one = look(order, path, seed, arguments.trials, risk, arguments.engine)
                looks.asked += one.asked
                looks.fates += one.fates
        if len(results) == 1:
            reliability(results[risk], risk)
    if results:
        risk_table(dict(sorted(results.items())))


if __name__ == "__main__":
    main()
