"""Real searches: samplers propose, networks and trees are trained, pruners stop.

    python tests/bench/closed_loop.py [--samplers random tpe gp] [--pruners none median_w3 default]
    python tests/bench/closed_loop.py --seeds 10 --budget 20 --jobs 2 --per-task --figure loop.png

Each search has the same budget of epochs, in full trainings' worth (``--budget``); a training that
the end of the budget cuts off does not count. The trainings are tasks of ``tests/recorded``, their
seeds differ from search to search. What is printed is the best value of the completed trials as

    regret = (best recorded - best found) / (best recorded - median recorded)

where best and median are those of the 240 random configurations recorded there: 0 is as good as
the best of these, 1 as the median one, below 0 is better than all of them.

The sampler ``gp`` needs PyTorch, ``cmaes`` the package cmaes. A name with ``_forecast`` after it:
the same sampler, learning from pruned trials by their forecasts (``ForecastSampler``). Pruners are
named as in ``replay.py``.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import optuna
from replay import ours, peers
from threadpoolctl import threadpool_limits

from optuna_lcpruner import ForecastSampler

RECORDED = Path(__file__).parents[1] / "recorded"
sys.path.insert(0, str(RECORDED))
from record import TASKS, Settings, Task  # noqa: E402

BY_NAME = {task.name: task for task in TASKS}
QUICK = ("cancer", "diabetes", "friedman", "friedman_boosting")
"""Tasks of at most 0.2 s a training."""

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=False),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}
SAMPLERS |= {
    f"{name}_forecast": lambda seed, make=make: ForecastSampler(make(seed))
    for name, make in SAMPLERS.items()
    if name != "random"
}
NEEDS = {"gp": "torch", "cmaes": "cmaes"}
"""What a sampler needs beyond Optuna."""
SHARES = (0.25, 0.5, 1.0)
"""Shares of the budget at which the best value is printed."""


@dataclass(frozen=True)
class Search:
    """One search: the epochs spent and the value of each completed trial, in turn."""

    task: str
    sampler: str
    pruner: str
    seed: int
    budget: int
    n_trials: int
    completed: tuple[tuple[int, float], ...]

    def best(self, share: float) -> float:
        """Best value once this share of the budget is spent; NaN if nothing is completed."""
        maximize = metric_of(BY_NAME[self.task])[1]
        values = [value for spent, value in self.completed if spent <= share * self.budget]
        return (max if maximize else min)(values) if values else float("nan")

    def regret(self, share: float) -> float:
        """The best value as a regret, 1 if nothing is completed, at most 1."""
        best, median = recorded(self.task)
        got = self.best(share)
        return min(1.0, (best - got) / (best - median)) if np.isfinite(got) else 1.0


def metric_of(task: Task) -> tuple[str, bool]:
    """The metric that is tuned, the last of a task, and whether larger is better."""
    return list(task.maximize.items())[-1]


def recorded(name: str) -> tuple[float, float]:
    """Best and median final value of the recorded configurations of a task."""
    metric, maximize = metric_of(BY_NAME[name])
    final = np.load(RECORDED / f"{name}_{metric}.npz")["curves"][:, -1].astype(float)
    return float((np.nanmax if maximize else np.nanmin)(final)), float(np.nanmedian(final))


def can_run(sampler: str) -> bool:
    """Whether what a sampler needs is installed."""
    needed = NEEDS.get(sampler.removesuffix("_forecast"))
    return needed is None or importlib.util.find_spec(needed) is not None


def suggest(trial: optuna.Trial, space: dict) -> Settings:
    """Hyper-parameters of a task: numbers of a list by their place in it."""
    settings: Settings = {}
    for name, values in space.items():
        if isinstance(values, tuple):
            settings[name] = trial.suggest_float(name, *values, log=True)
        elif len(values) == 1:
            settings[name] = values[0]
        elif isinstance(values[0], str):
            settings[name] = trial.suggest_categorical(name, values)
        else:
            settings[name] = values[trial.suggest_int(name, 0, len(values) - 1)]
    return settings


class BudgetSpentError(Exception):
    """Ends a search."""


def search(task_name: str, sampler: str, pruner: str, seed: int, budget: float) -> Search:
    """Run one search until its budget of epochs is spent."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.simplefilter("ignore")
    task = BY_NAME[task_name]
    metric, maximize = metric_of(task)
    n_epochs, spent = round(budget * task.n_steps), 0
    completed: list[tuple[int, float]] = []
    study = optuna.create_study(
        direction="maximize" if maximize else "minimize",
        sampler=SAMPLERS[sampler](seed),
        pruner=(peers() | ours(publish=True))[pruner](task.n_steps),
    )

    def objective(trial: optuna.Trial) -> float:
        nonlocal spent
        settings = suggest(trial, task.space)
        training = task.train(settings, 10_000 * seed + trial.number, task.n_steps)
        value = float("nan")
        for step, metrics in enumerate(itertools.islice(training, task.n_steps)):
            if spent == n_epochs:
                raise BudgetSpentError
            spent += 1
            value = float(metrics[metric])
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
            if not np.isfinite(value):
                return value  # diverged: the trial fails
        completed.append((spent, value))
        return value

    with np.errstate(all="ignore"), threadpool_limits(1):
        while spent < n_epochs:
            try:
                study.optimize(objective, n_trials=1)
            except BudgetSpentError:
                break
    return Search(task_name, sampler, pruner, seed, n_epochs, len(study.trials), tuple(completed))


