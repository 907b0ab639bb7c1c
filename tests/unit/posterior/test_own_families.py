"""A family of one's own beside the eleven, or instead of them, in each engine of curves."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from brute_force import curve_of
from numpy.testing import assert_allclose, assert_array_equal

from optuna_lcpruner.curves.distributions import LogNormal
from optuna_lcpruner.curves.families import FAMILIES, Family
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.posterior.weighted_sum.priors import free_member, paper_prior
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC

WORKING = StudyKnowledge(Scale(0.0, 1.0, True))
SAME_AS_POW3 = replace(FAMILIES["pow3"], name="pow3 by another name")
POWER = LogNormal(float(np.log(0.5)), 1.0)
T = 30


def _sigmoid(middle, width, t):
    return 1.0 / (1.0 + np.exp((t - middle) / width))


def _grid(horizon):
    middles, widths = np.meshgrid(np.linspace(0.1, 0.9, 9) * horizon, [0.02, 0.05, 0.1, 0.2])
    return np.column_stack([middles.ravel(), widths.ravel() * horizon])


LOGISTIC = Family("logistic", _sigmoid, _grid)


def on_the_horizon(horizon, middle, width):
    return middle * horizon, width * horizon


LOGISTIC_MEMBER = free_member(
    LOGISTIC, LogNormal(-0.7, 0.5), LogNormal(-2.5, 0.7), shape=on_the_horizon
)


def assert_same(one, other):
    assert_allclose(one.weights, other.weights, rtol=1e-12)
    assert_allclose(one.observed.location, other.observed.location, rtol=1e-10)
    assert_allclose(one.observed.scale, other.observed.scale, rtol=1e-10)
    assert_allclose(list(one.shares.values()), list(other.shares.values()), rtol=1e-10)


def saturating(n):
    return curve_of(0.9 - 0.8 * np.arange(1.0, n + 1) ** -0.5, T)


KNOWING = StudyKnowledge(
    WORKING.scale,
    completed=np.array([1.0 - 0.9 * np.arange(1.0, T + 1) ** -p for p in (0.4, 0.8)]),
    final=np.array([1.0 - 0.9 * T**-p for p in (0.4, 0.8)]),
    n_completed=2,
)
"""Of two completed trials, from which the closed form learns the shapes of the study."""


@pytest.mark.parametrize(
    "engine_of",
    [
        lambda family, _: ClosedForm(families=("ilog2", family)),
        lambda family, _: OpinionPool(ClosedForm(families=("ilog2", family))),
        lambda _, member: MCMC(paper_prior(["ilog2", member]), max_steps=20),
    ],
    ids=["closed form", "pool", "mcmc"],
)
def test_a_copy_of_a_family_is_that_family(engine_of):
    theirs = engine_of("pow3", "pow3")
    ours = engine_of(SAME_AS_POW3, free_member(SAME_AS_POW3, POWER))
    one, other = (engine(saturating(8), KNOWING) for engine in (theirs, ours))
    assert_same(one, other)
    assert list(other.shares) == [name.replace("pow3", SAME_AS_POW3.name) for name in one.shares]


def test_a_curve_of_its_kind_is_forecast_better():
    """A late rise, seen until just after its middle."""
    without, with_it = ClosedForm(), ClosedForm(families=(*FAMILIES, LOGISTIC))
    middle, width, n = 15.0, 1.5, 18
    t = np.arange(1.0, T + 1)
    rng = np.random.default_rng(0)
    path = 0.8 - 0.7 * _sigmoid(middle, width, t)
    gained = []
    for _ in range(6):
        seen = curve_of(path[:n] + rng.normal(0.0, 0.004, n), T)
        one, other = (engine(seen, WORKING) for engine in (without, with_it))
        gained.append(np.log(other.pdf(path[-1]) / one.pdf(path[-1])))
        assert other.shares["logistic"] > 0.3
    assert np.mean(gained) > 4 * np.std(gained) / np.sqrt(len(gained))


@pytest.mark.parametrize(
    "engine",
    [
        ClosedForm(families=("ilog2", LOGISTIC)),
        MCMC(paper_prior(["ilog2", LOGISTIC_MEMBER]), max_steps=20),
    ],
    ids=["closed form", "mcmc"],
)
def test_it_goes_to_other_processes(engine):
    there = pickle.loads(pickle.dumps(engine))
    one, other = (asked(saturating(8), WORKING) for asked in (engine, there))
    assert_array_equal(one.quantile([0.1, 0.9]), other.quantile([0.1, 0.9]))


@pytest.mark.parametrize(
    ("families", "error", "message"),
    [
        ((), ValueError, "distinct names"),
        (("pow5",), ValueError, "got \\('pow5',\\)"),
        (("pow3", "pow3"), ValueError, "distinct names"),
        (("pow3", replace(FAMILIES["MMF"], name="pow3")), ValueError, "distinct names"),
        (("pow3", 4), TypeError, "a name or a Family, but got 4"),
        (("pow3", POWER), TypeError, "a name or a Family, but got LogNormal"),
    ],
)
def test_families_are_checked(families, error, message):
    with pytest.raises(error, match=message):
        ClosedForm(families=families)
    as_members = [free_member(f, POWER) if isinstance(f, Family) else f for f in families]
    with pytest.raises(error, match=message):
        paper_prior(as_members)


def test_a_family_is_not_a_member():
    with pytest.raises(TypeError, match="free_member"):
        paper_prior(["pow3", LOGISTIC])
