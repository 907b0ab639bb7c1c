"""What replays came to: one outcome a replay, summed up by pruner.

Symbols, over the trials that a replay is about, larger being better:

    cost     reports made / reports recorded
    regret   (best final - best final kept) / (best final - median final), at most 1; 0: kept
    kept     whether a trial with the best final value ran to its end

Finals are those of feasible trials: an infeasible one is never the best, whatever its value. The
symbols are given for a number of trials (all, unless told) and for a budget: a trial is begun as
long as fewer than ``budget`` full trainings' worth of reports are spent, by all workers together,
and regret is against the best of the whole study. An interval [a, b] is what nine in ten random
orders lie in; that of a share of the orders is Wilson's 95 % confidence interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """One replay in numbers; the symbols are this module's.

    Attributes:
        order: 0 is the original order.
        cost: Share of the reports that were made.
        regret: Of the best value kept.
        kept: Whether the best value was kept.
        n_pruned: Trials stopped.
        budget_regret: Regret once the budget is spent.
        budget_kept: Whether the study's best value was found within the budget.
        ran_out: Whether all trials were run before the budget was spent.
        stopped: For each of the study's top trials the reports it had made when it was stopped;
            None if it ran to its end, 0 if it was not run.
        ms: Mean time of a decision, milliseconds.
        duration: When the last of the trials would have ended, in hours or, where the study does
            not tell how long its trials took, in full trainings.
        saved: Training time that was not spent, of all workers together, in the same unit.
    """

    order: int
    cost: float
    regret: float
    kept: bool
    n_pruned: int
    budget_regret: float
    budget_kept: bool
    ran_out: bool
    stopped: tuple[int | None, ...]
    ms: float
    duration: float = 0.0
    saved: float = 0.0


@dataclass(frozen=True)
class Interval:
    """A mean over the random orders, and the 5 % and 95 % quantiles."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Of one value an order."""
        low, high = np.quantile(values, [0.05, 0.95])
        return cls(float(np.mean(values)), float(low), float(high))


@dataclass(frozen=True)
class Share:
    """In how many of the random orders, with Wilson's 95 % interval of the share."""

    count: int
    n: int

    @property
    def share(self) -> float:
        """Count / n."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval; (0, 1) where there was no order."""
        if self.n == 0:
            return 0.0, 1.0
        from scipy import stats  # takes longer to import than the rest of the package

        interval = stats.binomtest(self.count, self.n).proportion_ci(0.95, "wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class PrunerResult:
    """All replays of one pruner.

    Attributes:
        pruner: Its name and settings.
        ours: Whether it is a LearningCurvePruner.
        original: The replay in the original order.
        orders: Those in random orders, on which the intervals rest.
    """

    pruner: str
    ours: bool
    original: Outcome
    orders: tuple[Outcome, ...]

    def interval(self, measure: str) -> Interval:
        """Mean and interval of one of an Outcome's numbers."""
        return Interval.of([float(getattr(outcome, measure)) for outcome in self.orders])

    def share(self, measure: str) -> Share:
        """In how many orders one of an Outcome's truths holds."""
        return Share(sum(bool(getattr(o, measure)) for o in self.orders), len(self.orders))

    def top_stopped(self, i: int) -> tuple[Share, float]:
        """Of the orders that ran the i-th best trial, those that stopped it, and when.

        Returns:
            The share (n = 0 orders: never run) and the median number of reports it had made, NaN
            if it was never stopped.
        """
        ran = [outcome.stopped[i] for outcome in self.orders if outcome.stopped[i] != 0]
        reports = [n for n in ran if n is not None]
        return Share(len(reports), len(ran)), float(np.median(reports)) if reports else math.nan
