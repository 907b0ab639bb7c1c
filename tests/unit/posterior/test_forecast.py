from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate, special, stats

import optuna_lcpruner
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior import forecast
from optuna_lcpruner.posterior.forecast import Component, Forecast, Recalibration

DFS = (4.0, 7.0, np.inf)


def mixture(
    locations, scales, weights, df=4.0, *, location=0.0, unit=1.0, maximize=True, floor=-np.inf
):
    """One position; the latent components are half as wide."""
    locations, scales = np.array([locations], float), np.array([scales], float)
    return Forecast(
        positions=np.array([10.0]),
        weights=np.array(weights, float),
        observed=Component(locations, scales),
        latent=Component(locations, scales / 2),
        df=df,
        scale=Scale(location, unit, maximize),
        floor=floor,
    )


def distribution(forecast, noise=True):
    """The components as scipy distributions of the metric."""
    part = forecast.observed if noise else forecast.latent
    sign = 1.0 if forecast.scale.maximize else -1.0
    centre = sign * (forecast.scale.location + forecast.scale.unit * part.location[-1])
    width = forecast.scale.unit * part.scale[-1]
    if np.isinf(forecast.df):
        return stats.norm(centre, width)
    return stats.t(forecast.df, centre, width)


def three(df, maximize):
    return mixture(
        [0.1, 0.6, -2.0], [0.05, 0.3, 1.5], [0.5, 0.3, 0.2], df,
        location=3.0, unit=0.7, maximize=maximize,
    )  # fmt: skip


FORECASTS = [(df, maximize) for df in DFS for maximize in (True, False)]


@pytest.mark.parametrize(("df", "maximize"), FORECASTS)
@pytest.mark.parametrize("noise", [True, False])
def test_against_scipy(df, maximize, noise):
    forecast = three(df, maximize)
    truth, w = distribution(forecast, noise), forecast.weights
    x = (1 if maximize else -1) * np.array([-40.0, -2.0, 1.0, 2.9, 3.07, 3.1, 3.4, 4.0, 9.0, 70.0])
    column = x[:, None]
    assert_allclose(forecast.cdf(x, noise=noise), truth.cdf(column) @ w, rtol=1e-9, atol=1e-14)
    assert_allclose(forecast.pdf(x, noise=noise), truth.pdf(column) @ w, rtol=1e-9, atol=1e-300)
    better = truth.sf(column) @ w if maximize else truth.cdf(column) @ w
    beats = [forecast.p_beats(value, noise=noise) for value in x]
    assert_allclose(beats, better, rtol=1e-9, atol=1e-14)
    mean = truth.mean() @ w
    assert_allclose(forecast.mean(noise=noise), mean, rtol=1e-12)
    variance = (truth.var() + (truth.mean() - mean) ** 2) @ w
    assert_allclose(forecast.std(noise=noise), np.sqrt(variance), rtol=1e-12)
    levels = np.array([[0.001, 0.05, 0.2], [0.5, 0.95, 0.9999]])
    quantiles = forecast.quantile(levels, noise=noise)
    assert quantiles.shape == levels.shape
    assert_allclose(truth.cdf(quantiles[..., None]) @ w, levels, rtol=0, atol=2e-9)


@pytest.mark.parametrize("df", DFS)
@pytest.mark.parametrize("maximize", [True, False])
def test_a_single_component_is_scipys_distribution(df, maximize):
    forecast = mixture([0.3], [0.2], [1.0], df, location=-5.0, unit=4.0, maximize=maximize)
    truth = distribution(forecast)
    levels = np.array([0.01, 0.05, 0.3, 0.5, 0.8, 0.99])
    assert_allclose(forecast.quantile(levels), truth.ppf(levels), rtol=1e-6)
    assert_allclose(forecast.interval(0.8), np.ravel(truth.interval(0.8)), rtol=1e-6)
    assert_allclose(forecast.interval(), np.ravel(truth.interval(0.9)), rtol=1e-6)
    assert_allclose(forecast.mean(), truth.mean(), rtol=1e-13)
    assert_allclose(forecast.std(), truth.std(), rtol=1e-12)


