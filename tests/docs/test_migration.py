"""docs/migration.md: its code runs, and the settings it names exist, there as far as installed."""

from __future__ import annotations

import math
import re
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import BAD, good_trials, make_study
from optuna.pruners import BasePruner, MedianPruner, PatientPruner
from optuna.trial import FrozenTrial

from optuna_lcpruner import Forecast, LearningCurvePruner, forecast
from optuna_lcpruner.curves.families import FAMILIES
from optuna_lcpruner.decision.decision import Reason
from optuna_lcpruner.posterior.weighted_sum.priors import paper_prior
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
BLOCKS = [
    (title, code)
    for title, text in SECTIONS.items()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]
OURS = signature(LearningCurvePruner).parameters

SAME_OBJECTIVE = {
    "Optuna's MedianPruner and PercentilePruner": ("MedianPruner", "PercentilePruner"),
    "Optuna's HyperbandPruner and SuccessiveHalvingPruner": (
        "HyperbandPruner",
        "SuccessiveHalvingPruner",
    ),
}


def rows(text: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    return [row for row in cells if row[0] != "there"]


def quoted(cell: str) -> list[tuple[str, str | None]]:
    """The settings that a cell quotes: name, and value if it gives one."""
    found = re.findall(r"`(\w+)(?: ?= ?([^`]*))?`", cell)
    return [(name, value or None) for name, value in found]


def unhurried(values: Any, *, engine: str, **settings: Any) -> Forecast:
    """``forecast``, however slow the machine: 20 seconds may not be enough to converge."""
    assert engine == "mcmc"
    return forecast(values, engine=MCMC(max_seconds=math.inf), **settings)


@pytest.mark.filterwarnings("ignore:PatientPruner is experimental")
@pytest.mark.parametrize(("title", "code"), BLOCKS)
def test_the_code_runs(title: str, code: str) -> None:
    names: dict[str, Any] = {
        "LearningCurvePruner": LearningCurvePruner,
        "PatientPruner": PatientPruner,
        "MCMC": MCMC,
        "paper_prior": paper_prior,
        "forecast": unhurried,
        "accuracies": [0.60, 0.66, 0.67, 0.69, 0.68, 0.70, 0.69, 0.70],
        "xlim": 20,
        "y_best": 0.95,
    }
    *_, last = code.strip().splitlines()
    exec(compile(code, title, "exec"), names)
    if "y_predict" in last:
        assert 0.6 < names["y_predict"] < 0.9, "a hopeless curve is stopped"
    else:
        assert isinstance(eval(last, names), BasePruner)


@pytest.mark.parametrize("code", [code for title, code in BLOCKS if title in SAME_OBJECTIVE])
def test_what_is_replaced_is_optunas(code: str) -> None:
    for call in re.findall(r"^# (\w+Pruner\(.*\))$", code, re.MULTILINE):
        assert isinstance(eval(call, vars(optuna.pruners)), BasePruner)


@pytest.mark.parametrize("title", SAME_OBJECTIVE)
def test_optunas_settings_and_defaults(title: str) -> None:
    parameters: dict[str, list[Parameter]] = {}
    for name in SAME_OBJECTIVE[title]:
        for key, parameter in signature(getattr(optuna.pruners, name)).parameters.items():
            parameters.setdefault(key, []).append(parameter)
    left = [setting for row in rows(SECTIONS[title]) for setting in quoted(row[0])]
    assert left
    for name, value in left:
        assert name in parameters
        if value is not None:
            assert value in {repr(p.default).replace("'", '"') for p in parameters[name]}
    # None is passed over, but for the trial's own (the rest of the two pruners' settings).
    assert {name for name, _ in left} == set(parameters)


@pytest.mark.parametrize("title", SECTIONS)
def test_our_settings(title: str) -> None:
    """Every setting named on the right is one of the pruner's, and takes the value given."""
    for row in rows(SECTIONS[title]):
        for name, value in quoted(row[1]):
            if name in FAMILIES or name == "best":
                continue
            assert name in OURS, row
            if value is not None:
                LearningCurvePruner(**{name: eval(value)})


class Asked(BasePruner):
    """The steps at which a median pruner would stop a hopeless trial, and ours looks at it."""

    def __init__(self, median: MedianPruner, ours: LearningCurvePruner) -> None:
        self.median, self.ours = median, ours
        self.there: list[int | None] = []
        self.here: list[int | None] = []

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if self.median.prune(study, trial):
            self.there.append(trial.last_step)
        reason = self.ours.decide(study, trial).reason
        if reason not in (Reason.WARM_UP, Reason.BETWEEN_LOOKS):
            self.here.append(trial.last_step)
        return False


@pytest.mark.parametrize("interval_steps", [1, 2, 5])
@pytest.mark.parametrize("n_warmup_steps", [0, 3])
@pytest.mark.parametrize("steps", [range(20), range(1, 21), range(0, 20, 3)])
def test_warm_up_and_interval_are_those_of_the_median_pruner(
    n_warmup_steps: int, interval_steps: int, steps: range
) -> None:
    same: dict[str, int] = {"n_warmup_steps": n_warmup_steps, "interval_steps": interval_steps}
    ours = LearningCurvePruner(n_steps=20, **same)
    study = make_study(good_trials())
    study.pruner = asked = Asked(MedianPruner(n_startup_trials=1, **same), ours)
    trial = study.ask()
    for step in steps:
        trial.report(float(BAD[0]), step)
        trial.should_prune()
    assert asked.there == [step for step in asked.here if step in range(20)]
    assert asked.there
