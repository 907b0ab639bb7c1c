"""Pruners beside ours, and trials that several of them decide about."""

from __future__ import annotations

from typing import Any

import optuna
from helpers import N_STEPS, reports
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import Ledger, LedgerEntry
from optuna_lcpruner.records.location import address


class Says(BasePruner):
    """Answers as told, from a step on, and counts how often it was asked."""

    def __init__(self, answer: bool, since: int = 0) -> None:
        self.answer = answer
        self.since = since
        self.n_asked = 0

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        self.n_asked += 1
        return self.answer and max(trial.intermediate_values) >= self.since


def ours(**settings: Any) -> LearningCurvePruner:
    return LearningCurvePruner(**{"n_steps": N_STEPS, "threshold": 0.05, **settings})


def train(study: Study, values: Any) -> FrozenTrial:
    """A trial of the study that makes these reports until it is stopped."""

    def objective(trial: Trial) -> float:
        for step, value in reports(values).items():
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        # Before the trial ends and takes no more attributes.
        assert trial_attributes.writer().flush(60.0)
        return float(value)

    study.optimize(objective, n_trials=1)
    assert trial_attributes.writer().flush(10)
    return study.get_trials(deepcopy=False)[-1]


def on_record(study: Study, trial: FrozenTrial) -> list[LedgerEntry]:
    assert ledger_writer.flush(10)
    where = address(None, study._storage)
    assert where is not None
    return Ledger(where).of_trial(study.study_name, trial.number, trial.datetime_start)
