"""One scripted study on every storage: the same verdicts, and attributes that can be read back."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from backends import IN_THIS_PROCESS, SHARED, kinds, open_storage, place
from forecasting import Watching, running, verdict_of
from helpers import (
    BAD,
    GOOD_ENDS,
    N_STEPS,
    Recording,
    environment,
    finished,
    reports,
    run_together,
    saturating,
    sqlite,
)
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from optuna_lcpruner import Decision, LearningCurvePruner, Reason
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import LedgerError, open_ledger
from optuna_lcpruner.records.location import address

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
    assert trial_attributes.writer().flush(20)
    if fate == "raises":
        raise ArithmeticError
    return float(curve[-1])


def run(study: optuna.Study, n_trials: int) -> Asked:
    """Run the next trials of the script with a pruner that knows nothing yet."""
    study.pruner = recording = Recording(make_pruner())
    study.optimize(objective, n_trials=n_trials, catch=(ArithmeticError,))
    return recording.asked


Open = Callable[[str], BaseStorage]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """The address of the storage of a kind, made when first asked for."""
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(place(kind, tmp_path_factory.mktemp("at"))))


@pytest.fixture(scope="module")
def opened(places: Callable[[str], str]) -> Iterator[Open]:
    """Opens the storage of a kind; what lives in memory is the same one each time."""
    lasting = {
        "memory": cache(InMemoryStorage),
        "sqlite memory": cache(lambda: sqlite("sqlite://")),
    }
    made = []

    def opened(kind: str) -> BaseStorage:
        if kind in lasting:
            return lasting[kind]()
        made.append(open_storage(kind, places(kind)))
        return made[-1]

    yield opened
    for storage in made:
        close(storage)


def close(storage: BaseStorage) -> None:
    """Let go of connections, where a storage has any."""
    for held in (storage, getattr(storage, "client", None)):
        if hasattr(held, "close"):
            held.close()
    storage.remove_session()


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
        Reason.BELOW_THRESHOLD,
        Reason.DIVERGED,
        Reason.UNDECIDED,
        Reason.ALREADY_BETTER,
    }
    assert Reason.FAILED not in {d.reason for _, d in expected}


@pytest.fixture(scope="module")
def ran(opened: Open) -> Callable[[str], tuple[str, Asked]]:
    """The script run on a storage of a kind, once: the study's name and the verdicts."""

    @cache
    def ran(kind: str) -> tuple[str, Asked]:
        name = uuid.uuid4().hex
        study = optuna.create_study(study_name=name, storage=opened(kind), direction="maximize")
        return name, run(study, len(SCRIPT))

    return ran


READER = """
import json
import sys
import optuna
from backends import open_storage
from optuna_lcpruner.records.ledger import LedgerError, open_ledger

kind, where, name = sys.argv[1:]
study = optuna.load_study(study_name=name, storage=open_storage(kind, where))
trials = [
    (trial.number, trial.state.name, trial.user_attrs, sorted(trial.intermediate_values.items()))
    for trial in study.get_trials()
]
try:
    rows = open_ledger(None, study).of_study(name, ["trial", "step", "reason", "message"])
except LedgerError:
    rows = None
json.dump((trials, rows), sys.stdout)
"""


