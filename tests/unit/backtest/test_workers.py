"""A recorded study replayed as several workers would have seen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import optuna
import pytest
from backtests import Script, noisy_curves
from helpers import finished, make_study, reports, saturating
from numpy.typing import NDArray
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import RecordedStudy, from_curves, from_study
from optuna_lcpruner.backtest.replay import make_pruner, replay
from optuna_lcpruner.backtest.report import BacktestReport
from optuna_lcpruner.backtest.run import backtest

Array = NDArray[np.float64]

FIVE = np.array(
    [[1.0, 1.5, 2.0], [1.2, 2.6, 4.0], [1.1, 2.5, 5.0], [1.3, 1.6, 3.0], [1.4, 1.7, 1.0]]
)
"""Finals 2, 4, 5, 3, 1: the third is the best."""

looks: list[tuple[int, int]] = []
"""Number and reports of the trials a pruner was asked about."""

states: list[list[tuple[str, int]]] = []
"""State and reports of all trials at each look."""


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    looks.clear()
    states.clear()


class Watching(Script):
    """A script that notes how the study stood at each look."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        looks.append((trial.number, len(trial.intermediate_values)))
        states.append(
            [(t.state.name, len(t.intermediate_values)) for t in study.get_trials(deepcopy=False)]
        )
        return trial.intermediate_values[trial.last_step or 0] in self.stop_at


def timed(hours: Sequence[float], curves: Array = FIVE) -> RecordedStudy:
    """The curves as a study whose trials took so long; 0: only added."""
    trials = []
    for curve, took in zip(curves, hours, strict=True):
        trial = finished(reports(curve))
        trial.datetime_start = datetime(2024, 3, 1, 12)
        trial.datetime_complete = trial.datetime_start + timedelta(hours=took)
        trials.append(trial)
    return from_study(make_study(trials))


def test_as_many_workers_as_trials_have_all_of_them_running_at_once() -> None:
    replay(from_curves(FIVE, "maximize"), range(5), Watching(), n_workers=5)
    assert looks == [(i, n) for n in (1, 2, 3) for i in range(5)]
    for i in range(5):
        assert states[i] == [("RUNNING", 1)] * (i + 1) + [("RUNNING", 0)] * (4 - i)
    assert states[11] == [("COMPLETE", 3), ("RUNNING", 3)] + [("RUNNING", 2)] * 3


def test_more_workers_than_trials_find_nothing_to_do() -> None:
    study = from_curves(FIVE, "maximize")
    result = replay(study, range(5), NopPruner(), n_workers=9)
    assert result.trials == (0, 1, 2, 3, 4)
    assert result.ended == pytest.approx((1.0,) * 5)


def one_by_one(study: RecordedStudy, order: Sequence[int], pruner: BasePruner) -> list[object]:
    """Trials run to their end before the next is asked for."""
    target = optuna.create_study(direction="maximize", pruner=pruner, study_name="backtest")
    fate: list[object] = []
    for index in order:
        recorded, trial, n, stop = study.trials[index], target.ask(), 0, False
        for step, value in zip(recorded.steps, recorded.values, strict=True):
            trial.report(value, step)
            n, stop = n + 1, trial.should_prune()
            if stop:
                break
        if stop:
            target.tell(trial, state=TrialState.PRUNED)
        elif np.isfinite(recorded.value):
            target.tell(trial, recorded.value)
        else:
            target.tell(trial, state=TrialState.FAIL)
        fate.append((index, n, stop))
    return fate


@pytest.mark.parametrize(
    "pruner",
    [
        MedianPruner(2),
        HyperbandPruner(1, 12),
        LearningCurvePruner(12, publish=False),
    ],
    ids=lambda pruner: type(pruner).__name__,
)
def test_one_worker_runs_one_trial_after_the_other(pruner: BasePruner) -> None:
    study = from_curves(noisy_curves(16), "maximize")
    order = np.random.default_rng(1).permutation(16).tolist()
    result = replay(study, order, pruner, n_workers=1)
    again = replay(study, order, pruner)
    assert replace(again, seconds=0.0) == replace(result, seconds=0.0)
    got = list(zip(result.trials, result.spent, result.pruned, strict=True))
    assert got == one_by_one(study, order, pruner)
    assert 0 < sum(result.pruned) < 16
    np.testing.assert_array_equal(result.before, np.cumsum(result.spent) - result.spent)
    np.testing.assert_allclose(result.ended, np.cumsum(result.spent) / study.n_reports)


