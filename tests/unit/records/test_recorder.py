"""What becomes of a decision: the log, the trial's attributes, the ledger."""

from __future__ import annotations

import logging
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
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
    finished,
    good_study,
    good_trials,
    judge,
    make_study,
    names,
    reports,
    saturating,
    sqlite,
    train,
    watch,
)
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import optuna_lcpruner
from optuna_lcpruner import LearningCurvePruner, Reason, explain
from optuna_lcpruner._util.worker import Worker
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import Ledger, LedgerEntry
from optuna_lcpruner.records.location import address
from optuna_lcpruner.records.trial_attributes import AttributeWriter, attributes

DOOMED = BAD[:12]

NUMBERS = (
    "lcpruner_p_beat_best",
    "lcpruner_forecast",
    "lcpruner_forecast_lower",
    "lcpruner_forecast_upper",
)


def make_pruner(**settings: Any) -> LearningCurvePruner:
    return LearningCurvePruner(**{"n_steps": N_STEPS, "threshold": 0.05, **settings})


@pytest.fixture(autouse=True)
def writer(monkeypatch: pytest.MonkeyPatch) -> AttributeWriter:
    """A writer of the test's own: the process's one warns only once."""
    fresh = AttributeWriter()
    monkeypatch.setattr(trial_attributes, "writer", lambda: fresh)
    return fresh


@pytest.fixture(autouse=True)
def ledgers_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_writer, "PERIOD", 0.02)


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """Records of the package's logger, down to DEBUG."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("optuna.lcpruner")
    logger.addHandler(handler)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    optuna.logging.disable_default_handler()
    yield records
    optuna.logging.enable_default_handler()
    optuna.logging.set_verbosity(verbosity)
    logger.removeHandler(handler)


class TestLog:
    def test_prunes_at_info_and_the_rest_at_debug(self, log: list[logging.LogRecord]) -> None:
        study = make_study(good_trials())
        decisions = watch(study, make_pruner(n_warmup_steps=10), reports(DOOMED))
        assert [record.levelno for record in log] == [logging.DEBUG] * 10 + [logging.INFO] * 2
        for record, decision in zip(log, decisions, strict=True):
            assert record.getMessage() == f"Trial 5: {decision.message}"

    def test_follows_the_verbosity_of_optuna(self, log: list[logging.LogRecord]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        watch(make_study(good_trials()), make_pruner(), reports(DOOMED))
        assert log == []

    def test_asked_again_logs_nothing_new(self, log: list[logging.LogRecord]) -> None:
        study = make_study(good_trials(), pruner=make_pruner())
        trial = study.ask()
        trial.report(0.1, 0)
        for _ in range(3):
            trial.should_prune()
        assert len(log) == 1


def step_of(study: optuna.Study) -> int | None:
    """The step that the newest trial's attributes are of."""
    step: int | None = study.get_trials()[-1].user_attrs.get("lcpruner_decided_at_step")
    return step


def study_in(kind: str, tmp_path: Path) -> optuna.Study:
    """A study of the good trials."""
    if kind == "sqlite":
        return good_study(f"sqlite:///{tmp_path}/study.db")
    return make_study(good_trials(), storage={"memory": None, "sqlite memory": "sqlite://"}[kind])


