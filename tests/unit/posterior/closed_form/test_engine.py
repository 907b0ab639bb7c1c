from dataclasses import replace

import numpy as np
import pytest
from brute_force import PLACES, WORKING, assert_same_as_dense, curve_of, dense_posterior
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from optuna_lcpruner.curves.families import FAMILIES
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm, CurvePrior
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target

BEST = StudyKnowledge(Scale(0.0, 1.0, True), Target.BEST)
ENGINE = ClosedForm()


def ar1(rng, n, rho):
    """Stationary AR(1) noise of unit variance, shape (n,)."""
    noise = rng.normal(size=n)
    for k in range(1, n):
        noise[k] = rho * noise[k - 1] + np.sqrt(1 - rho**2) * noise[k]
    return noise


SEVERAL = CurvePrior(
    asymptote=(0.6, 0.4),
    rise=(0.3, 0.7),
    sigma=(0.01, 0.04, 0.2),
    log_sigma=(-3.0, 1.2),
    model_error=(0.05, 0.01),
)
THREE_FAMILIES = ("ilog2", "pow3", "Janoschek")


@pytest.mark.parametrize("place", ["contiguous", "gaps"])
@pytest.mark.slow
def test_the_whole_mixture_against_dense_linear_algebra(place):
    assert_same_as_dense(SEVERAL, THREE_FAMILIES, *PLACES[place], rtol=1e-7)


@pytest.mark.slow
def test_a_large_mixture_is_sampled_without_changing_probabilities():
    z = np.array([0.25, 0.4])
    forecast = ClosedForm(SEVERAL, THREE_FAMILIES)(curve_of(z, 12), WORKING)
    weights, mean, variance, *_ = dense_posterior(
        SEVERAL, THREE_FAMILIES, 12, np.array([0, 1]), z, np.array([11]), 2 / 12
    )
    assert forecast.weights.size <= 512 < np.count_nonzero(weights > 2e-4)
    x = np.linspace(-3, 4, 141)
    u = (x[:, None] - mean[0]) / np.sqrt(variance[0])
    truth = stats.t.cdf(u, 4) @ (weights / weights.sum())
    # 0.002 by the sample, the rest by components that are left out as too light.
    assert_allclose(forecast.cdf(x), truth, atol=2.5e-3)


def test_positions_beyond_a_gap_in_the_reports():
    prior = CurvePrior(sigma=(0.03,), rho=(0.7,), kappa=(0.5,))
    assert_same_as_dense(prior, ("MMF",), 40, [1, 2, 3, 4, 20, 21], seed=3)


# --- recovery of known truths ---


def random_truth(rng, name, horizon):
    """A rising curve of a family with random shape, on positions 1 to horizon, working scale."""
    t = np.arange(1.0, horizon + 1)
    scale, steepness = horizon * np.exp(rng.uniform(np.log(0.02), np.log(0.6))), rng.uniform(0.5, 2)
    phi = {
        "pow3": lambda: -(t ** -rng.uniform(0.2, 1.5)),
        "Janoschek": lambda: -np.exp(-((t / scale) ** steepness)),
        "ilog2": lambda: -1 / np.log(t + 1),
        "MMF": lambda: -1 / (1 + (t / scale) ** steepness),
        "vapor pressure": lambda: np.exp(-scale / 3 / t),
        "log log linear": lambda: np.log1p(rng.uniform(0.3, 30) * np.log(t)),
        "pow4": lambda: -((t + scale) ** -rng.uniform(0.3, 3)),
    }[name]()
    psi = (phi - phi[-1]) / (phi[-1] - phi[0])
    rise = abs(rng.normal(0.5, 0.4))
    return rng.normal(0.5, 0.4) + rise * psi


KINDS = ("pow3", "Janoschek", "ilog2", "MMF", "vapor pressure", "log log linear", "pow4")


def simulated(seed, n, rho, horizon=100):
    """Curves from the families with AR(1) noise, shape (n, horizon) each: truth, reported."""
    rng = np.random.default_rng(seed)
    truth = np.array([random_truth(rng, KINDS[i % len(KINDS)], horizon) for i in range(n)])
    sigma = np.exp(rng.normal(-4, 0.7, n)).clip(0.003, 0.1)
    noise = np.array([ar1(rng, horizon, rho) for _ in range(n)])
    return truth, truth + sigma[:, None] * noise


