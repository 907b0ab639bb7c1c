from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pytest
from backtests import Script, noisy_curves, outcomes, seen
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
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import RecordedStudy, from_curves, from_study
from optuna_lcpruner.backtest.outcome import PrunerResult, Share
from optuna_lcpruner.backtest.replay import (
    replay,
)
from optuna_lcpruner.backtest.report import BacktestReport
from optuna_lcpruner.backtest.run import backtest

Array = NDArray[np.float64]
NAN = float("nan")
YARDSTICK = os.environ.get("OPTUNA_LCPRUNER_YARDSTICK", "")


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


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
    assert calls == [(done, 12) for done in range(13)]
    assert run(jobs=2) == once
    assert run(seed=1) != once


@pytest.mark.slow
def test_a_pruner_that_fails_in_another_process_is_reported() -> None:
    with pytest.raises(InputError, match=r"HyperbandPruner failed at step 0 of trial \d"):
        backtest(
            FIVE, ["nop", "hyperband:reduction_factor=1"], direction="maximize", n_orders=2, jobs=2
        )


def test_minimizing_the_negative_is_maximizing() -> None:
    curves, pruners = noisy_curves(12), [*SOME, "median", "halving"]
    up = backtest(curves, pruners, direction="maximize", n_orders=1)
    down = backtest(-curves, pruners, direction="minimize", n_orders=1)
    for result, mirrored in zip(up.results, down.results, strict=True):
        for one, other in zip(result.orders, mirrored.orders, strict=True):
            assert replace(one, ms=0.0) == replace(other, ms=0.0)
    assert sum(outcome.n_pruned for result in up.results for outcome in result.orders) > 10


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


def test_unequal_lengths_are_replayed_as_they_are() -> None:
    curves = [list(saturating(0.5 + 0.03 * i))[: 12 + i] for i in range(8)]
    report = backtest(curves, ["nop", "lcpruner", "median"], direction="maximize", n_orders=1)
    nop, ours, _ = report.results
    assert nop.original.cost == 1.0
    assert 0 < ours.original.cost <= 1.0
    assert isinstance(report.study, RecordedStudy)
