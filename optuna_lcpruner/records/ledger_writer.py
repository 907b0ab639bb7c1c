"""Writes the ledger in batches, in the background: the training only puts a decision in a queue."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from optuna.logging import get_logger

from optuna_lcpruner._util.fork_safety import at_work
from optuna_lcpruner._util.redaction import describe_error
from optuna_lcpruner._util.worker import PerProcess, Worker
from optuna_lcpruner.records.ledger import Ledger, LedgerEntry, refuses_contents
from optuna_lcpruner.records.location import Address

_logger = get_logger("optuna.lcpruner")

CAPACITY = 1000  # heuristic
"""Decisions that may wait; one holds about 40 kB until its forecast is worked out."""

BATCH = 200  # heuristic
"""Decisions of one transaction; as many waiting are not kept waiting for the period to end."""

PERIOD = 0.5  # heuristic
"""Seconds for which decisions are gathered before they are written."""

DUTY = 0.1  # heuristic
"""Share of the time spent on working decisions out while few of them wait."""

LONGEST_PAUSE = 60.0  # heuristic
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
        self._worker = Worker("lcpruner-ledger", self._write_batch, lambda: self._n_waiting() > 0)
        self._condition = self._worker.condition
        self._ledger = Ledger(where)
        self._waiting: deque[Callable[[], LedgerEntry]] = deque()
        self._unwritten: list[LedgerEntry] = []
        self._pause = 0.0
        self._n_refused = 0
        self._warned = False

    def submit(self, entry: Callable[[], LedgerEntry]) -> None:
        """Write soon; never waits for the database.

        Args:
            entry: Gives the entry; called in the background.
        """
        with self._condition:
            full = self._n_waiting() >= self._capacity
            if not full:
                self._waiting.append(entry)
                # It is woken to begin a batch or to end it, not for each decision.
                if len(self._waiting) in (1, BATCH):
                    self._worker.wake()
        if full:
            self._warn("decisions come faster than they can be written; some are not on record")

    def flush(self, timeout: float = 5.0) -> bool:
        """Write what waits now; False if that took longer or the ledger refused."""
        last = self._n_refused + 2  # the first may be one under way, with an older batch
        return self._worker.flush(timeout, lambda: self._n_refused >= last)

    def _n_waiting(self) -> int:
        return len(self._waiting) + len(self._unwritten)

    def _write_batch(self) -> None:
        """Gather decisions for a while, work them out and write them."""
        if self._pause:
            self._worker.rest(self._pause)
        else:
            self._worker.rest(PERIOD, lambda: len(self._waiting) >= BATCH)
        self._work_out()
        try:
            with at_work():
                self._write(self._ledger)
        except Exception as error:  # locked, full, read-only, gone: the trials must not suffer
            self._pause = min(max(1.0, 2.0 * self._pause), LONGEST_PAUSE)
            self._warn(f"{describe_error(error)}; decisions may be missing from it")
            with self._condition:
                self._n_refused += 1
        else:
            self._pause = 0.0
            with self._condition:
                self._unwritten = []

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
            self._worker.rest(took * (1.0 / duty - 1.0))

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(f"Ledger {self._where.shown}: {message}.")


_writers: PerProcess[Address, LedgerWriter] = PerProcess(
    LedgerWriter, lambda writer, timeout: writer.flush(timeout), timeout=5.0
)


def writer(where: Address) -> LedgerWriter:
    """Return the writer of this process for a ledger; a forked child has its own."""
    return _writers.of(where)


def flush(timeout: float = 10.0) -> bool:
    """Write what waits in this process, to whatever ledger; False if not all of it could be."""
    return _writers.flush(timeout)
