"""Many trials at once on one database: what a pruner costs a search that reports without a pause.

    python tests/bench/load.py --storage postgresql+psycopg2://user@host/database
    python tests/bench/load.py --storage sqlite:////tmp/load.db --processes 2 --trials 4

First a study is trained by ``--processes`` processes with ``--trials`` threads together, each
training ``--trainings`` trials one after the other and reporting as fast as it can: in turn without
a pruner, with Optuna's MedianPruner and with ours in the same process (with and without what it
writes), and remote, with a forecaster in a process beside. All are trained to the end, ours with
hardly any risk, MedianPruner's answers not followed; then every fourth counts as completed, the
others as pruned. Times are those of ``report`` and ``should_prune`` together. Each row is the
median of ``--rounds`` studies in the database given (by default that of the environment variable
``OPTUNA_LCPRUNER_TEST_POSTGRES``); they are deleted at the end. Statements are those sent to the
database by ``report``, by ``should_prune`` and in the background, for attributes and ledger.

Then the time of a decision over the number of finished trials: all of it, and what is left without
the reading of the study, while every tenth decision finds another trial finished.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter

import numpy as np
import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from speed import curve, filled

from optuna_lcpruner import LearningCurvePruner, RemotePruner
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import LedgerEntry

optuna.logging.set_verbosity(optuna.logging.ERROR)

SILENT = {
    "ours, no attributes": {"publish": False},
    "ours, no ledger": {"ledger": False},
    "ours, silent": {"publish": False, "ledger": False},
}
REMOTE = "ours, remote"
COLUMNS = ("none", "median", "ours", *SILENT, REMOTE)
RISK = 1e-9
"""So small that no trial is stopped; with a threshold early ranks would be left out."""

GOALS = {"ours": 1.3, REMOTE: 1.1}
"""What a column's 99 % quantile may be at most, in MedianPruner's."""


def pruner_of(column: str, n_reports: int) -> optuna.pruners.BasePruner:
    """The pruner of a column; none of them stops a trial here."""
    if column == "none":
        return optuna.pruners.NopPruner()
    if column == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=2)
    if column == REMOTE:
        return RemotePruner()
    settings = {"risk": RISK, "n_startup_trials": 2, **SILENT.get(column, {})}
    return LearningCurvePruner(n_reports, **settings)


class Statements:
    """Counts the statements that this process sends to any database."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.doing = threading.local()
        self._lock = threading.Lock()
        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        name = threading.current_thread().name
        what = name if name.startswith("lcpruner") else getattr(self.doing, "what", "other")
        with self._lock:
            self.counts[what] += 1


def worker(url: str, study_name: str, column: str, shape: Sequence[int]) -> None:
    """Train some trials in each thread; wait for a line before, print what was measured."""
    n_threads, n_trainings, n_reports = shape
    statements = Statements()
    storage = RDBStorage(url, engine_kwargs=engine_options(url))
    study = optuna.load_study(
        study_name=study_name, storage=storage, pruner=pruner_of(column, n_reports)
    )
    rng = np.random.default_rng(os.getpid())
    warm_up(study, curve(rng, n_reports))
    curves = [
        [curve(rng, n_reports).tolist() for _ in range(n_trainings)] for _ in range(n_threads)
    ]
    first = [study.ask() for _ in range(n_threads)]
    print("ready", flush=True)
    sys.stdin.readline()
    statements.counts.clear()
    start, cpu_start = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(n_threads) as pool:
        times = list(pool.map(partial(train, study, statements), first, curves))
    took = time.perf_counter() - start
    trial_attributes.writer().flush(60)
    ledger_writer.flush(60)
    cpu = time.process_time() - cpu_start
    ms = list(chain.from_iterable(times))
    answer = {"ms": ms, "took": took, "cpu": cpu, "statements": dict(statements.counts)}
    print(json.dumps(answer))


def engine_options(url: str) -> dict[str, object]:
    """A connection for each thread, which SQLAlchemy's default of 5 + 10 may not have."""
    return {} if url.startswith("sqlite") else {"pool_size": 20}


def warm_up(study: optuna.Study, values: np.ndarray) -> None:
    """Read the finished trials and set up what a first decision sets up."""
    trial = study.ask()
    for step, value in enumerate(values[:5].tolist()):
        trial.report(value, step)
        trial.should_prune()
    study.tell(trial, state=TrialState.FAIL)


def train(
    study: optuna.Study,
    statements: Statements,
    trial: optuna.Trial,
    curves: Sequence[Sequence[float]],
) -> list[float]:
    """A thread's trials, the first and its successors; milliseconds of each report and answer."""
    times = []
    for number, values in enumerate(curves):
        if number:
            trial = study.ask()
        for step, value in enumerate(values):
            start = time.perf_counter()
            statements.doing.what = "report"
            trial.report(value, step)
            statements.doing.what = "should_prune"
            trial.should_prune()
            times.append(1e3 * (time.perf_counter() - start))
        statements.doing.what = "other"
        if trial.number % 4:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, values[-1])
    return times


