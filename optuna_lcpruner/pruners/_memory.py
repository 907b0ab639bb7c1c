"""What the pruners share: decide once about a trial's reports, remember and record it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from optuna.logging import get_logger
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.optuna_storage import storage_of, study_id_of, trial_id_of
from optuna_lcpruner._util.recent import Recent
from optuna_lcpruner._util.redaction import redact
from optuna_lcpruner.decision.decision import Decision, Reason
from optuna_lcpruner.pruners.judge import failed, in_words
from optuna_lcpruner.records.ledger import DecisionContext
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.records.recorder import Location, PendingDecision, Recorder, current_sink
from optuna_lcpruner.study.stand_in import is_made_up

_logger = get_logger("optuna.lcpruner")

_MAX_REMEMBERED = 512  # heuristic
_MAX_STUDIES = 16  # heuristic

_MAY_COME = (Reason.FORECAST_PENDING, Reason.FORECASTER_UNAVAILABLE)
"""Not remembered: asked again about the same reports, there may be a forecast."""

Known = TypeVar("Known")


@dataclass
class Memo(Generic[Known]):
    """What is remembered of one study; all of it can be rebuilt from the storage.

    Attributes:
        known: What the pruner knows of the study.
        decisions: Decisions by trial and reports.
        ledger: Where the study's ledger is.
    """

    known: Known
    decisions: Recent[tuple[Any, ...], Decision] = field(
        default_factory=lambda: Recent(_MAX_REMEMBERED)
    )
    ledger: Location = field(default_factory=Location)


class DecisionMemory(Generic[Known]):
    """A pruner's decisions: each is made once, remembered and recorded; nothing is raised.

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
        self.publish = publish
        self.ledger = ledger
        self._new = new
        self._forget()

    def _forget(self) -> None:
        self.lock = threading.RLock()
        self._memos: weakref.WeakKeyDictionary[
            BaseStorage, Recent[tuple[int, StudyDirection], Memo[Known]]
        ] = weakref.WeakKeyDictionary()
        self._made_up = self._new()  # of all studies that another pruner makes up
        self._said: set[str] = set()
        self._recorder = Recorder(self.publish, self.ledger, self.warn_once)

    def __getstate__(self) -> dict[str, Any]:
        forgotten = ("lock", "_memos", "_made_up", "_said", "_recorder")
        return {key: value for key, value in self.__dict__.items() if key not in forgotten}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def memo(self, study: Study) -> Memo[Known]:
        """Return what is remembered of a study."""
        with self.lock:
            studies = self._memos.setdefault(storage_of(study), Recent(_MAX_STUDIES))
            key = (study_id_of(study), study.directions[0])
            studies[key] = studies.get(key) or Memo(self._new())
            return studies[key]

    def decide(
        self,
        study: Study,
        trial: FrozenTrial,
        judge: Callable[[Known, DecisionContext], Decision],
    ) -> Decision:
        """Return the decision about a trial with these reports; make and record it the first time.

        Args:
            study: The study.
            trial: The trial.
            judge: Makes the decision; if that raises, the trial goes on.
        """
        try:
            memo = Memo(self._made_up) if is_made_up(trial) else self.memo(study)
            key = _key_of(trial)
            known = memo.decisions.get(key)
            if known is not None:
                # In a combination what is made of it may be another thing now.
                self._hand_over(study, trial, known, None, always=False)
                return known
            decision, context = self._judge(memo, key, judge)
        except Exception as error:
            decision, context = failed(error, self.warn_once), DecisionContext(self._engine)
        self._hand_over(study, trial, decision, context, always=True)
        return decision

    def _judge(
        self,
        memo: Memo[Known],
        key: tuple[Any, ...],
        judge: Callable[[Known, DecisionContext], Decision],
    ) -> tuple[Decision, DecisionContext | None]:
        """Make and remember a decision; without context if another thread made it meanwhile."""
        context = DecisionContext(self._engine)
        start = time.perf_counter()
        with np.errstate(all="ignore"):  # whatever the caller has made errors
            decision = judge(memo.known, context)
        context.milliseconds = 1e3 * (time.perf_counter() - start)
        if decision.prune:
            decision.description  # noqa: B018 - no trial is stopped without a reason in words
        if decision.reason in _MAY_COME:
            return decision, context
        with self.lock:
            first = memo.decisions.setdefault(key, decision)
        return first, context if first is decision else None

    def in_words(self, decide: Callable[[], Decision]) -> Decision:
        """Return a decision with its words worked out; one that says so if that fails."""
        return in_words(decide, self.warn_once)

    def warn_once(self, topic: str, message: str) -> None:
        """Log a warning about a topic, the first time."""
        with self.lock:
            if topic in self._said:
                return
            self._said.add(topic)
        _logger.warning(redact(f"{self._owner}: {message}"))

    def _hand_over(
        self,
        study: Study,
        trial: FrozenTrial,
        decision: Decision,
        context: DecisionContext | None,
        always: bool,
    ) -> None:
        """Record a decision, or leave that to the sink of this thread."""
        sink = current_sink()
        record = partial(self._record, study, trial, context)
        if sink is not None:
            sink(PendingDecision(decision, record))
        elif always:
            record(decision)

    def _record(
        self, study: Study, trial: FrozenTrial, context: DecisionContext | None, decision: Decision
    ) -> None:
        if decision.reason not in _MAY_COME:
            self._recorder.record(study, trial, decision, context, self.memo(study).ledger)


def _key_of(trial: FrozenTrial) -> tuple[Any, ...]:
    """A trial and its reports: Optuna keeps a step's first report, so number and newest suffice."""
    reports = trial.intermediate_values
    newest = next(reversed(reports.items()), None) if reports else None
    return (trial_id_of(trial), trial.number, trial.datetime_start, len(reports), newest)
