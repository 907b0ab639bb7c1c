"""The closed-form posterior: shapes and noise on a grid, the linear part integrated exactly.

Model, on the working scale (larger is better), at knots t_1 < ... < t_n:

    z_k = c + a psi_s(t_k) + e_k                          c ~ N(m_c, v_c),  a ~ N(m_a, v_a)
    e_k = sigma * s_k * x_k,   s_k = (t_k / horizon)^-kappa
    x_k = rho^g x_(k-1) + sqrt(1 - rho^(2 g)) eps_k       AR(1) over g knots; rho = 1: random walk,
                                                          x_k = x_(k-1) + sqrt(g) eps_k

Glossary (shapes: J noise models (rho, kappa), L noise levels sigma, S curve shapes):
    psi    normalised shape, psi(1) = -1, psi(horizon) = 0, so
    c      value at the horizon, a the gain from the first position to the horizon
    M_j    e' M_j e is the whitened sum of squares at sigma = 1; tridiagonal, (n, n)
    G      X' M X with X = [1, psi], g = X' M z, entries (J, 1, S)
    P      posterior precision of (c, a): prior precision + G / sigma^2, entries (J, L, S)

Each combination (j, l, s) is a two-parameter Gaussian regression with evidence in closed form; the
posterior is the mixture of all of them, weighted by prior mass times evidence. Correlated noise is
what keeps 200 mini-batch values from counting as 200 witnesses, shrinking noise lets early
transients be rough, Student-t_4 tails and a model error that shrinks towards the horizon stand for
what no family describes (learning-rate drops, restarts).

Source: families and f(1) < f(m) from Domhan et al. 2015, eq. 3-5; Bayesian linear regression, e.g.
Bishop 2006, section 3.5. Differs: families are averaged by evidence instead of added up with
weights, and a falling or flat curve is unlikely a priori instead of impossible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from optuna_lcpruner.families import FAMILIES
from optuna_lcpruner.learning_curve import Knots, LearningCurve
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.shapes import ShapeGrid, shape_grid
from optuna_lcpruner.predictive import Component, Forecast, t_cdf

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CurvePrior:
    """Prior of one learning curve on the working scale (0 typical start, 1 best so far).

    Attributes:
        asymptote: Mean and standard deviation of the value at the horizon.
        rise: Mean and standard deviation of the gain from first position to horizon. The mean is
            positive, good curves rise; the deviation leaves room for flat and falling ones.
        sigma: Noise levels, working units.
        log_sigma: Mean and standard deviation of ln sigma, which weight the levels.
        rho: Autocorrelation from one knot to the next; 0 is independent noise, 1 a random walk.
        kappa: Exponents by which the noise shrinks as training goes on.
        df: Degrees of freedom of the predictive tails.
        model_error: Standard deviation of what no family describes, at the start and at the end
            of training, linear in between.
    """

    asymptote: tuple[float, float] = (0.5, 0.5)
    rise: tuple[float, float] = (0.4, 0.5)
    sigma: tuple[float, ...] = tuple(np.geomspace(0.002, 0.5, 8))
    log_sigma: tuple[float, float] = (-3.5, 1.5)
    rho: tuple[float, ...] = (0.0, 0.7, 1.0)
    kappa: tuple[float, ...] = (0.0, 0.5, 1.0)
    df: float = 4.0
    model_error: tuple[float, float] = (0.04, 0.004)


@dataclass(frozen=True)
class ClosedForm:
    """The default engine: ``(curve, knowledge, positions) -> Forecast``.

    Attributes:
        prior: The curve prior.
        families: Names of the families that take part.
    """

    prior: CurvePrior = field(default_factory=CurvePrior)
    families: tuple[str, ...] = tuple(FAMILIES)

    def __call__(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> Forecast:
        """See :class:`~optuna_lcpruner.posterior.interface.Engine`."""
        return self.quick(curve, knowledge, positions)[1]()

    def quick(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> tuple[float, Callable[[], Forecast]]:
        """See :class:`~optuna_lcpruner.posterior.interface.QuickEngine`."""
        observed, values = curve.on_knots
        z = np.clip((values - knowledge.scale.location) / knowledge.scale.unit, -FAR, FAR)
        z, stretch, shift = tamed(z)
        grid = shape_grid(curve.horizon, self.families)
        design = _design(self.prior, self.families, curve.horizon, observed.tobytes())
        fit = _regress(design, self.prior, z)
        ahead = _Ahead(grid, design.noise, self.prior, observed, z, fit, curve.seen)
        floor = -np.inf
        if knowledge.target is Target.BEST:
            best = (np.max(curve.values) - knowledge.scale.location) / knowledge.scale.unit
            floor = float(np.clip(best, -FAR, FAR))

        def component(knots: NDArray[np.int64], noise: bool) -> Component:
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


def tamed(z: Array) -> tuple[Array, float, float]:
    """Bring a curve into the range its prior is made for: ``z = stretch * tamed + shift``.

    A start at 1e4 or one exploding batch must not blow up the noise of a curve that has recovered,
    so values are clipped below at -1 or at the lowest of the last quarter, whichever is lower. A
    curve that is still out there is judged around where it is: its last value is moved to the
    prior's usual asymptote, and the prior is stretched to a twentieth of the curve's size and of
    the way back.
    """
    recent = z[-max(2, z.size // 4) :]
    z = np.maximum(z, min(-1.0, float(np.min(recent))))
    last = float(z[-1])
    if last >= -1.0:
        stretch = max(1.0, float(np.max(np.abs(z))) / 2.0)
        return z / stretch, stretch, 0.0
    stretch = max(1.0, float(np.ptp(z)) / 20.0, (0.5 - last) / 20.0)
    shift = last - 0.5 * stretch
    return (z - last) / stretch + 0.5, stretch, shift


@dataclass(frozen=True)
class _NoiseModels:
    """The J noise models at the n observed knots."""

    rho: Array  # (J,)
    spread: Array  # (J, K), s at every knot
    diagonal: Array  # (J, n), of M
    beside: Array  # (J, n - 1), off the diagonal of M
    log_det: Array  # (J,), -log det M

    @classmethod
    def of(cls, prior: CurvePrior, observed: NDArray[np.int64], fraction: Array) -> _NoiseModels:
        rho, kappa = (
            np.array(axis).ravel() for axis in np.meshgrid(prior.rho, prior.kappa, indexing="ij")
        )
        spread = fraction ** -kappa[:, None]
        s = spread[:, observed]
        decay, innovation = _ar1(rho[:, None], np.diff(observed)[None, :])
        diagonal = np.ones_like(s)
        diagonal[:, 1:] = 1.0 / innovation
        diagonal[:, :-1] += decay**2 / innovation
        return cls(
            rho,
            spread,
            diagonal / s**2,
            -decay / innovation / (s[:, 1:] * s[:, :-1]),
            2.0 * np.log(s).sum(axis=1) + np.log(innovation).sum(axis=1),
        )


def _ar1(rho: Array, gap: Array) -> tuple[Array, Array]:
    """Decay and innovation variance of x over a gap; rho = 1 is the random walk."""
    decay = rho**gap
    innovation = np.where(rho == 1.0, np.asarray(gap, dtype=float), 1.0 - decay**2)
    return decay, innovation


@dataclass(frozen=True)
class _Fit:
    """The components that carry the posterior, all arrays (C,) unless said otherwise."""

    model: NDArray[np.int64]
    shape: NDArray[np.int64]
    sigma: Array
    weights: Array
    c: Array
    a: Array
    var_c: Array
    var_a: Array
    cov: Array


FAR = 1e100
"""Working values are cut off here, since squares of larger ones could overflow."""

_NEGLIGIBLE = 2e-4
"""Components below this share of the heaviest one are left out."""

_MOST_COMPONENTS = 512


@dataclass(frozen=True)
class _Design:
    """What the regressions on the n observed knots have in common whatever the values there."""

    noise: _NoiseModels
    psi: Array  # (S, n)
    g_11: Array  # (J, 1, 1)
    g_1p: Array  # (J, 1, S)
    g_pp: Array  # (J, 1, S)
    det: Array  # (J, L, S), of the posterior precision
    log_weight: Array  # (J, L, S), of prior and evidence, the part that the values do not enter

    @classmethod
    def of(
        cls, prior: CurvePrior, noise: _NoiseModels, grid: ShapeGrid, observed: NDArray[np.int64]
    ) -> _Design:
        n = observed.size
        if observed[-1] == n - 1:  # the usual case: every knot up to now, no copies
            psi, square, product = grid.psi[:, :n], grid.square[:, :n], grid.product[:, : n - 1]
        else:
            psi = grid.psi[:, observed]
            square, product = psi**2, psi[:, :-1] * psi[:, 1:]
        one = _times(noise, np.ones(n))  # (J, n)
        g_11 = one.sum(axis=1)[:, None, None]
        g_1p = (one @ psi.T)[:, None, :]
        g_pp = (noise.diagonal @ square.T + 2.0 * noise.beside @ product.T)[:, None, :]
        sigma = np.array(prior.sigma)[None, :, None]
        precision = sigma**-2.0
        det = (prior.asymptote[1] ** -2 + g_11 * precision) * (
            prior.rise[1] ** -2 + g_pp * precision
        ) - (g_1p * precision) ** 2
        mean, deviation = prior.log_sigma
        log_weight = (
            np.log(grid.mass.sum(axis=1))
            - 0.5 * ((np.log(sigma) - mean) / deviation) ** 2
            - n * np.log(sigma)
            - 0.5 * (noise.log_det[:, None, None] + np.log(det))
        )
        return cls(noise, psi, g_11, g_1p, g_pp, det, log_weight)


@lru_cache(maxsize=128)
def _design(prior: CurvePrior, families: tuple[str, ...], horizon: int, observed: bytes) -> _Design:
    """The design of a training's first knots; `observed` are the bytes of their indices."""
    seen = np.frombuffer(observed, dtype=np.int64)
    noise = _NoiseModels.of(prior, seen, Knots(horizon).positions / horizon)
    return _Design.of(prior, noise, shape_grid(horizon, families), seen)


