"""Ray Tune: a trial scheduler that asks should_stop; no Optuna study anywhere.

python examples/ray_scheduler.py    # a minute; pip install "ray[tune]"

The scheduler keeps the curves that trials report and gives them to should_stop, as any other
scheduler can do.
"""

import argparse
import math

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from shared import at_least

from optuna_lcpruner import should_stop


class LearningCurveScheduler(FIFOScheduler):
    """Stops trials that are unlikely to become the best.

    Args:
        metric: The metric that trials report.
        mode: "min" or "max".
        n_steps: Reports of a full training.
        settings: Those of should_stop, say risk=0.02.
    """

    def __init__(self, metric: str, mode: str, n_steps: int, **settings: object) -> None:
        super().__init__()
        self._metric = metric
        self._settings = {
            "n_steps": n_steps,
            "direction": {"min": "minimize", "max": "maximize"}[mode],
            **settings,
        }
        self._running: dict[str, dict[int, float]] = {}
        self._completed: dict[str, dict[int, float]] = {}
        self.stopped: dict[str, dict[int, float]] = {}
        self.reasons: dict[str, str] = {}

    def on_trial_result(self, controller: object, trial: object, result: dict) -> str:
        curve = self._running.setdefault(trial.trial_id, {})
        curve[result["training_iteration"]] = result[self._metric]
        decision = should_stop(
            curve,
            completed=list(self._completed.values()),
            running=[other for other in self._running.values() if other is not curve],
            stopped=list(self.stopped.values()),
            **self._settings,
        )
        if not decision.prune:
            return TrialScheduler.CONTINUE
        self.stopped[trial.trial_id] = self._running.pop(trial.trial_id)
        self.reasons[trial.trial_id] = decision.message
        return TrialScheduler.STOP

    def on_trial_complete(self, controller: object, trial: object, result: dict) -> None:
        """Take a training for complete; Tune's last result may be one more report."""
        curve = self._running.pop(trial.trial_id, None)
        if curve is not None:
            curve[result["training_iteration"]] = result[self._metric]
            self._completed[trial.trial_id] = curve

    def on_trial_error(self, controller: object, trial: object) -> None:
        self._running.pop(trial.trial_id, None)

    def on_trial_remove(self, controller: object, trial: object) -> None:
        self._running.pop(trial.trial_id, None)


def train(config: dict) -> None:
    """Train a network on scikit-learn's diabetes data; a loss that overflows is NaN."""
    import numpy as np
    from sklearn.datasets import load_diabetes
    from sklearn.metrics import mean_squared_error
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPRegressor
    from sklearn.preprocessing import scale

    x, y = load_diabetes(return_X_y=True)
    data = train_test_split(scale(x), scale(y), test_size=0.4, random_state=0)
    x_train, x_valid, y_train, y_valid = data
    model = MLPRegressor(
        hidden_layer_sizes=(config["hidden"],),
        learning_rate_init=config["learning_rate"],
        solver="sgd",
        random_state=0,
    )
    for _ in range(config["epochs"]):
        try:
            with np.errstate(all="ignore"):  # no warnings of what is expected here
                model.partial_fit(x_train, y_train)
                loss = mean_squared_error(y_valid, model.predict(x_valid))
        except ValueError:  # scikit-learn's answer to weights or predictions that overflow
            loss = math.nan
        tune.report({"loss": loss})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=at_least(1), default=30, help="default: %(default)s")
    parser.add_argument("--epochs", type=at_least(2), default=30, help="default: %(default)s")
    args = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    scheduler = LearningCurveScheduler("loss", "min", n_steps=args.epochs)
    tuner = tune.Tuner(
        train,
        param_space={
            "learning_rate": tune.loguniform(1e-4, 1.0),
            "hidden": tune.choice([4, 8, 16, 32, 64]),
            "epochs": args.epochs,
        },
        tune_config=tune.TuneConfig(
            num_samples=args.trials, scheduler=scheduler, max_concurrent_trials=2
        ),
        run_config=tune.RunConfig(verbose=0),
    )
    results = tuner.fit()
    spent = sum(result.metrics["training_iteration"] for result in results)
    full = args.trials * args.epochs
    print(f"\n{len(results)} trials")
    print(f"  completed   {len(results) - len(scheduler.stopped)}")
    print(f"  stopped     {len(scheduler.stopped)}")
    print(f"  epochs      {spent} of {full} without stopping, {1 - spent / full:.0%} saved")
    best = results.get_best_result("loss", "min")
    print(f"  best loss   {best.metrics['loss']:.4f}")
    by_forecast = [reason for reason in scheduler.reasons.values() if "P = " in reason]
    if by_forecast:
        print(f"\nOne of the stopped:\n  {by_forecast[-1]}")


if __name__ == "__main__":
    main()
