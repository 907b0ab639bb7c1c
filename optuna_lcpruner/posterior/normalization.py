"""Oriented values -> working values in the range that curve priors are made for."""

from __future__ import annotations

import numpy as np

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.scale import Scale

FAR = 1e100  # heuristic
"""Working values are cut off here, since squares of larger ones could overflow."""


def normalize(values: Array, scale: Scale) -> tuple[Array, float, float]:
    """Bring a curve into the range its prior is made for.

    Args:
        values: Oriented values of the curve, shape (n,).
        scale: The study's working scale.

    Returns:
        Normalized values, stretch and shift: the working value is ``stretch * normalized + shift``.

    A start at 1e4 or one exploding batch must not blow up the noise of a curve that has recovered,
    so values are clipped below at -1 or at the lowest of the last quarter, whichever is lower. A
    curve that is still out there is judged around where it is: its last value is moved to the
    prior's usual asymptote, and the prior is stretched to a twentieth of the curve's size and of
    the way back.
    """
    z = np.clip((values - scale.location) / scale.unit, -FAR, FAR)
    recent = z[-max(2, z.size // 4) :]
    z = np.maximum(z, min(-1.0, float(np.min(recent))))
    last = float(z[-1])
    if last >= -1.0:
        stretch = max(1.0, float(np.max(np.abs(z))) / 2.0)
        return z / stretch, stretch, 0.0
    stretch = max(1.0, float(np.ptp(z)) / 20.0, (0.5 - last) / 20.0)
    shift = last - 0.5 * stretch
    return (z - last) / stretch + 0.5, stretch, shift


def floor_of(values: Array, scale: Scale) -> float:
    """The best of a curve's oriented values, shape (n,), as a working value; it stays finite."""
    return float(np.clip((np.max(values) - scale.location) / scale.unit, -FAR, FAR))
