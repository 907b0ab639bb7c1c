"""What a back-test says: the table, the advice, the figure."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy
from backtests import noisy_curves, outcomes
from helpers import (
    finished,
    make_study,
    reports,
)
from optuna.pruners import ThresholdPruner
from optuna.trial import TrialState

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import from_curves
from optuna_lcpruner.backtest.outcome import PrunerResult, Share
from optuna_lcpruner.backtest.report import BacktestReport
from optuna_lcpruner.backtest.run import backtest

SOME = ("lcpruner:risk=0.8", "hyperband", "patient:patience=3")


STUDY = from_curves(noisy_curves(n_steps=50), "maximize")


def result(name: str, kept: int, cost: float, original: bool = True) -> PrunerResult:
    first = replace(outcomes(0, cost)[0], kept=original)
    return PrunerResult(name, name.startswith("lcpruner"), first, outcomes(kept, cost))


def advice(*results: PrunerResult) -> str:
    return BacktestReport(STUDY, 30, 5.0, (0,), results).advice


def test_the_advice_is_the_cheapest_setting_that_keeps_the_best() -> None:
    careful, middle = result("lcpruner:risk=0.1", 20, 0.5), result("lcpruner:risk=0.4", 19, 0.4)
    bold = result("lcpruner:risk=0.9", 18, 0.2)
    said = advice(careful, middle, bold, result("median", 18, 0.1), result("nop", 20, 1.0))
    assert said.startswith("Use lcpruner:risk=0.4: ")
    assert "(19 of 20)" in said
    assert said.endswith("at 40% of the steps.")
    assert "not in the original order" in advice(result("lcpruner", 20, 0.5, original=False))


def test_the_advice_names_a_cheaper_peer() -> None:
    """Who keeps the best for less is to be used; another of ours is no peer."""
    middle, halving = result("lcpruner:risk=0.4", 19, 0.4), result("halving", 20, 0.3, False)
    said = advice(middle, halving, result("median", 18, 0.1))
    assert said.startswith("Use halving on a study like this one: ")
    assert "in 20 of 20 random orders for 30% of the steps, but not in the original order." in said
    assert "lcpruner:risk=0.4 is the cheapest (19 of 20), at 40% of the steps;" in said
    assert said.endswith("halving spent less in 20 of the orders.")


def test_the_advice_says_when_there_is_none() -> None:
    none = advice(result("lcpruner:risk=0.5", 12, 0.3), result("lcpruner:risk=0.2", 18, 0.6))
    assert none.startswith("No lcpruner setting here would have kept the best trial in 95%")
    assert "closest is lcpruner:risk=0.2, in 18 of 20 for 60%" in none
    assert "none to advise" in advice(result("median", 20, 0.3))


@pytest.mark.parametrize(("count", "n"), [(0, 20), (20, 20), (19, 20), (3, 7), (1, 1)])
def test_the_interval_of_a_share(count: int, n: int) -> None:
    """Wilson's ends are 1.96 of their own standard errors from the share."""
    low, high = Share(count, n).interval
    assert 0.0 <= low < high <= 1.0
    for end in (low, high):
        reach = scipy.stats.norm.ppf(0.975) * np.sqrt(end * (1.0 - end) / n)
        np.testing.assert_allclose(abs(count / n - end), reach, rtol=1e-9, atol=1e-9)


def test_the_interval_of_no_share() -> None:
    assert Share(0, 0).interval == (0.0, 1.0)


@pytest.fixture(scope="module")
def report() -> BacktestReport:
    trials = [finished(reports(curve)) for curve in noisy_curves(20) if curve[-1] > 0]
    trials += [finished(reports([0.5]), state=TrialState.PRUNED)] * 3
    study = make_study(trials)
    return backtest(study, [*SOME, "median", "nop"], n_orders=4, top=2)


