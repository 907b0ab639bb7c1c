"""The weighted combination: the families of the table, their priors, and the integral over b."""

from __future__ import annotations

import numpy as np
import pytest
from formulas import FORMULAS
from numpy.testing import assert_allclose
from scipy import integrate, stats

from optuna_lcpruner.curves.distributions import Exponential, LogNormal, Normal, Uniform
from optuna_lcpruner.curves.families import FAMILIES
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import (
    Data,
    design,
    linear_part,
    log_density,
    marginalize,
    moments,
    sample_curves,
)
from optuna_lcpruner.posterior.weighted_sum.priors import END, RISE, lcpfn_prior, paper_prior

T = 40
POSITIONS = np.array([1.0, 2.0, 5.0, 17.0, 40.0])


def coordinates(prior, n, size=0.7, seed=0):
    return size * np.random.default_rng(seed).normal(size=(n, prior.n_coordinates))


@pytest.mark.parametrize(
    ("prior", "scipys"),
    [
        (Normal(0.3, 2.0), stats.norm(0.3, 2.0)),
        (LogNormal(-1.0, 0.5), stats.lognorm(0.5, scale=np.exp(-1.0))),
        (Exponential(0.2), stats.expon(scale=0.2)),
        (Uniform(-0.5, 1.5), stats.uniform(-0.5, 2.0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_quantiles(prior, scipys):
    levels = np.array([1e-6, 0.05, 0.5, 0.8, 1.0 - 1e-6])
    assert_allclose(prior.quantile(stats.norm.ppf(levels)), scipys.ppf(levels), rtol=1e-7)


def test_ratio_of_densities():
    uniform = Uniform(-0.5, 1.5)
    x = np.array([-0.6, -0.4, 0.5, 1.4, 1.6])
    gaussian = stats.norm(uniform.mean, uniform.deviation).logpdf(x)
    with np.errstate(divide="ignore"):
        wanted = stats.uniform(-0.5, 2.0).logpdf(x) - gaussian
    assert_allclose(uniform.log_ratio(x), wanted)
    assert np.all(Normal(1.0, 2.0).log_ratio(x) == 0.0)


# --- the families ---


def test_forty_eight_dimensions():
    prior = paper_prior()
    n_shape = np.count_nonzero(prior.blocks < 11) - 11  # of the curves' parameters, those sampled
    assert n_shape + len(prior.linear) == 36
    assert prior.n_coordinates + len(prior.linear) == 48
    assert prior.is_gaussian


NATURAL = {
    "vapor pressure": lambda c, a, b, power: (np.log(a), b, power),
    "pow3": lambda c, a, alpha: (c, -a, alpha),
    "log log linear": lambda c, a, ratio: (ratio * np.exp(c), np.exp(c)),
    "Hill3": lambda c, a, eta, kappa: (a, eta, kappa),
    "log power": lambda c, a, b, power: (a, b, power),
    "pow4": lambda c, a, offset, alpha: (
        c, (-a) ** (-1 / alpha), offset * (-a) ** (-1 / alpha), alpha
    ),
    "MMF": lambda c, a, kappa, delta: (c, c + a, kappa, delta),
    "exp4": lambda c, a, rate, alpha: (c, rate, np.log(-a), alpha),
    "Janoschek": lambda c, a, kappa, delta: (c, c + a, kappa, delta),
    "Weibull": lambda c, a, kappa, delta: (c, c + a, kappa, delta),
    "ilog2": lambda c, a: (c, -a),
}  # fmt: skip
"""Asymptote, amplitude and shape to a family's own parameters: the inverse of its split."""


def own_parameters(prior, values, b):
    """Weights and own parameters of each family, from one draw of parameters and b."""
    weights = [values[np.argmax(prior.blocks == k)] for k in range(len(prior.members))]
    with_end = [
        k
        for k, m in enumerate(prior.members)
        if m.linear and m.family not in ("Hill3", "log power")
    ]
    common = np.sqrt(sum((END.deviation * weights[k]) ** 2 for k in with_end))
    column = 1
    for k, member in enumerate(prior.members):
        sampled = values[prior.blocks == k][1:]
        shape = [float(s) for s in member.shape(float(T), *sampled)]
        first, last = FAMILIES[member.family].kernels(shape, [1.0, T])
        end = END.mean + END.deviation**2 * weights[k] * b[0] / common
        asymptote, amplitude = 0.0, None
        if member.family in ("pow4", "exp4"):
            rise = sampled[-1]
        elif member.family == "log log linear":
            rise = last - first
        elif member.family in ("Hill3", "log power"):
            amplitude = (END.mean + END.deviation * b[column]) / last
            column += 1
        elif member.family == "vapor pressure":
            amplitude = sampled[-1] / last
        else:
            rise = RISE.mean + RISE.deviation * b[column]
            column += 1
        if amplitude is None:
            amplitude = rise / (last - first)
            asymptote = end - amplitude * last
        yield member.family, weights[k], NATURAL[member.family](asymptote, amplitude, *shape)


@pytest.mark.parametrize("seed", range(5))
def test_curves_are_those_of_the_table(seed):
    prior = paper_prior()
    v = coordinates(prior, 1, seed=seed)
    found = design(prior, T, v, POSITIONS)
    b = np.random.default_rng(seed).normal(size=(1, found.x.shape[1]))
    total = np.zeros(POSITIONS.size)
    n_parameters = 0
    for family, weight, theta in own_parameters(prior, prior.parameters(v)[0], b[0]):
        assert weight > 0
        total += weight * FORMULAS[family].evaluate(theta, POSITIONS)
        n_parameters += len(theta)
    assert n_parameters == 36
    assert_allclose((found.offset + b @ found.x[0])[0], total, rtol=1e-9)


def test_curves_of_the_lcpfn_prior():
    prior = lcpfn_prior()
    v = coordinates(prior, 1)
    w1, alpha, w2, kappa, delta, w3, sigma = prior.parameters(v)[0]
    assert sigma > 0
    found = design(prior, T, v, POSITIONS)
    c1, a1, top, bottom, c3, a3 = beta = np.array([0.9, 0.3, 0.7, 0.2, 0.5, 0.1])
    b = (beta - [p.mean for p in prior.linear]) / [p.deviation for p in prior.linear]
    wanted = (
        w1 * FORMULAS["pow3"].evaluate([c1, a1, alpha], POSITIONS)
        + w2 * FORMULAS["Janoschek"].evaluate([top, bottom, kappa, delta], POSITIONS)
        + w3 * FORMULAS["ilog2"].evaluate([c3, a3], POSITIONS)
    )
    assert_allclose((found.offset + b @ found.x[0])[0], wanted, rtol=1e-9)


def test_any_subset():
    prior = paper_prior(["ilog2", "exp4"])
    assert [member.family for member in prior.members] == ["ilog2", "exp4"]
    assert prior.n_coordinates == 1 + 4 + 1
    alone = paper_prior(["ilog2"])
    assert alone.n_coordinates == 1
    assert alone.shares(np.zeros((4, 1)), np.full(4, 0.25)) == {"ilog2": 1.0}


# --- the integral over the linear parameters ---

DATA = Data(T, np.array([1.0, 2.0, 4.0, 7.0]), np.array([0.1, 0.3, 0.42, 0.5]))
FAMILY_SETS = (("pow3", "MMF", "exp4", "Hill3", "log log linear"), ("ilog2", "vapor pressure"))


def joint(prior, v, sigma):
    """Mean and covariance of (z, f(1), f(T)) by dense linear algebra."""
    at = np.r_[DATA.t, 1.0, T]
    found = design(prior, T, v[None], at)
    x = found.x[0].T
    covariance = x @ x.T
    covariance[np.arange(4), np.arange(4)] += sigma**2
    return found.offset[0], covariance


def conditional(mean, covariance):
    """Mean and covariance of (f(1), f(T)) given z."""
    gain = np.linalg.solve(covariance[:4, :4], covariance[:4, 4:]).T
    return mean[4:] + gain @ (DATA.z - mean[:4]), covariance[4:, 4:] - gain @ covariance[:4, 4:]


@pytest.mark.parametrize("families", FAMILY_SETS)
def test_density_against_dense_linear_algebra(families):
    prior = paper_prior(families)
    v = coordinates(prior, 6)
    found, end_mean, end_variance = log_density(prior, v, DATA)
    wanted = []
    for row, mean_end, variance_end in zip(v, end_mean, end_variance, strict=True):
        sigma = prior.parameters(row[None])[0, -1]
        mean, covariance = joint(prior, row, sigma)
        evidence = stats.multivariate_normal(mean[:4], covariance[:4, :4]).logpdf(DATA.z)
        (first, last), spread = conditional(mean, covariance)
        rise, variance = last - first, spread[0, 0] + spread[1, 1] - 2 * spread[0, 1]
        deviation = np.sqrt(variance)
        wanted.append(
            evidence + 2.0 * np.log(2 * np.pi) - 0.5 * row @ row
            + stats.norm.logcdf(rise / deviation)
        )  # fmt: skip
        # f(T) given the rise r is Gaussian; r is Gaussian above 0.
        slope = (spread[1, 1] - spread[0, 1]) / variance
        rest = spread[1, 1] - slope**2 * variance

        def moment(power, last=last, slope=slope, rise=rise, rest=rest, deviation=deviation):
            def integrand(r):
                location = last + slope * (r - rise)
                value = location if power == 1 else location**2 + rest
                return value * stats.norm.pdf(r, rise, deviation)

            mass = stats.norm.sf(0.0, rise, deviation)
            high = max(rise, 0.0) + 12 * deviation
            return integrate.quad(integrand, 0.0, high, points=[max(rise, 0.0)])[0] / mass

        assert_allclose(mean_end, moment(1), rtol=1e-6)
        assert_allclose(variance_end, moment(2) - moment(1) ** 2, rtol=1e-4, atol=1e-10)
    assert_allclose(found, wanted, rtol=1e-8)


def test_moments_at_the_end_are_those_of_the_density():
    prior = paper_prior(FAMILY_SETS[0])
    v = coordinates(prior, 6)
    _, end_mean, end_variance = log_density(prior, v, DATA)
    found = marginalize(prior, v, DATA, DATA.ends)
    mean, variance = moments(found, design(prior, T, v, np.array([20.0, T])))
    assert mean.shape == (6, 2)
    assert_allclose(mean[:, 1], end_mean)
    assert_allclose(variance[:, 1], end_variance)


def test_density_with_the_linear_part_as_coordinates():
    """The posterior is likelihood times prior times the Jacobian of u -> b, up to a constant."""
    prior = lcpfn_prior()
    v = coordinates(prior, 4000, size=1.0)
    found, end, _ = log_density(prior, v, DATA)
    inside = np.flatnonzero(found > -np.inf)[:40]
    assert inside.size == 40
    regression = marginalize(prior, v, DATA, DATA.ends)
    b = linear_part(prior, v, regression)
    beta = [p.mean + p.deviation * column for p, column in zip(prior.linear, b.T, strict=True)]
    there = design(prior, T, v, np.r_[DATA.t, np.arange(1.0, T + 1)])
    curve = there.offset + np.einsum("wp,wpn->wn", b, there.x)
    path = curve[:, 4:]
    allowed = (path.min(axis=1) >= 0) & (path.max(axis=1) <= 1) & (path[:, -1] > path[:, 0])
    for prior_of, x in zip(prior.linear, beta, strict=True):
        allowed &= (x >= prior_of.low) & (x <= prior_of.high)
    np.testing.assert_array_equal(found > -np.inf, allowed)
    assert_allclose(end[inside], path[inside, -1])
    _, log_jacobian = np.linalg.slogdet(regression.lower)
    n_sampled = np.count_nonzero(prior.blocks <= len(prior.members))
    wanted = (
        stats.norm.logpdf(DATA.z, curve[:, :4], there.sigma[:, None]).sum(axis=1)
        - 0.5 * np.sum(v[:, :n_sampled] ** 2, axis=1)
        - log_jacobian
    )
    difference = (found - wanted)[inside]
    assert_allclose(difference, difference[0], atol=1e-8)


@pytest.mark.parametrize("prior", [paper_prior(), lcpfn_prior()], ids=["paper", "LC-PFN"])
def test_out_of_support_is_minus_infinity(prior):
    v = coordinates(prior, 300, size=8.0)
    with np.errstate(all="ignore"):
        found, *_ = log_density(prior, v, DATA)
    assert not np.any(np.isnan(found))
    assert np.any(found == -np.inf)


def test_curves_of_a_prior():
    curves, sigma = sample_curves(lcpfn_prior(), 100, 2000, np.random.default_rng(0))
    assert curves.shape == (2000, 100)
    assert curves.min() >= 0
    assert curves.max() <= 1
    assert np.all(curves[:, -1] > curves[:, 0])
    assert_allclose(np.log(sigma).mean(), -4.0, atol=4 / np.sqrt(2000))
    assert_allclose(np.log(sigma).std(), 1.0, atol=0.08)
    rising, _ = sample_curves(paper_prior(), 50, 2000, np.random.default_rng(0))
    assert np.all(rising[:, -1] > rising[:, 0])
    assert 0.2 < rising[:, -1].std() < 1.0
