"""Has the metric, or its unit, changed from one trial to the next?

Who mends an objective and goes on with the same study leaves the old values in it. If they were
percentages, say, and the new ones are fractions, every new trial is hopeless. All trials from some
number on then begin far from where all trials before it did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.study.summary import StudySummary

_LEAST_BEFORE, _LEAST_AFTER = 3, 5  # heuristic
_LEAST_RATIO = 5.0  # heuristic


def changed_unit(stopped: Mapping[int, float], summary: StudySummary) -> str | None:
    """Return what to say where the metric or its unit seems to have changed.

    Args:
        stopped: First reports of trials that were stopped, by number.
        summary: What the completed trials say; one before the change has the best value.
    """
    starts = {**summary.starts, **stopped}
    numbers = sorted(starts)
    found = jump(np.array([starts[number] for number in numbers]))
    if found is None or summary.incumbent_trial is None:
        return None
    index, ratio = found
    if summary.incumbent_trial >= numbers[index]:
        return None
    large = float(f"{max(ratio, 1.0 / ratio):.2g}")
    times = f"{large:g} times" if ratio > 1.0 else f"1/{large:g} of"
    return (
        f"all trials from number {numbers[index]} on begin at {times} what those before it did: if "
        "the metric, its unit or the data have changed, begin a new study"
    )


def jump(starts: Array) -> tuple[int, float] | None:
    """Return from where on values are many times as large or small, and how many; None if nowhere.

    Many is at least five times, with all values of one sign, and more than the values before it
    differ, and those after it, from least to greatest.

    Args:
        starts: First reports of trials in their order, shape (n,).
    """
    one_sign = np.all(starts > 0.0) or np.all(starts < 0.0)
    if starts.size < _LEAST_BEFORE + _LEAST_AFTER or not one_sign or not np.isfinite(starts).all():
        return None
    logs = np.log(np.abs(starts))
    splits = np.arange(_LEAST_BEFORE, starts.size - _LEAST_AFTER + 1)
    low, high = np.minimum.accumulate(logs)[splits - 1], np.maximum.accumulate(logs)[splits - 1]
    low_after = np.minimum.accumulate(logs[::-1])[::-1][splits]
    high_after = np.maximum.accumulate(logs[::-1])[::-1][splits]
    gap = np.maximum(low_after - high, low - high_after)
    apart = gap - np.maximum(np.maximum(high - low, high_after - low_after), math.log(_LEAST_RATIO))
    best = int(np.argmax(apart))
    if apart[best] < 0.0:
        return None
    index = int(splits[best])
    return index, float(np.exp(np.median(logs[index:]) - np.median(logs[:index])))
