"""The families of the table and their priors."""

from __future__ import annotations

import numpy as np
import pytest
from brute_force import coordinates
from formulas import FORMULAS
from numpy.testing import assert_allclose

from optuna_lcpruner.curves.families import FAMILIES
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import design
from optuna_lcpruner.posterior.weighted_sum.priors import END, RISE, paper_prior

T = 40


POSITIONS = np.array([1.0, 2.0, 5.0, 17.0, 40.0])


def test_forty_eight_dimensions():
    prior = paper_prior()
    n_shape = np.count_nonzero(prior.blocks < 11) - 11  # of the curves' parameters, those sampled
    n_linear = sum(len(member.linear) for member in prior.members)
    assert n_shape + n_linear == 36
    assert prior.n_coordinates + n_linear == 48


NATURAL = {
    "vapor pressure": lambda c, a, b, power: (np.log(a), b, power),
    "pow3": lambda c, a, alpha: (c, -a, alpha),
    "log log linear": lambda c, a, ratio: (ratio * np.exp(c), np.exp(c)),
    "Hill3": lambda c, a, eta, kappa: (a, eta, kappa),
    "log power": lambda c, a, b, power: (a, b, power),
    "pow4": lambda c, a, offset, alpha: (
        c, (-a) ** (-1 / alpha), offset * (-a) ** (-1 / alpha), alpha
    ),
    "MMF": lambda c, a, kappa, delta: (c, c + a, kappa, delta),
    "exp4": lambda c, a, rate, alpha: (c, rate, np.log(-a), alpha),
    "Janoschek": lambda c, a, kappa, delta: (c, c + a, kappa, delta),
    "Weibull": lambda c, a, kappa, delta: (c, c + a, kappa, delta),
    "ilog2": lambda c, a: (c, -a),
}  # fmt: skip
"""Asymptote, amplitude and shape to a family's own parameters: the inverse of its split."""


def own_parameters(prior, values, b):
    """Weights and own parameters of each family, from one draw of parameters and b."""
    weights = [values[np.argmax(prior.blocks == k)] for k in range(len(prior.members))]
    with_end = [
        k
        for k, m in enumerate(prior.members)
        if m.linear and m.family not in ("Hill3", "log power")
    ]
    common = np.sqrt(sum((END.deviation * weights[k]) ** 2 for k in with_end))
    column = 1
    for k, member in enumerate(prior.members):
        sampled = values[prior.blocks == k][1:]
        shape = [float(s) for s in member.shape(float(T), *sampled)]
        first, last = FAMILIES[member.family].kernels(shape, [1.0, T])
        end = END.mean + END.deviation**2 * weights[k] * b[0] / common
        asymptote, amplitude = 0.0, None
        if member.family in ("pow4", "exp4"):
            rise = sampled[-1]
        elif member.family == "log log linear":
            rise = last - first
        elif member.family in ("Hill3", "log power"):
            amplitude = (END.mean + END.deviation * b[column]) / last
            column += 1
        elif member.family == "vapor pressure":
            amplitude = sampled[-1] / last
        else:
            rise = RISE.mean + RISE.deviation * b[column]
            column += 1
        if amplitude is None:
            amplitude = rise / (last - first)
            asymptote = end - amplitude * last
        yield member.family, weights[k], NATURAL[member.family](asymptote, amplitude, *shape)


@pytest.mark.parametrize("seed", range(5))
def test_curves_are_those_of_the_table(seed):
    prior = paper_prior()
    v = coordinates(prior, 1, seed=seed)
    found = design(prior, T, v, POSITIONS)
    b = np.random.default_rng(seed).normal(size=(1, found.x.shape[1]))
    total = np.zeros(POSITIONS.size)
    n_parameters = 0
    for family, weight, theta in own_parameters(prior, prior.parameters(v)[0], b[0]):
        assert weight > 0
        total += weight * FORMULAS[family].evaluate(theta, POSITIONS)
        n_parameters += len(theta)
    assert n_parameters == 36
    assert_allclose((found.offset + b @ found.x[0])[0], total, rtol=1e-9)


def test_any_subset():
    prior = paper_prior(["ilog2", "exp4"])
    assert [member.family for member in prior.members] == ["ilog2", "exp4"]
    assert prior.n_coordinates == 1 + 4 + 1
    assert paper_prior(["ilog2"]).n_coordinates == 1
