"""Curves in the range their priors are made for, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.normalization import FAR, floor_of, normalize

SCALE = Scale(2.0, 4.0, True)
"""A working value z is 2 + 4 z."""


def values_of(working: list[float]) -> np.ndarray:
    return SCALE.location + SCALE.unit * np.array(working)


@pytest.mark.parametrize(
    ("working", "stretch"),
    [
        ([0.0, 0.4, 0.7, 0.9], 1.0),  # as it is
        ([-0.9, -0.5, -0.2], 1.0),
        ([0.0, 2.0, 4.0], 2.0),  # half of the largest
        ([0.0, 0.5, 1.9], 1.0),
    ],
)
def test_a_curve_where_others_are_is_stretched_at_most(
    working: list[float], stretch: float
) -> None:
    z, found, shift = normalize(values_of(working), SCALE)
    assert (found, shift) == (pytest.approx(stretch), 0.0)
    assert_allclose(found * z + shift, working, rtol=1e-12, atol=1e-12)


def test_a_start_far_below_is_cut_off_once_the_curve_has_recovered() -> None:
    z, stretch, shift = normalize(values_of([-1e4, -3.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8]), SCALE)
    assert_allclose(stretch * z + shift, [-1, -1, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8], atol=1e-12)


def test_but_not_below_what_its_last_quarter_shows() -> None:
    z, stretch, shift = normalize(values_of([-9.0, 0.1, 0.2, 0.3, 0.4, 0.5, -3.0, 0.6]), SCALE)
    assert_allclose(stretch * z + shift, [-3, 0.1, 0.2, 0.3, 0.4, 0.5, -3, 0.6], atol=1e-12)


@pytest.mark.parametrize(
    ("working", "stretch"),
    [
        ([0.5, 0.4, 0.3, -2.0], 1.0),
        ([0.5, 0.4, 0.3, -50.0], 50.5 / 20.0),  # its size, and its way back
        ([-50.0, -50.0, -50.0, -50.0], 50.5 / 20.0),
        ([30.0, 0.0, -50.0, -50.0], 80.0 / 20.0),
    ],
)
def test_a_curve_that_is_far_below_is_judged_around_where_it_is(
    working: list[float], stretch: float
) -> None:
    z, found, shift = normalize(values_of(working), SCALE)
    assert found == pytest.approx(stretch)
    assert z[-1] == pytest.approx(0.5)  # the usual asymptote
    assert_allclose(found * z + shift, working, rtol=1e-9)


def test_squares_stay_finite() -> None:
    for values in ([1e300, -1e300, 0.0], [0.0, 0.0, -1e300]):
        z, stretch, shift = normalize(np.array(values), Scale(0.0, 1.0, True))
        assert np.all(np.isfinite(z**2))
        assert np.isfinite(stretch)
        assert np.isfinite(shift)


def test_the_best_as_a_working_value() -> None:
    assert floor_of(values_of([0.1, 0.7, 0.3]), SCALE) == pytest.approx(0.7)
    assert floor_of(np.array([1e300, 0.0]), Scale(0.0, 1.0, True)) == FAR
    assert floor_of(np.array([-1e300]), Scale(0.0, 1.0, True)) == -FAR
