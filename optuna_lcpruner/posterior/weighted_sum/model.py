"""The weighted combination of curve families and the prior of its parameters, as objects.

    f(t) = sum_k w_k f_k(t | theta_k),   z_i = f(t_i) + sigma eps_i   (larger is better)

Glossary (W coordinate vectors at once, D coordinates):
    v       coordinates, a priori N(0, I), shape (W, D): each weight, shape parameter and sigma is
            the quantile of its prior at Phi(v)
What the data say of them is in :mod:`~optuna_lcpruner.posterior.weighted_sum.marginal_likelihood`.

Source: Domhan et al. 2015, eq. 3-6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner.curves.distributions import Distribution, Exponential, LogNormal, Normal
from optuna_lcpruner.curves.families import FAMILIES, Family

Parts = tuple[tuple[Array | float, ...], Array | float]
"""Columns for the linear parameters (1.0 for a constant), and the rest."""


@dataclass(frozen=True)
class Member:
    """A family in the combination, and the prior of its parameters.

    Attributes:
        family: The family, by name in :data:`~optuna_lcpruner.curves.FAMILIES` or itself.
        nonlinear: Priors of its sampled parameters.
        shape: ``(horizon, sampled parameters...) -> shape parameters of the family's kernel``.
        linear: Priors of its linear parameters.
        basis: ``(phi(1), phi(T), phi, sampled parameters...) -> (columns, rest)``: the member is
            the linear parameters times the columns, plus the rest; shapes (W, 1), (W, 1), (W, n).
        weight: Prior of its weight; None fixes the weight at 1.
    """

    family: str | Family
    nonlinear: tuple[Distribution, ...]
    shape: Callable[..., tuple[Array, ...]]
    linear: tuple[Normal, ...]
    basis: Callable[..., Parts]
    weight: Distribution | None = None

    @property
    def resolved(self) -> Family:
        """The family itself."""
        return self.family if isinstance(self.family, Family) else FAMILIES[self.family]


@dataclass(frozen=True)
class WeightedCurves:
    """Prior of a learning curve that is a weighted sum of families.

    Attributes:
        members: The families.
        sigma: Prior of the noise's standard deviation.
    """

    members: tuple[Member, ...]
    sigma: Distribution

    @cached_property
    def blocks(self) -> IntArray:
        """Which member each coordinate belongs to; K is sigma. Shape (D,)."""
        sizes = [(m.weight is not None) + len(m.nonlinear) for m in self.members] + [1]
        return np.repeat(np.arange(len(sizes)), sizes)

    @property
    def n_coordinates(self) -> int:
        """D."""
        return int(self.blocks.size)

    @cached_property
    def _by_kind(self) -> list[tuple[IntArray, Distribution]]:
        """Coordinates with the same kind of prior, as one distribution with arrays in it."""
        priors: list[Distribution] = []
        for member in self.members:
            priors += ([] if member.weight is None else [member.weight]) + list(member.nonlinear)
        priors.append(self.sigma)
        groups = []
        for kind in (Normal, LogNormal, Exponential):
            where = [i for i, prior in enumerate(priors) if type(prior) is kind]
            if where:
                fields = [np.array(list(vars(priors[i]).values())) for i in where]
                groups.append((np.array(where), kind(*np.array(fields).T)))
        return groups

    def parameters(self, v: Array) -> Array:
        """Weights, shape parameters and sigma of coordinates, (W, D)."""
        values = np.empty(v.shape)
        for where, prior in self._by_kind:
            values[:, where] = prior.quantile(v[:, where])
        return values

    def shares(self, v: Array) -> dict[str, float]:
        """Mean of each family's weight over the sum of weights."""
        values = self.parameters(v)
        weights = np.ones((len(v), len(self.members)))
        for k, member in enumerate(self.members):
            if member.weight is not None:
                weights[:, k] = values[:, int(np.argmax(self.blocks == k))]
        mean = np.mean(weights / weights.sum(axis=1, keepdims=True), axis=0)
        return {m.resolved.name: float(share) for m, share in zip(self.members, mean, strict=True)}
