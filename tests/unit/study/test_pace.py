"""What trials take to start up and from report to report, and one beside the others."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
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
from optuna_lcpruner.study.pace import UsualPace, seconds_to_start, slowness, usual_pace

NOW = datetime(2026, 1, 1, 12)


def trial(seconds: float | None, n: int = 4, has_ended: bool = True, **attrs: float) -> FrozenTrial:
    """A trial with n reports that took, or has been running for, so many seconds."""
    made = finished(reports(saturating(0.9)[:n]), user_attrs=attrs) if n else finished({0: 0.5})
    made.intermediate_values = dict(list(made.intermediate_values.items())[:n])
    made.datetime_start = None if seconds is None else NOW - timedelta(seconds=seconds)
    made.datetime_complete = NOW if has_ended else None
    return made


def ended(*lengths: int, pace: float = 2.0, start_up: float = 0.0) -> list[FrozenTrial]:
    """Trials of so many reports that took this pace, after this time to start up."""
    return [trial(start_up + pace * n, n) for n in lengths]


@pytest.mark.parametrize("start_up", [0.0, 30.0])
def test_start_up_and_pace_of_ended_trials(start_up: float) -> None:
    found = usual_pace(ended(2, 4, 4, 7, 20, start_up=start_up))
    assert found is not None
    np.testing.assert_allclose(found, (start_up, 2.0))


@pytest.mark.parametrize(
    "say_nothing",
    [
        ended(2, 4, 7, 20),  # too few
        ended(20, 20, 20, 20, 20),  # starting up may be all of it
        [*ended(2, 4, 7, 20), trial(None)],
        [*ended(2, 4, 7, 20), trial(0.0)],
        [*ended(2, 4, 7, 20), trial(-3.0)],
    ],
)
def test_nothing_shows(say_nothing: list[FrozenTrial]) -> None:
    assert usual_pace(say_nothing) is None
    assert slowness(trial(8.0), usual_pace(say_nothing), NOW) == 1.0


def test_a_trial_starts_up_in_no_more_than_any_took() -> None:
    assert seconds_to_start([trial(10.0 - n, n) for n in (2, 3, 4, 5, 6)]) == pytest.approx(4.0)
    assert seconds_to_start([trial(float(n * n), n) for n in (2, 3, 4, 5, 6)]) == 0.0


@pytest.mark.parametrize("has_ended", [True, False])
@pytest.mark.parametrize(
    ("seconds", "start_up", "pace", "expected"),
    [
        (8.0, 0.0, 1.0, 2.0),
        (8.0, 0.0, 4.0, 0.5),
        (38.0, 30.0, 1.0, 38.0 / 34.0),  # twice as slow, but most of it was starting up
        (8e6, 0.0, 1.0, 10.0),
        (8e-6, 0.0, 1.0, 0.1),
        (-5.0, 0.0, 1.0, 1.0),
        (8.0, 0.0, 0.0, 1.0),
    ],
)
def test_slowness(
    seconds: float, start_up: float, pace: float, expected: float, has_ended: bool
) -> None:
    later = NOW + timedelta(hours=1) if has_ended else NOW
    asked = trial(seconds, 4, has_ended)
    assert slowness(asked, UsualPace(start_up, pace), later) == pytest.approx(expected)


def test_slowness_of_what_has_not_begun() -> None:
    for asked in (trial(None), trial(10.0, 0)):
        assert slowness(asked, UsualPace(0.0, 1.0), NOW) == 1.0


def test_what_a_resumed_trial_took_over_took_no_time() -> None:
    resumed = trial(10.0, 6, lcpruner_resumed_from=0, lcpruner_resumed_at_step=3)
    assert slowness(resumed, UsualPace(0.0, 1.0), NOW) == pytest.approx(5.0)


def test_a_replay_says_its_paces() -> None:
    told = [trial(10.0, lcpruner_seconds_per_report=pace) for pace in (2.0, 4.0)]
    assert usual_pace([*told, trial(99.0)]) == UsualPace(0.0, 3.0)
    assert slowness(told[0], UsualPace(0.0, 4.0), NOW) == pytest.approx(0.5)


def pruner(**settings: object) -> LearningCurvePruner:
    return LearningCurvePruner(N_STEPS, publish=False, ledger=False, **settings)  # type: ignore[arg-type]


def study_at_a_pace(seconds: float, start_up: float = 0.0) -> optuna.Study:
    """Trainings that took so many seconds a report, one of them stopped half-way."""
    trials = [
        *good_trials(),
        finished(reports(saturating(0.5)[: N_STEPS // 2]), state=TrialState.PRUNED),
    ]
    for one in trials:
        one.datetime_complete = datetime.now()
        took = timedelta(seconds=start_up + seconds * len(one.intermediate_values))
        one.datetime_start = one.datetime_complete - took
    return make_study(trials)


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
            assert f"times {seconds / 100:g}, the time it has taken" in decision.in_full
    assert stopped[1000.0]
    assert not stopped[10.0]


def test_starting_up_is_not_slow() -> None:
    """At its second report a trial of the usual pace has spent its time on starting up."""
    study = study_at_a_pace(1.0, start_up=60.0)
    usual, begun = threshold(study, 31.0, 2), threshold(study, 31.0, 2, cost="time")
    assert begun == pytest.approx(usual, rel=1e-3)


def test_before_any_has_completed_too() -> None:
    def is_behind(seconds: float) -> bool:
        study = optuna.create_study(direction="maximize")
        for n in (2, 2, 2, 3, 3):
            stopped = finished(reports(saturating(0.2)[:n]), state=TrialState.PRUNED)
            stopped.datetime_complete = datetime.now()
            stopped.datetime_start = stopped.datetime_complete - timedelta(seconds=100.0 * n)
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
