"""Whether the weighted sum of curves would make a better curve source of the opinion pool.

    python tests/bench/weighted_sum.py STUDY.npz ... [--orders 6] [--engine mcmc --share 0.005]

Looks at recorded studies as in ``fit_pool.py``: all of trials that won, a share of the others,
which then count for more. Beside the pool's two opinions, the similar trials and the closed form,
the engine says P(beat) from the same curve on the same scale; with ``tails`` the closed form's
model error and tails are put around what it says. ``closed unlearned`` is the closed form that
learns no shapes and noise from the study, nor does the sum. Each set of sources is a pool:

    logit P = -ln(N + 1) + constant + fade sqrt(f) + weights times the sources' log odds

with maximum-likelihood constants. Printed are log loss and Brier score on each group of studies
(file name up to the first underscore, data sets used twice as one) with constants fitted to the
other groups; every study counts the same. Differences are from the present pool, ``+-`` the larger
of two bootstrap errors, over studies and over groups. The second table has the log losses by the
fraction seen f and by the number of completed trials N, with the same constants.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fit_pool import Look, Question, logit, looks
from scipy.optimize import minimize
from scipy.special import expit

from optuna_lcpruner.posterior import opinion_pool
from optuna_lcpruner.posterior.closed_form.regression import CurvePrior
from optuna_lcpruner.posterior.forecast import t_cdf
from optuna_lcpruner.posterior.interface import Engine
from optuna_lcpruner.posterior.weighted_sum.fixed_points import ClosedSum
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC

ENGINES: dict[str, Callable[[], Engine]] = {
    "weighted_sum": ClosedSum,
    "mcmc": lambda: MCMC(effective_sample_size=60.0, max_steps=450),
}
GROUPS = {"autoencoder": "digits", "noisy": "digits"}
"""Groups by another name: trainings on the same data."""

Rows = np.ndarray


@dataclass(frozen=True)
class Asked:
    """A look, what the engine says of it, and how many looks it stands for."""

    look: Look
    p_engine: float
    p_tails: float
    counts: float


def on_own_scale(question: Question) -> Question:
    """The question as the pool asks its curve model."""
    curve, knowledge = question
    peers = knowledge.cached("peers", lambda: opinion_pool._peers(knowledge))
    end = curve.knots.nearest([curve.horizon])
    found = peers.analogues(opinion_pool._without_gaps(curve), end)
    return curve, opinion_pool._on_own_scale(curve, knowledge, found.plausible)


def said(engine: Engine, question: Question) -> tuple[float, float]:
    """P(beat) by the engine, and the same with model error and tails around it."""
    curve, knowledge = on_own_scale(question)
    ahead = engine(curve, knowledge)
    prior = CurvePrior()
    error = np.interp(curve.seen, [0.0, 1.0], prior.model_error)
    scale = np.hypot(ahead.observed.scale[-1], error)
    tails = t_cdf((ahead.observed.location[-1] - 1.0) / scale, prior.df) @ ahead.weights
    return ahead.p_beats(knowledge.best), float(tails)


def asked(path: Path, seed: int, n_trials: int, engine: Engine, share: float) -> Iterator[Asked]:
    """Looks at one study in one order: all of trials that won, a share of the others."""
    rng = np.random.default_rng([seed, 1])
    for look, question in looks(path, seed, n_trials):
        counts = 1.0 if look.won else 1.0 / share
        if rng.random() < 1.0 / counts:
            yield Asked(look, *said(engine, question), counts)


@dataclass(frozen=True)
class Table:
    """All looks as arrays, (R,)."""

    group: Rows
    study: Rows
    weight: Rows  # every study counts the same; sum 1
    n: Rows
    f: Rows
    won: Rows
    log_odds: dict[str, Rows]

    @classmethod
    def of(cls, rows: list[Asked]) -> Table:
        """From the looks."""
        source = [row.look.source for row in rows]
        study, index = np.unique([row.look.study for row in rows], return_inverse=True)
        counts = np.array([row.counts for row in rows])
        return cls(
            group=np.array([GROUPS.get(name, name) for name in source]),
            study=study[index],
            weight=counts / np.bincount(index, counts)[index] / len(study),
            n=np.array([row.look.n_completed for row in rows], dtype=float),
            f=np.array([row.look.seen for row in rows]),
            won=np.array([row.look.won for row in rows], dtype=float),
            log_odds={
                "similar trials": logit(np.array([row.look.p_analogues for row in rows])),
                "closed form": logit(np.array([row.look.p_ensemble for row in rows])),
                "nothing learned": logit(np.array([row.look.p_unlearned for row in rows])),
                "engine": logit(np.array([row.p_engine for row in rows])),
                "tails": logit(np.array([row.p_tails for row in rows])),
            },
        )

    @property
    def base(self) -> Rows:
        """Log odds of 1 / (N + 1)."""
        return -np.log(self.n + 1.0)

    def features(self, sources: tuple[str, ...], fading: bool) -> Rows:
        """Columns of a pool; with ``fading`` each weight is free to change with sqrt(f)."""
        fade = np.sqrt(self.f)
        voices = [self.log_odds[source] for source in sources]
        more = [voice * fade for voice in voices] if fading else []
        return np.column_stack([np.ones_like(fade), fade, *voices, *more])

    def fitted(self, features: Rows, here: Rows) -> Rows:
        """Maximum-likelihood constants."""
        x, base, won, weight = features[here], self.base[here], self.won[here], self.weight[here]

        def loss(constants: Rows) -> tuple[float, Rows]:
            log_odds = base + x @ constants
            each = np.logaddexp(0.0, log_odds) - won * log_odds
            return float(weight @ each), x.T @ (weight * (expit(log_odds) - won))

        return minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS").x

    def left_out(self, features: Rows) -> Rows:
        """Log odds in each group, with constants of the others."""
        log_odds = np.empty_like(self.f)
        for group in np.unique(self.group):
            there = self.group == group
            constants = self.fitted(features, ~there)
            log_odds[there] = self.base[there] + features[there] @ constants
        return log_odds

    def scores(self, log_odds: Rows) -> tuple[Rows, Rows]:
        """Log loss and Brier score of each look."""
        each = np.logaddexp(0.0, log_odds) - self.won * log_odds
        return each, (expit(log_odds) - self.won) ** 2

    def mean(self, each: Rows, here: Rows | slice = slice(None)) -> float:
        """Weighted mean of some looks."""
        return float(np.average(each[here], weights=self.weight[here]))

    def error(self, each: Rows, here: Rows | slice = slice(None)) -> float:
        """Standard error of that mean: the larger one of resampling studies and groups."""
        rng, weight = np.random.default_rng(0), self.weight[here]
        found = []
        for names in (self.study[here], self.group[here]):
            unique, index = np.unique(names, return_inverse=True)
            total = np.bincount(index, weight * each[here])
            size = np.bincount(index, weight)
            drawn = rng.integers(len(unique), size=(2000, len(unique)))
            found.append(np.std(total[drawn].sum(axis=1) / size[drawn].sum(axis=1)))
        return float(max(found))


PRESENT = ("similar trials", "closed form")
SETS: dict[str, tuple[tuple[str, ...], bool]] = {
    "similar, closed": (PRESENT, False),
    "similar, sum": (("similar trials", "engine"), False),
    "similar, closed, sum": ((*PRESENT, "engine"), False),
    "similar, sum + tails": (("similar trials", "tails"), False),
    "similar, closed, sum + tails": ((*PRESENT, "tails"), False),
    "similar, closed, fading": (PRESENT, True),
    "similar, sum, fading": (("similar trials", "engine"), True),
    "similar, closed, sum, fading": ((*PRESENT, "engine"), True),
    "similar, closed unlearned": (("similar trials", "nothing learned"), False),
    "similar": (("similar trials",), False),
    "closed": (("closed form",), False),
    "sum": (("engine",), False),
}
"""Sources beside the base rate, and whether their weights change with sqrt(f)."""

STAGES = (
    ("f", ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0))),
    ("N", ((2, 3), (3, 8), (8, 21), (21, np.inf))),
)


def main() -> None:
    """Collect looks, fit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--engine", choices=ENGINES, default="weighted_sum")
    parser.add_argument("--orders", type=int, default=6, help="orders of each study")
    parser.add_argument("--trials", type=int, default=100, help="trials of an order")
    parser.add_argument("--share", type=float, default=0.1, help="of the looks at other trials")
    arguments = parser.parse_args()
    engine = ENGINES[arguments.engine]()
    table = Table.of(
        [
            row
            for path in arguments.studies
            for seed in range(arguments.orders)
            for row in asked(path, seed, arguments.trials, engine, arguments.share)
        ]
    )
    print(
        f"{table.f.size} looks, {table.won.sum():.0f} of them at trials that won, at "
        f"{len(np.unique(table.study))} studies in {arguments.orders} orders each; "
        f"{len(np.unique(table.group))} groups; sum: {arguments.engine}"
    )
    print(f"log loss of 1 / (N + 1): {table.mean(table.scores(table.base)[0]):.4f}\n")
    print(
        f"{'sources':29s} {'log loss':>8s} {'difference':>18s} {'Brier':>8s} {'difference':>20s}"
        "  constants"
    )
    losses: dict[str, Rows] = {}
    present = table.scores(table.left_out(table.features(*SETS["similar, closed"])))
    for label, sources in SETS.items():
        features = table.features(*sources)
        loss, brier = table.scores(table.left_out(features))
        losses[label] = loss
        constants = table.fitted(features, np.ones(table.f.size, dtype=bool))
        print(
            f"{label:29s} {table.mean(loss):8.4f} {plus_minus(table, loss - present[0], 4):>18s} "
            f"{table.mean(brier):8.5f} {plus_minus(table, brier - present[1], 5):>20s}  "
            f"{np.array2string(constants, precision=2)}"
        )
    shown = ("similar, sum", "similar, closed, sum")
    print(f"\n{'stage':12s} {'similar, closed':>16s}" + "".join(f"{s:>24s}" for s in shown))
    for letter, edges in STAGES:
        x = table.f if letter == "f" else table.n
        for low, high in edges:
            here = (x >= low) & (x < high)
            if np.any(here):
                cells = (plus_minus(table, losses[s] - present[0], 4, here) for s in shown)
                name = f"{low:g} <= {letter}" + ("" if np.isinf(high) else f" < {high:g}")
                print(
                    f"{name:14s} {table.mean(present[0], here):14.4f}"
                    + "".join(f"{c:>24s}" for c in cells)
                )


def plus_minus(table: Table, each: Rows, digits: int, here: Rows | slice = slice(None)) -> str:
    """Mean +- standard error."""
    return f"{table.mean(each, here):+.{digits}f} +- {table.error(each, here):.{digits}f}"


if __name__ == "__main__":
    main()
