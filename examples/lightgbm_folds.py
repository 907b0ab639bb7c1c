"""LightGBM on the diabetes data, cross-validated fold after fold.

python examples/lightgbm_folds.py

FoldReporter makes one curve of all folds, whose end is the mean over folds. A trial that is
hopeless is stopped in its first fold. Every fifth round is reported.
"""

from collections.abc import Callable

import lightgbm
import optuna
from shared import options, print_summary
from sklearn.datasets import load_diabetes
from sklearn.model_selection import KFold

from optuna_lcpruner import FoldReporter, LearningCurvePruner

EVERY, FOLDS = 5, 5


def main() -> None:
    args = options(__doc__, trials=40, rounds=100).parse_args()
    x, y = load_diabetes(return_X_y=True)
    splits = list(KFold(FOLDS, shuffle=True, random_state=0).split(x))

    def objective(trial: optuna.Trial) -> float:
        params = {
            "objective": "regression",
            "metric": "rmse",
            "learning_rate": trial.suggest_float("learning_rate", 3e-3, 1.0, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 2, 32, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 1, 50, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.2, 1.0),
            "verbosity": -1,
            "num_threads": 1,
            "seed": 0,
        }
        folds = FoldReporter(trial, FOLDS, args.rounds)

        def report_of(fold: int) -> Callable[[lightgbm.callback.CallbackEnv], None]:
            def report(env: lightgbm.callback.CallbackEnv) -> None:
                if (env.iteration + 1) % EVERY == 0:
                    (_, _, loss, _), *_ = env.evaluation_result_list
                    folds.report(loss, fold, env.iteration)
                    if trial.should_prune():
                        raise optuna.TrialPruned

            return report

        for fold, (training, validation) in enumerate(splits):
            train = lightgbm.Dataset(x[training], y[training], params={"verbosity": -1})
            valid = train.create_valid(x[validation], y[validation])
            lightgbm.train(
                params,
                train,
                num_boost_round=args.rounds,
                valid_sets=[valid],
                callbacks=[report_of(fold)],
            )
        return folds.mean

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="lightgbm-folds",
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, FOLDS * args.rounds, "rounds", every=EVERY)


if __name__ == "__main__":
    main()
