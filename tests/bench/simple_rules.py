"""Simple rules that people use, as pruners to compare with."""

from __future__ import annotations

import math

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner.study.feasibility import is_feasible


class KeepTopPruner(BasePruner):
    """Keep the best after ``after`` reports (i-Epoch); judged once, there.

    A trial is kept iff at most ``share`` of the trials that reported at the same step, itself
    among them, are at least as good. NaN is not good.

    Args:
        after: Reports after which a trial is judged.
        share: Share of the trials to keep, in (0, 1].
        n_startup_trials: Other trials that must have reported at that step.
    """

    def __init__(self, after: int, share: float = 0.2, n_startup_trials: int = 5) -> None:
        if after < 1:
            raise ValueError(f"after must be at least 1, but got {after}.")
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, but got {share}.")
        self._after, self._share, self._n_startup_trials = after, share, n_startup_trials

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is judged now and not among the best."""
        step = trial.last_step
        if step is None or len(trial.intermediate_values) != self._after:
            return False
        sign = _sign(study)
        value = sign * trial.intermediate_values[step]
        others = [
            sign * other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and step in other.intermediate_values
        ]
        if len(others) < self._n_startup_trials:
            return False
        if math.isnan(value):
            return True
        rank = 1 + sum(other >= value for other in others)
        return rank > max(1, math.floor(self._share * (len(others) + 1)))


class LastValuePruner(BasePruner):
    """Take the last report for the final value, once much of the training is done.

    From report ``after`` on a trial is stopped iff

        best - last > margin * (best - median)

    where best and median are those of the feasible completed trials' values, larger is better. NaN
    stops.

    Args:
        after: Reports from which on a trial is judged, at each of them.
        margin: How far behind the best a trial may be, 1 being as far as the median trial.
        n_startup_trials: Feasible completed trials needed.
    """

    def __init__(self, after: int, margin: float = 0.2, n_startup_trials: int = 5) -> None:
        if after < 1:
            raise ValueError(f"after must be at least 1, but got {after}.")
        if not margin >= 0:
            raise ValueError(f"margin must be at least 0, but got {margin}.")
        self._after, self._margin, self._n_startup_trials = after, margin, n_startup_trials

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the last report is too far behind the best trial."""
        if trial.last_step is None or len(trial.intermediate_values) < self._after:
            return False
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        completed = [other for other in ended if is_feasible(other)]
        if len(completed) < max(1, self._n_startup_trials):
            return False
        sign = _sign(study)
        finals = sign * np.array([other.value for other in completed], dtype=float)
        best, median = float(finals.max()), float(np.median(finals))
        last = sign * trial.intermediate_values[trial.last_step]
        return not best - last <= self._margin * (best - median)


def _sign(study: Study) -> float:
    return 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
