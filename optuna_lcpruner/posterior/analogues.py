"""What trials that looked like this one went on to gain: analogues among completed trials.

Glossary (N completed trials, m knots seen, W knots of a window):
    v     oriented metric value, v* the best final value of the study
    gap   v* - median final value of the completed trials
    x     log-regret scale: x = -ln(1 + (v* - v) / gap) below the best, (v - v*) / gap above it;
          0 is the best, and each halving of the distance to it counts the same
    D_j   root mean square distance of trial j to this one over the last W knots, in x
    h     D of the k-th nearest trial, k = ceil(sqrt(N) / 3) + 1
    w_j   exp(-(D_j^2 - min D^2) / (2 h^2)), normalised
    x_m   mean of the last m / 8 values in x, at least one and at most three
    g_j   gain of trial j in x from knot m, smoothed alike, to a later knot or its final value

The forecast is the mixture  sum_j w_j N(x_m + g_j, tau^2)  with
tau^2 = (var_w(g) + own^2) / 4 + 0.001^2  where own^2 is the noise of this curve from knot to knot.

All of that is worth nothing if the curve is of another kind than the completed ones, trained from
scratch where these were fine-tuned, say. Whether it may be of theirs is a prior-predictive
check: r_k is how far x_k lies below the lowest of them at knot k, of six and more the second lowest
so that one of another kind does not speak for all, in standard deviations
sqrt(s_k^2 + own^2 + 0.1^2) sqrt(1 + 1/N) with s_k that of the x there that are not lower, r the
mean of r_k over the knots seen, and

    plausible  =  q / (q + 0.02),   q = P(|t_(N-1)| > r)

where 0.02 stands for how often a curve is of another kind. Only below: one that is ahead of all is
not stopped for it.

Source: kernel regression (Nadaraya 1964, Watson 1964), with nearest-neighbour bandwidth; Box 1980,
"Sampling and Bayes' inference in scientific modelling and robustness" (the predictive check).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

Array = NDArray[np.float64]

WINDOW = 0.1
"""Share of the horizon over which curves are compared."""

_LEAST_GAP = 1e-3
_HOPELESS = -20.0
_BOUNDLESS = 1e6

_NEGLIGIBLE = 1e-3
"""Completed trials below this share of the nearest one's weight are left out."""


@dataclass(frozen=True)
class LogRegret:
    """The monotone scale x on which trials of a study are compared.

    Attributes:
        best: Oriented value with x = 0.
        gap: Oriented distance below it with x = -ln 2; positive.
    """

    best: float
    gap: float

    @classmethod
    def of(cls, best: float, final: Array, unit: float, n_best: int = 1) -> LogRegret:
        """From the study's best value, its trials' final values and its working unit.

        Where several count as the best, and ``best`` is the last of them, it may be near the median
        or below it: then the gap is that of the first.
        """
        first = best if n_best == 1 else max(best, float(np.max(final)))
        return cls(best, max(first - float(np.median(final)), _LEAST_GAP * unit))

    def of_values(self, values: Array) -> Array:
        """The x of oriented values, any shape; kept between -20 and 1e6."""
        behind = (self.best - values) / self.gap
        with np.errstate(all="ignore"):
            x = -np.log1p(np.maximum(behind, 0.0)) - np.minimum(behind, 0.0)
        return np.asarray(np.minimum(np.maximum(x, _HOPELESS), _BOUNDLESS))

    def to_values(self, x: Array) -> Array:
        """Oriented values of x, any shape."""
        behind = np.where(x < 0.0, np.expm1(-np.minimum(x, 0.0)), -x)
        return self.best - self.gap * behind

    def slope(self, x: Array) -> Array:
        """dv/dx, any shape."""
        return self.gap * np.exp(-np.minimum(x, 0.0))


@dataclass(frozen=True)
class Analogues:
    """Weighted completed trials and where they would take this one.

    Attributes:
        weights: w, shape (N,), sum 1.
        x: Forecast x at each knot ahead, the last at the end, shape (P, N).
        tau: Standard deviation of each component, in x.
        regret: The scale of x.
        plausible: P that the curve is of the same kind as the completed trials, given where it is.
    """

    weights: Array
    x: Array
    tau: float
    regret: LogRegret
    plausible: float = 1.0

    def p_above(self, values: Array) -> Array:
        """P(final value > each oriented value), shape of ``values``."""
        distance = (self.x[-1] - self.regret.of_values(values)[..., None]) / self.tau
        return np.asarray(ndtr(distance) @ self.weights)


