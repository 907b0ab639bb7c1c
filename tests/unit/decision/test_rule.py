from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.decision.decision import Reason
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.posterior.forecast import Component, Forecast


def gaussian(means, sds, weights=(1.0,), maximize=True):
    """A mixture of Gaussians in metric units."""
    sign = 1.0 if maximize else -1.0
    part = Component(sign * np.atleast_2d(means), np.atleast_2d(sds))
    return Forecast(
        np.array([20.0]), np.array(weights), part, part, np.inf, Scale(0.0, 1.0, maximize)
    )


def decide(rule, forecast, incumbent, step, threshold, **looks):
    return rule.judge(
        forecast.p_beats(incumbent),
        threshold,
        step=step,
        forecast=lambda: forecast,
        incumbent=incumbent,
        **looks,
    )


# P(beat 0.9) of N(mean, 0.1) maximised: 0.5, 0.0228, 0.1587 at means 0.9, 0.7, 0.8.
@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize(
    ("mean", "threshold", "rule", "arguments", "reason"),
    [
        (0.9, 0.05, Rule(), {}, Reason.UNDECIDED),
        (0.8, 0.05, Rule(), {}, Reason.UNDECIDED),
        (0.8, 0.16, Rule(), {}, Reason.BELOW_THRESHOLD),
        (0.8, 0.158, Rule(), {}, Reason.UNDECIDED),
        (0.7, 0.05, Rule(), {}, Reason.BELOW_THRESHOLD),
        (
            0.7,
            0.05,
            Rule(threshold=0.0),
            {},
            Reason.BELOW_THRESHOLD,
        ),  # the argument counts
        (0.7, 0.0, Rule(), {}, Reason.UNDECIDED),
        (-1e6, 0.0, Rule(), {}, Reason.UNDECIDED),
        (1.5, 1.0, Rule(), {}, Reason.BELOW_THRESHOLD),
        (0.7, 0.05, Rule(), {"ahead": True}, Reason.ALREADY_BETTER),
        (0.8, 0.05, Rule(stop_below_std=1.0), {"ahead": True}, Reason.ALREADY_BETTER),
        (0.7, 0.05, Rule(patience=2), {}, Reason.PATIENCE),
        (0.7, 0.05, Rule(patience=2), {"earlier": [(0.04, 0.05)]}, Reason.BELOW_THRESHOLD),
        (0.7, 0.05, Rule(patience=2), {"earlier": [(0.05, 0.05)]}, Reason.PATIENCE),
        (0.7, 0.05, Rule(patience=2), {"earlier": [(0.06, 0.07)]}, Reason.BELOW_THRESHOLD),
        (0.7, 0.05, Rule(patience=2), {"earlier": [(0.04, 0.03)]}, Reason.PATIENCE),
        (0.7, 0.05, Rule(patience=3), {"earlier": [(0.01, 0.05)]}, Reason.PATIENCE),
        (0.7, 0.05, Rule(patience=3), {"earlier": [(0.01, 0.05)] * 2}, Reason.BELOW_THRESHOLD),
        (0.7, 0.05, Rule(patience=3), {"earlier": [(0.01, 0.05), (0.2, 0.05)]}, Reason.PATIENCE),
        (0.7, 0.05, Rule(patience=3), {"earlier": [(0.2, 0.05), (0.01, 0.05)]}, Reason.PATIENCE),
        (
            0.7,
            0.05,
            Rule(patience=3),
            {"earlier": [(0.01, 0.05), (0.2, 0.05), (0.01, 0.05)]},
            Reason.PATIENCE,
        ),
        (0.8, 0.05, Rule(patience=2), {"earlier": [(0.01, 0.05)]}, Reason.UNDECIDED),
        (0.8, 0.05, Rule(stop_below_std=0.11), {}, Reason.NARROW_FORECAST),
        (0.8, 0.05, Rule(stop_below_std=0.1 - 1e-9), {}, Reason.UNDECIDED),
        (0.9, 0.05, Rule(stop_below_std=0.11), {}, Reason.UNDECIDED),
        (0.95, 0.05, Rule(stop_below_std=0.11), {}, Reason.UNDECIDED),
        (0.7, 0.05, Rule(stop_below_std=0.11), {}, Reason.BELOW_THRESHOLD),
    ],
)
def test_rule(mean, threshold, rule, arguments, reason, maximize):
    sign = 1.0 if maximize else -1.0
    decision = decide(
        rule,
        gaussian([sign * mean], [0.1], maximize=maximize),
        sign * 0.9,
        14,
        threshold,
        **arguments,
    )
    assert decision.reason is reason
    assert decision.prune is reason.prunes
    assert decision.message.startswith(reason.value + ": ")
    assert decision.threshold == threshold
    assert decision.step == 14


