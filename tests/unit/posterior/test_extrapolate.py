import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from optuna_lcpruner import Forecast, forecast
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import Target

VALUES = [0.60, 0.71, 0.76, 0.79, 0.81]


def test_example():
    ahead = forecast(VALUES, n_steps=20, direction="maximize")
    assert isinstance(ahead, Forecast)
    assert 0.8 < ahead.mean() < 0.95
    assert ahead.p_beats(0.99) < 0.1
    assert_array_equal(ahead.positions, np.arange(6.0, 21.0))
    assert ahead.horizon == 20
    means = [ahead.mean(at=p) for p in ahead.positions]
    assert np.all(np.diff(means) > 0)


@pytest.mark.parametrize("target", ["last", "best"])
def test_directions_are_mirrored(target):
    up = forecast(VALUES, n_steps=20, direction="maximize", target=target)
    down = forecast(np.negative(VALUES), n_steps=20, target=target)
    assert up.scale.maximize
    assert not down.scale.maximize
    for at in (6, 13, 20):
        assert_allclose(down.mean(at), -up.mean(at), rtol=1e-12)
        assert_allclose(down.std(at), up.std(at), rtol=1e-12)
        assert_allclose(down.p_beats(-0.85, at), up.p_beats(0.85, at), rtol=1e-9)
        assert_allclose(down.interval(0.9, at), np.negative(up.interval(0.9, at))[::-1], rtol=1e-6)


def test_shift_and_unit_of_the_metric_do_not_matter():
    plain = forecast(VALUES, n_steps=20, direction="maximize")
    percent = forecast(100 * np.array(VALUES) - 7, n_steps=20, direction="maximize")
    assert_allclose(percent.mean(), 100 * plain.mean() - 7, rtol=1e-9)
    assert_allclose(percent.std(), 100 * plain.std(), rtol=1e-9)


@pytest.mark.parametrize(
    ("steps", "n_steps"),
    [
        ([0, 1, 2, 3, 4], 20),
        ([1, 2, 3, 4, 5], 20),
        ([500, 1000, 1500, 2000, 2500], 10_000),
        ([0, 500, 1000, 1500, 2000], 10_000),
        ([1, 11, 21, 31, 41], 200),
    ],
)
def test_the_numbering_of_steps_does_not_matter(steps, n_steps):
    plain = forecast(VALUES, n_steps=20, direction="maximize")
    other = forecast(VALUES, n_steps=n_steps, direction="maximize", steps=steps)
    assert_allclose(other.positions, plain.positions)
    assert_allclose(other.mean(), plain.mean(), rtol=1e-9)
    assert_allclose(other.quantile([0.05, 0.95]), plain.quantile([0.05, 0.95]), rtol=1e-6)


def test_steps_may_come_unordered():
    order = np.array([3, 0, 4, 1, 2])
    mixed = forecast(np.array(VALUES)[order], n_steps=20, direction="maximize", steps=order)
    plain = forecast(VALUES, n_steps=20, direction="maximize")
    assert mixed.mean() == plain.mean()
    assert mixed.std() == plain.std()


def test_a_resumed_training_stands_at_its_steps():
    ahead = forecast(VALUES, n_steps=20, direction="maximize", steps=[10, 11, 12, 13, 14])
    assert_array_equal(ahead.positions, np.arange(15.0, 21.0))


def test_missing_values_keep_their_place():
    holes = forecast([0.6, np.nan, 0.76, np.inf, 0.81], n_steps=20, direction="maximize")
    steps = forecast([0.6, 0.76, 0.81], n_steps=20, direction="maximize", steps=[0, 2, 4])
    assert_array_equal(holes.positions, np.arange(6.0, 21.0))
    assert steps.horizon == 10  # every second step reported: half as many reports
    plain = forecast(VALUES, n_steps=20, direction="maximize")
    assert_allclose(holes.mean(), plain.mean(), atol=0.03)
    # A NaN at the end is a report not seen: its position still lies ahead.
    last = forecast([*VALUES, np.nan], n_steps=20, direction="maximize")
    assert last.mean() == plain.mean()
    assert_array_equal(last.positions, plain.positions)


def test_values_too_large_to_compute_with_count_as_missing():
    large = forecast([0.5, 0.6, 1.5e308, -1.7e308, 0.65], n_steps=10)
    missing = forecast([0.5, 0.6, np.nan, np.nan, 0.65], n_steps=10)
    assert large.mean() == missing.mean()
    assert large.interval() == missing.interval()
    assert_array_equal(large.positions, missing.positions)


