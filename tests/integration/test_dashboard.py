"""Figures on optuna-dashboard: what is stored, how often, how much, and that a browser shows it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest
from browser import MissingError, TrialTable, chromium, serving
from helpers import N_STEPS, environment, good_trials, make_study, saturating, sqlite
from histories import History, judged
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner, Reason
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.records import ledger_writer
from optuna_lcpruner.records import trial_attributes as publisher
from optuna_lcpruner.records.ledger import Ledger, LedgerError
from optuna_lcpruner.records.location import Address
from optuna_lcpruner.visualization import dashboard
from optuna_lcpruner.visualization.charts import Band, Chart, Line, Points
from optuna_lcpruner.visualization.dashboard import bounded, publish_to_dashboard, upload_forecast

pytestmark = pytest.mark.slow

pytest.importorskip("optuna_dashboard")


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


def titles(study: optuna.Study) -> dict[str, str]:
    return {name: plot["layout"]["title"]["text"] for name, plot in plots(study).items()}


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
        assert titles["lcpruner-forecasts"].startswith("Forecasts of the Newest ")
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
            if key == "lcpruner_dashboard":
                write(study_id, key, {**value, "by": "another process"})

        monkeypatch.setattr(study._storage, "set_study_system_attr", overtaken)
        assert not publish_to_dashboard(study)
        assert plots(study) == {}

    def test_one_who_is_overtaken_leaves_the_rest_to_the_other(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save = dashboard.save

        def overtaken(name: str, *given: Any) -> bool:
            saved = save(name, *given)
            assert dashboard.claim(study, 0.0) is not None
            return saved

        monkeypatch.setattr(dashboard, "save", overtaken)
        assert not publish_to_dashboard(study)
        assert list(plots(study)) == ["lcpruner-forecasts"]

    def test_another_process_keeps_us_out(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.time()
        monkeypatch.setattr(dashboard.time, "time", lambda: now)
        said = {"at": now - 20.0, "by": "another-machine 1 1"}
        study._storage.set_study_system_attr(study._study_id, "lcpruner_dashboard", said)
        assert not publish_to_dashboard(study)
        now += 39.0
        assert not publish_to_dashboard(study)
        assert plots(study) == {}
        now += 1.0
        assert publish_to_dashboard(study)
        assert len(plots(study)) == 4

    def test_how_a_trial_ended_is_shown_too(self, study: optuna.Study) -> None:
        trial = study.ask()
        trial.report(0.9, 0)
        trial.should_prune()
        assert publish_to_dashboard(study, every=0)
        assert titles(study)["lcpruner-forecasts"] == "Forecasts of 1 Running Trial"
        study.tell(trial, 0.9)
        assert publish_to_dashboard(study, every=0)
        assert titles(study)["lcpruner-forecasts"].startswith("Forecasts of the Newest ")

    def test_what_waits_for_the_ledger_is_shown_too(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_writer, "PERIOD", 60.0)
        study.optimize(objective, n_trials=1)
        assert publish_to_dashboard(study)
        assert titles(study)["lcpruner-decisions"] == "Decisions About 13 Trials"

    def test_what_is_stored_is_bounded(self, tmp_path: Path) -> None:
        """A thousand trials of fifteen looks."""
        history = History(tmp_path)
        for _ in range(1000):
            history.trial(
                *(judged(step, Reason.UNDECIDED, 0.123456789, horizon=16) for step in range(15)),
                value=0.912345678,
                n=16,
            )
        Ledger(Address(history.url)).append(history.entries)
        assert publish_to_dashboard(history.study, ledger=history.url)
        sizes = {name: len(json.dumps(plot)) for name, plot in plots(history.study).items()}
        assert sum(sizes.values()) < 400_000
        assert plots(history.study)["lcpruner-decisions"]["layout"]["title"]["text"] == (
            "Decisions About 1000 Trials (newest)"
        )
        assert "newest" not in plots(history.study)["lcpruner-savings"]["layout"]["title"]["text"]

    def test_errors(self, study: optuna.Study) -> None:
        with pytest.raises(ValueError, match="every must be"):
            publish_to_dashboard(study, every=-1.0)
        with pytest.raises(LedgerError):
            publish_to_dashboard(make_study(good_trials()))

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
            publish_to_dashboard(make_study(good_trials()))
        assert str(caught.value) == f"publish_to_dashboard {command}"

    def test_who_publishes_nothing_imports_nothing_that_draws(self) -> None:
        unwanted = ["plotly", "optuna_dashboard", "matplotlib"]
        script = f"""if True:
            import sys
            from optuna_lcpruner import LearningCurvePruner, publish_to_dashboard
            LearningCurvePruner()
            print([name for name in {unwanted} if name in sys.modules])
        """
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "[]\n"


class TestCallback:
    """Of ``study.optimize``: what goes wrong with the figures never ends the search."""

    def test_after_each_trial(self, study: optuna.Study) -> None:
        every_time = partial(publish_to_dashboard, every=0)
        study.optimize(objective, n_trials=2, callbacks=[every_time])
        assert titles(study)["lcpruner-decisions"] == "Decisions About 14 Trials"
        study.optimize(objective, n_trials=1, callbacks=[every_time])
        assert titles(study)["lcpruner-decisions"] == "Decisions About 15 Trials"

    def test_at_most_once_a_minute(self, study: optuna.Study) -> None:
        study.optimize(objective, n_trials=3, callbacks=[publish_to_dashboard])
        assert titles(study)["lcpruner-decisions"] == "Decisions About 13 Trials"

    def test_from_the_first_trial_of_a_study_on(self, study_url: str, warned: list[str]) -> None:
        study = optuna.load_study(
            study_name="s", storage=sqlite(study_url), pruner=LearningCurvePruner(N_STEPS)
        )
        study.optimize(objective, n_trials=2, callbacks=[publish_to_dashboard])
        assert titles(study)["lcpruner-savings"].startswith("Reports Saved by Pruning: 0 % of 2")
        assert warned == []

    def test_of_threads_one_publishes(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        published: list[bool] = []
        publish = dashboard._publish

        def noting(*given: Any) -> bool:
            published.append(publish(*given))
            return published[-1]

        monkeypatch.setattr(dashboard, "_publish", noting)
        study.optimize(objective, n_trials=6, n_jobs=2, callbacks=[publish_to_dashboard])
        assert len(published) == 6
        assert sum(published) == 1

    def test_with_a_ledger_of_its_own(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/l.db"
        study = make_study(good_trials(), pruner=LearningCurvePruner(N_STEPS, ledger=url))
        callback = partial(publish_to_dashboard, ledger=url)
        study.optimize(objective, n_trials=1, callbacks=[callback])
        assert titles(study)["lcpruner-decisions"] == "Decisions About 1 Trial"

    @pytest.mark.parametrize("broken", ["claim", "figure_of", "import_module"])
    def test_a_failure_costs_one_warning(
        self,
        broken: str,
        study: optuna.Study,
        warned: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fails(*_: Any) -> None:
            raise ImportError("cannot reach postgresql://u:topsecret@h/db")

        monkeypatch.setattr(dashboard, broken, fails)
        always = partial(publish_to_dashboard, every=0)
        study.optimize(objective, n_trials=3, callbacks=[always])
        assert always(study, study.trials[-1]) is False
        assert len(study.trials) == 20
        assert len(warned) == 1
        assert warned[0].startswith("Figures for optuna-dashboard: ")
        assert "topsecret" not in warned[0]
        with pytest.raises((ImportError, InputError)):
            publish_to_dashboard(study, every=0)  # by hand

    def test_a_failure_is_tried_again(
        self, study: optuna.Study, warned: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(dashboard, "figure_of", lambda _: 1 / 0)
            study.optimize(objective, n_trials=1, callbacks=[publish_to_dashboard])
        assert "division by zero" in warned[0]
        assert plots(study) == {}
        now = time.time() + 61.0
        monkeypatch.setattr(dashboard.time, "time", lambda: now)
        study.optimize(objective, n_trials=1, callbacks=[publish_to_dashboard])
        assert len(plots(study)) == 4

    def test_each_study_is_told_what_is_missing(self, warned: list[str]) -> None:
        for _ in range(2):
            study = make_study(good_trials(), pruner=LearningCurvePruner(N_STEPS))
            study.optimize(objective, n_trials=2, callbacks=[publish_to_dashboard])
        assert len(warned) == 2
        assert "has no ledger beside it" in warned[0]
        assert warned[0].endswith("give that URL; they are not up to date.")

    def test_what_the_caller_gave_wrong_is_said_at_once(self, study: optuna.Study) -> None:
        callback = partial(publish_to_dashboard, every=-1.0)
        with pytest.raises(ValueError, match="every must be"):
            study.optimize(objective, n_trials=2, callbacks=[callback])
        assert len(study.trials) == 18


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


def with_forecasts(url: str, store: Any) -> optuna.Study:
    """A study whose pruned trial has its forecast as an artifact."""
    study = make_study(good_trials(), storage=sqlite(url), pruner=LearningCurvePruner(N_STEPS))

    def doomed(trial: optuna.Trial) -> float:
        for step, value in enumerate(saturating(0.3)):
            trial.report(value, step)
            if trial.should_prune():
                upload_forecast(study, trial, store)
                raise optuna.TrialPruned
        return 0.3

    study.optimize(doomed, n_trials=1)
    assert study.trials[-1].state is TrialState.PRUNED
    return study


class TestUploadForecast:
    @pytest.fixture
    def store(self, tmp_path: Path) -> FileSystemArtifactStore:
        (tmp_path / "artifacts").mkdir()
        return FileSystemArtifactStore(tmp_path / "artifacts")

    @pytest.fixture
    def running(self, study: optuna.Study) -> optuna.Trial:
        trial = study.ask()
        for step, value in enumerate(saturating(0.7)[:4]):
            trial.report(value, step)
            trial.should_prune()
        return trial

    def test_of_a_trial_about_to_be_pruned(self, tmp_path: Path, store: Any) -> None:
        study = with_forecasts(f"sqlite:///{tmp_path}/study.db", store)
        (artifact,) = get_all_artifact_meta(study.trials[-1], storage=study._storage)
        assert artifact.mimetype == "image/svg+xml"
        assert artifact.filename == f"forecast-of-trial-{study.trials[-1].number}.svg"
        with store.open_reader(artifact.artifact_id) as file:
            picture = ElementTree.parse(file).getroot()
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(picture.iter("{http://www.w3.org/2000/svg}path"))) > 20

    @pytest.mark.parametrize("kind", ["number", "trial", "frozen"])
    def test_which_trial(
        self, kind: str, study: optuna.Study, running: optuna.Trial, store: Any
    ) -> None:
        trial: Any = {
            "number": running.number,
            "trial": running,
            "frozen": study.trials[running.number],
        }[kind]
        upload_forecast(study, trial, store)
        found = study.trials[running.number]
        (artifact,) = get_all_artifact_meta(found, storage=study._storage)
        assert str(running.number) in artifact.filename

    def test_the_id_is_of_what_was_stored(
        self, study: optuna.Study, running: optuna.Trial, store: Any
    ) -> None:
        first, second = (upload_forecast(study, running, store) for _ in range(2))
        assert first != second
        for which in (first, second):
            with store.open_reader(which) as file:
                assert b"<svg" in file.read()

    def test_no_window_is_left_open(
        self, study: optuna.Study, running: optuna.Trial, store: Any
    ) -> None:
        import matplotlib.pyplot as plt

        before = plt.get_fignums()
        upload_forecast(study, running, store)
        assert plt.get_fignums() == before

    @pytest.mark.filterwarnings("ignore:.*set_metric_names is experimental")
    def test_a_metric_with_dollars(
        self, study: optuna.Study, running: optuna.Trial, store: Any
    ) -> None:
        study.set_metric_names([r"$\cost$ & <more>"])
        upload_forecast(study, running, store)

    def test_errors(
        self,
        study: optuna.Study,
        running: optuna.Trial,
        store: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with pytest.raises(InputError, match="has no trial 99"):
            upload_forecast(study, 99, store)
        with pytest.raises(InputError, match=r"trial 6 has ended.* before the objective returns"):
            upload_forecast(study, 6, store)
        with pytest.raises(LedgerError):
            upload_forecast(make_study(good_trials()), 0, store)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(InputError, match="pip install matplotlib"):
            upload_forecast(study, running, store)


@pytest.fixture
def page() -> Iterator[Any]:
    try:
        with chromium(1400, 3000) as page:
            yield page
    except MissingError as reason:
        pytest.skip(str(reason))


def sorts_as_text() -> bool:
    """Whether this optuna-dashboard is older than 0.21."""
    first, second, *_ = version("optuna-dashboard").split(".")
    return (int(first), int(second)) < (0, 21)


class TestBrowser:
    """What people see: optuna-dashboard itself in a browser."""

    def test_the_figures(self, page: Any, study: optuna.Study) -> None:
        assert publish_to_dashboard(study)
        with serving(study._storage) as address:
            page.goto(f"{address}/studies/{study._study_id}")
            for title in ("Decisions About 12 Trials", "Calibration of P(beat best)"):
                page.get_by_text(title).first.wait_for()
            assert page.get_by_text("Stopped here").count() == 1

    def test_the_figures_by_a_callback(self, page: Any, tmp_path: Path) -> None:
        study = make_study(
            good_trials(),
            storage=sqlite(f"sqlite:///{tmp_path}/study.db"),
            pruner=LearningCurvePruner(N_STEPS),
        )
        study.sampler = optuna.samplers.RandomSampler(seed=0)
        study.optimize(objective, n_trials=12, callbacks=[publish_to_dashboard])
        publish_to_dashboard(study, every=0)
        with serving(study._storage) as address:
            page.goto(f"{address}/studies/{study._study_id}")
            for title in ("Decisions About 12 Trials", "Reports Saved by Pruning"):
                page.get_by_text(title).first.wait_for()
            # Drawn, not only named: the traces of the decisions.
            plot = page.locator('[id="user-defined-plot:lcpruner-decisions"]')
            assert plot.locator("path.js-line").count() >= 2
            assert plot.get_by_text("Stopped here").count() == 1

    def test_the_columns_sort(self, page: Any, study: optuna.Study) -> None:
        """As numbers: the first click one way, the next the other; blank cells stay at an end."""
        if sorts_as_text():
            pytest.skip("needs optuna-dashboard 0.21: before, numbers were sorted as text")
        assert publisher.writer().flush(20)
        trials = study.get_trials()
        numbers = {
            key: sorted(t.user_attrs[key] for t in trials if key in t.user_attrs)
            for key in (
                "lcpruner_decided_at_step",
                "lcpruner_p_beat_best",
                "lcpruner_forecast",
                "lcpruner_forecast_lower",
                "lcpruner_forecast_upper",
            )
        }
        steps = numbers["lcpruner_decided_at_step"]
        assert sorted(steps, key=str) != steps  # 2 is less than 18, "18" less than "2"
        with serving(study._storage) as address:
            page.goto(f"{address}/studies/{study._study_id}")
            table = TrialTable(page)
            for key, expected in numbers.items():
                seen = []
                for _ in range(2):
                    table.click(f"UserAttribute {key}")
                    cells = table.column(f"UserAttribute {key}")
                    assert len(cells) == len(trials)
                    filled = [i for i, cell in enumerate(cells) if cell]
                    assert filled[-1] - filled[0] == len(filled) - 1
                    seen.append([float(cell) for cell in cells if cell])
                assert sorted(seen) == [expected, expected[::-1]]

    def test_rows_keep_together(self, page: Any, study: optuna.Study) -> None:
        """Sorted or not, a row is of one trial."""
        assert publisher.writer().flush(20)
        with serving(study._storage) as address:
            page.goto(f"{address}/studies/{study._study_id}")
            table = TrialTable(page)
            table.click("UserAttribute lcpruner_p_beat_best")
            shown = zip(
                table.column("Number"),
                table.column("UserAttribute lcpruner_p_beat_best"),
                table.column("UserAttribute lcpruner_reason"),
                strict=True,
            )
            rows = {int(number): (p, reason) for number, p, reason in shown}
        for trial in study.get_trials():
            p, reason = (trial.user_attrs.get(f"lcpruner_{k}") for k in ("p_beat_best", "reason"))
            assert rows[trial.number] == ("" if p is None else repr(p), reason or "")

    def test_the_forecast_of_a_trial(self, page: Any, tmp_path: Path) -> None:
        (tmp_path / "artifacts").mkdir()
        store = FileSystemArtifactStore(tmp_path / "artifacts")
        study = with_forecasts(f"sqlite:///{tmp_path}/study.db", store)
        number = study.trials[-1].number
        with serving(study._storage, store) as address:
            page.goto(f"{address}/studies/{study._study_id}/trials?numbers={number}")
            picture = page.locator('img[src*="/artifacts/"]').first
            picture.wait_for()
            page.wait_for_function(
                "() => document.querySelector('img[src*=\"/artifacts/\"]').naturalWidth > 300"
            )
