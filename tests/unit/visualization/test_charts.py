"""Figures: what they show, with both libraries, for one trial and for many."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import optuna
import pytest
from helpers import (
    GOOD_STUDY,
    N_STEPS,
    finished,
    good_study,
    good_trials,
    make_study,
    reports,
    saturating,
    sqlite,
    watch,
)
from histories import History, entry, judged
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner, Reason, explain, report, visualization
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import Ledger, LedgerError
from optuna_lcpruner.records.location import Address
from optuna_lcpruner.study.continuation import enqueue_continuation
from optuna_lcpruner.visualization import matplotlib as with_matplotlib
from optuna_lcpruner.visualization.charts import (
    Band,
    Chart,
    Line,
    Points,
    calibration_chart,
    decisions_chart,
    forecast_chart,
    forecasts_chart,
    savings_chart,
)

OKABE_ITO = {"#0072B2", "#E69F00", "#009E73", "#D55E00", "#808080", "#000000"}

STUDY_FIGURES = ("plot_forecasts", "plot_calibration", "plot_savings", "plot_decisions")


@pytest.fixture(autouse=True)
def figures_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="module")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the study and of the ledger beside it."""
    folder = tmp_path_factory.mktemp("search")
    url, pruner = f"sqlite:///{folder}/study.db", LearningCurvePruner(N_STEPS, threshold=0.05)
    study = good_study(url, pruner)

    def objective(trial: optuna.Trial) -> float:
        curve = saturating(0.3 if trial.number == 5 else 0.95)
        for step, value in enumerate(curve):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(curve[-1])

    study.optimize(objective, n_trials=2)
    for end in (0.9, 0.93):
        watch(study, LearningCurvePruner(N_STEPS), reports(saturating(end)[:8]))
    assert trial_attributes.writer().flush(60.0)
    assert ledger_writer.flush(60.0)
    study._storage.remove_session()
    return folder


@pytest.fixture
def study(finished_search: Path, tmp_path: Path) -> optuna.Study:
    """Five complete trials, trial 5 pruned, 6 complete, 7 and 8 running."""
    shutil.copytree(finished_search, tmp_path, dirs_exist_ok=True)
    storage = sqlite(f"sqlite:///{tmp_path}/study.db")
    return optuna.load_study(study_name=GOOD_STUDY, storage=storage)


def layer(chart: Chart, name: str) -> Any:
    (found,) = [one for one in chart.layers if one.name.startswith(name)]
    return found


