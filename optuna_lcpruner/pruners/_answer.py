"""What an engine is asked about a trial, and its answer: P(beat), the forecast when wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import Engine, StudyKnowledge


@dataclass(frozen=True)
class Case:
    """A trial's curves beside what the study knows.

    Attributes:
        curves: The curve, then as it was at the looks before that patience asks about.
        knowledge: What the study knows.
        step: The newest step.
        incumbent: Best objective value so far, in the metric's units.
        ahead: Whether the trial already is better.
        slowness: Its pace by the study's mean; 1 where steps are what a training costs.
    """

    curves: tuple[LearningCurve, ...]
    knowledge: StudyKnowledge
    step: int
    incumbent: float
    ahead: bool
    slowness: float


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


@dataclass(frozen=True)
class Answers:
    """The engine's answers about these curves, the newest of which ends at ``step``."""

    curves: tuple[LearningCurve, ...]
    step: int
    answers: list[Answer]


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
