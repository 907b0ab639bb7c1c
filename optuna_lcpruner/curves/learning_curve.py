"""Validated learning curves and the mapping from the caller's steps to positions.

Glossary:
    step       what the objective passes to ``trial.report``: 0-based, 1-based, strided, unordered
    position   1, 2, ... in units of reports; the families' ``t``
    horizon    position of the last report of a full training
    knot       one of at most ``MAX_KNOTS`` evenly spaced positions from 1 to the horizon that stand
               for the curve; reports are averaged into the nearest knot
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optuna_lcpruner._util.arrays import Array, BoolArray, IntArray

MAX_KNOTS = 128  # heuristic
"""A curve of 10 000 reports costs no more than one of 128: neighbours are averaged."""


@dataclass(frozen=True)
class PositionGrid:
    """The positions that stand for a training of `horizon` reports."""

    horizon: int

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon must be at least 1, but got {self.horizon}.")

    @property
    def size(self) -> int:
        """Number of knots."""
        return min(self.horizon, MAX_KNOTS)

    @property
    def positions(self) -> Array:
        """Positions of the knots, shape (size,), from 1 to the horizon."""
        return _knot_positions(self.horizon)

    def nearest(self, positions: ArrayLike) -> IntArray:
        """Index of the nearest knot, same shape; beyond the horizon it is the last knot."""
        positions = np.asarray(positions, dtype=float)
        if self.size == 1:
            return np.zeros(positions.shape, dtype=np.int64)
        spacing = (self.horizon - 1) / (self.size - 1)
        index = np.rint((positions - 1) / spacing)
        return np.minimum(np.maximum(index, 0), self.size - 1).astype(np.int64)


@lru_cache(maxsize=64)
def _knot_positions(horizon: int) -> Array:
    positions = np.linspace(1.0, float(horizon), min(horizon, MAX_KNOTS))
    positions.flags.writeable = False
    return positions


@dataclass(frozen=True)
class LearningCurve:
    """The part of a training that has been seen: larger is better, finite, in order.

    Attributes:
        positions: Strictly increasing positions >= 1, shape (n,).
        values: Oriented values, shape (n,).
        horizon: Position of the last report of a full training.
        stride: The caller's steps from one position to the next.
        p_by_ranks: P that it ends better than the study's completed trials, by where it stands
            among all that came as far; None where that says nothing.
    """

    positions: Array
    values: Array
    horizon: int
    stride: float = 1.0
    p_by_ranks: float | None = None

    def __post_init__(self) -> None:
        positions = np.array(self.positions, dtype=float)
        values = np.array(self.values, dtype=float)
        if positions.ndim != 1 or positions.shape != values.shape or positions.size == 0:
            raise ValueError(
                "positions and values must be one-dimensional, equally long and not empty, "
                f"but got shapes {positions.shape} and {values.shape}."
            )
        if not (np.all(np.isfinite(positions)) and positions[0] >= 1):
            raise ValueError(f"positions must be finite and at least 1, but got {positions!r}.")
        if not np.all(positions[1:] > positions[:-1]):
            raise ValueError(f"positions must be strictly increasing, but got {positions!r}.")
        if not np.all(np.isfinite(values)):
            raise ValueError(f"values must be finite, but got {values!r}.")
        if int(self.horizon) != self.horizon or self.horizon < 1:
            raise ValueError(f"horizon must be a positive integer, but got {self.horizon}.")
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "horizon", int(self.horizon))

    @property
    def n_points(self) -> int:
        """Number of reports seen."""
        return int(self.positions.size)

    @property
    def seen(self) -> float:
        """Fraction of the training that has been seen, n / T."""
        return float(self.positions[-1]) / self.horizon

    @property
    def knots(self) -> PositionGrid:
        """The knots of this training."""
        return PositionGrid(self.horizon)

    @property
    def on_knots(self) -> tuple[IntArray, Array]:
        """Observed knots and the mean of the values at each, shapes (k,) and (k,).

        Only whole knots, as completed trainings have: early in a long training the mean of a knot's
        first reports is far from that of all. While none is whole, the one that has begun.
        """
        index, means, n_whole = self._averaged
        return index[: max(n_whole, 1)], means[: max(n_whole, 1)]

    @property
    def n_whole_knots(self) -> int:
        """Number of knots that no further report will fall on, if they go on as the last two."""
        return self._averaged[2]

    @cached_property
    def _averaged(self) -> tuple[IntArray, Array, int]:
        index, means = average_on_knots(self.knots, self.positions, self.values)
        return index, means, index.size - (not self._newest_is_whole)

    @property
    def _newest_is_whole(self) -> bool:
        """Whether the next report, after a gap like the last one, falls on a later knot."""
        if self.horizon <= MAX_KNOTS or self.positions[-1] >= self.horizon:
            return True
        gap = 1.0 if self.n_points == 1 else float(self.positions[-1] - self.positions[-2])
        newest, following = self.knots.nearest(self.positions[-1] + np.array([0.0, gap]))
        return bool(following > newest)


def average_on_knots(
    knots: PositionGrid, positions: Array, values: Array
) -> tuple[IntArray, Array]:
    """Average values into their nearest knots: (indices in increasing order, means)."""
    index = knots.nearest(positions)
    if np.all(index[1:] > index[:-1]):
        return index, values
    counts = np.bincount(index, minlength=knots.size)
    observed = np.flatnonzero(counts).astype(np.int64)
    # Divide before adding: the sum of values near the largest float would overflow.
    means = np.bincount(index, weights=values / counts[index], minlength=knots.size)
    return observed, means[observed].astype(float, copy=False)


@dataclass(frozen=True)
class StepMap:
    """How the caller's steps become positions: ``position = step / stride + offset``.

    ``stride`` is the typical gap between reports. A first step of 0 is position 1; a first step
    of one stride or more (1, 2, ...; 500, 1000, ...; a resumed training) is ``step / stride``; but
    where it is known that all trainings begin there, on a counter that goes on, it is position 1.
    """

    stride: float = 1.0
    offset: float = 1.0

    @classmethod
    def of(
        cls, steps: ArrayLike, stride: float | None = None, first: float | None = None
    ) -> StepMap:
        """The map for a training's reported steps.

        Args:
            steps: Reported steps in increasing order, shape (n,), n >= 1.
            stride: Gap between reports where it is known from other trials of the study; by
                default the median gap of these steps, or 1 for a single report.
            first: Step at which trainings of the study begin, where it is known and lies before
                the first of ``steps``: of a resumed training, or one that began with NaN.
        """
        steps = np.asarray(steps, dtype=float)
        if stride is None:
            stride = typical_gap(steps) or 1.0
        start = float(steps[0]) if first is None else min(float(steps[0]), first)
        offset = 1.0 - start / stride
        return cls(stride, max(0.0, offset) if first is None else offset)

    def position(self, steps: ArrayLike) -> Array:
        """Positions of steps, same shape, each >= 1 for the steps of the training."""
        return np.asarray(steps, dtype=float) / self.stride + self.offset

    def horizon(self, n_steps: float) -> int:
        """Position of the last report of a training of `n_steps` steps.

        Reports come every ``stride`` steps from the first one on: as far as ``n_steps`` where that
        is not beyond ``stride``, else below it, as where they begin at 0. Where both are possible
        the smaller number is taken: a trial is let alone a report too early rather than stopped at
        its last.
        """
        reports = n_steps / self.stride + self.offset
        if 0.0 <= self.offset < 1.0:
            return max(1, math.floor(reports + _ROUNDING))
        return max(1, math.ceil(reports - 1.0 - _ROUNDING))


_ROUNDING = 1e-9  # heuristic


def typical_gap(steps: NDArray[Any]) -> float | None:
    """Median gap between increasing steps, None for fewer than two."""
    if steps.size < 2:
        return None
    gaps = steps[1:] - steps[:-1]
    if gaps.max() == gaps[0] == gaps.min():  # the usual case, a tenth of the time
        return float(gaps[0])
    return float(np.median(gaps))


LARGEST = 1e300  # heuristic
"""Values beyond this count as infinite: differences and sums of larger ones overflow."""


def usable(values: Array) -> BoolArray:
    """Which values are numbers to compute with: neither NaN nor, for all purposes, infinite."""
    magnitude = np.abs(values)
    return magnitude <= LARGEST  # False for NaN


def ordered(intermediate_values: Mapping[int, float]) -> tuple[IntArray, Array]:
    """Steps in increasing order and their values, as they were reported (NaN and inf included)."""
    steps = np.fromiter(intermediate_values.keys(), np.int64, len(intermediate_values))
    values = np.fromiter(intermediate_values.values(), np.float64, len(intermediate_values))
    if not np.all(steps[1:] > steps[:-1]):
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
    return steps, values