def test_one_report_left():
    ahead = forecast(VALUES, n_steps=6, direction="maximize")
    assert_array_equal(ahead.positions, [6.0])
    assert_allclose(ahead.mean(), 0.82, atol=0.02)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_best_never_falls_behind_what_was_reported(direction):
    sign = 1 if direction == "maximize" else -1
    values = sign * np.array([0.6, 0.8, 0.9, 0.8, 0.6, 0.5])
    ahead = forecast(values, n_steps=20, direction=direction, target="best")
    last = forecast(values, n_steps=20, direction=direction)
    assert ahead.p_beats(sign * 0.89) == 1.0
    assert np.all(sign * ahead.quantile([0.01, 0.5, 0.99]) >= 0.9 - 1e-12)
    assert sign * ahead.mean() > sign * last.mean()


def test_another_engine_is_given_curve_knowledge_and_positions():
    seen = {}

    def engine(curve, knowledge, positions):
        seen.update(curve=curve, knowledge=knowledge, positions=positions)
        return ClosedForm()(curve, knowledge, positions)

    forecast([3.0, 2.0, 1.5], n_steps=6, target="best", engine=engine)
    assert_array_equal(seen["curve"].values, [-3.0, -2.0, -1.5])
    assert_array_equal(seen["curve"].positions, [1, 2, 3])
    assert seen["curve"].horizon == 6
    assert seen["knowledge"].target is Target.BEST
    assert_allclose(seen["knowledge"].scale.to_working([3.0, 1.5]), [0.0, 0.5])
    assert_array_equal(seen["positions"], [4, 5, 6])


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=12),
    st.sampled_from(["minimize", "maximize"]),
    st.sampled_from(["last", "best"]),
)
def test_any_finite_values_have_a_finite_forecast(values, direction, target):
    ahead = forecast(values, n_steps=15, direction=direction, target=target)
    low, high = ahead.interval()
    assert np.isfinite([low, high, ahead.mean()]).all()
    assert low <= high


def test_without_randomness():
    one, two = (forecast(VALUES, n_steps=20, direction="maximize") for _ in range(2))
    assert_array_equal(one.observed.location, two.observed.location)
    assert_array_equal(one.weights, two.weights)


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        (
            VALUES,
            {"direction": "up"},
            "direction must be one of 'minimize', 'maximize', but got 'up'",
        ),
        (VALUES, {"target": "mean"}, "target must be one of 'last', 'best', but got 'mean'"),
        ([VALUES], {}, r"values must be one-dimensional, but got shape \(1, 5\)"),
        (0.5, {}, r"values must be one-dimensional, but got shape \(\)"),
        (VALUES, {"steps": [0, 1]}, r"equally long, but got \(2,\) and \(5,\)"),
        (VALUES, {"steps": [0, 1, 1, 2, 3]}, r"non-negative and distinct, but got \[0, 1, 1"),
        (VALUES, {"steps": [-1, 0, 1, 2, 3]}, r"non-negative and distinct, but got \[-1, 0"),
        (VALUES, {"steps": [0, 1, 2, 3, np.nan]}, "steps must be"),
        (VALUES, {"steps": [0, 1, 2, 3, np.inf]}, "steps must be"),
        ([], {}, "at least two finite values are needed"),
        ([0.5], {}, "at least two finite values are needed"),
        ([0.5, np.nan, np.inf], {}, "at least two finite values are needed"),
        (VALUES, {"n_steps": 5}, "n_steps must lie beyond the last step, but got n_steps=5 with 5"),
        (VALUES, {"n_steps": 0}, "n_steps must be a positive number, but got 0"),
        (VALUES, {"n_steps": -3}, "n_steps must be a positive number, but got -3"),
        (VALUES, {"n_steps": np.nan}, "n_steps must"),
        (VALUES, {"n_steps": np.inf}, "n_steps must"),
        (
            VALUES,
            {"n_steps": 2500, "steps": [500, 1000, 1500, 2000, 2500]},
            "with 5 values up to step 2500",
        ),
    ],
)
def test_mistakes(values, arguments, message):
    with pytest.raises(ValueError, match=message):
        forecast(values, **{"n_steps": 20, **arguments})


def test_it_reads_in_one_line() -> None:
    ahead = forecast([0.60, 0.71, 0.76, 0.79, 0.81], n_steps=20, direction="maximize")
    low, high = ahead.interval()
    median = float(ahead.quantile(0.5))
    assert repr(ahead) == f"Forecast({median:.4g} [{low:.4g}, {high:.4g}] at position 20)"
