"""``optuna-lcpruner explain``: why a trial was pruned, or why it was not."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from optuna_lcpruner.cli._common import add_source, open_study
from optuna_lcpruner.reporting.explanation import explain


def add_explain(commands: Any) -> None:
    """Add the command to the parsers of ``optuna-lcpruner``."""
    parser = commands.add_parser(
        "explain",
        help="why a trial was pruned, or why it was not",
        description=(
            "The decisions about a trial, from the ledger that LearningCurvePruner keeps: one\n"
            "sentence, then a table. Nothing is written."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(parser)
    parser.add_argument("--trial", type=int, required=True, metavar="N", help="the trial's number")
    parser.add_argument("--all", action="store_true", help="all lines of a long table")
    parser.add_argument("--json", action="store_true", help="everything on record, as JSON")
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> None:
    study = open_study(arguments.storage, arguments.study)
    found = explain(study, arguments.trial, ledger=arguments.ledger)
    if arguments.json:
        text = json.dumps(found.to_dict(), indent=1, allow_nan=False)
    elif arguments.all and found.decisions:
        text = f"{found.summary}\n\n{found.table()}"
    else:
        text = str(found)
    sys.stdout.write(text + "\n")