_OTHER_KIND = 0.02  # heuristic
_LEAST_SPREAD = 0.1  # heuristic
_ENOUGH = 6  # heuristic


def _plausible(behind: Array, variance: Array, n: int, own: float) -> float:
    """P that a curve is of the kind of the completed ones, see the module's glossary.

    Args:
        behind: How far it is below the lowest of them at each knot seen, in x, shape (m,).
        variance: That of their x there, shape (m,).
        n: How many they are.
        own: The noise of the curve from knot to knot, squared.
    """
    if not np.any(behind > 0.0):
        return 1.0
    spread = np.sqrt((variance + own + _LEAST_SPREAD**2) * (1.0 + 1.0 / n))
    r = float(np.mean(np.maximum(behind, 0.0) / spread))
    tail = 2.0 * float(stdtr(max(n - 1, 1), -r))
    return tail / (tail + _OTHER_KIND)


def n_neighbours(n_completed: int) -> int:
    """How many of the completed trials the bandwidth reaches, k."""
    return min(n_completed, int(np.ceil(np.sqrt(n_completed) / 3.0)) + 1)


@dataclass(frozen=True)
class ComparisonCurves:
    """The completed trials of a study on the scale x, whatever curve they are compared with.

    Attributes:
        x: Their values on all knots, shape (N, K).
        x_final: Their final (objective) values, shape (N,).
        regret: The scale of x.
    """

    x: Array
    x_final: Array
    regret: LogRegret

    @cached_property
    def _without_lowest(self) -> Array:
        """Their values at each knot in increasing order, of six and more without the lowest."""
        return np.sort(self.x, axis=0)[1 if len(self.x) >= _ENOUGH else 0 :]

    @cached_property
    def lowest(self) -> Array:
        """The lowest of them at each knot, of six and more the second lowest, shape (K,)."""
        return np.asarray(self._without_lowest[0])

    @cached_property
    def variance(self) -> Array:
        """The variance at each knot of the values that are not lower, shape (K,)."""
        return np.asarray(self._without_lowest.var(axis=0))

    @classmethod
    def of(
        cls, completed: Array, final: Array, best: float, unit: float, n_best: int = 1
    ) -> ComparisonCurves:
        """From a study's completed trials.

        Args:
            completed: Their oriented values on all knots, no gaps, shape (N, K), N >= 1.
            final: Their final (objective) values, oriented, shape (N,).
            best: The study's best objective value, oriented.
            unit: The study's working unit.
            n_best: How many trials count as the best; ``best`` is the last of them.
        """
        regret = LogRegret.of(best, final, unit, n_best)
        return cls(regret.of_values(completed), regret.of_values(final), regret)

    def analogues(self, values: Array, ahead: NDArray[np.int64]) -> Analogues:
        """Find the analogues of a curve.

        Args:
            values: Oriented values of the curve on knots 0..m-1, no gaps, shape (m,).
            ahead: PositionGrid to forecast, the last one is the end of training, shape (P,).
        """
        m, n_knots = values.size, self.x.shape[1]
        window = max(1, round(WINDOW * n_knots))
        smoothed = min(max(m // 8, 1), 3)
        x = self.regret.of_values(values)
        compared = min(window, m)
        square = np.mean((self.x[:, m - compared : m] - x[-compared:]) ** 2, axis=1)
        k = n_neighbours(square.size)
        bandwidth = np.partition(square, k - 1)[k - 1] + 1e-12
        weights = np.exp(-0.5 * (square - square.min()) / bandwidth)
        near = np.flatnonzero(weights > _NEGLIGIBLE)
        weights = weights[near] / weights[near].sum()

        now = float(np.mean(x[-smoothed:]))
        start = np.mean(self.x[near, m - smoothed : m], axis=1)
        later = self.x[near, ahead[:-1, None]]
        gains = np.vstack([later, self.x_final[near]]) - start
        at_end = gains[-1]
        spread = weights @ (at_end - weights @ at_end) ** 2
        steps = np.diff(x[-(max(3, window) + 1) :])
        own = 0.5 * float(np.sum(steps**2)) / min(max(3, window), m)
        tau = float(np.sqrt(0.25 * (spread + own) + 1e-6))
        x_ahead = np.clip(now + gains, _HOPELESS, _BOUNDLESS)
        plausible = _plausible(self.lowest[:m] - x, self.variance[:m], len(self.x), own)
        return Analogues(weights, x_ahead, tau, self.regret, plausible)
