"""A trainer with a RemotePruner: which verdicts count, what it does without one."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from helpers import (
    BAD,
    finished,
    good_study,
    good_trials,
    make_study,
    reports,
    saturating,
    sqlite,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from optuna_lcpruner import Decision, LearningCurvePruner, Reason, RemotePruner, explain
from optuna_lcpruner.pruners import remote
from optuna_lcpruner.pruners.remote import Silence
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.remote_decision import ATTRIBUTE, RemoteVerdict, write

BELOW_THRESHOLD = Decision(Reason.BELOW_THRESHOLD, "", 4, 0.01, 0.03, 0.9, 0.2, 0.1, 0.4)
UNDECIDED = Decision(Reason.UNDECIDED, "", 4, 0.3, 0.03, 0.9, 0.2, 0.1, 0.4)


def begun(study: Study, values: Any, steps: Any = None) -> Trial:
    """A running trial that has made these reports."""
    trial = study.ask()
    for step, value in reports(values, steps).items():
        trial.report(value, step)
    return trial


def frozen(study: Study, trial: Trial) -> FrozenTrial:
    return study._storage.get_trial(trial._trial_id)


def tell(
    study: Study,
    trial: Trial,
    decision: Decision = BELOW_THRESHOLD,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Write a verdict on the trial as it is, but for some fields."""
    verdict = RemoteVerdict.of(decision, frozen(study, trial))
    verdict = replace(verdict, **(changes or {}))
    write(study._storage, trial._trial_id, verdict)


def trainer(**settings: Any) -> RemotePruner:
    return RemotePruner(**settings)


class Clock:
    def __init__(self) -> None:
        self.now = 5e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of pruners that are made in the test."""
    clock = Clock()
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture(params=["memory", "sqlite", "journal"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Study:
    storage: Any = InMemoryStorage()
    if request.param == "sqlite":
        storage = sqlite(f"sqlite:///{tmp_path}/s.db")
    elif request.param == "journal":
        storage = JournalStorage(JournalFileBackend(f"{tmp_path}/s.log"))
    return make_study(good_trials(), storage=storage)


class TestOnEveryStorage:
    def test_a_verdict_is_followed(self, study: Study) -> None:
        study.pruner = trainer()
        trial = begun(study, BAD[:5])
        assert trial.should_prune() is False
        tell(study, trial)
        assert trial.should_prune() is True
        decision = study.pruner.decide(study, frozen(study, trial))
        assert decision.reason is Reason.BELOW_THRESHOLD
        assert decision.message == (
            "pruned: P = 0.010 < 0.03 at step 4, forecast 0.2 [0.1, 0.4] against best 0.9"
        )
        assert (decision.p_beat, decision.low, decision.step) == (0.01, 0.1, 4)

    def test_another_verdict_does_not_stop_it(self, study: Study) -> None:
        study.pruner = trainer()
        trial = begun(study, BAD[:5])
        tell(study, trial, UNDECIDED)
        assert trial.should_prune() is False
        assert study.pruner.decide(study, frozen(study, trial)).reason is Reason.UNDECIDED

    def test_the_forecaster_tells_others(self, study: Study) -> None:
        study.pruner = trainer()
        trial = begun(study, BAD[:5])
        tell(study, trial)
        trial.should_prune()
        assert not frozen(study, trial).user_attrs

    def test_the_same_answer_for_the_same_reports(self, study: Study) -> None:
        study.pruner = trainer()
        trial = begun(study, BAD[:5])
        tell(study, trial, UNDECIDED)
        assert trial.should_prune() is False
        tell(study, trial)
        assert trial.should_prune() is False
        trial.report(0.1, 5)
        assert trial.should_prune() is True


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_its_own_guards_come_first(direction: str) -> None:
    study = make_study(good_trials(), direction=direction)
    study.pruner = trainer(n_warmup_steps=3)
    trial = begun(study, [0.1, 0.1])
    tell(study, trial)
    assert trial.should_prune() is False
    trial.report(math.nan, 3)
    assert trial.should_prune() is True
    assert frozen(study, trial).user_attrs["lcpruner_reason"].startswith("pruned: diverged")


def test_whether_a_trial_diverged_is_the_trainers_to_say() -> None:
    """The forecaster's nan_policy may be another one."""
    study = make_study(good_trials())
    study.pruner = trainer(nan_policy="ignore")
    trial = begun(study, [0.1, 0.2, math.nan])
    tell(study, trial, Decision(Reason.DIVERGED, "", 2))
    assert trial.should_prune() is False
    trial.report(0.3, 3)
    assert trial.should_prune() is False
    tell(study, trial)
    assert trial.should_prune() is True


