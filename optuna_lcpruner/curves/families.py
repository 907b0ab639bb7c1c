"""The eleven parametric learning curves of Domhan, Springenberg & Hutter (2015), in one table.

Glossary:
    t      position in training, >= 1 (number of reports, not the caller's step)
    theta  all parameters of a family, shape (..., n_parameters)
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
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_DOMHAN = "Domhan et al. 2015, table 1"


@dataclass(frozen=True)
class Family:
    """One parametric learning curve.

    Attributes:
        name: The name used in the source.
        formula: ``f(t)`` as text.
        parameters: Parameter names, in the order of ``theta``.
        bounds: One ``(low, high)`` pair a parameter; outside them a curve is out of support.
        linear: The parameters that only set asymptote and amplitude.
        shape: The names of the kernel's shape parameters (a ratio where the formula needs one).
        curve: ``(theta columns..., t) -> f``.
        kernel: ``(shape columns..., t) -> phi``.
        split: ``theta columns -> (asymptote, amplitude, shape columns)``, so that
            ``curve == asymptote + amplitude * kernel``.
        shape_grid: ``horizon -> (n_shapes, n_shape_parameters)``, the shapes that the closed-form
            posterior considers; scales follow the horizon, exponents do not.
        source: Where the formula comes from.

    Raises:
        ValueError: If there is not a pair of bounds for each parameter.
        TypeError: If what has to be a tuple is another sequence.
    """

    name: str
    formula: str
    parameters: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]
    linear: tuple[str, ...]
    shape: tuple[str, ...]
    curve: Callable[..., Array]
    kernel: Callable[..., Array]
    split: Callable[..., tuple[Array, Array, tuple[Array, ...]]]
    shape_grid: Callable[[float], Array]
    source: str = _DOMHAN

    def __post_init__(self) -> None:
        if len(self.bounds) != len(self.parameters):
            raise ValueError(
                f"{self.name} needs bounds for each of {self.parameters}, but got {self.bounds}."
            )
        try:
            hash(self)  # what is worked out of families is kept by them
        except TypeError:
            raise TypeError(
                f"{self.name}: parameters, bounds, linear and shape must be tuples."
            ) from None

    def evaluate(self, theta: ArrayLike, t: ArrayLike) -> Array:
        """``f(t | theta)`` for many parameter sets at once.

        Args:
            theta: Parameters, shape ``(..., n_parameters)``.
            t: Positions, shape ``(n_positions,)``, each >= 1.

        Returns:
            Values, shape ``(..., n_positions)``. A curve with a parameter outside its bounds, and
            every single position where the formula has no finite value, is ``-inf``: never NaN,
            never a warning.

        Raises:
            ValueError: If the last axis of ``theta`` is not ``n_parameters`` long or a position
                lies below 1.
        """
        theta = np.asarray(theta, dtype=float)
        t = _positions(t)
        if theta.ndim == 0 or theta.shape[-1] != len(self.parameters):
            raise ValueError(
                f"{self.name} takes {len(self.parameters)} parameters {self.parameters} "
                f"on the last axis, but got shape {theta.shape}."
            )
        low, high = np.transpose(self.bounds)
        inside = np.all((theta >= low) & (theta <= high), axis=-1, keepdims=True)
        columns = [theta[..., i, None] for i in range(theta.shape[-1])]
        with np.errstate(all="ignore"):
            values = self.curve(*columns, t)
        return np.where(inside & np.isfinite(values), values, -np.inf)

    def kernels(self, shapes: ArrayLike, t: ArrayLike) -> Array:
        """``phi(t)`` for many shapes, ``(..., n_shape_parameters) -> (..., n_positions)``.

        Positions without a finite value are ``-inf``, as in :meth:`evaluate`.
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
_SCALES = np.geomspace(0.005, 2.0, 12)
_STEEPNESS = np.array([0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0])
_POWERS = np.array([0.02, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0])


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


_INF = np.inf

