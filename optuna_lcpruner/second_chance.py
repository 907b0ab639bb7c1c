"""``requeue(study, k)``: the closest calls among the pruned trials run again, unpruned."""

from __future__ import annotations

from optuna.study import Study

from optuna_lcpruner.checks import integer
from optuna_lcpruner.control_group import SECOND_CHANCE_ATTRIBUTE
from optuna_lcpruner.ledger_address import Setting
from optuna_lcpruner.study_report import calls


def requeue(study: Study, k: int, *, ledger: Setting = None) -> list[int]:
    """Enqueue the parameters of the closest calls, to run again to their end.

    The new trials have the user attribute ``lcpruner_requeued_from``, the number of the pruned
    trial; ``LearningCurvePruner`` does not prune them by forecast (a training that diverges is
    still stopped). ``study.optimize`` takes them up before it samples. A trial gets one second
    chance: calling again enqueues the next ones.

    Args:
        study: The study.
        k: How many, at least 1; fewer if fewer were pruned by forecast.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.pruner.LearningCurvePruner`; by default beside the study.

    Returns:
        The numbers of the pruned trials, the closest call first.

    Raises:
        TypeError: If k is no integer.
        ValueError: If k is less than 1.
        InputError: If the study has several objectives.
        LedgerError: If there is no ledger or it cannot be read.
    """
    k = integer("k", k, 1)
    closest = calls(study, ledger=ledger)
    trials = study.get_trials(deepcopy=False)
    had_theirs = {trial.user_attrs.get(SECOND_CHANCE_ATTRIBUTE) for trial in trials}
    chosen = [call.trial for call in closest if call.trial not in had_theirs][:k]
    for number in chosen:
        study.enqueue_trial(trials[number].params, user_attrs={SECOND_CHANCE_ATTRIBUTE: number})
    return chosen
