"""What a study's finished trials say together: stride, horizon, scale, target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from optuna_lcpruner.curves.scale import Scale, spanning, typical_start
from optuna_lcpruner.posterior.interface import Target

Array = NDArray[np.float64]

MIN_REPORTS = 2
"""Finite reports a training needs before its curve says anything."""

MIN_TRIALS_TO_JUDGE_METRIC = 3
MIN_TRIALS_TO_JUDGE_DIRECTION = 5


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
        n_curves: Of all of them, those with a curve that can be compared with others.
        n_told_to_stop: Of all of them, those that were told to stop and returned a value.
        incumbent: Best objective value of the feasible ones; ``-inf`` without any.
        incumbent_trial: The number of the first trial that has it; None without any.
        stride: Typical gap between reports; None without any curve.
        first_step: Typical first step; None without any curve.
        n_steps: The horizon, in the unit of the constructor's ``n_steps``, that completed trials
            show: the 90th percentile of their last steps, so that trainings which were stopped
            early do not shorten it and, among more than ten, a single overlong one does not set
            it. None without any.
        longest: Last step of the longest curve; None without any.
        median_last_step: Median last step of the curves; None without any.
        moving: Whether most of the curves were still getting better when they ended.
        counter_goes_on: Whether each curve begins at a later step than the one before ended.
        scale: 0 is where the study's curves typically start, 1 its best objective value.
        target: Whether the completed trials' values are their last or their best report.
        problem: Why reports and objective value do not belong together, if so.
    """

    maximize: bool
    n_completed: int
    n_feasible: int
    n_curves: int
    n_told_to_stop: int
    incumbent: float
    incumbent_trial: int | None
    stride: float | None
    first_step: float | None
    n_steps: float | None
    longest: float | None
    median_last_step: float | None
    moving: bool
    counter_goes_on: bool
    scale: Scale | None
    target: Target
    problem: MetricProblem | None

    @classmethod
    def of(cls, table: dict[str, Array], maximize: bool) -> StudySummary:
        """Sum up one row a trial, columns by name, each of shape (n_trials,)."""
        curve, feasible = table["has_curve"] == 1.0, table["feasible"] == 1.0
        value, first, last, best = (
            table[name][curve] for name in ("value", "first", "last", "best")
        )
        began, ended = table["first_step"][curve], table["last_step"][curve]
        gaps = table["gap"][curve]
        stride = float(np.median(gaps)) if gaps.size else None
        first_step = float(np.median(began)) if began.size else None
        incumbent = float(np.max(table["value"][feasible], initial=-np.inf))
        having = table["number"][feasible & (table["value"] == incumbent)]
        typical = _inner(np.concatenate([first, last, table["value"]]))
        target, problem = _relation(value, last, best, typical)
        if (
            problem is None
            and target is not Target.BEST
            and _wrong_direction(table["worsens"][curve])
        ):
            problem = MetricProblem.WRONG_DIRECTION
        scale = None
        if np.isfinite(incumbent):
            start = float(np.median(first)) if first.size else incumbent
            scale = spanning(start, incumbent, maximize, fallback=typical)
        by_number = np.argsort(table["number"][curve], kind="stable")
        return cls(
            maximize,
            n_completed=table["value"].size,
            n_feasible=int(np.count_nonzero(feasible)),
            n_curves=value.size,
            n_told_to_stop=int(np.count_nonzero(table["told_to_stop"])),
            incumbent=incumbent,
            incumbent_trial=int(np.min(having)) if having.size else None,
            stride=stride,
            first_step=first_step,
            n_steps=shown_n_steps(first_step, ended, stride),
            longest=float(np.max(ended)) if ended.size else None,
            median_last_step=float(np.median(ended)) if ended.size else None,
            moving=most_moving(*(table[name][curve] for name in ("moving", *ENDING))),
            counter_goes_on=value.size >= MIN_TRIALS_TO_JUDGE_METRIC
            and bool(np.mean(began[by_number][1:] > ended[by_number][:-1]) > 0.8),
            scale=scale,
            target=target,
            problem=problem,
        )

    def horizon_of(self, n_steps: float, step: float) -> float:
        """Return the steps to which a training is forecast.

        That is ``n_steps``, a training's full length. Where the completed trainings came to rest
        and ended before half of it, ``n_steps`` is how long they might have taken: then it is where
        they ended, doubled as often as it takes for a training that goes on for longer.

        Args:
            n_steps: Steps of a full training, as the user gave them.
            step: The newest step of the training to forecast.
        """
        ends = self.n_steps
        if ends is None or ends >= 0.5 * n_steps or self.moving:
            return n_steps
        while step > 0.8 * ends and ends < n_steps:
            ends *= 2.0
        return min(ends, n_steps)

    def doubt_about(self, n_steps: float | None) -> str | None:
        """Return what looks wrong about the length of a training, to be said once; else None.

        Args:
            n_steps: Steps of a full training, as the user gave them; None if they did not.
        """
        if self.n_curves < MIN_TRIALS_TO_JUDGE_METRIC or self.longest is None:
            return None
        if self.counter_goes_on:
            return (
                "each completed trial begins at a later step than the one before ended: does the "
                "step counter begin anew with each trial?"
            )
        if n_steps is None:
            return None
        if self.median_last_step is not None and self.median_last_step > 1.5 * n_steps:
            return (
                f"completed trials end at step {self.median_last_step:g}, well beyond "
                f"n_steps={n_steps:g}: is it in the unit of your steps? No trial is pruned by "
                "forecast beyond it."
            )
        reached = self.longest + (self.stride or 1.0)
        if self.moving and reached < 0.9 * n_steps:
            return (
                f"n_steps={n_steps:g} is longer than any training that has completed, the longest "
                f"ends at step {self.longest:g} and most were still getting better: what lies "
                "beyond their ends is unknown, so they do not count as full trainings."
            )
        if reached < 0.5 * n_steps:
            return (
                f"all completed trials end by step {self.longest:g}, far below "
                f"n_steps={n_steps:g}, and count as trainings that ended there: is n_steps in the "
                "unit of your steps?"
            )
        return None


