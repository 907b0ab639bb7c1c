"""An Optuna pruner that extrapolates learning curves with a Bayesian ensemble.

The names below are imported when they are first used, so that ``import optuna_lcpruner`` alone
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from optuna_lcpruner.version import __version__

if TYPE_CHECKING:
    from optuna_lcpruner._util.validation import InputError
    from optuna_lcpruner.curves.horizon import set_n_steps
    from optuna_lcpruner.decision.decision import Decision, Reason
    from optuna_lcpruner.posterior.extrapolate import forecast
    from optuna_lcpruner.posterior.forecast import Forecast
    from optuna_lcpruner.pruners.combined import PruneIfAll, PruneIfAny
    from optuna_lcpruner.pruners.executor import worker_processes
    from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
    from optuna_lcpruner.pruners.remote import RemotePruner
    from optuna_lcpruner.reporting.build_report import report
    from optuna_lcpruner.reporting.explanation import Explanation, explain
    from optuna_lcpruner.reporting.report import Report
    from optuna_lcpruner.reporting.requeue import requeue
    from optuna_lcpruner.samplers.forecast_sampler import ForecastSampler
    from optuna_lcpruner.service.forecaster import Forecaster
    from optuna_lcpruner.visualization.dashboard import publish_to_dashboard, upload_forecast

__all__ = [
    "Decision",
    "Explanation",
    "Forecast",
    "ForecastSampler",
    "Forecaster",
    "InputError",
    "LearningCurvePruner",
    "PruneIfAll",
    "PruneIfAny",
    "Reason",
    "RemotePruner",
    "Report",
    "__version__",
    "explain",
    "forecast",
    "publish_to_dashboard",
    "report",
    "requeue",
    "set_n_steps",
    "upload_forecast",
    "worker_processes",
]

_HOMES = {
    "Decision": "decision.decision",
    "Explanation": "reporting.explanation",
    "Forecast": "posterior.forecast",
    "ForecastSampler": "samplers.forecast_sampler",
    "Forecaster": "service.forecaster",
    "InputError": "_util.validation",
    "LearningCurvePruner": "pruners.learning_curve",
    "PruneIfAll": "pruners.combined",
    "PruneIfAny": "pruners.combined",
    "Reason": "decision.decision",
    "RemotePruner": "pruners.remote",
    "Report": "reporting.report",
    "explain": "reporting.explanation",
    "forecast": "posterior.extrapolate",
    "publish_to_dashboard": "visualization.dashboard",
    "report": "reporting.build_report",
    "requeue": "reporting.requeue",
    "set_n_steps": "curves.horizon",
    "upload_forecast": "visualization.dashboard",
    "worker_processes": "pruners.executor",
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
