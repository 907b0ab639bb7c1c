"""Where a trial stands among all that came as far: running, completed and stopped ones.

Reports are compared step by step; the trial asked about is given the better of its last two, so
that one report that is far off does not stop it. A trial that was stopped before a step counts as
behind all that reached it. Those that break a constraint, that announce another length, whose steps
count down, that began later or that returned a value after a single report are no measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner.curves.horizon import announced_n_steps
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior import early_ranks
from optuna_lcpruner.study.feasibility import is_feasible

_RATIO = 1.3  # heuristic
_MOST_WORSE = 0.8  # heuristic
_ENOUGH = 6  # heuristic
"""Others it takes for a rank to count beside forecasts."""

_CROWD = 5  # heuristic
"""Trials it takes for a rank to say something."""

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
        p_best: P that it ends better than all of these.
        p_beats_completed: P that it ends better than those of them that have completed; None where
            none has, or few are compared.
    """

    n_ahead: int
    n: int
    step: int
    n_rivals: int
    p_best: float
    p_beats_completed: float | None

    def __str__(self) -> str:
        return f"{self.n_ahead} of {self.n} were better at step {self.step}"


@dataclass
class _Row:
    """What is kept of a trial.

    Attributes:
        n_reports: How many of its reports are in the columns.
        state: Its state.
        length: The steps that it announces, if it does.
        feasible: Whether it keeps the constraints.
        first: Its first step with a finite report.
        last: Its last step with a finite report.
        start: Its first finite report, larger is better.
        counts_down: Whether its steps count down, so that its curve runs backwards.
    """

    n_reports: int
    state: TrialState
    length: float | None
    feasible: bool
    first: int | None = None
    last: int | None = None
    start: float = math.nan
    counts_down: bool = False

    @property
    def under_way(self) -> bool:
        """Whether it may end best, or has."""
        return self.state in (TrialState.RUNNING, TrialState.COMPLETE)


class Standings:
    """The finite reports of a study's trials by step.

    Args:
        maximize: The study's direction.
        by_length: Whether only trials that announce the same length are compared.
    """

    def __init__(self, maximize: bool, by_length: bool) -> None:
        self._sign = 1.0 if maximize else -1.0
        self._by_length = by_length
        self._rows: dict[int, _Row] = {}
        self._columns: dict[int, dict[int, float]] = {}

    def update(self, trials: Iterable[FrozenTrial]) -> None:
        """Take in what trials have reported since they were taken in last."""
        for trial in trials:
            row = self._rows.get(trial.number)
            n_reports = len(trial.intermediate_values)
            if row is None or row.n_reports > n_reports:
                row = self._rows[trial.number] = _Row(
                    0, trial.state, announced_n_steps(trial.user_attrs), is_feasible(trial)
                )
            if row.n_reports == n_reports and row.state is trial.state:
                continue
            row.n_reports, row.state = n_reports, trial.state
            row.length, row.feasible = announced_n_steps(trial.user_attrs), is_feasible(trial)
            self._add(trial, row)

    def _add(self, trial: FrozenTrial, row: _Row) -> None:
        steps = list(trial.intermediate_values)
        row.counts_down = len(steps) > 1 and all(b < a for a, b in pairwise(steps))
        for step in sorted(steps):
            value = self._sign * trial.intermediate_values[step]
            if not math.isfinite(value):
                continue
            self._columns.setdefault(step, {})[trial.number] = value
            if row.first is None or step <= row.first:
                row.first, row.start = step, value
            row.last = step

    def standing(
        self, number: int, curve: LearningCurve, steps: IntArray, check_metric: bool
    ) -> Standing | None:
        """Compare a trial with all that came as far.

        Args:
            number: The trial's number.
            curve: Its curve.
            steps: The steps of the curve's values, shape (n,).
            check_metric: Whether to say nothing where nearly all trials get worse: the direction
                may be wrong, or another metric be reported than returned.

        Returns:
            None where comparing says nothing.
        """
        length = self._rows[number].length
        rows = {
            other: row
            for other, row in self._rows.items()
            if row.first is not None
            and row.feasible
            and not row.counts_down
            and not (row.state is TrialState.COMPLETE and row.first == row.last)
            and not (self._by_length and row.length != length)
        }
        if number not in rows:
            return None
        compared = _Compared.of(rows, self._columns)
        at = compared.at(int(steps[-1]))
        worse = [value < rows[other].start for other, value in at.column.items()]
        if check_metric and sum(worse) > _MOST_WORSE * len(worse):
            return None
        weights = early_ranks.weights_of_kappa(list(self._moves(curve, steps, rows)))
        own = float(max(curve.values[-2:]))
        z = at.with_report(number, own).z(own)
        rivals = [k for k, row in rows.items() if row.under_way and k != number]
        scores, seen = np.empty(len(rivals)), np.empty(len(rivals))
        for i, rival in enumerate(rivals):
            step = self._newest_crowded(rival, int(rows[rival].last or 0), compared)
            place = compared.at(step)
            scores[i] = place.z(place.column[rival])
            position = max(curve.positions[-1] + (step - steps[-1]) / curve.stride, 1.0)
            seen[i] = min(position / curve.horizon, 1.0)
        completed = np.array([rows[k].state is TrialState.COMPLETE for k in rivals], dtype=bool)
        p = early_ranks.p_best(z, curve.seen, scores, seen, weights)
        of_completed = None
        if completed.any() and at.n > _ENOUGH:
            of_completed = early_ranks.p_best(
                z, curve.seen, scores[completed], seen[completed], weights
            )
        n_ahead = sum(value > own for value in at.column.values())
        return Standing(n_ahead, at.n - 1, int(steps[-1]), len(rivals), p, of_completed)

    def _newest_crowded(self, number: int, last: int, compared: _Compared) -> int:
        """Return the last step at which a trial stands among enough others to have a rank.

        Args:
            number: The trial's number.
            last: Its last step.
            compared: The trials compared.
        """
        if compared.at(last).n >= _CROWD:
            return last
        reported = sorted(
            (s for s, column in self._columns.items() if number in column), reverse=True
        )
        return next((step for step in reported if compared.at(step).n >= _CROWD), last)

    def _moves(
        self, curve: LearningCurve, steps: IntArray, rows: dict[int, _Row]
    ) -> Iterable[tuple[float, Array, Array]]:
        """Yield how ranks moved over each halving of the training, newest first."""
        later = curve.n_points - 1
        while curve.positions[later] > 2.0:
            middle = 0.5 * curve.positions[later]
            nearest = int(np.argmin(np.abs(curve.positions - middle)))
            earlier = min(max(nearest, _FIRST), later - 1)
            if earlier < _FIRST:
                return
            before = self._columns.get(int(steps[earlier]), {})
            after = self._columns.get(int(steps[later]), {})
            both = [k for k in after if k in before and k in rows]
            yield (
                float(curve.positions[earlier] / curve.positions[later]),
                np.array([before[k] for k in both]),
                np.array([after[k] for k in both]),
            )
            later = earlier


