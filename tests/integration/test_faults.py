"""What breaks around a forecaster: no trial is lost, none is stopped wrongly, nothing raises."""

from __future__ import annotations

import gc
import itertools
import logging
import math
import os
import signal
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from forecasting import Clock, Watching, running, verdict_of
from helpers import BAD, good_trials, make_study, sqlite
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from serving import Serving
from sqlalchemy.exc import OperationalError

from optuna_lcpruner import Forecaster, LearningCurvePruner, Reason, RemotePruner
from optuna_lcpruner.records import ledger_writer, remote_decision, trial_attributes
from optuna_lcpruner.records.remote_decision import ATTRIBUTE, RemoteVerdict

pytestmark = pytest.mark.slow


class Cut:
    """A storage seen through a network that can be cut: each call then fails as SQLAlchemy's do."""

    def __init__(self, storage: Any, error: Exception | None = None) -> None:
        self.is_cut = False
        self._storage = storage
        gone = Exception("server closed the connection")
        self._error = error or OperationalError("SELECT 1", {}, gone)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if not callable(found) or name.startswith("_"):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if self.is_cut:
                raise self._error
            return found(*arguments, **named)

        return call


def behind(cut: Cut) -> Any:
    """A storage that Optuna takes for one."""

    class Storage(InMemoryStorage):
        def __init__(self) -> None:
            pass

        def __getattribute__(self, name: str) -> Any:
            if name in ("__class__", "__dict__"):
                return super().__getattribute__(name)
            return getattr(cut, name)

    return Storage()


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


class TestDatabaseGone:
    def test_and_back(self) -> None:
        """The wrapper stands for the server: gone for ten seconds of the forecaster's clock."""
        study = make_study(good_trials())
        cut = Cut(study._storage)
        watching = Watching(behind(cut), [study.study_name])
        trial = running(study, BAD[:4])
        watching.look()
        cut.is_cut = True
        trial.report(0.1, 4)
        watching.look(10)
        assert watching.judged == [(5, 4)]
        assert len([e for e in watching.events if e.level >= logging.WARNING]) == 1
        cut.is_cut = False
        watching.look(12)
        assert watching.judged == [(5, 4), (5, 5)]
        assert len(watching.named("back")) == 1
        assert verdict_of(study, trial).reason.prunes

    def test_a_trainer_goes_on_and_listens_again(self, warned: list[str]) -> None:
        study = make_study(good_trials())
        cut = Cut(study._storage)
        pruner = RemotePruner()
        seen_from_afar = optuna.load_study(study_name=study.study_name, storage=behind(cut))
        trial = running(study, BAD[:6])
        Forecaster(
            study._storage, pruner=LearningCurvePruner(20, threshold=0.05), interval=0.01
        ).run_once()
        frozen = study._storage.get_trial(trial._trial_id)
        cut.is_cut = True
        for _ in range(5):
            assert pruner.prune(seen_from_afar, frozen) is False
        assert len(warned) == 1
        trial.report(0.1, 6)  # decisions that failed are remembered for their reports
        cut.is_cut = False
        assert pruner.prune(seen_from_afar, study._storage.get_trial(trial._trial_id)) is True

    @pytest.mark.parametrize("limit", [5.0, 200.0])
    def test_when_it_gives_up(self, limit: float) -> None:
        """Not before the limit, and at the first try after it: pauses are 30 seconds at most."""
        cut, clock, events = Cut(make_study(good_trials())._storage), Clock(), []

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                clock.now += timeout or 0.0
                return False

        forecaster = Forecaster(behind(cut), clock=clock, tell=events.append, stop=Stop())
        cut.is_cut = True
        began = clock.now
        assert forecaster.run(give_up_after=limit) is False
        assert limit <= clock.now - began <= limit + 30.0
        assert [e.facts["seconds"] for e in events if e.name == "gave_up"] == [clock.now - began]

    def test_for_longer_than_the_limit(self) -> None:
        study = make_study(good_trials())
        running(study, BAD[:4])
        cut = Cut(study._storage)
        events = []
        forecaster = Forecaster(behind(cut), interval=0.01, tell=events.append)
        cut.is_cut = True
        assert forecaster.run(give_up_after=0.3) is False
        assert events[-1].name != "stopped"
        assert any(event.name == "gave_up" for event in events)
        assert states(study)[-1] == "RUNNING"


