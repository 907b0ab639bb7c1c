"""What the completed trials of a study have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from helpers import BAD, GOOD_ENDS, N_STEPS, finished, good_trials, make_study, reports, saturating
from optuna.trial import TrialState
from summaries import completed, peaking, summary_of

from optuna_lcpruner.posterior.interface import Target
from optuna_lcpruner.study.history import StudyRecord
from optuna_lcpruner.study.summary import MetricProblem, StudySummary

NAN, INF = math.nan, math.inf


class TestSummary:
    def test_no_trial(self) -> None:
        summary = summary_of([])
        assert summary.n_completed == 0
        assert summary.incumbent == -INF
        assert summary.lengths.stride is summary.lengths.n_steps is None
        assert summary.scale is summary.problem is None
        assert summary.target is Target.LAST

    @pytest.mark.parametrize(
        ("values", "direction", "n", "best"),
        [
            ((0.3,), "maximize", 1, 0.3),
            ((0.3, 0.7, 0.5), "maximize", 3, 0.7),
            ((0.3, 0.7, 0.5), "minimize", 3, -0.3),
            ((-3.0, -7.0), "minimize", 2, 7.0),
            ((0.3, INF), "maximize", 1, 0.3),
            ((0.3, -INF), "minimize", 1, -0.3),
            ((INF, -INF), "maximize", 0, -INF),
            ((0.0, 0.0), "minimize", 2, 0.0),
            ((5e-324, 1e300), "maximize", 2, 1e300),
        ],
    )
    def test_incumbent_is_the_best_finite_value_larger_is_better(
        self, values: tuple[float, ...], direction: str, n: int, best: float
    ) -> None:
        summary = summary_of([finished({}, value=value) for value in values], direction)
        assert summary.n_completed == n
        assert summary.incumbent == best

    @pytest.mark.parametrize(
        ("steps", "stride"),
        [
            ([range(20)], 1),
            ([range(1, 21)], 1),
            ([range(500, 10_001, 500)], 500),
            ([[0, 1, 2, 7, 8]], 1),
            ([[8, 1, 0, 2, 7]], 1),
            ([[3]], None),
            ([[]], None),
            ([[3], range(0, 40, 2)], 2),
            ([range(0, 40, 2), range(0, 50, 5), range(0, 40, 2)], 2),
        ],
    )
    def test_stride_is_the_typical_gap(
        self, steps: Sequence[Sequence[int]], stride: float | None
    ) -> None:
        trials = [finished(reports(np.full(99, 0.5), s), value=0.5) for s in steps]
        assert summary_of(trials).lengths.stride == stride

    @pytest.mark.parametrize(
        ("steps", "n_steps"),
        [
            ([range(20)] * 3, 20),
            ([range(1, 21)] * 3, 20),
            ([range(500, 10_001, 500)] * 3, 10_000),
            ([range(0, 10_000, 500)] * 3, 10_000),
            ([range(4, 100, 5)] * 3, 100),
            ([range(1, 5000, 500)] * 3, 5000),
            ([range(1000, 1020)] * 3, 1020),
            ([range(20), range(5), range(7)], 20),
            ([range(20)] * 19 + [range(200)], 20),
            ([range(128)] * 3, 128),
            ([range(129)] * 3, 129),
            ([range(1, 130)] * 3, 129),
            ([range(1000)] * 3, 1000),
            ([range(1, 1001)] * 3, 1000),
            ([[]], None),
            ([[], range(20)], 20),
        ],
    )
    def test_horizon_shown(self, steps: Sequence[Sequence[int]], n_steps: float | None) -> None:
        trials = [finished(reports(np.full(1000, 0.5), s), value=0.5) for s in steps]
        assert summary_of(trials).lengths.n_steps == n_steps

    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize("factor", [1.0, 100.0, 1e5, 1e-6])
    def test_scale_goes_from_the_typical_start_to_the_best(
        self, direction: str, factor: float
    ) -> None:
        sign = 1.0 if direction == "maximize" else -1.0
        starts = (0.0, 0.1, 0.5)
        trials = [
            finished(reports(sign * factor * saturating(end, start=start)))
            for end, start in zip((0.8, 0.9, 0.7), starts, strict=True)
        ]
        scale = summary_of(trials, direction).scale
        assert scale is not None
        firsts = [trial.intermediate_values[0] for trial in trials]
        best = max(trial.value * sign for trial in trials) * sign
        np.testing.assert_allclose(scale.to_working(np.median(firsts)), 0.0, atol=1e-9)
        np.testing.assert_allclose(scale.to_working(best), 1.0, rtol=1e-9)

    def test_only_completed_trials_are_needed(self) -> None:
        """The pruner hands over these alone."""
        study = make_study(good_trials())
        expected = StudyRecord(True).update(completed(study))
        study.add_trial(finished(reports([0.99]), state=TrialState.PRUNED))
        study.add_trial(finished(reports([0.99]), state=TrialState.RUNNING))
        study.add_trial(finished(reports([0.99]), state=TrialState.FAIL))
        study.enqueue_trial({})
        assert StudyRecord(True).update(completed(study)) == expected


class TestTarget:
    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize("n", [N_STEPS, 1000])
    @pytest.mark.parametrize("n_trials", [1, 2, 5])
    @pytest.mark.parametrize("returned", ["last", "best"])
    def test_learned(self, returned: str, n_trials: int, n: int, direction: str) -> None:
        sign = 1.0 if direction == "maximize" else -1.0
        trials = [
            finished(
                reports(sign * curve),
                value=sign * (curve[-1] if returned == "last" else curve.max()),
            )
            for curve in (peaking(end, n) for end in GOOD_ENDS[:n_trials])
        ]
        summary = summary_of(trials, direction)
        assert summary.target is Target(returned)
        assert summary.problem is None

    def test_curves_that_cannot_tell_have_no_vote(self) -> None:
        """Eight trials whose best report is their last, two that returned the best."""
        trials = [finished(reports(saturating(0.8 + i / 100))) for i in range(8)]
        trials += [finished(reports(peaking(e)), value=peaking(e).max()) for e in (0.8, 0.9)]
        assert summary_of(trials).target is Target.BEST

    def test_nothing_to_tell_means_the_last(self) -> None:
        assert summary_of(good_trials()).target is Target.LAST
        assert summary_of([finished({}, value=0.5)] * 3).target is Target.LAST

    def test_nan_reports_have_no_vote(self) -> None:
        trials = [
            finished(reports([*peaking(e), NAN]), value=float(peaking(e).max())) for e in GOOD_ENDS
        ]
        summary = summary_of(trials)
        assert summary.target is Target.BEST
        assert summary.problem is None


class TestMetricProblem:
    @pytest.mark.parametrize("shape", [saturating, peaking], ids=["saturating", "peaking"])
    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize(
        ("returned", "problem"),
        [
            (lambda c: c[-1], None),
            (lambda c: float(np.float32(c[-1])), None),
            (lambda c: c[-1] + 0.01, None),
            (lambda c: c[-1] * 1.02, None),
            (lambda c: 100.0 * c[-1], MetricProblem.MISMATCH),
            (lambda c: c[-1] + 3.0, MetricProblem.MISMATCH),
            (lambda c: c[0] - 5.0, MetricProblem.MISMATCH),
        ],
        ids=["last", "single", "shifted", "other data", "percent", "far", "below"],
    )
    def test_returned_against_reported(
        self, returned: object, problem: MetricProblem | None, direction: str, shape: object
    ) -> None:
        """In a study that maximises y, and in one that minimises -y."""
        sign = 1.0 if direction == "maximize" else -1.0
        trials = [
            finished(reports(sign * curve), value=sign * float(returned(curve)))  # type: ignore[operator]
            for curve in map(shape, GOOD_ENDS)  # type: ignore[call-overload]
        ]
        assert summary_of(trials, direction).problem is problem

    @pytest.mark.parametrize("shape", [saturating, peaking], ids=["saturating", "peaking"])
    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize("reported_sign", [1.0, -1.0])
    def test_negated(self, reported_sign: float, direction: str, shape: object) -> None:
        """Whichever of the two it is whose sign does not suit the study's direction."""
        trials = [
            finished(reports(reported_sign * curve), value=-reported_sign * float(curve[-1]))
            for curve in map(shape, GOOD_ENDS)  # type: ignore[call-overload]
        ]
        assert summary_of(trials, direction).problem is MetricProblem.NEGATED

    @pytest.mark.parametrize(("n", "judged"), [(1, False), (2, False), (3, True), (5, True)])
    def test_needs_three_trials(self, n: int, judged: bool) -> None:
        trials = [finished(reports(saturating(e)), value=100.0) for e in GOOD_ENDS[:n]]
        expected = MetricProblem.MISMATCH if judged else None
        assert summary_of(trials).problem is expected

    def test_one_odd_trial_is_no_problem(self) -> None:
        odd = finished(reports(saturating(0.8)), value=0.1)
        assert summary_of([*good_trials(), odd]).problem is None

    def test_trials_without_reports_have_no_vote(self) -> None:
        silent = [finished({}, value=77.0)] * 20
        assert summary_of([*silent, *good_trials()]).problem is None

    @pytest.mark.parametrize(
        ("curves", "wrong"),
        [
            ([1.0 - saturating(e) for e in GOOD_ENDS], True),
            ([1.0 - saturating(e) for e in GOOD_ENDS[:3]], True),
            ([1.0 - saturating(e) for e in GOOD_ENDS[:2]], False),
            ([1.0 - saturating(e)[:10] for e in GOOD_ENDS], False),
            ([1.0 - saturating(e, 1000) for e in GOOD_ENDS], True),
            ([saturating(e) for e in GOOD_ENDS], False),
            ([BAD] * 5, False),
            ([peaking(e) for e in GOOD_ENDS], False),
            ([1.0 - saturating(e) for e in GOOD_ENDS[:3]] + [saturating(0.9)] * 2, False),
            ([1.0 - saturating(e) for e in GOOD_ENDS[:4]] + [saturating(0.9)], True),
        ],
        ids=[
            "getting worse",
            "three trials",
            "two trials",
            "short",
            "long",
            "getting better",
            "flat",
            "peaking",
            "three of five",
            "four of five",
        ],
    )
    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    def test_wrong_direction(
        self, direction: str, curves: Sequence[np.ndarray], wrong: bool
    ) -> None:
        sign = 1.0 if direction == "maximize" else -1.0
        summary = summary_of([finished(reports(sign * c)) for c in curves], direction)
        assert summary.problem is (MetricProblem.WRONG_DIRECTION if wrong else None)


