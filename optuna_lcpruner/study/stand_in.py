"""The completed trials of a study that another pruner made up for a question.

OptunaHub's MultiMetricPruner asks about one metric of many with a study of its own making: each
finished trial, whether pruned or failed, is complete there, with the reports of that metric and the
value 0, and the trial asked about has no number. What a trial returned is then nothing to compare
with, and one that was stopped early is no whole training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner.study.history import StudyRecord
from optuna_lcpruner.study.summary import StudySummary


class CompletedReports:
    """What the completed trials say to a trial that is not of their study.

    Args:
        asked: The trial asked about.
        target: The pruner's setting: which report is a training's value.
        announced: Whether the lengths that trials announce count.
    """

    def __init__(self, asked: FrozenTrial, target: str, announced: bool = True) -> None:
        self._announced = announced
        self._asked = asked
        self._target = target

    def read(
        self, study: Study, maximize: bool, guard: AbstractContextManager[Any]
    ) -> tuple[StudyRecord, StudySummary]:
        """As of :class:`~optuna_lcpruner.study.reader.StudyReader`, read anew each time."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        better: Callable[[list[float]], float] = max if maximize else min
        record = StudyRecord(maximize, self._announced)
        return record, record.update(
            as_reported(trials, self._asked, better if self._target == "best" else None)
        )


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