@pytest.mark.parametrize("maximize", [True, False])
def test_a_probability_equal_to_the_threshold_does_not_prune(maximize):
    forecast = gaussian([0.9], [0.1], maximize=maximize)
    threshold = forecast.p_beats(0.9)
    assert decide(Rule(), forecast, 0.9, 0, threshold).reason is Reason.UNDECIDED


@pytest.mark.parametrize(
    ("rule", "n_begun", "seen", "threshold"),
    [
        (Rule(), 1, 0.0, 0.04),
        (Rule(), 100, 0.0, 0.04),  # 20 / sqrt(0.04)
        (Rule(), 200, 0.0, 0.02),
        (Rule(risk=0.25), 20, 0.0, 0.25),
        (Rule(risk=0.25), 100, 0.0, 0.1),
        (Rule(risk=0.25), 100, 0.25, 0.075),
        (Rule(risk=0.25), 10, 1.0, 0.0),
        (Rule(risk=1.0), 20, 0.5, 0.5),
        (Rule(risk=1.0), 80, 0.0, 0.25),
        (Rule(risk=0.0), 5, 0.5, 0.0),
        (Rule(threshold=0.05), 1000, 0.25, 0.05),
        (Rule(threshold=0.0), 20, 0.25, 0.0),
    ],
)
def test_threshold(rule, n_begun, seen, threshold):
    assert_allclose(rule.threshold_at(n_begun, seen), threshold, rtol=1e-12)


@pytest.mark.parametrize(
    ("rule", "slowness", "threshold"),
    [
        (Rule(), 3.0, 0.12),
        (Rule(), 0.5, 0.02),
        (Rule(risk=0.2), 10.0, 0.5),  # likelier than not to become the best: no pace stops it
        (Rule(risk=0.8), 10.0, 0.8),
    ],
)
def test_threshold_by_time(rule, slowness, threshold):
    assert_allclose(rule.threshold_at(5, 0.0, slowness=slowness), threshold, rtol=1e-12)


# Chosen so that median, 5 %, 95 % and P(> 0.912) are 0.871, 0.853, 0.884 and 0.012.
EXAMPLE = ([0.87146, 0.84878, 0.93], [0.0072, 0.0035, 0.006], [0.9371, 0.0510, 0.0119])


def test_message_of_a_stopped_trial():
    decision = decide(Rule(), gaussian(*EXAMPLE), 0.912, 14, 0.05)
    assert decision.prune
    assert decision.message == (
        "pruned: P = 0.012 < 0.05 at step 14, forecast 0.8711 [0.853, 0.884] against best 0.912"
    )


def test_message_when_minimising():
    means, sds, weights = EXAMPLE
    forecast = gaussian(1 - np.array(means), sds, weights, maximize=False)
    assert decide(Rule(), forecast, 0.088, 14, 0.05).message == (
        "pruned: P = 0.012 < 0.05 at step 14, forecast 0.1289 [0.116, 0.147] against best 0.088"
    )


def test_the_opinions_of_the_forecast_stand_below_the_message():
    forecast = replace(gaussian(*EXAMPLE), opinions={"curve": 0.0304, "study": 1e-5})
    decision = decide(Rule(), forecast, 0.912, 14, 0.05)
    assert decision.message.endswith("against best 0.912")
    assert "P by" not in decision.message
    assert decision.in_full == f"{decision.message}\nP by curve 0.030, study < 0.001"


