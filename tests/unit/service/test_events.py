"""One event, one line."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_lcpruner.service.events import Event

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=timezone.utc)


def test_text() -> None:
    facts = {"study": "my study", "trial": 3, "p": 0.01234567, "prune": True, "none": None, "x": ""}
    event = Event(logging.INFO, "verdict", facts)
    expected = 'verdict study="my study" trial=3 p=0.0123457 prune=true x=""'
    assert event.text() == expected
    assert event.line(NOON) == f"2026-01-02T12:00:00Z info {expected}"


def test_json() -> None:
    event = Event(logging.WARNING, "back", {"study": "s", "none": None})
    assert json.loads(event.json(NOON)) == {
        "time": "2026-01-02T12:00:00Z",
        "level": "warning",
        "event": "back",
        "study": "s",
    }


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b"]), st.text() | st.integers() | st.floats()))
def test_one_line_whatever_is_in_it(facts: dict[str, object]) -> None:
    event = Event(logging.INFO, "x", facts)
    for line in (event.line(), event.json()):
        assert len(line.splitlines()) == 1
        assert line.isprintable()
    assert json.loads(event.json())["event"] == "x"


def test_a_value_cannot_pass_for_another_field() -> None:
    assert Event(logging.INFO, "x", {"study": "s prune=true"}).text() == 'x study="s prune=true"'
