"""The scheduler for Ray Tune stops what the pruner stops; where Tune is installed it runs."""

from __future__ import annotations

import math
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import BAD, EXAMPLES, N_STEPS, ROOT, installed, numbers, run_example, saturating
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner

EXAMPLE = "ray_scheduler.py"


class NoScheduler:
    """In place of Tune's classes: what the example takes from them."""

    CONTINUE, STOP = "CONTINUE", "STOP"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the example, Tune left out."""
    schedulers = ModuleType("ray.tune.schedulers")
    schedulers.FIFOScheduler = schedulers.TrialScheduler = NoScheduler  # type: ignore[attr-defined]
    ray, tune = ModuleType("ray"), ModuleType("ray.tune")
    ray.tune = tune  # type: ignore[attr-defined]
    for module in (ray, tune, schedulers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return runpy.run_path(str(EXAMPLES / EXAMPLE))


def curves_of(name: str, n: int) -> tuple[np.ndarray, bool]:
    with np.load(ROOT / "tests" / "recorded" / f"{name}.npz") as data:
        return data["curves"][:n].astype(float), bool(data["maximize"])


def train(scheduler: Any, name: str, curve: np.ndarray) -> int | None:
    """Train to the end or until the scheduler stops it; after how many reports it did."""
    trial, result = SimpleNamespace(trial_id=name), {}
    for i, value in enumerate(curve.tolist()):
        result = {"training_iteration": i + 1, "quality": value, "done": False}
        if i + 1 < curve.size:
            answer = scheduler.on_trial_result(None, trial, result)
            if answer == NoScheduler.STOP:
                return i + 1
            assert answer == NoScheduler.CONTINUE
    scheduler.on_trial_complete(None, trial, result)
    return None


def train_by_pruner(study: optuna.Study, n_steps: int, curve: np.ndarray) -> int | None:
    """The same with a pruner that is asked for the first time at each report."""
    trial = study.ask()
    for i, value in enumerate(curve.tolist()):
        trial.report(value, i + 1)
        study.pruner = LearningCurvePruner(n_steps, publish=False, ledger=False)
        if i + 1 < curve.size and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return i + 1
    study.tell(trial, curve[-1])
    return None


@pytest.mark.parametrize("name", ["digits_accuracy", "digits_loss"])
def test_it_stops_what_the_pruner_stops(example: dict[str, Any], name: str) -> None:
    curves, maximize = curves_of(name, 14)
    n_steps = curves.shape[1]
    scheduler = example["LearningCurveScheduler"](
        "quality", "max" if maximize else "min", n_steps=n_steps
    )
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    ours = [train(scheduler, f"t{i}", curve) for i, curve in enumerate(curves)]
    assert ours == [train_by_pruner(study, n_steps, curve) for curve in curves]
    stopped = {f"t{i}" for i, n in enumerate(ours) if n is not None}
    assert 2 < len(stopped) < 12
    assert set(scheduler.stopped) == set(scheduler.reasons) == stopped
    assert all(reason.startswith("pruned") for reason in scheduler.reasons.values())


def test_those_under_way_count(example: dict[str, Any]) -> None:
    """Before any has completed, one that is behind the others; which it is not alone."""
    alone, among = (
        example["LearningCurveScheduler"]("quality", "max", n_steps=N_STEPS) for _ in range(2)
    )
    for i in range(8):
        for j in range(12):
            result = {"training_iteration": i + 1, "quality": saturating(0.8 + 0.01 * j)[i]}
            among.on_trial_result(None, SimpleNamespace(trial_id=f"t{j}"), result)
    assert train(among, "worst", BAD[:9]) is not None
    assert "behind the others" in among.reasons["worst"]
    assert train(alone, "worst", BAD[:9]) is None


def test_one_that_failed_is_forgotten(example: dict[str, Any]) -> None:
    scheduler = example["LearningCurveScheduler"]("quality", "max", n_steps=20)
    for name, forget in (("a", scheduler.on_trial_error), ("b", scheduler.on_trial_remove)):
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_result(None, trial, {"training_iteration": 1, "quality": 0.5})
        forget(None, trial)
        scheduler.on_trial_complete(None, trial, {"training_iteration": 1, "quality": 0.5})
    assert not scheduler._running
    assert not scheduler._completed


def test_one_that_diverges_is_stopped(example: dict[str, Any]) -> None:
    scheduler = example["LearningCurveScheduler"]("quality", "min", n_steps=20)
    assert train(scheduler, "a", np.array([0.5, math.nan, 0.3])) == 2
    assert scheduler.reasons["a"].startswith("pruned: diverged")


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.skipif(not installed("ray"), reason="not installed: ray")
def test_it_runs_in_tune(tmp_path: Path) -> None:
    result = run_example(EXAMPLE, "--trials", "16", "--epochs", "12", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    text = result.stdout
    assert numbers(r"^(\d+) trials", text.strip()) == [16]
    completed, stopped = numbers(r"completed +(\d+)\n +stopped +(\d+)", text)
    assert completed + stopped == 16
    assert completed >= 3
    assert stopped > 0
    spent, full = numbers(r"epochs +(\d+) of (\d+)", text)
    assert full == 16 * 12
    assert 12 * completed < spent < full
    assert re.search(r"One of the stopped:\n  pruned: P = ", text)
