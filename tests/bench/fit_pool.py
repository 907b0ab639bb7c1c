"""Fit the three constants of the opinion pool to looks at recorded studies.

    python tests/bench/fit_pool.py STUDY.npz ... [--orders 6]

Recorded studies as for ``replay.py``. Each is run in several orders: plainly random with every
trial completed, random with the pruner's own verdicts, and improving (bad runs tend to come first,
as with a sampler that learns). A look is one question at one step of one trial that is not yet
better than the best: N, f, P by the analogues, P by the ensemble, also of one that learns no
shapes and noise from the study, and whether the trial did end better. Printed are the
maximum-likelihood constants, the log loss on each source (file name up to the first underscore)
with constants fitted to the others, and the same with a voice left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calibration import completed, load
from scipy.optimize import minimize
from scipy.special import ndtri

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.posterior import opinion_pool
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.study.history import StudyRecord

ORDERS = ("random", "pruned", "improving")
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 0.95)


@dataclass
class Look:
    """One question and its answer."""

    source: str
    study: str
    order: str
    n_completed: int
    seen: float
    p_analogues: float
    p_ensemble: float
    p_unlearned: float
    rank: float
    pruned: float
    records: float
    won: bool


Question = tuple[LearningCurve, StudyKnowledge]


def looks(path: Path, seed: int, n_trials: int) -> Iterator[tuple[Look, Question]]:
    """All looks at one study in one order, each with what an engine would be asked."""
    curves, name = load(path)
    rng = np.random.default_rng(seed)
    curves = curves[rng.permutation(len(curves))][:n_trials]
    order = ORDERS[seed % len(ORDERS)]
    if order == "improving":
        rank = np.argsort(np.argsort(np.nan_to_num(curves[:, -1], nan=-np.inf)))
        curves = curves[np.argsort(rank + 60.0 * rng.normal(size=len(curves)))]
    n_steps = curves.shape[1]
    at = np.unique([2, 3, 4, 6, *np.round(n_steps * np.array(FRACTIONS)).astype(int)])
    at = at[(at >= 2) & (at < n_steps)]
    record, known, engine, rule = StudyRecord(maximize=True), [], OpinionPool(), Rule()
    unlearned = ClosedForm(learns=False)
    seen = np.full(curves.shape, np.nan)  # of all earlier trials
    bests: list[int] = []
    for number, curve in enumerate(curves):
        stopped, stopped_at = False, n_steps
        if len(known) >= 2:
            summary = record.update(known)
            knowledge = StudyKnowledge(summary.scale, summary.target, *record.curves(n_steps, 1.0))
            end = n_steps if np.isfinite(curve).all() else int(np.argmin(np.isfinite(curve)))
            for n in at[at <= end]:
                if curve[n - 1] > knowledge.best:
                    continue
                part = LearningCurve(np.arange(1.0, n + 1.0), curve[:n], n_steps)
                ahead = engine(part, knowledge)
                look = Look(
                    path.name.split("_")[0],
                    name,
                    order,
                    summary.n_completed,
                    n / n_steps,
                    ahead.opinions["similar trials"],
                    ahead.opinions["curve model"],
                    unlearned.p_and_forecast(part, knowledge)[0],
                    normal_score(curve[n - 1], seen[:number, n - 1]),
                    np.log((number + 1.0) / (summary.n_completed + 1.0)),
                    0.5 * np.log((1 + sum(2 * b >= number for b in bests)) / (1 + np.log(2))),
                    bool(curve[-1] > knowledge.best),
                )
                yield look, (part, knowledge)
                threshold = rule.threshold_at(number + 1, part.seen)
                if len(known) >= 3 and ahead.p_beats(knowledge.best) < threshold and not stopped:
                    stopped, stopped_at = True, n
        stopped = stopped and order == "pruned"
        end = stopped_at if stopped else n_steps
        seen[number, :end] = curve[:end]
        if np.isfinite(curve[-1]) and not stopped:
            if all(curve[-1] > t.value for t in known):
                bests.append(number)
            known.append(completed(number, curve))


def normal_score(value: float, others: np.ndarray) -> float:
    """Normal score of a value among others; NaN are not there."""
    others = others[np.isfinite(others)]
    below = np.sum(others < value) + 0.5 * np.sum(others == value)
    return float(ndtri((below + 0.5) / (others.size + 1.0)))


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds, clipped as in the pool."""
    p = np.clip(p, opinion_pool._SUREST, 1 - opinion_pool._SUREST)
    return np.log(p / (1 - p))


