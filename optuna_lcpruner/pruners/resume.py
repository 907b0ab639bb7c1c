"""ResumeCallback: go on with a pruned trial where its chance is worth more than a fresh trial's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
from optuna.logging import get_logger
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.attributes import P_BEAT_ATTRIBUTE, told_to_stop_at
from optuna_lcpruner._util.formatting import count
from optuna_lcpruner._util.validation import integer
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner, forgetful
from optuna_lcpruner.pruners.should_stop import GivenStudy
from optuna_lcpruner.records.ledger import DecisionContext
from optuna_lcpruner.study.continuation import (
    enqueue_continuation,
    n_own_reports,
    resumed_from,
    second_chance_of,
)
from optuna_lcpruner.study.feasibility import is_feasible
from optuna_lcpruner.study.history import StudyRecord

_logger = get_logger("optuna.lcpruner")


class ResumeCallback:
    """Go on with a pruned trial once that is a better use of steps than a fresh trial.

    A callback of ``study.optimize``, for an objective that saves checkpoints. After each trial it
    asks the pruner about the trials that it has stopped, given what the study knows by now. The one
    with the largest ``P / r`` is enqueued to go on from its checkpoint if::

        P / r  >  min(1, k / (N + 1)) / m,

    where P is its chance to beat the best value, ``r`` the reports left to its end, ``N`` the
    number of trials that have ended, ``m`` the reports that one of them made on average and ``k``
    the pruner's ``n_best``: of ``N + 1`` trials the next is one of the best k with probability
    ``k / (N + 1)``.

    The new trial has the parameters and reports of the pruned one;
    :func:`~optuna_lcpruner.resumed_from` tells the objective which checkpoint to load. It is judged
    as any other, and may be pruned again. Each training goes on once, and one waits at a time. Two
    processes that look in the same moment may enqueue the same one: then it is trained twice.

    The pruner must publish its decisions, its default.

    Args:
        pruner: The study's, or the one among several.
        n_candidates: How many stopped trials are asked about after each trial, those with the
            largest ``P / r`` when they were asked about last. Each takes one decision's time.
        can_resume: Given a pruned trial, whether its checkpoint is there; by default all are.

    Raises:
        TypeError: If ``pruner`` is no ``LearningCurvePruner``, ``n_candidates`` no integer, or
            ``can_resume`` cannot be called.
        ValueError: If ``n_candidates`` is less than 1.

    Example:
        >>> import optuna
        >>> from optuna_lcpruner import LearningCurvePruner, ResumeCallback, resumed_from
        >>> pruner = LearningCurvePruner(n_steps=20)
        >>> saved = {}
        >>> def objective(trial):
        ...     rate, point = trial.suggest_float("rate", 0.1, 0.9), resumed_from(trial)
        ...     first, loss = (0, 1.0) if point is None else (point.step + 1, saved[point.number])
        ...     for step in range(first, 20):
        ...         loss *= rate
        ...         saved[trial.number] = loss
        ...         trial.report(loss, step)
        ...         if trial.should_prune():
        ...             raise optuna.TrialPruned
        ...     return loss
        >>> study = optuna.create_study(pruner=pruner)
        >>> study.optimize(objective, n_trials=10, callbacks=[ResumeCallback(pruner)])
    """

    def __init__(
        self,
        pruner: LearningCurvePruner,
        n_candidates: int = 5,
        can_resume: Callable[[FrozenTrial], bool] | None = None,
    ) -> None:
        if not isinstance(pruner, LearningCurvePruner):
            raise TypeError(f"pruner must be a LearningCurvePruner, but got {pruner!r}.")
        if can_resume is not None and not callable(can_resume):
            raise TypeError(f"can_resume must be callable or None, but got {can_resume!r}.")
        self._pruner = forgetful(pruner, None)  # a forecast of its executor would come too late
        self._n_candidates = integer("n_candidates", n_candidates, 1)
        self._can_resume = can_resume
        self._lock = threading.Lock()
        self._known: WeakKeyDictionary[Study, _Known] = WeakKeyDictionary()

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Enqueue a continuation, if one is worth it."""
        with self._lock:  # of the threads of a process one looks at a time
            trials = study.get_trials(deepcopy=False)
            if any(other.state == TrialState.WAITING for other in trials):
                return
            best = max(self._asked(study, trials), key=lambda one: one.rate, default=None)
            if best is None:
                return
            fresh = self._fresh_rate(trials)
            if best.rate > fresh:
                enqueue_continuation(study, best.trial)
                _logger.info(
                    f"Trial {best.trial.number} goes on from step {best.trial.last_step}: "
                    f"P = {best.p:.3f} in {count(best.left, 'report')}; a fresh trial has "
                    f"{fresh * best.left:.3f} in as many."
                )

    def _fresh_rate(self, trials: Sequence[FrozenTrial]) -> float:
        """The chance per report that a fresh trial becomes one of the best."""
        ended = [t for t in trials if t.state.is_finished() and t.intermediate_values]
        n = sum(resumed_from(trial) is None for trial in ended)
        reports = sum(map(n_own_reports, ended))
        return min(1.0, self._pruner.n_best / (n + 1)) * n / max(reports, 1)

    def _asked(self, study: Study, trials: Sequence[FrozenTrial]) -> Iterator[_Candidate]:
        """Ask about the most promising of the stopped trials."""
        had_theirs = {second_chance_of(trial, trials) for trial in trials}
        stopped = [t for t in trials if _was_stopped(t) and t.number not in had_theirs]
        if not stopped:
            return
        direction, judge = study.direction, self._pruner.judge
        if study not in self._known:
            record = judge.new_reader().new_record(direction == StudyDirection.MAXIMIZE)
            self._known[study] = _Known(record)
        known = self._known[study]
        by_now = cast(Study, GivenStudy(direction, tuple(trials)))  # read once for all
        longest = max(len(trial.intermediate_values) for trial in trials)
        left_to_ask = self._n_candidates
        for trial in sorted(stopped, key=lambda t: -known.rate(t, longest)):
            if left_to_ask == 0:
                return
            if self._can_resume is not None and not self._can_resume(trial):
                continue
            left_to_ask -= 1
            context = DecisionContext("")
            p = judge.decide(by_now, trial, known.record, self._pruner.warn_once, context).p_beat
            known.p[trial.number] = p or 0.0
            if p is not None and context.horizon is not None:
                left = max(1, context.horizon - len(trial.intermediate_values))
                yield _Candidate(trial, p, left)


@dataclass(frozen=True)
class _Candidate:
    """A stopped trial, its P(beat) by now and the reports left to its end."""

    trial: FrozenTrial
    p: float
    left: int

    @property
    def rate(self) -> float:
        return self.p / self.left


@dataclass
class _Known:
    """What was read of a study's completed trials, and P(beat) of stopped ones when asked last."""

    record: StudyRecord
    p: dict[int, float] = field(default_factory=dict)

    def rate(self, trial: FrozenTrial, longest: int) -> float:
        """P(beat) per report left of a training as long as the longest; 1 at first without a P."""
        recorded = trial.user_attrs.get(P_BEAT_ATTRIBUTE, 1.0)
        p = self.p.get(trial.number, recorded)
        return float(p) / (1 + longest - len(trial.intermediate_values))


def _was_stopped(trial: FrozenTrial) -> bool:
    """Whether it was pruned by a forecast or a rank, and has not gone on before."""
    reports = trial.intermediate_values
    return (
        trial.state == TrialState.PRUNED
        and told_to_stop_at(trial.user_attrs) is not None
        and resumed_from(trial) is None
        and bool(np.isfinite(reports[max(reports)]))
        and is_feasible(trial)
    )
