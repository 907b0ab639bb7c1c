"""Going on with pruned trials from their checkpoints: what it brings at equal budgets.

    python tests/bench/resume.py STUDY.npz ... [--budget 20] [--orders 2] [--sampler random tpe]

The configurations of a recorded study (see ``replay.py``) are run one after another, in a random
order or as TPESampler proposes them, through LearningCurvePruner, with ResumeCallback and without.
A trial that goes on costs only the steps that it had not made. A search ends at the very step at
which the budget, in full trainings, is spent.

    regret   (best of the file - best completed) / (best - median of the file), at most 1
    +-       its standard error, over the searches
    more     regret with ResumeCallback minus that without, and its standard error, search by search
    better   searches that ended with less regret for it, and worse, with more
    resumed  trials that went on, of one search, and whole, those of them that completed
    won      of all searches those whose best trial had gone on
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState
from replay import Space, finish

from optuna_lcpruner import LearningCurvePruner, ResumeCallback, resumed_from


@dataclass(frozen=True)
class Search:
    """What a search came to."""

    regret: float
    resumed: int
    whole: int
    won: bool


class Next:
    """Which configuration is trained next, in which trial."""

    def __init__(self, n: int, space: Space | None, study: optuna.Study) -> None:
        self._left, self._space, self._study = np.arange(n), space, study
        # What the sampler asks for is a trial too, but none of the study's.
        self._wishes = optuna.create_study(direction=study.direction, sampler=study.sampler)
        self._distributions = {} if space is None else space.distributions
        self.of_trial: dict[int, int] = {}

    def ask(self) -> tuple[optuna.Trial, int, int] | None:
        """The trial, its configuration and its first step; None when there are no more."""
        if self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = self._study.ask(self._distributions)
            point = resumed_from(trial)
            chosen, first = self.of_trial[point.number], point.step + 1
        elif self._left.size:
            chosen, first = int(self._left[0]), 0
            if self._space is not None:
                wish = self._wishes.ask(self._distributions)
                chosen = self._space.nearest(wish.params, self._left)
                self._wishes.tell(wish, state=TrialState.FAIL)
                self._study.enqueue_trial(self._space.params[chosen])
            self._left = self._left[self._left != chosen]
            trial = self._study.ask(self._distributions)
        else:
            return None
        self.of_trial[trial.number] = chosen
        return trial, chosen, first

    def tell(self, number: int) -> optuna.trial.FrozenTrial:
        """Show the sampler a trial that has ended."""
        ended = self._study.get_trials(deepcopy=False)[number]
        if self._space is not None:
            self._wishes.add_trial(ended)
        return ended


def search(
    curves: np.ndarray, space: Space | None, maximize: bool, budget: float, seed: int, resume: bool
) -> Search:
    """Train until the budget is spent.

    Args:
        curves: Shape (n_configurations, n_steps).
        space: Their hyper-parameters, for the sampler to choose by; None: in turn.
        maximize: The direction.
        budget: Full trainings' worth of steps.
        seed: Of the sampler.
        resume: Whether pruned trials may go on.
    """
    n, n_steps = curves.shape
    pruner = LearningCurvePruner(n_steps)
    study = optuna.create_study(
        direction="maximize" if maximize else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=pruner,
    )
    callback, coming = ResumeCallback(pruner), Next(n, space, study)
    left = int(budget * n_steps)
    while left > 0 and (asked := coming.ask()) is not None:
        trial, chosen, first = asked
        stopped, curve = False, curves[chosen]
        for step in range(first, min(n_steps, first + left)):
            left -= 1
            trial.report(float(curve[step]), step)
            if trial.should_prune():
                stopped = True
                break
        if stopped or step + 1 == n_steps:
            finish(study, trial, curve, stopped)
            ended = coming.tell(trial.number)
            if resume:
                callback(study, ended)
    return judged(study, curves, maximize)


def judged(study: optuna.Study, curves: np.ndarray, maximize: bool) -> Search:
    """What the study came to, of a file with these curves."""
    sign = 1.0 if maximize else -1.0
    ends = sign * curves[np.isfinite(curves[:, -1]), -1]
    span = max(float(ends.max() - np.median(ends)), 1e-12)
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = max(completed, key=lambda trial: sign * trial.value, default=None)
    gap = np.inf if best is None else float(ends.max()) - sign * best.value
    resumed = [t for t in study.get_trials(deepcopy=False) if resumed_from(t) is not None]
    return Search(
        min(1.0, gap / span),
        sum(trial.state != TrialState.WAITING for trial in resumed),
        sum(trial.state == TrialState.COMPLETE for trial in resumed),
        best is not None and resumed_from(best) is not None,
    )


def both(path: Path, order: int, sampler: str, budget: float) -> tuple[Search, Search]:
    """One study in one order, without the callback and with it."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with np.load(path, allow_pickle=True) as study:
        curves, maximize = study["curves"].astype(float), bool(study["maximize"])
        shuffled = np.random.default_rng(order).permutation(len(curves))
        space = Space(study["hp_json"][shuffled]) if sampler == "tpe" else None
    run = partial(search, curves[shuffled], space, maximize, budget, order)
    with_it = run(True)
    # Where nothing went on it is the same search.
    return (run(False) if with_it.resumed else with_it), with_it


def row(name: str, pairs: list[tuple[Search, Search]]) -> str:
    """A line of the table."""
    regret = np.array([[search.regret for search in pair] for pair in pairs])
    more = regret[:, 1] - regret[:, 0]
    mean, error = regret.mean(axis=0), regret.std(axis=0) / np.sqrt(len(pairs))
    resumed, whole, won = (
        np.mean([getattr(pair[1], key) for pair in pairs]) for key in ("resumed", "whole", "won")
    )
    return (
        f"{name:22s} {mean[0]:7.4f} {error[0]:6.4f} {mean[1]:7.4f} {error[1]:6.4f} "
        f"{more.mean():+7.4f} {more.std() / np.sqrt(len(more)):6.4f} "
        f"{np.sum(more < 0):6d} {np.sum(more > 0):5d} {resumed:7.2f} {whole:5.2f} {won:5.2f} "
        f"{len(pairs):8d}"
    )


def main() -> None:
    """Print a line for each folder and sampler, and one for all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--budget", type=float, default=20.0, help="full trainings")
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--sampler", nargs="+", choices=("random", "tpe"), default=["random"])
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    cases = [
        (path, order, sampler)
        for sampler in arguments.sampler
        for path in arguments.studies
        for order in range(arguments.orders)
    ]
    run = partial(both, budget=arguments.budget)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        pairs = list(pool.map(run, *zip(*cases, strict=True)))
    print(f"budget {arguments.budget:g}")
    print(f"{'':22s} {'without':>14s} {'with':>14s} {'with - without':>14s}")
    print(
        f"{'':22s} {'regret':>7s} {'+-':>6s} {'regret':>7s} {'+-':>6s} {'more':>7s} {'+-':>6s} "
        f"{'better':>6s} {'worse':>5s} {'resumed':>7s} {'whole':>5s} {'won':>5s} searches"
    )
    folders = list(dict.fromkeys(path.parent for path in arguments.studies))
    for sampler in arguments.sampler:
        for folder in folders:
            n = sum(path.parent == folder for path in arguments.studies)
            chosen = [
                pair
                for pair, (path, _, its) in zip(pairs, cases, strict=True)
                if its == sampler and path.parent == folder
            ]
            print(row(f"{sampler}, {n} studies", chosen))
    print(row("all", pairs))


if __name__ == "__main__":
    main()
