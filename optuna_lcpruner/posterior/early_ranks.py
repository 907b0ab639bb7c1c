"""How far early ranks tell the end: P(a training ends best of all that are under way). Pure.

Before trainings have completed there is nothing to forecast values from, but ranks are known. Let
z_n be the normal score of a training's rank after n of T reports: that of the best of many is large
and positive. As a training goes on its rank moves, the slower the further it is:

    corr(z_s, z_t) = (s / t)^kappa,    s < t.

With kappa = 0.05 the ranks at the second report are those at the end, with 2 they tell nothing.
Which it is, the study shows by how its ranks have moved so far: over each halving of the training
up to n, the correlation r of m trainings gives Fisher's likelihood
atanh r ~ N(atanh (s / t)^kappa, 1 / (m - 3)). Its prior is log-normal. That a study's ranks go on
to move as they have moved so far holds but roughly: log kappa from now on is that so far, plus a
normal error.

A training at rank z_n ends at z_T ~ N(rho z_n, 1 - rho^2), rho = (n / T)^kappa, and it ends best if
none of its rivals, each from where it is now, ends above:

    Q = E_kappa int N(z; rho z_n, 1 - rho^2)  prod_j Phi((z - rho_j z_j) / sqrt(1 - rho_j^2)) dz.

Some trainings are of another kind than those beside them, slow at first for instance, and of these
ranks tell nothing. So, of R rivals,

    P = 0.9 Q + 0.1 / (R + 1).

With ``n_best`` = k it is among the best k if fewer than k of its rivals end above. Given where it
ends these are independent events, so instead of the product there is the lower tail of their
Poisson-binomial distribution, and k / (R + 1), at most 1, instead of 1 / (R + 1).

Source: a Gaussian copula of ranks whose correlation is that of an Ornstein-Uhlenbeck process in log
time; Fisher 1921, "On the probable error of a coefficient of correlation deduced from a small
sample". The constants are those of thirty recorded studies, see docs/benchmarks.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from optuna_lcpruner._util.arrays import Array

KAPPA = np.geomspace(0.02, 4.0, 14)
"""The values of kappa that are weighed, shape (K,)."""

_MEDIAN, _SPREAD = 0.2, 1.0
"""Of kappa before anything is seen: its median, the standard deviation of its logarithm."""

_DRIFT, _ERROR = -0.2, 0.65
"""Of log kappa from now on against that so far: mean and standard deviation of the difference."""

_LEAST = 4
"""Trainings that a correlation is taken of."""

_MOST_CORRELATED = 0.98  # heuristic
_CERTAIN = 0.9999  # heuristic

_OTHERWISE = 0.1
"""Share of the trainings of which ranks tell nothing."""

_NODES, _GAP = np.linspace(-4.0, 6.0, 61, retstep=True)
"""Where the end is looked at, in standard deviations from its mean, shape (G,)."""

_DENSITY = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()


def normal_score(n_below: ArrayLike, n: ArrayLike) -> Array:
    """Return z of ranks.

    Args:
        n_below: Trainings that are worse, half of those that are equal counted in, shape (m,).
        n: Trainings compared, itself not counted in, shape (m,).
    """
    return np.asarray(ndtri((np.asarray(n_below) + 0.5) / (np.asarray(n) + 1.0)))


def normal_scores(values: Array) -> Array:
    """Return z of the rank of each value, shape (m,); equal values share a rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = counts.cumsum() - 0.5 * counts
    return np.asarray(ndtri(middle[which] / values.size))


def weights_of_kappa(moves: Sequence[tuple[float, Array, Array]]) -> Array:
    """Return the probability of each kappa from now on, shape (K,).

    Args:
        moves: For each halving of the training so far: s / t, and the values of the same trainings
            at s and at t, larger is better, each of shape (m,).
    """
    log_kappa = np.log(KAPPA)
    logs = -0.5 * ((log_kappa - math.log(_MEDIAN)) / _SPREAD) ** 2
    for share, earlier, later in moves:
        if earlier.size < _LEAST:
            continue
        before, after = normal_scores(earlier), normal_scores(later)
        if not (before.std() > 0.0 and after.std() > 0.0):  # all alike: nothing has moved
            continue
        r = float(np.corrcoef(before, after)[0, 1])
        r = min(max(r, -_MOST_CORRELATED), _MOST_CORRELATED)
        expected = np.arctanh(np.minimum(share**KAPPA, 0.995))
        logs -= 0.5 * (earlier.size - 3) * (math.atanh(r) - expected) ** 2
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum() @ _TRANSITION)


def p_best(
    z: float,
    seen: float,
    rivals: Array,
    rivals_seen: Array,
    weights: Array,
    n_best: int = 1,
) -> float:
    """Return P that a training ends best of all, or among the best, itself and its rivals.

    Args:
        z: Normal score of its rank.
        seen: Share of it that is done, n / T.
        rivals: Normal scores of the others, shape (R,).
        rivals_seen: Shares of theirs that are done, shape (R,).
        weights: Probability of each kappa, shape (K,).
        n_best: How many are the best.
    """
    rho, rho_of_rivals = seen**KAPPA, rivals_seen[:, None] ** KAPPA
    own = np.sqrt(1.0 - np.minimum(rho, _CERTAIN) ** 2)
    end = rho * z + own * _NODES[:, None]
    # Where a rival's end is known there is a step: so wide that the nodes do not miss it.
    spread = np.sqrt(1.0 - np.minimum(rho_of_rivals, 1.0) ** 2 + (0.4 * _GAP * own) ** 2)
    ahead = ndtr((end[:, None] - rho_of_rivals * rivals[:, None]) / spread)
    by_rank = float(weights @ (_DENSITY @ _few_behind(ahead, n_best)))
    return (1.0 - _OTHERWISE) * by_rank + _OTHERWISE * min(1.0, n_best / (rivals.size + 1.0))


def _few_behind(ahead: Array, n_best: int) -> Array:
    """P that of independent events, given P of each, fewer than ``n_best`` do not come about.

    That is the lower tail of a Poisson-binomial distribution, built up event by event.

    Args:
        ahead: P of each event, shape (..., R, K).
        n_best: At least 1.

    Returns:
        Shape (..., K).
    """
    if n_best == 1:
        return np.asarray(ahead.prod(axis=-2))
    missed = np.zeros((n_best, *ahead.shape[:-2], ahead.shape[-1]))  # P of 0, 1, ... so far
    missed[0] = 1.0
    for j in range(ahead.shape[-2]):
        p = ahead[..., j, :]
        missed[1:] = missed[1:] * p + missed[:-1] * (1.0 - p)
        missed[0] *= p
    return np.asarray(missed.sum(axis=0))


def _transition() -> Array:
    """P(kappa from now on | kappa so far), shape (K, K)."""
    difference = np.log(KAPPA)[None, :] - np.log(KAPPA)[:, None]
    likely = np.exp(-0.5 * ((difference - _DRIFT) / _ERROR) ** 2)
    return np.asarray(likely / likely.sum(axis=1, keepdims=True))


_TRANSITION = _transition()
