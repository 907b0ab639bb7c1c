"""The sampled posterior: against the closed form, quadrature and rejection; and how it fails."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from brute_force import sample_curves
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from optuna_lcpruner.curves.distributions import Normal
from optuna_lcpruner.curves.families import FAMILIES
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form import shapes
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm, CurvePrior
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.weighted_sum import sampler
from optuna_lcpruner.posterior.weighted_sum.priors import SIGMA, paper_prior
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC

WORKING = StudyKnowledge(Scale(0.0, 1.0, True))
BEST = replace(WORKING, target=Target.BEST)
SMALL = MCMC(paper_prior(["pow3", "Janoschek", "ilog2"]))
QUICK = replace(SMALL, max_steps=50)
"""For what is so whether or not a run has converged."""
LONG = {
    "effective_sample_size": 2000.0,
    "n_components": 4000,
    "max_steps": 20_000,
    "max_seconds": 300.0,
}


def ask(engine, values, horizon, knowledge=WORKING, positions=None):
    values = np.asarray(values, float)
    curve = LearningCurve(np.arange(1.0, values.size + 1), values, horizon)
    return engine(curve, knowledge, positions)


@cache
def asked():
    """What the small engine says of ten reports."""
    return ask(SMALL, saturating(10), 30)


def saturating(n, noise=0.02, seed=0):
    t = np.arange(1.0, n + 1)
    return 0.9 - 0.8 * t**-0.5 + noise * np.random.default_rng(seed).normal(size=n)


# --- against the closed form: one family, the same prior ---

SAME = CurvePrior(
    sigma=tuple(np.geomspace(0.004, 0.3, 120)),
    log_sigma=(-3.5, 1.5),
    rho=(0.0,),
    kappa=(0.0,),
    df=np.inf,
    model_error=(1e-9, 1e-9),
)


def of_index(horizon, *index):
    """Stands in for a family's shape function: picks a row of its grid by a normal number."""
    grid = FAMILIES["pow3"].shape_grid(horizon)
    row = np.clip((len(grid) * stats.norm.cdf(index[0])).astype(int), 0, len(grid) - 1)
    return (grid[row, 0],)


@pytest.fixture
def all_shapes(monkeypatch):
    """Keep nearly equal shapes apart, as the sampler does."""
    monkeypatch.setattr(shapes, "MERGE_DISTANCE", 0.0)
    shapes.shape_grid.cache_clear()
    yield
    shapes.shape_grid.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ilog2", "pow3"])
@pytest.mark.parametrize("n", [6, 15])
def test_one_family_agrees_with_the_closed_form(family, n, all_shapes):
    (member,) = paper_prior([family]).members
    linear = (Normal(*SAME.asymptote), Normal(*SAME.rise))
    member = replace(member, linear=linear)
    if family == "pow3":
        member = replace(member, nonlinear=(Normal(0.0, 1.0),), shape=of_index)
    prior = replace(paper_prior([family]), members=(member,))
    values = saturating(n)
    sampled = ask(MCMC(prior, **LONG), values, 30)
    exact = ask(ClosedForm(SAME, (family,)), values, 30)
    assert sampled.diagnostics.converged
    error = exact.std(noise=False) / np.sqrt(sampled.diagnostics.effective_sample_size)
    assert_allclose(sampled.mean(), exact.mean(), atol=4 * error)
    assert_allclose(sampled.std(noise=False), exact.std(noise=False), rtol=0.1)
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    found = exact.cdf(sampled.quantile(levels))
    assert_allclose(found, levels, atol=4 * np.sqrt(0.25 / 2000))
    for beat in exact.quantile([0.2, 0.6, 0.97]):
        assert_allclose(sampled.p_beats(beat), exact.p_beats(beat), atol=4 * np.sqrt(0.25 / 2000))


# --- against rejection from the prior: no regression, no chain ---


def by_rejection(prior, values, horizon, n_curves, seed=0):
    """Ends of curves of the prior in increasing order, and their posterior weights."""
    rng = np.random.default_rng(seed)
    curves, sigma = sample_curves(prior, horizon, n_curves, rng)
    seen = curves[:, : len(values)]
    log_p = np.sum(stats.norm.logpdf(values, seen, sigma[:, None]), axis=1)
    weights = np.exp(log_p - log_p.max())
    order = np.argsort(curves[:, -1])
    return curves[order, -1], weights[order] / weights.sum()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["paper", "flat"])
