"""How many of the k best trials are kept, with n_best=1 and n_best=3.

    python tests/bench/best_k.py STUDY.npz ... [--orders 2] [--trials 60]

Recorded studies are replayed as in ``replay.py``, one trial after the other in random orders.

    cost    share of all steps that was spent
    best    share of replays in which the best trial was completed
    best 3  share of the three best trials that were completed
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.backtest.data import from_curves
from optuna_lcpruner.backtest.replay import replay

PRUNERS = {f"n_best={k}": k for k in (1, 3)}


def kept(path: Path, order: int, n_best: int, n_trials: int) -> tuple[float, float, float]:
    """Cost, and the shares of the best and of the three best that a replay completes."""
    with np.load(path) as data:
        curves, maximize = data["curves"].astype(float), bool(data["maximize"])
    curves = np.random.default_rng(order).permutation(curves)[:n_trials]
    study = from_curves(curves.tolist(), "maximize" if maximize else "minimize")
    n_steps = curves.shape[1]
    pruner = LearningCurvePruner(n_steps, n_best=n_best, publish=False, ledger=False)
    ran = replay(study, range(len(study.trials)), pruner)
    final = np.array([trial.value for trial in study.trials]) * (1.0 if maximize else -1.0)
    ranked = np.argsort(np.where(np.isfinite(final), -final, np.inf), kind="stable")
    completed = ~np.array(ran.pruned)[np.argsort(ran.trials)]
    cost = sum(ran.spent) / sum(len(trial.steps) for trial in study.trials)
    return cost, float(completed[ranked[0]]), float(np.mean(completed[ranked[:3]]))


def main() -> None:
    """Parse arguments, replay, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--orders", type=int, default=2, help="random orders of each study")
    parser.add_argument("--trials", type=int, default=60, help="configurations of a replay")
    arguments = parser.parse_args()
    print(f"{'study':20s} {'pruner':9s} {'cost':>6s} {'best':>6s} {'best 3':>6s}")
    for path in arguments.studies:
        for name, n_best in PRUNERS.items():
            rows = [kept(path, i, n_best, arguments.trials) for i in range(arguments.orders)]
            cost, best, three = np.mean(rows, axis=0)
            print(f"{path.stem:20s} {name:9s} {cost:6.3f} {best:6.2f} {three:6.2f}", flush=True)


if __name__ == "__main__":
    main()
