"""Cross-validation: the reports of trainings fold after fold, as one learning curve.

What the objective returns is the mean over folds of where each of them ends. At epoch e of fold f
(both from 0) the ends E_0 .. E_(f-1) are known, and fold f is taken to gain from here on what the
folds before it gained on average:

    report  =  (E_0 + ... + E_(f-1) + v + g) / (f + 1),   g = mean over j < f of (E_j - v_j(e))

with v the value now and v_j(e) that of fold j at the same epoch. In the first fold that is the
value itself. Where a fold ends, g = 0: the report is the mean over the folds so far, and the last
one the value that the objective returns.
"""

from __future__ import annotations

import math

import numpy as np
from optuna.trial import BaseTrial

from optuna_lcpruner._util.validation import integer, real
from optuna_lcpruner.curves.horizon import set_n_steps


class FoldReporter:
    """Report a cross-validation, fold after fold, as one curve that ends at the mean over folds.

    The reports of a trial are at steps ``fold * n_epochs + epoch``, so none is lost: Optuna keeps
    only the first report at a step. Each estimates the mean over all folds: the folds that have
    ended count with their last value, the one under way with its value now plus what the earlier
    folds gained from this epoch on. A fold may end early.

    The length, ``n_folds * n_epochs`` steps, is announced to the pruner: leave its ``n_steps`` out.

    Args:
        trial: The running trial.
        n_folds: Folds, at least 1.
        n_epochs: Epochs (or rounds) of a fold, at least 1.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If one is less than 1.

    Example:
        >>> import optuna
        >>> from optuna_lcpruner import FoldReporter, LearningCurvePruner
        >>> def objective(trial):
        ...     rate = trial.suggest_float("rate", 0.1, 1.0)
        ...     folds = FoldReporter(trial, n_folds=5, n_epochs=20)
        ...     for fold in range(5):
        ...         for epoch in range(20):
        ...             loss = 0.3 + 0.01 * fold + (1 - rate / 2) ** (epoch + 1)  # train an epoch
        ...             folds.report(loss, fold, epoch)
        ...             if trial.should_prune():
        ...                 raise optuna.TrialPruned
        ...     return folds.mean
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(pruner=LearningCurvePruner())
        >>> study.optimize(objective, n_trials=3)
        >>> list(study.trials[0].intermediate_values) == list(range(100))
        True
    """

    def __init__(self, trial: BaseTrial, n_folds: int, n_epochs: int) -> None:
        self._trial = trial
        self._n_folds = integer("n_folds", n_folds, 1)
        self._n_epochs = integer("n_epochs", n_epochs, 1)
        self._folds: list[dict[int, float]] = []  # finite values by epoch
        self._reported = -1  # the last step
        set_n_steps(trial, self._n_folds * self._n_epochs)

    def report(self, value: float, fold: int, epoch: int) -> None:
        """Report the value of a fold after an epoch.

        Args:
            value: The metric, of this fold alone.
            fold: 0 for the first one; folds come one after the other.
            epoch: 0 for the first one; epochs may be left out.

        Raises:
            TypeError: If ``value`` is no number, or ``fold`` or ``epoch`` no integer.
            ValueError: If fold or epoch are out of range, or do not come after the last report.
        """
        value = _number(value)
        fold, epoch = integer("fold", fold, 0), integer("epoch", epoch, 0)
        if fold >= self._n_folds or epoch >= self._n_epochs:
            raise ValueError(
                f"fold and epoch must be below {self._n_folds} and {self._n_epochs}, but got "
                f"{fold} and {epoch}."
            )
        step = fold * self._n_epochs + epoch
        if step <= self._reported or fold > len(self._folds):
            raise ValueError(
                f"folds and their epochs must come in order, but fold {fold}, epoch {epoch} came "
                f"after fold {self._reported // self._n_epochs}, epoch "
                f"{self._reported % self._n_epochs}."
                if self._reported >= 0
                else f"folds must begin at 0, but the first report is of fold {fold}."
            )
        if fold == len(self._folds):
            self._folds.append({})
        self._reported = step
        earlier = [values for values in self._folds[:fold] if values]
        ends = [_last(values) for values in earlier]
        gains = [end - _at(values, epoch) for end, values in zip(ends, earlier, strict=True)]
        here = value + (sum(gains) / len(gains) if gains else 0.0)
        self._trial.report((sum(ends) + here) / (len(ends) + 1), step)
        if math.isfinite(value):
            self._folds[fold][epoch] = value

    @property
    def mean(self) -> float:
        """The mean over folds of the last value of each; NaN before the first."""
        ends = [_last(values) for values in self._folds if values]
        return sum(ends) / len(ends) if ends else math.nan


def _number(value: float) -> float:
    """The value; NaN and infinite ones are for the pruner to judge."""
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        return float(value)
    return real("value", value, -math.inf, math.inf)


def _last(values: dict[int, float]) -> float:
    return values[max(values)]


def _at(values: dict[int, float], epoch: int) -> float:
    """A fold's value at an epoch, on straight lines between reports; after its end the last one."""
    return float(np.interp(epoch, list(values), list(values.values())))
