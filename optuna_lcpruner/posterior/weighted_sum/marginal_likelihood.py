"""The weighted combination of curve families given data: its linear part is integrated out.

Model, at positions t_1 < ... < t_n (larger is better):

    z_i = f(t_i) + sigma eps_i,   f(t) = sum_k w_k f_k(t | theta_k),   f(1) < f(T)

Glossary (W coordinate vectors at once, D coordinates, K families, p columns):
    v       coordinates, a priori N(0, I), shape (W, D): each weight, shape parameter and sigma is
            the quantile of its prior at Phi(v)
    beta    linear parameters of all families; a priori independent with mean m and deviation s,
            standardised  b = (beta - m) / s
    X       design, columns  s_j w_k B_j(t), so that f = o + X b; kept transposed, (W, p, n); the
            families' constants are one column, of deviation  sqrt(sum_k (s_k w_k)^2)
    o       what is not linear in a parameter, and the prior mean of what is, shape (W, n)
    M       I + X' X / sigma^2, the posterior precision of b, M = L L'
    rise    r = f(T) - f(1), given v a Gaussian with mean mu_r and deviation s_r

Given v the model is a linear regression, in which b is integrated out:

    log p(v | z) = -|v|^2 / 2 - n log sigma - log det M / 2
                   - (|z - o|^2 / sigma^2 - |L^-1 X' (z - o)|^2 / sigma^4) / 2 + log Phi(mu_r / s_r)

the last term being the chance that the curve rises.

Source: Domhan et al. 2015, eq. 3-6; Bayesian linear regression, e.g. Bishop 2006, section 3.5; the
truncated Gaussian's moments: Johnson, Kotz & Balakrishnan 1994, section 13.10.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import log_ndtr

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.normalization import normalize
from optuna_lcpruner.posterior.weighted_sum.model import WeightedCurves


@dataclass(frozen=True)
class LinearDesign:
    """Curves at some positions, as functions of b: f = offset + b x.

    Attributes:
        x: X transposed, (W, p, n).
        offset: (W, n).
        sigma: (W,).
    """

    x: Array
    offset: Array
    sigma: Array


def design(prior: WeightedCurves, horizon: int, v: Array, t: Array) -> LinearDesign:
    """The curves of coordinates ``v`` at positions ``t``; not finite where a formula has no value.

    The first column is all constants together, the others come in the order of the families and
    their linear parameters.
    """
    every = np.r_[1.0, float(horizon), t]
    parameters = prior.parameters(v)
    columns: list[Array | float] = []
    offset = np.zeros((len(v), t.size))
    constant = np.zeros((len(v), 1))
    at = 0
    with np.errstate(all="ignore"):
        for member in prior.members:
            w: Array | float = 1.0
            if member.weight is not None:
                w, at = parameters[:, at, None], at + 1
            sampled = [parameters[:, i, None] for i in range(at, at + len(member.nonlinear))]
            at += len(sampled)
            shapes = member.shape(float(horizon), *sampled)
            phi = member.resolved.kernel(*shapes, every)
            bases, rest = member.basis(phi[..., :1], phi[..., 1:2], phi[..., 2:], *sampled)
            if bases or not isinstance(rest, float):
                offset += w * rest
            for linear, basis in zip(member.linear, bases, strict=True):
                part = w * basis
                offset += linear.mean * part
                if isinstance(basis, float):
                    constant += (linear.deviation * part) ** 2
                else:
                    columns.append(linear.deviation * part)
        columns.insert(0, np.sqrt(constant))
    x = np.empty((len(v), len(columns), t.size))
    for j, column in enumerate(columns):
        x[:, j] = column
    return LinearDesign(x, offset, parameters[:, at])


@dataclass(frozen=True)
class Regression:
    """What the data leave of b given the coordinates.

    Attributes:
        log_evidence: log p(v | z) up to a constant, without the rise; -inf out of support, (W,).
        lower: L, (W, p, p).
        half: L^-1 X' (z - o) / sigma^2; the mean of b is L'^-1 of it, (W, p).
        toward: L^-1 times the rise's columns, its covariance with L' b, (W, p).
        rise_mean: mu_r, (W,).
        rise_deviation: s_r, (W,).
        end_mean: Mean of f(T) in a rising curve, (W,).
        end_variance: Its variance, (W,).
    """

    log_evidence: Array
    lower: Array
    half: Array
    toward: Array
    rise_mean: Array
    rise_deviation: Array
    end_mean: Array
    end_variance: Array


@dataclass(frozen=True)
class Data:
    """A curve on its knots, on the scale that its prior is made for.

    Attributes:
        horizon: T.
        t: Observed positions, (n,).
        z: Observed values, (n,).
        stretch: The working value is ``stretch * z + shift``.
        shift: See ``stretch``.
    """

    horizon: int
    t: Array
    z: Array
    stretch: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, curve: LearningCurve, scale: Scale) -> Data:
        """Bring a curve into the range of its prior, see :func:`normalize`."""
        observed, values = curve.on_knots
        at = curve.knots.positions[observed]
        return cls(max(curve.horizon, 2), at, *normalize(values, scale))

    @cached_property
    def ends(self) -> Array:
        """Position 1, those observed and the horizon."""
        return np.asarray(np.r_[1.0, self.t, float(self.horizon)])


def marginalize(prior: WeightedCurves, v: Array, data: Data) -> Regression:
    """Integrate the linear parameters.

    Args:
        prior: The prior.
        v: Coordinates, (W, D).
        data: The curve.
    """
    found, z = design(prior, data.horizon, v, data.ends), data.z
    x, offset, sigma = found.x, found.offset, found.sigma
    n, p = z.size, x.shape[1]
    seen = x[:, :, 1:-1]
    residual = (z - offset[:, 1:-1]) / sigma[:, None]
    precision = (seen @ np.swapaxes(seen, 1, 2)) / sigma[:, None, None] ** 2
    projected = (seen @ (residual / sigma[:, None])[:, :, None])[:, :, 0]
    square = np.sum(residual**2, axis=1)
    size = np.trace(precision, axis1=1, axis2=2)
    fine = (
        (size < _WILD)
        & (sigma >= LEAST_SIGMA)
        & np.isfinite(square)
        & np.all(np.isfinite(projected), axis=1)
    )
    if not np.all(fine):
        precision[~fine], projected[~fine] = 0.0, 0.0
    precision[:, np.arange(p), np.arange(p)] += 1.0
    lower = np.asarray(np.linalg.cholesky(precision), dtype=float)
    sides = np.stack([projected, x[:, :, -1] - x[:, :, 0], x[:, :, -1]], axis=2)
    solved = np.asarray(np.linalg.solve(lower, sides), dtype=float)
    half, toward, end = solved[:, :, 0], solved[:, :, 1], solved[:, :, 2]
    rise_mean = offset[:, -1] - offset[:, 0] + np.sum(toward * half, axis=1)
    rise_deviation = np.sqrt(np.maximum(np.sum(toward**2, axis=1), _TINY**2))
    log_evidence = (
        -0.5 * np.sum(v**2, axis=1)
        - n * np.log(sigma)
        - np.sum(np.log(np.diagonal(lower, axis1=1, axis2=2)), axis=1)
        - 0.5 * (square - np.sum(half**2, axis=1))
    )
    log_evidence = np.where(fine & np.isfinite(log_evidence), log_evidence, -np.inf)
    at_end = _risen(
        offset[:, -1] + np.sum(end * half, axis=1),
        np.sum(end**2, axis=1),
        np.sum(end * toward, axis=1),
        rise_mean,
        rise_deviation,
    )
    return Regression(log_evidence, lower, half, toward, rise_mean, rise_deviation, *at_end)


_WILD = 1e20  # heuristic
"""Curves with more precision than this are out of support: their regression has lost all digits."""

LEAST_SIGMA = 1e-4  # heuristic
"""Smaller noise is out of support: the density of a curve without noise has no bound."""

_TINY = 1e-9  # heuristic


def _risen(
    mean: Array, variance: Array, covariance: Array, rise_mean: Array, rise_deviation: Array
) -> tuple[Array, Array]:
    """Moments of f given that the curve rises, from those without that condition.

    With alpha = mu_r / s_r, lambda = phi(alpha) / Phi(alpha) and c the covariance of f and r:

        E f = mu_f + c lambda / s_r,   Var f = s_f^2 - c^2 lambda (lambda + alpha) / s_r^2
    """
    alpha = rise_mean / rise_deviation
    mills = np.exp(-0.5 * alpha**2 - log_ndtr(alpha)) / np.sqrt(2.0 * np.pi)
    slope = covariance / rise_deviation
    variance = variance - slope**2 * mills * (mills + alpha)
    return mean + slope * mills, np.maximum(variance, 0.0)


def moments(found: Regression, ahead: LinearDesign) -> tuple[Array, Array]:
    """Mean and variance of the curve at positions ahead given the coordinates, (W, P) each."""
    upper = np.swapaxes(found.lower, 1, 2)
    both = np.linalg.solve(upper, np.stack([found.half, found.toward], axis=2))  # (W, p, 2)
    mean, covariance = np.moveaxis(np.swapaxes(both, 1, 2) @ ahead.x, 1, 0)  # (W, P) each
    scaled = np.linalg.inv(found.lower) @ ahead.x  # (W, p, P); solve() takes three times as long
    return _risen(
        ahead.offset + mean,
        np.einsum("wpk,wpk->wk", scaled, scaled),
        covariance,
        found.rise_mean[:, None],
        found.rise_deviation[:, None],
    )


def log_density(prior: WeightedCurves, v: Array, data: Data) -> tuple[Array, Array, Array]:
    """The density that is sampled, and mean and variance of the curve's end; shapes (W,)."""
    found = marginalize(prior, v, data)
    log_p = found.log_evidence + log_ndtr(found.rise_mean / found.rise_deviation)
    return np.where(np.isnan(log_p), -np.inf, log_p), found.end_mean, found.end_variance
