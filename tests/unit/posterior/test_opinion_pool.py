from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import expit, logit

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import spanning
from optuna_lcpruner.posterior import analogues
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import FastEngine, StudyKnowledge, Target
from optuna_lcpruner.posterior.opinion_pool import OpinionPool

T = 30


def study(n, seed=0, target=Target.LAST, maximize=True):
    """What a study of n completed trials knows, and one more curve of its kind, (T,)."""
    rng = np.random.default_rng(seed)
    ends, rates = rng.uniform(0.4, 0.9, (n + 1, 1)), rng.uniform(2, 6, (n + 1, 1))
    t = np.arange(1, T + 1) / T
    curves = ends * (1 - np.exp(-rates * t)) + rng.normal(0, 0.01, (n + 1, T))
    completed, curve = curves[:n], curves[n]
    final = completed[:, -1] if target is Target.LAST else completed.max(axis=1)
    best = final.max() if n else 0.8
    scale = spanning(float(np.median(curves[:, 0])), float(best), maximize)
    return StudyKnowledge(scale, target, completed, final, n), curve


def seen(curve, m):
    return LearningCurve(np.arange(1.0, m + 1), curve[:m], T)


@pytest.mark.parametrize("m", [2, 10, 25])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_the_formula(n, m):
    knowledge, curve = study(n, seed=n + m)
    curve = np.maximum(curve, knowledge.completed.min(axis=0))  # of their kind
    part = seen(curve, m)
    alone = ClosedForm()(part, knowledge)
    p_e = alone.p_beats(float(knowledge.scale.to_metric(1.0)))
    peers = analogues.ComparisonCurves.of(
        knowledge.completed, knowledge.final, knowledge.best, knowledge.scale.unit
    )
    found = peers.analogues(curve[:m], np.array([T - 1]))
    p_a = found.p_above(np.array([knowledge.best]))[0]
    p_a, p_e = np.clip([p_a, p_e], 1e-5, 1 - 1e-4)
    engine = OpinionPool(offset=0.7, fade=-0.4, evidence=(0.3, 0.2))
    assert found.plausible == 1.0
    expected = expit(
        -np.log(n + 1) + 0.7 - 0.4 * np.sqrt(m / T) + 0.3 * logit(p_a) + 0.2 * logit(p_e)
    )
    assert_allclose(engine.p_and_forecast(part, knowledge)[0], expected, rtol=1e-9)


def test_a_best_value_without_a_curve_silences_the_likes():
    knowledge, curve = study(5)
    part = seen(np.maximum(curve, knowledge.completed.mean(axis=0)), 12)
    better = knowledge.on_scale(spanning(knowledge.scale.location, knowledge.best + 0.5, True))
    p_e = ClosedForm().p_and_forecast(part, better)[0]
    expected = expit(-np.log(6) + 1.0 + 0.6 * np.sqrt(12 / T) + 0.5 * logit(max(p_e, 1e-5)))
    assert not better.best_has_curve
    assert_allclose(OpinionPool().p_and_forecast(part, better)[0], expected, rtol=0.02)
    # Of more trials than are compared with the best may be an older one.
    older = replace(better, n_completed=1200)
    assert older.best_has_curve
    assert OpinionPool().p_and_forecast(part, older)[0] < expected / 20


@pytest.mark.parametrize("below", [0.01, 0.1, 0.5, 3.0])
def test_a_curve_of_another_kind(below):
    """It begins ``below`` all others: their opinion counts less, and the curve's own more."""
    knowledge, curve = study(5, seed=1)
    curve = knowledge.completed.min(axis=0) - below * np.linspace(1.0, 0.1, T)
    part = seen(curve, 6)
    peers = analogues.ComparisonCurves.of(
        knowledge.completed, knowledge.final, knowledge.best, knowledge.scale.unit
    )
    found = peers.analogues(curve[:6], np.array([T - 1]))
    x = peers.regret.of_values(curve[:6])
    steps = np.diff(x)
    own = 0.5 * np.sum(steps[-max(3, round(0.1 * T)) :] ** 2) / min(max(3, round(0.1 * T)), 6)
    sd = np.sqrt((peers.x[:, :6].var(axis=0) + own + 0.1**2) * (1 + 1 / 5))
    tail = 2 * stats.t.sf(np.mean((peers.x[:, :6].min(axis=0) - x) / sd), 4)
    assert_allclose(found.plausible, tail / (tail + 0.02), rtol=1e-9)
    forecast = OpinionPool()(part, knowledge)
    assert ("unlike" in forecast.remark) is (found.plausible < 0.5)
    assert_allclose(forecast.shares["analogues"], found.plausible * 2 / 3, rtol=1e-9)


