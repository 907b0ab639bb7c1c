"""ResumeCallback: when a stopped trial goes on, which one, and how the search ends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import (
    GOOD_ENDS,
    N_STEPS,
    SAYS_CONSTRAINTS,
    SpyEngine,
    constrained,
    finished,
    good_trials,
    make_study,
    reports,
    saturating,
    sqlite,
)
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_lcpruner import LearningCurvePruner, ResumeCallback, resumed_from, should_stop
from optuna_lcpruner.posterior.engines import engine_of

PRUNED, WAITING = TrialState.PRUNED, TrialState.WAITING


def stopped(end: float, n: int = 10, p: float | None = 0.03, **attrs: Any) -> FrozenTrial:
    """A trial that the pruner has stopped."""
    of_decision = {"lcpruner_reason": "pruned: P", "lcpruner_decided_at_step": n - 1}
    if p is not None:
        of_decision["lcpruner_p_beat_best"] = p
    return finished(reports(saturating(end)[:n]), state=PRUNED, user_attrs=of_decision | attrs)


def others(k: int, n: int = 10) -> list[FrozenTrial]:
    """Trials that something else has stopped: they only make a fresh trial dearer."""
    return [finished(reports(saturating(0.3)[:n]), state=PRUNED) for _ in range(k)]


def alone(**settings: Any) -> LearningCurvePruner:
    """A pruner that asks the forecast only."""
    return LearningCurvePruner(N_STEPS, compare_running=False, **settings)


def gone_on(study: optuna.Study) -> list[int]:
    """The trials that wait to go on."""
    points = [resumed_from(t) for t in study.get_trials(states=(WAITING,))]
    return [point.number for point in points if point is not None]


def called(study: optuna.Study, callback: ResumeCallback) -> list[int]:
    callback(study, study.get_trials()[-1])
    return gone_on(study)


class TestTheRule:
    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize(("n_best", "end"), [(1, 0.86), (2, 0.82)])
    def test_the_chance_per_report_against_that_of_a_fresh_trial(
        self, direction: str, n_best: int, end: float
    ) -> None:
        sign = 1.0 if direction == "maximize" else -1.0
        p = should_stop(
            sign * saturating(end)[:10],
            completed=[sign * saturating(other) for other in GOOD_ENDS],
            n_steps=N_STEPS,
            direction=direction,
            compare_running=False,
            n_best=n_best,
        ).p_beat
        assert p is not None
        found = []
        for k in range(0, 60, 4):
            trials = [*good_trials(), stopped(end), *others(k)]
            for trial in trials:
                trial.intermediate_values = {
                    step: sign * value for step, value in trial.intermediate_values.items()
                }
                if trial.state == TrialState.COMPLETE:
                    trial.value = sign * trial.value
            study = make_study(trials, direction)
            n, made = 6 + k, 5 * N_STEPS + 10 + 10 * k
            fresh = n_best / (n + 1) / (made / n)
            found.append(called(study, ResumeCallback(alone(n_best=n_best))) == [5])
            assert found[-1] is (p / (N_STEPS - 10) > fresh)
        assert set(found) == {True, False}

    def test_what_went_on_counts_once_among_the_seen(self) -> None:
        """So many steps, of one trial: not of two, nor twice."""
        found = set()
        for k in range(0, 60, 2):
            whole = finished(reports(saturating(0.3)), state=PRUNED)
            part = finished(reports(saturating(0.3)[:10]), state=PRUNED)
            on = finished(
                reports(saturating(0.3)),
                state=PRUNED,
                user_attrs={"lcpruner_resumed_from": 0, "lcpruner_resumed_at_step": 9},
            )
            rest = [*good_trials(), stopped(0.86), *others(k)]
            studies = [make_study([whole, *rest]), make_study([part, on, *rest])]
            once, parted = (called(study, ResumeCallback(alone())) for study in studies)
            assert bool(once) is bool(parted)
            found.add(bool(once))
        assert found == {True, False}

    def test_not_before_there_is_a_forecast(self) -> None:
        study = make_study([*good_trials()[:2], stopped(0.95), *others(100)])
        assert called(study, ResumeCallback(alone())) == []

    def test_by_early_ranks_too(self) -> None:
        """Stopped before anything had completed, it has no P on record."""
        study = make_study([*good_trials(), stopped(0.95, p=None), *others(60)])
        assert called(study, ResumeCallback(LearningCurvePruner(N_STEPS))) == [5]


class TestWhich:
    def test_the_best_by_now_whatever_is_on_record(self) -> None:
        trials = [stopped(0.5, p=0.04), stopped(0.93, p=0.01), stopped(0.6, p=0.03)]
        study = make_study([*good_trials(), *trials, *others(60)])
        assert called(study, ResumeCallback(alone())) == [6]

    def test_one_waits_at_a_time_and_each_goes_on_once(self) -> None:
        study = make_study([*good_trials(), stopped(0.95), stopped(0.93), *others(60)])
        callback = ResumeCallback(alone())
        assert called(study, callback) == called(study, callback) == [5]
        study.tell(study.ask(), state=PRUNED)
        assert called(study, callback) == [6]
        study.tell(study.ask(), state=TrialState.FAIL)
        assert called(study, callback) == []

    def test_a_continuation_that_was_pruned_stays_so(self) -> None:
        on = stopped(0.95, 12, lcpruner_resumed_from=5, lcpruner_resumed_at_step=9)
        study = make_study([*good_trials(), stopped(0.95), on, *others(60)])
        assert called(study, ResumeCallback(alone())) == []

    def test_one_that_runs_again_from_the_start_stays_so(self) -> None:
        again = finished(reports(saturating(0.3)), user_attrs={"lcpruner_requeued_from": 5})
        study = make_study([*good_trials(), stopped(0.95), again, *others(60)])
        assert called(study, ResumeCallback(alone())) == []

    def test_without_a_checkpoint_the_next_one(self) -> None:
        study = make_study([*good_trials(), stopped(0.95), stopped(0.93), *others(60)])
        callback = ResumeCallback(alone(), 1, lambda trial: trial.number != 5)
        assert called(study, callback) == [6]

    def test_of_a_trial_that_the_pruner_did_not_stop_nothing_is_asked(self) -> None:
        by_itself = finished(reports(saturating(0.95)[:10]), state=PRUNED)
        study = make_study([*good_trials(), by_itself, *others(60)])
        assert called(study, ResumeCallback(alone())) == []

    def test_one_that_diverged_stays_so(self) -> None:
        trial = stopped(0.95)
        trial.intermediate_values[10] = float("nan")
        study = make_study([*good_trials(), trial, *others(60)])
        pruner = alone(nan_policy="ignore")
        assert called(study, ResumeCallback(pruner)) == []

    @pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
    def test_one_that_breaks_a_constraint_stays_so(self, how: str) -> None:
        trial = constrained(stopped(0.95), 1.0, how=how)
        study = make_study([*good_trials(), trial, *others(60)])
        assert called(study, ResumeCallback(alone())) == []

    def test_so_many_are_asked_and_the_others_next(self) -> None:
        """A trial that was asked about ranks by its answer from then on."""
        engine = SpyEngine(engine_of("closed_form"))
        trials = [stopped(0.3, p=0.04 - 0.001 * i) for i in range(6)]
        study = make_study([*good_trials(), *trials, stopped(0.95, p=0.001), *others(60)])
        callback = ResumeCallback(alone(engine=engine), 3)
        found = []
        for _ in range(3):
            engine.curves.clear()
            found.append(called(study, callback))
            assert len([c for c in engine.curves if c.n_points == 10]) <= 3
        assert found == [[], [], [11]]

    def test_one_without_a_record_is_asked_first(self) -> None:
        trials = [stopped(0.5, p=0.04), stopped(0.95, p=None)]
        study = make_study([*good_trials(), *trials, *others(60)])
        assert called(study, ResumeCallback(alone(), 1)) == [6]

    def test_one_object_for_two_studies(self) -> None:
        callback = ResumeCallback(alone())
        trials = [*good_trials(), stopped(0.95), *others(60)]
        worse = [*good_trials(), stopped(0.3), *others(60)]
        assert called(make_study(worse), callback) == []
        assert called(make_study(trials), callback) == [5]
        assert called(make_study(trials[:5], "minimize"), callback) == []


END = 0.92
"""What a stopped training approaches that would become the best."""


class Training:
    """An objective that saves a checkpoint of each step, if it does."""

    def __init__(self, saves: bool = True) -> None:
        self.checkpoints: dict[tuple[int, int], float] = {}
        self.saves = saves
        self.n_trained = 0
        self.lock = threading.Lock()

    def __call__(self, trial: optuna.Trial) -> float:
        end, point = trial.suggest_float("end", 0.2, 0.95), resumed_from(trial)
        first, level = 0, 0.0
        if point is not None and point in self.checkpoints:
            first, level = point.step + 1, self.checkpoints[point]
        for step in range(first, N_STEPS):
            level += 0.2 * (end - level)
            with self.lock:
                self.n_trained += 1
                if self.saves:
                    self.checkpoints[trial.number, step] = level
            if point is None or step > point.step:
                trial.report(level, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return level

    def curve(self, end: float) -> np.ndarray:
        """What it reports of a trial that is never stopped."""
        return end * (1.0 - 0.8 ** np.arange(1, N_STEPS + 1))


def storage_of_kind(kind: str, folder: Path) -> BaseStorage:
    if kind == "sqlite":
        return sqlite(f"sqlite:///{folder}/study.db")
    if kind == "journal":
        return JournalStorage(JournalFileBackend(f"{folder}/study.log"))
    return InMemoryStorage()


def search(training: Training, storage: BaseStorage, n_jobs: int = 1) -> list[FrozenTrial]:
    """Search on in a study in which trial 5 is worth going on with; the trials from there on."""
    pruner = LearningCurvePruner(N_STEPS, threshold=0.2, ledger=False)
    promising = create_trial(
        state=PRUNED,
        params={"end": END},
        distributions={"end": FloatDistribution(0.2, 0.95)},
        intermediate_values=reports(training.curve(END)[:10]),
        user_attrs=stopped(END).user_attrs,
    )
    study = make_study([*good_trials(), promising, *others(60)], storage=storage, pruner=pruner)
    study.optimize(training, n_trials=12, n_jobs=n_jobs, callbacks=[ResumeCallback(pruner)])
    return [study.get_trials()[5], *study.get_trials()[66:]]


# In SQLite two threads may take up the same waiting trial, whoever has enqueued it.
@pytest.mark.parametrize(
    ("kind", "n_jobs"),
    [("memory", 1), ("memory", 2), ("sqlite", 1), ("journal", 1), ("journal", 2)],
)
def test_interrupted_and_resumed_is_uninterrupted(kind: str, n_jobs: int, tmp_path: Path) -> None:
    training = Training()
    training.checkpoints[5, 9] = training.curve(END)[9]
    trials = search(training, storage_of_kind(kind, tmp_path), n_jobs)
    points = [point for trial in trials if (point := resumed_from(trial)) is not None]
    assert points.count((5, 9)) == 1
    assert len(set(points)) == len(points)
    for trial in trials:
        if trial.state != WAITING:
            made = list(trial.intermediate_values.values())
            expected = training.curve(trial.params["end"])[: len(made)]
            np.testing.assert_allclose(made, expected, err_msg=f"{trial}")
    made = sum(len(trial.intermediate_values) for trial in trials[1:])
    assert training.n_trained == made - sum(point.step + 1 for point in points)


def test_without_a_checkpoint_it_trains_from_the_start() -> None:
    training = Training(saves=False)
    trials = search(training, InMemoryStorage())
    (on,) = (trial for trial in trials if resumed_from(trial) == (5, 9))
    assert on.state in (PRUNED, TrialState.COMPLETE)
    made = list(on.intermediate_values.values())
    assert len(made) > 10
    np.testing.assert_allclose(made, training.curve(END)[: len(made)])
    begun = (trial for trial in trials[1:] if trial.state != WAITING)
    assert training.n_trained == sum(len(trial.intermediate_values) for trial in begun)


@pytest.mark.parametrize("second_chance", [False, True])
def test_a_continuation_is_judged_as_any_other_a_second_chance_is_not(second_chance: bool) -> None:
    pruner = alone(threshold=0.1)
    study = make_study([*good_trials(), stopped(0.95), *others(60)], pruner=pruner)
    called(study, ResumeCallback(pruner))
    trial = study.ask()
    if second_chance:
        trial.set_user_attr("lcpruner_requeued_from", 5)
    for step in range(10, 14):
        trial.report(0.5, step)
    assert trial.should_prune() is not second_chance


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((optuna.pruners.NopPruner(),), TypeError, "pruner must be a LearningCurvePruner"),
        ((LearningCurvePruner(), 0), ValueError, "n_candidates"),
        ((LearningCurvePruner(), 1.5), TypeError, "n_candidates"),
        ((LearningCurvePruner(), 1, "x"), TypeError, "can_resume must be callable"),
    ],
)
def test_refuses(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ResumeCallback(*arguments)
