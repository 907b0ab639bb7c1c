"""The weighted combination of curve families given data: its linear part is integrated out.

Model, at positions t_1 < ... < t_n (larger is better):

    z_i = f(t_i) + sigma eps_i,   f(t) = sum_k w_k f_k(t | theta_k),   f(1) < f(T)

Glossary (W coordinate vectors at once, D coordinates, K families, p columns):
    v       coordinates, a priori N(0, I), shape (W, D): each weight, shape parameter and sigma is
            the quantile of its prior at Phi(v)
    beta    linear parameters of all families; a priori independent with mean m and deviation s,
            standardised  b = (beta - m) / s
    X       design, columns  s_j w_k B_j(t), so that f = o + X b; kept transposed, (W, p, n); where
            all of beta is Gaussian, the families' constants are one column, of deviation
            sqrt(sum_k (s_k w_k)^2)
    o       what is not linear in a parameter, and the prior mean of what is, shape (W, n)
    M       I + X' X / sigma^2, the posterior precision of b, M = L L'
    rise    r = f(T) - f(1), given v a Gaussian with mean mu_r and deviation s_r

Given v the model is a linear regression. With a Gaussian prior of beta, b is integrated out:

    log p(v | z) = -|v|^2 / 2 - n log sigma - log det M / 2
                   - (|z - o|^2 / sigma^2 - |L^-1 X' (z - o)|^2 / sigma^4) / 2 + log Phi(mu_r / s_r)

the last term being the chance that the curve rises. With another prior of beta, or a range that the
curve must not leave, the coordinates get a part u that says where b is, in units of what the data
leave of it under the Gaussian of the same moments, b = L'^-1 (L^-1 X' (z - o) / sigma^2 + u), and

    log p(v, u | z) = log p(v | z) without the last term - |u|^2 / 2
                      + sum_j (log p(beta_j) - log N(beta_j; m_j, s_j^2)), -inf for forbidden curves

Source: Domhan et al. 2015, eq. 3-6; Bayesian linear regression, e.g. Bishop 2006, section 3.5; the
truncated Gaussian's moments: Johnson, Kotz & Balakrishnan 1994, section 13.10.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import log_ndtr

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner.curves.learning_curve import PositionGrid
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

    Columns come in the order of the families and their linear parameters; with a Gaussian prior
    the first one is all constants together.
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
                if prior.is_gaussian and isinstance(basis, float):
                    constant += (linear.deviation * part) ** 2
                else:
                    columns.append(linear.deviation * part)
        if prior.is_gaussian:
            columns.insert(0, np.sqrt(constant))
    x = np.empty((len(v), len(columns), t.size))
    for j, column in enumerate(columns):
        x[:, j] = column
    return LinearDesign(x, offset, parameters[:, at])


@dataclass(frozen=True)
class Regression:
    """What the data leave of b given the coordinates, under a Gaussian prior.

    Attributes:
        design: The curves, at the positions given.
        log_evidence: log p(v | z) up to a constant, without the rise; -inf out of support, (W,).
        lower: L, (W, p, p).
        half: L^-1 X' (z - o) / sigma^2; the mean of b is L'^-1 of it, (W, p).
        toward: L^-1 times the rise's columns, its covariance with L' b, (W, p).
        rise_mean: mu_r, (W,).
        rise_deviation: s_r, (W,).
        end_mean: Mean of f(T) in a rising curve, (W,).
        end_variance: Its variance, (W,).
    """

    design: LinearDesign
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
    """A curve as it was observed.

    Attributes:
        horizon: T.
        t: Observed positions, (n,).
        z: Observed values, (n,).
    """

    horizon: int
    t: Array
    z: Array

    @cached_property
    def ends(self) -> tuple[Array, IntArray]:
        """Position 1, those observed and the horizon; and where the observed ones are."""
        return np.r_[1.0, self.t, float(self.horizon)], np.arange(1, self.t.size + 1)

    @cached_property
    def path(self) -> tuple[Array, IntArray]:
        """All knots, or all whole positions; and where the observed ones are."""
        positions = np.union1d(PositionGrid(self.horizon).positions, self.t)
        return positions, np.searchsorted(positions, self.t)


def marginalize(
    prior: WeightedCurves,
    v: Array,
    data: Data,
    positions: tuple[Array, IntArray],
) -> Regression:
    """Integrate the linear parameters.

    Args:
        prior: The prior.
        v: Coordinates, (W, D).
        data: The curve.
        positions: ``data.ends`` or ``data.path``: where the curves are worked out.
    """
    at, observed = positions
    found, z = design(prior, data.horizon, v, at), data.z
    x, offset, sigma = found.x, found.offset, found.sigma
    n, p = z.size, x.shape[1]
    without_gaps = slice(observed[0], observed[0] + n)  # a view, where it will do
    here = without_gaps if observed[-1] + 1 == without_gaps.stop else observed
    seen = x[:, :, here]
    residual = (z - offset[:, here]) / sigma[:, None]
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
    return Regression(found, log_evidence, lower, half, toward, rise_mean, rise_deviation, *at_end)


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


def curves_of(there: LinearDesign, b: Array) -> Array:
    """The curves, o + X b, (W, n)."""
    return there.offset + (b[:, None, :] @ there.x)[:, 0]


def linear_part(prior: WeightedCurves, v: Array, found: Regression) -> Array:
    """The b that the coordinates' part u stands for, (W, p)."""
    u = v[:, prior.blocks > len(prior.members)]
    upper = np.swapaxes(found.lower, 1, 2)
    return np.asarray(np.linalg.solve(upper, (found.half + u)[:, :, None])[:, :, 0])


