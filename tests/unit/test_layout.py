"""Where the tests of a module are: in the file of its name in the same folder here."""

from __future__ import annotations

from pathlib import Path

import pytest

import optuna_lcpruner

PACKAGE = Path(optuna_lcpruner.__file__).parent
TESTS = Path(__file__).parents[1]
UNIT = TESTS / "unit"

ELSEWHERE = {
    "version.py": "integration/test_package.py",
    "_util/arrays.py": None,  # nothing but names of types
    # By all that makes tables of pandas, and all that looks back.
    "_util/dataframes.py": "unit/reporting/test_report.py",
    "reporting/decisions.py": "unit/reporting/test_build_report.py",
    # With the report that it is of.
    "backtest/figure.py": "unit/backtest/test_report.py",
    "backtest/outcome.py": "unit/backtest/test_report.py",
    # What people type, and what it does to processes, files and servers.
    "cli/_common.py": "integration/test_cli.py",
    "cli/backtest.py": "integration/test_cli.py",
    "cli/check.py": "unit/pruners/test_check.py",
    "cli/completion.py": "unit/pruners/test_check.py",
    "cli/explain.py": "unit/reporting/test_explanation.py",
    "cli/main.py": "integration/test_cli.py",
    "cli/report.py": "unit/reporting/test_build_report.py",
    "cli/serve.py": "integration/test_serve.py",
    # With storages, threads and executors around it.
    "service/forecaster.py": "integration/test_forecaster.py",
    # In a browser.
    "visualization/dashboard.py": "integration/test_dashboard.py",
}
"""Modules whose tests have another place, and that place."""

OF_SEVERAL = {
    "backtest/test_workers.py": "replays by several workers at once",
    "posterior/test_own_families.py": "a family of one's own in each engine",
}
"""Files in the folders here that are about more than one module."""


def modules() -> list[str]:
    paths = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    return sorted(path for path in paths if not path.endswith("__init__.py"))


def file_for(module: str) -> str:
    """The file for a module; without the underscores of private ones."""
    *folders, name = (part.lstrip("_") for part in module.split("/"))
    return "/".join([*folders, f"test_{name}"])


@pytest.mark.parametrize("module", modules())
def test_each_module_has_its_tests(module: str) -> None:
    own = UNIT / file_for(module)
    assert own.exists() is (module not in ELSEWHERE)
    place = ELSEWHERE.get(module)
    assert place is None or (TESTS / place).exists()


def test_each_file_in_a_folder_is_of_a_module() -> None:
    own = {file_for(module) for module in modules()}
    found = {path.relative_to(UNIT).as_posix() for path in UNIT.glob("*/**/test_*.py")}
    assert found - own == set(OF_SEVERAL)


def test_no_exception_for_what_is_no_module() -> None:
    assert set(ELSEWHERE) <= set(modules())
