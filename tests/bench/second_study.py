"""A second study: what it brings to begin with the best configurations of an earlier one.

    python tests/bench/second_study.py STUDY.npz ... [--orders 3] [--pruners default median_w3]

Each recorded study (see ``replay.py``) is the second one. The earlier one is another study of its
source, that is with the same beginning of the file's name, of which 30 configurations were trained
to their end; where fewer than half of the hyper-parameters are the same, a source has no earlier
study. Three configurations are enqueued, the nearest to those that ended best there, or worst; the
others follow in a random order.

    cost    share of the steps of the first 30 trials that was spent
    at 10   regret after 10 full trainings' worth of steps, (best final - best final kept) /
            (best final - median final) of the whole file, at most 1
    at 20   after 20
    less    cost or regret minus that of the same search without an earlier study, and its error
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import optuna
from replay import Space, in_turn, ours, peers, run

STARTS = ("none", "best 3", "worst 3")
N_EARLIER = N_FIRST = 30
N_ENQUEUED = 3
BUDGETS = (10, 20)


def earlier_of(path: Path, paths: Sequence[Path], rng: np.random.Generator) -> Path | None:
    """An earlier study for a second one, drawn from its source; None if that has none."""
    names = set(Space(np.load(path, allow_pickle=True)["hp_json"]).distributions)
    same = [
        other
        for other in paths
        if other != path
        and other.stem.split("_")[0] == path.stem.split("_")[0]
        and 2 * len(names & set(Space(np.load(other, allow_pickle=True)["hp_json"]).distributions))
        >= max(len(names), 1)
    ]
    return same[rng.integers(len(same))] if same else None


def enqueued(path: Path, earlier: Path, start: str, rng: np.random.Generator) -> list[int]:
    """The configurations that the second study begins with."""
    with np.load(earlier, allow_pickle=True) as data:
        final = data["curves"][:, -1] * (1.0 if data["maximize"] else -1.0)
        params = Space(data["hp_json"]).params
    space = Space(np.load(path, allow_pickle=True)["hp_json"])
    trained = rng.permutation(len(final))[:N_EARLIER]
    trained = trained[np.isfinite(final[trained])]
    ranked = trained[np.argsort(-final[trained] if start == "best 3" else final[trained])]
    chosen = list(
        dict.fromkeys(space.nearest(params[row], np.arange(len(space.columns))) for row in ranked)
    )
    return chosen[:N_ENQUEUED]


Task = tuple[Path, Path, int, str, str]
"""Second study, earlier one, order, pruner, start."""


def search(task: Task) -> list[float]:
    """Cost of the first trials, and regret after each budget."""
    path, earlier, order, pruner, start = task
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    with np.load(path, allow_pickle=True) as data:
        curves, maximize = data["curves"].astype(float), bool(data["maximize"])
    rng = np.random.default_rng(order)
    rows = rng.permutation(len(curves))
    if start != "none":
        first = enqueued(path, earlier, start, rng)
        rows = np.r_[first, rows[~np.isin(rows, first)]].astype(int)
    n_steps, sign = curves.shape[1], 1.0 if maximize else -1.0
    final = sign * curves[:, -1]
    best, median = np.nanmax(final), np.nanmedian(final)
    factory = (peers() | ours())[pruner]
    spent, *_ = run(in_turn(curves[rows[:N_FIRST]]), maximize, factory(n_steps), np.inf, order)
    found = [spent / (N_FIRST * n_steps)]
    for budget in BUDGETS:
        _, ends, _ = run(in_turn(curves[rows]), maximize, factory(n_steps), budget * n_steps, order)
        got = np.max(sign * ends) if ends.size else -np.inf
        found.append(min(1.0, (best - got) / max(best - median, 1e-12)))
    return found


def table(results: dict[tuple[str, str], np.ndarray]) -> Iterable[str]:
    """A line for each pruner and start: means, and what that is less than without."""
    yield f"{'pruner':10s} {'begins with':11s}" + "".join(
        f" {name:>6s} {'less':>16s}" for name in ("cost", *(f"at {b}" for b in BUDGETS))
    )
    for (pruner, start), values in results.items():
        cells = []
        for mine, without in zip(values.T, results[pruner, "none"].T, strict=True):
            less = mine - without
            error = less.std() / np.sqrt(less.size)
            cells.append(
                f" {mine.mean():6.3f} "
                + ("" if start == "none" else f"{less.mean():+.3f} +- {error:.3f}").rjust(16)
            )
        yield (f"{pruner:10s} {start:11s}" + "".join(cells)).rstrip()


def main() -> None:
    """Parse arguments, search, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--pruners", nargs="+", default=["default", "median_w3"])
    parser.add_argument("--orders", type=int, default=3, help="random orders of each study")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    unknown = set(arguments.pruners) - set(peers() | ours())
    if unknown:
        parser.error(f"unknown pruners {sorted(unknown)}")
    pairs = [
        (path, earlier, order)
        for path, order in product(arguments.studies, range(arguments.orders))
        if (earlier := earlier_of(path, arguments.studies, np.random.default_rng(order)))
    ]
    if not pairs:
        parser.error("none of these studies has another one of its source")
    kinds = list(product(arguments.pruners, STARTS))
    with ProcessPoolExecutor(arguments.jobs) as workers:
        found = list(workers.map(search, [(*pair, *kind) for kind in kinds for pair in pairs]))
    values = np.array(found).reshape(len(kinds), len(pairs), -1)
    print(f"{len({pair[0] for pair in pairs})} studies, {arguments.orders} orders")
    print("\n".join(table(dict(zip(kinds, values, strict=True)))))


if __name__ == "__main__":
    main()
