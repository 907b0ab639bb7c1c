"""Keras on TensorFlow: a network for handwritten digits.

python examples/keras_digits.py    # needs tensorflow (or tensorflow-cpu)

The callback of optuna-integration reports epochs from 0 on; the horizon is what fit() gets as
epochs.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: no start-up messages

import keras
import optuna
from optuna_integration import KerasPruningCallback
from shared import options, print_summary
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from optuna_lcpruner import LearningCurvePruner


def main() -> None:
    args = options(__doc__, trials=30, epochs=20).parse_args()
    images, digits = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(
        images / 16, digits, test_size=0.5, random_state=0, stratify=digits
    )

    def objective(trial: optuna.Trial) -> float:
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.layers.Dense(trial.suggest_int("units", 8, 128, log=True), "relu"),
                keras.layers.Dropout(trial.suggest_float("dropout", 0.0, 0.5)),
                keras.layers.Dense(10, "softmax"),
            ]
        )
        model.compile(
            keras.optimizers.SGD(
                trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
                momentum=trial.suggest_float("momentum", 0.0, 0.95),
            ),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        history = model.fit(
            x_train,
            y_train,
            validation_data=(x_valid, y_valid),
            epochs=args.epochs,
            batch_size=trial.suggest_int("batch_size", 32, 256, log=True),
            callbacks=[KerasPruningCallback(trial, "val_accuracy")],
            verbose=0,
        )
        return history.history["val_accuracy"][-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="keras-digits",
        storage=args.storage,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(n_steps=args.epochs),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, args.epochs)


if __name__ == "__main__":
    main()
