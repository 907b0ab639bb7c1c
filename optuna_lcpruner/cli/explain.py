"""``optuna-lcpruner explain``: why a trial was pruned, or why it was not."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from optuna.study import Study

from optuna_lcpruner.cli._common import sqlite_url
from optuna_lcpruner.reporting.explanation import explain

OpenStudy = Callable[[str, str | None], Study]
"""Opens a study from a storage's URL or file and the study's name."""


def add_explain(commands: Any, open_study: OpenStudy) -> None:
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
    parser.set_defaults(run=lambda arguments: _explain(arguments, open_study))


def add_source(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which study and which ledger."""
    parser.add_argument(
        "--storage", required=True, metavar="URL", help="database URL, or an SQLite or journal file"
    )
    parser.add_argument("--study", metavar="NAME", help="needed if the storage has several studies")
    parser.add_argument(
        "--ledger",
        type=_url,
        metavar="URL",
        help="database URL or SQLite file of the ledger (default: beside the study)",
    )


def _url(text: str) -> str:
    return text if "://" in text else sqlite_url(text).render_as_string()


def _explain(arguments: argparse.Namespace, open_study: OpenStudy) -> None:
    study = open_study(arguments.storage, arguments.study)
    found = explain(study, arguments.trial, ledger=arguments.ledger)
    if arguments.json:
        text = json.dumps(found.to_dict(), indent=1, allow_nan=False)
    elif arguments.all and found.decisions:
        text = f"{found.summary}\n\n{found.table()}"
    else:
        text = str(found)
    sys.stdout.write(text + "\n")
