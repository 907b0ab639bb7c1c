"""Forecasts that training does not wait for: made by an executor, taken at the next check.

Glossary:
    question  the curves to forecast (the newest first) and what the study knows
    slot      a trial's question in flight, the newest one waiting behind it, and its last answer

One question of a trial is in flight at a time; while it is, a newer one replaces the one waiting.
An answer is handed out once; one that a newer answer has overtaken is dropped. Whatever goes wrong
in a worker, the trial goes on: its question is dropped and one warning is given.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import Engine, StudyKnowledge

_MOST_TRIALS = 1024


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
    in_flight: object | None = None  # a token of its own for each question sent
    future: Future[Answer] | None = None
    since: float = 0.0
    waiting: Question | None = None
    answer: Answer | None = None


class Background:
    """Asks an executor for forecasts.

    Args:
        engine: The posterior.
        executor: Any ``concurrent.futures.Executor``. It stays the caller's to shut down; see
            :func:`worker_processes` for one that leaves nothing behind.
        timeout: Seconds after which a question counts as lost.
        warn: Called with ``(topic, message)`` when a worker fails.
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
        self._lock = threading.Lock()
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()

    def exchange(self, trial: Hashable, question: Question) -> Answer | None:
        """Hand over a trial's newest curve, take the newest answer that has arrived, if any."""
        with self._lock:
            slot = self._slots.setdefault(trial, _Slot())
            self._slots.move_to_end(trial)
            if len(self._slots) > _MOST_TRIALS:
                self._slots.popitem(last=False)
            lost = None
            overdue = time.monotonic() - slot.since > self._timeout
            if slot.in_flight is not None and overdue:
                lost, slot.in_flight, slot.future = slot.future, None, None
            slot.waiting = question
            taken, slot.answer = slot.answer, None
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
        token = object()
        with self._lock:
            if slot.in_flight is not None or slot.waiting is None:
                return
            question, slot.waiting = slot.waiting, None
            slot.in_flight, slot.since = token, time.monotonic()
        try:
            future = self._executor.submit(answer, self._engine, question)
        except RuntimeError as error:  # broken, or shut down
            with self._lock:
                slot.in_flight = None
            if asked:
                self._warn("executor", f"the executor takes no work, trials go on: {error!r}")
            return
        with self._lock:
            if slot.in_flight is token:
                slot.future = future
        future.add_done_callback(lambda done: self._done(slot, token, done))

    def _done(self, slot: _Slot, token: object, future: Future[Answer]) -> None:
        """Keep the answer, send the question that waits; called by the executor."""
        found, problem = None, None
        try:
            found = future.result()
        except (Exception, CancelledError) as error:
            problem = error
        with self._lock:
            if slot.in_flight is not token:  # given up before it came
                return
            slot.in_flight, slot.future = None, None
            if found is not None:
                slot.answer = found
            else:
                slot.waiting = None  # not again before the next check
        if problem is not None and not isinstance(problem, CancelledError):
            self._warn("worker", f"a forecast failed, the trial goes on: {problem!r}")
        self._send(slot, asked=False)


@contextmanager
def worker_processes(n: int = 1) -> Iterator[Executor]:
    """An executor of ``n`` processes that are gone at the end, even those that hang.

    Example:
        >>> with worker_processes() as executor:
        ...     executor.submit(abs, -1).result()
        1
    """
    executor = ProcessPoolExecutor(n, mp_context=get_context("spawn"))
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
