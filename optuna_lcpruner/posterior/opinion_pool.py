"""The default posterior: the study's record, a trial's likes and its own curve in one distribution.

Glossary (f = n / T, the fraction of training seen; N completed trials; y* the study's best value):
    P_A   P(final > y*) by the analogues: what trials that looked like this one went on to gain
    P_E   P(final > y*) by the ensemble of parametric curves: what this curve alone suggests
    k     neighbours that the analogues' bandwidth reaches

    logit P = -ln(N + 1) + OFFSET + FADE sqrt(f) + EVIDENCE (logit P_A + logit P_E)

is a logarithmic opinion pool for the question that decides: will this trial beat the best? Before
its curve a trial does so with probability 1 / (N + 1); that prior fades as the curve is seen. The
two opinions share most of their evidence, so each counts for less than one.

How the final value lies on either side of y* is left to the mixture of both, in which the ensemble
counts as one more neighbour: weight 1 / (k + 1), the analogues k / (k + 1). Pool and mixture are
joined by Jeffrey's rule: the mass above y* is P, the mass below it 1 - P, the mixture's shape is
kept on each side.

Source: Genest & Zidek 1986, "Combining probability distributions: a critique and an annotated
bibliography" (logarithmic pool); Jeffrey 1965, "The logic of decision", chapter 11. The three
constants are fitted to recorded studies by maximum likelihood, see docs/benchmarks.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from optuna_lcpruner.learning_curve import LearningCurve
from optuna_lcpruner.posterior import analogues
from optuna_lcpruner.posterior.closed_form import FAR, ClosedForm
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.predictive import Component, Forecast, Recalibration

Array = NDArray[np.float64]

OFFSET = 1.0
FADE = 0.6
EVIDENCE = 0.25

_SUREST = 1e-4
"""No single opinion counts as surer than this."""


@dataclass(frozen=True)
class OpinionPool:
    """The default engine; without a completed trial it is the plain ensemble.

    Attributes:
        ensemble: The engine that judges the curve alone.
    """

    ensemble: ClosedForm = field(default_factory=ClosedForm)

    def __call__(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> Forecast:
        """See :class:`~optuna_lcpruner.posterior.interface.Engine`."""
        alone = self.ensemble(curve, knowledge, positions)
        if knowledge.final.size == 0:
            return alone
        scale = knowledge.scale
        found = analogues.find(
            _without_gaps(curve),
            knowledge.completed,
            knowledge.final,
            curve.knots.nearest(alone.positions),
            knowledge.best,
            scale.unit,
        )
        n_completed = max(knowledge.n_completed, knowledge.final.size)
        pivot = np.array([1.0])  # the best value
        p_ensemble = 1.0 - alone._cdf(pivot, None, True)
        p_analogues = found.p_above(np.array([knowledge.best]))
        seen = float(curve.positions[-1]) / curve.horizon
        p_beat = float(_pooled(p_analogues, p_ensemble, n_completed, seen)[0])
        share = 1.0 / (analogues.n_neighbours(knowledge.final.size) + 1.0)
        gained = _on_working_scale(found, knowledge)
        mixture = Forecast(
            positions=alone.positions,
            weights=np.r_[share * alone.weights, (1.0 - share) * found.weights],
            observed=_joined(alone.observed, gained),
            latent=_joined(alone.latent, gained),
            df=alone.df,
            scale=scale,
            floor=alone.floor,
            shares={name: share * part for name, part in alone.shares.items()}
            | {"analogues": 1.0 - share},
            opinions={
                "this curve": float(p_ensemble[0]),
                "its likes": float(p_analogues[0]),
                "any trial": 1.0 / (n_completed + 1.0),
            },
        )
        known = Recalibration(pivot, mixture._cdf(pivot, None, True), np.array([1.0 - p_beat]))
        return replace(mixture, recalibration=known)


def _pooled(p_analogues: Array, p_ensemble: Array, n_completed: int, seen: float) -> Array:
    log_odds = (
        -np.log(n_completed + 1.0)
        + OFFSET
        + FADE * np.sqrt(seen)
        + EVIDENCE * (_logit(p_analogues) + _logit(p_ensemble))
    )
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))


def _without_gaps(curve: LearningCurve) -> Array:
    """Values on the knots from the first to the last seen, gaps filled on straight lines."""
    observed, values = curve.on_knots()
    if observed[-1] == observed.size - 1:
        return values
    return np.interp(np.arange(observed[-1] + 1), observed, values)


def _logit(p: Array) -> Array:
    p = np.clip(p, _SUREST, 1.0 - _SUREST)
    return np.asarray(np.log(p / (1.0 - p)))


def _on_working_scale(found: analogues.Analogues, knowledge: StudyKnowledge) -> Component:
    """The analogues' components, linearised from x to z."""
    unit = knowledge.scale.unit
    with np.errstate(over="ignore", invalid="ignore"):
        location = (found.regret.to_values(found.x) - knowledge.scale.location) / unit
        spread = found.tau * found.regret.slope(found.x) / unit
        location = np.clip(np.nan_to_num(location, nan=-FAR), -FAR, FAR)
        spread = np.clip(np.nan_to_num(spread, nan=FAR), 1e-9, FAR)
    return Component(location, spread)


def _joined(first: Component, second: Component) -> Component:
    return Component(
        np.hstack([first.location, second.location]), np.hstack([first.scale, second.scale])
    )