class TestAttributes:
    @pytest.mark.parametrize("storage", ["memory", "sqlite", "sqlite memory"])
    def test_attributes_of_a_trial(
        self, storage: str, tmp_path: Path, writer: AttributeWriter, warned: list[str]
    ) -> None:
        study = study_in(storage, tmp_path)
        decision = judge(study, make_pruner(), reports(saturating(0.89)[:6]))
        assert writer.flush(20)
        shown = study.get_trials()[-1].user_attrs
        assert shown == attributes(decision)
        np.testing.assert_allclose(
            [shown[key] for key in NUMBERS],
            [decision.p_beat, decision.forecast, decision.low, decision.high],
        )
        assert shown["lcpruner_decided_at_step"] == 5
        assert shown["lcpruner_reason"].startswith("undecided")
        assert warned == []

    @pytest.mark.parametrize("storage", ["memory", "sqlite"])
    def test_visible_at_once_after_a_prune(
        self, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the answer the trial is finished, and its attributes are closed."""
        monkeypatch.setattr(trial_attributes, "time", SimpleNamespace(monotonic=lambda: 1.0))
        study = study_in(storage, tmp_path)
        study.pruner = make_pruner()
        trial = study.ask()
        for step, value in enumerate([*saturating(0.9)[:4], *DOOMED[4:]]):
            trial.report(value, step)
            if step == 3:  # in the same second another decision is shown
                assert not trial.should_prune()
        assert trial.should_prune()
        study.tell(trial, state=TrialState.PRUNED)
        shown = study.get_trials()[-1].user_attrs
        assert shown["lcpruner_reason"].startswith("pruned")
        assert shown["lcpruner_decided_at_step"] == 11
        assert shown["lcpruner_p_beat_best"] < 0.05

    @pytest.mark.parametrize("storage", ["memory", "sqlite"])
    def test_one_decision_a_second_is_shown_and_the_last_one(
        self, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A decision is shown at once, then the newest of each second, then the last one."""
        now = [0.0]
        monkeypatch.setattr(trial_attributes, "time", SimpleNamespace(monotonic=lambda: now[0]))
        rest = Worker.rest

        def until_due(worker: Worker, _: float, enough: Callable[[], bool] = lambda: True) -> None:
            """By the clock of this test alone, however long a step takes here."""
            rest(worker, 60.0, enough)

        monkeypatch.setattr(Worker, "rest", until_due)
        written = queue.SimpleQueue[Any]()
        write = trial_attributes.set_user_attrs

        def noted(storage: Any, trial_id: int, attrs: Any) -> None:
            write(storage, trial_id, attrs)
            written.put(attrs["lcpruner_decided_at_step"])

        monkeypatch.setattr(trial_attributes, "set_user_attrs", noted)
        study = study_in(storage, tmp_path)
        study.pruner = make_pruner()
        trial = study.ask()
        shown = []
        for step, value in enumerate(saturating(0.9)):
            trial.report(value, step)
            assert not trial.should_prune()
            if step in (1, 9, 17):
                assert written.get(timeout=60) == step
            shown.append(step_of(study))
            now[0] += 0.125
        # The last report leaves nothing to decide.
        assert shown == [None, *[1] * 8, *[9] * 8, 17, 17, 18]

    def test_what_is_held_back_is_shown_when_asked_for(self, writer: AttributeWriter) -> None:
        study = make_study(good_trials())
        decisions = watch(study, make_pruner(), reports(saturating(0.9)[:9]))
        assert study.get_trials()[-1].user_attrs == attributes(decisions[1])
        assert writer.flush(20)
        assert study.get_trials()[-1].user_attrs == attributes(decisions[-1])

    def test_a_stopped_trial_is_one_transaction(self, tmp_path: Path) -> None:
        study = study_in("sqlite", tmp_path)
        study.pruner = make_pruner()
        trial = study.ask()
        for step, value in enumerate(DOOMED):
            trial.report(value, step)
        statements: list[str] = []
        engine = study._storage._backend.engine  # type: ignore[attr-defined]
        sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
        assert trial.should_prune()
        writes = [text for text in statements if text.startswith(("INSERT", "UPDATE"))]
        assert len(writes) == 1
        assert len(study.get_trials()[-1].user_attrs) == 6

    @pytest.mark.parametrize("curve", [DOOMED, saturating(0.89)[:6], [0.1], [np.nan]])
    def test_off(self, curve: Any, writer: AttributeWriter, tmp_path: Path) -> None:
        study = study_in("sqlite", tmp_path)
        judge(study, make_pruner(publish=False), reports(curve))
        assert writer.flush(20)
        assert study.get_trials()[-1].user_attrs == {}

    def test_nothing_reported_nothing_shown(self) -> None:
        study = make_study(good_trials())
        judge(study, make_pruner(), {})
        assert study.get_trials()[-1].user_attrs == {}

    def test_attributes_of_the_objective_stay(self, writer: AttributeWriter) -> None:
        study = make_study(good_trials())
        mine = {"lcpruner_n_steps": 20, "note": "mine"}
        judge(study, make_pruner(n_steps=None), reports(DOOMED), mine)
        shown = study.get_trials()[-1].user_attrs
        assert {key: shown[key] for key in mine} == mine

    @pytest.mark.parametrize("factor", [1.0, 1e300, 5e-324])
    def test_values_are_short(self, factor: float) -> None:
        study = make_study(
            [
                optuna.trial.create_trial(
                    value=factor * e, intermediate_values={0: 0.0, 19: factor}
                )
                for e in (0.5, 0.9, 1.0)
            ]
        )
        judge(study, make_pruner(target="last"), reports(factor * DOOMED))
        shown = study.get_trials()[-1].user_attrs
        assert shown
        assert all(len(str(value)) < 500 for value in shown.values())

    @pytest.mark.parametrize("curve", [DOOMED, saturating(0.89)[:6]], ids=["pruned", "spared"])
    def test_a_storage_that_cannot_write_costs_a_warning(
        self, curve: np.ndarray, warned: list[str]
    ) -> None:
        class ReadOnly(InMemoryStorage):
            def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
                raise PermissionError("read-only")

        expected = watch(make_study(good_trials()), make_pruner(), reports(curve))
        study = make_study(good_trials(), storage=ReadOnly())
        pruner = make_pruner()
        assert watch(study, pruner, reports(curve)) == expected
        assert watch(study, pruner, reports(curve)) == expected
        assert len(warned) == 1
        assert "read-only" in warned[0]

    def test_a_writer_that_fails_costs_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, warned: list[str]
    ) -> None:
        def writer() -> AttributeWriter:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(trial_attributes, "writer", writer)
        study = make_study(good_trials())
        pruner = make_pruner()
        for _ in range(2):
            assert watch(study, pruner, reports(DOOMED))[-1].reason is Reason.BELOW_THRESHOLD
        assert len(warned) == 1


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