def run_all(
    kinds: list[tuple[str, str, str, int]], budget: float, jobs: int, path: Path | None
) -> list[Search]:
    """All searches, in this order; those kept in the file are not run again, others are added."""
    kept = path.read_text().splitlines() if path and path.exists() else []
    done: dict[tuple, Search] = {}
    for fields in map(json.loads, kept):
        got = Search(**fields | {"completed": tuple(map(tuple, fields["completed"]))})
        if got.budget == round(budget * BY_NAME[got.task].n_steps):
            done[got.task, got.sampler, got.pruner, got.seed] = got
    with ProcessPoolExecutor(jobs) as workers:
        running = {
            workers.submit(search, *kind, budget): kind for kind in kinds if kind not in done
        }
        for future in as_completed(running):
            done[running[future]] = got = future.result()
            if path:
                with path.open("a") as file:
                    file.write(json.dumps(asdict(got)) + "\n")
    return [done[kind] for kind in kinds]


def table(searches: list[Search], budget: float) -> Iterable[str]:
    """One line a sampler and pruner: mean regrets, the last with its standard error, and trials."""
    at = " ".join(f"{f'at {share * budget:g}':>7s}" for share in SHARES)
    yield f"{'sampler':14s} {'pruner':18s} {at} {'+-':>6s} {'trials':>6s} {'done':>5s} searches"
    for sampler, pruner in dict.fromkeys((s.sampler, s.pruner) for s in searches):
        mine = [s for s in searches if (s.sampler, s.pruner) == (sampler, pruner)]
        regrets = np.array([[s.regret(share) for share in SHARES] for s in mine])
        cells = " ".join(f"{regret:7.3f}" for regret in regrets.mean(axis=0))
        error = regrets[:, -1].std() / np.sqrt(len(mine))
        trials, done = np.mean([(s.n_trials, len(s.completed)) for s in mine], axis=0)
        yield (
            f"{sampler:14s} {pruner:18s} {cells} {error:6.3f} {trials:6.0f} {done:5.0f} "
            f"{len(mine):8d}"
        )


