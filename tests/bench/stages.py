"""Does P(beat) come true at every stage of a study, with one worker and with many?

    python tests/bench/stages.py STUDY.npz ... [--workers 1 8 32] [--budget 40] [--orders 2]

Searches as in ``parallel.py``. At some fractions of each training P(beat the best so far), by how
many trials had completed, against how often the training, trained to its end, beats what was the
best then. Before three trials have completed there is no P(beat); of what is said then
``early_ranks.py`` has the table.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState
from parallel import search

from optuna_lcpruner import LearningCurvePruner

FRACTIONS = (0.05, 0.1, 0.2, 0.4)
STAGES = {"3": (3, 3), "4-10": (4, 10), "11-": (11, 10**6)}
BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.01)


def looks(path: Path, order: int, n_workers: int, budget: float) -> list[tuple[int, float, bool]]:
    """Completed trials, P(beat) and whether it came true, a row for each look of one search."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with np.load(path, allow_pickle=True) as study:
        curves, maximize = study["curves"].astype(float), bool(study["maximize"])
    curves = curves[np.random.default_rng(order).permutation(len(curves))]
    n_steps, sign = curves.shape[1], 1.0 if maximize else -1.0
    at = {max(2, round(f * n_steps)) - 1 for f in FRACTIONS}
    pruner = LearningCurvePruner(n_steps, publish=False, ledger=False)
    rows = []

    def watch(study: optuna.Study, trial: optuna.Trial) -> None:
        frozen = study.get_trials(deepcopy=False)[trial.number]
        if frozen.last_step not in at:
            return
        completed = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        p = pruner.decide(study, frozen).p_beat
        if len(completed) >= STAGES["3"][0] and p is not None:
            best = max(sign * t.value for t in completed)
            rows.append((len(completed), p, bool(sign * curves[trial.number, -1] > best)))

    search(curves, maximize, pruner, n_workers, budget, np.inf, order, watch)
    return rows


def main() -> None:
    """Print a table for each number of workers: said / came true (looks)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--budget", type=float, default=40.0)
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    cases = [(path, order) for path in arguments.studies for order in range(arguments.orders)]
    print(f"{len(arguments.studies)} studies, {arguments.orders} orders, said / came true (looks)")
    for n in arguments.workers:
        with ProcessPoolExecutor(arguments.jobs) as pool:
            paths, orders = zip(*cases, strict=True)
            every = pool.map(
                looks, paths, orders, [n] * len(cases), [arguments.budget] * len(cases)
            )
            table = np.array([row for rows in every for row in rows])
        print(f"\n{n} workers" if n > 1 else "\n1 worker")
        print(f"{'P':9s}" + "".join(f"{name + ' completed':>24s}" for name in STAGES))
        for low, high in pairwise(BINS):
            cells = []
            for first, last in STAGES.values():
                stage = table[(first <= table[:, 0]) & (table[:, 0] <= last)]
                here = stage[(low <= stage[:, 1]) & (stage[:, 1] < high)]
                said = f"{here[:, 1].mean():.3f} / {here[:, 2].mean():.3f}" if len(here) else "-"
                cells.append(f"{said} ({len(here)})")
            print(f"{low:.2f}-{min(high, 1):.2f}" + "".join(f"{cell:>24s}" for cell in cells))


if __name__ == "__main__":
    main()
