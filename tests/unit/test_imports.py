"""Rooms import only from rooms below them, and what is heavy has one door each."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import optuna_lcpruner

PACKAGE = "optuna_lcpruner"
ROOT = Path(optuna_lcpruner.__file__).parent

FLOORS = (
    ("_util",),
    ("curves",),
    ("posterior",),
    ("study",),
    ("decision",),
    ("records",),
    ("pruners", "reporting"),
    ("visualization",),
    ("service", "backtest"),
    ("",),  # the names of the package
    ("cli",),
)
"""From the ground up; rooms on one floor do not know each other."""

RANK = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms} | {"version": -1}

ONLY = {
    "emcee": {"posterior.weighted_sum.moves"},
    "sqlalchemy": {
        "_util.optuna_storage", "records.ledger", "records.location", "cli._common",
    },
    "matplotlib": {"backtest.figure", "visualization.matplotlib"},
    "pandas": {"_util.dataframes"},
}  # fmt: skip
"""Third parties that only these modules import."""

WITHOUT_OPTUNA = {"posterior", "curves"}
"""Rooms of pure numpy; but for curves.horizon, which objectives call."""


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in ROOT.rglob("*.py")}


def room_of(module):
    return module.split(".")[0]


def imported(source, modules):
    """All modules that some source imports, as full dotted names."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix(PACKAGE + ".") in modules
                names.add(full if is_module else node.module)
    return names


USES = {
    module: {
        name.removeprefix(PACKAGE).removeprefix(".")
        for name in imported(path.read_text(), FILES)
        if name.split(".")[0] == PACKAGE
    }
    for module, path in FILES.items()
}


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_point_down(module):
    for used in USES[module] - {"version"}:
        mine, other = room_of(module), room_of(used)
        assert other == mine or RANK[other] < RANK[mine], f"{module} imports {used}"


def test_no_circles():
    tuple(TopologicalSorter(USES).static_order())


@pytest.mark.parametrize("module", sorted(FILES))
def test_third_parties(module):
    roots = {name.split(".")[0] for name in imported(FILES[module].read_text(), FILES)}
    for package, modules in ONLY.items():
        assert package not in roots or module in modules
    assert not roots & {"sklearn", "torch"}
    if room_of(module) in WITHOUT_OPTUNA and module != "curves.horizon":
        assert "optuna" not in roots


PRIVATE = re.compile(r"(?<!self)\._(storage|study_id|trial_id|backend)\b")
"""Names inside Optuna's objects that are not public."""


@pytest.mark.parametrize("module", sorted(set(FILES) - {"_util.optuna_storage"}))
def test_one_module_knows_what_is_private_in_optuna(module):
    source = FILES[module].read_text()
    assert not PRIVATE.findall(source)
    assert "optuna.storages._" not in source


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import optuna_lcpruner.scale", {"optuna_lcpruner.scale"}),
        ("from optuna_lcpruner import scale", {"optuna_lcpruner.scale"}),
        ("from optuna_lcpruner.scale import Scale", {"optuna_lcpruner.scale"}),
        ("from optuna_lcpruner import forecast", {"optuna_lcpruner"}),
        ("def f():\n    import optuna.trial as t", {"optuna.trial"}),
    ],
)
def test_the_reading_of_imports(source, names):
    assert imported(source, {"scale"}) == names


def test_importing_the_package_imports_nothing_that_few_need():
    script = (
        "import sys, optuna_lcpruner\n"
        "few = {'emcee', 'matplotlib', 'plotly', 'distributed', 'pandas', 'scipy.stats'}\n"
        "assert not few & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
