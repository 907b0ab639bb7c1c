"""Forecasts fanned out: over an executor, processes, a Dask cluster; their workers may die."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from by_hand import ByHand
from forecasting import Watching, covers, running, verdict_of
from helpers import BAD, good_trials, judge, make_study, reports, saturating, sqlite
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState
from serving import Serving, wait

from optuna_lcpruner import Forecaster, LearningCurvePruner, Reason, RemotePruner
from optuna_lcpruner.cli.main import main
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.pruners.executor import worker_processes
from optuna_lcpruner.records.remote_decision import ATTRIBUTE

CURVES = [BAD[:6], saturating(0.95)[:6], BAD[:9], saturating(0.85)[:12]]


def begun(storage: Any = None) -> tuple[Study, list[Trial]]:
    """A study with completed trials and some that run."""
    study = make_study(good_trials(), storage=storage or InMemoryStorage())
    study.pruner = RemotePruner()
    return study, [running(study, curve) for curve in CURVES]


def pruner(engine: Any = "closed_form") -> LearningCurvePruner:
    return LearningCurvePruner(20, threshold=0.05, engine=engine, ledger=False)


def expected() -> list[Reason]:
    """What a training that forecasts for itself decides about the trials."""
    study = make_study(good_trials())
    return [judge(study, pruner(), reports(curve)).reason for curve in CURVES]


def decided(study: Study, trials: list[Trial]) -> list[Reason]:
    return [verdict_of(study, trial).reason for trial in trials]


class TestByHand:
    def watching(self, engine: Any = "closed_form") -> tuple[ByHand, Study, Trial, Watching]:
        study, executor = make_study(good_trials()), ByHand()
        trial = running(study, BAD[:6])
        watching = Watching(study._storage, pruner=pruner(engine), executor=executor)
        return executor, study, trial, watching

    def test_a_forecast_is_asked_for_once_and_judged_when_it_is_there(self) -> None:
        executor, study, trial, watching = self.watching()
        watching.look()
        assert executor.steps == [5]
        assert ATTRIBUTE not in study._storage.get_trial(trial._trial_id).system_attrs
        assert watching.forecaster.counts.waiting == 1
        executor.finish()
        watching.look()
        assert watching.judged == [(5, 6)]
        assert verdict_of(study, trial).reason is Reason.BELOW_THRESHOLD
        assert executor.work == []
        assert watching.forecaster.counts.waiting == 0

    def test_a_verdict_rests_on_the_reports_that_were_asked_about(self) -> None:
        executor, study, trial, watching = self.watching()
        watching.look()
        for step in range(6, 9):
            trial.report(0.1, step)
            watching.look(1)
        assert executor.steps == [5]
        executor.finish()
        watching.look(0.5)
        verdict = verdict_of(study, trial)
        assert (verdict.step, verdict.n_reports) == (5, 6)
        watching.look(1)
        assert executor.steps == [8]
        executor.finish()
        watching.look(1)
        assert watching.judged == [(5, 6), (5, 9)]

    def test_a_trial_that_ends_meanwhile(self) -> None:
        executor, study, trial, watching = self.watching()
        watching.look()
        study.tell(trial, state=TrialState.FAIL)
        executor.finish()
        watching.look()
        assert watching.judged == []
        assert watching.forecaster.counts.waiting == 0

    def test_an_engine_that_fails_is_asked_once_a_report(self, warned: list[str]) -> None:
        executor, study, trial, watching = self.watching()
        for step in (6, 7):
            watching.look()
            executor.fail(ArithmeticError("no"))
            watching.look()
            assert executor.work == []
            assert verdict_of(study, trial).reason is Reason.FAILED
            trial.report(0.1, step)
        watching.look()
        executor.finish()
        watching.look()
        assert verdict_of(study, trial).reason is Reason.BELOW_THRESHOLD
        assert len(warned) == 2  # of the worker, of the decision

    def test_one_that_was_cancelled_is_asked_for_again(self) -> None:
        """A cluster does so as it restarts."""
        executor, study, trial, watching = self.watching()
        watching.look()
        executor.work.pop()[0].cancel()
        watching.look()
        executor.finish()
        watching.look()
        assert verdict_of(study, trial).reason is Reason.BELOW_THRESHOLD

    def test_once_waits_for_the_forecasts(self) -> None:
        executor, study, trial, _ = self.watching()
        forecaster = Forecaster(study._storage, pruner=pruner(), interval=0.01, executor=executor)
        with runs(forecaster, Forecaster.run_once) as ended:
            wait(lambda: bool(executor.work))
            executor.finish()
            wait(lambda: ended == [True])
        assert verdict_of(study, trial).reason is Reason.BELOW_THRESHOLD

    def test_once_does_not_wait_for_ever(self) -> None:
        executor, study, _, watching = self.watching()
        events = watching.events
        forecaster = Forecaster(
            study._storage, pruner=pruner(), interval=0.01, executor=executor, tell=events.append
        )
        assert forecaster.run_once(give_up_after=0.1) is False
        assert events[-1].name == "gave_up"

    def test_an_executor_that_takes_no_work_ends_it(self, warned: list[str]) -> None:
        """Whoever started the forecaster starts it again, with another executor."""

        class Shut(ByHand):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
                raise RuntimeError("cannot schedule new futures after shutdown")

        _, study, trial, watching = self.watching()
        for run in (Forecaster.run, Forecaster.run_once):
            forecaster = Forecaster(
                study._storage, pruner=pruner(), executor=Shut(), tell=watching.events.append
            )
            with runs(forecaster, run) as ended:
                wait(lambda ended=ended: ended == [False])
            assert watching.events[-1].name == "executor_broken"
        assert ATTRIBUTE not in study._storage.get_trial(trial._trial_id).system_attrs
        assert len(warned) == 2


class Held:
    """An engine that notes which process is at work and waits until it may go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: Any, **named: Any) -> Forecast:
        (self.folder / f"at_work.{os.getpid()}").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.02)
        return ClosedForm()(*arguments, **named)

    def at_work(self) -> list[int]:
        """The processes that have begun."""
        return sorted(int(path.suffix[1:]) for path in self.folder.glob("at_work.*"))

    def go(self) -> None:
        (self.folder / "go").touch()


