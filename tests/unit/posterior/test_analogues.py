import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from optuna_lcpruner.posterior import analogues
from optuna_lcpruner.posterior.analogues import ComparisonCurves, LogRegret


def curves(rng, n, n_knots, spread=0.2):
    """Rising curves with final values around 0.7, shape (n, n_knots)."""
    ends, rates = rng.normal(0.7, spread, (n, 1)), rng.uniform(2, 6, (n, 1))
    t = np.arange(1, n_knots + 1) / n_knots
    return ends * (1 - np.exp(-rates * t)) + rng.normal(0, 0.005, (n, n_knots))


def by_loops(values, completed, final, ahead, best, unit):
    """Weights, locations (P, N) and tau of all completed trials, straight from the glossary."""
    gap = max(best - np.median(final), 1e-3 * unit)

    def x_of(v):
        return -np.log(1 + (best - v) / gap) if v <= best else (v - best) / gap

    m, n_knots, n = len(values), completed.shape[1], len(final)
    window = max(1, round(0.1 * n_knots))
    compared, smooth = min(window, m), min(max(m // 8, 1), 3)
    square = [
        np.mean([(x_of(c[i]) - x_of(values[i])) ** 2 for i in range(m - compared, m)])
        for c in completed
    ]
    k = min(n, int(np.ceil(np.sqrt(n) / 3)) + 1)
    h2 = sorted(square)[k - 1] + 1e-12
    w = np.array([np.exp(-(d - min(square)) / (2 * h2)) for d in square])
    w[w <= 1e-3] = 0.0
    w /= w.sum()
    now = np.mean([x_of(v) for v in values[m - smooth :]])
    start = [np.mean([x_of(v) for v in c[m - smooth : m]]) for c in completed]
    rows = [
        [now + x_of(c[j]) - s for c, s in zip(completed, start, strict=True)] for j in ahead[:-1]
    ]
    rows.append([now + x_of(f) - s for f, s in zip(final, start, strict=True)])
    gain = np.array(rows[-1]) - now
    spread = w @ (gain - w @ gain) ** 2
    reach = max(3, window)
    steps = np.diff([x_of(v) for v in values])[-reach:]
    own = 0.5 * np.sum(steps**2) / min(reach, m)
    return w, np.array(rows), np.sqrt((spread + own) / 4 + 1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 20])
@pytest.mark.parametrize("m", [2, 9, 24])
def test_against_loops(n, m):
    rng = np.random.default_rng(10 * n + m)
    completed = curves(rng, n, 30)
    final = completed[:, -1] + rng.normal(0, 0.01, n)
    values = curves(rng, 1, 30)[0, :m]
    ahead = np.array([m, 29])
    found = ComparisonCurves.of(completed, final, final.max(), 0.5).analogues(values, ahead)
    weights, x, tau = by_loops(values, completed, final, ahead, final.max(), 0.5)
    assert_allclose(found.weights, weights[weights > 0], rtol=1e-9)
    assert_allclose(found.x, x[:, weights > 0], rtol=1e-9, atol=1e-12)
    assert_allclose(found.tau, tau, rtol=1e-9)
    for value in (final.max(), final.min(), final.max() + 0.1):
        at = float(found.regret.of_values(np.array(value)))
        expected = weights @ stats.norm.sf(at, x[-1], tau)
        assert_allclose(found.p_above(np.array([value])), expected, rtol=1e-9)


def test_a_drop_seen_before_is_expected_again():
    """Ten trials jump by 0.3 after two thirds; another one at the same level is to jump as well."""
    rng = np.random.default_rng(0)
    completed = 0.5 + np.where(np.arange(30) >= 20, 0.3, 0.0) + rng.normal(0, 0.01, (10, 30))
    final = completed[:, -1]
    peers = ComparisonCurves.of(completed, final, 0.82, 0.5)
    found = peers.analogues(completed[0, :15] + 0.001, np.array([29]))
    end = found.regret.to_values(found.x[-1]) @ found.weights
    assert_allclose(end, 0.8, atol=0.03)


def test_log_regret_is_a_monotone_map_and_back():
    regret = LogRegret(best=0.9, gap=0.2)
    v = np.linspace(-5, 3, 200)
    x = regret.of_values(v)
    assert np.all(np.diff(x) > 0)
    assert_allclose(regret.to_values(x), v, rtol=1e-12, atol=1e-12)
    assert_allclose(
        regret.of_values(np.array([0.9, 0.7, 0.3, 1.1])), [0, -np.log(2), -np.log(4), 1], atol=1e-12
    )
    h = 1e-6
    rise = (regret.to_values(x + h) - regret.to_values(x - h)) / (2 * h)
    assert_allclose(regret.slope(x[x < -0.01]), rise[x < -0.01], rtol=1e-6)


def test_hopeless_and_boundless_values_stay_finite():
    regret = LogRegret(best=1.0, gap=1e-3)
    assert_allclose(regret.of_values(np.array([-1e300, 1e300])), [-20.0, 1e6])


@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (2, 2), (3, 2), (9, 2), (10, 3), (100, 5), (1000, 12)]
)
def test_neighbours(n, k):
    assert analogues.n_neighbours(n) == k