# Either side of 300, where the distribution function of df = 4 goes over to its limit 3 / x^4.
TAILS = np.array([1e-9, 0.3, 2.0, 17.0, 80.0, 299.0, 301.0, 1e3, 1e6, 1e20])


@pytest.mark.parametrize("df", [4.0, 7.0])
def test_the_bad_tail_keeps_its_relative_size(df):
    forecast = mixture([0.0], [1.0], [1.0], df)
    assert_allclose(forecast.cdf(-TAILS), stats.t.cdf(-TAILS, df), rtol=2e-4, atol=0)
    ordinary = -TAILS[TAILS < 20]
    assert_allclose(forecast.cdf(ordinary), stats.t.cdf(ordinary, df), rtol=1e-10, atol=0)
    assert_allclose(forecast.cdf(TAILS), stats.t.cdf(TAILS, df), rtol=1e-13)


def test_gaussian_tail():
    forecast = mixture([0.0], [1.0], [1.0], np.inf)
    x = np.array([-30.0, -8.0, -3.0, 0.0, 3.0, 8.0])
    assert_allclose(forecast.cdf(x), stats.norm.cdf(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("df", DFS)
@pytest.mark.parametrize("far", [1e20, 1e80, 1e110, 1e200, 1e300, np.inf])
def test_far_away_values_are_certain_and_silent(df, far):
    forecast = mixture([0.5, 0.2], [0.1, 1e-3], [0.5, 0.5], df)
    assert forecast.p_beats(far) == 0.0
    assert forecast.p_beats(-far) == 1.0
    assert_allclose(forecast.cdf([-far, far]), [0.0, 1.0], atol=1e-70)
    assert_allclose(forecast.pdf([-far, far]), [0.0, 0.0], atol=1e-90)


components = st.lists(
    st.tuples(st.floats(-3, 3), st.floats(1e-4, 10), st.floats(0.05, 1)), min_size=1, max_size=5
)


def of_components(parts, df, maximize):
    locations, scales, weights = np.transpose(parts)
    return mixture(
        locations, scales, weights / weights.sum(), df,
        location=1.0, unit=2.0, maximize=maximize,
    )  # fmt: skip


@settings(deadline=None)
@given(components, st.sampled_from(DFS), st.booleans(), st.floats(0.001, 0.999))
def test_quantile_and_cdf_are_inverse(parts, df, maximize, level):
    forecast = of_components(parts, df, maximize)
    x = forecast.quantile(level)
    assert x.shape == ()
    assert_allclose(forecast.cdf(x), level, atol=1e-8)
    # The tolerance of the level becomes one of x where the density is low.
    room = 1e-7 / max(float(forecast.pdf(x)), 1e-7)
    assert_allclose(forecast.quantile(forecast.cdf(x)), x, rtol=1e-9, atol=room)


def test_a_quantile_that_is_found_stays_found(monkeypatch):
    """Newton steps take a handful of looks at the distribution function, whatever the others do."""
    calls = []
    original = forecast.t_cdf
    monkeypatch.setattr(forecast, "t_cdf", lambda x, df: calls.append(1) or original(x, df))
    rng = np.random.default_rng(0)
    for _ in range(50):
        parts = np.column_stack(
            [rng.normal(0, 1, 10), rng.uniform(0.01, 0.04, 10), rng.uniform(0.05, 1, 10)]
        )
        of_components(parts, 4.0, True).quantile([0.05, 0.5, 0.95])
    assert len(calls) < 50 * 10


@settings(deadline=None)
@given(components, st.sampled_from(DFS), st.floats(-8, 8), st.lists(st.floats(0.01, 0.99)))
def test_minimised_is_the_mirror_image_of_maximised(parts, df, x, levels):
    up, down = of_components(parts, df, True), of_components(parts, df, False)
    assert_allclose(down.mean(), -up.mean(), rtol=1e-13)
    assert_allclose(down.std(), up.std(), rtol=1e-13)
    assert_allclose(down.p_beats(-x), up.p_beats(x), atol=1e-15)
    assert_allclose(down.pdf(-x), up.pdf(x), rtol=1e-13)
    assert_allclose(down.cdf(-x), 1 - up.cdf(x), atol=1e-15)
    for level in levels:
        room = 1e-6 / max(float(up.pdf(up.quantile(level))), 1e-6)
        assert_allclose(down.quantile(1 - level), -up.quantile(level), rtol=1e-9, atol=room)


def test_quantiles_where_newton_steps_bounce():
    """A narrow component on broad ones: the slope of the distribution function jumps."""
    parts = [(0.0, 1.0, 0.3125), (0.0, 0.0625, 0.125), (0.5, 2.0, 0.75)]
    forecast = of_components(parts, 7.0, False)
    levels = np.linspace(0.01, 0.99, 99)
    at = distribution(forecast).cdf(forecast.quantile(levels)[:, None]) @ forecast.weights
    assert_allclose(at, levels, atol=1e-8)


def test_quantiles_of_many_random_mixtures():
    rng = np.random.default_rng(0)
    levels = np.linspace(0.01, 0.99, 21)
    for _ in range(100):
        n = rng.integers(1, 6)
        scales = np.exp(rng.uniform(np.log(1e-4), np.log(10), n))
        parts = np.column_stack([rng.uniform(-3, 3, n), scales, rng.uniform(0.05, 1, n)])
        forecast = of_components(parts, rng.choice(DFS), True)
        at = distribution(forecast).cdf(forecast.quantile(levels)[:, None]) @ forecast.weights
        assert_allclose(at, levels, atol=1e-8)


@settings(deadline=None)
@given(components, st.sampled_from(DFS), st.booleans())
def test_quantiles_and_cdf_increase(parts, df, maximize):
    forecast = of_components(parts, df, maximize)
    assert np.all(np.diff(forecast.quantile(np.linspace(0.01, 0.99, 21))) >= -1e-6)
    below = forecast.cdf(np.linspace(-30, 30, 61))
    assert np.all(np.diff(below) >= -1e-15)
    assert np.all((below >= 0) & (below <= 1))


@pytest.mark.parametrize(("df", "maximize"), FORECASTS)
def test_density_integrates_to_the_distribution_function(df, maximize):
    forecast = three(df, maximize)
    ends = (1 if maximize else -1) * np.array([-3.0, 2.5, 3.07, 3.3, 5.0])
    for a, b in pairwise(ends):
        area, _ = integrate.quad(lambda x: float(forecast.pdf(x)), a, b, epsabs=1e-11)
        assert_allclose(area, np.diff(forecast.cdf([a, b]))[0], atol=1e-9)


@pytest.mark.parametrize("df", DFS)
@pytest.mark.parametrize(
    ("floor", "maximize"),
    [*((floor, True) for floor in (-30.0, -1.0, 0.05, 0.4, 3.0, 60.0, 1000.0)), (0.4, False)],
)
def test_mean_above_a_floor(df, maximize, floor):
    """E max(z, floor) = floor + integral of P(z > u) over u > floor, component by component."""
    locations, scales, weights = [0.1, 0.6, -2.0], [0.05, 0.3, 1.5], np.array([0.5, 0.3, 0.2])
    forecast = mixture(
        locations, scales, weights, df, location=3.0, unit=0.7, maximize=maximize, floor=floor
    )
    excess = 0.0
    for location, scale, weight in zip(locations, scales, weights, strict=True):
        x = (floor - location) / scale

        def survival(u):
            return special.ndtr(-u) if np.isinf(df) else special.stdtr(df, -u)

        if x < 0:  # the part below 0 is -x minus a small integral of the distribution function
            below, _ = integrate.quad(lambda u: survival(-u), x, 0, epsabs=1e-12)
            above, _ = integrate.quad(survival, 0, np.inf, epsabs=1e-12)
            unit_excess = -x - below + above
        else:
            unit_excess, _ = integrate.quad(survival, x, np.inf, epsabs=1e-14)
        excess += weight * scale * unit_excess
    expected = (1 if maximize else -1) * (3.0 + 0.7 * (floor + excess))
    assert_allclose(forecast.mean(), expected, rtol=1e-8)
    # The gain over the floor is what expected improvement rests on: right on its own as well.
    gain = ((1 if maximize else -1) * forecast.mean() - 3.0) / 0.7 - floor
    assert_allclose(gain, excess, rtol=1e-3, atol=1e-12 * max(1.0, abs(floor)))


@pytest.mark.parametrize("maximize", [True, False])
def test_floor_in_a_simulation(maximize):
    rng = np.random.default_rng(11)
    floor, n = 0.4, 400_000
    forecast = mixture(
        [0.1, 0.6], [0.2, 0.3], [0.6, 0.4], 4.0,
        location=3.0, unit=0.7, maximize=maximize, floor=floor,
    )  # fmt: skip
    which = rng.random(n) < 0.4
    z = np.where(which, 0.6, 0.1) + np.where(which, 0.3, 0.2) * rng.standard_t(4, n)
    metric = (1 if maximize else -1) * (3.0 + 0.7 * np.maximum(z, floor))
    assert_allclose(forecast.mean(), metric.mean(), atol=4 * metric.std() / np.sqrt(n))
    for value in (1 if maximize else -1) * np.array([3.1, 3.3, 3.5, 4.0]):
        share = np.mean(metric > value if maximize else metric < value)
        room = 4 * np.sqrt(0.25 / n)
        assert_allclose(forecast.p_beats(value), share, atol=room)
        assert_allclose(forecast.cdf(value), np.mean(metric <= value), atol=room)
    levels = [0.05, 0.3, 0.7, 0.95]
    assert_allclose(forecast.quantile(levels), np.quantile(metric, levels), atol=0.01)


@pytest.mark.parametrize("maximize", [True, False])
def test_nothing_lies_below_the_floor(maximize):
    sign = 1.0 if maximize else -1.0
    forecast = mixture([0.0], [1.0], [1.0], 4.0, maximize=maximize, floor=0.5)
    free = mixture([0.0], [1.0], [1.0], 4.0, maximize=maximize)
    assert forecast.p_beats(sign * 0.499) == 1.0
    assert_allclose(forecast.p_beats(sign * 0.7), free.p_beats(sign * 0.7))
    assert forecast.pdf(sign * 0.4) == 0.0
    assert_allclose(forecast.pdf(sign * 0.7), free.pdf(sign * 0.7))
    worst, best = sorted(sign * forecast.quantile([0.01, 0.99]))
    assert worst == 0.5
    assert_allclose(best, sign * free.quantile(0.99 if maximize else 0.01), rtol=1e-6)
    assert sign * forecast.mean() > 0.5


@pytest.mark.parametrize("maximize", [True, False])
def test_the_atom_counts_as_not_above_its_value(maximize):
    sign = 1.0 if maximize else -1.0
    forecast = mixture([0.0], [1.0], [1.0], 4.0, maximize=maximize, floor=0.5)
    # P(metric <= 0.5) holds the atom; minimised nothing lies above the atom.
    expected = stats.t.cdf(0.5, 4) if maximize else 1.0
    assert_allclose(forecast.cdf(sign * 0.5), expected)
    assert_allclose(forecast.p_beats(sign * 0.5), stats.t.sf(0.5, 4))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.1, np.nan, [0.5, 1.0]])
