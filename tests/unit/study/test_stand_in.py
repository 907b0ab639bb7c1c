"""Trials that another pruner made up: which count as whole, and what they are worth."""

from __future__ import annotations

import pytest
from helpers import BAD, finished, reports, saturating
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_lcpruner.study.stand_in import as_reported, is_made_up


def made_up(*lengths: int) -> list[FrozenTrial]:
    return [finished(reports(saturating(0.9)[:n]), value=0.0) for n in lengths]


def asked(n: int) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, intermediate_values=reports(BAD[:n]))


def test_a_trial_without_a_number_is_made_up() -> None:
    trial = asked(3)
    assert is_made_up(trial)
    trial.number = 0
    assert not is_made_up(trial)


def test_the_whole_ones_have_their_last_reports() -> None:
    found = as_reported(made_up(20, 5, 20, 19), asked(5))
    assert [len(trial.intermediate_values) for trial in found] == [20, 20]
    assert {trial.value for trial in found} == {saturating(0.9)[19]}


def test_or_their_best() -> None:
    curve = {0: float("nan"), 1: 0.5, 2: 0.2, 3: 0.3}
    trials = [finished(curve, value=0.0)]
    assert [t.value for t in as_reported(trials, asked(2), min)] == [0.2]
    assert [t.value for t in as_reported(trials, asked(2), max)] == [0.5]
    assert [t.value for t in as_reported(trials, asked(2))] == [0.3]


def test_they_stay_as_they_were() -> None:
    trials = made_up(20)
    as_reported(trials, asked(5))
    assert trials[0].value == 0.0


@pytest.mark.parametrize("n", [20, 6])
def test_none_is_further_than_the_trial_asked_about(n: int) -> None:
    assert as_reported(made_up(6, 6, 4), asked(n)) == []


def test_values_that_differ_are_values() -> None:
    trials = [*made_up(20), finished(reports(BAD), value=0.4)]
    assert as_reported(trials, asked(5)) is trials


def test_none_at_all() -> None:
    assert as_reported([], asked(5)) == []
