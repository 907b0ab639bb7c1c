"""Which forecaster takes which trial: leases in a study's system attributes.

Every Optuna storage can keep a study's attributes, none offers compare-and-set or a clock that all
machines share. So nobody claims single trials. Each forecaster holds a lease on the study and all
divide its trials among the holders by rendezvous hashing: a trial is taken by the member whose hash
with it is the largest, so one that comes or goes moves its own share only.

Glossary:
    slot   one of a fixed number of attributes, so that forecasters long gone leave no litter
    lease  {"format": 1, "id": ..., "beat": n} in a slot; None in one that was given back
    beat   a counter that its holder raises; no time is written anywhere
    keep   read all slots, then raise the own beat if that is due; work is done by the slots as
           they were read last

Why no trial is forecast twice. A newcomer writes its lease, reads the slots, and waits until each
other member has raised its beat by two since, or has expired: the second of these beats was
preceded by a reading that showed the newcomer, and work by older readings was over then. Of two who
come at once each sees the other. Two who write one slot find out within ``settle`` seconds, before
either works.

Who expires. A lease whose beat has not moved for ``lease`` seconds, by the observer's own monotonic
clock; clocks of two machines are never compared, only their rates matter. A holder that did not
get to raise its beat for half as long counts itself out first and comes back as a newcomer. What is
left is a process that stands still for that long between looking at its lease and writing a
verdict: the trial may then be forecast a second time, which costs a forecast and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

FORMAT = 1
PREFIX = "lcpruner_forecaster_"
"""Study system attributes ``lcpruner_forecaster_0`` and so on."""

SLOTS = 32
"""Forecasters that one study can have at a time."""

_LONGEST_NAME = 64
_BEATS_A_LEASE = 8
_ACKNOWLEDGED = 2
_GREETED = 4
"""Beats in a row for a newcomer's sake: it may count from the second one on."""


