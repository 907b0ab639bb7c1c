"""How long a decision takes: its computing alone, and ``should_prune`` against MedianPruner.

    python tests/bench/speed.py
    python tests/bench/speed.py --finished 10 100 1000 --reports 30

Times are medians of one run on one machine; only the ratios carry over to another.
"""

from __future__ import annotations

import argparse
import gc
import sqlite3
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from optuna_lcpruner import LearningCurvePruner, RemotePruner
from optuna_lcpruner.curves.families import FAMILIES
from optuna_lcpruner.decision.decision import Decision, Reason
from optuna_lcpruner.posterior.closed_form.shapes import shape_grid
from optuna_lcpruner.records import ledger_writer, remote_decision, trial_attributes

optuna.logging.set_verbosity(optuna.logging.ERROR)


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median duration in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def curve(rng: np.random.Generator, n_steps: int) -> np.ndarray:
    """A noisy loss that falls from 1 towards a random asymptote."""
    t = np.arange(1, n_steps + 1) / n_steps
    asymptote, rate = rng.uniform(0.1, 0.6), rng.uniform(1.0, 6.0)
    return asymptote + (1 - asymptote) * np.exp(-rate * t) + rng.normal(0, 0.01, n_steps)


def filled(rng: np.random.Generator, n_finished: int, n_steps: int) -> list:
    """Finished trials, a quarter of them complete, the others pruned on the way."""
    trials = []
    for number in range(n_finished):
        values = curve(rng, n_steps)
        complete = number % 4 == 0
        end = n_steps if complete else int(rng.integers(2, n_steps))
        trials.append(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE
                if complete
                else optuna.trial.TrialState.PRUNED,
                value=float(values[end - 1]),
                intermediate_values={i: float(v) for i, v in enumerate(values[:end])},
            )
        )
    return trials


def computing(repeats: int) -> None:
    """One decision's computing, everything but the storage, on a study of 1 000 trials."""
    shape_grid.cache_clear()
    start = time.perf_counter()
    grid = shape_grid(100, tuple(FAMILIES))
    print(f"set-up of the shape grid: {1e3 * (time.perf_counter() - start):.1f} ms, once")
    print(f"  {len(grid.psi)} shapes on {grid.psi.shape[1]} knots\n")
    print("computing of one decision, 1 000 finished trials (memory storage, publishing off):")
    print(f"{'reports':>10s} {'horizon':>8s} {'median ms':>10s}")
    rng = np.random.default_rng(0)
    for n_reports, horizon in ((10, 100), (50, 100), (100, 200), (199, 200), (10_000, 12_000)):
        study = optuna.create_study()
        study.add_trials(filled(rng, 1_000, 100) if horizon < 1_000 else filled(rng, 50, horizon))
        pruner = LearningCurvePruner(n_steps=horizon, publish=False, ledger=False)
        values = curve(rng, horizon) * 0.9
        asked = study.ask()
        for step, value in enumerate(values[:n_reports].tolist()):
            asked.report(value, step)
        trial = study.get_trials(deepcopy=False)[-1]
        pruner.decide(study, trial)

        def decide(pruner=pruner, study=study, trial=trial) -> None:
            memo = pruner._memory.memo(study)
            memo.decisions.clear()
            pruner.prune(study, trial)

        print(f"{n_reports:10d} {horizon:8d} {median_ms(decide, repeats):10.2f}")
    print()


