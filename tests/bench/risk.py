"""Is ``risk`` the chance that a stopped trial would have become the best? Simulated.

    python tests/bench/risk.py [--studies 300]

A trial's final value is a standard Gaussian. A look at fraction f of its training reveals the
share f**h of it: E[final | seen] is a Gaussian random walk in f**h, what is left is Gaussian, so
P(beat the best) is known exactly. The rule is the shipped one, at every look. Printed are

    wrong   share of the stopped trials that would have become the best; ``risk`` bounds it
    lost    share of the would-be best trials that were stopped
    cost    share of the steps spent

The last blocks show what is not covered: a P whose odds are half of what they should be, and a
sampler whose trials improve by a standard deviation in the course of the study, unknown to P.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from scipy.special import ndtr

from optuna_lcpruner.decision.rule import Rule

EXACT, HALVED, IMPROVING = "exact", "odds halved", "improving trials"


def simulate(
    rule: Rule, rng: np.random.Generator, n_trials: int, n_looks: int, h: float, knows: str
) -> tuple[list[tuple[bool, bool]], float]:
    """For each trial whether it was stopped and would have been the best; share of steps spent."""
    f = np.arange(1, n_looks + 1) / n_looks
    known = f**h
    best, n_completed, spent, fates = -np.inf, 0, 0, []
    for number in range(n_trials):
        drift = number / n_trials if knows == IMPROVING else 0.0
        steps = np.diff(known, prepend=0.0)
        mean = np.cumsum(drift * steps + rng.normal(size=n_looks) * np.sqrt(steps))
        wins, stop = bool(mean[-1] > best), n_looks
        if n_completed >= 3:
            p = ndtr((mean[:-1] - best) / np.sqrt(1.0 - known[:-1]))
            if knows == HALVED:
                p = p / (2.0 - p)
            below = np.flatnonzero(p < [rule.threshold_at(number + 1, seen) for seen in f[:-1]])
            stop = int(below[0]) + 1 if below.size else n_looks
            fates.append((stop < n_looks, wins))
        spent += stop
        if stop == n_looks:
            n_completed, best = n_completed + 1, max(best, mean[-1])
    return fates, spent / (n_trials * n_looks)


def main() -> None:
    """Parse arguments, simulate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=300, help="simulated studies a line")
    parser.add_argument("--trials", type=int, default=100)
    arguments = parser.parse_args()
    settings = [
        *itertools.product((EXACT,), (0.3, 1.0, 3.0), (30,)),
        *itertools.product((EXACT,), (1.0,), (10, 100)),
        *itertools.product((HALVED, IMPROVING), (1.0,), (30,)),
    ]
    print(f"{'P is':16s} {'h':>4s} {'looks':>6s} {'risk':>5s} {'wrong':>16s} {'lost':>6s} cost")
    for knows, h, n_looks in settings:
        for risk in (0.01, 0.04, 0.1):
            rng, fates, costs = np.random.default_rng(0), [], []
            for _ in range(arguments.studies):
                one, cost = simulate(Rule(risk), rng, arguments.trials, n_looks, h, knows)
                fates += one
                costs.append(cost)
            stopped, wins = np.array(fates).T
            wrong = wins[stopped]
            error = wrong.std() / np.sqrt(max(1, wrong.size))
            print(
                f"{knows:16s} {h:4.1f} {n_looks:6d} {risk:5.2f} {wrong.mean():7.4f} +- {error:6.4f}"
                f" {stopped[wins].mean():6.3f} {np.mean(costs):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