@pytest.mark.parametrize("kind", kinds(*IN_THIS_PROCESS, *SHARED))
class TestEveryStorage:
    def test_same_verdicts(self, kind: str, ran: Any, expected: Asked, warned: list[str]) -> None:
        _, asked = ran(kind)
        assert_same(asked, expected)
        assert warned == []

    def test_attributes_for_all_to_read(self, kind: str, ran: Any, opened: Open) -> None:
        name, asked = ran(kind)
        trials = optuna.load_study(study_name=name, storage=opened(kind)).get_trials()
        states = {"completes": "COMPLETE", "is pruned": "PRUNED", "raises": "FAIL"}
        assert [trial.state.name for trial in trials] == [states[fate] for fate, _ in SCRIPT]
        silent = (Reason.WARM_UP, Reason.BETWEEN_LOOKS, Reason.TOO_FEW_REPORTS)
        last = {n: decision for n, decision in asked if decision.reason not in silent}
        for trial in trials:
            shown = trial.user_attrs
            if trial.number not in last:
                assert not any(key.startswith("lcpruner_") for key in shown)
                continue
            decision = last[trial.number]
            assert shown["lcpruner_reason"] == decision.message
            assert shown["lcpruner_decided_at_step"] == decision.step
            assert type(shown["lcpruner_decided_at_step"]) is int
            if decision.p_beat is not None:
                np.testing.assert_allclose(
                    [
                        shown["lcpruner_p_beat_best"],
                        shown["lcpruner_forecast"],
                        shown["lcpruner_forecast_lower"],
                        shown["lcpruner_forecast_upper"],
                    ],
                    [decision.p_beat, decision.forecast, decision.low, decision.high],
                    rtol=1e-9,
                )
                assert type(shown["lcpruner_p_beat_best"]) is float

    def test_interrupted_and_resumed_equals_uninterrupted(
        self, kind: str, opened: Open, expected: Asked
    ) -> None:
        study = optuna.create_study(storage=opened(kind), direction="maximize")
        asked = run(study, 8)
        again = optuna.load_study(study_name=study.study_name, storage=opened(kind))
        asked += run(again, len(SCRIPT) - 8)
        assert_same(asked, expected)

    def test_announced_horizon(self, kind: str, opened: Open) -> None:
        study = optuna.create_study(storage=opened(kind), direction="maximize")
        study.pruner = recording = Recording(LearningCurvePruner(threshold=0.05))

        def announcing(trial: optuna.Trial) -> float:
            n = 8 if trial.number == 5 else 40 if trial.number == 6 else N_STEPS
            trial.set_user_attr("lcpruner_n_steps", n)
            curve = saturating(0.9) if trial.number < 5 else BAD[:n]
            for step, value in enumerate(curve):
                trial.report(value, step)
            trial.should_prune()
            return float(curve[-1])

        study.optimize(announcing, n_trials=7)
        last = dict(recording.asked)
        assert last[5].reason is Reason.BEYOND_HORIZON
        assert last[6].reason is Reason.BELOW_THRESHOLD

    def test_ledger(self, kind: str, ran: Any, opened: Open, places: Any) -> None:
        """Beside a file, in the same database, or nowhere unless told."""
        name, asked = ran(kind)
        study = optuna.load_study(study_name=name, storage=opened(kind))
        where = address(None, study._storage)
        if kind not in ("sqlite", "postgresql", "mysql"):
            assert where is None
            with pytest.raises(LedgerError, match="has no ledger beside it"):
                open_ledger(None, study)
            return
        assert where is not None
        assert where.url == places(kind) + (".lcpruner" if kind == "sqlite" else "")
        assert ledger_writer.flush(20)
        kept = open_ledger(None, study).of_study(name)
        assert kept["message"] == [decision.in_full for _, decision in asked]
        assert kept["trial"] == [number for number, _ in asked]
        np.testing.assert_allclose(
            np.array(kept["p_beat"], dtype=float),
            np.array([decision.p_beat for _, decision in asked], dtype=float),
            rtol=1e-12,
        )
        tables = set(sqlalchemy.inspect(study._storage._backend.engine).get_table_names())
        assert ("lcpruner_decisions" in tables) is (kind != "sqlite")


