"""One study in a forecaster's care: what is new, what is being forecast, the verdicts.

All state is in the storage: a forecaster that is killed leaves nothing half done, and what is
remembered here (which reports were judged, Optuna's cache of the study) can be lost.
"""

from __future__ import annotations

import copy
import logging
import threading
import uuid
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.optuna_storage import storage_of, study_id_of, trial_id_of
from optuna_lcpruner.decision.decision import Reason
from optuna_lcpruner.pruners.executor import Background
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner, forgetful
from optuna_lcpruner.records import remote_decision
from optuna_lcpruner.records.remote_decision import RemoteVerdict
from optuna_lcpruner.service.events import Event

IDENTITY = "lcpruner_identity"
"""Study system attribute that tells a study from a later one of its name and number.

SQLite gives a study that is made after another was deleted the same numbers again, and Optuna's
cache would go on to show the trials of the old one.
"""

LONGEST_PASS = 10.0  # heuristic
"""Seconds of forecasting after which the trials are read again, not to judge old reports."""

IDLE_AFTER = 600.0  # heuristic
"""Seconds without a running trial after which what is remembered of a study is dropped."""


@dataclass
class Counts:
    """What a forecaster has done and sees.

    Attributes:
        studies: Studies that are watched.
        running: Running trials in them.
        waiting: Those with reports that are not judged yet.
        verdicts: Verdicts written since the start.
        prunes: Those that stop their trial.
        failing: Studies that could not be read or written when last tried.
        storage_seconds: Time that the storage was kept busy in the last pass.
    """

    studies: int = 0
    running: int = 0
    waiting: int = 0
    verdicts: int = 0
    prunes: int = 0
    failing: int = 0
    storage_seconds: float = 0.0


@dataclass
class ServiceContext:
    """What a forecaster's workers share.

    Attributes:
        storage: The storage; a relational one without Optuna's cache.
        pruner: Decides; each study has a copy of its own.
        background: Makes the forecasts; None if the worker waits for each.
        tell: Called with each event.
        clock: Seconds from any origin; never goes back.
        stop: Set to stop after the trial in hand.
        counts: What has been done.
        reached: When the storage last answered.
    """

    storage: BaseStorage
    pruner: LearningCurvePruner
    background: Background | None
    tell: Callable[[Event], None]
    clock: Callable[[], float]
    stop: threading.Event
    counts: Counts = field(default_factory=Counts)
    reached: float = field(init=False)

    def __post_init__(self) -> None:
        self.reached = self.clock()

    def say(self, level: int, name: str, **facts: object) -> None:
        """Tell of an event."""
        self.tell(Event(level, name, facts))

    @contextmanager
    def storage_busy(self) -> Iterator[None]:
        """Count the time inside, and note whether the storage answers."""
        start = self.clock()
        try:
            yield
            self.reached = self.clock()
        finally:
            self.counts.storage_seconds += self.clock() - start


