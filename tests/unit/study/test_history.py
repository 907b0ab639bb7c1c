"""StudyRecord: what the completed trials of a study say, however they came in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import optuna
import pytest
from helpers import BAD, GOOD_ENDS, N_STEPS, finished, good_trials, make_study, reports, saturating
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner.curves.horizon import Ending
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.interface import Target
from optuna_lcpruner.study import history
from optuna_lcpruner.study.history import FinishedTrial, StudyRecord
from optuna_lcpruner.study.summary import MetricProblem, StudySummary

NAN, INF = math.nan, math.inf


def completed(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def summary_of(trials: Sequence[FrozenTrial], direction: str = "maximize") -> StudySummary:
    study = make_study(trials, direction)
    return StudyRecord(direction == "maximize").update(completed(study))


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


def peaking(end: float, n: int = N_STEPS) -> np.ndarray:
    t = np.linspace(0.0, 1.0, n)
    return 0.1 + (end - 0.1) * np.sin(np.pi * np.minimum(t, 0.8))


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
            ([1.0 - saturating(e) for e in GOOD_ENDS[:4]], False),
            ([1.0 - saturating(e)[:4] for e in GOOD_ENDS], False),
            ([1.0 - saturating(e, 1000) for e in GOOD_ENDS], True),
            ([saturating(e) for e in GOOD_ENDS], False),
            ([BAD] * 5, False),
            ([peaking(e) for e in GOOD_ENDS], False),
            ([1.0 - saturating(e) for e in GOOD_ENDS[:3]] + [saturating(0.9)] * 2, False),
            ([1.0 - saturating(e) for e in GOOD_ENDS[:4]] + [saturating(0.9)], True),
        ],
        ids=[
            "getting worse",
            "four trials",
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


CURVES = st.lists(
    st.floats(-100, 100, width=32) | st.sampled_from([NAN, INF, -INF]), min_size=0, max_size=8
)
RETURNED = st.floats(-100, 100, width=32) | st.sampled_from([INF, -INF, 0.0])


def test_only_the_newest_curves_are_compared_with() -> None:
    newest = history.MAX_CURVES
    trials = [finished({0: 0.0, 1: float(i)}, value=float(i)) for i in range(newest + 5)]
    for number, trial in enumerate(trials):
        trial.number = number
    record = StudyRecord(maximize=True)
    record.update(trials)
    values, final, _ = record.curves(2, 1.0)
    assert values.shape == (newest, 2)
    np.testing.assert_array_equal(final, np.arange(5.0, newest + 5))
    np.testing.assert_array_equal(values[:, 1], final)


@pytest.mark.parametrize("late", [0, 7])
def test_older_curves_are_forgotten_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    monkeypatch.setattr(history, "MAX_CURVES", 10)
    trials = [finished({0: 0.0, 1: float(i)}, value=float(i)) for i in range(57)]
    for number, trial in enumerate(trials):
        trial.number = number
    record = StudyRecord(maximize=True)
    for n in range(3, 58):
        record.update([t for t in trials[:n] if t.number != late])
        record.curves(2, 1.0)
    summary = record.update(trials)  # one of the first finishes last
    assert summary.n_completed == 57
    assert len(record._reporting) <= 20
    values, final, _ = record.curves(2, 1.0)
    np.testing.assert_array_equal(final, np.arange(47.0, 57.0))
    np.testing.assert_array_equal(values[:, 1], final)


class TestKnowledge:
    def test_the_same_object_until_another_trial_completes(self) -> None:
        trials = good_trials()
        for number, trial in enumerate(trials):
            trial.number = number
        record = StudyRecord(maximize=True)
        before = record.update(trials[:3])
        known = record.knowledge(before, N_STEPS, 1.0, Target.LAST)
        assert record.knowledge(record.update(trials[:3]), N_STEPS, 1.0, Target.LAST) is known
        assert record.knowledge(before, N_STEPS, 1.0, Target.BEST).target is Target.BEST
        assert record.knowledge(before, 2 * N_STEPS, 1.0, Target.LAST).completed.shape[1] > N_STEPS
        after = record.knowledge(record.update(trials), N_STEPS, 1.0, Target.LAST)
        assert (known.n_completed, after.n_completed) == (3, len(trials))
        np.testing.assert_array_equal(after.final, [t.value for t in trials])

    def test_an_older_summary_keeps_its_scale(self) -> None:
        """Another thread may see a trial complete between the summary and the question."""
        trials = good_trials()
        for number, trial in enumerate(trials):
            trial.number = number
        record = StudyRecord(maximize=True)
        older = record.update(trials[:3])
        newer = record.update(trials)
        known = record.knowledge(older, N_STEPS, 1.0, Target.LAST)
        assert known.best == older.incumbent
        now = record.knowledge(newer, N_STEPS, 1.0, Target.LAST)
        assert (now.best, now.n_completed) == (newer.incumbent, len(trials))
        assert record.knowledge(older, N_STEPS, 1.0, Target.LAST).best == older.incumbent

    def test_many_horizons_are_not_all_kept(self) -> None:
        trials = good_trials()
        for number, trial in enumerate(trials):
            trial.number = number
        record = StudyRecord(maximize=True)
        summary = record.update(trials)
        for horizon in range(10, 60):
            record.knowledge(summary, horizon, 1.0, Target.LAST)
        assert len(record._knowledge) <= 8


class TestIncremental:
    @given(
        trials=st.lists(
            st.tuples(CURVES, RETURNED, st.sampled_from(["complete", "prune", "fail"])),
            min_size=1,
            max_size=8,
        ),
        data=st.data(),
        maximize=st.booleans(),
    )
    @settings(deadline=None, max_examples=60)
    def test_reading_as_trials_finish_equals_reading_at_the_end(
        self,
        trials: list[tuple[list[float], float, str]],
        data: st.DataObject,
        maximize: bool,
    ) -> None:
        """Trials run side by side and finish in any order; the record looks now and then."""
        study = make_study(direction="maximize" if maximize else "minimize")
        running = [study.ask() for _ in trials]
        record = StudyRecord(maximize)
        for index in data.draw(st.permutations(range(len(trials)))):
            curve, value, outcome = trials[index]
            for step, report in enumerate(curve):
                running[index].report(report, step)
            if outcome == "complete":
                study.tell(running[index], value)
            else:
                state = TrialState.PRUNED if outcome == "prune" else TrialState.FAIL
                study.tell(running[index], state=state)
            if data.draw(st.booleans()):
                so_far = completed(study)
                assert record.update(so_far) == StudyRecord(maximize).update(so_far)
        at_end = completed(study)
        assert record.update(at_end) == StudyRecord(maximize).update(at_end)

    @given(order=st.permutations(range(7)))
    @settings(deadline=None, max_examples=30)
    def test_order_of_the_trials_does_not_matter(self, order: list[int]) -> None:
        trials = [
            *good_trials(),
            finished(reports(peaking(0.7)), value=0.6),
            finished({}, value=0.3),
        ]
        found, expected = summary_of([trials[i] for i in order]), summary_of(trials)
        best = 4  # of good_trials()
        assert found.incumbent_trial == order.index(best)
        assert replace(found, incumbent_trial=best) == expected

    def test_the_incumbent_is_the_first_trial_that_has_the_value(self) -> None:
        summary = summary_of([finished({}, value=value) for value in (0.5, 0.9, 0.9, 0.1)])
        assert summary.incumbent_trial == 1
        assert summary_of([]).incumbent_trial is None

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Numbers of the trials that have been read, filled as it goes."""
        read: list[int] = []
        of = history.FinishedTrial.of

        def counted(trial: FrozenTrial, *settings: object) -> object:
            read.append(trial.number)
            return of(trial, *settings)

        monkeypatch.setattr(history.FinishedTrial, "of", counted)
        return read

    def test_each_trial_is_read_once(self, read: list[int]) -> None:
        study = make_study()
        record = StudyRecord(True)
        for trial in good_trials():
            study.add_trial(trial)
            record.update(completed(study))
            record.update(completed(study))
        assert sorted(read) == list(range(5))

    def test_many_trials(self) -> None:
        study = make_study(finished(reports([0.0, i / 300.0])) for i in range(300))
        record = StudyRecord(True)
        for n in (1, 60, 64, 65, 130, 300):
            summary = record.update(completed(study)[:n])
            assert summary.n_completed == n
            np.testing.assert_allclose(summary.incumbent, (n - 1) / 300.0)

    def test_an_older_list_after_a_newer_one(self, read: list[int]) -> None:
        """Two threads may have read the study in one order and come here in the other."""
        trials = completed(make_study(good_trials()))
        record = StudyRecord(True)
        newest = record.update(trials)
        assert record.update(trials[:4]) == newest
        assert record.update(trials) == newest
        assert sorted(read) == list(range(5))

    @pytest.mark.parametrize("n", [0, 3])
    def test_another_study_with_fewer_trials(self, n: int, read: list[int]) -> None:
        """The study was deleted and one with the same ids was made."""
        record = StudyRecord(True)
        record.update(completed(make_study(good_trials())))
        read.clear()
        trials = completed(make_study(good_trials()[:n]))
        assert record.update(trials).n_completed == n
        assert read == list(range(n))
        assert record.update(trials) == StudyRecord(True).update(trials)

    def test_another_study_whose_first_trial_is_not_known(self) -> None:
        """The first one of the deleted study had failed, and the new one has as many and more."""
        record = StudyRecord(True)
        record.update(completed(make_study(good_trials()))[1:])
        trials = completed(make_study(finished(reports([0.0, 0.1 * i])) for i in range(5)))
        assert record.update(trials) == StudyRecord(True).update(trials)

    def test_another_study_made_of_the_first_trials_of_the_deleted_one(self) -> None:
        record, trials = StudyRecord(True), completed(make_study(good_trials()))
        record.update(trials)
        assert record.update(trials[:3], newest=True) == StudyRecord(True).update(trials[:3])


