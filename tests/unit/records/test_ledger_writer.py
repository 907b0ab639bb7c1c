"""The ledger's background writer, and a pruner that uses it: what may go wrong costs no trial."""

from __future__ import annotations

import os
import pickle
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
    CountingStorage,
    begun_at,
    good_study,
    good_trials,
    make_study,
    names,
    reports,
    saturating,
    sqlite,
    watch,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import optuna_lcpruner
from optuna_lcpruner import Decision, LearningCurvePruner, Reason
from optuna_lcpruner._util import worker
from optuna_lcpruner._util.worker import Worker
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
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


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return good_study(f"sqlite:///{tmp_path}/study.db")


class TestPruner:
    def test_each_decision_is_on_record(self, study: optuna.Study) -> None:
        curve = {**reports(saturating(0.89)[:6]), 6: np.nan, 7: 0.80}
        decisions = watch(
            study, make_pruner(n_warmup_steps=1, interval_steps=2, nan_policy="ignore"), curve
        )
        rows = rows_of(study)
        assert [row.reason for row in rows] == names(decisions)
        assert len(set(names(decisions))) > 2
        for row, decision in zip(rows, decisions, strict=True):
            assert (row.step, row.message, row.p_beat, row.threshold, row.incumbent) == (
                decision.step,
                decision.in_full,
                decision.p_beat,
                decision.threshold,
                decision.incumbent,
            )
            assert (row.q05, row.q50, row.q95) == (decision.low, decision.forecast, decision.high)
        assert [row.n_points for row in rows] == [1, 2, 3, 4, 5, 6, 6, 7]
        assert [row.value for row in rows] == [*saturating(0.89)[:6], saturating(0.89)[5], 0.80]
        assert [row.look for row in rows] == [0, 1, 1, 2, 2, 3, 3, 4]
        judged = [row for row in rows if row.p_beat is not None]
        assert {(row.horizon, row.incumbent_trial, row.engine_status) for row in judged} == {
            (20, 4, "ok")
        }
        assert {row.engine_status for row in rows} == {"ok", "not asked"}
        assert {row.version for row in rows} == {optuna_lcpruner.__version__}
        assert {row.engine for row in rows} == {"pool"}
        assert all(row.milliseconds > 0.0 for row in rows)
        started = study.get_trials()[-1].datetime_start
        assert all(row.trial_started == started for row in rows)

    def test_of_a_trial_that_is_pruned(self, study: optuna.Study) -> None:
        decisions = watch(study, make_pruner(), reports(DOOMED))
        rows = rows_of(study)
        assert decisions[-1].reason is Reason.BELOW_THRESHOLD
        assert [row.action for row in rows] == [
            "prune" if decision.prune else "continue" for decision in decisions
        ]
        assert rows[-1].action == "prune"

    def test_minimized(self, tmp_path: Path) -> None:
        trials = [
            optuna.trial.create_trial(value=1.0 - t.value, intermediate_values={
                step: 1.0 - value for step, value in t.intermediate_values.items()
            })
            for t in good_trials()
        ]  # fmt: skip
        study = make_study(trials, "minimize", sqlite(f"sqlite:///{tmp_path}/study.db"))
        watch(study, make_pruner(), reports(1.0 - saturating(0.89)[:6]))
        row = rows_of(study)[-1]
        np.testing.assert_allclose(row.value, 1.0 - saturating(0.89)[5])
        np.testing.assert_allclose(row.incumbent, min(t.value for t in trials))
        assert row.q05 is not None
        assert row.q50 is not None
        assert row.q95 is not None
        assert row.q05 < row.q50 < row.q95

    def test_asked_again_is_not_decided_again(self, study: optuna.Study) -> None:
        study.pruner = make_pruner()
        trial = study.ask()
        for step in range(3):
            trial.report(0.5, step)
            assert not trial.should_prune()
            assert not trial.should_prune()
        assert [row.step for row in rows_of(study)] == [0, 1, 2]

    def test_two_threads_that_decide_at_once_leave_one_row(self, study: optuna.Study) -> None:
        both = threading.Barrier(2)
        pool = OpinionPool()

        def slow(*arguments: Any) -> Any:
            both.wait(20)
            return pool(*arguments)

        pruner = make_pruner(engine=slow)
        trial = study.ask()
        for step in range(2):
            trial.report(0.5, step)
        frozen = study.get_trials()[-1]
        threads = [threading.Thread(target=pruner.prune, args=(study, frozen)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert [row.step for row in rows_of(study)] == [1]

    def test_a_decision_that_fails(self, tmp_path: Path) -> None:
        def broken(*_: Any) -> Any:
            raise ArithmeticError("no posterior")

        study = good_study(f"sqlite:///{tmp_path}/study.db")
        watch(study, make_pruner(engine=broken), reports(DOOMED[:2]))
        rows = rows_of(study)
        assert [(row.reason, row.engine_status, row.engine) for row in rows] == [
            ("TOO_FEW_REPORTS", "not asked", "broken"),
            ("FAILED", "failed", "broken"),
        ]
        assert "no posterior" in rows[-1].message

    @pytest.mark.parametrize("kind", ["memory", "journal", "sqlite memory"])
    def test_no_ledger_by_default(
        self, kind: str, tmp_path: Path, writers: dict[Address, LedgerWriter]
    ) -> None:
        storage: Any = {
            "memory": lambda: None,
            "journal": lambda: JournalStorage(JournalFileBackend(f"{tmp_path}/s.log")),
            "sqlite memory": lambda: "sqlite://",
        }[kind]()
        study = make_study(good_trials(), storage=storage)
        watch(study, make_pruner(), reports(DOOMED))
        assert writers == {}

    def test_off(self, study: optuna.Study, writers: dict[Address, LedgerWriter]) -> None:
        watch(study, make_pruner(ledger=False), reports(DOOMED))
        assert writers == {}

    def test_elsewhere(self, tmp_path: Path) -> None:
        study = make_study(good_trials())
        setting = f"sqlite:///{tmp_path}/other.db"
        decisions = watch(study, make_pruner(ledger=setting), reports(DOOMED))
        assert len(rows_of(study, setting=setting)) == len(decisions)

    def test_a_pickled_pruner_keeps_its_ledger(self, tmp_path: Path) -> None:
        study = make_study(good_trials())
        setting = f"sqlite:///{tmp_path}/other.db"
        pruner = make_pruner(ledger=setting, engine="closed_form")
        watch(study, pruner, reports(DOOMED[:2]))
        watch(study, pickle.loads(pickle.dumps(pruner)), reports(DOOMED[:3]))
        assert [len(rows_of(study, i, setting)) for i in (-2, -1)] == [2, 3]
        assert {row.engine for row in rows_of(study, setting=setting)} == {"closed_form"}

    @pytest.mark.parametrize("warm_up", [0, 100])
    def test_the_study_is_not_read_for_it(self, warm_up: int, tmp_path: Path) -> None:
        def n_reads(setting: Any) -> int:
            storage = CountingStorage()
            study = make_study(good_trials(), storage=storage)
            pruner = make_pruner(n_warmup_steps=warm_up, ledger=setting)
            watch(study, pruner, reports(DOOMED[:3]))
            assert ledger_writer.flush(20)
            return storage.n_reads

        assert n_reads(f"sqlite:///{tmp_path}/other.db") == n_reads(False)


@cache
def states(setting: Any) -> list[TrialState]:
    """What becomes of trials good and bad beside a ledger."""

    def objective(trial: optuna.Trial) -> float:
        curve = BAD if trial.number % 2 else saturating(0.95)
        for step, value in enumerate(curve):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(curve[-1])

    study = make_study(good_trials(), pruner=make_pruner(ledger=setting, publish=False))
    study.optimize(objective, n_trials=8)
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