def test_killed_between_forecast_and_write(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = make_study(good_trials(), storage=sqlite(url))
    study.pruner = RemotePruner()
    trial = running(study, BAD[:10])
    before = """
import time
from optuna_lcpruner.records import remote_decision
def write(*arguments):
    print('{"event": "about_to_write"}', file=sys.stderr, flush=True)
    time.sleep(1000)
remote_decision.write = write
"""
    options = ("--storage", url, "--interval", "0.05", "--n-steps", "20")
    with Serving(*options, before=before) as killed:
        killed.wait_for("about_to_write")
        os.kill(killed.process.pid, signal.SIGKILL)
    assert trial.should_prune() is False
    assert states(study)[-1] == "RUNNING"
    with Serving(*options) as other:
        other.wait_for("verdict")
        assert other.judged == [(5, 10)]
        assert other.terminate() == 0
    assert trial.should_prune() is True


@pytest.mark.slow
def test_clocks_an_hour_apart(tmp_path: Path, warned: list[str]) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = make_study(good_trials(), storage=sqlite(url))
    study.pruner = RemotePruner()
    ahead = """
import time
now = time.time
time.time = lambda: now() + 3600.0
"""
    bad, good = running(study, BAD[:10]), running(study, [0.6, 0.8])
    options = ("--storage", url, "--interval", "0.1", "--n-steps", "20")
    with Serving(*options, before=ahead) as serving:
        serving.wait_for("verdict", 2)
        assert bad.should_prune() is True
        assert good.should_prune() is False
        good.report(0.88, 2)
        serving.wait_for("verdict", 3)
        assert sorted(serving.judged) == [(5, 10), (6, 2), (6, 3)]
    assert warned == []


def in_the_middle(
    monkeypatch: pytest.MonkeyPatch, what: Callable[[Study, FrozenTrial], None]
) -> None:
    """Something happens after a trial was read and before its verdict is written."""
    decide = LearningCurvePruner.decide

    def interrupted(self: Any, study: Study, trial: FrozenTrial) -> Any:
        monkeypatch.setattr(LearningCurvePruner, "decide", decide)
        what(study, trial)
        return decide(self, study, trial)

    monkeypatch.setattr(LearningCurvePruner, "decide", interrupted)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
class TestWhileBeingForecast:
    def opened(self, kind: str, tmp_path: Path) -> Any:
        return InMemoryStorage() if kind == "memory" else sqlite(f"sqlite:///{tmp_path}/s.db")

    @pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
    def test_the_trial_ends(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: TrialState,
        warned: list[str],
    ) -> None:  # fmt: skip
        study = make_study(good_trials(), storage=self.opened(kind, tmp_path))
        ends, goes_on = running(study, BAD[:6]), running(study, BAD[:6])
        value = 0.1 if state == TrialState.COMPLETE else None
        in_the_middle(monkeypatch, lambda *_: study.tell(ends, value, state))
        watching = Watching(study._storage)
        watching.look()
        assert [facts["trial"] for facts in watching.named("ended_meanwhile")] == [ends.number]
        assert watching.judged == [(goes_on.number, 6)]
        assert ATTRIBUTE not in study._storage.get_trial(ends._trial_id).system_attrs
        assert study.trials[ends.number].state == state
        assert study.trials[ends.number].value == (0.1 if state != TrialState.FAIL else None)
        assert not watching.named("cannot_serve")
        assert warned == []

    def test_the_study_is_deleted(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]
    ) -> None:
        storage = self.opened(kind, tmp_path)
        study = make_study(good_trials(), storage=storage)
        other = make_study(good_trials(), storage=storage)
        running(study, BAD[:6])
        running(other, BAD[:6])
        in_the_middle(
            monkeypatch, lambda s, _: optuna.delete_study(study_name=s.study_name, storage=storage)
        )
        watching = Watching(storage)
        watching.look(6)
        assert len(watching.named("study_gone")) == 1
        assert len(watching.judged) == 1
        assert trial_attributes.writer().flush(10)
        assert warned == []
        assert watching.forecaster.counts.failing == 0


def fill(storage: RDBStorage, study_id: int, value: str) -> None:
    for i in itertools.count():
        storage.set_study_system_attr(study_id, f"{len(value)} {i}", value)


