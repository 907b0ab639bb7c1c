"""self_check: would the rule have stopped the study's best trial?"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import spanning
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.decision.self_check import Caution, self_check
from optuna_lcpruner.posterior.interface import StudyKnowledge

T = 20


class Engine:
    """P(beat) is a function of the reports seen; notes what it is asked."""

    def __init__(self, p=lambda n: 1.0):
        self.p, self.asked = p, []

    def __call__(self, curve, knowledge, positions=None):
        raise AssertionError("the whole forecast is not wanted")

    def p_and_forecast(self, curve, knowledge, positions=None):
        self.asked.append((curve, knowledge))
        return self.p(curve.n_points), lambda: None


def study(n=5, best=2):
    final = np.linspace(0.5, 0.6, n)
    final[best] = 0.9
    completed = final[:, None] * (1 - np.exp(-np.arange(1, T + 1) / 4))
    return StudyKnowledge(spanning(0.1, 0.9, True), completed=completed, final=final)


def test_the_best_is_judged_by_the_others_alone():
    knowledge, engine = study(), Engine()
    assert self_check(engine, Rule(), knowledge, T, 3) == Caution(1.0, None)
    assert len(engine.asked) > 3
    for curve, others in engine.asked:
        assert_allclose(curve.values, knowledge.completed[2, : curve.n_points])
        assert_allclose(others.final, np.delete(knowledge.final, 2))
        assert others.best == pytest.approx(0.6)  # the best of the others
        assert others.base_rate == 1 / 5
        assert 2 <= curve.n_points <= 0.6 * T


@pytest.mark.parametrize(("p", "factor"), [(0.5, 1.0), (0.018, 0.5), (1e-6, 0.05)])
def test_the_factor_spares_it(p, factor):
    """At its second report of 20 the threshold is 0.04 (1 - 2/20) = 0.036."""
    caution = self_check(Engine(lambda n: p if n == 2 else 1.0), Rule(), study(), T, 3)
    assert caution.factor == pytest.approx(factor)
    assert caution.position == (None if factor == 1.0 else 2.0)
    if factor > 0.05:
        assert not p < Rule().threshold_at(5, 2 / T, caution.factor) * (1 - 1e-9)


def test_the_worst_look_counts():
    engine = Engine(lambda n: 0.01 if n > 6 else 0.02)
    worst = self_check(engine, Rule(), study(), T, 3)
    curves = [curve for curve, _ in engine.asked]
    ratios = [(0.01 if c.n_points > 6 else 0.02) / Rule().threshold_at(5, c.seen) for c in curves]
    assert worst.factor == pytest.approx(min(ratios))
    assert worst.position == curves[int(np.argmin(ratios))].positions[-1]


@pytest.mark.parametrize(
    ("knowledge", "rule", "n_startup"),
    [
        (study(3), Rule(), 3),  # two others say nothing
        (study(5), Rule(), 5),  # nothing would be pruned yet
        (study(5), Rule(threshold=0.05), 3),  # the user's own
        (replace(study(5), scale=spanning(0.1, 0.95, True)), Rule(), 3),  # the best has no curve
        (replace(study(5), final=np.full(5, 0.9)), Rule(), 3),  # all are the best
    ],
)
def test_nothing_to_check(knowledge, rule, n_startup):
    engine = Engine(lambda n: 0.0)
    assert self_check(engine, rule, knowledge, T, n_startup) == Caution()
    assert engine.asked == []


def test_a_better_trial_that_breaks_constraints_is_no_rival():
    knowledge = study(6, best=2)
    knowledge.final[4] = 1.2
    engine = Engine()
    self_check(engine, Rule(), knowledge, T, 3)
    assert_allclose([others.best for _, others in engine.asked], 0.6)
    assert all(isinstance(curve, LearningCurve) for curve, _ in engine.asked)
