"""From draws to a forecast: the best of what is to come, smoothing, and the way back to values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from brute_force import coordinates, curve_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.weighted_sum.predictive import Draws, Setting, draws_of
from optuna_lcpruner.posterior.weighted_sum.priors import lcpfn_prior, paper_prior

SCALE = Scale(2.0, 4.0, False)
LAST = StudyKnowledge(SCALE)
BEST = replace(LAST, target=Target.BEST)
CURVE = curve_of(2.0 + 4.0 * np.array([0.1, 0.3, 0.5, 0.4]), 10)


def drawn(mean, variance=0.0, sigma=0.0, smoothing=1e-9):
    """Two draws at these positions, shape (P, 2)."""
    mean = np.asarray(mean, dtype=float)
    return Draws(
        np.array([0.25, 0.75]),
        mean,
        np.full(mean.shape, variance),
        np.full(2, sigma),
        {"pow3": 1.0},
        np.full((len(mean), 1), smoothing),
    )


class TestBestBy:
    def test_without_noise_it_is_the_highest_point_on_the_way(self):
        draws = drawn([[0.1, 0.5], [0.3, 0.4], [0.2, 0.7]])
        by = draws.best_by(np.array([0, 1, 2]))
        assert_allclose(by.mean, [[0.1, 0.5], [0.3, 0.5], [0.3, 0.7]])

    @pytest.mark.parametrize("m", [2, 5, 30, 200])
    def test_noise_lifts_it_as_the_best_of_so_many_draws(self, m):
        """Blom's approximation, against the integral of the maximum's distribution."""
        lifted = drawn(np.zeros((m, 2)), sigma=0.1).best_by(np.array([m - 1])).mean
        z = np.linspace(-10.0, 10.0, 20_001)
        expected = np.sum(z * m * stats.norm.pdf(z) * stats.norm.cdf(z) ** (m - 1)) * (z[1] - z[0])
        assert_allclose(lifted, 0.1 * expected, rtol=0.05)

    def test_one_report_to_come_has_no_best_of_several(self):
        assert_allclose(drawn([[0.1, 0.5]], sigma=0.1).best_by(np.array([0])).mean, [[0.1, 0.5]])


class TestSetting:
    def test_the_horizon_by_default(self):
        setting = Setting.of(CURVE, LAST, None)
        assert_array_equal(setting.wanted, [10.0])
        assert_array_equal(setting.ahead, [10.0])
        assert_array_equal(setting.data.t, [1.0, 2.0, 3.0, 4.0])
        assert_allclose(setting.data.z, [0.1, 0.3, 0.5, 0.4])
        assert setting.data.horizon == 10

    def test_all_that_is_to_come_for_the_best(self):
        assert_array_equal(Setting.of(CURVE, BEST, None).ahead, np.arange(5.0, 11.0))

    def test_the_forecast_is_the_mixture_of_the_draws(self):
        setting = Setting.of(CURVE, LAST, np.array([5.0, 10.0]))
        forecast = setting.forecast(drawn([[0.4, 0.6], [0.5, 0.9]], variance=0.09, sigma=0.4))
        assert_array_equal(forecast.positions, [5.0, 10.0])
        assert_allclose(forecast.observed.location, [[0.4, 0.6], [0.5, 0.9]])
        assert_allclose(forecast.observed.scale, 0.5)
        assert_allclose(forecast.latent.scale, 0.3)
        # In the metric, which is minimised: -(2 + 4 z).
        assert forecast.mean() == pytest.approx(-(2.0 + 4.0 * (0.25 * 0.5 + 0.75 * 0.9)))

    def test_a_stretched_curve_comes_back(self):
        low = curve_of(2.0 + 4.0 * np.array([0.1, 0.0, -30.0, -30.0]), 10)
        setting = Setting.of(low, LAST, None)
        z = (low.values - 2.0) / 4.0
        assert_allclose(setting.stretch * setting.data.z + setting.shift, z)
        forecast = setting.forecast(drawn([setting.data.z[-2:]], variance=1.0))
        assert_allclose(forecast.observed.location, [z[-2:]])
        assert_allclose(forecast.observed.scale, setting.stretch)

    def test_the_best_falls_below_nothing_that_was_reported(self):
        setting = Setting.of(CURVE, BEST, np.array([6.0, 10.0]))
        path = np.array([[0.4, 0.6], [0.8, 0.5], [0.3, 0.3], [0.3, 0.3], [0.3, 0.3], [0.3, 0.9]])
        forecast = setting.forecast(drawn(path))
        assert forecast.floor == pytest.approx(0.5)
        assert_allclose(forecast.observed.location, [[0.8, 0.6], [0.8, 0.9]])


def test_draws_of_gaussian_priors_have_a_variance_of_their_own():
    prior = paper_prior(["pow3", "ilog2"])
    data = Setting.of(CURVE, LAST, None).data
    draws = draws_of(prior, data, coordinates(prior, 8), np.array([6.0, 10.0]))
    assert draws.mean.shape == draws.variance.shape == (2, 8)
    assert np.all(draws.variance > 0.0)
    assert_allclose(draws.weights, 1 / 8)
    assert_allclose(draws.smoothing, 1e-9)
    assert_allclose(sum(draws.shares.values()), 1.0)


def test_other_draws_are_smoothed_by_the_normal_reference_rule():
    prior = lcpfn_prior()
    data = Setting.of(CURVE, LAST, None).data
    draws = draws_of(prior, data, coordinates(prior, 32), np.array([6.0, 10.0]))
    assert_array_equal(draws.variance, 0.0)
    expected = 1.06 * 32**-0.2 * draws.mean.std(axis=1)
    assert_allclose(draws.smoothing[:, 0], expected)
