"""LearningCurvePruner: settings, the ladder of reasons, and what must not change a verdict."""

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
    GOOD_ENDS,
    N_STEPS,
    SpyEngine,
    finished,
    good_trials,
    judge,
    make_study,
    names,
    reports,
    saturating,
    train,
    watch,
)
from optuna.pruners import BasePruner, PatientPruner
from optuna.trial import TrialState, create_trial

from optuna_lcpruner import Decision, LearningCurvePruner, Reason
from optuna_lcpruner.decision.self_check import Caution
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import Target

NAN, INF = math.nan, math.inf
DOOMED = BAD[:12]
"""Twelve of twenty reports without any progress."""
PROMISING = saturating(0.95)[:12]
"""Twelve of twenty reports that lead to a new best value."""


def make_pruner(**settings: Any) -> LearningCurvePruner:
    return LearningCurvePruner(**{"n_steps": N_STEPS, "threshold": 0.05, **settings})


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
        monkeypatch.setattr(
            "optuna_lcpruner.pruners.learning_curve.self_check", lambda *_: Caution()
        )
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
        monkeypatch.setattr(
            "optuna_lcpruner.pruners.learning_curve.self_check", lambda *_: Caution()
        )
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
            ("DIVERGED", {}, [], reports([NAN])),
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


SCALES = {
    "accuracy": (1.0, 0.0),
    "percent": (100.0, 0.0),
    "log loss": (-2.5, 2.7),
    "perplexity": (-300.0, 305.0),
    "rmse in 1e5": (-2e5, 3e5),
    "negative reward": (200.0, -210.0),
    "reward of both signs": (10.0, -5.0),
    "tiny": (1e-9, 0.0),
    "far from zero": (1.0, 1000.0),
    "huge": (1e34, -3e33),
}
"""Names of metrics -> (factor, offset) that turn an accuracy into one."""

SHAPES = {
    "doomed": DOOMED,
    "mediocre": saturating(0.87)[:6],
    "promising": PROMISING,
    "noisy": saturating(0.85)[:8] + 0.03 * np.sin(7.0 * np.arange(8)),
    "falling": np.linspace(0.3, 0.1, 9),
    "transient": np.array([-4.0, 0.2, 0.4, 0.5, 0.55]),
}


class TestScales:
    @pytest.mark.parametrize(
        ("metric", "shape"),
        [  # a third of all pairs: each metric with several shapes, each shape with several metrics
            (metric, shape)
            for i, metric in enumerate(SCALES)
            for j, shape in enumerate(SHAPES)
            if (i + j) % 3 == 0
        ],
    )
    def test_same_shape_same_verdict(self, metric: str, shape: str) -> None:
        factor, offset = SCALES[metric]

        def metric_of(curve: np.ndarray) -> dict[int, float]:
            return reports(factor * curve + offset)

        plain = judge(make_study(good_trials()), make_pruner(), reports(SHAPES[shape]))
        scaled = judge(
            make_study(
                [finished(metric_of(saturating(end))) for end in GOOD_ENDS],
                direction="maximize" if factor > 0 else "minimize",
            ),
            make_pruner(),
            metric_of(SHAPES[shape]),
        )
        assert scaled.reason is plain.reason
        np.testing.assert_allclose(scaled.p_beat, plain.p_beat, rtol=1e-6, atol=1e-9)
        ends = (plain.low, plain.high) if factor > 0 else (plain.high, plain.low)
        expected = factor * np.array([plain.forecast, *ends, plain.incumbent]) + offset
        shown = [scaled.forecast, scaled.low, scaled.high, scaled.incumbent]
        np.testing.assert_allclose(shown, expected, rtol=1e-6, atol=1e-6 * abs(factor))

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("settings", [{}, {"target": "best"}, {"stop_below_std": 0.2}])
    def test_minimising_minus_y_is_maximising_y(self, settings: dict[str, Any], shape: str) -> None:
        up = judge(make_study(good_trials()), make_pruner(**settings), reports(SHAPES[shape]))
        down = judge(
            make_study(
                [finished(reports(-saturating(end))) for end in GOOD_ENDS], direction="minimize"
            ),
            make_pruner(**settings),
            reports(-SHAPES[shape]),
        )
        assert down.reason is up.reason
        np.testing.assert_allclose(
            [down.p_beat, -down.forecast, -down.high, -down.low],
            [up.p_beat, up.forecast, up.low, up.high],
            rtol=1e-6,
            atol=1e-9,
        )

    def test_shapes_cover_both_verdicts(self) -> None:
        study = make_study(good_trials())
        verdicts = {
            shape: judge(study, make_pruner(), reports(curve)).prune
            for shape, curve in SHAPES.items()
        }
        assert verdicts["doomed"]
        assert not verdicts["promising"]

    @pytest.mark.parametrize("factor", [1e-310, 5e-324, 1e-300, 1e300, 1e307, 1.7e308])
    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize("signed", [False, True])
    def test_extreme_numbers(self, factor: float, direction: str, signed: bool) -> None:
        """Good trials go from 0.1 (or -0.9) to 0.9 of the factor; the judged one stays put."""
        sign = 1.0 if direction == "maximize" else -1.0

        def metric_of(curve: np.ndarray) -> dict[int, float]:
            curve = 2.0 * (curve - 0.5) if signed else curve
            return reports(sign * factor * curve)

        study = make_study([finished(metric_of(saturating(e))) for e in GOOD_ENDS], direction)
        decision = judge(study, make_pruner(), metric_of(BAD[:16]))
        assert decision.reason is not Reason.FAILED, decision.message
        for number in (decision.p_beat, decision.forecast, decision.low, decision.high):
            assert number is None or math.isfinite(number)
        if 1e-300 <= factor <= 1e300:
            assert decision.reason is Reason.BELOW_THRESHOLD


