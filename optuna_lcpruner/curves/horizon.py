"""``set_n_steps(trial, n_steps)``: a trial announces how long its own training is."""

from __future__ import annotations

import numpy as np
from optuna.trial import BaseTrial

from optuna_lcpruner._util.validation import integer

N_STEPS_ATTRIBUTE = "lcpruner_n_steps"
"""Trial user attribute by which an objective announces its horizon."""


def set_n_steps(trial: BaseTrial, n_steps: int) -> None:
    """Announce the steps of this trial's full training, before its first report.

    Where trainings differ in length, say because the number of epochs is a hyper-parameter, each
    is then judged by its own end, and completed trainings of other lengths are compared with it by
    the share of the training done. ``LearningCurvePruner(n_steps=...)`` overrides it.

    Announced after some reports it counts from then on; until then the trial is judged by the
    length that completed trials show, or not at all if none has completed. Writes the trial's user
    attribute ``lcpruner_n_steps``.

    Args:
        trial: The running trial.
        n_steps: At least 1, in the unit of the steps given to ``trial.report``: the number of
            epochs if these are epochs, of iterations if these are iterations.

    Raises:
        TypeError: If ``n_steps`` is no integer.
        ValueError: If it is less than 1.

    Example:
        >>> from optuna_lcpruner import set_n_steps
        >>> def objective(trial):
        ...     epochs = trial.suggest_int("epochs", 20, 80)
        ...     set_n_steps(trial, epochs)
        ...     ...  # train, report, should_prune
    """
    trial.set_user_attr(N_STEPS_ATTRIBUTE, integer("n_steps", n_steps, 1))


def announced_n_steps(user_attrs: object) -> float | None:
    """The horizon in the trial's user attributes, if it is a positive number."""
    value = user_attrs.get(N_STEPS_ATTRIBUTE) if isinstance(user_attrs, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return None
    try:
        n_steps = float(value)
    except OverflowError:
        return None
    return n_steps if np.isfinite(n_steps) and n_steps > 0 else None
