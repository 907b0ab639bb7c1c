"""The eleven curves as Domhan, Springenberg & Hutter (2015, table 1) write them.

An oracle for the kernels of :mod:`optuna_lcpruner.curves.families`, which are what is left once
asymptote and amplitude are taken out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_INF = np.inf


@dataclass(frozen=True)
class Formula:
    """One of the curves.

    Attributes:
        name: The name used in the source.
        parameters: Parameter names, in the order of ``theta``.
        bounds: One ``(low, high)`` pair a parameter; outside them a curve is out of support.
        linear: The parameters that only set asymptote and amplitude.
        shape: The names of the kernel's shape parameters (a ratio where the formula needs one).
        curve: ``(theta columns..., t) -> f``.
        split: ``theta columns -> (asymptote, amplitude, shape columns)``, so that
            ``curve == asymptote + amplitude * kernel``.
    """

    name: str
    parameters: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]
    linear: tuple[str, ...]
    shape: tuple[str, ...]
    curve: Callable[..., Array]
    split: Callable[..., tuple[Array, Array, tuple[Array, ...]]]

    def evaluate(self, theta: ArrayLike, t: ArrayLike) -> Array:
        """``f(t | theta)``, (..., n_parameters) -> (..., n_positions); out of support ``-inf``."""
        theta = np.asarray(theta, dtype=float)
        t = np.atleast_1d(np.asarray(t, dtype=float))
        low, high = np.transpose(self.bounds)
        inside = np.all((theta >= low) & (theta <= high), axis=-1, keepdims=True)
        columns = [theta[..., i, None] for i in range(theta.shape[-1])]
        with np.errstate(all="ignore"):
            values = self.curve(*columns, t)
        return np.where(inside & np.isfinite(values), values, -np.inf)


def _power(x: Array, exponent: Array) -> Array:
    return np.asarray(np.exp(exponent * np.log(x)))


def _saturation(x: Array, exponent: Array) -> Array:
    return np.asarray(1.0 / (1.0 + _power(x, exponent)))


_TABLE = (
    Formula(
        name="vapor pressure",
        parameters=("a", "b", "c"),
        bounds=((-50.0, 50.0), (-_INF, _INF), (-10.0, 10.0)),
        linear=("a",),
        shape=("b", "c"),
        curve=lambda a, b, c, t: np.exp(a + b / t + c * np.log(t)),
        split=lambda a, b, c: (np.zeros_like(a), np.exp(a), (b, c)),
    ),
    Formula(
        name="pow3",
        parameters=("c", "a", "alpha"),
        bounds=((-_INF, _INF), (-_INF, _INF), (0.0, 20.0)),
        linear=("c", "a"),
        shape=("alpha",),
        curve=lambda c, a, alpha, t: c - a * _power(t, -alpha),
        split=lambda c, a, alpha: (c, -a, (alpha,)),
    ),
    Formula(
        name="log log linear",
        parameters=("a", "b"),
        bounds=((0.0, _INF), (0.0, _INF)),
        linear=(),
        shape=("a/b",),
        curve=lambda a, b, t: np.log(a * np.log(t) + b),
        split=lambda a, b: (np.log(b), np.ones_like(b), (a / b,)),
    ),
    Formula(
        name="Hill3",
        parameters=("theta", "eta", "kappa"),
        bounds=((-_INF, _INF), (0.0, 50.0), (0.0, _INF)),
        linear=("theta",),
        shape=("eta", "kappa"),
        curve=lambda theta, eta, kappa, t: theta * _saturation(kappa / t, eta),
        split=lambda theta, eta, kappa: (np.zeros_like(theta), theta, (eta, kappa)),
    ),
    Formula(
        name="log power",
        parameters=("a", "b", "c"),
        bounds=((-_INF, _INF), (-50.0, 50.0), (-50.0, 0.0)),
        linear=("a",),
        shape=("b", "c"),
        curve=lambda a, b, c, t: a * _saturation(t / np.exp(b), c),
        split=lambda a, b, c: (np.zeros_like(a), a, (b, c)),
    ),
    Formula(
        name="pow4",
        parameters=("c", "a", "b", "alpha"),
        bounds=((-_INF, _INF), (0.0, _INF), (-_INF, _INF), (0.0, 20.0)),
        linear=("c",),
        shape=("b/a", "alpha"),
        curve=lambda c, a, b, alpha, t: c - _power(a * t + b, -alpha),
        split=lambda c, a, b, alpha: (c, -_power(a, -alpha), (b / a, alpha)),
    ),
    Formula(
        name="MMF",
        parameters=("alpha", "beta", "kappa", "delta"),
        bounds=((-_INF, _INF), (-_INF, _INF), (0.0, _INF), (0.0, 50.0)),
        linear=("alpha", "beta"),
        shape=("kappa", "delta"),
        curve=lambda alpha, beta, kappa, delta, t: (
            alpha - (alpha - beta) * _saturation(kappa * t, delta)
        ),
        split=lambda alpha, beta, kappa, delta: (alpha, beta - alpha, (kappa, delta)),
    ),
    Formula(
        name="exp4",
        parameters=("c", "a", "b", "alpha"),
        bounds=((-_INF, _INF), (0.0, _INF), (-50.0, 50.0), (0.0, 50.0)),
        linear=("c", "b"),
        shape=("a", "alpha"),
        curve=lambda c, a, b, alpha, t: c - np.exp(b - a * _power(t, alpha)),
        split=lambda c, a, b, alpha: (c, -np.exp(b), (a, alpha)),
    ),
    Formula(
        name="Janoschek",
        parameters=("alpha", "beta", "kappa", "delta"),
        bounds=((-_INF, _INF), (-_INF, _INF), (0.0, _INF), (0.0, 50.0)),
        linear=("alpha", "beta"),
        shape=("kappa", "delta"),
        curve=lambda alpha, beta, kappa, delta, t: (
            alpha - (alpha - beta) * np.exp(-kappa * _power(t, delta))
        ),
        split=lambda alpha, beta, kappa, delta: (alpha, beta - alpha, (kappa, delta)),
    ),
    Formula(
        name="Weibull",
        parameters=("alpha", "beta", "kappa", "delta"),
        bounds=((-_INF, _INF), (-_INF, _INF), (0.0, _INF), (0.0, 50.0)),
        linear=("alpha", "beta"),
        shape=("kappa", "delta"),
        curve=lambda alpha, beta, kappa, delta, t: (
            alpha - (alpha - beta) * np.exp(-_power(kappa * t, delta))
        ),
        split=lambda alpha, beta, kappa, delta: (alpha, beta - alpha, (kappa, delta)),
    ),
    Formula(
        name="ilog2",
        parameters=("c", "a"),
        bounds=((-_INF, _INF), (-_INF, _INF)),
        linear=("c", "a"),
        shape=(),
        curve=lambda c, a, t: c - a / np.log(t + 1.0),
        split=lambda c, a: (c, -a, ()),
    ),
)

FORMULAS = {formula.name: formula for formula in _TABLE}
