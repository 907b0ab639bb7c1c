"""Figures on optuna-dashboard: what is stored, how often, how much, and that a browser shows it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pytest
from helpers import N_STEPS, good_trials, make_study, saturating, sqlite
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from test_study_report import History, judged

from optuna_lcpruner import LearningCurvePruner, Reason, dashboard
from optuna_lcpruner.checks import InputError
from optuna_lcpruner.dashboard import bounded, publish_to_dashboard
from optuna_lcpruner.ledger import Ledger, LedgerError
from optuna_lcpruner.ledger_address import Address
from optuna_lcpruner.visualization.charts import Band, Chart, Line, Points

optuna_dashboard = pytest.importorskip("optuna_dashboard")

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


def objective(trial: optuna.Trial) -> float:
    curve = saturating(trial.suggest_float("end", 0.2, 0.95))
    for step, value in enumerate(curve):
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(curve[-1])


def make(storage: Any, setting: Any = None) -> optuna.Study:
    study = make_study(good_trials(), storage=storage)
    study.pruner = LearningCurvePruner(N_STEPS, ledger=setting)
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    study.optimize(objective, n_trials=12)
    return study


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return make(sqlite(f"sqlite:///{tmp_path}/study.db"))


def plots(study: optuna.Study) -> dict[str, Any]:
    """The figures stored, by the name of the graph object."""
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    attrs = study._storage.get_study_system_attrs(study._study_id)
    return {name: json.loads(text) for name, text in get_plotly_graph_objects(attrs).items()}


def n_attributes(study: optuna.Study) -> int:
    return len(study._storage.get_study_system_attrs(study._study_id))


class TestPublish:
    @pytest.mark.parametrize("kind", ["sqlite", "journal", "memory"])
    def test_the_figures_are_stored(self, kind: str, tmp_path: Path) -> None:
        setting = f"sqlite:///{tmp_path}/l.db"
        storage: Any = {
            "sqlite": lambda: sqlite(f"sqlite:///{tmp_path}/study.db"),
            "journal": lambda: JournalStorage(JournalFileBackend(f"{tmp_path}/s.log")),
            "memory": lambda: None,
        }[kind]()
        study = make(storage, setting)
        assert publish_to_dashboard(study)
        titles = {name: plot["layout"]["title"]["text"] for name, plot in plots(study).items()}
        assert titles["lcpruner-forecasts"] == "Forecasts of 0 Running Trials"
        assert titles["lcpruner-decisions"] == "Decisions About 12 Trials"
        assert titles["lcpruner-savings"].startswith("Reports Saved by Pruning: ")
        assert titles["lcpruner-calibration"] == "Calibration of P(beat best)"
        assert len(titles) == 4

    def test_not_too_often(self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
        now = time.time()
        monkeypatch.setattr(dashboard.time, "time", lambda: now)
        assert publish_to_dashboard(study, every=60)
        before = plots(study)
        study.optimize(objective, n_trials=2)
        now += 59.0
        assert not publish_to_dashboard(study, every=60)
        assert plots(study) == before
        now += 2.0
        assert publish_to_dashboard(study, every=60)
        assert plots(study) != before

    def test_now(self, study: optuna.Study) -> None:
        assert publish_to_dashboard(study, every=0)
        n = n_attributes(study)
        assert publish_to_dashboard(study, every=0)
        assert n_attributes(study) == n  # replaced, not added

    def test_a_clock_that_was_set_back(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.time()
        monkeypatch.setattr(dashboard.time, "time", lambda: now)
        assert publish_to_dashboard(study)
        now -= 3600.0
        assert publish_to_dashboard(study)

    def test_of_two_that_claim_at_once_one_publishes(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = study._storage.set_study_system_attr

        def overtaken(study_id: int, key: str, value: Any) -> None:
            write(study_id, key, value)
            if key == "lcpruner:dashboard":
                write(study_id, key, {**value, "by": "another process"})

        monkeypatch.setattr(study._storage, "set_study_system_attr", overtaken)
        assert not publish_to_dashboard(study)
        assert plots(study) == {}

    def test_as_a_callback(self, study: optuna.Study) -> None:
        study.optimize(objective, n_trials=1, callbacks=[lambda s, _: publish_to_dashboard(s)])  # type: ignore[list-item]
        assert len(plots(study)) == 4

    def test_what_is_stored_is_bounded(self, tmp_path: Path) -> None:
        """Two thousand trials of forty looks."""
        history = History(tmp_path)
        for _ in range(2000):
            history.trial(
                *(judged(step, Reason.UNDECIDED, 0.123456789, horizon=41) for step in range(40)),
                value=0.912345678,
                n=41,
            )
        Ledger(Address(history.url)).append(history.entries)
        assert publish_to_dashboard(history.study, ledger=history.url)
        sizes = {name: len(json.dumps(plot)) for name, plot in plots(history.study).items()}
        assert sum(sizes.values()) < 400_000
        assert plots(history.study)["lcpruner-decisions"]["layout"]["title"]["text"] == (
            "Decisions About 2000 Trials (newest)"
        )
        assert "newest" not in plots(history.study)["lcpruner-savings"]["layout"]["title"]["text"]

    def test_errors(self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ValueError, match="every must be"):
            publish_to_dashboard(study, every=-1.0)
        with pytest.raises(LedgerError):
            publish_to_dashboard(make_study(good_trials()))
        monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
        with pytest.raises(InputError, match="pip install optuna-dashboard"):
            publish_to_dashboard(study)


class TestBounded:
    def test_small_ones_are_left_alone(self) -> None:
        chart = Chart("t", "x", "y", [Line([0, 1], [0, 1], "a", "#000000")])
        assert bounded(chart, 2) == chart

    def test_many_trials_keep_the_newest(self) -> None:
        x = [0.0, 1.0, None, 0.0, 1.0, 2.0, None]
        points = Points([1, 2, 3], [4, 5, 6], "b", "#000000", text="xyz", low=[1, 2, 3],
                        high=[7, 8, 9])  # fmt: skip
        chart = bounded(Chart("t", "x", "y", [Line(x, x, "a", "#000000"), points]), 2)
        line, kept = chart.layers
        assert line.x == [2.0, None]
        assert isinstance(kept, Points)
        assert (kept.x, kept.y, kept.text, kept.low, kept.high) == (
            [2, 3], [5, 6], ["y", "z"], [2, 3], [8, 9]
        )  # fmt: skip
        assert chart.title == "t (newest)"

    def test_one_line_keeps_its_ends(self) -> None:
        x = list(range(100))
        chart = bounded(Chart("t", "x", "y", [Band(x, x, x, "a", "#000000")]), 10)
        (band,) = chart.layers
        assert isinstance(band, Band)
        assert list(band.x) == list(band.low) == [*range(0, 99, 10), 99]
        assert chart.title == "t"


class Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(study: optuna.Study) -> Iterator[str]:
    server = make_server(
        "127.0.0.1", 0, optuna_dashboard.wsgi(study._storage), handler_class=Silent
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(20)


@pytest.fixture
def page() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next((path for path in CHROMIUM if Path(path).exists()), None)
    if found is None:
        pytest.skip("no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser.new_page(viewport={"width": 1400, "height": 3000})
        browser.close()


def test_a_browser_shows_them(served: str, page: Any, study: optuna.Study) -> None:
    assert publish_to_dashboard(study)
    page.goto(f"{served}/dashboard/studies/{study._study_id}")
    for title in ("Decisions About 12 Trials", "Calibration of P(beat best)"):
        page.get_by_text(title).first.wait_for(timeout=60_000)
    assert page.get_by_text("Stopped here").count() == 1
