"""Judge: what must not change a verdict, whatever the reports' scale, steps and company."""

from __future__ import annotations

import math
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
    SpyEngine,
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
from optuna.trial import TrialState

from optuna_lcpruner import Decision, LearningCurvePruner, Reason
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import Target

NAN, INF = math.nan, math.inf


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


class TestManyReports:
    """Of a training of more reports than there are knots a few fall on one."""

    @pytest.mark.parametrize("n_steps", [40, 128, 400, 3000])
    @pytest.mark.parametrize("speed", [3.0, 30.0])
    def test_one_ahead_of_the_best_all_along_is_not_stopped(
        self, n_steps: int, speed: float
    ) -> None:
        rng = np.random.default_rng(0)
        t = np.arange(n_steps)
        curves = [
            end + (2.3 - end) * (1.0 + t / (speed * scale)) ** -power
            for end, power, scale in zip(
                0.3 + 0.2 * rng.gamma(1.2, size=8),
                rng.uniform(0.5, 1.2, 8),
                np.exp(0.4 * rng.standard_normal(8)),
                strict=True,
            )
        ]
        study = make_study([finished(reports(curve)) for curve in curves], direction="minimize")
        better = 0.95 * min(curves, key=lambda curve: curve[-1])[: max(8, n_steps // 25)]
        decisions = watch(study, LearningCurvePruner(n_steps), reports(better))
        assert not any(decision.prune for decision in decisions)
        assert decisions[-1].p_beat is not None

    def test_the_first_reports_of_a_long_training_are_not_judged(self) -> None:
        study = make_study([finished(reports(saturating(e, 1000))) for e in GOOD_ENDS])
        decisions = watch(study, make_pruner(n_steps=1000), reports(BAD[:1].repeat(30)))
        early = [decision.reason is Reason.TOO_FEW_REPORTS for decision in decisions]
        assert early == [True] * 19 + [False] * 11
        assert decisions[18].message == (
            "too few reports: 2 of 3 parts of a training of 1000 reports, which has 128"
        )

    @pytest.mark.parametrize("interval", [1, 5])
    def test_patience_counts_parts(self, interval: int) -> None:
        """Of looks at the same part only one counts."""
        study = make_study([finished(reports(saturating(e, 1000))) for e in GOOD_ENDS])
        stopped = []
        for patience in (1, 2, 4):
            pruner = make_pruner(
                n_steps=1000, threshold=0.5, patience=patience, interval_steps=interval
            )
            decisions = watch(study, pruner, reports(BAD[:1].repeat(80)))
            stopped.append([decision.prune for decision in decisions].index(True))
            judged = [d for d in decisions[: stopped[-1]] if d.p_beat is not None]
            assert all(decision.reason is Reason.PATIENCE for decision in judged)
        assert np.all(np.diff(stopped) >= [7, 14])  # eight reports a part


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

    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize(
        ("target", "returned", "best", "runs_on"),
        [
            ("auto", "best", 0.95, True),
            ("best", "best", 0.95, True),
            ("last", "best", 0.95, False),
            ("auto", "last", 0.95, False),
            ("auto", "best", 0.85, False),
        ],
    )
    def test_after_the_best_value_where_the_best_report_is_returned(
        self, direction: str, target: str, returned: str, best: float, runs_on: bool
    ) -> None:
        """To stop it would lose the value it has reported."""
        sign = 1.0 if direction == "maximize" else -1.0
        earlier = [
            finished(
                reports(sign * peaking(e)),
                value=sign * (peaking(e).max() if returned == "best" else peaking(e)[-1]),
            )
            for e in GOOD_ENDS
        ]
        study = make_study(earlier, direction)
        curve = sign * np.array([0.2, 0.5, best, NAN])
        decision = judge(study, LearningCurvePruner(N_STEPS, target=target), reports(curve))
        assert decision.prune is not runs_on
        if runs_on:
            assert decision.message == (
                f"already better than the best: {sign * best:g} reported before nan, and the best "
                "report is returned"
            )

    @pytest.mark.parametrize("first", [1, 3])
    def test_a_metric_that_is_undefined_at_first(self, first: int) -> None:
        """As the reward is before the first episode has ended."""
        pruner = LearningCurvePruner(N_STEPS)
        study = make_study(pruner=pruner)
        ends = [0.9, 0.5, 0.8, 0.4, 0.7, 0.3]
        study.optimize(
            lambda t: train(t, np.r_[[NAN] * first, saturating(ends[t.number])[first:]]), n_trials=6
        )
        assert not any("diverged" in t.user_attrs["lcpruner_reason"] for t in study.trials)
        decision = judge(study, pruner, reports([NAN] * (first + 1)))
        assert decision.reason is Reason.DIVERGED  # others had begun by then

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
