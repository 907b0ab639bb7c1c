"""The weighted combination as objects: which coordinate is what, and what it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from optuna_lcpruner.curves.distributions import Exponential, LogNormal, Normal, Uniform
from optuna_lcpruner.curves.families import FAMILIES, Family
from optuna_lcpruner.posterior.weighted_sum.model import Member, WeightedCurves
from optuna_lcpruner.posterior.weighted_sum.priors import lcpfn_prior, paper_prior


def member(family="pow3", nonlinear=(), linear=(), weight=None):
    """A family whose curves these tests do not look at."""
    return Member(family, nonlinear, lambda *_: (), linear, lambda *_: ((), 0.0), weight)


PRIOR = WeightedCurves(
    (
        member("pow3", (LogNormal(0.5, 2.0), Normal(1.0, 3.0)), (Normal(0.0, 1.0),), Uniform(0, 2)),
        member("ilog2", (), (Normal(0.5, 1.0), Normal(0.4, 1.0)), Exponential(0.25)),
        member("MMF", (Uniform(-1.0, 3.0),)),
    ),
    LogNormal(-3.0, 1.5),
)

TRUTHS = (
    stats.uniform(0.0, 2.0),  # weight of the first
    stats.lognorm(2.0, scale=np.exp(0.5)),
    stats.norm(1.0, 3.0),
    stats.expon(scale=0.25),  # weight of the second
    stats.uniform(-1.0, 4.0),
    stats.lognorm(1.5, scale=np.exp(-3.0)),  # sigma
)
"""What each coordinate stands for, in order."""


def test_each_coordinate_is_a_quantile_of_its_prior():
    v = np.random.default_rng(0).normal(size=(5, len(TRUTHS)))
    expected = [
        truth.ppf(stats.norm.cdf(column)) for truth, column in zip(TRUTHS, v.T, strict=True)
    ]
    assert_allclose(PRIOR.parameters(v), np.array(expected).T, rtol=1e-9)


def test_coordinates_are_counted_by_member():
    assert_array_equal(PRIOR.blocks, [0, 0, 0, 1, 2, 3])
    assert PRIOR.n_coordinates == 6
    assert len(PRIOR.linear) == 3


def test_linear_parameters_that_cannot_be_integrated_out_are_coordinates():
    prior = WeightedCurves((member(linear=(Uniform(0, 1), Normal(0, 1))),), LogNormal(0.0, 1.0))
    assert not prior.is_gaussian
    assert_array_equal(prior.blocks, [1, 2, 2])
    assert prior.parameters(np.zeros((4, 3))).shape == (4, 1)  # sigma alone


@pytest.mark.parametrize(
    ("linear", "within", "gaussian"),
    [
        ((Normal(0.0, 1.0),), None, True),
        ((), None, True),
        ((Normal(0.0, 1.0),), (0.0, 1.0), False),
        ((Normal(0.0, 1.0), Uniform(0.0, 1.0)), None, False),
    ],
)
def test_what_can_be_integrated_out(linear, within, gaussian):
    prior = WeightedCurves((member(linear=linear),), LogNormal(0.0, 1.0), within)
    assert prior.is_gaussian is gaussian


def test_ready_made_priors():
    assert paper_prior().is_gaussian
    assert not lcpfn_prior().is_gaussian


def test_shares_are_means_of_weights_over_their_sum():
    v = np.random.default_rng(1).normal(size=(3, 6))
    mass = np.array([0.5, 0.2, 0.3])
    values = PRIOR.parameters(v)
    weights = np.column_stack([values[:, 0], values[:, 3], np.ones(3)])  # none: fixed at 1
    expected = mass @ np.array([row / row.sum() for row in weights])
    found = PRIOR.shares(v, mass)
    assert list(found) == ["pow3", "ilog2", "MMF"]
    assert_allclose(list(found.values()), expected, rtol=1e-12)


def test_a_single_family_has_all_of_it():
    alone = paper_prior(["ilog2"])
    assert alone.shares(np.zeros((4, 1)), np.full(4, 0.25)) == {"ilog2": 1.0}


def test_a_family_by_name_or_itself():
    own = Family("own", lambda t: t, lambda horizon: np.empty((1, 0)))
    assert member("pow3").resolved is FAMILIES["pow3"]
    assert member(own).resolved is own