@dataclass(frozen=True)
class Measured:
    """What one study of one column gave.

    Attributes:
        rate: Reports per second, all processes together.
        p50: Median milliseconds of ``report`` and ``should_prune``.
        p99: Their 99 % quantile.
        cpu: Milliseconds of processor time a report, of the training processes.
        statements: Statements a report by who sent them.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    statements: dict[str, float]

    @classmethod
    def of(cls, answers: Sequence[dict]) -> Measured:
        ms = np.concatenate([answer["ms"] for answer in answers])
        counts = sum((Counter(answer["statements"]) for answer in answers), Counter())
        return cls(
            ms.size / max(answer["took"] for answer in answers),
            *np.quantile(ms, [0.5, 0.99]),
            1e3 * sum(answer["cpu"] for answer in answers) / ms.size,
            {name: count / ms.size for name, count in counts.items()},
        )

    @classmethod
    def median(cls, rounds: Sequence[Measured]) -> Measured:
        def middle(of: Callable[[Measured], float]) -> float:
            return float(np.median([of(one) for one in rounds]))

        names = {name for one in rounds for name in one.statements}
        return cls(
            *(middle(attrgetter(name)) for name in ("rate", "p50", "p99", "cpu")),
            {name: middle(lambda one, name=name: one.statements.get(name, 0.0)) for name in names},
        )


def measure(url: str, column: str, options: argparse.Namespace) -> Measured:
    """One study of one column."""
    with (
        study_of(url, options.finished, options.reports) as name,
        beside(url, name, column, options.reports),
    ):
        shape = (options.trials // options.processes, options.trainings, options.reports)
        own = [url, name, column, *map(str, shape)]
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", *own],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(options.processes)
        ]
        for process in workers:
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"a worker of column {column!r} failed")
        for process in workers:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [json.loads(process.communicate()[0]) for process in workers]
    return Measured.of(answers)


@contextmanager
def study_of(url: str, n_finished: int, n_reports: int) -> Iterator[str]:
    """The name of a study with finished trials, deleted at the end."""
    storage = RDBStorage(url)
    study = optuna.create_study(storage=storage)
    trials = filled(np.random.default_rng(1), n_finished, n_reports)
    fill(storage, study._study_id, trials)
    try:
        yield study.study_name
    finally:
        optuna.delete_study(study_name=study.study_name, storage=storage)
        if sqlalchemy.inspect(storage.engine).has_table(LedgerEntry.__tablename__):
            with storage.engine.begin() as connection:
                connection.execute(
                    sqlalchemy.delete(LedgerEntry).where(LedgerEntry.study == study.study_name)
                )
        storage.engine.dispose()


def fill(storage: RDBStorage, study_id: int, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
    """Write finished trials into Optuna's tables in one go: one by one they take minutes."""
    with storage.engine.begin() as connection:
        ids = []
        for number, trial in enumerate(trials):
            row = {"study_id": study_id, "number": number, "state": trial.state}
            row |= {"datetime_start": trial.datetime_start}
            row |= {"datetime_complete": trial.datetime_complete}
            made = connection.execute(sqlalchemy.insert(models.TrialModel).values(row))
            ids.append(made.inserted_primary_key[0])
        values = [
            {"trial_id": i, "objective": 0, "value": trial.value, "value_type": "FINITE"}
            for i, trial in zip(ids, trials, strict=True)
        ]
        reports = [
            {"trial_id": i, "step": step, "intermediate_value": value}
            | {"intermediate_value_type": "FINITE"}
            for i, trial in zip(ids, trials, strict=True)
            for step, value in trial.intermediate_values.items()
        ]
        if trials:
            connection.execute(sqlalchemy.insert(models.TrialValueModel), values)
            connection.execute(sqlalchemy.insert(models.TrialIntermediateValueModel), reports)


SERVE = "import sys; from optuna_lcpruner.cli.main import main; sys.exit(main())"


@contextmanager
def beside(url: str, study_name: str, column: str, n_reports: int) -> Iterator[None]:
    """The forecaster of a remote pruner, in a process of its own, once it answers."""
    if column != REMOTE:
        yield
        return
    settings = ["--n-steps", str(n_reports), "--risk", f"{RISK}", "--n-startup-trials", "2"]
    command = ["serve", "--storage", url, "--study", study_name, *settings]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_verdict(url, study_name)
        yield
    finally:
        process.terminate()
        process.wait(60)


def wait_for_verdict(url: str, study_name: str) -> None:
    """Until the forecaster has judged a trial of its own; an error after a minute."""
    storage = RDBStorage(url)
    study = optuna.load_study(study_name=study_name, storage=storage)
    trial = study.ask()
    for step in range(3):
        trial.report(1.0 - step / 10, step)
    end = time.monotonic() + 60
    while not storage.get_trial_system_attrs(trial._trial_id):
        if time.monotonic() > end:
            raise SystemExit("the forecaster does not answer")
        time.sleep(0.2)
    study.tell(trial, state=TrialState.FAIL)
    storage.engine.dispose()


