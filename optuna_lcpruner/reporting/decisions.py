"""The decisions on record beside the trials that they are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.validation import InputError, loaded
from optuna_lcpruner.curves.horizon import TrainingLengths
from optuna_lcpruner.curves.learning_curve import StepMap, ordered, usable
from optuna_lcpruner.records.ledger import LedgerError, open_ledger, same_start
from optuna_lcpruner.records.ledger_writer import flush
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.study.history import StudyRecord

_READ = (
    "trial",
    "trial_started",
    "step",
    "n_points",
    "value",
    "horizon",
    "incumbent",
    "p_beat",
    "threshold",
    "caution",
    "q05",
    "q25",
    "q50",
    "q75",
    "q95",
    "reason",
    "action",
    "milliseconds",
)

Row = Mapping[str, Any]
"""A decision on record: column name -> value."""


def on_record(study: Study, ledger: Setting) -> tuple[list[FrozenTrial], list[Row]]:
    """The study's trials and the decisions about them, in the order these were made.

    Returns:
        The trials, and one row a decision with its columns by name, see
        :class:`~optuna_lcpruner.records.LedgerEntry`.

    Raises:
        InputError: If the study has several objectives.
        LedgerError: If there is no ledger or it cannot be read.
    """
    loaded(study)
    single_objective(study)
    flush()
    trials = study.get_trials(deepcopy=False)
    try:
        columns = open_ledger(ledger, study).of_study(study.study_name, _READ)
    except LedgerError as error:
        raise LedgerError(f"{error}{ran_without(study.study_name, trials)}") from error
    found = (
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    )
    return trials, [
        row
        for row in found
        if row["trial"] < len(trials)
        and same_start(row["trial_started"], trials[row["trial"]].datetime_start)
    ]


def ran_without(study_name: str, trials: Sequence[FrozenTrial]) -> str:
    """What to say of a study whose trials were decided about by another pruner or none.

    Nothing, if one of them has an attribute of LearningCurvePruner, or none has reported.
    """
    finished = [t for t in trials if t.state.is_finished() and t.intermediate_values]
    ours = any(key.startswith("lcpruner_") for t in finished for key in t.user_attrs)
    if ours or not finished:
        return ""
    return (
        f". Study {study_name!r} seems to have run without LearningCurvePruner: "
        "optuna-lcpruner backtest tells what it would have done"
    )


def single_objective(study: Study) -> None:
    """Refuse a study of several objectives.

    Raises:
        InputError: If it is one.
    """
    if len(study.directions) > 1:
        raise InputError(f"study {study.study_name!r} has {len(study.directions)} objectives.")


def step_maps(
    numbers: Iterable[int], trials: Sequence[FrozenTrial], maximize: bool
) -> tuple[TrainingLengths, dict[int, StepMap]]:
    """How the steps of these trials become positions; trials without a finite report are left out.

    Args:
        numbers: Their numbers.
        trials: All trials of the study: the completed ones tell how often a training reports.
        maximize: The study's direction.

    Returns:
        What the completed trials say of a training's length, and the maps by trial number.
    """
    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    lengths = StudyRecord(maximize).update(completed).lengths
    maps = {}
    for number in set(numbers):
        reported, raw = ordered(trials[number].intermediate_values)
        finite = reported[usable(raw)]
        if finite.size:
            maps[number] = lengths.step_map(finite, int(reported[0]))
    return lengths, maps
