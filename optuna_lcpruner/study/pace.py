"""How long trials take to start up and from report to report, by the clock of their storage.

On the wall clock: what else runs on its machine makes a trial slow, too. Reports that a resumed
trial took over took it no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.attributes import PACE_ATTRIBUTE
from optuna_lcpruner.study.continuation import n_own_reports

_MOST = 10.0  # heuristic
"""A trial counts as at most so many times slower or faster: a clock may have been set."""

_LEAST_TIMED, _MOST_TIMED = 5, 300  # heuristic
"""Trials of which it can be told how long it takes to start up; the newest, no more."""


class UsualPace(NamedTuple):
    """What a study's trials take on average.

    Attributes:
        start_up: Seconds before training begins.
        seconds: Seconds from report to report.
    """

    start_up: float
    seconds: float


def seconds_to_start(trials: Sequence[FrozenTrial]) -> float | None:
    """Return how long trials take before they train: what those of few reports take longer for.

    It is where the line through durations against reports begins, at least 0 and no more than any
    trial took. None for fewer than five trials with a duration, or the same reports of all.

    Args:
        trials: The study's trials.

    Source: the median of the slopes of all pairs, Theil 1950 and Sen 1968.
    """
    timed = [(n_own_reports(t), seconds) for t in trials if (seconds := _duration(t)) > 0.0]
    n, took = np.array([one for one in timed if one[0]][-_MOST_TIMED:]).reshape(-1, 2).T
    i, j = np.nonzero(n[:, None] > n[None, :])
    if n.size < _LEAST_TIMED or not i.size:
        return None
    slope = float(np.median((took[i] - took[j]) / (n[i] - n[j])))
    return float(np.clip(np.median(took - slope * n), 0.0, took.min()))


def usual_pace(ended: Sequence[FrozenTrial]) -> UsualPace | None:
    """Return what trials that have ended took on average; None while that cannot be told.

    Early on a trial has spent most of its time on starting up, so without knowing how long that
    takes, every trial would look slow beside those that have trained longer.

    Args:
        ended: Completed and pruned trials of the study.
    """
    told = [pace for trial in ended if (pace := _told(trial)) is not None]
    if told:
        return UsualPace(0.0, float(np.mean(told)))
    start_up = seconds_to_start(ended)
    if start_up is None:
        return None
    timed = [t for t in ended if _duration(t) > 0.0 and n_own_reports(t)]
    paces = [(_duration(trial) - start_up) / n_own_reports(trial) for trial in timed]
    return UsualPace(start_up, float(np.mean(paces)))


def slowness(trial: FrozenTrial, usual: UsualPace | None, now: datetime) -> float:
    """Return the time a trial has taken by what others took for as many reports, in [1/10, 10].

    That is 1 where it does not show, and near 1 while starting up is most of it.

    Args:
        trial: The trial, with its reports.
        usual: What the study's trials take.
        now: The time, for a trial that has not ended.
    """
    n, pace = n_own_reports(trial), _told(trial)
    if pace is not None:
        took = pace * n
    elif trial.datetime_start is not None:
        took = ((trial.datetime_complete or now) - trial.datetime_start).total_seconds()
    else:
        return 1.0
    others = 0.0 if usual is None else usual.start_up + usual.seconds * n
    if not (took > 0.0 and others > 0.0 and n):
        return 1.0
    return min(max(took / others, 1.0 / _MOST), _MOST)


def _told(trial: FrozenTrial) -> float | None:
    pace = trial.user_attrs.get(PACE_ATTRIBUTE)
    return None if pace is None else float(pace)


def _duration(trial: FrozenTrial) -> float:
    """Seconds that a trial took; not above 0 if it was only added, or a clock was set back."""
    return trial.duration.total_seconds() if trial.duration else 0.0
