"""What was decided about a trial, and why, for people and for the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from optuna_lcpruner._util.formatting import format_beside


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
    BEHIND = "pruned: behind the others"
    BELOW_THRESHOLD = "pruned"
    NARROW_FORECAST = "pruned: narrow forecast"
    OTHER_PRUNER = "pruned by another pruner"

    @property
    def prunes(self) -> bool:
        """Whether a decision with this reason stops the trial."""
        return self in (
            Reason.DIVERGED,
            Reason.INFEASIBLE,
            Reason.BEHIND,
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
        details: What else is known, a line each: what each source said, and remarks.
    """

    words: str
    forecast: float | None = None
    low: float | None = None
    high: float | None = None
    details: tuple[str, ...] = ()


class Decision:
    """What was decided about a trial at a step, and what it rests on.

    Reason, step and probabilities are there at once. Words and forecast may be worked out when they
    are first read: of most decisions nobody reads them, and they take longer than deciding.

    Attributes:
        reason: Why.
        step: The step it was made at, None before the first report.
        p_beat: Posterior probability that the trial ends better than the incumbent.
        threshold: The value that ``p_beat`` was compared with.
        incumbent: Best objective value of the completed trials; with ``n_best=k`` the k-th best.
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
    def in_full(self) -> str:
        """The reason with its numbers, and in lines below it what each source said, and remarks.

        As LearningCurvePruner says it by itself, and the ledger keeps it.
        """
        return "\n".join((self.words, *self.description.details))

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
    shown = format_beside(incumbent, forecast, low, high)
    if forecast is not None and low is not None and high is not None:
        words += f", forecast {shown(forecast)} [{shown(low)}, {shown(high)}]"
    return words if incumbent is None else f"{words} against best {shown(incumbent)}"