class TestForecast:
    def test_of_a_pruned_trial(self, study: optuna.Study) -> None:
        chart = forecast_chart(study, 5, None)
        assert chart.title == "Forecast of Trial 5 (pruned)"
        assert (chart.x_label, chart.y_label) == ("Step", "Objective Value")
        trial = study.get_trials()[5]
        curve = layer(chart, "Trial 5")
        assert list(curve.x) == list(trial.intermediate_values)
        np.testing.assert_allclose(curve.y, list(trial.intermediate_values.values()))
        assert list(layer(chart, "Pruned").x) == [trial.last_step]
        assert len(layer(chart, "Runs on").x) == len(explain(study, 5).decisions) - 1
        assert layer(chart, "Pruned").text[0].startswith("pruned: P = ")

    def test_the_forecasts_before(self, study: optuna.Study) -> None:
        chart = forecast_chart(study, 7, None)
        looks = [entry for entry in explain(study, 7).decisions if entry.q50 is not None]
        before = layer(chart, "Earlier forecasts")
        assert isinstance(before, Band)
        assert len(looks) > 2
        assert list(before.x) == [entry.step for entry in looks]
        assert list(before.low) == [entry.q05 for entry in looks]
        assert list(before.high) == [entry.q95 for entry in looks]
        best = layer(chart, "Best")
        assert list(best.x) == [*(entry.step for entry in looks), N_STEPS - 1]
        assert list(best.y) == [*(entry.incumbent for entry in looks), looks[-1].incumbent]

    def test_the_forecast_is_drawn_to_the_end_of_the_training(self, study: optuna.Study) -> None:
        """Of a trial stopped at its second report there is one forecast, and most to come."""
        watch(study, LearningCurvePruner(N_STEPS), reports([0.1, 0.1]))
        (look,) = [entry for entry in explain(study, 9).decisions if entry.q50 is not None]
        chart = forecast_chart(study, 9, None)
        (end,) = layer(chart, "Forecast of the final value").x
        assert end == N_STEPS - 1
        forecast = layer(chart, "Forecast of the final value")
        assert (*forecast.y, *forecast.low, *forecast.high) == (look.q50, look.q05, look.q95)
        way = layer(chart, "Way to it")
        assert list(way.x) == [1, N_STEPS - 1]
        assert (list(way.low), list(way.high)) == ([0.1, look.q05], [0.1, look.q95])
        assert list(layer(chart, "Best").x) == [1, N_STEPS - 1]
        assert not [one for one in chart.layers if one.name == "Earlier forecasts, 90 %"]

    def test_the_end_is_a_step(self) -> None:
        """Steps 500, 1000, ... reach 10 000 at the twentieth report."""
        steps = range(500, 10_001, 500)
        study = make_study(finished(reports(saturating(e), steps)) for e in (0.8, 0.84, 0.9))
        with TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/ledger.db"
            watch(study, LearningCurvePruner(10_000, ledger=url), reports([0.1, 0.1], steps))
            (end,) = layer(forecast_chart(study, 3, url), "Forecast of the final value").x
        assert end == 10_000

    def test_of_a_complete_trial(self, study: optuna.Study) -> None:
        chart = forecast_chart(study, study.get_trials()[6], None)
        assert list(layer(chart, "Final").y) == [study.get_trials()[6].value]
        assert not [one for one in chart.layers if one.name == "Pruned"]

    @pytest.mark.parametrize(("value", "name"), [(1.0, "Final value, infeasible"),
                                                 (0.0, "Final value")])  # fmt: skip
    def test_of_an_infeasible_trial(self, value: float, name: str, tmp_path: Path) -> None:
        history = History(tmp_path)
        history.trial(judged(1, Reason.UNDECIDED, 0.3), value=0.9, constraints=(value,))
        history.report()
        assert layer(forecast_chart(history.study, 0, history.url), "Final").name == name

    def test_of_a_trial_without_decisions(self, study: optuna.Study) -> None:
        assert len(layer(forecast_chart(study, 0, None), "Trial 0").x) == N_STEPS

    @pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
    def test_metric_name(self, study: optuna.Study) -> None:
        study.set_metric_names(["accuracy"])
        assert forecast_chart(study, 5, None).y_label == "accuracy"

    def test_reports_that_are_not_finite(self, study: optuna.Study) -> None:
        watch(study, LearningCurvePruner(N_STEPS), {1: 0.5, 0: 0.1, 2: float("nan")})
        assert list(layer(forecast_chart(study, 9, None), "Trial 9").x) == [0, 1]


class TestForecasts:
    def test_of_the_running_trials(self, study: optuna.Study) -> None:
        chart = forecasts_chart(study, None)
        assert chart.title == "Forecasts of 2 Running Trials"
        assert list(layer(chart, "Reported").x) == [*range(8), None, *range(8), None]
        ends = layer(chart, "Forecast")
        newest = [explain(study, number).decisions[-1] for number in (7, 8)]
        assert list(ends.y) == [entry.q50 for entry in newest]
        assert list(ends.low) == [entry.q05 for entry in newest]
        assert list(ends.high) == [entry.q95 for entry in newest]
        assert min(ends.x) > N_STEPS - 1
        assert len(set(ends.x)) == 2
        assert set(layer(chart, "Best").y) == {newest[-1].incumbent}

    def test_nothing_runs(self, tmp_path: Path) -> None:
        """Then it is about the newest pruned trials, and before there are any it has no layers."""
        history = History(tmp_path)
        history.trial(entry(1, Reason.STARTUP), value=0.9)
        Ledger(Address(history.url)).append(history.entries)
        assert forecasts_chart(history.study, history.url).layers == []
        history.entries.clear()
        for step in range(2, 9):
            stop = judged(step, Reason.BELOW_THRESHOLD, 0.01, q50=0.5 + step / 100)
            history.trial(stop, n=step + 1, state=TrialState.PRUNED)
        history.report()
        chart = forecasts_chart(history.study, history.url)
        assert chart.title == "Forecasts of the Newest 5 Pruned Trials"
        np.testing.assert_allclose(layer(chart, "Forecast").y, [0.54, 0.55, 0.56, 0.57, 0.58])


def test_calibration(study: optuna.Study) -> None:
    chart = calibration_chart(study, None)
    groups = report(study).reliability
    points = layer(chart, "Looks")
    assert isinstance(points, Points)
    assert list(points.x) == [group.p_beat for group in groups]
    assert list(points.y) == [group.beat for group in groups]
    assert list(points.labels) == [str(group.n_looks) for group in groups]
    (trace,) = [t for t in visualization.plot_calibration(study).data if t.mode == "markers+text"]
    assert list(trace.text) == list(points.labels)
    shown = [text.get_text() for text in with_matplotlib.plot_calibration(study).texts]
    assert shown == list(points.labels)
    assert layer(chart, "As often").x == layer(chart, "As often").y


