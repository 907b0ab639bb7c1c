"""Decisions are made once, remembered, and whatever fails lets the trial run."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import (
    BAD,
    GOOD_ENDS,
    N_STEPS,
    CountingStorage,
    Recording,
    finished,
    good_study,
    good_trials,
    judge,
    make_study,
    names,
    reports,
    saturating,
    train,
    watch,
)
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner, Reason
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.pruners._memory import DecisionMemory

NAN = float("nan")
DOOMED = BAD[:12]
"""Twelve of twenty reports without any progress."""


def make_pruner(**settings: Any) -> LearningCurvePruner:
    return LearningCurvePruner(**{"n_steps": N_STEPS, "threshold": 0.05, **settings})


class TestFailure:
    @pytest.mark.parametrize("error", [ZeroDivisionError, MemoryError, RuntimeWarning])
    def test_a_failing_engine_lets_trials_run(
        self, error: type[Exception], warned: list[str]
    ) -> None:
        def engine(*args: object) -> Any:
            raise error("out of order")

        study = make_study(good_trials())
        decisions = watch(study, make_pruner(engine=engine), reports(DOOMED))
        assert set(names(decisions[1:])) == {"FAILED"}
        assert not any(decision.prune for decision in decisions)
        (warning,) = warned
        assert "out of order" in warning

    def test_a_failing_storage_lets_trials_run(
        self, monkeypatch: pytest.MonkeyPatch, warned: list[str]
    ) -> None:
        study = make_study(good_trials())

        def get_trials(*args: object, **kwargs: object) -> Any:
            raise ConnectionError("gone")

        monkeypatch.setattr(study, "get_trials", get_trials)
        decisions = watch(study, make_pruner(), reports(DOOMED))
        assert set(names(decisions[1:])) == {"FAILED"}
        (warning,) = warned
        assert "gone" in warning

    def test_a_failure_is_not_remembered(self) -> None:
        broken = True

        def engine(*args: Any) -> Any:
            if broken:
                raise RuntimeError
            return ClosedForm()(*args)

        study = make_study(good_trials(), pruner=make_pruner(engine=engine))
        trial = study.ask()
        for step, value in enumerate(DOOMED):
            trial.report(value, step)
        assert not trial.should_prune()
        broken = False
        assert trial.should_prune()

    def test_an_interrupt_gets_through(self) -> None:
        def engine(*args: object) -> Any:
            raise KeyboardInterrupt

        study = make_study(good_trials())
        with pytest.raises(KeyboardInterrupt):
            judge(study, make_pruner(engine=engine), reports(DOOMED))


class TestAskedAgain:
    def test_second_ask_costs_nothing(self) -> None:
        storage = CountingStorage()
        study = make_study(good_trials(), storage=storage, pruner=make_pruner())
        trial = study.ask()
        for step, value in enumerate(DOOMED):
            trial.report(value, step)
        storage.n_reads = 0
        first = trial.should_prune()
        assert storage.n_reads == 1
        assert [trial.should_prune() for _ in range(5)] == [first] * 5
        assert storage.n_reads == 1

    @pytest.mark.parametrize(
        ("reason", "settings", "curve", "n_reads"),
        [
            ("NOTHING_REPORTED", {}, {}, 0),
            ("WARM_UP", {"n_warmup_steps": 15}, reports(DOOMED), 0),
            ("BETWEEN_LOOKS", {"interval_steps": 10}, reports(DOOMED), 0),
            ("TOO_FEW_REPORTS", {}, reports([0.1]), 0),
            ("DIVERGED", {}, reports([0.1, NAN]), 1),
            ("DIVERGED", {"target": "last"}, reports([0.1, NAN]), 0),
            ("STARTUP", {"n_startup_trials": 9}, reports(DOOMED), 1),
            ("BEYOND_HORIZON", {}, reports(BAD), 1),
            ("UNDECIDED", {}, reports(saturating(0.89)[:3]), 1),
            ("ALREADY_BETTER", {}, reports([0.1, 0.95]), 1),
            ("PATIENCE", {"n_warmup_steps": 10, "patience": 3}, reports(DOOMED), 1),
            ("BELOW_THRESHOLD", {}, reports(DOOMED), 1),
            ("BELOW_THRESHOLD", {"patience": 4}, reports(DOOMED), 1),
        ],
    )
    def test_reads_of_the_storage(
        self, reason: str, settings: dict[str, Any], curve: dict[int, float], n_reads: int
    ) -> None:
        storage = CountingStorage()
        study = make_study(good_trials(), storage=storage, pruner=make_pruner(**settings))
        trial = study.ask()
        for step, value in curve.items():
            trial.report(value, step)
        storage.n_reads = 0
        trial.should_prune()
        assert storage.n_reads == n_reads
        study.pruner = recording = Recording(study.pruner)  # type: ignore[arg-type]
        trial.should_prune()
        assert names(recording.decisions) == [reason]
        assert storage.n_reads == n_reads

    def test_same_reports_same_decision(self) -> None:
        """Even if the study has moved on meanwhile."""
        study = make_study(good_trials())
        study.pruner = recording = Recording(make_pruner())
        trial = study.ask()
        for step, value in enumerate(saturating(0.85)[:6]):
            trial.report(value, step)
        trial.should_prune()
        study.add_trial(finished(reports(saturating(0.99))))
        trial.should_prune()
        assert recording.decisions[0] == recording.decisions[1]
        trial.report(0.6, 6)
        trial.should_prune()
        assert recording.decisions[2].incumbent == study.best_value

    def test_second_report_of_a_step_changes_nothing(self) -> None:
        study = make_study(good_trials(), pruner=Recording(make_pruner()))
        trial = study.ask()
        for step, value in enumerate(DOOMED):
            trial.report(value, step)
        trial.should_prune()
        with pytest.warns(UserWarning, match="already reported"):
            trial.report(0.99, 11)
        trial.should_prune()
        first, second = study.pruner.decisions  # type: ignore[attr-defined]
        assert first == second

    @pytest.mark.parametrize("settings", [{}, {"patience": 2}, {"interval_steps": 4}])
    def test_another_worker_answers_alike(self, settings: dict[str, Any]) -> None:
        """A worker that looks at the study for the first time, at any step."""
        study = make_study(good_trials())
        veteran = make_pruner(**settings)
        judge(study, veteran, reports(saturating(0.85)))
        for n in (1, 2, 3, 6, 7, 11, 12, 18):
            curve = reports((saturating(0.4) + 0.02 * np.cos(np.arange(20)))[:n])
            mine, other = judge(study, veteran, curve), judge(study, make_pruner(**settings), curve)
            assert mine == other

    def test_patience_needs_no_earlier_asks(self) -> None:
        study = make_study(good_trials())
        pruner = make_pruner(n_warmup_steps=8, patience=4)
        step_by_step = watch(study, pruner, reports(DOOMED))[-1]
        assert judge(study, pruner, reports(DOOMED)) == step_by_step
        assert step_by_step.reason is Reason.BELOW_THRESHOLD

    def test_trials_are_told_apart(self) -> None:
        """Two trials whose newest reports agree."""
        study = make_study(good_trials())
        pruner = make_pruner()
        up = judge(study, pruner, reports(np.append(np.linspace(0.0, 0.6, 11), 0.7)))
        down = judge(study, pruner, reports(np.append(np.full(11, 0.7), 0.7)))
        assert up.p_beat != down.p_beat

    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    def test_a_study_made_again_is_told_apart(self, direction: str, tmp_path: Path) -> None:
        """The ids of a deleted study and its trials may be given to its successor."""
        study, pruner = good_study(f"sqlite:///{tmp_path}/study.db"), make_pruner(ledger=False)
        assert judge(study, pruner, reports(DOOMED)).prune
        name, storage = study.study_name, study._storage
        optuna.delete_study(study_name=name, storage=storage)
        again = optuna.create_study(storage=storage, study_name=name, direction=direction)
        flip = 1.0 if direction == "maximize" else -1.0
        again.add_trials(finished(reports(flip * saturating(e - 0.6) + 0.3)) for e in GOOD_ENDS)
        # The same reports as above, now among the best there are or beyond hope.
        decision = judge(again, pruner, reports(DOOMED))
        assert decision.incumbent == again.best_value
        assert decision.reason is not Reason.FAILED
        worse = judge(again, pruner, reports(DOOMED - flip))
        assert worse.reason is Reason.BELOW_THRESHOLD


class Known:
    """What a pruner knows of a study."""


def alternating(trial: optuna.Trial) -> float:
    """Eight good trainings, then every second one is hopeless."""
    if trial.number >= 8 and trial.number % 2:
        return train(trial, BAD)
    return train(trial, saturating(0.9 + 1e-4 * trial.number))


class TestCompany:
    def test_few_of_many_studies_are_remembered(self) -> None:
        alive = weakref.WeakSet[Known]()

        def new() -> Known:
            known = Known()
            alive.add(known)
            return known

        memory = DecisionMemory("owner", "engine", False, False, new)
        storage = optuna.storages.InMemoryStorage()
        studies = [make_study(storage=storage) for _ in range(40)]
        for study in studies:
            assert memory.memo(study) is memory.memo(study)
        gc.collect()
        assert len(alive) < 20

    def test_a_storage_that_is_gone_is_forgotten(self) -> None:
        memory = DecisionMemory("owner", "engine", False, False, Known)
        known = weakref.ref(memory.memo(make_study()).known)
        gc.collect()
        assert known() is None

    def test_threads_share_a_pruner(self) -> None:
        study = make_study(pruner=make_pruner(n_warmup_steps=10))
        study.optimize(alternating, n_trials=20, n_jobs=4)
        states = [trial.state for trial in study.get_trials()]
        assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED}
        assert set(states[13::2]) == {TrialState.PRUNED}
        # A good one whose thread fell behind may be stopped: the others then tie with it.
        assert states.count(TrialState.COMPLETE) >= 8

    def test_threads_that_ask_about_one_trial_get_one_answer(self) -> None:
        study = make_study(good_trials())
        pruner = make_pruner()
        trial = study.ask()
        for step, value in enumerate(saturating(0.7)[:9]):
            trial.report(value, step)
        frozen = study.get_trials()[-1]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: pruner.decide(study, frozen), range(32)))
        assert all(answer is answers[0] for answer in answers)

    def test_the_study_object_may_change(self) -> None:
        """Several ``Study`` objects of one study share what is known."""
        storage = optuna.storages.InMemoryStorage()
        optuna.create_study(storage=storage, study_name="s", direction="maximize")
        pruner = make_pruner()
        for trial in good_trials():
            optuna.load_study(study_name="s", storage=storage).add_trial(trial)
            study = optuna.load_study(study_name="s", storage=storage)
            last = judge(study, pruner, reports(DOOMED))
        assert last.reason is Reason.BELOW_THRESHOLD


class TestWarnings:
    @pytest.mark.parametrize("problem", ["mismatch", "direction"])
    def test_metric_problem_warns_once(self, problem: str, warned: list[str]) -> None:
        study = (
            make_study([finished(reports(saturating(e)), value=1e3 * e) for e in GOOD_ENDS])
            if problem == "mismatch"
            else make_study(good_trials(), direction="minimize")
        )
        pruner = make_pruner()
        for _ in range(3):
            watch(study, pruner, reports(DOOMED))
        (warning,) = warned
        assert "direction" in warning if problem == "direction" else "returned" in warning
