"""Early ranks: normal scores, how far ranks persist, P(ends best) against simulations."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from optuna_lcpruner.posterior.early_ranks import (
    KAPPA,
    normal_score,
    normal_scores,
    p_best,
    weights_of_kappa,
)


class TestNormalScores:
    def test_of_the_middle_is_0(self):
        assert normal_scores(np.array([3.0, 1.0, 2.0]))[2] == 0.0
        assert normal_score(1, 2) == 0.0

    def test_equal_values_share_a_rank(self):
        np.testing.assert_allclose(
            normal_scores(np.array([1.0, 1.0, 5.0])), stats.norm.ppf([1 / 3, 1 / 3, 5 / 6])
        )

    @pytest.mark.parametrize("n", [1, 2, 5, 40])
    def test_one_by_one_as_all_at_once(self, n):
        values = np.random.default_rng(n).permutation(n).astype(float)
        expected = [normal_score((values < v).sum(), n - 1) for v in values]
        np.testing.assert_allclose(normal_scores(values), expected, atol=1e-12)


def simulated(kappa, shares, m=60, seed=0):
    """Ranks that move as an Ornstein-Uhlenbeck process in log time, at shares of a training."""
    rng = np.random.default_rng(seed)
    z = [rng.standard_normal(m)]
    for before, after in pairwise(shares):
        rho = (before / after) ** kappa
        z.append(rho * z[-1] + np.sqrt(1 - rho**2) * rng.standard_normal(m))
    return z


def moves(z, shares):
    return [(a / b, x, y) for a, b, x, y in zip(shares, shares[1:], z, z[1:], strict=False)]


class TestHowFarRanksPersist:
    @pytest.mark.parametrize("kappa", [0.05, 0.3, 1.5])
    def test_learned_from_moves(self, kappa):
        shares = [2, 4, 8, 16]
        weights = [
            weights_of_kappa(moves(simulated(kappa, shares, seed=seed), shares))
            for seed in range(20)
        ]
        # From now on it is a little less than so far, by exp(-.2).
        mean = np.exp(np.mean(weights, axis=0) @ np.log(KAPPA))
        assert 0.6 * kappa < mean < 1.25 * kappa

    def test_how_much_a_correlation_counts(self):
        """Of m trainings as one observation of atanh r with variance 1 / (m - 3)."""
        x, y = np.arange(4.0), np.array([0.0, 2.0, 1.0, 3.0])
        z = [stats.norm.ppf((v + 0.5) / 4) for v in (x, y)]
        r = np.corrcoef(*z)[0, 1]
        so_far = stats.norm(np.log(0.2), 1.0).pdf(np.log(KAPPA))
        so_far *= stats.norm(np.arctanh(np.minimum(0.5**KAPPA, 0.995)), 1.0).pdf(np.arctanh(r))
        moves_on = stats.norm(np.log(KAPPA)[:, None] - 0.2, 0.65).pdf(np.log(KAPPA))
        expected = so_far / so_far.sum() @ (moves_on / moves_on.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(weights_of_kappa([(0.5, x, y)]), expected)

    def test_nothing_seen_is_the_prior(self):
        weights = weights_of_kappa([])
        np.testing.assert_allclose(weights.sum(), 1.0)
        mean = weights @ np.log(KAPPA)
        assert abs(mean - (np.log(0.2) - 0.2)) < 0.1
        spread = np.sqrt(weights @ (np.log(KAPPA) - mean) ** 2)
        assert abs(spread - np.hypot(1.0, 0.65)) < 0.15

    @pytest.mark.parametrize(
        "move",
        [
            (0.5, np.arange(3.0), np.arange(3.0)),
            (0.5, np.zeros(20), np.arange(20.0)),
            (0.5, np.arange(20.0), np.ones(20)),
        ],
    )
    def test_what_tells_nothing(self, move):
        np.testing.assert_array_equal(weights_of_kappa([move]), weights_of_kappa([]))

    def test_ranks_that_turn_round_persist_least(self):
        x = np.arange(30.0)
        weights = weights_of_kappa([(0.5, x, -x)])
        assert weights[:7].sum() < 0.01

    def test_scale_and_shape_of_values_do_not_matter(self):
        x, y = simulated(0.2, [2, 4])
        expected = weights_of_kappa([(0.5, x, y)])
        np.testing.assert_allclose(weights_of_kappa([(0.5, np.exp(x), 7 * y**3)]), expected)


def only(kappa):
    """All weight on the value nearest to kappa, and that value."""
    nearest = int(np.argmin(np.abs(np.log(KAPPA / kappa))))
    return np.eye(KAPPA.size)[nearest], KAPPA[nearest]


class TestPBest:
    @pytest.mark.parametrize("kappa", [0.05, 0.3, 1.5])
    @pytest.mark.parametrize("z", [-1.5, 0.0, 2.0])
    def test_against_a_simulation(self, kappa, z):
        rng = np.random.default_rng(3)
        weights, kappa = only(kappa)
        rivals, seen = np.array([-1.0, 0.2, 0.5, 1.4]), np.array([0.1, 0.5, 0.05, 1.0])
        rho, own = seen**kappa, 0.2**kappa
        n = 200_000
        ends = rho * rivals + np.sqrt(1 - np.minimum(rho, 0.9999) ** 2) * rng.standard_normal(
            (n, 4)
        )
        end = own * z + np.sqrt(1 - own**2) * rng.standard_normal(n)
        share = 0.9 * np.mean(end > ends.max(axis=1)) + 0.1 / 5
        p = p_best(z, 0.2, rivals, seen, weights)
        assert abs(p - share) < 4 * np.sqrt(max(share, 1e-4) / n) + 2e-3

    def test_without_rivals_it_is_certain(self):
        assert p_best(-2.0, 0.1, np.empty(0), np.empty(0), weights_of_kappa([])) == pytest.approx(1)

    @pytest.mark.parametrize("n", [1, 7, 31])
    def test_where_ranks_tell_nothing_all_have_the_same_chance(self, n):
        weights, _ = only(4.0)
        z = np.linspace(-2, 2, n)
        p = p_best(-3.0, 0.05, z, np.full(n, 0.05), weights)
        assert p == pytest.approx(1 / (n + 1), rel=1e-2)

    def test_the_chances_of_all_add_up_to_1(self):
        weights = weights_of_kappa([])
        z, seen = np.linspace(-2, 2, 9), np.linspace(0.1, 0.9, 9)
        chances = [
            p_best(z[i], seen[i], np.delete(z, i), np.delete(seen, i), weights) for i in range(9)
        ]
        assert sum(chances) == pytest.approx(1.0, abs=5e-3)

    def test_grows_with_the_rank_and_falls_with_the_rivals(self):
        weights = weights_of_kappa([])
        rivals, seen = np.array([0.0, 1.0]), np.array([0.3, 0.3])
        by_rank = [p_best(z, 0.3, rivals, seen, weights) for z in (-2, -1, 0, 1, 2)]
        assert by_rank == sorted(by_rank)
        assert p_best(0.0, 0.3, rivals[:1], seen[:1], weights) > by_rank[2]

    def test_of_sixty_four_rivals_that_are_far(self):
        weights, _ = only(0.02)
        p = p_best(-2.0, 0.9, np.full(64, 2.0), np.full(64, 0.99), weights)
        assert p == pytest.approx(0.1 / 65)  # it may be of another kind

    @pytest.mark.parametrize("ahead", [0.03, 0.3])
    @pytest.mark.parametrize("z", np.linspace(0.9, 1.2, 7))
    def test_who_leads_a_report_before_the_end(self, z, ahead):
        weights, _ = only(0.02)
        seen = np.array([0.999])
        p = p_best(z, 0.999, np.array([z - ahead]), seen, weights)
        assert p > 0.85
        behind = p_best(z - ahead, 0.999, np.array([z]), seen, weights)
        assert p + behind == pytest.approx(1.0, abs=0.02)
