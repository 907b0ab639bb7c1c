"""One study in a forecaster's care: whom it judges, what it reads, and what it forgets."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from forecasting import Clock, running, verdict_of
from helpers import BAD, good_study, good_trials, make_study, saturating, sqlite
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner import LearningCurvePruner, Reason
from optuna_lcpruner.records import trial_attributes
from optuna_lcpruner.records.remote_decision import ATTRIBUTE
from optuna_lcpruner.service import study_worker
from optuna_lcpruner.service.events import Event
from optuna_lcpruner.service.study_worker import ServiceContext, StudyWorker


class Served:
    """A worker for a study, with a clock and events of its own."""

    def __init__(self, storage: Any, name: str, **settings: Any) -> None:
        self.clock, self.events = Clock(), list[Event]()
        settings = {"n_steps": 20, "threshold": 0.05, "ledger": False, **settings}
        self.context = ServiceContext(
            storage,
            LearningCurvePruner(**settings),
            None,
            self.events.append,
            self.clock,
            threading.Event(),
        )
        self.worker = StudyWorker(name, self.context)

    def serve(self, after: float = 0.5) -> None:
        self.clock.now += after
        self.worker.serve()

    def named(self, name: str) -> list[dict[str, Any]]:
        return [dict(event.facts) for event in self.events if event.name == name]

    @property
    def judged(self) -> list[tuple[int, int]]:
        """Trial and reports of each verdict."""
        return [(facts["trial"], facts["reports"]) for facts in self.named("verdict")]


def served(**settings: Any) -> tuple[Study, Served]:
    """A study of good trials in memory, and its worker."""
    study = make_study(good_trials())
    return study, Served(study._storage, study.study_name, **settings)


class TestWhichTrials:
    def test_neither_finished_nor_silent_nor_waiting_ones(self) -> None:
        study, one = served()
        study.enqueue_trial({})
        study.tell(running(study, BAD[:4]), state=TrialState.FAIL)
        study.ask()
        one.serve()
        assert one.judged == []
        assert (one.worker.n_running, one.worker.n_waiting) == (1, 0)

    def test_those_with_new_reports(self) -> None:
        study, one = served()
        trial, other = running(study, BAD[:3]), running(study, BAD[:4])
        one.serve()
        trial.report(0.1, 3)
        one.serve()
        one.serve()
        assert one.judged == [(trial.number, 3), (other.number, 4), (trial.number, 4)]
        assert verdict_of(study, trial).reason is Reason.BELOW_THRESHOLD
        assert (one.context.counts.verdicts, one.context.counts.prunes) == (3, 3)

    def test_the_one_that_waits_longest_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pass that takes too long ends; its rest is not starved by those that come first."""
        study, one = served()
        monkeypatch.setattr(study_worker, "LONGEST_PASS", 0.0)
        decide = LearningCurvePruner.decide

        def slow(self: Any, study: Study, trial: FrozenTrial) -> Any:
            one.clock.now += 0.1
            return decide(self, study, trial)

        monkeypatch.setattr(LearningCurvePruner, "decide", slow)
        trials = [running(study, BAD[:2]) for _ in range(4)]
        for step in range(2, 8):
            for _ in range(2):
                one.serve()
            for trial in trials:
                trial.report(0.1, step)
        seen = [number for number, _ in one.judged]
        assert len(seen) > 8
        assert max(map(seen.count, range(5, 9))) - min(map(seen.count, range(5, 9))) <= 1

    def test_what_waits_is_counted(self) -> None:
        study, one = served()
        running(study, BAD[:2])
        one.context.stop.set()
        one.serve()
        assert (one.worker.n_running, one.worker.n_waiting, one.worker.n_unseen) == (1, 1, 1)

    def test_not_of_several_objectives(self) -> None:
        study = optuna.create_study(directions=["minimize", "maximize"])
        study.ask()
        one = Served(study._storage, study.study_name)
        for _ in range(3):
            one.serve()
        assert len(one.named("several_objectives")) == 1


class TestUntrusted:
    def test_garbage_in_a_trials_verdict_is_written_over(self) -> None:
        study, one = served()
        trial = running(study, BAD[:6])
        for garbage in ({"format": 1}, [1, 2], "x", {"format": 2, "prune": True}, None):
            study._storage.set_trial_system_attr(trial._trial_id, ATTRIBUTE, garbage)
            trial.report(0.1, len(study._storage.get_trial(trial._trial_id).intermediate_values))
            one.serve()
            assert verdict_of(study, trial).reason.prunes

    def test_a_verdict_copied_from_another_trial_is_not_taken_for_its_own(self) -> None:
        study, one = served()
        trial = running(study, BAD[:6])
        one.serve()
        copied = verdict_of(study, trial).to_json()
        other = running(study, BAD[:6])
        study._storage.set_trial_system_attr(other._trial_id, ATTRIBUTE, copied)
        one.serve()
        assert verdict_of(study, other).trial == other.number


