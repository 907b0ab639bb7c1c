from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers import (
    BAD,
    N_STEPS,
    environment,
    finished,
    good_trials,
    reports,
    saturating,
    sqlite,
    watch,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy import URL

import optuna_lcpruner
from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.cli import backtest as command
from optuna_lcpruner.cli._common import open_study
from optuna_lcpruner.cli.main import main
from optuna_lcpruner.records import ledger_writer

FAST = ["--orders", "2", "--pruner", "median:n_warmup_steps=2", "--pruner", "lcpruner:risk=0.5"]


def fill(storage: optuna.storages.BaseStorage) -> None:
    """Four studies: one to replay, one of two objectives, one without reports, one empty."""
    study = optuna.create_study(storage=storage, study_name="good", direction="maximize")
    rng = np.random.default_rng(0)
    for end in rng.uniform(0.3, 0.9, 12):
        study.add_trial(finished(reports(saturating(end, n=8))))
    study.add_trial(finished(reports([0.1, 0.2]), state=TrialState.PRUNED))
    optuna.create_study(storage=storage, study_name="two", directions=["minimize", "minimize"])
    silent = optuna.create_study(storage=storage, study_name="silent")
    silent.add_trials([finished({}, value=1.0)] * 6)
    optuna.create_study(storage=storage, study_name="empty")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "study.db"
    storage = sqlite(f"sqlite:///{path}")
    fill(storage)
    storage.engine.dispose()
    return path


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail; what it says in its one line on stderr."""

    def run(*argv: str) -> str:
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("optuna-lcpruner")
        return err

    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # an old matplotlib, a new pyparsing
def test_backtest_of_a_study_in_a_database(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashlib.sha256(database.read_bytes()).digest()
    saved, figure = tmp_path / "a.json", tmp_path / "a.svg"
    where = ["--storage", f"sqlite:///{database}", "--study", "good"]
    outputs = ["--json", str(saved), "--figure", str(figure)]
    code = main(["backtest", *where, *FAST, *outputs, "--top", "1", "--budget", "2"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")  # no progress bar without a terminal
    assert "good: 12 trials, maximize, a full training is 8 steps" in out
    assert "left out: 1 pruned" in out
    assert "2 full trainings" in out
    assert "Use lcpruner:risk=0.5" in out or "No lcpruner setting" in out
    assert "<svg" in figure.read_text()
    assert json.loads(saved.read_text())["pruners"][0]["pruner"] == "median:n_warmup_steps=2"
    assert hashlib.sha256(database.read_bytes()).digest() == before


def test_json_instead_of_text(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["backtest", "--storage", str(database), "--study", "good", *FAST, "--json"]
    assert main([*argv, "--seed", "3", "--trials", "6", "--n-steps", "9"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["study"], read["n_trials"], read["n_steps"]) == ("good", 6, 9)
    assert len(read["pruners"][0]["orders"]) == 2
    assert main([*argv, "--seed", "4", "--trials", "6", "--n-steps", "9"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["pruners"][0]["cost"] != read["pruners"][0]["cost"]


def test_backtest_of_a_journal_and_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal.log"
    fill(JournalStorage(JournalFileBackend(str(journal))))
    assert main(["backtest", "--storage", str(journal), "--study", "good", *FAST]) == 0
    of_journal = capsys.readouterr().out
    study = open_study(str(journal), "good")
    rows = [
        f"{trial.number},{step},{value}"
        for trial in study.get_trials(states=(TrialState.COMPLETE,))
        for step, value in trial.intermediate_values.items()
    ]
    curves = tmp_path / "good.csv"
    curves.write_text("\n".join(["trial,step,value", *rows]))
    argv = ["backtest", "--curves", str(curves), "--direction", "maximize", *FAST]
    assert main(argv) == 0
    of_file = capsys.readouterr().out

    def without_times(text: str) -> str:
        """What is not about times, of which a file does not tell."""
        return text[text.index("with the steps of") :]

    assert without_times(of_file) == without_times(of_journal)


def test_backtest_by_workers(
    database: Path, errors: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["backtest", "--storage", str(database), "--study", "good", *FAST, "--workers"]
    assert main([*argv, "3"]) == 0
    assert "replayed by 3 workers in 2 random orders" in capsys.readouterr().out
    assert main([*argv, "12", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["n_workers"] == 12
    assert read["pruners"][0]["cost"]["mean"] == 1.0  # all complete with their last reports
    assert "n_workers must be at least 1, but got 0" in errors(*argv, "0")
    assert "--workers: invalid int value: 'x'" in errors(*argv, "x")


def test_the_only_study_needs_no_name(tmp_path: Path) -> None:
    storage = sqlite(f"sqlite:///{tmp_path}/one.db")
    optuna.create_study(storage=storage, study_name="it")
    storage.engine.dispose()
    assert open_study(f"sqlite:///{tmp_path}/one.db").study_name == "it"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "which study of"),
        (["--study", "nope"], "no study named 'nope'"),
        (["--study", "nope"], "it holds: good, two, silent, empty."),
        (["--study", "two"], "has 2 objectives"),
        (["--study", "silent"], "none of the 6 completed trials of 'silent' reported"),
        (["--study", "empty"], "study 'empty' has no trials"),
        (["--study", "good", "--pruner", "medium"], "unknown pruner 'medium'; known are lcpruner"),
        (["--study", "good", "--pruner", "lcpruner:risk=7"], "risk must be between 0 and 1"),
        (["--study", "good", "--orders", "0"], "n_orders must be at least 1, but got 0"),
        (["--study", "good", "--orders", "x"], "--orders: invalid int value: 'x'"),
        (["--study", "good", "--n-steps", "0"], "n_steps must be at least 1, but got 0.0"),
        (["--study", "good", "--n-steps", "nan"], "n_steps must be at least 1, but got nan"),
        (["--study", "good", "--n-steps", "inf"], "n_steps must be at least 1, but got inf"),
        (["--study", "good", "--budget", "-1"], "budget must be above 0, but got -1.0"),
        (["--study", "good", "--figure", "a.gif"], "must end in .png, .pdf, .svg, but got 'a.gif'"),
        (["--study", "good", "--figure", "no/a.png"], "--figure: no such folder: "),
        (["--study", "good", "--json", "no/a.json"], "--json: no such folder: "),
        (["--study", "good", "--direction", "minimize"], "--direction belongs to --curves"),
        (["--study", "good", "--curves", "a.csv"], "either --storage URL or --curves FILE"),
    ],
)
def test_a_study_that_cannot_be_replayed(
    database: Path, errors: Callable[..., str], argv: list[str], said: str
) -> None:
    assert said in errors("backtest", "--storage", f"sqlite:///{database}", *argv)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("sqlite:///no.db", "no such file: no.db"),
        ("no.db", "no such file: no.db"),
        ("text.txt", "text.txt is neither an SQLite nor a journal file"),
        ("sqlite:///text.txt", "text.txt is not an SQLite database"),
        ("sqlite:///other.db", "cannot read storage 'sqlite:///other.db': (sqlite3.Operational"),
        ("foo://bar", "cannot read storage 'foo://bar'"),
        ("postgres://bar", "no such database or driver; try sqlite:///FILE, postgresql://"),
        ("foo://me:secret@bar", "cannot read storage 'foo://me:***@bar'"),
    ],
)
def test_a_storage_that_cannot_be_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    errors: Callable[..., str],
    storage: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("more\ntext\n")
    connection = sqlite3.connect("other.db")
    connection.execute("create table recipes (name)")
    connection.close()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert said in errors("backtest", "--storage", storage)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files  # only read


def test_a_storage_without_studies(tmp_path: Path, errors: Callable[..., str]) -> None:
    storage = sqlite(f"sqlite:///{tmp_path}/none.db")
    storage.engine.dispose()
    assert "holds no study" in errors("backtest", "--storage", f"{tmp_path}/none.db")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["backtest"], "either --storage URL or --curves FILE"),
        (["backtest", "--curves", "no.csv"], "no such file: no.csv"),
        (["backtest", "--curves", "no.csv", "--study", "a"], "--study belongs to --storage"),
        (["backtest", "--curves", "no.csv", "--direction", "up"], "invalid choice: 'up'"),
        ([], "required: COMMAND"),
        (["explode"], "invalid choice: 'explode'"),
        (["backtest", "--risk", "0.1"], "arguments: --risk 0.1 (see optuna-lcpruner backtest -"),
    ],
)
def test_arguments_that_cannot_be(errors: Callable[..., str], argv: list[str], said: str) -> None:
    assert said in errors(*argv)


@pytest.mark.parametrize("name", ["p q.db", "w?.db", "100%.db", "ä#.db"])
def test_a_file_of_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a path; as a URL it is written as Optuna takes it. Nothing is created."""
    monkeypatch.chdir(tmp_path)
    url = URL.create("sqlite", database=name).render_as_string()
    storage = sqlite(url)
    optuna.create_study(storage=storage, study_name="s")
    storage.engine.dispose()
    for where in (name, url):
        assert main(["explain", "--storage", where, "--trial", "0"]) == 2
        assert "study 's' has no trial 0" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_by_a_uri_of_sqlites_own(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"sqlite:///file:{database}?uri=true"
    assert main(["explain", "--storage", where, "--study", "empty", "--trial", "0"]) == 2
    assert "study 'empty' has no trial 0" in capsys.readouterr().err


def test_a_name_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="학습", direction="maximize")
    study.add_trials(good_trials())
    watch(study, LearningCurvePruner(N_STEPS), reports(BAD))
    assert ledger_writer.flush(20)
    code = "import sys; from optuna_lcpruner.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "--storage", url],
        env={**environment(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "\\ud559\\uc2b5" in done.stdout


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"optuna-lcpruner {optuna_lcpruner.__version__}\n"
    assert main(["--help"]) == 0
    assert "Why trials were pruned" in capsys.readouterr().out
    assert main(["backtest", "--help"]) == 0
    said = capsys.readouterr().out
    assert "lcpruner:risk=0.02" in said
    assert "wrapped, patience" in said


def test_an_interruption_is_no_traceback(
    database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "backtest", interrupted)
    assert main(["backtest", "--storage", str(database), "--study", "good"]) == 130
    assert capsys.readouterr().err == "optuna-lcpruner: interrupted\n"


def test_matplotlib_is_missed_before_the_replays(
    database: Path, monkeypatch: pytest.MonkeyPatch, errors: Callable[..., str]
) -> None:
    def missing() -> None:
        raise InputError("a figure needs matplotlib")

    monkeypatch.setattr(command, "require_matplotlib", missing)
    monkeypatch.setattr(command, "backtest", None)  # would be a TypeError
    argv = ["backtest", "--storage", str(database), "--study", "good", "--figure", "a.png"]
    assert "needs matplotlib" in errors(*argv)
