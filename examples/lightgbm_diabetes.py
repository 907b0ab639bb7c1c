"""LightGBM on the diabetes data, reporting every fifth round.

python examples/lightgbm_diabetes.py

The callback of optuna-integration numbers rounds from 0 on, so with report_interval=5 the reports
are at steps 4, 9, 14, ... The horizon is still the number of rounds.
"""

import lightgbm
import optuna
from optuna_integration import LightGBMPruningCallback
from shared import options, print_summary
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from optuna_lcpruner import LearningCurvePruner

EVERY = 5


def main() -> None:
    args = options(__doc__, trials=60, rounds=200).parse_args()
    x, y = load_diabetes(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(x, y, test_size=0.4, random_state=0)
    train = lightgbm.Dataset(x_train, y_train, params={"verbosity": -1}, free_raw_data=False)
    valid = train.create_valid(x_valid, y_valid)

    def objective(trial: optuna.Trial) -> float:
        params = {
            "objective": "regression",
            "metric": "rmse",
            "learning_rate": trial.suggest_float("learning_rate", 3e-3, 1.0, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 2, 32, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 1, 50, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 100.0, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.2, 1.0),
            "feature_pre_filter": False,
            "verbosity": -1,
            "num_threads": 1,
            "seed": 0,
        }
        model = lightgbm.train(
            params,
            train,
            num_boost_round=args.rounds,
            valid_sets=[valid],
            callbacks=[LightGBMPruningCallback(trial, "rmse", report_interval=EVERY)],
        )
        return model.best_score["valid_0"]["rmse"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="lightgbm-diabetes",
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(n_steps=args.rounds),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, args.rounds, "rounds", every=EVERY)


if __name__ == "__main__":
    main()
