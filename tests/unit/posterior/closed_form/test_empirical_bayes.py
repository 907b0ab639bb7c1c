import pickle
from dataclasses import replace

import numpy as np
import pytest
from brute_force import curve_of, dense_posterior
from numpy.testing import assert_allclose

from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form import empirical_bayes
from optuna_lcpruner.posterior.closed_form.empirical_bayes import learned
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.closed_form.regression import CurvePrior
from optuna_lcpruner.posterior.closed_form.shapes import shape_grid
from optuna_lcpruner.posterior.interface import StudyKnowledge

T = 12
SMALL = CurvePrior(sigma=(0.02, 0.2), rho=(0.0, 1.0), kappa=(0.0, 1.0))
FAMILIES = ("pow3", "ilog2")


def knowing(curves):
    """What a study of these completed curves knows, on the working scale."""
    curves = np.atleast_2d(curves)
    return StudyKnowledge(Scale(0.0, 1.0, True), completed=curves, final=curves[:, -1])


def rising(rng, n, noise, n_knots=T):
    """Curves that rise to about 0.9, and noise of this kind added."""
    t = np.arange(1, n_knots + 1)
    clean = 0.9 - rng.uniform(0.4, 0.8, (n, 1)) * t ** -rng.uniform(0.4, 0.9, (n, 1))
    fresh = 0.03 * rng.normal(size=(n, n_knots))
    return clean + (np.cumsum(fresh, axis=1) if noise == "random walk" else fresh)


@pytest.mark.parametrize("n", [1, 4])
def test_the_formula(n):
    curves = rising(np.random.default_rng(n), n, "independent")
    mass = shape_grid(T, FAMILIES).mass.sum(axis=1)
    level = np.exp(-0.5 * ((np.log(SMALL.sigma) - SMALL.log_sigma[0]) / SMALL.log_sigma[1]) ** 2)
    prior = np.broadcast_to(level[:, None] * mass, (4, 2, mass.size))
    prior = prior / prior.sum()
    expected = empirical_bayes.STRENGTH * prior
    knots = np.arange(T)
    for curve in curves:
        weights = dense_posterior(SMALL, FAMILIES, T, knots, curve, knots[:0], 1.0)[0]
        expected = expected + (weights / weights.sum()).reshape(prior.shape)
    expected /= empirical_bayes.STRENGTH + n
    found = learned(SMALL, FAMILIES, T, knowing(curves))
    assert_allclose(np.exp(found) * prior, expected, rtol=1e-6, atol=1e-12)
    assert_allclose(np.sum(np.exp(found) * prior), 1.0)


def test_the_engine_forecasts_with_the_learned_masses():
    rng = np.random.default_rng(3)
    knowledge = knowing(rising(rng, 5, "random walk"))
    values = rising(rng, 1, "random walk")[0, :7]
    weights = dense_posterior(SMALL, FAMILIES, T, np.arange(7), values, np.array([T - 1]), 7 / T)[0]
    weights *= np.exp(learned(SMALL, FAMILIES, T, knowledge)).ravel()
    weights = weights[weights > 2e-4 * weights.max()]
    forecast = ClosedForm(SMALL, FAMILIES)(curve_of(values, T), knowledge)
    assert_allclose(forecast.weights, weights / weights.sum(), rtol=1e-6)


def test_the_noise_of_a_study_is_learned():
    """After 20 trials that walk, random walks weigh more, and after 20 others they weigh less."""
    rng = np.random.default_rng(1)
    walks = np.repeat(SMALL.rho, len(SMALL.kappa)) == 1.0
    for noise in ("random walk", "independent"):
        knowledge = knowing(rising(rng, 20, noise, 30))
        factor = np.exp(learned(SMALL, FAMILIES, 30, knowledge)).mean(axis=(1, 2))
        occurring = walks if noise == "random walk" else ~walks
        assert factor[occurring].mean() > 2.0 * factor[~occurring].mean()


@pytest.mark.parametrize("noise", ["random walk", "independent"])
def test_what_is_learned_makes_forecasts_better(noise):
    """Log score of the end after a third of the training, with and without 20 earlier trials."""
    rng = np.random.default_rng(7)
    curves = rising(rng, 220, noise, 30)
    knowledge, plain = knowing(curves[:20]), StudyKnowledge(Scale(0.0, 1.0, True))
    score = np.array(
        [
            [
                np.log(float(ClosedForm()(curve_of(c[:10], 30), known).pdf(c[-1])))
                for known in (knowledge, plain)
            ]
            for c in curves[20:]
        ]
    )
    gain = score[:, 0] - score[:, 1]
    assert gain.mean() > 3.0 * gain.std() / np.sqrt(gain.size)


def test_nothing_is_learned_without_a_completed_curve():
    curve = curve_of(rising(np.random.default_rng(0), 1, "independent")[0, :5], T)
    known = knowing(rising(np.random.default_rng(1), 6, "random walk"))
    empty = replace(known, completed=np.empty((0, 0)), final=np.empty(0))
    assert learned(CurvePrior(), ("pow3",), T, empty) is None
    levels = [0.05, 0.5, 0.95]
    plain = ClosedForm()(curve, empty).quantile(levels)
    assert_allclose(ClosedForm(learns=False)(curve, known).quantile(levels), plain, rtol=1e-12)
    assert np.any(np.abs(ClosedForm()(curve, known).quantile(levels) - plain) > 1e-3)


def test_the_newest_curves_count(monkeypatch):
    monkeypatch.setattr(empirical_bayes, "MOST_CURVES", 4)
    curves = rising(np.random.default_rng(2), 9, "independent")
    found = learned(SMALL, FAMILIES, T, knowing(curves))
    assert_allclose(found, learned(SMALL, FAMILIES, T, knowing(curves[5:])), rtol=1e-12)


@pytest.mark.parametrize("value", [1e300, -1e300, 0.0])
def test_hostile_completed_curves(value):
    curves = rising(np.random.default_rng(2), 3, "independent")
    curves[1] = value
    curves[2, 3] = -1e300
    found = learned(CurvePrior(), FAMILIES, T, knowing(curves))
    assert np.all(np.isfinite(found))


def test_it_is_worked_out_once_and_not_sent_along(monkeypatch):
    known = knowing(rising(np.random.default_rng(4), 6, "independent"))
    part = curve_of([0.1, 0.3, 0.4], T)
    before = ClosedForm()(part, known).quantile(0.5)
    sent = pickle.loads(pickle.dumps(known))
    monkeypatch.setattr(
        "optuna_lcpruner.posterior.closed_form.engine.learned", lambda *arguments: 1 / 0
    )
    assert ClosedForm()(part, known).quantile(0.5) == before
    with pytest.raises(ZeroDivisionError):
        ClosedForm()(part, sent)
