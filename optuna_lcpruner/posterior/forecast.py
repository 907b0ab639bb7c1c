"""The predictive distribution of a training's future values.

Glossary:
    C   mixture components, P positions ahead (the last one is the horizon)
    w   weights, shape (C,), sum 1
    F   the mixture's distribution function at a position,
        sum_c w_c Student_t(df; location_pc, scale_pc)
    A Forecast is F, or at the horizon, where it is recalibrated, g(F) with g linear from (0, 0) to
    (F(pivot), H) and on to (1, 1): the mass on either side of the pivot is known, F says how it
    lies there (Jeffrey conditioning). All is held on the working scale (larger is better) and read
    in the metric's own units.

Source: mixture formulas; E[(X - a)+] of a Student-t: Kirkby, Nguyen & Nguyen 2019,
"Moments of Student's t-distribution", and any text on expected improvement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.weighted_sum.convergence import Diagnostics

_ignoring = np.errstate(all="ignore")
"""Underflow is nothing to mind, even where the caller has made it an error."""


@dataclass(frozen=True)
class Component:
    """Locations and scales of the mixture at every position, working scale, shapes (P, C)."""

    location: Array
    scale: Array


@dataclass(frozen=True)
class Recalibration:
    """How likely the value at the horizon is to stay below a pivot, known better than by F.

    Attributes:
        pivot: Working value.
        mixture: F, what the mixture says of a value at or below the pivot.
        below: H, the probability of it.
    """

    pivot: float
    mixture: float
    below: float

    @property
    def corners(self) -> tuple[Array, Array]:
        """Levels of F and of H between which g is linear, from (0, 0) to (1, 1)."""
        if not 1e-12 < self.mixture < 1.0 - 1e-12:  # all mass is on one side: nothing to rescale
            return np.array([0.0, 1.0]), np.array([0.0, 1.0])
        return np.array([0.0, self.mixture, 1.0]), np.array([0.0, self.below, 1.0])

    @property
    def slopes(self) -> tuple[float, float]:
        """Slopes of g below and above the pivot: what F's mass there is multiplied by."""
        mixture, below = self.corners
        slopes = np.diff(below) / np.diff(mixture)
        return float(slopes[0]), float(slopes[-1])


