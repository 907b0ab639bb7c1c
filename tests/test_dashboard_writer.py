"""Figures published by the pruner: when, by which process and thread, and what may go wrong."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import BAD, N_STEPS, good_trials, make_study, reports, saturating, sqlite, watch
from optuna.trial import TrialState
from test_dashboard import objective, plots

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.records import ledger_writer
from optuna_lcpruner.visualization import dashboard, dashboard_writer
from optuna_lcpruner.visualization.dashboard_writer import EVERY, FigureWriter, _Owed

pytest.importorskip("optuna_dashboard")

ANOTHER = "another-machine 1 1"


@pytest.fixture(autouse=True)
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[FigureWriter]:
    """Writers of the test's own."""
    fresh = FigureWriter()
    monkeypatch.setattr(dashboard_writer, "_writer", fresh)
    monkeypatch.setattr(dashboard_writer, "_writer_pid", os.getpid())
    monkeypatch.setattr(dashboard_writer, "DUTY", 1.0)
    monkeypatch.setattr(ledger_writer, "_writers", {})
    monkeypatch.setattr(ledger_writer, "PERIOD", 0.02)
    yield fresh
    fresh.flush(20)  # before the test's folder goes


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return make_study(
        good_trials(),
        storage=sqlite(f"sqlite:///{tmp_path}/study.db"),
        pruner=LearningCurvePruner(N_STEPS, dashboard=True),
    )


def titles(study: optuna.Study) -> dict[str, str]:
    return {name: plot["layout"]["title"]["text"] for name, plot in plots(study).items()}


