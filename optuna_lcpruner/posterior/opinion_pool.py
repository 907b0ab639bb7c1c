"""The default posterior: the study's record, a trial's likes and its own curve in one distribution.

Glossary (f = n / T, the fraction of training seen; N completed trials; c any metric value):
    S_0(c)   share of completed trials that ended above c, (1 + #{final > c}) / (N + 2): what is
             known of a trial before its curve, 1 / (N + 2) for the best value
    S_A(c)   P(final > c) by the analogues: what trials that looked like this one went on to gain
    S_E(c)   P(final > c) by the ensemble of parametric curves: what this curve alone suggests

    logit S(c) = prior_weight logit S_0(c) + EVIDENCE (logit S_A(c) + logit S_E(c))
    prior_weight = max(0, 1 - (FADE_0 + FADE_1 sqrt(f)) / ln(N + 1))

A logarithmic opinion pool; at the best value it reads

    logit P(beat) = -ln(N + 1) + FADE_0 + FADE_1 sqrt(f) + EVIDENCE (logit P_A + logit P_E)

The prior fades as the curve is seen. The two other opinions share most of their evidence, so each
counts for less than one. S is held at pivots around the study's best value; between them the equal
mixture of analogues and ensemble says how the mass lies.

Source: Genest & Zidek 1986, "Combining probability distributions: a critique and an annotated
bibliography" (logarithmic pool); the three constants are fitted to recorded studies by maximum
likelihood, see docs/benchmarks.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from optuna_lcpruner.learning_curve import LearningCurve
from optuna_lcpruner.posterior import analogues
from optuna_lcpruner.posterior.closed_form import ClosedForm
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.predictive import Component, Forecast, Recalibration

Array = NDArray[np.float64]

FADE_0 = 0.5
FADE_1 = 1.4
EVIDENCE = 0.31

_BELOW_BEST = (-0.5, 0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.9, 0.94, 0.97, 0.985, 0.995)
_FROM_BEST = (1.0, 1.005, 1.02, 1.06, 1.15, 1.4)
_PIVOTS = np.array([*_BELOW_BEST, *_FROM_BEST])
"""Working values, dense around 1, the best value of the study."""

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
        n_completed = knowledge.final.size
        if n_completed == 0:
            return alone
        scale = knowledge.scale
        found = analogues.find(
            _without_gaps(curve),
            knowledge.completed,
            knowledge.final,
            curve.knots.nearest(alone.positions),
            scale.unit,
        )
        values = scale.location + scale.unit * _PIVOTS
        seen = float(curve.positions[-1]) / curve.horizon
        # In units of counts, so that neither end is a division by zero.
        above = np.searchsorted(np.sort(-knowledge.final), -values, side="left")
        prior = np.log((1.0 + above) / (1.0 + n_completed - above))
        by_analogues = found.p_above(values)
        by_ensemble = 1.0 - alone._cdf(_PIVOTS, None, True)
        fade = FADE_0 + FADE_1 * np.sqrt(seen)
        prior_weight = max(0.0, 1.0 - fade / np.log(n_completed + 1.0))
        pooled = prior_weight * prior + EVIDENCE * (_logit(by_analogues) + _logit(by_ensemble))
        below = 1.0 / (1.0 + np.exp(pooled))
        if knowledge.target is Target.BEST:
            below = np.where(alone.floor > _PIVOTS, 0.0, below)
        best = len(_BELOW_BEST)
        mixture = Forecast(
            positions=alone.positions,
            weights=np.r_[0.5 * alone.weights, 0.5 * found.weights],
            observed=_beside(alone.observed, found, knowledge),
            latent=_beside(alone.latent, found, knowledge),
            df=alone.df,
            scale=scale,
            floor=alone.floor,
            shares={name: 0.5 * share for name, share in alone.shares.items()} | {"analogues": 0.5},
            opinions={
                "this curve": float(by_ensemble[best]),
                "its likes": float(by_analogues[best]),
                "any trial": 1.0 / (n_completed + 2.0),
            },
        )
        known = Recalibration(_PIVOTS, mixture._cdf(_PIVOTS, None, True), below)
        return replace(mixture, recalibration=known)


def _without_gaps(curve: LearningCurve) -> Array:
    """Values on the knots from the first to the last seen, gaps filled on straight lines."""
    observed, values = curve.on_knots()
    if observed[-1] == observed.size - 1:
        return values
    return np.interp(np.arange(observed[-1] + 1), observed, values)


def _logit(p: Array) -> Array:
    p = np.clip(p, _SUREST, 1.0 - _SUREST)
    return np.asarray(np.log(p / (1.0 - p)))


def _beside(
    ensemble: Component, found: analogues.Analogues, knowledge: StudyKnowledge
) -> Component:
    """The ensemble's components and the analogues', which are linearised from x to z."""
    unit = knowledge.scale.unit
    location = (found.regret.to_values(found.x) - knowledge.scale.location) / unit
    spread = found.tau * found.regret.slope(found.x) / unit
    return Component(np.hstack([ensemble.location, location]), np.hstack([ensemble.scale, spread]))