@contextmanager
def runs(
    forecaster: Forecaster, run: Callable[[Forecaster], bool] = Forecaster.run
) -> Iterator[list[bool]]:
    """Run it in a thread; what it returned at the end."""
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(run(forecaster)), daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        forecaster.stop()
        thread.join(60)
        assert len(ended) == 1


@pytest.mark.slow
def test_a_worker_of_a_dask_cluster_is_killed(tmp_path: Path, warned: list[str]) -> None:
    """In the middle of a forecast: Dask gives it to the other worker, and each gets its verdict."""
    distributed = pytest.importorskip("distributed", reason="needs distributed")
    study, trials = begun()
    engine = Held(tmp_path)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            host="127.0.0.1", local_directory=str(tmp_path),
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        forecaster = Forecaster(
            study._storage, pruner=pruner(engine), interval=0.05, executor=client.get_executor()
        )
        with runs(forecaster) as ended:
            wait(lambda: len(engine.at_work()) == 2)
            os.kill(engine.at_work()[0], signal.SIGKILL)
            assert not any(trial.should_prune() for trial in trials)
            engine.go()
            wait(lambda: all(covers(study, trial) for trial in trials))
    assert ended == [True]
    assert decided(study, trials) == expected()
    assert [trial.should_prune() for trial in trials] == [reason.prunes for reason in expected()]
    assert {trial.state for trial in study.trials[5:]} == {TrialState.RUNNING}
    assert warned == []


