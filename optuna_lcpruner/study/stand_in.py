"""Trials that another pruner made up for a question, and the studies they come with.

OptunaHub's MultiMetricPruner asks about one metric of many with a trial without a number and a
study of its own making, new for each question: each finished trial, whether pruned or failed, is
complete there, with the reports of that metric and the value 0. What a trial returned is then
nothing to compare with, and one that was stopped early is no whole training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial


def is_made_up(trial: FrozenTrial) -> bool:
    """Return whether a trial is in no study: nothing can be kept of it, or written to it."""
    return trial.number < 0


def as_reported(
    trials: Sequence[FrozenTrial],
    asked: FrozenTrial,
    best: Callable[[list[float]], float] | None = None,
) -> Sequence[FrozenTrial]:
    """Completed trials; those of a study made up are valued by their reports if they are whole.

    Whole are those that went as far as the longest did, and further than the trial asked about:
    others show no end.

    Args:
        trials: The completed trials.
        asked: The trial asked about.
        best: Which of the reports is a training's value; by default the last.

    Returns:
        All trials as they are if what they returned differs.
    """
    if len({trial.value for trial in trials}) != 1:
        return trials
    longest = max(map(_last_step, trials))
    if longest <= _last_step(asked):
        return []
    whole = []
    for trial in trials:
        reports = trial.intermediate_values
        if _last_step(trial) == longest:
            finite = [value for value in reports.values() if math.isfinite(value)]
            valued = copy.copy(trial)
            valued.value = best(finite) if best and finite else reports[longest]
            whole.append(valued)
    return whole


def _last_step(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values, default=-1)
