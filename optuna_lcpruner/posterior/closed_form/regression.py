"""A grid of two-parameter regressions: what the closed-form posterior is a mixture of.

Model, on the working scale (larger is better), at knots t_1 < ... < t_n:

    z_k = c + a psi_s(t_k) + e_k                          c ~ N(m_c, v_c),  a ~ N(m_a, v_a)
    e_k = sigma * s_k * x_k,   s_k = (t_k / horizon)^-kappa
    x_k = rho^g x_(k-1) + sqrt(1 - rho^(2 g)) eps_k       AR(1) over g knots; rho = 1: random walk,
                                                          x_k = x_(k-1) + sqrt(g) eps_k

Glossary (cells (j, l, s): J noise models (rho, kappa), L noise levels sigma, S curve shapes):
    psi    normalised shape, psi(1) = -1, psi(horizon) = 0, so
    c      value at the horizon, a the gain from the first position to the horizon
    M_j    e' M_j e is the whitened sum of squares at sigma = 1; tridiagonal, (n, n)
    G      X' M X with X = [1, psi], g = X' M z, entries (J, 1, S)
    P      posterior precision of (c, a): prior precision + G / sigma^2, entries (J, L, S)

Each cell is a Gaussian regression with evidence in closed form; its posterior weight is its prior
mass times its evidence.

Source: Bayesian linear regression, e.g. Bishop 2006, section 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner.curves.families import Families
from optuna_lcpruner.curves.learning_curve import PositionGrid
from optuna_lcpruner.posterior.closed_form.shapes import ShapeGrid, shape_grid


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
class NoiseModels:
    """The J noise models at the n observed knots."""

    rho: Array  # (J,)
    spread: Array  # (J, K), s at every knot
    diagonal: Array  # (J, n), of M
    beside: Array  # (J, n - 1), off the diagonal of M
    log_det: Array  # (J,), -log det M

    @classmethod
    def of(cls, prior: CurvePrior, observed: IntArray, fraction: Array) -> NoiseModels:
        """At the observed knots, given as indices, (n,); fraction is that of all knots, (K,)."""
        rho, kappa = (
            np.array(axis).ravel() for axis in np.meshgrid(prior.rho, prior.kappa, indexing="ij")
        )
        spread = fraction ** -kappa[:, None]
        s = spread[:, observed]
        decay, innovation = ar1(rho[:, None], np.diff(observed)[None, :])
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


def ar1(rho: Array, gap: Array) -> tuple[Array, Array]:
    """Decay and innovation variance of x over a gap; rho = 1 is the random walk."""
    decay = rho**gap
    innovation = np.where(rho == 1.0, np.asarray(gap, dtype=float), 1.0 - decay**2)
    return decay, innovation


@dataclass(frozen=True)
class Fit:
    """The components that carry the posterior, all arrays (C,) unless said otherwise."""

    model: IntArray
    shape: IntArray
    sigma: Array
    weights: Array
    c: Array
    a: Array
    var_c: Array
    var_a: Array
    cov: Array


_NEGLIGIBLE = 2e-4  # heuristic
"""Components below this share of the heaviest one are left out."""

_MOST_COMPONENTS = 512  # heuristic


@dataclass(frozen=True)
class GridDesign:
    """What the regressions on the n observed knots have in common whatever the values there."""

    noise: NoiseModels
    psi: Array  # (S, n)
    g_11: Array  # (J, 1, 1)
    g_1p: Array  # (J, 1, S)
    g_pp: Array  # (J, 1, S)
    det: Array  # (J, L, S), of the posterior precision
    log_weight: Array  # (J, L, S), of prior and evidence, the part that the values do not enter

    @classmethod
    def of(
        cls, prior: CurvePrior, noise: NoiseModels, grid: ShapeGrid, observed: IntArray
    ) -> GridDesign:
        """At the observed knots, given as indices, (n,)."""
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
        log_weight = (
            log_mass(prior, grid)
            - n * np.log(sigma)
            - 0.5 * (noise.log_det[:, None, None] + np.log(det))
        )
        return cls(noise, psi, g_11, g_1p, g_pp, det, log_weight)


@lru_cache(maxsize=128)
def design_of(prior: CurvePrior, families: Families, horizon: int, observed: bytes) -> GridDesign:
    """The design of a training's first knots; `observed` are the bytes of their indices."""
    seen = np.frombuffer(observed, dtype=np.int64)
    noise = NoiseModels.of(prior, seen, PositionGrid(horizon).positions / horizon)
    return GridDesign.of(prior, noise, shape_grid(horizon, families), seen)


def log_mass(prior: CurvePrior, grid: ShapeGrid) -> Array:
    """Log of the cells' prior masses up to a constant, (L, S); all noise models weigh the same."""
    mean, deviation = prior.log_sigma
    level = -0.5 * ((np.log(prior.sigma) - mean) / deviation) ** 2
    return np.asarray(np.log(grid.mass.sum(axis=1)) + level[:, None])


@dataclass(frozen=True)
class _Cells:
    """All regressions on the same values; the mean of (c, a) is (c, a) / det. Arrays (J, L, S)."""

    p_cc: Array  # (J, L, 1)
    p_aa: Array
    p_ca: Array
    c: Array
    a: Array
    log_weight: Array

    @classmethod
    def of(cls, design: GridDesign, prior: CurvePrior, z: Array) -> _Cells:
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
        c = p_aa * h_c - p_ca * h_a
        a = p_cc * h_a - p_ca * h_c
        explained = (h_c * c + h_a * a) / design.det
        log_weight = design.log_weight + 0.5 * (explained - g_zz * precision)
        return cls(p_cc, p_aa, p_ca, c, a, log_weight)


def responsibilities(design: GridDesign, prior: CurvePrior, z: Array) -> Array:
    """Posterior weights of all cells given values z at the design's knots; sum 1, (J, L, S)."""
    log_weight = _Cells.of(design, prior, z).log_weight
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def fit_grid(
    design: GridDesign, prior: CurvePrior, z: Array, occurrence: Array | None = None
) -> Fit:
    """The cells that carry the posterior given values z at the design's knots.

    Args:
        design: What the knots and the prior determine.
        prior: The same prior that the design was made with.
        z: Working values at the observed knots, shape (n,).
        occurrence: Log of the factors by which the study has changed the cells' prior masses,
            shape (J, L, S).
    """
    cells = _Cells.of(design, prior, z)
    log_weight = cells.log_weight if occurrence is None else cells.log_weight + occurrence
    weight = np.exp(log_weight - log_weight.max())
    model, level, shape = here = np.nonzero(weight > _NEGLIGIBLE)
    kept = weight[here]
    if kept.size > _MOST_COMPONENTS:
        chosen, kept = _representatives(kept, cells.c[here] / design.det[here])
        model, level, shape = here = (model[chosen], level[chosen], shape[chosen])
    det = design.det[here]
    return Fit(
        model=model,
        shape=shape,
        sigma=np.array(prior.sigma)[level],
        weights=kept / kept.sum(),
        c=cells.c[here] / det,
        a=cells.a[here] / det,
        var_c=cells.p_aa[here] / det,
        var_a=cells.p_cc[model, level, 0] / det,
        cov=-cells.p_ca[here] / det,
    )


def _representatives(weights: Array, location: Array) -> tuple[IntArray, Array]:
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


def _times(noise: NoiseModels, x: Array) -> Array:
    """M_j x for every noise model, (J, n)."""
    result = noise.diagonal * x
    result[:, 1:] += noise.beside * x[:-1]
    result[:, :-1] += noise.beside * x[1:]
    return result
