"""Forecasts running trials from outside their training, and writes the verdicts to the storage.

A pass reads what each study's running trials have reported, judges those that have new reports with
an ordinary :class:`~optuna_lcpruner.LearningCurvePruner`, and writes the verdicts where the
trainers look for them (:class:`~optuna_lcpruner.RemotePruner`). The pruner publishes and keeps its
ledger as it does in a training.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from optuna.logging import get_logger
from optuna.storages import BaseStorage, get_storage

from optuna_lcpruner._util.optuna_storage import study_id_of, uncached
from optuna_lcpruner._util.redaction import describe_error
from optuna_lcpruner._util.validation import InputError, real
from optuna_lcpruner.pruners.executor import Background
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.service.events import Event
from optuna_lcpruner.service.study_worker import Counts, ServiceContext, StudyWorker

_logger = get_logger("optuna.lcpruner")

STORAGE_SHARE = 0.25  # heuristic
"""Largest share of the time that a forecaster keeps the storage busy; it rests for the others."""

LONGEST_PAUSE = 30.0  # heuristic
"""Seconds between two looks at a study that rests or cannot be read, at most."""


class Forecaster:
    """Forecasts the running trials of studies until it is stopped.

    One forecaster serves a study. Where its process is too slow, an executor makes the forecasts.
    A second forecaster on the same study does the same work again and no harm.

    Args:
        storage: Optuna storage, or its URL.
        studies: Names of the studies; by default all of the storage. One that does not exist yet
            is waited for.
        pruner: Decides. Its settings are what the trainers' would be if they forecast.
        interval: Seconds between two passes, at least.
        executor: Makes the forecasts, a ``concurrent.futures.Executor``: processes, or a cluster.
            By default they are made here, one after the other.
        executor_timeout: Seconds after which a forecast of the executor counts as lost and is asked
            for again; the time in its queue does not count.
        tell: Called with each event; by default they go to the log.
        clock: Seconds from any origin; never goes back.
        stop: Ends :meth:`run` when it is set.

    Raises:
        InputError: If the pruner has an executor of its own, or looks at some reports only.
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
        executor: Executor | None = None,
        executor_timeout: float = 60.0,
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
        timeout = real("executor_timeout", executor_timeout, 0.0, math.inf)
        self._background = Background.of(pruner.judge.engine, executor, timeout, pruner.warn_once)
        opened = uncached(get_storage(storage))  # each study shall have its own cache
        self._urls = [url for url in (getattr(opened, "url", None), storage) if type(url) is str]
        self._context = ServiceContext(
            opened, pruner, self._background, tell or _log, clock, stop or threading.Event()
        )
        self._workers: dict[str, StudyWorker] = {}
        self._look_for_studies = clock()
        self._failures = 0

    def __repr__(self) -> str:
        storage = type(self._context.storage).__name__
        return f"Forecaster({storage}, studies={self._names!r}, pruner={self._context.pruner!r})"

    @property
    def counts(self) -> Counts:
        """What has been done since the start, and what was seen in the last pass."""
        return self._context.counts

    def stop(self) -> None:
        """End :meth:`run` once the trial in hand is judged; may be called from a signal handler."""
        self._context.stop.set()

    def run(self, give_up_after: float = 300.0) -> bool:
        """Make passes until :meth:`stop` is called.

        Args:
            give_up_after: Seconds for which the storage may be out of reach.

        Returns:
            Whether it ended well: False if the storage was out of reach for longer than that, or
            if the executor takes no more work.
        """
        context = self._context
        context.reached = context.clock()
        try:
            while not context.stop.is_set():
                well = self.run_pass()
                out_of_reach = context.clock() - context.reached
                if not well and out_of_reach >= give_up_after:
                    context.say(logging.ERROR, "gave_up", seconds=round(out_of_reach, 1))
                    return False
                if self._is_broken():
                    return False
                context.stop.wait(self._rest())
            return True
        finally:
            _flush()

    def run_once(self, give_up_after: float = 300.0) -> bool:
        """Judge each running trial once.

        Args:
            give_up_after: Seconds to wait for the executor.

        Returns:
            Whether all studies could be read and written, and all trials be judged.
        """
        context = self._context
        began = context.clock()
        try:
            well = self.run_pass()
            while well and not context.stop.is_set() and self._is_unfinished():
                waited = context.clock() - began
                if waited >= give_up_after:
                    context.say(logging.ERROR, "gave_up", seconds=round(waited, 1))
                    return False
                if self._is_broken():
                    return False
                context.stop.wait(self._rest())
                well = self.run_pass()
            return well
        finally:
            _flush()

    def run_pass(self) -> bool:
        """Look at each study whose turn it is.

        Returns:
            Whether all the studies could be read and written when last tried.
        """
        context = self._context
        context.counts.storage_seconds = 0.0
        try:
            self._find_studies()
        except Exception as error:
            self._failures += 1
            self._look_for_studies = context.clock() + self._pause(self._failures)
            context.say(logging.WARNING, "storage_out_of_reach", why=self._words(error))
            return False
        self._failures = 0
        for worker in list(self._workers.values()):
            if context.stop.is_set():
                break
            if worker.due <= context.clock():
                self._serve(worker)
        workers = self._workers.values()
        counts = context.counts
        counts.studies = len(workers)
        counts.running = sum(worker.n_running for worker in workers)
        counts.waiting = sum(worker.n_waiting for worker in workers)
        counts.failing = sum(worker.failures > 0 for worker in workers)
        context.say(logging.DEBUG, "pass", **vars(counts))
        return counts.failing == 0

    def _find_studies(self) -> None:
        """Take in studies that are new; those given by name are watched from the start."""
        context = self._context
        if context.clock() < self._look_for_studies:
            return
        names = self._names
        if names is None:
            with context.storage_busy():
                names = [study.study_name for study in context.storage.get_all_studies()]
        for name in names:
            if name not in self._workers:
                self._workers[name] = StudyWorker(name, context)
        for name in set(self._workers).difference(names):
            self._workers.pop(name).gone(asked_for=False)
        self._look_for_studies = context.clock() + max(10.0 * self._interval, 1.0)

    def _serve(self, worker: StudyWorker) -> None:
        """Serve a study and note when its next turn is."""
        context = self._context
        try:
            worker.serve()
        except KeyError as error:
            ids = self._ids(worker.name)
            if ids is None or ids:
                if ids and worker.study_id not in ids:  # another one of this name
                    worker.forget()
                self._failed(worker, error)
                return
            worker.gone(self._names is not None)
        except Exception as error:
            self._failed(worker, error)
            return
        if worker.failures:
            worker.failures = 0
            context.say(logging.INFO, "back", study=worker.name)
        rests = context.clock() - worker.active
        worker.due = context.clock() + max(self._interval, min(rests / 10.0, LONGEST_PAUSE))

    def _failed(self, worker: StudyWorker, error: Exception) -> None:
        worker.failures += 1
        worker.due = self._context.clock() + self._pause(worker.failures)
        level = logging.WARNING if worker.failures == 1 else logging.DEBUG
        self._context.say(level, "cannot_serve", study=worker.name, why=self._words(error))

    def _ids(self, name: str) -> set[int] | None:
        """The id of the study of this name, if there is one; None if the storage does not say.

        A KeyError does not: Optuna raises it for a study that is not there, and for a line of a
        journal that it cannot read. The list of all studies tells.
        """
        try:
            with self._context.storage_busy():
                studies = self._context.storage.get_all_studies()
        except Exception:
            return None
        return {study_id_of(study) for study in studies if study.study_name == name}

    def _is_unfinished(self) -> bool:
        return any(worker.n_unseen for worker in self._workers.values())

    def _is_broken(self) -> bool:
        """Whether the executor takes no more work; whoever started this one may start another."""
        background, context = self._background, self._context
        if background is None or not background.is_refused or context.stop.is_set():
            return False
        context.say(logging.ERROR, "executor_broken")
        return True

    def _rest(self) -> float:
        """Seconds until a study is due, and as the storage needs its rest."""
        due = [worker.due for worker in self._workers.values()]
        if self._names is None or not due:
            due.append(self._look_for_studies)
        wait = min(due) - self._context.clock()
        rest = self.counts.storage_seconds * (1.0 / STORAGE_SHARE - 1.0)
        return max(wait, min(rest, LONGEST_PAUSE), 0.01)

    def _pause(self, failures: int) -> float:
        """Seconds before another try: twice as long each time."""
        first = max(self._interval, 0.05)
        return min(first * 2.0 ** min(failures, 20), max(LONGEST_PAUSE, first))

    def _words(self, error: BaseException) -> str:
        return describe_error(error, self._urls)


def _flush() -> None:
    """Write out what the pruner publishes and keeps."""
    trial_attributes.writer().flush(5.0)
    ledger_writer.flush(5.0)


def _log(event: Event) -> None:
    if _logger.isEnabledFor(event.level):
        _logger.log(event.level, f"Forecaster: {event.text()}")
