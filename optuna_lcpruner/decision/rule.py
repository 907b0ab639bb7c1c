"""The rule: P(beat the best) against a threshold -> a decision. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna_lcpruner._util.formatting import format_distinct, number, p_is, probability
from optuna_lcpruner.decision.decision import Decision, Description, Reason, abstain, sentence
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.study.standings import Standing

_LENIENCE = 20.0
"""A trial with more than this times sqrt(risk) times any trial's chance is not stopped."""

_FEW_RIVALS = 6.0
"""Among this many trials the threshold is that of forecasts. See docs/benchmarks.md."""

_LEAST_RIVALS = 3  # heuristic

_MOST_BY_PACE = 0.5
"""No trial is stopped for its pace that is likelier than not to become the best."""


@dataclass(frozen=True)
class Rule:
    """Prune when P(beat the best) is below the threshold, ``patience`` looks in a row.

    The threshold is a fixed probability, or follows the study:

        threshold = min(risk, 20 sqrt(risk) / M) * (1 - n / T)

    Of M trials begun so far any one is the best with probability 1 / M. In a long study that is
    small for nearly all of them, so the threshold shrinks with it once M is beyond
    20 / sqrt(risk): 100 trials at the default. Aggressive settings come to that sooner, or they
    would stop late trials by their number alone. The last factor is the part of the training that
    is left to pay for: the less there is to save, the surer it takes.

    Why ``risk`` bounds the chance of losing a would-be best trial, however many looks there are: a
    trial is stopped at the first look with P < risk, and then would have become the best with
    probability P. So of the trials that are stopped a share of less than ``risk`` would have, and
    of all trials still less. This takes P to be right.

    Where time is what a training costs (``cost="time"``), the threshold is multiplied by s, the
    time the trial has taken by what the study's trials take on average for as many reports:
    s (1 - n / T) is what is left to pay for, a full training at the average pace being 1. Since s
    is 1 on average, ``risk`` still bounds the chance of losing a would-be best trial: not of each
    trial, but of trials on average. No pace stops what is likelier than not to become the best.

    Where the k best count (``n_best``), P is that of ending among the best k so far, and any one of
    M trials is among them with probability k / M. So k takes the place of 1 in what shrinks with M:

        threshold = min(risk, 20 k sqrt(risk) / M) * (1 - n / T)

    and ``risk`` bounds the chance that a stopped trial would have come among the best k, by the
    same argument. It is a chance a stopped trial, so of the best k the share that is lost is no
    larger than the share of the best one at k = 1, as far as equally many are stopped.

    Attributes:
        risk: Bound, under this condition, of the chance that a stopped trial would have become the
            best.
        threshold: The paper's delta, a fixed probability in [0, 1], instead of ``risk``.
        patience: Consecutive looks below the threshold that it takes; at least 1.
        stop_below_std: The paper's optimistic rule: stop as well once the predictive standard
            deviation (metric units) is below this and its median is not better than the best.
        n_best: k, how many trials count as the best; the incumbent is the last of them.
    """

    risk: float = 0.04
    threshold: float | None = None
    patience: int = 1
    stop_below_std: float | None = None
    n_best: int = 1

    def __post_init__(self) -> None:
        if self.threshold is not None and self.risk != Rule.risk:
            raise ValueError(
                f"give risk={self.risk} or threshold={self.threshold}, not both: "
                "a fixed threshold takes the place of the one that follows from risk."
            )

    def threshold_at(
        self, n_begun: int, seen: float, caution: float = 1.0, slowness: float = 1.0
    ) -> float:
        """The probability below which a trial is pruned.

        Args:
            n_begun: M, trials begun so far, this one included; at least 1.
            seen: Fraction of the training that is done, n / T.
            caution: A factor below 1 where the rule would have stopped the study's best trial.
            slowness: s, the trial's pace by the study's mean; 1 where steps are what counts.
        """
        if self.threshold is not None:
            return self.threshold
        shrinking = self.n_best * (_LENIENCE * math.sqrt(self.risk) / n_begun)
        return _at_pace(min(self.risk, shrinking) * (1.0 - seen) * caution, slowness)

    def judge_among(
        self,
        standing: Standing,
        seen: float,
        n_startup_trials: int,
        requeued: bool,
        slowness: float = 1.0,
    ) -> Decision | None:
        """Judge a trial by where it stands, before forecasts can be made.

        It is pruned when P(it ends best of all under way) is below

            threshold = risk * min(1, 6 / (R + 1)) * (1 - n / T).

        With R rivals any trial is the best with probability 1 / (R + 1), so among many of them the
        threshold shrinks, as that of forecasts does in a long study. Among the best k it is with
        probability k / (R + 1): then it is 6 k in place of 6.

        Args:
            standing: Where it stands.
            seen: Fraction of the training that is done, n / T.
            n_startup_trials: Rivals that it takes, three at least.
            requeued: Whether the trial has been requeued and runs on all the same.
            slowness: As for :meth:`threshold_at`.

        Returns:
            None where it says nothing: with ``patience`` above 1, too.
        """
        n_rivals = standing.n_rivals
        if n_rivals < max(n_startup_trials, _LEAST_RIVALS) or self.patience > 1:
            return None
        few = self.n_best * _FEW_RIVALS
        threshold = _at_pace(self.risk * min(1.0, few / (n_rivals + 1.0)) * (1.0 - seen), slowness)
        if not standing.p_best < threshold:
            return None
        p, below = format_distinct(standing.p_best, threshold)
        rank = "best" if self.n_best == 1 else f"among the best {self.n_best}"
        detail = f"{standing}, {p_is(p)} < {below} to end {rank} of {n_rivals + 1}"
        return abstain(Reason.REQUEUED if requeued else Reason.BEHIND, detail, standing.step)

    def judge(
        self,
        p: float,
        threshold: float,
        *,
        step: int,
        incumbent: float,
        forecast: Callable[[], Forecast],
        ahead: bool = False,
        earlier: Sequence[tuple[float, float]] = (),
        spare: Callable[[], Reason | None] = lambda: None,
        remark: str = "",
    ) -> Decision:
        """Judge a trial.

        Args:
            p: Probability that it beats the incumbent.
            threshold: What ``p`` is compared with at this look, see :meth:`threshold_at`.
            step: The step of the look.
            incumbent: Best objective value so far, in the metric's units.
            forecast: Gives the predictive distribution of the final value; asked by the
                optimistic rule, and when the decision is put into words.
            ahead: Whether the trial already is better than the incumbent; it is then left alone.
            earlier: P(beat) and threshold at the ``patience - 1`` looks before this one, newest
                first.
            spare: Asked when the rule would prune: why the trial runs on all the same, or None.
            remark: What else is to be said.

        Source: Domhan et al. 2015, section 3.3 (both rules). Differs: the optimistic rule never
        stops a trial whose forecast median beats the incumbent.
        """
        reason, detail = self._outcome(p, threshold, ahead, earlier, forecast, incumbent)
        if reason.prunes:
            reason = spare() or reason
        return Decision(
            reason,
            lambda: _describe(reason, detail, step, incumbent, forecast(), remark, self.n_best),
            step,
            p,
            threshold,
            incumbent,
        )

    def _outcome(
        self,
        p: float,
        threshold: float,
        ahead: bool,
        earlier: Sequence[tuple[float, float]],
        forecast: Callable[[], Forecast],
        incumbent: float,
    ) -> tuple[Reason, str]:
        """The reason, and the comparison it rests on in words."""
        if ahead:
            return Reason.ALREADY_BETTER, p_is(probability(p))
        if p < threshold:
            below, distinct = 1, format_distinct(p, threshold)
            for previous, its_threshold in earlier:
                if previous >= its_threshold:
                    break
                below += 1
            comparison = " < ".join((p_is(distinct[0]), distinct[1]))
            if below >= self.patience:
                return Reason.BELOW_THRESHOLD, comparison
            return Reason.PATIENCE, f"{comparison} for {below} of {self.patience} looks"
        if self.stop_below_std is not None:
            end = forecast()
            median, std = float(end.quantile(0.5)), end.std()
            behind = median < incumbent if end.scale.maximize else median > incumbent
            if behind and std < self.stop_below_std:
                return Reason.NARROW_FORECAST, f"sd = {number(std)} < {self.stop_below_std:.3g}"
        return Reason.UNDECIDED, p_is(probability(p))


def _at_pace(threshold: float, slowness: float) -> float:
    """The threshold of a trial that is so many times slower than others are."""
    return min(threshold * slowness, max(threshold, _MOST_BY_PACE))


def _describe(
    reason: Reason,
    detail: str,
    step: int,
    incumbent: float,
    forecast: Forecast,
    remark: str,
    n_best: int,
) -> Description:
    """Put a judgement of this forecast into words and numbers."""
    low, middle, high = (float(q) for q in forecast.quantile([0.05, 0.5, 0.95]))
    words = sentence(reason, detail, step, incumbent, middle, low, high)
    if n_best > 1:
        words += f", the last of the best {n_best}"
    details = [more for more in (forecast.remark, remark) if more]
    if forecast.opinions:
        sources = (f"{name} {probability(q)}" for name, q in forecast.opinions.items())
        details.insert(0, f"P by {', '.join(sources)}")
    return Description(words, middle, low, high, tuple(details))
