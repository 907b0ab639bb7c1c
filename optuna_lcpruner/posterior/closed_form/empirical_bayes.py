"""Which shapes and noise occur in a study: the cells' prior masses, learned from completed trials.

Glossary (cells as in :mod:`~optuna_lcpruner.posterior.closed_form.regression`; n completed trials
looked at):
    p_0   prior mass of a cell in any study
    r_i   its posterior weight given the whole curve of completed trial i, under p_0

    p  =  (strength p_0 + sum_i r_i) / (strength + n)

is the expected frequency of a cell in this study, if frequencies have a Dirichlet prior with mean
p_0 worth ``strength`` trials and each curve counts where it lies. Asymptote and amplitude are not
learned in this way: completed trials are the ones that were not stopped, and priors centred on
theirs made P(beat the best) worse on recorded studies.

Source: empirical Bayes, Robbins 1956, "An empirical Bayes approach to statistics".
"""

from __future__ import annotations

import numpy as np

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.families import Families
from optuna_lcpruner.curves.learning_curve import PositionGrid
from optuna_lcpruner.posterior.closed_form.regression import (
    CurvePrior,
    design_of,
    log_mass,
    responsibilities,
)
from optuna_lcpruner.posterior.closed_form.shapes import shape_grid
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.posterior.normalization import normalize

STRENGTH = 5.0  # heuristic
"""Completed trials that the prior masses are worth."""

MOST_CURVES = 32  # heuristic
"""Completed trials looked at, the newest: each takes as long as a decision."""


def learned(
    prior: CurvePrior, families: Families, horizon: int, knowledge: StudyKnowledge
) -> Array | None:
    """Ln p / p_0 of all cells, shape (J, L, S); None without a completed curve."""
    curves = knowledge.completed[-MOST_CURVES:]
    if len(curves) == 0 or curves.shape[1] < 2:
        return None
    everywhere = np.arange(PositionGrid(horizon).size, dtype=np.int64)
    design = design_of(prior, families, horizon, everywhere.tobytes())
    log_prior = np.broadcast_to(log_mass(prior, shape_grid(horizon, families)), design.det.shape)
    mass = np.exp(log_prior)
    mass /= mass.sum()
    seen = np.zeros_like(mass)
    for curve in curves:
        seen += responsibilities(design, prior, normalize(curve, knowledge.scale)[0])
    return np.log((STRENGTH + seen / mass) / (STRENGTH + len(curves)))
