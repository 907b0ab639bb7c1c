"""Which trials run on although they would be pruned, so that pruning can be judged. Pure."""

from __future__ import annotations

import hashlib


def in_control_group(study_name: str, trial_number: int, fraction: float) -> bool:
    """Whether a trial belongs to the control group.

    Depends on nothing that the trial does, and is the same in every process: a number in [0, 1)
    hashed from the study's name and the trial's number is below the fraction.
    """
    text = f"{study_name}\0{trial_number}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=7, person=b"lcpruner").digest()
    return int.from_bytes(digest, "big") / 2.0**56 < fraction
