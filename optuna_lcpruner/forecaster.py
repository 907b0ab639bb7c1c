"""Forecasts running trials from outside their training, and writes the verdicts to the storage.

A pass reads what each study's running trials have reported, judges those of this forecaster's share
that have new reports with an ordinary :class:`~optuna_lcpruner.pruner.LearningCurvePruner`, and
writes the verdicts where the trainers look for them (``LearningCurvePruner(remote=True)``). The
pruner publishes and keeps its ledger as it does in a training.

All state is in the storage: a forecaster that is killed leaves nothing half done, and what it
remembers (a lease, which reports it has seen, Optuna's cache) it can lose.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from optuna.exceptions import UpdateFinishedTrialError
from optuna.logging import get_logger
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner import ledger_writer, publish, remote_verdict
from optuna_lcpruner.checks import InputError, real
from optuna_lcpruner.events import Event
from optuna_lcpruner.membership import Membership
from optuna_lcpruner.pruner import LearningCurvePruner
from optuna_lcpruner.redaction import without_passwords
from optuna_lcpruner.remote_verdict import RemoteVerdict

_logger = get_logger("optuna.lcpruner")

STORAGE_SHARE = 0.25
"""Largest share of the time that a forecaster keeps the storage busy; it rests for the others."""

LONGEST_PASS = 10.0
"""Seconds of forecasting after which the trials are read again, not to judge old reports."""

LONGEST_PAUSE = 30.0
"""Seconds between two looks at a study that rests or cannot be read, at most."""

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


class Forecaster:
    """Forecasts the running trials of studies until it is stopped.

    Args:
        storage: Optuna storage, or its URL.
        studies: Names of the studies; by default all of the storage. One that does not exist yet
            is waited for.
        pruner: Decides. Its settings are what the trainers' would be without ``remote``.
        interval: Seconds between two passes, at least.
        lease: Seconds after which another forecaster takes over from one that is not heard of;
            longer than two forecasts take.
        tell: Called with each event; by default they go to the log.
        clock: Seconds from any origin; never goes back.
        stop: Ends :meth:`run` when it is set.

    Raises:
        InputError: If the pruner does not forecast itself and at once, or looks at some reports
            only.
        ValueError: If a number is out of its range.
        TypeError: If an argument is of the wrong type.

    Example:
        >>> study = optuna.create_study(storage="sqlite:///study.db")    # doctest: +SKIP
        >>> Forecaster("sqlite:///study.db").run()                       # doctest: +SKIP
    """

    def __init__(
        self,
        storage: str | BaseStorage,
        studies: Sequence[str] | None = None,
        pruner: LearningCurvePruner | None = None,
        *,
        interval: float = 1.0,
        lease: float = 30.0,
        tell: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        stop: threading.Event | None = None,
    ) -> None:
        pruner = LearningCurvePruner() if pruner is None else pruner
        if not isinstance(pruner, LearningCurvePruner):
            raise TypeError(f"pruner must be a LearningCurvePruner, but got {pruner!r}.")
        if pruner.cannot_serve is not None:
            raise InputError(f"the forecaster's pruner must not have {pruner.cannot_serve}.")
        if isinstance(studies, str):
            raise TypeError(f"studies must be a list of names, but got {studies!r}.")
        self._secrets = [storage] if isinstance(storage, str) else []
        self._storage = _uncached(get_storage(storage))
        self._secrets += _urls(self._storage)
        self._names = None if studies is None else list(dict.fromkeys(studies))
        self._pruner = pruner
        self._interval = real("interval", interval, 0.0, 3600.0)
        self._lease = real("lease", lease, 0.01, 3600.0)
        self._tell = tell or _log
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._look_for_studies = self._reached = clock()
        self._failures = 0
        self._stop = stop or threading.Event()
        self.counts = Counts()

    def __repr__(self) -> str:
        storage = type(self._storage).__name__
        return f"Forecaster({storage}, studies={self._names!r}, pruner={self._pruner!r})"

    def stop(self) -> None:
        """End :meth:`run` once the trial in hand is judged; may be called from a signal handler."""
        self._stop.set()

    def run(self, give_up_after: float = 300.0) -> bool:
        """Make passes until :meth:`stop` is called.

        Args:
            give_up_after: Seconds for which the storage may be out of reach.

        Returns:
            Whether it ended well: False if the storage was out of reach for longer than that.
        """
        self._reached = self._clock()
        try:
            while not self._stop.is_set():
                well = self.run_pass()
                out_of_reach = self._clock() - self._reached
                if not well and out_of_reach >= give_up_after:
                    self._say(logging.ERROR, "gave_up", seconds=round(out_of_reach, 1))
                    return False
                self._stop.wait(self._rest())
            return True
        finally:
            self.leave()

    def run_once(self) -> bool:
        """Make one pass over all studies, once the other forecasters know of this one.

        Returns:
            Whether all of them could be read and written.
        """
        began = self._clock()
        try:
            well = self.run_pass()
            while well and not self._stop.is_set() and self._is_joining():
                if self._clock() - began > 2.0 * self._lease:
                    self._say(logging.ERROR, "no_share", seconds=round(self._clock() - began, 1))
                    return False
                self._stop.wait(self._rest())
                well = self.run_pass()
            return well
        finally:
            self.leave()

    def leave(self) -> None:
        """Give the leases back, and write out what the pruner publishes and keeps."""
        for watched in self._watched.values():
            if watched.study is not None:
                try:
                    watched.membership.leave(watched.study._storage, watched.study._study_id)
                except Exception as error:
                    self._say(logging.INFO, "lease_left_to_expire", why=self._words(error))
        publish.writer().flush(5.0)
        ledger_writer.flush(5.0)

    def run_pass(self) -> bool:
        """Look at each study whose turn it is.

        Returns:
            Whether all the studies could be read and written when last tried.
        """
        self.counts.storage_seconds = 0.0
        try:
            self._find_studies()
        except Exception as error:
            self._failures += 1
            self._look_for_studies = self._clock() + self._pause(self._failures)
            self._say(logging.WARNING, "storage_out_of_reach", why=self._words(error))
            return False
        self._failures = 0
        for watched in list(self._watched.values()):
            if self._stop.is_set():
                break
            if watched.due <= self._clock():
                self._visit(watched)
        everything = self._watched.values()
        self.counts.studies = len(everything)
        self.counts.running = sum(watched.n_running for watched in everything)
        self.counts.members = max((w.membership.n_members for w in everything), default=0)
        self.counts.failing = sum(watched.failures > 0 for watched in everything)
        self._say(logging.DEBUG, "pass", **vars(self.counts))
        return self.counts.failing == 0

    def _rest(self) -> float:
        """Seconds until the next pass: until a study is due, and as the storage needs its rest."""
        due = [watched.due for watched in self._watched.values()]
        if self._names is None or not due:
            due.append(self._look_for_studies)
        wait = min(due) - self._clock()
        return max(wait, self.counts.storage_seconds * (1.0 / STORAGE_SHARE - 1.0), 0.01)

    def _pause(self, failures: int) -> float:
        """Seconds before another try: twice as long each time."""
        first = max(self._interval, 0.05)
        return min(first * 2.0 ** min(failures, 20), max(LONGEST_PAUSE, first))

    def _is_joining(self) -> bool:
        """Whether there is a study with running trials that this one has no share of yet."""
        return any(
            w.study is not None and len(w.study.directions) == 1 and not w.membership.is_settled
            for w in self._watched.values()
        )

    def _find_studies(self) -> None:
        """Take in studies that are new; those given by name are watched from the start."""
        if self._clock() < self._look_for_studies:
            return
        if self._names is None:
            with self._storage_busy():
                names = [study.study_name for study in self._storage.get_all_studies()]
        else:
            names = self._names
        for name in names:
            if name not in self._watched:
                self._watched[name] = self._newly(name)
        for name in set(self._watched).difference(names):
            self._drop(self._watched.pop(name))
        self._look_for_studies = self._clock() + max(10.0 * self._interval, 1.0)

    def _newly(self, name: str) -> _Watched:
        settle = min(max(self._interval, 0.01), self._lease / 4.0)
        membership = Membership(self._lease, settle, self._clock)
        return _Watched(name, copy.copy(self._pruner), membership, self._clock())

    def _drop(self, watched: _Watched) -> None:
        """Forget what can be read again: Optuna's cache of the study is the largest part of it."""
        watched.pruner = copy.copy(self._pruner)
        watched.study, watched.served, watched.n_running = None, {}, 0

    def _visit(self, watched: _Watched) -> None:
        """Serve a study and note when to come again."""
        try:
            self._serve(watched)
        except KeyError as error:
            if self._exists(watched.name):
                self._failed(watched, error)
                return
            self._gone(watched)
        except Exception as error:
            self._failed(watched, error)
            return
        if watched.failures:
            watched.failures = 0
            self._say(logging.INFO, "back", study=watched.name)
        rests = self._clock() - watched.active
        pause = max(self._interval, min(rests / 10.0, LONGEST_PAUSE))
        watched.due = self._clock() + pause

    def _failed(self, watched: _Watched, error: Exception) -> None:
        watched.failures += 1
        watched.due = self._clock() + self._pause(watched.failures)
        level = logging.WARNING if watched.failures == 1 else logging.DEBUG
        self._say(level, "cannot_serve", study=watched.name, why=self._words(error))

    def _exists(self, name: str) -> bool:
        """Whether there is a study of this name, as far as the storage says."""
        try:
            with self._storage_busy():
                self._storage.get_study_id_from_name(name)
        except KeyError:
            return False
        except Exception:
            return True
        return True

    def _gone(self, watched: _Watched) -> None:
        if watched.study is not None or not watched.said_missing:
            self._say(logging.WARNING, "no_such_study", study=watched.name)
        self._drop(watched)
        fresh = self._newly(watched.name)
        watched.membership, watched.said_missing = fresh.membership, True
        if self._names is None:
            self._watched.pop(watched.name, None)

    def _serve(self, watched: _Watched) -> None:
        if watched.study is None and not self._load(watched):
            return
        study = watched.study
        assert study is not None, "loaded"
        if len(study.directions) > 1:
            return
        with self._storage_busy():
            lost = watched.membership.keep(study._storage, study._study_id)
        if lost:
            # Taken for dead, or another study of this name and number: nothing remembered holds.
            self._say(logging.WARNING, "lease_lost", study=watched.name)
            self._drop(watched)
            return
        with self._storage_busy():
            running = study.read_running()
        now = self._clock()
        watched.n_running = len(running)
        watched.served = {t._trial_id: watched.served.get(t._trial_id, _NOT_YET) for t in running}
        if running:
            watched.active = now
        elif now - watched.active > IDLE_AFTER:
            with self._storage_busy():
                watched.membership.leave(study._storage, study._study_id)
            self._drop(watched)
            return
        if watched.membership.is_settled:
            self._judge_all(watched, study, running)

    def _load(self, watched: _Watched) -> bool:
        """Open the study if a trial is running in it."""
        with self._storage_busy():
            study_id = self._storage.get_study_id_from_name(watched.name)
            running = self._storage.get_all_trials(
                study_id, deepcopy=False, states=(TrialState.RUNNING,)
            )
            if not running:
                return False
            watched.study = _WatchedStudy(watched.name, self._storage)
        watched.active = self._clock()
        watched.said_missing = False
        self._say(logging.INFO, "study", study=watched.name, running=len(running))
        if len(watched.study.directions) > 1:
            self._say(logging.WARNING, "several_objectives_not_served", study=watched.name)
        return True

    def _judge_all(
        self, watched: _Watched, study: _WatchedStudy, running: Sequence[FrozenTrial]
    ) -> None:
        """Judge those of this one's share that have new reports, the longest unseen first."""
        began = self._clock()
        waiting = [trial for trial in running if self._has_news(trial, watched)]
        waiting.sort(key=lambda trial: watched.served[trial._trial_id].when)
        for trial in waiting:
            if self._stop.is_set() or self._clock() - began > LONGEST_PASS:
                return
            if watched.membership.is_due:
                with self._storage_busy():
                    if watched.membership.keep(study._storage, study._study_id):
                        return
            if watched.membership.takes(trial._trial_id):
                self._judge(watched, study, trial)

    def _has_news(self, trial: FrozenTrial, watched: _Watched) -> bool:
        n_reports = len(trial.intermediate_values)
        if n_reports <= watched.served[trial._trial_id].n_reports:
            return False
        known = remote_verdict.newest(trial)
        return known is None or not known.covers(trial)

    def _judge(self, watched: _Watched, study: _WatchedStudy, trial: FrozenTrial) -> None:
        """Decide about a trial and write the verdict, unless somebody else has meanwhile."""
        start = self._clock()
        decision = watched.pruner.decide(study, trial)
        took = self._clock() - start
        verdict = RemoteVerdict.of(decision, trial, watched.membership.id)
        facts = {
            "study": watched.name,
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
            with self._storage_busy():
                if not watched.membership.holds and self._is_overtaken(study, trial):
                    self._say(logging.INFO, "overtaken", **facts)
                    return
                remote_verdict.write(study._storage, trial._trial_id, verdict)
        except UpdateFinishedTrialError:
            self._say(logging.DEBUG, "ended_meanwhile", **facts)
            return
        watched.served[trial._trial_id] = _Served(verdict.n_reports, self._clock())
        self.counts.verdicts += 1
        self.counts.prunes += decision.prune
        self._say(logging.INFO if decision.prune else logging.DEBUG, "verdict", **facts)

    def _is_overtaken(self, study: _WatchedStudy, trial: FrozenTrial) -> bool:
        """Whether another forecaster judged these reports while this one's lease ran out."""
        now = copy.copy(trial)
        now.system_attrs = dict(remote_verdict.attributes(study._storage, trial._trial_id))
        known = remote_verdict.newest(now)
        return known is not None and known.covers(trial)

    @contextmanager
    def _storage_busy(self) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        except (KeyError, UpdateFinishedTrialError):  # an answer too
            self._reached = self._clock()
            raise
        else:
            self._reached = self._clock()
        finally:
            self.counts.storage_seconds += self._clock() - start

    def _words(self, error: Exception) -> str:
        """An error in one line, as the database put it."""
        cause = error.__cause__ or error  # Optuna's own words hide it
        words = str(getattr(cause, "orig", None) or cause).strip() or repr(cause)
        return without_passwords(words.splitlines()[0][:300], self._secrets)

    def _say(self, level: int, name: str, **facts: object) -> None:
        self._tell(Event(level, name, facts))


class _WatchedStudy(Study):
    """A study whose trials are read once a pass, however many of them are judged in it."""

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
class _Served:
    """How many reports of a trial this forecaster has judged, and when."""

    n_reports: int
    when: float


_NOT_YET = _Served(0, float("-inf"))


@dataclass
class _Watched:
    """A study, and what is remembered of it; see :meth:`Forecaster._drop`."""

    name: str
    pruner: LearningCurvePruner
    membership: Membership
    active: float
    study: _WatchedStudy | None = None
    served: dict[int, _Served] = field(default_factory=dict)
    n_running: int = 0
    due: float = 0.0
    failures: int = 0
    said_missing: bool = False


def _uncached(storage: BaseStorage) -> BaseStorage:
    """A relational storage without Optuna's cache, so that each study can have its own."""
    backend = getattr(storage, "_backend", None)
    return backend if isinstance(backend, RDBStorage) else storage


def _urls(storage: BaseStorage) -> list[str]:
    url = getattr(storage, "url", None)
    return [url] if isinstance(url, str) else []


def _log(event: Event) -> None:
    if _logger.isEnabledFor(event.level):
        _logger.log(event.level, f"Forecaster: {event.text()}")
