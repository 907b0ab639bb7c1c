"""FoldReporter: every report is kept, and the curve ends at the mean over folds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import finished, reports
from optuna.trial import FixedTrial, TrialState

from optuna_lcpruner import FoldReporter, LearningCurvePruner
from optuna_lcpruner.study.history import StudyRecord

N_FOLDS, N_EPOCHS = 5, 12


def losses(quality: float, seed: int = 0) -> np.ndarray:
    """Losses of a cross-validation, shape (folds, epochs); the folds differ, the first is easy."""
    rng = np.random.default_rng(seed)
    folds = np.array([-0.08, 0.03, 0.02, 0.01, 0.02])[:, None]
    t = np.arange(1, N_EPOCHS + 1)
    noise = 0.005 * rng.standard_normal((N_FOLDS, N_EPOCHS))
    return quality + folds + 0.6 * np.exp(-t / 2.5) + noise


def reported(values: np.ndarray, trial: Any = None) -> tuple[dict[int, float], FoldReporter]:
    """What a trial has reported in the end."""
    study = optuna.create_study()
    trial = study.ask() if trial is None else trial
    folds = FoldReporter(trial, *values.shape)
    for fold, of_fold in enumerate(values):
        for epoch, value in enumerate(of_fold):
            folds.report(value, fold, epoch)
    return study.get_trials()[0].intermediate_values, folds


def test_no_report_is_lost_and_steps_grow() -> None:
    by_step, _ = reported(losses(0.3))
    assert list(by_step) == list(range(N_FOLDS * N_EPOCHS))


def test_where_a_fold_ends_it_is_the_mean_so_far() -> None:
    values = losses(0.3)
    by_step, folds = reported(values)
    np.testing.assert_allclose([by_step[e] for e in range(N_EPOCHS)], values[0])
    for fold in range(N_FOLDS):
        mean = np.mean(values[: fold + 1, -1])
        np.testing.assert_allclose(by_step[(fold + 1) * N_EPOCHS - 1], mean)
    np.testing.assert_allclose(folds.mean, np.mean(values[:, -1]))


def test_where_folds_differ_by_a_constant_it_knows_the_mean_after_the_first_report() -> None:
    curve = 0.3 + 0.6 * np.exp(-np.arange(N_EPOCHS) / 2.5)
    apart = np.array([0.0, 0.1, -0.05, 0.02, 0.2])
    by_step, _ = reported(curve + apart[:, None])
    for fold in range(1, N_FOLDS):
        here = [by_step[fold * N_EPOCHS + e] for e in range(N_EPOCHS)]
        np.testing.assert_allclose(here, curve[-1] + apart[: fold + 1].mean())


def test_a_fold_may_end_early_and_epochs_be_left_out() -> None:
    study = optuna.create_study()
    folds = FoldReporter(study.ask(), 2, 10)
    for epoch, value in ((1, 1.0), (3, 0.5)):  # stops after four epochs
        folds.report(value, 0, epoch)
    for epoch, value in ((2, 0.9), (7, 0.7)):
        folds.report(value, 1, epoch)
    by_step = study.get_trials()[0].intermediate_values
    assert list(by_step) == [1, 3, 12, 17]
    # Between its reports the first fold was at 0.75, from where it gained -0.25.
    np.testing.assert_allclose(list(by_step.values()), [1.0, 0.5, (0.5 + 0.9 - 0.25) / 2, 0.6])
    np.testing.assert_allclose(folds.mean, 0.6)


def test_the_length_is_announced() -> None:
    trial = FixedTrial({})
    FoldReporter(trial, 5, 12)
    assert trial.user_attrs["lcpruner_n_steps"] == 60


def test_a_report_that_is_no_number_reaches_the_pruner_and_nothing_else() -> None:
    study = optuna.create_study()
    folds = FoldReporter(study.ask(), 2, 3)
    for fold, epoch, value in ((0, 0, 0.5), (0, 1, math.nan), (0, 2, 0.3), (1, 1, 0.4)):
        folds.report(value, fold, epoch)
    values = list(study.get_trials()[0].intermediate_values.values())
    assert math.isnan(values[1])
    np.testing.assert_allclose(values[3], (0.3 + 0.4 - 0.1) / 2)
    np.testing.assert_allclose(folds.mean, 0.35)


@pytest.mark.parametrize(
    ("fold", "epoch", "message"),
    [
        (0, 1, "in order, but fold 0, epoch 1 came after fold 0, epoch 1"),
        (0, 0, "in order"),
        (2, 0, "in order"),
        (5, 0, "below 5 and 12"),
        (1, 12, "below 5 and 12"),
        (1, -1, "epoch must be at least 0"),
    ],
)
def test_refuses_what_would_be_lost(fold: int, epoch: int, message: str) -> None:
    folds = FoldReporter(FixedTrial({}), 5, 12)
    folds.report(0.5, 0, 1)
    with pytest.raises(ValueError, match=message):
        folds.report(0.4, fold, epoch)


def test_refuses_what_is_no_fold() -> None:
    with pytest.raises(ValueError, match="n_folds must be at least 1"):
        FoldReporter(FixedTrial({}), 0, 12)
    with pytest.raises(ValueError, match="folds must begin at 0"):
        FoldReporter(FixedTrial({}), 5, 12).report(0.5, 1, 0)
    with pytest.raises(TypeError, match="value must be a number"):
        FoldReporter(FixedTrial({}), 5, 12).report("0.5", 0, 0)  # type: ignore[arg-type]


def test_hopeless_trials_are_stopped_in_their_first_fold_and_the_best_is_kept() -> None:
    qualities = np.random.default_rng(2).permutation(np.linspace(0.2, 0.8, 14))

    def objective(trial: optuna.Trial) -> float:
        folds = FoldReporter(trial, N_FOLDS, N_EPOCHS)
        for fold, values in enumerate(losses(qualities[trial.number], trial.number)):
            for epoch, value in enumerate(values.tolist()):
                folds.report(value, fold, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return folds.mean

    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), pruner=LearningCurvePruner()
    )
    study.optimize(objective, n_trials=14)
    pruned = study.get_trials(states=[TrialState.PRUNED])
    assert len(pruned) >= 6
    assert np.median([len(t.intermediate_values) for t in pruned]) < N_EPOCHS
    assert qualities[study.best_trial.number] == qualities.min()


@pytest.mark.parametrize("n_folds", [5, 10])
@pytest.mark.parametrize("maximize", [False, True])
def test_a_running_mean_over_folds_has_no_wrong_direction(n_folds: int, maximize: bool) -> None:
    """The first fold is the easiest in all trials, so all running means get worse."""
    rng = np.random.default_rng(0)
    folds = 0.01 * rng.standard_normal((20, n_folds))
    folds[:, 0] -= 0.1
    sign = -1.0 if maximize else 1.0
    means = sign * (0.3 + np.cumsum(folds, axis=1) / np.arange(1, n_folds + 1))
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    study.add_trials([finished(reports(mean)) for mean in means])
    assert StudyRecord(maximize).update(study.get_trials()).problem is None
