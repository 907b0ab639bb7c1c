"""``publish_to_dashboard(study)``: the figures of the decisions on optuna-dashboard."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from optuna.study import Study

from optuna_lcpruner.checks import real
from optuna_lcpruner.ledger_address import Setting
from optuna_lcpruner.visualization import figure_of
from optuna_lcpruner.visualization.charts import (
    Band,
    Chart,
    Line,
    Points,
    calibration_chart,
    decisions_chart,
    forecasts_chart,
    missing,
    savings_chart,
)

MAX_POINTS = 2000
"""Points that a layer of a figure keeps; the page loads them all every few seconds."""

_FIGURES: dict[str, Callable[[Study, Setting], Chart]] = {
    "lcpruner-forecasts": forecasts_chart,
    "lcpruner-decisions": decisions_chart,
    "lcpruner-savings": savings_chart,
    "lcpruner-calibration": calibration_chart,
}

_CLAIM = "lcpruner:dashboard"
"""Study system attribute: who published last, and when (seconds since 1970)."""


def publish_to_dashboard(study: Study, *, every: float = 60.0, ledger: Setting = None) -> bool:
    """Save the study's figures where optuna-dashboard shows them: on its page of the study.

    Meant to be called often, by each of many workers, say as a callback of ``study.optimize``:
    of all calls, in whatever process, one in ``every`` seconds publishes. Each figure replaces
    its older self; one of many trials is cut to the newest of them, so that all four stay within
    some 400 kB.

    Args:
        study: The study.
        every: Seconds between two publications; 0 publishes now.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.pruner.LearningCurvePruner`; by default beside the study.

    Returns:
        Whether this call published.

    Raises:
        ValueError: If ``every`` is negative.
        InputError: If the study has several objectives, or plotly or optuna-dashboard are not
            installed.
        LedgerError: If there is no ledger or it cannot be read.
    """
    every = real("every", every, 0.0, float("inf"))
    try:
        from optuna_dashboard import save_plotly_graph_object  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing("optuna-dashboard") from error
    if not _is_our_turn(study, every):
        return False
    for name, chart_of in _FIGURES.items():
        figure = figure_of(bounded(chart_of(study, ledger)))
        save_plotly_graph_object(study, figure, graph_object_id=name)
    return True


def _is_our_turn(study: Study, every: float) -> bool:
    """Claim the publication; of two that claim at once, the one whose claim stands has it."""
    storage, study_id = study._storage, study._study_id
    last = storage.get_study_system_attrs(study_id).get(_CLAIM)
    # A clock that was set back must not stop all publishing.
    if every > 0.0 and isinstance(last, dict) and 0.0 <= time.time() - last["at"] < every:
        return False
    by = f"{socket.gethostname()} {os.getpid()} {threading.get_ident()}"
    storage.set_study_system_attr(study_id, _CLAIM, {"at": time.time(), "by": by})
    standing = storage.get_study_system_attrs(study_id)[_CLAIM]
    return bool(standing["by"] == by)


def bounded(chart: Chart, n: int = MAX_POINTS) -> Chart:
    """A chart of at most n points a layer, or a few more.

    Lines and markers of many trials keep the newest; one line or band keeps every k-th point.
    """
    cut = any(len(layer.x) > n and _of_many(layer) for layer in chart.layers)
    title = f"{chart.title} (newest)" if cut else chart.title
    return replace(chart, layers=[_cut(layer, n) for layer in chart.layers], title=title)


def _of_many(layer: Line | Band | Points) -> bool:
    """Whether a layer is of many trials, one after the other."""
    return isinstance(layer, Points) or None in layer.x


def _cut(layer: Line | Band | Points, n: int) -> Line | Band | Points:
    if len(layer.x) <= n:
        return layer
    kept = range(len(layer.x))[-n:] if _of_many(layer) else _every(len(layer.x), n)
    columns: dict[str, Any] = {
        name: [values[i] for i in kept]
        for name, values in vars(layer).items()
        if name in ("x", "y", "low", "high", "text") and len(values)
    }
    return replace(layer, **columns)


def _every(size: int, n: int) -> list[int]:
    """About n indices, evenly, the last among them."""
    return [*range(0, size - 1, -(-size // n)), size - 1]
