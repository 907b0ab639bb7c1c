"""Replay recorded studies through pruners: what is spent, what is lost.

    python tests/bench/replay.py STUDY.npz ... [--pruners default median_w3 hyperband] [--orders 3]
    python tests/bench/replay.py STUDY.npz ... --budget 20 --orders 5
    python tests/bench/replay.py STUDY.npz ... --sampler tpe

A recorded study is an .npz file with ``curves`` (n_configurations, n_steps; NaN from where a run
diverged), ``maximize`` (bool) and ``name``. Its configurations are run one after another in a
random order through a real ``optuna.Study``, which sees what an objective would report.

    cost    share of all steps that was spent
    regret  (best final - best final kept) / (best final - median final), at most 1
    kept    share of replays in which the best trial was completed
With ``--budget B`` a replay ends once B full trainings' worth of steps are spent, and regret is
against the best configuration of the whole file.

With ``--sampler tpe`` the order is not random: TPESampler proposes hyper-parameters and the nearest
configuration not yet run is trained, under its own hyper-parameters. That takes ``hp_json`` in the
file, a JSON object a configuration; regret is against the whole file then.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import TrialState
from simple_rules import KeepTopPruner, LastValuePruner

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm

Factory = Callable[[int], BasePruner]
CAREFUL = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.06, 0.08)
AGGRESSIVE = (0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)


def peers() -> dict[str, Factory]:
    """Optuna's own pruners and simple rules, by name."""
    factories: dict[str, Factory] = {"none": lambda n: NopPruner()}
    for warmup in (0, 3, 5):
        factories[f"median_w{warmup}"] = lambda n, w=warmup: MedianPruner(5, w)
    for percentile in (25, 75):
        factories[f"percentile{percentile}_w3"] = lambda n, q=percentile: PercentilePruner(q, 5, 3)
    for eta in (2, 4):
        factories[f"halving_eta{eta}"] = lambda n, e=eta: SuccessiveHalvingPruner(1, e)
    factories["hyperband"] = lambda n: HyperbandPruner(1, n, 3)
    factories["patient_median"] = lambda n: PatientPruner(MedianPruner(5, 3), 2)
    for steps, share in ((3, 0.1), (3, 0.2), (10, 0.2)):
        factories[f"top{share:.0%}_after{steps}"] = lambda n, s=steps, q=share: KeepTopPruner(s, q)
    factories["last_after_half"] = lambda n: LastValuePruner(math.ceil(n / 2))
    try:  # pip install surestop
        from surestop import ConformalPruner
    except ImportError:
        pass
    else:
        factories["surestop"] = lambda n: ConformalPruner(n_calibration=20, alpha=0.05)
    return factories


def ours(publish: bool = False) -> dict[str, Factory]:
    """LearningCurvePruner at its default settings, along its knob, and with fixed thresholds."""
    factories: dict[str, Factory] = {
        "default": lambda n: LearningCurvePruner(n_steps=n, publish=publish)
    }
    for risk in (*CAREFUL, *AGGRESSIVE):
        factories[f"risk_{risk:g}"] = lambda n, r=risk: LearningCurvePruner(
            n_steps=n, risk=r, publish=publish
        )
    factories["threshold_0.05"] = lambda n: LearningCurvePruner(
        n_steps=n, threshold=0.05, publish=publish
    )
    factories["ensemble_0.05"] = lambda n: LearningCurvePruner(
        n_steps=n, threshold=0.05, engine="closed_form", publish=publish
    )
    factories["one_curve_0.05"] = lambda n: LearningCurvePruner(
        n_steps=n, threshold=0.05, engine=ClosedForm(learns=False), publish=publish
    )
    return factories


@dataclass
class Replay:
    """Outcome of one replay."""

    study: str
    order: int
    cost: float
    regret: float
    kept: float
    ms: float


Arms = Callable[[optuna.Study], Iterable[tuple[optuna.Trial, np.ndarray]]]
"""Gives the trials of a study one by one, each with the curve of its configuration."""


def in_turn(curves: np.ndarray) -> Arms:
    """The curves in the order they are in."""

    def arms(study: optuna.Study) -> Iterator[tuple[optuna.Trial, np.ndarray]]:
        for curve in curves:
            yield study.ask(), curve

    return arms