class TestPruner:
    def test_the_setting_alone_publishes(self, study: optuna.Study) -> None:
        study.optimize(objective, n_trials=4)
        assert dashboard_writer.flush(20)
        found = titles(study)
        assert set(found) == set(dashboard.FIGURES)
        assert found["lcpruner-decisions"] == "Decisions About 4 Trials"
        assert found["lcpruner-forecasts"] == "Forecasts of 0 Running Trials"

    def test_off_by_default(self, study: optuna.Study) -> None:
        study.pruner = LearningCurvePruner(N_STEPS)
        study.optimize(objective, n_trials=2)
        assert dashboard_writer.flush(20)
        assert titles(study) == {}

    def test_nothing_is_drawn_or_claimed_by_the_training(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: set[str] = set()
        for name in ("claim", "save", "standing"):
            done: Callable[..., Any] = getattr(dashboard, name)

            def noting(*given: Any, done: Callable[..., Any] = done) -> Any:
                threads.add(threading.current_thread().name)
                return done(*given)

            monkeypatch.setattr(dashboard, name, noting)
        study.optimize(objective, n_trials=2)
        assert dashboard_writer.flush(20)
        assert threads == {"lcpruner-dashboard"}

    def test_training_does_not_wait(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A publication that does not end; the trials do."""
        gate, entered = threading.Event(), threading.Event()

        def stuck(*_: Any) -> None:
            entered.set()
            gate.wait(30)

        monkeypatch.setattr(dashboard, "standing", stuck)
        try:
            watch(study, LearningCurvePruner(N_STEPS, dashboard=True), reports(BAD[:2]))
            assert entered.wait(20)
            study.optimize(objective, n_trials=2)
            assert not dashboard_writer.flush(0.05)
        finally:
            gate.set()
        assert [trial.state.is_finished() for trial in study.trials[-2:]] == [True, True]

    def test_a_study_in_memory_is_told_what_is_missing(self, warned: list[str]) -> None:
        study = make_study(good_trials(), pruner=LearningCurvePruner(N_STEPS, dashboard=True))
        study.optimize(objective, n_trials=3)
        assert len(warned) == 1
        assert warned[0].startswith("LearningCurvePruner: no figures on optuna-dashboard: ")
        assert "ledger='sqlite:///decisions.db'" in warned[0]
        assert titles(study) == {}
        assert len(study.trials) == 8

    def test_a_study_in_memory_with_a_ledger(self, tmp_path: Path) -> None:
        setting = f"sqlite:///{tmp_path}/l.db"
        pruner = LearningCurvePruner(N_STEPS, dashboard=True, ledger=setting)
        study = make_study(good_trials(), pruner=pruner)
        study.optimize(objective, n_trials=3)
        assert dashboard_writer.flush(20)
        assert titles(study)["lcpruner-decisions"] == "Decisions About 3 Trials"

    @pytest.mark.parametrize(
        "copied", [lambda p: pickle.loads(pickle.dumps(p)), copy.deepcopy, copy.copy]
    )
    def test_copies(self, copied: Any, study: optuna.Study) -> None:
        pruner = LearningCurvePruner(N_STEPS, dashboard=True)
        watch(study, pruner, reports(BAD[:2]))
        assert dashboard_writer.flush(20)
        other = copied(pruner)
        assert repr(other) == repr(pruner)
        study.pruner = other
        study.optimize(objective, n_trials=2)
        assert dashboard_writer.flush(20)
        assert titles(study)["lcpruner-decisions"] == "Decisions About 3 Trials"

    def test_a_failure_costs_one_warning(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch, warned: list[str]
    ) -> None:
        monkeypatch.setattr(study._storage, "get_study_system_attrs", lambda _: 1 / 0)
        study.optimize(objective, n_trials=4)
        for _ in range(3):
            assert not dashboard_writer.flush(20)
        assert len(warned) == 1
        assert "Figures for optuna-dashboard: division by zero" in warned[0]
        assert len(study.trials) == 9
        monkeypatch.undo()


class TestSetting:
    @pytest.mark.parametrize("value", [1, 0, None, "yes"])
    def test_of_the_wrong_type(self, value: Any) -> None:
        with pytest.raises(TypeError, match="dashboard must be True or False, but got"):
            LearningCurvePruner(dashboard=value)

    def test_without_a_ledger(self) -> None:
        with pytest.raises(InputError, match="from the ledger, but got ledger=False"):
            LearningCurvePruner(dashboard=True, ledger=False)
        LearningCurvePruner(dashboard=False, ledger=False)

    @pytest.mark.parametrize(
        ("missing", "command"),
        [
            (["plotly"], "needs plotly: pip install plotly"),
            (["optuna-dashboard"], "needs optuna-dashboard: pip install optuna-dashboard"),
            (
                ["plotly", "optuna-dashboard"],
                "needs plotly and optuna-dashboard: pip install plotly optuna-dashboard",
            ),
        ],
    )
    def test_not_installed(
        self, missing: list[str], command: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for package in missing:
            monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
        with pytest.raises(InputError) as caught:
            LearningCurvePruner(dashboard=True)
        assert str(caught.value) == f"dashboard=True {command}"
        LearningCurvePruner()


class Clock:
    """The time of day as claims have it, moved by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(dashboard.time, "time", clock)
    return clock


@pytest.fixture
def claimed(study: optuna.Study, clock: Clock) -> Callable[[float], None]:
    """Another process claims the publication, some seconds ago."""

    def claim(ago: float) -> None:
        said = {"at": clock.now - ago, "by": ANOTHER}
        study._storage.set_study_system_attr(study._study_id, dashboard._CLAIM, said)

    return claim


def owed_for(study: optuna.Study, n_reports: int = 3) -> tuple[_Owed, optuna.Trial]:
    """What is owed after some reports of a trial that is still under way."""
    quiet = LearningCurvePruner(N_STEPS, publish=False)
    trial = study.ask()
    for step, value in enumerate(saturating(0.95)[:n_reports]):
        trial.report(value, step)
        quiet.prune(study, study.get_trials()[trial.number])
    return _Owed(study, None, {trial._trial_id}), trial


class TestThrottle:
    """One look at a study at a time, without the thread."""

    def test_at_once_if_nobody_has(self, study: optuna.Study, writer: FigureWriter) -> None:
        owed, _ = owed_for(study)
        assert writer._attend(owed, hurry=False) == EVERY
        assert not owed.due
        assert len(titles(study)) == 4

    def test_when_the_minute_of_another_is_over(
        self,
        study: optuna.Study,
        writer: FigureWriter,
        clock: Clock,
        claimed: Callable[[float], None],
    ) -> None:
        owed, _ = owed_for(study)
        claimed(20.0)
        assert writer._attend(owed, hurry=False) == pytest.approx(40.0)
        assert owed.due
        assert titles(study) == {}
        clock.now += 39.0
        assert writer._attend(owed, hurry=False) == pytest.approx(1.0)
        assert titles(study) == {}
        clock.now += 2.0
        assert writer._attend(owed, hurry=False) == EVERY
        assert not owed.due
        assert len(titles(study)) == 4

    def test_not_if_another_claimed_after_our_news(
        self, study: optuna.Study, writer: FigureWriter, clock: Clock, claimed: Any
    ) -> None:
        owed, _ = owed_for(study)
        claimed(20.0)
        writer._attend(owed, hurry=False)
        claimed(0.0)
        clock.now += 100.0
        writer._attend(owed, hurry=False)
        assert not owed.due
        assert titles(study) == {}

    def test_newer_news_is_owed_again(
        self, study: optuna.Study, writer: FigureWriter, clock: Clock, claimed: Any
    ) -> None:
        owed, _ = owed_for(study)
        claimed(20.0)
        writer._attend(owed, hurry=False)
        claimed(0.0)
        owed.news = True
        writer._attend(owed, hurry=False)
        assert owed.due
        clock.now += 100.0
        writer._attend(owed, hurry=False)
        assert len(titles(study)) == 4

    def test_how_a_trial_ended_is_shown_too(
        self, study: optuna.Study, writer: FigureWriter, clock: Clock
    ) -> None:
        owed, trial = owed_for(study)
        writer._attend(owed, hurry=False)
        assert titles(study)["lcpruner-forecasts"] == "Forecasts of 1 Running Trial"
        assert owed.trials
        study.tell(trial, 0.9)
        clock.now += 61.0
        writer._attend(owed, hurry=False)
        assert titles(study)["lcpruner-forecasts"] == "Forecasts of 0 Running Trials"
        assert not owed.trials

    def test_nothing_new_is_not_published(
        self, study: optuna.Study, writer: FigureWriter, clock: Clock
    ) -> None:
        owed, _ = owed_for(study)
        writer._attend(owed, hurry=False)
        first = dashboard.standing(study)
        clock.now += 1000.0
        assert writer._attend(owed, hurry=False) == EVERY
        assert dashboard.standing(study) == first

    def test_one_who_is_overtaken_leaves_the_rest_to_the_other(
        self,
        study: optuna.Study,
        writer: FigureWriter,
        claimed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        owed, _ = owed_for(study)
        save = dashboard.save

        def overtaken(name: str, *given: Any) -> bool:
            saved = save(name, *given)
            claimed(0.0)
            return saved

        monkeypatch.setattr(dashboard, "save", overtaken)
        writer._attend(owed, hurry=False)
        assert list(titles(study)) == ["lcpruner-forecasts"]
        assert not owed.due

    def test_a_publication_that_failed_is_tried_again(
        self,
        study: optuna.Study,
        writer: FigureWriter,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        warned: list[str],
    ) -> None:
        owed, _ = owed_for(study)
        with monkeypatch.context() as broken:
            broken.setattr(dashboard, "figure_of", lambda _: 1 / 0)
            for _ in range(2):
                assert writer._attend(owed, hurry=False) == EVERY
                assert owed.due
                clock.now += 61.0
        assert len(warned) == 1
        writer._attend(owed, hurry=False)
        assert not owed.due
        assert len(titles(study)) == 4

    def test_what_the_ledger_refuses_stays_news(
        self, study: optuna.Study, writer: FigureWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owed, _ = owed_for(study)
        monkeypatch.setattr(dashboard_writer.ledger_writer, "flush", lambda: False)
        writer._attend(owed, hurry=False)
        assert owed.news

    def test_a_deleted_study_is_forgotten(
        self, study: optuna.Study, writer: FigureWriter, warned: list[str]
    ) -> None:
        owed, _ = owed_for(study)
        optuna.delete_study(study_name=study.study_name, storage=study._storage)
        writer._attend(owed, hurry=False)
        assert (owed.trials, owed.news, owed.due) == (set(), False, False)
        assert warned == []

    def test_rests_between_figures(
        self, study: optuna.Study, writer: FigureWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A figure that takes a second is followed by nine of rest."""
        owed, _ = owed_for(study)
        monkeypatch.setattr(dashboard_writer, "DUTY", 0.1)
        ticks = iter(range(100))
        monkeypatch.setattr(dashboard_writer.time, "monotonic", lambda: float(next(ticks)))
        rests: list[float] = []
        monkeypatch.setattr(
            writer._condition, "wait_for", lambda _, timeout: rests.append(timeout), raising=False
        )
        writer._attend(owed, hurry=False)
        monkeypatch.undo()
        assert rests == pytest.approx([9.0] * 4)


class TestFlush:
    def test_nothing_owed(self) -> None:
        assert dashboard_writer.flush(20)

    def test_does_not_wait_for_the_minute_to_end(self, study: optuna.Study, clock: Clock) -> None:
        study.optimize(objective, n_trials=1)
        assert dashboard_writer.flush(20)
        study.optimize(objective, n_trials=2)
        assert dashboard_writer.flush(20)
        assert titles(study)["lcpruner-decisions"] == "Decisions About 3 Trials"

    def test_what_has_been_shown_is_forgotten(
        self, study: optuna.Study, writer: FigureWriter
    ) -> None:
        study.optimize(objective, n_trials=1)
        assert dashboard_writer.flush(20)
        assert writer._owed == {}

    @pytest.mark.parametrize("another_comes_first", [False, True])
    def test_of_processes_that_end_together_one_publishes(
        self,
        another_comes_first: bool,
        study: optuna.Study,
        writer: FigureWriter,
        claimed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        owed, _ = owed_for(study)
        claimed(20.0)
        monkeypatch.setattr(
            dashboard_writer.time, "sleep", lambda _: claimed(0.0) if another_comes_first else None
        )
        writer._attend(owed, hurry=True)
        assert not owed.due
        assert len(titles(study)) == (0 if another_comes_first else 4)

    def test_a_process_that_published_last_does_not_wait_for_others(
        self, study: optuna.Study, writer: FigureWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owed, _ = owed_for(study)
        writer._attend(owed, hurry=False)
        owed.news = True
        monkeypatch.setattr(dashboard_writer.time, "sleep", lambda _: pytest.fail("waited"))
        writer._attend(owed, hurry=True)
        assert not owed.due


def run_script(script: str, url: str) -> str:
    prelude = """
import multiprocessing, sys
import optuna
from optuna_lcpruner import LearningCurvePruner

optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.load_study(study_name="s", storage=sys.argv[1])
study.pruner = LearningCurvePruner(20, dashboard=True)

def objective(trial):
    for step in range(3):
        trial.report(0.1 * step, step)
        trial.should_prune()
    return 0.2

def run():
    study.optimize(objective, n_trials=3)
"""
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(script), url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


class TestProcesses:
    def test_the_figures_are_of_the_end_when_the_process_has_ended(self, study_url: str) -> None:
        run_script("run()", study_url)
        study = optuna.load_study(study_name="s", storage=study_url)
        made = titles(study)["lcpruner-savings"]
        assert made == "Reports Saved by Pruning: 0 % of 9"
        assert titles(study)["lcpruner-forecasts"] == "Forecasts of 0 Running Trials"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_children_of_multiprocessing(self, study_url: str) -> None:
        run_script(
            """
            run()
            child = multiprocessing.get_context("fork").Process(target=run)
            child.start()
            child.join()
            assert child.exitcode == 0
            from optuna_lcpruner.visualization import dashboard
            from multiprocessing import util
            by = dashboard.standing(study)["by"].split()[1]
            assert by == str(child.pid), by  # the child's end, before the parent's
            """,
            study_url,
        )
        study = optuna.load_study(study_name="s", storage=study_url)
        assert titles(study)["lcpruner-savings"] == "Reports Saved by Pruning: 0 % of 18"


@pytest.mark.parametrize(
    ("names", "unwanted"),
    [
        ("LearningCurvePruner, publish_to_dashboard", ["plotly", "optuna_dashboard", "matplotlib"]),
        (
            "LearningCurvePruner",
            ["optuna_lcpruner.visualization.dashboard", "optuna_lcpruner.visualization"],
        ),
    ],
)
def test_who_wants_no_figures_imports_nothing_that_draws(names: str, unwanted: list[str]) -> None:
    script = f"""if True:
        import sys
        from optuna_lcpruner import {names}
        LearningCurvePruner()
        print([name for name in {unwanted} if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_trial_with_many_decisions_waiting(study: optuna.Study) -> None:
    """What waits for the ledger is shown too; the two writers do not wait for each other."""
    study.pruner = LearningCurvePruner(300, dashboard=True)

    def long(trial: optuna.Trial) -> float:
        for step in range(150):
            trial.report(0.9 + 1e-6 * step, step)
            assert not trial.should_prune()
        return 0.9

    study.optimize(long, n_trials=1)
    assert study.trials[-1].state is TrialState.COMPLETE
    assert dashboard_writer.flush(20)
    assert titles(study)["lcpruner-savings"].endswith(f"{5 * N_STEPS + 150}")
