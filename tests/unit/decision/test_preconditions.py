"""What stands before a forecast: which reports are looked at, and why none is made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import (
    BAD,
    GOOD_ENDS,
    N_STEPS,
    SAYS_CONSTRAINTS,
    constrained,
    finished,
    good_trials,
    reports,
    saturating,
)
from optuna.trial import FrozenTrial
from summaries import summary_of

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.decision.decision import Decision, Reason
from optuna_lcpruner.decision.preconditions import Preconditions, Reports
from optuna_lcpruner.posterior.interface import StudyKnowledge

NAN, INF = math.nan, math.inf


def conditions(**settings: Any) -> Preconditions:
    defaults = {
        "n_steps": N_STEPS,
        "n_startup_trials": 3,
        "n_warmup_steps": 0,
        "interval_steps": 1,
        "nan_policy": "prune",
    }
    return Preconditions(**(defaults | settings))  # type: ignore[arg-type]


def reported(values: Any, steps: Any = None) -> Reports:
    values = np.asarray(values, dtype=float)
    steps = np.arange(values.size) if steps is None else np.asarray(steps)
    return Reports(steps, values, np.isfinite(values))


class Warnings:
    """Keeps what it is told, by topic."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def __call__(self, topic: str, message: str) -> None:
        self.said[topic] = message


@pytest.fixture
def warn() -> Warnings:
    return Warnings()


@pytest.mark.parametrize(
    ("warm_up", "interval", "steps", "looks"),
    [
        (0, 1, range(6), [0, 1, 2, 3, 4, 5]),
        (0, 3, range(10), [0, 3, 6, 9]),
        (2, 3, range(10), [2, 5, 8]),
        (1, 5, range(1, 12), [1, 6, 11]),
        (0, 4, [1, 3, 6, 7, 13, 14], [1, 6, 13]),
        (4, 4, [1, 3, 6, 7, 13, 14], [6, 13]),
        (0, 1000, range(500, 4001, 500), [500, 1000, 2000, 3000, 4000]),
        (100, 1, range(6), []),
    ],
)
def test_looks(warm_up: int, interval: int, steps: Any, looks: list[int]) -> None:
    """A look is the first report of each interval, counted from the end of the warm-up."""
    steps = np.array(steps)
    settings = {"n_steps": 5000, "n_warmup_steps": warm_up, "interval_steps": interval}
    found = conditions(**settings).looks(steps)
    assert steps[found].tolist() == looks


class TestWithoutStorage:
    @pytest.mark.parametrize(
        ("settings", "values", "is_look", "reason"),
        [
            ({"n_warmup_steps": 3}, [0.1, 0.2, 0.3], True, Reason.WARM_UP),
            ({"n_warmup_steps": 3}, [0.1, 0.2, NAN], True, Reason.WARM_UP),
            ({"n_warmup_steps": 2}, [0.1, 0.2, 0.3], True, None),
            ({}, [0.1, 0.2, NAN], True, Reason.DIVERGED),
            ({}, [0.1, 0.2, INF], True, Reason.DIVERGED),
            ({}, [NAN, INF], True, Reason.DIVERGED),
            ({}, [0.1, 0.2, NAN], False, Reason.DIVERGED),  # it stops between looks
            ({}, [0.1, NAN, 0.3], True, None),  # it has recovered
            ({"nan_policy": "ignore"}, [0.1, 0.2, NAN], True, None),
            ({}, [0.1, 0.2, 0.3], False, Reason.BETWEEN_LOOKS),
            ({}, [0.1], True, Reason.TOO_FEW_REPORTS),
            ({"nan_policy": "ignore"}, [NAN, 0.1], True, Reason.TOO_FEW_REPORTS),
            ({"nan_policy": "ignore"}, [NAN, INF, -INF], True, Reason.TOO_FEW_REPORTS),
            ({}, [0.1, 0.2], True, None),
        ],
    )
    def test_by_the_reports_alone(
        self, settings: dict[str, Any], values: list[float], is_look: bool, reason: Reason | None
    ) -> None:
        decision = conditions(**settings).without_storage(reported(values), is_look)
        if reason is None:
            assert decision is None
        else:
            assert decision is not None
            assert decision.reason is reason
            assert decision.step == len(values) - 1

    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    def test_a_divergence_names_its_value_and_step(self, bad: float) -> None:
        decision = conditions().without_storage(reported([0.1, bad], [3, 7]), True)
        assert decision is not None
        assert decision.words.endswith(f"{bad} reported at step 7")