def test_bad_levels(level):
    with pytest.raises(ValueError, match="levels must lie strictly between 0 and 1, but got"):
        three(4.0, True).quantile(level)


@pytest.mark.parametrize("level", [1.0, 1.5])
def test_bad_interval(level):
    with pytest.raises(ValueError, match="levels must lie strictly between 0 and 1"):
        three(4.0, True).interval(level)


def at_three_positions():
    location = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    return Forecast(
        positions=np.array([5.0, 7.5, 10.0]),
        weights=np.array([0.25, 0.75]),
        observed=Component(location, np.full((3, 2), 0.2)),
        latent=Component(location + 10, np.full((3, 2), 0.1)),
        df=4.0,
        scale=Scale(0.0, 1.0, True),
    )


def test_positions():
    forecast = at_three_positions()
    assert forecast.horizon == 10.0
    assert_allclose(
        [forecast.mean(at=5), forecast.mean(at=7.5), forecast.mean(), forecast.mean(at=10.0)],
        [0.75, 1.75, 2.75, 2.75],
    )
    assert_allclose(forecast.mean(noise=False), 12.75)
    assert forecast.p_beats(2.0, at=5) < 0.01 < 0.99 < forecast.p_beats(1.0)
    assert_allclose(forecast.quantile(0.5, at=7.5), forecast.quantile(0.5, at=10) - 1, atol=1e-6)
    assert_allclose(forecast.pdf([1.0], at=5), forecast.pdf([3.0], at=10))
    assert forecast.std(noise=False) < forecast.std()
    with pytest.raises(ValueError, match=r"position 6 is not one of the forecast positions"):
        forecast.mean(at=6)


