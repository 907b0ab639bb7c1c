"""From draws of the weighted combination to a forecast.

Glossary:
    v    coordinates of draws, see :mod:`~optuna_lcpruner.posterior.weighted_sum.model`
    C    draws, P positions ahead
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.forecast import Component, Forecast
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.normalization import floor_of, normalize
from optuna_lcpruner.posterior.weighted_sum.convergence import Diagnostics
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import (
    Data,
    design,
    marginalize,
    moments,
)
from optuna_lcpruner.posterior.weighted_sum.model import WeightedCurves

_LEAST_DEVIATION = 1e-9  # heuristic


@dataclass(frozen=True)
class Draws:
    """Equally weighted draws of a curve.

    Attributes:
        mean: Of the curve at the positions ahead given the draw, (P, C).
        variance: Its variance, (P, C).
        sigma: Noise, (C,).
        shares: The families' mean shares of the weights.
    """

    mean: Array
    variance: Array
    sigma: Array
    shares: dict[str, float]

    def best_by(self, ahead: IntArray) -> Draws:
        """The best value from the first position to each of ``ahead``.

        The highest expected point on the way, plus the expected maximum of m draws of the noise,
        sigma Phi^-1((m - 3/8) / (m + 1/4)) (Blom 1958).
        """
        highest = np.array([np.argmax(self.mean[: i + 1], axis=0) for i in ahead])
        blom = np.maximum(ndtri((ahead + 0.625) / (ahead + 1.25)), 0.0)[:, None]
        every = np.arange(self.sigma.size)
        return replace(
            self,
            mean=self.mean[highest, every] + blom * self.sigma,
            variance=self.variance[highest, every],
        )


def draws_of(prior: WeightedCurves, data: Data, v: Array, ahead: Array) -> Draws:
    """Draws from coordinates."""
    found = marginalize(prior, v, data)
    there = design(prior, data.horizon, v, ahead)
    mean, variance = moments(found, there)
    return Draws(mean.T, variance.T, there.sigma, prior.shares(v))


@dataclass(frozen=True)
class Setting:
    """A curve on the scale that its prior is made for, and the way back to a forecast.

    Attributes:
        data: The curve on its knots.
        ahead: Positions at which draws are wanted, (P,).
    """

    curve: LearningCurve
    knowledge: StudyKnowledge
    wanted: Array
    data: Data
    ahead: Array
    stretch: float
    shift: float

    @classmethod
    def of(
        cls, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None
    ) -> Setting:
        """Prepare what an engine is asked, see :class:`Engine`."""
        knots, scale = curve.knots, knowledge.scale
        wanted = np.asarray([curve.horizon] if positions is None else positions, dtype=float)
        observed, values = curve.on_knots
        z, stretch, shift = normalize(values, scale)
        if knowledge.target is Target.BEST:
            ahead = knots.positions[cls._first_ahead(curve) :]
        else:
            ahead = knots.positions[knots.nearest(wanted)]
        data = Data(max(curve.horizon, 2), knots.positions[observed], z)
        return cls(curve, knowledge, wanted, data, ahead, stretch, shift)

    @staticmethod
    def _first_ahead(curve: LearningCurve) -> int:
        """The knot after the last one seen, or the last one."""
        last = int(curve.knots.nearest(curve.positions[-1:])[0])
        return min(last + 1, curve.knots.size - 1)

    def forecast(self, draws: Draws, diagnostics: Diagnostics | None = None) -> Forecast:
        """The mixture of draws on the study's working scale."""
        scale, floor = self.knowledge.scale, -np.inf
        if self.knowledge.target is Target.BEST:
            floor = floor_of(self.curve.values, scale)
            first = self._first_ahead(self.curve)
            knots = self.curve.knots
            draws = draws.best_by(
                np.clip(knots.nearest(self.wanted) - first, 0, knots.size - 1 - first)
            )
        latent = np.maximum(np.sqrt(draws.variance), _LEAST_DEVIATION)
        observed = np.sqrt(draws.variance + draws.sigma**2)
        location = draws.mean * self.stretch + self.shift
        return Forecast(
            positions=self.wanted,
            weights=np.full(draws.sigma.size, 1.0 / draws.sigma.size),
            observed=Component(location, observed * self.stretch),
            latent=Component(location, latent * self.stretch),
            df=np.inf,
            scale=scale,
            floor=floor,
            shares=draws.shares,
            diagnostics=diagnostics,
        )
