"""Forecast + incumbent -> Decision: the rule, and the reasons a person reads. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from optuna_lcpruner._util.formatting import format_distinct, number, p_is, probability
from optuna_lcpruner.posterior.forecast import Forecast


class Reason(Enum):
    """Why a trial was stopped or left alone.

    The value is the first words of the message, but where pruners decided together: there it begins
    with their names.
    """

    NOTHING_REPORTED = "nothing reported"
    WARM_UP = "warm-up"
    BETWEEN_LOOKS = "between looks"
    TOO_FEW_REPORTS = "too few reports"
    NO_BEST_VALUE = "waiting for a best value"
    STARTUP = "startup"
    UNKNOWN_HORIZON = "horizon unknown"
    BEYOND_HORIZON = "at or beyond the horizon"
    LONGER = "longer than a full training"
    STEPS_COUNT_DOWN = "steps count down"
    COUNTER_GOES_ON = "step counter goes on from trial to trial"
    METRIC_MISMATCH = "reported and returned metric differ"
    WRONG_DIRECTION = "direction looks wrong"
    ALREADY_BETTER = "already better than the best"
    UNDECIDED = "undecided"
    PATIENCE = "being patient"
    FORECAST_PENDING = "forecast pending"
    FORECASTER_UNAVAILABLE = "forecaster unavailable"
    NOT_CONVERGED = "forecast without convergence"
    CONTROL = "control group, runs on"
    REQUEUED = "requeued, runs on"
    OVERRULED = "overruled, runs on"
    MULTI_OBJECTIVE = "multi-objective study"
    FAILED = "could not decide"
    DIVERGED = "pruned: diverged"
    INFEASIBLE = "pruned: breaks a constraint"
    BELOW_THRESHOLD = "pruned"
    NARROW_FORECAST = "pruned: narrow forecast"
    OTHER_PRUNER = "pruned by another pruner"

    @property
    def prunes(self) -> bool:
        """Whether a decision with this reason stops the trial."""
        return self in (
            Reason.DIVERGED,
            Reason.INFEASIBLE,
            Reason.BELOW_THRESHOLD,
            Reason.NARROW_FORECAST,
            Reason.OTHER_PRUNER,
        )


@dataclass(frozen=True)
class Decision:
    """What was decided about a trial at a step, and what it rests on.

    Attributes:
        reason: Why.
        message: The reason with its numbers, for people.
        step: The step it was made at, None before the first report.
        p_beat: Posterior probability that the trial ends better than the incumbent.
        threshold: The value that ``p_beat`` was compared with.
        incumbent: Best objective value of the completed trials.
        forecast: Median of the forecast final value.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
    """

    reason: Reason
    message: str
    step: int | None = None
    p_beat: float | None = None
    threshold: float | None = None
    incumbent: float | None = None
    forecast: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def prune(self) -> bool:
        """Whether the trial should stop."""
        return self.reason.prunes


def abstain(reason: Reason, detail: str = "", step: int | None = None) -> Decision:
    """A decision without a forecast: the reason and, after a colon, its detail."""
    return Decision(reason, f"{reason.value}: {detail}" if detail else reason.value, step)


_LENIENCE = 20.0
"""A trial with more than this times sqrt(risk) times any trial's chance is not stopped."""


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

    Attributes:
        risk: Bound, under this condition, of the chance that a stopped trial would have become the
            best.
        threshold: The paper's delta, a fixed probability in [0, 1], instead of ``risk``.
        patience: Consecutive looks below the threshold that it takes; at least 1.
        stop_below_std: The paper's optimistic rule: stop as well once the predictive standard
            deviation (metric units) is below this and its median is not better than the best.
    """

    risk: float = 0.04
    threshold: float | None = None
    patience: int = 1
    stop_below_std: float | None = None

    def threshold_at(self, n_begun: int, seen: float, caution: float = 1.0) -> float:
        """The probability below which a trial is pruned.

        Args:
            n_begun: M, trials begun so far, this one included; at least 1.
            seen: Fraction of the training that is done, n / T.
            caution: A factor below 1 where the rule would have stopped the study's best trial.
        """
        if self.threshold is not None:
            return self.threshold
        return min(self.risk, _LENIENCE * math.sqrt(self.risk) / n_begun) * (1.0 - seen) * caution

    def judge(
        self,
        p: float,
        threshold: float,
        *,
        ahead: bool = False,
        earlier: Sequence[tuple[float, float]] = (),
        forecast: Callable[[], Forecast],
        incumbent: float,
    ) -> Judgement:
        """Judge a trial.

        Args:
            p: Probability that it beats the incumbent.
            threshold: What ``p`` is compared with at this look, see :meth:`threshold_at`.
            ahead: Whether the trial already is better than the incumbent; it is then left alone.
            earlier: P(beat) and threshold at the ``patience - 1`` looks before this one, newest
                first.
            forecast: Gives the predictive distribution of the final value; asked by the
                optimistic rule alone.
            incumbent: Best objective value so far, in the metric's units.

        Source: Domhan et al. 2015, section 3.3 (both rules). Differs: the optimistic rule never
        stops a trial whose forecast median beats the incumbent.
        """
        if ahead:
            return Judgement(Reason.ALREADY_BETTER, p_is(probability(p)), p)
        if p < threshold:
            below, told = 1, format_distinct(p, threshold)
            for previous, its_threshold in earlier:
                if previous >= its_threshold:
                    break
                below += 1
            comparison = " < ".join((p_is(told[0]), told[1]))
            if below >= self.patience:
                return Judgement(Reason.BELOW_THRESHOLD, comparison, p)
            looks = f"{comparison} for {below} of {self.patience} looks"
            return Judgement(Reason.PATIENCE, looks, p)
        if self.stop_below_std is not None:
            end = forecast()
            median, std = float(end.quantile(0.5)), end.std()
            behind = median < incumbent if end.scale.maximize else median > incumbent
            if behind and std < self.stop_below_std:
                comparison = f"sd = {number(std)} < {self.stop_below_std:.3g}"
                return Judgement(Reason.NARROW_FORECAST, comparison, p)
        return Judgement(Reason.UNDECIDED, p_is(probability(p)), p)


@dataclass(frozen=True)
class Judgement:
    """A verdict: its reason, the comparison it rests on, and P(beat)."""

    reason: Reason
    detail: str
    p_beat: float


def describe(
    judgement: Judgement,
    forecast: Forecast,
    incumbent: float,
    step: int,
    threshold: float,
    remark: str = "",
) -> Decision:
    """Put a judgement of this forecast, at this step, into words and numbers.

    Args:
        judgement: The judgement.
        forecast: What it rests on.
        incumbent: Best objective value so far, in the metric's units.
        step: The step.
        threshold: What P was compared with.
        remark: What else is to be said.
    """
    low, middle, high = (float(q) for q in forecast.quantile([0.05, 0.5, 0.95]))
    message = sentence(judgement.reason, judgement.detail, step, incumbent, middle, low, high)
    if forecast.opinions:
        sources = (f"{name} {probability(q)}" for name, q in forecast.opinions.items())
        message += f"; P by {', '.join(sources)}"
    for more in (forecast.remark, remark):
        if more:
            message += f"; {more}"
    return Decision(
        judgement.reason,
        message,
        step,
        judgement.p_beat,
        threshold,
        incumbent,
        middle,
        low,
        high,
    )


def sentence(
    reason: Reason,
    detail: str,
    step: int,
    incumbent: float | None,
    forecast: float | None,
    low: float | None,
    high: float | None,
) -> str:
    """A decision in words; what is None is left out."""
    words = f"{reason.value}: {detail}" if detail else reason.value
    words += f" at step {step}"
    if forecast is not None and low is not None and high is not None:
        words += f", forecast {number(forecast)} [{number(low)}, {number(high)}]"
    return words if incumbent is None else f"{words} against best {number(incumbent)}"
