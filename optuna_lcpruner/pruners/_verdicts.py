"""What the pruners share: check the reports, ask for a verdict once, remember it, tell of it."""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from optuna.logging import get_logger
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.redaction import redact
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.curves.learning_curve import ordered, usable
from optuna_lcpruner.decision.decision import Decision, Reason, abstain
from optuna_lcpruner.decision.preconditions import Guards, Warn
from optuna_lcpruner.decision.verdict import Verdict, key_of
from optuna_lcpruner.pruners import _deferral
from optuna_lcpruner.records import recorder
from optuna_lcpruner.records.ledger import DecisionContext
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.study.feasibility import is_feasible

_logger = get_logger("optuna.lcpruner")

_MAX_REMEMBERED = 512
_MAX_STUDIES = 16

_MAY_COME = (Reason.FORECAST_PENDING, Reason.FORECASTER_UNAVAILABLE)
"""Not remembered: asked again about the same reports, there may be a forecast."""

Known = TypeVar("Known")


@dataclass(frozen=True)
class Reports:
    """A trial's reports in the order of their steps, the newest of which is looked at.

    Attributes:
        steps: Their steps, shape (n,).
        values: Their values as reported, shape (n,).
        finite: Which of them are finite, shape (n,).
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    finite: NDArray[np.bool_]

    @property
    def step(self) -> int:
        """The newest step."""
        return int(self.steps[-1])


def check_reports(
    study: Study,
    trial: FrozenTrial,
    guards: Guards,
    prune_infeasible: bool,
    facts: DecisionContext,
    warn: Warn,
) -> Reports | Decision:
    """Return the reports to forecast from, or the decision that they alone make.

    Args:
        study: The study.
        trial: The trial.
        guards: The settings.
        prune_infeasible: Whether a broken constraint stops a trial.
        facts: Filled in with what was looked at.
        warn: Called with ``(topic, message)`` about what should be said once.
    """
    if len(study.directions) > 1:
        return abstain(Reason.MULTI_OBJECTIVE, "pruning needs a single objective")
    if not trial.intermediate_values:
        return abstain(Reason.NOTHING_REPORTED)
    if prune_infeasible and not is_feasible(trial):
        return abstain(Reason.INFEASIBLE, "", max(trial.intermediate_values))
    steps, values = ordered(trial.intermediate_values)
    reports = Reports(steps, values, usable(values))
    facts.n_points = int(np.count_nonzero(reports.finite))
    facts.value = float(values[reports.finite][-1]) if facts.n_points else None
    looked = guards.looks(steps)
    facts.look = int(np.count_nonzero(looked))
    early = guards.without_storage(values, reports.step, facts.n_points, bool(looked[-1]))
    return early or guards.counts_down(list(trial.intermediate_values), warn) or reports


@dataclass
class Memo(Generic[Known]):
    """What is remembered of one study; all of it can be rebuilt from the storage.

    Attributes:
        known: What the pruner knows of the study.
        verdicts: Verdicts by trial and reports.
        told: Where the study's ledger is.
    """

    known: Known
    verdicts: OrderedDict[tuple[Any, ...], Verdict] = field(default_factory=OrderedDict)
    told: recorder.Told = field(default_factory=recorder.Told)


class Verdicts(Generic[Known]):
    """A pruner's verdicts: each is asked for once, remembered and told of; nothing is raised.

    A copy, by pickle or not, has the settings and remembers nothing.

    Args:
        owner: The pruner's name, for the log.
        engine: Who forecasts, for the ledger.
        publish: Whether decisions are shown as attributes of their trial.
        ledger: Where they are kept.
        new: Returns what is known of a study at first.
    """

    def __init__(
        self,
        owner: str,
        engine: str,
        publish: bool,
        ledger: Setting,
        new: Callable[[], Known],
    ) -> None:
        self._owner = owner
        self._engine = engine
        self._publish = publish
        self.ledger = ledger
        self._new = new
        self._forget()

    def _forget(self) -> None:
        self.lock = threading.RLock()
        self._memos: weakref.WeakKeyDictionary[
            BaseStorage, OrderedDict[tuple[int, StudyDirection], Memo[Known]]
        ] = weakref.WeakKeyDictionary()
        self._said: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        forgotten = ("lock", "_memos", "_said")
        return {key: value for key, value in self.__dict__.items() if key not in forgotten}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def memo(self, study: Study) -> Memo[Known]:
        """What is remembered of a study."""
        with self.lock:
            studies = self._memos.setdefault(study._storage, OrderedDict())
            key = (study._study_id, study.directions[0])
            if key not in studies:
                studies[key] = Memo(self._new())
            studies.move_to_end(key)
            while len(studies) > _MAX_STUDIES:
                studies.popitem(last=False)
            return studies[key]

    def ask(
        self,
        study: Study,
        trial: FrozenTrial,
        judge: Callable[[Known, DecisionContext], Verdict],
    ) -> Verdict:
        """Return the verdict on a trial with these reports and tell of it, unless that was done.

        Args:
            study: The study.
            trial: The trial.
            judge: Judges it; if that raises, the trial goes on.
        """
        facts = None
        try:
            memo, key = self.memo(study), key_of(trial)
            known = memo.verdicts.get(key)
            if known is not None:
                _deferral.defer(known, partial(self._tell, study, trial, None))
                return known
            facts = DecisionContext(self._engine)
            start = time.perf_counter()
            with np.errstate(all="ignore"):  # whatever the caller has made errors
                verdict = judge(memo.known, facts)
            facts.milliseconds = 1e3 * (time.perf_counter() - start)
            if verdict.prune:
                verdict.decision  # noqa: B018 - a trial is not stopped without a reason in words
            if verdict.reason not in _MAY_COME:
                with self.lock:
                    # Two threads may have decided at once; both take the first answer.
                    mine, verdict = verdict, memo.verdicts.setdefault(key, verdict)
                    if len(memo.verdicts) > _MAX_REMEMBERED:
                        memo.verdicts.popitem(last=False)
                facts = facts if verdict is mine else None
        except Exception as error:
            verdict = Verdict.of(self._failed(error))
            facts = facts or DecisionContext(self._engine)
        tell = partial(self._tell, study, trial, facts)
        if not _deferral.defer(verdict, tell):
            tell(verdict)
        return verdict

    def in_words(self, ask: Callable[[], Verdict]) -> Decision:
        """Return the decision of the verdict that is asked for; one in words if that fails."""
        try:
            return ask().decision
        except Exception as error:
            return self._failed(error)

    def warn_once(self, topic: str, message: str) -> None:
        """Log a warning about a topic, the first time."""
        with self.lock:
            if topic in self._said:
                return
            self._said.add(topic)
        _logger.warning(redact(f"{self._owner}: {message}"))

    def _failed(self, error: Exception) -> Decision:
        self.warn_once("error", f"could not decide, so the trial goes on: {error!r}")
        return abstain(Reason.FAILED, redact(repr(error)))

    def _tell(
        self, study: Study, trial: FrozenTrial, facts: DecisionContext | None, verdict: Verdict
    ) -> None:
        """Tell of a verdict; without facts it is on record already."""
        if verdict.reason in _MAY_COME or trial.state.is_finished():
            return
        if verdict.reason is not Reason.FAILED:
            try:
                recorder.show(study, trial, verdict, self._publish)
            except Exception as error:
                self.warn_once("publish", f"cannot publish decisions: {error!r}")
        if facts is not None and self.ledger is not False:
            self._record(study, trial, verdict, facts)

    def _record(
        self, study: Study, trial: FrozenTrial, verdict: Verdict, facts: DecisionContext
    ) -> None:
        try:
            told = self.memo(study).told
            recorder.record(study, trial, verdict, facts, told, self.ledger)
        except InputError as error:
            self.warn_once("ledger", str(error))
        except Exception as error:
            self.warn_once("ledger", f"cannot keep a ledger: {error!r}")
