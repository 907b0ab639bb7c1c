"""A fork finds no background thread of ours at work."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from optuna_lcpruner._util import fork_safety
from optuna_lcpruner.records import ledger_writer
from optuna_lcpruner.records.location import Address

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


def fork_and_ask() -> int:
    """The exit code of a child that does some background work of its own; 9 if it hangs."""
    child = os.fork()
    if child == 0:
        worker = threading.Thread(target=lambda: fork_safety.at_work().__enter__(), daemon=True)
        worker.start()
        worker.join(5.0)
        os._exit(9 if worker.is_alive() else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Awaited:
    """A lock that tells when somebody waits for it with a limit, as a fork does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.awaited = threading.Event()

    def acquire(self, timeout: float = -1) -> bool:
        if timeout >= 0.0:
            self.awaited.set()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_a_fork_waits_for_the_work_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Awaited()
    monkeypatch.setattr(fork_safety, "_working", lock)
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        with fork_safety.at_work():
            begun.set()
            lock.awaited.wait(60.0)  # so it is not over before the fork, however late that comes
            ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(5.0)
    try:
        assert fork_and_ask() == 0
        assert ended.is_set()
    finally:
        lock.awaited.set()
        thread.join()
    with fork_safety.at_work():  # the parent goes on
        pass


def test_work_that_does_not_end_does_not_stop_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_safety, "LONGEST_WAIT", 0.1)
    leave, begun = threading.Event(), threading.Event()

    def stuck() -> None:
        with fork_safety.at_work():
            begun.set()
            leave.wait(30.0)

    thread = threading.Thread(target=stuck)
    thread.start()
    assert begun.wait(5.0)
    assert fork_and_ask() == 0
    leave.set()
    thread.join()
    with fork_safety.at_work():
        pass


def test_who_is_at_work_does_not_wait_for_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger's thread waits for it to end, so it would wait in vain."""
    where = Address(f"sqlite:///{tmp_path}/l.db")
    with fork_safety.at_work(), monkeypatch.context() as inside:
        assert fork_safety.working()
        ledger_writer.writer(where).submit(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        inside.setattr(ledger_writer.LedgerWriter, "flush", lambda *_: pytest.fail("waited"))
        assert not ledger_writer.flush()
    assert not fork_safety.working()
    assert ledger_writer.flush(timeout=20.0)