STEPS = {
    "from 0": (np.arange(N_STEPS), 20),
    "from 1": (np.arange(1, N_STEPS + 1), 20),
    "thousands": (np.arange(500, 10_001, 500), 10_000),
    "every second from 0": (np.arange(0, 40, 2), 40),
    "every fifth epoch's end from 0": (np.arange(4, 100, 5), 100),
}
"""Ways to number the same twenty reports -> (steps, n_steps)."""


class TestSteps:
    @staticmethod
    def verdicts(
        numbering: str,
        index: np.ndarray,
        curve: np.ndarray,
        *,
        each: bool = True,
    ) -> list[Decision]:
        steps, n_steps = STEPS[numbering]
        study = make_study([finished(reports(saturating(e), steps.tolist())) for e in GOOD_ENDS])
        pruner = make_pruner(n_steps=n_steps)
        return watch(study, pruner, reports(curve[index], steps[index].tolist()), each=each)

    @pytest.mark.parametrize("numbering", [name for name in STEPS if name != "from 1"])
    @pytest.mark.parametrize(
        "index",
        [
            np.arange(8),
            np.array([0, 1, 2, 5, 6, 9, 15, 16, 19]),
            np.array([0, 1, 2, 3, 17]),
        ],
        ids=["no gap", "gaps", "long gap"],
    )
    def test_numbering_does_not_matter(self, numbering: str, index: np.ndarray) -> None:
        curve = saturating(0.87) + 0.02 * np.cos(5.0 * np.arange(N_STEPS))
        plain = self.verdicts("from 1", index, curve)
        other = self.verdicts(numbering, index, curve)
        assert names(other) == names(plain)
        for a, b in zip(other, plain, strict=True):
            if b.p_beat is not None:
                np.testing.assert_allclose(a.p_beat, b.p_beat, rtol=1e-6)

    @pytest.mark.parametrize("numbering", STEPS)
    def test_last_step_is_never_pruned(self, numbering: str) -> None:
        assert [
            self.verdicts(numbering, np.arange(n), BAD, each=False)[-1].reason.name
            for n in (19, 20)
        ] == ["BELOW_THRESHOLD", "BEYOND_HORIZON"]

    @pytest.mark.parametrize("numbering", STEPS)
    def test_resumed_training_ends_at_its_last_step(self, numbering: str) -> None:
        """A training that goes on from a checkpoint first reports in the middle."""
        assert [
            self.verdicts(numbering, np.arange(10, n), BAD, each=False)[-1].reason.name
            for n in (19, 20)
        ] == ["BELOW_THRESHOLD", "BEYOND_HORIZON"]

    @pytest.mark.parametrize("numbering", ["thousands"])
    def test_resumed_training_is_judged_alike(self, numbering: str) -> None:
        index = np.arange(8, 16)
        plain = self.verdicts("from 1", index, saturating(0.87))
        other = self.verdicts(numbering, index, saturating(0.87))
        assert names(other) == names(plain)
        np.testing.assert_allclose(
            [d.p_beat for d in other[1:]], [d.p_beat for d in plain[1:]], rtol=1e-6
        )

    @pytest.mark.parametrize("numbering", STEPS)
    def test_order_of_reports_does_not_matter(self, numbering: str) -> None:
        curve = saturating(0.87)
        plain = self.verdicts(numbering, np.arange(12), curve, each=False)[-1]
        order = np.array([7, 3, 0, 11, 1, 10, 2, 9, 8, 4, 6, 5])
        shuffled = self.verdicts(numbering, order, curve, each=False)[-1]
        assert shuffled.step == plain.step
        assert shuffled.reason is plain.reason
        np.testing.assert_allclose(shuffled.p_beat, plain.p_beat, rtol=1e-12)

    def test_a_late_report_of_an_early_step_counts(self) -> None:
        curve = reports([0.1, 0.2, 0.3, 0.05], [0, 2, 3, 1])
        spy = SpyEngine(ClosedForm())
        judge(make_study(good_trials()), make_pruner(engine=spy), curve)
        np.testing.assert_allclose(spy.curves[-1].positions, [1, 2, 3, 4])
        np.testing.assert_allclose(spy.curves[-1].values, [0.1, 0.05, 0.2, 0.3])

    def test_an_engine_gets_oriented_values_at_positions(self) -> None:
        spy = SpyEngine(ClosedForm())
        earlier = [finished(reports(-saturating(e), range(500, 10_001, 500))) for e in GOOD_ENDS]
        study = make_study(earlier, direction="minimize")
        pruner = make_pruner(n_steps=10_000, engine=spy)
        decision = judge(study, pruner, reports([0.7, 0.5, 0.4], [500, 1000, 2000]))
        (curve,) = spy.curves
        np.testing.assert_allclose(curve.positions, [1, 2, 4])
        np.testing.assert_allclose(curve.values, [-0.7, -0.5, -0.4])
        assert curve.horizon == 20
        assert decision.p_beat is not None