@pytest.mark.slow
def test_a_process_of_a_pool_is_killed(tmp_path: Path) -> None:
    """The pool is broken, so the forecaster ends; the next one judges what was left."""
    study, trials = begun()
    engine = Held(tmp_path)
    with worker_processes(2) as executor:
        forecaster = Forecaster(
            study._storage, pruner=pruner(engine), interval=0.05, executor=executor
        )
        with runs(forecaster) as ended:
            wait(lambda: len(engine.at_work()) == 2)
            os.kill(engine.at_work()[0], signal.SIGKILL)
            wait(lambda: ended == [False])
    assert not any(trial.should_prune() for trial in trials)
    engine.go()
    with worker_processes(2) as executor:
        again = Forecaster(study._storage, pruner=pruner(engine), interval=0.05, executor=executor)
        assert again.run_once() is True
    assert decided(study, trials) == expected()


class TestServe:
    """``optuna-lcpruner serve`` with ``--processes`` and ``--dask``."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/s.db"

    def options(self, url: str, engine: str = "closed_form") -> list[str]:
        settings = ["--n-steps", "20", "--threshold", "0.05", "--engine", engine, "--no-ledger"]
        return ["--storage", url, "--interval", "0.05", *settings]

    @pytest.mark.slow
    def test_a_process_is_killed_and_the_command_is_started_again(self, url: str) -> None:
        """As systemd or Kubernetes start it; all trials get their verdicts."""
        study, trials = begun(sqlite(url))
        with Serving(*self.options(url, "mcmc"), "--processes", "2") as serving:
            wait(lambda: bool(children(serving.process.pid)), lambda: serving.lines)
            os.kill(children(serving.process.pid)[0], signal.SIGKILL)
            assert serving.process.wait(60) == 1
            wait(lambda: bool(serving.events("executor_broken")), lambda: serving.lines)
        with Serving(*self.options(url), "--processes", "2") as serving:
            wait(lambda: all(covers(study, trial) for trial in trials), lambda: serving.lines)
            assert serving.terminate() == 0
            assert not serving.events("log")
        assert [trial.should_prune() for trial in trials] == [one.prunes for one in expected()]

    @pytest.mark.slow
    def test_its_processes_end_with_it(self, url: str) -> None:
        begun(sqlite(url))
        with Serving(*self.options(url), "--processes", "2") as serving:
            serving.wait_for("verdict", len(CURVES))
            pids = children(serving.process.pid)
            assert pids
            serving.process.kill()
            wait(lambda: not any(map(is_alive, pids)))

    @pytest.mark.slow
    def test_on_a_dask_cluster(self, url: str, tmp_path: Path) -> None:
        distributed = pytest.importorskip("distributed", reason="needs distributed")
        study, trials = begun(sqlite(url))
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1",
            local_directory=str(tmp_path),
        ) as cluster:  # fmt: skip
            dask = ["--dask", cluster.scheduler_address]
            assert main(["serve", *self.options(url), *dask, "--once"]) == 0
        assert decided(study, trials) == expected()

    @pytest.mark.slow
    def test_no_dask_cluster(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        distributed = pytest.importorskip("distributed", reason="needs distributed")
        dask = pytest.importorskip("dask")
        begun(sqlite(url))
        assert distributed.__version__
        with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
            code = main(["serve", *self.options(url), "--dask", "tcp://127.0.0.1:1"])
        assert code == 1
        assert "error dask_out_of_reach" in capsys.readouterr().err

    @pytest.mark.parametrize("address", ["nothing", "x://h:1"])
    def test_no_address(self, address: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("distributed", reason="needs distributed")
        begun(sqlite(url))
        assert main(["serve", *self.options(url), "--dask", address]) == 2
        assert "--dask: " in capsys.readouterr().err

    def test_without_the_package(
        self, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        begun(sqlite(url))
        monkeypatch.setitem(sys.modules, "distributed", None)
        assert main(["serve", *self.options(url), "--dask", "h:1"]) == 2
        assert "pip install distributed" in capsys.readouterr().err


def children(pid: int) -> list[int]:
    """The pool's processes of a forecaster."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(one) for one in listed if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()
    ]


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
