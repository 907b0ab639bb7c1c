"""What the ledger costs: on the training's thread, in the background, and to read.

    python tests/bench/ledger.py
    python tests/bench/ledger.py --trials 20 --rows 10000

A training here is numpy work of some milliseconds between two reports. Times are of one run on one
machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import RDBStorage

from optuna_lcpruner import Decision, LearningCurvePruner, Reason, __version__, report
from optuna_lcpruner.records import ledger_writer
from optuna_lcpruner.records.ledger import DecisionContext, Ledger, LedgerEntry, entry
from optuna_lcpruner.records.location import Address, address

N_STEPS = 50

optuna.logging.set_verbosity(optuna.logging.ERROR)


def curve(rng: np.random.Generator) -> np.ndarray:
    """A noisy loss that falls from 1 towards a random asymptote."""
    t = np.arange(1, N_STEPS + 1) / N_STEPS
    asymptote, rate = rng.uniform(0.1, 0.6), rng.uniform(1.0, 6.0)
    return asymptote + (1 - asymptote) * np.exp(-rate * t) + rng.normal(0, 0.01, N_STEPS)


def work(seconds: float) -> None:
    """Numpy work, which holds and releases the interpreter's lock as a training does."""
    end = time.perf_counter() + seconds
    a = np.ones((64, 64))
    while time.perf_counter() < end:
        a = np.tanh(a @ a)


class Timed:
    """A method that notes how long its calls take."""

    def __init__(self, call: Callable[..., object]) -> None:
        self.call, self.ms = call, []

    def __call__(self, *args: object) -> object:
        start = time.perf_counter()
        try:
            return self.call(*args)
        finally:
            self.ms.append(1e3 * (time.perf_counter() - start))

    def row(self, name: str) -> str:
        p50, p99 = np.quantile(self.ms, [0.5, 0.99])
        return f"{name:34s} {len(self.ms):9d} {p50:9.4f} {np.mean(self.ms):9.4f} {p99:9.4f}"


def on_the_thread(n_trials: int, gap: float) -> None:
    """Handing decisions over, and all of should_prune with and without a ledger, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        study = optuna.create_study(storage=RDBStorage(f"sqlite:///{folder}/study.db"))
        rng = np.random.default_rng(0)
        for _ in range(5):
            values = curve(rng)
            study.add_trial(
                optuna.trial.create_trial(
                    value=float(values[-1]),
                    intermediate_values=dict(enumerate(values.tolist())),
                )
            )
        handing = Timed(lambda: None)
        asking = {None: Timed(lambda: None), False: Timed(lambda: None)}
        for number in range(n_trials):
            setting = None if number % 2 else False
            pruner = LearningCurvePruner(N_STEPS, risk=0.0, publish=False, ledger=setting)
            if setting is None:
                handing.call = pruner._memory._record
                pruner._memory._record = handing
            study.pruner = pruner
            trial = study.ask()
            for step, value in enumerate(curve(rng).tolist()):
                work(gap)
                trial.report(value, step)
                asking[setting].call = trial.should_prune
                asking[setting]()
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        start = time.perf_counter()
        assert ledger_writer.flush(60)
        left = 1e3 * (time.perf_counter() - start)
        where = address(None, study._storage)
        kept = len(Ledger(where).of_study(study.study_name, ["trial"])["trial"])
    title = f"{1e3 * gap:g} ms of training between reports"
    print(f"{title:34s} {'decisions':>9s} {'median ms':>9s} {'mean ms':>9s} {'99 % ms':>9s}")
    print(handing.row("handing a decision to the ledger"))
    print(asking[False].row("should_prune without a ledger"))
    print(asking[None].row("should_prune with a ledger"))
    print(f"on record: {kept} of {len(handing.ms)}; writing the rest took {left:.0f} ms\n")


def reading(n: int) -> None:
    """A ledger of n decisions about completed trials: to write, to read and to report on."""
    study = optuna.create_study(study_name="s")
    started = datetime(2026, 1, 1)
    for _ in range(-(-n // 50)):
        study.add_trial(
            optuna.trial.FrozenTrial(
                number=0,
                trial_id=-1,
                state=optuna.trial.TrialState.COMPLETE,
                value=0.4,
                datetime_start=started,
                datetime_complete=started,
                params={},
                distributions={},
                user_attrs={},
                system_attrs={},
                intermediate_values={49: 0.4},
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/l.db"
        ledger = Ledger(Address(url))
        words = "undecided: " + 120 * "x"
        decision = Decision(Reason.UNDECIDED, words, 3, 0.1, 0.01, 0.9, 0.45, 0.3, 0.6)
        facts = DecisionContext("pool", n_points=4, value=0.5, look=4, horizon=50)
        start = time.perf_counter()
        for first in range(0, n, 200):
            ledger.append(
                [row(decision, facts, i // 50, started) for i in range(first, min(n, first + 200))]
            )
        wrote = time.perf_counter() - start
        start = time.perf_counter()
        ledger.of_study("s")
        read = time.perf_counter() - start
        start = time.perf_counter()
        ledger.of_trial("s", n // 100, started)
        one = time.perf_counter() - start
        start = time.perf_counter()
        text = str(report(study, ledger=url))
        reported = time.perf_counter() - start
        assert f"{n} decisions" in text
        size = (Path(folder) / "l.db").stat().st_size
    print(f"{n} decisions, written in batches of 200: {wrote:.1f} s, {size / n:.0f} bytes each")
    print(f"read all: {read:.1f} s; read one trial's: {1e3 * one:.0f} ms; report: {reported:.1f} s")


def row(decision: Decision, facts: DecisionContext, trial: int, started: datetime) -> LedgerEntry:
    """A row about a trial, with quartiles, as if it had come from a forecast."""
    made = entry(
        decision, facts, study="s", trial=trial, trial_started=started, version=__version__
    )
    made.mean, made.q25, made.q75 = 0.45, 0.42, 0.48
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--gaps", type=int, nargs="*", default=[2, 20], help="milliseconds")
    options = parser.parse_args()
    for milliseconds in options.gaps:
        on_the_thread(options.trials, milliseconds / 1e3)
    reading(options.rows)
