"""Tune a small neural network on handwritten digits and stop hopeless trainings early.

python examples/quickstart.py            # a minute or less; writes quickstart.db, quickstart.png
python examples/quickstart.py --check    # then trains every pruned configuration to the end
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from optuna.trial import TrialState
from shared import at_least
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from optuna_lcpruner import LearningCurvePruner


def train(params: dict[str, Any], epochs: int, seed: int) -> Iterator[float]:
    """Train a network; yields its validation loss after each epoch."""
    images, digits = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(
        images / 16.0, digits, test_size=0.5, random_state=seed, stratify=digits
    )
    network = MLPClassifier(
        hidden_layer_sizes=(params["hidden"],),
        learning_rate_init=params["learning_rate"],
        batch_size=params["batch_size"],
        momentum=params["momentum"],
        alpha=params["alpha"],
        solver="sgd",
        random_state=seed,
    )
    for _ in range(epochs):
        network.partial_fit(x_train, y_train, classes=range(10))
        yield float(log_loss(y_valid, network.predict_proba(x_valid)))


def run_study(args: argparse.Namespace, storage: optuna.storages.BaseStorage) -> optuna.Study:
    def objective(trial: optuna.Trial) -> float:
        params = {
            "hidden": trial.suggest_int("hidden", 4, 128, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
            "batch_size": trial.suggest_int("batch_size", 16, 256, log=True),
            "momentum": trial.suggest_float("momentum", 0.0, 0.95),
            "alpha": trial.suggest_float("alpha", 1e-5, 1e-1, log=True),
        }
        for epoch, loss in enumerate(train(params, args.epochs, args.seed)):
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    # Each run is a study of its own: a resumed one would draw the same first trials again.
    taken = set(optuna.get_all_study_names(storage))
    name = next(n for i in itertools.count(1) if (n := f"quickstart-{i}") not in taken)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=args.seed),
        pruner=LearningCurvePruner(n_steps=args.epochs),
    )
    study.optimize(objective, n_trials=args.trials, show_progress_bar=True)
    return study


def draw(study: optuna.Study, to_the_end: dict[int, list[float]], path: str) -> None:
    """All trials; beside them those of `to_the_end` with the forecast that stopped them."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for state, name, colour in (
        (TrialState.PRUNED, "pruned", "0.65"),
        (TrialState.COMPLETE, "completed", "C0"),
    ):
        trials = study.get_trials(deepcopy=False, states=[state])
        left.plot([], [], "o-", color=colour, ms=3, label=f"{len(trials)} {name}")
        for trial in trials:
            y = list(trial.intermediate_values.values())
            left.plot(range(1, len(y) + 1), y, "o-", color=colour, lw=0.8, ms=3, markevery=[-1])
    for i, (number, y) in enumerate(to_the_end.items()):
        trial, colour, end = study.trials[number], f"C{i + 1}", len(y)
        n = len(trial.intermediate_values)
        mean, low, high = (
            trial.user_attrs[f"lcpruner_{key}"]
            for key in ("forecast", "forecast_lower", "forecast_upper")
        )
        right.plot(range(1, n + 1), y[:n], "o-", color=colour, lw=2, markevery=[-1])
        right.plot(range(n, end + 1), y[n - 1 :], ":", color=colour, lw=1.5)
        x = end * (1.04 + 0.04 * i)  # beside the last epoch, which is what was forecast
        right.plot([x, x], [low, high], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        right.plot(x, mean, "_", color=colour, ms=9, mew=2)
        right.annotate(
            f"trial {number}", (n, y[n - 1]), (6, 3), textcoords="offset points", color=colour
        ).set_bbox({"fc": "w", "alpha": 0.7, "lw": 0, "pad": 0})
    for style, label in (
        ({"lw": 2, "marker": "o"}, "until pruned"),
        ({"lw": 1.5, "ls": ":"}, "trained to the end after all"),
        ({"lw": 5, "alpha": 0.35}, "forecast when pruned (90 %)"),
    ):
        right.plot([], [], color="0.3", label=label, **style)
    for axes, title in ((left, "All trials"), (right, "Some pruned trials: what was forecast")):
        axes.axhline(study.best_value, color="k", lw=1, ls="--", label="best value of the study")
        axes.set(title=title, xlabel="epoch", ylabel="validation loss", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            frameon=False,
            fontsize="small",
            loc="upper right",
            bbox_to_anchor=(1 if axes is left else 0.87, 1),
        )
    figure.savefig(path, dpi=200)


def parse_arguments() -> tuple[argparse.Namespace, optuna.storages.BaseStorage]:
    parser = argparse.ArgumentParser(description="Tune a network, stop hopeless trainings early.")
    parser.add_argument("--trials", type=at_least(1), default=60)
    parser.add_argument("--epochs", type=at_least(2), default=40, help="of a full training")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--storage", default="sqlite:///quickstart.db", help="database URL")
    parser.add_argument("--figure", default="quickstart.png", help="picture to write")
    parser.add_argument("--check", action="store_true", help="train all pruned trials to the end")
    args = parser.parse_args()
    figure = Path(args.figure).absolute()
    if figure.suffix not in (".png", ".pdf", ".svg"):
        parser.error(f"--figure: must end in .png, .pdf or .svg, but got {args.figure!r}")
    if not figure.parent.is_dir():
        parser.error(f"--figure: no such folder: {figure.parent}")
    try:
        return args, optuna.storages.get_storage(args.storage)
    except Exception as error:
        parser.error(f"--storage: cannot open {args.storage!r}, try sqlite:///FILE ({error})")


def main() -> None:
    args, storage = parse_arguments()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    start = time.monotonic()
    with threadpool_limits(1):  # so small a network trains faster on one thread than on many
        study = run_study(args, storage)
        seconds = time.monotonic() - start
        trials, best = study.trials, study.best_trial
        pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
        by_length = sorted(pruned, key=lambda trial: len(trial.intermediate_values))
        by_length = [trial for trial in by_length if "lcpruner_forecast" in trial.user_attrs]
        shown = by_length[len(by_length) // 3 :: max(1, len(by_length) // 4)][:3]
        # Same parameters and seed: the same training, now to its end.
        start = time.monotonic()
        to_the_end = {
            trial.number: list(train(trial.params, args.epochs, args.seed))
            for trial in (pruned if args.check else shown)
        }
        retraining = time.monotonic() - start
    completed = sum(trial.state == TrialState.COMPLETE for trial in trials)
    spent = sum(len(trial.intermediate_values) for trial in trials)
    full = args.epochs * len(trials)
    print(f"\n{study.study_name}: {len(trials)} trials in {seconds:.0f} s")
    print(f"  completed  {completed}")
    print(f"  pruned     {len(pruned)}")
    print(f"  epochs     {spent} of {full} without pruning, {1 - spent / full:.0%} saved")
    print(f"  best loss  {study.best_value:.4f} (trial {best.number})")
    print("            ", ", ".join(f"{name}={value:.3g}" for name, value in best.params.items()))
    print("\nSome pruned trials, and where they end when trained on:")
    for trial in shown:
        print(f"  trial {trial.number} {trial.user_attrs['lcpruner_reason']}")
        print(f"    -> {to_the_end[trial.number][-1]:.4f}")
    better = [f"trial {n}: {y[-1]:.4f}" for n, y in to_the_end.items() if y[-1] < best.value]
    print(f"\nTrained on: {len(to_the_end)} of {len(pruned)} pruned trials in {retraining:.0f} s")
    named = f" ({', '.join(better)})" if better else ""
    print(f"Better than the best: {len(better)}{named}")
    if not args.check:
        print("Whether one of the others would be is unknown; --check trains all of them on.")
    draw(study, {trial.number: to_the_end[trial.number] for trial in shown}, args.figure)
    print(f"\nSaved: {args.storage}, {args.figure}. To browse the study:")
    print(f"  pip install optuna-dashboard && optuna-dashboard {args.storage}")


if __name__ == "__main__":
    main()