class Space:
    """The recorded hyper-parameters as a search space with the configurations in it."""

    def __init__(self, hp_json: np.ndarray) -> None:
        rows = [json.loads(str(text) or "{}") for text in hp_json]
        columns, self.distributions, self.params = [], {}, [{} for _ in rows]
        for name in sorted({key for row in rows for key in row}):
            values = [row.get(name) for row in rows]
            column, distribution = self._column(values)
            if distribution is None:
                continue
            columns.append(column)
            self.distributions[name] = distribution
            for params, value in zip(self.params, values, strict=True):
                if value is not None:
                    number = isinstance(distribution, optuna.distributions.FloatDistribution)
                    params[name] = float(value) if number else str(value)
        self.columns = np.array(columns).T  # categories by their index

    @staticmethod
    def _column(
        values: list,
    ) -> tuple[np.ndarray, optuna.distributions.BaseDistribution | None]:
        """Scaled values (NaN: none) and distribution; None if it does not vary or is free text."""
        known = [v for v in values if v is not None]
        try:
            x = np.array([np.nan if v is None else float(v) for v in values])
        except ValueError:
            choices = sorted({str(v) for v in known})
            if not 2 <= len(choices) <= 20:
                return np.empty(0), None
            x = np.array([np.nan if v is None else choices.index(str(v)) for v in values])
            return x, optuna.distributions.CategoricalDistribution(choices)
        low, high = float(np.nanmin(x)), float(np.nanmax(x))
        if low == high:
            return np.empty(0), None
        log = low > 0 and high / low > 100
        scaled = np.log(x / low) / np.log(high / low) if log else (x - low) / (high - low)
        return scaled, optuna.distributions.FloatDistribution(low, high, log=log)

    def point(self, params: dict) -> np.ndarray:
        """Proposed hyper-parameters, scaled like the columns; NaN for those of another space."""
        point = []
        for name, d in self.distributions.items():
            value = params.get(name)
            if isinstance(d, optuna.distributions.CategoricalDistribution):
                point.append(float(d.choices.index(value)) if value in d.choices else np.nan)
            elif not isinstance(value, float) or (d.log and value <= 0.0):
                point.append(np.nan)
            elif d.log:
                point.append(np.log(value / d.low) / np.log(d.high / d.low))
            else:
                point.append((value - d.low) / (d.high - d.low))
        return np.array(point)

    def nearest(self, params: dict, left: np.ndarray) -> int:
        """The nearest configuration of those left; another category or none is a distance of 1."""
        category = [
            isinstance(d, optuna.distributions.CategoricalDistribution)
            for d in self.distributions.values()
        ]
        apart = np.abs(self.columns[left] - self.point(params))
        apart = np.where(np.isnan(apart), 1.0, np.where(category, apart > 0, apart))
        return int(left[np.argmin(np.sum(apart**2, axis=1))])


def proposed(curves: np.ndarray, hp_json: np.ndarray, n_trials: int) -> Arms:
    """The configurations that the study's sampler asks for, or rather their nearest neighbours."""
    space = Space(hp_json)

    def arms(study: optuna.Study) -> Iterator[tuple[optuna.Trial, np.ndarray]]:
        # Wishes are trials too: in a study of their own, they do not count in this one.
        wishes = optuna.create_study(direction=study.direction, sampler=study.sampler)
        left = np.arange(len(curves))
        for _ in range(min(n_trials, len(curves))):
            wish = wishes.ask(space.distributions)
            chosen = space.nearest(wish.params, left)
            left = left[left != chosen]
            wishes.tell(wish, state=TrialState.FAIL)  # the sampler shall learn of what is trained
            study.enqueue_trial(space.params[chosen])
            trial = study.ask(space.distributions)
            yield trial, curves[chosen]
            wishes.add_trial(study.get_trials(deepcopy=False)[trial.number])

    return arms


def finish(study: optuna.Study, trial: optuna.Trial, curve: np.ndarray, stopped: bool) -> bool:
    """Tell the study how the trial ended, and whether it was completed."""
    completed = not stopped and bool(np.isfinite(curve[-1]))
    if completed:
        study.tell(trial, float(curve[-1]))
    else:  # a run that diverged and that nobody stopped returns no value
        study.tell(trial, state=TrialState.PRUNED if stopped else TrialState.FAIL)
    return completed


def run(arms: Arms, maximize: bool, pruner: BasePruner, budget: float, seed: int) -> tuple:
    """Feed the curves to a study until the budget of steps is spent."""
    study = optuna.create_study(
        direction="maximize" if maximize else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=pruner,
    )
    spent, asked, finals = 0, 0.0, []
    for trial, curve in arms(study):
        stopped = False
        for step, value in enumerate(curve):
            spent += 1
            trial.report(float(value), step)
            start = time.perf_counter()
            stopped = trial.should_prune()
            asked += time.perf_counter() - start
            if stopped:
                break
        if finish(study, trial, curve, stopped):
            finals.append(float(curve[-1]))
        if spent >= budget:
            break
    return spent, np.array(finals), 1e3 * asked / spent


