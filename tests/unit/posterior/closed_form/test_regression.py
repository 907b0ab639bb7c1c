"""The regression on a grid of shapes, against dense linear algebra."""

import pytest
from brute_force import PLACES, assert_same_as_dense

from optuna_lcpruner.posterior.closed_form.engine import CurvePrior


@pytest.mark.parametrize(
    ("place", "rho", "kappa"),
    [  # half of all: each value of each with each of the others
        (place, rho, kappa)
        for i, place in enumerate(PLACES)
        for j, rho in enumerate((0.0, 0.7, 1.0))
        for k, kappa in enumerate((0.0, 0.5))
        if (i + j + k) % 2 == 0
    ],
)
def test_against_dense_linear_algebra(place, rho, kappa):
    prior = CurvePrior(sigma=(0.03,), rho=(rho,), kappa=(kappa,))
    assert_same_as_dense(prior, ("pow3",), *PLACES[place])
