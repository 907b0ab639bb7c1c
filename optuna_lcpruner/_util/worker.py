"""The background worker: a daemon thread that does what waits, with rests in between.

What this package writes beside the training, trial attributes and the ledger, is done by such a
thread. It ends when nothing has waited for a while, works only inside
:func:`~optuna_lcpruner._util.fork_safety.at_work`, and is waited for when the process ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from multiprocessing import util
from typing import Generic, TypeVar

from optuna_lcpruner._util.fork_safety import working

IDLE = 60.0  # heuristic
"""Seconds without work after which the thread ends."""


class Worker:
    """A thread that is started by the first :meth:`wake` and again after it ended.

    Args:
        name: The thread's name.
        work: Does a piece of what waits; may :meth:`rest` before it returns.
        waiting: Returns whether something waits; called with :attr:`condition` held.
    """

    def __init__(self, name: str, work: Callable[[], None], waiting: Callable[[], bool]) -> None:
        self.condition = threading.Condition()
        self._name = name
        self._work = work
        self._waiting = waiting
        self._hurry = 0
        self._busy = False
        self._thread: threading.Thread | None = None

    @property
    def in_a_hurry(self) -> bool:
        """Whether somebody waits for the work to be done."""
        return self._hurry > 0

    def wake(self) -> None:
        """Start the thread if it does not run. Call it with :attr:`condition` held."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self.condition.notify_all()

    def rest(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Wait, on the thread, unless somebody waits for it or there is ``enough`` to do."""
        with self.condition:
            self.condition.wait_for(lambda: self._hurry > 0 or enough(), seconds)

    def flush(self, timeout: float, in_vain: Callable[[], bool] = lambda: False) -> bool:
        """Wait until nothing waits any more.

        Args:
            timeout: Seconds to wait at most.
            in_vain: Whether to give up before.

        Returns:
            Whether all is done.
        """
        with self.condition:
            self._hurry += 1
            self.condition.notify_all()
            try:
                self.condition.wait_for(lambda: self._is_done() or in_vain(), timeout)
                return self._is_done()
            finally:
                self._hurry -= 1

    def _is_done(self) -> bool:
        return not self._waiting() and not self._busy

    def _run(self) -> None:
        while True:
            with self.condition:
                if not self.condition.wait_for(self._waiting, IDLE):
                    self._thread = None  # the next wake starts another one
                    return
                self._busy = True
            try:
                self._work()
            finally:
                with self.condition:
                    self._busy = False
                    self.condition.notify_all()


Key = TypeVar("Key", bound=Hashable)
Writer = TypeVar("Writer")


class PerProcess(Generic[Key, Writer]):
    """Objects made at the first use of their key; a forked child makes its own.

    Args:
        make: Makes the object of a key.
        flush: Writes what one of them still holds, in at most so many seconds; called for all of
            them when the process ends, in the children of multiprocessing too.
        timeout: Seconds for that.
    """

    def __init__(
        self,
        make: Callable[[Key], Writer],
        flush: Callable[[Writer, float], bool],
        timeout: float,
    ) -> None:
        self._make = make
        self._flush = flush
        self._timeout = timeout
        self._pid = os.getpid()
        self._made: dict[Key, Writer] = {}

    def of(self, key: Key) -> Writer:
        """Return the object of a key."""
        if self._pid != os.getpid():
            self._pid, self._made = os.getpid(), {}
        if key not in self._made:
            if not self._made:
                # Like atexit, but in the children of multiprocessing too, and for what is begun in
                # them: they forget what was registered before.
                util.Finalize(None, self.flush, args=(self._timeout,), exitpriority=1)
            self._made.setdefault(key, self._make(key))
        return self._made[key]

    def flush(self, timeout: float) -> bool:
        """Write what all of them hold; False if not all of it could be in that time.

        Inside :func:`~optuna_lcpruner._util.fork_safety.at_work` nothing is written: the thread
        that would do it cannot begin.
        """
        if self._pid != os.getpid():
            return True
        if working():
            return False
        end = time.monotonic() + timeout  # for all of them together
        flushed = [self._flush(one, max(0.0, end - time.monotonic())) for one in self._all()]
        return all(flushed)

    def _all(self) -> list[Writer]:
        return list(self._made.values())
