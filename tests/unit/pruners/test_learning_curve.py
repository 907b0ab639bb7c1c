"""LearningCurvePruner: settings, the ladder of reasons, copies, real searches."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import (
    BAD,
    DOOMED,
    GOOD_ENDS,
    N_STEPS,
    PROMISING,
    finished,
    good_trials,
    judge,
    make_pruner,
    make_study,
    names,
    reports,
    saturating,
    train,
    watch,
)
from optuna.pruners import BasePruner, PatientPruner
from optuna.trial import TrialState, create_trial

from optuna_lcpruner import LearningCurvePruner, Reason
from optuna_lcpruner.decision.self_check import Caution
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm

NAN, INF = math.nan, math.inf


class TestConstructor:
    @pytest.mark.parametrize(
        ("name", "value", "error", "allowed"),
        [
            ("n_steps", 0, ValueError, "at least 1"),
            ("n_steps", -3, ValueError, "at least 1"),
            ("n_steps", 20.0, TypeError, "integer"),
            ("n_steps", "20", TypeError, "integer"),
            ("n_steps", True, TypeError, "integer"),
            ("risk", -0.01, ValueError, "between 0 and 1"),
            ("risk", 1.5, ValueError, "between 0 and 1"),
            ("risk", NAN, ValueError, "between 0 and 1"),
            ("risk", True, TypeError, "number"),
            ("risk", None, TypeError, "number"),
            ("threshold", -0.01, ValueError, "between 0 and 1"),
            ("threshold", 1.01, ValueError, "between 0 and 1"),
            ("threshold", NAN, ValueError, "between 0 and 1"),
            ("threshold", INF, ValueError, "between 0 and 1"),
            ("threshold", True, TypeError, "number"),
            ("threshold", [0.05], TypeError, "number"),
            ("n_startup_trials", -1, ValueError, "at least 0"),
            ("n_startup_trials", 1.5, TypeError, "integer"),
            ("n_startup_trials", None, TypeError, "integer"),
            ("n_warmup_steps", -1, ValueError, "at least 0"),
            ("n_warmup_steps", "0", TypeError, "integer"),
            ("n_warmup_steps", False, TypeError, "integer"),
            ("interval_steps", 0, ValueError, "at least 1"),
            ("interval_steps", 0.5, TypeError, "integer"),
            ("patience", 0, ValueError, "at least 1"),
            ("patience", -2, ValueError, "at least 1"),
            ("patience", 1.0, TypeError, "integer"),
            ("target", "first", ValueError, "'auto', 'last', 'best'"),
            ("target", None, ValueError, "'auto', 'last', 'best'"),
            ("nan_policy", "raise", ValueError, "'prune', 'ignore'"),
            ("stop_below_std", -0.1, ValueError, "between 0 and inf"),
            ("stop_below_std", NAN, ValueError, "between 0 and inf"),
            ("stop_below_std", "0.005", TypeError, "number"),
            ("control_fraction", -0.1, ValueError, "between 0 and 1"),
            ("control_fraction", 1.1, ValueError, "between 0 and 1"),
            ("control_fraction", True, TypeError, "number"),
            ("engine", "gp", ValueError, "'closed_form'"),
            ("engine", 3, TypeError, "callable"),
            ("engine", None, TypeError, "callable"),
        ],
    )
    def test_bad_setting_names_value_and_range(
        self, name: str, value: object, error: type[Exception], allowed: str
    ) -> None:
        with pytest.raises(error) as caught:
            LearningCurvePruner(**{name: value})  # type: ignore[arg-type]
        message = str(caught.value)
        assert message.startswith(name)
        assert str(value) in message
        assert allowed in message

    def test_unknown_setting(self) -> None:
        with pytest.raises(TypeError, match="n_epochs"):
            LearningCurvePruner(n_epochs=10)  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"n_steps": 1},
            {"n_steps": np.int64(30), "n_warmup_steps": np.int32(3)},
            {"risk": 0, "threshold": None},
            {"risk": 1.0},
            {"threshold": 0},
            {"threshold": 1},
            {"threshold": np.float32(0.25)},
            {"n_startup_trials": 0, "n_warmup_steps": 0, "interval_steps": 1, "patience": 1},
            {"stop_below_std": 0},
            {"target": "best", "nan_policy": "ignore", "publish": False},
            {"engine": ClosedForm()},
        ],
    )
    def test_edge_of_range_is_accepted(self, settings: dict[str, Any]) -> None:
        assert isinstance(LearningCurvePruner(**settings), BasePruner)

    def test_n_steps_may_be_positional(self) -> None:
        study = make_study(good_trials())
        decision = judge(study, LearningCurvePruner(N_STEPS), reports(BAD))
        assert decision.reason is Reason.BEYOND_HORIZON

    @pytest.mark.parametrize("n_reports", [2, 12, 19])
    @pytest.mark.parametrize("more", [0, 43])
    def test_by_default_the_threshold_follows_the_study(
        self, n_reports: int, more: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("optuna_lcpruner.pruners.judge.self_check", lambda *_: Caution())
        pruned = [finished(reports(BAD[:4]), state=TrialState.PRUNED)] * 3
        without_reports = [finished({0: NAN}, value=0.2)]
        others = [finished(reports(saturating(0.7)))] * more
        study = make_study([*good_trials(), *pruned, *without_reports, *others])
        decision = judge(
            study, make_pruner(threshold=None, risk=0.4), reports(saturating(0.8)[:n_reports])
        )
        # All trials begun count, however they ended, and the one in question.
        n_begun = len(good_trials()) + 5 + more
        np.testing.assert_allclose(
            decision.threshold,
            min(0.4, 20 * 0.4**0.5 / n_begun) * (1 - n_reports / N_STEPS),
            rtol=1e-12,
        )

    def test_the_threshold_of_a_trial_that_is_in_no_study(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As MultiMetricPruner of OptunaHub makes them up: it has no number, the others count."""
        monkeypatch.setattr("optuna_lcpruner.pruners.judge.self_check", lambda *_: Caution())
        study = make_study([*good_trials(), *[finished(reports(saturating(0.7)))] * 43])
        asked = create_trial(
            state=TrialState.RUNNING, intermediate_values=reports(saturating(0.8)[:5])
        )
        decision = make_pruner(threshold=None, risk=0.4).decide(study, asked)
        n_begun = len(good_trials()) + 44
        assert decision.threshold == pytest.approx(20 * 0.4**0.5 / n_begun * (1 - 5 / N_STEPS))

    def test_threshold_is_what_the_probability_is_compared_with(self) -> None:
        study = make_study(good_trials())
        decision = judge(study, make_pruner(threshold=0.25), reports(DOOMED))
        assert decision.threshold == 0.25

    def test_repr_shows_the_settings(self) -> None:
        shown = repr(
            LearningCurvePruner(
                31,
                threshold=0.07,
                n_startup_trials=11,
                n_warmup_steps=12,
                interval_steps=13,
                patience=14,
            )
        )
        assert shown.startswith("LearningCurvePruner(")
        for setting in (
            "n_steps=31",
            "threshold=0.07",
            "n_startup_trials=11",
            "n_warmup_steps=12",
            "interval_steps=13",
            "patience=14",
        ):
            assert setting in shown

    def test_defaults_prune_the_hopeless_and_spare_the_promising(self) -> None:
        pruner = LearningCurvePruner()
        study = make_study(good_trials())
        assert judge(study, pruner, reports(BAD[:12])).reason is Reason.BELOW_THRESHOLD
        assert not judge(study, pruner, reports(PROMISING)).prune

    def test_defaults_wait_for_three_completed_trials(self) -> None:
        pruner = LearningCurvePruner()
        assert judge(make_study(good_trials()[:2]), pruner, reports(DOOMED)).reason.name == (
            "STARTUP"
        )
        assert judge(make_study(good_trials()[:3]), pruner, reports(BAD[:12])).prune


