"""The names of the trial attributes that decisions leave behind, and what can be read off them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONTROL_ATTRIBUTE = "lcpruner_control_since_step"
"""Trial user attribute of the control group: the step at which the trial would have been pruned."""

REQUEUED_ATTRIBUTE = "lcpruner_requeued_from"
"""Trial user attribute of a trial enqueued to run again unpruned: the number of the pruned one."""

PACE_ATTRIBUTE = "lcpruner_seconds_per_report"
"""Trial user attribute of a training that is replayed: the time it took from report to report."""

RESUMED_ATTRIBUTE = "lcpruner_resumed_from"
"""Trial user attribute of a trial that goes on where a pruned one stopped: that one's number."""

RESUMED_STEP_ATTRIBUTE = "lcpruner_resumed_at_step"
"""Trial user attribute of such a trial: the last step that the pruned one reported."""

P_BEAT_ATTRIBUTE = "lcpruner_p_beat_best"
"""Trial user attribute: P(beat) by the newest decision."""

REASON_ATTRIBUTE = "lcpruner_reason"
"""Trial user attribute: the reason of the decision that stopped the trial, or of a recent one."""

STEP_ATTRIBUTE = "lcpruner_decided_at_step"
"""Trial user attribute: the step of that decision."""


def told_to_stop_at(user_attrs: Mapping[str, Any]) -> int | None:
    """Return the step at which a trial was told to stop by its newest decision, if it was."""
    reason, step = user_attrs.get(REASON_ATTRIBUTE), user_attrs.get(STEP_ATTRIBUTE)
    pruned = isinstance(reason, str) and reason.startswith("pruned")
    return step if pruned and isinstance(step, int) else None


def counted_down(user_attrs: Mapping[str, Any]) -> bool:
    """Return whether the newest decision about a trial says that its steps count down."""
    reason = user_attrs.get(REASON_ATTRIBUTE)
    return isinstance(reason, str) and reason.startswith("steps count down")
