"""``optuna-lcpruner serve``: arguments, exit codes, signals, what is shown."""

from __future__ import annotations

import inspect
import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from helpers import BAD, good_trials, make_study, reports, sqlite
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from serving import Serving, wait

from optuna_lcpruner import LearningCurvePruner, RemotePruner
from optuna_lcpruner.cli.main import main
from optuna_lcpruner.cli.serve import Log, status
from optuna_lcpruner.records import trial_attributes
from optuna_lcpruner.service.events import Event
from optuna_lcpruner.service.study_worker import Counts

DEAD = "postgresql+psycopg2://me:topsecret@127.0.0.1:1/db"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def a_study(url: str, name: str = "s") -> Study:
    study = optuna.create_study(study_name=name, storage=sqlite(url), direction="maximize")
    study.add_trials(good_trials())
    return study


def running(study: Study, values: Any) -> optuna.Trial:
    trial = study.ask()
    for step, value in reports(values).items():
        trial.report(value, step)
    return trial


def serve(*arguments: str) -> int:
    return main(["serve", "--interval", "0.05", *arguments])


def system_attrs(study: Study, trial: optuna.Trial) -> dict[str, Any]:
    return study._storage.get_trial(trial._trial_id).system_attrs


class TestOnce:
    def test_it_judges_and_leaves(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        study = a_study(url)
        trial = running(study, BAD[:6])
        assert serve("--storage", url, "--once", "--n-steps", "20", "--threshold", "0.05") == 0
        found = system_attrs(study, trial)["lcpruner_verdict"]
        assert found["prune"] is True
        assert found["threshold"] == 0.05
        said = capsys.readouterr().err.splitlines()
        assert re.search(r"info started storage=sqlite:/// ?.*studies=all version=", said[0])
        assert any(f"info verdict study=s trial={trial.number} step=5 reports=6 prune=true" in line
                   for line in said)  # fmt: skip
        assert said[-1].endswith("info stopped verdicts=1 prunes=1")
        assert "lcpruner_reason" in study._storage.get_trial(trial._trial_id).user_attrs

    def test_the_best_three(self, url: str) -> None:
        study = a_study(url)
        trial = running(study, BAD[:6])
        assert serve("--storage", url, "--once", "--n-steps", "20", "--n-best", "3") == 0
        third = sorted(trial.value or 0.0 for trial in good_trials())[-3]
        assert system_attrs(study, trial)["lcpruner_verdict"]["incumbent"] == third

    def test_a_path_will_do(self, tmp_path: Path) -> None:
        path = f"{tmp_path}/study.log"
        study = make_study(good_trials(), storage=JournalStorage(JournalFileBackend(path)))
        trial = running(study, BAD[:6])
        assert serve("--storage", path, "--once", "--n-steps", "20") == 0
        study._storage._sync_with_backend()
        assert system_attrs(study, trial)["lcpruner_verdict"]["step"] == 5

    def test_the_studies_named(self, url: str) -> None:
        trials = {}
        for name in "abc":
            study = a_study(url, name)
            trials[name] = (study, running(study, BAD[:6]))
        assert serve("--storage", url, "--once", "--study", "a", "--study", "c") == 0
        judged = {n for n, (s, t) in trials.items() if "lcpruner_verdict" in system_attrs(s, t)}
        assert judged == {"a", "c"}

    def test_a_storage_from_the_environment(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = a_study(url)
        trial = running(study, BAD[:6])
        monkeypatch.setenv("OPTUNA_LCPRUNER_STORAGE", url)
        assert serve("--once") == 0
        assert "lcpruner_verdict" in system_attrs(study, trial)

    def test_nothing_but_the_verdict(self, url: str, tmp_path: Path) -> None:
        study = a_study(url)
        trial = running(study, BAD[:6])
        assert serve("--storage", url, "--once", "--no-publish", "--no-ledger") == 0
        assert study._storage.get_trial(trial._trial_id).user_attrs == {}
        assert not (tmp_path / "study.db.lcpruner").exists()
        assert "lcpruner_verdict" in system_attrs(study, trial)

    def test_a_ledger_beside_the_study(self, url: str, tmp_path: Path) -> None:
        running(a_study(url), BAD[:6])
        assert serve("--storage", url, "--once", "--n-steps", "20") == 0
        assert (tmp_path / "study.db.lcpruner").exists()
        assert main(["explain", "--storage", url, "--trial", "5"]) == 0

    def test_out_of_reach(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("psycopg2")
        assert serve("--storage", DEAD, "--once") == 1
        said = capsys.readouterr().err
        assert "error storage_out_of_reach" in said
        assert "topsecret" not in said


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "give --storage URL, or set OPTUNA_LCPRUNER_STORAGE."),
            (["--storage", "nothing.db"], "no such file: nothing.db"),
            (["--storage", "postgresql+x://me:topsecret@h/db"], "cannot read storage 'postgresql+x://me:***@h/db'"),
            (["--storage", "postgresql+psycopg2://me:topsecret@h:port/db"], "cannot read storage"),
            (["--storage", "grpc://h"], "grpc://"),
            (["--storage", "URL", "--risk", "2"], "risk must be between 0 and 1"),
            (["--storage", "URL", "--n-steps", "x"], "--n-steps"),
            (["--storage", "URL", "--interval", "-1"], "--interval must be between"),
            (["--storage", "URL", "--processes", "0"], "--processes must be at least 1"),
            (["--storage", "URL", "--processes", "2", "--dask", "h:1"], "not allowed with"),
            (["--storage", "URL", "--give-up-after", "nan"], "--give-up-after must be between"),
            (["--storage", "URL", "--engine", "magic"], "--engine"),
            (["--storage", "URL", "--ledger", "x:/y:topsecret@z"], "ledger must be a database URL"),
            (["--storage", "URL", "--ledger", "sqlite:///l", "--no-ledger"], "either --ledger"),
            (["--storage", "URL", "--study", "x", "--once"], "named 'x'; the storage holds: s."),
        ],
    )  # fmt: skip
    def test_one_line_says_which(
        self, arguments: list[str], message: str, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        a_study(url)
        given = [url if argument == "URL" else argument for argument in arguments]
        assert main(["serve", *given]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.startswith("optuna-lcpruner")
        assert len(said.splitlines()) == 1
        assert "topsecret" not in said

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["serve", "--help"]) == 0
        shown = capsys.readouterr().out
        for option in ("--storage", "--study", "--once", "--risk", "--log-json", "exit code"):
            assert option in shown
        trainers = {"interval_steps", "executor", "executor_timeout", "cost"}
        for setting in set(inspect.signature(LearningCurvePruner).parameters) - trainers:
            assert re.search(rf"--(no-)?{setting.replace('_', '-')}\b", shown), setting


def test_never_reached(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("psycopg2")
    assert serve("--storage", DEAD, "--give-up-after", "3") == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= 2
    assert "warning storage_out_of_reach" in said[0]
    assert "error storage_out_of_reach" in said[-1]


def test_the_handlers_and_loggers_are_as_before(url: str) -> None:
    a_study(url)
    before = (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        list(logging.getLogger("optuna").handlers),
        optuna.logging.get_verbosity(),
    )
    assert serve("--storage", url, "--once") == 0
    assert before == (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        list(logging.getLogger("optuna").handlers),
        optuna.logging.get_verbosity(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_trial_in_hand(
    url: str, number: signal.Signals, tmp_path: Path
) -> None:
    """The trial in hand is judged to its end, the one that waits is not."""
    study = a_study(url)
    trials = [running(study, BAD[:6]) for _ in range(2)]
    signalled = tmp_path / "signalled"
    before = f"""
import os, time
from optuna_lcpruner import LearningCurvePruner
decide = LearningCurvePruner.decide
def slow(*arguments):
    print('{{"event": "in_hand"}}', file=sys.stderr, flush=True)
    while not os.path.exists({str(signalled)!r}):
        time.sleep(0.02)
    return decide(*arguments)
LearningCurvePruner.decide = slow
"""
    with Serving("--storage", url, "--interval", "0.05", before=before) as serving:
        serving.wait_for("in_hand")
        serving.process.send_signal(number)
        signalled.touch()
        assert serving.process.wait(60) == 0
        wait(lambda: bool(serving.events("stopped")))
        assert serving.events("stopped")[0]["verdicts"] == 1
    assert ["lcpruner_verdict" in system_attrs(study, trial) for trial in trials].count(True) == 1


@pytest.mark.slow
def test_a_warning_of_the_pruner_is_in_the_log(url: str) -> None:
    study = a_study(url)
    running(study, BAD[:6])
    before = """
from optuna_lcpruner.pruners import learning_curve
class Broken:
    def __call__(self, *arguments):
        raise ArithmeticError("password=topsecret")
learning_curve.engine_of = lambda name: Broken()
"""
    with Serving("--storage", url, "--interval", "0.05", before=before) as serving:
        serving.wait_for("verdict")
        assert serving.events("verdict")[0]["reason"] == "FAILED"
        messages = [event["message"] for event in serving.events("log")]
        assert serving.terminate() == 0
        assert len(messages) == 1
        assert "could not decide" in messages[0]
        assert "topsecret" not in "".join(serving.lines)


@pytest.mark.slow
def test_on_a_terminal(url: str) -> None:
    study = a_study(url)
    trial = running(study, BAD[:6])
    ours, theirs = pty.openpty()
    code = "import sys; from optuna_lcpruner.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "COLUMNS": "120",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--storage", url, "--interval", "0.1"],
        env=environment,
        stderr=theirs,
    )
    os.close(theirs)
    shown = ""

    def read() -> None:
        nonlocal shown
        while True:
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:  # the other side is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    wait(lambda: "1 verdict" in shown)
    process.terminate()
    assert process.wait(60) == 0
    reader.join(30)
    os.close(ours)
    lines = re.split(r"\r\x1b\[K", shown)
    assert any(
        re.match(r"1 study \| 1 running trial \| \d waiting \| 1 verdict, ", x) for x in lines
    )
    assert shown.endswith("\r\n")
    assert trial.number == 5


class TestLog:
    def log(self, **options: Any) -> tuple[Log, io.StringIO]:
        stream = io.StringIO()
        return Log(stream, **options), stream

    def test_levels(self) -> None:
        for verbose in (False, True):
            log, stream = self.log(verbose=verbose)
            log.say(logging.DEBUG, "verdict", trial=1)
            log.say(logging.INFO, "verdict", trial=2)
            assert len(stream.getvalue().splitlines()) == 1 + verbose

    def test_json(self) -> None:
        log, stream = self.log(as_json=True)
        log.say(logging.INFO, "started", studies="a\nb")
        assert json.loads(stream.getvalue())["studies"] == "a\nb"

    def test_how_things_stand_once_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        log, stream = self.log()
        for _ in range(100):
            log.tell(Event(logging.DEBUG, "pass", vars(Counts(studies=2))))
            now += 1.0
        assert len(stream.getvalue().splitlines()) == 1
        assert "info status studies=2 running=0" in stream.getvalue()

    def test_what_the_rest_of_the_program_warns_of(self) -> None:
        log, stream = self.log()
        with log.heard():
            optuna.logging.get_logger("optuna.x").warning("at postgresql://u:topsecret@h/db\nnext")
            optuna.logging.get_logger("optuna.x").info("not this")
        optuna.logging.get_logger("optuna.x").warning("nor this")
        (line,) = stream.getvalue().splitlines()
        assert line.endswith(r'warning log message="at postgresql://u:***@h/db\nnext"')


def test_status() -> None:
    assert status(Counts()) == (
        "0 studies | 0 running trials | 0 waiting | 0 verdicts, 0 prunes | storage 0 ms"
    )
    assert status(Counts(1, 1, 0, 1, 1, 1, 0.0123)) == (
        "1 study | 1 running trial | 0 waiting | 1 verdict, 1 prune | storage 12 ms"
        " | 1 study OUT OF REACH"
    )


def test_a_trainer_and_a_forecaster(url: str) -> None:
    """The whole way, the forecaster looking now and then."""
    study = a_study(url)
    study.pruner = RemotePruner()

    def objective(trial: optuna.Trial) -> float:
        for step in range(20):
            trial.report(0.1, step)
            if trial.should_prune():
                raise optuna.TrialPruned
            if step % 5 == 4:
                assert serve("--storage", url, "--once", "--n-steps", "20") == 0
        return 0.1

    study.optimize(objective, n_trials=2)
    assert trial_attributes.writer().flush(10)
    for trial in study.trials[-2:]:
        assert trial.state == optuna.trial.TrialState.PRUNED
        assert trial.user_attrs["lcpruner_reason"].startswith("pruned: P = ")


ROOT = Path(__file__).parents[2]


def command_of(where: str) -> list[str]:
    """The arguments of ``optuna-lcpruner`` in an example, or in the manifest of the docs."""
    text = (ROOT / where).read_text()
    assert "OPTUNA_LCPRUNER_STORAGE" in text
    if where.endswith(".service"):
        program, *command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1].split()
        assert Path(program).name == "optuna-lcpruner"
        return command
    if where.endswith("Containerfile"):
        program, *command = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1])
        assert program == "optuna-lcpruner"
        return command + json.loads(re.search(r"^CMD (.*)$", text, re.MULTILINE)[1])
    manifest = yaml.safe_load(text)
    assert manifest["spec"]["replicas"] == 1
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return ["serve", *container["args"]]  # they take the place of CMD


@pytest.mark.parametrize(
    "where",
    ["examples/forecaster.service", "examples/Containerfile", "examples/forecaster.yaml"],
)
def test_the_examples_call_it_rightly(
    where: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the unit, the container and Kubernetes run is a command that there is."""
    a_study(url)
    monkeypatch.setenv("OPTUNA_LCPRUNER_STORAGE", url)
    assert main([*command_of(where), "--once"]) == 0