class TestHowOldItMayBe:
    @pytest.mark.parametrize(
        ("n_then", "n_now", "stale_after", "counts"),
        [
            (2, 3, 0.5, True),
            (2, 4, 0.5, False),
            (10, 15, 0.5, True),
            (10, 16, 0.5, False),
            (10, 11, 0.0, True),  # one report at least: the verdict comes after the check
            (10, 12, 0.0, False),
            (10, 60, 5.0, True),
            (2, 500, math.inf, True),
        ],
    )
    def test_table(self, n_then: int, n_now: int, stale_after: float, counts: bool) -> None:
        study = make_study(good_trials())
        study.pruner = trainer(stale_after=stale_after)
        trial = begun(study, np.full(n_then, 0.1))
        tell(study, trial)
        for step in range(n_then, n_now):
            trial.report(0.1, step)
        assert trial.should_prune() is counts
        decision = study.pruner.decide(study, frozen(study, trial))
        behind = n_now - n_then
        assert (f"{behind} report" in decision.message) or behind == 0
        assert decision.reason is (Reason.BELOW_THRESHOLD if counts else Reason.FORECAST_PENDING)


class TestWithoutForecaster:
    def test_one_warning_and_training_goes_on(self, clock: Clock, warned: list[str]) -> None:
        study = make_study(good_trials())
        study.pruner = pruner = trainer(forecaster_timeout=60)
        seen = []
        for _ in range(3):
            trial = begun(study, [0.1])
            for step in range(1, 10):
                trial.report(0.1, step)
                assert trial.should_prune() is False
                seen.append(pruner.decide(study, frozen(study, trial)).reason)
                clock.now += 7
        assert seen[0] is Reason.FORECAST_PENDING
        assert seen[-1] is Reason.FORECASTER_UNAVAILABLE
        assert len(warned) == 1
        assert "optuna-lcpruner serve" in warned[0]

    def test_a_study_that_rests_is_no_reason_to_warn(self, clock: Clock, warned: list[str]) -> None:
        study = make_study(good_trials())
        study.pruner = trainer(forecaster_timeout=60)
        for _ in range(10):
            begun(study, BAD[:2]).should_prune()
            clock.now += 3000  # the next training begins much later
            trial = begun(study, BAD[:2])
            trial.should_prune()
            tell(study, trial, UNDECIDED)
            trial.report(0.1, 2)
            trial.should_prune()
        assert warned == []

    def test_one_that_comes_back_is_heard_at_once(self) -> None:
        study = make_study(good_trials())
        study.pruner = pruner = trainer(forecaster_timeout=0)
        trial = begun(study, BAD[:5])
        for _ in range(3):
            assert trial.should_prune() is False
        assert pruner.decide(study, frozen(study, trial)).reason is Reason.FORECASTER_UNAVAILABLE
        tell(study, trial)
        assert trial.should_prune() is True

    def test_a_late_one_is_said_to_be_late(self, clock: Clock, warned: list[str]) -> None:
        study = make_study(good_trials())
        study.pruner = trainer(forecaster_timeout=60)
        trial = begun(study, BAD[:2])
        tell(study, trial)
        for step in range(2, 20):
            trial.report(0.1, step)
            if step > 2:
                assert trial.should_prune() is False
            clock.now += 10
        assert len(warned) == 1
        assert "reports old, of step 1" in warned[0]

    def test_the_clock_of_the_wall_does_not_matter(
        self, monkeypatch: pytest.MonkeyPatch, warned: list[str]
    ) -> None:
        import time

        study = make_study(good_trials())
        study.pruner = trainer()
        trial = begun(study, BAD[:5])
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert trial.should_prune() is False
        monkeypatch.setattr(time, "time", lambda: 1e10)
        trial.should_prune()
        tell(study, trial)
        trial.report(0.1, 5)
        assert trial.should_prune() is True
        assert warned == []

    def test_silence(self) -> None:
        silence = Silence()
        assert silence.goes_on(10.0) == (0.0, 1)
        assert silence.goes_on(12.0) == (2.0, 2)
        silence.ends()
        assert silence.goes_on(20.0) == (0.0, 1)


