"""Replay a finished study through any pruner, and the pruners that a name can ask for.

A replay asks a real ``optuna.Study`` in memory for trials, reports what the recorded trainings
reported, in any order of the trainings, and stops each where the pruner stops it. A training that
is left alone ends as it was recorded: with its objective's value and its constraints, or failed if
the value is not finite. Several workers train at once, each the next training as soon as it is
free, and what they report comes in the order of the time it takes.
"""

from __future__ import annotations

import heapq
import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import Trial, TrialState

from optuna_lcpruner._util.attributes import PACE_ATTRIBUTE
from optuna_lcpruner._util.optuna_storage import storage_of, trial_id_of
from optuna_lcpruner._util.validation import InputError, did_you_mean
from optuna_lcpruner.backtest.data import RecordedStudy, RecordedTrial, first_line
from optuna_lcpruner.curves.horizon import N_STEPS_ATTRIBUTE
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
from optuna_lcpruner.records.recorder import decisions_to, keep_nothing

Build = Callable[..., BasePruner]


@dataclass(frozen=True)
class _Kind:
    """A name's pruner and the settings that follow from the study unless they are given."""

    build: Build
    from_study: Callable[[RecordedStudy], dict[str, Any]] = lambda study: {}


_KINDS: Mapping[str, _Kind] = {
    # A trial's own announcement counts only where the constructor says nothing.
    "lcpruner": _Kind(
        partial(LearningCurvePruner, publish=False),
        lambda study: {} if study.announced else {"n_steps": study.n_steps},
    ),
    "nop": _Kind(NopPruner),
    "median": _Kind(MedianPruner),
    "percentile": _Kind(PercentilePruner, lambda study: {"percentile": 25.0}),
    "halving": _Kind(SuccessiveHalvingPruner),
    "hyperband": _Kind(
        HyperbandPruner,
        lambda study: {
            "min_resource": max(1, round(study.stride)),
            "max_resource": study.n_steps,
        },
    ),
    "patient": _Kind(PatientPruner, lambda study: {"wrapped": "median", "patience": 2}),
    "wilcoxon": _Kind(WilcoxonPruner),
    "threshold": _Kind(ThresholdPruner),
}

DEFAULT_PRUNERS = (
    "lcpruner:risk=0.02",
    "lcpruner:risk=0.04",
    "lcpruner:risk=0.08",
    "median",
    "percentile",
    "halving",
    "hyperband",
    "nop",
)
"""LearningCurvePruner from careful to aggressive, and Optuna's own at their defaults."""


def pruner_names() -> dict[str, tuple[str, ...]]:
    """The names :func:`make_pruner` knows, each with its settings."""
    return {name: tuple(_settings(kind.build)) for name, kind in _KINDS.items()}


def _settings(build: Build) -> dict[str, Any]:
    """Names and defaults of the settings; what a partial has bound is not for the user."""
    bound = build.keywords if isinstance(build, partial) else {}
    parameters = inspect.signature(build).parameters.items()
    return {
        # PatientPruner's own name for the pruner it asks is not one to type
        ("wrapped" if name == "wrapped_pruner" else name): parameter.default
        for name, parameter in parameters
        if name not in bound
    }


def make_pruner(spec: str, study: RecordedStudy) -> BasePruner:
    """The pruner that a name with settings asks for.

    It is written as::

        name[:setting=value[,setting=value...]]      lcpruner:threshold=0.05,engine=closed_form

    Settings are those of the pruner's constructor. Where they are left out they are the
    constructor's defaults, except those that follow from the study: the horizon of ``lcpruner`` and
    ``hyperband``, ``percentile`` 25, and ``patient`` two steps around ``wrapped=median``.

    Raises:
        InputError: If there is no such name or setting, or a value is not allowed.
    """
    name, _, tail = spec.partition(":")
    if name not in _KINDS:
        raise InputError(
            f"unknown pruner {name!r}; known are {', '.join(_KINDS)}.{did_you_mean(name, _KINDS)}"
        )
    kind = _KINDS[name]
    allowed = _settings(kind.build)
    settings = kind.from_study(study)
    for part in filter(None, tail.split(",")):
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if key not in allowed:
            known = f"its settings are {', '.join(allowed)}" if allowed else "it has no settings"
            raise InputError(
                f"pruner {spec!r}: unknown setting {key!r}; {known}.{did_you_mean(key, allowed)}"
            )
        if not (equals and text):
            raise InputError(f"pruner {spec!r}: give {key!r} a value, as in {key}=...")
        value = _value(text)
        usual = allowed[key]
        usual = settings.get(key) if usual is inspect.Parameter.empty else usual
        if isinstance(usual, (int, float)) and not isinstance(value, (int, float)):
            raise InputError(f"pruner {spec!r}: {key} must be a number, but got {text!r}.")
        settings[key] = value
    try:
        if "wrapped" in settings:
            settings["wrapped_pruner"] = make_pruner(str(settings.pop("wrapped")), study)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that PatientPruner is experimental
            return kind.build(**settings)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"pruner {spec!r}: {first_line(error)}") from error


