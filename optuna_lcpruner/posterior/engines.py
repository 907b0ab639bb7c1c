"""The engines by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from optuna_lcpruner._util.validation import choice
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import Engine
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC

_ENGINES: Mapping[str, Callable[[], Engine]] = {
    "pool": OpinionPool,
    "closed_form": ClosedForm,
    "mcmc": MCMC,
}


def engine_of(engine: str | Engine) -> Engine:
    """The engine of this name, or the engine itself.

    Raises:
        ValueError: If there is no engine of this name.
        TypeError: If it is neither a name nor a callable.
    """
    if isinstance(engine, str):
        return _ENGINES[choice("engine", engine, tuple(_ENGINES))]()
    if not callable(engine):
        raise TypeError(f"engine must be a name or a callable, but got {engine!r}.")
    return engine
