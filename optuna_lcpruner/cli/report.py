"""``optuna-lcpruner report``: were the forecasts right, what did pruning cost and save?"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.cli._common import add_source, open_study
from optuna_lcpruner.reporting.build_report import report
from optuna_lcpruner.visualization.matplotlib import svg_figures


def add_report(commands: Any) -> None:
    """Add the command to the parsers of ``optuna-lcpruner``."""
    parser = commands.add_parser(
        "report",
        help="were the forecasts right, what did pruning cost and save",
        description=(
            "Judge the decisions on record by how the trials ended; prints a report. The\n"
            "study is only read."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(parser)
    parser.add_argument("--html", metavar="FILE", help="write it as one page too, with figures")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    study = open_study(arguments.storage, arguments.study)
    found = report(study, ledger=arguments.ledger)
    if arguments.html is not None:
        figures: list[str] = []
        if importlib.util.find_spec("matplotlib") is None:
            sys.stderr.write("The page has no figures: they need matplotlib.\n")
        else:
            figures = svg_figures(study, ledger=arguments.ledger)
        try:
            Path(arguments.html).write_text(found.to_html(figures), encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write: {error}") from error
    text = json.dumps(found.to_dict(), indent=1, allow_nan=False) if arguments.json else str(found)
    sys.stdout.write(text + "\n")