def test_the_table(report: BacktestReport) -> None:
    text = report.table()
    lines = text.splitlines()
    assert "18 trials, maximize, a full training is 12 steps" in lines[0]
    assert lines[1] == "left out: 3 pruned"
    nop = next(line for line in lines if line.startswith("nop"))
    assert nop.split()[1:4] == ["100%", "[100,", "100]"]
    assert "4/4 [51, 100]" in nop
    assert max(map(len, lines)) <= 100
    for column in ("steps spent", "pruned", "best kept", "regret", "best found"):
        assert any(line.startswith(f"  {column}  ") for line in lines), column
    best = report.study.trials[report.top[0]]
    assert f"trial {best.number} ({best.value:.5g})" in text
    assert text.replace("\n", " ").endswith(report.advice)
    costs = [r.interval("cost") for r in report.results]
    assert all(0 < c.low <= c.mean <= c.high <= 1 for c in costs)


def test_what_is_too_wide_goes_on_below() -> None:
    names = [f"pruner-{'x' * 30}-{i}" for i in range(2)]
    stopped = replace(outcomes(20, 0.5)[0], stopped=(10,) * 5)
    results = tuple(PrunerResult(name, False, stopped, (stopped,) * 20) for name in names)
    lines = BacktestReport(STUDY, 30, 5.0, tuple(range(5)), results).table().splitlines()
    assert max(map(len, lines)) <= 100
    for i in range(5):
        (header,) = [line for line in lines if f"trial {STUDY.trials[i].number} (" in line]
        assert header.startswith("pruner")
    assert sum(line.startswith(names[1]) for line in lines) > 3


def test_minutes_saved_where_trials_have_times() -> None:
    """Of an hour's training of 12 steps each trial stopped at its first saves 55 minutes."""
    curves = noisy_curves(6)[[0, 1, 2, 4, 5]]
    study = from_curves(curves, "maximize")
    hour = replace(study, trials=tuple(replace(t, seconds=3600.0) for t in study.trials))
    stop_all = ThresholdPruner(lower=10.0)
    found = backtest(hour, {"all": stop_all}, n_orders=2)
    assert [o.n_pruned for o in found.results[0].orders] == [5, 5]
    np.testing.assert_allclose(found.results[0].interval("saved").mean, 5 * 11 / 12)
    lines = found.table().splitlines()
    (header,) = [line.split("  ") for line in lines if "ms/decision" in line]
    assert "min saved" in header
    assert any(line.startswith("all") and " 275 " in line for line in lines)
    assert "min saved" not in backtest(study, {"all": stop_all}, n_orders=2).table()


def test_a_bar_from_the_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first replay has ended it says how many there are."""
    told: list[tuple[int, int]] = []
    backtest(noisy_curves(6), ["nop"], direction="maximize", n_orders=2,
             progress=lambda done, total: told.append((done, total)))  # fmt: skip
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    backtest(noisy_curves(6), ["nop"], direction="maximize", n_orders=2, progress=True)
    assert "0/3" in capsys.readouterr().err


def test_in_a_notebook(report: BacktestReport) -> None:
    assert repr(report).count("\n") == 0
    assert "18 trials" in repr(report)
    assert report._repr_html_().startswith("<pre>")
    table = report.to_dataframe()
    assert len(table) == len(report.results) * 5
    nop = table[table["pruner"] == "nop"]
    assert set(nop["cost"]) == {1.0}


def test_the_json(report: BacktestReport) -> None:
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [entry["pruner"] for entry in read["pruners"]] == [r.pruner for r in report.results]
    for entry in read["pruners"]:
        assert entry["cost"]["mean"] == pytest.approx(np.mean([o["cost"] for o in entry["orders"]]))
        assert entry["kept"]["count"] == sum(o["kept"] for o in entry["orders"])
    assert read["left_out"] == {"pruned": 3}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # an old matplotlib, a new pyparsing
def test_the_figure(report: BacktestReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = report.figure()
    figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    left, right = figure.axes
    (legend,) = figure.legends
    for axes in (left, right):
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    drawn = {(round(x, 9), round(y, 9)) for line in left.lines for x, y in line.get_xydata()}
    for r in report.results:
        point = (r.interval("cost").mean, r.interval("regret").mean)
        assert (round(point[0], 9), round(point[1], 9)) in drawn
    assert [label.get_text() for label in right.get_yticklabels()] == [
        r.pruner for r in report.results
    ]


def test_without_matplotlib_a_figure_says_what_to_install(
    report: BacktestReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        report.figure()