@pytest.mark.parametrize(
    ("rule", "mean", "sd", "arguments", "beginning"),
    [
        (Rule(), 0.8, 0.1, {}, "undecided: P = 0.159 at step 3, forecast 0.8 ["),
        (Rule(), 0.3, 0.1, {}, "pruned: P < 0.001 < 0.05 at step 3, forecast 0.3 ["),
        (
            Rule(patience=3),
            0.7,
            0.1,
            {},
            "being patient: P = 0.023 < 0.05 for 1 of 3 looks at step 3",
        ),
        (
            Rule(patience=3),
            0.7,
            0.1,
            {"earlier": [(0.01, 0.05), (0.5, 0.05)]},
            "being patient: P = 0.023 < 0.05 for 2 of 3 looks at step 3",
        ),
        (
            Rule(stop_below_std=0.2),
            0.8,
            0.1,
            {},
            "pruned: narrow forecast: sd = 0.1 < 0.2 at step 3",
        ),
        (
            Rule(),
            0.7,
            0.1,
            {"ahead": True},
            "already better than the best: P = 0.023 at step 3",
        ),
    ],
)
def test_messages(rule, mean, sd, arguments, beginning):
    decision = decide(rule, gaussian([mean], [sd]), 0.9, 3, 0.05, **arguments)
    assert decision.message.startswith(beginning)
    assert decision.message.endswith("against best 0.9")


def test_a_decision_carries_the_numbers_it_rests_on():
    forecast = gaussian([0.7], [0.1])
    decision = decide(Rule(), forecast, 0.9, 7, 0.05)
    # z = 2: P = 0.0227501; 90 % of a Gaussian lies within 1.644854 sd.
    assert_allclose(
        [decision.p_beat, decision.forecast, decision.low, decision.high, decision.incumbent],
        [0.0227501319, 0.7, 0.7 - 0.1644853627, 0.7 + 0.1644853627, 0.9],
        rtol=1e-7,
    )
    down = decide(Rule(), gaussian([0.7], [0.1], maximize=False), 0.5, 7, 0.05)
    assert_allclose(down.p_beat, 0.0227501319, rtol=1e-7)
    assert down.low < down.forecast < down.high


@settings(deadline=None)
@given(
    means=st.lists(st.floats(-5, 5), min_size=1, max_size=4),
    sd=st.floats(1e-6, 2),
    incumbent=st.floats(-5, 5),
    threshold=st.floats(0, 1),
    stop_below_std=st.floats(0, 10),
    maximize=st.booleans(),
)
def test_settling_never_stops_a_trial_whose_median_beats_the_incumbent(
    means, sd, incumbent, threshold, stop_below_std, maximize
):
    n = len(means)
    forecast = gaussian(means, np.full(n, sd), np.full(n, 1 / n), maximize)
    rule = Rule(stop_below_std=stop_below_std)
    decision = decide(rule, forecast, incumbent, 0, threshold)
    plain = decide(Rule(), forecast, incumbent, 0, threshold)
    median = float(forecast.quantile(0.5))
    if median >= incumbent if maximize else median <= incumbent:
        assert decision == plain
    if plain.prune:
        assert decision.prune
    assert decision.reason in (Reason.UNDECIDED, Reason.BELOW_THRESHOLD, Reason.NARROW_FORECAST)


@settings(deadline=None)
@given(
    p=st.floats(0.001, 0.999),
    earlier=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=5),
    threshold=st.floats(0, 1),
    patience=st.integers(1, 5),
)
def test_patience_never_adds_a_prune(p, earlier, threshold, patience):
    forecast = gaussian([0.0], [1.0])
    incumbent = float(forecast.quantile(1 - p))
    looks = [(forecast.p_beats(incumbent), threshold), *earlier]
    rule = Rule(patience=patience)
    decision = decide(rule, forecast, incumbent, 0, threshold, earlier=earlier)
    in_a_row = len(looks) >= patience and all(p < limit for p, limit in looks[:patience])
    assert decision.prune is in_a_row
