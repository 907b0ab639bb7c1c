"""What holds for any study and any reports, however odd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import GOOD_ENDS, finished, judge, make_study, reports, saturating, watch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner import Decision, LearningCurvePruner, Reason

NAN, INF = math.nan, math.inf

ODD = (NAN, INF, -INF, 0.0, -0.0, 5e-324, -5e-324, 2.3e-308, 1e34, -1e34, 1.7e308, -1.7e308)
ANY_FLOAT = st.sampled_from(ODD) | st.floats()
TAME_FLOAT = st.floats(-1.0, 1.0)
STEP = st.integers(0, 25) | st.sampled_from([500, 1000, 1500, 2000, 10**6, 10**9])
DIRECTION = st.sampled_from(["maximize", "minimize"])

FEW = settings.default.max_examples // 2
"""Examples where each takes several decisions."""


@st.composite
def any_curve(draw: st.DrawFn, max_size: int = 12) -> dict[int, float]:
    """Reports in any order: all odd, all tame, or a tame curve with odd spots."""
    kind = draw(st.sampled_from(["odd", "tame", "mixed", "constant", "large"]))
    value = {
        "odd": ANY_FLOAT,
        "tame": TAME_FLOAT,
        "mixed": TAME_FLOAT | ANY_FLOAT,
        "constant": st.just(draw(ANY_FLOAT)),
        "large": st.floats(-1.79e308, 1.79e308),
    }[kind]
    steps = draw(
        st.lists(STEP, unique=True, max_size=max_size)
        | st.integers(0, max_size).map(lambda n: list(range(n)))
        | st.integers(0, max_size).map(lambda n: list(range(1, n + 1)))
        | st.integers(0, max_size).map(lambda n: list(range(500, 500 * n + 1, 500)))
    )
    return {step: draw(value) for step in steps}


@st.composite
def any_trial(draw: st.DrawFn) -> FrozenTrial:
    state = draw(
        st.sampled_from(
            [
                TrialState.COMPLETE,
                TrialState.COMPLETE,
                TrialState.COMPLETE,
                TrialState.PRUNED,
                TrialState.FAIL,
                TrialState.RUNNING,
                TrialState.WAITING,
            ]
        )
    )
    curve = {} if state == TrialState.WAITING else draw(any_curve())
    value = None
    if state == TrialState.COMPLETE:
        usable = [report for report in curve.values() if not math.isnan(report)]
        value = draw(
            st.sampled_from([usable[-1], max(usable), min(usable)])
            if usable and draw(st.booleans())
            else ANY_FLOAT.filter(lambda v: not math.isnan(v)) | TAME_FLOAT
        )
    attrs = draw(st.sampled_from([{}, {}, {"lcpruner_n_steps": 9}, {"lcpruner_n_steps": "x"}]))
    return finished(curve, value, state, attrs)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "n_steps": st.sampled_from([None, 1, 2, 15, 30, 3000, 10**6, 10**12]),
        "risk": st.floats(0.0, 1.0),
        "threshold": st.none() | st.floats(0.0, 1.0),
        "n_startup_trials": st.integers(0, 2),
        "n_warmup_steps": st.sampled_from([0, 0, 1, 3, 1000]),
        "interval_steps": st.sampled_from([1, 1, 2, 1000]),
        "patience": st.integers(1, 3),
        "target": st.sampled_from(["auto", "last", "best"]),
        "nan_policy": st.sampled_from(["prune", "ignore"]),
        "stop_below_std": st.sampled_from([None, 0.0, 0.01, 1e300]),
    },
)


def check(decision: Decision, pruner: LearningCurvePruner) -> None:
    assert decision.reason is not Reason.FAILED, decision.message
    assert type(decision.prune) is bool
    assert decision.prune is (
        decision.reason
        in (Reason.DIVERGED, Reason.BEHIND, Reason.BELOW_THRESHOLD, Reason.NARROW_FORECAST)
    )
    for name in ("p_beat", "threshold", "incumbent", "forecast", "low", "high"):
        number = getattr(decision, name)
        assert number is None or (type(number) is float and math.isfinite(number)), (name, decision)
    if decision.p_beat is not None:
        assert 0.0 <= decision.p_beat <= 1.0
        assert decision.low <= decision.high
    assert decision.step is None or type(decision.step) is int


@given(
    earlier=st.lists(any_trial(), max_size=6),
    curve=any_curve(),
    direction=DIRECTION,
    options=SETTINGS,
)
@settings(
    deadline=None,
    max_examples=2 * settings.default.max_examples,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_never_fails(
    earlier: list[FrozenTrial], curve: dict[int, float], direction: str, options: dict[str, Any]
) -> None:
    n_steps = options.get("n_steps")
    assume(n_steps is None or options.get("n_warmup_steps", 0) <= n_steps)
    assume(options.get("threshold") is None or options.get("risk", 0.04) == 0.04)
    study = make_study(earlier, direction)
    pruner = LearningCurvePruner(**options)
    for decision in watch(study, pruner, curve):
        check(decision, pruner)


FINITE = ANY_FLOAT.filter(math.isfinite)
MAGNITUDE = st.sampled_from([5e-324, 1e-310, 1e-300, 1e-30, 1.0, 1e5, 1e34, 1e300, 1.7e308])


@st.composite
def numbers(draw: st.DrawFn) -> st.SearchStrategy[float]:
    """A study's numbers: all of one magnitude, with or without odd ones among them."""
    magnitude = draw(MAGNITUDE)
    tame = TAME_FLOAT.map(lambda v: v * magnitude)
    return tame if draw(st.booleans()) else tame | FINITE


