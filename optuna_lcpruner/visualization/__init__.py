"""Figures of the decisions on record, with plotly, called like those of ``optuna.visualization``.

The same figures with matplotlib are in :mod:`optuna_lcpruner.visualization.matplotlib`.
"""

from __future__ import annotations

from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.validation import missing
from optuna_lcpruner.records.location import Setting
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

__all__ = [
    "plot_calibration",
    "plot_decisions",
    "plot_forecast",
    "plot_forecasts",
    "plot_savings",
]

_FEW_TICKS = 8  # heuristic
"""Below this many steps plotly would put ticks between them."""


def plot_forecast(study: Study, trial: int | FrozenTrial, *, ledger: Setting = None) -> Any:
    """Plot a trial's curve, the forecast to its end, the best value, and the decisions.

    The diamond with its bar at the last step of a full training is the newest forecast of the final
    value, median and 90 % interval, as it is on record. Only the final value was forecast: the band
    that leads there from the report it was made at has straight edges and says nothing of the steps
    between. In grey, at each step, what the forecast of the final value was after that report.

    Args:
        study: The study.
        trial: The trial or its number.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.LearningCurvePruner`; by default beside the study.

    Returns:
        A ``plotly.graph_objects.Figure``.

    Raises:
        InputError: If there is no such trial, or plotly is not installed.
        LedgerError: If there is no ledger or it cannot be read.
    """
    return figure_of(forecast_chart(study, trial, ledger))


def plot_forecasts(study: Study, *, ledger: Setting = None) -> Any:
    """Plot the curves of all running trials and the newest forecast of each one's final value.

    The forecasts stand behind the last step of a full training. While no trial runs they are those
    of the newest pruned trials.

    Args, returns and errors as for :func:`plot_forecast`.
    """
    return figure_of(forecasts_chart(study, ledger))


def plot_calibration(study: Study, *, ledger: Setting = None) -> Any:
    """Plot how often completed trials beat the best value, against the P(beat) they were given.

    The number beside a point is that of its looks: few tell little.

    Args, returns and errors as for :func:`plot_forecast`.
    """
    return figure_of(calibration_chart(study, ledger))


def plot_savings(study: Study, *, ledger: Setting = None) -> Any:
    """Reports made by all trials so far, against training every pruned trial to its horizon.

    Args, returns and errors as for :func:`plot_forecast`.
    """
    return figure_of(savings_chart(study, ledger))


def plot_decisions(study: Study, *, ledger: Setting = None) -> Any:
    """P(beat) at every look at every trial, and where trials were stopped.

    Args, returns and errors as for :func:`plot_forecast`.
    """
    return figure_of(decisions_chart(study, ledger))


def figure_of(chart: Chart) -> Any:
    """A chart as a ``plotly.graph_objects.Figure``.

    Raises:
        InputError: If plotly is not installed.
    """
    try:
        import plotly.graph_objects as go  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing("a figure", "plotly") from error
    figure = go.Figure(
        layout={
            "title": chart.title,
            "xaxis": {
                "title": chart.x_label,
                "range": chart.x_range,
                "dtick": 1 if chart.whole_x and _width(chart) < _FEW_TICKS else None,
            },
            "yaxis": {
                "title": chart.y_label,
                "range": chart.y_range,
                "type": "log" if chart.log_y else "linear",
                "exponentformat": "power",
            },
            "template": "plotly_white",
        }
    )
    for layer in chart.layers:
        for trace in _traces(go, layer):
            figure.add_trace(trace)
    return figure


def _width(chart: Chart) -> float:
    """How much of the x axis the layers take."""
    x = [at for layer in chart.layers for at in layer.x if at is not None]
    return max(x) - min(x) if x else 0.0


def _traces(go: Any, layer: Line | Band | Points) -> list[Any]:
    if isinstance(layer, Line):
        return [
            go.Scatter(
                x=layer.x,
                y=layer.y,
                name=layer.name,
                showlegend=bool(layer.name),
                mode="lines",
                opacity=layer.opacity,
                line={"color": layer.color, "dash": layer.dash, "width": layer.width},
            )
        ]
    if isinstance(layer, Band):
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "x": layer.x}
        return [
            go.Scatter(y=layer.low, showlegend=False, legendgroup=layer.name, **edge),
            go.Scatter(
                y=layer.high,
                name=layer.name,
                legendgroup=layer.name,
                fill="tonexty",
                fillcolor=_faint(layer.color),
                **edge,
            ),
        ]
    bars = {}
    if layer.low:
        bars = {
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [h - y for h, y in zip(layer.high, layer.y, strict=True)],  # type: ignore[operator]
                "arrayminus": [y - w for w, y in zip(layer.low, layer.y, strict=True)],  # type: ignore[operator]
            }
        }
    return [
        go.Scatter(
            x=layer.x,
            y=layer.y,
            name=layer.name,
            mode="markers+text" if layer.labels else "markers",
            text=list(layer.labels or layer.text) or None,
            hovertext=list(layer.text) or None,
            textposition="middle right",
            marker={"color": layer.color, "symbol": layer.symbol, "size": layer.size},
            **bars,
        )
    ]


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"