@dataclass(frozen=True, repr=False)
class Forecast:
    """What a training will report, as a distribution at each future position.

    Attributes:
        positions: Future positions, shape (P,), the last is the horizon.
        weights: Mixture weights, shape (C,).
        observed: Components of the value that will be *reported*, observation noise included.
        latent: Components of the curve behind it, without observation noise.
        df: Degrees of freedom of every component; ``inf`` is a Gaussian.
        scale: Working scale <-> metric.
        floor: Working value that the target cannot fall below: the best value so far where the
            objective returns the best reported value, else ``-inf``.
        shares: What the posterior rests on, name -> share of the weight; sums to 1.
        recalibration: Corrects the distribution of the reported value at the horizon.
        opinions: P(beats the incumbent) by each source alone, name -> probability.
        remark: What a person should know about it, in words; mostly nothing.
        diagnostics: Of the sampler, where one was used.
    """

    positions: Array
    weights: Array
    observed: Component
    latent: Component
    df: float
    scale: Scale
    floor: float = -np.inf
    shares: Mapping[str, float] = field(default_factory=dict)
    recalibration: Recalibration | None = None
    opinions: Mapping[str, float] = field(default_factory=dict)
    diagnostics: Diagnostics | None = None
    remark: str = ""

    @property
    def horizon(self) -> float:
        """Position of the last report of a full training."""
        return float(self.positions[-1])

    @_ignoring
    def __repr__(self) -> str:
        low, median, high = self.quantile([0.05, 0.5, 0.95])
        return f"Forecast({median:.4g} [{low:.4g}, {high:.4g}] at position {self.horizon:g})"

    @_ignoring
    def p_beats(self, value: float, at: float | None = None, noise: bool = True) -> float:
        """Probability that the training is better than `value`, in the study's direction.

        Args:
            value: A metric value.
            at: A position of ``positions``; by default the horizon.
            noise: Whether to ask about the reported value (default) or the curve behind it.
        """
        z = float(self.scale.to_working(value))
        return float(1.0 - self._cdf(np.array([z]), at, noise)[0])

    @_ignoring
    def cdf(self, values: ArrayLike, at: float | None = None, noise: bool = True) -> Array:
        """P(metric <= value), any shape."""
        values = np.asarray(values, dtype=float)
        z = self.scale.to_working(values).ravel()
        below = self._cdf(z, at, noise)
        if not self.scale.maximize:
            # P(metric <= value) includes the atom at the floor, where P(Z < floor) is still 0.
            below = 1.0 - np.where(z <= self.floor, 0.0, below)
        return below.reshape(values.shape)

    @_ignoring
    def pdf(self, values: ArrayLike, at: float | None = None, noise: bool = True) -> Array:
        """Density of the metric, any shape, in 1 / metric units.

        With a ``floor`` the distribution also has an atom there, which a density does not show.
        """
        values = np.asarray(values, dtype=float)
        z = self.scale.to_working(values).ravel()
        location, scale = self._component(at, noise)
        density = (_t_pdf((z[:, None] - location) / scale, self.df) / scale) @ self.weights
        known = self._corrected(at, noise)
        if known is not None:
            density = density * np.where(z <= known.pivot, *known.slopes)
        density = np.where(z < self.floor, 0.0, density)
        return density.reshape(values.shape) / self.scale.unit

    @_ignoring
    def mean(self, at: float | None = None, noise: bool = True) -> float:
        """Expected metric value."""
        location, scale = self._component(at, noise)
        mean = float(location @ self.weights)
        if np.isfinite(self.floor):
            mean = self.floor + self._excess(self.floor, location, scale)
        known = self._corrected(at, noise)
        if known is not None:  # split at the pivot: E[max(Z, floor); Z > pivot], and what is left
            below, above = known.slopes
            pivot = max(known.pivot, self.floor)
            upper = pivot * (1.0 - known.mixture) + self._excess(pivot, location, scale)
            mean = below * (mean - upper) + above * upper
        return float(self.scale.to_metric(mean))

    @_ignoring
    def std(self, at: float | None = None, noise: bool = True) -> float:
        """Standard deviation in metric units; needs ``df > 2``."""
        location, scale = self._component(at, noise)
        spread = self.df / (self.df - 2.0) if np.isfinite(self.df) else 1.0
        mean = location @ self.weights
        std = float(np.sqrt((spread * scale**2 + (location - mean) ** 2) @ self.weights))
        if self._corrected(at, noise) is not None or np.isfinite(self.floor):
            std = self._std_by_tails(at, noise, std)
        return std * self.scale.unit

    def _std_by_tails(self, at: float | None, noise: bool, unit: float) -> float:
        """The square root of  int 2 d (P(Z > mean + d) + P(Z < mean - d)) dd,  d from 0 on.

        By the trapezoidal rule in ln(1 + d / unit), with ``unit`` of the order of the result.
        """
        mean = float(self.scale.to_working(self.mean(at, noise)))
        log, step = np.linspace(0.0, np.log(1e5), 4001, retstep=True)
        away, rate = unit * np.expm1(log), unit * np.exp(log)
        tails = 1.0 - self._cdf(mean + away, at, noise) + self._cdf(mean - away, at, noise)
        integrand = 2.0 * away * tails * rate  # 0 at the start, next to nothing at the end
        return float(np.sqrt(integrand.sum() * step))

    @_ignoring
    def quantile(self, q: ArrayLike, at: float | None = None, noise: bool = True) -> Array:
        """Quantiles of the metric, shape of `q`: P(metric <= quantile) = q.

        Raises:
            ValueError: If a level does not lie strictly between 0 and 1.
        """
        q = np.asarray(q, dtype=float)
        if not np.all((q > 0) & (q < 1)):
            raise ValueError(f"quantile levels must lie strictly between 0 and 1, but got {q!r}.")
        levels = (q if self.scale.maximize else 1.0 - q).ravel()
        location, scale = self._component(at, noise)
        known = self._corrected(at, noise)
        if known is not None:
            mixture, below = known.corners
            levels = np.clip(np.interp(levels, below, mixture), 1e-12, 1.0 - 1e-12)
        z = self._quantile(levels, location, scale)
        return self.scale.to_metric(np.maximum(z, self.floor).reshape(q.shape))

    def interval(
        self, level: float = 0.9, at: float | None = None, noise: bool = True
    ) -> tuple[float, float]:
        """Central interval ``(low, high)`` in metric units that holds `level` of the mass."""
        low, high = self.quantile([(1 - level) / 2, (1 + level) / 2], at, noise)
        return float(low), float(high)

    def _component(self, at: float | None, noise: bool) -> tuple[Array, Array]:
        part = self.observed if noise else self.latent
        if at is None:
            index = -1
        else:
            matches = np.flatnonzero(np.isclose(self.positions, at, rtol=0.0, atol=1e-6))
            if matches.size == 0:
                raise ValueError(
                    f"position {at} is not one of the forecast positions {self.positions!r}."
                )
            index = int(matches[0])
        return part.location[index], part.scale[index]

    def _cdf(self, z: Array, at: float | None, noise: bool) -> Array:
        location, scale = self._component(at, noise)
        below = self._mixture_cdf(z, location, scale)
        known = self._corrected(at, noise)
        if known is not None:
            below = np.interp(below, *known.corners)
        return np.where(z < self.floor, 0.0, below)

    def _mixture_cdf(self, z: Array, location: Array, scale: Array) -> Array:
        below = t_cdf((z[:, None] - location) / scale, self.df) @ self.weights
        return np.clip(below, 0.0, 1.0)

    def _excess(self, z: float, location: Array, scale: Array) -> float:
        """E[(X - z)+] of the mixture."""
        return float((_t_excess((z - location) / scale, self.df) * scale) @ self.weights)

    def _corrected(self, at: float | None, noise: bool) -> Recalibration | None:
        """The recalibration, where it applies."""
        return self.recalibration if noise and (at is None or at == self.horizon) else None

    def _bracket(self, levels: Array, location: Array, scale: Array) -> tuple[Array, Array]:
        """Bounds of the quantiles, from the quantiles of the components' own ends.

        With tails of mass e beyond r scales, F(z) >= (1 - e) * weight of {location + r scale <= z}
        and F(z) <= e + weight of {location - r scale < z}.
        """
        low, high = np.empty(levels.size), np.empty(levels.size)
        tails = 0.25 * np.minimum(levels, 1.0 - levels)
        reach = _t_quantile(1.0 - tails, self.df)
        for i, (level, tail, r) in enumerate(zip(levels, tails, reach, strict=True)):
            low[i] = _first_at(level - tail, location - r * scale, self.weights)
            high[i] = _first_at(level / (1.0 - tail), location + r * scale, self.weights)
        return np.minimum(low, high), np.maximum(low, high)

    def _quantile(self, levels: Array, location: Array, scale: Array) -> Array:
        """Invert the mixture's distribution function.

        Bracket, then Newton steps; bisection wherever a step leaves the bracket or the error has
        not halved, since between separate components Newton steps can bounce for ever.
        """
        low, high = self._bracket(levels, location, scale)
        z: Array = 0.5 * low + 0.5 * high
        previous = np.full(levels.size, np.inf)
        for _ in range(200):
            u = (z[:, None] - location) / scale
            error = t_cdf(u, self.df) @ self.weights - levels
            found = (np.abs(error) < 1e-9) | (high - low <= 1e-14 * np.abs(z))
            if found.all():
                break
            low = np.where(error < 0, z, low)
            high = np.where(error > 0, z, high)
            slope = (_t_pdf(u, self.df) / scale) @ self.weights
            step = z - error / np.maximum(slope, 1e-300)
            good = (step > low) & (step < high) & (np.abs(error) < 0.5 * previous)
            z = np.where(found, z, np.where(good, step, 0.5 * low + 0.5 * high))
            previous = np.abs(error)
        return z


