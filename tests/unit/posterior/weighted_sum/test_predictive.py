"""From draws to a forecast: the mixture, the best of what is to come, the way back to values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from brute_force import coordinates, curve_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.weighted_sum.convergence import Diagnostics
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import (
    Data,
    design,
    marginalize,
    moments,
)
from optuna_lcpruner.posterior.weighted_sum.predictive import forecast_of
from optuna_lcpruner.posterior.weighted_sum.priors import paper_prior

SCALE = Scale(2.0, 4.0, False)
LAST = StudyKnowledge(SCALE)
BEST = replace(LAST, target=Target.BEST)
PRIOR = paper_prior(["pow3", "ilog2"])
V = coordinates(PRIOR, 8)
Z = np.array([0.1, 0.3, 0.5, 0.4])
DIAGNOSTICS = Diagnostics(True, "converged", 0.3, 10.0, 500.0, 1.0, 600, 60)


def predicted(z=Z, knowledge=LAST, positions=None, v=V) -> Forecast:
    """What draws say of a curve of ten reports whose working values begin so."""
    curve = curve_of(SCALE.location + SCALE.unit * np.asarray(z), 10)
    data = Data.of(curve, knowledge.scale)
    return forecast_of(PRIOR, data, v, DIAGNOSTICS, curve, knowledge, positions)


def test_the_horizon_by_default():
    alone = predicted()
    assert_array_equal(alone.positions, [10.0])
    both = predicted(positions=np.array([6.0, 10.0]))
    assert_array_equal(both.positions, [6.0, 10.0])
    assert_allclose(both.observed.location[1], alone.observed.location[0])


def test_each_draw_is_a_component_of_the_same_weight():
    """Its mean and variance given the curve, for a report with the noise on top."""
    found = predicted(positions=np.array([6.0, 10.0]))
    assert_allclose(found.weights, 1 / 8)
    curve = curve_of(SCALE.location + SCALE.unit * Z, 10)
    data = Data.of(curve, SCALE)
    there = design(PRIOR, 10, V, np.array([6.0, 10.0]))
    mean, variance = moments(marginalize(PRIOR, V, data), there)
    assert_allclose(found.observed.location, mean.T)
    assert_allclose(found.latent.scale, np.sqrt(variance.T))
    assert_allclose(found.observed.scale, np.sqrt(variance.T + there.sigma**2))
    assert found.shares == PRIOR.shares(V)
    assert found.diagnostics is DIAGNOSTICS


def test_in_the_metric_a_loss_falls():
    found = predicted()
    working = found.weights @ found.observed.location[0]
    assert found.mean() == pytest.approx(-(2.0 + 4.0 * working))


def test_a_stretched_curve_comes_back():
    """What begins far below the range of the prior is brought into it, and its forecast back."""
    low = np.array([0.1, 0.0, -30.0, -30.0])
    data = Data.of(curve_of(SCALE.location + SCALE.unit * low, 10), SCALE)
    assert data.stretch > 1.0
    assert_allclose(data.stretch * data.z + data.shift, low)
    there = design(PRIOR, 10, V, np.array([10.0]))
    mean, variance = moments(marginalize(PRIOR, V, data), there)
    found = predicted(low)
    assert_allclose(found.observed.location, (data.stretch * mean + data.shift).T)
    assert_allclose(found.latent.scale, data.stretch * np.sqrt(variance.T))


class TestBest:
    def test_no_lower_than_what_was_reported_or_than_the_last(self):
        best, last = predicted(knowledge=BEST), predicted()
        assert best.floor == pytest.approx(0.5)
        assert np.all(best.observed.location >= last.observed.location)

    def test_it_grows_with_the_time_to_come(self):
        found = predicted(knowledge=BEST, positions=np.arange(5.0, 11.0))
        assert np.all(np.diff(found.observed.location, axis=0) >= 0.0)

    def test_of_one_report_to_come_it_is_that_one(self):
        positions = np.array([5.0])
        one = predicted(knowledge=BEST, positions=positions)
        assert_allclose(one.observed.location, predicted(positions=positions).observed.location)

    def test_noise_lifts_it_as_the_best_of_so_many_draws(self):
        """Blom's approximation, against the integral of the maximum's distribution."""
        m = 6
        found = predicted(knowledge=BEST)
        there = design(PRIOR, 10, V, np.arange(5.0, 11.0))
        data = Data.of(curve_of(SCALE.location + SCALE.unit * Z, 10), SCALE)
        mean, _ = moments(marginalize(PRIOR, V, data), there)
        z = np.linspace(-10.0, 10.0, 20_001)
        lift = np.sum(z * m * stats.norm.pdf(z) * stats.norm.cdf(z) ** (m - 1)) * (z[1] - z[0])
        expected = mean.max(axis=1) + lift * there.sigma
        assert_allclose(found.observed.location[0], expected, rtol=0.03)
