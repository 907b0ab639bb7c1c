"""The verdict on a trial as another process reads it."""

from __future__ import annotations

import json
import math

import numpy as np
from helpers import (
    finished,
    reports,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_lcpruner import Decision, Reason
from optuna_lcpruner.records.remote_decision import RemoteVerdict

AMONG_OTHERS = (Reason.OTHER_PRUNER, Reason.OVERRULED, Reason.INFEASIBLE)
"""Reasons that a forecaster does not give: of pruners that decide together, and the trainer's."""


class TestTheRecord:
    @settings(deadline=None)
    @given(
        st.sampled_from([reason for reason in Reason if reason not in AMONG_OTHERS]),
        st.lists(st.floats(width=64), min_size=6, max_size=6),
        st.lists(st.floats(), min_size=1, max_size=5),
    )
    def test_it_comes_back_as_it_was(
        self, reason: Reason, numbers: list[float], values: list[float]
    ) -> None:
        p, threshold = (abs(math.sin(x)) if math.isfinite(x) else 0.1 for x in numbers[:2])
        if reason is Reason.BELOW_THRESHOLD:
            p, threshold = min(p, threshold) / 2, max(p, threshold) + 1e-9
            threshold = min(threshold, 1.0)
        if reason is Reason.DIVERGED:
            values = [*values, math.inf]
        if reason is Reason.BEHIND:
            values = [*values, 0.5]
        trial = finished(reports(values), value=1.0)
        trial.number = 3
        rest = [x if math.isfinite(x) else 1.0 for x in numbers[2:]]
        decision = Decision(
            reason, "words", 0, None if reason is Reason.BEHIND else p, threshold, *rest
        )
        verdict = RemoteVerdict.of(decision, trial)
        stored = json.dumps(verdict.to_json(), allow_nan=False)
        assert RemoteVerdict.from_json(json.loads(stored)) == verdict
        assert verdict.covers(trial)
        assert len(stored) < 1000

    def test_longest(self) -> None:
        number = -1.2345678901234567e-300
        decision = Decision(Reason.METRIC_MISMATCH, "m", 10**9, 1e-9, 1e-9, *[number] * 4)
        trial = finished({10**9: number}, value=1.0)
        trial.number = 10**9
        assert len(json.dumps(RemoteVerdict.of(decision, trial).to_json())) < 700

    def test_numpy_numbers_are_plain_ones(self) -> None:
        decision = Decision(
            Reason.UNDECIDED, "", np.int64(1), np.float32(0.5), np.float64(0.1), np.float64(1)
        )
        stored = RemoteVerdict.of(decision, finished(reports([0.1, 0.2]))).to_json()
        assert {type(value) for value in stored.values()} <= {int, float, str, bool, type(None)}