class TestReads:
    def test_a_pass_reads_the_study_once(self, tmp_path: Path) -> None:
        study = good_study(f"sqlite:///{tmp_path}/s.db")
        own = sqlite(f"sqlite:///{tmp_path}/s.db")
        one = Served(own, study.study_name, publish=False)
        trials = [running(study, BAD[:3]) for _ in range(8)]
        one.serve()
        said: list[str] = []
        sqlalchemy.event.listen(
            own.engine, "before_cursor_execute", lambda *arguments: said.append(arguments[2])
        )
        one.serve()
        without_news = len(said)
        for trial in trials:
            trial.report(0.1, 3)
        said.clear()
        one.serve()
        assert sum("FROM trial_intermediate_values" in s for s in said) <= 1
        assert len(said) <= without_news + 3 * len(trials) + 2
        assert without_news <= 9

    def test_a_trial_that_completes_during_a_pass_counts_in_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The pass judges by what it has read; what it has not read must not count as known."""
        study = good_study(f"sqlite:///{tmp_path}/s.db")
        one = Served(sqlite(f"sqlite:///{tmp_path}/s.db"), study.study_name, publish=False)
        trial, winner = running(study, BAD[:3]), running(study, saturating(0.9)[:3])
        one.serve()
        decide = LearningCurvePruner.decide

        def late(pruner: LearningCurvePruner, seen_study: Study, seen: FrozenTrial) -> Any:
            if study.get_trials(deepcopy=False)[winner.number].state is TrialState.RUNNING:
                study.tell(winner, 0.99)
            return decide(pruner, seen_study, seen)

        monkeypatch.setattr(LearningCurvePruner, "decide", late)
        for step in (3, 4):
            trial.report(0.1, step)
            one.serve()
        assert verdict_of(study, trial).incumbent == 0.99


class TestComesAndGoes:
    def test_a_study_without_a_running_trial_is_not_opened(self) -> None:
        study, one = served()
        one.serve()
        assert one.worker.study_id is None
        running(study, BAD[:3])
        one.serve()
        assert one.worker.study_id == study._study_id
        assert [facts["running"] for facts in one.named("study")] == [1]

    def test_one_that_does_not_exist(self) -> None:
        one = Served(InMemoryStorage(), "later")
        for _ in range(2):
            with pytest.raises(KeyError):
                one.serve()
            one.worker.gone(asked_for=True)
        assert one.named("no_such_study") == [{"study": "later"}]

    def test_one_that_is_gone(self) -> None:
        study, one = served()
        running(study, BAD[:3])
        one.serve()
        one.worker.gone(asked_for=False)
        assert one.named("study_gone") == [{"study": study.study_name}]
        assert one.worker.study_id is None
        assert one.worker.n_running == 0

    def test_one_that_was_made_again_between_two_looks(self, tmp_path: Path) -> None:
        """SQLite gives the new study and its trials the old numbers."""
        storage = sqlite(f"sqlite:///{tmp_path}/s.db")
        study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
        study.add_trials(good_trials())
        running(study, BAD[:6])
        one = Served(sqlite(f"sqlite:///{tmp_path}/s.db"), "s")
        one.serve()
        optuna.delete_study(study_name="s", storage=storage)
        study = optuna.create_study(study_name="s", storage=storage, direction="minimize")
        study.add_trials(good_trials()[:1])
        trial = running(study, BAD[:6])
        for _ in range(3):
            one.serve()
        assert len(one.named("study_gone")) == 1
        assert verdict_of(study, trial).reason is Reason.STARTUP

    def test_one_at_rest_is_dropped_with_optunas_cache(self, tmp_path: Path) -> None:
        study = good_study(f"sqlite:///{tmp_path}/s.db")
        trial = running(study, BAD[:3])
        one = Served(sqlite(f"sqlite:///{tmp_path}/s.db"), study.study_name)
        caches: list[weakref.ref[Any]] = []
        decide = LearningCurvePruner.decide

        def noting(pruner: LearningCurvePruner, seen_study: Study, seen: FrozenTrial) -> Any:
            caches.append(weakref.ref(seen_study._storage))
            return decide(pruner, seen_study, seen)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LearningCurvePruner, "decide", noting)
            one.serve()
        (cache,) = caches
        assert cache() is not None
        study.tell(trial, state=TrialState.FAIL)
        one.serve(study_worker.IDLE_AFTER + 1)
        assert one.worker.study_id is None
        assert trial_attributes.writer().flush(10)
        gc.collect()
        assert cache() is None
        running(study, BAD[:3])
        one.serve()
        assert one.judged[-1] == (6, 3)


def test_a_trial_that_ends_before_its_verdict_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    study, one = served()
    trial = running(study, BAD[:6])
    decide = LearningCurvePruner.decide

    def late(pruner: LearningCurvePruner, seen_study: Study, seen: FrozenTrial) -> Any:
        decision = decide(pruner, seen_study, seen)
        study.tell(trial, state=TrialState.FAIL)
        return decision

    monkeypatch.setattr(LearningCurvePruner, "decide", late)
    one.serve()
    assert one.judged == []
    assert [facts["trial"] for facts in one.named("ended_meanwhile")] == [trial.number]
