"""ForecastSampler: a sampler that learns from pruned trials by their forecasts."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.records.trial_attributes import FORECAST
from optuna_lcpruner.study.continuation import continuations
from optuna_lcpruner.study.feasibility import constraint_values, is_feasible

WORST = 10.0  # heuristic
"""No value handed on is worse than the best by more than this many times what the median is."""


class ForecastSampler(BaseSampler):
    """Let a sampler see each pruned trial as completed, at the value forecast for its end.

    ``GPSampler`` and ``CmaEsSampler`` ignore pruned trials, so they may propose again and again
    what was stopped again and again; ``TPESampler`` ranks them by how far they came. Under this
    sampler they learn from them as from any other trial::

        optuna.create_study(
            sampler=ForecastSampler(optuna.samplers.GPSampler()), pruner=LearningCurvePruner()
        )

    Only the sampler is shown this. In the study the trials stay pruned, with the reports they
    made: ``best_trial``, the dashboard and every pruner see what was.

    The value is the trial's attribute ``lcpruner_forecast``, the median forecast of the decision
    that stopped it, so the pruner must publish (its default). A pruned trial whose newest report is
    NaN or infinite counts as the worst of the others. So that one diverging training does not
    flatten all others for a Gaussian process, no forecast counts as worse than
    ``best + 10 (median - best)``, where best and median are those of the completed and forecast
    values of feasible trials, or of all while none is. Pruned trials without a forecast, and all
    trials while none has completed, are seen as they are. So is a pruned trial that lacks the
    constraint values that completed ones have: nobody knows whether it would have been feasible.

    Args:
        base_sampler: Any sampler. ``GridSampler`` and ``BruteForceSampler`` gain nothing: they do
            not look at values.

    Raises:
        TypeError: If ``base_sampler`` is not a sampler.

    Source: Domhan, Springenberg & Hutter 2015, section 5, where the optimiser is handed the
    expected final value of a stopped training.
    """

    def __init__(self, base_sampler: BaseSampler) -> None:
        if not isinstance(base_sampler, BaseSampler):
            raise TypeError(
                f"base_sampler must be an optuna.samplers.BaseSampler, but got {base_sampler!r}."
            )
        self._base_sampler = base_sampler

    def __str__(self) -> str:
        return f"{type(self).__name__}({self._base_sampler})"

    def reseed_rng(self) -> None:
        """Reseed the base sampler; see :class:`optuna.samplers.BaseSampler`."""
        self._base_sampler.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The base sampler's; see :class:`optuna.samplers.BaseSampler`."""
        return self._base_sampler.infer_relative_search_space(_as_forecast(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The base sampler's; see :class:`optuna.samplers.BaseSampler`."""
        return self._base_sampler.sample_relative(_as_forecast(study), trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The base sampler's; see :class:`optuna.samplers.BaseSampler`."""
        return self._base_sampler.sample_independent(
            _as_forecast(study), trial, param_name, param_distribution
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """The base sampler's; see :class:`optuna.samplers.BaseSampler`."""
        self._base_sampler.before_trial(_as_forecast(study), trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """The base sampler's, told the true state; see :class:`optuna.samplers.BaseSampler`."""
        self._base_sampler.after_trial(_as_forecast(study), trial, state, values)


class _StudyAsForecast(Study):
    """A study, the same object in all but this: pruned trials are listed as completed."""

    __slots__ = ("_study",)

    _study: Study

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = self._study._get_trials(deepcopy, None, use_cache)
        trials = as_forecast(trials, self.direction == StudyDirection.MAXIMIZE)
        return [t for t in trials if states is None or t.state in states]


def _as_forecast(study: Study) -> Study:
    # Another class, as Hyperband's brackets are, would lose what it adds.
    if type(study) is not Study or len(study.directions) > 1:
        return study
    seen = object.__new__(_StudyAsForecast)
    seen.__dict__ = study.__dict__
    seen._study = study
    return seen


def as_forecast(trials: Sequence[FrozenTrial], maximize: bool) -> list[FrozenTrial]:
    """The trials, pruned ones as completed with the value forecast for them."""
    completed = [
        (trial, float(trial.value))
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.value is not None
    ]
    n_constraints = {_n_constraints(trial) for trial, _ in completed}
    # What became of a trial that went on is known from its continuation.
    known_by_now = {
        number
        for number, trial in continuations(trials).items()
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    }
    forecasts = [
        None if trial.number in known_by_now else _forecast(trial, n_constraints)
        for trial in trials
    ]
    foreseen = [(t, v) for t, v in zip(trials, forecasts, strict=True) if v is not None]
    ends = [(trial, value) for trial, value in completed + foreseen if math.isfinite(value)]
    if not completed or not ends:
        return list(trials)
    known = np.array([value for _, value in ends])
    feasible = np.array([value for trial, value in ends if is_feasible(trial)])
    bound = _bound(feasible if feasible.size else known, maximize)
    low, high = (bound, math.inf) if maximize else (-math.inf, bound)
    counted = np.clip(known, low, high)
    worst = float(counted.min() if maximize else counted.max())
    return [
        trial
        if value is None
        else _completed(trial, worst if math.isnan(value) else min(max(value, low), high))
        for trial, value in zip(trials, forecasts, strict=True)
    ]


def _bound(values: Array, maximize: bool) -> float:
    """The worst that a forecast may count as."""
    best = float(values.max() if maximize else values.min())
    middle = float(np.median(values))
    if middle == best and np.any(values != best):  # many have the best value there can be
        middle = float(np.median(values[values != best]))
    return best + WORST * (middle - best)


def _n_constraints(trial: FrozenTrial) -> int:
    return sum(1 for _ in constraint_values(trial.system_attrs))


def _forecast(trial: FrozenTrial, n_constraints: Container[int]) -> float | None:
    """What was forecast for a pruned trial; NaN if it diverged, None if there is nothing.

    Nor is there where completed trials have another number of constraint values: samplers that mind
    constraints want the same of all, and without any a trial would count as feasible.
    """
    if trial.state is not TrialState.PRUNED or not trial.intermediate_values:
        return None
    if _n_constraints(trial) not in n_constraints:
        return None
    if not math.isfinite(trial.intermediate_values[max(trial.intermediate_values)]):
        return math.nan
    value = trial.user_attrs.get(FORECAST)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _completed(trial: FrozenTrial, value: float) -> FrozenTrial:
    seen = object.__new__(type(trial))  # samplers ask at each parameter: copy.copy() takes long
    seen.__dict__.update(trial.__dict__)
    seen.state, seen.value = TrialState.COMPLETE, value
    return seen
