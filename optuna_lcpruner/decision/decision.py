"""Forecast + incumbent -> Decision: the rule, and the reasons a person reads. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

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


class Description(NamedTuple):
    """The part of a decision that is worked out when somebody reads it.

    Attributes:
        words: The reason with its numbers.
        forecast: Median of the forecast final value.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
    """

    words: str
    forecast: float | None = None
    low: float | None = None
    high: float | None = None


class Decision:
    """What was decided about a trial at a step, and what it rests on.

    Reason, step and probabilities are there at once. Words and forecast may be worked out when they
    are first read: of most decisions nobody reads them, and they take longer than deciding.

    Attributes:
        reason: Why.
        step: The step it was made at, None before the first report.
        p_beat: Posterior probability that the trial ends better than the incumbent.
        threshold: The value that ``p_beat`` was compared with.
        incumbent: Best objective value of the completed trials.
        decided_by: Names of the pruners that decided, where several were asked: those that would
            prune, or those that would not and so kept the trial. Empty where
            LearningCurvePruner was asked alone.
        recorded: Whether it is on record already, by whoever made it on another machine.
    """

    def __init__(
        self,
        reason: Reason,
        words: str | Callable[[], Description],
        step: int | None = None,
        p_beat: float | None = None,
        threshold: float | None = None,
        incumbent: float | None = None,
        forecast: float | None = None,
        low: float | None = None,
        high: float | None = None,
        *,
        decided_by: tuple[str, ...] = (),
        recorded: bool = False,
    ) -> None:
        self.reason = reason
        self.step = step
        self.p_beat = p_beat
        self.threshold = threshold
        self.incumbent = incumbent
        self.decided_by = decided_by
        self.recorded = recorded
        self._describe = (
            words if callable(words) else partial(Description, words, forecast, low, high)
        )

    @property
    def prune(self) -> bool:
        """Whether the trial should stop."""
        return self.reason.prunes

    @cached_property
    def description(self) -> Description:
        """The words and the forecast, worked out once."""
        with np.errstate(all="ignore"):  # whatever the reader has made errors
            description = self._describe()
        self._describe = lambda: description  # lets go of the posterior
        return description

    @property
    def words(self) -> str:
        """The reason with its numbers, for people, as LearningCurvePruner says it by itself."""
        return self.description.words

    @property
    def message(self) -> str:
        """The reason with its numbers, for people; begins with who decided where several did."""
        return _attributed(self) if self.decided_by else self.words

    @property
    def forecast(self) -> float | None:
        """Median of the forecast final value."""
        return self.description.forecast

    @property
    def low(self) -> float | None:
        """Lower end of the forecast's 90 % interval."""
        return self.description.low

    @property
    def high(self) -> float | None:
        """Upper end of the forecast's 90 % interval."""
        return self.description.high

    def made_by(
        self, names: Sequence[str], reason: Reason, recorded: bool | None = None
    ) -> Decision:
        """Return what several pruners made of this decision.

        Args:
            names: The pruners that decided.
            reason: The reason now.
            recorded: Whether it is on record elsewhere; by default as this one, unless it changed.
        """
        return Decision(
            reason,
            lambda: self.description,
            self.step,
            self.p_beat,
            self.threshold,
            self.incumbent,
            decided_by=tuple(names),
            recorded=self.recorded and reason is self.reason if recorded is None else recorded,
        )

    def _values(self) -> tuple[Any, ...]:
        known = (self.reason, self.step, self.p_beat, self.threshold, self.incumbent)
        return (*known, self.decided_by, *self.description)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Decision):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((self.reason, self.step, self.p_beat))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in _SHOWN)
        return f"Decision({shown})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "description": self.description, "_describe": None}


_SHOWN = (
    *("reason", "message", "step", "p_beat", "threshold", "incumbent"),
    *("forecast", "low", "high", "decided_by"),
)

OURS = "LearningCurvePruner"
"""How this package's pruner is named among others, the remote one too."""


def _attributed(decision: Decision) -> str:
    who = " and ".join(decision.decided_by)
    overruled = decision.reason is Reason.OVERRULED
    begin = f"{decision.reason.value}: not pruned by {who}" if overruled else f"pruned by {who}"
    if not decision.words:  # ours was not asked
        return begin if decision.step is None else f"{begin} at step {decision.step}"
    if decision.decided_by == (OURS,) and not overruled:
        return f"{begin}: {decision.words.removeprefix('pruned: ')}"
    return f"{begin} ({OURS}: {decision.words})"


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
            lambda: _describe(reason, detail, step, incumbent, forecast(), remark),
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


def _describe(
    reason: Reason, detail: str, step: int, incumbent: float, forecast: Forecast, remark: str
) -> Description:
    """Put a judgement of this forecast into words and numbers."""
    low, middle, high = (float(q) for q in forecast.quantile([0.05, 0.5, 0.95]))
    words = sentence(reason, detail, step, incumbent, middle, low, high)
    if forecast.opinions:
        sources = (f"{name} {probability(q)}" for name, q in forecast.opinions.items())
        words += f"; P by {', '.join(sources)}"
    for more in (forecast.remark, remark):
        if more:
            words += f"; {more}"
    return Description(words, middle, low, high)


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
