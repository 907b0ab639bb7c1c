"""Writes decisions into the trial's user attributes without making the training wait.

A decision that stops a trial, and the last one before its end, are written at once: after it the
attributes are closed. Of the others one a second is written, the newest, and its forecast worked
out only then; what it is about may change at any time, from ``startup`` to a forecast, say, and is
then written at once.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from optuna.logging import get_logger
from optuna.storages import BaseStorage

from optuna_lcpruner._util.attributes import P_BEAT_ATTRIBUTE, REASON_ATTRIBUTE, STEP_ATTRIBUTE
from optuna_lcpruner._util.fork_safety import at_work
from optuna_lcpruner._util.optuna_storage import set_user_attrs, writes_are_free
from optuna_lcpruner._util.recent import Recent
from optuna_lcpruner._util.redaction import redact
from optuna_lcpruner._util.worker import PerProcess, Worker
from optuna_lcpruner.decision.decision import Decision

_logger = get_logger("optuna.lcpruner")

FORECAST = "lcpruner_forecast"
"""User attribute: the median of the value forecast for the trial's end."""

DUTY = 0.1  # heuristic
"""Largest share of time the background spends writing: ``report`` must find the storage free."""

PERIOD = 1.0  # heuristic
"""Seconds between two writes about the same trial."""

_MAX_HELD = 64  # heuristic
"""Decisions about trials in memory that are held back; one takes about 40 kB."""

_MAX_TIMES = 1024  # heuristic
"""Trials of which it is remembered when they were last written to."""

_Key = tuple["weakref.ref[BaseStorage]", int]
"""A storage, by a reference since the identity of a dead one may come again, and a trial's ID."""

Attributes = dict[str, float | int | str]
Written = Attributes | Callable[[], Attributes]
"""Attributes, or what works them out when they are written: off the training's thread."""


def attributes(decision: Decision) -> Attributes:
    """The user attributes that show a decision; plain Python numbers and a string."""
    shown: Attributes = {}
    for key, value in (
        (P_BEAT_ATTRIBUTE, decision.p_beat),
        (FORECAST, decision.forecast),
        ("lcpruner_forecast_lower", decision.low),
        ("lcpruner_forecast_upper", decision.high),
    ):
        if value is not None:
            shown[key] = float(value)
    if decision.step is not None:
        shown[STEP_ATTRIBUTE] = int(decision.step)
    shown[REASON_ATTRIBUTE] = decision.message
    return shown


class AttributeWriter:
    """Writes decisions to trials, one a second each, for all pruners of a process.

    A background thread writes, but for storages in memory: there the caller's thread does, and what
    comes within the second is held back until the next one, the last one or :meth:`flush`.
    """

    def __init__(self) -> None:
        self._worker = Worker("lcpruner-attributes", self._write_next, lambda: bool(self._waiting))
        self._condition = self._worker.condition
        self._writing = threading.Lock()
        self._waiting: dict[_Key, tuple[BaseStorage, Written, str]] = {}
        self._held: Recent[_Key, Written] = Recent(_MAX_HELD)
        self._written: Recent[_Key, tuple[float, str]] = Recent(_MAX_TIMES)  # when, about what
        self._warned = False

    def submit(
        self, storage: BaseStorage, trial_id: int, attributes: Written, topic: str = ""
    ) -> None:
        """Write once a second has passed since the last write; replaces what still waits.

        Args:
            storage: Where the trial is.
            trial_id: Its number there.
            attributes: What to write.
            topic: What it is about; where that was another one, it is written at once.
        """
        key = (weakref.ref(storage), trial_id)
        if not writes_are_free(storage):
            with self._condition:
                self._waiting[key] = (storage, attributes, topic)
                self._worker.wake()
            return
        with self._condition:
            due = self._due_in(key, topic) <= 0.0
            if not due:
                self._held[key] = attributes
        if due:
            self.write(storage, trial_id, attributes, topic)

    def write(
        self, storage: BaseStorage, trial_id: int, attributes: Written, topic: str = ""
    ) -> None:
        """Write now, after anything under way; drops what still waits for the same trial."""
        self._take(storage, trial_id)
        with self._writing:
            self._write(storage, trial_id, attributes, topic)

    def write_last(self, storage: BaseStorage, trial_id: int) -> None:
        """Write now what still waits for a trial that is about to end, if anything does."""
        with self._writing:
            attributes = self._take(storage, trial_id)
            if attributes is not None:
                self._write(storage, trial_id, attributes)

    def flush(self, timeout: float = 5.0) -> bool:
        """Write everything that waits; False if that took longer."""
        with self._condition:
            held, self._held = self._held, Recent(_MAX_HELD)
        for (reference, trial_id), attributes in held.items():
            storage = reference()
            if storage is not None:
                with self._writing:
                    self._write(storage, trial_id, attributes)
        return self._worker.flush(timeout)

    def _take(self, storage: BaseStorage, trial_id: int) -> Written | None:
        key = (weakref.ref(storage), trial_id)
        with self._condition:
            waiting = self._waiting.pop(key, None)
            return self._held.pop(key, None) if waiting is None else waiting[1]

    def _due_in(self, key: _Key, topic: str) -> float:
        """Seconds until something about this topic may be written to the trial."""
        when, last = self._written.get(key, (0.0, None))
        return when + PERIOD - time.monotonic() if topic == last else 0.0

    def _next(self) -> tuple[float, _Key | None]:
        """The trial to be written to next, and in how many seconds."""
        due = {key: self._due_in(key, topic) for key, (_, _, topic) in self._waiting.items()}
        key = min(due, key=lambda key: due[key], default=None)
        return (0.0, None) if key is None else (due[key], key)

    def _write_next(self) -> None:
        """Write what is due, and rest so long that the storage is free most of the time."""
        start = time.monotonic()
        # Taken under the writing lock, so that a later write() cannot be overtaken.
        with at_work(), self._writing:
            with self._condition:
                seconds, key = self._next()
                item = None
                if key is not None and (seconds <= 0.0 or self._worker.in_a_hurry):
                    item = self._waiting.pop(key)
            if item is not None and key is not None:
                self._write(item[0], key[1], *item[1:])
        if item is None:
            self._worker.rest(seconds, lambda: self._next()[0] <= 0.0)
        else:
            del item
            self._worker.rest((time.monotonic() - start) * (1.0 / DUTY - 1.0))

    def _write(
        self, storage: BaseStorage, trial_id: int, attributes: Written, topic: str = ""
    ) -> None:
        with self._condition:
            key = (weakref.ref(storage), trial_id)
            self._written[key] = (time.monotonic(), topic)
        try:
            set_user_attrs(storage, trial_id, attributes() if callable(attributes) else attributes)
        except Exception as error:
            # Finished meanwhile, deleted, or the storage is gone: the trial must not suffer.
            if not self._warned and not _is_finished(storage, trial_id):
                self._warned = True
                words = redact(repr(error))
                _logger.warning(f"Cannot publish decisions as trial attributes: {words}.")


def _is_finished(storage: BaseStorage, trial_id: int) -> bool:
    try:
        return storage.get_trial(trial_id).state.is_finished()
    except KeyError:  # deleted
        return True
    except Exception:
        return False


_writers: PerProcess[None, AttributeWriter] = PerProcess(
    lambda _: AttributeWriter(), lambda writer, timeout: writer.flush(timeout), timeout=2.0
)


def writer() -> AttributeWriter:
    """Return the writer of this process; a forked child gets its own."""
    return _writers.of(None)