@settings(deadline=None)
@given(
    n=st.integers(0, 30),
    m=st.integers(1, T - 1),
    seed=st.integers(0, 50),
    target=st.sampled_from(Target),
    engine=st.sampled_from(
        [OpinionPool(), OpinionPool(ClosedForm(families=("pow3",))), ClosedForm()]
    ),
)
def test_the_quick_answer_is_that_of_the_forecast(n, m, seed, target, engine):
    knowledge, curve = study(n, seed, target)
    part = seen(curve, m)
    assert isinstance(engine, FastEngine)
    best = float(knowledge.scale.to_metric(1.0))
    quick, later = engine.p_and_forecast(part, knowledge)
    at_once = engine(part, knowledge)
    assert_allclose(at_once.p_beats(best), quick, rtol=1e-6, atol=1e-9)
    levels = [0.05, 0.5, 0.95]
    assert_allclose(later().quantile(levels), at_once.quantile(levels), rtol=1e-12)


def test_without_a_completed_trial_it_is_the_ensemble():
    knowledge, curve = study(0)
    part = seen(curve, 12)
    pooled, alone = OpinionPool()(part, knowledge), ClosedForm()(part, knowledge)
    assert_allclose(pooled.quantile([0.05, 0.5, 0.95]), alone.quantile([0.05, 0.5, 0.95]))
    assert_allclose(pooled.shares["pow3"], alone.shares["pow3"])


def test_shares_and_opinions_name_every_source():
    knowledge, curve = study(40)
    ahead = OpinionPool()(seen(curve, 12), knowledge)
    k = analogues.n_neighbours(40)
    assert_allclose(ahead.shares["analogues"], k / (k + 1))
    assert_allclose(sum(ahead.shares.values()), 1.0)
    assert set(ahead.opinions) == {"curve model", "similar trials", "base rate"}
    assert_allclose(ahead.opinions["base rate"], 1 / 41)


def test_trials_without_reports_count_in_the_prior_alone():
    knowledge, curve = study(5)
    part = seen(np.maximum(curve, knowledge.completed.mean(axis=0)), 12)  # of their kind
    few, many = (
        OpinionPool().p_and_forecast(part, replace(knowledge, n_completed=count))[0]
        for count in (5, 50)
    )
    assert_allclose(logit(few) - logit(many), np.log(51 / 6), rtol=1e-9)


def test_a_best_report_beyond_the_best_is_certain():
    knowledge, curve = study(5, target=Target.BEST)
    curve = curve.copy()
    curve[4] = knowledge.best + 0.1
    part = seen(curve, 12)
    assert OpinionPool().p_and_forecast(part, knowledge)[0] == 1.0
    assert_allclose(OpinionPool()(part, knowledge).p_beats(knowledge.best), 1.0)


def test_it_learns_from_trial_to_trial():
    """The more completed trials, the better the log score of the final value."""
    scores = []
    for n in (3, 10, 40):
        score = []
        for seed in range(30):
            knowledge, curve = study(n, seed)
            ahead = OpinionPool()(seen(curve, 6), knowledge)
            score.append(np.log(float(ahead.pdf(curve[-1]))))
        scores.append(np.mean(score))
    assert scores[0] < scores[1] < scores[2], scores


def log_odds(part, knowledge, p_by_ranks=None):
    part = replace(part, p_by_ranks=p_by_ranks)
    return logit(OpinionPool().p_and_forecast(part, knowledge)[0])


@pytest.mark.parametrize("n", [2, 12])
@pytest.mark.parametrize("p", [1e-9, 0.003, 0.4])
def test_ranks_count_as_one_trial_in_all(n, p):
    """The log odds go 1 / (N + 1) of the way to those of ranks; none is surer than 1e-5."""
    knowledge, curve = study(n, seed=n)
    curve = np.maximum(curve, knowledge.completed.min(axis=0))  # of their kind
    part = seen(curve, 10)
    without = log_odds(part, knowledge)
    by_ranks = logit(max(p, 1e-5))
    expected = without + (by_ranks - without) / (n + 1)
    assert_allclose(log_odds(part, knowledge, p), expected, rtol=1e-9)


def test_ranks_say_nothing_of_another_kind_of_curve():
    knowledge, curve = study(12)
    part = seen(curve - 50.0, 10)
    without = log_odds(part, knowledge)
    assert_allclose(log_odds(part, knowledge, 1e-5), without, atol=1e-3)


def test_ranks_say_nothing_of_a_best_value_without_a_curve():
    knowledge, curve = study(12)
    beyond = spanning(knowledge.scale.location, knowledge.best + 0.3, True)
    knowledge = replace(knowledge, scale=beyond)
    part = seen(curve, 10)
    assert log_odds(part, knowledge, 1e-5) == log_odds(part, knowledge)
