from __future__ import annotations

import importlib.util
import json
import math
import os
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pytest
import scipy
from helpers import (
    SAYS_CONSTRAINTS,
    constrained,
    finished,
    judge,
    make_study,
    reports,
    saturating,
)
from numpy.typing import NDArray
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner import LearningCurvePruner, PruneIfAny
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import RecordedStudy, from_curves, from_study
from optuna_lcpruner.backtest.replay import (
    DEFAULT_PRUNERS,
    make_pruner,
    pruner_names,
    replay,
)
from optuna_lcpruner.backtest.report import BacktestReport, Outcome, PrunerResult, Share
from optuna_lcpruner.backtest.run import backtest
from optuna_lcpruner.records import ledger_writer

Array = NDArray[np.float64]
NAN = float("nan")
YARDSTICK = os.environ.get("OPTUNA_LCPRUNER_YARDSTICK", "")


def noisy_curves(n: int = 30, n_steps: int = 12, seed: int = 0) -> Array:
    """Saturating curves that cross, larger is better, two of which diverge."""
    rng = np.random.default_rng(seed)
    t = np.arange(1, n_steps + 1)
    ends, rates = rng.uniform(0.3, 0.9, (n, 1)), rng.uniform(0.05, 0.8, (n, 1))
    curves = ends * (1 - np.exp(-rates * t)) + rng.normal(0, 0.01, (n, n_steps))
    curves[3, 5:] = curves[n // 2, 2:] = np.nan
    return curves


class Script(BasePruner):
    """Stops a trial once it has reported a value that is to be stopped; keeps what it saw."""

    def __init__(self, *stop_at: float) -> None:
        self.stop_at = stop_at

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        seen.append((study, trial))
        return trial.intermediate_values[trial.last_step or 0] in self.stop_at


seen: list[tuple[Study, FrozenTrial]] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def by_hand(curves: Array, maximize: bool, n_startup_trials: int) -> list[tuple[int, bool]]:
    """MedianPruner's rule on a matrix: reports made and whether pruned, row by row.

    A trial is stopped where its best value so far is worse than the median of the completed trials'
    values at that step, or is NaN.
    """
    fate, completed = [], np.empty((0, curves.shape[1]))
    for curve in curves if maximize else -curves:
        stopped = None
        for n in range(1, curve.size + 1):
            if len(completed) < n_startup_trials:
                break
            so_far = curve[:n][~np.isnan(curve[:n])]
            if so_far.size == 0 or so_far.max() < np.median(completed[:, n - 1]):
                stopped = n
                break
        fate.append((stopped or curve.size, stopped is not None))
        if stopped is None and np.isfinite(curve[-1]):
            completed = np.vstack([completed, curve])
    return fate


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_replay_is_the_median_rule_applied_by_hand(maximize: bool, seed: int) -> None:
    curves = noisy_curves(seed=seed) * (1 if maximize else -1)
    order = np.random.default_rng(seed).permutation(len(curves))
    study = from_curves(curves, "maximize" if maximize else "minimize")
    result = replay(study, order.tolist(), MedianPruner(n_startup_trials=4))
    expected = by_hand(curves[order], maximize, 4)
    assert list(zip(result.spent, result.pruned, strict=True)) == expected
    assert result.trials == tuple(order)
    assert 5 < sum(result.pruned) < 25


def yardstick() -> ModuleType:
    if not Path(YARDSTICK).is_file():
        pytest.skip("OPTUNA_LCPRUNER_YARDSTICK is not the path of an independent replay")
    spec = importlib.util.spec_from_file_location("yardstick", YARDSTICK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("budget", [None, 6.0])
@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize(
    "pruner",
    [
        NopPruner(),
        MedianPruner(5, 3),
        PercentilePruner(25.0, 5, 3),
        SuccessiveHalvingPruner(1, 4),
        LearningCurvePruner(12, publish=False),
        LearningCurvePruner(12, threshold=0.05, engine="closed_form", publish=False),
    ],
    ids=lambda pruner: type(pruner).__name__,
)
def test_the_numbers_are_those_of_an_independent_replay(
    pruner: BasePruner, maximize: bool, budget: float | None
) -> None:
    other = yardstick()
    curves = noisy_curves() * (1 if maximize else -1)
    direction = "maximize" if maximize else "minimize"
    n_trials = len(curves) if budget else 20
    report = backtest(
        curves,
        {"it": pruner},
        direction=direction,
        n_orders=2,
        n_trials=20,
        budget=budget or 6.0,
    )
    for outcome in (report.results[0].original, *report.results[0].orders):
        order = (
            np.random.default_rng([0, outcome.order]).permutation(len(curves))
            if outcome.order
            else np.arange(len(curves))
        )
        rows = curves[order][:n_trials]
        limit = math.inf if budget is None else budget * rows.shape[1]
        spent, found, _ = other.run(rows, maximize, pruner, len(rows), limit)
        oriented, found = (-x if direction == "minimize" else x for x in (rows[:, -1], found))
        best, median = np.nanmax(oriented), np.nanmedian(oriented)
        got = np.nanmax(found) if np.isfinite(found).any() else -math.inf
        regret = min(1.0, (best - got) / (best - median))
        if budget is None:
            assert outcome.cost == pytest.approx(spent / rows.size)
            assert (outcome.regret, outcome.kept) == (pytest.approx(regret), got >= best)
        else:
            assert (outcome.budget_regret, outcome.budget_kept) == (
                pytest.approx(regret),
                got >= best,
            )


def test_a_trial_replays_its_own_steps_and_returns_its_own_value() -> None:
    trials = [finished({10: 0.1 * i, 25: 0.2 * i, 30: 0.3 * i}, value=float(i)) for i in range(5)]
    trials.append(finished({1: 9.0}, value=0.5, user_attrs={"lcpruner_n_steps": 77}))
    replay(from_study(make_study(trials, direction="minimize")), [5, 0, 2], Script(0.4))
    study = seen[0][0]
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert [trial.value for trial in study.trials] == [0.5, 0.0, 0.4]
    assert study.trials[0].intermediate_values == {1: 9.0}
    assert study.trials[0].user_attrs == {"lcpruner_n_steps": 77}
    assert study.trials[1].intermediate_values == {10: 0.0, 25: 0.0, 30: 0.0}
    assert study.trials[2].intermediate_values == {10: 0.2, 25: 0.4}


def test_a_diverged_training_reports_nan_to_its_end_and_fails() -> None:
    curves = [[1.0, NAN, NAN], *[[1.0, 2.0, 3.0]] * 5]
    result = replay(from_curves(curves, "maximize"), [0, 1], NopPruner())
    assert (result.spent, result.pruned) == ((3, 3), (False, False))
    report = backtest(curves, ["nop"], direction="maximize", n_orders=1)
    assert report.results[0].original.cost == 1.0
    assert "1 of the trials diverged" in report.table()


def test_an_infinite_value_is_no_result() -> None:
    curves = [[1.0, float("inf")], *[[1.0, 2.0]] * 5]
    replay(from_curves(curves, "maximize"), [0, 1], Script())
    assert [trial.state.name for trial in seen[0][0].trials] == ["FAIL", "COMPLETE"]


def test_a_replay_ends_when_both_trials_and_reports_are_enough() -> None:
    study = from_curves(FIVE, "maximize")

    def run(**limits: Any) -> tuple[int, ...]:
        return replay(study, [4, 3, 2, 1, 0], NopPruner(), **limits).trials

    assert run() == (4, 3, 2, 1, 0)
    assert run(n_trials=2) == (4, 3)
    assert run(n_trials=1, n_reports=6) == (4, 3)
    assert run(n_trials=1, n_reports=6.5) == (4, 3, 2)
    assert run(n_trials=1, n_reports=99) == (4, 3, 2, 1, 0)
    assert run(n_trials=0) == ()


def test_our_decisions_are_not_published_in_a_replay() -> None:
    class Ours(LearningCurvePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            seen.append((study, trial))
            return super().prune(study, trial)

    curves = [saturating(end) for end in (0.8, 0.82, 0.84, 0.86, 0.9)] + [np.full(20, 0.1)]
    replay(from_curves(curves, "maximize"), range(6), Ours(20, publish=True))
    assert [trial.user_attrs for trial in seen[-1][0].trials] == [{}] * 6


def test_nor_written_to_the_ledger(tmp_path: Path) -> None:
    ours = LearningCurvePruner(12, ledger=f"sqlite:///{tmp_path}/mine.db")
    pruners = {"mine": ours, "both": PruneIfAny([ours, NopPruner()])}
    backtest(noisy_curves(), pruners, direction="maximize", n_orders=1)
    assert ledger_writer.flush()
    assert list(tmp_path.iterdir()) == []


def test_a_replay_leaves_the_pruner_and_the_study_as_they_were() -> None:
    pruner, ours = HyperbandPruner(max_resource=12), LearningCurvePruner(12)
    study = make_study(finished(reports(curve)) for curve in noisy_curves() if curve[-1] > 0)
    before = study.trials
    backtest(study, [pruner, ours], n_orders=1)
    assert pruner._pruners == []
    assert len(ours._memory._memos) == 0
    assert ours._memory.publish
    assert study.trials == before


def test_the_log_is_quiet_during_a_replay_and_afterwards_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Shouting(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            optuna.logging.get_logger("optuna.shout").warning("heard")
            raise RuntimeError("broken\nbeyond repair")

    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        with pytest.raises(InputError, match=r"Shouting failed at step 0 of trial 0: broken$"):
            replay(from_curves([[1.0]] * 5, "maximize"), [0], Shouting())
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert "heard" not in capsys.readouterr().err


FIVE = np.array(
    [[1.0, 1.5, 2.0], [1.1, 2.5, 5.0], [1.2, 2.6, 4.0], [1.3, 1.6, 3.0], [1.4, 1.7, 1.0]]
)
"""Finals 2, 5, 4, 3, 1: best 5, median 3."""


@pytest.mark.parametrize("sign", [1, -1])
def test_cost_and_regret_and_when_the_best_were_stopped(sign: int) -> None:
    report = backtest(
        sign * FIVE,
        {"best": Script(sign * 2.5), "all": Script(*(sign * FIVE[:, 0])), "none": Script()},
        direction="maximize" if sign > 0 else "minimize",
        n_orders=3,
        budget=1.0,
    )
    best, everything, none = (result.original for result in report.results)
    assert report.top == (1, 2, 3)
    assert (best.cost, best.regret, best.kept, best.n_pruned) == (14 / 15, (5 - 4) / 2, False, 1)
    assert best.stopped == (2, None, None)
    assert (everything.cost, everything.regret, everything.n_pruned) == (5 / 15, 1.0, 5)
    assert everything.stopped == (1, 1, 1)
    assert (none.cost, none.regret, none.kept, none.stopped) == (1.0, 0.0, True, (None,) * 3)
    for outcome in report.results[0].orders:
        assert (outcome.cost, outcome.regret, outcome.stopped) == (14 / 15, 0.5, (2, None, None))
    assert report.results[0].top_stopped(0) == (Share(3, 3), 2.0)
    share, median = report.results[2].top_stopped(0)
    assert share == Share(0, 3)
    assert math.isnan(median)


def five_and_two(how: str = "list", sign: int = 1) -> Study:
    """``FIVE``, and two infeasible trials that end better than all of them."""
    curves = sign * np.vstack([FIVE, [1.1, 2.7, 9.0], [1.2, 2.8, 8.0]])
    trials = [constrained(finished(reports(curve)), -1.0, 0.0, how=how) for curve in curves[:5]]
    trials += [constrained(finished(reports(c)), -1.0, 0.5, how=how) for c in curves[5:]]
    return make_study(trials, direction="maximize" if sign > 0 else "minimize")


@pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_infeasible_trial_is_never_the_best(sign: int, how: str) -> None:
    report = backtest(
        five_and_two(how, sign),
        {"best": Script(sign * 2.5), "infeasible": Script(sign * 2.7, sign * 2.8)},
        n_orders=3,
        top=9,
    )
    best, infeasible = (result.original for result in report.results)
    assert report.top == (1, 2, 3, 0, 4)
    assert (best.cost, best.regret, best.kept, best.n_pruned) == (20 / 21, 0.5, False, 1)
    assert (best.budget_regret, best.budget_kept) == (0.5, False)
    assert (infeasible.cost, infeasible.regret, infeasible.kept) == (19 / 21, 0.0, True)
    for outcome in report.results[0].orders:
        assert (outcome.regret, outcome.kept) == (0.5, False)
    assert "2 of the trials are infeasible: none of them is the best" in report.table().splitlines()
    assert report.to_dict()["n_infeasible"] == 2


def test_nothing_is_lost_where_no_feasible_trial_is_run() -> None:
    trials = [constrained(finished(reports(curve)), 1.0) for curve in FIVE[:3]]
    study = make_study([*trials, *(finished(reports(curve)) for curve in FIVE[3:])])
    report = backtest(study, {"it": Script(*FIVE[:, 0])}, n_orders=1, n_trials=2)
    assert (report.results[0].original.regret, report.results[0].original.kept) == (0.0, True)


@pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
def test_a_replayed_trial_has_its_constraints_once_it_has_ended(how: str) -> None:
    class Watching(Script):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            assert not any(key.startswith("constraints") for key in trial.system_attrs)
            return super().prune(study, trial)

    replay(from_study(five_and_two(how)), [1, 5, 6], Watching(2.8))
    study = seen[0][0]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    given = [trial.system_attrs.get("constraints") for trial in study.trials]
    assert given == [[-1.0, 0.0], [-1.0, 0.5], None]
    assert study.best_trial.number == 0  # as Optuna judges it
    if hasattr(study.trials[0], "constraints"):
        assert [list(t.constraints.values()) for t in study.trials[:2]] == given[:2]


def test_without_constraints_a_replayed_trial_has_none() -> None:
    replay(from_curves(FIVE, "maximize"), [0, 1], Script())
    assert [trial.system_attrs for trial in seen[0][0].trials] == [{}, {}]


def test_orders_that_do_not_run_a_trial_say_nothing_about_it() -> None:
    ran = [replace(outcomes(1, 0.5)[0], stopped=(stop,)) for stop in (0, 0, 6, None)]
    assert PrunerResult("it", False, ran[0], tuple(ran)).top_stopped(0) == (Share(1, 2), 6.0)
    never = PrunerResult("it", False, ran[0], tuple(ran[:2])).top_stopped(0)
    assert never[0] == Share(0, 0)


def test_a_tie_with_the_best_is_as_good() -> None:
    tied = np.vstack([FIVE, [1.0, 4.9, 5.0]])
    report = backtest(tied, {"it": Script(2.5)}, direction="maximize", n_orders=1)
    assert (report.results[0].original.kept, report.results[0].original.regret) == (True, 0.0)
    flat = backtest(np.ones((5, 2)), {"it": Script(1.0)}, direction="maximize", n_orders=1)
    assert flat.results[0].original.regret == 1.0  # nothing was found at all


@pytest.mark.parametrize(
    ("budget", "regret", "found", "ran_out"),
    [
        (1.0, 1.0, False, False),  # trial 0 only: worse than the median trial
        (1.1, 1.0, False, False),  # trial 1 is begun, and stopped
        (5 / 3, 1.0, False, False),  # 5 reports are spent before trial 2, which is not begun
        (2.0, 0.5, False, False),
        (5.0, 0.5, False, True),
    ],
)
def test_a_budget_is_spent_until_the_last_trial_begun_ends(
    budget: float, regret: float, found: bool, ran_out: bool
) -> None:
    report = backtest(
        FIVE, {"it": Script(2.5)}, direction="maximize", n_orders=1, n_trials=2, budget=budget
    )
    outcome = report.results[0].original
    assert (outcome.budget_regret, outcome.budget_kept) == (regret, found)
    assert outcome.ran_out == ran_out
    assert outcome.stopped == ((2, 0, 0) if budget < 2 else (2, None, 0 if budget == 2 else None))
    # The first two alone: 5 of their 6 reports, and 2.0 instead of 5.0 (median 3.5).
    assert outcome.cost == pytest.approx(5 / 6)
    assert outcome.regret == 1.0


def without_times(report: BacktestReport) -> Any:
    results = [
        [replace(outcome, ms=0.0) for outcome in (result.original, *result.orders)]
        for result in report.results
    ]
    return report.top, results


SOME = ("lcpruner:risk=0.8", "hyperband", "patient:patience=3")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_report_in_any_number_of_processes() -> None:
    calls: list[tuple[int, int]] = []
    curves = noisy_curves(16)

    def run(**settings: Any) -> Any:
        return without_times(backtest(curves, SOME, direction="maximize", n_orders=3, **settings))

    once = run(progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 12) for done in range(1, 13)]
    assert run(jobs=2) == once
    assert run(seed=1) != once


@pytest.mark.slow
def test_a_pruner_that_fails_in_another_process_is_reported() -> None:
    with pytest.raises(InputError, match=r"HyperbandPruner failed at step 0 of trial \d"):
        backtest(
            FIVE, ["nop", "hyperband:reduction_factor=1"], direction="maximize", n_orders=2, jobs=2
        )


def test_minimizing_the_negative_is_maximizing() -> None:
    curves, pruners = noisy_curves(20), [*SOME, "median", "halving"]
    up = backtest(curves, pruners, direction="maximize", n_orders=2)
    down = backtest(-curves, pruners, direction="minimize", n_orders=2)
    for result, mirrored in zip(up.results, down.results, strict=True):
        for one, other in zip(result.orders, mirrored.orders, strict=True):
            assert replace(one, ms=0.0) == replace(other, ms=0.0)
    assert sum(outcome.n_pruned for result in up.results for outcome in result.orders) > 50


def test_our_decisions_in_a_replay_are_those_in_a_study() -> None:
    curves = [saturating(end) for end in (0.8, 0.82, 0.84, 0.86, 0.9)] + [np.full(20, 0.1)]
    result = replay(from_curves(curves, "maximize"), range(6), LearningCurvePruner(20))
    assert result.pruned == (False,) * 5 + (True,)
    stopped = reports(curves[5][: result.spent[5]])
    study = make_study(finished(reports(curve)) for curve in curves[:5])
    assert judge(study, LearningCurvePruner(20), stopped).prune
    stopped.popitem()
    assert not judge(study, LearningCurvePruner(20), stopped).prune


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_orders": 0}, "n_orders must be at least 1, but got 0"),
        ({"jobs": 0}, "jobs must be at least 1, but got 0"),
        ({"top": 0}, "top must be at least 1, but got 0"),
        ({"seed": -1}, "seed must be at least 0, but got -1"),
        ({"budget": 0.0}, "budget must be above 0, but got 0"),
        ({"budget": NAN}, "budget must be above 0, but got nan"),
        ({"n_trials": 1}, "n_trials must be at least 2, but got 1"),
        ({"n_steps": 0.5}, "n_steps must be at least 1, but got 0.5"),
        ({"direction": None}, "direction must be 'minimize' or 'maximize', but got None"),
        ({"direction": "up"}, "direction must be 'minimize' or 'maximize', but got 'up'"),
        ({"pruners": []}, "no pruner given"),
        ({"pruners": ["nop", "nop"]}, "given twice: nop"),
        ({"pruners": [NopPruner(), NopPruner()]}, "given twice: NopPruner"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        backtest(FIVE, **{"direction": "maximize", **arguments})


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (make_study, {"direction": "maximize"}, "direction is that of the study"),
        (lambda trials: from_study(make_study(trials)), {"direction": "maximize"}, "direction is"),
        (lambda trials: from_study(make_study(trials)), {"n_steps": 3}, "n_steps is that of the"),
    ],
)
def test_what_the_curves_say_themselves(
    source: Any, arguments: dict[str, Any], message: str
) -> None:
    curves = source([finished(reports(curve)) for curve in FIVE])
    with pytest.raises(InputError, match=message):
        backtest(curves, ["nop"], n_orders=1, **arguments)


STUDY = from_curves(noisy_curves(n_steps=50), "maximize")


@pytest.mark.parametrize(
    ("spec", "kind", "attributes"),
    [
        ("lcpruner", LearningCurvePruner, {"_conditions.n_steps": 50, "_memory.publish": False}),
        ("lcpruner:n_steps=9,target=best", LearningCurvePruner, {"_conditions.n_steps": 9}),
        ("lcpruner:n_steps=none", LearningCurvePruner, {"_conditions.n_steps": None}),
        ("nop", NopPruner, {}),
        ("median: n_warmup_steps = 3", MedianPruner, {"_n_warmup_steps": 3, "_percentile": 50.0}),
        ("percentile", PercentilePruner, {"_percentile": 25.0}),
        ("percentile:percentile=40", PercentilePruner, {"_percentile": 40}),
        ("halving", SuccessiveHalvingPruner, {"_reduction_factor": 4, "_min_resource": None}),
        ("hyperband", HyperbandPruner, {"_max_resource": 50, "_min_resource": 1}),
        ("hyperband:max_resource=auto", HyperbandPruner, {"_max_resource": "auto"}),
        ("patient:patience=3", PatientPruner, {"_patience": 3}),
    ],
)
def test_a_name_and_its_settings(spec: str, kind: type, attributes: dict[str, Any]) -> None:
    pruner = make_pruner(spec, STUDY)
    assert type(pruner) is kind
    assert {name: attrgetter(name)(pruner) for name in attributes} == attributes


def test_names_and_rules_of_ours() -> None:
    rule = make_pruner("lcpruner:threshold=0.05,engine=closed_form", STUDY)
    assert isinstance(rule, LearningCurvePruner)
    assert rule._rule.threshold == 0.05
    patient = make_pruner("patient:wrapped=lcpruner,patience=1", STUDY)
    assert isinstance(patient, PatientPruner)
    assert isinstance(patient._wrapped_pruner, LearningCurvePruner)
    announced = make_pruner("lcpruner", replace(STUDY, announced=True))
    assert isinstance(announced, LearningCurvePruner)
    assert announced._conditions.n_steps is None  # each trial says it itself
    steps_of_500 = replace(STUDY, n_steps=5000, stride=500.0)
    hyperband = make_pruner("hyperband", steps_of_500)
    assert isinstance(hyperband, HyperbandPruner)
    assert (hyperband._min_resource, hyperband._max_resource) == (500, 5000)


def test_every_name_makes_a_pruner_and_the_defaults_are_eight() -> None:
    needed = {"threshold": ":upper=0.5"}
    for name in pruner_names():
        assert isinstance(make_pruner(name + needed.get(name, ""), STUDY), BasePruner)
    assert len(DEFAULT_PRUNERS) == 8
    assert "publish" not in pruner_names()["lcpruner"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("medium", "unknown pruner 'medium'; known are lcpruner, nop, median"),
        ("median:warmup=3", "unknown setting 'warmup'; its settings are n_startup_trials"),
        ("nop:a=1", "unknown setting 'a'; it has no settings"),
        ("lcpruner:publish=true", "unknown setting 'publish'"),
        ("median:n_warmup_steps", "give 'n_warmup_steps' a value"),
        ("median:n_warmup_steps=", "give 'n_warmup_steps' a value"),
        ("median:n_warmup_steps=x", "n_warmup_steps must be a number, but got 'x'"),
        ("lcpruner:risk=2", "risk must be between 0 and 1, but got 2"),
        ("lcpruner:risk=True", "risk must be a number, but got True"),
        ("lcpruner:risk=none", "risk must be a number, but got 'none'"),
        ("lcpruner:engine=magic", "engine must be one of 'pool', .*, but got 'magic'"),
        ("patient:wrapped=medium", "unknown pruner 'medium'"),
        ("threshold", "Either lower or upper must be specified"),
    ],
)
def test_a_name_or_setting_that_cannot_be(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_pruner(spec, STUDY)


def outcomes(kept: int, cost: float, n: int = 20) -> tuple[Outcome, ...]:
    return tuple(
        Outcome(i, cost, 0.0, i < kept, 0, 0.0, True, False, (None,), 1.0) for i in range(n)
    )


def result(name: str, kept: int, cost: float, original: bool = True) -> PrunerResult:
    first = replace(outcomes(0, cost)[0], kept=original)
    return PrunerResult(name, name.startswith("lcpruner"), first, outcomes(kept, cost))


def advice(*results: PrunerResult) -> str:
    return BacktestReport(STUDY, 30, 5.0, (0,), results).advice


def test_the_advice_is_the_cheapest_setting_that_keeps_the_best() -> None:
    careful, middle = result("lcpruner:risk=0.1", 20, 0.5), result("lcpruner:risk=0.4", 19, 0.4)
    bold = result("lcpruner:risk=0.9", 18, 0.2)
    said = advice(careful, middle, bold, result("median", 18, 0.1), result("nop", 20, 1.0))
    assert said.startswith("Use lcpruner:risk=0.4: ")
    assert "(19 of 20)" in said
    assert said.endswith("at 40% of the steps.")
    assert "though halving would have done so for 30%" in advice(middle, result("halving", 19, 0.3))
    assert "not in the original order" in advice(result("lcpruner", 20, 0.5, original=False))


def test_the_advice_says_when_there_is_none() -> None:
    none = advice(result("lcpruner:risk=0.5", 12, 0.3), result("lcpruner:risk=0.2", 18, 0.6))
    assert none.startswith("No lcpruner setting here would have kept the best trial in 95%")
    assert "closest is lcpruner:risk=0.2, in 18 of 20 for 60%" in none
    assert "none to advise" in advice(result("median", 20, 0.3))


@pytest.mark.parametrize(("count", "n"), [(0, 20), (20, 20), (19, 20), (3, 7), (1, 1)])
def test_the_interval_of_a_share(count: int, n: int) -> None:
    """Wilson's ends are 1.96 of their own standard errors from the share."""
    low, high = Share(count, n).interval
    assert 0.0 <= low < high <= 1.0
    for end in (low, high):
        reach = scipy.stats.norm.ppf(0.975) * np.sqrt(end * (1.0 - end) / n)
        np.testing.assert_allclose(abs(count / n - end), reach, rtol=1e-9, atol=1e-9)


def test_the_interval_of_no_share() -> None:
    assert Share(0, 0).interval == (0.0, 1.0)


@pytest.fixture(scope="module")
def report() -> BacktestReport:
    trials = [finished(reports(curve)) for curve in noisy_curves(20) if curve[-1] > 0]
    trials += [finished(reports([0.5]), state=TrialState.PRUNED)] * 3
    study = make_study(trials)
    return backtest(study, [*SOME, "median", "nop"], n_orders=4, top=2)


def test_the_table(report: BacktestReport) -> None:
    text = report.table()
    lines = text.splitlines()
    assert "18 trials, maximize, a full training is 12 steps" in lines[0]
    assert lines[1] == "left out: 3 pruned"
    nop = next(line for line in lines if line.startswith("nop"))
    assert nop.split()[1:4] == ["100%", "[100,", "100]"]
    assert "4/4 [51, 100]" in nop
    assert max(map(len, lines[:-1])) <= 130
    best = report.study.trials[report.top[0]]
    assert f"trial {best.number} ({best.value:.5g})" in text
    assert lines[-1] == report.advice
    costs = [r.interval("cost") for r in report.results]
    assert all(0 < c.low <= c.mean <= c.high <= 1 for c in costs)


def test_the_json(report: BacktestReport) -> None:
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [entry["pruner"] for entry in read["pruners"]] == [r.pruner for r in report.results]
    for entry in read["pruners"]:
        assert entry["cost"]["mean"] == pytest.approx(np.mean([o["cost"] for o in entry["orders"]]))
        assert entry["kept"]["count"] == sum(o["kept"] for o in entry["orders"])
    assert read["left_out"] == {"pruned": 3}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # an old matplotlib, a new pyparsing
def test_the_figure(report: BacktestReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = report.figure()
    figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    left, right = figure.axes
    drawn = {(round(x, 9), round(y, 9)) for line in left.lines for x, y in line.get_xydata()}
    for r in report.results:
        point = (r.interval("cost").mean, r.interval("regret").mean)
        assert (round(point[0], 9), round(point[1], 9)) in drawn
    assert [label.get_text() for label in right.get_yticklabels()] == [
        r.pruner for r in report.results
    ]


def test_without_matplotlib_a_figure_says_what_to_install(
    report: BacktestReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        report.figure()


def test_unequal_lengths_are_replayed_as_they_are() -> None:
    curves = [list(saturating(0.5 + 0.02 * i))[: 8 + i] for i in range(12)]
    report = backtest(curves, ["nop", "lcpruner", "median"], direction="maximize", n_orders=2)
    nop, ours, _ = report.results
    assert nop.original.cost == 1.0
    assert 0 < ours.original.cost <= 1.0
    assert isinstance(report.study, RecordedStudy)
