"""The eleven parametric learning curves of Domhan, Springenberg & Hutter (2015), in one table.

Glossary:
    t      position in training, >= 1 (number of reports, not the caller's step)
    f      value of the curve at t, larger is better, shape (..., n_positions)
    phi    the family's kernel: what is left of f once asymptote and amplitude are taken out,
           f(t) = asymptote + amplitude * phi(t; shape parameters)

Every family but "log log linear" is linear in its asymptote and amplitude once its one or two
shape parameters are fixed; log log linear is so too, with an amplitude of one, after
ln(a ln t + b) = ln b + ln(1 + (a/b) ln t). The closed-form posterior integrates the linear part
exactly and puts the shape parameters on ``shape_grid``.

The eleven names hold eight function classes: log power is Hill3, Weibull and exp4 are Janoschek in
other parameters, Hill3 is MMF with ``beta = 0`` and pow3 with ``a > 0`` is pow4 with ``b = 0``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from optuna_lcpruner._util.arrays import Array


@dataclass(frozen=True)
class Family:
    """One parametric learning curve, up to its asymptote and amplitude.

    Attributes:
        name: The name used in the source.
        kernel: ``(shape parameters..., t) -> phi``, of arrays that broadcast.
        shape_grid: ``horizon -> (n_shapes, n_shape_parameters)``, the shapes that the closed-form
            posterior considers; scales follow the horizon, exponents do not.
    """

    name: str
    kernel: Callable[..., Array]
    shape_grid: Callable[[float], Array]

    def kernels(self, shapes: ArrayLike, t: ArrayLike) -> Array:
        """``phi(t)`` for many shapes, ``(..., n_shape_parameters) -> (..., n_positions)``.

        A position where the formula has no finite value is ``-inf``: never NaN, never a warning.

        Raises:
            ValueError: If a position lies below 1.
        """
        shapes = np.asarray(shapes, dtype=float)
        t = _positions(t)
        columns = [shapes[..., i, None] for i in range(shapes.shape[-1])]
        with np.errstate(all="ignore"):
            values = np.broadcast_to(self.kernel(*columns, t), (*shapes.shape[:-1], t.size))
        return np.where(np.isfinite(values), values, -np.inf)


def _positions(t: ArrayLike) -> Array:
    t = np.atleast_1d(np.asarray(t, dtype=float))
    if t.ndim != 1 or not np.all(t >= 1):
        raise ValueError(f"positions must be one-dimensional and at least 1, but got {t!r}.")
    return t


def _grid(*axes: ArrayLike) -> Array:
    """All combinations of the axes, shape (n, number of axes); no axis gives one empty shape."""
    rows = list(product(*(np.atleast_1d(np.asarray(axis, dtype=float)) for axis in axes)))
    return np.array(rows, dtype=float).reshape(len(rows), len(axes))


# Shape grids. Time scales run from 1/200 of the horizon (saturated at once) to twice the horizon
# (hardly begun), steepness from a very slow to a step-like rise. Nearly equal shapes are merged
# later, so a fine grid costs only set-up time.
_SCALES = np.geomspace(0.005, 2.0, 12)  # heuristic
_STEEPNESS = np.array([0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0])  # heuristic
_POWERS = np.array([0.02, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0])  # heuristic


def _power(x: Array, exponent: Array) -> Array:
    """x**exponent in log space for x >= 0: overflow gives inf, x = 0 its limit, never a NaN."""
    return np.asarray(np.exp(exponent * np.log(x)))


def _saturation(x: Array, exponent: Array) -> Array:
    """1 / (1 + x**exponent), for x >= 0, without overflow."""
    return np.asarray(1.0 / (1.0 + _power(x, exponent)))


def _scale_and_steepness(horizon: float, rate: Callable[[Array, Array], Array]) -> Array:
    """Grid of (rate, steepness): `rate` maps a time scale in positions to the parameter."""
    grid = _grid(_SCALES * horizon, _STEEPNESS)
    grid[:, 0] = rate(grid[:, 0], grid[:, 1])
    return grid


# The formula of the source stands beside each name.
_TABLE = (
    Family(  # exp(a + b/t + c ln t)
        name="vapor pressure",
        kernel=lambda b, c, t: np.exp(b / t + c * np.log(t)),
        shape_grid=lambda m: _grid(
            np.r_[0.0, -0.3, -1.0, -m * np.array([0.03, 0.1, 0.3, 1.0])], [0.0, 0.05, 0.2, 0.5]
        )[1:],
    ),
    Family(  # c - a t^(-alpha)
        name="pow3",
        kernel=lambda alpha, t: _power(t, -alpha),
        shape_grid=lambda m: _grid(_POWERS),
    ),
    Family(  # ln(a ln t + b)
        name="log log linear",
        kernel=lambda ratio, t: np.log1p(ratio * np.log(t)),
        shape_grid=lambda m: _grid([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]),
    ),
    Family(  # theta t^eta / (kappa^eta + t^eta)
        name="Hill3",
        kernel=lambda eta, kappa, t: _saturation(kappa / t, eta),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, _: scale)[:, ::-1],
    ),
    Family(  # a / (1 + (t / e^b)^c)
        name="log power",
        kernel=lambda b, c, t: _saturation(t / np.exp(b), c),
        shape_grid=lambda m: (
            _scale_and_steepness(m, lambda scale, _: np.log(scale)) * np.array([1.0, -1.0])
        ),
    ),
    Family(  # c - (a t + b)^(-alpha)
        name="pow4",
        kernel=lambda offset, alpha, t: _power(t + offset, -alpha),
        shape_grid=lambda m: _grid(
            m * np.array([0.0, 0.01, 0.03, 0.1, 0.3, 1.0]), [0.1, 0.35, 0.75, 1.5, 3.0, 6.0]
        ),
    ),
    Family(  # alpha - (alpha - beta) / (1 + (kappa t)^delta)
        name="MMF",
        kernel=lambda kappa, delta, t: _saturation(kappa * t, delta),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, _: 1.0 / scale),
    ),
    Family(  # c - exp(-a t^alpha + b)
        name="exp4",
        kernel=lambda a, alpha, t: np.exp(-a * _power(t, alpha)),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, alpha: scale**-alpha),
    ),
    Family(  # alpha - (alpha - beta) exp(-kappa t^delta)
        name="Janoschek",
        kernel=lambda kappa, delta, t: np.exp(-kappa * _power(t, delta)),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, delta: scale**-delta),
    ),
    Family(  # alpha - (alpha - beta) exp(-(kappa t)^delta)
        name="Weibull",
        kernel=lambda kappa, delta, t: np.exp(-_power(kappa * t, delta)),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, _: 1.0 / scale),
    ),
    Family(  # c - a / ln(t + 1)
        name="ilog2",
        kernel=lambda t: 1.0 / np.log(t + 1.0),
        shape_grid=lambda m: _grid(),
    ),
)

FAMILIES = MappingProxyType({family.name: family for family in _TABLE})
"""The eleven families by name, in the order of the source's table."""


Families = tuple[str | Family, ...]
"""Names of the table's, and families of one's own."""


def families_of(families: Iterable[str | Family]) -> tuple[Family, ...]:
    """The families of these names; one that is given itself is one of the caller's own.

    Raises:
        ValueError: If there is none, a name is not one of the eleven, or two have the same name.
        TypeError: If one is neither a name nor a :class:`Family`.
    """
    chosen = tuple(families)
    for family in chosen:
        if not isinstance(family, (str, Family)):
            raise TypeError(f"a family must be a name or a Family, but got {family!r}.")
    names = [family if isinstance(family, str) else family.name for family in chosen]
    unknown = {f for f in chosen if isinstance(f, str)} - set(FAMILIES)
    if not names or len(set(names)) < len(names) or unknown:
        raise ValueError(
            f"families must be distinct names among {(*FAMILIES,)} or families of your own with "
            f"other names, but got {(*names,)}."
        )
    return tuple(FAMILIES[f] if isinstance(f, str) else f for f in chosen)