def _first_at(target: float, x: Array, weights: Array) -> float:
    """Smallest element of x at which the weight of x up to it reaches the target."""
    order = np.argsort(x)
    index = int(np.searchsorted(np.cumsum(weights[order]), target))
    return float(x[order[min(index, x.size - 1)]])


def t_cdf(x: Array, df: float) -> Array:
    """Distribution function of Student's t, any shape; of the Gaussian for ``df = inf``."""
    if df == 4.0:  # in closed form, ten times faster than stdtr; 3 / x^4 is the tail's limit
        size = np.minimum(np.abs(x), 1e50)
        square = size * size
        root = square + 4.0
        tail = 0.5 - 0.5 * size * (square + 6.0) / (root * np.sqrt(root))
        far = size > 300.0
        if np.any(far):
            tail[far] = 3.0 / square[far] ** 2
        return np.where(x > 0, 1.0 - tail, tail)
    if np.isinf(df):
        return np.asarray(special.ndtr(x))
    return np.asarray(special.stdtr(df, x))


def _t_pdf(x: Array, df: float) -> Array:
    x = np.minimum(np.abs(x), 1e50)
    if df == 4.0:
        root = x * x + 4.0
        return np.asarray(12.0 / (root * root * np.sqrt(root)))
    if np.isinf(df):
        return np.asarray(np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi))
    norm = np.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2)) / np.sqrt(df * np.pi)
    return np.asarray(norm * np.exp(-0.5 * (df + 1) * np.log1p(x * x / df)))


def _t_quantile(q: Array, df: float) -> Array:
    return np.asarray(special.ndtri(q) if np.isinf(df) else special.stdtrit(df, q))


def _t_excess(x: Array, df: float) -> Array:
    """E[(X - x)+] for a standard Student-t or Gaussian X."""
    tail = t_cdf(-x, df)
    spread = np.ones_like(x) if np.isinf(df) else (df + x * x) / (df - 1.0)
    return np.asarray(spread * _t_pdf(x, df) - x * tail)
