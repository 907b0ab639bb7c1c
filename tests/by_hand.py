"""An executor whose work a test does, or lets fail, when it likes."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any


class ByHand(Executor):
    """Does its work when told to."""

    def __init__(self) -> None:
        self.work: list[tuple[Future[Any], Any, tuple[Any, ...]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.work.append((future, fn, args))
        return future

    @property
    def steps(self) -> list[int]:
        """The steps of the questions in flight or in the queue."""
        return [args[1].step for _, _, args in self.work]

    def finish(self) -> None:
        future, fn, args = self.work.pop(0)
        if future.set_running_or_notify_cancel():
            future.set_result(fn(*args))

    def fail(self, error: BaseException) -> None:
        self.work.pop(0)[0].set_exception(error)