def test_a_worker_that_is_free_early_begins_the_next_trial() -> None:
    result = replay(from_curves(FIVE, "maximize"), [0, 1, 2], Watching(1.0), n_workers=2)
    assert looks == [(0, 1), (1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (2, 3)]
    assert states[1] == [("PRUNED", 1), ("RUNNING", 1), ("RUNNING", 0)]
    assert (result.spent, result.pruned) == ((1, 3, 3), (True, False, False))
    assert result.before == (0, 0, 1)
    assert result.ended == pytest.approx((1 / 3, 1.0, 4 / 3))


def test_a_trial_that_is_stopped_at_once_frees_its_worker() -> None:
    study = from_curves(FIVE, "maximize")
    result = replay(study, range(5), Watching(*FIVE[:, 0]), n_workers=2)
    assert looks == [(i, 1) for i in range(5)]
    assert result.before == (0, 0, 1, 2, 3)
    assert result.ended == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3, 1.0))


def test_reports_come_in_the_order_of_their_time() -> None:
    """Of two workers; reports at hours 1, 2, 3; 1.6, 3.2, 4.8; 3.7, 4.4, 5.1; 5.8, 6.8, 7.8."""
    study = timed([3.0, 4.8, 2.1, 3.0, 1.0])
    result = replay(study, [0, 1, 2, 3], Watching(), n_workers=2)
    assert looks == [
        *[(0, 1), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (2, 2)],
        *[(1, 3), (2, 3), (3, 1), (3, 2), (3, 3)],
    ]
    assert result.ended == pytest.approx((3.0, 4.8, 5.1, 7.8))
    assert result.before == (0, 0, 4, 8)


def test_a_trial_is_begun_in_the_order_of_the_study_and_has_its_own_time() -> None:
    study = timed([3.0, 30.0, 6.0, 3.0, 3.0])
    result = replay(study, [1, 4, 2, 0, 3], NopPruner(), n_workers=2)
    assert result.trials == (1, 4, 2, 0, 3)
    assert result.ended == pytest.approx((30.0, 3.0, 9.0, 12.0, 15.0))


def lockstep(curves: Array, n_startup_trials: int, n_workers: int) -> list[tuple[int, bool]]:
    """MedianPruner's rule by hand where all steps last alike: one report of each at a time."""
    waiting = list(range(len(curves)))
    running = [waiting.pop(0) for _ in range(n_workers)]
    spent, pruned, completed = [0] * len(curves), [False] * len(curves), []
    while running:
        begun = []
        for i in sorted(running):
            spent[i] += 1
            so_far = curves[i, : spent[i]]
            if len(completed) >= n_startup_trials:
                median = np.median([curves[k, spent[i] - 1] for k in completed])
                pruned[i] = bool(np.isnan(so_far).all() or np.nanmax(so_far) < median)
            if pruned[i] or spent[i] == curves.shape[1]:
                running.remove(i)
                if not pruned[i] and np.isfinite(curves[i, -1]):
                    completed.append(i)
                if waiting:
                    begun.append(waiting.pop(0))
        running += begun
    return list(zip(spent, pruned, strict=True))


@pytest.mark.parametrize("n_workers", [1, 2, 7])
def test_a_replay_by_workers_is_the_median_rule_applied_by_hand(n_workers: int) -> None:
    curves = noisy_curves(40, seed=2)
    study = from_curves(curves, "maximize")
    result = replay(study, range(40), MedianPruner(4), n_workers=n_workers)
    assert list(zip(result.spent, result.pruned, strict=True)) == lockstep(curves, 4, n_workers)
    assert 5 < sum(result.pruned) < 35


