"""What is released: built, installed where nothing else is, and used from another folder.

Needs a package index, as every installation does; without one these tests fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import optuna_lcpruner

ROOT = Path(__file__).parents[2]
PACKAGE = Path(optuna_lcpruner.__file__).parent
VERSION = optuna_lcpruner.__version__
BIN = "Scripts" if os.name == "nt" else "bin"
SEMANTIC_VERSION = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"

pytestmark = pytest.mark.slow

SCRIPT = '''
"""A search as a user types it, checked as strictly as mypy can."""

import optuna

from optuna_lcpruner import Decision, Forecast, LearningCurvePruner, forecast


def objective(trial: optuna.Trial) -> float:
    end = trial.suggest_float("end", 0.0, 1.0)
    loss = 1.0
    for epoch in range(20):
        loss = end + (1.0 - end) * 0.6 ** (epoch + 1)
        trial.report(loss, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


pruner = LearningCurvePruner(n_steps=20)
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
study.optimize(objective, n_trials=20)
decision: Decision = pruner.decide(study, study.trials[-1])
ahead: Forecast = forecast([0.6, 0.7, 0.75], n_steps=20, direction="maximize")
low, high = ahead.interval()
pruned = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED]
print(f"pruned {len(pruned)}; {pruned[-1].user_attrs['lcpruner_reason']}; {low < high}; {decision}")
'''


def run(*command: str | Path, folder: Path) -> str:
    """What a command prints; fails with what it says if it does. Nothing of the tree is seen."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path

    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of this tree, and the wheel made from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@dataclass(frozen=True)
class Installed:
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "venv" / BIN / "python"

    def command(self, name: str) -> Path:
        return self.folder / "venv" / BIN / name


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment with the wheel and what it requires alone, in an otherwise empty folder."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", with_pip=True)
    here = Installed(folder)
    run(here.python, "-m", "pip", "install", "-q", "--no-compile", built.wheel, folder=folder)
    (folder / "search.py").write_text(SCRIPT)
    return here


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    sources = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py")}
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    info = f"optuna_lcpruner-{VERSION}.dist-info"
    assert names == sources | {"optuna_lcpruner/py.typed"} | {
        f"{info}/{name}"
        for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }


def test_the_sdist_holds_what_the_tests_need(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    for folder in ("optuna_lcpruner", "tests", "examples", "docs"):
        there = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.suffix in (".py", ".md", ".npz", ".cff", ".txt")
        }
        assert there
        assert there <= files
    assert {"pyproject.toml", "README.md", "LICENSE"} <= files
    assert not [name for name in files if name.endswith(".pyc")]


def test_the_metadata(built: Built) -> None:
    found = built.metadata()
    assert found["Name"] == "optuna-lcpruner"
    assert found["Version"] == VERSION
    assert found["License-Expression"] == "MIT"
    assert found["Requires-Python"] == ">=3.10"
    assert found["Description-Content-Type"] == "text/markdown"
    assert found["Author"]
    assert found["Summary"]
    assert found["Keywords"]
    assert "Typing :: Typed" in found.get_all("Classifier", [])
    assert str(found.get_payload()).strip() == (ROOT / "README.md").read_text().strip()
    required = found.get_all("Requires-Dist", [])
    always = {re.split(r"[^\w-]", line)[0] for line in required if "extra ==" not in line}
    assert always == {"optuna", "numpy", "scipy", "sqlalchemy", "emcee"}
    extras = {"figures", "dashboard", "examples", "test"}
    assert extras <= set(found.get_all("Provides-Extra", []))


def test_a_search_in_an_empty_environment(installed: Installed) -> None:
    printed = run(installed.python, "-W", "error", "search.py", folder=installed.folder)
    assert re.match(r"pruned \d+; pruned: P = .* < .* at step \d+, forecast", printed)
    assert "; True; Decision(" in printed


def test_what_is_installed_is_all_there_and_fits(installed: Installed) -> None:
    script = (
        "import importlib, pkgutil, optuna_lcpruner as package\n"
        "print(package.__file__)\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
    )
    place = run(installed.python, "-c", script, folder=installed.folder).strip()
    assert Path(place).is_relative_to(installed.folder / "venv")
    run(installed.python, "-m", "pip", "check", folder=installed.folder)


def test_the_command_says_its_version(installed: Installed) -> None:
    printed = run(installed.command("optuna-lcpruner"), "--version", folder=installed.folder)
    assert printed == f"optuna-lcpruner {VERSION}\n"


def test_what_an_extra_brings_is_asked_for(installed: Installed) -> None:
    script = """
import optuna
from optuna_lcpruner import publish_to_dashboard
from optuna_lcpruner.backtest.figure import require_matplotlib
from optuna_lcpruner._util.validation import InputError

study = optuna.create_study()
for use in (lambda: publish_to_dashboard(study), require_matplotlib):
    try:
        use()
    except InputError as error:
        print(error)
"""
    first, second = run(installed.python, "-c", script, folder=installed.folder).splitlines()
    assert first.endswith(": pip install plotly optuna-dashboard")
    assert second.endswith(": pip install matplotlib")


def mypy(installed: Installed, script: str, text: str) -> subprocess.CompletedProcess[str]:
    (installed.folder / script).write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(installed.python),
         "--cache-dir", str(installed.folder / "cache"), script],
        cwd=installed.folder,
        capture_output=True,
        text=True,
    )  # fmt: skip


def test_a_users_script_is_typed(installed: Installed) -> None:
    right = mypy(installed, "search.py", SCRIPT)
    assert right.returncode == 0, right.stdout
    wrong = mypy(installed, "wrong.py", SCRIPT.replace("(n_steps=20)", "(n_steps='20')"))
    assert "has incompatible type" in wrong.stdout


def test_the_version_is_the_same_everywhere() -> None:
    assert re.fullmatch(SEMANTIC_VERSION, VERSION)
    newest = re.search(r"^## (\S+),", (ROOT / "docs/CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION
    assert yaml.safe_load((ROOT / "docs/CITATION.cff").read_text())["version"] == VERSION


def test_the_citation() -> None:
    """What CITATION.cff 1.2.0 asks for, and each of the papers with what finds it."""
    citation = yaml.safe_load((ROOT / "docs/CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "MIT"
    references = citation["references"]
    for paper in references:
        assert {"type", "title", "authors", "year"} <= set(paper)
        assert {"doi", "url"} & set(paper), paper["title"]
        assert all({"family-names", "given-names"} <= set(author) for author in paper["authors"])
    papers = {(paper["authors"][0]["family-names"], paper["year"]) for paper in references}
    names = {"Domhan": 2015, "Akiba": 2019, "Foreman-Mackey": 2013}
    assert papers == set(names.items())
