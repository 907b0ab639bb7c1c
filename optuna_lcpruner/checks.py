"""Checks of a caller's arguments: the value, or an error that names it and what is allowed."""

from __future__ import annotations

import numpy as np


class InputError(ValueError):
    """What was given cannot be used; the message says what and what to give instead."""


def integer(name: str, value: object, low: int) -> int:
    """The value, an integer of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, but got {value!r}.")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, but got {value}.")
    return int(value)


def real(name: str, value: object, low: float, high: float) -> float:
    """The value, a number between ``low`` and ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, but got {value!r}.")
    if not low <= float(value) <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, but got {value!r}.")
    return float(value)


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """The value, one of the allowed ones."""
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, allowed))}, but got {value!r}."
        )
    return str(value)
