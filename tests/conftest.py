"""Quiet by default: a test that looks at the log turns it up itself."""

from collections.abc import Iterator

import optuna
import pytest


@pytest.fixture(autouse=True, scope="session")
def quiet() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(verbosity)