class StudyWorker:
    """A study by its name, whether or not it exists yet.

    Args:
        name: The study's name.
        context: What it shares with the other workers.

    Attributes:
        active: When a trial was last seen running.
        n_running: Running trials when last looked at.
        n_waiting: Those with reports that were not judged then.
        n_unseen: Those of which none had been judged.
        due: When the study is to be looked at next, for the forecaster to set.
        failures: Looks that failed, in a row, likewise.
    """

    def __init__(self, name: str, context: ServiceContext) -> None:
        self.name = name
        self.active = context.clock()
        self.due = float("-inf")
        self.failures = 0
        self._context = context
        self._said_missing = False
        self._study: _ReadOnceStudy | None = None
        self.forget()

    def forget(self) -> None:
        """Forget what can be read again; Optuna's cache of the study is the largest part of it."""
        cache = getattr(self._context.storage, "_cache", None)  # of the gRPC proxy, for all studies
        forget = getattr(cache, "delete_study_cache", None)
        if self._study is not None and forget is not None:
            forget(study_id_of(self._study))
        self._study = None
        self._pruner = forgetful(self._context.pruner, self._context.background)
        self._progress: dict[int, _Progress] = {}
        self.n_running = self.n_waiting = self.n_unseen = 0

    @property
    def study_id(self) -> int | None:
        """The id of the study, None if it is not open."""
        return None if self._study is None else study_id_of(self._study)

    def gone(self, asked_for: bool) -> None:
        """Take note that there is no such study, or none any more.

        Args:
            asked_for: Whether somebody gave its name.
        """
        if self._study is not None:
            self._context.say(logging.INFO, "study_gone", study=self.name)
        elif asked_for and not self._said_missing:
            self._context.say(logging.WARNING, "no_such_study", study=self.name)
        self._said_missing = True
        self.forget()

    def serve(self) -> None:
        """Judge the running trials that have new reports.

        Raises:
            KeyError: If there is no such study.
            Exception: Whatever the storage raises when it is out of reach.
        """
        context = self._context
        study = self._study or self._load()
        if study is None or not study.is_served:
            return
        with context.storage_busy():
            if self._read_identity(study_id_of(study)) != self._identity:
                context.say(logging.INFO, "study_gone", study=self.name)
                self.forget()
                return
            running = study.read_running()
        self.n_running = len(running)
        self._progress = {
            trial_id_of(t): self._progress.get(trial_id_of(t), _Progress()) for t in running
        }
        if running:
            self.active = context.clock()
        self._judge_all(study, running)
        if context.clock() - self.active > IDLE_AFTER:
            self.forget()

    def _load(self) -> _ReadOnceStudy | None:
        """Open the study if a trial is running in it."""
        storage = self._context.storage
        with self._context.storage_busy():
            study_id = storage.get_study_id_from_name(self.name)
            running = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            if not running:
                return None
            study = _ReadOnceStudy(self.name, storage)
            self._identity = self._read_identity(study_id)
            if self._identity is None:
                self._identity = uuid.uuid4().hex
                storage.set_study_system_attr(study_id, IDENTITY, self._identity)
        self._study = study
        self.active = self._context.clock()
        self._said_missing = False
        self._context.say(logging.INFO, "study", study=self.name, running=len(running))
        if not study.is_served:
            self._context.say(logging.WARNING, "several_objectives", study=self.name)
        return study

    def _read_identity(self, study_id: int) -> object:
        return self._context.storage.get_study_system_attrs(study_id).get(IDENTITY)

    def _judge_all(self, study: _ReadOnceStudy, running: Sequence[FrozenTrial]) -> None:
        """Judge what is new, the longest unseen first."""
        context = self._context
        began = context.clock()
        waiting = [trial for trial in running if self._has_news(trial)]
        waiting.sort(key=lambda trial: self._progress[trial_id_of(trial)].when)
        for trial in waiting:
            if context.stop.is_set() or context.clock() - began > LONGEST_PASS:
                break
            self._judge(study, trial)
        waiting = [trial for trial in waiting if self._has_news(trial)]
        self.n_waiting = len(waiting)
        self.n_unseen = sum(self._progress[trial_id_of(trial)].n_reports == 0 for trial in waiting)

    def _has_news(self, trial: FrozenTrial) -> bool:
        if len(trial.intermediate_values) <= self._progress[trial_id_of(trial)].n_reports:
            return False
        known = remote_decision.newest(trial)
        return known is None or not known.covers(trial)

    def _judge(self, study: _ReadOnceStudy, trial: FrozenTrial) -> None:
        """Decide about a trial and write the verdict; a forecast in the making is waited for."""
        context, progress = self._context, self._progress[trial_id_of(trial)]
        # A verdict says which reports it rests on: those that the forecast was asked for.
        asked, since = progress.asked or (trial, context.clock())
        decision = self._pruner.decide(study, asked)
        progress.asked = None
        if decision.reason is Reason.FORECAST_PENDING:
            progress.asked = (asked, since)
            return
        verdict = RemoteVerdict.of(decision, asked)
        facts = {
            "study": self.name,
            "trial": trial.number,
            "step": verdict.step,
            "reports": verdict.n_reports,
            "prune": decision.prune,
            "reason": decision.reason.name,
            "p": decision.p_beat,
            "threshold": decision.threshold,
            "ms": round(1e3 * (context.clock() - since), 1),
        }
        try:
            with context.storage_busy():
                remote_decision.write(storage_of(study), trial_id_of(trial), verdict)
        except RuntimeError:  # Optuna's UpdateFinishedTrialError, which older versions lack
            with context.storage_busy():
                if not storage_of(study).get_trial(trial_id_of(trial)).state.is_finished():
                    raise
            context.say(logging.DEBUG, "ended_meanwhile", **facts)
            return
        self._progress[trial_id_of(trial)] = _Progress(verdict.n_reports, context.clock())
        context.counts.verdicts += 1
        context.counts.prunes += decision.prune
        context.say(logging.INFO if decision.prune else logging.DEBUG, "verdict", **facts)


class _ReadOnceStudy(Study):
    """A study whose trials are read once a pass, however many of them are judged in it."""

    @property
    def is_served(self) -> bool:
        """Whether its trials can be pruned at all."""
        return len(self.directions) == 1

    def read_running(self) -> list[FrozenTrial]:
        """Read the study's trials; the running ones."""
        self._read = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return self.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials as they were read last."""
        trials = [trial for trial in self._read if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials


@dataclass
class _Progress:
    """How far a running trial has been judged.

    Attributes:
        n_reports: Reports that the last verdict rests on.
        when: When that was written.
        asked: The trial as it was when the forecast in the making was asked for, and when that was.
    """

    n_reports: int = 0
    when: float = float("-inf")
    asked: tuple[FrozenTrial, float] | None = None
