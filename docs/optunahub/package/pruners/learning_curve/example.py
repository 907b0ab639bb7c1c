"""Tune where a loss curve ends; most trials are stopped before their last epoch."""

from __future__ import annotations

import optuna
import optunahub


N_EPOCHS = 30


def objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    width = trial.suggest_int("width", 8, 256, log=True)
    end = 0.1 + abs(lr - 0.03) + 2.0 / width
    loss = 1.0
    for epoch in range(N_EPOCHS):
        loss = end + (1.0 - end) * 0.8**epoch
        trial.report(loss, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned()
    return loss


module = optunahub.load_module(package="pruners/learning_curve")
study = optuna.create_study(
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=module.LearningCurvePruner(n_steps=N_EPOCHS),
)
study.optimize(objective, n_trials=60)

pruned = study.get_trials(states=[optuna.trial.TrialState.PRUNED])
print(f"best loss {study.best_value:.4f}; {len(pruned)} of {len(study.trials)} trials were pruned")
print(f"trial {pruned[-1].number} {pruned[-1].user_attrs['lcpruner_reason']}")