def load(url: str, options: argparse.Namespace) -> None:
    """The table of the columns."""
    columns = options.columns
    print(
        f"{options.trials} trials at once in {options.processes} processes, {options.trainings} "
        f"after another of {options.reports} reports, {options.finished} finished before, "
        f"medians of {options.rounds} rounds"
    )
    rounds: dict[str, list[Measured]] = {column: [] for column in columns}
    for number in range(options.rounds):
        # Each column is early and late in turn: a machine tires.
        for column in np.roll(columns, number).tolist():
            rounds[column].append(measure(url, column, options))
    found = {column: Measured.median(rounds[column]) for column in columns}
    print(
        f"{'':20s} {'reports':>8s} {'p50':>8s} {'p99':>8s} {'p99 in':>8s} {'':>5s} "
        f"{'CPU ms':>8s}  statements a report\n"
        f"{'pruner':20s} {'per s':>8s} {'ms':>8s} {'ms':>8s} {'Median':>8s} {'goal':>5s} "
        f"{'a report':>8s}  "
        f"{'report':>7s} {'decision':>8s} {'attributes':>10s} {'ledger':>7s}"
    )
    for column, one in found.items():
        ratio = f"{one.p99 / found['median'].p99:8.2f}" if "median" in found else f"{'-':>8s}"
        sent = [
            one.statements.get(name, 0.0)
            for name in ("report", "should_prune", "lcpruner-attributes", "lcpruner-ledger")
        ]
        print(
            f"{column:20s} {one.rate:8.0f} {one.p50:8.1f} {one.p99:8.1f} {ratio} "
            f"{GOALS.get(column, ''):>5} {one.cpu:8.1f}  "
            f"{sent[0]:7.2f} {sent[1]:8.2f} {sent[2]:10.3f} {sent[3]:7.3f}"
        )
    print()


def growth(counts: Sequence[int], n_reports: int, repeats: int) -> None:
    """A decision's time over the number of finished trials, storage apart; in memory."""
    print(f"one decision at report {n_reports // 2} of {n_reports}, median and 99 % ms, in memory")
    print(f"{'finished':>9s} {'all':>8s} {'own work':>9s} {'99 %':>8s} {'of a new one':>13s}")
    for n_finished in counts:
        rng = np.random.default_rng(2)
        study = optuna.create_study()
        # All of them completed: of those the pruner reads every one.
        study.add_trials(completed(rng, n_finished, n_reports))
        later = completed(rng, repeats // 10 + 1, n_reports)
        reading: list[float] = []
        get_trials = study.get_trials

        def timed(get_trials=get_trials, reading=reading, **kwargs: object) -> list:
            start = time.perf_counter()
            try:
                return get_trials(**kwargs)
            finally:
                reading.append(1e3 * (time.perf_counter() - start))

        study.get_trials = timed
        pruner = LearningCurvePruner(
            n_reports, risk=RISK, n_startup_trials=2, publish=False, ledger=False
        )
        whole, own, after_new = [], [], []
        for number in range(repeats + 1):
            is_new = number % 10 == 5
            if is_new:
                study.add_trial(later.pop())
            values = curve(rng, n_reports)[: n_reports // 2].tolist()
            trial = optuna.trial.create_trial(
                state=TrialState.RUNNING, intermediate_values=dict(enumerate(values))
            )
            trial.number = n_finished + number  # not one that it has judged already
            start = time.perf_counter()
            pruner.decide(study, trial)
            took = 1e3 * (time.perf_counter() - start)
            if number == 0:
                continue  # it reads all of them
            whole.append(took)
            (after_new if is_new else own).append(took - reading[-1])
        print(
            f"{n_finished:9d} {np.median(whole):8.2f} {np.median(own):9.2f} "
            f"{np.quantile(own, 0.99):8.2f} {np.median(after_new):13.2f}",
            flush=True,
        )


def completed(rng: np.random.Generator, n: int, n_reports: int) -> list:
    """Completed trials."""
    return [
        optuna.trial.create_trial(
            value=float(values[-1]), intermediate_values=dict(enumerate(values.tolist()))
        )
        for values in (curve(rng, n_reports) for _ in range(n))
    ]


def environment(url: str) -> str:
    """The machine and the database in a line."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
    name = engine.dialect.name
    engine.dispose()
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, Optuna {optuna.__version__}, "
        f"{name} {version} on {sqlalchemy.make_url(url).host or 'a local file'}"
    )


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--storage", default=os.environ.get("OPTUNA_LCPRUNER_TEST_POSTGRES"))
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--trainings", type=int, default=2, help="trials of a thread")
    parser.add_argument("--reports", type=int, default=30, help="reports of a training")
    parser.add_argument("--finished", type=int, default=1_000, help="finished trials before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--columns", nargs="+", default=COLUMNS, choices=COLUMNS)
    parser.add_argument("--growth", type=int, nargs="*", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    if not options.storage:
        parser.error("--storage or OPTUNA_LCPRUNER_TEST_POSTGRES must say where to run")
    print(environment(options.storage))
    load(options.storage, options)
    growth(options.growth, options.reports, options.repeats)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        where, study_name, column, *shape = sys.argv[2:]
        worker(where, study_name, column, list(map(int, shape)))
    else:
        main()
