"""Autocorrelation time and split R-hat, against processes whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from optuna_lcpruner.posterior.weighted_sum.convergence import autocorrelation_time, split_r_hat


def ar1(rho, n_steps, n_walkers, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_steps, n_walkers))
    for k in range(1, n_steps):
        x[k] = rho * x[k - 1] + np.sqrt(1 - rho**2) * x[k]
    return x


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_autocorrelation_time_of_an_ar1_process(rho):
    wanted = (1 + rho) / (1 - rho)
    assert_allclose(autocorrelation_time(ar1(rho, 1000, 60)), wanted, rtol=0.08)


def test_a_walker_that_stays_where_it_is_is_correlated():
    x = ar1(0.0, 300, 40)
    stuck = x + 3.0 * np.random.default_rng(1).normal(size=40)
    assert autocorrelation_time(stuck) > 100.0


def test_a_constant_has_no_autocorrelation_time():
    assert np.isnan(autocorrelation_time(np.ones((50, 10))))


def test_r_hat_of_one_distribution():
    mean = ar1(0.5, 400, 40)
    assert 1.0 <= split_r_hat(mean, np.zeros_like(mean)) < 1.01


@pytest.mark.parametrize("how", ["drift", "group"])
def test_r_hat_of_parts_that_differ(how):
    mean = ar1(0.5, 400, 40)
    if how == "drift":
        mean[200:] += 1.5
    else:
        mean[:, ::4] += 1.5
    assert split_r_hat(mean, np.zeros_like(mean)) > 1.1


def test_r_hat_counts_the_variance_of_each_draw():
    mean = ar1(0.5, 400, 40)
    mean[200:] += 1.5
    assert split_r_hat(mean, np.full_like(mean, 100.0)) < 1.01


def test_r_hat_of_constants():
    assert split_r_hat(np.ones((20, 8)), np.zeros((20, 8))) == 1.0
