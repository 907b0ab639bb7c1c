"""Decisions as trial attributes: what is written, when, in which order, and what may go wrong."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from optuna_lcpruner import Decision, Reason
from optuna_lcpruner.records.trial_attributes import AttributeWriter, attributes

NUMBERS = (
    "lcpruner_p_beat_best",
    "lcpruner_forecast",
    "lcpruner_forecast_lower",
    "lcpruner_forecast_upper",
)


@pytest.fixture
def writer() -> AttributeWriter:
    """A writer of the test's own: the process's one warns only once."""
    return AttributeWriter()


class GatedStorage:
    """Keeps what is written; each write, or each of one value, waits until the gate is open."""

    def __init__(self, gate_is_open: bool = True, state: TrialState = TrialState.RUNNING) -> None:
        self.log: list[tuple[int, str, Any]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.state = state
        self.held: Any = None
        self.broken = False
        if gate_is_open:
            self.gate.set()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.entered.set()
        if self.held is None or value == self.held:
            assert self.gate.wait(20)
        if self.broken:
            raise OSError("disk full")
        self.log.append((trial_id, key, value))

    def get_trial(self, trial_id: int) -> Any:
        return optuna.trial.create_trial(state=self.state, value=0.0)


class TestAttributes:
    def test_of_a_judged_trial(self) -> None:
        decision = Decision(
            Reason.UNDECIDED,
            "undecided: P = 0.250",
            step=np.int64(7),
            p_beat=np.float64(0.25),
            threshold=0.05,
            incumbent=0.9,
            forecast=np.float32(0.5),
            low=0.25,
            high=1,
        )
        shown = attributes(decision)
        assert shown == {
            "lcpruner_p_beat_best": 0.25,
            "lcpruner_forecast": 0.5,
            "lcpruner_forecast_lower": 0.25,
            "lcpruner_forecast_upper": 1.0,
            "lcpruner_decided_at_step": 7,
            "lcpruner_reason": "undecided: P = 0.250",
        }
        assert {type(shown[key]) for key in NUMBERS} == {float}
        assert type(shown["lcpruner_decided_at_step"]) is int

    def test_of_an_abstention(self) -> None:
        decision = Decision(Reason.WARM_UP, "warm-up: step 3", 3)
        assert attributes(decision) == {
            "lcpruner_decided_at_step": 3,
            "lcpruner_reason": "warm-up: step 3",
        }

    def test_zero_is_shown(self) -> None:
        decision = Decision(Reason.BELOW_THRESHOLD, "pruned", 0, 0.0, 0.05, 0.0, 0.0, 0.0, 0.0)
        shown = attributes(decision)
        assert [shown[key] for key in NUMBERS] == [0.0] * 4
        assert shown["lcpruner_decided_at_step"] == 0


class TestWriter:
    def test_flush_waits_for_everything_submitted(self, writer: AttributeWriter) -> None:
        storage = GatedStorage()
        for trial_id in range(5):
            writer.submit(storage, trial_id, {"a": trial_id, "b": -trial_id})  # type: ignore[arg-type]
        assert writer.flush(20)
        expected = [(i, k, v) for i in range(5) for k, v in (("a", i), ("b", -i))]
        assert sorted(storage.log) == sorted(expected)

    def test_flush_of_an_idle_writer(self, writer: AttributeWriter) -> None:
        assert writer.flush(20)

    def test_flush_gives_up(self, writer: AttributeWriter) -> None:
        storage = GatedStorage(gate_is_open=False)
        writer.submit(storage, 1, {"a": 1})  # type: ignore[arg-type]
        assert not writer.flush(timeout=0.05)
        storage.gate.set()
        assert writer.flush(20)
        assert storage.log == [(1, "a", 1)]

    def test_submit_does_not_wait_and_newest_wins(self, writer: AttributeWriter) -> None:
        storage = GatedStorage(gate_is_open=False)
        writer.submit(storage, 1, {"a": 0})  # type: ignore[arg-type]
        assert storage.entered.wait(20)
        for value in range(1, 50):
            writer.submit(storage, 1, {"a": value})  # type: ignore[arg-type]
        storage.gate.set()
        assert writer.flush(20)
        assert storage.log == [(1, "a", 0), (1, "a", 49)]

    def test_trials_and_storages_are_told_apart(self, writer: AttributeWriter) -> None:
        blocker = GatedStorage(gate_is_open=False)
        one, two = GatedStorage(), GatedStorage()
        writer.submit(blocker, 0, {"a": 0})  # type: ignore[arg-type]
        assert blocker.entered.wait(20)
        for storage, trial_id in ((one, 1), (one, 2), (two, 1)):
            writer.submit(storage, trial_id, {"a": trial_id})  # type: ignore[arg-type]
        blocker.gate.set()
        assert writer.flush(20)
        assert sorted(one.log) == [(1, "a", 1), (2, "a", 2)]
        assert two.log == [(1, "a", 1)]

    def test_final_write_waits_for_the_one_under_way(self, writer: AttributeWriter) -> None:
        """An older decision must not end up on top of the one that stopped the trial."""
        storage = GatedStorage(gate_is_open=False)
        storage.held = "old"
        writer.submit(storage, 1, {"a": "old", "b": "old"})  # type: ignore[arg-type]
        assert storage.entered.wait(20)
        final = threading.Thread(
            target=writer.write, args=(storage, 1, {"a": "final", "b": "final"})
        )
        final.start()
        final.join(0.1)  # long enough for a write that does not wait
        assert final.is_alive()
        storage.gate.set()
        final.join(20)
        assert storage.log[-2:] == [(1, "a", "final"), (1, "b", "final")]
        assert writer.flush(20)
        assert storage.log[-2:] == [(1, "a", "final"), (1, "b", "final")]
        assert storage.log[:-2] == [(1, "a", "old"), (1, "b", "old")]

    def test_final_write_drops_what_was_waiting(self, writer: AttributeWriter) -> None:
        storage = GatedStorage(gate_is_open=False)
        writer.submit(storage, 0, {"a": 0})  # type: ignore[arg-type]
        assert storage.entered.wait(20)
        writer.submit(storage, 1, {"a": "old"})  # type: ignore[arg-type]
        writer.submit(storage, 2, {"a": "other"})  # type: ignore[arg-type]
        final = threading.Thread(target=writer.write, args=(storage, 1, {"a": "final"}))
        final.start()
        storage.gate.set()
        final.join(20)
        assert writer.flush(20)
        assert sorted(storage.log) == [(0, "a", 0), (1, "a", "final"), (2, "a", "other")]

    @pytest.mark.parametrize("repeat", range(5))
    def test_final_write_is_last_under_load(self, writer: AttributeWriter, repeat: int) -> None:
        storage = GatedStorage()

        def train(trial_id: int) -> None:
            for step in range(30):
                writer.submit(storage, trial_id, {"step": step, "twin": step})  # type: ignore[arg-type]
            writer.write(storage, trial_id, {"step": "final", "twin": "final"})  # type: ignore[arg-type]

        threads = [threading.Thread(target=train, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert writer.flush(20)
        for trial_id in range(4):
            own = [(key, value) for i, key, value in storage.log if i == trial_id]
            assert own[-2:] == [("step", "final"), ("twin", "final")]
            assert all(a[1] == b[1] for a, b in zip(own[::2], own[1::2], strict=True))

    def test_a_broken_storage_warns_once(self, writer: AttributeWriter, warned: list[str]) -> None:
        storage = GatedStorage()
        storage.broken = True
        for trial_id in range(3):
            writer.submit(storage, trial_id, {"a": 1})  # type: ignore[arg-type]
            writer.write(storage, trial_id, {"a": 1})  # type: ignore[arg-type]
        assert writer.flush(20)
        assert len(warned) == 1
        assert "disk full" in warned[0]

    def test_a_storage_that_recovers(self, writer: AttributeWriter, warned: list[str]) -> None:
        storage = GatedStorage()
        storage.broken = True
        writer.submit(storage, 1, {"a": 1})  # type: ignore[arg-type]
        assert writer.flush(20)
        storage.broken = False
        writer.submit(storage, 1, {"a": 2})  # type: ignore[arg-type]
        assert writer.flush(20)
        assert storage.log == [(1, "a", 2)]

    def test_a_trial_that_finished_meanwhile_is_no_problem(
        self, writer: AttributeWriter, warned: list[str]
    ) -> None:
        storage = GatedStorage(state=TrialState.COMPLETE)
        storage.broken = True
        writer.submit(storage, 1, {"a": 1})  # type: ignore[arg-type]
        assert writer.flush(20)
        assert warned == []

    def test_a_storage_is_not_taken_for_one_that_is_gone(self, writer: AttributeWriter) -> None:
        """The next storage often lies where the last one was, with trials of the same numbers."""
        for _ in range(100):
            storage = InMemoryStorage()
            study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE])
            trial_id = storage.create_new_trial(study_id)
            writer.submit(storage, trial_id, {"lcpruner_reason": "undecided"}, "forecast")
            assert storage.get_trial(trial_id).user_attrs  # at once: it is the first one
            del storage

    def test_what_is_held_back_is_bounded(self, writer: AttributeWriter) -> None:
        """Trials in memory that end without another report leave nothing behind for long."""

        class Held:
            def __call__(self) -> dict[str, float | int | str]:
                return {"a": 1}

        storage = InMemoryStorage()
        study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE])
        alive = []
        for _ in range(200):
            trial_id = storage.create_new_trial(study_id)
            for _ in range(2):  # the first is written at once
                held = Held()
                alive.append(weakref.ref(held))
                writer.submit(storage, trial_id, held, "forecast")
                del held
        gc.collect()
        assert 1 <= sum(one() is not None for one in alive) <= 64

    def test_storages_are_not_kept_alive(self, writer: AttributeWriter) -> None:
        storage = GatedStorage()
        alive = weakref.ref(storage)
        writer.submit(storage, 1, {"a": 1})  # type: ignore[arg-type]
        assert writer.flush(20)
        del storage
        gc.collect()
        assert alive() is None

    def test_the_process_may_end(self, writer: AttributeWriter) -> None:
        writer.submit(GatedStorage(), 1, {"a": 1})  # type: ignore[arg-type]
        assert writer.flush(20)
        threads = [t for t in threading.enumerate() if t.name.startswith("lcpruner")]
        assert threads
        assert all(thread.daemon for thread in threads)


PRELUDE = """
import os, sys
import numpy as np
import optuna
from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.records import trial_attributes

