"""Curves to replay, and a pruner that does as it is told and keeps what it saw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from optuna.pruners import (
    BasePruner,
)
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner.backtest.outcome import Outcome

Array = NDArray[np.float64]


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


def outcomes(kept: int, cost: float, n: int = 20) -> tuple[Outcome, ...]:
    return tuple(
        Outcome(i, cost, 0.0, i < kept, 0, 0.0, True, False, (None,), 1.0) for i in range(n)
    )
