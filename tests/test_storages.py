"""One scripted study on every storage: the same verdicts, and attributes that can be read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import BAD, GOOD_ENDS, N_STEPS, Recording, run_together, saturating, sqlite
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from optuna_lcpruner import Decision, LearningCurvePruner, Reason, publish

NAN = float("nan")

SCRIPT: list[tuple[str, np.ndarray]] = [
    *(("completes", saturating(end)) for end in GOOD_ENDS),
    ("is pruned", BAD),
    ("is pruned", np.array([0.1, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, -np.inf])),
    ("raises", saturating(0.99)[:7]),
    ("completes", saturating(0.95)),
    ("is pruned", np.linspace(0.3, 0.1, N_STEPS)),
    ("completes", np.array([NAN, 0.2, NAN, *saturating(0.97)[3:]])),
    ("is pruned", np.array([NAN] * N_STEPS)),
    ("is pruned", BAD - 1e3),
]
"""What becomes of each trial in turn, and what it reports."""

Asked = list[tuple[int, Decision]]


def make_pruner() -> LearningCurvePruner:
    return LearningCurvePruner(
        N_STEPS, threshold=0.05, n_warmup_steps=8, interval_steps=2, patience=2
    )


def objective(trial: optuna.Trial) -> float:
    fate, curve = SCRIPT[trial.number]
    for step, value in enumerate(curve):
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    assert publish.writer().flush(20)
    if fate == "raises":
        raise ArithmeticError
    return float(curve[-1])


def run(study: optuna.Study, n_trials: int) -> Asked:
    """Run the next trials of the script with a pruner that knows nothing yet."""
    study.pruner = recording = Recording(make_pruner())
    study.optimize(objective, n_trials=n_trials, catch=(ArithmeticError,))
    return recording.asked


KINDS = ["memory", "sqlite", "sqlite memory", "journal"]


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """A function that opens the storage; what lives in memory is the same one each time."""
    kind = request.param
    if kind == "sqlite":
        yield lambda: sqlite(f"sqlite:///{tmp_path}/study.db")
    elif kind == "journal":
        yield lambda: JournalStorage(JournalFileBackend(f"{tmp_path}/study.log"))
    else:
        storage = InMemoryStorage() if kind == "memory" else sqlite("sqlite:///:memory:")
        yield lambda: storage


@pytest.fixture(scope="module")
def expected() -> Asked:
    """The verdicts in memory, in one go."""
    return run(optuna.create_study(direction="maximize"), len(SCRIPT))


def assert_same(asked: Asked, expected: Asked) -> None:
    assert [(n, d.step, d.reason) for n, d in asked] == [(n, d.step, d.reason) for n, d in expected]
    for name in ("p_beat", "forecast", "low", "high", "incumbent"):
        ours, theirs = (
            np.array([getattr(d, name) for _, d in verdicts], dtype=float)
            for verdicts in (asked, expected)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-300)


def test_the_script_goes_as_written(expected: Asked) -> None:
    last = dict(expected)
    for number, (fate, _) in enumerate(SCRIPT):
        assert last[number].prune is (fate == "is pruned")
    assert {d.reason for _, d in expected} >= {
        Reason.WARM_UP,
        Reason.NO_BEST_VALUE,
        Reason.STARTUP,
        Reason.BETWEEN_LOOKS,
        Reason.PATIENCE,
        Reason.HOPELESS,
        Reason.DIVERGED,
        Reason.UNDECIDED,
        Reason.ALREADY_BETTER,
    }
    assert Reason.FAILED not in {d.reason for _, d in expected}


@pytest.mark.parametrize("opened", KINDS, indirect=True)
class TestEveryStorage:
    def test_same_verdicts_for_all_to_read(
        self, opened: Callable[[], Any], expected: Asked
    ) -> None:
        study = optuna.create_study(study_name="s", storage=opened(), direction="maximize")
        asked = run(study, len(SCRIPT))
        assert_same(asked, expected)
        trials = optuna.load_study(study_name="s", storage=opened()).get_trials()
        states = {"completes": "COMPLETE", "is pruned": "PRUNED", "raises": "FAIL"}
        assert [trial.state.name for trial in trials] == [states[fate] for fate, _ in SCRIPT]
        silent = (Reason.WARM_UP, Reason.BETWEEN_LOOKS, Reason.TOO_FEW_REPORTS)
        last = {n: decision for n, decision in asked if decision.reason not in silent}
        for trial in trials:
            shown = trial.user_attrs
            if trial.number not in last:
                assert not any(key.startswith("lcpruner:") for key in shown)
                continue
            decision = last[trial.number]
            assert shown["lcpruner:reason"] == decision.message
            assert shown["lcpruner:decided_at_step"] == decision.step
            assert type(shown["lcpruner:decided_at_step"]) is int
            if decision.p_beat is not None:
                np.testing.assert_allclose(
                    [
                        shown["lcpruner:p_beat_best"],
                        shown["lcpruner:forecast"],
                        shown["lcpruner:forecast_low"],
                        shown["lcpruner:forecast_high"],
                    ],
                    [decision.p_beat, decision.forecast, decision.low, decision.high],
                    rtol=1e-9,
                )
                assert type(shown["lcpruner:p_beat_best"]) is float

    def test_interrupted_and_resumed_equals_uninterrupted(
        self, opened: Callable[[], Any], expected: Asked
    ) -> None:
        study = optuna.create_study(study_name="s", storage=opened(), direction="maximize")
        asked = run(study, 8)
        again = optuna.load_study(study_name="s", storage=opened())
        asked += run(again, len(SCRIPT) - 8)
        assert_same(asked, expected)

    def test_announced_horizon(self, opened: Callable[[], Any]) -> None:
        study = optuna.create_study(storage=opened(), direction="maximize")
        study.pruner = recording = Recording(LearningCurvePruner(threshold=0.05))

        def announcing(trial: optuna.Trial) -> float:
            n = 8 if trial.number == 5 else 40 if trial.number == 6 else N_STEPS
            trial.set_user_attr("lcpruner:n_steps", n)
            curve = saturating(0.9) if trial.number < 5 else BAD[:n]
            for step, value in enumerate(curve):
                trial.report(value, step)
            trial.should_prune()
            return float(curve[-1])

        study.optimize(announcing, n_trials=7)
        last = dict(recording.asked)
        assert last[5].reason is Reason.BEYOND_HORIZON
        assert last[6].reason is Reason.HOPELESS


WORKER = """
import sys
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from helpers import sqlite
from optuna_lcpruner import LearningCurvePruner, publish

