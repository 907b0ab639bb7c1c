"""Which trials run on although they would be pruned, so that pruning can be judged. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

CONTROL_ATTRIBUTE = "lcpruner_control_since_step"
"""Trial user attribute of the control group: the step at which the trial would have been pruned."""

SECOND_CHANCE_ATTRIBUTE = "lcpruner_requeued_from"
"""Trial user attribute of a trial enqueued to run again unpruned: the number of the pruned one."""

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


def in_control_group(study_name: str, trial_number: int, fraction: float) -> bool:
    """Whether a trial belongs to the control group.

    Depends on nothing that the trial does, and is the same in every process: a number in [0, 1)
    hashed from the study's name and the trial's number is below the fraction.

    Args:
        study_name: The study's name.
        trial_number: The trial's number.
        fraction: Share of the trials, in [0, 1].
    """
    text = f"{study_name}\0{trial_number}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=7, person=b"lcpruner").digest()
    return int.from_bytes(digest, "big") / 2.0**56 < fraction
