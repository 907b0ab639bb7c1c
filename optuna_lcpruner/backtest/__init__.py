"""What pruners would have done on a finished study."""

from optuna_lcpruner.backtest.data import (
    RecordedStudy,
    RecordedTrial,
    from_curves,
    from_study,
    read_file,
)
from optuna_lcpruner.backtest.outcome import Interval, Outcome, PrunerResult, Share
from optuna_lcpruner.backtest.replay import make_pruner, pruner_names
from optuna_lcpruner.backtest.report import BacktestReport
from optuna_lcpruner.backtest.run import backtest

__all__ = [
    "BacktestReport",
    "Interval",
    "Outcome",
    "PrunerResult",
    "RecordedStudy",
    "RecordedTrial",
    "Share",
    "backtest",
    "from_curves",
    "from_study",
    "make_pruner",
    "pruner_names",
    "read_file",
]