PIVOT, BELOW = 0.4, 0.75


def known(forecast, pivot, below, **changes):
    """The forecast, recalibrated to the level `below` at the working value `pivot`."""
    location, scale = forecast.observed.location[-1], forecast.observed.scale[-1]
    part = stats.norm if np.isinf(forecast.df) else stats.t(forecast.df)
    mixture = float(part.cdf((pivot - location) / scale) @ forecast.weights)
    return replace(forecast, recalibration=Recalibration(pivot, mixture, below), **changes)


def recalibrated(df=4.0, maximize=True, floor=-np.inf):
    return known(three(df, maximize), PIVOT, BELOW, floor=floor)


@cache
def sampled(n=200_000):
    """Working values of a recalibrated forecast without a floor, the same in both directions.

    The side of the pivot by H, the place by F.
    """
    forecast = recalibrated()
    rng = np.random.default_rng(21)
    location, scale = forecast.observed.location[-1], forecast.observed.scale[-1]
    which = rng.choice(3, size=20 * n, p=forecast.weights)
    z = location[which] + scale[which] * rng.standard_t(forecast.df, which.size)
    n_below = rng.binomial(n, BELOW)
    draws = [rng.choice(z[z <= PIVOT], n_below), rng.choice(z[z > PIVOT], n - n_below)]
    return np.concatenate(draws)


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("floor", [-np.inf, -3.0, 0.0, 0.2, 3.0])
def test_recalibrated_against_a_simulation(maximize, floor):
    forecast = recalibrated(4.0, maximize, floor)
    x = forecast.scale.to_metric(np.maximum(sampled(), floor))
    n = x.size
    assert_allclose(forecast.mean(), x.mean(), atol=5 * x.std() / np.sqrt(n))
    for value in forecast.scale.to_metric([-2.0, -0.7, 0.1, 0.3, 0.7, 2.0, 3.3]):
        share = np.mean(x > value if maximize else x < value)
        assert_allclose(forecast.p_beats(value), share, atol=4 * np.sqrt(0.25 / n))
    # An atom where the levels lie apart from it: a quantile is a value, or the floor itself.
    levels = np.array([0.05, 0.25, 0.5, 0.8, 0.95])
    for level, quantile in zip(levels, forecast.quantile(levels), strict=True):
        below, at_most = np.mean(x < quantile - 1e-9), np.mean(x <= quantile + 1e-9)
        room = 5 * np.sqrt(0.25 / n)
        assert below - room <= level <= at_most + room


