"""Who is behind the others before any training has shown its end: Hyperband's brackets. Pure.

With many trainings at once, most of a small budget is spent before the first of them has completed.
Until then there is nothing to forecast from but where a trial stands among those that have come as
far. Early ranks are no safe guide: some winners start slowly. So the trials are divided among
brackets, as in Hyperband, of which the first trusts early ranks and the last never does:

    in bracket s of 0, 1, ..., floor(log3 T) a trial is compared at reports 3^(s + k) + 1,
    k = 0, 1, ..., with the trials of its bracket that have come as far, and goes on if it is among
    the best third of them, or the best one.

A bracket depends on the study's name and the trial's number alone, so every worker sees the same.

Source: Li et al. 2018, "Hyperband: a novel bandit-based approach to hyperparameter optimization";
Li et al. 2020, "A system for massively parallel hyperparameter tuning" (asynchronous halving).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from optuna_lcpruner.curves.horizon import announced_n_steps
from optuna_lcpruner.study.feasibility import is_feasible

REDUCTION = 3
"""Of the trials that are compared one in so many goes on. Optuna's default."""

UNTIL = 8
"""Completed curves from which on trials are judged by forecast alone."""

MANY = 16
"""Other trials that run at the same time, at least; with fewer waiting for them costs less."""


_MOST_WORSE = 0.8  # heuristic
"""Share of the compared curves that may have got worse since their first report."""


def bracket_of(study_name: str, trial_number: int, horizon: int) -> int:
    """Return the bracket of a trial, 0 with the earliest comparisons.

    Args:
        study_name: The study's name.
        trial_number: The trial's number.
        horizon: T, reports of a full training, at least 1.
    """
    n_brackets = math.floor(math.log(horizon, REDUCTION) + 1e-9) + 1
    sizes = [math.ceil(n_brackets * REDUCTION**s / (s + 1)) for s in range(n_brackets - 1, -1, -1)]
    text = f"{study_name}\0{trial_number}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=7, person=b"lcp-bracket").digest()
    place = int.from_bytes(digest, "big") % sum(sizes)
    for bracket, size in enumerate(sizes):
        place -= size
        if place < 0:
            return bracket
    raise AssertionError("the sizes add up")


def is_compared(bracket: int, position: float, before: float) -> bool:
    """Whether a trial of this bracket is compared at a report.

    Args:
        bracket: Its bracket.
        position: Position of the report, from 1 on.
        before: Position of the report before.
    """
    k = bracket
    while REDUCTION**k + 1 <= position:
        if REDUCTION**k + 1 > before:
            return True
        k += 1
    return False


@dataclass(frozen=True)
class Standing:
    """Where a trial stands among those of its bracket that have come as far.

    Attributes:
        rank: 1 for the best.
        n: Trials compared, itself among them.
        n_kept: How many of them go on.
    """

    rank: int
    n: int
    n_kept: int

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.n}, {self.n_kept} go on"


def standing(
    study_name: str,
    trial: FrozenTrial,
    others: Iterable[FrozenTrial],
    step: int,
    horizon: int,
    maximize: bool,
    *,
    check_metric: bool = True,
    by_length: bool = False,
) -> Standing | None:
    """Compare a trial with those beside it, at a step.

    Args:
        study_name: The study's name.
        trial: The trial.
        others: The others; those known to be infeasible are no measure.
        step: The step of its newest finite report.
        horizon: Reports of a full training.
        maximize: The direction.
        check_metric: Whether to say nothing where nearly all curves get worse: the direction may be
            wrong, or another metric be reported than returned.
        by_length: Whether trials that announce another length are left out.

    Returns:
        Its standing; None where comparing says nothing.
    """
    bracket = bracket_of(study_name, trial.number, horizon)
    own = _path(trial, step, maximize)
    paths = [
        path
        for other in others
        if bracket_of(study_name, other.number, horizon) == bracket
        and is_feasible(other)
        and not (by_length and _length(other) != _length(trial))
        and (path := _path(other, step, maximize)) is not None
    ]
    if own is None:
        return None
    worse = [now < first for first, now in (own, *paths) if math.isfinite(now)]
    if check_metric and sum(worse) > _MOST_WORSE * len(worse):
        return None
    rank, n_kept = rank_among(own[1], [now for _, now in paths])
    return Standing(rank, len(paths) + 1, n_kept)


def _path(trial: FrozenTrial, step: int, maximize: bool) -> tuple[float, float] | None:
    """The first report, and the first finite one at this step or later; larger is better.

    Without such a one the trial has diverged. None if it began after that step or has not come as
    far.
    """
    steps = sorted(trial.intermediate_values)
    if not steps or steps[0] > step or steps[-1] < step:
        return None
    sign = 1.0 if maximize else -1.0
    reports = [sign * trial.intermediate_values[s] for s in steps]
    later = (r for s, r in zip(steps, reports, strict=True) if s >= step and math.isfinite(r))
    return reports[0], next(later, -math.inf)


def _length(trial: FrozenTrial) -> float | None:
    return announced_n_steps(trial.user_attrs)


def rank_among(value: float, others: Sequence[float]) -> tuple[int, int]:
    """Return a trial's rank, 1 for the best, and how many of the compared go on.

    Args:
        value: Its report, larger is better.
        others: Those of the others; what is not a number counts as worse than all.
    """
    rank = 1 + sum(other > value for other in others)
    return rank, max((len(others) + 1) // REDUCTION, 1)
