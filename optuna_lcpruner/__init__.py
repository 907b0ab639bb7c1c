"""An Optuna pruner that extrapolates learning curves with a Bayesian ensemble.

The names below are imported when they are first used, so that ``import optuna_lcpruner`` alone
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from optuna_lcpruner.version import __version__

if TYPE_CHECKING:
    from optuna_lcpruner.dashboard import publish_to_dashboard, upload_forecast
    from optuna_lcpruner.decision import Decision, Reason
    from optuna_lcpruner.explanation import Explanation, explain
    from optuna_lcpruner.extrapolate import forecast
    from optuna_lcpruner.forecast_sampler import ForecastSampler
    from optuna_lcpruner.forecaster import Forecaster
    from optuna_lcpruner.predictive import Forecast
    from optuna_lcpruner.pruner import LearningCurvePruner
    from optuna_lcpruner.report_text import Report
    from optuna_lcpruner.second_chance import requeue
    from optuna_lcpruner.study_report import report

__all__ = [
    "Decision",
    "Explanation",
    "Forecast",
    "ForecastSampler",
    "Forecaster",
    "LearningCurvePruner",
    "Reason",
    "Report",
    "__version__",
    "explain",
    "forecast",
    "publish_to_dashboard",
    "report",
    "requeue",
    "upload_forecast",
]

_HOMES = {
    "Decision": "decision",
    "Explanation": "explanation",
    "Forecast": "predictive",
    "ForecastSampler": "forecast_sampler",
    "Forecaster": "forecaster",
    "LearningCurvePruner": "pruner",
    "Reason": "decision",
    "Report": "report_text",
    "explain": "explanation",
    "forecast": "extrapolate",
    "publish_to_dashboard": "dashboard",
    "report": "study_report",
    "requeue": "second_chance",
    "upload_forecast": "dashboard",
}
"""Name -> the module it is defined in."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
