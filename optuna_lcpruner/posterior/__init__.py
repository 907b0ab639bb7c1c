"""Posteriors: a curve and what the study knows -> Forecast."""

from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.closed_form.regression import CurvePrior
from optuna_lcpruner.posterior.forecast import Component, Forecast, Recalibration
from optuna_lcpruner.posterior.interface import Engine, FastEngine, StudyKnowledge, Target
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.posterior.weighted_sum.convergence import Diagnostics
from optuna_lcpruner.posterior.weighted_sum.model import Member, WeightedCurves
from optuna_lcpruner.posterior.weighted_sum.priors import free_member, paper_prior
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC

__all__ = [
    "MCMC",
    "ClosedForm",
    "Component",
    "CurvePrior",
    "Diagnostics",
    "Engine",
    "FastEngine",
    "Forecast",
    "Member",
    "OpinionPool",
    "Recalibration",
    "StudyKnowledge",
    "Target",
    "WeightedCurves",
    "free_member",
    "paper_prior",
]