@pytest.mark.parametrize("kind", kinds(*SHARED))
def test_another_process_reads_the_same(kind: str, ran: Any, opened: Open, places: Any) -> None:
    name, asked = ran(kind)
    assert ledger_writer.flush(20)
    done = subprocess.run(
        [sys.executable, "-c", READER, kind, places(kind), name],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trials, rows = json.loads(done.stdout)
    here = optuna.load_study(study_name=name, storage=opened(kind)).get_trials()
    assert len(trials) == len(here) == len(SCRIPT)
    for (number, state, attributes, reported), trial in zip(trials, here, strict=True):
        assert (number, state, attributes) == (trial.number, trial.state.name, trial.user_attrs)
        np.testing.assert_array_equal(
            np.array(reported, dtype=float).reshape(-1, 2),
            np.array(sorted(trial.intermediate_values.items()), dtype=float).reshape(-1, 2),
        )
    if kind in ("sqlite", "postgresql", "mysql"):
        assert rows["message"] == [decision.in_full for _, decision in asked]
    else:
        assert rows is None


WORKER = """
import sys
import numpy as np
import optuna
from backends import open_storage
from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.records import trial_attributes

kind, where, name, n_trials = sys.argv[1:]
optuna.logging.set_verbosity(optuna.logging.WARNING)
pruner = LearningCurvePruner(20, threshold=0.05, n_warmup_steps=8, interval_steps=3)
study = optuna.load_study(study_name=name, storage=open_storage(kind, where), pruner=pruner)

def objective(trial):
    t = np.arange(1, 21) / 20
    good = trial.number < 6 or trial.number % 2 == 0
    curve = 0.9 - 0.8 * np.exp(-4.0 * t) if good else np.full(20, 0.1)
    for step, value in enumerate(curve + 1e-4 * trial.number):
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    assert trial_attributes.writer().flush(60)
    return curve[-1] + 1e-4 * trial.number

print("ready", flush=True)
sys.stdin.readline()
study.optimize(objective, n_trials=int(n_trials))
"""


@pytest.mark.parametrize("kind", kinds(*SHARED))
def test_two_processes_share_a_study(kind: str, opened: Open, places: Any) -> None:
    study = optuna.create_study(storage=opened(kind), direction="maximize")
    arguments = (kind, places(kind), study.study_name, "8")
    said = run_together(WORKER, [arguments] * 2, "-W", "error::RuntimeWarning")
    assert not any("LearningCurvePruner" in errors for errors in said)
    trials = optuna.load_study(study_name=study.study_name, storage=opened(kind)).get_trials()
    assert [trial.number for trial in trials] == list(range(16))
    hopeless = {trial.number for trial in trials if trial.state == TrialState.PRUNED}
    # A good trial that one worker is slow to train may be stopped too: others then tie with it.
    assert hopeless >= {7, 9, 11, 13, 15}
    assert len(hopeless) < 10
    for trial in trials:
        assert trial.state in (TrialState.PRUNED, TrialState.COMPLETE)
        shown = trial.user_attrs["lcpruner_reason"]
        assert any(shown.startswith(reason.value) for reason in Reason)
        if trial.number in hopeless:
            assert shown.startswith("pruned: P = ")
            assert trial.user_attrs["lcpruner_decided_at_step"] == max(trial.intermediate_values)


@pytest.mark.parametrize("kind", kinds(*(kind for kind in SHARED if kind != "dask")))
def test_a_study_made_again_while_it_is_served(kind: str, opened: Open) -> None:
    """Its numbers may be the old ones, and what a cache holds of them is of the old study."""
    storage, watching = opened(kind), Watching(opened(kind), ["again"])
    for more in (0.0, 100.0):
        study = optuna.create_study(study_name="again", storage=storage, direction="maximize")
        study.add_trials(finished(reports(saturating(end) + more)) for end in GOOD_ENDS)
        trial = running(study, saturating(0.98)[:12] + more)
        watching.look(60)
        verdict = verdict_of(study, trial)
        assert verdict.incumbent == pytest.approx(study.best_value)
        assert not verdict.reason.prunes
        optuna.delete_study(study_name="again", storage=storage)
    assert len(watching.named("cannot_serve")) <= 1  # the old number is not there any more
