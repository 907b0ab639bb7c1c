"""The grid of curve shapes behind the closed-form posterior.

Glossary:
    K    knots (positions from 1 to the horizon), S shapes, F families
    psi  a kernel phi, shifted and scaled so that psi(1) = -1 and psi(horizon) = 0, shape (S, K):
         a curve is  asymptote + rise * psi(t),  its value at the horizon and its whole gain
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner.curves.families import Families, families_of
from optuna_lcpruner.curves.learning_curve import PositionGrid

MERGE_DISTANCE = 0.04  # heuristic
"""Shapes closer than this in sup norm count as one, their prior mass added up."""

_MERGE_KNOTS = 24  # heuristic


@dataclass(frozen=True)
class ShapeGrid:
    """Distinct shapes with their prior mass.

    Attributes:
        families: Names of the families, length F.
        psi: Normalised shapes on the knots, (S, K).
        mass: Prior mass that each family lends to each shape, (S, F), sums to 1.
        square: ``psi ** 2``, (S, K).
        product: ``psi[:, :-1] * psi[:, 1:]``, (S, K - 1).
    """

    families: tuple[str, ...]
    psi: Array
    mass: Array
    square: Array
    product: Array


@lru_cache(maxsize=16)
def shape_grid(horizon: int, families: Families) -> ShapeGrid:
    """Build the grid for a horizon; a few milliseconds, then cached.

    Each family has prior mass 1/F, spread evenly over its own shapes; where two families (or two
    shapes of one) describe the same curve, the shape is kept once and the masses add up.
    """
    knots = PositionGrid(horizon)
    blocks, owners = [], []
    chosen = families_of(families)
    for index, family in enumerate(chosen):
        psi = _normalised(family.kernels(family.shape_grid(float(horizon)), knots.positions))
        blocks.append(psi)
        owners.append(np.full(len(psi), index))
    psi, mass = _merged(np.concatenate(blocks), np.concatenate(owners), len(families))
    arrays = (psi, mass, psi**2, psi[:, :-1] * psi[:, 1:])
    for array in arrays:
        array.flags.writeable = False  # shared by all callers
    return ShapeGrid(tuple(family.name for family in chosen), *arrays)


def _normalised(phi: Array) -> Array:
    """Psi from phi; shapes that are flat or not finite on the knots are dropped."""
    with np.errstate(all="ignore"):
        gain = phi[:, -1:] - phi[:, :1]
        psi = (phi - phi[:, -1:]) / gain
    size = np.max(np.abs(phi), axis=1)
    usable = np.all(np.isfinite(psi), axis=1) & (np.abs(gain[:, 0]) > 1e-9 * size)
    kept: Array = psi[usable & (np.max(np.abs(psi), axis=1) < 5.0)]
    return kept


def _merged(psi: Array, owner: Sequence[int] | IntArray, n_families: int) -> tuple[Array, Array]:
    owner = np.asarray(owner)
    prior = 1.0 / (np.bincount(owner, minlength=n_families)[owner] * len(np.unique(owner)))
    columns = np.unique(np.linspace(0, psi.shape[1] - 1, _MERGE_KNOTS).astype(int))
    sample = psi[:, columns]
    kept = np.empty_like(sample)
    sources: list[int] = []
    mass = np.zeros((len(psi), n_families))
    for row, shape in enumerate(sample):
        n = len(sources)
        nearest, distance = -1, np.inf
        if n:
            distances = np.max(np.abs(kept[:n] - shape), axis=1)
            nearest = int(np.argmin(distances))
            distance = float(distances[nearest])
        if distance > MERGE_DISTANCE:
            kept[n] = shape
            sources.append(row)
            nearest = n
        mass[nearest, owner[row]] += prior[row]
    return np.ascontiguousarray(psi[sources]), mass[: len(sources)]
