"""From draws of the weighted combination to a forecast.

Glossary:
    v    coordinates of draws, see :mod:`~optuna_lcpruner.posterior.weighted_sum.model`
    C    draws, P positions ahead
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.forecast import Component, Forecast
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.normalization import floor_of
from optuna_lcpruner.posterior.weighted_sum.convergence import Diagnostics
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import (
    Data,
    design,
    marginalize,
    moments,
)
from optuna_lcpruner.posterior.weighted_sum.model import WeightedCurves

_LEAST_DEVIATION = 1e-9  # heuristic


def forecast_of(
    prior: WeightedCurves,
    data: Data,
    v: Array,
    diagnostics: Diagnostics,
    curve: LearningCurve,
    knowledge: StudyKnowledge,
    positions: Array | None,
) -> Forecast:
    """The mixture of equally weighted draws, on the study's working scale.

    Args:
        prior: The prior.
        data: The curve as the draws were made for it.
        v: Their coordinates, (C, D).
        diagnostics: Of the draws.
        curve: What the engine was asked, see :class:`~optuna_lcpruner.posterior.Engine`.
        knowledge: Likewise.
        positions: Likewise.
    """
    knots, floor = curve.knots, -np.inf
    wanted = np.asarray([curve.horizon] if positions is None else positions, dtype=float)
    at = knots.nearest(wanted)
    found = marginalize(prior, v, data)
    if knowledge.target is Target.LAST:
        there = design(prior, data.horizon, v, knots.positions[at])
        mean, variance = moments(found, there)
    else:
        floor = floor_of(curve.values, knowledge.scale)
        last_seen = int(knots.nearest(curve.positions[-1]))
        first = min(last_seen + 1, knots.size - 1)
        there = design(prior, data.horizon, v, knots.positions[first:])
        mean, variance = _best_by(np.maximum(at - first, 0), *moments(found, there), there.sigma)
    location = (mean * data.stretch + data.shift).T
    observed = np.sqrt(variance.T + there.sigma**2)
    latent = np.maximum(np.sqrt(variance.T), _LEAST_DEVIATION)
    return Forecast(
        positions=wanted,
        weights=np.full(len(v), 1.0 / len(v)),
        observed=Component(location, observed * data.stretch),
        latent=Component(location, latent * data.stretch),
        df=np.inf,
        scale=knowledge.scale,
        floor=floor,
        shares=prior.shares(v),
        diagnostics=diagnostics,
    )


def _best_by(ahead: IntArray, mean: Array, variance: Array, sigma: Array) -> tuple[Array, Array]:
    """Mean and variance of the best value from the first position to each of ``ahead``, (C, P).

    The highest expected point on the way, plus the expected maximum of m draws of the noise,
    sigma Phi^-1((m - 3/8) / (m + 1/4)) (Blom 1958).
    """
    highest = np.stack([np.argmax(mean[:, : i + 1], axis=1) for i in ahead], axis=1)
    blom = np.maximum(ndtri((ahead + 0.625) / (ahead + 1.25)), 0.0)
    return (
        np.take_along_axis(mean, highest, axis=1) + blom * sigma[:, None],
        np.take_along_axis(variance, highest, axis=1),
    )
