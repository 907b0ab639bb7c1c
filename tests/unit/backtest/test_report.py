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
from optuna.trial import TrialState

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import from_curves
from optuna_lcpruner.backtest.report import BacktestReport, PrunerResult, Share
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
    assert "though halving would have done so for 30%" in advice(middle, result("halving", 19, 0.3))
    assert "not in the original order" in advice(result("lcpruner", 20, 0.5, original=False))


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
    assert max(map(len, lines[:-1])) <= 130
    best = report.study.trials[report.top[0]]
    assert f"trial {best.number} ({best.value:.5g})" in text
    assert lines[-1] == report.advice
    costs = [r.interval("cost") for r in report.results]
    assert all(0 < c.low <= c.mean <= c.high <= 1 for c in costs)


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