def main() -> None:
    """Collect looks, fit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--orders", type=int, default=6, help="orders of each study")
    parser.add_argument("--trials", type=int, default=100, help="trials of an order")
    arguments = parser.parse_args()
    rows = [
        look
        for path in arguments.studies
        for seed in range(arguments.orders)
        for look, _ in looks(path, seed, arguments.trials)
    ]
    source, study, order = (
        np.array([getattr(r, key) for r in rows]) for key in ("source", "study", "order")
    )
    voices = ("p_analogues", "p_ensemble", "p_unlearned")
    keys = ("n_completed", "seen", *voices, "rank", "pruned", "records", "won")
    n, f, p_a, p_e, p_u, rank_score, pruned, records, won = (
        np.array([getattr(r, key) for r in rows], dtype=float) for key in keys
    )
    names, index, counts = np.unique(study, return_inverse=True, return_counts=True)
    weight = 1.0 / counts[index] / len(names)  # every study counts the same
    prior = -np.log(n + 1.0)

    def loss(log_odds: np.ndarray, here: np.ndarray) -> float:
        each = np.logaddexp(0.0, log_odds) - won * log_odds
        return float(np.average(each[here], weights=weight[here]))

    def fitted(features: np.ndarray, here: np.ndarray) -> np.ndarray:
        start = np.zeros(features.shape[1])
        return minimize(lambda b: loss(prior + features @ b, here), start, method="BFGS").x

    everything = np.ones(len(rows), dtype=bool)
    one, fade, a, e, u = np.ones_like(f), np.sqrt(f), logit(p_a), logit(p_e), logit(p_u)
    print(f"{len(rows)} looks at {len(names)} studies in {arguments.orders} orders each")
    print(f"log loss of 1 / (N + 1): {loss(prior, everything):.4f}\n")
    print(
        f"{'voices':26s} {'left-out source':>15s} "
        + " ".join(f"{o:>9s}" for o in ORDERS)
        + "  constants"
    )
    for label, features in (
        ("both", np.c_[one, fade, a + e]),
        ("analogues alone", np.c_[one, fade, a]),
        ("ensemble alone", np.c_[one, fade, e]),
        ("both, nothing learned", np.c_[one, fade, a + u]),
        ("ensemble, nothing learned", np.c_[one, fade, u]),
        ("none, f alone", np.c_[one, fade]),
        ("both and rank", np.c_[one, fade, a + e, rank_score]),
        ("both and pruned", np.c_[one, fade, a + e, pruned]),
        ("both and records", np.c_[one, fade, a + e, records]),
    ):
        predicted = np.empty(len(rows))
        for left_out in np.unique(source):
            there = source == left_out
            predicted[there] = prior[there] + features[there] @ fitted(features, ~there)
        by_order = " ".join(
            f"{loss(predicted, order == o):9.4f}" if np.any(order == o) else f"{'-':>9s}"
            for o in ORDERS
        )
        constants = np.array2string(fitted(features, everything), precision=2)
        print(f"{label:26s} {loss(predicted, everything):15.4f} {by_order}  {constants}")
    pool = OpinionPool()
    shipped = prior + pool.offset + pool.fade * fade + pool.evidence[0] * a + pool.evidence[1] * e
    by_order = " ".join(
        f"{loss(shipped, order == o):9.4f}" if np.any(order == o) else f"{'-':>9s}" for o in ORDERS
    )
    print(
        f"{'both, as shipped':26s} {loss(shipped, everything):15.4f} {by_order}  "
        f"{np.array2string(np.array([pool.offset, pool.fade, pool.evidence[0]]), precision=2)}"
    )
    print("\nboth, fitted without one source:")
    for left_out in np.unique(source):
        constants = fitted(np.c_[one, fade, a + e], source != left_out)
        print(f"  {left_out:12s} {np.array2string(constants, precision=2)}")


if __name__ == "__main__":
    main()
