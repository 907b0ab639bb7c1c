"""The prior of the weighted combination: the paper's, made proper.

Glossary:
    T     the horizon
    end   a member's value at the horizon, rise its gain from position 1 to the horizon
    tau   a member's time scale; 0.1 T a priori, within a factor of 20

The paper's prior is flat, and improper, on every parameter. Here each member gets a proper one that
is vague on the working scale (0 a typical start, 1 the study's best value):

    w_k     ~ Exponential(mean 1/K): flat on the simplex once normalised; their sum is about 1
    end_k   ~ N(0.5, 1), rise_k ~ N(0.4, 1) where both are free; together, weighted, f(T) then is
              about N(0.5, 0.45^2) with eleven families, as in the closed-form engine
    positive ends and rises (vapor pressure, pow4, exp4)  ~ Exponential(mean 0.75)
    ln tau  ~ N(ln 0.1 T, 1.5^2), ln steepness ~ N(0, 0.7^2), powers and offsets as below
    ln sigma ~ N(-3.5, 1.5^2)

A member with one parameter only, or one whose sign is fixed, keeps that: these are the families of
the table, not generalisations of them.

Source: Domhan et al. 2015, table 1 and eq. 4-5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.distributions import Distribution, Exponential, LogNormal, Normal
from optuna_lcpruner.curves.families import FAMILIES, Family, families_of
from optuna_lcpruner.posterior.weighted_sum.model import Member, Parts, WeightedCurves

END = Normal(0.5, 1.0)  # heuristic
RISE = Normal(0.4, 1.0)  # heuristic
POSITIVE = Exponential(0.75)  # heuristic
STEEPNESS = LogNormal(0.0, 0.7)  # heuristic
SCALE = LogNormal(float(np.log(0.1)), 1.5)  # of tau / T; heuristic
SIGMA = LogNormal(-3.5, 1.5)  # heuristic


# Kernel shapes from the sampled parameters; functions with a name, so that priors can be pickled.


def _as_they_are(horizon: float, *sampled: Array) -> tuple[Array, ...]:
    return sampled


def _of_vapor_pressure(horizon: float, b: Array, c: Array, _: Array) -> tuple[Array, ...]:
    return -b * horizon, c


def _steepness_and_scale(horizon: float, tau: Array, eta: Array) -> tuple[Array, ...]:
    return eta, tau * horizon


def _log_scale_and_steepness(horizon: float, tau: Array, c: Array) -> tuple[Array, ...]:
    return np.log(tau * horizon), -c


def _offset_and_power(horizon: float, offset: Array, alpha: Array, _: Array) -> tuple[Array, ...]:
    return offset * horizon, alpha


def _rate_and_steepness(horizon: float, tau: Array, delta: Array) -> tuple[Array, ...]:
    return 1.0 / (tau * horizon), delta


def _coefficient_and_steepness(
    horizon: float, tau: Array, delta: Array, *_: Array
) -> tuple[Array, ...]:
    return (tau * horizon) ** -delta, delta


# Columns of the linear parameters, and the rest.


def _end_and_rise(first: Array, last: Array, phi: Array, *_: Array) -> Parts:
    return (1.0, (phi - last) / (last - first)), 0.0


def _end_and_given_rise(first: Array, last: Array, phi: Array, *sampled: Array) -> Parts:
    return (1.0,), sampled[-1] * (phi - last) / (last - first)


def _end_and_own_rise(first: Array, last: Array, phi: Array, *_: Array) -> Parts:
    return (1.0,), phi - last


def _end(first: Array, last: Array, phi: Array, *_: Array) -> Parts:
    return (phi / last,), 0.0


def _given_end(first: Array, last: Array, phi: Array, *sampled: Array) -> Parts:
    return (), sampled[-1] * phi / last


_WITHOUT_WEIGHT = (
    Member(
        "vapor pressure",
        (LogNormal(float(np.log(0.03)), 1.5), Normal(0.04, 0.1), POSITIVE),
        _of_vapor_pressure,
        (),
        _given_end,
    ),
    Member(
        "pow3",
        (LogNormal(float(np.log(0.5)), 1.0),),
        _as_they_are,
        (END, RISE),
        _end_and_rise,
    ),
    Member(
        "log log linear",
        (LogNormal(float(np.log(3.0)), 1.5),),
        _as_they_are,
        (END,),
        _end_and_own_rise,
    ),
    Member(
        "Hill3",
        (SCALE, STEEPNESS),
        _steepness_and_scale,
        (END,),
        _end,
    ),
    Member(
        "log power",
        (SCALE, STEEPNESS),
        _log_scale_and_steepness,
        (END,),
        _end,
    ),
    Member(
        "pow4",
        (LogNormal(float(np.log(0.05)), 1.5), LogNormal(float(np.log(0.75)), 0.9), POSITIVE),
        _offset_and_power,
        (END,),
        _end_and_given_rise,
    ),
    Member(
        "MMF",
        (SCALE, STEEPNESS),
        _rate_and_steepness,
        (END, RISE),
        _end_and_rise,
    ),
    Member(
        "exp4",
        (SCALE, STEEPNESS, POSITIVE),
        _coefficient_and_steepness,
        (END,),
        _end_and_given_rise,
    ),
    Member(
        "Janoschek",
        (SCALE, STEEPNESS),
        _coefficient_and_steepness,
        (END, RISE),
        _end_and_rise,
    ),
    Member(
        "Weibull",
        (SCALE, STEEPNESS),
        _rate_and_steepness,
        (END, RISE),
        _end_and_rise,
    ),
    Member(
        "ilog2",
        (),
        _as_they_are,
        (END, RISE),
        _end_and_rise,
    ),
)

_PAPER = MappingProxyType({member.resolved.name: member for member in _WITHOUT_WEIGHT})


def free_member(
    family: str | Family,
    *shape_priors: Distribution,
    shape: Callable[..., tuple[Array, ...]] = _as_they_are,
) -> Member:
    """A family with the paper's priors of its end and rise, for :func:`paper_prior`.

    Args:
        family: A family that is linear in its asymptote and amplitude: one of your own, or a name.
        shape_priors: Priors of what is sampled, one for each argument of ``shape``.
        shape: ``(horizon, sampled...) -> shape parameters of the kernel``, for scales that follow
            the horizon; by default what is sampled as it is.
    """
    return Member(family, shape_priors, shape, (END, RISE), _end_and_rise)


def paper_prior(families: Iterable[str | Member] = tuple(FAMILIES)) -> WeightedCurves:
    """The prior of Domhan et al. (2015), made proper, for any subset of the families, and more.

    A single family has weight 1: its linear parameters say the same already.

    Args:
        families: Names of the table's, or members of one's own, see :func:`free_member`.

    Raises:
        ValueError: If no family is named, or one that does not exist, or one twice.
        TypeError: If one is neither a name nor a member.
    """
    given = tuple(families)
    for family in given:
        if isinstance(family, Family):
            raise TypeError(f"{family.name!r} needs priors of its shape: free_member(...).")
    families_of(f.family if isinstance(f, Member) else f for f in given)
    weight = Exponential(1.0 / len(given)) if len(given) > 1 else None
    members = (_PAPER[f] if isinstance(f, str) else f for f in given)
    return WeightedCurves(tuple(replace(member, weight=weight) for member in members), SIGMA)