class TestHorizon:
    @staticmethod
    def horizon(
        pruner_n_steps: int | None,
        announced: object,
        earlier: list[optuna.trial.FrozenTrial],
        curve: dict[int, float],
    ) -> float | None:
        """Position of the last report that the engine is asked about; None if it is not asked."""
        spy = SpyEngine(ClosedForm())
        pruner = make_pruner(n_steps=pruner_n_steps, engine=spy)
        attrs = {} if announced is None else {"lcpruner_n_steps": announced}
        decision = judge(make_study(earlier), pruner, curve, attrs)
        assert decision.reason is not Reason.FAILED, decision.message
        return spy.curves[-1].horizon if spy.curves else None

    @pytest.mark.parametrize(
        ("n_steps", "announced", "expected"),
        [
            (35, None, 35),
            (35, 70, 35),
            (None, 70, 70),
            (None, 70.0, 70),
            (None, np.int64(70), 70),
            (None, None, 20),
            (None, 0, 20),
            (None, -5, 20),
            (None, NAN, 20),
            (None, INF, 20),
            (None, "70", 20),
            (None, [70], 20),
            (None, True, 20),
        ],
    )
    def test_source_of_the_horizon(
        self, n_steps: int | None, announced: object, expected: int
    ) -> None:
        """The constructor, else the trial's attribute, else the completed trials."""
        assert self.horizon(n_steps, announced, good_trials(), reports(DOOMED)) == expected

    @pytest.mark.parametrize("numbering", STEPS)
    @pytest.mark.parametrize("lengths", [(20,) * 5, (7, 20, 20, 20, 20), (5, 20, 20, 12, 20)])
    def test_learned_from_completed_trials(self, numbering: str, lengths: tuple[int, ...]) -> None:
        steps, _ = STEPS[numbering]
        earlier = [
            finished(reports(saturating(e)[:n], steps[:n].tolist()))
            for e, n in zip(GOOD_ENDS, lengths, strict=True)
        ]
        curve = reports(DOOMED[:4], steps[:4].tolist())
        assert self.horizon(None, None, earlier, curve) == 20

    @pytest.mark.parametrize("start", [0, 1])
    def test_learned_from_long_trials(self, start: int) -> None:
        steps = range(start, start + 300)
        earlier = [finished(reports(saturating(e, 300), steps)) for e in GOOD_ENDS]
        assert self.horizon(None, None, earlier, reports(DOOMED, steps)) == 300

    def test_pruned_trials_do_not_shorten_it(self) -> None:
        short = [finished(reports(BAD[:4]), state=TrialState.PRUNED) for _ in range(30)]
        earlier = [*good_trials(), *short]
        assert self.horizon(None, None, earlier, reports(DOOMED)) == 20

    def test_one_overlong_trial_of_many_does_not_set_it(self) -> None:
        earlier = [finished(reports(saturating(0.8 + i / 200))) for i in range(19)]
        earlier.append(finished(reports(saturating(0.8, 200))))
        assert self.horizon(None, None, earlier, reports(DOOMED)) == 20

    def test_each_trial_may_have_its_own(self) -> None:
        study = make_study(good_trials())
        pruner = make_pruner(n_steps=None)
        short = watch(study, pruner, reports(BAD[:10]), {"lcpruner_n_steps": 10})
        long = watch(study, pruner, reports(BAD[:20]), {"lcpruner_n_steps": 40})
        assert names(short[-2:]) == ["BELOW_THRESHOLD", "BEYOND_HORIZON"]
        assert names(long[-2:]) == ["BELOW_THRESHOLD", "BELOW_THRESHOLD"]

    def test_announced_horizon_needs_no_completed_reports(self) -> None:
        study = make_study([finished({}, value=e) for e in GOOD_ENDS])
        pruner = make_pruner(n_steps=None, n_startup_trials=0)
        curve = reports(saturating(0.5)[:5])
        assert judge(study, pruner, curve, {"lcpruner_n_steps": 20}).p_beat is not None

    @pytest.mark.parametrize("n_steps", [1, 3, 11, 12])
    def test_a_curve_beyond_its_horizon_is_left_alone(self, n_steps: int) -> None:
        decision = judge(make_study(good_trials()), make_pruner(n_steps=n_steps), reports(DOOMED))
        beyond = n_steps in (1, 3)
        assert decision.reason is (Reason.LONGER if beyond else Reason.BEYOND_HORIZON)

    def test_the_last_report_where_the_study_has_different_gaps(self) -> None:
        """Gaps of 2 and 3 make units of 2.5: the last step, 7 of 8, is 3.8 of 4 of them."""
        often, seldom = ({s: 0.5 + 0.01 * s for s in range(0, 8, gap)} for gap in (2, 3))
        study = make_study([finished(often), finished(seldom)] * 2)
        decision = judge(study, make_pruner(n_steps=8, threshold=1.0), {0: 0.1, 4: 0.1, 7: 0.1})
        assert decision.reason is Reason.BEYOND_HORIZON

    @pytest.mark.parametrize("n_steps", [13, 10**6, 10**12])
    def test_any_horizon_ahead_is_judged(self, n_steps: int) -> None:
        decision = judge(make_study(good_trials()), make_pruner(n_steps=n_steps), reports(DOOMED))
        assert decision.p_beat is not None

    def test_unknown_horizon_warns_once(self, warned: list[str]) -> None:
        study = make_study([finished({}, value=end) for end in GOOD_ENDS])
        pruner = make_pruner(n_steps=None, n_startup_trials=0)
        for _ in range(2):
            watch(study, pruner, reports(DOOMED))
        (warning,) = warned
        assert "n_steps" in warning


