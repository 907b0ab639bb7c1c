"""What a study's finished trials say together: lengths, scale, target."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from optuna_lcpruner._util.arrays import Array, BoolArray
from optuna_lcpruner.curves.horizon import MIN_TRIALS_TO_JUDGE, TrainingLengths
from optuna_lcpruner.curves.scale import Scale, oriented, spanning
from optuna_lcpruner.posterior.interface import Target

MIN_REPORTS = 2
"""Finite reports a training needs before its curve says anything: one gap between steps."""


_PENALTY = 3.0  # heuristic
"""A value so many times the spread of the reports away from them all is none of a training."""

_MOST_STARTS = 500  # heuristic
"""Trials of which it is compared where they start: the work of a summary stays bounded."""


class MetricProblem(Enum):
    """Why the reported values cannot be compared with the study's best value."""

    MISMATCH = "the returned value is neither the last nor the best reported value"
    NEGATED = "the returned value is minus the reported one"
    WRONG_DIRECTION = (
        "completed trials are best at their first report and end worse, by the study's direction: "
        "is the direction wrong, or is the metric a running mean, or does training overfit from "
        "the start? If it is meant so, give check_metric=False or target='best'"
    )


@dataclass(frozen=True)
class StudySummary:
    """What the finished trials say together; oriented values, larger is better.

    Attributes:
        maximize: The study's direction.
        n_completed: Completed trials with a finite value.
        n_feasible: Of these, those that keep the study's constraints.
        n_told_to_stop: Of all of them, those that were told to stop and returned a value.
        incumbent: Best objective value of the feasible ones, or the ``n_best``-th best; ``-inf``
            where there are not so many.
        incumbent_trial: The number of the first trial that has it; None without any.
        lengths: How long their trainings were.
        scale: 0 is where the study's curves typically start, 1 its best objective value. With
            ``n_best`` above 1 the unit is the same and 1 the ``n_best``-th best value.
        target: Whether the completed trials' values are their last or their best report.
        problem: Why reports and objective value do not belong together, if so.
        starts: First reports of the newest trials with a curve by number, in the metric's units.
    """

    maximize: bool
    n_completed: int
    n_feasible: int
    n_told_to_stop: int
    incumbent: float
    incumbent_trial: int | None
    lengths: TrainingLengths
    scale: Scale | None
    target: Target
    problem: MetricProblem | None
    starts: dict[int, float]

    @classmethod
    def of(cls, table: dict[str, Array], maximize: bool, n_best: int = 1) -> StudySummary:
        """Sum up one row a trial, columns by name, each of shape (n_trials,)."""
        curve, feasible = table["has_curve"] == 1.0, table["feasible"] == 1.0
        value, first, last, best, averages = (
            table[name][curve] for name in ("value", "first", "last", "best", "averages")
        )
        kept = np.sort(table["value"][feasible])[::-1][:n_best]
        incumbent = float(kept[-1]) if kept.size == n_best else -np.inf
        having = table["number"][feasible & (table["value"] == incumbent)]
        typical = _inner(np.concatenate([first, last, table["value"]]))
        target, problem = _relation(value, last, best, averages == 1.0, typical)
        if (
            problem is None
            and target is not Target.BEST
            and _wrong_direction(table["worsens"][curve])
        ):
            problem = MetricProblem.WRONG_DIRECTION
        scale = None
        if np.isfinite(incumbent):
            start = float(np.median(first)) if first.size else incumbent
            start -= float(kept[0]) - incumbent  # the unit is up to the best value
            scale = spanning(start, incumbent, maximize, fallback=typical)
        return cls(
            maximize,
            n_completed=table["value"].size,
            n_feasible=int(np.count_nonzero(feasible)),
            n_told_to_stop=int(np.count_nonzero(table["told_to_stop"])),
            incumbent=incumbent,
            incumbent_trial=int(np.min(having)) if having.size else None,
            lengths=TrainingLengths.of({name: part[curve] for name, part in table.items()}),
            scale=scale,
            target=target,
            problem=problem,
            starts=dict(
                zip(
                    table["number"][curve][-_MOST_STARTS:].astype(int).tolist(),
                    oriented(table["begins"][curve][-_MOST_STARTS:], maximize).tolist(),
                    strict=True,
                )
            ),
        )

    @property
    def n_curves(self) -> int:
        """Completed trials with a curve that can be compared with others."""
        return self.lengths.n_curves


def _inner(values: Array) -> Array:
    """The values between the 10th and the 90th percentile."""
    if values.size == 0:
        return values
    low, high = np.quantile(values, [0.1, 0.9], method="nearest")
    inner: Array = values[(values >= low) & (values <= high)]
    return inner


def _is_penalty(value: Array, last: Array, best: Array) -> BoolArray:
    """Which values are far worse than all that was reported: one and the same in several trials."""
    reported = _inner(np.concatenate([last, best]))
    if reported.size == 0:
        return np.zeros(value.size, dtype=bool)
    far = float(reported.min()) - value > _PENALTY * float(np.ptp(reported))
    return far & (np.count_nonzero(far) > 1 and np.unique(value[far]).size == 1)


def _relation(
    value: Array, last: Array, best: Array, averages: BoolArray, typical: Array
) -> tuple[Target, MetricProblem | None]:
    """Target and, if the returned values fit neither report, what is wrong.

    Equal up to single precision in most of the trials that can tell counts as equal, and so does
    the mean of the last reports; else within a tenth of the study's spread in the median (a last
    evaluation on more data, say). The penalties that failed trials return tell nothing.
    """
    told = ~_is_penalty(value, last, best)
    if np.any(told):
        value, last, best, averages = value[told], last[told], best[told], averages[told]
    if value.size == 0:
        return Target.LAST, None

    def agreement(reported: Array) -> float:
        return float(np.mean(np.isclose(value, reported, rtol=1e-5, atol=0.0)))

    tells = ~np.isclose(last, best, rtol=1e-5, atol=0.0)
    if not np.any(tells):
        target = Target.LAST
    else:
        to_last, to_best = (np.abs(value - r)[tells] for r in (last, best))
        target = Target.BEST if np.median(to_best) < np.median(to_last) else Target.LAST
    reported = best if target is Target.BEST else last
    if value.size < MIN_TRIALS_TO_JUDGE or agreement(reported) >= 0.8:
        return target, None
    if float(np.mean(averages | np.isclose(value, reported, rtol=1e-5, atol=0.0))) >= 0.8:
        return Target.LAST, None
    if agreement(-last) >= 0.8:
        return target, MetricProblem.NEGATED
    spread = float(np.ptp(typical)) if typical.size else 0.0
    if float(np.median(np.abs(value - reported))) <= 0.1 * spread:
        return target, None
    return target, MetricProblem.MISMATCH


def _wrong_direction(worsens: Array) -> bool:
    """Four in five trainings are best at the very start and end worse than they began."""
    judged = worsens[np.isfinite(worsens)]
    return judged.size >= MIN_TRIALS_TO_JUDGE and float(np.mean(judged)) >= 0.8
