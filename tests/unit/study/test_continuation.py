"""Continuations: what they carry in each storage, and whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from backends import kinds, open_storage, place
from helpers import N_STEPS, finished, make_study, reports, saturating
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_lcpruner import ResumePoint, resumed_from
from optuna_lcpruner.study.continuation import (
    continuations,
    enqueue_continuation,
    n_own_reports,
    second_chance_of,
)

X, COLOUR = FloatDistribution(0.0, 1.0), CategoricalDistribution(["red", None])


def pruned(x: float = 0.25, n: int = 3, **attrs: Any) -> FrozenTrial:
    return create_trial(
        state=TrialState.PRUNED,
        params={"x": x, "colour": None},
        distributions={"x": X, "colour": COLOUR},
        intermediate_values=reports(saturating(0.8)[:n]),
        user_attrs=attrs,
    )


class TestResumedFrom:
    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"lcpruner_requeued_from": 1},
            {"lcpruner_resumed_from": 1},
            {"lcpruner_resumed_from": 1, "lcpruner_resumed_at_step": "2"},
        ],
    )
    def test_a_trial_that_begins_anew(self, attributes: dict[str, Any]) -> None:
        assert resumed_from(finished({0: 1.0}, user_attrs=attributes)) is None

    def test_where_it_goes_on(self) -> None:
        attributes = {"lcpruner_resumed_from": 1, "lcpruner_resumed_at_step": 2}
        trial = finished({0: 1.0}, user_attrs=attributes)
        assert resumed_from(trial) == ResumePoint(number=1, step=2)


class TestEnqueueContinuation:
    @pytest.mark.parametrize("kind", kinds("memory", "sqlite", "journal", "grpc"))
    def test_the_next_trial_is_the_old_one_so_far(self, kind: str, tmp_path: Path) -> None:
        if kind == "memory":
            self.goes_on(InMemoryStorage())
            return
        with place(kind, tmp_path) as where:
            self.goes_on(open_storage(kind, where))

    def goes_on(self, storage: optuna.storages.BaseStorage) -> None:
        theirs = {"checkpoint": "a.pt", "lcpruner_n_steps": 7, "lcpruner_reason": "pruned: P"}
        study = make_study([finished({0: 0.5}), pruned(**theirs)], storage=storage)
        enqueue_continuation(study, study.get_trials()[1])
        trial = study.ask()
        assert trial.number == 2
        assert (trial.suggest_float("x", 0.0, 1.0), resumed_from(trial)) == (0.25, (1, 2))
        assert trial.suggest_categorical("colour", ["red", None]) is None
        with pytest.warns(UserWarning, match="already reported"):
            trial.report(0.9, 2)
        trial.report(0.9, 3)
        study.tell(trial, 0.9)
        old, new = study.get_trials()[1:]
        assert new.state == TrialState.COMPLETE
        assert new.params == old.params
        assert new.intermediate_values == {**old.intermediate_values, 3: 0.9}
        assert new.user_attrs == {
            "checkpoint": "a.pt", "lcpruner_n_steps": 7,
            "lcpruner_resumed_from": 1, "lcpruner_resumed_at_step": 2,
        }  # fmt: skip
        assert len(study.get_trials()) == 3

    def test_once_more(self) -> None:
        """Of a continuation that was pruned again."""
        study = make_study([pruned()])
        enqueue_continuation(study, study.get_trials()[0], {"mark": 1})
        first = study.ask()
        first.report(0.6, 3)
        study.tell(first, state=TrialState.PRUNED)
        enqueue_continuation(study, study.get_trials()[1])
        assert resumed_from(study.ask()) == (1, 3)
        assert {old: new.number for old, new in continuations(study.get_trials()).items()} == {
            0: 1,
            1: 2,
        }


def test_reports_of_its_own() -> None:
    study = make_study([pruned(n=3)])
    enqueue_continuation(study, study.get_trials()[0])
    assert [n_own_reports(trial) for trial in study.get_trials()] == [3, 0]
    trial = study.ask()
    for step in (3, 4):
        trial.report(0.5, step)
    assert n_own_reports(study.get_trials()[1]) == 2


class TestWhose:
    def test_no_continuation_of_a_trial_with_other_parameters(self) -> None:
        """It came from another study, where the number was another trial's."""
        other = make_study([pruned(0.5)])
        enqueue_continuation(other, other.get_trials()[0])
        trials = other.get_trials()
        assert list(continuations(trials)) == [0]
        study = make_study([pruned(0.25), trials[1]])
        assert continuations(study.get_trials()) == {}

    def test_one_that_runs_again_from_the_start_is_none(self) -> None:
        study = make_study([pruned()])
        params = study.get_trials()[0].params
        study.enqueue_trial(params, user_attrs={"lcpruner_requeued_from": 0})
        trials = study.get_trials()
        assert second_chance_of(trials[1], trials) == 0
        assert continuations(trials) == {}

    def test_a_number_that_is_no_earlier_trial(self) -> None:
        trial = finished(
            reports(saturating(0.8, N_STEPS)),
            user_attrs={"lcpruner_resumed_from": 5, "lcpruner_resumed_at_step": 2},
        )
        trial.number = 0
        assert continuations([trial]) == {}