class TestCountsDown:
    @pytest.mark.parametrize(
        ("steps", "counts", "warns"),
        [
            ([19, 18, 17], True, True),
            ([19, 12, 11, 3], True, True),
            ([19, 18], True, False),  # two may have come in the wrong order
            ([19], False, False),
            ([17, 18, 19], False, False),
            ([19, 18, 20], False, False),
        ],
    )
    def test_by_the_order_of_the_reports(
        self, steps: list[int], counts: bool, warns: bool, warn: Warnings
    ) -> None:
        decision = conditions().counts_down(steps, warn)
        assert (decision is not None) is counts
        if decision is not None:
            assert decision.reason is Reason.STEPS_COUNT_DOWN
            assert decision.step == steps[-1]
            assert f"from {steps[0]} to {steps[-1]}" in decision.words
        assert list(warn.said) == (["steps"] if warns else [])


def returned(factor: float) -> list[FrozenTrial]:
    """Trials that return another number than they report."""
    return [finished(reports(saturating(end)), value=factor * end) for end in GOOD_ENDS]


class TestWithStudy:
    @pytest.mark.parametrize(
        ("settings", "trials", "reason"),
        [
            ({}, [], Reason.NO_BEST_VALUE),
            ({"n_startup_trials": 0}, [], Reason.NO_BEST_VALUE),
            ({}, good_trials()[:2], Reason.STARTUP),
            ({}, good_trials()[:3], None),
            ({"n_startup_trials": 6}, good_trials(), Reason.STARTUP),
            ({}, returned(100.0), Reason.METRIC_MISMATCH),
            ({"check_metric": False}, returned(100.0), None),
            (
                {},
                [finished(reports(-saturating(end)), value=saturating(end)[-1])
                 for end in GOOD_ENDS],
                Reason.METRIC_MISMATCH,
            ),
            ({}, [finished(reports(1.0 - saturating(end))) for end in GOOD_ENDS],
             Reason.WRONG_DIRECTION),
            (
                {},
                [finished(reports(saturating(end), range(20 * i, 20 * i + 20)))
                 for i, end in enumerate(GOOD_ENDS)],
                Reason.COUNTER_GOES_ON,
            ),
        ],
    )  # fmt: skip
    def test_by_the_completed_trials(
        self,
        settings: dict[str, Any],
        trials: list[FrozenTrial],
        reason: Reason | None,
        warn: Warnings,
    ) -> None:
        decision = conditions(**settings).with_study(summary_of(trials), 7, warn)
        if reason is None:
            assert decision is None
        else:
            assert decision is not None
            assert (decision.reason, decision.step) == (reason, 7)
        mends = (Reason.METRIC_MISMATCH, Reason.WRONG_DIRECTION)
        assert ("metric" in warn.said) is (reason in mends)

    def test_completed_trials_without_a_curve_are_told_apart(self, warn: Warnings) -> None:
        trials = [*good_trials()[:2], finished({}, value=0.5)]
        decision = conditions().with_study(summary_of(trials), 7, warn)
        assert decision is not None
        assert (
            decision.words == "startup: 2 of n_startup_trials=3 completed with a curve, 1 without"
        )

    @pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
    def test_none_keeps_the_constraints(self, how: str, warn: Warnings) -> None:
        trials = [constrained(trial, 1.0, how=how) for trial in good_trials()]
        decision = conditions().with_study(summary_of(trials), 7, warn)
        assert decision is not None
        assert decision.reason is Reason.NO_BEST_VALUE
        assert decision.words.endswith(": none of 5 completed trials keeps the constraints")

    def test_a_trial_that_was_told_to_stop_and_returned_is_warned_of(self, warn: Warnings) -> None:
        attrs = {"lcpruner_reason": "pruned: P = 0.010", "lcpruner_decided_at_step": 4}
        stopped = finished(reports(BAD[:5]), user_attrs=attrs)
        assert conditions().with_study(summary_of([*good_trials(), stopped]), 7, warn) is None
        assert "raise optuna.TrialPruned" in warn.said["told to stop"]

    def test_a_doubtful_length_is_warned_of(self, warn: Warnings) -> None:
        assert conditions(n_steps=5).with_study(summary_of(good_trials()), 2, warn) is None
        assert "is it in the unit of your steps?" in warn.said["length"]