@given(
    data=st.data(),
    n_trials=st.integers(1, 6),
    direction=DIRECTION,
    target=st.sampled_from(["auto", "last", "best"]),
    patience=st.integers(1, 2),
)
@settings(deadline=None, max_examples=200)
@pytest.mark.slow
def test_never_fails_where_it_forecasts(
    data: st.DataObject, n_trials: int, direction: str, target: str, patience: int
) -> None:
    """Completed trials that return their last report, so that no guard stands in the way."""
    number = data.draw(numbers())
    earlier = [
        finished({0: data.draw(number), 9: data.draw(number), 19: data.draw(number)})
        for _ in range(n_trials)
    ]
    curve = data.draw(st.lists(number | st.just(NAN), min_size=2, max_size=10))
    study = make_study(earlier, direction)
    pruner = LearningCurvePruner(
        20,
        threshold=0.05,
        n_startup_trials=1,
        target=target,
        nan_policy="ignore",
        patience=patience,
    )
    for decision in watch(study, pruner, reports(curve)):
        check(decision, pruner)


@pytest.mark.parametrize(
    ("earlier", "curve"),
    [
        ([(-1e300, 0.0, 0.0)], [-1e300, 0.0]),
        ([(0.0, 0.0, 1e34), (0.0, 0.0, -1e-300)], [0.0, 0.0]),
    ],
    ids=["interval beyond the largest float", "one end beyond all others"],
)
def test_extremes_once_found(earlier: list[tuple[float, ...]], curve: list[float]) -> None:
    trials = [finished(dict(zip((0, 9, 19), values, strict=True))) for values in earlier]
    study = make_study(trials, "minimize")
    pruner = LearningCurvePruner(20, threshold=0.05, n_startup_trials=1, nan_policy="ignore")
    for decision in watch(study, pruner, reports(curve)):
        check(decision, pruner)


GOOD_CURVES = [saturating(end) for end in GOOD_ENDS]
CURVE = st.lists(st.floats(0.0, 1.0, width=16), min_size=2, max_size=15).map(np.array)


def decide(curve: np.ndarray, factor: float = 1.0, offset: float = 0.0, **options: Any) -> Decision:
    """About a curve beside five good ones, all of them on another scale."""
    study = make_study(
        [finished(reports(factor * good + offset)) for good in GOOD_CURVES],
        "maximize" if factor > 0 else "minimize",
    )
    pruner = LearningCurvePruner(**{"n_steps": 20, "threshold": 0.05, **options})
    return judge(study, pruner, reports(factor * curve + offset))


