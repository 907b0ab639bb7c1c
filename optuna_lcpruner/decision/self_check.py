"""Would the rule have stopped the study's own best trial? Then it becomes more careful. Pure.

The best completed trial is replayed as if it were a new one: with what the other completed trials
teach, against the best value of these. Its P(beat) and the threshold are compared at a few looks,
more of them early, where winners are lost. If P fell below the threshold at one of them, the
present rule would have stopped a trial that did beat the best, and the threshold is multiplied by

    caution  =  max(min P / threshold, 1/20)

so that it would not have. It follows from the completed trials alone, so every worker comes to the
same; it is worked out once each time another trial completes. Where the k best count (``n_best``),
it is the last of these that is replayed, against the one that comes after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optuna_lcpruner.curves.learning_curve import LearningCurve, PositionGrid
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.posterior.interface import FastEngine, StudyKnowledge

_LOOKS = 6  # heuristic
_LEAST = 0.05  # heuristic


@dataclass(frozen=True)
class Caution:
    """How much more careful the rule has to be.

    Attributes:
        factor: What the threshold is multiplied by, in (0, 1].
        position: Of the report at which the best trial would have been stopped; None if nowhere.
        n_best: How many trials count as the best.
    """

    factor: float = 1.0
    position: float | None = None
    n_best: int = 1

    @property
    def remark(self) -> str:
        """What a reason says of it; nothing where the rule stays as it is."""
        if self.position is None:
            return ""
        best = "study's best trial"
        if self.n_best > 1:
            best = f"last of the study's best {self.n_best} trials"
        return (
            f"threshold lowered to {self.factor:.2g} of itself, since the {best} would "
            f"have been stopped at report {self.position:g}"
        )


def self_check(
    engine: FastEngine, rule: Rule, knowledge: StudyKnowledge, horizon: int, n_startup_trials: int
) -> Caution:
    """Replay the study's best trial through the rule.

    Args:
        engine: The posterior.
        rule: The rule; a fixed threshold is the user's own and is left alone.
        knowledge: What the study knows about a training of this horizon.
        horizon: Position of the last report of a full training.
        n_startup_trials: Completed trials without which nothing is pruned.
    """
    index, n_others = knowledge.best_row, knowledge.final.size - 1
    if rule.threshold is not None or index is None or n_others < max(n_startup_trials, 2):
        return Caution()
    others = knowledge.without(index)
    if others is None:
        return Caution()
    row, positions = knowledge.completed[index], PositionGrid(horizon).positions
    looks = np.unique(np.geomspace(2, max(2.0, 0.6 * row.size), _LOOKS).round().astype(int))
    caution = Caution()
    for n in looks[looks < row.size]:
        curve = LearningCurve(positions[:n], row[:n], horizon)
        threshold = rule.threshold_at(others.final.size + 1, curve.seen)
        p, _ = engine.p_and_forecast(curve, others)
        if p < threshold * caution.factor:
            factor = max(p / threshold, _LEAST)
            caution = Caution(factor, float(positions[n - 1]), rule.n_best)
    return caution
