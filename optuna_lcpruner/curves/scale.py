"""Metric <-> working scale.

Everything below the pruner works on ``z = (sign * metric - location) / unit``: larger is better,
0 is where trials of this study typically start, 1 is where the best one got to. Decisions therefore
do not change when the metric is shifted, multiplied or negated together with its direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optuna_lcpruner._util.arrays import Array

_LARGEST_METRIC = 1.7e308  # heuristic: a little below the largest float


@dataclass(frozen=True)
class Scale:
    """An affine map between a metric and the working scale.

    Attributes:
        location: Oriented metric value (larger is better) that becomes 0.
        unit: Oriented metric difference that becomes 1; positive.
        maximize: Whether larger metric values are better.
    """

    location: float
    unit: float
    maximize: bool

    def __post_init__(self) -> None:
        if not math.isfinite(self.location):
            raise ValueError(f"location must be finite, but got {self.location}.")
        if not (math.isfinite(self.unit) and self.unit > 0):
            raise ValueError(f"unit must be positive and finite, but got {self.unit}.")

    @property
    def sign(self) -> float:
        """+1 for a maximised metric, -1 for a minimised one."""
        return 1.0 if self.maximize else -1.0

    def to_working(self, metric: ArrayLike) -> Array:
        """Metric values to working values, any shape."""
        return (self.sign * np.asarray(metric, dtype=float) - self.location) / self.unit

    def to_metric(self, working: ArrayLike) -> Array:
        """Working values to metric values, any shape; finite, cut off at the largest floats."""
        with np.errstate(over="ignore"):
            metric = self.location + self.unit * np.asarray(working, dtype=float)
        return self.sign * np.clip(metric, -_LARGEST_METRIC, _LARGEST_METRIC)


def oriented(metric: ArrayLike, maximize: bool) -> Array:
    """Metric values with the sign turned so that larger is better."""
    values = np.asarray(metric, dtype=float)
    return values if maximize else -values


_LEAST_UNIT = 1e-304  # heuristic


def spanning(low: float, high: float, maximize: bool, fallback: ArrayLike = ()) -> Scale:
    """The scale on which oriented value ``low`` is 0 and ``high`` is 1.

    Where ``high`` does not lie above ``low`` by more than rounding, ``high`` is still 1, and the
    unit comes from the spread of ``fallback`` (finite oriented values), or where these are constant
    as well from the size of the numbers themselves, so that a constant curve has a scale too.
    """
    unit = high - low
    tiny = max(1e-12 * max(abs(low), abs(high)), _LEAST_UNIT)
    if not unit > tiny:
        values = np.asarray(fallback, dtype=float)
        values = values[np.isfinite(values)]
        unit = float(np.ptp(values)) if values.size else 0.0
        if not unit > tiny:
            unit = max(abs(low), abs(high))
            unit = unit if unit > _LEAST_UNIT else 1.0
        low = high - unit
    if not math.isfinite(unit) or not math.isfinite(low):  # huge numbers overflowed
        unit = float(np.finfo(float).max) / 4
        low = min(max(low, -unit), unit)
    return Scale(low, unit, maximize)


_TRANSIENT = 30.0  # heuristic


def typical_start(values: Array) -> float:
    """Return where a training starts, with the say of a transient limited.

    That is its first report, but no further below its best report than 30 times the median one is.
    An untrained network's loss of 1e6 before the first update, or a perplexity of 50 000, says
    nothing about the scale on which trainings differ.

    Args:
        values: Oriented values, shape (n,), n >= 1.
    """
    first, best = float(values[0]), float(np.max(values))
    behind = best - float(np.median(values))
    return max(first, best - _TRANSIENT * behind) if behind > 0.0 else first
