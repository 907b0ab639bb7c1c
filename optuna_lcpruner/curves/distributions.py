"""Prior distributions as quantile functions of a standard normal coordinate v.

Every parameter is ``quantile(v)`` with v ~ N(0, 1), so that a sampler sees one kind of coordinate.
Fields may be arrays: one distribution then stands for many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

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


Distribution = Normal | LogNormal | Exponential
