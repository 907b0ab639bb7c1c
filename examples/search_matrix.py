"""A search matrix: ranges, a grid or random points or a model's choice, each trained repeatedly.

python examples/search_matrix.py                          # grid, random, TPE
python examples/search_matrix.py --samplers grid gp       # the Gaussian process needs torch

One trial is one configuration. Its networks, which differ in their seeds alone, are trained side
by side and their mean loss is reported, so a configuration is stopped as a whole.
"""

from importlib.util import find_spec

import optuna
from optuna.samplers import GPSampler, GridSampler, RandomSampler, TPESampler
from shared import at_least, options, print_summary
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from optuna_lcpruner import LearningCurvePruner

GRID = {"learning_rate": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0], "hidden": [4, 8, 16, 32, 64]}
SAMPLERS = {
    "grid": lambda: GridSampler(GRID, seed=0),
    "random": lambda: RandomSampler(seed=0),
    "tpe": lambda: TPESampler(seed=0),
    "gp": lambda: GPSampler(seed=0),
}


def print_matrix(study: optuna.Study) -> None:
    """The grid: mean loss of a cell's repeats, or after how many epochs it was stopped."""
    cells = {}
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.COMPLETE:
            low, high = trial.user_attrs["range"]
            text = f"{trial.value:.3f} [{low:.3f}, {high:.3f}]"
        else:
            text = f"pruned after {len(trial.intermediate_values)}"
        best = " *" if trial.number == study.best_trial.number else ""
        cells[trial.params["learning_rate"], trial.params["hidden"]] = text + best
    print("\nlearning rate  mean loss [lowest, highest of the repeats]; * the best")
    rows = [["", *(f"{hidden} hidden" for hidden in GRID["hidden"])]]
    for rate in GRID["learning_rate"]:
        row = (cells.get((rate, hidden), "not run") for hidden in GRID["hidden"])
        rows.append([f"{rate:g}", *row])
    for first, *others in rows:
        print(f"{first:>13}  " + "".join(f"{cell:23}" for cell in others).rstrip())


def main() -> None:
    parser = options(__doc__, trials=30, epochs=30)
    parser.add_argument("--repeats", type=at_least(1), default=3, help="default: %(default)s")
    parser.add_argument(
        "--samplers", nargs="+", choices=SAMPLERS, default=["grid", "random", "tpe"]
    )
    args = parser.parse_args()
    if "gp" in args.samplers and find_spec("torch") is None:
        parser.error("--samplers: gp needs PyTorch: pip install torch")
    images, digits = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(
        images / 16, digits, test_size=0.5, random_state=0, stratify=digits
    )

    def objective(trial: optuna.Trial) -> float:
        learning_rate = trial.suggest_float("learning_rate", 0.003, 1.0, log=True)
        hidden = trial.suggest_int("hidden", 4, 64, log=True)
        networks = [
            MLPClassifier(
                hidden_layer_sizes=(hidden,),
                learning_rate_init=learning_rate,
                batch_size=64,
                solver="sgd",
                random_state=seed,
            )
            for seed in range(args.repeats)
        ]
        for epoch in range(args.epochs):
            losses = []
            for network in networks:
                network.partial_fit(x_train, y_train, classes=range(10))
                losses.append(log_loss(y_valid, network.predict_proba(x_valid)))
            trial.report(sum(losses) / len(losses), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("range", [min(losses), max(losses)])
        return sum(losses) / len(losses)

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    for name in args.samplers:
        study = optuna.create_study(
            study_name=f"search-matrix-{name}",
            storage=args.storage,
            direction="minimize",
            sampler=SAMPLERS[name](),
            pruner=LearningCurvePruner(n_steps=args.epochs),
        )
        study.optimize(objective, args.trials, show_progress_bar=True)
        print_summary(study, args.epochs)
        if name == "grid":
            print_matrix(study)


if __name__ == "__main__":
    main()
