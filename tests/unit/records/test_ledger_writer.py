"""The ledger's background writer, and a pruner that uses it: what may go wrong costs no trial."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from helpers import (
    BAD,
    N_STEPS,
    begun_at,
    good_study,
    good_trials,
    make_study,
    reports,
    saturating,
    watch,
)
from optuna.trial import TrialState

from optuna_lcpruner import Decision, LearningCurvePruner, Reason
from optuna_lcpruner._util import worker
from optuna_lcpruner._util.worker import Worker
from optuna_lcpruner.records import ledger, ledger_writer
from optuna_lcpruner.records.ledger import DecisionContext, Ledger, LedgerEntry
from optuna_lcpruner.records.ledger_writer import LedgerWriter
from optuna_lcpruner.records.location import Address, address

DOOMED = BAD[:12]


@pytest.fixture(autouse=True)
def writers(monkeypatch: pytest.MonkeyPatch) -> dict[Address, LedgerWriter]:
    """Writers of the test's own."""
    fresh: dict[Address, LedgerWriter] = {}
    monkeypatch.setattr(ledger_writer._writers, "_made", fresh)
    monkeypatch.setattr(ledger_writer, "PERIOD", 0.02)
    return fresh


def row(step: int = 0) -> LedgerEntry:
    return ledger.entry(
        Decision(Reason.WARM_UP, "words", step),
        DecisionContext("pool"),
        study="s",
        trial=7,
        trial_started=None,
        version="1",
    )


