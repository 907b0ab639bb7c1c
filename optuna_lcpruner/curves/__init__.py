"""Learning curves, the scale they are on, and the families that describe them."""

from optuna_lcpruner.curves.distributions import LogNormal
from optuna_lcpruner.curves.families import FAMILIES, Family
from optuna_lcpruner.curves.learning_curve import LearningCurve, PositionGrid
from optuna_lcpruner.curves.scale import Scale

__all__ = [
    "FAMILIES",
    "Family",
    "LearningCurve",
    "LogNormal",
    "PositionGrid",
    "Scale",
]
