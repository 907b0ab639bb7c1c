"""The check before a long search: what three completed trials show of each mistake."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers import (
    N_STEPS,
    constrained,
    finished,
    good_trials,
    make_study,
    reports,
    saturating,
    sqlite,
)
from optuna.trial import TrialState, create_trial

from optuna_lcpruner import Check, LearningCurvePruner, check
from optuna_lcpruner.cli.main import main

CURVES = [saturating(end) for end in (0.8, 0.84, 0.9)]


def checked(trials: list[optuna.trial.FrozenTrial], direction: str = "maximize",
            n_steps: int | None = N_STEPS) -> Check:  # fmt: skip
    return check(make_study(trials, direction), LearningCurvePruner(n_steps))


def problems(found: Check) -> list[str]:
    return [finding.about for finding in found.problems]


def text(found: Check, about: str) -> str:
    (finding,) = [finding for finding in found.findings if finding.about == about]
    return finding.text


def test_all_as_it_should_be() -> None:
    found = checked([finished(reports(curve)) for curve in CURVES])
    assert problems(found) == []
    assert text(found, "n_steps") == "20, as given; completed trials show 20"
    assert text(found, "steps") == "0 to 19, 1 from one report to the next: n_steps is in this unit"
    assert text(found, "target") == "the objective returns its last report"
    assert text(found, "pruning") == "by forecast from now on, from the second report on"
    assert str(found).splitlines()[0].endswith("no problem")


def test_before_the_first_trial() -> None:
    found = checked([], n_steps=None)
    assert problems(found) == []
    assert text(found, "n_steps") == "unknown until a trial completes; better pass it"
    assert text(found, "pruning").startswith("by forecast after 3 more completed trials, ")
    assert "early ranks" in text(found, "pruning")


def test_wrong_direction() -> None:
    found = checked([finished(reports(c)) for c in CURVES], "minimize")
    assert problems(found) == ["direction"]
    assert text(found, "pruning").startswith("none by forecast: direction looks wrong")


def test_what_few_trials_cannot_show_is_not_said() -> None:
    found = checked([finished(reports(curve), value=7.0) for curve in CURVES[:2]])
    assert text(found, "metric").startswith("not judged yet")
    assert text(found, "pruning").startswith("by forecast after 1 more completed trial, ")


def test_by_the_settings_of_the_pruner() -> None:
    study = make_study([finished(reports(curve)) for curve in CURVES], "maximize")
    found = check(study, LearningCurvePruner(N_STEPS, n_best=5))
    assert text(found, "pruning").startswith("by forecast after 2 more completed trials, ")
    unchecked = check(study, LearningCurvePruner(N_STEPS, check_metric=False))
    assert text(unchecked, "metric").startswith("not judged")
    longer = [
        finished(reports(curve), user_attrs={"lcpruner_n_steps": 4 * N_STEPS}) for curve in CURVES
    ]
    given = check(make_study(longer, "maximize"), LearningCurvePruner(N_STEPS))
    assert text(given, "n_steps") == "20, as given; completed trials show 20"


def test_another_metric() -> None:
    trials = [finished(reports(curve), value=-curve[-1]) for curve in CURVES]
    assert problems(checked(trials)) == ["metric"]


def test_another_unit() -> None:
    found = checked([finished(reports(curve)) for curve in CURVES], n_steps=2000)
    assert problems(found) == ["n_steps"]


def test_folds() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0.8, 0.02, (4, 5))
    trials = [finished(reports(row), value=float(np.mean(row))) for row in scores]
    assert "folds" in problems(checked(trials, n_steps=5))


def test_constraints_that_no_trial_keeps() -> None:
    broken = [constrained(finished(reports(curve)), 1.0) for curve in CURVES]
    assert problems(checked(broken)) == ["constraints"]
    kept = [constrained(finished(reports(CURVES[0])), 0.0), *broken]
    assert text(checked(kept), "constraints") == "1 of 4 completed trials keep them"


@pytest.mark.parametrize(("hours", "n_dead"), [((2.0, 2.9), 0), ((2.0, 3.1), 1), ((4.0, 99.0), 2)])
def test_trials_of_killed_workers(hours: tuple[float, ...], n_dead: int) -> None:
    """The longest training took an hour."""
    study = make_study()
    now = datetime.now()
    for trial in good_trials():
        trial.datetime_start = now - timedelta(hours=10)
        trial.datetime_complete = now - timedelta(hours=9)
        study.add_trial(trial)
    for taken in hours:
        running = create_trial(state=TrialState.RUNNING)
        running.datetime_start = now - timedelta(hours=taken)
        study.add_trial(running)
    found = [f.text for f in check(study).findings if f.about == "workers"]
    assert [text.partition(" running")[0] for text in found] == (
        [f"{n_dead} trial{'s' * (n_dead > 1)}"] if n_dead else []
    )


@pytest.mark.parametrize(
    ("n_steps", "stride", "expected"),
    [(128, 1, "second report"), (129, 1, "third of 128 parts"), (10_000, 500, "second report")],
)
def test_from_when_on_long_trainings_are_judged(n_steps: int, stride: int, expected: str) -> None:
    steps = range(0, n_steps, stride)
    trials = [finished(reports(saturating(e, len(steps)), steps)) for e in (0.8, 0.84, 0.9)]
    found = checked(trials, n_steps=n_steps)
    assert text(found, "pruning") == f"by forecast from now on, from the {expected} on"


def test_no_trial_is_dead_by_trials_without_a_duration() -> None:
    study = make_study(good_trials())
    study.ask()
    assert "workers" not in [finding.about for finding in check(study).findings]


def test_another_pruner_and_several_objectives() -> None:
    study = make_study(pruner=optuna.pruners.MedianPruner())
    assert problems(check(study)) == ["pruner"]
    several = optuna.create_study(directions=["minimize"] * 2, pruner=LearningCurvePruner())
    assert problems(check(several)) == ["direction"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="s", storage=sqlite(url), direction="maximize")
    study.add_trials([finished(reports(curve)) for curve in CURVES])
    argv = ["check", "--storage", url, "--n-steps"]
    assert main([*argv, "20"]) == 0
    assert "20, as given" in capsys.readouterr().out
    assert main([*argv, "2000"]) == 1
    assert "PROBLEM  n_steps" in capsys.readouterr().out
    assert main([*argv, "0"]) == 2
    assert "n_steps must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert 'words="backtest check completion explain report serve"' in script
    assert "--trial" in script


def test_contradictory_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="n_warmup_steps=41 is beyond n_steps=40"):
        LearningCurvePruner(40, n_warmup_steps=41)
    LearningCurvePruner(40, n_warmup_steps=40)
    with pytest.raises(ValueError, match=r"give risk=0\.02 or threshold=0\.05, not both"):
        LearningCurvePruner(40, risk=0.02, threshold=0.05)


def test_did_you_mean() -> None:
    with pytest.raises(ValueError, match="Did you mean 'closed_form'"):
        LearningCurvePruner(engine="closed-form")
    with pytest.raises(ValueError, match="engine must be one of") as caught:
        LearningCurvePruner(engine="nothing like it")
    assert "Did you mean" not in str(caught.value)