def test_we_stop_trials_of_many_workers_before_any_has_completed() -> None:
    ends = np.linspace(0.2, 0.9, 30)
    curves = np.random.default_rng(0).permutation([saturating(end) for end in ends])
    study = from_curves(curves, "maximize")
    result = replay(study, range(30), LearningCurvePruner(20, publish=False), n_workers=30)
    assert 10 < sum(result.pruned) < 30  # the first completes with the last step of all
    best = int(np.argmax(curves[:, -1]))
    assert not result.pruned[best]


@pytest.mark.parametrize("spec", ["hyperband", "halving", "percentile", "patient", "wilcoxon"])
def test_peers_stop_trials_of_workers_too(spec: str) -> None:
    study = from_curves(noisy_curves(40), "maximize")
    pruner = make_pruner(spec, study)
    result = replay(study, range(40), pruner, n_workers=4)
    assert result.trials == tuple(range(40))
    assert 0 < sum(result.pruned) < 40


def test_a_trial_is_begun_until_the_reports_of_all_workers_are_enough() -> None:
    study = from_curves(FIVE, "maximize")

    def run(n_trials: int, n_reports: float) -> tuple[int, ...]:
        limits = {"n_trials": n_trials, "n_reports": n_reports}
        return replay(study, range(5), NopPruner(), n_workers=2, **limits).trials

    assert run(0, 0) == ()
    assert run(1, 0) == (0,)
    assert run(3, 0) == (0, 1, 2)
    # When the first of two ends, 5 reports have been made.
    assert run(1, 5) == (0, 1)
    assert run(1, 6) == (0, 1, 2)
    assert run(1, 6.5) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("n_workers", "budget", "kept"), [(1, 2.0, False), (2, 2.0, True), (2, 5 / 3, False)]
)
def test_a_budget_is_what_all_workers_spend(n_workers: int, budget: float, kept: bool) -> None:
    report = backtest(
        FIVE, ["nop"], direction="maximize", n_orders=1, budget=budget, n_workers=n_workers
    )
    assert report.results[0].original.budget_kept is kept
    assert report.results[0].original.cost == 1.0


def test_how_long_it_takes() -> None:
    def durations(n_workers: int, n_trials: int = 5) -> tuple[float, float]:
        settings = {"n_orders": 1, "n_workers": n_workers, "n_trials": n_trials, "budget": 5.0}
        alike = backtest(FIVE, ["nop"], direction="maximize", **settings)
        hours = backtest(timed([3.0, 1.0, 1.0, 2.0, 1.0]), ["nop"], **settings)
        return tuple(r.results[0].original.duration for r in (alike, hours))

    assert durations(1) == pytest.approx((5.0, 8.0))
    assert durations(2) == pytest.approx((3.0, 4.0))  # 3 + 1; 1 + 1 + 2
    assert durations(5) == pytest.approx((1.0, 3.0))
    assert durations(2, n_trials=2) == pytest.approx((1.0, 3.0))  # whatever comes after these two


def test_a_step_takes_its_share_of_its_trial() -> None:
    study = timed([3.0, 0.0, -1.0, 9.0, 6.0])
    assert [trial.seconds for trial in study.trials] == [10800.0, None, None, 32400.0, 21600.0]
    assert study.in_hours
    assert study.step_times == pytest.approx((1.0, 2.0, 2.0, 3.0, 2.0))  # unknown: the median
    unequal = [finished(reports(FIVE[0, :n])) for n in (1, 2, 3, 3, 3)]
    for trial in unequal:
        assert trial.datetime_start is not None
        trial.datetime_complete = trial.datetime_start + timedelta(hours=6)
    assert from_study(make_study(unequal)).step_times == pytest.approx((6.0, 3.0, 2.0, 2.0, 2.0))