def _regress(design: _Design, prior: CurvePrior, z: Array) -> _Fit:
    (m_c, s_c), (m_a, s_a) = prior.asymptote, prior.rise
    k_c, k_a = s_c**-2, s_a**-2
    precision = np.array(prior.sigma)[None, :, None] ** -2.0

    weighted_z = _times(design.noise, z)  # (J, n)
    g_1z = weighted_z.sum(axis=1)[:, None, None]
    g_zz = (weighted_z @ z)[:, None, None]
    g_pz = (weighted_z @ design.psi.T)[:, None, :]

    p_cc = k_c + design.g_11 * precision
    p_aa = k_a + design.g_pp * precision
    p_ca = design.g_1p * precision
    h_c = k_c * m_c + g_1z * precision
    h_a = k_a * m_a + g_pz * precision
    # The mean of (c, a) is (c, a) / det.
    c = p_aa * h_c - p_ca * h_a
    a = p_cc * h_a - p_ca * h_c
    explained = (h_c * c + h_a * a) / design.det
    log_weight = design.log_weight + 0.5 * (explained - g_zz * precision)
    weight = np.exp(log_weight - log_weight.max())
    model, level, shape = here = np.nonzero(weight > _NEGLIGIBLE)
    kept = weight[here]
    if kept.size > _MOST_COMPONENTS:
        chosen, kept = _representatives(kept, c[here] / design.det[here])
        model, level, shape = here = (model[chosen], level[chosen], shape[chosen])
    det = design.det[here]
    return _Fit(
        model=model,
        shape=shape,
        sigma=np.array(prior.sigma)[level],
        weights=kept / kept.sum(),
        c=c[here] / det,
        a=a[here] / det,
        var_c=p_aa[here] / det,
        var_a=p_cc[model, level, 0] / det,
        cov=-p_ca[here] / det,
    )