# So many simulated curves by default, so many where time does not matter.
N_CURVES = pytest.mark.parametrize("n", [120, pytest.param(300, marks=pytest.mark.slow)])


@pytest.mark.parametrize(
    ("seen", "rho", "n"),
    [
        (20, 0.6, 120),
        (50, 0.0, 120),
        (80, 0.6, 120),
        *(
            pytest.param(seen, rho, 300, marks=pytest.mark.slow)
            for seen in (20, 50, 80)
            for rho in (0.0, 0.6)
        ),
    ],
)
def test_interval_holds_the_truth_as_often_as_it_says(seen, rho, n):
    truth, reported = simulated(1, n, rho)
    value_inside, truth_inside, width, error, error_of_last = [], [], [], [], []
    for curve, observed in zip(truth, reported, strict=True):
        forecast = ENGINE(curve_of(observed[:seen], 100), WORKING)
        low, high = forecast.interval(0.9)
        value_inside.append(low <= observed[-1] <= high)
        low, high = forecast.interval(0.9, noise=False)
        truth_inside.append(low <= curve[-1] <= high)
        width.append(high - low)
        error.append(forecast.mean(noise=False) - curve[-1])
        error_of_last.append(observed[seen - 1] - curve[-1])
    at_least = 0.9 - 4 * np.sqrt(0.9 * 0.1 / n)
    assert np.mean(value_inside) >= at_least
    assert np.mean(truth_inside) >= at_least
    # Not by being vague: a prior interval is 1.6 wide, and the mean beats the last value.
    assert np.median(width) < 0.5 * (1 - seen / 100) + 0.1
    assert np.sqrt(np.mean(np.square(error))) < np.sqrt(np.mean(np.square(error_of_last)))


@pytest.mark.parametrize("kind", KINDS)
def test_known_asymptotes_are_recovered(kind):
    rng = np.random.default_rng(5)
    z = []
    for _ in range(20):
        truth = random_truth(rng, kind, 100)
        observed = truth + 0.005 * rng.normal(size=100)
        forecast = ENGINE(curve_of(observed[:60], 100), WORKING)
        z.append((forecast.mean(noise=False) - truth[-1]) / forecast.std(noise=False))
    assert np.max(np.abs(z)) < 4


@pytest.mark.parametrize("n_curves", [300, pytest.param(600, marks=pytest.mark.slow)])
def test_probabilities_are_calibrated(n_curves):
    """Among curves with P(beat 0.5) in a band, the share that beat it lies in about that band."""
    _, reported = simulated(2, n_curves, 0.3)
    p = np.array([ENGINE(curve_of(y[:30], 100), WORKING).p_beats(0.5) for y in reported])
    beats = reported[:, -1] > 0.5
    for low, high in ((0.0, 0.05), (0.05, 0.3), (0.3, 0.7), (0.7, 0.95), (0.95, 1.0)):
        band = (p >= low) & (p <= high)
        n = np.count_nonzero(band)
        assert n >= n_curves / 40
        share = beats[band].mean()
        room = 4 * np.sqrt(max(p[band].mean() * (1 - p[band].mean()), 0.01) / n)
        assert_allclose(share, p[band].mean(), atol=room)


def test_more_seen_is_narrower():
    _, reported = simulated(3, 30, 0.3)
    widths = [
        np.mean([np.diff(ENGINE(curve_of(y[:seen], 100), WORKING).interval())[0] for y in reported])
        for seen in (5, 20, 50, 80, 95)
    ]
    assert np.all(np.diff(widths) < 0)


def test_more_noise_is_wider():
    rng = np.random.default_rng(4)
    truth, noise = random_truth(rng, "pow3", 100), rng.normal(size=100)
    widths = [
        np.diff(ENGINE(curve_of((truth + sd * noise)[:50], 100), WORKING).interval())[0]
        for sd in (0.0, 0.02, 0.1, 0.3)
    ]
    assert np.all(np.diff(widths) > 0)


# --- reductions ---

some_curve = st.tuples(st.integers(0, 10**6), st.integers(2, 30))


