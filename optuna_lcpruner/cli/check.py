"""``optuna-lcpruner check``: is a study as the pruner needs it?"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.cli._common import open_study
from optuna_lcpruner.pruners.check import check
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner


def add_check(commands: Any) -> None:
    """Add the command to the parsers of ``optuna-lcpruner``."""
    parser = commands.add_parser(
        "check",
        help="is a study as the pruner needs it, and from when on will it prune",
        description=(
            "Look at a study's completed trials, three are enough: steps, direction, metric,\n"
            "constraints. The study is only read. Exit code 1: something should be changed."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--storage", required=True, metavar="URL", help="database URL, or an SQLite or journal file"
    )
    parser.add_argument("--study", metavar="NAME", help="needed if the storage has several studies")
    parser.add_argument("--n-steps", type=int, metavar="N", help="of LearningCurvePruner")
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    try:
        pruner = LearningCurvePruner(arguments.n_steps)
    except ValueError as error:
        raise InputError(str(error)) from error
    found = check(open_study(arguments.storage, arguments.study), pruner)
    sys.stdout.write(f"{found}\n")
    return 1 if found.problems else 0
