"""How long a trial takes from report to report, beside the other trials of its study.

A trial's pace is the time since it began, or that it took, a report. On the wall clock: what else
runs on its machine makes it slow, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from optuna.trial import FrozenTrial

from optuna_lcpruner._util.attributes import PACE_ATTRIBUTE
from optuna_lcpruner.study.continuation import n_own_reports

_MOST = 10.0  # heuristic
"""A trial counts as at most so many times slower or faster: a clock may have been set."""


def seconds_per_report(trial: FrozenTrial, now: datetime) -> float | None:
    """Return a trial's pace; None where it does not show.

    Args:
        trial: The trial, with its reports.
        now: The time, for a trial that has not ended.
    """
    told = trial.user_attrs.get(PACE_ATTRIBUTE)
    if told is not None:
        return float(told)
    n_reports = n_own_reports(trial)  # what it took over when it was resumed took it no time
    if trial.datetime_start is None or not n_reports:
        return None
    took = ((trial.datetime_complete or now) - trial.datetime_start).total_seconds()
    # A trial that was only added took no time, and a clock may have been set back.
    return took / n_reports if took > 0.0 else None


def mean_pace(trials: Iterable[FrozenTrial], now: datetime) -> float | None:
    """Return the mean pace of trials, seconds a report; None where none shows."""
    paces = [pace for t in trials if (pace := seconds_per_report(t, now)) is not None]
    return sum(paces) / len(paces) if paces else None


def slowness(trial: FrozenTrial, mean: float | None, now: datetime) -> float:
    """Return how many times the mean pace a trial takes, in [1/10, 10]; 1 where it does not show.

    Args:
        trial: The trial.
        mean: The mean pace of the study's trials, seconds a report.
        now: The time.
    """
    pace = seconds_per_report(trial, now)
    if pace is None or not mean:
        return 1.0
    return min(max(pace / mean, 1.0 / _MOST), _MOST)
