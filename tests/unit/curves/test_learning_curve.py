import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from optuna_lcpruner.curves.learning_curve import (
    MAX_KNOTS,
    LearningCurve,
    PositionGrid,
    StepMap,
    average_on_knots,
    ordered,
)


@pytest.mark.parametrize(
    ("steps", "n_steps", "positions", "horizon"),
    [
        ([0, 1, 2, 3], 10, [1, 2, 3, 4], 10),  # 0-based
        ([1, 2, 3], 10, [1, 2, 3], 10),  # 1-based
        ([500, 1000, 1500], 10_000, [1, 2, 3], 20),  # strided
        ([0, 500, 1000], 10_000, [1, 2, 3], 20),  # strided, from 0
        ([499, 999, 1499], 10_000, [1, 2, 3], 20),  # strided, last batch of each block
        ([1, 11, 21], 100, [1, 2, 3], 10),
        ([40, 41, 42], 100, [40, 41, 42], 100),  # resumed
        ([400, 410, 420], 1000, [40, 41, 42], 100),  # resumed and strided
        ([0, 1, 2, 5, 6], 10, [1, 2, 3, 6, 7], 10),  # some reports are missing
        ([0], 10, [1], 10),
        ([7], 10, [7], 10),
        ([3, 1003], 2000, [1, 2], 2),
    ],
)
def test_step_map(steps, n_steps, positions, horizon):
    step_map = StepMap.of(steps)
    assert_allclose(step_map.position(steps), positions, rtol=1e-12)
    assert step_map.horizon(n_steps) == horizon


@pytest.mark.parametrize(
    ("steps", "stride", "positions", "horizon"),
    [
        ([0], 10.0, [1], 10),
        ([10], 10.0, [1], 10),
        ([5], 10.0, [1], 10),
        ([1, 21], 10.0, [1, 3], 10),
        ([30, 40], 10.0, [3, 4], 10),
    ],
)
def test_step_map_with_the_studys_stride(steps, stride, positions, horizon):
    step_map = StepMap.of(steps, stride)
    assert step_map.stride == stride
    assert_allclose(step_map.position(steps), positions, rtol=1e-12)
    assert step_map.horizon(100) == horizon


@settings(deadline=None, max_examples=2 * settings.default.max_examples)
@given(
    first=st.integers(0, 10**9),
    gaps=st.lists(st.integers(1, 10**6), min_size=1, max_size=20),
)
def test_positions_start_at_one_or_later_and_keep_the_order(first, gaps):
    steps = first + np.cumsum([0, *gaps])
    positions = StepMap.of(steps).position(steps)
    assert positions[0] >= 1.0
    assert np.all(np.diff(positions) > 0)
    assert_allclose(np.median(np.diff(positions)), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("first", "stride", "n_steps", "horizon"),
    [
        (0, 10, 0, 1),
        (0, 10, 4, 1),
        (0, 10, 10, 1),
        (0, 10, 96, 10),
        (0, 10, 104, 11),
        (0, 30, 100, 4),
        (0, 2, 5, 3),
        (10, 10, 100, 10),
        (10, 10, 104, 10),
        (10, 10, 96, 9),
        (1, 1, 20, 20),
        (1, 500, 5000, 10),
        (499, 500, 5000, 10),
        (0, 0.1, 0.3, 3),
    ],
)
def test_the_horizon_is_at_the_last_report_and_at_least_one(first, stride, n_steps, horizon):
    found = StepMap.of(np.array([first, first + stride]), stride)
    assert found.horizon(n_steps) == horizon
    assert isinstance(found.horizon(n_steps), int)


@given(
    first=st.integers(0, 1000), stride=st.integers(1, 500), n_reports=st.integers(2, 60),
    more=st.integers(0, 499),
)  # fmt: skip
def test_the_last_report_of_a_training_is_at_its_horizon(first, stride, n_reports, more):
    """And none before it: reports every stride from the first on, 0 or a late one counting up."""
    steps = first + stride * np.arange(n_reports)
    n_steps = steps[-1] + min(more, stride - 1) + (first == 0 or first > stride)
    found = StepMap.of(steps, stride, first)
    positions = found.position(steps)
    horizon = found.horizon(n_steps)
    assert positions[-1] >= horizon - 1e-9 * horizon
    assert positions[-2] < horizon


