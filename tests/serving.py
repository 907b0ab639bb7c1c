"""Forecasters in processes of their own, for the tests that stop and kill them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

_CODE = """
import sys
{before}
from optuna_lcpruner.cli.main import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


_LOG = ("--verbose", "--log-json")


class Serving:
    """``optuna-lcpruner serve`` in a process; killed at the end if it still runs.

    Args:
        arguments: Of the command; each verdict is logged, as JSON.
        before: Code that runs first.
        inside: A command that runs it: the words before its own.
    """

    def __init__(self, *arguments: str, before: str = "", inside: Sequence[str] = ()) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-c", _CODE.format(before=before), *arguments, *_LOG],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)  # line by line, until it ends
        self.process.stderr.close()

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)

    def events(self, name: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [event for event in found if event["event"] == name]

    @property
    def judged(self) -> list[tuple[int, int]]:
        """Trial and reports of each verdict."""
        return [(event["trial"], event["reports"]) for event in self.events("verdict")]

    def wait_for(self, name: str, n: int = 1) -> None:
        """Wait until so many events of this name were told."""
        wait(lambda: len(self.events(name)) >= n, lambda: f"{name}: {self.lines}")

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        code = self.process.wait(60)
        self._reader.join(30)
        return code


def wait(
    done: Callable[[], bool], what: Callable[[], object] = lambda: "", limit: float = 90
) -> None:
    """Wait until something is the case; fails after the limit, in seconds."""
    end = time.monotonic() + limit
    while not done():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


def trains(trials: list[Any], until: Callable[[], bool], *serving: Serving) -> None:
    """Report for all trials five times a second, until something is the case.

    Args:
        trials: The trials.
        until: Whether it is.
        serving: Whose last words to show if it never is.
    """
    for _ in range(450):
        if until():
            return
        for trial in trials:
            step = len(trial.storage.get_trial(trial._trial_id).intermediate_values)
            trial.report(0.5 + 0.001 * (step % 7), step)
        time.sleep(0.2)
    raise AssertionError(f"it never was: {[one.lines[-20:] for one in serving]}")
