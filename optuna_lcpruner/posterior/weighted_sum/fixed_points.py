"""The weighted combination without a chain: fixed points for what is not linear, the rest exact.

The coordinates v of :mod:`~optuna_lcpruner.posterior.weighted_sum.model` (weights, shapes and
sigma, a priori N(0, I)) are N fixed points of a shifted Sobol sequence. Each gets the weight

    w_i  proportional to  p(z | v_i) P(f(1) < f(T) | v_i, z)

and is a Gaussian regression of its own; the posterior is the mixture. Few points carry weight when
the data are many and the coordinates too: there the sampled posterior is to be preferred.

Source: self-normalised importance sampling from the prior; Sobol 1967;
shift: Cranley & Patterson 1976.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.distributions import Normal
from optuna_lcpruner.curves.learning_curve import LearningCurve, PositionGrid
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import (
    LinearDesign,
    design,
    integrate,
    log_posterior,
)
from optuna_lcpruner.posterior.weighted_sum.model import WeightedCurves
from optuna_lcpruner.posterior.weighted_sum.predictive import Setting, draws_from
from optuna_lcpruner.posterior.weighted_sum.priors import paper_prior

_NEGLIGIBLE = 1e-3  # heuristic
"""Points below this share of the heaviest one are left out."""


@dataclass(frozen=True)
class ClosedSum:
    """The weighted combination on fixed points: ``(curve, knowledge, positions) -> Forecast``.

    Attributes:
        prior: A prior with Gaussian linear parameters and no range, see ``gaussian``.
        n_points: N, a power of two.

    Raises:
        ValueError: If the prior is another one, or N is not a power of two.
    """

    prior: WeightedCurves = field(default_factory=paper_prior)
    n_points: int = 1024

    def __post_init__(self) -> None:
        if not self.prior.is_gaussian:
            raise ValueError("the prior must be Gaussian and without a range: see gaussian().")
        if self.n_points < 2 or self.n_points & (self.n_points - 1):
            raise ValueError(f"n_points must be a power of two, but got {self.n_points}.")

    def __call__(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> Forecast:
        """See :class:`~optuna_lcpruner.posterior.Engine`."""
        setting = Setting.of(curve, knowledge, positions)
        v = _points(self.prior.n_coordinates, self.n_points)
        curves = _curves(self.prior, self.n_points, curve.horizon)
        with np.errstate(all="ignore"):
            found = integrate(curves, v, setting.data.z, curve.on_knots[0])
            log_p = log_posterior(found) + 0.5 * np.sum(v**2, axis=1)
            weights = np.exp(log_p - log_p.max())
            kept = np.flatnonzero(weights > _NEGLIGIBLE)
            weights = weights[kept] / weights[kept].sum()
            there = curves.at(kept, curve.knots.nearest(setting.ahead))
            draws = draws_from(self.prior, v[kept], found.at(kept), there, weights)
        return setting.forecast(draws)


@lru_cache(maxsize=16)
def _points(n_coordinates: int, n_points: int) -> Array:
    shift = np.random.default_rng(0).random(n_coordinates)
    uniform = (qmc.Sobol(n_coordinates, scramble=False).random(n_points) + shift) % 1.0
    points = np.asarray(ndtri(np.clip(uniform, 1e-9, 1.0 - 1e-9)), dtype=float)
    points.flags.writeable = False  # shared by all callers
    return points


@lru_cache(maxsize=4)
def _curves(prior: WeightedCurves, n_points: int, horizon: int) -> LinearDesign:
    """The points' curves on all knots, whatever the values seen there."""
    positions = PositionGrid(horizon).positions
    return design(prior, horizon, _points(prior.n_coordinates, n_points), positions)


def gaussian(prior: WeightedCurves) -> WeightedCurves:
    """The prior with Gaussians of the same moments for its linear parameters, and no range."""
    members = tuple(
        replace(m, linear=tuple(Normal(p.mean, p.deviation) for p in m.linear))
        for m in prior.members
    )
    return replace(prior, members=members, within=None)
