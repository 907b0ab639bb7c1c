"""A study that goes on with another unit is told from one that does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest
from helpers import GOOD_ENDS, N_STEPS, finished, make_study, reports, saturating, train
from numpy.typing import ArrayLike
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner, check
from optuna_lcpruner.study.history import StudyRecord
from optuna_lcpruner.study.units import changed_unit, jump

AROUND_ONE = [0.9, 1.1, 1.0, 1.2]
AROUND_A_HUNDRED = [90.0, 110.0, 95.0, 100.0, 120.0]


@pytest.mark.parametrize(
    ("starts", "found"),
    [
        (AROUND_ONE + AROUND_A_HUNDRED, (4, 100.0 / 1.05)),
        (AROUND_A_HUNDRED + AROUND_ONE, None),  # four of the new kind are too few
        (AROUND_A_HUNDRED[:3] + AROUND_ONE + [1.0], (3, 1.0 / 95.0)),
        (AROUND_ONE[:2] + AROUND_A_HUNDRED * 2, None),  # so are two of the old one
        ([-v for v in AROUND_ONE + AROUND_A_HUNDRED], (4, 100.0 / 1.05)),
        (AROUND_ONE + [1.0] + [4.9 * v for v in AROUND_ONE] + [4.9], None),  # not far enough
        ([1.0, 50.0, 2.0] + [1e3 * v for v in AROUND_ONE] + [1e3], None),  # as far among themselves
        (AROUND_ONE + [0.0] * 5, None),
        ([-1.0] * 4 + AROUND_A_HUNDRED, None),
        (AROUND_ONE + [np.inf] * 5, None),
        (AROUND_ONE + AROUND_A_HUNDRED + [1.0], None),  # and back again
        ([], None),
    ],
)
def test_jump(starts: list[float], found: tuple[int, float] | None) -> None:
    got = jump(np.array(starts))
    if found is None:
        assert got is None
    else:
        assert got is not None
        assert got[0] == found[0]
        assert got[1] == pytest.approx(found[1], rel=0.1)


def test_a_better_value_since_then_is_the_one_to_beat() -> None:
    completed = [finished({0: v, 1: v / 2}) for v in AROUND_A_HUNDRED]
    for number, trial in enumerate(completed):
        trial.number = number
    summary = StudyRecord(maximize=False).update(completed)
    stopped = {10 + i: v for i, v in enumerate([*AROUND_ONE, 1.0])}
    assert changed_unit(stopped, summary) == (
        "all trials from number 10 on begin at 1/100 of what those before it did: if the metric, "
        "its unit or the data have changed, begin a new study"
    )
    assert changed_unit(stopped, replace(summary, incumbent_trial=10)) is None
    assert changed_unit(stopped, replace(summary, incumbent_trial=None)) is None


def test_the_newest_starts_are_kept() -> None:
    completed = [finished({0: float(i), 1: 0.0}) for i in range(520)]
    for number, trial in enumerate(completed):
        trial.number = number
    starts = StudyRecord(maximize=False).update(completed).starts
    assert starts == {i: float(i) for i in range(20, 520)}


def go_on(with_curves: list[ArrayLike]) -> optuna.Study:
    """A study of percentages in which trainings of these curves follow."""
    percent = [finished(reports(100.0 * saturating(end))) for end in (0.7, 0.8, 0.9)]
    study = make_study(percent, pruner=LearningCurvePruner(N_STEPS))
    study.optimize(lambda trial: train(trial, with_curves[trial.number - 3]), len(with_curves))
    return study


def test_said_in_the_log_once_and_by_check(warned: list[str]) -> None:
    study = go_on([saturating(0.9 - 0.01 * i) for i in range(9)])
    assert [trial.state for trial in study.trials[3:]] == [TrialState.PRUNED] * 9
    words = "all trials from number 3 on begin at 1/9"
    assert [words in message for message in warned] == [True]
    assert [words in problem.text for problem in check(study).problems] == [True]


def test_nothing_is_said_of_hopeless_trials(warned: list[str]) -> None:
    study = go_on([100.0 * saturating(0.4 - 0.01 * i) for i in range(9)])
    assert [trial.state for trial in study.trials[3:]] == [TrialState.PRUNED] * 9
    assert not warned
    assert not check(study).problems


def test_nor_of_a_transient_that_all_have(warned: list[str]) -> None:
    def loss(end: float) -> ArrayLike:
        return np.r_[1e6, 2.0 - saturating(end)[1:]]

    study = optuna.create_study(pruner=LearningCurvePruner(N_STEPS))
    study.add_trials([finished(reports(loss(end))) for end in GOOD_ENDS])
    study.optimize(lambda trial: train(trial, loss(0.3)), 6)
    assert [trial.state for trial in study.trials[5:]] == [TrialState.PRUNED] * 6
    assert not warned
