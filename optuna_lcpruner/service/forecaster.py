"""Forecasts running trials from outside their training, and writes the verdicts to the storage.

A pass reads what each study's running trials have reported, judges those of this forecaster's share
that have new reports with an ordinary :class:`~optuna_lcpruner.LearningCurvePruner`, and writes the
verdicts where the trainers look for them (:class:`~optuna_lcpruner.RemotePruner`). The pruner
publishes and keeps its ledger as it does in a training.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.logging import get_logger
from optuna.storages import BaseStorage, get_storage

from optuna_lcpruner._util.optuna_storage import uncached
from optuna_lcpruner._util.redaction import describe_error
from optuna_lcpruner._util.validation import InputError, real
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.service.events import Event
from optuna_lcpruner.service.study_worker import Counts, ServiceContext, StudyWorker

_logger = get_logger("optuna.lcpruner")

STORAGE_SHARE = 0.25
"""Largest share of the time that a forecaster keeps the storage busy; it rests for the others."""

LONGEST_PAUSE = 30.0
"""Seconds between two looks at a study that rests or cannot be read, at most."""

VISITS_A_LEASE = 4
"""Looks at a study in the time of a lease: without one in half that time it counts as lost."""


class Forecaster:
    """Forecasts the running trials of studies until it is stopped.

    Args:
        storage: Optuna storage, or its URL.
        studies: Names of the studies; by default all of the storage. One that does not exist yet
            is waited for.
        pruner: Decides. Its settings are what the trainers' would be if they forecast.
        interval: Seconds between two passes, at least.
        lease: Seconds after which another forecaster takes over from one that is not heard of;
            longer than two forecasts take, and at least four intervals. All forecasters of a
            study need the same.
        tell: Called with each event; by default they go to the log.
        clock: Seconds from any origin; never goes back.
        stop: Ends :meth:`run` when it is set.

    Raises:
        InputError: If the pruner does not forecast itself and at once, or looks at some reports
            only, or if the lease is too short for the interval.
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
        self._names = None if studies is None else list(dict.fromkeys(studies))
        self._interval = real("interval", interval, 0.0, 3600.0)
        lease = real("lease", lease, 0.01, 3600.0)
        if self._interval > lease / VISITS_A_LEASE:
            raise InputError(
                f"lease must be at least {VISITS_A_LEASE} intervals, so that it is kept, "
                f"but got {lease:g} and {self._interval:g} seconds."
            )
        settle = max(self._interval, 0.01)
        opened = uncached(get_storage(storage))  # each study shall have its own cache
        self._urls = [url for url in (getattr(opened, "url", None), storage) if type(url) is str]
        self._desk = ServiceContext(
            opened, pruner, lease, settle, tell or _log, clock, stop or threading.Event()
        )
        self._watched: dict[str, _Turn] = {}
        self._look_for_studies = clock()
        self._failures = 0

    def __repr__(self) -> str:
        storage = type(self._desk.storage).__name__
        return f"Forecaster({storage}, studies={self._names!r}, pruner={self._desk.pruner!r})"

    @property
    def counts(self) -> Counts:
        """What has been done since the start, and what was seen in the last pass."""
        return self._desk.counts

    def stop(self) -> None:
        """End :meth:`run` once the trial in hand is judged; may be called from a signal handler."""
        self._desk.stop.set()

    def run(self, give_up_after: float = 300.0) -> bool:
        """Make passes until :meth:`stop` is called.

        Args:
            give_up_after: Seconds for which the storage may be out of reach.

        Returns:
            Whether it ended well: False if the storage was out of reach for longer than that.
        """
        desk = self._desk
        desk.reached = desk.clock()
        try:
            while not desk.stop.is_set():
                well = self.run_pass()
                out_of_reach = desk.clock() - desk.reached
                if not well and out_of_reach >= give_up_after:
                    desk.say(logging.ERROR, "gave_up", seconds=round(out_of_reach, 1))
                    return False
                desk.stop.wait(self._rest())
            return True
        finally:
            self.leave()

    def run_once(self) -> bool:
        """Make one pass over all studies, once the other forecasters know of this one.

        Returns:
            Whether all of them could be read and written.
        """
        desk = self._desk
        began = desk.clock()
        try:
            well = self.run_pass()
            while well and not desk.stop.is_set() and self._is_joining():
                waited = desk.clock() - began
                if waited > 2.0 * desk.lease:
                    desk.say(logging.ERROR, "no_share", seconds=round(waited, 1))
                    return False
                desk.stop.wait(self._rest())
                well = self.run_pass()
            return well
        finally:
            self.leave()

    def leave(self) -> None:
        """Give the leases back, and write out what the pruner publishes and keeps."""
        for turn in self._watched.values():
            try:
                turn.watch.leave()
            except Exception as error:
                self._desk.say(logging.INFO, "lease_left_to_expire", why=self._words(error))
        trial_attributes.writer().flush(5.0)
        ledger_writer.flush(5.0)

    def run_pass(self) -> bool:
        """Look at each study whose turn it is.

        Returns:
            Whether all the studies could be read and written when last tried.
        """
        desk = self._desk
        desk.counts.storage_seconds = 0.0
        try:
            self._find_studies()
        except Exception as error:
            self._failures += 1
            self._look_for_studies = desk.clock() + self._pause(self._failures)
            desk.say(logging.WARNING, "storage_out_of_reach", why=self._words(error))
            return False
        self._failures = 0
        for turn in list(self._watched.values()):
            if desk.stop.is_set():
                break
            if turn.due <= desk.clock():
                self._visit(turn)
        turns = self._watched.values()
        counts = desk.counts
        counts.studies = len(turns)
        counts.running = sum(turn.watch.n_running for turn in turns)
        counts.members = max((turn.watch.n_members for turn in turns), default=0)
        counts.failing = sum(turn.failures > 0 for turn in turns)
        desk.say(logging.DEBUG, "pass", **vars(counts))
        return counts.failing == 0

    def _find_studies(self) -> None:
        """Take in studies that are new; those given by name are watched from the start."""
        if self._desk.clock() < self._look_for_studies:
            return
        names = self._names
        if names is None:
            with self._desk.storage_busy():
                names = [study.study_name for study in self._desk.storage.get_all_studies()]
        for name in names:
            if name not in self._watched:
                self._watched[name] = _Turn(StudyWorker(name, self._desk))
        for name in set(self._watched).difference(names):
            self._watched.pop(name).watch.gone(asked_for=False)
        self._look_for_studies = self._desk.clock() + max(10.0 * self._interval, 1.0)

    def _visit(self, turn: _Turn) -> None:
        """Serve a study and note when its next turn is."""
        watch, desk = turn.watch, self._desk
        try:
            watch.serve()
        except KeyError as error:
            ids = self._ids(watch.name)
            if ids is None or ids:
                if ids and watch.study_id not in ids:  # another one of this name
                    watch.forget()
                self._failed(turn, error)
                return
            watch.gone(self._names is not None)
        except Exception as error:
            self._failed(turn, error)
            return
        if turn.failures:
            turn.failures = 0
            desk.say(logging.INFO, "back", study=watch.name)
        longest = LONGEST_PAUSE if watch.study_id is None else desk.lease / VISITS_A_LEASE
        rests = desk.clock() - watch.active
        turn.due = desk.clock() + max(self._interval, min(rests / 10.0, longest))

    def _failed(self, turn: _Turn, error: Exception) -> None:
        turn.failures += 1
        turn.due = self._desk.clock() + self._pause(turn.failures)
        level = logging.WARNING if turn.failures == 1 else logging.DEBUG
        self._desk.say(level, "cannot_serve", study=turn.watch.name, why=self._words(error))

    def _ids(self, name: str) -> set[int] | None:
        """The id of the study of this name, if there is one; None if the storage does not say.

        A KeyError does not: Optuna raises it for a study that is not there, and for a line of a
        journal that it cannot read. The list of all studies tells.
        """
        try:
            with self._desk.storage_busy():
                studies = self._desk.storage.get_all_studies()
        except Exception:
            return None
        return {study._study_id for study in studies if study.study_name == name}

    def _is_joining(self) -> bool:
        return any(turn.watch.is_joining for turn in self._watched.values())

    def _rest(self) -> float:
        """Seconds until a study is due, and as the storage needs its rest; a lease ends it."""
        due = [turn.due for turn in self._watched.values()]
        if self._names is None or not due:
            due.append(self._look_for_studies)
        wait = min(due) - self._desk.clock()
        rest = self.counts.storage_seconds * (1.0 / STORAGE_SHARE - 1.0)
        return max(wait, min(rest, self._desk.lease / 4.0), 0.01)

    def _pause(self, failures: int) -> float:
        """Seconds before another try: twice as long each time."""
        first = max(self._interval, 0.05)
        return min(first * 2.0 ** min(failures, 20), max(LONGEST_PAUSE, first))

    def _words(self, error: BaseException) -> str:
        return describe_error(error, self._urls)


@dataclass
class _Turn:
    """A watch, when its study is to be looked at next, and failures in a row."""

    watch: StudyWorker
    due: float = float("-inf")
    failures: int = 0


def _log(event: Event) -> None:
    if _logger.isEnabledFor(event.level):
        _logger.log(event.level, f"Forecaster: {event.text()}")
