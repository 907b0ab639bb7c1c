"""What an engine answers about a curve: P(beat) at once, the forecast when it is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import Engine, StudyKnowledge


@dataclass(frozen=True)
class Answer:
    """P(beat), its forecast when wanted, and why neither can be trusted, if so."""

    p: float
    forecast: Callable[[], Forecast]
    doubt: str = ""

    @classmethod
    def of(cls, forecast: Forecast, incumbent: float) -> Answer:
        """Return the answer that a forecast gives."""
        found = forecast.diagnostics
        doubt = "" if found is None or found.converged else found.status
        return cls(_checked(forecast.p_beats(incumbent)), lambda: forecast, doubt)


def ask(
    engine: Engine, curve: LearningCurve, knowledge: StudyKnowledge, incumbent: float
) -> Answer:
    """Ask an engine; one that can gives P(beat) first, and most decisions need no more.

    Raises:
        ArithmeticError: If P(beat) is no number.
    """
    fast = getattr(engine, "p_and_forecast", None)  # isinstance of a protocol takes longer
    if fast is None:
        return Answer.of(engine(curve, knowledge), incumbent)
    p, forecast = fast(curve, knowledge)
    return Answer(_checked(p), cache(forecast))


def _checked(p: float) -> float:
    if not math.isfinite(p):  # of an engine that is not ours
        raise ArithmeticError(f"the engine's P(beat) is {p}")
    return p
