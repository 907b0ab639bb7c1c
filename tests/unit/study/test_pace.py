"""The pace of a trial, and what it is beside the others' mean."""

from __future__ import annotations

from datetime import datetime, timedelta

import optuna
import pytest
from helpers import (
    GOOD_ENDS,
    N_STEPS,
    begun_at,
    finished,
    good_trials,
    make_study,
    reports,
    saturating,
)
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.study.pace import mean_pace, seconds_per_report, slowness

NOW = datetime(2026, 1, 1, 12)


def trial(seconds: float | None, n: int = 4, ended: bool = True, **attrs: float) -> FrozenTrial:
    """A trial with n reports that took, or has been running for, so many seconds."""
    made = finished(reports(saturating(0.9)[:n]), user_attrs=attrs) if n else finished({0: 0.5})
    made.intermediate_values = dict(list(made.intermediate_values.items())[:n])
    made.datetime_start = None if seconds is None else NOW - timedelta(seconds=seconds)
    made.datetime_complete = NOW if ended else None
    return made


@pytest.mark.parametrize("ended", [True, False])
def test_the_time_since_it_began_by_its_reports(ended: bool) -> None:
    later = NOW + timedelta(hours=1) if ended else NOW
    assert seconds_per_report(trial(10.0, 4, ended), later) == pytest.approx(2.5)


@pytest.mark.parametrize("shows_nothing", [trial(None), trial(10.0, 0), trial(0.0), trial(-3.0)])
def test_no_pace_shows(shows_nothing: FrozenTrial) -> None:
    assert seconds_per_report(shows_nothing, NOW) is None
    assert mean_pace([shows_nothing], NOW) is None
    assert slowness(shows_nothing, 2.0, NOW) == 1.0


def test_what_a_resumed_trial_took_over_took_no_time() -> None:
    resumed = trial(10.0, 6, lcpruner_resumed_from=0, lcpruner_resumed_at_step=3)
    assert seconds_per_report(resumed, NOW) == pytest.approx(5.0)


def test_a_replay_says_its_pace() -> None:
    assert seconds_per_report(trial(10.0, lcpruner_seconds_per_report=7.0), NOW) == 7.0


def test_the_mean_is_of_those_that_show() -> None:
    assert mean_pace([trial(4.0), trial(None), trial(12.0)], NOW) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("seconds", "mean", "expected"),
    [(8.0, 1.0, 2.0), (8.0, 4.0, 0.5), (8.0, None, 1.0), (8e6, 1.0, 10.0), (8e-6, 1.0, 0.1)],
)
def test_slowness(seconds: float, mean: float | None, expected: float) -> None:
    assert slowness(trial(seconds), mean, NOW) == pytest.approx(expected)


def pruner(**settings: object) -> LearningCurvePruner:
    return LearningCurvePruner(N_STEPS, publish=False, ledger=False, **settings)  # type: ignore[arg-type]


def study_at_a_pace(seconds: float) -> optuna.Study:
    """Trainings that took so many seconds a report, one of them stopped half-way."""
    ended = [
        *good_trials(),
        finished(reports(saturating(0.5)[: N_STEPS // 2]), state=TrialState.PRUNED),
    ]
    for one in ended:
        one.datetime_complete = datetime.now()
        took = timedelta(seconds=seconds * len(one.intermediate_values))
        one.datetime_start = one.datetime_complete - took
    return make_study(ended)


def threshold(study: optuna.Study, seconds: float, n: int = 5, **settings: object) -> float:
    """The threshold for a trial that has taken so many seconds a report."""
    begun = begun_at(datetime.now() - timedelta(seconds=seconds * n), study)
    for step, value in reports(saturating(max(GOOD_ENDS))[:n]).items():
        begun.report(value, step)
    frozen = study.get_trials(deepcopy=False)[begun.number]
    found = pruner(**settings).decide(study, frozen).threshold
    assert found is not None
    return found


@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_the_threshold_goes_by_the_time_that_is_left(times: float) -> None:
    study = study_at_a_pace(100.0)
    usual = threshold(study, 100.0 * times)
    assert threshold(study, 100.0 * times, cost="time") == pytest.approx(times * usual, rel=1e-3)


def test_what_is_slow_for_its_length_alone_is_not_slow() -> None:
    study = study_at_a_pace(100.0)
    assert threshold(study, 100.0, 10, cost="time") == pytest.approx(
        threshold(study, 100.0, 10), rel=1e-3
    )


def test_a_slow_trial_is_stopped_where_a_fast_one_runs_on() -> None:
    stopped = {}
    for seconds in (10.0, 100.0, 1000.0):
        study = study_at_a_pace(100.0)
        begun = begun_at(datetime.now() - timedelta(seconds=seconds * 5), study)
        for step, value in reports(saturating(0.74)[:5]).items():
            begun.report(value, step)
        decision = pruner(cost="time").decide(study, study.get_trials(deepcopy=False)[-1])
        stopped[seconds] = decision.prune
        if seconds != 100.0:
            assert f"times {seconds / 100:g}, the time a report takes" in decision.in_full
    assert stopped[1000.0]
    assert not stopped[10.0]


def test_before_any_has_completed_too() -> None:
    def is_behind(seconds: float) -> bool:
        study = optuna.create_study(direction="maximize")
        stopped = finished(reports([0.1]), state=TrialState.PRUNED)
        stopped.datetime_start = datetime.now() - timedelta(seconds=100.0)
        study.add_trial(stopped)
        for end in (0.6, 0.7, 0.8, 0.9):
            rival = begun_at(datetime.now(), study)
            for step, value in reports(saturating(end)[:4]).items():
                rival.report(value, step)
        begun = begun_at(datetime.now() - timedelta(seconds=4 * seconds), study)
        for step, value in reports(saturating(0.35)[:4]).items():
            begun.report(value, step)
        return pruner(cost="time").prune(study, study.get_trials(deepcopy=False)[-1])

    assert is_behind(1000.0)
    assert not is_behind(10.0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="cost must be one of 'steps', 'time'"):
        pruner(cost="seconds")
    with pytest.raises(ValueError, match=r"or threshold=0\.05, not both"):
        pruner(cost="time", threshold=0.05)
    assert "clock" in str(pruner(cost="time").cannot_serve)