@pytest.mark.parametrize("n", [100, 128, 300, 1000, 1001, 5000])
def test_a_completed_trial_lies_on_the_knots_as_a_running_one(n: int) -> None:
    """However many its reports are; beyond a thousand but for a fraction of a knot."""
    values = np.arange(1.0, n + 1.0)
    record = StudyRecord(True)
    record.update(completed(make_study(finished(reports(values)) for _ in range(3))))
    curves, _, _ = record.curves(n, 1.0)
    _, running = LearningCurve(values, values, n).on_knots
    apart = np.abs(curves[0] - running) / max(1.0, (n - 1) / 127)
    assert apart.max() <= (1e-9 if n <= 1000 else 0.1)


def moving_now(values: np.ndarray) -> bool:
    return Ending.of(values).moving


class TestStillMoving:
    @pytest.mark.parametrize("n", [5, 8, 10, 20, 64, 300])
    @pytest.mark.parametrize("left", [0.001, 0.01, 0.03, 0.08, 0.3, 0.6])
    def test_by_what_is_left_of_the_way(self, n: int, left: float) -> None:
        """An exponential approach of which this share is left when it ends."""
        values = 1.0 - left ** (np.arange(n) / (n - 1))
        assert moving_now(values) is (left / (1.0 - left) > 0.05)

    def test_other_shapes(self) -> None:
        t = np.arange(30.0)
        assert moving_now(t)  # a straight line
        assert moving_now(t**2)
        assert not moving_now(np.minimum(t, 15))  # stopped once it did not get better
        assert not moving_now(-t)
        assert not moving_now(np.zeros(30))
        noise = np.random.default_rng(0).normal(size=(200, 30))
        assert np.mean([Ending.of(row).moving for row in noise]) < 0.1

    def test_few_reports(self) -> None:
        assert moving_now(np.array([0.1, 0.5]))
        assert not moving_now(np.array([0.5, 0.1]))
        assert not moving_now(np.array([0.5]))


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


class TestToldToStop:
    def test_by_the_trials_attributes_or_by_what_the_pruner_remembers(self) -> None:
        curve = reports(saturating(0.9)[:5])
        attrs = {"lcpruner_reason": "pruned: P = 0.010", "lcpruner_decided_at_step": 4}
        by_attribute = FinishedTrial.of(finished(curve, user_attrs=attrs), True)
        remembered = FinishedTrial.of(finished(curve), True, stopped_at=4)
        for trial in (by_attribute, remembered):
            assert trial is not None
            assert trial.told_to_stop
            assert not trial.has_curve
        for attrs in (
            {"lcpruner_reason": "undecided: P = 0.010", "lcpruner_decided_at_step": 4},
            {"lcpruner_reason": "pruned: P = 0.010", "lcpruner_decided_at_step": 3},
        ):
            ran_on = FinishedTrial.of(finished(curve, user_attrs=attrs), True, stopped_at=2)
            assert ran_on is not None
            assert ran_on.has_curve
