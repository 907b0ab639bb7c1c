"""Quiet by default: a test that looks at the log turns it up itself."""

import gc
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from helpers import sqlite
from hypothesis import settings
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

# The same examples in every CI run; a developer's runs look for new ones, fewer each time.
settings.register_profile("ci", derandomize=True, max_examples=40)
settings.register_profile("developer", max_examples=20)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


@pytest.fixture(autouse=True, scope="session")
def modules_are_no_garbage() -> Iterator[None]:
    """What is imported by now is not looked through at each collection."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def quiet() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(verbosity)


@pytest.fixture(autouse=True, scope="session")
def compiled_once() -> Iterator[None]:
    """SQLAlchemy compiles each statement once, not once for each engine: tests make hundreds."""
    compiled: dict[object, object] = {}

    def share(connection: sqlalchemy.Connection) -> None:
        connection.execution_options(compiled_cache=compiled)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLiteDialect_pysqlite, "__eq__", lambda a, b: type(a) is type(b))
        patch.setattr(SQLiteDialect_pysqlite, "__hash__", lambda a: hash(type(a)))
        sqlalchemy.event.listen(sqlalchemy.Engine, "engine_connect", share)
        yield
        sqlalchemy.event.remove(sqlalchemy.Engine, "engine_connect", share)


@pytest.fixture
def study_url(tmp_path: Path) -> str:
    """An SQLite file with an empty study "s" that maximises."""
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(study_name="s", storage=sqlite(url), direction="maximize")
    return url


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that start during the test, in that order."""
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        threads.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return threads


def messages_of(level: int) -> Iterator[list[str]]:
    """What the package's logger says at this level and above, while the generator is open."""
    messages: list[str] = []
    handler = logging.Handler(level)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("optuna.lcpruner")
    logger.addHandler(handler)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(level)
    yield messages
    optuna.logging.set_verbosity(verbosity)
    logger.removeHandler(handler)


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """Messages of the warnings on the package's logger."""
    yield from messages_of(logging.WARNING)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Messages on the package's logger, its decisions too."""
    yield from messages_of(logging.INFO)