class TestNotFinite:
    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    @pytest.mark.parametrize("policy", ["prune", "ignore"])
    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    def test_newest_report(self, bad: float, policy: str, direction: str) -> None:
        sign = 1.0 if direction == "maximize" else -1.0
        study = make_study([finished(reports(sign * saturating(e))) for e in GOOD_ENDS], direction)
        pruner = make_pruner(nan_policy=policy)
        promising = judge(study, pruner, reports([*(sign * PROMISING), bad]))
        doomed = judge(study, pruner, reports([*(sign * DOOMED), bad]))
        if policy == "prune":
            assert names([promising, doomed]) == ["DIVERGED", "DIVERGED"]
            assert str(bad) in promising.message
        else:
            assert names([doomed]) == ["BELOW_THRESHOLD"]
            assert not promising.prune

    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    @pytest.mark.parametrize("policy", ["prune", "ignore"])
    @pytest.mark.parametrize("at", [1, 5, 10])
    def test_earlier_report_is_left_out(self, bad: float, policy: str, at: int) -> None:
        curve = saturating(0.87)[:12]
        holed = reports(curve)
        holed[at] = bad
        gapped = reports(curve)
        del gapped[at]
        study = make_study(good_trials())
        pruner = make_pruner(nan_policy=policy)
        with_hole, with_gap = judge(study, pruner, holed), judge(study, pruner, gapped)
        assert with_hole.reason is with_gap.reason
        np.testing.assert_allclose(with_hole.p_beat, with_gap.p_beat, rtol=1e-12)

    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    @pytest.mark.parametrize("start", [0, 1])
    def test_first_report(self, bad: float, start: int) -> None:
        """It is left out, and the reports after it keep their places."""
        spy = SpyEngine(ClosedForm())
        steps = range(start, start + N_STEPS)
        study = make_study([finished(reports(saturating(e), steps)) for e in GOOD_ENDS])
        pruner = make_pruner(nan_policy="ignore", engine=spy)
        decisions = watch(study, pruner, reports([bad, *BAD[1:]], steps))
        assert names(decisions[-2:]) == ["BELOW_THRESHOLD", "BEYOND_HORIZON"]
        np.testing.assert_allclose(spy.curves[-1].positions, np.arange(2, 20))

    def test_a_trial_that_recovered_is_not_stopped_for_it(self) -> None:
        curve = [*PROMISING[:5], NAN, *PROMISING[6:]]
        assert not judge(make_study(good_trials()), make_pruner(), reports(curve)).prune

    @pytest.mark.parametrize("constant", [0.0, 0.5, -3.0, 1e-310, 1e34])
    def test_constant_study(self, constant: float) -> None:
        """All trainings equal: another one like them is not stopped."""
        curve = np.full(N_STEPS, constant)
        study = make_study([finished(reports(curve)) for _ in range(5)])
        decisions = watch(study, make_pruner(), reports(curve))
        assert set(names(decisions)) == {"TOO_FEW_REPORTS", "UNDECIDED", "BEYOND_HORIZON"}

    def test_constant_study_stops_a_far_worse_trial(self) -> None:
        study = make_study([finished(reports(np.full(N_STEPS, 0.9))) for _ in range(5)])
        assert judge(study, make_pruner(), reports(BAD[:18])).reason is Reason.BELOW_THRESHOLD


