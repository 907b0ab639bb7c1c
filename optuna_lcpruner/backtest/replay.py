"""Replay a finished study through any pruner, and the pruners that a name can ask for.

A replay asks a real ``optuna.Study`` in memory for trials, reports what the recorded trainings
reported, in any order of the trainings, and stops each where the pruner stops it. A training that
is left alone ends as it was recorded: with its objective's value and its constraints, or failed if
the value is not finite.
"""

from __future__ import annotations

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

from optuna_lcpruner._util.optuna_storage import storage_of, trial_id_of
from optuna_lcpruner._util.validation import InputError
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
        raise InputError(f"unknown pruner {name!r}; known are {', '.join(_KINDS)}.")
    kind = _KINDS[name]
    allowed = _settings(kind.build)
    settings = kind.from_study(study)
    for part in filter(None, tail.split(",")):
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if key not in allowed:
            known = f"its settings are {', '.join(allowed)}" if allowed else "it has no settings"
            raise InputError(f"pruner {spec!r}: unknown setting {key!r}; {known}.")
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
    """What became of the trainings, in the order they ran.

    Attributes:
        trials: Indices into the study's trials, shape (n,).
        spent: Reports made by each.
        pruned: Whether it was stopped.
        seconds: Time that all decisions took.
    """

    trials: tuple[int, ...]
    spent: tuple[int, ...]
    pruned: tuple[bool, ...]
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
    study_name: str = "backtest",
) -> Replay:
    """Run the trainings through a pruner, one after the other.

    Args:
        study: The trainings.
        order: Indices of the trainings to run.
        pruner: Is copied, so that nothing it remembers reaches another replay.
        n_trials: Trainings to run, by default all of the order.
        n_reports: Go on, as far as the order goes, until this many reports are spent as well.
        study_name: Name of the study; HyperbandPruner draws its brackets from it.

    Raises:
        InputError: If the pruner fails; the message says at which trial.
    """
    pruner = deepcopy(pruner)
    n_trials = len(order) if n_trials is None else n_trials
    ran: list[tuple[int, int, bool]] = []
    total, seconds = 0, 0.0
    with quiet():
        target = optuna.create_study(
            direction="maximize" if study.maximize else "minimize",
            sampler=RandomSampler(seed=0),  # never asked: the trainings have their parameters
            pruner=pruner,
            study_name=study_name,
        )
        for index in order:
            if len(ran) >= n_trials and total >= n_reports:
                break
            recorded = study.trials[index]
            trial = target.ask()
            spent, stop, took = _train(trial, recorded, pruner)
            if stop:
                target.tell(trial, state=TrialState.PRUNED)
            elif recorded.diverged:
                target.tell(trial, state=TrialState.FAIL)
            else:
                _constrain(target, trial, recorded)
                target.tell(trial, recorded.value)
            seconds += took
            total += spent
            ran.append((index, spent, stop))
    trials, reports, pruned = zip(*ran, strict=True) if ran else ((), (), ())
    return Replay(tuple(trials), tuple(reports), tuple(pruned), seconds)


def _train(trial: Trial, recorded: RecordedTrial, pruner: BasePruner) -> tuple[int, bool, float]:
    """Report what was recorded until the pruner stops it: reports, stopped, seconds to decide."""
    if recorded.n_steps is not None:
        trial.set_user_attr(N_STEPS_ATTRIBUTE, recorded.n_steps)
    spent, seconds = 0, 0.0
    for step, value in zip(recorded.steps, recorded.values, strict=True):
        trial.report(value, step)
        spent += 1
        start = time.perf_counter()
        try:
            with decisions_to(keep_nothing):  # neither attributes nor a ledger of the user's
                stop = bool(trial.should_prune())
        except Exception as error:
            raise InputError(
                f"{type(pruner).__name__} failed at step {step} of trial {recorded.number}: "
                f"{first_line(error)}"
            ) from error
        seconds += time.perf_counter() - start
        if stop:
            return spent, True, seconds
    return spent, False, seconds


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