_STILL_TO_COME = 0.05  # heuristic


@dataclass(frozen=True)
class Ending:
    """How a training ended: the gains of its last two thirds.

    Attributes:
        before: Gain in the second third; NaN for fewer than five reports.
        late: Gain in the last third; NaN likewise.
        whole: Gain from the start, see :func:`~optuna_lcpruner.curves.scale.typical_start`, to the
        end. noise: Standard deviation of a report, from second differences.
    """

    before: float
    late: float
    whole: float
    noise: float

    @classmethod
    def of(cls, values: Array) -> Ending:
        """Measure the end of a training.

        Args:
            values: Oriented values, shape (n,), n >= 1.
        """
        n = values.size
        if n < _REPORTS_TO_TELL:
            return cls(np.nan, np.nan, float(values[-1] - values[0]), 0.0)
        third, width = (n - 1) // 3, max(1, n // 16)
        early, middle, end = (
            float(np.mean(values[max(0, n - k * third - width) : n - k * third])) for k in (2, 1, 0)
        )
        with np.errstate(over="ignore"):
            noise = float(np.std(np.diff(values[n // 2 :], 2))) / math.sqrt(6.0 * width)
        return cls(middle - early, end - middle, end - typical_start(values), noise)

    @property
    def moving(self) -> bool:
        """Whether the training was still getting better.

        It was if what it would have gained by going on for ever, as an exponential approach through
        its values after one, two and three thirds says (Aitken's extrapolation), is more than a
        twentieth of what it gained from start to end, and if its last third brought more than
        noise. Of fewer than five reports the first and the last tell.
        """
        if math.isnan(self.late):
            return self.whole > 0.0
        return self.late > 3.0 * self.noise and _much_to_come(self.before, self.late, self.whole)


ENDING = ("before", "late", "whole")
"""The columns of a table of trials that :func:`moving_together` takes."""


def most_moving(moving: Array, before: Array, late: Array, whole: Array) -> bool:
    """Return whether most of some trainings were moving: by each by itself, or by all together.

    Args:
        moving: Whether each was by itself, shape (n,).
        before: As for :func:`moving_together`.
        late: Likewise.
        whole: Likewise.
    """
    if moving.size == 0:
        return False
    return float(np.mean(moving)) > 0.5 or moving_together(before, late, whole)


def moving_together(before: Array, late: Array, whole: Array) -> bool:
    """Return whether trainings were still getting better when they ended, by all of them together.

    Each may hide in its noise that it was; their medians do not.

    Args:
        before: Gains of each in the second third, shape (n,); NaN where it is too short to tell.
        late: Gains in the last third, shape (n,).
        whole: Gains from start to end, shape (n,).
    """
    told = np.isfinite(late) & (whole > 0.0)
    before, late, whole = before[told], late[told], whole[told]
    n = late.size
    # More than two standard deviations of a fair coin's heads got better in the last third.
    if n < MIN_TRIALS_TO_JUDGE_METRIC or np.count_nonzero(late > 0.0) < n / 2 + math.sqrt(n):
        return False
    return _much_to_come(float(np.median(before / whole)), float(np.median(late / whole)), 1.0)


def _much_to_come(before: float, late: float, whole: float) -> bool:
    return before <= late or late**2 / (before - late) > _STILL_TO_COME * whole


_REPORTS_TO_TELL = 5


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