def replay(
    path: Path,
    order: int,
    factory: Factory,
    n_trials: int,
    budget: float | None,
    sampler: str = "random",
) -> Replay:
    """One recorded study in one order through one pruner."""
    data = np.load(path, allow_pickle=True)
    curves, maximize = data["curves"].astype(float), bool(data["maximize"])
    sign, n_steps = (1.0 if maximize else -1.0), curves.shape[1]
    limit = np.inf if budget is None else budget * n_steps
    shuffled = np.random.default_rng(order).permutation(len(curves))
    if sampler == "tpe":
        n_wanted = n_trials if budget is None else len(curves)
        arms = proposed(curves[shuffled], data["hp_json"][shuffled], n_wanted)
        whole = min(n_wanted, len(curves)) * n_steps if budget is None else limit
    else:
        curves = curves[shuffled] if budget is not None else curves[shuffled][:n_trials]
        arms, whole = in_turn(curves), (curves.size if budget is None else limit)
    final = sign * curves[:, -1]
    best, median = np.nanmax(final), np.nanmedian(final)
    spent, found, ms = run(arms, maximize, factory(n_steps), limit, order)
    got = np.max(sign * found) if found.size else -np.inf
    regret = min(1.0, (best - got) / max(best - median, 1e-12))
    return Replay(str(data["name"]), order, spent / whole, regret, float(got >= best), ms)


def by_name(path: Path, order: int, name: str, *rest: Any) -> Replay:
    """The same with a pruner of :func:`peers` or :func:`ours`, in a worker."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    return replay(path, order, (peers() | ours())[name], *rest)


def table(results: dict[str, list[Replay]]) -> Iterable[str]:
    """One line a pruner, means over studies and orders with the standard error of the regret."""
    yield f"{'pruner':18s} {'cost':>6s} {'regret':>7s} {'+-':>6s} {'kept':>5s} {'ms':>6s} replays"
    for name, rows in results.items():
        cost, regret, kept, ms = (
            np.array([getattr(r, key) for r in rows]) for key in ("cost", "regret", "kept", "ms")
        )
        error = regret.std() / np.sqrt(len(rows))
        yield (
            f"{name:18s} {cost.mean():6.3f} {regret.mean():7.4f} {error:6.4f} "
            f"{kept.mean():5.2f} {ms.mean():6.2f} {len(rows):7d}"
        )


def main() -> None:
    """Parse arguments, replay, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--pruners", nargs="+", help="names to run; by default all")
    parser.add_argument(
        "--orders", type=int, default=3, help="random orders (or seeds) of each study"
    )
    parser.add_argument("--trials", type=int, default=100, help="configurations of a replay")
    parser.add_argument("--budget", type=float, help="full trainings' worth of steps")
    parser.add_argument(
        "--sampler", choices=("random", "tpe"), default="random", help="who picks the next"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--per-study", nargs="*", metavar="PRUNER", help="each study's rows of these, or of all"
    )
    parser.add_argument("--json", type=Path, help="write all replays to this file")
    arguments = parser.parse_args()
    factories = peers() | ours()
    names = arguments.pruners or list(factories)
    unknown = set(names) - set(factories)
    if unknown:
        parser.error(f"unknown pruners {sorted(unknown)}; known are {', '.join(factories)}")
    if set(arguments.per_study or ()) - set(names):
        parser.error(f"--per-study is for pruners that are run: {', '.join(names)}")
    results: dict[str, list[Replay]] = {name: [] for name in names}
    rest = (arguments.trials, arguments.budget, arguments.sampler)
    with ProcessPoolExecutor(arguments.jobs) as workers:
        running = {
            path: [
                (name, workers.submit(by_name, path, order, name, *rest))
                for order in range(arguments.orders)
                for name in names
            ]
            for path in arguments.studies
        }
        for futures in running.values():
            for name, future in futures:
                results[name].append(future.result())
    print("all studies")
    print("\n".join(table(results)))
    if arguments.per_study is not None:
        print()
        shown = {name: results[name] for name in arguments.per_study or names}
        for study in dict.fromkeys(replay.study for replay in results[names[0]]):
            print(study)
            _, *rows = table(
                {name: [r for r in mine if r.study == study] for name, mine in shown.items()}
            )
            print("\n".join(rows))
    if arguments.json:
        rows_by_name = {name: [asdict(r) for r in rows] for name, rows in results.items()}
        arguments.json.write_text(json.dumps(rows_by_name))


if __name__ == "__main__":
    main()