@given(
    curve=CURVE,
    magnitude=st.floats(-6, 30),
    shift=st.floats(-10, 10),
    sign=st.sampled_from([1.0, -1.0]),
)
@settings(deadline=None, max_examples=FEW)
def test_scale_and_direction_do_not_matter(
    curve: np.ndarray, magnitude: float, shift: float, sign: float
) -> None:
    factor = sign * 10.0**magnitude
    plain = decide(curve)
    other = decide(curve, factor, shift * abs(factor))
    # By rounding, a value equal to the best may fall on either side of it, and other components may
    # represent a vague posterior.
    np.testing.assert_allclose(other.p_beat, plain.p_beat, rtol=1e-4, atol=1e-9)
    if abs(plain.p_beat - 0.05) > 1e-5 and Reason.ALREADY_BETTER not in (
        plain.reason,
        other.reason,
    ):
        assert other.reason is plain.reason


@given(curve=CURVE, thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
@settings(deadline=None, max_examples=FEW)
def test_higher_threshold_prunes_more(curve: np.ndarray, thresholds: list[float]) -> None:
    low, high = (decide(curve, threshold=threshold) for threshold in thresholds)
    assert low.p_beat == high.p_beat
    assert high.prune or not low.prune


@given(curve=CURVE, patience=st.integers(1, 4))
@settings(deadline=None, max_examples=FEW)
def test_patience_only_delays(curve: np.ndarray, patience: int) -> None:
    eager, patient = (decide(curve, threshold=0.4, patience=p) for p in (patience, patience + 1))
    assert eager.p_beat == patient.p_beat
    assert eager.prune or not patient.prune
    if eager.prune and not patient.prune:
        assert patient.reason is Reason.PATIENCE


@given(curve=CURVE, options=st.sampled_from([{}, {"target": "best"}, {"n_warmup_steps": 3}]))
@settings(deadline=None, max_examples=FEW)
def test_a_second_pruner_agrees(curve: np.ndarray, options: dict[str, Any]) -> None:
    assert decide(curve, **options) == decide(curve, **options)


@given(
    curve=CURVE,
    order=st.permutations(range(15)),
    trials=st.permutations(range(5)),
)
@settings(deadline=None, max_examples=FEW)
def test_orders_do_not_matter(curve: np.ndarray, order: list[int], trials: list[int]) -> None:
    """Neither that of the reports nor that of the earlier trials."""
    study = make_study(finished(reports(GOOD_CURVES[i])) for i in trials)
    shuffled = {step: float(curve[step]) for step in order if step < curve.size}
    assume(list(shuffled) != sorted(shuffled, reverse=True))  # that is a counter running backwards
    pruner = LearningCurvePruner(20, threshold=0.05)
    ours, theirs = judge(study, pruner, shuffled), decide(curve)
    assert ours.reason is theirs.reason
    np.testing.assert_allclose(ours.p_beat, theirs.p_beat, rtol=1e-9, atol=1e-12)


@given(curve=CURVE, lift=st.floats(0.05, 0.5))
@settings(deadline=None, max_examples=FEW)
def test_a_better_incumbent_is_harder_to_beat(curve: np.ndarray, lift: float) -> None:
    """One engine, one curve, one scale: the probability falls as the best value rises."""
    from optuna_lcpruner.posterior.closed_form.engine import ClosedForm

    beats: list[tuple[float, float]] = []

    def engine(*args: Any) -> Any:
        forecast = ClosedForm()(*args)
        beats.append((forecast.p_beats(0.7), forecast.p_beats(0.7 + lift)))
        return forecast

    decide(curve, engine=engine)
    for lower, higher in beats:
        assert higher <= lower


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("odd", ODD[3:])
def test_each_odd_number_as_a_whole_study(odd: float, direction: str) -> None:
    study = make_study([finished({0: odd, 1: odd, 2: odd}) for _ in range(4)], direction)
    pruner = LearningCurvePruner(20, threshold=0.05)
    for decision in watch(study, pruner, reports([odd] * 6)):
        check(decision, pruner)
        assert decision.reason not in (Reason.BELOW_THRESHOLD, Reason.NARROW_FORECAST)