class Attributes(Protocol):
    """The two calls of a storage that leases need."""

    def get_study_system_attrs(self, study_id: int) -> Mapping[str, Any]:
        """All system attributes of a study."""
        ...

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set one."""
        ...


@dataclass
class _Member:
    """Another forecaster as it was read last.

    Attributes:
        id: Its name.
        beat: Its beat.
        since: When it was first read with this beat.
        greeted: Beats raised since it came, so that it need not wait long for them.
    """

    id: str
    beat: int
    since: float
    greeted: int = 0


class Membership:
    """One forecaster's lease on one study.

    Args:
        lease: Seconds after which a lease whose beat does not move is void.
        settle: Seconds that a newcomer waits in any case; at least the time between two calls of
            :meth:`keep` by other members.
        clock: Seconds from any origin; never goes back.
    """

    def __init__(
        self, lease: float, settle: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lease = lease
        self._settle = settle
        self._clock = clock
        self._others: dict[int, _Member] = {}
        self.id = ""
        self._slot: int | None = None
        self._beat = 0
        self._came = self._beaten = clock()
        self._awaited: dict[str, int] | None = None

    @property
    def n_members(self) -> int:
        """Forecasters that hold a lease, this one included."""
        return len(self._others) + (self._slot is not None)

    @property
    def is_due(self) -> bool:
        """Whether it is time to call :meth:`keep`."""
        return self._clock() - self._beaten >= self._lease / _BEATS_A_LEASE

    @property
    def holds(self) -> bool:
        """Whether nobody can have taken this member for dead."""
        return self._slot is not None and self._clock() - self._beaten <= self._lease / 2.0

    @property
    def is_settled(self) -> bool:
        """Whether everybody knows of this member, so that it takes its share."""
        return (
            self.holds
            and self._awaited is not None
            and not self._awaited
            and self._clock() - self._came >= self._settle
        )

    def takes(self, trial_id: int) -> bool:
        """Whether a trial is this member's to forecast."""
        if not self.is_settled:
            return False
        mine = _weight(self.id, trial_id)
        return all(mine > _weight(other.id, trial_id) for other in self._others.values())

    def keep(self, storage: Attributes, study_id: int) -> bool:
        """Read the slots and raise the beat if that is due, or take a slot.

        Args:
            storage: The study's storage.
            study_id: The study.

        Returns:
            Whether the lease that was held is gone: others took this member for dead, or it is
            another study now that has this id. A new one is taken at once.

        Raises:
            KeyError: If there is no such study.
            Exception: Whatever the storage raises when it is out of reach.
        """
        leases = _leases(storage.get_study_system_attrs(study_id))
        now = self._clock()
        mine = leases.get(-1 if self._slot is None else self._slot)
        lost = self._slot is not None and (mine is None or mine[0] != self.id)
        if self._slot is not None and not lost:
            del leases[self._slot]
        self._observe(leases, now)
        for slot, other in list(self._others.items()):
            if now - other.since >= self._lease:
                storage.set_study_system_attr(study_id, _key(slot), None)
                del self._others[slot]
        if self._slot is None or lost or not self.holds:
            self._take_slot(storage, study_id, None if lost else self._slot)
            return lost
        self._await()
        if self._awaited or self.is_due or any(o.greeted < _GREETED for o in self._others.values()):
            self._raise_beat(storage, study_id)
        return lost

    def leave(self, storage: Attributes, study_id: int) -> None:
        """Give the lease back.

        Raises:
            Exception: Whatever the storage raises when it is out of reach; the lease then expires.
        """
        slot, held = self._slot, self.holds
        self._slot = None
        if held:
            storage.set_study_system_attr(study_id, _key(slot), None)

    def _observe(self, leases: Mapping[int, tuple[str, int]], now: float) -> None:
        """Take in the leases of others."""
        before, self._others = self._others, {}
        for slot, (id, beat) in leases.items():
            known = before.get(slot)
            if known is None or known.id != id:
                known = _Member(id, beat, now)
            elif known.beat != beat:
                known.beat, known.since = beat, now
            self._others[slot] = known

    def _await(self) -> None:
        """Note whose beats have still to be seen."""
        if self._awaited is None:  # the first reading since the lease was written
            self._awaited = {o.id: o.beat + _ACKNOWLEDGED for o in self._others.values()}
        beats = {other.id: other.beat for other in self._others.values()}
        self._awaited = {id: n for id, n in self._awaited.items() if beats.get(id, n) < n}

    def _take_slot(self, storage: Attributes, study_id: int, old: int | None) -> None:
        """Become a newcomer, under a new name; in the old slot if it has not been taken."""
        self.id = _new_name()
        self._slot, self._beat, self._awaited = None, 0, None
        home = _weight(self.id, -1)  # no trial's
        probed = ((home + i) % SLOTS for i in range(SLOTS))
        slot = next((n for n in probed if n not in self._others), None) if old is None else old
        if slot is None:
            return
        self._came = self._write(storage, study_id, slot)
        self._slot = slot

    def _raise_beat(self, storage: Attributes, study_id: int) -> None:
        assert self._slot is not None, "a member has one"
        self._write(storage, study_id, self._slot)
        for other in self._others.values():
            other.greeted += 1

    def _write(self, storage: Attributes, study_id: int, slot: int) -> float:
        now = self._clock()  # before it is written: nobody sees it earlier
        lease = {"format": FORMAT, "id": self.id, "beat": self._beat + 1}
        storage.set_study_system_attr(study_id, _key(slot), lease)
        self._beat += 1
        self._beaten = now
        return now


def _new_name() -> str:
    """Unique, and telling where to look for the process."""
    return f"{socket.gethostname()[:32]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _key(slot: int | None) -> str:
    return f"{PREFIX}{slot}"


def _leases(attributes: Mapping[str, Any]) -> dict[int, tuple[str, int]]:
    """Id and beat by slot; what is no lease is left out, and its slot is free."""
    found = {}
    for slot in range(SLOTS):
        lease = attributes.get(_key(slot))
        if not isinstance(lease, dict) or lease.get("format") != FORMAT:
            continue
        id, beat = lease.get("id"), lease.get("beat")
        if isinstance(id, str) and len(id) <= 2 * _LONGEST_NAME and type(beat) is int:
            found[slot] = (id, beat)
    return found


def _weight(id: str, trial_id: int) -> int:
    text = f"{id}\0{trial_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"lcpruner").digest(), "big")
