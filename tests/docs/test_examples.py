"""The quick start runs, shortened, as a user would run it; its summary agrees with the database."""

import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers import numbers, refused, run_example
from matplotlib import image
from optuna.trial import TrialState

pytest.importorskip("sklearn")

pytestmark = pytest.mark.slow

EPOCHS, TRIALS = 10, 12
OPTIONS = ["--trials", f"{TRIALS}", "--epochs", f"{EPOCHS}"]


@dataclass(frozen=True)
class Runs:
    folder: Path
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]

    def study(self, number: int) -> optuna.Study:
        storage = f"sqlite:///{self.folder / 'quickstart.db'}"
        return optuna.load_study(study_name=f"quickstart-{number}", storage=storage)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The quick start run twice in one folder, the second time with --check."""
    folder = tmp_path_factory.mktemp("quickstart")
    first = run_example("quickstart.py", *OPTIONS, folder=folder)
    return Runs(folder, first, run_example("quickstart.py", *OPTIONS, "--check", folder=folder))


def test_quickstart_succeeds_without_warnings(quickstart: Runs) -> None:
    for result in (quickstart.first, quickstart.second):
        assert result.returncode == 0, result.stderr
        assert "Warning" not in result.stderr


@pytest.mark.parametrize("number", [1, 2])
def test_quickstart_summary_is_what_the_database_says(quickstart: Runs, number: int) -> None:
    text = (quickstart.first if number == 1 else quickstart.second).stdout
    study = quickstart.study(number)
    completed = study.get_trials(states=[TrialState.COMPLETE])
    pruned = study.get_trials(states=[TrialState.PRUNED])
    assert completed
    assert pruned
    assert len(completed) + len(pruned) == len(study.trials) == TRIALS
    assert all(len(trial.intermediate_values) == EPOCHS for trial in completed)
    spent = sum(len(trial.intermediate_values) for trial in study.trials)

    assert f"quickstart-{number}: {TRIALS} trials" in text
    assert numbers(r"completed +(\d+)", text) == [len(completed)]
    assert numbers(r"pruned +(\d+)", text) == [len(pruned)]
    saved = round(100 * (1 - spent / (TRIALS * EPOCHS)))
    assert numbers(r"epochs +(\d+) of (\d+) .*?(\d+)% saved", text) == [
        spent,
        TRIALS * EPOCHS,
        saved,
    ]
    value, best = numbers(r"best loss +([\d.]+) \(trial (\d+)\)", text)
    assert best == study.best_trial.number
    np.testing.assert_allclose(value, study.best_value, atol=5e-5)


def test_quickstart_shows_the_reasons_of_pruned_trials(quickstart: Runs) -> None:
    shown = re.findall(r"^  trial (\d+) (pruned: .*)$", quickstart.first.stdout, re.MULTILINE)
    assert shown
    trials = quickstart.study(1).trials
    for number, reason in shown:
        assert trials[int(number)].state == TrialState.PRUNED
        assert trials[int(number)].user_attrs["lcpruner_reason"] == reason


def test_quickstart_check_trains_every_pruned_trial(quickstart: Runs) -> None:
    pruned = quickstart.study(2).get_trials(states=[TrialState.PRUNED])
    trained, of = numbers(r"Trained on: (\d+) of (\d+) pruned", quickstart.second.stdout)
    assert trained == of == len(pruned)
    (better,) = numbers(r"Better than the best: (\d+)", quickstart.second.stdout)
    assert 0 <= better <= trained
    assert "--check" not in quickstart.second.stdout
    assert "--check" in quickstart.first.stdout


def test_quickstart_repeats_with_the_same_seed(quickstart: Runs) -> None:
    first, second = (
        [(trial.params, trial.intermediate_values, trial.state) for trial in study.trials]
        for study in (quickstart.study(1), quickstart.study(2))
    )
    assert first == second


def test_quickstart_draws_a_png(quickstart: Runs) -> None:
    picture = quickstart.folder / "quickstart.png"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert 900 <= width <= 3000
    assert 400 <= height <= 2000
    pixels = image.imread(picture)
    assert pixels.shape[:2] == (height, width)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "--trials: must be an integer >= 1, but got '0'"),
        (["--epochs", "1"], "--epochs: must be an integer >= 2, but got '1'"),
        (["--epochs", "many"], "--epochs: must be an integer >= 2, but got 'many'"),
        (["--seed", "-1"], "--seed: must be an integer >= 0, but got '-1'"),
        (["--storage", "study.db"], "--storage: cannot open 'study.db', try sqlite:///FILE"),
        (["--figure", "missing/x.png"], "--figure: no such folder"),
        (["--figure", "x.doc"], "--figure: must end in .png, .pdf or .svg"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_quickstart_refuses(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused("quickstart.py", *options, folder=tmp_path)
    assert not any(tmp_path.iterdir())


def test_quickstart_exits_without_a_traceback(tmp_path: Path) -> None:
    result = run_example("quickstart.py", "--storage", "study.db", folder=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
