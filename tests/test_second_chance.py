"""Second chances: who gets one, that it runs to its end, and what the report says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import N_STEPS, good_trials, make_study, saturating, sqlite
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from test_study_report import History, judged

from optuna_lcpruner import LearningCurvePruner, Reason, explain, report, requeue
from optuna_lcpruner.ledger import LedgerError
from optuna_lcpruner.study_report import calls

ATTRIBUTE = "lcpruner_requeued_from"


def objective(trial: optuna.Trial) -> float:
    """Approaches a value that the parameter sets."""
    curve = saturating(trial.suggest_float("end", 0.2, 0.9))
    for step, value in enumerate(curve):
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(curve[-1])


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    study = make_study(
        good_trials(),
        storage=sqlite(f"sqlite:///{tmp_path}/study.db"),
        pruner=LearningCurvePruner(N_STEPS),
    )
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    study.optimize(objective, n_trials=15)
    return study


class TestCalls:
    def test_all_prunes_by_forecast_the_closest_first(self, study: optuna.Study) -> None:
        found = calls(study)
        assert sorted(call.trial for call in found) == [
            trial.number for trial in study.get_trials() if trial.state == TrialState.PRUNED
        ]
        assert len(found) > 5
        p = [call.p_beat for call in found]
        assert p == sorted(p, reverse=True)
        assert list(report(study).closest) == found[:5]

    def test_two_objectives(self) -> None:
        two = optuna.create_study(directions=["minimize", "minimize"])
        with pytest.raises(ValueError, match="2 objectives"):
            calls(two)


class TestRequeue:
    def test_the_closest_calls_run_to_their_end(self, study: optuna.Study) -> None:
        closest = [call.trial for call in calls(study)[:2]]
        n = len(study.get_trials())
        assert requeue(study, 2) == closest
        study.optimize(objective, n_trials=2)
        trials = study.get_trials()
        again = trials[n:]
        assert [trial.user_attrs[ATTRIBUTE] for trial in again] == closest
        for trial, first in zip(again, closest, strict=True):
            assert trial.params == trials[first].params
            assert trial.state == TrialState.COMPLETE
            assert len(trial.intermediate_values) == N_STEPS
            decisions = explain(study, trial.number).decisions
            spared = [entry for entry in decisions if entry.reason == "SECOND_CHANCE"]
            assert spared
            assert {entry.action for entry in spared} == {"continue"}
        assert "second chance, runs on" in explain(study, n).summary

    def test_the_report_tells_how_they_ended(self, study: optuna.Study) -> None:
        before = report(study)
        assert before.second_chances == []
        assert "Second chances" not in str(before)
        first, _ = requeue(study, 2)
        study.optimize(objective, n_trials=1)
        done, waiting = report(study).second_chances
        assert (done.first, done.trial, done.state) == (first, 20, "COMPLETE")
        assert done.value == study.get_trials()[20].value
        assert done.beat is (done.value > done.incumbent)
        assert (waiting.state, waiting.value, waiting.beat) == ("WAITING", None, None)
        text = str(report(study))
        assert "Second chances" in text
        assert "best when pruned" in text

    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize(("value", "beat"), [(0.95, False), (0.96, True)])
    def test_what_beats_the_best(
        self, direction: str, value: float, beat: bool, tmp_path: Path
    ) -> None:
        history = History(tmp_path, direction)
        history.trial(judged(3, Reason.HOPELESS, 0.01), value=0.4, n=4, state=TrialState.PRUNED)
        history.trial(judged(3, Reason.SECOND_CHANCE, 0.01), value=value, attrs={ATTRIBUTE: 0})
        found = history.report()
        assert [chance.beat for chance in found.second_chances] == [beat]
        # Chosen for its high P: it says nothing about P in general.
        assert found.log_scores is None
        assert found.n_control == 0

    def test_each_gets_one(self, study: optuna.Study) -> None:
        closest = [call.trial for call in calls(study)]
        assert requeue(study, 2) == closest[:2]
        assert requeue(study, 3) == closest[2:5]
        assert requeue(study, 1000) == closest[5:]
        assert requeue(study, 1) == []

    def test_a_second_chance_that_diverges_is_stopped(self, study: optuna.Study) -> None:
        requeue(study, 1)
        trial = study.ask()
        trial.report(float("nan"), 0)
        assert trial.should_prune()

    def test_in_a_journal(self, tmp_path: Path) -> None:
        storage = JournalStorage(JournalFileBackend(f"{tmp_path}/s.log"))
        setting = f"sqlite:///{tmp_path}/l.db"
        study = make_study(good_trials(), storage=storage)
        study.pruner = LearningCurvePruner(N_STEPS, ledger=setting)
        study.enqueue_trial({"end": 0.3})
        study.optimize(objective, n_trials=1)
        assert requeue(study, 1) == [5]
        study.optimize(objective, n_trials=1)
        assert study.get_trials()[6].state == TrialState.COMPLETE
        np.testing.assert_allclose(study.get_trials()[6].params["end"], 0.3)
        (chance,) = report(study).second_chances
        assert (chance.first, chance.trial, chance.state) == (5, 6, "COMPLETE")

    @pytest.mark.parametrize(
        ("k", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)]
    )
    def test_bad_numbers(self, k: Any, error: type[Exception], study: optuna.Study) -> None:
        with pytest.raises(error, match=r"^k must be"):
            requeue(study, k)

    def test_no_ledger(self) -> None:
        with pytest.raises(LedgerError):
            requeue(make_study(good_trials()), 1)
