"""One study in a forecaster's care: who takes which trial, what is new, the verdicts.

All state is in the storage: a forecaster that is killed leaves nothing half done, and what is
remembered here (a lease, which reports were judged, Optuna's cache of the study) can be lost.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
from optuna_lcpruner.records import remote_decision
from optuna_lcpruner.records.remote_decision import RemoteVerdict
from optuna_lcpruner.service.events import Event
from optuna_lcpruner.service.membership import Membership

LONGEST_PASS = 10.0
"""Seconds of forecasting after which the trials are read again, not to judge old reports."""

IDLE_AFTER = 600.0
"""Seconds without a running trial after which what is remembered of a study is dropped."""


@dataclass
class Counts:
    """What a forecaster has done and sees.

    Attributes:
        studies: Studies that are watched.
        running: Running trials in them.
        members: Forecasters on the study that has most of them.
        verdicts: Verdicts written since the start.
        prunes: Those that stop their trial.
        failing: Studies that could not be read or written when last tried.
        storage_seconds: Time that the storage was kept busy in the last pass.
    """

    studies: int = 0
    running: int = 0
    members: int = 0
    verdicts: int = 0
    prunes: int = 0
    failing: int = 0
    storage_seconds: float = 0.0


@dataclass
class ServiceContext:
    """What a forecaster's watches share.

    Attributes:
        storage: The storage; a relational one without Optuna's cache.
        pruner: Decides; each study has a copy of its own.
        lease: Seconds after which a forecaster that is not heard of counts as dead.
        settle: Seconds that a newcomer waits in any case.
        tell: Called with each event.
        clock: Seconds from any origin; never goes back.
        stop: Set to stop after the trial in hand.
        counts: What has been done.
        reached: When the storage last answered.
    """

    storage: BaseStorage
    pruner: LearningCurvePruner
    lease: float
    settle: float
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
        desk: What it shares with the other watches.

    Attributes:
        active: When a trial was last seen running.
        n_running: Running trials when last looked at.
    """

    def __init__(self, name: str, desk: ServiceContext) -> None:
        self.name = name
        self.active = desk.clock()
        self.n_running = 0
        self._desk = desk
        self._said_missing = False
        self._study: _ReadOnceStudy | None = None
        self.forget()

    def forget(self) -> None:
        """Forget the study, as if it had not been seen; its lease is left to expire."""
        self._drop()
        desk = self._desk
        self._membership = Membership(desk.lease, desk.settle, desk.clock)

    def _drop(self) -> None:
        """Forget what can be read again; Optuna's cache of the study is the largest part of it."""
        cache = getattr(self._desk.storage, "_cache", None)  # of the gRPC proxy, for all studies
        forget = getattr(cache, "delete_study_cache", None)
        if self._study is not None and forget is not None:
            forget(self._study._study_id)
        self._study = None
        self._pruner = copy.copy(self._desk.pruner)
        self._judged: dict[int, _Judged] = {}
        self.n_running = 0

    @property
    def study_id(self) -> int | None:
        """The id of the study, None if it is not open."""
        return None if self._study is None else self._study._study_id

    @property
    def n_members(self) -> int:
        """Forecasters on the study."""
        return self._membership.n_members

    @property
    def is_joining(self) -> bool:
        """Whether the study has running trials but this forecaster no share of them yet."""
        study = self._study
        return study is not None and study.is_served and not self._membership.is_settled

    def leave(self) -> None:
        """Give the lease back.

        Raises:
            Exception: Whatever the storage raises when it is out of reach.
        """
        if self._study is not None:
            self._membership.leave(self._study._storage, self._study._study_id)

    def gone(self, asked_for: bool) -> None:
        """Take note that there is no such study, or none any more.

        Args:
            asked_for: Whether somebody gave its name.
        """
        if self._study is not None:
            self._desk.say(logging.INFO, "study_gone", study=self.name)
        elif asked_for and not self._said_missing:
            self._desk.say(logging.WARNING, "no_such_study", study=self.name)
        self._said_missing = True
        self.forget()

    def serve(self) -> None:
        """Judge the running trials of this forecaster's share that have new reports.

        Raises:
            KeyError: If there is no such study.
            Exception: Whatever the storage raises when it is out of reach.
        """
        study = self._study or self._load()
        if study is None or not study.is_served or not self._keep(study):
            return
        with self._desk.storage_busy():
            running = study.read_running()
        now = self._desk.clock()
        self.n_running = len(running)
        self._judged = {t._trial_id: self._judged.get(t._trial_id, _NOT_YET) for t in running}
        if running:
            self.active = now
        elif now - self.active > IDLE_AFTER:
            with self._desk.storage_busy():
                self.leave()
            self.forget()
            return
        if self._membership.is_settled:
            self._judge_all(study, running)

    def _load(self) -> _ReadOnceStudy | None:
        """Open the study if a trial is running in it."""
        storage = self._desk.storage
        with self._desk.storage_busy():
            study_id = storage.get_study_id_from_name(self.name)
            running = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            if not running:
                return None
            study = _ReadOnceStudy(self.name, storage)
        self._study = study
        self.active = self._desk.clock()
        self._said_missing = False
        self._desk.say(logging.INFO, "study", study=self.name, running=len(running))
        if not study.is_served:
            self._desk.say(logging.WARNING, "several_objectives", study=self.name)
        return study

    def _keep(self, study: _ReadOnceStudy) -> bool:
        """Keep the lease on the study; False if it was lost."""
        before = self._membership.id
        with self._desk.storage_busy():
            lost = self._membership.keep(study._storage, study._study_id)
        if lost:
            # Taken for dead, or another study of this name and number: nothing remembered holds.
            self._desk.say(logging.WARNING, "lease_lost", study=self.name)
            self._drop()
        elif before not in ("", self._membership.id):
            self._desk.say(logging.WARNING, "lease_lapsed", study=self.name)
        return not lost

    def _judge_all(self, study: _ReadOnceStudy, running: Sequence[FrozenTrial]) -> None:
        """Judge what is new and this forecaster's, the longest unseen first."""
        desk = self._desk
        began = desk.clock()
        waiting = [trial for trial in running if self._has_news(trial)]
        waiting.sort(key=lambda trial: self._judged[trial._trial_id].when)
        for trial in waiting:
            if desk.stop.is_set() or desk.clock() - began > LONGEST_PASS:
                return
            if self._membership.is_due and not self._keep(study):
                return
            if self._membership.takes(trial._trial_id):
                self._judge(study, trial)

    def _has_news(self, trial: FrozenTrial) -> bool:
        if len(trial.intermediate_values) <= self._judged[trial._trial_id].n_reports:
            return False
        known = remote_decision.newest(trial)
        return known is None or not known.covers(trial)

    def _judge(self, study: _ReadOnceStudy, trial: FrozenTrial) -> None:
        """Decide about a trial and write the verdict, unless somebody else has meanwhile."""
        desk = self._desk
        start = desk.clock()
        decision = self._pruner.decide(study, trial)
        took = desk.clock() - start
        verdict = RemoteVerdict.of(decision, trial, self._membership.id)
        facts = {
            "study": self.name,
            "trial": trial.number,
            "step": verdict.step,
            "reports": verdict.n_reports,
            "prune": decision.prune,
            "reason": decision.reason.name,
            "p": decision.p_beat,
            "threshold": decision.threshold,
            "ms": round(1e3 * took, 1),
        }
        try:
            with desk.storage_busy():
                if not self._membership.holds and _is_overtaken(study, trial):
                    desk.say(logging.INFO, "overtaken", **facts)
                    return
                remote_decision.write(study._storage, trial._trial_id, verdict)
        except RuntimeError:  # Optuna's UpdateFinishedTrialError, which older versions lack
            with desk.storage_busy():
                if not study._storage.get_trial(trial._trial_id).state.is_finished():
                    raise
            desk.say(logging.DEBUG, "ended_meanwhile", **facts)
            return
        self._judged[trial._trial_id] = _Judged(verdict.n_reports, desk.clock())
        desk.counts.verdicts += 1
        desk.counts.prunes += decision.prune
        desk.say(logging.INFO if decision.prune else logging.DEBUG, "verdict", **facts)


def _is_overtaken(study: Study, trial: FrozenTrial) -> bool:
    """Whether another forecaster judged these reports while this one's lease ran out."""
    now = copy.copy(trial)
    now.system_attrs = dict(remote_decision.attributes(study._storage, trial._trial_id))
    known = remote_decision.newest(now)
    return known is not None and known.covers(trial)


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


@dataclass(frozen=True)
class _Judged:
    """How many reports of a trial this forecaster has judged, and when."""

    n_reports: int
    when: float


_NOT_YET = _Judged(0, float("-inf"))
