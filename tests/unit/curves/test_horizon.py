"""A trial announces its own horizon; trials of different lengths in one study."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import (
    BAD,
    GOOD_ENDS,
    Recording,
    SpyEngine,
    finished,
    good_trials,
    judge,
    make_study,
    names,
    reports,
    saturating,
    sqlite,
    watch,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial

from optuna_lcpruner import LearningCurvePruner, Reason, set_n_steps
from optuna_lcpruner.curves.horizon import announced_n_steps
from optuna_lcpruner.posterior.opinion_pool import OpinionPool

NAN, INF = math.nan, math.inf
SHORT, LONG = 20, 80


class TestSetNSteps:
    @pytest.mark.parametrize(
        "storage",
        [
            lambda folder: None,
            lambda folder: sqlite(f"sqlite:///{folder}/study.db"),
            lambda folder: JournalStorage(JournalFileBackend(f"{folder}/study.log")),
        ],
        ids=["memory", "sqlite", "journal"],
    )
    @pytest.mark.parametrize("n_steps", [30, np.int64(30)])
    def test_every_storage_keeps_it(
        self, storage: Callable[[Path], Any], n_steps: int, tmp_path: Path
    ) -> None:
        study = optuna.create_study(storage=storage(tmp_path))
        set_n_steps(study.ask(), n_steps)
        (trial,) = study.trials
        assert trial.user_attrs == {"lcpruner_n_steps": 30}
        assert announced_n_steps(trial.user_attrs) == 30.0

    def test_a_fixed_trial_may_announce(self) -> None:
        trial = FixedTrial({"epochs": 7})
        set_n_steps(trial, trial.suggest_int("epochs", 1, 9))
        assert trial.user_attrs == {"lcpruner_n_steps": 7}

    @pytest.mark.parametrize(
        ("n_steps", "error", "message"),
        [
            (0, ValueError, "n_steps must be at least 1, but got 0."),
            (-3, ValueError, "n_steps must be at least 1, but got -3."),
            (30.0, TypeError, "n_steps must be an integer, but got 30.0."),
            (NAN, TypeError, "n_steps must be an integer, but got nan."),
            ("30", TypeError, "n_steps must be an integer, but got '30'."),
            (True, TypeError, "n_steps must be an integer, but got True."),
            (None, TypeError, "n_steps must be an integer, but got None."),
        ],
    )
    def test_refuses(self, n_steps: Any, error: type[Exception], message: str) -> None:
        trial = optuna.create_study().ask()
        with pytest.raises(error) as raised:
            set_n_steps(trial, n_steps)
        assert str(raised.value) == message
        assert trial.user_attrs == {}


class TestAnnounced:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (20, 20.0),
            (20.0, 20.0),
            (np.int64(20), 20.0),
            (np.float64(20), 20.0),
            (1, 1.0),
            (0, None),
            (-1, None),
            (NAN, None),
            (INF, None),
            (True, None),
            ("20", None),
            (None, None),
            ([20], None),
            pytest.param(10**400, None, id="too large for a float"),
        ],
    )
    def test_only_positive_finite_numbers(self, value: object, expected: float | None) -> None:
        assert announced_n_steps({"lcpruner_n_steps": value}) == expected

    def test_absent(self) -> None:
        assert announced_n_steps({}) is None
        assert announced_n_steps({"n_steps": 20}) is None


def announcing(curve: np.ndarray) -> optuna.trial.FrozenTrial:
    """A completed training that announced its length."""
    return finished(reports(curve), user_attrs={"lcpruner_n_steps": len(curve)})


class TestEpochsAreAHyperParameter:
    def test_the_same_reports_are_judged_by_their_own_end(self) -> None:
        """A straight rise that reaches half of the best in 20 epochs passes it in 80."""
        earlier = [announcing(np.linspace(0.1, e, n)) for e in GOOD_ENDS for n in (SHORT, LONG)]
        rise = reports(0.1 + 0.02 * np.arange(10))
        short, long = (
            judge(make_study(earlier), LearningCurvePruner(), rise, {"lcpruner_n_steps": n})
            for n in (SHORT, LONG)
        )
        assert [short.reason, long.reason] == [Reason.BELOW_THRESHOLD, Reason.UNDECIDED]
        assert short.p_beat is not None
        assert long.p_beat is not None
        assert long.p_beat > 10 * short.p_beat

    @pytest.mark.parametrize("n", [SHORT, LONG])
    def test_a_training_is_over_at_its_own_end(self, n: int) -> None:
        earlier = [announcing(saturating(e, m)) for e in GOOD_ENDS for m in (SHORT, LONG)]
        attrs = {"lcpruner_n_steps": n}
        curve = reports(np.full(n, 0.1))
        decisions = watch(make_study(earlier), LearningCurvePruner(), curve, attrs)
        assert len(decisions) == n
        assert "BELOW_THRESHOLD" in names(decisions)
        assert [d.reason is Reason.BEYOND_HORIZON for d in decisions] == [False] * (n - 1) + [True]

    def test_completed_trainings_are_compared_by_the_share_done(self) -> None:
        """Of 20 or of 80 epochs: laid over one of 40 from its first report to its last."""
        lengths = [SHORT, LONG, SHORT, LONG]
        curves = [saturating(e, n) for e, n in zip(GOOD_ENDS, lengths, strict=False)]
        spy = SpyEngine(OpinionPool())
        study = make_study([announcing(curve) for curve in curves])
        pruner = LearningCurvePruner(engine=spy)
        judge(study, pruner, reports(saturating(0.5, 40)[:10]), {"lcpruner_n_steps": 40})
        assert spy.curves[-1].horizon == 40
        rows = spy.knowledge[-1].completed
        assert rows.shape == (4, 40)
        done = np.linspace(0.0, 1.0, 40)
        expected = [np.interp(done, np.linspace(0.0, 1.0, len(c)), c) for c in curves]
        np.testing.assert_allclose(rows, expected, atol=0.02)
        np.testing.assert_allclose(rows[:, [0, -1]], [[c[0], c[-1]] for c in curves], atol=0.02)

    def test_a_study_in_which_they_are_suggested(self) -> None:
        """Each trial is asked about until its own last epoch and stopped before it, or not."""
        recording = Recording(LearningCurvePruner())
        study = optuna.create_study(direction="maximize", pruner=recording)
        for epochs, end in [*zip([20, 80, 40, 80, 30], GOOD_ENDS, strict=True), (20, 0), (80, 0)]:
            study.enqueue_trial({"epochs": epochs, "end": end})

        def objective(trial: optuna.Trial) -> float:
            epochs = trial.suggest_int("epochs", 20, 80)
            set_n_steps(trial, epochs)
            for epoch, value in enumerate(saturating(trial.suggest_float("end", 0, 1), epochs)):
                trial.report(value, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return float(value)

        study.optimize(objective, n_trials=7)
        assert [t.state.name for t in study.trials] == ["COMPLETE"] * 5 + ["PRUNED"] * 2
        for number, epochs in [(3, 80), (4, 30)]:
            said = [decision for n, decision in recording.asked if n == number]
            assert len(said) == epochs
            assert said[-1].reason is Reason.BEYOND_HORIZON
            assert said[-2].reason is not Reason.BEYOND_HORIZON


class TestAnnouncedLate:
    def test_counts_from_then_on(self) -> None:
        """Before, the completed trials' 20 epochs stand for it."""
        study = make_study(good_trials())
        study.pruner = recording = Recording(LearningCurvePruner())
        trial = study.ask()
        for epoch, value in enumerate(BAD):
            if epoch == 10:
                set_n_steps(trial, 11)
            trial.report(value, epoch)
            trial.should_prune()
        said = names(recording.decisions)
        assert said[8:10] == ["BELOW_THRESHOLD", "BELOW_THRESHOLD"]
        assert said[10] == "BEYOND_HORIZON"

    def test_too_late_for_the_first_trials_to_be_judged(self, warned: list[str]) -> None:
        """No completed trial has reported: nothing is known until it is announced."""
        study = make_study([finished({}, value=end) for end in GOOD_ENDS])
        study.pruner = recording = Recording(LearningCurvePruner(n_startup_trials=0))
        trial = study.ask()
        for epoch, value in enumerate(BAD[:6]):
            if epoch == 4:
                set_n_steps(trial, 20)
            trial.report(value, epoch)
            trial.should_prune()
        assert names(recording.decisions)[1:4] == ["UNKNOWN_HORIZON"] * 3
        assert recording.decisions[4].p_beat is not None
        (warning,) = warned
        assert "set_n_steps(trial, ...)" in warning


def test_the_pruners_own_length_holds_whatever_trials_announce() -> None:
    """Of those that are compared with, too: else their middle would be taken for their end."""
    decisions = []
    for announced in ({}, {"lcpruner_n_steps": 2 * SHORT}):
        study = make_study(
            finished(reports(saturating(end, SHORT)), user_attrs=announced)
            for end in (0.5, 0.55, 0.6, 0.65, 0.7)
        )
        curve = reports(saturating(0.75, SHORT))
        decisions.append(watch(study, LearningCurvePruner(SHORT), curve, announced))
    without, announcing = decisions
    assert without == announcing
    assert not any(decision.prune for decision in announcing)