NOISE = 0.05 * np.sin(7.0 * np.arange(N_STEPS) + 1.0)


class TestMetricThatIsNoReport:
    @pytest.mark.parametrize(
        ("returned", "problem"),
        [
            (lambda curve: np.mean(curve[-5:]), None),
            (lambda curve: np.mean(curve[-10:]), None),
            (lambda curve: np.mean(curve[-11:]), MetricProblem.MISMATCH),  # most of the training
            (lambda curve: np.mean(curve[-5:]) + 0.2, MetricProblem.MISMATCH),
            (lambda curve: np.median(curve[-5:]) ** 4, MetricProblem.MISMATCH),
        ],
        ids=["of five", "of half", "of more", "of others", "another metric"],
    )
    def test_the_mean_of_the_last_reports(
        self, returned: Callable[[np.ndarray], float], problem: MetricProblem | None
    ) -> None:
        curves = [saturating(0.8 + 0.01 * i) + NOISE for i in range(8)]
        summary = summary_of([finished(reports(c), value=float(returned(c))) for c in curves])
        assert summary.problem is problem
        assert problem or summary.target is Target.LAST

    @pytest.mark.parametrize("n_good", [1, 3, 6])
    @pytest.mark.parametrize("n_failed", [2, 6])
    def test_penalties_of_trials_that_failed(self, n_good: int, n_failed: int) -> None:
        good = [finished(reports(saturating(0.7 + 0.05 * i))) for i in range(n_good)]
        failed = [finished(reports(BAD[:4]), value=-1e6) for _ in range(n_failed)]
        assert summary_of([*failed, *good]).problem is None

    def test_all_values_far_from_the_reports_are_no_penalties(self) -> None:
        far = [finished(reports(saturating(e)), value=-1e6) for e in GOOD_ENDS]
        assert summary_of(far).problem is MetricProblem.MISMATCH
        percent = [finished(reports(saturating(e)), value=50.0 + 100.0 * e**3) for e in GOOD_ENDS]
        assert summary_of(percent).problem is MetricProblem.MISMATCH
        for sign in (-1.0, 1.0):  # counts of hits, rounded percentages
            hits = [
                finished(reports(saturating(e)), value=sign * v)
                for e in GOOD_ENDS
                for v in (90.0, 91.0)
            ]
            assert summary_of(hits).problem is MetricProblem.MISMATCH
            assert summary_of([*hits[::2], hits[1]]).problem is MetricProblem.MISMATCH
            fit = [finished(reports(saturating(e))) for e in GOOD_ENDS[:3]]
            assert summary_of([*hits, *fit]).problem is MetricProblem.MISMATCH
        fits = finished(reports(saturating(0.8)))
        assert summary_of([*percent, fits]).problem is MetricProblem.MISMATCH