url = sys.argv[1]
study = optuna.load_study(study_name="s", storage=url)
study.pruner = LearningCurvePruner(20, threshold=0.05)

def run(study):
    trial = study.ask()
    for step in range(3):
        trial.report(0.1 * step, step)
        trial.should_prune()
    return trial.number
"""


def run_script(script: str, *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script), *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
class TestProcesses:
    @pytest.fixture
    def study(self, tmp_path: Path) -> optuna.Study:
        return optuna.create_study(
            study_name="s", storage=f"sqlite:///{tmp_path}/study.db", direction="maximize"
        )

    def test_last_decision_arrives_before_the_process_ends(
        self, study: optuna.Study, tmp_path: Path
    ) -> None:
        run_script("run(study)", f"sqlite:///{tmp_path}/study.db")
        (trial,) = study.get_trials()
        assert trial.user_attrs["lcpruner_decided_at_step"] == 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_and_before_a_child_of_multiprocessing_ends(
        self, study: optuna.Study, tmp_path: Path
    ) -> None:
        """Such a child does not run atexit."""
        run_script(
            """
            import multiprocessing

            def work():
                run(optuna.load_study(study_name="s", storage=url, pruner=study.pruner))

            child = multiprocessing.get_context("fork").Process(target=work)
            child.start()
            child.join()
            assert child.exitcode == 0
            """,
            f"sqlite:///{tmp_path}/study.db",
        )
        (trial,) = study.get_trials()
        assert trial.user_attrs["lcpruner_decided_at_step"] == 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_a_forked_child_writes_by_itself(self, study: optuna.Study, tmp_path: Path) -> None:
        """The parent's background thread does not exist in the child."""
        out = run_script(
            """
            run(study)
            assert trial_attributes.writer().flush(20)
            parents = trial_attributes.writer()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    study = optuna.load_study(study_name="s", storage=url, pruner=study.pruner)
                    run(study)
                    own = trial_attributes.writer()
                    flushed = own is not parents and own.flush(20)
                    status = 0 if flushed and own is trial_attributes.writer() else 2
                finally:
                    os._exit(status)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            assert trial_attributes.writer() is parents
            """,
            f"sqlite:///{tmp_path}/study.db",
        )
        assert out.strip() == "0"
        steps = [t.user_attrs.get("lcpruner_decided_at_step") for t in study.get_trials()]
        assert steps == [2, 2]
