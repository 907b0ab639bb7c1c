"""What stands before a forecast: which reports are looked at, and reasons to make none. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from optuna_lcpruner._util.arrays import Array, BoolArray, IntArray
from optuna_lcpruner.curves.horizon import AtItsEnd, announced_n_steps
from optuna_lcpruner.curves.learning_curve import MAX_KNOTS, LearningCurve
from optuna_lcpruner.decision.decision import Decision, Reason, abstain
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.study.summary import MIN_REPORTS, MetricProblem, StudySummary

_FEWEST_KNOTS = 3  # heuristic
"""Knots of a long training that it takes: where it begins its reports change most within one."""

Warn = Callable[[str, str], None]
"""Called with ``(topic, message)`` about what should be said once."""


@dataclass(frozen=True)
class Reports:
    """A trial's reports in the order of their steps, the newest of which is looked at.

    Attributes:
        steps: Their steps, shape (n,).
        values: Their values as reported, shape (n,).
        finite: Which of them are finite, shape (n,).
    """

    steps: IntArray
    values: Array
    finite: BoolArray

    @property
    def step(self) -> int:
        """The newest step."""
        return int(self.steps[-1])

    @property
    def n_finite(self) -> int:
        """How many of them are finite."""
        return int(np.count_nonzero(self.finite))


@dataclass(frozen=True)
class Preconditions:
    """The settings of :class:`~optuna_lcpruner.LearningCurvePruner` that need no forecast.

    Attributes:
        n_steps: Steps of a full training; None: as announced or shown by completed trials.
        n_startup_trials: Completed trials needed.
        n_warmup_steps: The first step that may be looked at.
        interval_steps: Steps between two looks.
        nan_policy: ``"prune"`` or ``"ignore"``.
        check_metric: Whether reports that do not fit the returned values or the study's direction
            keep trials from being pruned.
        prune_infeasible: Whether a broken constraint stops a trial.
        n_best: How many trials count as the best.
    """

    n_steps: int | None
    n_startup_trials: int
    n_warmup_steps: int
    interval_steps: int
    nan_policy: str
    check_metric: bool = True
    prune_infeasible: bool = False
    n_best: int = 1

    def __post_init__(self) -> None:
        if self.n_steps is not None and self.n_warmup_steps > self.n_steps:
            raise ValueError(
                f"n_warmup_steps={self.n_warmup_steps} is beyond n_steps={self.n_steps}: "
                "nothing would ever be pruned."
            )

    def looks(self, steps: IntArray) -> BoolArray:
        """Which of the ordered steps are looks: the first report of each interval after warm-up."""
        interval = (steps - self.n_warmup_steps) // self.interval_steps
        first = np.ones(steps.size, dtype=bool)
        first[1:] = interval[1:] > interval[:-1]
        return first & (steps >= self.n_warmup_steps)

    def without_storage(self, reports: Reports, is_look: bool) -> Decision | None:
        """The decision that the trial's reports alone make, if they do."""
        step = reports.step
        if step < self.n_warmup_steps:
            return abstain(
                Reason.WARM_UP, f"step {step} is before n_warmup_steps={self.n_warmup_steps}", step
            )
        if not reports.finite[-1] and self.nan_policy == "prune":
            return abstain(Reason.DIVERGED, f"{reports.values[-1]} reported at step {step}", step)
        if not is_look:
            return abstain(Reason.BETWEEN_LOOKS, f"interval_steps={self.interval_steps}", step)
        if reports.n_finite < MIN_REPORTS:
            return abstain(Reason.TOO_FEW_REPORTS, f"{reports.n_finite} of {MIN_REPORTS}", step)
        return None

    def counts_down(self, reported: Sequence[int], warn: Warn) -> Decision | None:
        """The decision about a trial whose steps count down, if they do.

        Its curve, in the order of its steps, runs backwards.

        Args:
            reported: Its steps in the order they were reported.
            warn: Told if three or more count down; two may have arrived in the wrong order.
        """
        if len(reported) < MIN_REPORTS or any(b >= a for a, b in pairwise(reported)):
            return None
        if len(reported) > MIN_REPORTS:
            warn(
                "steps",
                f"steps count down ({', '.join(map(str, reported[:3]))}, ...), so that curves run "
                "backwards: report a step that grows as training goes on. No such trial is pruned "
                "by forecast.",
            )
        detail = f"from {reported[0]} to {reported[-1]}; report a step that grows"
        return abstain(Reason.STEPS_COUNT_DOWN, detail, reported[-1])

    def with_study(self, summary: StudySummary, step: int, warn: Warn) -> Decision | None:
        """The decision that the completed trials make, if they do."""
        doubt = summary.lengths.doubt_about(self.n_steps)
        if doubt is not None:
            warn("length", doubt)
        if summary.n_told_to_stop:
            warn(
                "told to stop",
                "a trial that was told to stop returned a value all the same. Such trials are "
                "values to beat, but no full trainings: raise optuna.TrialPruned where "
                "should_prune() is true.",
            )
        if summary.n_completed == 0:
            return abstain(Reason.NO_BEST_VALUE, "no completed trial yet", step)
        if summary.n_feasible == 0:
            return abstain(
                Reason.NO_BEST_VALUE,
                f"none of {summary.n_completed} completed trials keeps the constraints",
                step,
            )
        if summary.n_feasible < self.n_best:  # whatever the trial becomes, it is one of the best
            return abstain(
                Reason.NO_BEST_VALUE, f"{summary.n_feasible} of n_best={self.n_best}", step
            )
        if summary.n_curves < self.n_startup_trials:
            without = summary.n_completed - summary.n_curves
            detail = f"{summary.n_curves} of n_startup_trials={self.n_startup_trials} completed"
            if without:
                detail += f" with a curve, {without} without"
            return abstain(Reason.STARTUP, detail, step)
        if summary.lengths.counter_goes_on:
            return abstain(Reason.COUNTER_GOES_ON, "let it begin anew with each trial", step)
        if summary.problem is not None and self.check_metric:
            warn("metric", f"no trial is pruned by forecast, because {summary.problem.value}.")
            reason = (
                Reason.WRONG_DIRECTION
                if summary.problem is MetricProblem.WRONG_DIRECTION
                else Reason.METRIC_MISMATCH
            )
            return abstain(reason, summary.problem.value, step)
        return None

    def curve(
        self,
        reports: Reports,
        values: Array,
        user_attrs: Mapping[str, Any],
        summary: StudySummary,
        warn: Warn,
    ) -> LearningCurve | Decision:
        """The curve to forecast, or why there is none.

        Args:
            reports: The trial's reports.
            values: The oriented values of the finite ones, shape (n,).
            user_attrs: The trial's user attributes; one may announce the horizon.
            summary: What the completed trials say.
            warn: Told if the horizon is unknown.
        """
        steps, first_step = reports.steps[reports.finite], int(reports.steps[0])
        announced = announced_n_steps(user_attrs)
        curve = summary.lengths.curve(steps, values, first_step, self.n_steps, announced)
        if curve is None:
            warn(
                "horizon",
                "the length of a training is unknown: pass n_steps=... or call "
                "set_n_steps(trial, ...) in the objective.",
            )
            return abstain(Reason.UNKNOWN_HORIZON, "pass n_steps", int(steps[-1]))
        if isinstance(curve, AtItsEnd):
            reason = Reason.LONGER if curve.is_longer else Reason.BEYOND_HORIZON
            return abstain(reason, curve.detail, int(steps[-1]))
        if curve.horizon > MAX_KNOTS and curve.n_whole_knots < _FEWEST_KNOTS:
            seen = f"{curve.n_whole_knots} of {_FEWEST_KNOTS} parts"
            detail = f"{seen} of a training of {curve.horizon} reports, which has {MAX_KNOTS}"
            return abstain(Reason.TOO_FEW_REPORTS, detail, int(steps[-1]))
        return curve

    def whole_trainings(self, knowledge: StudyKnowledge, step: int) -> Decision | None:
        """The decision for want of completed trainings that went as far as this one may, if so."""
        n = knowledge.final.size
        if n >= self.n_startup_trials:
            return None
        return abstain(
            Reason.STARTUP,
            f"{n} of n_startup_trials={self.n_startup_trials} completed trainings show how one of "
            "this length ends",
            step,
        )

    def earlier(self, curve: LearningCurve, steps: IntArray, n: int) -> list[LearningCurve]:
        """The curve as it was at the n looks before this one, newest first.

        Of a long training looks count that saw another part of it.
        """
        if n == 0:
            return []
        looks = np.flatnonzero(self.looks(steps)[:-1])[::-1]
        is_long = curve.horizon > MAX_KNOTS
        if is_long:  # the last one on each knot
            knots = curve.knots.nearest(curve.positions[looks])
            looks = looks[np.r_[True, knots[1:] < knots[:-1]]] if looks.size else looks
        found = [curve]
        for i in looks[looks + 1 >= MIN_REPORTS]:
            before = LearningCurve(
                curve.positions[: i + 1], curve.values[: i + 1], curve.horizon, curve.stride
            )
            if not is_long or _FEWEST_KNOTS <= before.n_whole_knots < found[-1].n_whole_knots:
                found.append(before)
            if len(found) > n:
                break
        return found[1:]
