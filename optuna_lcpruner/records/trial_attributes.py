"""Writes decisions into the trial's user attributes without making the training wait.

A decision that stops a trial is written at once: after it the trial is finished and its attributes
are closed. Others are handed to a background thread, newest wins: a training that reports faster
than a tenth of the storage's speed shows its latest decision, not each one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing import util

from optuna.logging import get_logger
from optuna.storages import BaseStorage, InMemoryStorage

from optuna_lcpruner._util.attributes import REASON_ATTRIBUTE, STEP_ATTRIBUTE
from optuna_lcpruner._util.fork_safety import at_work
from optuna_lcpruner._util.optuna_storage import is_in_memory, relational
from optuna_lcpruner._util.redaction import redact
from optuna_lcpruner.decision.decision import Decision

_logger = get_logger("optuna.lcpruner")

FORECAST = "lcpruner_forecast"
"""User attribute: the median of the value forecast for the trial's end."""

DUTY = 0.1
"""Largest share of time the background spends writing: ``report`` must find the storage free."""

Attributes = dict[str, float | int | str]
Written = Attributes | Callable[[], Attributes]
"""Attributes, or what works them out when they are written: off the training's thread."""


def attributes(decision: Decision) -> Attributes:
    """The user attributes that show a decision; plain Python numbers and a string."""
    shown: Attributes = {}
    for key, value in (
        ("lcpruner_p_beat_best", decision.p_beat),
        (FORECAST, decision.forecast),
        ("lcpruner_forecast_low", decision.low),
        ("lcpruner_forecast_high", decision.high),
    ):
        if value is not None:
            shown[key] = float(value)
    if decision.step is not None:
        shown[STEP_ATTRIBUTE] = int(decision.step)
    shown[REASON_ATTRIBUTE] = decision.message
    return shown


class AttributeWriter:
    """A background writer shared by all pruners of a process."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._writing = threading.Lock()
        self._waiting: dict[tuple[int, int], tuple[BaseStorage, Written]] = {}
        self._busy = False
        self._hurry = 0
        self._thread: threading.Thread | None = None
        self._warned = False

    def submit(self, storage: BaseStorage, trial_id: int, attributes: Written) -> None:
        """Write soon; replaces what is still waiting for the same trial."""
        if _writes_are_free(storage):
            self.write(storage, trial_id, attributes)
            return
        with self._condition:
            self._waiting[id(storage), trial_id] = (storage, attributes)
            if self._thread is None:
                # Like atexit, but in the children of multiprocessing too, and for what is begun in
                # them: they forget what was registered before.
                util.Finalize(None, self.flush, kwargs={"timeout": 2.0}, exitpriority=1)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="lcpruner-attributes", daemon=True
                )
                self._thread.start()
            self._condition.notify_all()

    def write(self, storage: BaseStorage, trial_id: int, attributes: Written) -> None:
        """Write now, after anything under way; drops what is still waiting for the same trial."""
        with self._condition:
            self._waiting.pop((id(storage), trial_id), None)
        with self._writing:
            self._write(storage, trial_id, attributes)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything submitted is written; False if that took longer."""
        with self._condition:
            self._hurry += 1
            self._condition.notify_all()
            try:
                return self._condition.wait_for(
                    lambda: not self._waiting and not self._busy, timeout
                )
            finally:
                self._hurry -= 1

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: bool(self._waiting))
                self._busy = True
            start = time.monotonic()
            # Taken under the writing lock, so that a later write() cannot be overtaken.
            with at_work(), self._writing:
                with self._condition:
                    key = next(iter(self._waiting), None)
                    item = self._waiting.pop(key) if key is not None else None
                if item is not None and key is not None:
                    self._write(item[0], key[1], item[1])
            del item
            took = time.monotonic() - start
            with self._condition:
                self._busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._hurry > 0, took * (1.0 / DUTY - 1.0))

    def _write(self, storage: BaseStorage, trial_id: int, attributes: Written) -> None:
        try:
            shown = attributes() if callable(attributes) else attributes
            for key, value in shown.items():
                storage.set_trial_user_attr(trial_id, key, value)
        except Exception as error:
            # Finished meanwhile, deleted, or the storage is gone: the trial must not suffer.
            if not self._warned and not _is_finished(storage, trial_id):
                self._warned = True
                words = redact(repr(error))
                _logger.warning(f"Cannot publish decisions as trial attributes: {words}.")


def _writes_are_free(storage: BaseStorage) -> bool:
    """In-memory storages; an in-memory SQLite database exists on its creator's thread alone."""
    if isinstance(storage, InMemoryStorage):
        return True
    database = relational(storage)
    return database is not None and is_in_memory(database.engine.url)


def _is_finished(storage: BaseStorage, trial_id: int) -> bool:
    try:
        return storage.get_trial(trial_id).state.is_finished()
    except KeyError:  # deleted
        return True
    except Exception:
        return False


_writer = AttributeWriter()
_writer_pid = os.getpid()


def writer() -> AttributeWriter:
    """The writer of this process; a forked child gets its own."""
    global _writer, _writer_pid
    if _writer_pid != os.getpid():
        _writer, _writer_pid = AttributeWriter(), os.getpid()
    return _writer