class TestOfAnotherTrial:
    def test_of_a_run_before_this_one(self) -> None:
        """RetryFailedTrialCallback copies a trial's attributes to the trial that repeats it."""
        study = make_study(good_trials())
        study.pruner = trainer()
        trial = begun(study, BAD[:5])
        tell(study, trial)
        copied = frozen(study, trial).system_attrs
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        study.add_trial(
            optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, system_attrs=copied)
        )
        again = begun(study, BAD[:5])
        assert frozen(study, again).system_attrs[ATTRIBUTE]["reason"] == "BELOW_THRESHOLD"
        assert again.should_prune() is False

    @pytest.mark.parametrize(
        "changes",
        [
            {"trial": 4},
            {"step": 17},
            {"n_reports": 6},
            {"n_reports": 0},
            {"value": 0.2},
            {"value": None},
        ],
    )
    def test_of_other_reports(self, changes: dict[str, Any]) -> None:
        study = make_study(good_trials())
        study.pruner = trainer()
        trial = begun(study, BAD[:5])
        tell(study, trial, changes=changes)
        assert trial.should_prune() is False

    def test_steps_in_any_order(self) -> None:
        study = make_study(good_trials())
        study.pruner = trainer()
        trial = begun(study, BAD[:5], [4, 0, 30, 2, 1])
        tell(study, trial)
        assert frozen(study, trial).system_attrs[ATTRIBUTE]["step"] == 30
        assert trial.should_prune() is True

    def test_digits_that_a_database_drops_do_not_matter(self) -> None:
        study = make_study(good_trials())
        study.pruner = trainer()
        trial = begun(study, [0.1, 0.123456789])
        tell(study, trial, changes={"value": 0.1234567891})
        assert trial.should_prune() is True


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)
WELL_FORMED = {
    **RemoteVerdict.of(BELOW_THRESHOLD, finished(reports(BAD[:5]))).to_json(),
    "trial": 5,
}


def with_attribute(found: Any) -> tuple[Study, Trial]:
    study = make_study(good_trials())
    study.pruner = trainer()
    trial = begun(study, BAD[:5])
    study._storage.set_trial_system_attr(trial._trial_id, ATTRIBUTE, found)
    return study, trial


