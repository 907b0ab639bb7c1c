"""scikit-learn's partial_fit on the diabetes data; with large learning rates training diverges.

python examples/sklearn_partial_fit.py    # seconds

Nothing tells the pruner how long a training is: it learns it from the trials that complete.
A training that overflows reports NaN and is stopped.
"""

import math

import numpy as np
import optuna
from shared import options, print_summary
from sklearn.datasets import load_diabetes
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import scale

from optuna_lcpruner import LearningCurvePruner


def main() -> None:
    args = options(__doc__, trials=60, epochs=40).parse_args()
    x, y = load_diabetes(return_X_y=True)
    data = train_test_split(scale(x), scale(y), test_size=0.4, random_state=0)
    x_train, x_valid, y_train, y_valid = data

    def objective(trial: optuna.Trial) -> float:
        model = MLPRegressor(
            hidden_layer_sizes=(trial.suggest_int("hidden", 4, 64, log=True),),
            learning_rate_init=trial.suggest_float("learning_rate", 1e-4, 10.0, log=True),
            alpha=trial.suggest_float("alpha", 1e-5, 1.0, log=True),
            batch_size=trial.suggest_int("batch_size", 8, 64, log=True),
            solver="sgd",
            random_state=0,
        )
        for epoch in range(args.epochs):
            try:
                with np.errstate(all="ignore"):  # no warnings of what is expected here
                    model.partial_fit(x_train, y_train)
                    loss = mean_squared_error(y_valid, model.predict(x_valid))
            except ValueError:  # scikit-learn's answer to weights or predictions that overflow
                loss = math.nan
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="sklearn-partial-fit",
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, args.epochs)


if __name__ == "__main__":
    main()
