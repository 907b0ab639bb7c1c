"""What a back-test replays: finished trials, read from a study, a file or plain lists.

Every way in ends in a `RecordedStudy`. Whatever cannot be used is an `InputError` whose message is
one line for the person who gave it::

    Optuna study  its COMPLETE trials, with their constraint values and how long they took; pruned
                  ones are censored and left out
    .npz          ``curves`` (n_trials, n_steps), ``maximize``, ``name``; NaN: diverged
    .csv          columns ``trial``, ``step``, ``value``, a row a report; a column ``final`` has the
                  objective's value where it is not the last report
    lists         one sequence of values a trial, of any lengths; steps are 0, 1, ...

A trial's reports are taken in the order of their steps, which may have gaps and start anywhere.
"""

from __future__ import annotations

import csv
import math
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.curves.horizon import announced_n_steps, shown_n_steps
from optuna_lcpruner.curves.learning_curve import ordered, typical_gap, usable
from optuna_lcpruner.study.continuation import n_own_reports
from optuna_lcpruner.study.feasibility import constraint_values

MIN_TRIALS = 5  # heuristic
"""Fewer trials with a curve and a value say nothing about a pruner: most wait for that many."""

DIRECTIONS = ("minimize", "maximize")


@dataclass(frozen=True)
class RecordedTrial:
    """One finished training.

    Attributes:
        number: Its number in the study, or its row in the file.
        steps: The steps it reported at, increasing.
        values: What it reported, NaN and infinite included.
        value: What its objective returned; not finite if the training diverged.
        n_steps: The horizon it announced, None without.
        constraints: The values of the study's constraints, zero or less where it keeps them.
        seconds: How long it took, None where that is unknown.
    """

    number: int
    steps: tuple[int, ...]
    values: tuple[float, ...]
    value: float
    n_steps: float | None = None
    constraints: tuple[float, ...] = ()
    seconds: float | None = None

    @property
    def diverged(self) -> bool:
        """Whether it ended without a usable value."""
        return not bool(usable(np.array(self.value)))

    @property
    def feasible(self) -> bool:
        """Whether it keeps the study's constraints; without any it does."""
        return all(value <= 0.0 for value in self.constraints)


@dataclass(frozen=True)
class RecordedStudy:
    """The finished trainings of a study, in their original order.

    Attributes:
        name: The study's name.
        maximize: Its direction.
        trials: The trainings, all with reports.
        left_out: Why trials were left out, and how many each.
        n_steps: Steps of a full training, in the unit of the steps reported.
        stride: Typical gap between the steps of two reports.
        announced: Whether trials carry the horizon as a user attribute, so that no pruner needs to
            be told.
    """

    name: str
    maximize: bool
    trials: tuple[RecordedTrial, ...]
    left_out: tuple[tuple[str, int], ...]
    n_steps: int
    stride: float
    announced: bool = False

    @property
    def n_reports(self) -> int:
        """Reports of a full training, the unit of a budget."""
        return max(1, round(self.n_steps / self.stride))

    @property
    def in_hours(self) -> bool:
        """Whether it is known how long trainings took."""
        return any(trial.seconds is not None for trial in self.trials)

    @property
    def step_times(self) -> tuple[float, ...]:
        """How long a training took from report to report, one a training.

        In hours, where a training whose time is unknown takes as long as the median of the others;
        in full trainings, all alike, where no time is known.
        """
        known = [
            None if trial.seconds is None else trial.seconds / 3600.0 / len(trial.steps)
            for trial in self.trials
        ]
        hours = [time for time in known if time is not None]
        usual = float(np.median(hours)) if hours else 1.0 / self.n_reports
        return tuple(usual if time is None else time for time in known)


