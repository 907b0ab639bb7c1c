"""What a long-running command has to tell: events, as a line of key=value or of JSON. Pure."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

_PLAIN = re.compile(r"[\w./:+*%-]+", flags=re.ASCII)


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        level: A level of :mod:`logging`.
        name: One word.
        facts: Numbers, strings, truth values; what is None is not shown.
    """

    level: int
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """``name key=value ...``; a value with a blank or the like in it is quoted as in JSON.

        Study names and errors come from outside: a line break in one cannot begin a line here.
        """
        shown = [f"{key}={_value(value)}" for key, value in self.facts.items() if value is not None]
        return " ".join([self.name, *shown])

    def line(self, now: datetime | None = None) -> str:
        """The text after time, in UTC, and level."""
        return f"{_time(now)} {logging.getLevelName(self.level).lower()} {self.text()}"

    def json(self, now: datetime | None = None) -> str:
        """One line of JSON: ``time``, ``level``, ``event``, and the facts."""
        facts = {key: value for key, value in self.facts.items() if value is not None}
        head = {"time": _time(now), "level": logging.getLevelName(self.level).lower()}
        return json.dumps({**head, "event": self.name, **facts}, default=str)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _time(now: datetime | None) -> str:
    return (now or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%SZ")