_TABLE = (
    Family(
        name="vapor pressure",
        formula="exp(a + b/t + c ln t)",
        parameters=("a", "b", "c"),
        bounds=((-50.0, 50.0), (-_INF, _INF), (-10.0, 10.0)),
        linear=("a",),
        shape=("b", "c"),
        curve=lambda a, b, c, t: np.exp(a + b / t + c * np.log(t)),
        kernel=lambda b, c, t: np.exp(b / t + c * np.log(t)),
        split=lambda a, b, c: (np.zeros_like(a), np.exp(a), (b, c)),
        shape_grid=lambda m: _grid(
            np.r_[0.0, -0.3, -1.0, -m * np.array([0.03, 0.1, 0.3, 1.0])], [0.0, 0.05, 0.2, 0.5]
        )[1:],
    ),
    Family(
        name="pow3",
        formula="c - a t^(-alpha)",
        parameters=("c", "a", "alpha"),
        bounds=((-_INF, _INF), (-_INF, _INF), (0.0, 20.0)),
        linear=("c", "a"),
        shape=("alpha",),
        curve=lambda c, a, alpha, t: c - a * _power(t, -alpha),
        kernel=lambda alpha, t: _power(t, -alpha),
        split=lambda c, a, alpha: (c, -a, (alpha,)),
        shape_grid=lambda m: _grid(_POWERS),
    ),
    Family(
        name="log log linear",
        formula="ln(a ln t + b)",
        parameters=("a", "b"),
        bounds=((0.0, _INF), (0.0, _INF)),
        linear=(),
        shape=("a/b",),
        curve=lambda a, b, t: np.log(a * np.log(t) + b),
        kernel=lambda ratio, t: np.log1p(ratio * np.log(t)),
        split=lambda a, b: (np.log(b), np.ones_like(b), (a / b,)),
        shape_grid=lambda m: _grid([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]),
    ),
    Family(
        name="Hill3",
        formula="theta t^eta / (kappa^eta + t^eta)",
        parameters=("theta", "eta", "kappa"),
        bounds=((-_INF, _INF), (0.0, 50.0), (0.0, _INF)),
        linear=("theta",),
        shape=("eta", "kappa"),
        curve=lambda theta, eta, kappa, t: theta * _saturation(kappa / t, eta),
        kernel=lambda eta, kappa, t: _saturation(kappa / t, eta),
        split=lambda theta, eta, kappa: (np.zeros_like(theta), theta, (eta, kappa)),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, _: scale)[:, ::-1],
    ),
    Family(
        name="log power",
        formula="a / (1 + (t / e^b)^c)",
        parameters=("a", "b", "c"),
        bounds=((-_INF, _INF), (-50.0, 50.0), (-50.0, 0.0)),
        linear=("a",),
        shape=("b", "c"),
        curve=lambda a, b, c, t: a * _saturation(t / np.exp(b), c),
        kernel=lambda b, c, t: _saturation(t / np.exp(b), c),
        split=lambda a, b, c: (np.zeros_like(a), a, (b, c)),
        shape_grid=lambda m: (
            _scale_and_steepness(m, lambda scale, _: np.log(scale)) * np.array([1.0, -1.0])
        ),
    ),
    Family(
        name="pow4",
        formula="c - (a t + b)^(-alpha)",
        parameters=("c", "a", "b", "alpha"),
        bounds=((-_INF, _INF), (0.0, _INF), (-_INF, _INF), (0.0, 20.0)),
        linear=("c",),
        shape=("b/a", "alpha"),
        curve=lambda c, a, b, alpha, t: c - _power(a * t + b, -alpha),
        kernel=lambda offset, alpha, t: _power(t + offset, -alpha),
        split=lambda c, a, b, alpha: (c, -_power(a, -alpha), (b / a, alpha)),
        shape_grid=lambda m: _grid(
            m * np.array([0.0, 0.01, 0.03, 0.1, 0.3, 1.0]), [0.1, 0.35, 0.75, 1.5, 3.0, 6.0]
        ),
    ),
    Family(
        name="MMF",
        formula="alpha - (alpha - beta) / (1 + (kappa t)^delta)",
        parameters=("alpha", "beta", "kappa", "delta"),
        bounds=((-_INF, _INF), (-_INF, _INF), (0.0, _INF), (0.0, 50.0)),
        linear=("alpha", "beta"),
        shape=("kappa", "delta"),
        curve=lambda alpha, beta, kappa, delta, t: (
            alpha - (alpha - beta) * _saturation(kappa * t, delta)
        ),
        kernel=lambda kappa, delta, t: _saturation(kappa * t, delta),
        split=lambda alpha, beta, kappa, delta: (alpha, beta - alpha, (kappa, delta)),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, _: 1.0 / scale),
    ),
    Family(
        name="exp4",
        formula="c - exp(-a t^alpha + b)",
        parameters=("c", "a", "b", "alpha"),
        bounds=((-_INF, _INF), (0.0, _INF), (-50.0, 50.0), (0.0, 50.0)),
        linear=("c", "b"),
        shape=("a", "alpha"),
        curve=lambda c, a, b, alpha, t: c - np.exp(b - a * _power(t, alpha)),
        kernel=lambda a, alpha, t: np.exp(-a * _power(t, alpha)),
        split=lambda c, a, b, alpha: (c, -np.exp(b), (a, alpha)),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, alpha: scale**-alpha),
    ),
    Family(
        name="Janoschek",
        formula="alpha - (alpha - beta) exp(-kappa t^delta)",
        parameters=("alpha", "beta", "kappa", "delta"),
        bounds=((-_INF, _INF), (-_INF, _INF), (0.0, _INF), (0.0, 50.0)),
        linear=("alpha", "beta"),
        shape=("kappa", "delta"),
        curve=lambda alpha, beta, kappa, delta, t: (
            alpha - (alpha - beta) * np.exp(-kappa * _power(t, delta))
        ),
        kernel=lambda kappa, delta, t: np.exp(-kappa * _power(t, delta)),
        split=lambda alpha, beta, kappa, delta: (alpha, beta - alpha, (kappa, delta)),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, delta: scale**-delta),
    ),
    Family(
        name="Weibull",
        formula="alpha - (alpha - beta) exp(-(kappa t)^delta)",
        parameters=("alpha", "beta", "kappa", "delta"),
        bounds=((-_INF, _INF), (-_INF, _INF), (0.0, _INF), (0.0, 50.0)),
        linear=("alpha", "beta"),
        shape=("kappa", "delta"),
        curve=lambda alpha, beta, kappa, delta, t: (
            alpha - (alpha - beta) * np.exp(-_power(kappa * t, delta))
        ),
        kernel=lambda kappa, delta, t: np.exp(-_power(kappa * t, delta)),
        split=lambda alpha, beta, kappa, delta: (alpha, beta - alpha, (kappa, delta)),
        shape_grid=lambda m: _scale_and_steepness(m, lambda scale, _: 1.0 / scale),
    ),
    Family(
        name="ilog2",
        formula="c - a / ln(t + 1)",
        parameters=("c", "a"),
        bounds=((-_INF, _INF), (-_INF, _INF)),
        linear=("c", "a"),
        shape=(),
        curve=lambda c, a, t: c - a / np.log(t + 1.0),
        kernel=lambda t: 1.0 / np.log(t + 1.0),
        split=lambda c, a: (c, -a, ()),
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
