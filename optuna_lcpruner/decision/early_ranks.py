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
from collections.abc import Sequence

REDUCTION = 3
"""Of the trials that are compared one in so many goes on. Optuna's default."""

UNTIL = 8
"""Completed curves from which on trials are judged by forecast alone."""

MANY = 16
"""Other trials that run at the same time, at least; with fewer waiting for them costs less."""


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


def rank_among(value: float, others: Sequence[float]) -> tuple[int, int]:
    """Return a trial's rank, 1 for the best, and how many of the compared go on.

    Args:
        value: Its report, larger is better.
        others: Those of the others; what is not a number counts as worse than all.
    """
    rank = 1 + sum(other > value for other in others)
    return rank, max((len(others) + 1) // REDUCTION, 1)
