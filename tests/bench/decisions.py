"""Record what is decided at each look at the recorded studies, to tell a change from a move.

    python tests/bench/decisions.py

writes ``tests/decisions.npz``: for each recorded study P(beat) and threshold of all
looks, shape (n, 2), NaN where there was no forecast, and whether the trial was stopped at it. The
first trainings of each study run in one random order. Run it after a change that is meant to decide
otherwise; the test that compares says which studies it changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner

TESTS = Path(__file__).parents[1]
RECORD = TESTS / "decisions.npz"
N_TRIALS = 25


def studies() -> list[Path]:
    """The recorded studies."""
    return sorted((TESTS / "recorded").glob("*.npz"))


def decisions(path: Path, n_trials: int = N_TRIALS) -> tuple[np.ndarray, np.ndarray]:
    """P(beat) and threshold of all looks, and which of them stopped the trial."""
    data = np.load(path, allow_pickle=True)
    maximize, curves = bool(data["maximize"]), data["curves"].astype(float)
    pruner = LearningCurvePruner(n_steps=curves.shape[1], publish=False, ledger=False)
    study = optuna.create_study(
        study_name="recorded",
        direction="maximize" if maximize else "minimize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=pruner,
    )
    looks, stops = [], []
    for index in np.random.default_rng(0).permutation(len(curves))[:n_trials]:
        trial, stopped = study.ask(), False
        for step, value in enumerate(curves[index]):
            trial.report(float(value), step)
            decision = pruner.decide(study, study._storage.get_trial(trial._trial_id))
            looks.append([decision.p_beat, decision.threshold])
            stops.append(decision.prune)
            stopped = decision.prune
            if stopped:
                break
        if stopped:
            study.tell(trial, state=TrialState.PRUNED)
        elif np.isfinite(curves[index][-1]):
            study.tell(trial, float(curves[index][-1]))
        else:
            study.tell(trial, state=TrialState.FAIL)
    return np.array(looks, dtype=float), np.array(stops)


def main() -> None:
    """Write the record."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    record = {}
    for path in studies():
        looks, stops = decisions(path)
        record[f"{path.stem}/looks"], record[f"{path.stem}/stops"] = looks, stops
        print(f"{path.stem}: {len(looks)} looks, {stops.sum()} stops")
    np.savez_compressed(RECORD, **record)


if __name__ == "__main__":
    main()
