"""Studies with ledgers made by hand: decisions that nobody had to train for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from helpers import (
    constrained,
)
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner import Reason, report
from optuna_lcpruner.records.ledger import COLUMNS, Ledger, LedgerEntry
from optuna_lcpruner.records.location import Address
from optuna_lcpruner.reporting.report import Report

STARTED = datetime(2026, 1, 2, 3, 4, 5)
SIGN = {"maximize": 1.0, "minimize": -1.0}

JUDGED: dict[str, Any] = {
    "horizon": 20,
    "incumbent": 0.957,
    "incumbent_trial": 4,
    "threshold": 0.02,
    "q05": 0.902,
    "q50": 0.9141,
    "q95": 0.921,
    "engine_status": "ok",
}


def entry(step: int | None, why: Reason, p: float | None = None, **changes: Any) -> LedgerEntry:
    """A decision about a trial that reports at steps 0, 1, ..."""
    fields: dict[str, Any] = dict.fromkeys(COLUMNS)
    n = 0 if step is None else step + 1
    fields |= {
        "study": "s", "trial": 7, "step": step, "n_points": n, "look": n, "engine": "pool",
        "engine_status": "not asked", "milliseconds": 1.0, "version": "1",
        "reason": why.name, "message": f"{why.value}: words",
        "action": "prune" if why.prunes else "continue",
        "decided_at": datetime(2026, 1, 2, 3, 4, 5),
    }  # fmt: skip
    if p is not None:
        fields |= JUDGED | {"p_beat": p}
    return LedgerEntry(**(fields | changes))


class History:
    """A study and its ledger, trial by trial."""

    def __init__(self, folder: Path, direction: str = "maximize", name: str = "s") -> None:
        self.study = optuna.create_study(study_name=name, direction=direction)
        self.url = f"sqlite:///{folder}/{direction}.db"
        self.sign = SIGN[direction]
        self.entries: list[LedgerEntry] = []

    def trial(
        self,
        *decisions: LedgerEntry,
        value: float | None = None,
        n: int = 20,
        steps: Sequence[int] | None = None,
        state: TrialState = TrialState.COMPLETE,
        seconds: float | None = None,
        attrs: dict[str, Any] | None = None,
        constraints: Sequence[float] = (),
        how: str = "list",
    ) -> None:
        """A trial with n reports, or at these steps.

        Its decisions' metric values are turned to the direction.
        """
        number = len(self.study.get_trials(deepcopy=False))
        finished = state.is_finished()
        trial = FrozenTrial(
            number=number, trial_id=-1, state=state, params={}, distributions={},
            user_attrs=attrs or {}, system_attrs={},
            value=None if value is None else self.sign * value,
            intermediate_values=dict.fromkeys(steps or range(n), 0.5),
            datetime_start=STARTED,
            datetime_complete=STARTED + timedelta(seconds=seconds or 0) if finished else None,
        )  # fmt: skip
        self.study.add_trial(constrained(trial, *constraints, how=how) if constraints else trial)
        for decision in decisions:
            decision.study, decision.trial = self.study.study_name, number
            decision.trial_started = STARTED
            for name in ("value", "incumbent", "q05", "q25", "q50", "q75", "q95"):
                worth = getattr(decision, name)
                setattr(decision, name, None if worth is None else self.sign * worth)
            if self.sign < 0:
                decision.q05, decision.q95 = decision.q95, decision.q05
                decision.q25, decision.q75 = decision.q75, decision.q25
            self.entries.append(decision)

    def report(self) -> Report:
        Ledger(Address(self.url)).append(self.entries)
        return report(self.study, ledger=self.url)


def judged(step: int, why: Reason, p: float, **changes: Any) -> LedgerEntry:
    """A look with a forecast; 90 % interval 0.902 to 0.921, the best is 0.957."""
    return entry(step, why, p, **{"value": 0.8, "q25": 0.91, "q75": 0.92, **changes})


def control(step: int, p: float) -> LedgerEntry:
    return judged(step, Reason.CONTROL, p, action="control")


def filled(folder: Path, direction: str = "maximize", name: str = "s") -> History:
    """Two complete trials, three pruned, three of the control group of which two have ended."""
    history = History(folder, direction, name)
    history.trial(entry(0, Reason.STARTUP), value=0.957)
    history.trial(judged(1, Reason.UNDECIDED, 0.3), judged(15, Reason.UNDECIDED, 0.5), value=0.915)
    for step, p in ((3, 0.01), (5, 0.015), (7, 0.002)):
        history.trial(
            judged(1, Reason.UNDECIDED, 0.3), judged(step, Reason.BELOW_THRESHOLD, p),
            value=0.4, n=step + 1, state=TrialState.PRUNED, seconds=10.0 * (step + 1),
        )  # fmt: skip
    history.trial(judged(1, Reason.UNDECIDED, 0.3), control(3, 0.01), control(4, 0.01), value=0.99)
    history.trial(control(7, 0.02), value=0.905)
    history.trial(control(5, 0.02), n=6, state=TrialState.RUNNING)
    history.trial(entry(9, Reason.DIVERGED), value=0.1, n=10, state=TrialState.PRUNED, seconds=1.0)
    history.trial(entry(0, Reason.TOO_FEW_REPORTS), n=3, state=TrialState.FAIL)
    return history
