"""An Optuna pruner that extrapolates learning curves with a Bayesian ensemble."""

from optuna_lcpruner.dashboard import publish_to_dashboard
from optuna_lcpruner.decision import Decision, Reason
from optuna_lcpruner.explanation import Explanation, explain
from optuna_lcpruner.extrapolate import forecast
from optuna_lcpruner.predictive import Forecast
from optuna_lcpruner.pruner import LearningCurvePruner
from optuna_lcpruner.report_text import Report
from optuna_lcpruner.second_chance import requeue
from optuna_lcpruner.study_report import report
from optuna_lcpruner.version import __version__

__all__ = [
    "Decision",
    "Explanation",
    "Forecast",
    "LearningCurvePruner",
    "Reason",
    "Report",
    "__version__",
    "explain",
    "forecast",
    "publish_to_dashboard",
    "report",
    "requeue",
]