@settings(deadline=None, max_examples=40)
@given(
    some_curve,
    st.floats(-1e3, 1e3),
    st.floats(1e-3, 1e3),
    st.sampled_from(list(Target)),
    st.booleans(),
)
@pytest.mark.slow
def test_shift_and_unit_of_the_metric_do_not_matter(which, shift, unit, target, maximize):
    seed, n = which
    rng = np.random.default_rng(seed)
    z = random_truth(rng, "pow3", 40)[:n] + 0.02 * rng.normal(size=n)
    plain = ENGINE(curve_of(z, 40), StudyKnowledge(Scale(0.0, 1.0, True), target))
    scale = Scale(shift, unit, maximize)
    moved = ENGINE(curve_of(shift + unit * z, 40), StudyKnowledge(scale, target))
    for value in (0.2, 0.5, 0.9):
        assert_allclose(
            moved.p_beats(float(scale.to_metric(value))), plain.p_beats(value), atol=2e-5
        )
    assert_allclose(moved.mean(), scale.to_metric(plain.mean()), rtol=1e-6, atol=1e-6 * unit)
    assert_allclose(moved.std(), unit * plain.std(), rtol=1e-4)


def test_minimise_of_minus_y_is_maximise_of_y():
    y = 100 + 7 * np.array([0.1, 0.3, 0.45, 0.5, 0.56])
    up = ENGINE(curve_of(y, 20), StudyKnowledge(Scale(100.0, 7.0, True)))
    down = ENGINE(curve_of(y, 20), StudyKnowledge(Scale(100.0, 7.0, False)))
    # The curve is oriented: the metric of the minimised study was -y.
    assert down.mean() == -up.mean()
    assert down.std() == up.std()
    assert down.p_beats(-105.0) == up.p_beats(105.0)
    assert_allclose(down.interval(), np.negative(up.interval())[::-1], rtol=1e-8)


def test_one_family_alone_is_that_family():
    curve = curve_of([0.1, 0.3, 0.45, 0.5, 0.56], 20)
    alone = ClosedForm(families=("pow3",))(curve, WORKING)
    assert dict(alone.shares) == pytest.approx({"pow3": 1.0})
    # Twice the same family is the family: Hill3 and log power are one curve, and so is a copy.
    copy = replace(FAMILIES["pow3"], name="its copy")
    twice = ClosedForm(families=("pow3", copy))(curve, WORKING)
    assert_allclose(twice.mean(), alone.mean(), rtol=1e-12)
    assert_allclose(twice.std(), alone.std(), rtol=1e-12)
    assert_allclose(list(twice.shares.values()), 0.5, rtol=1e-9)


def test_the_order_of_the_families_does_not_matter_much():
    curve = curve_of([0.1, 0.3, 0.45, 0.5, 0.56], 20)
    forward = ClosedForm()(curve, WORKING)
    backward = ClosedForm(families=tuple(FAMILIES)[::-1])(curve, WORKING)
    assert_allclose(backward.mean(), forward.mean(), atol=0.01)
    assert_allclose(backward.std(), forward.std(), rtol=0.1)


def test_the_family_of_the_curve_gets_the_weight():
    t = np.arange(1.0, 61)
    sharp = 0.9 / (1 + (t / 25) ** -8.0)  # a sigmoid, which power laws cannot follow
    forecast = ClosedForm(families=("pow3", "ilog2", "Hill3"))(curve_of(sharp, 100), WORKING)
    assert forecast.shares["Hill3"] > 0.9
    assert_allclose(sum(forecast.shares.values()), 1)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(0, 60), st.booleans())
def test_forecasts_are_distributions(values, left, best):
    horizon = max(len(values) + left, 2)
    forecast = ENGINE(curve_of(values, horizon), BEST if best else WORKING)
    assert np.all(forecast.weights > 0)
    assert_allclose(forecast.weights.sum(), 1)
    assert tuple(forecast.shares) == tuple(FAMILIES)
    assert_allclose(sum(forecast.shares.values()), 1)
    assert min(forecast.shares.values()) >= 0
    for part in (forecast.observed, forecast.latent):
        assert part.location.shape == part.scale.shape == (1, forecast.weights.size)
        assert np.all(np.isfinite(part.location))
        assert np.all(np.isfinite(part.scale))
        assert np.all(part.scale > 0)
    low, high = forecast.interval()
    assert low <= high
    assert np.isfinite(forecast.mean())


# --- what real curves do ---


def test_two_points_leave_much_open():
    forecast = ENGINE(curve_of([0.0, 0.1], 100), WORKING)
    low, high = forecast.interval()
    assert 0.1 < forecast.mean() < 0.9
    assert high - low > 0.4
    assert 0.05 < forecast.p_beats(0.5) < 0.95


