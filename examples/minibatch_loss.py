"""The training loss of every mini-batch is reported: hundreds of noisy values a trial.

python examples/minibatch_loss.py

The batch size is a hyper-parameter, so trainings of equally many epochs differ in iterations: each
trial announces its own with set_n_steps. The pruner looks at every tenth report only.
"""

import numpy as np
import optuna
from shared import options, print_summary
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from optuna_lcpruner import LearningCurvePruner, set_n_steps


def main() -> None:
    args = options(__doc__, trials=60, epochs=10).parse_args()
    x, y = load_digits(return_X_y=True)
    x /= 16.0

    def objective(trial: optuna.Trial) -> float:
        batch_size = trial.suggest_int("batch_size", 32, 128)
        batches = len(x) // batch_size
        set_n_steps(trial, args.epochs * batches)
        model = MLPClassifier(
            hidden_layer_sizes=(trial.suggest_int("hidden", 4, 64, log=True),),
            learning_rate_init=trial.suggest_float("learning_rate", 1e-4, 0.3, log=True),
            beta_1=trial.suggest_float("beta_1", 0.0, 0.95),
            batch_size=batch_size,
            random_state=0,
        )
        rng, losses = np.random.default_rng(0), []
        for _ in range(args.epochs):
            for rows in np.array_split(rng.permutation(len(x)), batches):
                model.partial_fit(x[rows], y[rows], classes=range(10))
                trial.report(model.loss_, step=len(losses))
                losses.append(model.loss_)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return float(np.mean(losses[-batches:]))  # of the last epoch: no single batch decides

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="minibatch-loss",
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(interval_steps=10),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, args.epochs, "iterations")


if __name__ == "__main__":
    main()