class TestLadder:
    @pytest.mark.parametrize(
        ("reason", "settings", "earlier", "curve"),
        [
            ("NOTHING_REPORTED", {}, good_trials(), {}),
            ("WARM_UP", {"n_warmup_steps": 12}, good_trials(), reports(DOOMED)),
            ("WARM_UP", {"n_warmup_steps": 12}, [], reports([0.1, NAN])),
            ("BETWEEN_LOOKS", {"interval_steps": 10}, good_trials(), reports(DOOMED)),
            ("BETWEEN_LOOKS", {"interval_steps": 10}, [], reports(DOOMED)),
            ("TOO_FEW_REPORTS", {}, good_trials(), reports([0.1])),
            ("TOO_FEW_REPORTS", {"nan_policy": "ignore"}, good_trials(), reports([NAN, 0.1])),
            ("NO_BEST_VALUE", {}, [], reports(DOOMED)),
            ("NO_BEST_VALUE", {"n_startup_trials": 0}, [], reports(DOOMED)),
            ("STARTUP", {"n_startup_trials": 6}, good_trials(), reports(DOOMED)),
            (
                "UNKNOWN_HORIZON",
                {"n_steps": None, "n_startup_trials": 0},
                [finished({}, value=end) for end in GOOD_ENDS],
                reports(DOOMED),
            ),
            ("BEYOND_HORIZON", {}, good_trials(), reports(BAD)),
            ("LONGER", {}, good_trials(), reports(np.full(45, 0.1))),
            (
                "METRIC_MISMATCH",
                {},
                [finished(reports(saturating(e)), value=100 * e**2) for e in GOOD_ENDS],
                reports(DOOMED),
            ),
            (
                "METRIC_MISMATCH",
                {},
                [finished(reports(-saturating(e)), value=saturating(e)[-1]) for e in GOOD_ENDS],
                reports(-DOOMED),
            ),
            ("ALREADY_BETTER", {}, good_trials(), reports(np.linspace(0.1, 0.95, 12))),
            ("UNDECIDED", {}, good_trials(), reports(saturating(0.89)[:3])),
            ("UNDECIDED", {"threshold": 0.0}, good_trials(), reports(DOOMED)),
            ("PATIENCE", {"n_warmup_steps": 10, "patience": 3}, good_trials(), reports(DOOMED)),
            ("DIVERGED", {}, good_trials(), reports([*DOOMED, NAN])),
            ("DIVERGED", {}, good_trials(), reports([NAN])),
            ("TOO_FEW_REPORTS", {}, [], reports([NAN])),
            ("TOO_FEW_REPORTS", {}, [], reports([NAN] * 10)),
            ("DIVERGED", {}, [], reports([NAN] * 11)),
            ("DIVERGED", {}, [], reports([0.1, NAN])),
            ("BELOW_THRESHOLD", {}, good_trials(), reports(DOOMED)),
            ("BELOW_THRESHOLD", {"threshold": 1.0}, good_trials(), reports(saturating(0.8)[:12])),
            (
                "NARROW_FORECAST",
                {"threshold": 0.0, "stop_below_std": 1e3},
                good_trials(),
                reports(DOOMED),
            ),
            (
                "UNDECIDED",
                {"threshold": 0.0, "stop_below_std": 0.0},
                good_trials(),
                reports(DOOMED),
            ),
            (
                "UNDECIDED",
                {"threshold": 0.0, "stop_below_std": 1e3},
                good_trials(),
                reports(PROMISING),
            ),
        ],
    )
    def test_situation_yields_reason(
        self,
        reason: str,
        settings: dict[str, Any],
        earlier: list[optuna.trial.FrozenTrial],
        curve: dict[int, float],
    ) -> None:
        decision = judge(make_study(earlier), make_pruner(**settings), curve)
        assert decision.reason is Reason[reason]
        assert decision.message.startswith(decision.reason.value)
        assert decision.step == (max(curve) if curve else None)
        assert decision.prune is (reason in ("DIVERGED", "BELOW_THRESHOLD", "NARROW_FORECAST"))

    def test_wrong_direction(self) -> None:
        study = make_study(good_trials(), direction="minimize")
        decision = judge(study, make_pruner(), reports(DOOMED))
        assert decision.reason is Reason.WRONG_DIRECTION
        assert not decision.prune

    def test_negated_metric_is_named(self) -> None:
        earlier = [finished(reports(-saturating(e)), value=saturating(e)[-1]) for e in GOOD_ENDS]
        decision = judge(make_study(earlier), make_pruner(), reports(-DOOMED))
        assert "minus" in decision.message

    def test_multi_objective_study_is_left_alone(self) -> None:
        study = optuna.create_study(directions=["minimize", "maximize"])
        study.ask()
        pruner = make_pruner()
        trial = study.get_trials()[0]
        assert pruner.prune(study, trial) is False
        assert pruner.decide(study, trial).reason is Reason.MULTI_OBJECTIVE

    def test_patience_counts_looks_since_warm_up(self) -> None:
        study = make_study(good_trials())
        pruner = make_pruner(n_warmup_steps=10, patience=3)
        decisions = watch(study, pruner, reports(BAD[:14]))
        assert names(decisions) == ["WARM_UP"] * 10 + ["PATIENCE"] * 2 + ["BELOW_THRESHOLD"] * 2

    def test_patience_counts_looks_not_reports(self) -> None:
        study = make_study(good_trials())
        pruner = make_pruner(n_warmup_steps=9, interval_steps=3, patience=2)
        decisions = watch(study, pruner, reports(BAD[:15]))
        assert names(decisions[9:]) == [
            "PATIENCE",
            "BETWEEN_LOOKS",
            "BETWEEN_LOOKS",
            "BELOW_THRESHOLD",
            "BETWEEN_LOOKS",
            "BETWEEN_LOOKS",
        ]

    def test_patience_starts_over_after_a_good_look(self) -> None:
        """A training that breaks down late: only the looks since then count."""
        curve = np.concatenate([saturating(0.9)[:10], np.full(8, 0.1)])
        study = make_study(good_trials())
        looks = watch(study, make_pruner(n_warmup_steps=5), reports(curve))[5:]
        hopeless = [look.prune for look in looks]
        n_in_a_row = hopeless[::-1].index(False)
        assert 1 <= n_in_a_row <= 8
        for patience in (n_in_a_row, n_in_a_row + 1, n_in_a_row + 2):
            pruner = make_pruner(n_warmup_steps=5, patience=patience)
            reason = Reason.BELOW_THRESHOLD if patience == n_in_a_row else Reason.PATIENCE
            assert judge(study, pruner, reports(curve)).reason is reason

    def test_last_step_is_never_pruned(self) -> None:
        decisions = watch(make_study(good_trials()), make_pruner(), reports(BAD))
        assert decisions[-2].prune
        assert decisions[-1].reason is Reason.BEYOND_HORIZON

    def test_numbers_of_a_judged_trial(self) -> None:
        study = make_study(good_trials())
        decision = judge(study, make_pruner(), reports(saturating(0.85)[:8]))
        assert decision.incumbent == study.best_value
        assert decision.threshold == 0.05
        assert decision.step == 7
        assert 0.0 <= decision.p_beat <= 1.0
        assert decision.low < decision.forecast < decision.high
        for number in (decision.p_beat, decision.forecast, decision.low, decision.high):
            assert type(number) is float

    def test_an_abstention_has_no_numbers(self) -> None:
        decision = judge(make_study(), make_pruner(), reports(DOOMED))
        assert decision.p_beat is decision.forecast is decision.low is decision.high is None

    def test_answer_is_a_builtin_bool(self) -> None:
        study = make_study(good_trials(), pruner=make_pruner())
        trial = study.ask()
        answers = []
        for step, value in enumerate(DOOMED):
            trial.report(np.float32(value), step)
            answers.append(trial.should_prune())
        assert answers[0] is False
        assert answers[-1] is True

    def test_message_has_the_numbers(self) -> None:
        decision = judge(make_study(good_trials()), make_pruner(), reports(DOOMED))
        assert "step 11" in decision.message
        assert f"{decision.forecast:.4g}" in decision.message
        assert f"{decision.incumbent:.4g}" in decision.message
        assert "< 0.05" in decision.message


