"""What a forecaster tells a trainer: a verdict in the trial's system attributes.

The forecaster writes it through the study's storage, :func:`write`; the trainer finds it with one
read of its own trial, :func:`attributes`. Nobody else vouches for what stands there, so it is
data to be checked: a verdict counts if every field is of its type and range and it fits the reports
that this trial has made. A verdict copied with the attributes of a trial that is run again, one of
another format, half a row: none of them stops a trial.

No two machines' clocks are compared. How old a verdict is counts in reports; how long none has come
is measured by the trainer's own monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.formatting import count, format_distinct, p_is, probability
from optuna_lcpruner._util.optuna_storage import uncached
from optuna_lcpruner._util.validation import finite_or_none
from optuna_lcpruner.decision.decision import Decision, Reason, sentence
from optuna_lcpruner.version import __version__

ATTRIBUTE = "lcpruner_verdict"
"""Trial system attribute that holds the newest verdict, a JSON object of a few hundred bytes."""

FORMAT = 1
"""Version of that object: whoever knows another one ignores it."""

_NUMBERS = ("p_beat", "threshold", "incumbent", "forecast", "low", "high")
"""Of a verdict and of a decision, in the order of their fields."""

_LONGEST_VERSION = 64  # heuristic


class MalformedVerdictError(ValueError):
    """What stands in the attribute is no verdict."""


class OtherFormatError(MalformedVerdictError):
    """It may be a verdict, in a format that this version of the package does not know."""


@dataclass(frozen=True)
class RemoteVerdict:
    """A decision about a trial, and which reports it rests on.

    Attributes:
        trial: The trial's number.
        step: The step of its newest report then, by the trainer's numbering.
        n_reports: Reports it had made.
        value: The report at ``step``; None if that is not finite.
        reason: Why.
        p_beat: Probability that the trial ends better than the incumbent, in [0, 1].
        threshold: What it was compared with, in [0, 1].
        incumbent: Best objective value of the completed trials.
        forecast: Median of the forecast final value.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
        version: Version of the forecaster's package.
    """

    trial: int
    step: int
    n_reports: int
    value: float | None
    reason: Reason
    p_beat: float | None = None
    threshold: float | None = None
    incumbent: float | None = None
    forecast: float | None = None
    low: float | None = None
    high: float | None = None
    version: str = __version__

    @classmethod
    def of(cls, decision: Decision, trial: FrozenTrial) -> RemoteVerdict:
        """A decision about a trial as it is; the trial has reported."""
        step = max(trial.intermediate_values)
        numbers: dict[str, Any] = {
            name: finite_or_none(getattr(decision, name)) for name in _NUMBERS
        }
        return cls(
            trial.number,
            step,
            len(trial.intermediate_values),
            finite_or_none(trial.intermediate_values[step]),
            decision.reason,
            **numbers,
        )

    def to_json(self) -> dict[str, Any]:
        """The object that is stored: plain Python numbers, strings and None."""
        return {
            "format": FORMAT,
            **{item.name: getattr(self, item.name) for item in fields(self)},
            "reason": self.reason.name,
            "prune": self.reason.prunes,
        }

    @classmethod
    def from_json(cls, found: object) -> RemoteVerdict:
        """Read what a storage holds.

        Raises:
            OtherFormatError: If it is of another format.
            MalformedVerdictError: If it is no verdict.
        """
        if not isinstance(found, dict) or not _is_integer(found.get("format")):
            raise MalformedVerdictError("not an object with a format")
        if found["format"] != FORMAT:
            raise OtherFormatError(f"format {found['format']}")
        for name in ("trial", "step", "n_reports"):
            if not _is_integer(found.get(name)) or found[name] < 0:
                raise MalformedVerdictError(f"{name} is no count")
        numbers = {name: _number(name, found.get(name)) for name in ("value", *_NUMBERS)}
        version = found.get("version")
        if not isinstance(version, str) or len(version) > _LONGEST_VERSION:
            raise MalformedVerdictError("version is no version")
        reason = found.get("reason")
        if not isinstance(reason, str) or reason not in Reason.__members__:
            raise MalformedVerdictError("an unknown reason")
        verdict = cls(
            found["trial"],
            found["step"],
            found["n_reports"],
            reason=Reason[reason],
            version=version,
            **numbers,
        )
        if found.get("prune") is not verdict.reason.prunes or not verdict._adds_up():
            raise MalformedVerdictError("its parts contradict each other")
        return verdict

    def _adds_up(self) -> bool:
        """Whether the numbers are possible and, if it stops the trial, say why."""
        chances = (p for p in (self.p_beat, self.threshold) if p is not None)
        if not all(0.0 <= p <= 1.0 for p in chances):
            return False
        if self.reason in (Reason.OTHER_PRUNER, Reason.OVERRULED, Reason.INFEASIBLE):
            return False  # a forecaster is asked alone, and constraints are the trainer's
        if self.reason is Reason.DIVERGED:
            return self.value is None
        if self.reason is Reason.BEHIND:  # there was no forecast yet
            return self.value is not None and self.p_beat is None
        if not self.reason.prunes:
            return True
        if self.p_beat is None or self.threshold is None or self.incumbent is None:
            return False
        return self.reason is not Reason.BELOW_THRESHOLD or self.p_beat < self.threshold

    def is_about(self, trial: FrozenTrial) -> bool:
        """Whether it rests on reports that this trial has made."""
        reports = trial.intermediate_values
        if self.trial != trial.number or self.step not in reports:
            return False
        if not 1 <= self.n_reports <= len(reports):
            return False
        value = finite_or_none(reports[self.step])
        if value is None or self.value is None:
            return value is self.value
        return math.isclose(value, self.value, rel_tol=1e-6)  # some databases drop digits

    def covers(self, trial: FrozenTrial) -> bool:
        """Whether it rests on all the reports that this trial has made."""
        return self.is_about(trial) and self.n_reports == len(trial.intermediate_values)

    def decision(self, behind: int) -> Decision:
        """The decision in words, about a trial that has made so many reports since."""
        detail = ""
        if self.p_beat is not None:
            detail = p_is(probability(self.p_beat))
            if self.threshold is not None and self.p_beat < self.threshold:
                p, threshold = format_distinct(self.p_beat, self.threshold)
                detail = f"{p_is(p)} < {threshold}"
        numbers = [getattr(self, name) for name in _NUMBERS]
        words = sentence(self.reason, detail, self.step, *numbers[2:])
        if behind:
            words += f", {count(behind, 'report')} ago"
        return Decision(self.reason, words, self.step, *numbers, recorded=True)


def newest(trial: FrozenTrial) -> RemoteVerdict | None:
    """The verdict among the attributes of a trial that was read from its storage, if it is one."""
    try:
        return RemoteVerdict.from_json(trial.system_attrs.get(ATTRIBUTE))
    except MalformedVerdictError:
        return None


def write(storage: BaseStorage, trial_id: int, verdict: RemoteVerdict) -> None:
    """Make it the trial's newest verdict.

    Raises:
        RuntimeError: If the trial has ended.
        KeyError: If it is not there any more.
        Exception: Whatever the storage raises when it is out of reach.
    """
    storage.set_trial_system_attr(trial_id, ATTRIBUTE, verdict.to_json())


def attributes(storage: BaseStorage, trial_id: int) -> Mapping[str, Any]:
    """A trial's system attributes, read now.

    On a relational database two short selects: Optuna's cache before it would read the trial with
    all its reports and parameters.
    """
    return uncached(storage).get_trial_system_attrs(trial_id)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(name: str, value: object) -> float | None:
    """A finite number or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedVerdictError(f"{name} is no number")
    try:
        x = float(value)
    except OverflowError:
        x = math.inf
    if not math.isfinite(x):
        raise MalformedVerdictError(f"{name} is not finite")
    return x
