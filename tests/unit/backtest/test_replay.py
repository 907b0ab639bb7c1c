"""A recorded study replayed under a pruner, trial by trial."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from backtests import Script, noisy_curves, seen
from helpers import (
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
from optuna.trial import FrozenTrial

from optuna_lcpruner import LearningCurvePruner, PruneIfAny
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import from_curves, from_study
from optuna_lcpruner.backtest.replay import (
    DEFAULT_PRUNERS,
    make_pruner,
    pruner_names,
    replay,
)
from optuna_lcpruner.backtest.run import backtest
from optuna_lcpruner.records import ledger_writer, trial_attributes

Array = NDArray[np.float64]


NAN = float("nan")


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


STUDY = from_curves(noisy_curves(n_steps=50), "maximize")


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


def test_a_trial_replays_its_own_steps_and_returns_its_own_value() -> None:
    trials = [finished({10: 0.1 * i, 25: 0.2 * i, 30: 0.3 * i}, value=float(i)) for i in range(5)]
    trials.append(finished({1: 9.0}, value=0.5, user_attrs={"lcpruner_n_steps": 77}))
    replay(from_study(make_study(trials, direction="minimize")), [5, 0, 2], Script(0.4))
    study = seen[0][0]
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert [trial.value for trial in study.trials] == [0.5, 0.0, 0.4]
    assert study.trials[0].intermediate_values == {1: 9.0}
    assert study.trials[0].user_attrs["lcpruner_n_steps"] == 77
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


def test_our_decisions_are_not_published_in_a_replay() -> None:
    class Ours(LearningCurvePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            seen.append((study, trial))
            return super().prune(study, trial)

    curves = [saturating(end) for end in (0.8, 0.82, 0.84, 0.86, 0.9)] + [np.full(20, 0.1)]
    replay(from_curves(curves, "maximize"), range(6), Ours(20, publish=True))
    assert [set(trial.user_attrs) for trial in seen[-1][0].trials] == [
        {"lcpruner_seconds_per_report"}  # what the replay tells the pruner
    ] * 6


def test_nor_written_to_the_ledger(tmp_path: Path) -> None:
    ours = LearningCurvePruner(12, ledger=f"sqlite:///{tmp_path}/mine.db")
    pruners = {"mine": ours, "both": PruneIfAny([ours, NopPruner()])}
    backtest(noisy_curves(8), pruners, direction="maximize", n_orders=1)
    assert ledger_writer.flush()
    assert list(tmp_path.iterdir()) == []


def test_a_replay_leaves_the_pruner_and_the_study_as_they_were() -> None:
    pruner, ours = HyperbandPruner(max_resource=12), LearningCurvePruner(12)
    study = make_study(finished(reports(curve)) for curve in noisy_curves(12) if curve[-1] > 0)
    before = study.trials
    backtest(study, [pruner, ours], n_orders=1)
    assert pruner._pruners == []
    assert study.trials == before
    decisions = []
    for one in (ours, LearningCurvePruner(12)):  # as if it had not been replayed
        study = make_study(before)
        decisions.append(judge(study, one, reports(noisy_curves(12)[0, :6])))
        assert trial_attributes.writer().flush(20)
        assert "lcpruner_reason" in study.trials[-1].user_attrs
    assert decisions[0] == decisions[1]


@pytest.mark.parametrize(
    ("spec", "kind", "attributes"),
    [
        (
            "lcpruner",
            LearningCurvePruner,
            {"judge.conditions.n_steps": 50, "_memory.publish": False},
        ),
        ("lcpruner:n_steps=9,target=best", LearningCurvePruner, {"judge.conditions.n_steps": 9}),
        ("lcpruner:n_steps=none", LearningCurvePruner, {"judge.conditions.n_steps": None}),
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
    assert "threshold=0.05" in repr(rule)
    patient = make_pruner("patient:wrapped=lcpruner,patience=1", STUDY)
    assert isinstance(patient, PatientPruner)
    assert isinstance(patient._wrapped_pruner, LearningCurvePruner)
    announced = make_pruner("lcpruner", replace(STUDY, announced=True))
    assert isinstance(announced, LearningCurvePruner)
    assert "n_steps=None" in repr(announced)  # each trial says it itself
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
