"""StudyRecord: what the completed trials of a study say, however they came in."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
from helpers import N_STEPS, finished, good_trials, make_study, reports, saturating
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState
from summaries import completed, peaking, summary_of

from optuna_lcpruner.curves.horizon import Ending
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.interface import Target
from optuna_lcpruner.study import history
from optuna_lcpruner.study.history import FinishedTrial, StudyRecord

NAN, INF = math.nan, math.inf


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
    read = weakref.WeakValueDictionary[int, FinishedTrial]()
    of = FinishedTrial.of

    def noted(trial: FrozenTrial, *settings: object) -> object:
        found = of(trial, *settings)  # type: ignore[arg-type]
        read[trial.number] = found  # type: ignore[assignment]
        return found

    monkeypatch.setattr(FinishedTrial, "of", noted)
    trials = [finished({0: 0.0, 1: float(i)}, value=float(i)) for i in range(37)]
    for number, trial in enumerate(trials):
        trial.number = number
    record = StudyRecord(maximize=True)
    for n in range(3, 38):
        record.update([t for t in trials[:n] if t.number != late])
        record.curves(2, 1.0)
    summary = record.update(trials)  # one of the first finishes last
    assert summary.n_completed == 37
    gc.collect()
    assert len(read) <= 20
    values, final, _ = record.curves(2, 1.0)
    np.testing.assert_array_equal(final, np.arange(27.0, 37.0))
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
        known = [
            weakref.ref(record.knowledge(summary, horizon, 1.0, Target.LAST))
            for horizon in range(10, 60)
        ]
        gc.collect()
        assert sum(one() is not None for one in known) <= 8


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
    @settings(deadline=None)
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
    @settings(deadline=None, max_examples=settings.default.max_examples // 2)
    def test_order_of_the_trials_does_not_matter(self, order: list[int]) -> None:
        trials = [
            *good_trials(),
            finished(reports(peaking(0.7)), value=0.6),
            finished({}, value=0.3),
        ]
        found, expected = summary_of([trials[i] for i in order]), summary_of(trials)
        best = 4  # of good_trials()
        assert found.incumbent_trial == order.index(best)
        as_expected = replace(found, incumbent_trial=best, starts=expected.starts)
        assert as_expected == expected

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