@pytest.mark.parametrize("level", [-3.0, -1.0, 0.0, 0.2, 1.0, 4.0])
@pytest.mark.parametrize(("seen", "mass"), [(5, 0.98), (30, 0.9), (80, 0.9)])
def test_constant_curve(level, seen, mass):
    forecast = ENGINE(curve_of(np.full(seen, level), 100), WORKING)
    low, high = forecast.interval(mass)
    assert low <= level <= high
    low, high = forecast.interval()
    assert high - low < 1.7 * max(1.0, abs(level) / 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("seen", "still_possible"), [(40, 0.25), (80, 0.001)])
def test_flat_noisy_curve(seed, seen, still_possible):
    rng = np.random.default_rng(seed)
    forecast = ENGINE(curve_of(0.1 + 0.02 * rng.normal(size=seen), 100), WORKING)
    low, high = forecast.interval()
    assert low <= 0.1 <= high
    assert forecast.p_beats(0.5) < still_possible


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("power", [1.0, 0.3])
def test_falling_curve(noise, power):
    rng = np.random.default_rng(6)
    t = np.arange(1.0, 51) / 100
    values = 0.6 - 0.8 * t**power + noise * rng.normal(size=50)
    forecast = ENGINE(curve_of(values, 100), WORKING)
    assert forecast.p_beats(float(values.max())) < 0.05
    assert forecast.mean() < values[:25].mean()


def exploding(n, end=1e34):
    return -np.geomspace(0.1, end, n)


@pytest.mark.parametrize(
    "values",
    [
        exploding(10),
        exploding(40),
        np.r_[0.1, 0.3, 0.4, 0.45, exploding(6)],
        np.r_[np.linspace(0, 0.5, 30), np.full(12, -1e34)],
        np.r_[0.1, 0.2, -1e3, -1e6, -1e9],
    ],
)
@pytest.mark.parametrize("horizon", [50, 100])
def test_diverging_curve(values, horizon):
    forecast = ENGINE(curve_of(values, horizon), WORKING)
    assert forecast.p_beats(1.0) < 0.05
    low, high = forecast.interval()
    assert np.isfinite(low)
    assert np.isfinite(high)
    assert np.isfinite(forecast.mean())


@pytest.mark.parametrize("at", [0, 1, 5])
@pytest.mark.parametrize("size", [10.0, 1e4, 1e34])
def test_a_spike_that_recovered_is_forgotten(size, at):
    t = np.arange(1.0, 41)
    values = 0.9 - 0.9 * t**-0.7
    spiked = values.copy()
    spiked[at] = -size
    forecast = ENGINE(curve_of(spiked, 100), WORKING)
    low, high = forecast.interval()
    assert low < 0.9 - 0.9 * 100**-0.7 < high
    assert high - low < 1.0
    assert 0.6 < forecast.mean() < 1.1


def test_ten_thousand_points():
    rng = np.random.default_rng(8)
    t = np.arange(1.0, 10_001)
    values = 0.8 - 0.7 * t**-0.3 + 0.05 * rng.normal(size=t.size)
    forecast = ENGINE(curve_of(values[:5000], 10_000), WORKING)
    truth = 0.8 - 0.7 * 10_000**-0.3
    low, high = forecast.interval(noise=False)
    assert low < truth < high
    assert_allclose(forecast.mean(), truth, atol=0.05)


@pytest.mark.parametrize("horizon", [2, 3, 127, 128, 129, 500])
def test_short_and_averaged_horizons(horizon):
    t = np.arange(1.0, horizon + 1)
    values = (0.5 - 0.4 / t)[: max(1, horizon - 1)]
    forecast = ENGINE(curve_of(values, horizon), WORKING)
    low, high = forecast.interval()
    assert low < 0.5 - 0.4 / horizon < high


# --- correlated noise ---

SHARP = ClosedForm(CurvePrior(model_error=(1e-6, 1e-6)))


def mean_width(curves, horizon):
    return np.mean(
        [np.diff(SHARP(curve_of(y, horizon), WORKING).interval(noise=False))[0] for y in curves]
    )