class TestOtherTrials:
    @pytest.mark.parametrize("curve", [DOOMED, saturating(0.87)[:6]], ids=["doomed", "mediocre"])
    @pytest.mark.parametrize(
        "others",
        [
            [finished(reports(BAD), state=TrialState.FAIL)],
            [finished({}, state=TrialState.FAIL)],
            [finished(reports([NAN]), state=TrialState.PRUNED)],
            [finished({}, state=TrialState.PRUNED)],
            [finished({}, state=TrialState.WAITING)],
            [finished(reports([0.1, 0.99]), state=TrialState.RUNNING)],
            [finished(reports(BAD[:5]), state=TrialState.PRUNED)],
        ],
        ids=[
            "failed",
            "failed at once",
            "pruned by NaN",
            "pruned without reports",
            "waiting",
            "running",
            "pruned",
        ],
    )
    def test_leave_the_verdict_alone(
        self, others: list[optuna.trial.FrozenTrial], curve: np.ndarray
    ) -> None:
        """Neither unfinished, failed nor empty trials say anything; a worse one changes nothing."""
        first = [finished(reports([0.1, *saturating(e)[1:]])) for e in GOOD_ENDS]
        plain = judge(make_study(first), make_pruner(), reports(curve))
        mixed = judge(make_study([*others, *first, *others]), make_pruner(), reports(curve))
        assert mixed.reason is plain.reason
        assert mixed.incumbent == plain.incumbent
        np.testing.assert_allclose(mixed.p_beat, plain.p_beat, rtol=1e-12)

    def test_one_without_reports_is_a_value_to_beat_and_nothing_else(self) -> None:
        curve = reports(saturating(0.87)[:6])
        plain = judge(make_study(good_trials()), make_pruner(), curve)
        worse = [finished({}, value=0.2), finished({0: 0.3}, value=0.3)]
        same = judge(make_study([*good_trials(), *worse]), make_pruner(), curve)
        assert (same.incumbent, same.p_beat) == (plain.incumbent, plain.p_beat)
        better = judge(make_study([*good_trials(), finished({}, value=0.95)]), make_pruner(), curve)
        assert better.incumbent == 0.95
        assert better.p_beat < plain.p_beat

    def test_enqueued_trials_are_waited_for(self) -> None:
        study = make_study(good_trials())
        study.enqueue_trial({"x": 1.0})
        study.enqueue_trial({"x": 2.0})
        assert judge(study, make_pruner(), reports(DOOMED)).reason is Reason.BELOW_THRESHOLD

    @pytest.mark.parametrize("value", [INF, -INF])
    def test_infinite_objective_values_are_no_best_value(self, value: float) -> None:
        endless = [finished(reports(saturating(0.8)), value=value) for _ in range(3)]
        study = make_study(endless)
        assert judge(study, make_pruner(), reports(DOOMED)).reason is Reason.NO_BEST_VALUE
        study.add_trials(good_trials())
        decision = judge(study, make_pruner(), reports(DOOMED))
        np.testing.assert_allclose(decision.incumbent, saturating(0.9)[-1])

    @pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING])
    def test_only_completed_trials_count_for_startup(self, state: TrialState) -> None:
        others = [finished(reports(saturating(0.9)), state=state) for _ in range(8)]
        study = make_study([*others, *good_trials()[:2]])
        assert judge(study, make_pruner(), reports(DOOMED)).reason is Reason.STARTUP

    def test_a_pruned_trial_is_no_best_value(self) -> None:
        study = make_study([*good_trials(), finished(reports([0.99]), state=TrialState.PRUNED)])
        decision = judge(study, make_pruner(), reports(DOOMED))
        np.testing.assert_allclose(decision.incumbent, saturating(0.9)[-1])

    def test_a_trial_that_finishes_later_counts_from_then_on(self) -> None:
        study = make_study(good_trials()[:2])
        pruner = make_pruner()
        slow = study.ask()
        assert judge(study, pruner, reports(DOOMED)).reason is Reason.STARTUP
        for step, value in enumerate(saturating(0.99)):
            slow.report(value, step)
        study.tell(slow, saturating(0.99)[-1])
        decision = judge(study, pruner, reports(DOOMED))
        assert decision.reason is Reason.BELOW_THRESHOLD
        np.testing.assert_allclose(decision.incumbent, saturating(0.99)[-1])

    def test_a_new_study_of_the_same_storage_starts_afresh(self) -> None:
        storage = optuna.storages.InMemoryStorage()
        pruner = make_pruner()
        first = make_study(good_trials(), storage=storage)
        assert judge(first, pruner, reports(DOOMED)).prune
        second = make_study(direction="minimize", storage=storage)
        assert judge(second, pruner, reports(DOOMED)).reason is Reason.NO_BEST_VALUE