def log_posterior(found: Regression) -> Array:
    """Log p(v | z, the curve rises) up to a constant, linear parameters integrated out, (W,)."""
    log_p = found.log_evidence + log_ndtr(found.rise_mean / found.rise_deviation)
    return np.where(np.isnan(log_p), -np.inf, log_p)


def log_density(prior: WeightedCurves, v: Array, data: Data) -> tuple[Array, Array, Array]:
    """The density that is sampled, and mean and variance of the curve's end; shapes (W,)."""
    if prior.is_gaussian:
        found = marginalize(prior, v, data, data.ends)
        return log_posterior(found), found.end_mean, found.end_variance
    found = marginalize(prior, v, data, data.path)
    b = linear_part(prior, v, found)
    path = curves_of(found.design, b)
    allowed = path[:, -1] > path[:, 0]
    if prior.within is not None:
        low, high = prior.within
        allowed &= (path.min(axis=1) >= low) & (path.max(axis=1) <= high)
    ratios = [
        linear.log_ratio(linear.mean + linear.deviation * column)
        for linear, column in zip(prior.linear, b.T, strict=True)
    ]
    log_p = np.where(allowed, found.log_evidence + np.sum(ratios, axis=0), -np.inf)
    return log_p, path[:, -1], np.zeros(len(v))


def sample_curves(
    prior: WeightedCurves, horizon: int, n: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Curves from the prior at positions 1 to the horizon, by rejection.

    Returns:
        The curves without noise, shape (n, horizon), and sigma, shape (n,).
    """
    t = np.arange(1.0, horizon + 1)
    curves, sigmas = np.empty((0, horizon)), np.empty(0)
    while len(curves) < n:
        found = design(prior, horizon, rng.normal(size=(2 * n + 16, prior.n_coordinates)), t)
        b = rng.normal(size=found.x.shape[:2])
        if not prior.is_gaussian:  # else the columns are standard normal, the constants together
            for j, linear in enumerate(prior.linear):
                b[:, j] = (linear.quantile(b[:, j]) - linear.mean) / linear.deviation
        with np.errstate(all="ignore"):
            path = curves_of(found, b)
            good = np.all(np.isfinite(path), axis=1) & (path[:, -1] > path[:, 0])
            if prior.within is not None:
                low, high = prior.within
                good &= np.all((path >= low) & (path <= high), axis=1)
        curves, sigmas = np.vstack([curves, path[good]]), np.r_[sigmas, found.sigma[good]]
    return curves[:n], sigmas[:n]
