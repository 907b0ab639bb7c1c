"""The forecaster's passes: whom it judges, when, how often, and what it remembers."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from forecasting import Watching, covers, running, verdict_of
from helpers import BAD, good_trials, judge, make_study, reports, saturating, sqlite
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from serving import wait

from optuna_lcpruner import Forecaster, LearningCurvePruner, Reason, RemotePruner
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.remote_decision import RemoteVerdict
from optuna_lcpruner.service import forecaster
from optuna_lcpruner.service.events import Event


@pytest.fixture(params=["memory", "sqlite", "journal"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    memory = InMemoryStorage()
    return {
        "memory": lambda: memory,
        "sqlite": lambda: sqlite(f"sqlite:///{tmp_path}/s.db"),
        "journal": lambda: JournalStorage(JournalFileBackend(f"{tmp_path}/s.log")),
    }[request.param]


class TestOnEveryStorage:
    def test_the_same_verdict_as_in_the_training(self, opened: Callable[[], Any]) -> None:
        curves = [BAD[:6], saturating(0.95)[:6], saturating(0.85)[:12], BAD[:1], [0.1, math.nan]]
        local = make_study(good_trials())
        expected = [
            judge(local, LearningCurvePruner(20, threshold=0.05), reports(curve))
            for curve in curves
        ]
        study = make_study(good_trials(), storage=opened())
        trials = [running(study, curve) for curve in curves]
        watching = Watching(opened(), [study.study_name])
        watching.look()
        for trial, decision in zip(trials, expected, strict=True):
            verdict = verdict_of(study, trial)
            assert verdict.reason is decision.reason
            np.testing.assert_allclose(
                [verdict.p_beat or 0, verdict.forecast or 0, verdict.low or 0],
                [decision.p_beat or 0, decision.forecast or 0, decision.low or 0],
                rtol=1e-9,
            )
        assert sorted(watching.judged) == [(5, 6), (6, 6), (7, 12), (8, 1), (9, 2)]

    def test_to_the_trainer_and_back(self, opened: Callable[[], Any]) -> None:
        study = make_study(good_trials(), storage=opened())
        study.pruner = RemotePruner()
        watching = Watching(opened())
        bad, good = running(study, BAD[:6]), running(study, saturating(0.95)[:6])
        watching.look()
        assert bad.should_prune() is True
        assert good.should_prune() is False
        assert trial_attributes.writer().flush(20)
        shown = study._storage.get_trial(bad._trial_id).user_attrs
        assert shown["lcpruner_reason"].startswith("pruned: P = ")
        assert shown["lcpruner_decided_at_step"] == 5

    def test_each_report_once(self, opened: Callable[[], Any]) -> None:
        study = make_study(good_trials(), storage=opened())
        trial = running(study, BAD[:3])
        watching = Watching(opened())
        watching.look()
        trial.report(0.1, 3)
        watching.look()
        watching.look()
        assert watching.judged == [(5, 3), (5, 4)]

    def test_another_one_later_begins_where_the_first_stopped(
        self, opened: Callable[[], Any]
    ) -> None:
        study = make_study(good_trials(), storage=opened())
        trial = running(study, BAD[:3])
        first = Watching(opened())
        first.look()
        second = Watching(opened())
        second.look()
        assert second.judged == []
        trial.report(0.1, 3)
        second.look()
        assert second.judged == [(5, 4)]

    def test_a_study_that_is_deleted_and_made_again(self, opened: Callable[[], Any]) -> None:
        storage = opened()
        study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
        study.add_trials(good_trials())
        running(study, BAD[:6])
        watching = Watching(opened())
        watching.look()
        optuna.delete_study(study_name="s", storage=storage)
        watching.look(15)
        assert [facts["study"] for facts in watching.named("study_gone")] == ["s"]
        study = optuna.create_study(study_name="s", storage=storage, direction="minimize")
        study.add_trials(good_trials()[:4])  # which get worse in this direction
        trial = running(study, BAD[:6])
        watching.look(15)
        assert verdict_of(study, trial).reason is Reason.WRONG_DIRECTION
        assert not watching.named("cannot_serve")

    def test_a_study_made_again_between_two_looks(self, opened: Callable[[], Any]) -> None:
        """SQLite gives the new study and its trials the old numbers."""
        storage = opened()
        study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
        study.add_trials(good_trials())
        running(study, BAD[:6])
        watching = Watching(opened())
        watching.look()
        optuna.delete_study(study_name="s", storage=storage)
        study = optuna.create_study(study_name="s", storage=storage, direction="minimize")
        study.add_trials(good_trials()[:1])
        trial = running(study, BAD[:6])
        watching.look(60)
        verdict = verdict_of(study, trial)
        assert verdict.reason is Reason.STARTUP


def watch(trials: Any = None, **settings: Any) -> tuple[Study, Watching]:
    study = make_study(good_trials() if trials is None else trials)
    return study, Watching(study._storage, [study.study_name], **settings)


class TestWhichTrials:
    def test_several_studies(self) -> None:
        storage = InMemoryStorage()
        names = ["a", "b", "c"]
        studies = [optuna.create_study(study_name=name, storage=storage) for name in names]
        for study in studies:
            running(study, BAD[:3])
        every, two = Watching(storage), Watching(storage, ["a", "c"])
        every.look()
        assert {facts["study"] for facts in every.named("verdict")} == {"a", "b", "c"}
        assert every.forecaster.counts.studies == 3
        for study in studies:
            running(study, BAD[:3])
        two.look()
        assert {facts["study"] for facts in two.named("verdict")} == {"a", "c"}

    def test_a_study_that_comes_later(self) -> None:
        storage = InMemoryStorage()
        named, every = Watching(storage, ["later"]), Watching(storage)
        named.look(5)
        assert len(named.named("no_such_study")) == 1
        study = optuna.create_study(study_name="later", storage=storage)
        running(study, BAD[:3])
        named.look(12)
        assert named.judged
        running(study, BAD[:3])
        every.look(12)
        assert every.judged

    def test_not_of_several_objectives(self) -> None:
        storage = InMemoryStorage()
        study = optuna.create_study(storage=storage, directions=["minimize", "maximize"])
        study.ask()
        watching = Watching(storage)
        watching.look()
        assert len(watching.named("several_objectives")) == 1
        assert watching.forecaster.run_once() is True

    @pytest.mark.parametrize(
        "name", ["", "a\nb", "'; DROP TABLE studies; --", "{}%s\\", "../../x", "😀" * 20]
    )
    def test_a_study_of_any_name(self, name: str, tmp_path: Path) -> None:
        storage = sqlite(f"sqlite:///{tmp_path}/s.db")
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
        study.add_trials(good_trials())
        trial = running(study, BAD[:6])
        watching = Watching(sqlite(f"sqlite:///{tmp_path}/s.db"), [name])
        watching.look()
        assert ledger_writer.flush(20)
        assert verdict_of(study, trial).reason.prunes
        assert {path.name for path in tmp_path.iterdir()} == {"s.db", "s.db.lcpruner"}
        assert all(
            "\n" not in event.line() and "\n" not in event.json() for event in watching.events
        )


class TestSettingsReachTheDecision:
    def test_control_group(self) -> None:
        pruner = LearningCurvePruner(20, threshold=0.05, control_fraction=1.0)
        study, watching = watch(pruner=pruner)
        trial = running(study, BAD[:6])
        watching.look()
        assert verdict_of(study, trial).reason is Reason.CONTROL
        assert trial_attributes.writer().flush(20)
        assert "lcpruner_control_since_step" in study._storage.get_trial(trial._trial_id).user_attrs

    def test_second_chance(self) -> None:
        study, watching = watch()
        trial = running(study, BAD[:6], lcpruner_requeued_from=1)
        watching.look()
        assert verdict_of(study, trial).reason is Reason.REQUEUED

    def test_announced_horizon(self) -> None:
        study, watching = watch(pruner=LearningCurvePruner(threshold=0.05))
        trial = running(study, BAD[:6], lcpruner_n_steps=6)
        watching.look()
        assert verdict_of(study, trial).reason is Reason.BEYOND_HORIZON

    def test_patience_looks_back_at_the_curve(self) -> None:
        study, watching = watch(pruner=LearningCurvePruner(20, threshold=0.05, patience=3))
        trial = running(study, BAD[:9])
        watching.look()
        assert verdict_of(study, trial).reason is Reason.BELOW_THRESHOLD


class TestRefused:
    def test_a_pruner_that_looks_at_some_reports_only(self) -> None:
        with pytest.raises(InputError, match="must not have interval_steps"):
            Forecaster(InMemoryStorage(), pruner=LearningCurvePruner(interval_steps=2))

    def test_an_executor(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match="an executor"):
            Forecaster(InMemoryStorage(), pruner=LearningCurvePruner(executor=executor))

    @pytest.mark.parametrize(
        ("settings", "error"),
        [
            ({"interval": -1.0}, ValueError),
            ({"executor": 3}, TypeError),
            ({"executor_timeout": -1.0}, ValueError),
            ({"studies": "s"}, TypeError),
            ({"pruner": optuna.pruners.NopPruner()}, TypeError),
            ({"pruner": RemotePruner()}, TypeError),
        ],
    )
    def test_arguments(self, settings: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            Forecaster(InMemoryStorage(), **settings)


class TestTwo:
    """By accident: they do the same work twice, and no harm."""

    def test_they_write_the_same_verdict(self, monkeypatch: pytest.MonkeyPatch) -> None:
        study = make_study(good_trials())
        first, second = Watching(study._storage), Watching(study._storage)
        trial = running(study, BAD[:6])
        decide = LearningCurvePruner.decide
        written = []

        def in_the_middle(self: Any, study: Study, trial: FrozenTrial) -> Any:
            monkeypatch.setattr(LearningCurvePruner, "decide", decide)
            second.look(0.5)
            written.append(verdict_of(study, trial))
            return decide(self, study, trial)

        monkeypatch.setattr(LearningCurvePruner, "decide", in_the_middle)
        first.look()
        second.look()
        assert first.judged == second.judged == [(5, 6)]
        assert written == [verdict_of(study, trial)]

    def test_each_trial_is_judged_as_by_one(self, tmp_path: Path, warned: list[str]) -> None:
        alone, both = (self.trained(f"sqlite:///{tmp_path}/{n}.db", n) for n in (1, 2))
        assert len(alone) == 4 * 6
        assert {pruned for _, pruned in alone.values()} == {True, False}
        assert both == alone
        assert warned == []

    def trained(self, url: str, n: int) -> dict[tuple[int, int], tuple[RemoteVerdict, bool]]:
        """Each trial's verdict and the trainer's answer at each step, with so many forecasters."""
        study = make_study(good_trials(), storage=sqlite(url))
        study.pruner = RemotePruner()
        events: list[Event] = []
        forecasters = [
            Forecaster(
                sqlite(url), None, LearningCurvePruner(20, threshold=0.05), interval=0.01,
                tell=events.append,
            )
            for _ in range(n)
        ]  # fmt: skip
        ended: list[bool] = []
        threads = [
            threading.Thread(target=lambda one=one: ended.append(one.run()), daemon=True)
            for one in forecasters
        ]
        for thread in threads:
            thread.start()
        curves = [BAD, saturating(0.95), saturating(0.3), saturating(0.87)]
        trials = [running(study, curve[:2]) for curve in curves]
        found = {}
        for step in range(2, 8):
            for trial, curve in zip(trials, curves, strict=True):
                trial.report(curve[step], step)
            for trial in trials:
                wait(lambda trial=trial: covers(study, trial), lambda: events[-20:])
                found[trial.number, step] = (verdict_of(study, trial), trial.should_prune())
        for one in forecasters:
            one.stop()
        for thread in threads:
            thread.join(60)
        assert ended == [True] * n
        assert not [event for event in events if event.level >= logging.WARNING]
        assert {trial.state for trial in study.trials[5:]} == {TrialState.RUNNING}
        return found


class TestLoad:
    def test_it_rests_as_long_as_the_storage_needs(self) -> None:
        study, watching = watch(interval=0.5)
        running(study, BAD[:3])
        watching.look()
        assert watching.forecaster._rest() <= 0.5
        get = study._storage.get_all_trials

        def slow(*arguments: Any, **named: Any) -> Any:
            watching.clock.now += 2.0
            return get(*arguments, **named)

        study._storage.get_all_trials = slow  # type: ignore[method-assign]
        watching.look(0.5)
        busy = watching.forecaster.counts.storage_seconds
        assert busy >= 2.0
        assert watching.forecaster._rest() == pytest.approx(3.0 * busy)

    def test_a_study_at_rest_is_looked_at_less_often(self) -> None:
        study, watching = watch(interval=0.5)
        watching.look(600)
        reads = 0
        get = study._storage.get_all_trials

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal reads
            reads += 1
            return get(*arguments, **named)

        study._storage.get_all_trials = counted  # type: ignore[method-assign]
        watching.look(120)
        assert 2 <= reads <= 6
        running(study, BAD[:3])
        watching.look(forecaster.LONGEST_PAUSE + 3)
        assert watching.judged == [(5, 3)]


class TestMemory:
    def test_what_has_ended_is_forgotten(self) -> None:
        study, watching = watch()
        (worker,) = (watching.look(0.5), *watching.forecaster._workers.values())[1:]
        for number in range(30):
            trial = running(study, BAD[:3])
            watching.look(1.5 if number else 3)
            study.tell(trial, state=TrialState.FAIL)
        watching.look(1)
        assert len(watching.judged) == 30
        assert worker._progress == {}

    def test_a_study_that_is_gone_is_dropped(self) -> None:
        storage = InMemoryStorage()
        watching = Watching(storage)
        for name in "abc":
            study = optuna.create_study(study_name=name, storage=storage)
            running(study, BAD[:3])
            watching.look(12)
            optuna.delete_study(study_name=name, storage=storage)
            watching.look(12)
        assert len(watching.judged) == 3
        assert watching.forecaster.counts.studies == 0


class TestRun:
    def test_once(self) -> None:
        study = make_study(good_trials())
        trial = running(study, BAD[:6])
        forecaster = Forecaster(
            study._storage, pruner=LearningCurvePruner(20, threshold=0.05), interval=0.01
        )
        assert forecaster.run_once() is True
        assert verdict_of(study, trial).reason.prunes

    def test_until_it_is_stopped(self) -> None:
        study = make_study(good_trials())
        study.pruner = RemotePruner()
        forecaster = Forecaster(
            study._storage, pruner=LearningCurvePruner(20, threshold=0.05), interval=0.01
        )
        thread = threading.Thread(target=lambda: ended.append(forecaster.run()), daemon=True)
        ended: list[bool] = []
        thread.start()
        trial = running(study, BAD[:6])

        for step in range(6, 20):
            wait(
                lambda: covers(study, trial)
            )  # a trial that does not wait may be past the horizon before it is
            if trial.should_prune():
                break
            trial.report(0.1, step)
        else:
            pytest.fail("it was not pruned")
        forecaster.stop()
        thread.join(60)
        assert ended == [True]

    def test_events_go_to_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        study = make_study(good_trials())
        running(study, BAD[:6])
        logger = logging.getLogger("optuna.lcpruner")
        logger.addHandler(caplog.handler)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(logging.INFO)
        try:
            Forecaster(
                study._storage, pruner=LearningCurvePruner(20, threshold=0.05), interval=0.01
            ).run_once()
        finally:
            optuna.logging.set_verbosity(verbosity)
            logger.removeHandler(caplog.handler)
        messages = [record.getMessage() for record in caplog.records]
        assert any(
            m.startswith("Forecaster: verdict study=") and "prune=true" in m for m in messages
        )
