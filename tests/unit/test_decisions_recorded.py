"""The pruner decides on the recorded studies what it decided when that was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench.decisions import N_TRIALS, RECORD, decisions, studies

QUICK = (
    "autoencoder_loss",
    "cart_pole_reward",
    "digits_accuracy",
    "digits_boosting_loss",
    "photo_decibels",
)
"""Studies whose first trials are soon replayed: losses, accuracies, rewards, early stopping."""


@pytest.mark.parametrize(
    ("path", "n_trials"),
    [
        *(pytest.param(path, 12, id=path.stem) for path in studies() if path.stem in QUICK),
        *(
            pytest.param(path, N_TRIALS, id=f"all of {path.stem}", marks=pytest.mark.slow)
            for path in studies()
        ),
    ],
)
def test_the_same_decisions(path: Path, n_trials: int) -> None:
    """Number for number; after a change that is meant to, record them anew."""
    with np.load(RECORD) as record:
        looks, stops = record[f"{path.stem}/looks"], record[f"{path.stem}/stops"]
    now, stopped = decisions(path, n_trials)
    if n_trials < N_TRIALS:
        assert stopped.sum() > 1
        looks, stops = looks[: len(now)], stops[: len(now)]
    np.testing.assert_array_equal(stopped, stops)
    np.testing.assert_allclose(now, looks, rtol=1e-6)


def test_all_studies_are_on_record() -> None:
    with np.load(RECORD) as record:
        assert {name.split("/")[0] for name in record} == {path.stem for path in studies()}
        assert all(record[f"{path.stem}/stops"].sum() > 5 for path in studies())
