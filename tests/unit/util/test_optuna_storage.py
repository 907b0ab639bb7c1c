"""Which storages are relational, and which databases no file keeps."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import sqlalchemy
from helpers import sqlite
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from optuna_lcpruner._util.optuna_storage import is_in_memory, relational


def test_behind_optunas_cache(tmp_path: Path) -> None:
    storage = optuna.storages.get_storage(f"sqlite:///{tmp_path}/s.db")
    found = relational(storage)
    assert found is not None
    assert found is not storage
    assert found.engine.url.database == f"{tmp_path}/s.db"


def test_without_a_cache() -> None:
    storage = sqlite("sqlite://")
    assert relational(storage) is storage


def test_other_kinds(tmp_path: Path) -> None:
    assert relational(InMemoryStorage()) is None
    assert relational(JournalStorage(JournalFileBackend(f"{tmp_path}/s.log"))) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite://", True),
        ("sqlite:///:memory:", True),
        ("sqlite:///s.db", False),
        ("postgresql://host/d", False),
        ("postgresql://host", False),
    ],
)
def test_what_no_file_keeps(url: str, expected: bool) -> None:
    assert is_in_memory(sqlalchemy.make_url(url)) is expected
