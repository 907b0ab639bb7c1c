"""The weighted combination on fixed points: against one family, the chain, and bad curves."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm, CurvePrior
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.weighted_sum.fixed_points import ClosedSum, gaussian
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import sample_curves
from optuna_lcpruner.posterior.weighted_sum.priors import END, RISE, SIGMA, lcpfn_prior, paper_prior
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC

WORKING = StudyKnowledge(Scale(0.0, 1.0, True))


def ask(engine, values, horizon, knowledge=WORKING, positions=None):
    values = np.asarray(values, float)
    curve = LearningCurve(np.arange(1.0, values.size + 1), values, horizon)
    return engine(curve, knowledge, positions)


def saturating(n, noise=0.02, seed=0):
    t = np.arange(1.0, n + 1)
    return 0.9 - 0.8 * t**-0.5 + noise * np.random.default_rng(seed).normal(size=n)


def test_one_family_agrees_with_the_closed_form():
    same = CurvePrior(
        asymptote=(END.mean, END.deviation),
        rise=(RISE.mean, RISE.deviation),
        sigma=tuple(np.geomspace(0.004, 0.3, 120)),
        log_sigma=(SIGMA.mean, SIGMA.deviation),
        rho=(0.0,),
        kappa=(0.0,),
        df=np.inf,
        model_error=(1e-9, 1e-9),
    )
    values = saturating(15)
    exact = ask(ClosedForm(same, ("ilog2",)), values, 30)
    found = ask(ClosedSum(paper_prior(["ilog2"]), 4096), values, 30)
    assert_allclose(found.mean(), exact.mean(), atol=1e-3)
    assert_allclose(found.std(), exact.std(), rtol=0.02)
    levels = [0.05, 0.3, 0.7, 0.95]
    assert_allclose(exact.cdf(found.quantile(levels)), levels, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 12])
def test_agrees_with_the_chain(n):
    prior = paper_prior(["pow3", "Janoschek", "ilog2"])
    values = saturating(n)
    long = MCMC(prior, effective_sample_size=1500.0, n_components=3000, max_steps=10_000)
    sampled, found = ask(long, values, 30), ask(ClosedSum(prior, 2**14), values, 30)
    assert_allclose(found.mean(), sampled.mean(), atol=0.15 * sampled.std())
    assert_allclose(found.std(), sampled.std(), rtol=0.15)
    levels = [0.1, 0.5, 0.9]
    assert_allclose(sampled.cdf(found.quantile(levels)), levels, atol=0.06)
    assert_allclose(list(found.shares.values()), list(sampled.shares.values()), atol=0.05)


@pytest.mark.slow
def test_more_points_change_little():
    prior = gaussian(lcpfn_prior())
    rng = np.random.default_rng(0)
    curves, sigma = sample_curves(lcpfn_prior(), 100, 20, rng)
    values = curves + sigma[:, None] * rng.normal(size=curves.shape)
    for n, worst in ((10, 0.12), (40, 0.12)):
        few = [ask(ClosedSum(prior, 1024), y[:n], 100) for y in values]
        many = [ask(ClosedSum(prior, 8192), y[:n], 100) for y in values]
        gap = [
            np.log(f.pdf(y[-1])) - np.log(m.pdf(y[-1]))
            for f, m, y in zip(few, many, values, strict=True)
        ]
        assert abs(np.mean(gap)) < worst


def test_prior_with_gaussians():
    prior = gaussian(lcpfn_prior())
    assert prior.is_gaussian
    assert not lcpfn_prior().is_gaussian
    for new, old in zip(prior.linear, lcpfn_prior().linear, strict=True):
        assert (new.mean, new.deviation) == (old.mean, old.deviation)


def test_the_same_curve_gets_the_same_answer():
    one = ask(ClosedSum(), saturating(10), 30)
    two = ask(pickle.loads(pickle.dumps(ClosedSum())), saturating(10), 30)
    assert_array_equal(one.observed.location, two.observed.location)
    assert_allclose(one.weights.sum(), 1.0)
    assert_allclose(sum(one.shares.values()), 1.0)


def test_shift_and_unit_of_the_metric_do_not_matter():
    values = saturating(10)
    plain = ask(ClosedSum(), values, 30)
    moved = ask(ClosedSum(), 8.0 * values - 4.0, 30, StudyKnowledge(Scale(-4.0, 8.0, True)))
    assert_allclose(moved.mean(), 8.0 * plain.mean() - 4.0, rtol=1e-6)


def test_best_is_not_worse_than_last():
    best = StudyKnowledge(Scale(0.0, 1.0, True), Target.BEST)
    last, highest = ask(ClosedSum(), saturating(10), 30), ask(ClosedSum(), saturating(10), 30, best)
    assert highest.floor == saturating(10).max()
    assert highest.mean() > last.mean()


@pytest.mark.parametrize(
    "values",
    [
        np.full(20, 0.3),
        [0.1, 0.2],
        [1e300, 1e299, -1e300],
        -np.geomspace(0.1, 1e34, 15),
        np.linspace(0.9, 0.1, 20),
    ],
    ids=["constant", "two", "huge", "diverging", "falling"],
)
def test_bad_curves(values):
    ahead = ask(ClosedSum(), values, 40)
    low, high = ahead.interval()
    assert np.isfinite(ahead.mean())
    assert np.isfinite(low)
    assert low < high


def test_settings_are_checked():
    with pytest.raises(ValueError, match="power of two"):
        ClosedSum(n_points=1000)
    with pytest.raises(ValueError, match="Gaussian"):
        ClosedSum(lcpfn_prior())
    LearningCurvePruner(engine=ClosedSum())
