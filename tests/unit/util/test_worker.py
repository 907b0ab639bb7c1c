"""The background worker: it begins when there is work, rests unless somebody waits, and ends."""

import threading

import pytest

from optuna_lcpruner._util import fork_safety, worker
from optuna_lcpruner._util.worker import PerProcess, Worker


class Queue:
    """Work for a worker: numbers, one at a time, with a rest after each."""

    def __init__(self, rest=0.0):
        self.waiting, self.done = [], []
        self.rest = rest
        self.worker = Worker("lcpruner-test", self.work, lambda: bool(self.waiting))

    def work(self):
        self.done.append(self.waiting.pop(0))
        self.worker.rest(self.rest)

    def add(self, *items):
        with self.worker.condition:
            self.waiting += items
            self.worker.wake()


def test_it_does_what_waits_in_order():
    queue = Queue()
    queue.add(1, 2, 3)
    assert queue.worker.flush(20)
    assert queue.done == [1, 2, 3]


def test_nobody_waits_for_its_rests():
    queue = Queue(rest=600.0)
    queue.add(1, 2, 3)
    assert queue.worker.flush(20)
    assert queue.done == [1, 2, 3]


def test_a_rest_ends_when_there_is_enough_to_do():
    queue, rested = Queue(), threading.Event()

    def rest():
        queue.worker.rest(600.0, lambda: len(queue.waiting) > 2)
        rested.set()

    thread = threading.Thread(target=rest, daemon=True)
    thread.start()
    queue.waiting += [1, 2, 3]
    with queue.worker.condition:
        queue.worker.condition.notify_all()
    assert rested.wait(20)


def test_flush_gives_up_when_it_is_in_vain():
    queue = Queue()
    queue.work = None  # it could not do anything
    queue.waiting = [1]
    assert not queue.worker.flush(600.0, in_vain=lambda: True)
    assert not queue.worker.flush(0.01)


def test_its_thread_ends_and_another_one_begins(monkeypatch, started):
    monkeypatch.setattr(worker, "IDLE", 0.01)
    queue = Queue()
    for item in range(3):
        queue.add(item)
        started[item].join(20)
        assert not started[item].is_alive()
    assert queue.done == [0, 1, 2]


def test_an_error_ends_the_thread_but_not_the_worker(monkeypatch, started):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    queue = Queue()
    queue.done = None  # appending fails
    queue.add("kept")
    started[0].join(20)
    queue.done = []
    queue.add("works")
    assert queue.worker.flush(20)
    assert queue.done == ["kept", "works"]


class Held:
    def __init__(self, key):
        self.key, self.flushed = key, []

    def flush(self, timeout):
        self.flushed.append(timeout)
        return self.key != "stuck"


def test_one_object_a_key_and_all_of_them_are_flushed():
    held = PerProcess(Held, lambda one, timeout: one.flush(timeout), timeout=5.0)
    assert held.of("a") is held.of("a")
    assert held.of("a") is not held.of("b")
    assert held.flush(20)
    assert all(len(held.of(key).flushed) == 1 for key in ("a", "b"))
    held.of("stuck")
    assert not held.flush(20)


def test_a_child_makes_its_own(monkeypatch):
    held = PerProcess(Held, lambda one, timeout: one.flush(timeout), timeout=5.0)
    parents = held.of("a")
    monkeypatch.setattr(worker.os, "getpid", lambda: -1)
    assert held.flush(20)  # it has none yet
    assert not parents.flushed
    assert held.of("a") is not parents


def test_the_thread_itself_does_not_wait_for_its_own_work():
    held = PerProcess(Held, lambda one, timeout: one.flush(timeout), timeout=5.0)
    held.of("a")
    with fork_safety.at_work():
        assert not held.flush(20)
    assert not held.of("a").flushed


@pytest.mark.parametrize("kind", [list, dict])
def test_objects_may_be_of_any_kind(kind):
    held = PerProcess(lambda key: kind(), lambda one, timeout: True, timeout=5.0)
    assert held.of(1) == kind()
