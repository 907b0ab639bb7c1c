import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from optuna_lcpruner.curves.scale import Scale, oriented, spanning, typical_start

ordinary = st.floats(-1e9, 1e9)


@settings(deadline=None, max_examples=2 * settings.default.max_examples)
@given(location=ordinary, unit=st.floats(1e-6, 1e6), maximize=st.booleans(), metric=ordinary)
def test_round_trip(location, unit, maximize, metric):
    scale = Scale(location, unit, maximize)
    room = 1e-14 * (abs(location) + abs(metric)) + 1e-300  # subnormal numbers lose digits
    assert_allclose(scale.to_metric(scale.to_working(metric)), metric, rtol=1e-13, atol=room)


@pytest.mark.parametrize(
    ("scale", "metric", "working"),
    [
        (Scale(0.1, 0.4, True), [0.1, 0.5, 0.3, -0.3], [0.0, 1.0, 0.5, -1.0]),
        (Scale(-2.3, 2.0, False), [2.3, 0.3, 4.3], [0.0, 1.0, -1.0]),
    ],
)
def test_both_directions(scale, metric, working):
    assert_allclose(scale.to_working(metric), working, atol=1e-15)
    assert_allclose(scale.to_metric(working), metric, atol=1e-15)
    assert scale.to_working([metric]).shape == (1, len(metric))


@settings(deadline=None)
@given(location=ordinary, unit=st.floats(1e-3, 1e3), a=ordinary, b=ordinary)
def test_larger_is_better_on_the_working_scale(location, unit, a, b):
    up, down = Scale(location, unit, True), Scale(location, unit, False)
    assert (up.to_working(a) >= up.to_working(b)) or a < b
    assert (down.to_working(a) >= down.to_working(b)) or a > b
    assert_array_equal(down.to_working(-a), up.to_working(a))


def test_oriented():
    assert_array_equal(oriented([1.0, -2.0, np.nan], True), [1.0, -2.0, np.nan])
    assert_array_equal(oriented([1.0, -2.0, np.inf], False), [-1.0, 2.0, -np.inf])


@pytest.mark.parametrize(
    ("low", "high", "fallback", "location", "unit"),
    [
        (0.2, 0.7, (), 0.2, 0.5),
        (-3.0, -1.0, (5.0, 9.0), -3.0, 2.0),
        (0.5, 0.5, (0.1, 0.4), 0.2, 0.3),  # flat: the fallback's spread
        (0.5, 0.4, (0.1, 0.4, np.nan, np.inf), 0.1, 0.3),  # falling, fallback not all finite
        (0.5, 0.5 + 1e-15, (0.1, 0.4), 0.2, 0.3),  # a difference that is rounding only
        (0.5, 0.5, (0.5, 0.5), 0.0, 0.5),  # constant everywhere: the size of the number
        (-8.0, -8.0, (), -16.0, 8.0),
        (-8.0, -9.0, (), -18.0, 9.0),
        (0.0, 0.0, (), -1.0, 1.0),
        (0.0, 0.0, (np.nan,), -1.0, 1.0),
        (0.0, 1e-300, (), 0.0, 1e-300),
    ],
)
def test_spanning(low, high, fallback, location, unit):
    for maximize in (True, False):
        scale = spanning(low, high, maximize, fallback)
        assert scale.maximize is maximize
        assert_allclose([scale.location, scale.unit], [location, unit], rtol=1e-12, atol=1e-14)
        sign = 1 if maximize else -1
        assert_allclose(scale.to_working(sign * high), 1.0, rtol=1e-12)


@settings(deadline=None, max_examples=2 * settings.default.max_examples)
@given(
    low=st.floats(allow_nan=False, allow_infinity=False),
    high=st.floats(allow_nan=False, allow_infinity=False),
    fallback=st.lists(st.floats(-1e300, 1e300), max_size=3),
)
def test_every_pair_of_finite_values_spans_a_valid_scale(low, high, fallback):
    scale = spanning(low, high, True, fallback)
    assert scale.unit > 0
    assert np.isfinite(scale.unit)


@pytest.mark.parametrize(("low", "high"), [(-1e308, 1e308), (-1.7e308, 1.7e308)])
def test_a_difference_beyond_the_largest_float(low, high):
    scale = spanning(low, high, True)
    assert 1e307 < scale.unit < np.inf


@pytest.mark.parametrize(
    ("location", "unit", "message"),
    [
        (np.nan, 1.0, "location must be finite, but got nan"),
        (np.inf, 1.0, "location must be finite, but got inf"),
        (0.0, 0.0, r"unit must be positive and finite, but got 0\.0"),
        (0.0, -1.0, r"unit must be positive and finite, but got -1\.0"),
        (0.0, np.inf, "unit must be positive and finite, but got inf"),
        (0.0, np.nan, "unit must be positive and finite, but got nan"),
    ],
)
def test_bad_scales(location, unit, message):
    with pytest.raises(ValueError, match=message):
        Scale(location, unit, True)


class TestTypicalStart:
    @pytest.mark.parametrize(
        ("values", "start"),
        [
            ([0.1, 0.5, 0.8, 0.9], 0.1),
            ([-1e6, 0.1, 0.5, 0.8, 0.9], 0.9 - 30 * 0.4),
            ([-1e6, -1e5, 0.5, 0.8, 0.9], 0.9 - 30 * 0.4),
            ([0.3], 0.3),
            ([0.3, 0.3, 0.3], 0.3),
            ([-1e6, 0.3, 0.3, 0.3], -1e6),  # nothing tells how far is far
            ([0.9, 0.5, 0.1], 0.9),
        ],
    )
    def test_a_transient_has_little_say(self, values: list[float], start: float) -> None:
        assert typical_start(np.array(values)) == pytest.approx(start)

    @given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
    def test_of_a_changed_unit(self, unit: float, shift: float) -> None:
        values = np.array([-50.0, 0.1, 0.5, 0.8, 0.9])
        changed = typical_start(unit * values + shift)
        np.testing.assert_allclose(changed, unit * typical_start(values) + shift, rtol=1e-9)
