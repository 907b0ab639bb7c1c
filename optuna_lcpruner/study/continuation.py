"""Trials that go on where a pruned one stopped. The two are one curve, and count once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial, TrialState, create_trial

from optuna_lcpruner._util.attributes import (
    REQUEUED_ATTRIBUTE,
    RESUMED_ATTRIBUTE,
    RESUMED_STEP_ATTRIBUTE,
)
from optuna_lcpruner.curves.horizon import N_STEPS_ATTRIBUTE


class ResumePoint(NamedTuple):
    """Where a trial goes on.

    Attributes:
        number: The number of the trial that it continues, whose checkpoint is to be loaded.
        step: The last step that this one reported; the training goes on at ``step + 1``.
    """

    number: int
    step: int


def resumed_from(trial: BaseTrial) -> ResumePoint | None:
    """Return which trial this one continues and where that one stopped; None if it begins anew.

    A continuation has the parameters and the reports of the pruned trial. Optuna ignores reports of
    steps that a trial already has, with a warning: begin at ``step + 1``. Without a checkpoint,
    train from the start and report from ``step + 1`` on.

    Args:
        trial: The trial, in the objective or afterwards.

    Example:
        >>> import optuna
        >>> from optuna_lcpruner import resumed_from
        >>> trial = optuna.create_study().ask()
        >>> point = resumed_from(trial)
        >>> first_epoch = 0 if point is None else point.step + 1
        >>> first_epoch
        0
    """
    attributes = trial.user_attrs
    number, step = (attributes.get(k) for k in (RESUMED_ATTRIBUTE, RESUMED_STEP_ATTRIBUTE))
    if not isinstance(number, int) or not isinstance(step, int):
        return None
    return ResumePoint(number, step)


def enqueue_continuation(
    study: Study, trial: FrozenTrial, attributes: Mapping[str, Any] | None = None
) -> None:
    """Enqueue a trial that goes on where this one stopped.

    It has the parameters, the reports and the user attributes of this one, except those that tell
    of decisions. ``study.enqueue_trial`` does the same without reports.

    Args:
        study: The study.
        trial: A trial of the study that has ended and has reported.
        attributes: Further user attributes.
    """
    kept = {
        key: value
        for key, value in trial.user_attrs.items()
        if not key.startswith("lcpruner_") or key == N_STEPS_ATTRIBUTE
    }
    point = {
        RESUMED_ATTRIBUTE: trial.number,
        RESUMED_STEP_ATTRIBUTE: max(trial.intermediate_values),
    }
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            system_attrs={"fixed_params": trial.params},
            user_attrs={**kept, **point, **(attributes or {})},
            intermediate_values=trial.intermediate_values,
        )
    )


def n_own_reports(trial: FrozenTrial) -> int:
    """Return how many of its reports a trial has made itself: those after where it resumed."""
    point = resumed_from(trial)
    return sum(point is None or step > point.step for step in trial.intermediate_values)


def continuations(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the trial that goes on where each one stopped, by the number of that one.

    Args:
        trials: All trials of a study, by number.
    """
    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        first = None if resumed_from(trial) is None else second_chance_of(trial, trials)
        if first is not None:
            found.setdefault(first, trial)
    return found


def second_chance_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
    """Return the number of the trial that this one runs again or continues; None if it is none's.

    Trials that came from another study keep their attributes, where a number means a trial of that
    one: so the parameters have to agree as well.

    Args:
        trial: A trial of the study.
        trials: All trials of the study, by number.
    """
    attributes = trial.user_attrs
    first = attributes.get(REQUEUED_ATTRIBUTE, attributes.get(RESUMED_ATTRIBUTE))
    if not isinstance(first, int) or not 0 <= first < trial.number:
        return None
    # As it was enqueued: a parameter comes into trial.params when the objective asks for it.
    given = trial.system_attrs.get("fixed_params", trial.params)
    asked = trials[first].params
    agree = all(name in given and _same(given[name], value) for name, value in asked.items())
    return first if agree else None


def _same(one: object, other: object) -> bool:
    """Equal, NaN with NaN too."""
    return one == other or (one != one and other != other)