class TestUntrusted:
    def test_the_well_formed_one_stops_the_trial(self) -> None:
        assert with_attribute(WELL_FORMED)[1].should_prune() is True

    @settings(deadline=None, max_examples=settings.default.max_examples // 2)
    @given(json_values)
    def test_anything_else_is_ignored(self, found: Any) -> None:
        study, trial = with_attribute(found)
        assert trial.should_prune() is False
        assert study.pruner.decide(study, frozen(study, trial)).reason is Reason.FORECAST_PENDING

    @settings(deadline=None)
    @given(
        st.sampled_from(sorted(WELL_FORMED)),
        json_values | st.sampled_from(list(Reason.__members__)),
    )
    def test_one_field_of_another_kind(self, name: str, value: Any) -> None:
        changed = {**WELL_FORMED, name: value}
        study, trial = with_attribute(changed)
        pruned = trial.should_prune()
        decision = study.pruner.decide(study, frozen(study, trial))
        assert decision.reason is not Reason.FAILED
        assert pruned is decision.prune
        if pruned:  # then it still is a verdict against this trial
            assert decision.reason in (Reason.BELOW_THRESHOLD, Reason.NARROW_FORECAST)
            assert decision.p_beat is not None
            assert decision.threshold is not None
            assert 0 <= decision.p_beat < decision.threshold <= 1 or name == "reason"
            assert name in {
                "p_beat", "threshold", "incumbent", "forecast", "low", "high", "version",
                "reason", "n_reports", "value",
            } or value == WELL_FORMED[name]  # fmt: skip
            assert "\n" not in decision.message

    @pytest.mark.parametrize("name", sorted(WELL_FORMED))
    def test_a_field_that_is_missing(self, name: str) -> None:
        changed = {key: value for key, value in WELL_FORMED.items() if key != name}
        may_be_none = ("forecast", "low", "high")
        assert with_attribute(changed)[1].should_prune() is (name in may_be_none)

    @pytest.mark.parametrize(
        "changes",
        [
            {"prune": False},
            {"prune": 1},
            {"reason": "UNDECIDED"},
            {"reason": "__class__"},
            {"reason": "DIVERGED"},
            {"reason": "OTHER_PRUNER"},
            {"p_beat": 0.03},
            {"p_beat": -0.1},
            {"p_beat": math.nan},
            {"p_beat": True},
            {"threshold": 1.5},
            {"incumbent": math.inf},
            {"incumbent": 10**400},
            {"low": "0.1"},
            {"step": 4.0},
            {"trial": True},
            {"version": "x" * 100},
        ],
    )
    def test_that_contradicts_itself(self, changes: dict[str, Any]) -> None:
        assert with_attribute({**WELL_FORMED, **changes})[1].should_prune() is False

    @pytest.mark.parametrize("row", ['{"half": ', "", "\x00", "[" * 5000, '"\ud800"'])
    def test_half_a_row_in_the_database(self, row: str, tmp_path: Path) -> None:
        study = good_study(f"sqlite:///{tmp_path}/s.db")
        study.pruner = trainer()
        trial = begun(study, BAD[:5])
        tell(study, trial)
        change = sqlalchemy.text(
            "UPDATE trial_system_attributes SET value_json = :row WHERE key = :key"
        )
        stored = row.encode("utf-8", "replace").decode()
        with sqlalchemy.create_engine(f"sqlite:///{tmp_path}/s.db").begin() as connection:
            connection.execute(change, {"row": stored, "key": ATTRIBUTE})
        assert trial.should_prune() is False

    def test_another_format_is_ignored_with_one_warning(self, warned: list[str]) -> None:
        _, trial = with_attribute({**WELL_FORMED, "format": 2, "prune": True})
        for step in range(5, 8):
            assert trial.should_prune() is False
            trial.report(0.1, step)
        assert len(warned) == 1
        assert "format 2" in warned[0]

    def test_fields_added_later_do_not_matter(self) -> None:
        assert with_attribute({**WELL_FORMED, "more": [1]})[1].should_prune() is True


class TestSettings:
    def test_what_is_the_forecasters_there_is_not(self) -> None:
        own = set(inspect.signature(RemotePruner).parameters)
        shared = own & set(inspect.signature(LearningCurvePruner).parameters)
        assert own - shared == {"stale_after", "forecaster_timeout"}
        assert shared == {
            "n_warmup_steps", "interval_steps", "nan_policy", "prune_infeasible", "publish",
            "ledger",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("setting", "error"),
        [
            ({"stale_after": -0.1}, ValueError),
            ({"stale_after": "x"}, TypeError),
            ({"forecaster_timeout": math.nan}, ValueError),
            ({"n_warmup_steps": -1}, ValueError),
            ({"interval_steps": 0}, ValueError),
            ({"nan_policy": "raise"}, ValueError),
            ({"prune_infeasible": 1}, TypeError),
            ({"publish": None}, TypeError),
            ({"ledger": True}, TypeError),
            ({"ledger": "x"}, ValueError),
        ],
    )
    def test_out_of_range(self, setting: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            RemotePruner(**setting)

    def test_repr(self) -> None:
        assert repr(RemotePruner(n_warmup_steps=3)) == (
            "RemotePruner(stale_after=0.5, forecaster_timeout=60.0, n_warmup_steps=3, "
            "interval_steps=1)"
        )

    @pytest.mark.parametrize("copied", [copy.copy, lambda p: pickle.loads(pickle.dumps(p))])
    def test_a_copy_remembers_nothing(self, copied: Any, warned: list[str]) -> None:
        study = make_study(good_trials())
        study.pruner = first = trainer(forecaster_timeout=0, nan_policy="ignore")
        trial = begun(study, BAD[:5])
        for _ in range(3):
            trial.should_prune()
        assert len(warned) == 1
        tell(study, trial, UNDECIDED)
        assert trial.should_prune() is False
        tell(study, trial)
        assert trial.should_prune() is False  # the same reports
        study.pruner = copied(first)
        assert trial.should_prune() is True
        trial = begun(study, [0.1, 0.1, math.nan])
        for _ in range(3):
            assert trial.should_prune() is False
        assert len(warned) == 2
        study.pruner = first
        assert trial.should_prune() is False

    def test_what_it_decides_itself_is_shown_and_kept_if_wanted(self, tmp_path: Path) -> None:
        study = good_study(f"sqlite:///{tmp_path}/s.db")
        study.pruner = trainer(publish=False, ledger=False)
        silent = begun(study, [0.1, math.nan])
        assert silent.should_prune() is True
        assert trial_attributes.writer().flush(20)
        assert frozen(study, silent).user_attrs == {}
        assert not (tmp_path / "s.db.lcpruner").exists()
        study.pruner = trainer()
        assert begun(study, [0.1, math.nan]).should_prune() is True
        assert ledger_writer.flush(20)
        (row,) = explain(study, 6).decisions
        assert (row.reason, row.engine) == ("DIVERGED", "remote")

    def test_it_survives_pickle(self) -> None:
        study = make_study(good_trials())
        study.pruner = pickle.loads(pickle.dumps(trainer()))
        trial = begun(study, BAD[:5])
        tell(study, trial)
        assert trial.should_prune() is True

    @pytest.mark.filterwarnings("ignore:PatientPruner is experimental")
    def test_inside_a_patient_pruner(self) -> None:
        study = make_study(good_trials())
        study.pruner = optuna.pruners.PatientPruner(trainer(), patience=1)
        trial = begun(study, saturating(0.3)[::-1])
        tell(study, trial)
        assert trial.should_prune() is True


def statements(engine: sqlalchemy.Engine) -> list[str]:
    said: list[str] = []
    sqlalchemy.event.listen(
        engine, "before_cursor_execute", lambda *arguments: said.append(arguments[2])
    )
    return said


def test_one_short_read_of_a_database(tmp_path: Path) -> None:
    storage = sqlite(f"sqlite:///{tmp_path}/s.db")
    study = make_study(good_trials(), storage=storage)
    study.pruner = trainer()
    trial = begun(study, BAD[:5])
    tell(study, trial)
    said = statements(storage.engine)
    assert trial.should_prune() is True
    assert len(said) == 2
    assert all(s.startswith("SELECT") for s in said)
    assert not any("trial_intermediate_values" in s for s in said)
    assert trial.should_prune() is True
    assert len(said) == 2


def test_no_read_where_there_is_nothing_to_decide(tmp_path: Path) -> None:
    storage = sqlite(f"sqlite:///{tmp_path}/s.db")
    study = make_study(good_trials(), storage=storage)
    study.pruner = trainer(n_warmup_steps=3, interval_steps=5)
    trial = begun(study, [0.1])
    said = statements(storage.engine)
    for step in range(1, 8):
        trial.report(0.1, step)
        said.clear()
        trial.should_prune()
        assert len(said) == (2 if step == 3 else 0)


class Gone(RDBStorage):
    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("password=secret gone"))


def test_a_storage_that_fails(tmp_path: Path, warned: list[str]) -> None:
    study = make_study(good_trials(), storage=Gone(f"sqlite:///{tmp_path}/s.db"))
    study.pruner = trainer(ledger=False)
    trial = begun(study, BAD[:5])
    assert trial.should_prune() is False
    assert trial.should_prune() is False
    assert len(warned) == 1
    assert "secret" not in warned[0]
    reason = study.pruner.decide(study, frozen(study, trial))
    assert reason.reason is Reason.FAILED
    assert "secret" not in reason.message
