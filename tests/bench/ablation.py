"""What each ingredient of the default pruner buys: replays with one of them taken away.

    python tests/bench/ablation.py STUDY.npz ... [--orders 1] [--jobs 2]

Recorded studies as for ``replay.py``. Every variant is replayed at three settings of its knob;
regrets at equal cost are read off the straight lines between them. A variant whose posterior lacks
an opinion uses constants fitted without it, by ``fit_pool.py``, and so does "constants of other
sources" for each source.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from replay import Replay, replay

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm, CurvePrior
from optuna_lcpruner.posterior.opinion_pool import OpinionPool

COSTS = (0.2, 0.25, 0.3, 0.35)


@dataclass(frozen=True)
class CostBlind(Rule):
    """The rule without the factor 1 - n / T."""

    def threshold_at(
        self, n_begun: int, seen: float, caution: float = 1.0, slowness: float = 1.0
    ) -> float:
        return super().threshold_at(n_begun, 0.0, caution, slowness)


@dataclass(frozen=True)
class Proportional(Rule):
    """A threshold in proportion to any trial's chance, 1 / M, from the first trial on."""

    def threshold_at(
        self, n_begun: int, seen: float, caution: float = 1.0, slowness: float = 1.0
    ) -> float:
        return min(1.0, self.risk / n_begun) * (1.0 - seen) * caution


ANALOGUES = OpinionPool(offset=0.81, fade=0.93, evidence=(0.37, 0.0))
ENSEMBLE = OpinionPool(offset=0.87, fade=-0.15, evidence=(0.0, 0.55))
UNFITTED = OpinionPool(offset=0.0, fade=0.0, evidence=(0.5, 0.5))
WHITE = OpinionPool(ensemble=ClosedForm(CurvePrior(rho=(0.0,), kappa=(0.0,))))
THREE = OpinionPool(ensemble=ClosedForm(families=("pow3", "Janoschek", "ilog2")))
UNLEARNED = OpinionPool(ensemble=ClosedForm(learns=False))
RISKS = (0.02, 0.04, 0.08)

LEFT_OUT = {
    "algoperf": OpinionPool(offset=0.99, fade=0.85, evidence=(0.28, 0.28)),
    "deepobs": OpinionPool(offset=1.27, fade=0.75, evidence=(0.29, 0.29)),
    "nas": OpinionPool(offset=1.05, fade=0.91, evidence=(0.28, 0.28)),
    "taskset": OpinionPool(offset=0.96, fade=0.89, evidence=(0.27, 0.27)),
}
"""Source (a file's name up to the first underscore) -> constants fitted without it."""
RULES: dict[str, type[Rule]] = {"blind": CostBlind, "proportional": Proportional}
VARIANTS: dict[str, tuple[str, tuple[float, ...], OpinionPool | ClosedForm]] = {
    "full": ("risk", RISKS, OpinionPool()),
    "without the ensemble": ("risk", RISKS, ANALOGUES),
    "without the analogues": ("risk", RISKS, ENSEMBLE),
    "constants of other sources": ("left out", RISKS, OpinionPool()),
    "constants not fitted": ("risk", RISKS, UNFITTED),
    "nothing learned on shapes": ("risk", RISKS, UNLEARNED),
    "independent noise": ("risk", RISKS, WHITE),
    "three families": ("risk", RISKS, THREE),
    "remaining cost ignored": ("blind", RISKS, OpinionPool()),
    "threshold in proportion": ("proportional", (1.0, 2.0, 4.0), OpinionPool()),
    "fixed threshold": ("threshold", RISKS, OpinionPool()),
    "ensemble, fixed threshold": ("threshold", RISKS, ClosedForm()),
    "one curve, fixed threshold": ("threshold", RISKS, ClosedForm(learns=False)),
}


def pruner(variant: str, knob: float, source: str, n_steps: int) -> LearningCurvePruner:
    """The pruner of a variant for a study from this source."""
    kind, _, engine = VARIANTS[variant]
    if kind == "left out":
        engine = LEFT_OUT.get(source, engine)
    setting = {} if kind in RULES else {"threshold" if kind == "threshold" else "risk": knob}
    made = LearningCurvePruner(n_steps=n_steps, engine=engine, publish=False, **setting)
    if kind in RULES:
        made._judge = replace(made.judge, rule=RULES[kind](risk=knob))
    return made


def one(task: tuple[str, float, Path, int], n_trials: int) -> Replay:
    """One replay, in a worker."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    variant, knob, path, order = task
    source = path.stem.split("_")[0]
    return replay(path, order, partial(pruner, variant, knob, source), n_trials, None)


def main() -> None:
    """Parse arguments, replay, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--orders", type=int, default=1, help="random orders of each study")
    parser.add_argument("--trials", type=int, default=100, help="configurations of a replay")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    at_cost = " ".join(f"{f'at {c:.2f}':>8s}" for c in COSTS)
    print(f"{'':27s} {'regret':>8s}\n{'variant':27s} {at_cost}   knob: cost/regret")
    with ProcessPoolExecutor(arguments.jobs) as workers:
        for variant in arguments.variants:
            knobs = VARIANTS[variant][1]
            points = []
            for knob in knobs:
                tasks = [
                    (variant, knob, path, order)
                    for path in arguments.studies
                    for order in range(arguments.orders)
                ]
                rows = list(workers.map(partial(one, n_trials=arguments.trials), tasks))
                points.append((np.mean([r.cost for r in rows]), np.mean([r.regret for r in rows])))
            cost, regret = np.array(sorted(points)).T
            read = np.interp(COSTS, cost, regret, left=np.nan, right=np.nan)
            cells = " ".join("       -" if np.isnan(x) else f"{x:8.3f}" for x in read)
            shown = ", ".join(
                f"{k:g}: {c:.3f}/{r:.3f}" for k, (c, r) in zip(knobs, points, strict=True)
            )
            print(f"{variant:27s} {cells}   {shown}", flush=True)


if __name__ == "__main__":
    main()
