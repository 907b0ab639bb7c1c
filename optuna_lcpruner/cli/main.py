"""The command ``optuna-lcpruner``: arguments in, text out; the work is done elsewhere.

A subcommand is a function that adds its parser and sets ``run``, listed in ``_COMMANDS``. Exit
code 0 is success, 2 something given that cannot be used, said in one line on stderr; ``run`` may
return another one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any, NoReturn

import optuna_lcpruner
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.cli.backtest import add_backtest
from optuna_lcpruner.cli.check import add_check
from optuna_lcpruner.cli.completion import add_completion
from optuna_lcpruner.cli.explain import add_explain
from optuna_lcpruner.cli.report import add_report
from optuna_lcpruner.cli.serve import add_serve

_DESCRIPTION = """Why trials were pruned, whether that was right, and what pruners would have done;
forecasts for trainings elsewhere."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = _Parser(prog="optuna-lcpruner", description=_DESCRIPTION)
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {optuna_lcpruner.__version__}"
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for add in _COMMANDS:
        add(commands)
    try:
        arguments, unknown = parser.parse_known_args(argv)
        if unknown:  # said by the command, whose help lists what it takes
            commands.choices[arguments.command].error(
                f"unrecognized arguments: {' '.join(unknown)}"
            )
    except SystemExit as stop:  # --help, --version or an argument that cannot be
        return int(stop.code or 0)
    if isinstance(sys.stdout, TextIOWrapper):  # names of studies need not fit the terminal's code
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return int(arguments.run(arguments) or 0)
    except InputError as error:
        sys.stderr.write(f"optuna-lcpruner: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("optuna-lcpruner: interrupted\n")
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


Commands = Any
"""What ``add_subparsers`` returns; argparse has no public name for it."""


_COMMANDS: tuple[Callable[[Commands], None], ...] = (
    add_backtest,
    add_check,
    add_completion,
    add_explain,
    add_report,
    add_serve,
)
"""Each adds its parser to the commands and sets ``run`` to a function of the arguments."""
