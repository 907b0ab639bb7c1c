"""What optuna-dashboard shows of the decisions: the study's figures, a trial's forecast.

Its storage is the study's: a figure is a study attribute, a picture an artifact of a trial. Of many
workers one publishes the figures; which one is settled by a claim, an attribute too.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, overload
from weakref import WeakSet

from optuna.artifacts import upload_artifact
from optuna.logging import get_logger
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from optuna_lcpruner._util.optuna_storage import storage_of, study_id_of
from optuna_lcpruner._util.redaction import describe_error
from optuna_lcpruner._util.validation import InputError, missing, real
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.visualization import figure_of
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
from optuna_lcpruner.visualization.matplotlib import svg_of

_logger = get_logger("optuna.lcpruner")

MAX_POINTS = 2000  # heuristic
"""Points that a layer of a figure keeps; the page loads them all every few seconds."""

FIGURES: dict[str, Callable[[Study, Setting], Chart]] = {
    "lcpruner-forecasts": forecasts_chart,
    "lcpruner-decisions": decisions_chart,
    "lcpruner-savings": savings_chart,
    "lcpruner-calibration": calibration_chart,
}
"""The figures of a study, by the name under which they are stored."""

_CLAIM = "lcpruner_dashboard"
"""Study system attribute: who published last, and when (seconds since 1970)."""

Claim = dict[str, Any]

_warned: WeakSet[Study] = WeakSet()
"""Studies of which a warning has said that figures are missing."""


@overload
def publish_to_dashboard(
    study: Study, trial: FrozenTrial, *, every: float = 60.0, ledger: Setting = None
) -> Any: ...  # a callback, whose type in Optuna does not allow a bool


@overload
def publish_to_dashboard(
    study: Study, trial: None = None, *, every: float = 60.0, ledger: Setting = None
) -> bool: ...


def publish_to_dashboard(
    study: Study,
    trial: FrozenTrial | None = None,
    *,
    every: float = 60.0,
    ledger: Setting = None,
) -> bool:
    """Save the study's figures where optuna-dashboard shows them: on its page of the study.

    A callback, ``study.optimize(..., callbacks=[publish_to_dashboard])``, or called by hand. Of
    all calls, in whatever process, one in ``every`` seconds publishes, and the training waits for
    that one. Each figure replaces its older self; one of many trials is cut to the newest of them,
    so that all four stay within some 400 kB.

    Args:
        study: The study.
        trial: Given by Optuna to a callback. A search must not end because of a figure, so with it
            a publication that fails costs one warning a study and is tried again later.
        every: Seconds between two publications; 0 publishes now.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.LearningCurvePruner`; by default beside the study.

    Returns:
        Whether this call published.

    Raises:
        ValueError: If ``every`` is negative.
        InputError: Without ``trial``, if the study has several objectives, or plotly or
            optuna-dashboard are not installed.
        LedgerError: Without ``trial``, if there is no ledger or it cannot be read.
    """
    every = real("every", every, 0.0, float("inf"))
    try:
        return _publish(study, every, ledger)
    except Exception as error:
        if trial is None:
            raise
        if study not in _warned:
            _warned.add(study)
            why = describe_error(error).rstrip(".")
            _logger.warning(f"Figures for optuna-dashboard: {why}; they are not up to date.")
        return False


def _publish(study: Study, every: float, ledger: Setting) -> bool:
    _check_installed()
    mine = claim(study, every)
    return mine is not None and all(save(name, study, ledger, mine) for name in FIGURES)


def upload_forecast(
    study: Study, trial: int | Trial | FrozenTrial, artifact_store: Any, *, ledger: Setting = None
) -> str:
    """Give a trial that still runs the figure of its forecast, which optuna-dashboard shows.

    The figure, that of :func:`optuna_lcpruner.visualization.plot_forecast`, becomes an SVG artifact
    of the trial. A trial that has ended takes none, so call it before raising ``TrialPruned`` or
    returning the value. It waits for the decisions to be on record, a tenth of a second as a rule.

    Args:
        study: The study.
        trial: The trial or its number.
        artifact_store: Where the file goes, of :mod:`optuna.artifacts`; optuna-dashboard must be
            started with the same, say ``--artifact-dir``.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.LearningCurvePruner`; by default beside the study.

    Returns:
        The artifact's id.

    Raises:
        InputError: If there is no such trial, if it has ended, or matplotlib is not installed.
        LedgerError: If there is no ledger or it cannot be read.
    """
    number = trial if isinstance(trial, int) else trial.number
    chart = forecast_chart(study, number, ledger)
    found = study.get_trials(deepcopy=False)[number]
    if found.state.is_finished():
        raise InputError(
            f"trial {number} has ended, and Optuna gives artifacts to running trials only: "
            "call upload_forecast before the objective returns or raises."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"forecast-of-trial-{number}.svg"
        path.write_text(svg_of(chart), encoding="utf-8")
        return upload_artifact(
            artifact_store=artifact_store,
            file_path=str(path),
            study_or_trial=found,
            storage=storage_of(study),
            mimetype="image/svg+xml",
        )


def _check_installed() -> None:
    lacking = []
    for package in ("plotly", "optuna-dashboard"):
        try:
            import_module(package.replace("-", "_"))
        except ImportError:
            lacking.append(package)
    if lacking:
        raise missing("publish_to_dashboard", *lacking)


def claim(study: Study, every: float) -> Claim | None:
    """Claim the publication; of two that claim at once, the one whose claim stands has it.

    Args:
        study: The study.
        every: Seconds for which an older claim keeps others out.

    Returns:
        The claim, or None if the publication is another's.
    """
    last = standing(study)
    # A clock that was set back must not stop all publishing.
    if last is not None and 0.0 <= time.time() - float(last["at"]) < every:
        return None
    by = f"{socket.gethostname()} {os.getpid()} {threading.get_ident()}"
    mine: Claim = {"at": time.time(), "by": by}
    storage_of(study).set_study_system_attr(study_id_of(study), _CLAIM, mine)
    return mine if standing(study) == mine else None


def standing(study: Study) -> Claim | None:
    """The newest claim, None if nobody has published yet."""
    last = storage_of(study).get_study_system_attrs(study_id_of(study)).get(_CLAIM)
    return last if isinstance(last, dict) else None


def save(name: str, study: Study, ledger: Setting, mine: Claim) -> bool:
    """Save one of :data:`FIGURES`; False if another has claimed the publication meanwhile.

    A figure that would be empty is not saved. Whoever claimed later saves them all, newer; two who
    write one figure at once would mix it up.
    """
    from optuna_dashboard import save_plotly_graph_object  # type: ignore[import-untyped]

    chart = FIGURES[name](study, ledger)
    if not chart.layers:
        return True
    figure = figure_of(bounded(chart))
    if standing(study) != mine:
        return False
    save_plotly_graph_object(study, figure, graph_object_id=name)
    return True


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
        if name in ("x", "y", "low", "high", "text", "labels") and len(values)
    }
    return replace(layer, **columns)


def _every(size: int, n: int) -> list[int]:
    """About n indices, evenly, the last among them."""
    return [*range(0, size - 1, -(-size // n)), size - 1]