def test_in_a_replay_the_slow_ones_are_stopped_sooner() -> None:
    """Twins but for the time they take: no clock runs in a replay."""
    sound = [curve for curve in noisy_curves(18) if np.isfinite(curve[-1])]
    curves = [*sound, *(curve - 1e-3 for curve in sound)]
    trials = [finished(reports(curve)) for curve in curves]
    for i, trial in enumerate(trials):
        assert trial.datetime_start is not None
        trial.datetime_complete = trial.datetime_start + timedelta(hours=1 if i < 16 else 10)
    study = from_study(make_study(trials))
    order = np.random.default_rng(0).permutation(32)
    spent = {}
    for cost in ("steps", "time"):
        ran = replay(study, order.tolist(), LearningCurvePruner(12, cost=cost))
        by_trial = np.array(ran.spent)[np.argsort(ran.trials)]
        spent[cost] = by_trial[:16].sum(), by_trial[16:].sum()
    assert spent["time"][0] > spent["steps"][0]
    assert spent["time"][1] < spent["steps"][1]


def test_without_times_all_steps_are_alike() -> None:
    for study in (timed([0.0] * 5), from_curves(FIVE, "maximize")):
        assert not study.in_hours
        assert study.step_times == pytest.approx((1 / 3,) * 5)


def without_ms(report: BacktestReport) -> list[object]:
    return [
        replace(outcome, ms=0.0)
        for result in report.results
        for outcome in (result.original, *result.orders)
    ]


def test_the_same_arguments_give_the_same_report() -> None:
    curves, pruners = noisy_curves(12), ["lcpruner:risk=0.8", "hyperband", "patient:patience=3"]

    def run(n_workers: int) -> list[object]:
        report = backtest(curves, pruners, direction="maximize", n_orders=1, n_workers=n_workers)
        return without_ms(report)

    assert run(6) == run(6)
    assert run(6) != run(1)


def test_the_report_names_the_workers_and_the_unit_of_time() -> None:
    settings = {"n_orders": 2, "n_workers": 2}
    report = backtest(timed([3.0, 1.0, 1.0, 2.0, 1.0]), ["nop", "median"], **settings)
    lines = report.table().splitlines()
    assert lines[1].startswith("replayed by 2 workers in 2 random orders")
    assert "  time         until the last of these trials has ended, in hours" in lines
    head, nop = (next(line for line in lines if line.startswith(s)) for s in ("pruner", "nop"))
    columns = head[: head.index("time") + 4].split()
    assert columns == ["pruner", "steps", "spent", "min", "saved", "time"]
    mean = report.results[0].interval("duration").mean
    assert nop[: head.index("time") + 4].split()[-1] == f"{mean:.4g}"
    said = report.to_dict()
    assert (said["n_workers"], said["duration_unit"]) == (2, "hours")
    assert said["pruners"][0]["duration"]["mean"] == mean
    alike = backtest(FIVE, ["nop"], direction="maximize", **settings)
    assert "has ended, in full trainings, all steps lasting alike" in alike.table()


def test_the_report_of_one_worker_says_nothing_about_workers() -> None:
    text = backtest(timed([1.0] * 5), ["nop"], n_orders=2).table()
    assert "replayed in 2 random orders" in text
    assert "worker" not in text
    assert "time" not in text


def test_the_figure_names_the_workers() -> None:
    pytest.importorskip("matplotlib")
    for n_workers, end in ((1, "random orders"), (2, "random orders by 2 workers")):
        report = backtest(FIVE, ["nop"], direction="maximize", n_orders=2, n_workers=n_workers)
        assert report.figure().get_suptitle().endswith(end)


def test_a_pruner_that_fails_is_reported_with_its_trial() -> None:
    class Failing(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            if trial.number == 1 and trial.last_step == 1:
                raise RuntimeError("broken")
            return False

    with pytest.raises(InputError, match=r"Failing failed at step 1 of trial 3: broken$"):
        replay(from_curves(FIVE, "maximize"), [4, 3, 2], Failing(), n_workers=3)


@pytest.mark.parametrize("n_workers", [0, -1])
def test_fewer_than_one_worker(n_workers: int) -> None:
    with pytest.raises(InputError, match=f"n_workers must be at least 1, but got {n_workers}"):
        backtest(FIVE, ["nop"], direction="maximize", n_workers=n_workers)
