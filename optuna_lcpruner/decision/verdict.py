"""A decision whose words are worked out when somebody reads them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from optuna_lcpruner.decision.decision import Decision, Reason


class Verdict:
    """A reason at once; words, forecast and interval when somebody reads them.

    Args:
        reason: Why.
        describe: Gives the decision; called once.
        told: Whether whoever decided has told the trial's attributes and the ledger of it.
    """

    def __init__(
        self, reason: Reason, describe: Callable[[], Decision], told: bool = False
    ) -> None:
        self.reason = reason
        self.prune = reason.prunes
        self.told = told
        self._describe = describe

    @classmethod
    def of(cls, decision: Decision) -> Verdict:
        """One whose words are there already."""
        return cls(decision.reason, lambda: decision)

    @cached_property
    def decision(self) -> Decision:
        """The decision with its words and numbers."""
        with np.errstate(all="ignore"):
            decision = self._describe()
        self._describe = lambda: decision  # lets go of the posterior
        return decision


def key_of(trial: FrozenTrial) -> tuple[Any, ...]:
    """A trial and its reports: Optuna keeps a step's first report, so number and newest suffice."""
    reports = trial.intermediate_values
    newest = next(reversed(reports.items()), None) if reports else None
    return (trial._trial_id, trial.number, trial.datetime_start, len(reports), newest)
