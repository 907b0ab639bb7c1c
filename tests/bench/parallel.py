"""Many workers at once on recorded studies: what a budget buys.

    python tests/bench/parallel.py STUDY.npz ... [--workers 8 32] [--budget 40] [--orders 3]
        [--hours 5] [--figure parallel.png]

W workers train the configurations of a recorded study (see ``replay.py``) in a random order through
one ``optuna.Study``, each the next one as soon as it is free. The steps of a configuration all take
the same time, drawn for it (log-normal, standard deviation of the logarithm 0.5), so trials end out
of order. The search ends once all workers together have spent the budget, in full trainings, or
with ``--hours`` by the clock, an hour being the time of a typical full training. Whichever it is,
the figure shows the regret against the hours that have passed.

    regret  (best of the file - best completed) / (best - median of the file), at most 1
    begun   trials begun
    whole   trials completed
"""

from __future__ import annotations

import argparse
import heapq
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.pruners import BasePruner
from optuna.trial import TrialState
from replay import Factory, ours, peers

from optuna_lcpruner import LearningCurvePruner


@dataclass(frozen=True)
class Search:
    """What a search by several workers came to."""

    regret: float
    begun: int
    whole: int
    course: tuple[tuple[float, float], ...]
    """Hours passed and regret from then on, whenever it fell."""


def search(
    curves: np.ndarray,
    maximize: bool,
    pruner: BasePruner,
    n_workers: int,
    budget: float,
    hours: float,
    seed: int,
    watch: Callable[[optuna.Study, optuna.Trial], None] | None = None,
) -> Search:
    """Let the workers train until the budget or the time is spent.

    Args:
        curves: Shape (n_configurations, n_steps), in the order they are begun.
        maximize: The direction.
        pruner: The pruner, shared by the workers.
        n_workers: How many.
        budget: Full trainings' worth of steps.
        hours: Times of a typical full training.
        seed: Of the durations.
        watch: Is shown each trial after each report.
    """
    study = optuna.create_study(
        study_name=f"order {seed}",  # brackets follow from the name
        direction="maximize" if maximize else "minimize",
        pruner=pruner,
    )
    n_configurations, n_steps = curves.shape
    seconds = np.random.default_rng(seed).lognormal(0.0, 0.5, n_configurations)
    left = int(budget * n_steps)
    completed: list[tuple[float, float]] = []  # when, value
    # (when the next step is done, configuration, steps done, trial)
    queue: list[tuple[float, int, int, optuna.Trial]] = []
    begun = 0

    def begin(now: float) -> None:
        nonlocal begun
        if begun < n_configurations:
            heapq.heappush(queue, (now + seconds[begun], begun, 0, study.ask()))
            begun += 1

    for _ in range(n_workers):
        begin(0.0)
    while queue and left > 0:
        now, i, step, trial = heapq.heappop(queue)
        if now > hours * n_steps:
            break
        left -= 1
        value = float(curves[i, step])
        trial.report(value, step)
        stopped = trial.should_prune()
        if watch is not None:
            watch(study, trial)
        if stopped:
            study.tell(trial, state=TrialState.PRUNED)
        elif step + 1 < n_steps:
            heapq.heappush(queue, (now + seconds[i], i, step + 1, trial))
            continue
        elif np.isfinite(value):
            study.tell(trial, value)
            completed.append((now / n_steps, value))
        else:
            study.tell(trial, state=TrialState.FAIL)
        begin(now)
    sign = 1.0 if maximize else -1.0
    ends = sign * curves[:, -1]
    ends = ends[np.isfinite(ends)]
    span = max(float(ends.max() - np.median(ends)), 1e-12)
    course = [(0.0, 1.0)]
    for now, value in completed:
        regret = min((float(ends.max()) - sign * value) / span, 1.0)
        if regret < course[-1][1]:
            course.append((now, regret))
    return Search(course[-1][1], begun, len(completed), tuple(course))


def factories() -> dict[str, Factory]:
    """The pruners by name."""
    return {
        **peers(),
        **ours(),
        "not_compared": lambda n: LearningCurvePruner(n, publish=False, compare_running=False),
    }


def searches(
    path: Path, order: int, names: list[str], workers: list[int], budget: float, hours: float
) -> dict:
    """All searches through one study in one order, by pruner and number of workers."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with np.load(path, allow_pickle=True) as study:
        curves, maximize = study["curves"].astype(float), bool(study["maximize"])
    curves = curves[np.random.default_rng(order).permutation(len(curves))]
    made = factories()
    return {
        (n, name): search(curves, maximize, made[name](curves.shape[1]), n, budget, hours, order)
        for n in workers
        for name in names
    }


def main() -> None:
    """Print a table for each number of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--workers", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--budget", type=float, default=40.0)
    parser.add_argument("--hours", type=float, default=np.inf)
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    names = ["none", "median_w3", "halving_eta4", "hyperband", "not_compared", "default"]
    parser.add_argument("--pruners", nargs="+", choices=sorted(factories()), default=names)
    arguments = parser.parse_args()
    run = partial(
        searches,
        names=arguments.pruners,
        workers=arguments.workers,
        budget=arguments.budget,
        hours=arguments.hours,
    )
    cases = [(path, order) for path in arguments.studies for order in range(arguments.orders)]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(run, *zip(*cases, strict=True)))
    until = f"budget {arguments.budget:g}"
    if np.isfinite(arguments.hours):
        until += f", {arguments.hours:g} hours"
    print(f"{len(arguments.studies)} studies, {arguments.orders} orders, {until}")
    for n in arguments.workers:
        print(
            f"\n{n} workers\n{'pruner':16s} {'regret':>7s} {'+-':>6s} {'begun':>6s} {'whole':>6s}"
        )
        for name in arguments.pruners:
            found = [result[n, name] for result in results]
            regret = np.array([one.regret for one in found])
            error = regret.std() / np.sqrt(len(regret))
            begun = np.mean([one.begun for one in found])
            whole = np.mean([one.whole for one in found])
            print(f"{name:16s} {regret.mean():7.4f} {error:6.4f} {begun:6.1f} {whole:6.1f}")
    if arguments.figure is not None:
        draw(arguments.figure, results, arguments.workers, arguments.pruners)


def draw(path: Path, results: list[dict], workers: list[int], names: list[str]) -> None:
    """Draw the mean regret against time, a panel for each number of workers."""
    figure = Figure(figsize=(4.2 * len(workers), 3.4), layout="constrained")
    panels = figure.subplots(1, len(workers), sharey=True, squeeze=False)[0]
    for panel, n in zip(panels, workers, strict=True):
        last = max(result[n, name].course[-1][0] for result in results for name in names)
        hours = np.linspace(0.0, last, 200)
        for name in names:
            courses = [np.array(result[n, name].course) for result in results]
            at = [c[np.searchsorted(c[:, 0], hours, "right") - 1, 1] for c in courses]
            width = 2.2 if name == "default" else 1.2
            panel.plot(hours, np.mean(at, axis=0), label=name, linewidth=width)
        panel.set(title=f"{n} workers", xlabel="hours (typical full trainings)")
    panels[0].set(ylabel="regret", ylim=(0.0, None))
    panels[-1].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
