"""The weighted combination: its density, the linear parameters integrated out."""

from __future__ import annotations

import numpy as np
import pytest
from brute_force import coordinates, sample_curves
from numpy.testing import assert_allclose
from scipy import integrate, stats

from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import (
    Data,
    design,
    log_density,
    marginalize,
    moments,
)
from optuna_lcpruner.posterior.weighted_sum.priors import SIGMA, paper_prior

T = 40


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
    found = marginalize(prior, v, DATA)
    mean, variance = moments(found, design(prior, T, v, np.array([20.0, T])))
    assert mean.shape == (6, 2)
    assert_allclose(mean[:, 1], end_mean)
    assert_allclose(variance[:, 1], end_variance)


def test_out_of_support_is_minus_infinity():
    prior = paper_prior()
    v = coordinates(prior, 300, size=8.0)
    with np.errstate(all="ignore"):
        found, *_ = log_density(prior, v, DATA)
    assert not np.any(np.isnan(found))
    assert np.any(found == -np.inf)


def test_curves_of_a_prior():
    rising, sigma = sample_curves(paper_prior(), 50, 2000, np.random.default_rng(0))
    assert np.all(rising[:, -1] > rising[:, 0])
    assert 0.2 < rising[:, -1].std() < 1.0
    assert_allclose(np.log(sigma).mean(), SIGMA.mean, atol=4 * SIGMA.deviation / np.sqrt(2000))