class TestLengths:
    @staticmethod
    def summary(n: int, rate: float, stride: int = 1) -> StudySummary:
        steps = range(0, n * stride, stride)
        curves = [1.0 + e - rate ** np.arange(n) for e in (0.0, 0.1, 0.2)]
        return summary_of([finished(reports(curve, steps)) for curve in curves])

    def test_of_trainings_that_came_to_rest(self) -> None:
        summary = self.summary(20, 0.75)
        assert summary.lengths.horizon_of(20, 5) == summary.lengths.horizon_of(18, 5) + 2 == 20
        assert summary.lengths.horizon_of(39, 5) == 39  # not far beyond
        assert summary.lengths.horizon_of(2400, 5) == 20
        assert [summary.lengths.horizon_of(2400, n) for n in (16, 17, 33, 65, 5000)] == [
            20, 40, 80, 160, 2400,
        ]  # fmt: skip

    def test_of_trainings_that_were_moving(self) -> None:
        assert self.summary(10, 0.95).lengths.horizon_of(50, 5) == 50

    @pytest.mark.parametrize(
        ("n_steps", "rate", "said"),
        [
            (20, 0.75, None),
            (39, 0.75, None),
            (2400, 0.75, "all completed trials end by step 19, far below n_steps=2400"),
            (30, 0.95, "longer than any training that has completed"),
            (21, 0.95, None),
            (8, 0.75, "well beyond n_steps=8: is it in the unit of your steps?"),
            (None, 0.75, None),
        ],
    )
    def test_doubts(self, n_steps: float | None, rate: float, said: str | None) -> None:
        doubt = self.summary(20, rate).lengths.doubt_about(n_steps)
        assert doubt is None if said is None else said in str(doubt)
