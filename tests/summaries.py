"""What a study knows of trials made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from helpers import N_STEPS, make_study
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner.study.history import StudyRecord
from optuna_lcpruner.study.summary import StudySummary


def completed(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def summary_of(trials: Sequence[FrozenTrial], direction: str = "maximize") -> StudySummary:
    study = make_study(trials, direction)
    return StudyRecord(direction == "maximize").update(completed(study))


def peaking(end: float, n: int = N_STEPS) -> np.ndarray:
    t = np.linspace(0.0, 1.0, n)
    return 0.1 + (end - 0.1) * np.sin(np.pi * np.minimum(t, 0.8))
