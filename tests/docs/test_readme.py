"""README.md as a newcomer follows it, in one folder: own objective, reasons, back-test."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optuna_lcpruner.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
N_TRIALS = 25
"""Instead of the README's 60, to be quick."""


class Network:
    """What the README leaves to the reader: learns to a loss that its learning rate allows."""

    def __init__(self, learning_rate: float) -> None:
        self.end = 0.1 + abs(learning_rate - 0.03)
        self.loss = 1.0 + self.end

    def train_an_epoch(self) -> float:
        self.loss += 0.2 * (self.end - self.loss)
        return self.loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the README's search has run; its study is made by the README's own lines."""
    folder = tmp_path_factory.mktemp("readme")
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    code = code.replace("n_trials=60", f"n_trials={N_TRIALS}")
    names: dict[str, Any] = {"Network": Network}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(
            compile(code.replace("n_trials=60", f"n_trials={N_TRIALS}"), "README.md", "exec"), names
        )
    return folder


@pytest.fixture
def study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    monkeypatch.chdir(folder)
    return optuna.load_study(study_name=None, storage="sqlite:///study.db")


def test_the_search_prunes_and_says_why(study: optuna.Study) -> None:
    assert len(study.trials) == N_TRIALS
    pruned = study.get_trials(states=[TrialState.PRUNED])
    assert pruned
    keys = set(re.findall(r"`(lcpruner_\w+)`", README))
    assert {"lcpruner_reason", "lcpruner_p_beat_best", "lcpruner_forecast"} <= keys
    assert keys <= set(pruned[-1].user_attrs)


def commands() -> list[str]:
    return re.findall(r"^\.venv/bin/optuna-lcpruner (.*?)(?: +#.*)?$", README, re.MULTILINE)


def test_the_commands_are_there() -> None:
    assert [line.split()[0] for line in commands()] == ["explain", "report", "backtest"]


@pytest.mark.parametrize("command", commands())
def test_the_commands_run(
    command: str, study: optuna.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the reader's study for that of the quick start, which is not run here."""
    pruned = study.get_trials(states=[TrialState.PRUNED])[-1].number
    command = re.sub(r"(?<=--trial )\d+", f"{pruned}", command)
    ours = {"quickstart-1": study.study_name, "quickstart.db": "study.db"}
    words = [ours.get(word, word) for word in shlex.split(command)]
    if words[0] == "backtest":
        words += ["--orders", "2", "--jobs", "1"]  # the last one of each counts; quicker
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert {
        "explain": f"Trial {pruned} was pruned at step ",
        "report": "What pruning cost",
        "backtest": "steps spent",
    }[words[0]] in printed
    if "--figure" in words:
        assert Path(words[words.index("--figure") + 1]).is_file()
