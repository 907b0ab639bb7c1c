"""Does memory stay flat? Trainers and a forecaster at work for minutes, their memory each minute.

    python tests/bench/soak.py --minutes 10
    python tests/bench/soak.py --minutes 10 --storage postgresql://...

Two trainers with ``RemotePruner`` train without end, ``optuna-lcpruner serve`` forecasts. After
some trials a study is deleted and the next begins, so that what may grow is what this package
remembers, not Optuna's cache of an ever larger study. Memory is what Linux calls VmRSS. The last
lines compare the two halves of the time after the first fifth, in which caches fill.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from optuna_lcpruner import RemotePruner

N_STEPS = 30
SERVE = (
    "import sys; from optuna_lcpruner.cli.main import main; "
    "sys.exit(main(['serve', *sys.argv[1:]]))"
)


def train(url: str, trainer: int, trials_a_study: int, pause: float, pruned: bool) -> None:
    """Studies one after the other, until the process is ended; counts on stdout."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng(trainer)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if pruned:
        pruner = RemotePruner(forecaster_timeout=3600.0)

    def objective(trial: Trial) -> float:
        end, rate = trial.suggest_float("end", 0.3, 0.9), trial.suggest_float("rate", 1.0, 6.0)
        value = 0.0
        for step in range(N_STEPS):
            time.sleep(pause)
            value = end * (1 - np.exp(-rate * (step + 1) / N_STEPS)) + rng.normal(0, 0.005)
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(value)

    for n in range(10**9):
        study = optuna.create_study(
            study_name=f"soak-{trainer}-{n}",
            storage=url,
            direction="maximize",
            pruner=pruner,
            sampler=optuna.samplers.RandomSampler(seed=n),
        )
        study.optimize(objective, n_trials=trials_a_study)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        optuna.delete_study(study_name=study.study_name, storage=url)
        print(json.dumps({"trials": len(states), "pruned": states.count(TrialState.PRUNED),
                          "lost": states.count(TrialState.FAIL)}), flush=True)  # fmt: skip


def resident(pid: int) -> float:
    """Memory of a process in MB; NaN once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return float("nan")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found.group(1)) / 1024 if found else float("nan")


class Process:
    """A process whose lines are counted: trials of a trainer, warnings of a forecaster."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name, self.memory = name, []
        self.trials = self.pruned = self.lost = 0
        self.warnings: list[str] = []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                counts = json.loads(line)
                self.trials += counts["trials"]
                self.pruned += counts["pruned"]
                self.lost += counts["lost"]
            elif not re.search(r" info ", line):
                self.warnings.append(line.rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two lines")
    parser.add_argument("--storage", help="database URL (default: an SQLite file)")
    parser.add_argument("--trials", type=int, default=40, help="trials of a study")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds of a training step")
    parser.add_argument("--no-pruner", action="store_true", help="trainers without one, to compare")
    parser.add_argument("--trainer", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trainer is not None:
        pruned = not arguments.no_pruner
        train(arguments.storage, arguments.trainer, arguments.trials, arguments.pause, pruned)
        return
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.storage or f"sqlite:///{folder}/soak.db"
        optuna.storages.RDBStorage(url)
        script = str(Path(__file__).resolve())
        options = ["--storage", url, "--trials", str(arguments.trials)]
        options += ["--pause", str(arguments.pause)]
        options += ["--no-pruner"] if arguments.no_pruner else []
        serving = ["--storage", url, "--interval", "0.1", "--n-steps", str(N_STEPS)]
        processes = [
            *(Process(f"trainer {i}", [script, "--trainer", str(i), *options]) for i in (1, 2)),
            Process("forecaster", ["-c", SERVE, *serving]),
        ]
        try:
            watch(processes, arguments.minutes * 60.0, arguments.every)
        finally:
            for process in processes:
                process.process.terminate()
            for process in processes:
                process.process.wait(60)
    summary(processes)


def watch(processes: list[Process], seconds: float, every: float) -> None:
    header = ["minute", *(process.name for process in processes), "trials", "pruned", "lost"]
    print("  ".join(f"{name:>12}" for name in header))
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(min(every, seconds))
        for process in processes:
            process.memory.append(resident(process.process.pid))
        row = [f"{(time.monotonic() - began) / 60:.1f}"]
        row += [f"{process.memory[-1]:.1f} MB" for process in processes]
        row += [
            str(sum(getattr(p, name) for p in processes)) for name in ("trials", "pruned", "lost")
        ]
        print("  ".join(f"{cell:>12}" for cell in row), flush=True)


def summary(processes: list[Process]) -> None:
    for process in processes:
        memory = np.array(process.memory[len(process.memory) // 5 :])
        first, second = memory[: len(memory) // 2], memory[len(memory) // 2 :]
        if len(first):
            print(f"{process.name}: mean {first.mean():.1f} MB, then {second.mean():.1f} MB")
    warnings = [line for process in processes for line in process.warnings]
    print(f"warnings: {len(warnings)}")
    for line in warnings[:10]:
        print(f"  {line}")


if __name__ == "__main__":
    main()
