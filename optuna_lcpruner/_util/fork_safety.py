"""No fork while a background thread works: what it holds then would stay locked in the child.

Threads do not survive a fork, but the locks they hold do: those of Optuna's storage, of SQLAlchemy
or of the logging module, and a child that needs one waits for ever. So background threads of this
package do all their work inside :func:`at_work`, and a fork waits until none is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_WAIT = 10.0  # heuristic
"""Seconds that a fork waits; a thread may be stuck in a database that does not answer."""

_working = threading.Lock()
_forking = threading.local()
_here = threading.local()


@contextmanager
def at_work() -> Iterator[None]:
    """Inside it a background thread may hold locks of others; one thread at a time."""
    with _working:
        _here.working = True
        try:
            yield
        finally:
            _here.working = False


def working() -> bool:
    """Whether this thread is inside :func:`at_work`, where it must not wait for another's work."""
    return getattr(_here, "working", False)


def _before() -> None:
    _forking.held = _working.acquire(timeout=LONGEST_WAIT)


def _in_parent() -> None:
    if _forking.held:
        _working.release()


def _in_child() -> None:
    global _working
    _working = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
