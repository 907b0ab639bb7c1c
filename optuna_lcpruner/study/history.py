"""What is remembered of a study's finished trials: each one's curve, and what they say together.

A `StudyRecord` is a memo of finished (and so unchanging) trials: each is read once, however often
the study is asked. It can be thrown away at any time and built again from the storage.
"""

from __future__ import annotations

import threading
from array import array
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter

import numpy as np
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner._util.attributes import counted_down, told_to_stop_at
from optuna_lcpruner._util.recent import Recent
from optuna_lcpruner.curves.horizon import Ending, announced_n_steps, most_moving
from optuna_lcpruner.curves.learning_curve import (
    MAX_KNOTS,
    PositionGrid,
    StepMap,
    average_on_knots,
    ordered,
    typical_gap,
    usable,
)
from optuna_lcpruner.curves.scale import oriented, typical_start
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.study.feasibility import is_feasible
from optuna_lcpruner.study.summary import MIN_REPORTS, StudySummary

MAX_CURVES = 1000  # heuristic
"""Completed trials that a curve is compared with, the newest: a decision's work stays bounded."""

_MOST_POINTS = 8 * MAX_KNOTS  # heuristic
"""Points kept of a curve: many a knot, so that they fall on those that reports would fall on."""

MIN_REPORTS_TO_JUDGE_DIRECTION = 11  # heuristic
"""More than ten: the running mean over up to ten folds gets worse wherever the first is easy."""

_WHOLE = 0.9  # heuristic
"""Share of the horizon from which on a training that ended while it was moving counts as whole."""


@dataclass(frozen=True)
class FinishedTrial:
    """A completed trial, oriented so that larger is better.

    Attributes:
        number: Its trial number.
        value: Its objective value.
        steps: Reported steps with finite values, increasing, long curves averaged in blocks.
        values: Their values.
        gap: Typical gap between reports; NaN for fewer than two.
        first_step: First step reported, NaN without reports.
        last_step: Last step with a finite value; NaN without reports.
        first: Where it started: the first finite report that is no transient, see
            :func:`~optuna_lcpruner.curves.scale.typical_start`.
        begins: First finite reported value, even of a transient.
        last: Last finite reported value.
        best: Best finite reported value.
        averages: Whether the value is the mean of some of its last reports.
        worsens: Best within its first tenth and worse at the end than at the start; None if it is
            too short to tell.
        n_steps: The horizon it announced, or None.
        feasible: Whether it keeps the study's constraints; only then it can be the best.
        has_curve: Whether its reports can be compared with those of a training: at least two, in
            order, and it was not told to stop at the last of them.
        told_to_stop: Whether it was, and returned a value all the same.
        ending: How it ended: whether it was still getting better, so that what a longer training
            would have brought is unknown.
    """

    number: int
    value: float
    steps: Array
    values: Array
    gap: float
    first_step: float
    last_step: float
    first: float
    begins: float
    last: float
    best: float
    averages: bool
    worsens: bool | None
    n_steps: float | None
    feasible: bool
    has_curve: bool
    told_to_stop: bool
    ending: Ending

    @classmethod
    def of(
        cls, trial: FrozenTrial, maximize: bool, stopped_at: int | None = None
    ) -> FinishedTrial | None:
        """Summarise a completed trial, or return None if its value is not finite.

        Args:
            trial: The trial.
            maximize: The study's direction.
            stopped_at: The last step at which it was told to stop, where its attributes do not say.
        """
        if trial.value is None or not usable(np.array(trial.value)):
            return None
        value = float(oriented(trial.value, maximize))
        reported, raw = ordered(trial.intermediate_values)
        finite = usable(raw)
        steps, reports = reported[finite].astype(float), oriented(raw[finite], maximize)
        first = last = best = begins = last_step = np.nan
        if steps.size:
            first, begins = typical_start(reports), float(reports[0])
            last, best, last_step = float(reports[-1]), float(reports.max()), float(steps[-1])
        gap, averages = typical_gap(steps), _averages(reports, value)
        told_to_stop = reported.size > 0 and int(reported[-1]) in (
            stopped_at,
            told_to_stop_at(trial.user_attrs),
        )
        backwards = counted_down(trial.user_attrs)
        has_curve = steps.size >= MIN_REPORTS and not told_to_stop and not backwards
        ending = Ending.of(reports) if steps.size else Ending(np.nan, np.nan, 0.0, 0.0)
        steps, reports = _block_means(steps, reports)
        return cls(
            trial.number,
            value,
            steps,
            reports,
            gap=np.nan if gap is None else gap,
            first_step=float(reported[0]) if reported.size else np.nan,
            last_step=last_step,
            first=first,
            begins=begins,
            last=last,
            best=best,
            averages=averages,
            worsens=_worsens(reports),
            n_steps=announced_n_steps(trial.user_attrs),
            feasible=is_feasible(trial),
            has_curve=has_curve,
            told_to_stop=told_to_stop,
            ending=ending,
        )