def recorded(
    name: str,
    maximize: bool,
    trials: Iterable[RecordedTrial],
    left_out: Mapping[str, int] | None = None,
    n_steps: float | None = None,
) -> RecordedStudy:
    """Check the trainings and work out how long a full one is.

    The horizon is ``n_steps``; else what most trials announced; else the 90th percentile of the
    last steps (plus one report where steps begin at 0), as the pruner itself estimates it.

    Raises:
        InputError: If there are fewer than ``MIN_TRIALS`` trainings with reports and a value, or
            none of them is feasible.
    """
    if n_steps is not None and not 1 <= n_steps < math.inf:
        raise InputError(f"n_steps must be at least 1, but got {n_steps}.")
    trials, left_out = list(trials), Counter(left_out or {})
    reporting = [trial for trial in trials if trial.steps]
    left_out["without reports"] += len(trials) - len(reporting)
    if trials and not reporting:
        raise InputError(
            f"none of the {len(trials)} completed trials of {name!r} reported intermediate values, "
            "so there is no curve to replay: call trial.report in the objective."
        )
    n_usable = sum(not trial.diverged for trial in reporting)
    if n_usable < MIN_TRIALS:
        others = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
        raise InputError(
            f"{name!r} has {n_usable} completed trials with reports and a finite value, but a "
            f"back-test needs at least {MIN_TRIALS}"
            + (f" (left out: {others})." if others else ".")
        )
    if not any(trial.feasible for trial in reporting if not trial.diverged):
        raise InputError(
            f"none of the {n_usable} completed trials of {name!r} with reports and a finite value "
            "is feasible, so there is no best one that a pruner could keep."
        )
    steps = [np.array(trial.steps) for trial in reporting]
    gaps = [gap for s in steps if (gap := typical_gap(s)) is not None]
    stride = float(np.median(gaps)) if gaps else 1.0
    announced = Counter(trial.n_steps for trial in reporting if trial.n_steps is not None)
    if n_steps is None and announced:
        n_steps = announced.most_common(1)[0][0]
    if n_steps is None:
        first = float(np.median([s[0] for s in steps]))
        n_steps = shown_n_steps(first, np.array([s[-1] for s in steps]), stride) or 1.0
    return RecordedStudy(
        name,
        maximize,
        tuple(reporting),
        tuple((why, count) for why, count in left_out.items() if count),
        max(1, round(n_steps)),
        stride,
        bool(announced),
    )


def from_study(study: Study, n_steps: float | None = None) -> RecordedStudy:
    """The completed trials of a study.

    Args:
        study: A single-objective study in any storage; it is only read.
        n_steps: Steps of a full training; see :func:`recorded` for the default.

    Raises:
        InputError: If the study has several objectives, no reports, too few trials or no feasible
            one.
    """
    if len(study.directions) > 1:
        raise InputError(
            f"study {study.study_name!r} has {len(study.directions)} objectives, but Optuna prunes "
            "single-objective studies only."
        )
    left_out: Counter[str] = Counter()
    trials = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.COMPLETE:
            trials.append(_trial(trial))
        else:
            left_out[trial.state.name.lower()] += 1
    if not trials:
        states = ", ".join(f"{count} {state}" for state, count in left_out.items())
        has = f"no completed trial (but {states})" if states else "no trials"
        raise InputError(f"study {study.study_name!r} has {has}.")
    if n_steps is None:
        n_steps = announced_n_steps(study.user_attrs)
    maximize = study.direction == StudyDirection.MAXIMIZE
    return recorded(study.study_name, maximize, trials, left_out, n_steps)


def _trial(trial: FrozenTrial) -> RecordedTrial:
    steps, values = ordered(trial.intermediate_values)
    took = trial.duration.total_seconds() if trial.duration else 0.0
    own = n_own_reports(trial)
    # As long as all of its reports would have taken, if it continues another trial.
    took = took * len(steps) / own if own else 0.0
    return RecordedTrial(
        trial.number,
        tuple(steps.tolist()),
        tuple(values.tolist()),
        float("nan") if trial.value is None else float(trial.value),
        announced_n_steps(trial.user_attrs),
        tuple(float(value) for value in constraint_values(trial.system_attrs)),
        # A trial that was only added took no time, and a clock may have been set back.
        took if took > 0.0 else None,
    )