@pytest.mark.parametrize(("df", "maximize"), FORECASTS)
def test_recalibrated_probability_is_that_of_the_pivot(df, maximize):
    forecast = recalibrated(df, maximize)
    value = forecast.scale.to_metric(PIVOT)
    level = BELOW if maximize else 1 - BELOW
    assert_allclose(forecast.p_beats(value), 1 - BELOW, atol=1e-12)
    assert_allclose(forecast.cdf(value), level, atol=1e-12)
    assert_allclose(forecast.quantile(level), value, atol=1e-5)


@pytest.mark.parametrize(("df", "maximize"), FORECASTS)
def test_recalibrated_density_integrates_to_the_distribution_function(df, maximize):
    forecast = recalibrated(df, maximize)
    ends = np.sort(forecast.scale.to_metric([-4.0, PIVOT, 3.0, 6.0]))
    for a, b in pairwise(ends):
        area, _ = integrate.quad(lambda x: float(forecast.pdf(x)), a, b, epsabs=1e-11, limit=200)
        assert_allclose(area, np.diff(forecast.cdf([a, b]))[0], atol=1e-8)


@pytest.mark.parametrize(("df", "maximize"), FORECASTS)
def test_recalibration_to_the_mixtures_own_levels_changes_nothing(df, maximize):
    plain = three(df, maximize)
    same = known(plain, PIVOT, 1 - plain.p_beats(plain.scale.to_metric(PIVOT)))
    x = plain.scale.to_metric(np.linspace(-4, 4, 33))
    assert_allclose(same.cdf(x), plain.cdf(x), atol=1e-12)
    assert_allclose(same.pdf(x), plain.pdf(x), rtol=1e-9)
    assert_allclose(same.mean(), plain.mean(), rtol=1e-9)
    assert_allclose(same.interval(), plain.interval(), rtol=1e-6)
    floored = replace(same, floor=0.2)
    assert_allclose(floored.mean(), replace(plain, floor=0.2).mean(), rtol=1e-9)