def test_calibration_goes_by_feasible_trials(tmp_path: Path) -> None:
    history = History(tmp_path)
    for value in (1.0, 0.0):
        history.trial(judged(1, Reason.UNDECIDED, 0.3), value=0.99, constraints=(value,))
    history.report()
    assert list(layer(calibration_chart(history.study, history.url), "Looks").y) == [0.5]


def test_savings(study: optuna.Study) -> None:
    chart = savings_chart(study, None)
    savings = report(study).savings
    made, whole = layer(chart, "Made"), layer(chart, "Every trial")
    assert made.y[-1] == savings.trained
    assert whole.y[-1] == savings.trained + savings.saved
    assert savings.saved > 5
    assert list(made.y[:5]) == list(whole.y[:5]) == [20, 40, 60, 80, 100]
    share = 100 * savings.saved / (savings.trained + savings.saved)
    assert chart.title == f"Reports Saved by Pruning: {share:.0f} % of {whole.y[-1]:.0f}"


def test_what_waits_to_go_on_has_made_no_reports(study: optuna.Study) -> None:
    before = layer(savings_chart(study, None), "Made").y[-1]
    enqueue_continuation(study, study.get_trials()[5])
    assert layer(savings_chart(study, None), "Made").y[-1] == before


def test_decisions(study: optuna.Study) -> None:
    chart = decisions_chart(study, None)
    assert chart.title == "Decisions About 4 Trials"
    assert chart.log_y
    assert {one.name for one in chart.layers} == {
        "Pruned (1)", "Completed (1)", "Running or failed (2)", "Stopped here"
    }  # fmt: skip
    (stop,) = layer(chart, "Stopped").x
    assert stop == study.get_trials()[5].last_step
    pruned = layer(chart, "Pruned")
    looks = [entry for entry in explain(study, 5).decisions if entry.p_beat is not None]
    assert list(pruned.x) == [*(entry.step for entry in looks), None]
    np.testing.assert_allclose(
        np.array(pruned.y[:-1], dtype=float), [entry.p_beat for entry in looks]
    )


