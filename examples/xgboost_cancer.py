"""XGBoost on the breast cancer data; the number of rounds is a hyper-parameter.

python examples/xgboost_cancer.py

Each trial announces its own length with one line, set_n_steps, and is judged by its own end. The
callback of optuna-integration reports rounds from 0 on.
"""

import optuna
import xgboost
from optuna_integration import XGBoostPruningCallback
from shared import options, print_summary
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from optuna_lcpruner import LearningCurvePruner, set_n_steps


def main() -> None:
    args = options(__doc__, trials=60, rounds=200).parse_args()
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(
        x, y, test_size=0.4, random_state=0, stratify=y
    )
    train = xgboost.DMatrix(x_train, label=y_train)
    valid = xgboost.DMatrix(x_valid, label=y_valid)

    def objective(trial: optuna.Trial) -> float:
        rounds = trial.suggest_int("rounds", max(1, args.rounds // 4), args.rounds)
        set_n_steps(trial, rounds)
        params = {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "eta": trial.suggest_float("eta", 3e-3, 1.0, log=True),
            "max_depth": trial.suggest_int("max_depth", 1, 8),
            "subsample": trial.suggest_float("subsample", 0.2, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.2, 1.0),
            "lambda": trial.suggest_float("lambda", 1e-3, 10.0, log=True),
            "seed": 0,
            "nthread": 1,
        }
        losses: dict[str, dict[str, list[float]]] = {}
        xgboost.train(
            params,
            train,
            num_boost_round=rounds,
            evals=[(valid, "valid")],
            evals_result=losses,
            verbose_eval=False,
            callbacks=[XGBoostPruningCallback(trial, "valid-logloss")],
        )
        return losses["valid"]["logloss"][-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="xgboost-cancer",
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, args.rounds, "rounds")


if __name__ == "__main__":
    main()