def test_only_the_reported_value_at_the_horizon_is_recalibrated():
    plain = at_three_positions()
    forecast = known(plain, 2.5, 0.9)
    assert_allclose([forecast.p_beats(2.5), forecast.p_beats(2.5, at=10)], 0.1)
    for arguments in ({"at": 5}, {"at": 7.5}, {"noise": False}):
        assert forecast.p_beats(1.2, **arguments) == plain.p_beats(1.2, **arguments)
        assert forecast.mean(**arguments) == plain.mean(**arguments)
        assert_allclose(forecast.quantile(0.3, **arguments), plain.quantile(0.3, **arguments))


@pytest.mark.parametrize("below", [0.0, 1.0])
def test_extreme_recalibrations_stay_distributions(below):
    forecast = known(three(4.0, True), 0.5, below)
    x = np.linspace(-20, 30, 101)
    assert np.all(np.diff(forecast.cdf(x)) >= -1e-12)
    assert np.all(forecast.pdf(x) >= 0)
    assert np.isfinite(forecast.mean())
    low, high = forecast.interval()
    assert low <= high


@pytest.mark.parametrize("pivot", [-1e9, 1e9])
def test_a_pivot_where_the_mixture_has_no_mass(pivot):
    forecast = known(three(np.inf, True), pivot, 0.5)
    assert_allclose(forecast.mean(), three(np.inf, True).mean(), rtol=1e-9)
    assert_allclose(forecast.interval(), three(np.inf, True).interval(), rtol=1e-6)


def test_underflow_is_no_error_where_the_caller_makes_it_one() -> None:
    with np.errstate(all="raise"):
        values = [0.6, 0.7, 0.76, 0.79, 0.81]
        ahead = optuna_lcpruner.forecast(values, n_steps=20, direction="maximize")
        assert ahead.p_beats(100.0) < 1e-3
        assert ahead.pdf([100.0, 0.8])[0] < ahead.pdf([100.0, 0.8])[1]
        low, high = ahead.interval()
        assert low < ahead.mean() < high
        assert ahead.std() > 0.0
        assert ahead.cdf([0.0])[0] < 0.5


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("floor", [-np.inf, 0.4])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("df", [4.0, np.inf])
@pytest.mark.slow
def test_std_is_that_of_the_corrected_distribution(df, known, floor, maximize):
    """Of recalibrated forecasts and above a floor too: against the quantiles."""
    parts = ([0.2, 0.9], [0.1, 0.3], [0.7, 0.3])
    forecast = mixture(*parts, df, unit=2.0, maximize=maximize, floor=floor)
    if known:
        below = 1.0 - mixture(*parts, df).p_beats(0.5)
        forecast = replace(forecast, recalibration=Recalibration(0.5, below, 0.95))
    levels = np.sinh(np.linspace(-12, 12, 40_001))  # dense at both ends
    levels = 1.0 / (1.0 + np.exp(-levels / np.sinh(12) * 30.0))
    x = forecast.quantile(levels)
    mass = np.diff(levels)
    middle = 0.5 * (x[1:] + x[:-1])
    mean = (middle @ mass) / mass.sum()
    assert_allclose(forecast.std(), np.sqrt((middle - mean) ** 2 @ mass / mass.sum()), rtol=3e-3)
