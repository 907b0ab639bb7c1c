"""What the examples share: their options and the summary they print."""

import argparse
from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from optuna_lcpruner import resumed_from


def at_least(low: int) -> Callable[[str], int]:
    """An argument's type: integers from ``low`` on."""

    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"must be an integer >= {low}, but got {text!r}")
        return int(text)

    return integer


def storage(url: str) -> optuna.storages.BaseStorage:
    """An argument's type: the database at a URL."""
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:
        raise argparse.ArgumentTypeError(
            f"cannot open {url!r}, try sqlite:///FILE ({error})"
        ) from None


def options(description: str | None, *, trials: int, **steps: int) -> argparse.ArgumentParser:
    """A parser of ``--trials``, ``--storage`` and the length of a training, say ``epochs=30``."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--trials", type=at_least(1), default=trials, help="default: %(default)s")
    for unit, default in steps.items():
        described = "of a full training, default: %(default)s"
        parser.add_argument(f"--{unit}", type=at_least(2), default=default, help=described)
    parser.add_argument("--storage", type=storage, help="sqlite:///FILE; default: in memory")
    return parser


def print_summary(study: optuna.Study, n_steps: int, unit: str = "epochs", every: int = 1) -> None:
    """How many trials were pruned, what it saved, the best one, and why one was pruned.

    Args:
        study: The study, all of its trials over.
        n_steps: Steps of a full training, for trials that have not announced their own.
        unit: What a step is.
        every: Steps from one report to the next.
    """
    trials = study.trials
    completed = study.get_trials(states=[TrialState.COMPLETE])
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    reasons = {trial.number: trial.user_attrs["lcpruner_reason"] for trial in pruned}
    diverged = sum(reason.startswith("pruned: diverged") for reason in reasons.values())
    resumed = {trial.number: resumed_from(trial) for trial in trials}
    inherited = sum(
        sum(step <= point.step for step in trials[number].intermediate_values)
        for number, point in resumed.items()
        if point is not None
    )
    spent = every * (sum(len(trial.intermediate_values) for trial in trials) - inherited)
    begun = [trial for trial in trials if resumed[trial.number] is None]
    full = sum(trial.user_attrs.get("lcpruner_n_steps", n_steps) for trial in begun)
    print(f"\n{study.study_name}: {len(trials)} trials")
    print(f"  completed   {len(completed)}")
    print(f"  pruned      {len(pruned)}{f' ({diverged} diverged)' if diverged else ''}")
    print(f"  {unit:11} {spent} of {full} without pruning, {1 - spent / full:.0%} saved")
    if completed:
        best = study.best_trial
        print(f"  best value  {best.value:.4f} (trial {best.number})")
        print("             ", ", ".join(f"{k}={format_(v)}" for k, v in best.params.items()))
    by_forecast = [number for number, reason in reasons.items() if "P = " in reason]
    if by_forecast:
        print(f"\nOne of the pruned, trial {by_forecast[-1]}:\n  {reasons[by_forecast[-1]]}")


def print_resumed(study: optuna.Study, unit: str) -> None:
    """Which trials went on, from which step, and how they ended."""
    points = [(trial, resumed_from(trial)) for trial in study.trials]
    resumed = [(trial, point) for trial, point in points if point is not None]
    print(f"\n{len(resumed)} pruned trials went on.")
    for trial, point in resumed:
        end = f"{trial.state.name.lower()} after {unit} {trial.last_step}"
        if trial.state == TrialState.COMPLETE:
            end += f", {trial.value:.4f}"
            end += ", the best" if trial.number == study.best_trial.number else ""
        print(f"  trial {point.number}, after {unit} {point.step}, as trial {trial.number}: {end}")


def format_(value: object) -> str:
    """Three digits of a number, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