@dataclass(frozen=True)
class _Compared:
    """The trials compared with one, step by step.

    Attributes:
        rows: What is known of them.
        columns: Reports by step and number, also of others.
        stopped: Last steps of those that were stopped, shape (n,).
    """

    rows: dict[int, _Row]
    columns: dict[int, dict[int, float]]
    stopped: IntArray
    _at: dict[int, _AtStep] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: dict[int, _Row], columns: dict[int, dict[int, float]]) -> _Compared:
        """From what is known of the trials, and all reports."""
        ends = [row.last for row in rows.values() if row.state is TrialState.PRUNED]
        return cls(rows, columns, np.array(ends, dtype=np.int64))

    def at(self, step: int) -> _AtStep:
        """Return them at a step."""
        if step not in self._at:
            column = self.columns.get(step, {})
            if not column.keys() <= self.rows.keys():
                column = {k: value for k, value in column.items() if k in self.rows}
            self._at[step] = _AtStep.of(column, int(np.count_nonzero(self.stopped < step)))
        return self._at[step]


@dataclass(frozen=True)
class _AtStep:
    """The trials compared at a step.

    Attributes:
        column: Their reports, larger is better, by number.
        ordered: The same in increasing order.
        n_stopped: Trials that had been stopped before.
    """

    column: dict[int, float]
    ordered: Array
    n_stopped: int

    @classmethod
    def of(cls, column: dict[int, float], n_stopped: int) -> _AtStep:
        """From their reports and how many had been stopped."""
        return cls(column, np.sort(np.fromiter(column.values(), float)), n_stopped)

    def with_report(self, number: int, value: float) -> _AtStep:
        """Return the same with another report of one of them."""
        return _AtStep.of({**self.column, number: value}, self.n_stopped)

    @property
    def n(self) -> int:
        """Trials compared."""
        return len(self.column) + self.n_stopped

    def z(self, value: float) -> float:
        """Normal score of the rank of one of these reports."""
        low = int(np.searchsorted(self.ordered, value, "left"))
        high = int(np.searchsorted(self.ordered, value, "right"))
        # Itself is among the equal ones.
        below = self.n_stopped + 0.5 * (low + high - 1)
        return early_ranks.normal_score(below, self.n - 1)
