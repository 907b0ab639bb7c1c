"""How ranks move in recorded studies: the constants of ``posterior/early_ranks.py``.

    python tests/bench/early_ranks.py STUDY.npz ... [--orders 4]

kappa is what makes corr(z_s, z_t) = (s / t)^kappa true of a study's normal scores: so far, over the
halvings of the training up to a share of it, and from there to the end.

    so far, from now on   kappa at a tenth of the training
    mean, sd              of log kappa from now on minus log kappa so far, over the studies

Then 32 trainings of a study at once, in random orders, none of them stopped: P(it ends best of
them) over the first half of the training, as multiples of 1 / 32, and how often it came true; means
over studies. That one training in ten may be of another kind is taken from this.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from optuna.trial import TrialState, create_trial

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.early_ranks import normal_scores
from optuna_lcpruner.study.standings import Standings, is_compared

SHARES = (0.06, 0.1, 0.2, 0.35)
_LEAST = 0.02
"""Correlations below this are taken for it."""

AT_ONCE = 32
BINS = (0.0, 0.16, 0.3, 0.6, 1.0, 2.0, 4.0, 32.0)


def kappa(curves: Array, earlier: int, later: int) -> float:
    """Return kappa between two reports, counted from 1, of curves of shape (m, n_steps)."""
    z = [normal_scores(curves[:, n - 1]) for n in (earlier, later)]
    r = max(float(np.corrcoef(*z)[0, 1]), _LEAST)
    return float(np.log(r) / np.log(earlier / later))


def so_far(curves: Array, n: int) -> float:
    """Return the mean of kappa over the halvings of the first n reports, without the first."""
    found = []
    while n > 2:
        before = max(2, round(n / 2))
        found.append(kappa(curves, before, n))
        n = before
    return float(np.mean(found))


def said_and_true(curves: Array) -> Array:
    """Return P(ends best), in multiples of 1 / m, and whether it did, of m curves at once.

    Args:
        curves: Larger is better, shape (m, n_steps).

    Returns:
        One row for each comparison of each curve in the first half, shape (n, 2).
    """
    m, n_steps = curves.shape
    best, found = int(np.argmax(curves[:, -1])), []
    for n in filter(lambda n: is_compared(n, n - 1), range(3, n_steps // 2 + 1)):
        standings, steps = Standings(True, False), np.arange(n)
        for number, curve in enumerate(curves):
            reports = dict(enumerate(curve[:n].tolist()))
            trial = create_trial(state=TrialState.RUNNING, intermediate_values=reports)
            trial.number = number
            standings.update([trial], 0.0)
        for number, curve in enumerate(curves):
            seen = LearningCurve(steps + 1.0, curve[:n], n_steps)
            standing = standings.standing(number, seen, steps, False, 0.0)
            found.append((m * standing.p_best, number == best))
    return np.array(found)


def main() -> None:
    """Print a line a study, one for each share, and one for each range of P."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--orders", type=int, default=4)
    arguments = parser.parse_args()
    tables = []
    differences: dict[float, list[float]] = {share: [] for share in SHARES}
    medians = []
    print(f"{'study':36s} {'so far':>7s} {'from now on':>12s}")
    for path in arguments.studies:
        with np.load(path, allow_pickle=True) as study:
            curves = study["curves"].astype(float) * (1.0 if study["maximize"] else -1.0)
        curves = np.where(np.isfinite(curves), curves, -1e30)
        n_steps = curves.shape[1]
        for share in SHARES:
            n = max(4, round(share * n_steps))
            past, future = so_far(curves, n), kappa(curves, n, n_steps)
            differences[share].append(float(np.log(future / past)))
            if share == 0.1:
                medians.append(past)
                print(f"{path.stem:36s} {past:7.2f} {future:12.2f}")
        for order in range(arguments.orders):
            chosen = np.random.default_rng(order).permutation(len(curves))[:AT_ONCE]
            tables.append(said_and_true(curves[chosen]))
    spread = float(np.std(np.log(medians)))
    print(f"\nkappa so far: median {np.median(medians):.2f}, sd of its logarithm {spread:.2f}")
    print(f"\n{'seen':>5s} {'mean':>6s} {'sd':>5s}")
    for share, found in differences.items():
        print(f"{share:5.2f} {np.mean(found):6.2f} {np.std(found):5.2f}")
    print(f"\n{'P, times 32':>12s} {'said':>6s} {'true':>6s} {'+-':>5s}")
    for low, high in pairwise(BINS):
        inside = [t[(low <= t[:, 0]) & (t[:, 0] < high)] for t in tables]
        means = np.array([(t[:, 0].mean(), AT_ONCE * t[:, 1].mean()) for t in inside if len(t)])
        said, true = means.mean(axis=0)
        error = means[:, 1].std() / np.sqrt(len(means))
        print(f"{low:5.2f}-{high:<6.2f} {said:6.2f} {true:6.2f} {error:5.2f}")


if __name__ == "__main__":
    main()
