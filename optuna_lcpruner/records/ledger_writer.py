"""Writes the ledger in batches, in the background: the training only puts a decision in a queue."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing import util

from optuna.logging import get_logger

from optuna_lcpruner._util.fork_safety import at_work, working
from optuna_lcpruner._util.redaction import describe_error
from optuna_lcpruner.records.ledger import Ledger, LedgerEntry, refuses_contents
from optuna_lcpruner.records.location import Address

_logger = get_logger("optuna.lcpruner")

IDLE = 60.0
"""Seconds without a decision after which a ledger's thread ends."""

CAPACITY = 1000
"""Decisions that may wait; one holds about 40 kB until its forecast is worked out."""

BATCH = 200
"""Decisions of one transaction; as many waiting are not kept waiting for the period to end."""

PERIOD = 0.5
"""Seconds for which decisions are gathered before they are written."""

DUTY = 0.1
"""Share of the time spent on working decisions out while few of them wait."""

LONGEST_PAUSE = 60.0
"""Seconds between two tries to write to a ledger that refuses, at most; 1 at first."""


class LedgerWriter:
    """A queue and the thread that empties it into one ledger.

    A ledger that cannot be written is tried again; what waits is kept up to ``capacity``, then the
    newest are lost. That costs one warning in the life of the writer.

    Args:
        where: The ledger.
        capacity: Decisions that may wait.
    """

    def __init__(self, where: Address, capacity: int = CAPACITY) -> None:
        self._where = where
        self._capacity = capacity
        self._condition = threading.Condition()
        self._waiting: deque[Callable[[], LedgerEntry]] = deque()
        self._unwritten: list[LedgerEntry] = []
        self._hurry = 0
        self._tries = 0
        self._thread: threading.Thread | None = None
        self._warned = False

    def submit(self, entry: Callable[[], LedgerEntry]) -> None:
        """Write soon; never waits for the database.

        Args:
            entry: Gives the entry; called in the background.
        """
        with self._condition:
            if self._n_waiting() >= self._capacity:
                full = True
            else:
                full = False
                self._waiting.append(entry)
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(
                        target=self._run, name="lcpruner-ledger", daemon=True
                    )
                    self._thread.start()
                # It is woken to begin a batch or to end it, not for each decision.
                if len(self._waiting) in (1, BATCH):
                    self._condition.notify_all()
        if full:
            self._warn("decisions come faster than they can be written; some are not on record")

    def flush(self, timeout: float = 5.0) -> bool:
        """Write what waits now; False if that took longer or the ledger refused."""
        with self._condition:
            last = self._tries + 2  # the first may be one under way, with an older batch
            self._hurry += 1
            self._condition.notify_all()
            try:
                self._condition.wait_for(
                    lambda: not self._n_waiting() or self._tries >= last, timeout
                )
                return not self._n_waiting()
            finally:
                self._hurry -= 1

    def _n_waiting(self) -> int:
        return len(self._waiting) + len(self._unwritten)

    def _run(self) -> None:
        ledger = Ledger(self._where)
        pause = 0.0
        while True:
            with self._condition:
                if not self._condition.wait_for(lambda: self._n_waiting() > 0, IDLE):
                    self._thread = None  # the next decision starts another one
                    return
                if pause:
                    self._condition.wait_for(lambda: self._hurry > 0, pause)
                else:
                    self._condition.wait_for(
                        lambda: self._hurry > 0 or len(self._waiting) >= BATCH, PERIOD
                    )
            self._work_out()
            try:
                with at_work():
                    self._write(ledger)
            except Exception as error:  # locked, full, read-only, gone: the trials must not suffer
                pause = min(max(1.0, 2.0 * pause), LONGEST_PAUSE)
                self._warn(f"{describe_error(error)}; decisions may be missing from it")
                with self._condition:
                    self._tries += 1
                    self._condition.notify_all()
            else:
                pause = 0.0
                with self._condition:
                    self._unwritten = []
                    self._condition.notify_all()

    def _write(self, ledger: Ledger) -> None:
        """Write the batch; an entry that the database can never hold costs itself alone."""
        if not self._unwritten:
            return
        try:
            ledger.append(self._unwritten)
        except Exception as error:
            if not refuses_contents(error):
                raise
        else:
            return
        while self._unwritten:
            try:
                ledger.append(self._unwritten[:1])
            except Exception as error:
                if not refuses_contents(error):
                    raise
                self._warn(f"a decision cannot be put on record: {describe_error(error)}")
            with self._condition:
                self._unwritten = self._unwritten[1:]

    def _work_out(self) -> None:
        """Turn a batch of what waits into entries, with rests between them.

        Python runs one thread at a time, so what is worked out here in one go would make the
        training wait. The fuller the queue, the shorter the rests.
        """
        while len(self._unwritten) < BATCH and self._waiting:
            start = time.monotonic()
            with at_work():
                try:
                    worked_out = self._waiting[0]()
                except Exception as error:
                    self._warn(f"a decision cannot be put on record: {error!r}")
                    worked_out = None
            took = time.monotonic() - start
            with self._condition:
                self._waiting.popleft()
                if worked_out is not None:
                    self._unwritten.append(worked_out)
                duty = DUTY + (1.0 - DUTY) * min(1.0, self._n_waiting() / self._capacity)
                self._condition.wait_for(lambda: self._hurry > 0, took * (1.0 / duty - 1.0))

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(f"Ledger {self._where.shown}: {message}.")


_writers: dict[Address, LedgerWriter] = {}
_writers_pid = os.getpid()


def writer(where: Address) -> LedgerWriter:
    """The writer of this process for a ledger; a forked child has its own."""
    global _writers, _writers_pid
    if _writers_pid != os.getpid():
        _writers, _writers_pid = {}, os.getpid()
    known = _writers.get(where)
    if known is None:
        if not _writers:
            # Like atexit, but in the children of multiprocessing too.
            util.Finalize(None, flush, kwargs={"timeout": 5.0}, exitpriority=1)
        known = _writers.setdefault(where, LedgerWriter(where))
    return known


def flush(timeout: float = 10.0) -> bool:
    """Write what waits in this process, to whatever ledger; False if not all of it could be.

    Inside :func:`~optuna_lcpruner._util.fork_safety.at_work` nothing is written: the writer could
    not begin.
    """
    if _writers_pid != os.getpid():
        return True
    if working():
        return False
    end = time.monotonic() + timeout  # for all of them together
    known = list(_writers.values())
    flushed = [one.flush(max(0.0, end - time.monotonic())) for one in known]
    return all(flushed)
