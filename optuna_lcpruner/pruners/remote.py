"""RemotePruner: the trial's newest verdict, read from the storage, -> bool. Nothing is forecast."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.optuna_storage import storage_of, trial_id_of
from optuna_lcpruner._util.validation import boolean, choice, integer, real
from optuna_lcpruner.decision.decision import Decision, Reason, abstain
from optuna_lcpruner.decision.preconditions import Preconditions
from optuna_lcpruner.pruners._memory import DecisionMemory
from optuna_lcpruner.pruners.judge import check_reports
from optuna_lcpruner.records import remote_decision
from optuna_lcpruner.records.ledger import DecisionContext
from optuna_lcpruner.records.location import Setting, checked
from optuna_lcpruner.records.remote_decision import (
    ATTRIBUTE,
    FORMAT,
    MalformedVerdictError,
    OtherFormatError,
    RemoteVerdict,
)

_ASKED_IN_VAIN = 3  # heuristic
"""Checks without an answer, at least, before a forecaster counts as absent: a study may rest."""


class RemotePruner(BasePruner):
    """Stop a trial when ``optuna-lcpruner serve``, on another machine, says so.

    A check reads the trial's newest verdict from the storage and forecasts nothing. How trials are
    judged is set where the forecaster runs (:class:`~optuna_lcpruner.LearningCurvePruner`); here
    is what needs no forecast: which reports are looked at, and trainings that diverge or break a
    constraint, which stop at once. The pruner never raises, and without a forecaster, with a dead
    or a late one, trials run on.

    Args:
        stale_after: How far a trial may be ahead of a verdict that counts, as a share of the
            reports it rests on; one report at least.
        forecaster_timeout: Seconds without a verdict after which one warning says that trials go on
            unpruned.
        n_warmup_steps: No pruning while the step is below this.
        interval_steps: Steps between two looks, counted from ``n_warmup_steps``.
        nan_policy: ``"prune"`` stops a trial whose newest report is NaN or infinite, after warm-up;
            ``"ignore"`` leaves such reports out.
        prune_infeasible: Whether to stop a trial as soon as one of its constraints is known to be
            broken (``trial.set_constraint``, Optuna 5).
        publish: Show what is decided here as user attributes of the trial; the forecaster shows
            its own decisions.
        ledger: Where what is decided here is kept, as that of
            :class:`~optuna_lcpruner.LearningCurvePruner`; the forecaster keeps its own decisions.

    Raises:
        ValueError: If a setting is out of its range.
        TypeError: If a setting is of the wrong type.
    """

    def __init__(
        self,
        *,
        stale_after: float = 0.5,
        forecaster_timeout: float = 60.0,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
        nan_policy: str = "prune",
        prune_infeasible: bool = False,
        publish: bool = True,
        ledger: str | Literal[False] | None = None,
    ) -> None:
        self._stale_after = real("stale_after", stale_after, 0.0, math.inf)
        self._timeout = real("forecaster_timeout", forecaster_timeout, 0.0, math.inf)
        self._conditions = Preconditions(
            n_steps=None,
            n_startup_trials=0,
            n_warmup_steps=integer("n_warmup_steps", n_warmup_steps, 0),
            interval_steps=integer("interval_steps", interval_steps, 1),
            nan_policy=choice("nan_policy", nan_policy, ("prune", "ignore")),
            prune_infeasible=boolean("prune_infeasible", prune_infeasible),
        )
        self._memory = DecisionMemory(
            "RemotePruner", "remote", boolean("publish", publish), checked(ledger), Silence
        )
        self._clock: Callable[[], float] = time.monotonic

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._memory = copy.copy(self._memory)

    @property
    def ledger(self) -> Setting:
        """The setting ``ledger``."""
        return self._memory.ledger

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial; see :class:`optuna.pruners.BasePruner`. Never raises."""
        return self._decide(study, trial).prune

    def decide(self, study: Study, trial: FrozenTrial) -> Decision:
        """The decision behind :meth:`prune`, with its reason and numbers. Never raises."""
        return self._memory.in_words(lambda: self._decide(study, trial))

    def _decide(self, study: Study, trial: FrozenTrial) -> Decision:
        return self._memory.decide(
            study, trial, lambda silence, context: self._judge(study, trial, silence, context)
        )

    def _judge(
        self, study: Study, trial: FrozenTrial, silence: Silence, context: DecisionContext
    ) -> Decision:
        """What the reports alone decide, else the newest verdict, or why there is none."""
        early = check_reports(study, trial, self._conditions, context, self._memory.warn_once)
        if isinstance(early, Decision):
            # The forecaster records trials that go on.
            return early if early.prune else early.made_by((), early.reason, recorded=True)
        newest = self._newest(study, trial)
        if newest is None:
            return self._without("no verdict yet", trial, silence)
        behind = len(trial.intermediate_values) - newest.n_reports
        if behind > max(1.0, self._stale_after * newest.n_reports):
            late = f"the newest verdict is {behind} reports old, of step {newest.step}"
            return self._without(late, trial, silence)
        silence.ends()
        if newest.reason is Reason.DIVERGED:  # that is the trainer's to say, see early
            return abstain(Reason.FORECAST_PENDING, "the forecaster left it", newest.step)
        return newest.decision(behind)

    def _newest(self, study: Study, trial: FrozenTrial) -> RemoteVerdict | None:
        """The newest verdict, if it is one and about this trial.

        Raises:
            Exception: Whatever the storage raises when it is out of reach.
        """
        found = remote_decision.attributes(storage_of(study), trial_id_of(trial)).get(ATTRIBUTE)
        if found is None:
            return None
        try:
            verdict = RemoteVerdict.from_json(found)
        except OtherFormatError as error:
            self._memory.warn_once(
                "format",
                f"the forecaster's verdicts are of {error}, this package reads format {FORMAT}: "
                "install the same version on both sides. Trials go on.",
            )
            return None
        except MalformedVerdictError:
            return None
        return verdict if verdict.is_about(trial) else None

    def _without(self, why: str, trial: FrozenTrial, silence: Silence) -> Decision:
        """Keep training, and say whether that has been so for long."""
        step = max(trial.intermediate_values)
        waited, times = silence.goes_on(self._clock())
        if waited < self._timeout or times < _ASKED_IN_VAIN:
            return abstain(Reason.FORECAST_PENDING, why, step)
        self._memory.warn_once(
            "forecaster",
            f"no verdict that counts has come for {waited:.0f} s ({why}), so trials go on "
            "unpruned. Is 'optuna-lcpruner serve' running for this study, and fast enough?",
        )
        return abstain(Reason.FORECASTER_UNAVAILABLE, why, step)

    def __repr__(self) -> str:
        conditions = self._conditions
        return (
            f"RemotePruner(stale_after={self._stale_after}, forecaster_timeout={self._timeout}, "
            f"n_warmup_steps={conditions.n_warmup_steps}, "
            f"interval_steps={conditions.interval_steps})"
        )


@dataclass
class Silence:
    """Since when checks about a study have had no answer, by this process's clock."""

    since: float | None = None
    in_vain: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ends(self) -> None:
        """Note that a forecaster is there."""
        with self.lock:
            self.since, self.in_vain = None, 0

    def goes_on(self, now: float) -> tuple[float, int]:
        """Return the seconds and checks without an answer, this one included."""
        with self.lock:
            if self.since is None:
                self.since = now
            self.in_vain += 1
            return now - self.since, self.in_vain
