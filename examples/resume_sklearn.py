"""scikit-learn on the digits, pickled after each epoch: the closest calls go on to their end.

python examples/resume_sklearn.py    # half a minute

After the search requeue(study, k, resume=True) lets the k pruned trials go on whose chance was the
highest, each from its own checkpoint: it costs only the epochs that were left.
"""

import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
from shared import options, print_resumed, print_summary
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from optuna_lcpruner import LearningCurvePruner, report, requeue, resumed_from


def main() -> None:
    parser = options(__doc__, trials=60, epochs=30)
    parser.add_argument("--resume", type=int, default=3, help="closest calls; default: %(default)s")
    args = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(
        x / 16.0, y, test_size=0.5, random_state=0, stratify=y
    )

    def objective(trial: optuna.Trial) -> float:
        model = MLPClassifier(
            hidden_layer_sizes=(trial.suggest_int("hidden", 4, 64, log=True),),
            learning_rate_init=trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
            alpha=trial.suggest_float("alpha", 1e-5, 1.0, log=True),
            batch_size=trial.suggest_int("batch_size", 16, 256, log=True),
            solver="sgd",
            random_state=0,
        )
        first, point = 0, resumed_from(trial)
        if point is not None:  # another trial's checkpoint, and on from the epoch after
            model = pickle.loads(checkpoint(point.number).read_bytes())
            first = point.step + 1
        for epoch in range(first, args.epochs):
            model.partial_fit(x_train, y_train, classes=range(10))
            loss = log_loss(y_valid, model.predict_proba(x_valid))
            checkpoint(trial.number).write_bytes(pickle.dumps(model))  # before it can be pruned
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with TemporaryDirectory() as folder:

        def checkpoint(number: int) -> Path:
            return Path(folder, f"{number}.pickle")

        study = optuna.create_study(
            study_name="resume-sklearn",
            storage=args.storage,
            direction="minimize",
            sampler=optuna.samplers.TPESampler(seed=0),
            # requeue looks up the closest calls; a study in memory has no ledger of its own.
            pruner=LearningCurvePruner(args.epochs, ledger=f"sqlite:///{folder}/ledger.db"),
        )
        study.optimize(objective, args.trials)
        requeued = requeue(study, args.resume, resume=True)
        study.optimize(objective, n_trials=len(requeued))
        chances = report(study).second_chances
    print_summary(study, args.epochs)
    print_resumed(study, "epoch")
    print(f"{sum(chance.beat is True for chance in chances)} beat what was the best when pruned.")


if __name__ == "__main__":
    main()
