"""Were the forecasts right, and what did pruning cost? Scores of looks whose end is known. Pure.

Glossary:
    n   looks with a forecast at trials that ran to their end
    y   final value; y* the best feasible value at the look, larger is better
    w   weight of a look's trial: 1, or for one of the control group how many trials that would be
        pruned it stands for, so that weighted means are those of a study without pruning
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import special

from optuna_lcpruner._util.arrays import Array, BoolArray, IntArray

SEEN = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # heuristic
"""Edges of the parts of a training by which looks are grouped."""

CHANCES = (0.0, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)  # heuristic
"""Edges of P(beat) by which looks are grouped."""

_SUREST = 1e-4  # heuristic
"""No probability scores as surer than this."""


@dataclass(frozen=True)
class ScoredForecasts:
    """Looks with a forecast at trials that ran to their end; oriented, arrays of shape (n,).

    Attributes:
        trial: Trial numbers.
        seen: Fraction of the training that was done.
        value: Newest report.
        low: 5 % quantile of the forecast final value.
        q25: 25 % quantile.
        median: Median.
        q75: 75 % quantile.
        high: 95 % quantile.
        p_beat: P(y > y*).
        incumbent: y*.
        final: y.
        feasible: Whether the trial ended feasible.
        weight: w.
        gained: Mean square of what the trials that had completed before the look gained from this
            part of the training on; infinite where none had.
    """

    trial: IntArray
    seen: Array
    value: Array
    low: Array
    q25: Array
    median: Array
    q75: Array
    high: Array
    p_beat: Array
    incumbent: Array
    final: Array
    feasible: BoolArray
    weight: Array
    gained: Array

    def where(self, chosen: BoolArray) -> ScoredForecasts:
        """Some of the looks."""
        return ScoredForecasts(**{name: values[chosen] for name, values in vars(self).items()})

    @property
    def n_trials(self) -> int:
        """Different trials among them."""
        return int(np.unique(self.trial).size)

    @property
    def beat(self) -> BoolArray:
        """Whether the trial ended feasible and better than the best value at the look.

        P(beat) is about the value alone, so it looks too high where many trials end infeasible:
        they become no best, while the forecasts of their values are scored like all others.
        """
        return self.feasible & (self.final > self.incumbent)


@dataclass(frozen=True)
class Accuracy:
    """How far forecasts at one part of the training were from the end, metric units.

    Attributes:
        low: The part begins at this fraction seen.
        high: And ends at this.
        n_looks: Looks.
        n_trials: Trials they are of.
        median_error: Median of ``|forecast median - final value|``.
        last_value_error: Median of ``|newest report - final value|``: the last-value rule.
        in_half: Share of final values within the 50 % interval.
        in_ninety: Share within the 90 % interval.
    """

    low: float
    high: float
    n_looks: int
    n_trials: int
    median_error: float
    last_value_error: float
    in_half: float
    in_ninety: float


def accuracy(looks: ScoredForecasts) -> list[Accuracy]:
    """Errors and coverage by the fraction seen; parts without looks are left out."""
    found = []
    for low, high, part in _groups(looks, looks.seen, SEEN):
        y, w = part.final, part.weight
        found.append(
            Accuracy(
                low,
                high,
                part.final.size,
                part.n_trials,
                float(np.median(np.abs(part.median - y))),
                float(np.median(np.abs(part.value - y))),
                float(np.average((part.q25 <= y) & (y <= part.q75), weights=w)),
                float(np.average((part.low <= y) & (y <= part.high), weights=w)),
            )
        )
    return found


@dataclass(frozen=True)
class Reliability:
    """Whether what was given a chance of about p did happen in a share p.

    Attributes:
        low: Looks with P(beat) from this
        high: to this.
        n_looks: Looks.
        n_trials: Trials they are of: the looks at one are not independent.
        p_beat: Mean P(beat).
        beat: Share that ended feasible and better than the best at the look.
    """

    low: float
    high: float
    n_looks: int
    n_trials: int
    p_beat: float
    beat: float


def reliability(looks: ScoredForecasts) -> list[Reliability]:
    """Looks grouped by P(beat); groups without looks are left out."""
    return [
        Reliability(
            low,
            high,
            part.final.size,
            part.n_trials,
            float(np.average(part.p_beat, weights=part.weight)),
            float(np.average(part.beat, weights=part.weight)),
        )
        for low, high, part in _groups(looks, looks.p_beat, CHANCES)
    ]


@dataclass(frozen=True)
class LogScores:
    """Mean of -ln P(what happened) for "ends better than the best"; smaller is better.

    Attributes:
        forecast: By P(beat).
        last_value: By the last-value rule: final value ~ N(newest report, s^2), s the root mean
            square of what the trials completed before the look gained from that part of the
            training on.
        n_looks: Looks.
        n_trials: Trials they are of.
        standard_error: Of the difference between the two, over trials: the looks at one are not
            independent. None for fewer than two trials.
    """

    forecast: float
    last_value: float
    n_looks: int
    n_trials: int
    standard_error: float | None


def log_scores(looks: ScoredForecasts) -> LogScores | None:
    """Scores of P(beat) and of the last-value rule; None without looks."""
    if looks.final.size == 0:
        return None
    ahead = looks.value - looks.incumbent
    with np.errstate(divide="ignore", invalid="ignore"):
        by_last = special.ndtr(ahead / np.sqrt(looks.gained))
    by_last = np.where(looks.gained > 0.0, by_last, ahead > 0.0)

    def scores(p: Array) -> Array:
        p = np.clip(p, _SUREST, 1.0 - _SUREST)
        return -np.log(np.where(looks.beat, p, 1.0 - p))

    w = looks.weight / np.sum(looks.weight)
    forecast, last = scores(looks.p_beat), scores(by_last)
    apart = forecast - last - w @ (forecast - last)
    _, of_trial = np.unique(looks.trial, return_inverse=True)
    m = looks.n_trials
    by_trial = np.bincount(of_trial, w * apart)
    error = float(np.sqrt(m / (m - 1) * np.sum(by_trial**2))) if m > 1 else None
    return LogScores(float(w @ forecast), float(w @ last), looks.final.size, m, error)


def part_of(seen: Array) -> IntArray:
    """The part of a training, an index of :data:`SEEN`, that a fraction seen belongs to."""
    return np.clip(np.searchsorted(SEEN, seen, side="right") - 1, 0, len(SEEN) - 2)


@dataclass(frozen=True)
class PruningCost:
    """What stopping by forecast cost and saved, from the control group; 95 % intervals.

    The control group is a random sample of the trials that the forecast condemns, so its shares
    and means are unbiased for all of them, whether the model is right or not.

    Attributes:
        n_ended: Members of the control group that ran to their end.
        n_beat: Of these, those that ended feasible and better than the best at the look that would
            have stopped them.
        share: Estimated share of prunes that would have beaten the best; None without members.
        share_interval: Its Clopper-Pearson interval.
        expected: The same share by the forecasts: the mean P(beat) at the stops.
        steps_saved: Estimated reports saved by the prunes; None without members.
        steps_interval: Its interval by Student's t, from 0 on; None for fewer than two members.
    """

    n_ended: int
    n_beat: int
    share: float | None
    share_interval: tuple[float, float]
    expected: float | None
    steps_saved: float | None
    steps_interval: tuple[float, float] | None


def pruning_cost(p_beat: Array, n_pruned: int, beat: BoolArray, steps: Array) -> PruningCost:
    """Estimate from the control group what pruning by forecast cost and saved.

    Args:
        p_beat: P(beat) at each look that condemned a trial by forecast, the control group's too.
        n_pruned: Trials stopped there.
        beat: Of those that ran on and have ended, whether they ended feasible and better than the
            best at that look, shape (m,).
        steps: Reports they made after it, shape (m,).
    """
    m, k = beat.size, int(np.count_nonzero(beat))
    saved = interval = None
    if m:
        saved = n_pruned * float(np.mean(steps))
    if m > 1:
        reach = special.stdtrit(m - 1, 0.975) * np.std(steps, ddof=1) / np.sqrt(m)
        half = n_pruned * float(reach)
        assert saved is not None
        interval = (max(0.0, saved - half), saved + half)
    return PruningCost(
        m,
        k,
        k / m if m else None,
        clopper_pearson(k, m),
        float(np.mean(p_beat)) if p_beat.size else None,
        saved,
        interval,
    )


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a binomial probability after k of n; (0, 1) after none."""
    if n == 0:
        return 0.0, 1.0
    from scipy import stats  # imported by all who train, it would take longer than the rest

    interval = stats.binomtest(k, n).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)


def _between(values: Array, low: float, high: float) -> BoolArray:
    """Within [low, high), the last group with its end."""
    return (values >= low) & ((values < high) | (high == 1.0))


def _groups(
    looks: ScoredForecasts, by: Array, edges: tuple[float, ...]
) -> Iterator[tuple[float, float, ScoredForecasts]]:
    for low, high in pairwise(edges):
        part = looks.where(_between(by, low, high))
        if part.final.size:
            yield low, high, part