kind, where, n_trials = sys.argv[1:]
optuna.logging.set_verbosity(optuna.logging.WARNING)
storage = sqlite(where) if kind == "sqlite" else JournalStorage(JournalFileBackend(where))
pruner = LearningCurvePruner(20, threshold=0.05, n_warmup_steps=8, interval_steps=3)
study = optuna.load_study(study_name="s", storage=storage, pruner=pruner)

def objective(trial):
    t = np.arange(1, 21) / 20
    good = trial.number < 6 or trial.number % 2 == 0
    curve = 0.9 - 0.8 * np.exp(-4.0 * t) if good else np.full(20, 0.1)
    for step, value in enumerate(curve + 1e-4 * trial.number):
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    assert publish.writer().flush(60)
    return curve[-1] + 1e-4 * trial.number

print("ready", flush=True)
sys.stdin.readline()
study.optimize(objective, n_trials=int(n_trials))
"""


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_processes_share_a_study(kind: str, tmp_path: Path) -> None:
    if kind == "sqlite":
        where = f"sqlite:///{tmp_path}/study.db"
        storage: Any = where
    else:
        where = f"{tmp_path}/study.log"
        storage = JournalStorage(JournalFileBackend(where))
    optuna.create_study(study_name="s", storage=storage, direction="maximize")
    said = run_together(WORKER, [(kind, where, "8")] * 2, "-W", "error::RuntimeWarning")
    assert not any("LearningCurvePruner" in errors for errors in said)
    trials = optuna.load_study(study_name="s", storage=storage).get_trials()
    assert [trial.number for trial in trials] == list(range(16))
    hopeless = {trial.number for trial in trials if trial.state == TrialState.PRUNED}
    # A good trial that one worker is slow to train may be stopped too: others then tie with it.
    assert hopeless >= {7, 9, 11, 13, 15}
    assert len(hopeless) < 10
    for trial in trials:
        assert trial.state in (TrialState.PRUNED, TrialState.COMPLETE)
        shown = trial.user_attrs["lcpruner:reason"]
        assert any(shown.startswith(reason.value) for reason in Reason)
        if trial.number in hopeless:
            assert shown.startswith("pruned: P = ")
            assert trial.user_attrs["lcpruner:decided_at_step"] == max(trial.intermediate_values)
