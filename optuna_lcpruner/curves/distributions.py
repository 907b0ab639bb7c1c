"""Prior distributions as quantile functions of a standard normal coordinate v.

Every parameter is ``quantile(v)`` with v ~ N(0, 1), so that a sampler sees one kind of coordinate.
Fields may be arrays: one distribution then stands for many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

from optuna_lcpruner._util.arrays import Array

Parameter = float | Array


@dataclass(frozen=True)
class Normal:
    """N(mean, deviation^2)."""

    mean: Parameter
    deviation: Parameter

    def quantile(self, v: Array) -> Array:
        """Values at the levels Phi(v), shape of ``v``."""
        return self.mean + self.deviation * v

    def log_ratio(self, x: Array) -> Array:
        """Log of this density over the Gaussian of the same moments: 0."""
        return np.zeros_like(x)


@dataclass(frozen=True)
class LogNormal:
    """exp(N(mean, deviation^2))."""

    mean: Parameter
    deviation: Parameter

    def quantile(self, v: Array) -> Array:
        """Values at the levels Phi(v), shape of ``v``."""
        return np.exp(self.mean + self.deviation * v)


@dataclass(frozen=True)
class Exponential:
    """Exponential distribution with this mean."""

    mean: Parameter

    def quantile(self, v: Array) -> Array:
        """Values at the levels Phi(v), shape of ``v``."""
        return np.asarray(-self.mean * log_ndtr(-v))


@dataclass(frozen=True)
class Uniform:
    """Uniform between two bounds."""

    low: Parameter
    high: Parameter

    @property
    def mean(self) -> Parameter:
        """Its mean."""
        return 0.5 * (self.low + self.high)

    @property
    def deviation(self) -> Parameter:
        """Its standard deviation."""
        return (self.high - self.low) / float(np.sqrt(12.0))

    def quantile(self, v: Array) -> Array:
        """Values at the levels Phi(v), shape of ``v``."""
        return np.asarray(self.low + (self.high - self.low) * ndtr(v))

    def log_ratio(self, x: Array) -> Array:
        """Log of this density over the Gaussian of the same moments, any shape."""
        u = (x - self.mean) / self.deviation
        ratio = 0.5 * u**2 + 0.5 * np.log(2.0 * np.pi / 12.0)
        return np.where((x >= self.low) & (x <= self.high), ratio, -np.inf)


Distribution = Normal | LogNormal | Exponential | Uniform