def alternating(trial: optuna.Trial) -> float:
    """Eight good trainings, then every second one is hopeless."""
    if trial.number >= 8 and trial.number % 2:
        return train(trial, BAD)
    return train(trial, saturating(0.9 + 1e-4 * trial.number))


class TestCompany:
    @pytest.mark.parametrize(
        "copied", [lambda p: pickle.loads(pickle.dumps(p)), copy.deepcopy, copy.copy]
    )
    @pytest.mark.parametrize("used", [False, True])
    def test_copies(self, copied: Any, used: bool) -> None:
        pruner = LearningCurvePruner(
            30,
            threshold=0.07,
            n_startup_trials=2,
            n_warmup_steps=5,
            interval_steps=2,
            patience=2,
            target="last",
            nan_policy="ignore",
        )
        study = make_study(good_trials())
        if used:
            watch(study, pruner, reports(DOOMED))
        other = copied(pruner)
        assert repr(other) == repr(pruner)
        curve = reports([*BAD[:7], NAN, *BAD[:7]])
        expected = watch(study, pruner, curve)
        assert watch(study, other, curve) == expected
        assert expected[-1].reason is Reason.BETWEEN_LOOKS
        assert expected[-2].reason is not Reason.BETWEEN_LOOKS

    @pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
    def test_inside_a_patient_pruner(self) -> None:
        pruner = PatientPruner(make_pruner(n_warmup_steps=5), patience=3)
        study = make_study(good_trials(), pruner=pruner)
        study.optimize(lambda trial: train(trial, np.linspace(0.1, 0.05, N_STEPS)), n_trials=1)
        study.optimize(lambda trial: train(trial, saturating(0.95)), n_trials=1)
        doomed, promising = study.get_trials()[-2:]
        assert doomed.state == TrialState.PRUNED
        assert promising.state == TrialState.COMPLETE

    def test_study_optimize(self) -> None:
        study = make_study(pruner=make_pruner(n_warmup_steps=10))
        study.optimize(alternating, n_trials=20)
        states = [trial.state.name for trial in study.get_trials()]
        assert states == ["COMPLETE"] * 9 + ["PRUNED", "COMPLETE"] * 5 + ["PRUNED"]
        pruned = study.get_trials()[9]
        assert len(pruned.intermediate_values) == 11
        assert pruned.value == 0.1
