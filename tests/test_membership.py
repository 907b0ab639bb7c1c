"""No trial has two takers, whatever order forecasters read and write in; a dead one's are taken."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optuna_lcpruner.service import membership
from optuna_lcpruner.service.membership import SLOTS, Membership

LEASE, SETTLE = 8.0, 0.5
TRIALS = range(40)


class Attributes:
    """A study's attributes; between a reading and what follows it others may get their turn."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.between: Callable[[], None] = lambda: None
        self.writes = 0

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        found = copy.deepcopy(self.attributes)
        self.between()
        return found

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.writes += 1
        self.attributes[key] = copy.deepcopy(value)


class World:
    """Some forecasters of one study, each with a clock that began at another time."""

    def __init__(self, n: int) -> None:
        self.now = 0.0
        self.storage = Attributes()
        offsets = [-1e9, 0.0, 3600.0, 5e5]
        self.members = [
            Membership(LEASE, SETTLE, lambda ahead=offsets[i % 4]: self.now + ahead)
            for i in range(n)
        ]

    def keep(self, *who: int) -> None:
        for i in who:
            self.members[i].keep(self.storage, 0)

    def go_on(self, seconds: float, *who: int) -> None:
        """Let these keep their leases for a while, twice a second."""
        for _ in range(int(2 * seconds)):
            self.now += 0.5
            self.keep(*who)

    def taken(self) -> list[set[int]]:
        return [{t for t in TRIALS if m.takes(t)} for m in self.members]

    def assert_shared(self) -> None:
        """Each trial has one taker."""
        assert sorted(t for taken in self.taken() for t in taken) == list(TRIALS)


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_new_name", new_names().__next__)


def new_names() -> Iterator[str]:
    """Names whose first choice of a slot is not one that the last few had."""
    recent: list[int] = []
    for i in range(10**6):
        home = membership._weight(f"m{i}", -1) % SLOTS
        if home not in recent:
            recent = [*recent[-8:], home]
            yield f"m{i}"


def test_alone_it_takes_all_once_settled() -> None:
    world = World(1)
    world.keep(0)
    assert world.taken() == [set()]
    world.now += 0.4
    world.keep(0)
    assert world.taken() == [set()]
    world.now += 0.2
    world.keep(0)
    world.assert_shared()


def test_two_at_once_share() -> None:
    world = World(2)
    world.go_on(3, 0, 1)
    world.assert_shared()
    assert all(world.taken())
    assert [m.n_members for m in world.members] == [2, 2]


def test_a_newcomer_moves_its_own_share_only() -> None:
    world = World(3)
    world.go_on(3, 0, 1)
    before = world.taken()
    world.go_on(3, 0, 1, 2)
    world.assert_shared()
    after = world.taken()
    assert after[2]
    assert before[0] - after[2] == after[0]
    assert before[1] - after[2] == after[1]


def test_a_newcomer_waits_for_those_who_do_not_know_it() -> None:
    world = World(2)
    world.go_on(2, 0)
    for _ in range(10):  # the first is in the middle of a long forecast
        world.now += 0.3
        world.keep(1)
        assert world.taken()[1] == set()
        assert world.taken()[0] == set(TRIALS)


def test_a_beat_under_way_when_a_newcomer_came_tells_it_nothing() -> None:
    world = World(2)
    world.go_on(2, 0)

    def newcomer() -> None:  # after the first has read the slots, before it raises its beat
        world.storage.between = lambda: None
        world.keep(1)
        world.keep(1)

    world.now += 1.0
    world.storage.between = newcomer
    world.keep(0)
    assert world.taken()[0] == set(TRIALS)
    world.now += 1.0
    world.keep(1)
    assert world.taken() == [set(TRIALS), set()]
    world.go_on(2, 0, 1)
    world.assert_shared()


def test_the_trials_of_a_dead_one_are_taken_after_a_lease() -> None:
    world = World(2)
    world.go_on(3, 0, 1)
    lost = world.taken()[1]
    world.go_on(LEASE - 1, 0)
    assert not world.taken()[0] & lost
    world.go_on(1.5, 0)
    assert world.taken()[0] == set(TRIALS)
    assert sum(lease is not None for lease in world.storage.attributes.values()) == 1


def test_a_lease_given_back_is_free_at_once() -> None:
    world = World(2)
    world.go_on(3, 0, 1)
    world.members[1].leave(world.storage, 0)
    world.keep(0)
    assert world.taken() == [set(TRIALS), set()]