class TestLedger:
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
        self, kind: str, tmp_path: Path, started: list[threading.Thread]
    ) -> None:
        storage: Any = {
            "memory": lambda: None,
            "journal": lambda: JournalStorage(JournalFileBackend(f"{tmp_path}/s.log")),
            "sqlite memory": lambda: "sqlite://",
        }[kind]()
        study = make_study(good_trials(), storage=storage)
        watch(study, make_pruner(), reports(DOOMED))
        assert "lcpruner-ledger" not in [thread.name for thread in started]

    def test_off(self, study: optuna.Study, started: list[threading.Thread]) -> None:
        watch(study, make_pruner(ledger=False), reports(DOOMED))
        assert "lcpruner-ledger" not in [thread.name for thread in started]

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

    @pytest.mark.parametrize("warm_up", [0, 19])
    def test_the_study_is_not_read_for_it(self, warm_up: int, tmp_path: Path) -> None:
        def n_reads(setting: Any) -> int:
            storage = CountingStorage()
            study = make_study(good_trials(), storage=storage)
            pruner = make_pruner(n_warmup_steps=warm_up, ledger=setting)
            watch(study, pruner, reports(DOOMED[:3]))
            assert ledger_writer.flush(20)
            return storage.n_reads

        assert n_reads(f"sqlite:///{tmp_path}/other.db") == n_reads(False)


class TestEnded:
    def test_nobody_is_told_of_a_question_about_a_trial_that_has_ended(
        self, tmp_path: Path
    ) -> None:
        """What was decided in its time stays what is on record."""
        study = good_study(f"sqlite:///{tmp_path}/study.db")
        study.pruner = make_pruner()
        study.optimize(lambda trial: train(trial, DOOMED), n_trials=1)
        assert ledger_writer.flush(20)
        before = explain(study, 5).decisions
        assert before[-1].reason == "BELOW_THRESHOLD"
        study.add_trial(finished(reports(saturating(0.95))))
        later = make_pruner().decide(study, study.get_trials()[5])
        assert later.incumbent == pytest.approx(study.best_value)
        assert ledger_writer.flush(20)
        assert [e.step for e in explain(study, 5).decisions] == [e.step for e in before]
