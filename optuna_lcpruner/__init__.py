"""An Optuna pruner that extrapolates learning curves with a Bayesian ensemble."""

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.curves.horizon import set_n_steps
from optuna_lcpruner.decision.decision import Decision, Reason
from optuna_lcpruner.posterior.extrapolate import forecast
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.pruners.check import Check, check
from optuna_lcpruner.pruners.combined import PruneIfAll, PruneIfAny
from optuna_lcpruner.pruners.executor import worker_processes
from optuna_lcpruner.pruners.folds import FoldReporter
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
from optuna_lcpruner.pruners.remote import RemotePruner
from optuna_lcpruner.pruners.resume import ResumeCallback
from optuna_lcpruner.pruners.should_stop import should_stop
from optuna_lcpruner.reporting.build_report import report
from optuna_lcpruner.reporting.explanation import Explanation, explain
from optuna_lcpruner.reporting.report import Report
from optuna_lcpruner.reporting.requeue import requeue
from optuna_lcpruner.reporting.savings import SavingsCallback, Summary, summary
from optuna_lcpruner.service.forecaster import Forecaster
from optuna_lcpruner.study.continuation import ResumePoint, resumed_from
from optuna_lcpruner.version import __version__
from optuna_lcpruner.visualization.dashboard import publish_to_dashboard, upload_forecast

__all__ = [
    "Check",
    "Decision",
    "Explanation",
    "FoldReporter",
    "Forecast",
    "Forecaster",
    "InputError",
    "LearningCurvePruner",
    "PruneIfAll",
    "PruneIfAny",
    "Reason",
    "RemotePruner",
    "Report",
    "ResumeCallback",
    "ResumePoint",
    "SavingsCallback",
    "Summary",
    "__version__",
    "check",
    "explain",
    "forecast",
    "publish_to_dashboard",
    "report",
    "requeue",
    "resumed_from",
    "set_n_steps",
    "should_stop",
    "summary",
    "upload_forecast",
    "worker_processes",
]
