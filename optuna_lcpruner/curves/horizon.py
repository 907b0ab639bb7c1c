"""How long a training is: as a trial announces it, as a user gives it, as completed trials show it.

Where these are at odds the user's number holds, then the trial's own. Completed trials that came to
rest far before it say that it is an upper bound; what they contradict is said once, in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from optuna.trial import BaseTrial

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner._util.validation import integer
from optuna_lcpruner.curves.learning_curve import LearningCurve, StepMap, typical_gap
from optuna_lcpruner.curves.scale import typical_start

N_STEPS_ATTRIBUTE = "lcpruner_n_steps"
"""Trial user attribute by which an objective announces its horizon."""


def set_n_steps(trial: BaseTrial, n_steps: int) -> None:
    """Announce the steps of this trial's full training, before its first report.

    Where trainings differ in length, say because the number of epochs is a hyper-parameter, each
    is then judged by its own end, and completed trainings of other lengths are compared with it by
    the share of the training done. ``LearningCurvePruner(n_steps=...)`` overrides it.

    Announced after some reports it counts from then on; until then the trial is judged by the
    length that completed trials show, or not at all if none has completed. Writes the trial's user
    attribute ``lcpruner_n_steps``.

    Args:
        trial: The running trial.
        n_steps: At least 1, in the unit of the steps given to ``trial.report``: the number of
            epochs if these are epochs, of iterations if these are iterations.

    Raises:
        TypeError: If ``n_steps`` is no integer.
        ValueError: If it is less than 1.

    Example:
        >>> from optuna_lcpruner import set_n_steps
        >>> def objective(trial):
        ...     epochs = trial.suggest_int("epochs", 20, 80)
        ...     set_n_steps(trial, epochs)
        ...     ...  # train, report, should_prune
    """
    trial.set_user_attr(N_STEPS_ATTRIBUTE, integer("n_steps", n_steps, 1))


def announced_n_steps(user_attrs: object) -> float | None:
    """The horizon in the trial's user attributes, if it is a positive number."""
    value = user_attrs.get(N_STEPS_ATTRIBUTE) if isinstance(user_attrs, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return None
    try:
        n_steps = float(value)
    except OverflowError:
        return None
    return n_steps if np.isfinite(n_steps) and n_steps > 0 else None


MIN_TRIALS_TO_JUDGE = 3  # heuristic
"""Completed curves that it takes to say that all of them have something in common."""


@dataclass(frozen=True)
class AtItsEnd:
    """Why there is nothing left to forecast.

    Attributes:
        is_longer: Whether the training goes on beyond its end.
        detail: Where it is, in words.
    """

    is_longer: bool
    detail: str


@dataclass(frozen=True)
class TrainingLengths:
    """What the completed trials of a study say of the length of a training.

    All but the first are None, or False, without any curve.

    Attributes:
        n_curves: Completed trials with a curve that can be compared with others.
        stride: Typical gap between reports.
        first_step: Typical first step.
        n_steps: The horizon that they show, see :func:`shown_n_steps`.
        longest: Last step of the longest curve.
        median_last_step: Median last step.
        moving: Whether most of the curves were still getting better when they ended.
        counter_goes_on: Whether each curve begins at a later step than the one before ended.
    """

    n_curves: int
    stride: float | None
    first_step: float | None
    n_steps: float | None
    longest: float | None
    median_last_step: float | None
    moving: bool
    counter_goes_on: bool

    @classmethod
    def of(cls, curves: Mapping[str, Array]) -> TrainingLengths:
        """Sum up curves.

        Args:
            curves: One row a curve, columns by name, each of shape (n,): ``number``,
                ``first_step``, ``last_step``, ``gap`` and what :func:`most_moving` takes.
        """
        began, ended = curves["first_step"], curves["last_step"]
        n = ended.size
        if n == 0:
            return cls(0, None, None, None, None, None, False, False)
        stride, first_step = float(np.median(curves["gap"])), float(np.median(began))
        by_number = np.argsort(curves["number"], kind="stable")
        goes_on = np.mean(began[by_number][1:] > ended[by_number][:-1]) > 0.8 if n > 1 else False
        return cls(
            n,
            stride,
            first_step,
            shown_n_steps(first_step, ended, stride),
            longest=float(np.max(ended)),
            median_last_step=float(np.median(ended)),
            moving=most_moving(curves),
            counter_goes_on=n >= MIN_TRIALS_TO_JUDGE and bool(goes_on),
        )

    def curve(
        self,
        steps: IntArray,
        values: Array,
        first_step: int,
        given: int | None,
        announced: float | None,
    ) -> LearningCurve | AtItsEnd | None:
        """Return a training's curve, or that it is at its end; None if its length is unknown.

        Args:
            steps: Its steps with finite values, increasing, shape (n,).
            values: These, oriented, shape (n,).
            first_step: Its first reported step, finite or not.
            given: Steps of a full training, as the user gave them.
            announced: As the trial announced them.
        """
        step = int(steps[-1])
        n_steps = given or announced or self.n_steps
        if n_steps is None:
            return None
        if given is not None:
            n_steps = self.horizon_of(n_steps, step)
        step_map = self.step_map(steps, first_step)
        positions = step_map.position(steps)
        horizon = step_map.horizon(n_steps)
        begins_at_0 = step_map.offset == 1.0
        is_last = step >= n_steps - begins_at_0  # after a gap shorter than the others, too
        if positions[-1] > horizon and step > n_steps:
            shown = f"n_steps={n_steps:g}" if given else f"the {n_steps:g} of a training"
            return AtItsEnd(
                True,
                f"step {step} is beyond {shown}; is it in the unit of the steps, and does the step "
                "counter begin anew with each trial?",
            )
        if positions[-1] >= horizon or is_last:
            return AtItsEnd(False, f"report {positions[-1]:g} of {horizon}")
        return LearningCurve(positions, values, horizon, step_map.stride)

    def step_map(self, steps: IntArray, first_step: int) -> StepMap:
        """Return the map for one training among others: whoever reports more often sets the unit.

        Args:
            steps: Its steps with finite values, increasing, shape (n,), n >= 1.
            first_step: Its first reported step, finite or not.
        """
        gaps = [gap for gap in (self.stride, typical_gap(steps)) if gap is not None]
        began = first_step if self.first_step is None else min(first_step, self.first_step)
        return StepMap.of(steps, min(gaps, default=None), began)

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
        if self.n_curves < MIN_TRIALS_TO_JUDGE or self.longest is None:
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


def shown_n_steps(first_step: float | None, last_step: Array, stride: float | None) -> float | None:
    """Return the horizon that trainings show, in the unit of ``n_steps``; None without any.

    That is the 90th percentile of their last steps, so that trainings which were stopped early do
    not shorten it and, among more than ten, a single overlong one does not set it.

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


def most_moving(endings: Mapping[str, Array]) -> bool:
    """Return whether most of some trainings were getting better when they ended.

    Each may hide in its noise that it was; the medians of all of them together do not.

    Args:
        endings: The columns ``moving``, ``before``, ``late`` and ``whole`` of their
            :class:`Ending`, each of shape (n,).
    """
    if endings["moving"].size and np.mean(endings["moving"]) > 0.5:
        return True
    told = np.isfinite(endings["late"]) & (endings["whole"] > 0.0)
    before, late, whole = (endings[name][told] for name in ("before", "late", "whole"))
    n = late.size
    # More than two standard deviations of a fair coin's heads got better in the last third.
    if n < MIN_TRIALS_TO_JUDGE or np.count_nonzero(late > 0.0) < n / 2 + math.sqrt(n):
        return False
    return _much_to_come(float(np.median(before / whole)), float(np.median(late / whole)), 1.0)


def _much_to_come(before: float, late: float, whole: float) -> bool:
    return before <= late or late**2 / (before - late) > _STILL_TO_COME * whole


_REPORTS_TO_TELL = 5  # heuristic
