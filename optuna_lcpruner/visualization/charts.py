"""What the figures show, before any plotting library: lines, bands and points under a title.

Colours are those of Okabe & Ito 2008, "Color universal design", which the colour-blind can tell
apart; what matters differs in dash or symbol as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.formatting import count, format_distinct, number, p_is, probability
from optuna_lcpruner.decision.decision import Reason
from optuna_lcpruner.records.ledger import LedgerEntry
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.reporting.build_report import report
from optuna_lcpruner.reporting.decisions import Row, on_record, step_maps
from optuna_lcpruner.reporting.explanation import explain
from optuna_lcpruner.reporting.savings import left_out
from optuna_lcpruner.study.continuation import n_own_reports

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
BLACK, GREY = "#000000", "#808080"

_ENDED_SHOWN = 5  # heuristic
"""Trials that have ended whose forecasts are shown while no trial runs."""

Numbers = Sequence[float | None]
"""None is a gap."""


@dataclass(frozen=True)
class Line:
    """A line; ``dash`` is solid, dash or dot. Without a name it is not in the legend."""

    x: Numbers
    y: Numbers
    name: str
    color: str
    dash: str = "solid"
    width: float = 2.0
    opacity: float = 1.0


@dataclass(frozen=True)
class Band:
    """The area between two lines."""

    x: Numbers
    low: Numbers
    high: Numbers
    name: str
    color: str


@dataclass(frozen=True)
class Points:
    """Markers; ``symbol`` is circle, x, diamond or star, ``text`` what each says under the mouse.

    ``low`` and ``high`` are the ends of error bars, ``labels`` what stands beside each.
    """

    x: Numbers
    y: Numbers
    name: str
    color: str
    symbol: str = "circle"
    size: float = 8.0
    text: Sequence[str] = ()
    low: Numbers = ()
    high: Numbers = ()
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """One pair of axes.

    Attributes:
        title: Title.
        x_label: Label of the x axis, with its unit.
        y_label: Label of the y axis, with its unit.
        layers: What is drawn, from the back to the front.
        log_y: Whether the y axis is logarithmic.
        x_range: Ends of the x axis; None for what the layers need.
        y_range: Ends of the y axis.
        whole_x: Whether the x axis counts, so that its ticks are integers.
    """

    title: str
    x_label: str
    y_label: str
    layers: Sequence[Line | Band | Points]
    log_y: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    whole_x: bool = True


def metric_name(study: Study) -> str:
    """The metric's name as the study has it, else Optuna's words for it."""
    names = study.metric_names
    return names[0] if names else "Objective Value"


def forecast_chart(study: Study, trial: int | FrozenTrial, ledger: Setting) -> Chart:
    """One trial: its curve, the forecast to its end, the best value, the decisions."""
    wanted = trial.number if isinstance(trial, FrozenTrial) else trial
    found = explain(study, wanted, ledger=ledger)
    trials = study.get_trials(deepcopy=False)
    steps, values = _curve(trials[found.trial])
    looks = [entry for entry in found.decisions if entry.q50 is not None]
    layers: list[Line | Band | Points] = []
    if len(looks) > 1:
        at = [entry.step for entry in looks]
        low, high = [entry.q05 for entry in looks], [entry.q95 for entry in looks]
        layers += [
            Band(at, low, high, "Earlier forecasts, 90 %", GREY),
            Line(at, [entry.q50 for entry in looks], "", GREY, "dash", 1.5),
        ]
    if looks:
        end = _end_of(vars(looks[-1]), trials, found.maximize)
        layers += _to_the_end(looks[-1], end)
        best = [entry.incumbent for entry in (*looks, looks[-1])]
        layers.append(
            Line([*(entry.step for entry in looks), end], best, "Best value", ORANGE, "dot")
        )
    layers.append(Line(steps, values, f"Trial {found.trial}", BLACK))
    for action, name, color, symbol in (
        ("continue", "Runs on", GREEN, "circle"),
        ("control", "Control group", ORANGE, "diamond"),
        ("prune", "Pruned", RED, "x"),
    ):
        chosen = [
            entry for entry in found.decisions if entry.action == action and entry.value is not None
        ]
        if chosen:
            layers.append(
                Points(
                    [entry.step for entry in chosen],
                    [entry.value for entry in chosen],
                    name,
                    color,
                    symbol,
                    text=[entry.message.replace("\n", "<br>") for entry in chosen],
                )
            )
    if found.state == TrialState.COMPLETE and found.value is not None and steps:
        name = "Final value" if found.feasible else "Final value, infeasible"
        layers.append(Points([steps[-1]], [found.value], name, BLACK, "star", 12.0))
    return Chart(
        f"Forecast of Trial {found.trial} ({found.state.name.lower()})",
        "Step",
        metric_name(study),
        layers,
    )


def _end_of(look: Row, trials: Sequence[FrozenTrial], maximize: bool) -> float:
    """The step of the last report of a full training, as the pruner saw it at a look."""
    _, maps = step_maps([look["trial"]], trials, maximize)
    steps = maps.get(look["trial"])
    if steps is None or look["horizon"] is None:
        return float(look["step"])
    return float(max(look["step"], (look["horizon"] - steps.offset) * steps.stride))


def _to_the_end(look: LedgerEntry, end: float) -> list[Line | Band | Points]:
    """The forecast that a look made: of the final value, led up to from the report it was made at.

    Only the final value was forecast. What leads there is straight, and says nothing of the way.
    """
    if look.value is None or look.step is None or end <= look.step:
        return []
    x = [look.step, end]
    return [
        Band(x, [look.value, look.q05], [look.value, look.q95], "Way to it (drawn straight)", BLUE),
        Line(x, [look.value, look.q50], "", BLUE, "dash", 1.5),
        Points(
            [end], [look.q50], "Forecast of the final value, 90 %", BLUE, "diamond",
            low=[look.q05], high=[look.q95],
        ),
    ]  # fmt: skip


def forecasts_chart(study: Study, ledger: Setting) -> Chart:
    """Running trials, or without any the newest that were pruned: curves, newest forecasts."""
    trials, rows = on_record(study, ledger)
    newest = {row["trial"]: row for row in rows if row["q50"] is not None}
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    title = f"Forecasts of {count(len(running), 'Running Trial')}"
    if not running:
        ended = [trial for trial in trials if trial.number in newest]
        pruned = [trial for trial in ended if trial.state == TrialState.PRUNED]
        running = (pruned or ended)[-_ENDED_SHOWN:]
        kind = "Pruned Trial" if pruned else "Trial"
        title = f"Forecasts of the Newest {count(len(running), kind)}"
    curves = _joined([_curve(trial) for trial in running])
    layers: list[Line | Band | Points] = []
    if running:
        layers.append(Line(*curves, "Reported", GREY, width=1.0, opacity=0.8))
    seen = [newest[trial.number] for trial in running if trial.number in newest]
    if seen:
        maximize = study.direction == StudyDirection.MAXIMIZE
        last = max(_end_of(row, trials, maximize) for row in seen)
        first = min(min(trial.intermediate_values, default=last) for trial in running)
        # Beside the curves and side by side: at one place they would hide each other.
        width = last - first + 1
        place = [last + width * (0.02 + 0.2 * i / len(seen)) for i in range(len(seen))]
        layers.append(
            Points(
                place,
                [row["q50"] for row in seen],
                "Forecast of the final value, 90 %",
                BLUE,
                "diamond",
                text=[f"trial {row['trial']}, {p_is(probability(row['p_beat']))}" for row in seen],
                low=[row["q05"] for row in seen],
                high=[row["q95"] for row in seen],
            )
        )
        best = seen[-1]["incumbent"]
        layers.append(Line([first, max(place)], [best, best], "Best value", ORANGE, "dot"))
    return Chart(title, "Step", metric_name(study), layers)


def calibration_chart(study: Study, ledger: Setting) -> Chart:
    """How often trials beat the best feasible one, against the P(beat) that they were given."""
    groups = report(study, ledger=ledger).reliability
    layers: list[Line | Band | Points] = [
        Line([0.0, 1.0], [0.0, 1.0], "As often as it says", GREY, "dash", 1.0),
        Points(
            [group.p_beat for group in groups],
            [group.beat for group in groups],
            "Looks at completed trials, and their number",
            BLUE,
            size=10.0,
            labels=[str(group.n_looks) for group in groups],
            text=[
                f"{group.n_looks} looks at {group.n_trials} trials, P(beat) in "
                f"[{group.low:g}, {group.high:g}]"
                for group in groups
            ],
        ),
    ]
    return Chart(
        "Calibration of P(beat best)",
        "Mean P(beat best)",
        "Share that beat the best",
        layers,
        x_range=(-0.02, 1.02),
        y_range=(-0.02, 1.02),
        whole_x=False,
    )


def savings_chart(study: Study, ledger: Setting) -> Chart:
    """Reports made, trial by trial, against training every pruned trial to its horizon."""
    trials, rows = on_record(study, ledger)
    left = left_out(trials, study.direction == StudyDirection.MAXIMIZE, rows)
    made = np.cumsum([n_own_reports(trial) for trial in trials], dtype=float)
    saved = np.cumsum([left.get(trial.number, 0) for trial in trials], dtype=float)
    numbers = [trial.number for trial in trials]
    whole = made + saved
    title = "Reports Saved by Pruning"
    if whole.size and whole[-1] > 0:
        title += f": {100 * saved[-1] / whole[-1]:.0f} % of {number(whole[-1])}"
    return Chart(
        title,
        "Trial",
        "Reports, all trials so far",
        [
            Band(numbers, made.tolist(), whole.tolist(), "Saved", GREEN),
            Line(numbers, whole.tolist(), "Every trial to its horizon", GREY, "dash"),
            Line(numbers, made.tolist(), "Made", BLUE),
        ],
    )


def decisions_chart(study: Study, ledger: Setting) -> Chart:
    """P(beat) at every look at every trial; where trials were pruned."""
    trials, rows = on_record(study, ledger)
    by_trial: dict[int, list[Row]] = {}
    for row in rows:
        if row["p_beat"] is not None and row["step"] is not None:
            by_trial.setdefault(row["trial"], []).append(row)
    layers: list[Line | Band | Points] = []
    for states, name, color, dash in (
        ((TrialState.PRUNED,), "Pruned", GREY, "solid"),
        ((TrialState.COMPLETE,), "Completed", BLUE, "solid"),
        ((TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING), "Running or failed", GREEN,
         "dash"),
    ):  # fmt: skip
        chosen = [looks for i, looks in by_trial.items() if trials[i].state in states]
        if chosen:
            curves = _joined(
                [
                    ([row["step"] for row in looks], [_shown(row["p_beat"]) for row in looks])
                    for looks in chosen
                ]
            )
            opacity = max(0.25, min(0.8, 20.0 / len(chosen)))  # many lie over each other
            layers.append(Line(*curves, f"{name} ({len(chosen)})", color, dash, 1.0, opacity))
    stops = [row for looks in by_trial.values() for row in looks if row["action"] == "prune"]
    if stops:
        layers.append(
            Points(
                [row["step"] for row in stops],
                [_shown(row["p_beat"]) for row in stops],
                "Stopped here",
                RED,
                "x",
                6.0,
                [_stopped(row) for row in stops],
            )
        )
    return Chart(
        f"Decisions About {count(len(by_trial), 'Trial')}",
        "Step",
        "P(beat best)",
        layers,
        log_y=True,
    )


def _stopped(row: Row) -> str:
    """What a stop says under the mouse."""
    p, threshold = row["p_beat"], row["threshold"]
    if row["reason"] == Reason.OTHER_PRUNER.name:
        return f"trial {row['trial']}: by another pruner, {p_is(probability(p))}"
    if row["reason"] == Reason.NARROW_FORECAST.name:
        return f"trial {row['trial']}: forecast settled, {p_is(probability(p))}"
    return f"trial {row['trial']}: {' < '.join(format_distinct(p, threshold, probability))}"


def _shown(p: float) -> float:
    """A logarithmic axis has no zero."""
    return max(p, 1e-8)


Curve = tuple[list[float], list[float]]


def _curve(trial: FrozenTrial) -> Curve:
    """Steps in order, and the values reported; those that are not finite are left out."""
    reports = sorted((s, v) for s, v in trial.intermediate_values.items() if np.isfinite(v))
    return [float(step) for step, _ in reports], [value for _, value in reports]


def _joined(curves: Sequence[Curve]) -> tuple[Numbers, Numbers]:
    """Many curves as one line with gaps: a figure of 1 000 trials stays quick."""
    x: list[float | None] = []
    y: list[float | None] = []
    for steps, values in curves:
        x += [*steps, None]
        y += [*values, None]
    return x, y