def peaking(end: float) -> np.ndarray:
    """A training that is at its best in the middle and ends 0.2 lower."""
    t = np.linspace(0.0, 1.0, N_STEPS)
    return 0.1 + (end - 0.1) * np.sin(np.pi * np.minimum(t, 0.8))


class TestTarget:
    @staticmethod
    def study(returned: str) -> optuna.Study:
        return make_study(
            finished(reports(c), value=c[-1] if returned == "last" else c.max())
            for c in map(peaking, GOOD_ENDS)
        )

    @pytest.mark.parametrize("returned", ["last", "best"])
    @pytest.mark.parametrize("setting", ["auto", "last", "best"])
    def test_what_the_engine_is_told(self, returned: str, setting: str) -> None:
        spy = SpyEngine(ClosedForm())
        judge(self.study(returned), make_pruner(target=setting, engine=spy), reports(DOOMED))
        expected = returned if setting == "auto" else setting
        assert {known.target for known in spy.knowledge} == {Target(expected)}

    def test_curves_that_cannot_tell_mean_the_last(self) -> None:
        spy = SpyEngine(ClosedForm())
        judge(make_study(good_trials()), make_pruner(engine=spy), reports(DOOMED))
        assert spy.knowledge[-1].target is Target.LAST

    @pytest.mark.parametrize("returned", ["last", "best"])
    def test_already_better_in_the_middle(self, returned: str) -> None:
        """A peak above the best value counts where the objective returns the best report."""
        study = self.study(returned)
        curve = np.concatenate([np.linspace(0.1, study.best_value + 0.05, 8), BAD[:8]])
        decision = judge(study, make_pruner(), reports(curve))
        assert (decision.reason is Reason.ALREADY_BETTER) is (returned == "best")
        if returned == "best":
            assert decision.p_beat == 1.0

    @pytest.mark.parametrize("returned", ["last", "best"])
    def test_equal_to_the_best_is_not_better(self, returned: str) -> None:
        study = self.study(returned)
        curve = np.append(np.linspace(0.1, 0.3, 8), study.best_value)
        assert judge(study, make_pruner(), reports(curve)).reason is not Reason.ALREADY_BETTER


