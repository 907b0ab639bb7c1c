"""The folder for OptunaHub's registry: loads as OptunaHub loads it, and is as the registry asks."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import optunahub
import pytest
import yaml
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner

HUB = Path(__file__).parents[2] / "docs" / "optunahub"
PACKAGE = "pruners/learning_curve"
FOLDER = HUB / "package" / PACKAGE


def load(package: str) -> ModuleType:
    return optunahub.load_local_module(package, registry_root=str(HUB / "package"))


@pytest.fixture
def from_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``optunahub.load_module`` takes this folder instead of the registry's; the packages asked."""
    asked: list[str] = []

    def load_module(package: str, **_: Any) -> ModuleType:
        asked.append(package)
        return load(package)

    monkeypatch.setattr(optunahub, "load_module", load_module)
    return asked


def readme() -> tuple[dict[str, Any], str]:
    """Front matter and text."""
    _, front, text = (FOLDER / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_it_loads_and_is_the_pruner() -> None:
    module = load(PACKAGE)
    assert module.__all__ == ["LearningCurvePruner"]
    assert module.LearningCurvePruner is LearningCurvePruner


def test_the_files_of_a_registry_package() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == {
        "LICENSE", "README.md", "__init__.py", "example.py", "requirements.txt",
    }  # fmt: skip
    assert (FOLDER / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) ")
    assert (FOLDER / "requirements.txt").read_text() == "optuna-lcpruner\n"


def test_the_front_matter() -> None:
    front, text = readme()
    assert list(front) == ["author", "title", "description", "tags", "optuna_versions", "license"]
    assert all(front.values())
    assert front["license"] == "MIT License"
    assert front["tags"][0] == "pruner"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in front["optuna_versions"])
    for section in ("Abstract", "APIs", "Installation", "Example"):
        assert f"\n## {section}\n" in text
    assert not re.search(r"</?[a-z]+[ />]", text), "the registry's page drops HTML"


def test_the_settings_in_the_readme_are_the_pruners() -> None:
    """Names and defaults; a changed default shows up here."""
    _, text = readme()
    line = re.search(r"`LearningCurvePruner\((.*), \.\.\.\)`", text)
    assert line is not None
    parameters = signature(LearningCurvePruner).parameters
    for part in line[1].replace("*, ", "").split(", "):
        name, default = part.split("=")
        assert repr(parameters[name].default) == default, name
        assert f"  - `{name}`: " in text


def test_the_readmes_example_runs(from_here: list[str]) -> None:
    _, text = readme()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    study: optuna.Study = names["study"]
    assert from_here == [PACKAGE]
    assert isinstance(study.pruner, LearningCurvePruner)
    assert study.get_trials(states=[TrialState.PRUNED])


def test_the_example_runs_and_says_what_its_study_says(from_here: list[str]) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        names = runpy.run_path(str(FOLDER / "example.py"))
    study: optuna.Study = names["study"]
    assert from_here == [PACKAGE]
    pruned = study.get_trials(states=[TrialState.PRUNED])
    assert len(pruned) > len(study.trials) // 2
    assert f"best loss {study.best_value:.4f}; {len(pruned)} of 60 trials" in printed.getvalue()
    assert f"trial {pruned[-1].number} pruned: P = " in printed.getvalue()


def test_it_is_typed_as_the_registry_asks() -> None:
    """By the registry's settings, and like there with nothing installed beside."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-site-packages", "--config-file", "../pyproject.toml",
         "--cache-dir", os.devnull, PACKAGE],
        cwd=HUB / "package",
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
