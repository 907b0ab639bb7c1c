"""Where a ledger is stays where it was, wherever the process goes."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from helpers import BAD, good_study, reports, sqlite, watch

from optuna_lcpruner import LearningCurvePruner, explain
from optuna_lcpruner.records import ledger_writer
from optuna_lcpruner.records.location import address, checked


def test_beside_a_database_that_was_opened_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An objective that changes the folder, as frameworks do that give each run its own."""
    monkeypatch.chdir(tmp_path)
    study = good_study("sqlite:///study.db")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    watch(study, LearningCurvePruner(20), reports(BAD[:3]))
    assert ledger_writer.flush(20)
    assert (tmp_path / "study.db.lcpruner").is_file()
    assert not any((tmp_path / "run").iterdir())
    monkeypatch.chdir(tmp_path)
    again = optuna.load_study(study_name=study.study_name, storage=sqlite("sqlite:///study.db"))
    assert explain(again, 5).decisions


def test_a_relative_file_is_where_the_pruner_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    setting = checked("sqlite:///decisions.db")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    found = address(setting, optuna.storages.InMemoryStorage())
    assert found is not None
    assert found.url == f"sqlite:///{tmp_path}/decisions.db"
