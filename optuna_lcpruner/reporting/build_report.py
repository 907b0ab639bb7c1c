"""``report(study)``: were the forecasts right, what did pruning cost, what did it save?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.arrays import Array, IntArray
from optuna_lcpruner._util.attributes import REQUEUED_ATTRIBUTE, RESUMED_ATTRIBUTE
from optuna_lcpruner.curves.learning_curve import ordered, usable
from optuna_lcpruner.decision.decision import Reason
from optuna_lcpruner.records.ledger import open_ledger
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.reporting.decisions import Row, on_record, step_maps
from optuna_lcpruner.reporting.report import Call, Report, SecondChance
from optuna_lcpruner.reporting.savings import savings_of
from optuna_lcpruner.reporting.scoring import (
    SEEN,
    PruningCost,
    ScoredForecasts,
    accuracy,
    log_scores,
    part_of,
    pruning_cost,
    reliability,
)
from optuna_lcpruner.study.continuation import second_chance_of
from optuna_lcpruner.study.feasibility import is_feasible

_BY_FORECAST = (Reason.BELOW_THRESHOLD.name, Reason.NARROW_FORECAST.name, Reason.CONTROL.name)

N_CLOSEST = 5  # heuristic
"""Closest calls that a report lists."""


def report(study: Study, *, ledger: Setting = None) -> Report:
    """Judge the decisions about a study by how its trials ended.

    Args:
        study: The study.
        ledger: Where its decisions are, as for
            :class:`~optuna_lcpruner.LearningCurvePruner`; by default beside the study.

    Raises:
        InputError: If the study has several objectives.
        LedgerError: If there is no ledger or it cannot be read.
    """
    trials, rows = on_record(study, ledger)
    maximize = study.direction == StudyDirection.MAXIMIZE
    pruned, control = _stops(rows, trials)
    ended = [row for row in control if _has_ended(trials[row["trial"]])]
    # A member of the control group stands for all trials that would be pruned.
    stand_for = (len(pruned) + len(control)) / len(ended) if ended else 1.0
    looks = _looks(rows, trials, {row["trial"]: stand_for for row in ended}, maximize)
    states = Counter(trial.state.name for trial in trials)
    return Report(
        study=study.study_name,
        maximize=maximize,
        states=dict(sorted(states.items())),
        n_infeasible=sum(t.state == TrialState.COMPLETE and not is_feasible(t) for t in trials),
        n_decisions=len(rows),
        n_careful=sum(row["caution"] is not None and row["caution"] < 1.0 for row in rows),
        reasons=dict(Counter(row["reason"] for row in rows).most_common()),
        milliseconds=float(np.median([row["milliseconds"] for row in rows])) if rows else None,
        accuracy=accuracy(looks),
        reliability=reliability(looks),
        log_scores=log_scores(looks),
        n_pruned=len(pruned),
        n_control=len(control),
        cost=_cost_of(pruned, control, ended, trials, maximize),
        savings=savings_of(trials, maximize, rows),
        closest=_calls(pruned)[:N_CLOSEST],
        second_chances=_second_chances(pruned, trials, maximize),
        ledger=open_ledger(ledger, study).shown,
        n_without=_without(rows, trials),
    )


def calls(study: Study, *, ledger: Setting = None) -> list[Call]:
    """All prunes by forecast, the closest calls first: by their chance to beat the best.

    Raises:
        InputError: If the study has several objectives.
        LedgerError: If there is no ledger or it cannot be read.
    """
    trials, rows = on_record(study, ledger)
    return _calls(_stops(rows, trials)[0])


def _stops(rows: Sequence[Row], trials: Sequence[FrozenTrial]) -> tuple[list[Row], list[Row]]:
    """The first look that condemned a trial by forecast: of pruned trials, of the control group."""
    first: dict[int, Row] = {}
    overruled = {(r["trial"], r["step"]) for r in rows if r["reason"] == Reason.OVERRULED.name}
    for row in rows:
        condemned = row["action"] in ("prune", "control") and row["reason"] in _BY_FORECAST
        if condemned and (row["trial"], row["step"]) not in overruled:
            first.setdefault(row["trial"], row)
    pruned = [
        row
        for trial, row in first.items()
        if row["action"] == "prune" and trials[trial].state == TrialState.PRUNED
    ]
    return pruned, [row for row in first.values() if row["action"] == "control"]


def _cost_of(
    pruned: Sequence[Row],
    control: Sequence[Row],
    ended: Sequence[Row],
    trials: Sequence[FrozenTrial],
    maximize: bool,
) -> PruningCost:
    sign = 1.0 if maximize else -1.0
    final = np.array([trials[row["trial"]].value for row in ended], dtype=float)
    best = np.array([row["incumbent"] for row in ended], dtype=float)
    feasible = np.array([is_feasible(trials[row["trial"]]) for row in ended], dtype=bool)
    # Of all reports, as in what is saved: row["n_points"] counts the finite ones.
    made = [(trials[row["trial"]].intermediate_values, row["step"]) for row in ended]
    steps = [sum(step > stop for step in reports) for reports, stop in made]
    return pruning_cost(
        np.array([row["p_beat"] for row in (*pruned, *control)], dtype=float),
        len(pruned),
        feasible & (sign * final > sign * best),
        np.array(steps, dtype=float),
    )


def _without(rows: Sequence[Row], trials: Sequence[FrozenTrial]) -> int:
    """Finished trials that reported, but have no decision on record."""
    decided = {row["trial"] for row in rows}
    reported = {t.number for t in trials if t.state.is_finished() and t.intermediate_values}
    return len(reported - decided)


def _has_ended(trial: FrozenTrial) -> bool:
    return (
        trial.state == TrialState.COMPLETE
        and trial.value is not None
        and math.isfinite(trial.value)
    )


def _looks(
    rows: Sequence[Row],
    trials: Sequence[FrozenTrial],
    weights: Mapping[int, float],
    maximize: bool,
) -> ScoredForecasts:
    """Looks with a forecast at trials that ran to their end, oriented.

    Second chances are left out: they were chosen for their high P(beat).
    """
    chosen = {REQUEUED_ATTRIBUTE, RESUMED_ATTRIBUTE}
    needed = ("p_beat", "value", "incumbent", "horizon", "q05", "q25", "q50", "q75", "q95")
    scored = [
        row
        for row in rows
        if _has_ended(trials[row["trial"]])
        and chosen.isdisjoint(trials[row["trial"]].user_attrs)
        and all(row[name] is not None for name in needed)
    ]
    sign = 1.0 if maximize else -1.0
    column = {name: np.array([row[name] for row in scored], dtype=float) for name in needed}
    ends = [sign * column[name] for name in ("q05", "q25", "q50", "q75", "q95")]
    low, q25, median, q75, high = ends if maximize else ends[::-1]
    trial = np.array([row["trial"] for row in scored], dtype=np.int64)
    positions = _positions(scored, trials, maximize)
    seen = np.clip(positions / np.maximum(column["horizon"], 1.0), 0.0, 1.0)
    return ScoredForecasts(
        trial=trial,
        seen=seen,
        value=sign * column["value"],
        low=low,
        q25=q25,
        median=median,
        q75=q75,
        high=high,
        p_beat=column["p_beat"],
        incumbent=sign * column["incumbent"],
        final=sign * np.array([trials[i].value for i in trial], dtype=float),
        feasible=np.array([is_feasible(trials[i]) for i in trial], dtype=bool),
        weight=np.array([weights.get(i, 1.0) for i in trial.tolist()], dtype=float),
        gained=_gained(rows, scored, part_of(seen), trials, maximize),
    )


def _gained(
    rows: Sequence[Row],
    scored: Sequence[Row],
    parts: IntArray,
    trials: Sequence[FrozenTrial],
    maximize: bool,
) -> Array:
    """Mean square of what trials known at each look gained from its part on, shape (n,).

    A trial is known once the last decision about it was made, or from the start without any: a rule
    must not be fitted to what nobody knew yet.

    Args:
        rows: All decisions, in the order they were made.
        scored: The looks, in the same order.
        parts: The part of the training that each was at.
        trials: The study's trials.
        maximize: Its direction.
    """
    ended = [trial.number for trial in trials if _has_ended(trial) and trial.intermediate_values]
    _, maps = step_maps(ended, trials, maximize)
    square, n = np.zeros(len(SEEN) - 1), np.zeros(len(SEEN) - 1)

    def learn(number: int) -> None:
        steps, values = ordered(trials[number].intermediate_values)
        steps, values = steps[usable(values)], values[usable(values)]
        at = maps[number].position(steps)
        part = part_of(at / at[-1])
        gain = values - float(trials[number].value or 0.0)
        np.add.at(square, part, gain**2)
        np.add.at(n, part, 1.0)

    last = {row["trial"]: i for i, row in enumerate(rows)}
    for number in maps:
        if number not in last:
            learn(number)
    found, looks = [], iter(zip(scored, parts, strict=True))
    look, part = next(looks, (None, 0))
    for i, row in enumerate(rows):
        if row is look:
            found.append(square[part] / n[part] if n[part] else math.inf)
            look, part = next(looks, (None, 0))
        if last[row["trial"]] == i and row["trial"] in maps:
            learn(row["trial"])
    return np.array(found, dtype=float)


def _positions(rows: Sequence[Row], trials: Sequence[FrozenTrial], maximize: bool) -> Array:
    """How far each look was into its training, shape (n,), in reports.

    By its step, as when it was made: a resumed training has reported less than it has trained.
    """
    _, maps = step_maps((row["trial"] for row in rows), trials, maximize)
    return np.array(
        [
            float(maps[row["trial"]].position(row["step"]))
            if row["trial"] in maps
            else row["n_points"]
            for row in rows
        ],
        dtype=float,
    )


def _calls(pruned: Sequence[Row]) -> list[Call]:
    names = ("trial", "step", "p_beat", "threshold", "q50", "q05", "q95", "incumbent")
    ordered = sorted(pruned, key=lambda row: -row["p_beat"])
    return [Call(*(row[name] for name in names)) for row in ordered]


def _second_chances(
    pruned: Sequence[Row], trials: Sequence[FrozenTrial], maximize: bool
) -> list[SecondChance]:
    incumbents = {row["trial"]: row["incumbent"] for row in pruned}
    found = []
    for trial in trials:
        first = second_chance_of(trial, trials)
        if first is not None and first in incumbents:
            best, value = incumbents[first], trial.value if _has_ended(trial) else None
            feasible = is_feasible(trial)
            better = value is not None and (value > best if maximize else value < best)
            beat = None if value is None else better and feasible
            state = trial.state.name
            found.append(SecondChance(first, trial.number, state, value, best, beat, feasible))
    return found