def test_a_chance_of_zero_is_shown_on_the_logarithmic_axis(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.trial(judged(1, Reason.UNDECIDED, 0.0), value=0.9)
    history.report()
    assert min(layer(decisions_chart(history.study, history.url), "Completed").y[:1]) > 0.0


def test_a_stop_says_why(tmp_path: Path) -> None:
    """A settled forecast is not below the threshold, as a hopeless one is."""
    history = History(tmp_path)
    for reason, p in ((Reason.NARROW_FORECAST, 0.3), (Reason.BELOW_THRESHOLD, 0.01)):
        history.trial(judged(5, reason, p), value=0.4, n=6, state=TrialState.PRUNED, seconds=1.0)
    history.report()
    settled, hopeless = layer(decisions_chart(history.study, history.url), "Stopped").text
    assert settled == "trial 0: forecast settled, P = 0.300"
    assert hopeless.startswith("trial 1: 0.010 < 0.02")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Forty trials, every other one pruned."""
    history = History(tmp_path_factory.mktemp("many"))
    for number in range(40):
        looks = [judged(step, Reason.UNDECIDED, 0.3) for step in range(1, 4)]
        if number % 2:
            stop = judged(4, Reason.BELOW_THRESHOLD, 0.01)
            history.trial(*looks, stop, value=0.4, n=5, state=TrialState.PRUNED, seconds=1.0)
        else:
            history.trial(*looks, value=0.9)
    Ledger(Address(history.url)).append(history.entries)
    return history


class TestBothLibraries:
    def charts(self, study: optuna.Study) -> list[Chart]:
        return [
            forecast_chart(study, 5, None),
            forecasts_chart(study, None),
            calibration_chart(study, None),
            savings_chart(study, None),
            decisions_chart(study, None),
        ]

    @pytest.fixture(params=["plotly", "matplotlib"])
    def drawn(self, request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
        module: Any = visualization if request.param == "plotly" else with_matplotlib

        def drawn(
            study: optuna.Study, trial: int, *, to_the_end: bool = True, **where: Any
        ) -> list[Any]:
            figures = [module.plot_forecast(study, trial, **where)]
            figures += [getattr(module, name)(study, **where) for name in STUDY_FIGURES]
            for figure in figures if to_the_end else ():
                if request.param == "plotly":
                    figure.to_json()
                else:
                    figure.figure.canvas.draw()
            return figures

        return drawn

    def test_they_show_the_charts(
        self, study: optuna.Study, drawn: Callable[..., list[Any]]
    ) -> None:
        for figure, chart in zip(drawn(study, 5), self.charts(study), strict=True):
            if hasattr(figure, "get_title"):
                title = figure.get_title()
                labels = (figure.get_xlabel(), figure.get_ylabel(), figure.get_yscale())
                names = figure.get_legend_handles_labels()[1]
            else:
                axes = figure.layout
                title = axes.title.text
                labels = (axes.xaxis.title.text, axes.yaxis.title.text, axes.yaxis.type)
                names = [trace.name for trace in figure.data if trace.showlegend is not False]
            assert title == chart.title
            assert labels == (chart.x_label, chart.y_label, "log" if chart.log_y else "linear")
            assert sorted(names) == sorted(one.name for one in chart.layers if one.name)

    def test_steps_are_whole(self, study: optuna.Study) -> None:
        """Of a training with four steps neither library writes 0.5."""
        watch(study, LearningCurvePruner(4), reports([0.1, 0.1]))
        assert visualization.plot_forecast(study, 9).layout.xaxis.dtick == 1
        ticks = with_matplotlib.plot_forecast(study, 9).get_xticks()
        np.testing.assert_array_equal(ticks, np.round(ticks))
        assert visualization.plot_calibration(study).layout.xaxis.dtick is None

    def test_the_legend_covers_nothing(self, study: optuna.Study) -> None:
        axes = with_matplotlib.plot_forecast(study, 5)
        axes.figure.canvas.draw()
        (legend,) = axes.figure.legends
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())

    def test_error_bars(self, study: optuna.Study) -> None:
        ends = layer(forecasts_chart(study, None), "Forecast")
        (trace,) = [
            trace for trace in visualization.plot_forecasts(study).data if trace.error_y.array
        ]
        y, up, down = (np.array(v) for v in (trace.y, trace.error_y.array,
                                             trace.error_y.arrayminus))  # fmt: skip
        np.testing.assert_allclose(y + up, ends.high)
        np.testing.assert_allclose(y - down, ends.low)
        axes = with_matplotlib.plot_forecasts(study)
        segments = np.concatenate([c.get_segments() for c in axes.collections])
        np.testing.assert_allclose(segments[:, :, 1], np.array([ends.low, ends.high]).T)

    def test_colours_that_the_colour_blind_tell_apart(self, study: optuna.Study) -> None:
        for chart in self.charts(study):
            assert {one.color for one in chart.layers} <= OKABE_ITO
            lines = [(one.color, one.dash) for one in chart.layers if isinstance(one, Line)]
            assert len(lines) == len(set(lines))

    def test_of_one_trial(self, tmp_path: Path, drawn: Callable[..., list[Any]]) -> None:
        history = History(tmp_path)
        history.trial(judged(1, Reason.UNDECIDED, 0.3), value=0.9)
        history.report()
        drawn(history.study, 0, ledger=history.url)

    def test_of_many_trials(self, many: History, drawn: Callable[..., list[Any]]) -> None:
        figures = drawn(many.study, 1, to_the_end=False, ledger=many.url)
        for figure in figures:  # many trials are one line with gaps
            n = len(figure.data) if hasattr(figure, "data") else len(figure.lines)
            assert n <= 12

    def test_no_ledger(self, drawn: Callable[..., list[Any]]) -> None:
        with pytest.raises(LedgerError):
            drawn(make_study(good_trials()), 0)

    def test_no_trial(self, study: optuna.Study, drawn: Callable[..., list[Any]]) -> None:
        with pytest.raises(InputError, match="no trial 99"):
            drawn(study, 99)

    @pytest.mark.parametrize(
        ("module", "library", "name"),
        [
            (visualization, "plotly", "plotly.graph_objects"),
            (with_matplotlib, "matplotlib", "matplotlib.pyplot"),
        ],
    )
    def test_a_library_that_is_not_installed(
        self,
        module: Any,
        library: str,
        name: str,
        study: optuna.Study,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=f"pip install {library}"):
            module.plot_savings(study)


def test_both_have_the_same_functions() -> None:
    assert [*visualization.__all__, "svg_figures"] == with_matplotlib.__all__
    assert set(visualization.__all__) == {"plot_forecast", *STUDY_FIGURES}


def test_figures_for_a_page(study: optuna.Study) -> None:
    """SVG elements that a page can hold: no second document, no identifier twice."""
    figures = with_matplotlib.svg_figures(study)
    assert len(figures) == 3
    identifiers = [
        i for figure in figures for i in set(re.findall(r'<clipPath id="(\w+)"', figure))
    ]
    assert len(identifiers) == len(set(identifiers)) >= 3
    for figure in figures:
        assert ElementTree.fromstring(figure).tag.endswith("svg")
        assert figure.startswith("<svg")