def _value(text: str) -> int | float | bool | str | None:
    """A setting's value as Python has it."""
    word = text.lower()
    if word in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[word]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class Replay:
    """What became of the trainings, in the order they began.

    Attributes:
        trials: Indices into the study's trials, shape (n,).
        spent: Reports made by each.
        pruned: Whether it was stopped.
        before: Reports that all had made when it began.
        ended: When it ended, in the unit of the study's ``step_times``.
        seconds: Time that all decisions took.
    """

    trials: tuple[int, ...]
    spent: tuple[int, ...]
    pruned: tuple[bool, ...]
    before: tuple[int, ...]
    ended: tuple[float, ...]
    seconds: float

    @property
    def ms_per_decision(self) -> float:
        """Mean time of a decision, milliseconds."""
        return 1e3 * self.seconds / max(1, sum(self.spent))


def replay(
    study: RecordedStudy,
    order: Sequence[int],
    pruner: BasePruner,
    *,
    n_trials: int | None = None,
    n_reports: float = 0.0,
    n_workers: int = 1,
    study_name: str = "backtest",
) -> Replay:
    """Run the trainings through a pruner, one after the other or several at once.

    Args:
        study: The trainings.
        order: Indices of the trainings to run.
        pruner: Is copied, so that nothing it remembers reaches another replay.
        n_trials: Trainings to run, by default all of the order.
        n_reports: Go on, as far as the order goes, until this many reports are spent as well.
        n_workers: Trainings under way at once, as long as there are more to begin.
        study_name: Name of the study; HyperbandPruner draws its brackets from it.

    Raises:
        InputError: If the pruner fails; the message says at which trial.
    """
    pruner = deepcopy(pruner)
    n_trials = len(order) if n_trials is None else n_trials
    ran: list[_Training] = []
    under_way: list[tuple[float, int]] = []  # when it reports next, its place in those that ran
    step_times = study.step_times
    total, seconds, now = 0, 0.0, 0.0
    with quiet():
        target = optuna.create_study(
            direction="maximize" if study.maximize else "minimize",
            sampler=RandomSampler(seed=0),  # never asked: the trainings have their parameters
            pruner=pruner,
            study_name=study_name,
        )
        while True:
            while (
                len(under_way) < n_workers
                and len(ran) < len(order)
                and (len(ran) < n_trials or total < n_reports)
            ):
                index = order[len(ran)]
                heapq.heappush(under_way, (now + step_times[index], len(ran)))
                ran.append(_begin(target, index, study, total))
            if not under_way:
                break
            now, place = heapq.heappop(under_way)
            training = ran[place]
            seconds += _report(training, pruner)
            total += 1
            if training.under_way:
                heapq.heappush(under_way, (now + step_times[training.index], place))
            else:
                training.ended = now
                _end(target, training)
    return Replay(
        tuple(training.index for training in ran),
        tuple(training.spent for training in ran),
        tuple(training.pruned for training in ran),
        tuple(training.before for training in ran),
        tuple(training.ended for training in ran),
        seconds,
    )


@dataclass
class _Training:
    """A training that a worker has begun; see Replay."""

    index: int
    recorded: RecordedTrial
    trial: Trial
    before: int
    spent: int = 0
    pruned: bool = False
    ended: float = 0.0

    @property
    def under_way(self) -> bool:
        """Whether it has more to report."""
        return not self.pruned and self.spent < len(self.recorded.steps)


def _begin(study: Study, index: int, trainings: RecordedStudy, before: int) -> _Training:
    trial, recorded = study.ask(), trainings.trials[index]
    trial.set_user_attr(PACE_ATTRIBUTE, 3600.0 * trainings.step_times[index])
    if recorded.n_steps is not None:
        trial.set_user_attr(N_STEPS_ATTRIBUTE, recorded.n_steps)
    return _Training(index, recorded, trial, before)


def _report(training: _Training, pruner: BasePruner) -> float:
    """Report what was recorded next and ask the pruner: seconds to decide."""
    recorded, trial = training.recorded, training.trial
    step = recorded.steps[training.spent]
    trial.report(recorded.values[training.spent], step)
    training.spent += 1
    start = time.perf_counter()
    try:
        with decisions_to(keep_nothing):  # neither attributes nor a ledger of the user's
            training.pruned = bool(trial.should_prune())
    except Exception as error:
        raise InputError(
            f"{type(pruner).__name__} failed at step {step} of trial {recorded.number}: "
            f"{first_line(error)}"
        ) from error
    return time.perf_counter() - start


def _end(study: Study, training: _Training) -> None:
    if training.pruned:
        study.tell(training.trial, state=TrialState.PRUNED)
    elif training.recorded.diverged:
        study.tell(training.trial, state=TrialState.FAIL)
    else:
        _constrain(study, training.trial, training.recorded)
        study.tell(training.trial, training.recorded.value)


def _constrain(study: Study, trial: Trial, recorded: RecordedTrial) -> None:
    """Give a trial that has run to its end its constraint values, as a sampler would then."""
    if recorded.constraints:
        # The attribute itself: set_constraint is new in Optuna 5, which reads this one too.
        storage_of(study).set_trial_system_attr(
            trial_id_of(trial), "constraints", list(recorded.constraints)
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's log and all warnings off, and afterwards as they were."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
