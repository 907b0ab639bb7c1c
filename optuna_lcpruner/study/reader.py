"""A study's completed trials, read again only when one more has completed.

Reading the completed trials, Optuna reads those that are running again too, with all their reports
and attributes. Where many train at once that is most of the work of a decision, and most of the
time no trial has completed since the last one: a database tells so in one statement.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.arrays import IntArray
from optuna_lcpruner._util.fork_safety import LONGEST_WAIT
from optuna_lcpruner._util.optuna_storage import change_token
from optuna_lcpruner._util.recent import Recent
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.study.history import StudyRecord
from optuna_lcpruner.study.pace import UsualPace, slowness, usual_pace
from optuna_lcpruner.study.stand_in import as_reported
from optuna_lcpruner.study.standings import Standing, Standings, is_compared
from optuna_lcpruner.study.summary import StudySummary
from optuna_lcpruner.study.units import changed_unit

_MAX_MADE_UP = 8  # heuristic
"""Studies made up by another pruner that are remembered, at least one a metric."""

_MAX_TRIALS = 512  # heuristic
"""Trials of which it is remembered where they stood, and beside which pace."""

Mark = tuple[Any, ...]
"""Number, latest id and latest end of the completed trials."""


class StudyReader:
    """What one study's completed trials say, for all threads of a process.

    Args:
        announced: Whether the lengths that trials announce count.
        n_best: Of how many best trials the last one is to be beaten.
        record: What was read of these trials before, if anything.
    """

    def __init__(
        self, announced: bool = True, n_best: int = 1, record: StudyRecord | None = None
    ) -> None:
        self._announced = announced
        self._n_best = n_best
        self.stopped: dict[int, int] = {}  # number -> last step at which it was told to stop
        self._starts: Recent[int, float] = Recent(_MAX_TRIALS)  # of these, their first report
        self._record = record
        self._summary: StudySummary | None = None
        self._read: tuple[Mark, StudyRecord, StudySummary] | None = None
        self.lock = threading.Lock() if record is None else record.lock  # others may use it
        self._reading = threading.Lock()
        self._made_up: Recent[Any, tuple[StudyRecord, StudySummary]] = Recent(_MAX_MADE_UP)
        self._standings: Standings | None = None
        self._stood: Recent[int, tuple[float, Standing | None]] = Recent(_MAX_TRIALS)
        self._usual_paces: Recent[int, UsualPace] = Recent(_MAX_TRIALS)

    def new_record(self, maximize: bool) -> StudyRecord:
        """Return a record of nothing yet.

        Args:
            maximize: The study's direction.
        """
        return StudyRecord(maximize, self._announced, self._n_best)

    def read(self, study: Study, maximize: bool) -> tuple[StudyRecord, StudySummary]:
        """The record as it is now, and its summary.

        Args:
            study: The study.
            maximize: Its direction.
        """
        mark = change_token(study)
        if mark is None:
            return self._update(study, maximize, None)
        known = self._known(mark)
        if known is not None:
            return known
        # One thread reads for all; none waits for ever for one that a fork has left behind.
        alone = self._reading.acquire(timeout=LONGEST_WAIT)
        try:
            mark = change_token(study)  # before the trials: what ends meanwhile changes the next
            return self._known(mark) or self._update(study, maximize, mark)
        finally:
            if alone:
                self._reading.release()

    def read_made_up(
        self, study: Study, asked: FrozenTrial, maximize: bool, target: str
    ) -> tuple[StudyRecord, StudySummary]:
        """As :meth:`read`, for a study that another pruner made up to ask about a trial.

        Args:
            study: The study, another one for each question.
            asked: The trial asked about.
            maximize: The study's direction.
            target: The pruner's setting: which report is a training's value.
        """
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best: Callable[[list[float]], float] = max if maximize else min
        whole = as_reported(trials, asked, best if target == "best" else None)
        key = (maximize, *((t.value, *t.intermediate_values.items()) for t in whole))
        with self.lock:
            if key not in self._made_up:
                record = self.new_record(maximize)
                self._made_up[key] = record, record.update(whole)
            return self._made_up[key]

    def standing(
        self,
        study: Study,
        trial: FrozenTrial,
        curve: LearningCurve,
        steps: IntArray,
        check_metric: bool,
    ) -> Standing | None:
        """Where a trial stands among the others, read anew ever more rarely as it goes on.

        Args:
            study: The study.
            trial: The trial.
            curve: Its curve.
            steps: The steps of the curve's values, shape (n,).
            check_metric: See :meth:`~optuna_lcpruner.study.standings.Standings.standing`.

        Returns:
            As it was when it was compared last; None where that says nothing.
        """
        position = float(curve.positions[-1])
        with self.lock:
            before, standing = self._stood.get(trial.number, (0.0, None))
        if before <= position and not is_compared(position, before):
            return standing
        trials = study.get_trials(deepcopy=False)
        with self.lock:
            if self._standings is None:
                maximize = study.direction == StudyDirection.MAXIMIZE
                self._standings = Standings(maximize, self._announced, self._n_best)
            now = datetime.now().timestamp()
            self._standings.update((*trials, trial), now)
            standing = self._standings.standing(trial.number, curve, steps, check_metric, now)
            self._stood[trial.number] = position, standing
            return standing

    def note_stopped(self, trial: FrozenTrial) -> str | None:
        """Remember that a trial was told to stop; say if the metric's unit seems to have changed.

        Args:
            trial: The trial, with a report.
        """
        steps = sorted(trial.intermediate_values)
        self.stopped[trial.number] = steps[-1]
        self._starts[trial.number] = trial.intermediate_values[steps[0]]
        if self._summary is None:
            return None
        return changed_unit(self._starts, self._summary)

    def slowness(self, study: Study, trial: FrozenTrial) -> float:
        """The time a trial has taken, by what ended ones took for as many reports.

        What the others took on average is read once a trial, as soon as enough have ended.

        Args:
            study: The study.
            trial: The trial.
        """
        with self.lock:
            usual = self._usual_paces.get(trial.number)
        if usual is None:
            ended = (TrialState.COMPLETE, TrialState.PRUNED)
            usual = usual_pace(study.get_trials(deepcopy=False, states=ended))
            if usual is not None:
                with self.lock:
                    self._usual_paces[trial.number] = usual
        return slowness(trial, usual, datetime.now())

    def _known(self, mark: Mark | None) -> tuple[StudyRecord, StudySummary] | None:
        read = self._read
        return read[1:] if read is not None and read[0] == mark else None

    def _update(
        self, study: Study, maximize: bool, mark: Mark | None
    ) -> tuple[StudyRecord, StudySummary]:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        with self.lock:
            if self._record is None:
                self._record = self.new_record(maximize)
            # With a mark one thread reads at a time.
            summary = self._record.update(trials, mark is not None, self.stopped)
            self._summary = summary
            self._read = None if mark is None else (mark, self._record, summary)
            return self._record, summary
