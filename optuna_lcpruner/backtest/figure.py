"""The figure of a back-test."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from optuna_lcpruner._util.validation import missing
from optuna_lcpruner.backtest.outcome import Interval, PrunerResult


def require_matplotlib() -> None:
    """An InputError, instead of an ImportError, where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise missing("a figure", "matplotlib")


def draw(results: Sequence[PrunerResult], trials: str, budget: str, title: str) -> Any:
    """Draw cost against regret, and regret within the budget, as a matplotlib Figure.

    Args:
        results: One a pruner.
        trials: Title of the first: how many trials were run.
        budget: Title of the second: what was to spend.
        title: Of both.

    Raises:
        InputError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    n_ours = sum(r.ours for r in results)
    blues = iter([(0.7 - 0.7 * d, 0.82 - 0.5 * d, 1 - 0.3 * d) for d in _depths(n_ours)])
    markers = iter("^sDvP*X<>hpd" * len(results))
    path = []
    for i, r in enumerate(results):
        cost, regret, late = (r.interval(m) for m in ("cost", "regret", "budget_regret"))
        style: dict[str, Any] = {"ms": 7, "elinewidth": 0.8}
        if r.ours:
            style |= {"fmt": "o", "color": next(blues)}
            path.append((cost.mean, regret.mean))
        else:
            style |= {"fmt": next(markers), "color": f"C{1 + i % 9}"}
        kept, found = r.share("kept"), r.share("budget_kept")
        left.errorbar(
            cost.mean,
            regret.mean,
            _bars(regret),
            _bars(cost),
            label=f"{r.pruner}, best kept {kept.count}/{kept.n}",
            **style,
        )
        right.errorbar(late.mean, i, None, _bars(late), **style)
        right.annotate(
            f"{found.count}/{found.n}",
            (1.01, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize="small",
        )
    if len(path) > 1:
        left.plot(*zip(*sorted(path), strict=True), color="0.8", lw=1, zorder=0)
    left.set(xlabel="steps spent", ylabel="regret", title=trials)
    left.xaxis.set_major_formatter(PercentFormatter(1.0))
    left.set_xlim(0, None)
    right.set_yticks(range(len(results)), [r.pruner for r in results])
    right.invert_yaxis()
    right.set(
        xlabel="regret; right: best found, in how many orders",
        title=budget,
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize="small", loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize="medium")
    return figure


def _depths(n: int) -> list[float]:
    return np.linspace(0.4, 1.0, n).tolist() if n > 1 else [0.8] * n


def _bars(interval: Interval) -> list[list[float]]:
    """Lengths of the error bars to either side of the mean, which may lie outside the range."""
    below, above = interval.mean - interval.low, interval.high - interval.mean
    return [[max(0.0, below)], [max(0.0, above)]]
