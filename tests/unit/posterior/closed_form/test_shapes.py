import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from optuna_lcpruner.curves.families import FAMILIES
from optuna_lcpruner.curves.learning_curve import MAX_KNOTS
from optuna_lcpruner.posterior.closed_form.shapes import MERGE_DISTANCE, shape_grid

ALL = tuple(FAMILIES)
HORIZONS = (2, 3, 4, 10, 50, 100, 1000, 10_000)


def sup_distance(a, b):
    return np.max(np.abs(a[:, None, :] - b[None, :, :]), axis=-1)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_shapes_run_from_minus_one_to_zero(horizon):
    psi = shape_grid(horizon, ALL).psi
    assert psi.shape[1] == min(horizon, MAX_KNOTS)
    assert_allclose(psi[:, 0], -1, atol=1e-12)
    assert_allclose(psi[:, -1], 0, atol=1e-12)
    assert np.all(np.isfinite(psi))
    assert np.all(np.diff(psi, axis=1) >= -1e-12)


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("families", [ALL, ("pow3",), ("ilog2", "MMF"), ALL[::-1]])
def test_every_family_has_the_same_mass(horizon, families):
    grid = shape_grid(horizon, families)
    assert grid.families == families
    assert grid.mass.shape == (len(grid.psi), len(families))
    assert np.all(grid.mass >= 0)
    assert np.all(grid.mass.sum(axis=1) > 0)
    assert_allclose(grid.mass.sum(axis=0), 1 / len(families), rtol=1e-12)
    assert_allclose(grid.mass.sum(), 1, rtol=1e-12)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_kept_shapes_differ(horizon):
    psi = shape_grid(horizon, ALL).psi
    distance = sup_distance(psi, psi)
    np.fill_diagonal(distance, np.inf)
    assert np.all(distance > MERGE_DISTANCE)


@pytest.mark.parametrize("horizon", [3, 10, 20])
@pytest.mark.parametrize("name", ALL)
def test_every_shape_of_a_family_has_a_kept_one_nearby(name, horizon):
    family = FAMILIES[name]
    t = np.arange(1.0, horizon + 1)
    phi = family.kernels(family.shape_grid(float(horizon)), t)
    gain = phi[:, -1] - phi[:, 0]
    usable = np.abs(gain) > 1e-6 * np.max(np.abs(phi), axis=1)
    psi = (phi[usable] - phi[usable, -1:]) / gain[usable, None]
    # At these horizons every knot is compared, so no shape is further than that from its stand-in.
    nearest = sup_distance(psi, shape_grid(horizon, ALL).psi).min(axis=1)
    assert np.all(nearest <= MERGE_DISTANCE + 1e-9)


def test_families_with_the_same_curves_share_their_shapes():
    grid, alone = shape_grid(100, ("Hill3", "log power")), shape_grid(100, ("Hill3",))
    assert_allclose(grid.psi, alone.psi, rtol=0, atol=1e-12)
    # A copy of the family merges as the family does, but for ties that later shapes resolve.
    assert_allclose(grid.mass[:, 0], alone.mass[:, 0] / 2, rtol=1e-9)
    assert np.all((grid.mass > 0).sum(axis=1) == 2)


def test_one_shape_family():
    t = np.arange(1.0, 11.0)
    phi = 1 / np.log(t + 1)
    expected = (phi - phi[-1]) / (phi[-1] - phi[0])
    grid = shape_grid(10, ("ilog2",))
    assert_allclose(grid.psi, [expected], rtol=1e-12, atol=1e-15)
    assert_array_equal(grid.mass, [[1.0]])


def test_power_shapes():
    # c - a t^-alpha on t = 1..5: psi = (1 - t^-alpha) / (1 - 5^-alpha) - 1.
    t = np.arange(1.0, 6.0)
    grid = shape_grid(5, ("pow3",))
    for alpha in (0.5, 1.0, 2.0):
        expected = (1 - t**-alpha) / (1 - 5**-alpha) - 1
        assert np.min(np.max(np.abs(grid.psi - expected), axis=1)) <= MERGE_DISTANCE


def test_products_are_those_of_psi():
    grid = shape_grid(100, ALL)
    assert_array_equal(grid.square, grid.psi * grid.psi)
    assert_array_equal(grid.product, grid.psi[:, 1:] * grid.psi[:, :-1])


def test_two_positions_leave_one_shape():
    assert_allclose(shape_grid(2, ALL).psi, [[-1.0, 0.0]], atol=1e-12)


def test_cached():
    grid = shape_grid(60, ALL)
    assert shape_grid(60, ALL) is grid
    assert shape_grid(61, ALL) is not grid


@pytest.mark.parametrize("field", ["psi", "mass", "square", "product"])
def test_what_is_cached_is_read_only(field):
    assert not getattr(shape_grid(60, ALL), field).flags.writeable


def test_unknown_family():
    with pytest.raises(ValueError, match="pow5"):
        shape_grid(10, ("pow5",))
