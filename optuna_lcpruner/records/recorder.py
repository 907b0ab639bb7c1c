"""The recorder: log a decision, publish it as trial attributes and append it to the ledger.

Decisions made on this thread go to the sink that is set for it, if one is: a combination of pruners
collects what it asks for, to record what came of it; a replay keeps nothing. Without a sink the
pruner that decided records its decision itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from optuna.logging import get_logger
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.attributes import CONTROL_ATTRIBUTE
from optuna_lcpruner._util.optuna_storage import storage_of, trial_id_of, uncached
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.decision.decision import Decision, Reason
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import DecisionContext, entry
from optuna_lcpruner.records.location import Address, Setting, address
from optuna_lcpruner.study.stand_in import is_made_up
from optuna_lcpruner.version import __version__

_logger = get_logger("optuna.lcpruner")

_NOT_PUBLISHED = (
    Reason.NOTHING_REPORTED,
    Reason.WARM_UP,
    Reason.BETWEEN_LOOKS,
    Reason.TOO_FEW_REPORTS,
    Reason.BEYOND_HORIZON,
    Reason.FORECAST_PENDING,
    Reason.FORECASTER_UNAVAILABLE,
    Reason.FAILED,
)
"""There was nothing to decide, so the last decision stands."""


@dataclass(frozen=True)
class PendingDecision:
    """A decision that is not on record.

    Attributes:
        decision: What the pruner says by itself.
        record: Records this decision, or what was made of it.
    """

    decision: Decision
    record: Callable[[Decision], None]


Sink = Callable[[PendingDecision], object]
"""Takes the decisions made on a thread; nothing records them but the sink itself."""

_sink: ContextVar[Sink | None] = ContextVar("lcpruner_sink", default=None)


def current_sink() -> Sink | None:
    """Return the sink of this thread, if one is set."""
    return _sink.get()


@contextmanager
def decisions_to(sink: Sink) -> Iterator[None]:
    """Send the decisions that are made inside, on this thread, to a sink."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def keep_nothing(pending: PendingDecision) -> None:
    """Be the sink of a replay."""


class Recorder:
    """Records the decisions of a pruner.

    Args:
        publish: Whether decisions are shown as attributes of their trial.
        ledger: Where they are kept.
        warn: Called with ``(topic, message)`` about what should be said once.
    """

    def __init__(self, publish: bool, ledger: Setting, warn: Callable[[str, str], None]) -> None:
        self.publish = publish
        self.ledger = ledger
        self._warn = warn

    def record(
        self,
        study: Study,
        trial: FrozenTrial,
        decision: Decision,
        context: DecisionContext | None,
        where: Location,
    ) -> None:
        """Log, publish and keep a decision; what goes wrong costs a warning.

        Args:
            study: The study.
            trial: The trial; about one that has ended nothing is recorded.
            decision: The decision.
            context: What the ledger keeps beside it; None if it is in the ledger already.
            where: The study's ledger.
        """
        if trial.state.is_finished():
            return
        try:
            self._log(trial, decision)
            if not is_made_up(trial) and not decision.recorded:
                self._publish(study, trial, decision)
        except Exception as error:
            self._warn("publish", f"cannot publish decisions: {error!r}")
        if context is None or self.ledger is False or decision.recorded:
            return
        try:
            self._keep(study, trial, decision, context, where)
        except InputError as error:
            self._warn("ledger", str(error))
        except Exception as error:
            self._warn("ledger", f"cannot keep a ledger: {error!r}")

    def _log(self, trial: FrozenTrial, decision: Decision) -> None:
        level = logging.INFO if decision.prune else logging.DEBUG
        if _logger.isEnabledFor(level) and decision.reason is not Reason.FAILED:  # warned of
            name = "A trial" if is_made_up(trial) else f"Trial {trial.number}"
            _logger.log(level, f"{name}: {decision.message}")

    def _publish(self, study: Study, trial: FrozenTrial, decision: Decision) -> None:
        storage, trial_id = storage_of(study), trial_id_of(trial)
        if decision.reason is Reason.CONTROL:
            _mark_control(storage, trial)
        if not self.publish:
            return
        writer = trial_attributes.writer()
        if decision.reason is Reason.BEYOND_HORIZON:
            writer.write_last(storage, trial_id)
        elif decision.reason not in _NOT_PUBLISHED:
            send = writer.write if decision.prune else writer.submit
            topic = decision.reason.name if decision.p_beat is None else "forecast"
            send(storage, trial_id, lambda: trial_attributes.attributes(decision), topic)

    def _keep(
        self,
        study: Study,
        trial: FrozenTrial,
        decision: Decision,
        context: DecisionContext,
        where: Location,
    ) -> None:
        """Hand the decision to the ledger; its words and numbers are worked out there."""
        if is_made_up(trial):
            if isinstance(self.ledger, str):
                raise InputError("no ledger: the pruner around this one does not say which trial.")
            return
        to = where.of(self.ledger, storage_of(study))
        if to is None:
            return
        name, number, started = study.study_name, trial.number, trial.datetime_start
        ledger_writer.writer(to).submit(
            lambda: entry(
                decision,
                context,
                study=name,
                trial=number,
                trial_started=started,
                version=__version__,
            )
        )


class Location:
    """Where the ledger of a study is, worked out at the first use."""

    def __init__(self) -> None:
        self._found: list[Address | None] = []

    def of(self, setting: Setting, storage: BaseStorage) -> Address | None:
        """Return the address, None where no ledger is kept."""
        if not self._found:
            self._found.append(address(setting, storage))
        return self._found[0]


def _mark_control(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Note in a trial of the control group since when it would have been stopped."""
    step = max(trial.intermediate_values)
    # Asked of the storage: what Optuna hands to a pruner may have the attributes of the start.
    since = uncached(storage).get_trial_user_attrs(trial_id_of(trial)).get(CONTROL_ATTRIBUTE)
    # The first that would end it; a mark from ahead is of the trial that this one retries.
    if not isinstance(since, int) or since > step:
        trial_attributes.writer().write(storage, trial_id_of(trial), {CONTROL_ATTRIBUTE: step})
