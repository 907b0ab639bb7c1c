"""n_best=k: P of ending among the best k, in each place where the best one was meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import (
    BAD,
    GOOD_ENDS,
    N_STEPS,
    constrained,
    finished,
    good_trials,
    judge,
    make_study,
    reports,
    saturating,
)
from numpy.testing import assert_allclose
from scipy.special import expit, logit

from optuna_lcpruner import LearningCurvePruner, Reason, should_stop
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.decision.self_check import self_check
from optuna_lcpruner.posterior import analogues
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.early_ranks import KAPPA, p_best, weights_of_kappa
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.study.history import StudyRecord
from optuna_lcpruner.study.standings import Standing

ENDS = sorted(GOOD_ENDS, reverse=True)
CURVES = np.array([saturating(end) for end in GOOD_ENDS])


def knowledge(n_best: int, maximize: bool = True) -> StudyKnowledge:
    """What a study of the good trials knows."""
    sign = 1.0 if maximize else -1.0
    trials = [finished(reports(sign * curve)) for curve in CURVES]
    record = StudyRecord(maximize, n_best=n_best)
    made = make_study(trials, "maximize" if maximize else "minimize")
    summary = record.update(made.get_trials())
    return record.knowledge(summary, N_STEPS, 1.0, summary.target)


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("n_best", [1, 2, 5])
def test_the_value_to_beat_is_the_last_of_the_best(n_best: int, maximize: bool) -> None:
    known = knowledge(n_best, maximize)
    last = sorted(CURVES[:, -1], reverse=True)[n_best - 1]
    assert_allclose(known.best, last)
    assert_allclose(known.scale.to_metric(1.0), last if maximize else -last)
    assert_allclose(known.scale.unit, CURVES[:, -1].max() - np.median(CURVES[:, 0]))
    assert known.final[known.best_row] == known.best


def test_base_rate_by_shuffling() -> None:
    """Where all orders are equally likely, how often is the newest among the best k?"""
    rng = np.random.default_rng(0)
    n, k = 6, 3
    values = rng.random((40_000, n + 1))
    among = np.mean((values[:, :-1] > values[:, -1:]).sum(axis=1) < k)
    known = StudyKnowledge(knowledge(1).scale, final=np.zeros(n), n_best=k)
    assert_allclose(known.base_rate, among, atol=0.01)
    assert replace(known, n_best=9).base_rate == 1.0


@pytest.mark.parametrize("n_best", [1, 2, 3, 5])
def test_early_ranks_against_a_simulation(n_best: int) -> None:
    rng = np.random.default_rng(3)
    kappa = KAPPA[6]
    rivals, seen, z = np.array([-1.0, 0.2, 0.5, 1.4]), np.array([0.1, 0.5, 0.05, 1.0]), 0.1
    rho, own, n = seen**kappa, 0.2**kappa, 200_000
    noise = np.sqrt(1 - np.minimum(rho, 0.9999) ** 2)
    ends = rho * rivals + noise * rng.standard_normal((n, 4))
    end = own * z + np.sqrt(1 - own**2) * rng.standard_normal(n)
    above = (ends > end[:, None]).sum(axis=1)
    share = 0.9 * np.mean(above < n_best) + 0.1 * min(1.0, n_best / 5)
    p = p_best(z, 0.2, rivals, seen, np.eye(KAPPA.size)[6], n_best)
    assert_allclose(p, share, atol=4e-3)


def test_the_chances_of_all_add_up_to_k() -> None:
    weights = weights_of_kappa([])
    z, seen = np.linspace(-2, 2, 9), np.linspace(0.1, 0.9, 9)
    chances = [
        p_best(z[i], seen[i], np.delete(z, i), np.delete(seen, i), weights, 3) for i in range(9)
    ]
    assert_allclose(sum(chances), 3.0, atol=0.02)


@pytest.mark.parametrize("n_best", [1, 2, 4])
def test_the_pool(n_best: int) -> None:
    known = knowledge(n_best)
    part = LearningCurve(np.arange(1.0, 9.0), saturating(0.81)[:8], N_STEPS)
    p_e = ClosedForm().p_and_forecast(part, known)[0]
    peers = analogues.ComparisonCurves.of(
        known.completed, known.final, known.best, known.scale.unit, n_best
    )
    found = peers.analogues(part.values, np.array([N_STEPS - 1]))
    assert found.plausible == 1.0
    p_a = found.p_above(np.array([known.best]))[0]
    chance = n_best / (5 + 2)
    expected = expit(
        logit(chance)
        + 1.0
        + 0.6 * np.sqrt(8 / N_STEPS)
        + 0.25 * (logit(np.clip(p_a, 1e-5, 1 - 1e-5)) + logit(np.clip(p_e, 1e-5, 1 - 1e-5)))
    )
    assert_allclose(OpinionPool().p_and_forecast(part, known)[0], expected, rtol=1e-9)


def test_more_of_the_best_are_easier_to_come_among() -> None:
    part = LearningCurve(np.arange(1.0, 9.0), saturating(0.81)[:8], N_STEPS)
    chances = [OpinionPool().p_and_forecast(part, knowledge(k))[0] for k in range(1, 6)]
    assert chances == sorted(chances)
    assert chances[0] < 0.1
    assert chances[-1] > 0.5


def test_how_far_the_others_are_has_a_scale_where_the_last_of_the_best_is_the_worst() -> None:
    known = knowledge(5)
    peers = analogues.ComparisonCurves.of(
        known.completed, known.final, known.best, known.scale.unit, 5
    )
    assert_allclose(peers.regret.gap, known.final.max() - np.median(known.final))


@pytest.mark.parametrize(
    ("rule", "n_begun", "threshold"),
    [
        (Rule(n_best=3), 300, 0.04),  # 20 * 3 / sqrt(0.04)
        (Rule(n_best=3), 600, 0.02),
        (Rule(risk=0.25, n_best=2), 100, 0.2),
        (Rule(threshold=0.05, n_best=3), 1000, 0.05),
    ],
)
def test_threshold(rule: Rule, n_begun: int, threshold: float) -> None:
    assert_allclose(rule.threshold_at(n_begun, 0.0), threshold, rtol=1e-12)


def test_threshold_before_forecasts() -> None:
    """Of 24 trials 3 are the best 3: as many as one of 8, so that it is 0.04 * 18 / 24."""
    below, above = (
        Rule(n_best=3).judge_among(Standing(9, 20, 4, 23, p, None), 0.0, 3, False)
        for p in (0.0299, 0.0301)
    )
    assert below is not None
    assert "to end among the best 3 of 24" in below.message
    assert above is None


class TestSelfCheck:
    class Engine:
        """Stops everything; notes what it is asked."""

        def __init__(self) -> None:
            self.asked: list[tuple[LearningCurve, StudyKnowledge]] = []

        def p_and_forecast(self, curve: LearningCurve, known: StudyKnowledge) -> tuple[float, None]:
            self.asked.append((curve, known))
            return 0.0, None

    def test_the_last_of_the_best_is_replayed_against_the_next(self) -> None:
        engine: Any = self.Engine()
        caution = self_check(engine, Rule(n_best=2), knowledge(2), N_STEPS, 3)
        assert engine.asked
        finals = sorted(CURVES[:, -1], reverse=True)
        for curve, others in engine.asked:
            assert_allclose(curve.values, CURVES[3, : curve.n_points])  # ends at 0.86
            assert_allclose(others.best, finals[2])
            assert others.n_best == 2
        assert "the last of the study's best 2 trials would have been" in caution.remark

    def test_nothing_comes_after_the_last_of_all(self) -> None:
        engine: Any = self.Engine()
        self_check(engine, Rule(n_best=5), knowledge(5), N_STEPS, 3)
        assert not engine.asked


class TestPruner:
    @pytest.fixture(params=["maximize", "minimize"])
    def direction(self, request: pytest.FixtureRequest) -> Iterator[str]:
        return request.param

    def test_the_decision_compares_with_the_last_of_the_best(self, direction: str) -> None:
        sign = 1.0 if direction == "maximize" else -1.0
        study = make_study([finished(reports(sign * c)) for c in CURVES], direction)
        pruner = LearningCurvePruner(N_STEPS, n_best=3)
        decision = judge(study, pruner, reports(sign * BAD[:12]))
        assert decision.reason is Reason.BELOW_THRESHOLD
        assert_allclose(decision.incumbent, sign * sorted(CURVES[:, -1])[2])
        assert decision.message.split(";")[0].endswith(", the last of the best 3")
        ahead = judge(study, pruner, reports(sign * (CURVES[3, :12] + 0.2)))
        assert ahead.reason is Reason.ALREADY_BETTER

    def test_a_trial_that_may_come_third_runs_on(self) -> None:
        curve = reports(saturating(0.835)[:15])
        best, among = (
            judge(make_study(good_trials()), LearningCurvePruner(N_STEPS, n_best=k), curve)
            for k in (1, 3)
        )
        assert best.reason is Reason.BELOW_THRESHOLD
        assert not among.prune
        assert best.p_beat < among.p_beat

    def test_those_that_break_constraints_are_none_of_the_best(self) -> None:
        trials = good_trials()
        constrained(trials[4], 1.0)  # the best one
        study = make_study(trials)
        decision = judge(study, LearningCurvePruner(N_STEPS, n_best=2), reports(BAD[:12]))
        assert_allclose(decision.incumbent, CURVES[2, -1])

    def test_while_there_are_fewer_all_come_among_them(self) -> None:
        pruner = LearningCurvePruner(N_STEPS, n_best=6)
        decision = judge(make_study(good_trials()), pruner, reports(BAD[:12]))
        assert decision.reason is Reason.NO_BEST_VALUE
        assert decision.message == "waiting for a best value: 5 of n_best=6"

    def test_without_a_study_likewise(self) -> None:
        study = make_study(good_trials())
        decision = should_stop(
            BAD[:12], completed=CURVES, n_steps=N_STEPS, direction="maximize", n_best=3
        )
        assert decision == judge(study, LearningCurvePruner(N_STEPS, n_best=3), reports(BAD[:12]))

    @pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.0, TypeError)])
    def test_refuses(self, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="n_best must be"):
            LearningCurvePruner(n_best=value)
