"""Data flows one way: a module imports only from those before it in the list."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import optuna_lcpruner

PACKAGE = "optuna_lcpruner"
ROOT = Path(optuna_lcpruner.__file__).parent

# module -> what it may import from the package; each may import only modules above itself.
MAY_IMPORT = {
    "checks": set(),
    "redaction": set(),
    "relational": set(),
    "events": set(),
    "membership": set(),
    "forks": set(),
    "families": set(),
    "learning_curve": set(),
    "scale": set(),
    "diagnostics": set(),
    "predictive": {"diagnostics", "scale"},
    "posterior": set(),
    "posterior.shapes": {"families", "learning_curve"},
    "posterior.interface": {"learning_curve", "predictive", "scale"},
    "posterior.taming": {"scale"},
    "posterior.regression": {"families", "learning_curve", "posterior.shapes"},
    "posterior.occurrence": {
        "families", "learning_curve", "posterior.interface", "posterior.regression",
        "posterior.shapes", "posterior.taming",
    },
    "posterior.closed_form": {
        "families", "learning_curve", "predictive", "posterior.interface", "posterior.occurrence",
        "posterior.regression", "posterior.shapes", "posterior.taming",
    },
    "posterior.analogues": set(),
    "posterior.opinion_pool": {
        "learning_curve", "predictive", "scale", "posterior.interface", "posterior.analogues",
        "posterior.closed_form", "posterior.taming",
    },
    "posterior.distributions": set(),
    "posterior.weighted_curves": {"families", "posterior.distributions"},
    "posterior.curve_regression": {
        "learning_curve", "posterior.distributions", "posterior.weighted_curves",
    },
    "posterior.curve_priors": {
        "families", "posterior.distributions", "posterior.weighted_curves",
    },
    "posterior.moves": set(),
    "posterior.curve_draws": {
        "diagnostics", "learning_curve", "predictive", "posterior.interface",
        "posterior.curve_regression", "posterior.taming", "posterior.weighted_curves",
    },
    "posterior.closed_sum": {
        "learning_curve", "predictive", "posterior.interface", "posterior.distributions",
        "posterior.curve_draws", "posterior.curve_priors", "posterior.curve_regression",
        "posterior.weighted_curves",
    },
    "posterior.mcmc": {
        "diagnostics", "learning_curve", "predictive", "posterior.interface",
        "posterior.curve_draws", "posterior.curve_priors", "posterior.curve_regression",
        "posterior.moves", "posterior.weighted_curves",
    },
    "posterior.engines": {
        "checks", "posterior.interface", "posterior.closed_form", "posterior.mcmc",
        "posterior.opinion_pool",
    },
    "background": {"learning_curve", "predictive", "posterior.interface"},
    "wording": set(),
    "decision": {"predictive", "wording"},
    "extrapolate": {
        "checks", "learning_curve", "predictive", "scale", "posterior.interface",
        "posterior.engines",
    },
    "feasibility": set(),
    "horizon": {"checks"},
    "control_group": set(),
    "study_summary": {"scale", "posterior.interface"},
    "study_record": {
        "control_group", "feasibility", "horizon", "learning_curve", "scale", "study_summary",
        "posterior.interface",
    },
    "version": set(),
    "publish": {"control_group", "decision", "forks", "redaction", "relational"},
    "forecast_sampler": {"feasibility", "publish"},
    "ledger_address": {"checks", "redaction", "relational"},
    "ledger": {
        "checks", "decision", "ledger_address", "predictive", "redaction", "relational", "wording",
    },
    "ledger_writer": {"forks", "ledger", "ledger_address", "redaction"},
    "verdict": {"decision"},
    "telling": {"verdict"},
    "combining": {"decision", "ledger_address", "publish", "redaction", "telling", "verdict"},
    "remote_verdict": {"checks", "decision", "relational", "verdict", "version", "wording"},
    "explanation": {
        "checks", "decision", "feasibility", "ledger", "ledger_address", "ledger_writer", "wording",
    },
    "hindsight": set(),
    "report_text": {"decision", "hindsight", "wording"},
    "study_report": {
        "checks", "control_group", "decision", "feasibility", "hindsight", "learning_curve",
        "ledger", "ledger_address", "ledger_writer", "report_text", "study_record",
    },
    "visualization.charts": {
        "decision", "explanation", "ledger_address", "study_report", "wording",
    },
    "visualization": {"checks", "ledger_address", "visualization.charts"},
    "visualization.matplotlib": {"checks", "ledger_address", "visualization.charts"},
    "dashboard": {
        "checks", "ledger_address", "visualization", "visualization.charts",
        "visualization.matplotlib",
    },
    "dashboard_writer": {"dashboard", "forks", "ledger_address", "ledger_writer", "redaction"},
    "announce": {
        "checks", "control_group", "dashboard", "dashboard_writer", "decision", "ledger",
        "ledger_address", "ledger_writer", "publish", "relational", "verdict", "version",
    },
    "completion": {"forks", "relational", "study_record", "study_summary"},
    "stand_in": {"study_record", "study_summary"},
    "guards": {
        "decision", "horizon", "learning_curve", "study_summary", "posterior.interface",
    },
    "self_check": {"decision", "learning_curve", "posterior.interface"},
    "pruner": {
        "announce", "background", "checks", "completion", "control_group", "decision",
        "feasibility", "guards", "self_check",
        "learning_curve", "ledger", "ledger_address", "predictive", "redaction", "remote_verdict",
        "scale", "stand_in", "telling", "verdict", "posterior.interface", "posterior.engines",
    },
    "study_watch": {"events", "membership", "pruner", "remote_verdict"},
    "forecaster": {
        "checks", "events", "ledger_writer", "pruner", "publish", "redaction", "relational",
        "study_watch",
    },
    "second_chance": {
        "checks", "control_group", "ledger", "ledger_address", "study_report", "wording",
    },
    "": {
        "combining", "dashboard", "decision", "explanation", "extrapolate", "forecast_sampler",
        "forecaster", "horizon",
        "predictive", "pruner", "report_text", "second_chance", "study_report", "version",
    },
    "curve_files": {"checks", "feasibility", "horizon", "learning_curve", "study_summary"},
    "replay": {"checks", "curve_files", "feasibility", "horizon", "pruner", "telling"},
    "backtest_report": {"checks", "curve_files", "wording"},
    "backtest": {"backtest_report", "checks", "curve_files", "replay"},
    "storage_url": {"checks", "redaction", "relational"},
    "cli_serve": {
        "checks", "events", "forecaster", "pruner", "redaction", "storage_url", "study_watch",
        "version", "wording",
    },
    "cli_explain": {"explanation", "storage_url"},
    "cli_report": {"checks", "cli_explain", "study_report"},
    "cli": {
        "", "backtest", "backtest_report", "checks", "cli_explain", "cli_report", "cli_serve",
        "curve_files", "redaction", "replay", "storage_url",
    },
}  # fmt: skip
RANK = {module: rank for rank, module in enumerate(MAY_IMPORT)}
USES_OPTUNA = {
    "relational", "feasibility", "horizon", "study_record", "publish", "forecast_sampler",
    "ledger_address", "ledger",
    "ledger_writer", "verdict", "combining", "remote_verdict", "announce", "completion", "stand_in",
    "pruner", "study_watch", "forecaster",
    "storage_url", "cli_serve", "curve_files", "replay",
    "backtest", "explanation", "study_report", "second_chance",
    "cli_explain", "cli", "visualization.charts", "visualization", "visualization.matplotlib",
    "dashboard", "dashboard_writer",
}  # fmt: skip
DRAWS = {
    "backtest_report",
    "visualization.matplotlib",
}  # imports matplotlib, inside the function that draws
USES_SQLALCHEMY = {"completion", "ledger", "ledger_address", "relational", "storage_url"}
THIRD_PARTY = {"numpy", "scipy", "optuna"}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in ROOT.rglob("*.py")}


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


def test_every_module_has_a_rank():
    assert set(FILES) == set(RANK)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_flow_one_way(module):
    for name in imported(FILES[module].read_text(), FILES):
        if name.split(".")[0] != PACKAGE:
            continue
        used = name.removeprefix(PACKAGE).removeprefix(".")
        assert RANK[used] < RANK[module], f"{module or PACKAGE} imports {used or PACKAGE}"
        assert used in MAY_IMPORT[module], f"{module or PACKAGE} imports {used or PACKAGE}"


@pytest.mark.parametrize("module", sorted(FILES))
def test_only_the_door_imports_optuna(module):
    roots = {name.split(".")[0] for name in imported(FILES[module].read_text(), FILES)}
    assert not ("optuna" in roots and module not in USES_OPTUNA)
    assert not ("emcee" in roots and module != "posterior.moves")
    assert not ("sqlalchemy" in roots and module not in USES_SQLALCHEMY)
    assert not roots & {"sklearn", "torch", "pandas"}
    assert not ("matplotlib" in roots and module not in DRAWS)


def test_only_the_package_imports_the_pruner():
    users = {
        module
        for module, path in FILES.items()
        if f"{PACKAGE}.pruner" in imported(path.read_text(), FILES)
    }
    assert users == {"", "replay", "study_watch", "forecaster", "cli_serve"}


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


def test_importing_the_package_imports_nothing_heavy():
    """Not even Optuna; what a name needs comes with its first use."""
    script = (
        "import sys, optuna_lcpruner\n"
        "assert not {'optuna', 'numpy', 'scipy', 'sqlalchemy'} & set(sys.modules)\n"
        "optuna_lcpruner.LearningCurvePruner(10)\n"
        "assert 'optuna' in sys.modules and 'emcee' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_names_of_the_package():
    homes = {
        alias.name: node.module
        for node in ast.walk(ast.parse(FILES[""].read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE)
        for alias in node.names
    }
    assert sorted(homes) == sorted(optuna_lcpruner.__all__)
    for name, module in homes.items():
        there = getattr(importlib.import_module(module), name)
        assert getattr(optuna_lcpruner, name) is there
        assert name in dir(optuna_lcpruner)
    with pytest.raises(AttributeError, match="module 'optuna_lcpruner' has no attribute 'prune'"):
        optuna_lcpruner.prune  # noqa: B018