def test_trainings_that_all_begin_late_begin_at_one():
    steps = np.arange(1000, 1020)
    found = StepMap.of(steps, 1.0, 1000.0)
    assert_allclose(found.position(steps), np.arange(1.0, 21.0))
    assert found.horizon(1020) == 20
    resumed = StepMap.of(steps, 1.0, 0.0)
    assert resumed.position(steps)[0] == 1001.0


@pytest.mark.parametrize("horizon", [1, 2, 3, 127, 128, 129, 1000, 10_000])
def test_knots_run_from_one_to_the_horizon(horizon):
    knots = PositionGrid(horizon)
    assert knots.size == min(horizon, MAX_KNOTS) == knots.positions.size
    assert knots.positions[0] == 1
    assert knots.positions[-1] == horizon
    assert_allclose(np.diff(knots.positions), (horizon - 1) / max(knots.size - 1, 1))
    assert_array_equal(knots.nearest(knots.positions), np.arange(knots.size))
    assert not knots.positions.flags.writeable


@settings(deadline=None, max_examples=2 * settings.default.max_examples)
@given(horizon=st.integers(1, 10**6), fractions=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_nearest_knot_is_nearest(horizon, fractions):
    knots = PositionGrid(horizon)
    positions = 1 + np.array(fractions) * (horizon - 1)
    index = knots.nearest(positions)
    assert index.shape == positions.shape
    assert np.all((index >= 0) & (index < knots.size))
    distances = np.abs(knots.positions - positions[:, None])
    chosen = distances[np.arange(positions.size), index]
    assert_allclose(chosen, distances.min(axis=1), rtol=1e-9, atol=1e-9 * horizon)
    order = np.argsort(positions)
    assert np.all(np.diff(index[order]) >= 0)


def test_beyond_the_horizon_is_the_last_knot():
    for horizon in (1, 5, 1000):
        assert PositionGrid(horizon).nearest(horizon + 7.0) == PositionGrid(horizon).size - 1


def test_knots_need_a_horizon():
    with pytest.raises(ValueError, match="horizon must be at least 1, but got 0"):
        PositionGrid(0)


def test_short_trainings_keep_every_report():
    values = [0.3, 0.1, 0.7]
    index, means = LearningCurve([1, 2, 4], values, 128).on_knots
    assert_array_equal(index, [0, 1, 3])
    assert_array_equal(means, values)


def test_long_trainings_are_averaged_into_knots():
    positions = np.arange(1.0, 1001.0)
    values = np.random.default_rng(0).normal(size=1000)
    curve = LearningCurve(positions, values, 2000)
    index, means = curve.on_knots
    owner = curve.knots.nearest(positions)
    assert_array_equal(index, np.unique(owner))
    assert_allclose(means, [values[owner == i].mean() for i in index], rtol=1e-12)
    assert curve.n_points == 1000
    assert len(index) == 64


@settings(deadline=None, max_examples=2 * settings.default.max_examples)
@given(
    values=st.lists(
        st.floats(min_value=-1e308, max_value=1e308, allow_nan=False), min_size=1, max_size=40
    )
)
def test_averaging_huge_values_stays_finite_and_between_them(values):
    values = np.array(values)
    positions = np.arange(1.0, values.size + 1)
    index, means = average_on_knots(PositionGrid(10_000), positions, values)
    assert_array_equal(index, np.unique(PositionGrid(10_000).nearest(positions)))
    assert np.all(np.isfinite(means))
    room = 1e-12 * np.max(np.abs(values)) + 1e-322  # dividing a denormal may round it to zero
    assert np.all(means >= values.min() - room)
    assert np.all(means <= values.max() + room)


def test_gaps_leave_knots_out():
    positions = np.r_[1.0:200.0, 900.0:1000.0]
    index, _ = LearningCurve(positions, np.zeros(positions.size), 1000).on_knots
    assert np.all(np.diff(index) >= 1)
    assert np.max(np.diff(index)) > 80


def test_ordered_sorts_steps_and_keeps_values_as_reported():
    steps, values = ordered({5: np.nan, 1: 0.5, 3: np.inf})
    assert_array_equal(steps, [1, 3, 5])
    assert_array_equal(values, [0.5, np.inf, np.nan])
    assert steps.dtype == np.int64
    steps, values = ordered({0: 2.0, 10: 1.0})
    assert_array_equal(steps, [0, 10])
    assert_array_equal(values, [2.0, 1.0])
    steps, values = ordered({})
    assert steps.size == values.size == 0


@settings(deadline=None)
@given(reports=st.dictionaries(st.integers(0, 10**6), st.floats(), max_size=20))
def test_ordered_is_a_sort_by_step(reports):
    steps, values = ordered(reports)
    assert steps.tolist() == sorted(reports)
    assert_array_equal(values, [reports[step] for step in sorted(reports)])


@pytest.mark.parametrize(
    ("positions", "values", "horizon", "message"),
    [
        ([1, 2], [1.0], 5, "equally long"),
        ([], [], 5, "not empty"),
        ([[1, 2]], [[0.0, 1.0]], 5, "one-dimensional"),
        ([0.5, 2], [0.0, 1.0], 5, "at least 1"),
        ([1, np.inf], [0.0, 1.0], 5, "positions must be finite"),
        ([1, np.nan], [0.0, 1.0], 5, "positions must be finite"),
        ([2, 1], [0.0, 1.0], 5, "strictly increasing"),
        ([1, 1], [0.0, 1.0], 5, "strictly increasing"),
        ([1, 2], [0.0, np.nan], 5, "values must be finite"),
        ([1, 2], [0.0, -np.inf], 5, "values must be finite"),
        ([1, 2], [0.0, 1.0], 0, "horizon must be a positive integer, but got 0"),
        ([1, 2], [0.0, 1.0], 2.5, r"horizon must be a positive integer, but got 2\.5"),
    ],
)
def test_bad_curves(positions, values, horizon, message):
    with pytest.raises(ValueError, match=message):
        LearningCurve(positions, values, horizon)


def test_a_curve_keeps_a_copy():
    values = np.array([0.0, 1.0])
    curve = LearningCurve([1, 2], values, 5.0)
    values[0] = 9.0
    assert_array_equal(curve.values, [0.0, 1.0])
    assert isinstance(curve.horizon, int)


@settings(deadline=None)
@given(
    horizon=st.integers(2, 5000),
    share=st.floats(0.0, 1.0),
    stride=st.integers(1, 7),
)
def test_knots_seen_are_those_of_the_whole_training(horizon, share, stride):
    """Where the one seen so far has but its first reports, they are no measure of the others'."""
    positions = np.arange(1.0, horizon + 1.0, stride)
    values = 1.0 - 1.0 / positions
    knots, means = average_on_knots(PositionGrid(horizon), positions, values)
    n = max(1, round(share * positions.size))
    curve = LearningCurve(positions[:n], values[:n], horizon)
    index, seen = curve.on_knots
    if curve.n_whole_knots:
        assert index.size == curve.n_whole_knots
        assert_array_equal(index, knots[: index.size])
        assert_allclose(seen, means[: index.size], rtol=1e-12)
    if horizon <= MAX_KNOTS:
        assert curve.n_whole_knots == n
    else:
        assert (
            curve.n_whole_knots >= np.unique(PositionGrid(horizon).nearest(positions[:n])).size - 1
        )


def test_a_knot_is_whole_with_its_last_report():
    """Five reports on the first knot, nine on the others."""
    curves = [LearningCurve(np.arange(1.0, n + 1), np.ones(n), 1144) for n in range(1, 24)]
    assert [curve.n_whole_knots for curve in curves] == [0] * 4 + [1] * 9 + [2] * 9 + [3]
