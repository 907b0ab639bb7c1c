"""Scores in hindsight: against independent computations, and recovered from simulated studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from optuna_lcpruner.reporting.scoring import (
    CHANCES,
    SEEN,
    PruningCost,
    ScoredForecasts,
    accuracy,
    clopper_pearson,
    log_scores,
    pruning_cost,
    reliability,
)


def looks(n: int = 1, **changes: Any) -> ScoredForecasts:
    """n looks, all alike but for the changes."""
    plain: dict[str, Any] = {
        "trial": np.arange(n), "seen": 0.3, "value": 0.5, "low": 0.4, "q25": 0.55, "median": 0.6,
        "q75": 0.65, "high": 0.8, "p_beat": 0.2, "incumbent": 0.7, "final": 0.62, "weight": 1.0,
        "feasible": True, "gained": 0.16,
    }  # fmt: skip
    return ScoredForecasts(
        **{key: np.broadcast_to(np.asarray(v), (n,)) for key, v in {**plain, **changes}.items()}
    )


EMPTY = looks(3).where(np.zeros(3, bool))


class TestAccuracy:
    def test_by_the_fraction_seen(self) -> None:
        found = accuracy(looks(5, seen=[0.05, 0.1, 0.2499, 0.25, 1.0], trial=[1, 1, 1, 2, 3]))
        assert [(row.low, row.high, row.n_looks, row.n_trials) for row in found] == [
            (0.0, 0.1, 1, 1),
            (0.1, 0.25, 2, 1),
            (0.25, 0.5, 1, 1),
            (0.75, 1.0, 1, 1),
        ]

    def test_errors_are_medians(self) -> None:
        (row,) = accuracy(looks(3, median=[0.61, 0.52, 9.0], value=[0.6, 0.4, -9.0]))
        np.testing.assert_allclose((row.median_error, row.last_value_error), (0.1, 0.22))

    def test_coverage(self) -> None:
        final = [0.3, 0.4, 0.54, 0.55, 0.65, 0.66, 0.8, 0.81]
        (row,) = accuracy(looks(8, final=final))
        np.testing.assert_allclose((row.in_half, row.in_ninety), (2 / 8, 6 / 8))

    def test_the_forecast_of_an_infeasible_trial_counts(self) -> None:
        (row,) = accuracy(looks(2, final=[0.6, 0.9], feasible=[True, False]))
        np.testing.assert_allclose((row.in_half, row.in_ninety), (0.5, 0.5))

    def test_coverage_is_weighted(self) -> None:
        (row,) = accuracy(looks(2, final=[0.6, 0.9], weight=[1.0, 3.0]))
        np.testing.assert_allclose((row.in_half, row.in_ninety), (0.25, 0.25))

    def test_calibrated_forecasts_are_found_calibrated(self) -> None:
        rng = np.random.default_rng(0)
        n = 4000
        center = rng.normal(size=n)
        levels = {"low": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "high": 0.95}
        q = {name: center + stats.norm.ppf(level) for name, level in levels.items()}
        (row,) = accuracy(looks(n, final=center + rng.normal(size=n), **q))
        for share, level in ((row.in_half, 0.5), (row.in_ninety, 0.9)):
            np.testing.assert_allclose(share, level, atol=4 * np.sqrt(level * (1 - level) / n))
        np.testing.assert_allclose(row.median_error, stats.norm.ppf(0.75), atol=0.06)

    def test_nothing_to_score(self) -> None:
        assert accuracy(EMPTY) == []
        assert reliability(EMPTY) == []
        assert log_scores(EMPTY) is None


class TestReliability:
    def test_by_the_chance(self) -> None:
        p = [0.0, 0.01, 0.02, 0.5, 1.0]
        found = reliability(looks(5, p_beat=p, final=[0.6, 0.8, 0.6, 0.71, 0.7]))
        assert [(row.low, row.high, row.n_looks) for row in found] == [
            (0.0, 0.01, 1), (0.01, 0.03, 2), (0.3, 0.6, 1), (0.6, 1.0, 1)
        ]  # fmt: skip
        np.testing.assert_allclose([row.p_beat for row in found], [0.0, 0.015, 0.5, 1.0])
        np.testing.assert_allclose([row.beat for row in found], [0.0, 0.5, 1.0, 0.0])

    def test_an_infeasible_trial_beats_nothing(self) -> None:
        (row,) = reliability(looks(3, final=[0.6, 0.8, 0.8], feasible=[True, True, False]))
        np.testing.assert_allclose(row.beat, 1 / 3)

    def test_weighted(self) -> None:
        (row,) = reliability(looks(2, p_beat=[0.1, 0.2], final=[0.8, 0.6], weight=[1.0, 3.0]))
        np.testing.assert_allclose((row.p_beat, row.beat), (0.175, 0.25))

    def test_edges_span_everything(self) -> None:
        for edges in (SEEN, CHANCES):
            assert (edges[0], edges[-1]) == (0.0, 1.0)
            assert list(edges) == sorted(set(edges))


class TestLogScores:
    def test_values(self) -> None:
        found = log_scores(
            looks(2, p_beat=[0.25, 0.5], final=[0.6, 0.9], weight=[1, 2], gained=[0.01, 0.16])
        )
        assert found is not None
        np.testing.assert_allclose(found.forecast, -(np.log(0.75) + 2 * np.log(0.5)) / 3)
        p, q = stats.norm.cdf([-0.2 / 0.1, -0.2 / 0.4])
        np.testing.assert_allclose(found.last_value, -(np.log(1 - p) + 2 * np.log(q)) / 3)
        assert (found.n_looks, found.n_trials) == (2, 2)

    def test_an_infeasible_trial_beats_nothing(self) -> None:
        found = log_scores(looks(2, p_beat=[0.25, 0.5], final=0.9, feasible=[True, False]))
        assert found is not None
        np.testing.assert_allclose(found.forecast, -(np.log(0.25) + np.log(0.5)) / 2)
        p = stats.norm.cdf(-0.2 / 0.4)
        np.testing.assert_allclose(found.last_value, -(np.log(p) + np.log(1 - p)) / 2)

    def test_nobody_knew_yet_what_trials_gain(self) -> None:
        found = log_scores(looks(2, final=[0.6, 0.9], gained=np.inf))
        assert found is not None
        np.testing.assert_allclose(found.last_value, np.log(2))

    def test_the_standard_error_is_that_of_a_mean_over_trials(self) -> None:
        """With a look each it is the usual one; the same look twice tells no more."""
        rng = np.random.default_rng(2)
        p, final = rng.uniform(size=50), rng.choice([0.6, 0.8], size=50)
        once = log_scores(looks(50, p_beat=p, final=final, gained=np.inf))
        assert once is not None
        apart = -np.log(np.where(final > 0.7, p, 1 - p)) - np.log(2)
        np.testing.assert_allclose(once.standard_error, stats.sem(apart))
        trial, p, final = (np.repeat(v, 2) for v in (np.arange(50), p, final))
        twice = log_scores(looks(100, trial=trial, p_beat=p, final=final, gained=np.inf))
        assert twice is not None
        np.testing.assert_allclose(twice.standard_error, once.standard_error)
        alone = log_scores(looks(1))
        assert alone is not None
        assert alone.standard_error is None

    def test_no_probability_is_too_sure(self) -> None:
        found = log_scores(looks(1, p_beat=0.0, final=0.9))
        assert found is not None
        np.testing.assert_allclose(found.forecast, -np.log(1e-4))

    @pytest.mark.parametrize(("final", "value"), [(0.9, 0.9), (0.5, 0.5), (0.7, 0.7)])
    def test_trainings_that_stand_still(self, final: float, value: float) -> None:
        found = log_scores(looks(2, final=final, value=value, gained=0.0))
        assert found is not None
        np.testing.assert_allclose(found.last_value, 1e-4, rtol=1e-3)

    def test_a_better_forecast_scores_better(self) -> None:
        rng = np.random.default_rng(1)
        p = rng.uniform(size=3000)
        final = np.where(rng.uniform(size=3000) < p, 0.8, 0.6)
        honest, timid = (log_scores(looks(3000, p_beat=q, final=final)) for q in (p, 0.5 * p))
        assert honest is not None
        assert timid is not None
        assert honest.forecast < timid.forecast
        np.testing.assert_allclose(honest.forecast, 0.5, atol=4 * 0.45 / np.sqrt(3000))


class TestClopperPearson:
    @pytest.mark.parametrize(
        ("k", "n"), [(0, 1), (1, 1), (0, 20), (1, 20), (7, 20), (20, 20), (3, 1000)]
    )
    def test_by_its_definition(self, k: int, n: int) -> None:
        """At either end what was seen, or more of it, has a probability of 2.5 %."""
        low, high = clopper_pearson(k, n)
        as_many = stats.binom.sf(k - 1, n, low)
        as_few = stats.binom.cdf(k, n, high)
        np.testing.assert_allclose((low, as_many)[k > 0], 0.025 * (k > 0), rtol=1e-9)
        np.testing.assert_allclose((1.0 - high, as_few)[k < n], 0.025 * (k < n), rtol=1e-9)

    def test_nothing_seen(self) -> None:
        assert clopper_pearson(0, 0) == (0.0, 1.0)


def cost_of(beat: Any = (), steps: Any = (), n_pruned: int = 10, n_control: int = 0) -> PruningCost:
    p_beat = np.full(n_pruned + n_control, 0.02)
    return pruning_cost(p_beat, n_pruned, np.array(beat, bool), np.array(steps, float))


class TestPruningCost:
    def test_values(self) -> None:
        found = cost_of([True, False, False, False], [10, 20, 30, 40], 10, 5)
        assert (found.n_ended, found.n_beat, found.share) == (4, 1, 0.25)
        assert found.share_interval == clopper_pearson(1, 4)
        np.testing.assert_allclose(found.expected, 0.02)
        np.testing.assert_allclose(found.steps_saved, 250.0)
        expected = stats.t.interval(0.95, 3, 25.0, stats.sem([10, 20, 30, 40]))
        np.testing.assert_allclose(found.steps_interval, 10 * np.array(expected))

    def test_one_member(self) -> None:
        found = cost_of([False], [10], 3, 1)
        assert (found.share, found.steps_saved, found.steps_interval) == (0.0, 30.0, None)

    def test_no_member(self) -> None:
        found = cost_of()
        assert (found.share, found.share_interval, found.steps_saved) == (None, (0.0, 1.0), None)
        assert cost_of(n_pruned=0).expected is None

    def test_saved_steps_are_not_negative(self) -> None:
        found = cost_of([False, False], [0, 30], 10, 2)
        assert found.steps_interval is not None
        assert found.steps_interval[0] == 0.0

    def test_a_random_control_group_is_unbiased(self) -> None:
        """Trials that are condemned, 8 % wrongly; a twentieth of them runs on."""
        rng = np.random.default_rng(2)
        shares, saved, held = [], [], []
        for _ in range(150):
            wrong = rng.uniform(size=1000) < 0.08
            left = rng.integers(5, 96, size=1000)
            control = rng.uniform(size=1000) < 0.05
            found = cost_of(
                wrong[control], left[control], int((~control).sum()), int(control.sum())
            )
            assert found.share is not None
            assert found.steps_saved is not None
            low, high = found.share_interval
            shares.append(found.share)
            held.append(low <= 0.08 <= high)
            saved.append(found.steps_saved / left[~control].sum())
        for estimates, truth in ((shares, 0.08), (saved, 1.0)):
            error = np.std(estimates) / np.sqrt(len(estimates))
            np.testing.assert_allclose(np.mean(estimates), truth, atol=4 * error)
        assert np.mean(held) >= 0.93