class FakeLedger:
    """Keeps the batches; each waits until the gate is open, and may be refused."""

    def __init__(self) -> None:
        self.batches: list[list[int | None]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.refuses = False
        self.n_refused = 0

    def __call__(self, where: Address) -> FakeLedger:
        return self

    def append(self, entries: Sequence[LedgerEntry]) -> None:
        self.entered.set()
        assert self.gate.wait(20)
        if self.refuses:
            self.n_refused += 1
            raise OSError("no space left")
        self.batches.append([entry.step for entry in entries])

    @property
    def steps(self) -> list[int | None]:
        return [step for batch in self.batches for step in batch]


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> FakeLedger:
    fake = FakeLedger()
    monkeypatch.setattr(ledger_writer, "Ledger", fake)
    return fake


WHERE = Address("sqlite:////nowhere/l.db")


class TestWriter:
    def test_all_is_written_in_order(self, book: FakeLedger) -> None:
        writer = LedgerWriter(WHERE)
        for step in range(700):
            writer.submit(lambda step=step: row(step))  # type: ignore[misc]
        assert writer.flush(20)
        assert book.steps == list(range(700))

    def test_in_batches(self, book: FakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_writer, "PERIOD", 60.0)
        book.gate.clear()
        writer = LedgerWriter(WHERE)
        for step in range(700):
            writer.submit(lambda step=step: row(step))  # type: ignore[misc]
        book.gate.set()
        assert writer.flush(20)
        assert max(len(batch) for batch in book.batches) == ledger_writer.BATCH
        assert len(book.batches) <= 5

    def test_a_full_batch_does_not_wait_for_the_period(
        self, book: FakeLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_writer, "PERIOD", 600.0)
        writer = LedgerWriter(WHERE)
        for _ in range(ledger_writer.BATCH - 1):
            writer.submit(row)
        assert not book.entered.wait(0.1)
        writer.submit(row)
        assert book.entered.wait(20)

    def test_a_lone_decision_waits_for_the_period_only(self, book: FakeLedger) -> None:
        LedgerWriter(WHERE).submit(row)
        assert book.entered.wait(20)

    def test_nothing_is_worked_out_by_the_caller(self, book: FakeLedger) -> None:
        threads: list[str] = []

        def entry() -> LedgerEntry:
            threads.append(threading.current_thread().name)
            return row()

        writer = LedgerWriter(WHERE)
        writer.submit(entry)
        assert writer.flush(20)
        assert threads == ["lcpruner-ledger"]

    def test_submit_does_not_wait_and_the_queue_is_bounded(
        self, book: FakeLedger, warned: list[str]
    ) -> None:
        book.gate.clear()
        writer = LedgerWriter(WHERE, capacity=5)
        for step in range(9):
            writer.submit(lambda step=step: row(step))  # type: ignore[misc]
        assert book.entered.wait(20)
        for step in range(9, 12):
            writer.submit(lambda step=step: row(step))  # type: ignore[misc]
        book.gate.set()
        assert writer.flush(20)
        assert book.steps == [0, 1, 2, 3, 4]
        assert len(warned) == 1
        assert "faster than they can be written" in warned[0]
        writer.submit(lambda: row(12))
        assert writer.flush(20)
        assert book.steps == [0, 1, 2, 3, 4, 12]

    def test_a_ledger_that_recovers_has_everything(
        self, book: FakeLedger, warned: list[str]
    ) -> None:
        book.refuses = True
        writer = LedgerWriter(WHERE)
        for step in range(300):
            writer.submit(lambda step=step: row(step))  # type: ignore[misc]
            if step % 100 == 0:
                assert not writer.flush(20)
        assert not writer.flush(20)
        assert book.n_refused >= 4
        book.refuses = False
        assert writer.flush(20)
        assert book.steps == list(range(300))
        assert len(warned) == 1
        assert "no space left" in warned[0]
        assert WHERE.shown in warned[0]

    def test_a_ledger_that_refuses_is_not_asked_all_the_time(
        self, book: FakeLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        book.refuses = True
        writer = LedgerWriter(WHERE)
        pauses, go_on, rest = threading.Event(), threading.Event(), Worker.rest
        is_cut_short: list[bool] = []

        def spy(worker: Worker, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
            if seconds == 1.0:
                pauses.set()
                assert go_on.wait(20)
                is_cut_short.append(enough())
            else:
                rest(worker, seconds, enough)

        monkeypatch.setattr(Worker, "rest", spy)
        writer.submit(row)
        assert pauses.wait(20)
        for _ in range(2 * ledger_writer.BATCH):
            writer.submit(row)
        assert book.n_refused == 1
        book.refuses = False
        go_on.set()
        assert writer.flush(20)
        assert is_cut_short == [False]

    def test_flush_gives_up(self, book: FakeLedger) -> None:
        book.gate.clear()
        writer = LedgerWriter(WHERE)
        writer.submit(row)
        assert not writer.flush(0.05)
        book.gate.set()
        assert writer.flush(20)

    def test_its_thread_ends_when_there_is_nothing_to_write(
        self, book: FakeLedger, started: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "IDLE", 0.05)
        writer = LedgerWriter(WHERE)
        for step in range(3):
            writer.submit(lambda step=step: row(step))  # type: ignore[misc]
            started[step].join(20)
            assert not started[step].is_alive()
        assert book.steps == [0, 1, 2]

    def test_many_ledgers_are_waited_for_together(
        self, book: FakeLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        book.gate.clear()
        waits: list[float] = []
        flush = LedgerWriter.flush

        def noted(self: LedgerWriter, timeout: float = 5.0) -> bool:
            waits.append(timeout)
            return flush(self, timeout)

        monkeypatch.setattr(LedgerWriter, "flush", noted)
        for i in range(3):
            ledger_writer.writer(Address(f"sqlite:////nowhere/{i}.db")).submit(row)
        assert not ledger_writer.flush(0.2)
        book.gate.set()
        assert waits[0] <= 0.2
        assert waits[1:] == [0.0, 0.0]

    def test_flush_of_an_idle_writer(self, book: FakeLedger) -> None:
        assert LedgerWriter(WHERE).flush()
        assert ledger_writer.flush()

    def test_an_entry_that_fails_costs_itself_alone(
        self, book: FakeLedger, warned: list[str]
    ) -> None:
        def broken() -> LedgerEntry:
            raise ArithmeticError("no forecast")

        writer = LedgerWriter(WHERE)
        for entry in (row, broken, broken, lambda: row(1)):
            writer.submit(entry)
        assert writer.flush(20)
        assert book.steps == [0, 1]
        assert len(warned) == 1
        assert "no forecast" in warned[0]

    def test_many_threads(self, book: FakeLedger) -> None:
        writer = LedgerWriter(WHERE)

        def train(first: int) -> None:
            for step in range(first, first + 100):
                writer.submit(lambda step=step: row(step))  # type: ignore[misc]

        threads = [threading.Thread(target=train, args=(1000 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert writer.flush(20)
        assert sorted(book.steps) == sorted(1000 * i + k for i in range(4) for k in range(100))  # type: ignore[type-var]

    def test_the_process_may_end(self, book: FakeLedger, started: list[threading.Thread]) -> None:
        writer = LedgerWriter(WHERE)
        writer.submit(row)
        assert writer.flush(20)
        assert [thread.daemon for thread in started] == [True]

    def test_one_writer_a_ledger(self) -> None:
        assert ledger_writer.writer(WHERE) is ledger_writer.writer(Address(WHERE.url))
        assert ledger_writer.writer(WHERE) is not ledger_writer.writer(Address("sqlite:///b"))


def make_pruner(**settings: Any) -> LearningCurvePruner:
    return LearningCurvePruner(**{"n_steps": N_STEPS, "threshold": 0.05, **settings})


def rows_of(study: optuna.Study, trial: int = -1, setting: Any = None) -> list[LedgerEntry]:
    """What is on record of a trial, the newest by default."""
    assert ledger_writer.flush(20)
    where = address(setting, study._storage)
    assert where is not None
    found = study.get_trials()[trial]
    return Ledger(where).of_trial(study.study_name, found.number, found.datetime_start)


@cache
def states(setting: Any) -> list[TrialState]:
    """What becomes of trials good and bad beside a ledger."""

    def objective(trial: optuna.Trial) -> float:
        curve = (BAD if trial.number % 2 else saturating(0.95))[:10]
        for step, value in enumerate(curve):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(curve[-1])

    study = make_study(good_trials(), pruner=make_pruner(ledger=setting, publish=False))
    study.optimize(objective, n_trials=2)
    return [trial.state for trial in study.get_trials()]


def unusable(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a ledger that cannot be written."""
    path = tmp_path / "l.db"
    if kind == "read-only":
        Ledger(Address(f"sqlite:///{path}")).append([row()])
        return f"sqlite:///file:{path}?mode=ro&uri=true"
    if kind == "locked":
        holder = sqlite3.connect(path, check_same_thread=False)
        holder.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(unusable, "holder", holder, raising=False)
        return f"sqlite:///{path}?timeout=0.01"
    if kind == "full":
        Ledger(Address(f"sqlite:///{path}")).append([row()])

        def limit(raw: Any, _: Any) -> None:
            raw.execute("PRAGMA max_page_count = 1")  # no page more than the file has

        sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", limit)
        monkeypatch.setattr(unusable, "undo", limit, raising=False)
        return f"sqlite:///{path}"
    return {
        "no folder": f"sqlite:///{tmp_path}/gone/l.db",
        "no driver": "nosuchdatabase://host/d",
        "not a database": f"sqlite:///{Path(__file__)}",
        "unreachable": "postgresql+psycopg2://127.0.0.1:1/d",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("read-only", "readonly"),
        ("locked", "locked"),
        ("full", "full"),
        ("no folder", "unable to open"),
        ("no driver", "nosuchdatabase"),
        ("not a database", "not a database"),
        ("unreachable", "refused"),
    ],
)
def test_a_ledger_out_of_order_costs_one_warning(
    kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    if kind == "unreachable":
        pytest.importorskip("psycopg2")
    url = unusable(kind, tmp_path, monkeypatch)

    try:
        found = states(url)
        assert not ledger_writer.flush(20)
    finally:
        if kind == "locked":
            unusable.holder.close()  # type: ignore[attr-defined]
        if kind == "full":
            sqlalchemy.event.remove(sqlalchemy.pool.Pool, "connect", unusable.undo)  # type: ignore[attr-defined]
    assert found == states(False)
    assert {TrialState.PRUNED, TrialState.COMPLETE} <= set(found)
    assert len(warned) == 1
    assert words in warned[0]


def test_a_locked_ledger_is_written_when_it_is_free(tmp_path: Path, warned: list[str]) -> None:
    path = tmp_path / "l.db"
    setting = f"sqlite:///{path}?timeout=0.01"
    study = make_study(good_trials())
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    decisions = watch(study, make_pruner(ledger=setting), reports(DOOMED))
    assert not ledger_writer.flush(20)
    holder.close()
    assert len(rows_of(study, setting=setting)) == len(decisions)
    assert len(warned) == 1


def test_a_ledger_removed_while_it_is_in_use(tmp_path: Path, warned: list[str]) -> None:
    study = make_study(good_trials())
    setting = f"sqlite:///{tmp_path}/l.db"
    pruner = make_pruner(ledger=setting)
    watch(study, pruner, reports(DOOMED))
    assert ledger_writer.flush(20)
    (tmp_path / "l.db").unlink()
    decisions = watch(study, pruner, reports(DOOMED))
    assert len(rows_of(study, setting=setting)) == len(decisions)
    assert len(warned) <= 1


PRELUDE = """
import multiprocessing, os, sys
import optuna
from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.records import ledger_writer

study = optuna.load_study(study_name="s", storage=sys.argv[1])
study.pruner = LearningCurvePruner(20)

def run():
    trial = study.ask()
    for step in range(3):
        trial.report(0.1 * step, step)
        trial.should_prune()
    return trial.number
"""


def run_script(script: str, url: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script), url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("capacity", "rests"), [(1000, [9.0, 9.0]), (2, [0.0, 0.0])])
def test_working_out_rests_the_longer_the_shorter_the_queue(
    capacity: int, rests: list[float], book: FakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that takes a second is followed by nine of rest while the queue is all but empty."""
    clock = iter(range(100))
    monkeypatch.setattr(ledger_writer, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    writer = LedgerWriter(WHERE, capacity)
    both, rested = threading.Event(), []

    def spy(worker: Worker, seconds: float, enough: Callable[[], bool] | None = None) -> None:
        if enough is None:
            rested.append(seconds)
        else:  # while decisions are gathered
            assert both.wait(20)

    monkeypatch.setattr(Worker, "rest", spy)
    for step in range(2):
        writer.submit(lambda step=step: row(step))  # type: ignore[misc]
    both.set()
    assert writer.flush(20)
    assert book.steps == [0, 1]
    np.testing.assert_allclose(rested, rests, atol=0.3)


@pytest.mark.slow
class TestProcesses:
    def steps(self, url: str) -> list[list[int | None]]:
        study = optuna.load_study(study_name="s", storage=url)
        return [[row.step for row in rows_of(study, t.number)] for t in study.get_trials()]

    def test_decisions_arrive_before_the_process_ends(self, study_url: str) -> None:
        run_script("run()", study_url)
        assert self.steps(study_url) == [[0, 1, 2]]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_children_of_multiprocessing_write_their_own(self, study_url: str) -> None:
        """What waits in the parent as it forks is written once, by the parent."""
        run_script(
            """
            run()
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=run) for _ in range(2)]
            for child in children:
                child.start()
            for child in children:
                child.join()
                assert child.exitcode == 0
            """,
            study_url,
        )
        assert self.steps(study_url) == [[0, 1, 2]] * 3

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_a_forked_child_has_a_writer_of_its_own(self, study_url: str) -> None:
        run_script(
            """
            run()
            assert ledger_writer.flush()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    run()
                    status = 0 if ledger_writer.flush() else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            """,
            study_url,
        )
        assert self.steps(study_url) == [[0, 1, 2]] * 2


def test_rows_are_of_the_trial_asked_for(tmp_path: Path) -> None:
    """The study is made anew under its name; the file beside it was kept."""

    def train(url: str, started: datetime, n: int) -> list[LedgerEntry]:
        study = good_study(url, make_pruner())
        trial = begun_at(started, study)
        for step, value in reports(DOOMED[:n]).items():
            trial.report(value, step)
            trial.should_prune()
        return rows_of(study)

    assert len(train(f"sqlite:///{tmp_path}/old.db", datetime(2026, 1, 1), 5)) == 5
    shutil.copy(tmp_path / "old.db.lcpruner", tmp_path / "new.db.lcpruner")
    rows = train(f"sqlite:///{tmp_path}/new.db", datetime(2026, 1, 1, 0, 0, 2), 3)
    assert [row.step for row in rows] == [0, 1, 2]
    assert all(isinstance(row.trial_started, datetime) for row in rows)