def differences(searches: list[Search], budget: float) -> Iterable[str]:
    """Regret with forecasts handed to the sampler minus that without, search by search."""
    by_key = {(s.sampler, s.pruner, s.task, s.seed): s for s in searches}
    cells = " ".join(f"{f'at {share * budget:g}':>16s}" for share in SHARES)
    rows = [f"{'sampler':8s} {'pruner':18s} {cells} better worse searches"]
    for sampler, pruner in dict.fromkeys((s.sampler, s.pruner) for s in searches):
        pairs = [
            (handed_on, s)
            for s in searches
            if (s.sampler, s.pruner) == (sampler, pruner)
            and (handed_on := by_key.get((f"{sampler}_forecast", pruner, s.task, s.seed)))
        ]
        if not pairs:
            continue
        change = np.array([[a.regret(at) - b.regret(at) for at in SHARES] for a, b in pairs])
        errors = change.std(axis=0) / np.sqrt(len(pairs))
        cells = " ".join(
            f"{mean:+6.3f} +- {error:.3f}" + 2 * " "
            for mean, error in zip(change.mean(axis=0), errors, strict=True)
        )
        better, worse = np.count_nonzero([change[:, -1] < 0, change[:, -1] > 0], axis=1)
        rows.append(f"{sampler:8s} {pruner:18s} {cells} {better:6d} {worse:5d} {len(pairs):8d}")
    if len(rows) > 1:
        yield "\nregret with forecasts handed on, minus that without"
        yield from rows


def draw(searches: list[Search], budget: float, path: Path) -> None:
    """Mean regret against the epochs spent, a panel a sampler."""
    from matplotlib.figure import Figure

    samplers = list(dict.fromkeys(s.sampler for s in searches))
    figure = Figure(figsize=(4 * len(samplers), 3.6), layout="constrained")
    panels = figure.subplots(1, len(samplers), sharey=True, squeeze=False)[0]
    shares = np.linspace(0.05, 1, 96)
    for axes, sampler in zip(panels, samplers, strict=True):
        for pruner in dict.fromkeys(s.pruner for s in searches):
            mine = [s for s in searches if (s.sampler, s.pruner) == (sampler, pruner)]
            regret = [np.mean([s.regret(share) for s in mine]) for share in shares]
            bold = 2.2 if pruner == "default" else 1.0
            axes.plot(shares * budget, regret, label=pruner, lw=bold)
        axes.set(title=sampler, xlabel="full trainings' worth of epochs")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="regret of the best value")
    panels[-1].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Parse arguments, search, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = peers() | ours()
    parser.add_argument("--tasks", nargs="+", choices=BY_NAME, default=QUICK, metavar="TASK")
    parser.add_argument(
        "--samplers",
        nargs="+",
        choices=SAMPLERS,
        default=[name for name in SAMPLERS if can_run(name)],
    )
    parser.add_argument(
        "--pruners",
        nargs="+",
        choices=known,
        default=["none", "median_w3", "hyperband", "halving_eta4", "default"],
        metavar="PRUNER",
    )
    parser.add_argument("--seeds", type=int, default=10, help="searches of each kind")
    parser.add_argument("--budget", type=float, default=20, help="full trainings' worth of epochs")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--per-task", action="store_true", help="a table for each task as well")
    parser.add_argument("--json", type=Path, help="keep searches in this file, go on from it")
    parser.add_argument("--figure", type=Path, help="draw regret against epochs")
    arguments = parser.parse_args()
    kinds = itertools.product(
        arguments.tasks, arguments.samplers, arguments.pruners, range(arguments.seeds)
    )
    searches = run_all(list(kinds), arguments.budget, arguments.jobs, arguments.json)
    if arguments.per_task:
        for task in arguments.tasks:
            best, median = recorded(task)
            print(f"\n{task}: best recorded {best:.4g}, median {median:.4g}")
            print("\n".join(table([s for s in searches if s.task == task], arguments.budget)))
        print("\nall tasks")
    print("\n".join([*table(searches, arguments.budget), *differences(searches, arguments.budget)]))
    if arguments.figure:
        draw(searches, arguments.budget, arguments.figure)


if __name__ == "__main__":
    main()