def alternating(trial: optuna.Trial) -> float:
    """Eight good trainings, then every second one is hopeless."""
    if trial.number >= 8 and trial.number % 2:
        return train(trial, BAD)
    return train(trial, saturating(0.9 + 1e-4 * trial.number))


class TestLastReport:
    @pytest.mark.parametrize("given", [True, False])
    @pytest.mark.parametrize("steps", [[10, 20, 30, 38], [*range(100, 1201, 100), 1260]])
    def test_a_training_is_not_stopped_after_a_short_last_gap(
        self, steps: list[int], given: bool
    ) -> None:
        n = len(steps)
        study = make_study(
            finished(reports(saturating(end, n), steps)) for end in (0.7, 0.75, 0.8, 0.85, 0.9)
        )
        pruner = make_pruner(n_steps=steps[-1] if given else None, n_warmup_steps=steps[-1])
        decision = judge(study, pruner, reports(np.full(n, 0.1), steps))
        assert decision.reason is Reason.BEYOND_HORIZON

    def test_trainings_that_all_begin_late_are_judged_as_others_are(self) -> None:
        """Fine-tuning that counts on from a common checkpoint."""
        told = []
        for first in (0, 1000):
            steps = list(range(first, first + N_STEPS))
            study = make_study(
                finished(reports(saturating(end), steps)) for end in (0.7, 0.75, 0.8, 0.85, 0.9)
            )
            pruner = make_pruner(n_steps=first + N_STEPS)
            told.append(names(watch(study, pruner, reports(BAD, steps))))
        assert told[0] == told[1]
        assert "BELOW_THRESHOLD" in told[0]


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
