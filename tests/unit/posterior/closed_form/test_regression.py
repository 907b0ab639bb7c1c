"""The regression on a grid of shapes, against dense linear algebra."""

import pytest
from brute_force import PLACES, assert_same_as_dense

from optuna_lcpruner.posterior.closed_form.engine import CurvePrior


@pytest.mark.parametrize("kappa", [0.0, 0.5])
@pytest.mark.parametrize("rho", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("place", PLACES)
def test_against_dense_linear_algebra(place, rho, kappa):
    prior = CurvePrior(sigma=(0.03,), rho=(rho,), kappa=(kappa,))
    assert_same_as_dense(prior, ("pow3",), *PLACES[place])
