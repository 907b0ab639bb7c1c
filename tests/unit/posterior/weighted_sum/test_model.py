"""The weighted combination as objects: which coordinate is what, and what it stands for."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from optuna_lcpruner.curves.distributions import Exponential, LogNormal, Normal
from optuna_lcpruner.curves.families import FAMILIES, Family
from optuna_lcpruner.posterior.weighted_sum.model import Member, WeightedCurves
from optuna_lcpruner.posterior.weighted_sum.priors import paper_prior


def member(family="pow3", nonlinear=(), linear=(), weight=None):
    """A family whose curves these tests do not look at."""
    return Member(family, nonlinear, lambda *_: (), linear, lambda *_: ((), 0.0), weight)


PRIOR = WeightedCurves(
    (
        member(
            "pow3", (LogNormal(0.5, 2.0), Normal(1.0, 3.0)), (Normal(0.0, 1.0),), Exponential(2)
        ),
        member("ilog2", (), (Normal(0.5, 1.0), Normal(0.4, 1.0)), Exponential(0.25)),
        member("MMF", (Normal(-1.0, 3.0),)),
    ),
    LogNormal(-3.0, 1.5),
)

TRUTHS = (
    stats.expon(scale=2.0),  # weight of the first
    stats.lognorm(2.0, scale=np.exp(0.5)),
    stats.norm(1.0, 3.0),
    stats.expon(scale=0.25),  # weight of the second
    stats.norm(-1.0, 3.0),
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


def test_shares_are_means_of_weights_over_their_sum():
    v = np.random.default_rng(1).normal(size=(3, 6))
    values = PRIOR.parameters(v)
    weights = np.column_stack([values[:, 0], values[:, 3], np.ones(3)])  # none: fixed at 1
    expected = np.mean([row / row.sum() for row in weights], axis=0)
    found = PRIOR.shares(v)
    assert list(found) == ["pow3", "ilog2", "MMF"]
    assert_allclose(list(found.values()), expected, rtol=1e-12)


def test_a_single_family_has_all_of_it():
    alone = paper_prior(["ilog2"])
    assert alone.shares(np.zeros((4, 1))) == {"ilog2": 1.0}


def test_a_family_by_name_or_itself():
    own = Family("own", lambda t: t, lambda horizon: np.empty((1, 0)))
    assert member("pow3").resolved is FAMILIES["pow3"]
    assert member(own).resolved is own
