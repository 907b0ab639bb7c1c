"""Who tells of a verdict: the pruner that gave it, or the combination of pruners that asked it.

A pruner among others does not know what becomes of the trial: it would say "pruned" of one that
runs on. So it leaves its verdict, and the way to tell of it, to the combination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from optuna_lcpruner.decision.verdict import Verdict


@dataclass(frozen=True)
class PendingDecision:
    """A verdict that nobody has been told of.

    Attributes:
        verdict: What the pruner says by itself.
        tell: Tells the log, the trial's attributes and the ledger of this verdict, or of what was
            made of it.
    """

    verdict: Verdict
    tell: Callable[[Verdict], None]


_pending: ContextVar[list[PendingDecision] | None] = ContextVar("lcpruner_pending", default=None)


def defer(verdict: Verdict, tell: Callable[[Verdict], None]) -> bool:
    """Leave it to the combination that is asking, on this thread, to tell of a verdict.

    Returns:
        Whether there is one; if not, it is the pruner's own to tell.
    """
    pending = _pending.get()
    if pending is None:
        return False
    pending.append(PendingDecision(verdict, tell))
    return True


@contextmanager
def collect_decisions() -> Iterator[list[PendingDecision] | None]:
    """Collect the verdicts of the pruners that are asked inside.

    Yields:
        The list that they come into; None within another combination, which then tells of them.
    """
    if _pending.get() is not None:
        yield None
        return
    pending: list[PendingDecision] = []
    token = _pending.set(pending)
    try:
        yield pending
    finally:
        _pending.reset(token)