def _representatives(weights: Array, location: Array) -> tuple[NDArray[np.int64], Array]:
    """Indices and weights of a systematic sample, so that early, vague posteriors stay cheap.

    In order of location, component i is taken as often as the points (k + 1/2) / _MOST_COMPONENTS
    fall into its part of the cumulative weight: no mass is lost, and the distribution of locations
    changes by less than 1 / _MOST_COMPONENTS anywhere, up to 1 / 32767 of their range.
    """
    low, high = location.min(), location.max()
    place = ((location - low) * (32767.0 / max(high - low, 1e-9))).astype(np.int16)
    order = np.argsort(place, kind="stable")  # small integers: by radix, ten times faster
    cumulative = np.cumsum(weights[order])
    points = (np.arange(_MOST_COMPONENTS) + 0.5) / _MOST_COMPONENTS * cumulative[-1]
    counts = np.bincount(np.searchsorted(cumulative, points), minlength=weights.size)
    chosen = np.flatnonzero(counts).astype(np.int64)
    return order[chosen], counts[chosen].astype(float)


def _times(noise: _NoiseModels, x: Array) -> Array:
    """M_j x for every noise model, (J, n)."""
    result = noise.diagonal * x
    result[:, 1:] += noise.beside * x[:-1]
    result[:, :-1] += noise.beside * x[1:]
    return result


@dataclass(frozen=True)
class _Ahead:
    """The components' predictive distributions at later knots, given what was seen."""

    grid: ShapeGrid
    noise: _NoiseModels
    prior: CurvePrior
    observed: NDArray[np.int64]
    z: Array
    fit: _Fit
    seen: float

    def value(self, knots: NDArray[np.int64], noise: bool) -> tuple[Array, Array]:
        """Location and scale of the reported value, or without `noise` of the curve; (P, C).

        Given what was seen the noise is expected to be  h e_n,  e_n = z_n - c - a psi(t_n),
        h = rho^g s / s_n, so the value is  (1 - h) c + (psi - h psi_n) a + h z_n + fresh noise.
        A random walk is a drift of the training, not noise of the measurement: it stays in the
        curve.
        """
        fit, last = self.fit, self.observed[-1]
        rho = self.noise.rho[fit.model]
        decay, innovation = _ar1(rho, np.maximum(knots - last, 0)[:, None])
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

    def best_of_path(self, knots: NDArray[np.int64], noise: bool) -> tuple[Array, Array]:
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


def _family_shares(grid: ShapeGrid, fit: _Fit) -> dict[str, float]:
    by_shape = np.bincount(fit.shape, fit.weights, minlength=len(grid.psi))
    shares = by_shape @ (grid.mass / grid.mass.sum(axis=1, keepdims=True))
    return {name: float(share) for name, share in zip(grid.families, shares, strict=True)}