class TestCurve:
    @pytest.mark.parametrize(
        ("n_steps", "attrs", "trials", "n", "expected"),
        [
            (N_STEPS, {}, good_trials(), 12, N_STEPS),
            (30, {"lcpruner_n_steps": 70}, good_trials(), 12, 30),
            (None, {"lcpruner_n_steps": 70}, good_trials(), 12, 70),
            (None, {}, good_trials(), 12, N_STEPS),
            (None, {}, [finished({}, value=0.5)], 12, Reason.UNKNOWN_HORIZON),
            (N_STEPS, {}, good_trials(), N_STEPS, Reason.BEYOND_HORIZON),
            (N_STEPS, {}, good_trials(), 45, Reason.LONGER),
        ],
    )
    def test_its_horizon_or_why_there_is_none(
        self,
        n_steps: int | None,
        attrs: dict[str, Any],
        trials: list[FrozenTrial],
        n: int,
        expected: float | Reason,
        warn: Warnings,
    ) -> None:
        made = conditions(n_steps=n_steps).curve(
            reported(np.full(n, 0.1)), np.full(n, 0.1), attrs, summary_of(trials), warn
        )
        if isinstance(expected, Reason):
            assert isinstance(made, Decision)
            assert (made.reason, made.step) == (expected, n - 1)
        else:
            assert isinstance(made, LearningCurve)
            assert (made.horizon, made.n_points) == (expected, n)
        assert ("horizon" in warn.said) is (expected is Reason.UNKNOWN_HORIZON)

    def test_reports_that_are_not_finite_are_left_out(self, warn: Warnings) -> None:
        made = conditions().curve(
            reported([0.1, NAN, 0.3, 0.4]),
            np.array([0.1, 0.3, 0.4]),
            {},
            summary_of(good_trials()),
            warn,
        )
        assert isinstance(made, LearningCurve)
        np.testing.assert_array_equal(made.positions, [1, 3, 4])
        np.testing.assert_array_equal(made.values, [0.1, 0.3, 0.4])


@pytest.mark.parametrize(("n", "waits"), [(2, True), (3, False)])
def test_as_many_whole_trainings_as_startup_asks_for(n: int, waits: bool) -> None:
    knowledge = StudyKnowledge(Scale(0.0, 1.0, True), final=np.linspace(0.5, 0.9, n))
    decision = conditions().whole_trainings(knowledge, 7)
    assert (decision is not None) is waits
    if decision is not None:
        assert (decision.reason, decision.step) == (Reason.STARTUP, 7)


class TestEarlier:
    CURVE = LearningCurve(np.arange(1.0, 11.0), np.linspace(0.1, 0.5, 10), N_STEPS, 2.0)

    @pytest.mark.parametrize(
        ("settings", "n", "lengths"),
        [
            ({}, 0, []),
            ({}, 3, [9, 8, 7]),
            ({}, 99, [9, 8, 7, 6, 5, 4, 3, 2]),  # one report is no curve
            ({"n_warmup_steps": 6}, 99, [9, 8, 7]),
            ({"interval_steps": 3}, 2, [7, 4]),
        ],
    )
    def test_the_looks_before_this_one_newest_first(
        self, settings: dict[str, Any], n: int, lengths: list[int]
    ) -> None:
        found = conditions(**settings).earlier(self.CURVE, np.arange(10), n)
        assert [curve.n_points for curve in found] == lengths
        for curve in found:
            np.testing.assert_array_equal(curve.values, self.CURVE.values[: curve.n_points])
            np.testing.assert_array_equal(curve.positions, self.CURVE.positions[: curve.n_points])
            assert (curve.horizon, curve.stride) == (self.CURVE.horizon, self.CURVE.stride)
