"""The closed-form posterior: shapes and noise on a grid, the linear part integrated exactly.

The eleven families' shapes, noise levels and noise models make a grid of two-parameter regressions
(:mod:`~optuna_lcpruner.posterior.closed_form.regression` has the model and the glossary). The
posterior is the mixture of all of them, weighted by evidence times prior mass, which the study's
completed trials teach (:mod:`~optuna_lcpruner.posterior.closed_form.empirical_bayes`). Correlated
noise is what keeps 200 mini-batch values from counting as 200 witnesses, shrinking noise lets early
transients be rough, Student-t_4 tails and a model error that shrinks towards the horizon stand for
what no family describes (learning-rate drops, restarts).

Source: families and f(1) < f(m) from Domhan et al. 2015, eq. 3-5. Differs: families are averaged
by evidence instead of added up with weights, and a falling or flat curve is unlikely a priori
instead of impossible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner.curves.families import FAMILIES, Families, families_of
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.closed_form.empirical_bayes import learned
from optuna_lcpruner.posterior.closed_form.regression import (
    CurvePrior,
    Fit,
    NoiseModels,
    ar1,
    design_of,
    fit_grid,
)
from optuna_lcpruner.posterior.closed_form.shapes import ShapeGrid, shape_grid
from optuna_lcpruner.posterior.forecast import Component, Forecast, t_cdf
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.normalization import floor_of, normalize


@dataclass(frozen=True)
class ClosedForm:
    """The ensemble of curves in closed form: ``(curve, knowledge, positions) -> Forecast``.

    Attributes:
        prior: The curve prior.
        families: The families that take part: names of the table's, or a
            :class:`~optuna_lcpruner.curves.Family` of one's own.
        learns: Whether the completed trials' curves teach which shapes and noise occur here.

    Raises:
        ValueError: If the families are none, unknown or not distinct.
        TypeError: If one is neither a name nor a family.
    """

    prior: CurvePrior = field(default_factory=CurvePrior)
    families: Families = tuple(FAMILIES)
    learns: bool = True

    def __post_init__(self) -> None:
        families_of(self.families)

    def __call__(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> Forecast:
        """See :class:`~optuna_lcpruner.posterior.Engine`."""
        return self.p_and_forecast(curve, knowledge, positions)[1]()

    def p_and_forecast(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> tuple[float, Callable[[], Forecast]]:
        """See :class:`~optuna_lcpruner.posterior.FastEngine`."""
        observed, values = curve.on_knots
        z, stretch, shift = normalize(values, knowledge.scale)
        grid = shape_grid(curve.horizon, self.families)
        design = design_of(self.prior, self.families, curve.horizon, observed.tobytes())
        fit = fit_grid(design, self.prior, z, self.occurrence(curve.horizon, knowledge))
        ahead = _Ahead(grid, design.noise, self.prior, observed, z, fit, curve.seen)
        floor = -np.inf
        if knowledge.target is Target.BEST:
            floor = floor_of(curve.values, knowledge.scale)

        def component(knots: IntArray, noise: bool) -> Component:
            path = ahead.best_of_path if knowledge.target is Target.BEST else ahead.value
            location, scale = path(knots, noise)
            return Component(location * stretch + shift, scale * stretch)

        at_end = component(np.array([curve.knots.size - 1]), True)

        def forecast() -> Forecast:
            wanted = np.array([curve.horizon] if positions is None else positions, dtype=float)
            knots = curve.knots.nearest(wanted)
            return Forecast(
                positions=wanted,
                weights=fit.weights,
                observed=at_end if positions is None else component(knots, True),
                latent=component(knots, False),
                df=self.prior.df,
                scale=knowledge.scale,
                floor=floor,
                shares=_family_shares(grid, fit),
            )

        if floor > 1.0:  # its best report is its value, and it beats the best already
            return 1.0, forecast
        above = t_cdf((at_end.location[0] - 1.0) / at_end.scale[0], self.prior.df)
        return float(above @ fit.weights), forecast

    def occurrence(self, horizon: int, knowledge: StudyKnowledge) -> Array | None:
        """Return ln p / p_0 of all cells as the study teaches it, worked out once for all trials.

        Args:
            horizon: Position of the last report of a full training.
            knowledge: What the study knows, on its own working scale.
        """
        if not self.learns:
            return None
        return knowledge.cached(
            (self, horizon), lambda: learned(self.prior, self.families, horizon, knowledge)
        )


@dataclass(frozen=True)
class _Ahead:
    """The components' predictive distributions at later knots, given what was seen."""

    grid: ShapeGrid
    noise: NoiseModels
    prior: CurvePrior
    observed: IntArray
    z: Array
    fit: Fit
    seen: float

    def value(self, knots: IntArray, noise: bool) -> tuple[Array, Array]:
        """Location and scale of the reported value, or without `noise` of the curve; (P, C).

        Given what was seen the noise is expected to be  h e_n,  e_n = z_n - c - a psi(t_n),
        h = rho^g s / s_n, so the value is  (1 - h) c + (psi - h psi_n) a + h z_n + fresh noise.
        A random walk is a drift of the training, not noise of the measurement: it stays in the
        curve.
        """
        fit, last = self.fit, self.observed[-1]
        rho = self.noise.rho[fit.model]
        decay, innovation = ar1(rho, np.maximum(knots - last, 0)[:, None])
        spread = self.noise.spread[fit.model[None, :], knots[:, None]]
        h = decay * spread / self.noise.spread[fit.model, last]
        fresh = (fit.sigma * spread) ** 2 * innovation
        if not noise:
            drifts = rho == 1.0
            h, fresh = np.where(drifts, h, 0.0), np.where(drifts, fresh, 0.0)
        psi = self.grid.psi[fit.shape[None, :], knots[:, None]]
        x_c, x_a = 1.0 - h, psi - h * self.grid.psi[fit.shape, last]
        location = x_c * fit.c + x_a * fit.a + h * self.z[-1]
        variance = x_c**2 * fit.var_c + 2.0 * x_c * x_a * fit.cov + x_a**2 * fit.var_a
        error = _model_error(self.prior, self.seen) ** 2
        return location, np.sqrt(np.maximum(variance, 0.0) + fresh + error)

    def best_of_path(self, knots: IntArray, noise: bool) -> tuple[Array, Array]:
        """The same of the best value from now to each knot.

        A shape is monotone and the carried-over noise decays, so a component's expected path has
        its maximum at the next knot or at the end. On top comes the expected maximum of the fresh
        noise: of m independent draws  sd * Phi^-1((m - 3/8) / (m + 1/4))  (Blom 1958), m knots
        counting as m (1 - rho); of a random walk  sd * sqrt(2 / pi)  (reflection principle).
        """
        fit, last = self.fit, self.observed[-1]
        location, scale = self.value(knots, noise)
        next_knot = np.array([min(last + 1, self.grid.psi.shape[1] - 1)])
        next_location, next_scale = self.value(next_knot, noise)
        rho = self.noise.rho[fit.model]
        n_ahead = np.maximum(knots - last, 1)[:, None]
        sd = fit.sigma * self.noise.spread[fit.model[None, :], knots[:, None]]
        lift = np.where(rho == 1.0, sd * np.sqrt(2.0 / np.pi * n_ahead), 0.0)
        if noise:
            effective = np.maximum(n_ahead * (1.0 - rho), 1.0)
            blom = ndtri((effective - 0.375) / (effective + 0.25))
            lift = np.where(rho == 1.0, lift, sd * np.maximum(blom, 0.0))
        return (
            np.maximum(location, next_location) + lift,
            np.where(location >= next_location, scale, next_scale),
        )


def _model_error(prior: CurvePrior, seen: float) -> float:
    start, end = prior.model_error
    return start + (end - start) * min(max(seen, 0.0), 1.0)


def _family_shares(grid: ShapeGrid, fit: Fit) -> dict[str, float]:
    by_shape = np.bincount(fit.shape, fit.weights, minlength=len(grid.psi))
    shares = by_shape @ (grid.mass / grid.mass.sum(axis=1, keepdims=True))
    return {name: float(share) for name, share in zip(grid.families, shares, strict=True)}