def test_one_that_stood_still_counts_itself_out_before_the_others_do() -> None:
    world = World(2)
    world.go_on(3, 0, 1)
    world.go_on(LEASE / 2 - 0.5, 0)
    assert world.taken()[1]
    world.go_on(1, 0)
    assert not world.taken()[1]
    before = world.members[1].id
    assert world.members[1].keep(world.storage, 0) is False
    assert world.members[1].id != before
    world.go_on(3, 0, 1)
    world.assert_shared()


def test_one_that_was_taken_for_dead_is_told_so() -> None:
    world = World(2)
    world.go_on(3, 0, 1)
    world.go_on(2 * LEASE, 0)
    assert world.members[1].keep(world.storage, 0) is True
    world.go_on(3, 0, 1)
    world.assert_shared()


def test_another_study_of_the_same_id_is_noticed() -> None:
    world = World(1)
    world.go_on(2, 0)
    world.storage.attributes.clear()  # what deleting the study does
    assert world.members[0].keep(world.storage, 0) is True
    world.go_on(2, 0)
    world.assert_shared()


def test_two_who_write_one_slot_find_out(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = membership._weight
    monkeypatch.setattr(
        membership, "_weight", lambda name, trial: 5 if trial < 0 else weight(name, trial)
    )
    names = iter("ab" + "cd" * 50)
    monkeypatch.setattr(membership, "_new_name", names.__next__)
    world = World(2)

    def second() -> None:  # is settled before the first writes over its lease
        world.storage.between = lambda: None
        world.keep(1)
        world.go_on(1, 1)

    world.storage.between = second
    world.keep(0)
    assert world.members[0]._slot == world.members[1]._slot == 5
    assert world.taken()[1] == set(TRIALS)
    for _ in range(20):
        world.now += 0.25
        world.keep(0)
        world.now += 0.05
        taken = world.taken()
        assert not taken[0] & taken[1]
        world.keep(1)
    assert world.members[0]._slot != world.members[1]._slot
    assert sum(map(len, taken)) == len(TRIALS)


def test_no_litter_of_those_long_gone() -> None:
    world = World(60)
    for i in range(60):
        world.go_on(1, i)
        if i % 2:
            world.members[i].leave(world.storage, 0)
        world.now += LEASE / 4
    world.go_on(2 * LEASE, 0)
    assert len(world.storage.attributes) <= SLOTS
    assert world.members[0].n_members == 1


def test_more_than_there_are_slots_wait() -> None:
    world = World(SLOTS + 1)
    world.go_on(4, *range(SLOTS + 1))
    waiting = [m for m in world.members if m._slot is None]
    assert len(waiting) == 1
    world.members[3].leave(world.storage, 0)
    world.go_on(4, *(i for i in range(SLOTS + 1) if i != 3))
    world.assert_shared()


def test_a_beat_is_not_written_more_often_than_needed() -> None:
    world = World(1)
    world.go_on(4, 0)
    before = world.storage.writes
    world.go_on(8 * LEASE, 0)
    assert world.storage.writes - before <= 8 * 8 + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.integers(-1, SLOTS + 1).map(lambda n: f"{membership.PREFIX}{n}") | st.text(max_size=30),
        json_values
        | st.fixed_dictionaries(
            {"format": json_values, "id": json_values, "beat": json_values | st.just(1)}
        ),
        max_size=12,
    )
)
def test_whatever_stands_in_the_slots_it_takes_its_share_after_a_lease(found: dict) -> None:
    world = World(1)
    world.storage.attributes.update(found)
    world.go_on(LEASE + 3, 0)
    world.assert_shared()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_trial_has_two_takers(data: st.DataObject) -> None:
    """Any order of readings, writings, rests, deaths and returns of four forecasters."""
    membership._new_name = new_names().__next__  # undone by the fixture
    world = World(4)
    busy: set[int] = set()
    turn = st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.1, 0.4, 1.0, 3.0, 5.0, 9.0]))

    def check() -> None:
        takers = [taken for i, taken in enumerate(world.taken()) if i not in busy]
        assert sum(map(len, takers)) == len(set().union(*takers))

    def between() -> None:
        # The one who has just read is overtaken by another before it writes.
        for _ in range(data.draw(st.sampled_from([0, 0, 1, 3])) if len(busy) < 3 else 0):
            who, seconds = data.draw(turn)
            if who not in busy:
                act(who, seconds)

    def act(who: int, seconds: float) -> None:
        world.now += seconds
        check()
        busy.add(who)
        world.keep(who)
        busy.remove(who)
        check()

    world.storage.between = between
    for who, seconds in data.draw(st.lists(turn, max_size=40)):
        if data.draw(st.integers(0, 9)) == 0:
            world.members[who].leave(world.storage, 0)
        act(who, seconds)
