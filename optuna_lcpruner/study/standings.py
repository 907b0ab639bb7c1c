"""Where a trial stands among all that came as far: running, completed and stopped ones.

Reports are compared step by step; the trial asked about is given the better of its last two, so
that one report that is far off does not stop it. A trial that was stopped before a step counts as
behind all that reached it. Those that break a constraint, that announce another length, whose steps
count down, that began later or that returned a value after a single report are no measure. Of a
trial that goes on where another stopped only the newer one is, once it has begun.

A worker that is killed leaves its trial running for ever. Such a trial is no rival: one that has
been running for five times as long as its reports take, or as long as three whole trainings, or
that has been seen without a new report for as long as five take.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.arrays import Array, BoolArray, IntArray
from optuna_lcpruner._util.attributes import PACE_ATTRIBUTE
from optuna_lcpruner.curves.horizon import announced_n_steps
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior import early_ranks
from optuna_lcpruner.study.continuation import n_own_reports, resumed_from
from optuna_lcpruner.study.feasibility import is_feasible

_RATIO = 1.3  # heuristic
_MOST_WORSE = 0.8  # heuristic
_ENOUGH = 6  # heuristic
"""Others it takes for a rank to count beside forecasts."""

_CROWD = 5  # heuristic
"""Trials it takes for a rank to say something."""

_SLOWEST, MOST_TRAININGS = 5.0, 3.0  # heuristic
"""A running trial so many times slower than others, or that takes so long, is taken for dead."""

_SHORTEST = 10.0  # heuristic
"""Seconds in which no trial is taken for dead."""

_FIRST = 1
"""Index of the first report that counts: often one is made before training has begun."""


def is_compared(position: float, before: float) -> bool:
    """Return whether trials are compared at a report: from the third on, ever more rarely.

    Args:
        position: Position of the report.
        before: Position of the report before.
    """
    if position < 3.0:
        return False
    k = math.floor(math.log(position) / math.log(_RATIO))
    return max(3, math.ceil(_RATIO**k)) > before or position >= math.ceil(_RATIO ** (k + 1))


@dataclass(frozen=True)
class Standing:
    """Where a trial stands at a step.

    Attributes:
        n_ahead: Trials that were better at this step.
        n: Others compared at this step; those that had been stopped before are among them.
        step: The step.
        n_rivals: Others that are under way or have completed.
        p_best: P that it ends better than all of these; with ``n_best`` above 1, among the best.
        p_beats_completed: The same of those of them that have completed; None where none has, or
            few are compared.
    """

    n_ahead: int
    n: int
    step: int
    n_rivals: int
    p_best: float
    p_beats_completed: float | None

    def __str__(self) -> str:
        return f"{self.n_ahead} of {self.n} were better at step {self.step}"


_ROW = np.dtype(
    [
        ("state", np.int64),
        ("length", np.float64),  # the steps that it announces, NaN if it does not
        ("counts", np.bool_),  # as a measure for others
        ("last", np.int64),  # last step with a finite report
        ("start", np.float64),  # first finite report, larger is better
        ("n", np.int64),  # reports of its own
        ("began", np.float64),  # seconds since the epoch; NaN if it does not say, or is a replay
        ("pace", np.float64),  # seconds a report took, once it has ended; NaN if it does not say
        ("changed", np.float64),  # when it was seen with these reports first
        ("moves", np.bool_),  # whether it was seen with fewer before
    ]
)
"""What is kept of a trial."""


class _Column:
    """The finite reports at a step, larger is better."""

    def __init__(self) -> None:
        self._by_number: dict[int, float] = {}
        self._arrays: tuple[IntArray, Array] | None = None

    def __contains__(self, number: int) -> bool:
        return number in self._by_number

    def get(self, number: int) -> float | None:
        """Return the report of a trial."""
        return self._by_number.get(number)

    def put(self, number: int, value: float) -> None:
        """Add the report of a trial."""
        if self._by_number.get(number) != value:
            self._by_number[number] = value
            self._arrays = None

    def by_number(self, counts: BoolArray) -> Array:
        """Return the reports of those trials that count, NaN for the others, by number."""
        if self._arrays is None:
            n = len(self._by_number)
            self._arrays = (
                np.fromiter(self._by_number, np.int64, n),
                np.fromiter(self._by_number.values(), float, n),
            )
        numbers, values = self._arrays
        every = np.full(counts.size, math.nan)
        every[numbers] = values
        every[~counts] = math.nan
        return every


class Standings:
    """The finite reports of a study's trials by step.

    Args:
        maximize: The study's direction.
        by_length: Whether only trials that announce the same length are compared.
        n_best: How many trials count as the best.
    """

    def __init__(self, maximize: bool, by_length: bool, n_best: int = 1) -> None:
        self._n_best = n_best
        self._sign = 1.0 if maximize else -1.0
        self._by_length = by_length
        self._taken: dict[int, tuple[int, TrialState]] = {}  # number -> reports, state
        self._rows = np.zeros(0, _ROW)  # by number
        self._columns: dict[int, _Column] = {}

    def update(self, trials: Iterable[FrozenTrial], time: float) -> None:
        """Take in what trials have reported since they were taken in last.

        Args:
            trials: The trials.
            time: When they were read, in seconds since the epoch.
        """
        for trial in trials:
            now = len(trial.intermediate_values), trial.state
            before = self._taken.get(trial.number)
            if before != now:
                self._taken[trial.number] = now
                self._add(trial, time, before is not None and 0 < before[0] < now[0])

    def _add(self, trial: FrozenTrial, time: float, moves: bool) -> None:
        number, steps = trial.number, list(trial.intermediate_values)
        if number >= self._rows.size:
            more = np.zeros(max(number + 1 - self._rows.size, self._rows.size), _ROW)
            self._rows = np.concatenate([self._rows, more])
        finite = []
        for step in sorted(steps):
            value = self._sign * trial.intermediate_values[step]
            if math.isfinite(value):
                finite.append(step)
                self._columns.setdefault(step, _Column()).put(number, value)
        length = announced_n_steps(trial.user_attrs)
        n, is_told = n_own_reports(trial), PACE_ATTRIBUTE in trial.user_attrs
        counts_down = len(steps) > 1 and all(b < a for a, b in pairwise(steps))
        only_ended = trial.state is TrialState.COMPLETE and len(finite) == 1
        waits = trial.state is TrialState.WAITING  # its reports are another trial's
        point = resumed_from(trial)
        if point is not None and point.number < number and not waits:
            column = self._columns.get(point.step)
            if column is not None and column.get(point.number) == column.get(number):
                self._rows["counts"][point.number] = False
        self._rows[number] = (
            trial.state.value,
            math.nan if length is None else length,
            bool(finite) and not (counts_down or only_ended or waits) and is_feasible(trial),
            finite[-1] if finite else 0,
            self._sign * trial.intermediate_values[finite[0]] if finite else math.nan,
            n,
            trial.datetime_start.timestamp() if trial.datetime_start and not is_told else math.nan,
            trial.duration.total_seconds() / n if trial.duration and n else math.nan,
            time,
            moves,
        )

    def standing(
        self, number: int, curve: LearningCurve, steps: IntArray, check_metric: bool, now: float
    ) -> Standing | None:
        """Compare a trial with all that came as far.

        Args:
            number: The trial's number.
            curve: Its curve.
            steps: The steps of the curve's values, shape (n,).
            check_metric: Whether to say nothing where nearly all trials get worse: the direction
                may be wrong, or another metric be reported than returned.
            now: The time, in seconds since the epoch.

        Returns:
            None where comparing says nothing.
        """
        rows = self._rows
        counts = rows["counts"].copy()
        if self._by_length:
            length = rows["length"]
            counts &= (length == length[number]) | (np.isnan(length) & np.isnan(length[number]))
        if not counts[number]:
            return None
        compared = _Compared(rows, counts, self._columns)
        step = int(steps[-1])
        at = compared.at(step)
        worse = int(np.count_nonzero(at.values < rows["start"]))
        if check_metric and worse > _MOST_WORSE * at.n_reported:
            return None
        weights = early_ranks.weights_of_kappa(list(self._moves(curve, steps, counts)))
        own = float(max(curve.values[-2:]))
        others = np.delete(at.values, number)
        below = np.count_nonzero(others < own) + 0.5 * np.count_nonzero(others == own)
        z = float(early_ranks.normal_score(at.n_stopped + below, at.n - 1))
        completed = rows["state"] == TrialState.COMPLETE.value
        running = rows["state"] == TrialState.RUNNING.value
        under_way = counts & (completed | (running & ~self._is_dead(number, curve.horizon, now)))
        under_way[number] = False
        rivals = np.flatnonzero(under_way)
        scores, at_steps = compared.newest_ranks(rivals)
        positions = curve.positions[-1] + (at_steps - step) / curve.stride
        seen = np.clip(positions, 1.0, curve.horizon) / curve.horizon
        p = early_ranks.p_best(z, curve.seen, scores, seen, weights, self._n_best)
        have_completed, of_completed = completed[rivals], None
        if have_completed.any() and at.n > _ENOUGH:
            of_completed = early_ranks.p_best(
                z, curve.seen, scores[have_completed], seen[have_completed], weights, self._n_best
            )
        n_ahead = int(np.count_nonzero(at.values > own))
        return Standing(n_ahead, at.n - 1, step, rivals.size, p, of_completed)

    def _is_dead(self, number: int, horizon: int, now: float) -> BoolArray:
        """Tell of which trials, by number, nothing is to be expected any more if they are running.

        Args:
            number: The trial asked about, which is not dead.
            horizon: Reports of a full training.
            now: The time.
        """
        rows = self._rows
        taken = now - rows["began"]
        own_pace = (rows["changed"] - rows["began"]) / np.maximum(rows["n"], 1)
        alive = rows["moves"] & np.isnan(rows["pace"])
        told = np.r_[rows["pace"], own_pace[alive], taken[number] / max(rows["n"][number], 1)]
        told = told[told > 0.0]
        if not told.size:
            return np.zeros(rows.size, dtype=bool)
        pace = float(np.median(told))
        longest = pace * np.minimum(_SLOWEST * (rows["n"] + 1.0), MOST_TRAININGS * horizon)
        silent = now - rows["changed"]
        return np.asarray(
            (taken > np.maximum(longest, _SHORTEST))
            | (silent > np.maximum(_SLOWEST * np.maximum(pace, own_pace), _SHORTEST))
        )

    def _moves(
        self, curve: LearningCurve, steps: IntArray, counts: BoolArray
    ) -> Iterable[tuple[float, Array, Array]]:
        """Yield how ranks moved over each halving of the training, newest first."""
        later = curve.n_points - 1
        none = _Column()
        while curve.positions[later] > 2.0:
            middle = 0.5 * curve.positions[later]
            nearest = int(np.argmin(np.abs(curve.positions - middle)))
            earlier = min(max(nearest, _FIRST), later - 1)
            if earlier < _FIRST:
                return
            before = self._columns.get(int(steps[earlier]), none).by_number(counts)
            after = self._columns.get(int(steps[later]), none).by_number(counts)
            both = ~np.isnan(before + after)
            yield (
                float(curve.positions[earlier] / curve.positions[later]),
                before[both],
                after[both],
            )
            later = earlier


class _Compared:
    """The trials compared with one, step by step.

    Args:
        rows: What is known of all trials, by number.
        counts: Which of them are compared, by number.
        columns: Reports by step, also of others.
    """

    def __init__(self, rows: Any, counts: BoolArray, columns: dict[int, _Column]) -> None:
        self._last, self._counts, self._columns = rows["last"], counts, columns
        # Steps at which they were stopped.
        self._stopped = rows["last"][counts & (rows["state"] == TrialState.PRUNED.value)]
        self._at: dict[int, _AtStep] = {}

    def at(self, step: int) -> _AtStep:
        """Return them at a step."""
        if step not in self._at:
            values = self._columns[step].by_number(self._counts)
            n_stopped = int(np.count_nonzero(self._stopped < step))
            self._at[step] = _AtStep(values, n_stopped, int(np.count_nonzero(values == values)))
        return self._at[step]

    def newest_ranks(self, numbers: IntArray) -> tuple[Array, IntArray]:
        """Return the normal scores of trials' newest ranks, and their steps, each of shape (m,)."""
        if not numbers.size:
            return np.empty(0), np.empty(0, dtype=np.int64)
        steps = [self._newest_crowded(number) for number in numbers.tolist()]
        at = [self.at(step) for step in steps]
        values = np.stack([one.values for one in at])  # shape (m, trials)
        own = values[np.arange(numbers.size), numbers, None]
        below = (values < own).sum(axis=1) + 0.5 * ((values == own).sum(axis=1) - 1)
        below = below + [one.n_stopped for one in at]
        n = np.array([one.n for one in at])
        return early_ranks.normal_score(below, n - 1), np.array(steps, dtype=np.int64)

    def _newest_crowded(self, number: int) -> int:
        """Return the last step at which a trial stands among enough others to have a rank."""
        last = int(self._last[number])
        if self.at(last).n >= _CROWD:
            return last
        steps = sorted((s for s, column in self._columns.items() if number in column), reverse=True)
        return next((step for step in steps if self.at(step).n >= _CROWD), last)


@dataclass(frozen=True)
class _AtStep:
    """The trials compared at a step.

    Attributes:
        values: Their reports, larger is better, by number; NaN where there is none.
        n_stopped: Trials that had been stopped before.
        n_reported: Trials that have reported.
    """

    values: Array
    n_stopped: int
    n_reported: int

    @property
    def n(self) -> int:
        """Trials compared."""
        return self.n_reported + self.n_stopped
