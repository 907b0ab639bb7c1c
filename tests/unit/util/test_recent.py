"""A dictionary that forgets what has not been written for longest."""

from __future__ import annotations

from optuna_lcpruner._util.recent import Recent


def test_the_newest_stay() -> None:
    recent: Recent[int, str] = Recent(3)
    for key in range(5):
        recent[key] = str(key)
    assert dict(recent) == {2: "2", 3: "3", 4: "4"}


def test_what_is_written_again_is_new() -> None:
    recent: Recent[int, str] = Recent(3)
    for key in (0, 1, 2):
        recent[key] = "old"
    recent[0] = "new"
    recent[3] = "new"
    assert dict(recent) == {2: "old", 0: "new", 3: "new"}


def test_what_is_read_is_not() -> None:
    recent: Recent[int, str] = Recent(2)
    recent[0] = recent[1] = "old"
    assert recent[0] == recent.get(0) == "old"
    recent[2] = "new"
    assert list(recent) == [1, 2]


def test_defaults_count_as_written() -> None:
    recent: Recent[int, str] = Recent(2)
    for key in range(3):
        assert recent.setdefault(key, "first") == "first"
    assert list(recent) == [1, 2]
