"""Trainings that take different times: what ``cost="time"`` buys.

    python tests/bench/seconds.py [--task NAME ...] [--orders 4] [--trials 240] [--budget 20]

The networks of ``tests/recorded`` differ up to a hundredfold in the time an epoch takes, by width,
layers and batch size. That time is measured here, over three epochs of each configuration; how each
training went on was recorded. They are replayed in random orders, one after the other, until the
time is up, in full trainings of average pace.

    spread  the 90th percentile of the time an epoch takes, by the 10th
    begun   trials begun
    whole   trials completed
    regret  (best - best completed) / (best - median) of the study, at most 1
    better  difference of the regret to that of ``cost="steps"`` and its standard error over studies
            and orders; below zero where ``cost="time"`` does better
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import optuna

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.backtest.data import RecordedStudy, RecordedTrial, recorded
from optuna_lcpruner.backtest.replay import replay

RECORDED = Path(__file__).parents[1] / "recorded"
sys.path.insert(0, str(RECORDED))

from record import TASKS, train_network  # noqa: E402

PRUNERS = {
    "none": lambda n: optuna.pruners.NopPruner(),
    "median_w3": lambda n: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=3),
    "steps": lambda n: LearningCurvePruner(n, publish=False, ledger=False),
    "time": lambda n: LearningCurvePruner(n, cost="time", publish=False, ledger=False),
}

_EPOCHS = 3


def seconds_per_epoch(task: str) -> np.ndarray:
    """Time of an epoch of each configuration of a task, shape (n_configurations,)."""
    task = next(one for one in TASKS if one.name == task)
    n = len(np.load(RECORDED / f"{task.name}_{next(iter(task.maximize))}.npz")["curves"])
    task.curves(0, 1)  # loads the data
    took = []
    for number in range(n):
        start = time.perf_counter()
        task.curves(number, _EPOCHS)
        took.append((time.perf_counter() - start) / _EPOCHS)
    return np.array(took)


def study_of(path: Path, seconds: np.ndarray, order: np.ndarray) -> RecordedStudy:
    """A recorded study, its trainings in this order and with the time that they take."""
    with np.load(path) as data:
        curves, maximize = data["curves"].astype(float), bool(data["maximize"])
    n_steps = curves.shape[1]
    trials = [
        RecordedTrial(
            number,
            tuple(range(n_steps)),
            tuple(curves[i].tolist()),
            float(curves[i, -1]),
            seconds=n_steps * float(seconds[i]),
        )
        for number, i in enumerate(order)
    ]
    return recorded(path.stem, maximize, trials)


def search(study: RecordedStudy, name: str, budget: float) -> tuple[float, int, int]:
    """Regret, trials begun and completed once the time is up."""
    pruner = PRUNERS[name](study.n_steps)
    ran = replay(study, range(len(study.trials)), pruner, study_name=study.name)
    pace = np.array(study.step_times)[list(ran.trials)]
    left = budget * study.n_steps * float(np.mean(study.step_times))
    ended = np.cumsum(pace * np.array(ran.spent))
    begun = int(np.searchsorted(ended, left)) + 1
    sign = 1.0 if study.maximize else -1.0
    final = sign * np.array([trial.value for trial in study.trials])
    whole = (ended <= left) & ~np.array(ran.pruned) & np.isfinite(final[list(ran.trials)])
    finite = final[np.isfinite(final)]
    if not np.any(whole):
        return 1.0, begun, 0
    got = final[list(ran.trials)][whole].max()
    regret = (finite.max() - got) / (finite.max() - np.median(finite))
    return min(float(regret), 1.0), begun, int(whole.sum())


def main() -> None:
    """Parse arguments, measure, replay, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=4, help="random orders of each study")
    parser.add_argument("--trials", type=int, default=240, help="configurations of an order")
    parser.add_argument("--budget", type=float, default=20.0, help="full trainings' time")
    networks = [task for task in TASKS if getattr(task.train, "func", None) is train_network]
    names = [task.name for task in networks]
    parser.add_argument("--task", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    tasks = [task for task in networks if task.name in arguments.task]
    results: dict[str, list[tuple[float, int, int]]] = {name: [] for name in PRUNERS}
    print(f"{'regret':20s} {'spread':>6s} " + " ".join(f"{name:>9s}" for name in PRUNERS))
    for task in tasks:
        seconds = seconds_per_epoch(task.name)
        spread = np.divide(*np.quantile(seconds, [0.9, 0.1]))
        for metric in task.maximize:
            path = RECORDED / f"{task.name}_{metric}.npz"
            for order in range(arguments.orders):
                chosen = np.random.default_rng(order).permutation(len(seconds))[: arguments.trials]
                study = study_of(path, seconds, chosen)
                for name, found in results.items():
                    found.append(search(study, name, arguments.budget))
            means = [np.mean([r[0] for r in v[-arguments.orders :]]) for v in results.values()]
            row = " ".join(f"{mean:9.3f}" for mean in means)
            print(f"{path.stem:20s} {spread:6.1f} {row}", flush=True)
    print(f"\n{'all':10s} {'regret':>7s} {'better':>16s} {'begun':>6s} {'whole':>6s}")
    steps = np.array(results["steps"])[:, 0]
    for name, found in results.items():
        regret, begun, whole = np.array(found).T
        apart = regret - steps
        error = apart.std(ddof=1) / np.sqrt(len(apart))
        print(
            f"{name:10s} {regret.mean():7.3f} {apart.mean():+8.3f} +- {error:.3f} "
            f"{begun.mean():6.1f} {whole.mean():6.1f}"
        )


if __name__ == "__main__":
    main()
