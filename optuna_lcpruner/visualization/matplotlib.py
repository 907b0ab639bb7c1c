"""The figures of :mod:`optuna_lcpruner.visualization` with matplotlib, which see."""

from __future__ import annotations

from io import StringIO
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.validation import missing
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.visualization.charts import (
    Band,
    Chart,
    Line,
    Numbers,
    Points,
    calibration_chart,
    decisions_chart,
    forecast_chart,
    forecasts_chart,
    savings_chart,
)

__all__ = [
    "plot_calibration",
    "plot_decisions",
    "plot_forecast",
    "plot_forecasts",
    "plot_savings",
    "svg_figures",
]

_SIZE = (8.0, 5.0)  # heuristic
_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
_MARKERS = {"circle": "o", "x": "x", "diamond": "D", "star": "*"}


def plot_forecast(study: Study, trial: int | FrozenTrial, *, ledger: Setting = None) -> Any:
    """See :func:`optuna_lcpruner.visualization.plot_forecast`; returns ``Axes``."""
    return _axes(forecast_chart(study, trial, ledger))


def plot_forecasts(study: Study, *, ledger: Setting = None) -> Any:
    """See :func:`optuna_lcpruner.visualization.plot_forecasts`; returns ``Axes``."""
    return _axes(forecasts_chart(study, ledger))


def plot_calibration(study: Study, *, ledger: Setting = None) -> Any:
    """See :func:`optuna_lcpruner.visualization.plot_calibration`; returns ``Axes``."""
    return _axes(calibration_chart(study, ledger))


def plot_savings(study: Study, *, ledger: Setting = None) -> Any:
    """See :func:`optuna_lcpruner.visualization.plot_savings`; returns ``Axes``."""
    return _axes(savings_chart(study, ledger))


def plot_decisions(study: Study, *, ledger: Setting = None) -> Any:
    """See :func:`optuna_lcpruner.visualization.plot_decisions`; returns ``Axes``."""
    return _axes(decisions_chart(study, ledger))


def svg_figures(study: Study, *, ledger: Setting = None) -> list[str]:
    """The figures of a study for a page, ``report(study).to_html(figures=svg_figures(study))``.

    Args:
        study: The study.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.LearningCurvePruner`; by default beside the study.

    Returns:
        Savings, calibration and decisions, each an SVG element as text.

    Raises:
        InputError: If matplotlib is not installed.
        LedgerError: If there is no ledger or it cannot be read.
    """
    documents = [
        svg_of(chart(study, ledger))
        for chart in (savings_chart, calibration_chart, decisions_chart)
    ]
    return [document[document.index("<svg") :] for document in documents]


def _axes(chart: Chart) -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise missing("a figure", "matplotlib") from error
    _, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    _fill(axes, chart)
    return axes


def svg_of(chart: Chart) -> str:
    """A chart as an SVG document; on any thread, with no window and nothing left open.

    Raises:
        InputError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("a figure", "matplotlib") from error
    figure = Figure(figsize=_SIZE, layout="constrained")
    _fill(figure.subplots(), chart)
    written = StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _fill(axes: Any, chart: Chart) -> None:
    for layer in chart.layers:
        _draw(axes, layer)
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
    axes.yaxis.label.set_parse_math(False)  # the metric's name is the study's, dollars and all
    if chart.log_y:
        axes.set_yscale("log")
    if chart.x_range is not None:
        axes.set_xlim(chart.x_range)
    if chart.y_range is not None:
        axes.set_ylim(chart.y_range)
    if chart.whole_x:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if chart.layers:  # where it covers nothing
        axes.figure.legend(fontsize="small", loc="outside lower center", ncols=3)


def _draw(axes: Any, layer: Line | Band | Points) -> None:
    x = _floats(layer.x)
    if isinstance(layer, Line):
        axes.plot(
            x,
            _floats(layer.y),
            _DASHES[layer.dash],
            label=layer.name or None,
            color=layer.color,
            lw=0.75 * layer.width,
            alpha=layer.opacity,
        )
    elif isinstance(layer, Band):
        axes.fill_between(
            x, _floats(layer.low), _floats(layer.high), color=layer.color, alpha=0.2, lw=0,
            label=layer.name,
        )  # fmt: skip
    else:
        y = _floats(layer.y)
        axes.plot(
            x, y, _MARKERS[layer.symbol], color=layer.color, ms=0.75 * layer.size, ls="",
            label=layer.name,
        )  # fmt: skip
        for at, value, label in zip(x, y, layer.labels, strict=False):
            axes.annotate(label, (at, value), (6, -3), textcoords="offset points")
        if layer.low:
            axes.vlines(x, _floats(layer.low), _floats(layer.high), color=layer.color, lw=1)


def _floats(values: Numbers) -> Any:
    """As an array, a gap as NaN."""
    return np.array(values, dtype=float)