def many_running(repeats: int, n_steps: int = 100) -> None:
    """Computing of all decisions about one training, 64 others running."""
    print("computing of the decisions about one training of 100 reports, 64 others running:")
    print(f"{'finished':>9s} {'completed':>10s} {'median ms':>10s} {'mean ms':>8s} {'most ms':>8s}")
    for n_finished, n_complete in ((0, 0), (1_000, 10), (1_000, 250)):
        rng = np.random.default_rng(0)
        study = optuna.create_study()
        trials = filled(rng, 4 * n_finished, n_steps)
        complete = [t for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
        pruned = [t for t in trials if t.state == optuna.trial.TrialState.PRUNED]
        study.add_trials(complete[:n_complete] + pruned[: n_finished - n_complete])
        for _ in range(64):
            other = study.ask()
            for step, value in enumerate(curve(rng, n_steps)[: rng.integers(2, n_steps)].tolist()):
                other.report(value, step)
        times = np.empty((repeats, n_steps))
        # Hardly any risk: trials are timed to their end, so none may be pruned on the way.
        pruner = LearningCurvePruner(n_steps=n_steps, risk=1e-9, publish=False, ledger=False)
        for k in range(len(times)):
            asked = study.ask()
            for step, value in enumerate(curve(rng, n_steps).tolist()):
                asked.report(value, step)
                trial = study.get_trials(deepcopy=False)[-1]
                start = time.perf_counter()
                pruner.prune(study, trial)
                times[k, step] = 1e3 * (time.perf_counter() - start)
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        of_step = np.median(times, axis=0)[2:]
        print(
            f"{n_finished:9d} {n_complete:10d} {np.median(of_step):10.2f} {of_step.mean():8.2f} "
            f"{of_step.max():8.2f}"
        )
    print()


def memory() -> None:
    """Memory that a pruner holds after a decision in a study of 10 000 finished trials."""
    study = optuna.create_study()
    study.add_trials(filled(np.random.default_rng(0), 10_000, 100))
    pruner = LearningCurvePruner(n_steps=100, publish=False, ledger=False)
    trial = study.ask()
    trial.report(1.0, 0)
    trial.report(0.9, 1)
    shape_grid.cache_clear()
    frozen = study.get_trials(deepcopy=False)[-1]
    gc.collect()
    tracemalloc.start()
    pruner.decide(study, frozen)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(
        f"memory held after a decision, 10 000 finished trials of 100 reports: {now / 1e6:.1f} MB"
    )
    print(f"  at its peak during the decision: {peak / 1e6:.1f} MB\n")


@contextmanager
def storages(folder: Path, trials: list) -> Iterator[dict[str, object]]:
    """The same finished trials in memory, in an SQLite file and in a journal file."""
    memory = InMemoryStorage()
    journal = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    database = RDBStorage(f"sqlite:///{folder / 'study.db'}")
    for storage in (memory, journal):
        optuna.create_study(storage=storage, study_name="s").add_trials(trials)
    optuna.create_study(storage=database, study_name="s")
    _bulk_insert(folder / "study.db", trials)
    yield {"memory": memory, "SQLite": database, "journal": journal}
    database.remove_session()


def _bulk_insert(path: Path, trials: list) -> None:
    """Fill Optuna's tables directly: its own way takes minutes for 10 000 trials."""
    with sqlite3.connect(path) as connection:
        for number, trial in enumerate(trials):
            trial_id = number + 1
            connection.execute(
                "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, "
                "datetime_complete) VALUES (?, ?, 1, ?, '2026-01-01 00:00:00.000000', "
                "'2026-01-01 00:00:01.000000')",
                (trial_id, number, trial.state.name),
            )
            connection.execute(
                "INSERT INTO trial_values (trial_id, objective, value, value_type) "
                "VALUES (?, 0, ?, 'FINITE')",
                (trial_id, trial.value),
            )
            connection.executemany(
                "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, "
                "intermediate_value_type) VALUES (?, ?, ?, 'FINITE')",
                [(trial_id, s, v) for s, v in trial.intermediate_values.items()],
            )
    connection.close()


def should_prune(counts: list[int], n_reports: int, n_trials: int) -> None:
    """``should_prune`` as a whole, alternating with MedianPruner on the same study."""
    print(f"should_prune, median ms of {n_trials} running trials x {n_reports - 2} steps:")
    print(
        f"{'storage':>8s} {'finished':>9s} {'Median':>8s} {'ours':>8s} {'ratio':>6s} "
        f"{'silent':>8s} {'ratio':>6s} {'remote':>8s} {'ratio':>6s}"
    )
    for n_finished in counts:
        rng = np.random.default_rng(1)
        trials = filled(rng, n_finished, n_reports)
        with tempfile.TemporaryDirectory() as folder, storages(Path(folder), trials) as made:
            for name, storage in made.items():
                times = _race(storage, n_reports, n_trials, rng)
                base = times["median"]
                print(
                    f"{name:>8s} {n_finished:9d} {base:8.2f} {times['ours']:8.2f} "
                    f"{times['ours'] / base:6.2f} {times['silent']:8.2f} "
                    f"{times['silent'] / base:6.2f} {times['remote']:8.2f} "
                    f"{times['remote'] / base:6.2f}",
                    flush=True,
                )


def _race(
    storage: object, n_reports: int, n_trials: int, rng: np.random.Generator
) -> dict[str, float]:
    # threshold=0: the trials are timed to their end, so none may be pruned on the way.
    ours = {"n_steps": n_reports, "threshold": 0.0, "n_warmup_steps": 2, "n_startup_trials": 2}
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2),
        "ours": LearningCurvePruner(**ours),
        "silent": LearningCurvePruner(**ours, publish=False, ledger=False),
        "remote": RemotePruner(n_warmup_steps=2),
    }
    times: dict[str, list[float]] = {name: [] for name in pruners}
    for _ in range(n_trials):
        values = curve(rng, n_reports)
        running = {}
        for name, pruner in pruners.items():
            study = optuna.load_study(study_name="s", storage=storage, pruner=pruner)
            running[name] = study.ask()
        for step, value in enumerate(values[:-1]):
            for name, trial in running.items():
                trial.report(float(value), step)
                if name == "remote":
                    _forecast_elsewhere(storage, trial)
                start = time.perf_counter()
                trial.should_prune()
                if step >= 2:
                    times[name].append(1e3 * (time.perf_counter() - start))
        trial_attributes.writer().flush()
        ledger_writer.flush()
        for trial in running.values():
            trial.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return {name: float(np.median(values)) for name, values in times.items()}


def _forecast_elsewhere(storage: object, trial: optuna.Trial) -> None:
    """Write the verdict that a forecaster in another process would."""
    seen = storage.get_trial(trial._trial_id)
    decision = Decision(Reason.UNDECIDED, "", trial.number, 0.2, 0.04, 0.1, 0.2, 0.1, 0.3)
    verdict = remote_decision.RemoteVerdict.of(decision, seen)
    remote_decision.write(storage, trial._trial_id, verdict)


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--finished", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--reports", type=int, default=30, help="reports of a training")
    parser.add_argument("--trials", type=int, default=4, help="running trials timed")
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    computing(arguments.repeats)
    many_running(min(arguments.repeats, 5))
    memory()
    should_prune(arguments.finished, arguments.reports, arguments.trials)


if __name__ == "__main__":
    main()
