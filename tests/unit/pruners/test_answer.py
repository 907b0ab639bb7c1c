"""What an engine is asked, and when."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import BAD, N_STEPS, good_trials, judge, make_study, reports

from optuna_lcpruner import LearningCurvePruner, Reason
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.pruners._answer import ask

CURVE = LearningCurve(np.arange(1.0, 6.0), np.linspace(0.1, 0.5, 5), 20)
KNOWLEDGE = StudyKnowledge(Scale(0.0, 1.0, True))
FORECAST = ClosedForm()(CURVE, KNOWLEDGE)


class Fast:
    """An engine that knows the probability first, and counts how often it makes a forecast."""

    def __init__(self, p: float) -> None:
        self.p = p
        self.n_forecasts = 0

    def __call__(self, *_: Any) -> Forecast:
        raise AssertionError("p_and_forecast is asked")

    def p_and_forecast(self, *_: Any) -> tuple[float, Callable[[], Forecast]]:
        def forecast() -> Forecast:
            self.n_forecasts += 1
            return FORECAST

        return self.p, forecast


def test_a_fast_engine_makes_its_forecast_once_and_when_it_is_wanted() -> None:
    engine = Fast(0.25)
    answer = ask(engine, CURVE, KNOWLEDGE, 0.9)
    assert (answer.p, answer.doubt, engine.n_forecasts) == (0.25, "", 0)
    assert answer.forecast() is answer.forecast() is FORECAST
    assert engine.n_forecasts == 1


def test_another_engine_is_asked_for_its_forecast() -> None:
    answer = ask(lambda curve, knowledge, positions=None: FORECAST, CURVE, KNOWLEDGE, 0.9)
    assert answer.p == FORECAST.p_beats(0.9)
    assert answer.forecast() is FORECAST
    assert answer.doubt == ""


@pytest.mark.parametrize("converged", [True, False])
def test_a_run_that_has_not_converged_is_in_doubt(converged: bool) -> None:
    run: Any = SimpleNamespace(converged=converged, status="not converged: 12 draws")
    forecast = replace(FORECAST, diagnostics=run)
    answer = ask(lambda curve, knowledge, positions=None: forecast, CURVE, KNOWLEDGE, 0.9)
    assert answer.doubt == ("" if converged else "not converged: 12 draws")


@pytest.mark.parametrize("p", [math.nan, math.inf])
def test_no_number_is_an_error(p: float) -> None:
    with pytest.raises(ArithmeticError, match="P\\(beat\\) is"):
        ask(Fast(p), CURVE, KNOWLEDGE, 0.9)


def test_and_no_decision(warned: list[str]) -> None:
    pruner = LearningCurvePruner(N_STEPS, engine=Fast(math.nan))
    decision = judge(make_study(good_trials()), pruner, reports(BAD[:12]))
    assert decision.reason is Reason.FAILED
    assert len(warned) == 1
