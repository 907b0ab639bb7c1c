"""Which trials keep the study's constraints, as Optuna judges it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial

_KEY = "constraints"
"""System attribute: a list of values (samplers' ``constraints_func``); or a prefix,
``constraints:`` and a name, with one value each (``trial.set_constraint``, Optuna 5)."""


def is_feasible(trial: FrozenTrial) -> bool:
    """Return whether all constraint values of a trial are zero or less; so are none at all."""
    return all(value <= 0.0 for value in constraint_values(trial.system_attrs))


def constraint_values(system_attrs: Mapping[str, Any]) -> Iterator[float]:
    """Yield the constraint values in system attributes, as Optuna 4 and 5 store them."""
    yield from system_attrs.get(_KEY) or ()
    for key, value in system_attrs.items():
        if key.startswith(f"{_KEY}:"):
            yield value
