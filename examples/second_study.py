"""Tune a network on other data, with what an earlier study found: the best of it go first.

python examples/second_study.py    # half a minute

The first study is of the digits 0 to 4. The second one, of 5 to 9, is searched twice: from nothing,
and beginning with the three best configurations of the first.
"""

from collections.abc import Callable

import optuna
from optuna.trial import TrialState
from shared import options, print_summary
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from optuna_lcpruner import LearningCurvePruner


def objective_of(digits: range, epochs: int) -> Callable[[optuna.Trial], float]:
    """The validation loss of a network that tells these digits apart."""
    images, labels = load_digits(return_X_y=True)
    these = (labels >= digits.start) & (labels < digits.stop)
    x_train, x_valid, y_train, y_valid = train_test_split(
        images[these] / 16, labels[these], test_size=0.5, random_state=0, stratify=labels[these]
    )

    def objective(trial: optuna.Trial) -> float:
        network = MLPClassifier(
            hidden_layer_sizes=(trial.suggest_int("hidden", 4, 128, log=True),),
            learning_rate_init=trial.suggest_float("learning_rate", 1e-4, 1.0, log=True),
            batch_size=trial.suggest_int("batch_size", 16, 256, log=True),
            alpha=trial.suggest_float("alpha", 1e-5, 1.0, log=True),
            solver="sgd",
            random_state=0,
        )
        for epoch in range(epochs):
            network.partial_fit(x_train, y_train, classes=digits)
            loss = float(log_loss(y_valid, network.predict_proba(x_valid)))
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    return objective


def main() -> None:
    args = options(__doc__, trials=30, epochs=40).parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    studies = {}
    for name, digits in (("first", range(5)), ("cold", range(5, 10)), ("warm", range(5, 10))):
        study = studies[name] = optuna.create_study(
            study_name=f"second-study-{name}",
            storage=args.storage,
            direction="minimize",
            sampler=optuna.samplers.RandomSampler(seed=digits.start),
            pruner=LearningCurvePruner(n_steps=args.epochs),
        )
        if name == "warm":
            completed = studies["first"].get_trials(states=[TrialState.COMPLETE])
            for trial in sorted(completed, key=lambda trial: trial.value)[:3]:
                study.enqueue_trial(trial.params)
        study.optimize(objective_of(digits, args.epochs), args.trials, show_progress_bar=True)
        print_summary(study, args.epochs)

    print("\nsecond study                 epochs  best loss")
    for name, words in (("cold", "from nothing"), ("warm", "with the best of the first")):
        study = studies[name]
        epochs = sum(len(trial.intermediate_values) for trial in study.trials)
        print(f"  {words:26s} {epochs:6d}  {study.best_value:9.4f}")


if __name__ == "__main__":
    main()
