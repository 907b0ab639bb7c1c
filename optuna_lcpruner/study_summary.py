"""What a study's finished trials say together: stride, horizon, scale, target."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from optuna_lcpruner.posterior.interface import Target
from optuna_lcpruner.scale import Scale, spanning

Array = NDArray[np.float64]

MIN_TRIALS_TO_JUDGE_METRIC = 3
MIN_TRIALS_TO_JUDGE_DIRECTION = 5


class MetricProblem(Enum):
    """Why the reported values cannot be compared with the study's best value."""

    MISMATCH = "the returned value is neither the last nor the best reported value"
    NEGATED = "the returned value is minus the reported one"
    WRONG_DIRECTION = "the reported values get worse, by the study's direction, as trials train"


@dataclass(frozen=True)
class StudySummary:
    """What the finished trials say together; oriented values, larger is better.

    Attributes:
        maximize: The study's direction.
        n_completed: Completed trials with a finite value.
        incumbent: Best objective value of these; ``-inf`` without any.
        incumbent_trial: The number of the first trial that has it; None without any.
        stride: Typical gap between reports; None before any trial reported twice.
        first_step: Typical first step; None before any trial reported.
        n_steps: The horizon, in the unit of the constructor's ``n_steps``, that completed trials
            show: the 90th percentile of their last steps, so that trainings which were stopped
            early do not shorten it and, among more than ten, a single overlong one does not set
            it. None without any.
        scale: 0 is the median first value of the study, 1 its best objective value.
        target: Whether the completed trials' values are their last or their best report.
        problem: Why reports and objective value do not belong together, if so.
    """

    maximize: bool
    n_completed: int
    incumbent: float
    incumbent_trial: int | None
    stride: float | None
    first_step: float | None
    n_steps: float | None
    scale: Scale | None
    target: Target
    problem: MetricProblem | None

    @classmethod
    def of(cls, table: dict[str, Array], maximize: bool) -> StudySummary:
        """Sum up one row a trial, columns by name, each of shape (n_trials,)."""
        reporting = np.isfinite(table["first"])
        value, last, best = (table[name][reporting] for name in ("value", "last", "best"))
        first = table["first"][reporting]
        gaps = table["gap"][np.isfinite(table["gap"])]
        stride = float(np.median(gaps)) if gaps.size else None
        began = table["first_step"][reporting]
        first_step = float(np.median(began)) if began.size else None
        incumbent = float(np.max(table["value"], initial=-np.inf))
        having = table["number"][table["value"] == incumbent]
        typical = _inner(np.concatenate([first, last, table["value"]]))
        target, problem = _relation(value, last, best, typical)
        if problem is None and _wrong_direction(table["worsens"][reporting]):
            problem = MetricProblem.WRONG_DIRECTION
        scale = None
        if np.isfinite(incumbent):
            start = float(np.median(first)) if first.size else incumbent
            scale = spanning(start, incumbent, maximize, fallback=typical)
        return cls(
            maximize,
            table["value"].size,
            incumbent,
            int(np.min(having)) if having.size else None,
            stride,
            first_step,
            shown_n_steps(first_step, table["last_step"][reporting], stride),
            scale,
            target,
            problem,
        )


def _inner(values: Array) -> Array:
    """The values between the 10th and the 90th percentile."""
    if values.size == 0:
        return values
    low, high = np.quantile(values, [0.1, 0.9], method="nearest")
    inner: Array = values[(values >= low) & (values <= high)]
    return inner


def shown_n_steps(first_step: float | None, last_step: Array, stride: float | None) -> float | None:
    """The horizon that trainings show, see :class:`StudySummary`.

    Args:
        first_step: Their typical first step.
        last_step: Their last steps, shape (n_trials,).
        stride: Typical gap between reports.
    """
    if last_step.size == 0:
        return None
    end = float(np.quantile(last_step, 0.9, method="higher"))
    gap, first = stride or 1.0, first_step or 0.0
    return end + gap - (first if first <= gap else 0.0)


def _relation(
    value: Array, last: Array, best: Array, typical: Array
) -> tuple[Target, MetricProblem | None]:
    """Target and, if the returned values fit neither report, what is wrong.

    Equal up to single precision in most of the trials that can tell counts as equal; else within a
    tenth of the study's spread in the median (a last evaluation on more data, say).
    """
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
    if value.size < MIN_TRIALS_TO_JUDGE_METRIC or agreement(reported) >= 0.8:
        return target, None
    if agreement(-last) >= 0.8:
        return target, MetricProblem.NEGATED
    spread = float(np.ptp(typical)) if typical.size else 0.0
    if float(np.median(np.abs(value - reported))) <= 0.1 * spread:
        return target, None
    return target, MetricProblem.MISMATCH


def _wrong_direction(worsens: Array) -> bool:
    """Four in five trainings are best at the very start and end worse than they began."""
    judged = worsens[np.isfinite(worsens)]
    return judged.size >= MIN_TRIALS_TO_JUDGE_DIRECTION and float(np.mean(judged)) >= 0.8
