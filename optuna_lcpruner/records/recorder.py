"""Who hears of a verdict: the log, the trial's attributes, the ledger."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from optuna.logging import get_logger
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.attributes import CONTROL_ATTRIBUTE
from optuna_lcpruner._util.optuna_storage import uncached
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.decision.decision import Reason
from optuna_lcpruner.decision.verdict import Verdict
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import DecisionContext, entry
from optuna_lcpruner.records.location import Address, Setting, address
from optuna_lcpruner.version import __version__

_logger = get_logger("optuna.lcpruner")

_NOT_SHOWN = (
    Reason.NOTHING_REPORTED,
    Reason.WARM_UP,
    Reason.BETWEEN_LOOKS,
    Reason.TOO_FEW_REPORTS,
    Reason.BEYOND_HORIZON,
    Reason.FORECAST_PENDING,
    Reason.FORECASTER_UNAVAILABLE,
)
"""Reasons that are not published: there was nothing to decide, and the last decision stands."""


@dataclass
class Told:
    """What is remembered of one study: where its ledger is."""

    ledger: list[Address | None] = field(default_factory=list)

    def ledger_of(self, setting: Setting, storage: BaseStorage) -> Address | None:
        """Where the study's ledger is, worked out once."""
        if not self.ledger:
            self.ledger.append(address(setting, storage))
        return self.ledger[0]


def show(study: Study, trial: FrozenTrial, verdict: Verdict, published: bool) -> None:
    """Tell the log and, if wanted, whoever looks at the trial's attributes."""
    level = logging.INFO if verdict.prune else logging.DEBUG
    if _logger.isEnabledFor(level):
        name = f"Trial {trial.number}" if trial.number >= 0 else "A trial"
        _logger.log(level, f"{name}: {verdict.decision.message}")
    if verdict.told or trial.number < 0:  # one that another pruner made up is in no storage
        return
    writer, where = trial_attributes.writer(), (study._storage, trial._trial_id)
    if verdict.reason is Reason.CONTROL:
        step = max(trial.intermediate_values)
        # Asked of the storage: what Optuna hands to a pruner may have the attributes of the start.
        attributes = uncached(study._storage).get_trial_user_attrs(trial._trial_id)
        since = attributes.get(CONTROL_ATTRIBUTE)
        # The first that would end it; a mark from ahead is of the trial that this one retries.
        if not isinstance(since, int) or since > step:
            writer.write(*where, {CONTROL_ATTRIBUTE: step})
    if published and verdict.reason not in _NOT_SHOWN:
        send = writer.write if verdict.prune else writer.submit
        send(*where, lambda: trial_attributes.attributes(verdict.decision))


def record(
    study: Study,
    trial: FrozenTrial,
    verdict: Verdict,
    facts: DecisionContext,
    told: Told,
    setting: Setting,
) -> None:
    """Hand the verdict to the ledger; its words and numbers are worked out there.

    Raises:
        InputError: If a ledger is wanted and the trial has no number to find its decisions by.
    """
    if verdict.told:
        return
    if trial.number < 0:
        if isinstance(setting, str):
            raise InputError("no ledger: the pruner around this one does not say of which trial.")
        return
    where = told.ledger_of(setting, study._storage)
    if where is None:
        return
    name, number, started = study.study_name, trial.number, trial.datetime_start
    ledger_writer.writer(where).submit(
        lambda: entry(
            verdict.decision,
            facts,
            study=name,
            trial=number,
            trial_started=started,
            version=__version__,
        )
    )
