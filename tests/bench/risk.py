"""Is ``risk`` the share of would-be best trials that are lost? Simulated, with exact posteriors.

    python tests/bench/risk.py [--studies 100]

A trial's final value is a standard Gaussian. A look at fraction f of its training reveals the
share f**h of it: E[final | seen] is a Gaussian random walk in f**h, what is left is Gaussian, so
P(beat the best) and the chance of a fresh trial to beat it are known exactly. Trials are
exchangeable; the rule is the shipped one, at every look. Printed is the share of would-be best
trials that are pruned, and the share of steps spent.

The last two blocks take 1 / (N + 1) for the chance of a fresh trial, N trials completed. That is
too high once trials were pruned: these did not beat the best either. It does no harm where P
starts from the same 1 / (N + 1), and breaks the bound where P does not.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from scipy.special import expit, logit, ndtr

from optuna_lcpruner.decision import Rule


def simulate(
    rule: Rule, rng: np.random.Generator, n_trials: int, n_looks: int, h: float, footing: str
) -> tuple[list[bool], float]:
    """For each would-be best trial whether it was pruned, and the share of steps spent.

    `footing` says where the fresh trial's chance comes from, and what P is told: ``"exact"``,
    ``"both 1/(N+1)"`` (the odds of both are moved alike) or ``"threshold 1/(N+1)"``.
    """
    f = np.arange(1, n_looks + 1) / n_looks
    known = f**h
    best, n_completed, spent, lost = -np.inf, 0, 0, []
    for _ in range(n_trials):
        mean = np.cumsum(rng.normal(size=n_looks) * np.sqrt(np.diff(known, prepend=0.0)))
        wins, stop = mean[-1] > best, n_looks
        if n_completed >= 3:
            p = ndtr((mean[:-1] - best) / np.sqrt(1.0 - known[:-1]))
            fresh, told = float(ndtr(-best)), 1.0 / (n_completed + 1.0)
            if footing == "both 1/(N+1)":
                shift = np.log(told / (1.0 - told)) - np.log(fresh / (1.0 - fresh))
                p = expit(logit(p) + shift)
            threshold = [rule.threshold_at(fresh if footing == "exact" else told, x) for x in f]
            below = np.flatnonzero(p < np.array(threshold[:-1]))
            stop = int(below[0]) + 1 if below.size else n_looks
            if wins:
                lost.append(stop < n_looks)
        spent += stop
        if stop == n_looks:
            n_completed, best = n_completed + 1, max(best, mean[-1])
    return lost, spent / (n_trials * n_looks)


def main() -> None:
    """Parse arguments, simulate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=100, help="simulated studies a line")
    parser.add_argument("--trials", type=int, default=100)
    arguments = parser.parse_args()
    settings = [
        *itertools.product(("exact",), (0.3, 1.0, 3.0), (30,)),
        *itertools.product(("exact",), (1.0,), (10, 100)),
        *itertools.product(("both 1/(N+1)", "threshold 1/(N+1)"), (1.0,), (30,)),
    ]
    print(
        f"{'chance of a fresh trial':24s} {'h':>4s} {'looks':>6s} {'risk':>5s} {'lost':>14s} cost"
    )
    for footing, h, n_looks in settings:
        for risk in (0.1, 0.3, 0.5, 1.0):
            rng, lost, costs = np.random.default_rng(0), [], []
            for _ in range(arguments.studies):
                one, cost = simulate(Rule(risk), rng, arguments.trials, n_looks, h, footing)
                lost += one
                costs.append(cost)
            share, error = np.mean(lost), np.std(lost) / np.sqrt(len(lost))
            print(
                f"{footing:24s} {h:4.1f} {n_looks:6d} {risk:5.1f} {share:6.3f} +- {error:5.3f} "
                f"{np.mean(costs):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