def _averages(values: Array, value: float) -> bool:
    """Whether a value is the mean of some of the last reports, at most half of them."""
    last = values[::-1][: values.size // 2]
    means = np.cumsum(last) / np.arange(1, last.size + 1)
    return bool(np.any(np.isclose(means[1:], value, rtol=1e-6, atol=0.0)))


def _worsens(values: Array) -> bool | None:
    if values.size < MIN_REPORTS_TO_JUDGE_DIRECTION:
        return None
    early = int(np.argmax(values)) < max(1, values.size // 10)
    return early and float(np.mean(values[-(values.size // 4) :])) < float(values[0])


def _block_means(steps: Array, values: Array) -> tuple[Array, Array]:
    """At most ``_MOST_POINTS`` points of a long curve, each the mean of a block of reports."""
    if steps.size <= _MOST_POINTS:
        return steps, values
    edges = np.linspace(0, steps.size, _MOST_POINTS + 1).astype(np.int64)
    size = np.diff(edges)
    with np.errstate(over="ignore"):
        means = np.add.reduceat(values / np.repeat(size, size), edges[:-1])
    return np.add.reduceat(steps, edges[:-1]) / size, means


_COLUMNS = (
    "number",
    "value",
    "first",
    "begins",
    "last",
    "best",
    "averages",
    "first_step",
    "last_step",
    "gap",
    "worsens",
    "feasible",
    "has_curve",
    "told_to_stop",
    "ending.moving",
    "ending.before",
    "ending.late",
    "ending.whole",
)
_row = attrgetter(*_COLUMNS)


class StudyRecord:
    """Summaries of a study's finished trials, read incrementally.

    Not thread-safe: whoever uses it holds its lock.

    Attributes:
        lock: The lock.
    """

    def __init__(self, maximize: bool, announced: bool = True, n_best: int = 1) -> None:
        """Make an empty record.

        Args:
            maximize: The study's direction.
            announced: Whether the lengths that trials announce count.
            n_best: Of how many best trials the last one is to be beaten.
        """
        self.lock = threading.Lock()
        self._n_best = n_best
        self._maximize = maximize
        self._announced = announced
        self._known: dict[int, datetime | None] = {}  # trials read: number -> when completed
        self._rows = array("d")  # one after the other
        self._reporting: list[FinishedTrial] = []  # those with a curve, in order of their numbers
        self._n_forgotten = 0  # feasible ones that have left the list
        self._curves: Recent[tuple[float, float | None, int], _Curves] = Recent(_MAX_HORIZONS)
        self._summary: StudySummary | None = None
        self._knowledge: Recent[tuple[int, float, Target], StudyKnowledge] = Recent(_MAX_HORIZONS)

    def update(
        self,
        trials: Sequence[FrozenTrial],
        newest: bool = False,
        stopped: Mapping[int, int] | None = None,
    ) -> StudySummary:
        """Take in the trials that have finished since the last call and sum the study up.

        Args:
            trials: All completed trials of the study.
            newest: Whether they were read after those of all earlier calls. If not, fewer of them
                may be those of a thread that read them earlier.
            stopped: The last step at which trials were told to stop, by number, where they do not
                show it themselves.
        """
        if self._is_another_study(trials, newest):
            self._known, self._n_forgotten, self._summary = {}, 0, None
            self._rows, self._reporting = array("d"), []
            self._curves.clear()
            self._knowledge.clear()
        if len(trials) > len(self._known):
            for trial in trials:
                if trial.number not in self._known:
                    self._known[trial.number] = trial.datetime_complete
                    finished = FinishedTrial.of(
                        trial, self._maximize, (stopped or {}).get(trial.number)
                    )
                    if finished is not None:
                        counts = self._announced or finished.n_steps is None
                        self._append(finished if counts else replace(finished, n_steps=None))
        if self._summary is None:
            table = np.array(self._rows).reshape(-1, len(_COLUMNS))
            columns = {name.split(".")[-1]: table[:, i] for i, name in enumerate(_COLUMNS)}
            self._summary = StudySummary.of(columns, self._maximize, self._n_best)
        return self._summary

    def _is_another_study(self, trials: Sequence[FrozenTrial], newest: bool) -> bool:
        """Whether the study was deleted and one with the same ids was made."""
        same_number = len(trials) == len(self._known)
        # At each decision no more than a glance.
        looked_at = [*trials[:1], *trials[-1:]] if same_number else trials
        still = sum(self._known.get(t.number, _NEVER) == t.datetime_complete for t in looked_at)
        if len(trials) < len(self._known):
            return newest or not trials or still < len(trials)
        return still < min(len(looked_at), len(self._known))

    def curves(self, horizon: int, stride: float) -> tuple[Array, Array, int]:
        """The newest whole trainings on the knots of a training of this horizon, and their ends.

        A training that ended early is whole if it had come to rest, else what lies beyond its end
        is unknown.

        Args:
            horizon: Position of the last report of the training to compare with.
            stride: Steps from one position to the next.

        Returns:
            Oriented values without gaps, shape (N, n_knots), oriented objective values, shape
            (N,), in order of trial number, and how many of all whole trainings are feasible.
        """
        assert self._summary is not None, "update() comes first"
        first_step = self._summary.lengths.first_step
        key = (stride, first_step, horizon)
        curves = self._curves.get(key) or _Curves(stride, first_step, horizon)
        self._curves[key] = curves
        values, final, n_feasible = curves.of(self._reporting)
        return values[-MAX_CURVES:], final[-MAX_CURVES:], n_feasible + self._n_forgotten

    def knowledge(
        self, summary: StudySummary, horizon: int, stride: float, target: Target
    ) -> StudyKnowledge:
        """What the study knows about a training; the same object until another trial completes.

        Args:
            summary: What :meth:`update` gave, of a study with a completed trial.
            horizon: Position of the last report of the training.
            stride: Steps from one position to the next.
            target: Which report the objective returns.
        """
        key = (horizon, stride, target)
        known = self._knowledge.get(key)
        if known is not None and summary is self._summary:
            return known
        assert summary.scale is not None, "a completed trial comes first"
        curves, final, n_feasible = self.curves(horizon, stride)
        made = StudyKnowledge(summary.scale, target, curves, final, n_feasible, self._n_best)
        if summary is self._summary:  # else another thread has seen a further trial complete
            self._knowledge[key] = made
        return made

    def _append(self, trial: FinishedTrial) -> None:
        if trial.has_curve:
            if self._reporting and self._reporting[-1].number > trial.number:
                self._curves.clear()  # finished out of order: rows move
            insort(self._reporting, trial, key=lambda t: t.number)
            if len(self._reporting) > 2 * MAX_CURVES:  # what is older is never looked at again
                self._n_forgotten += sum(t.feasible for t in self._reporting[:-MAX_CURVES])
                del self._reporting[:-MAX_CURVES]
                self._curves.clear()
        self._rows.extend(np.nan if value is None else value for value in _row(trial))
        self._summary = None
        self._knowledge.clear()


_MAX_HORIZONS = 8  # heuristic
_NEVER = datetime.max


class _Curves:
    """Rows of completed trials for one horizon; each trial is laid on the knots once."""

    def __init__(self, stride: float, first_step: float | None, horizon: int) -> None:
        self._stride, self._first_step, self._horizon = stride, first_step, horizon
        self._rows: list[Array] = []
        self._short: list[tuple[int, FinishedTrial]] = []  # row and trial of those that ended early

    def of(self, trials: Sequence[FinishedTrial]) -> tuple[Array, Array, int]:
        for trial in trials[len(self._rows) :]:
            positions = self._positions(trial)
            if positions[-1] < _WHOLE * self._horizon:
                self._short.append((len(self._rows), trial))
            self._rows.append(_on_knots(trial.values, positions, self._horizon))
        rows = np.array(self._rows).reshape(-1, PositionGrid(self._horizon).size)
        final = np.array([trial.value for trial in trials])
        n_feasible = sum(trial.feasible for trial in trials)
        unknown = self._unknown_ends()
        if not unknown:
            return rows, final, n_feasible
        n_feasible -= sum(trial.feasible for _, trial in unknown)
        indices = [index for index, _ in unknown]
        return np.delete(rows, indices, axis=0), np.delete(final, indices), n_feasible

    def _unknown_ends(self) -> list[tuple[int, FinishedTrial]]:
        """Those that ended early while they were still getting better; all, if most were."""
        if not self._short:
            return []
        endings = [trial.ending for _, trial in self._short]
        names = ("moving", "before", "late", "whole")
        if most_moving({name: np.array([getattr(e, name) for e in endings]) for name in names}):
            return self._short
        return [(index, trial) for index, trial in self._short if trial.ending.moving]

    def _positions(self, trial: FinishedTrial) -> Array:
        """Positions of its reports in a training of this horizon.

        A trial that announced a horizon of its own is laid over by the fraction of training done.
        """
        steps = StepMap.of(trial.steps, self._stride, self._first_step)
        positions = steps.position(trial.steps)
        if trial.n_steps is not None:
            own = steps.horizon(trial.n_steps)
            if own > 1:
                positions = 1.0 + (positions - 1.0) * (self._horizon - 1) / (own - 1)
        return positions


def _on_knots(values: Array, positions: Array, horizon: int) -> Array:
    """A training's values on the knots of a horizon, gaps filled; beyond its end the last value."""
    knots = PositionGrid(horizon)
    index, means = average_on_knots(knots, positions, values)
    if index.size == knots.size:
        return means
    return np.interp(np.arange(knots.size), index, means)