class TestFullDisk:
    def test_of_the_studys_database(self, tmp_path: Path) -> None:
        """SQLite's own error: the forecaster's connections may not make the file larger."""
        path = tmp_path / "s.db"
        study = make_study(good_trials(), storage=sqlite(f"sqlite:///{path}"))
        study.pruner = RemotePruner()
        trial = running(study, BAD[:6])
        storage = RDBStorage(f"sqlite:///{path}")
        is_full = True

        def limit(connection: sqlite3.Connection, *_: Any) -> None:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages if is_full else 10**6:d}")

        sqlalchemy.event.listen(storage.engine, "checkout", limit)
        for size in (3000, 30):
            with pytest.raises(StorageInternalError) as caught:
                fill(storage, study._study_id, "x" * size)
            assert "database or disk is full" in str(caught.value.__cause__)
        watching = Watching(storage, pruner=LearningCurvePruner(20, threshold=0.05, ledger=False))
        watching.look(8)
        assert "database or disk is full" in watching.named("cannot_serve")[0]["why"]
        assert trial.should_prune() is False
        is_full = False
        watching.look(30)
        trial.report(0.1, 6)
        watching.look(2)
        assert trial.should_prune() is True

    def test_of_the_ledger(
        self, tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = make_study(good_trials(), storage=sqlite(f"sqlite:///{tmp_path}/s.db"))
        trial = running(study, BAD[:6])
        monkeypatch.setattr(ledger_writer._writers, "_made", {})  # it keeps what it cannot write
        ledger = "sqlite:////dev/full"
        watching = Watching(
            study._storage, pruner=LearningCurvePruner(20, threshold=0.05, ledger=ledger)
        )
        watching.look()
        ledger_writer.flush(1)
        assert verdict_of(study, trial).reason.prunes
        assert len(warned) == 1


def test_a_storage_that_takes_two_seconds_an_answer() -> None:
    """It is left alone for most of the time."""
    study = make_study(good_trials())
    watching = Watching(study._storage, [study.study_name])
    clock, busy = watching.clock, 0.0
    trials = [running(study, BAD[:2]) for _ in range(5)]
    for name in (
        "get_all_trials", "get_study_system_attrs", "set_study_system_attr",
        "set_trial_system_attr", "get_study_id_from_name",
    ):  # fmt: skip
        fast = getattr(study._storage, name)

        def slow(*arguments: Any, fast: Any = fast, **named: Any) -> Any:
            nonlocal busy
            busy += 2.0
            clock.now += 2.0
            return fast(*arguments, **named)

        setattr(study._storage, name, slow)
    step = 2
    while clock.now < 3600.0:
        watching.forecaster.run_pass()
        clock.now += watching.forecaster._rest()
        for trial in trials:
            trial.report(0.1, step)
        step += 1
    assert {number for number, _ in watching.judged} == set(range(5, 10))
    assert len(watching.judged) > 60
    assert busy < 0.6 * clock.now


def test_half_a_row_costs_its_study_only(tmp_path: Path) -> None:
    """Optuna cannot read a study with a value that is no JSON; the others are served."""
    url = f"sqlite:///{tmp_path}/s.db"
    broken, whole = (make_study(good_trials(), storage=sqlite(url)) for _ in range(2))
    bad, trial = running(broken, BAD[:6]), running(whole, BAD[:6])
    watching = Watching(sqlite(url))
    watching.look()
    change = sqlalchemy.text(
        "UPDATE trial_system_attributes SET value_json = '{' WHERE trial_id = :id"
    )
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(change, {"id": bad._trial_id})
    trial.report(0.1, 6)
    watching.look(6)
    assert {facts["study"] for facts in watching.named("cannot_serve")} == {broken.study_name}
    assert watching.judged[-1] == (5, 7)
    assert verdict_of(whole, trial).n_reports == 7


LINES = ["not json", "{}", "[]", '{"op_code": 99, "worker_id": "x"}', "\x00"]
"""What is no entry of a journal; Optuna raises as many different errors."""


class TestALineOfAJournalThatIsNone:
    """Optuna cannot read it; nobody raises, nobody is stopped, no study is taken for deleted."""

    @pytest.mark.parametrize("by_name", [False, True])
    @pytest.mark.parametrize("line", LINES)
    def test_it_costs_a_warning(
        self, line: str, by_name: bool, tmp_path: Path, warned: list[str]
    ) -> None:
        path = tmp_path / "s.log"
        study = make_study(good_trials(), storage=JournalStorage(JournalFileBackend(str(path))))
        study.pruner = RemotePruner()
        trial = running(study, BAD[:6])
        watching = Watching(
            JournalStorage(JournalFileBackend(str(path))), [study.study_name] if by_name else None
        )
        watching.look()
        with path.open("a") as file:  # what comes after one shows that it is no half-written line
            file.write(f"{line}\n" * 2)
        watching.look(20)
        assert trial.should_prune() is False
        assert watching.judged == [(5, 6)]
        assert watching.named("cannot_serve") + watching.named("storage_out_of_reach")
        assert not watching.named("study_gone")
        assert not watching.named("no_such_study")

    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    def test_a_journal_that_can_be_read_on(self, n: int, tmp_path: Path) -> None:
        """Optuna raises KeyError once for each ``{}``, as it does for a study that is gone."""
        path = tmp_path / "s.log"
        study = make_study(good_trials(), storage=JournalStorage(JournalFileBackend(str(path))))
        trial = running(study, BAD[:6])
        watching = Watching(JournalStorage(JournalFileBackend(str(path))), [study.study_name])
        watching.look()
        with path.open("a") as file:
            file.write("{}\n" * n)
        for _ in range(n):  # the trainer goes on all the same
            with pytest.raises(KeyError):
                study.get_trials()
        trial.report(0.1, 6)
        watching.look(20)
        assert len([e for e in watching.events if e.level >= logging.WARNING]) == 1
        assert len(watching.named("back")) == 1
        assert not watching.named("study_gone")
        assert watching.judged == [(5, 6), (5, 7)]

    def test_a_journal_that_stays_unreadable(self, tmp_path: Path) -> None:
        """KeyErrors are no sign that the storage answers: the forecaster gives up."""
        study = make_study(good_trials())
        running(study, BAD[:6])
        cut, clock, events = Cut(study._storage, KeyError("op_code")), Clock(), []
        began = clock.now

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                clock.now += timeout or 0.0
                assert clock.now - began < 1000.0, "it does not give up"
                return False

        forecaster = Forecaster(
            behind(cut), [study.study_name], clock=clock, tell=events.append, stop=Stop()
        )
        cut.is_cut = True
        assert forecaster.run(give_up_after=60.0) is False
        assert not [event for event in events if event.name in ("study_gone", "no_such_study")]


class TestVersions:
    def test_an_older_trainer_beside_a_newer_forecaster(
        self, monkeypatch: pytest.MonkeyPatch, warned: list[str]
    ) -> None:
        study = make_study(good_trials())
        study.pruner = RemotePruner()
        trial = running(study, BAD[:6])
        monkeypatch.setattr(remote_decision, "FORMAT", 2)
        Watching(study._storage).look()
        monkeypatch.setattr(remote_decision, "FORMAT", 1)
        for step in range(6, 9):
            assert trial.should_prune() is False
            trial.report(0.1, step)
        assert len(warned) == 1
        assert "format 2" in warned[0]

    def test_an_older_forecaster_beside_a_newer_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They do not know each other: each judges all, once a report, for its own trainers."""
        study = make_study(good_trials())
        trial = running(study, BAD[:6])
        old, new = Watching(study._storage), Watching(study._storage)
        for step in range(6, 12):
            old.look(2)
            monkeypatch.setattr(remote_decision, "FORMAT", 2)
            new.look(2)
            monkeypatch.setattr(remote_decision, "FORMAT", 1)
            trial.report(0.1, step)
        assert len(old.judged) == len(set(old.judged)) <= 7
        assert len(new.judged) == len(set(new.judged)) <= 7

    def test_a_reason_of_a_newer_version(self) -> None:
        study = make_study(good_trials())
        study.pruner = RemotePruner()
        trial = running(study, BAD[:6])
        Watching(study._storage).look()
        found = study._storage.get_trial(trial._trial_id).system_attrs[ATTRIBUTE]
        study._storage.set_trial_system_attr(
            trial._trial_id, ATTRIBUTE, {**found, "reason": "TOO_EXPENSIVE"}
        )
        assert trial.should_prune() is False
        seen = study._storage.get_trial(trial._trial_id)
        assert study.pruner.decide(study, seen).reason is Reason.FORECAST_PENDING


def test_a_trial_that_diverges_needs_no_forecaster() -> None:
    study = make_study(good_trials())
    study.pruner = RemotePruner()
    trial = running(study, [0.1, 0.2, math.nan])
    assert trial.should_prune() is True
    watching = Watching(study._storage)
    watching.look()
    verdict = verdict_of(study, trial)
    assert verdict.reason is Reason.DIVERGED
    assert verdict == RemoteVerdict.from_json(verdict.to_json())


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_memory_stays_flat(traced: None) -> None:
    """Trials and studies come and go on both sides; tests/bench/soak.py is the long version."""
    storage = InMemoryStorage()
    watching = Watching(storage, pruner=LearningCurvePruner(20, threshold=0.05, ledger=False))
    pruner = RemotePruner()

    def a_study(name: str) -> None:
        study = optuna.create_study(
            study_name=name, storage=storage, direction="maximize", pruner=pruner
        )
        study.add_trials(good_trials())
        for _ in range(4):
            trial = running(study, BAD[:4])
            watching.look(1.5)
            trial.should_prune()
            study.tell(trial, state=TrialState.FAIL)
        optuna.delete_study(study_name=name, storage=storage)
        watching.look(6)

    def in_use() -> int:
        assert trial_attributes.writer().flush(10)
        watching.events.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    for i in range(8):
        a_study(f"before {i}")
    before = in_use()
    for i in range(20):
        a_study(f"after {i}")
    assert watching.forecaster.counts.verdicts >= 28
    assert watching.forecaster.counts.studies == 0
    assert in_use() - before < 200_000
