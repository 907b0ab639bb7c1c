"""Forecasts that nobody waits for: made by an executor, taken at the next check.

Glossary:
    question  the curves to forecast (the newest first) and what the study knows
    slot      a trial's question in flight, the newest one waiting behind it, and its last answer

One question of a trial is in flight at a time; while it is, a newer one replaces the one waiting.
An answer is handed out once; one that a newer answer has overtaken is dropped. Whatever goes wrong
in a worker, the trial goes on: its question is dropped and one warning is given. A question is sent
once, however often it is asked, unless it was lost with its worker.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
)
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

import numpy as np

from optuna_lcpruner._util.recent import Recent
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import Engine, StudyKnowledge

_MOST_TRIALS = 1024  # heuristic

_LOST = (CancelledError, BrokenExecutor)
"""Errors that say nothing about the question: it is sent again if it is asked again."""


@dataclass(frozen=True)
class Question:
    """What to forecast.

    Attributes:
        curves: The curve, then the earlier ones that patience asks about.
        knowledge: What the study knows.
        step: The caller's step of the newest report.
    """

    curves: tuple[LearningCurve, ...]
    knowledge: StudyKnowledge
    step: int

    def repeats(self, other: Question | None) -> bool:
        """Return whether it is about the reports of another one, whatever the study has learnt."""
        if other is None or self.step != other.step or len(self.curves) != len(other.curves):
            return False
        mine, others = self.curves[0], other.curves[0]
        return mine.horizon == others.horizon and np.array_equal(mine.values, others.values)


@dataclass(frozen=True)
class Answer:
    """A question and the forecasts of its curves."""

    question: Question
    forecasts: tuple[Forecast, ...]


def answer(engine: Engine, question: Question) -> Answer:
    """What a worker does."""
    forecasts = tuple(engine(curve, question.knowledge) for curve in question.curves)
    return Answer(question, forecasts)


@dataclass
class _Slot:
    in_flight: int | None = None  # a number of its own for each question sent
    sent: Question | None = None
    future: Future[Answer] | None = None
    since: float = 0.0
    waiting: Question | None = None
    answer: Answer | None = None
    failed: tuple[Question, Exception] | None = None


class Background:
    """Asks an executor for forecasts.

    Args:
        engine: The posterior.
        executor: Any ``concurrent.futures.Executor``. It stays the caller's to shut down; see
            :func:`worker_processes` for one that leaves nothing behind.
        timeout: Seconds after which a question counts as lost. They count from when the last
            question sent before it was answered: until then it may stand in a queue.
        warn: Called with ``(topic, message)`` when a worker fails.

    Attributes:
        is_refused: Whether the executor takes no work any more.
    """

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        timeout: float,
        warn: Callable[[str, str], None],
    ) -> None:
        self._engine = engine
        self._executor = executor
        self._timeout = timeout
        self._warn = warn
        self.is_refused = False
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._slots: Recent[Hashable, _Slot] = Recent(_MOST_TRIALS)

    @classmethod
    def of(
        cls,
        engine: Engine,
        executor: Executor | None,
        timeout: float,
        warn: Callable[[str, str], None],
    ) -> Background | None:
        """Return one with these arguments; None without an executor.

        Raises:
            TypeError: If it is no executor.
        """
        if executor is None:
            return None
        if not isinstance(executor, Executor):
            raise TypeError(f"executor must be a concurrent.futures.Executor, got {executor!r}.")
        return cls(engine, executor, timeout, warn)

    def exchange(self, trial: Hashable, question: Question) -> Answer | None:
        """Hand over a trial's newest curve, take the newest answer that has arrived, if any.

        Raises:
            Exception: Whatever the engine raised when it was asked this question.
        """
        with self._lock:
            slot = self._slots[trial] = self._slots.get(trial) or _Slot()
            lost = None
            overdue = time.monotonic() - slot.since > self._timeout
            if slot.in_flight is not None and overdue:
                lost, slot.in_flight, slot.future = slot.future, None, None
            taken, slot.answer = slot.answer, None
            if slot.failed is not None and question.repeats(slot.failed[0]):
                raise slot.failed[1]
            in_flight = slot.sent if slot.in_flight is not None else None
            is_answered = taken is not None and question.repeats(taken.question)
            slot.waiting = None if is_answered or question.repeats(in_flight) else question
        # Executors are called without the lock: they may call back at once.
        if lost is not None:
            lost.cancel()
            self._warn("hung", f"no forecast after {self._timeout:g} s; trials go on without it.")
        self._send(slot, asked=True)
        return taken

    def _send(self, slot: _Slot, asked: bool) -> None:
        """Send the waiting question unless one is in flight.

        Args:
            slot: The trial's.
            asked: Whether somebody waits for it; not so as an executor closes after the search.
        """
        with self._lock:
            if slot.in_flight is not None or slot.waiting is None:
                return
            question, slot.waiting = slot.waiting, None
            number = next(self._numbers)
            slot.in_flight, slot.sent, slot.since = number, question, time.monotonic()
        try:
            future = self._executor.submit(answer, self._engine, question)
        except Exception as error:  # broken, shut down, or its cluster cannot be reached
            with self._lock:
                slot.in_flight = None
            if asked:
                self.is_refused = True
                self._warn("executor", f"the executor takes no work, trials go on: {error!r}")
            return
        with self._lock:
            self.is_refused = False
            if slot.in_flight == number:
                slot.future = future
        future.add_done_callback(lambda done: self._done(slot, number, question, done))

    def _done(self, slot: _Slot, number: int, question: Question, future: Future[Answer]) -> None:
        """Keep the answer, send the question that waits; called by the executor."""
        found, problem = None, None
        try:
            found = future.result()
        except (Exception, CancelledError) as error:
            problem = error
        with self._lock:
            for other in self._slots.values():
                if other.in_flight is not None and other.in_flight > number:
                    other.since = time.monotonic()
            if slot.in_flight != number:  # given up before it came
                return
            slot.in_flight, slot.future, slot.failed = None, None, None
            if found is not None:
                slot.answer = found
            else:
                slot.waiting = None  # not again before the next check
            if isinstance(problem, Exception) and not isinstance(problem, _LOST):
                slot.failed = (question, problem)
        if problem is not None and not isinstance(problem, CancelledError):
            self._warn("worker", f"a forecast failed, the trial goes on: {problem!r}")
        self._send(slot, asked=False)


@contextmanager
def worker_processes(n: int = 1) -> Iterator[Executor]:
    """An executor of ``n`` processes that are gone at the end, even those that hang.

    They are gone with this process too, even if it is killed.

    Example:
        >>> with worker_processes() as executor:
        ...     executor.submit(abs, -1).result()
        1
    """
    executor = ProcessPoolExecutor(n, get_context("spawn"), initializer=_follow_parent)
    try:
        yield executor
    finally:
        processes = list((executor._processes or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(1.0)
            if process.is_alive():
                process.kill()
                process.join()


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end as soon as it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
