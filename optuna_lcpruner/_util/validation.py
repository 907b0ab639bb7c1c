"""Checks of what comes from outside: the value, or an error that says what to give instead."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np


class InputError(ValueError):
    """What was given cannot be used; the message says what and what to give instead."""


def boolean(name: str, value: object) -> bool:
    """The value, True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, but got {value!r}.")
    return value


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


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A question to end an error with, where a name looks like a known one; else nothing."""
    close = get_close_matches(str(name), list(known), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """The value, one of the allowed ones."""
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, allowed))}, but got {value!r}."
            f"{did_you_mean(value, allowed)}"
        )
    return str(value)


def loaded(study: object) -> None:
    """Raise a TypeError where a study's name, or another thing, stands in its place."""
    if not hasattr(study, "get_trials"):
        called = f"study_name={study!r}" if isinstance(study, str) else "study_name=..."
        raise TypeError(
            f"study must be an optuna.Study, but got {study!r}: load it with "
            f"optuna.load_study({called}, storage=...)."
        )


def finite_or_none(value: float | None) -> float | None:
    """The value as a plain float; None where it is not finite, which no database keeps."""
    return float(value) if value is not None and math.isfinite(value) else None


def missing(what: str, *packages: str) -> InputError:
    """What to say where optional packages are not installed.

    Args:
        what: What needs them.
        packages: Their names, as pip has them.
    """
    return InputError(f"{what} needs {' and '.join(packages)}: pip install {' '.join(packages)}")