def test_agrees_with_rejection(which):
    values, prior = {
        "paper": ([0.3, 0.35, 0.4], paper_prior(["exp4", "MMF", "log log linear", "Hill3"])),
        "flat": ([0.5, 0.51, 0.49], paper_prior(["pow3", "vapor pressure", "pow4"])),
    }[which]
    ends, weights = by_rejection(prior, np.array(values), 12, 400_000)
    effective = 1.0 / np.sum(weights**2)
    assert effective > 100
    sampled = ask(MCMC(prior, **LONG), values, 12)
    assert sampled.diagnostics.converged
    # Distribution functions, not moments: the tails are heavy.
    levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    at = ends[np.searchsorted(np.cumsum(weights), levels)]
    error = np.sqrt(levels * (1 - levels) * (1 / effective + 1 / 2000))
    assert np.all(np.abs(sampled.cdf(at, noise=False) - levels) < 4 * error)


@pytest.mark.slow
def test_a_long_run_agrees_with_a_short_one():
    values = saturating(40, 0.01)
    short, long = ask(SMALL, values, 80), ask(replace(SMALL, **LONG, seed=5), values, 80)
    assert long.diagnostics.n_steps > 2 * short.diagnostics.n_steps
    error = long.std(noise=False) / np.sqrt(short.diagnostics.effective_sample_size)
    assert_allclose(short.mean(), long.mean(), atol=4 * error)
    assert_allclose(long.cdf(short.quantile([0.1, 0.5, 0.9])), [0.1, 0.5, 0.9], atol=0.14)


@pytest.mark.slow
def test_the_curve_that_the_reference_overestimates():
    """It says 0.880 +- 0.008 of a truth of 0.8552, three deviations too much."""
    truth = 0.86 - 0.62 * np.exp(-0.28 * np.arange(1.0, 101) ** 0.62)
    errors, z = [], []
    for seed in range(4):
        noise = 0.004 * np.random.default_rng(seed).normal(size=100)
        end = ask(MCMC(), (truth + noise)[:50], 100)
        assert end.diagnostics.converged
        low, high = end.interval(0.98, noise=False)
        assert low < truth[-1] < high
        errors.append(end.mean(noise=False) - truth[-1])
        z.append(errors[-1] / end.std(noise=False))
    assert abs(np.mean(errors)) < 0.02
    assert abs(np.mean(z)) < 1.65


@pytest.mark.slow
def test_curves_of_the_prior_are_covered():
    """Ranks of the truth in its own posterior are uniform."""
    prior = SMALL.prior
    rng = np.random.default_rng(3)
    curves, sigma = sample_curves(prior, 40, 16, rng)
    engine = MCMC(prior, effective_sample_size=100.0)
    ranks = []
    for curve, deviation in zip(curves, sigma, strict=True):
        values = curve + deviation * rng.normal(size=40)
        ranks.append(ask(engine, values[:10], 40).cdf(values[-1]))
    assert stats.kstest(np.ravel(ranks), "uniform").pvalue > 0.01


# --- purity ---


def test_the_same_curve_gets_the_same_answer():
    np.random.seed(0)  # noqa: NPY002 - the state that must not be used
    before = np.random.get_state()  # noqa: NPY002
    one = ask(QUICK, saturating(10), 30)  # not one of before: the state is looked at
    after = np.random.get_state()  # noqa: NPY002
    assert_array_equal(before[1], after[1])
    np.random.seed(1)  # noqa: NPY002
    two = ask(pickle.loads(pickle.dumps(QUICK)), saturating(10), 30)
    assert_array_equal(one.observed.location, two.observed.location)
    assert_array_equal(one.observed.scale, two.observed.scale)
    assert one.diagnostics == two.diagnostics
    other = ask(replace(QUICK, seed=1), saturating(10), 30)
    assert np.any(other.observed.location != one.observed.location)


def test_shift_and_unit_of_the_metric_do_not_matter():
    """Without rounding, of values with few digits in powers of two, it is the same chain."""
    values = np.round(saturating(10) * 2.0**20) / 2.0**20
    plain = ask(QUICK, values, 30)
    moved = ask(QUICK, 8.0 * values - 4.0, 30, StudyKnowledge(Scale(-4.0, 8.0, True)))
    assert_array_equal(moved.observed.location, plain.observed.location)
    assert_allclose(moved.mean(), 8.0 * plain.mean() - 4.0, rtol=1e-9)
    assert_allclose(moved.std(), 8.0 * plain.std(), rtol=1e-9)