def from_curves(
    curves: Iterable[Iterable[float]],
    direction: str,
    name: str = "curves",
    n_steps: float | None = None,
) -> RecordedStudy:
    """Sequences of values, one a trial: reports at steps 0, 1, ...; the last is its final value.

    Args:
        curves: One sequence a trial, or an array of shape (n_trials, n_steps).
        direction: ``"minimize"`` or ``"maximize"``.
        name: What to call the study.
        n_steps: Steps of a full training; see :func:`recorded` for the default.

    Raises:
        InputError: If something is not a number, or there are too few trials.
    """
    maximize = maximizes(direction)
    trials = []
    try:
        for number, curve in enumerate(curves):
            values = tuple(float(value) for value in curve)
            final = values[-1] if values else float("nan")
            trials.append(RecordedTrial(number, tuple(range(len(values))), values, final))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name!r}: curves must be one sequence of numbers a trial ({error})."
        ) from error
    return recorded(name, maximize, trials, n_steps=n_steps)


def maximizes(direction: str | None) -> bool:
    """Whether the direction is ``"maximize"``; an InputError if it is neither."""
    if direction not in DIRECTIONS:
        raise InputError(
            f"direction must be 'minimize' or 'maximize', but got {direction!r}: curves alone do "
            "not say which values are better."
        )
    return direction == "maximize"


def read_file(
    path: str | Path, direction: str | None = None, n_steps: float | None = None
) -> RecordedStudy:
    """Curves in a ``.npz`` or ``.csv`` file, laid out as this module's head says.

    Args:
        path: The file.
        direction: ``"minimize"`` or ``"maximize"``; an .npz file may say it itself.
        n_steps: Steps of a full training; see :func:`recorded` for the default.

    Raises:
        InputError: If the file is missing, malformed or holds too few trials.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        if path.suffix == ".npz":
            return _read_npz(path, direction, n_steps)
        if path.suffix == ".csv":
            return recorded(path.stem, maximizes(direction), _read_csv(path), n_steps=n_steps)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}).") from error
    raise InputError(f"{path}: must end in .npz or .csv.")


def _read_npz(path: Path, direction: str | None, n_steps: float | None) -> RecordedStudy:
    try:
        with path.open("rb") as file, np.load(file) as data:  # numpy may leave its own open
            if "curves" not in data:
                raise InputError(f"{path}: holds no array 'curves', only {', '.join(data.files)}.")
            curves = np.asarray(data["curves"], dtype=float)
            if direction is None and "maximize" in data:
                direction = DIRECTIONS[bool(data["maximize"])]
            name = str(data["name"]) if "name" in data else path.stem
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        TypeError,
        ValueError,
        tokenize.TokenError,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not an .npz file of numbers.") from error
    if curves.ndim != 2:
        raise InputError(f"{path}: curves must be (n_trials, n_steps), but got {curves.shape}.")
    maximize = maximizes(direction)
    return from_curves(curves.tolist(), DIRECTIONS[maximize], name, n_steps)


def _read_csv(path: Path) -> list[RecordedTrial]:
    reports: dict[str, dict[int, float]] = {}  # by trial, then step
    finals: dict[str, float] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        table.fieldnames = names = [name.strip().lower() for name in table.fieldnames or ()]
        if not {"trial", "step", "value"} <= set(names):
            raise InputError(
                f"{path}: needs columns trial, step, value; "
                f"it has {', '.join(map(repr, names)) or 'nothing'}."
            )
        for row in table:
            where = f"{path}, line {table.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: not {len(names)} cells, as the header has.")
            trial, step = row["trial"], _number(row["step"], where)
            if not (0 <= step < 2**53 and step % 1 == 0):
                raise InputError(f"{where}: step must be 0, 1, 2, ..., but got {row['step']!r}.")
            curve = reports.setdefault(trial, {})
            if int(step) in curve:
                raise InputError(f"{where}: step {int(step)} of trial {trial} is there twice.")
            curve[int(step)] = _number(row["value"], where)
            if row.get("final", "").strip():
                finals[trial] = _number(row["final"], where)
    trials = []
    for number, (trial, curve) in enumerate(reports.items()):
        steps, values = ordered(curve)
        final = finals.get(trial, float(values[-1]))
        trials.append(RecordedTrial(number, tuple(steps.tolist()), tuple(values.tolist()), final))
    return trials


def _number(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise InputError(f"{where}: {cell!r} is not a number.") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
