"""OptunaHub's MultiMetricPruner for the tests, which must not need the network.

``load`` gives the real one from the folder in ``OPTUNA_LCPRUNER_TEST_MULTI_METRIC`` (a copy of
``package/pruners/multi_metric_pruner`` of the OptunaHub registry), or a stand-in that asks the
pruner inside it the same questions: with a study in memory in which each finished trial is complete
with the value 0, and a trial without a number.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

VARIABLE = "OPTUNA_LCPRUNER_TEST_MULTI_METRIC"
_REPORTED = "reported"


def load(which: str) -> tuple[Any, Any]:
    """The pruner and the wrapper of a trial that reports to it, "stand-in" or "registry"."""
    if which == "stand-in":
        return StandIn, Reporting
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} is not set to a copy of OptunaHub's multi_metric_pruner")
    name = "multi_metric_pruner"
    spec = importlib.util.spec_from_file_location(name, Path(folder) / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MultiMetricPruner, module.MultiMetricPrunerTrial


class StandIn(BasePruner):
    """One question for each metric, or a joint one about the Pareto ranks."""

    def __init__(
        self, base_pruner: BasePruner, *, metric_directions: dict[str, str], joint: bool
    ) -> None:
        self._asked = base_pruner
        self._directions = metric_directions
        self._joint = joint

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        mine = _reported(trial)
        others = [
            _reported(other)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and other.state.is_finished()
        ]
        if self._joint:
            ranks = [self._ranks(one, mine, [*others, mine]) for one in (mine, *others)]
            return self._asks(ranks[0], ranks[1:], "minimize")
        return any(
            self._asks(
                {step: values[name] for step, values in mine.items()},
                [{step: values[name] for step, values in one.items()} for one in others],
                direction,
            )
            for name, direction in self._directions.items()
        )

    def _asks(self, mine: dict[int, float], others: list[dict[int, float]], direction: str) -> bool:
        made_up = optuna.create_study(direction=direction)
        for reports in filter(None, others):
            made_up.add_trial(
                create_trial(state=TrialState.COMPLETE, value=0.0, intermediate_values=reports)
            )
        asked = create_trial(state=TrialState.RUNNING, intermediate_values=mine)
        return self._asked.prune(made_up, asked)

    def _ranks(
        self,
        one: dict[int, dict[str, float]],
        mine: dict[int, dict[str, float]],
        everybody: list[dict[int, dict[str, float]]],
    ) -> dict[int, float]:
        """How many trials are better in all metrics, at the steps of the trial asked about."""
        return {
            step: float(
                sum(self._beats(other[step], one[step]) for other in everybody if step in other)
            )
            for step in mine
            if step in one
        }

    def _beats(self, one: dict[str, float], other: dict[str, float]) -> bool:
        signs = [1.0 if d == "maximize" else -1.0 for d in self._directions.values()]
        names = list(self._directions)
        gain = np.array(signs) * [one[name] - other[name] for name in names]
        return bool(np.all(gain > 0))


class Reporting:
    """A trial that reports metrics by name."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def report(self, values: dict[str, float], step: int) -> None:
        known = self._trial.user_attrs.get(_REPORTED, {})
        self._trial.set_user_attr(_REPORTED, {**known, str(step): values})

    def should_prune(self) -> bool:
        study = self._trial.study
        return study.pruner.prune(study, self._trial._get_latest_trial())


def _reported(trial: FrozenTrial) -> dict[int, dict[str, float]]:
    return {int(step): values for step, values in trial.user_attrs.get(_REPORTED, {}).items()}