@pytest.mark.slow
def test_nor_do_they_where_they_are_rounded():
    """Up to rounding, which a chain amplifies: another run of the same posterior."""
    values = saturating(10)
    plain = asked()
    moved = ask(SMALL, 8.0 * values - 4.0, 30, StudyKnowledge(Scale(-4.0, 8.0, True)))
    assert_allclose(moved.mean(), 8.0 * plain.mean() - 4.0, atol=8.0 * 0.3 * plain.std())
    assert_allclose(moved.std(), 8.0 * plain.std(), rtol=0.3)


# --- what is reported ---


def test_diagnostics():
    found = asked().diagnostics
    assert found.converged
    assert found.status.startswith("converged: effective sample size")
    assert 0.05 < found.acceptance < 0.7
    assert 1.0 <= found.autocorrelation_time < found.n_steps / 4
    assert found.effective_sample_size >= 200
    assert 1.0 <= found.r_hat <= 1.05
    assert found.n_walkers == 100


@pytest.mark.parametrize("budget", [{"max_steps": 30}, {"max_seconds": 1e-6}])
def test_a_spent_budget_is_admitted(budget):
    ahead = ask(replace(SMALL, **budget), saturating(10), 30)
    assert not ahead.diagnostics.converged
    assert ahead.diagnostics.status.startswith("not converged")
    assert "raise max_steps" in ahead.diagnostics.status
    assert ahead.diagnostics.n_steps <= 50


def test_shares_are_mean_weights():
    ahead = asked()
    assert set(ahead.shares) == {"pow3", "Janoschek", "ilog2"}
    assert_allclose(sum(ahead.shares.values()), 1.0)
    assert min(ahead.shares.values()) > 0.05


def test_every_position_ahead():
    positions = np.arange(11.0, 31)
    ahead = ask(QUICK, saturating(10), 30, positions=positions)
    assert ahead.observed.location.shape == (20, 512)
    means = [ahead.mean(at=p) for p in positions]
    assert np.all(np.diff(means) > 0)
    assert_allclose(means[-1], ask(QUICK, saturating(10), 30).mean(), rtol=1e-9)


def test_best_value():
    last = asked()
    best = ask(SMALL, saturating(10), 30, BEST, np.array([12.0, 30.0]))
    reached = saturating(10).max()
    assert best.floor == reached
    assert best.mean(at=30.0) > max(last.mean(), best.mean(at=12.0))
    assert best.p_beats(reached - 1e-9) == 1.0
    assert best.p_beats(0.9) > last.p_beats(0.9)


def test_best_of_one_report_is_that_report():
    last = ask(QUICK, saturating(29), 30)
    best = ask(QUICK, saturating(29), 30, BEST)
    assert_allclose(best.observed.location, last.observed.location)
    assert_allclose(best.observed.scale, last.observed.scale)


# --- what users report ---


@pytest.mark.parametrize(
    "values",
    [
        np.full(20, 0.3),
        np.zeros(20),
        [0.1, 0.2],
        [0.2],
        [1e300, 1e299, -1e300],
        -np.geomspace(0.1, 1e34, 15),
        np.r_[np.linspace(0.0, 0.8, 10), np.full(5, -50.0)],
        np.linspace(0.9, 0.1, 20),
        1e-12 * np.arange(12.0),
    ],
    ids=["constant", "zero", "two", "one", "huge", "diverging", "collapsed", "falling", "tiny"],
)
@pytest.mark.parametrize("as_ever", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bad_curves(values, as_ever, monkeypatch):
    """With the fewest walkers, steps and tries to start or, where time does not matter, as ever."""
    prior = paper_prior(["pow3", "MMF"])
    engine = MCMC(prior, max_steps=300)
    if not as_ever:
        monkeypatch.setattr(sampler, "_MOST_TRIES", 2)
        engine = replace(engine, n_walkers=2 * prior.n_coordinates, max_steps=10)
    ahead = ask(engine, values, 40)
    assert np.isfinite(ahead.mean())
    low, high = ahead.interval()
    assert np.isfinite(low)
    assert low < high
    assert ahead.diagnostics.status
    assert np.all(ahead.observed.scale > 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_walkers": 101},
        {"n_walkers": 10},
        {"max_steps": 0},
        {"max_seconds": 0.0},
        {"n_components": 0},
        {"effective_sample_size": 0.0},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        MCMC(**settings)


@pytest.mark.parametrize("families", [[], ["pow3", "pow3"], ["pow5"]])
def test_families_are_checked(families):
    with pytest.raises(ValueError, match="distinct names"):
        paper_prior(families)


def test_sigma_prior_is_that_of_the_closed_form():
    assert (SIGMA.mean, SIGMA.deviation) == CurvePrior().log_sigma