def flat_curves(kind, n=100, curves=24):
    rng = np.random.default_rng(9)
    for _ in range(curves):
        noise = {
            "independent": lambda: rng.normal(size=n),
            "repeated": lambda: np.repeat(rng.normal(size=n // 5), 5),
            "ar1": lambda: ar1(rng, n, 0.95),
        }[kind]()
        yield 0.5 - 0.3 / np.sqrt(np.arange(1.0, n + 1)) + 0.05 * noise


@pytest.mark.parametrize("kind", ["repeated", "ar1"])
def test_correlated_noise_does_not_count_as_independent_witnesses(kind):
    independent = mean_width(flat_curves("independent"), 120)
    assert mean_width(flat_curves(kind), 120) > 1.5 * independent


def test_repeated_values_do_not_narrow_the_interval():
    """Each value five times over five times the horizon says no more than each value once."""
    rng = np.random.default_rng(10)
    once = [0.4 + 0.05 * rng.normal(size=20) for _ in range(24)]
    five = [np.repeat(y, 5) for y in once]
    assert mean_width(five, 120) > 0.9 * mean_width(once, 24)


# --- positions ahead ---


def test_every_future_position():
    values = 0.8 - 0.7 * np.arange(1.0, 21) ** -0.5
    curve = curve_of(values, 60)
    positions = np.arange(21.0, 61)
    forecast = ENGINE(curve, WORKING, positions)
    assert_array_equal(forecast.positions, positions)
    assert forecast.observed.location.shape == (40, forecast.weights.size)
    assert_allclose(forecast.mean(at=60), ENGINE(curve, WORKING).mean(), rtol=1e-12)
    assert_allclose(forecast.mean(at=21), 0.8 - 0.7 * 21**-0.5, atol=0.02)
    means = [forecast.mean(at=p) for p in positions]
    assert np.all(np.diff(means) > 0)
    widths = [np.diff(forecast.interval(at=p))[0] for p in positions]
    assert widths[-1] > widths[0]


def test_a_single_position_is_that_row_of_all():
    curve = curve_of([0.1, 0.3, 0.45, 0.5, 0.56], 20)
    every = ENGINE(curve, WORKING, np.arange(6.0, 21))
    for position in (6.0, 13.0):
        alone = ENGINE(curve, WORKING, np.array([position]))
        assert_allclose(alone.mean(), every.mean(at=position), rtol=1e-12)
        assert_allclose(alone.std(), every.std(at=position), rtol=1e-12)


@pytest.mark.parametrize("rho", [(0.0,), (1.0,), (0.0, 1.0)])
def test_the_curve_is_no_wider_than_its_report(rho):
    rng = np.random.default_rng(12)
    engine = ClosedForm(CurvePrior(rho=rho))
    for _ in range(10):
        y = random_truth(rng, "pow4", 40)[:15] + 0.05 * rng.normal(size=15)
        forecast = engine(curve_of(y, 40), WORKING, np.arange(16.0, 41))
        assert np.all(forecast.latent.scale <= forecast.observed.scale * (1 + 1e-12))


def test_the_curve_is_narrower_at_the_end_with_the_default_prior():
    _, reported = simulated(13, 40, 0.0, horizon=50)
    for y in reported:
        forecast = ENGINE(curve_of(y[:25], 50), WORKING)
        assert forecast.std(noise=False) <= forecast.std() * (1 + 1e-9)
        assert_allclose(forecast.mean(noise=False), forecast.mean(), atol=0.01)


# --- the best value ---


def overfitting(rng, horizon=100):
    """Rises to a peak and falls again; the peak lies anywhere, also beyond the end."""
    t = np.arange(1.0, horizon + 1)
    peak = rng.uniform(0.1, 1.3) * horizon
    rise = rng.uniform(0.3, 0.9) * (1 - np.exp(-3 * t / peak))
    fall = rng.uniform(0.0, 0.5) * np.maximum(t - peak, 0) / horizon
    return rise - fall + rng.uniform(0.005, 0.03) * ar1(rng, horizon, rng.choice([0.0, 0.5]))


@N_CURVES
@pytest.mark.parametrize("seen", [20, 50, 80])
def test_best_value_of_overfitting_curves(seen, n):
    rng = np.random.default_rng(14)
    above, below = 0, 0
    for _ in range(n):
        y = overfitting(rng)
        forecast = ENGINE(curve_of(y[:seen], 100), BEST)
        low, high = forecast.interval(0.9)
        so_far = y[:seen].max()
        assert forecast.floor == so_far
        assert low >= so_far
        assert forecast.mean() >= so_far
        above += y.max() > high
        below += y.max() < low - 1e-12
    # A best value above the interval is what would stop a good trial: at most the nominal 5 %.
    # No family turns round, so more of them than that end below it: the peak came early.
    assert above / n <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / n)
    assert below / n <= 0.25


@pytest.mark.parametrize(
    ("seen", "n"),
    [(20, 120), (80, 120), *(pytest.param(s, 300, marks=pytest.mark.slow) for s in (20, 50, 80))],
)
def test_best_value_of_rising_curves(seen, n):
    _, reported = simulated(1, n, 0.3)
    inside = 0
    for y in reported:
        low, high = ENGINE(curve_of(y[:seen], 100), BEST).interval(0.9)
        inside += low - 1e-12 <= y.max() <= high
    assert inside / n >= 0.9 - 4 * np.sqrt(0.9 * 0.1 / n)


def test_best_is_not_worse_than_last():
    _, reported = simulated(15, 40, 0.3)
    for y in reported:
        curve = curve_of(y[:30], 100)
        last, best = ENGINE(curve, WORKING), ENGINE(curve, BEST)
        assert best.mean() >= last.mean()
        for value in (0.0, 0.4, 0.8):
            assert best.p_beats(value) >= last.p_beats(value) - 1e-12
        assert_allclose(best.weights, last.weights)


def test_best_of_a_collapsed_curve_is_what_it_had():
    y = np.r_[np.linspace(0.1, 0.8, 20), np.full(30, 0.1)]
    forecast = ENGINE(curve_of(y, 60), BEST)
    assert forecast.floor == 0.8
    assert_allclose(forecast.mean(), 0.8, atol=0.05)
    assert forecast.p_beats(0.85) < 0.15
    assert forecast.p_beats(0.79) == 1.0


def test_best_of_one_remaining_report_is_the_last_value():
    """One report ahead has no maximum over several: for independent noise best is last."""
    y = 0.8 - 0.7 * np.arange(1.0, 20) ** -0.5
    engine = ClosedForm(CurvePrior(rho=(0.0, 0.7)))
    last, best = (engine(curve_of(y, 20), knowledge) for knowledge in (WORKING, BEST))
    assert_allclose(best.observed.location, last.observed.location, rtol=1e-12)
    assert_allclose(best.observed.scale, last.observed.scale, rtol=1e-12)


def test_best_by_an_early_position_does_not_count_later_reports():
    rng = np.random.default_rng(16)
    y = 0.3 + 0.1 * rng.normal(size=20)
    engine = ClosedForm(CurvePrior(rho=(0.0,), kappa=(0.0,)))
    forecast = engine(curve_of(y, 100), BEST, np.array([21.0, 60.0, 100.0]))
    last = engine(curve_of(y, 100), WORKING, np.array([21.0, 60.0, 100.0]))
    assert_allclose(forecast.observed.location[0], last.observed.location[0], atol=1e-9)
    means = [forecast.mean(at=p) for p in forecast.positions]
    assert means[0] < means[1] < means[2]


def test_expected_best_of_independent_noise():
    """A flat curve with known noise: the mean of the best of m draws, by simulation."""
    rng = np.random.default_rng(17)
    sigma, m = 0.1, 50
    prior = CurvePrior(sigma=(sigma,), rho=(0.0,), kappa=(0.0,), model_error=(1e-6, 1e-6))
    y = 0.3 + sigma * rng.normal(size=50)
    forecast = ClosedForm(prior)(curve_of(y, 100), BEST)
    lift = np.mean(np.max(rng.normal(size=(20_000, m)), axis=1)) * sigma
    last = ClosedForm(prior)(curve_of(y, 100), WORKING)
    raised = forecast.observed.location - last.observed.location
    assert_allclose(raised @ forecast.weights, lift, atol=0.1 * lift)


def test_engines_are_pure():
    y = np.array([0.1, 0.3, 0.45])
    curve = curve_of(y, 20)
    one, two = ENGINE(curve, WORKING), ClosedForm()(curve, WORKING)
    assert_array_equal(one.observed.location, two.observed.location)
    assert_array_equal(one.weights, two.weights)
    assert_array_equal(curve.values, y)
    assert_array_equal(y, [0.1, 0.3, 0.45])
