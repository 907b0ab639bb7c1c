"""What the attributes that decisions leave behind say of a trial."""

from __future__ import annotations

from typing import Any

import pytest

from optuna_lcpruner._util.attributes import counted_down, told_to_stop_at


@pytest.mark.parametrize(
    ("attrs", "step"),
    [
        ({"lcpruner_reason": "pruned: P = 0.010", "lcpruner_decided_at_step": 4}, 4),
        ({"lcpruner_reason": "pruned by MedianPruner", "lcpruner_decided_at_step": 0}, 0),
        ({"lcpruner_reason": "undecided: P = 0.3", "lcpruner_decided_at_step": 4}, None),
        ({"lcpruner_reason": "pruned: P = 0.010"}, None),
        ({"lcpruner_reason": "pruned: P = 0.010", "lcpruner_decided_at_step": "4"}, None),
        ({"lcpruner_reason": 3, "lcpruner_decided_at_step": 4}, None),
        ({}, None),
    ],
)
def test_where_a_trial_was_told_to_stop(attrs: dict[str, Any], step: int | None) -> None:
    assert told_to_stop_at(attrs) == step


@pytest.mark.parametrize(
    ("attrs", "counted"),
    [
        ({"lcpruner_reason": "steps count down: from 19 to 1"}, True),
        ({"lcpruner_reason": "undecided: steps count down"}, False),
        ({"lcpruner_reason": None}, False),
        ({}, False),
    ],
)
def test_whether_its_steps_counted_down(attrs: dict[str, Any], counted: bool) -> None:
    assert counted_down(attrs) is counted
