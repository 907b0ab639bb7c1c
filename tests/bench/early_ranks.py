"""How ranks move in recorded studies: the constants of ``posterior/early_ranks.py``.

    python tests/bench/early_ranks.py STUDY.npz ...

kappa is what makes corr(z_s, z_t) = (s / t)^kappa true of a study's normal scores: so far, over the
halvings of the training up to a share of it, and from there to the end.

    so far, from now on   kappa at a tenth of the training
    mean, sd              of log kappa from now on minus log kappa so far, over the studies
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.posterior.early_ranks import normal_scores

SHARES = (0.06, 0.1, 0.2, 0.35)
_LEAST = 0.02
"""Correlations below this are taken for it."""


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


def main() -> None:
    """Print a line a study and one for each share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", type=Path)
    differences: dict[float, list[float]] = {share: [] for share in SHARES}
    medians = []
    print(f"{'study':36s} {'so far':>7s} {'from now on':>12s}")
    for path in parser.parse_args().studies:
        with np.load(path, allow_pickle=True) as study:
            curves = study["curves"].astype(float) * (1.0 if study["maximize"] else -1.0)
        curves = np.where(np.isfinite(curves), curves, -np.inf)
        n_steps = curves.shape[1]
        for share in SHARES:
            n = max(4, round(share * n_steps))
            past, future = so_far(curves, n), kappa(curves, n, n_steps)
            differences[share].append(float(np.log(future / past)))
            if share == 0.1:
                medians.append(past)
                print(f"{path.stem:36s} {past:7.2f} {future:12.2f}")
    spread = float(np.std(np.log(medians)))
    print(f"\nkappa so far: median {np.median(medians):.2f}, sd of its logarithm {spread:.2f}")
    print(f"\n{'seen':>5s} {'mean':>6s} {'sd':>5s}")
    for share, found in differences.items():
        print(f"{share:5.2f} {np.mean(found):6.2f} {np.std(found):5.2f}")


if __name__ == "__main__":
    main()
