"""``requeue(study, k)``: the closest calls among the pruned trials run again, unpruned."""

from __future__ import annotations

import logging

from optuna.logging import get_logger
from optuna.study import Study
from optuna.trial import TrialState

from optuna_lcpruner._util.attributes import REQUEUED_ATTRIBUTE
from optuna_lcpruner._util.formatting import LEFT_BEHIND, count
from optuna_lcpruner._util.validation import boolean, integer
from optuna_lcpruner.records.ledger import open_ledger
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.reporting.build_report import calls
from optuna_lcpruner.reporting.decisions import on_record
from optuna_lcpruner.study.continuation import enqueue_continuation, second_chance_of

_logger = get_logger("optuna.lcpruner")


def requeue(study: Study, k: int, *, resume: bool = False, ledger: Setting = None) -> list[int]:
    """Enqueue the closest calls, to run again to their end, or to go on from a checkpoint.

    The new trials have the user attribute ``lcpruner_requeued_from``, the number of the pruned
    trial; ``LearningCurvePruner`` does not prune them by forecast (a training that diverges is
    still stopped). ``study.optimize`` takes them up before it samples. A trial gets one second
    chance: calling again enqueues the next ones. Where there are fewer than k, or none, the log
    says why. A second chance whose parameters are not those of the pruned trial of that number came
    from another study, and does not count.

    Args:
        study: The study.
        k: How many, at least 1; fewer if fewer were pruned by forecast.
        resume: Whether the new trials have the reports of the pruned ones too, for an objective
            that saves checkpoints: :func:`~optuna_lcpruner.resumed_from` tells it which one to
            load, and at which step to go on.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.LearningCurvePruner`; by default beside the study.

    Returns:
        The numbers of the pruned trials, the closest call first.

    Raises:
        TypeError: If k is no integer, or ``resume`` no boolean.
        ValueError: If k is less than 1.
        InputError: If the study has several objectives.
        LedgerError: If there is no ledger or it cannot be read.
    """
    k, resume = integer("k", k, 1), boolean("resume", resume)
    closest = [call.trial for call in calls(study, ledger=ledger)]
    trials = study.get_trials(deepcopy=False)
    had_theirs = {second_chance_of(trial, trials) for trial in trials}
    chosen = [number for number in closest if number not in had_theirs][:k]
    for number in chosen:
        mark = {REQUEUED_ATTRIBUTE: number}
        if resume:
            enqueue_continuation(study, trials[number], mark)
        else:
            study.enqueue_trial(trials[number].params, user_attrs=mark)
    if len(chosen) < k:
        n, before = len(closest), len(had_theirs.intersection(closest))
        how_many = f"{len(chosen)} of {k}" if chosen else "nothing"
        level = logging.INFO if chosen else logging.WARNING
        _logger.log(level, f"requeue: {how_many} enqueued: {_why(study, ledger, n, before)}.")
    return chosen


def _why(study: Study, ledger: Setting, n: int, before: int) -> str:
    """Why there are no more: of n trials pruned by forecast some had their second chance before."""
    trials, rows = on_record(study, ledger)
    where = f"is on record in {open_ledger(ledger, study).shown} ({LEFT_BEHIND})"
    if not rows:
        return f"no decision about study {study.study_name!r} {where}"
    why = f"{count(n, 'trial')} pruned by forecast" if n else "no trial was pruned by forecast"
    if before:
        given = f"{count(before, 'second chance')} given before"
        why += ", each given its second chance before" if before == n else f", {given}"
    decided = {row["trial"] for row in rows}
    pruned = {trial.number for trial in trials if trial.state == TrialState.PRUNED}
    if pruned - decided:
        why += f"; no decision about {count(len(pruned - decided), 'pruned trial')} {where}"
    return why
