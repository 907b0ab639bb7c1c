"""The command ``optuna-lcpruner``: arguments in, text out; the work is done elsewhere.

A subcommand is a function that adds its parser and sets ``run``, listed in ``_COMMANDS``. Exit
code 0 is success, 2 something given that cannot be used, said in one line on stderr; ``run`` may
return another one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.study import Study

import optuna_lcpruner
from optuna_lcpruner._util.redaction import without_passwords
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import DIRECTIONS, first_line, from_study, read_file
from optuna_lcpruner.backtest.replay import DEFAULT_PRUNERS, pruner_names
from optuna_lcpruner.backtest.report import BacktestReport, require_matplotlib
from optuna_lcpruner.backtest.run import backtest
from optuna_lcpruner.cli._common import open_storage
from optuna_lcpruner.cli.explain import add_explain
from optuna_lcpruner.cli.report import add_report
from optuna_lcpruner.cli.serve import add_serve

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

_DESCRIPTION = """Why trials were pruned, whether that was right, and what pruners would have done;
forecasts for trainings elsewhere."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    Args:
        argv: Arguments, by default those of the process.
    """
    parser = _Parser(prog="optuna-lcpruner", description=_DESCRIPTION)
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {optuna_lcpruner.__version__}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    try:
        arguments = parser.parse_args(argv)
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


def _add_backtest(commands: Commands) -> None:
    names = "\n".join(f"  {name:10s} {', '.join(keys)}" for name, keys in pruner_names().items())
    parser = commands.add_parser(
        "backtest",
        help="what pruners would have saved and lost on a finished study",
        description=(
            "Replay the completed trials of a finished study through pruners, in the original\n"
            "order and in random ones. The study is only read."
        ),
        epilog=(
            "pruners: NAME[:SETTING=VALUE,...], as in lcpruner:risk=0.02, median:n_warmup_steps=3\n"
            f"{names}\n\ndefault: {', '.join(DEFAULT_PRUNERS)}"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_argument_group("what to replay")
    source.add_argument(
        "--storage", metavar="URL", help="database URL, or an SQLite or journal file"
    )
    source.add_argument("--study", metavar="NAME", help="needed if the storage has several studies")
    source.add_argument(
        "--curves", metavar="FILE", help=".npz, .csv or .parquet of learning curves instead"
    )
    source.add_argument("--direction", choices=DIRECTIONS, help="of curves whose file does not say")
    source.add_argument(
        "--n-steps", type=float, metavar="N", help="steps of a full training (default: as seen)"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--pruner", action="append", metavar="SPEC", help="see below; may be given several times"
    )
    how.add_argument("--orders", type=int, default=20, metavar="N", help="random orders (20)")
    how.add_argument("--seed", type=int, default=0, help="of the random orders (0)")
    how.add_argument("--trials", type=int, metavar="N", help="trials of a replay (all)")
    how.add_argument(
        "--budget",
        type=float,
        metavar="B",
        help="full trainings (a fifth of the trials, at most 20)",
    )
    how.add_argument("--top", type=int, default=3, metavar="K", help="best trials to follow (3)")
    how.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    out = parser.add_argument_group("output")
    out.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="JSON to FILE, or instead of the text"
    )
    out.add_argument("--figure", metavar="FILE", help="cost against regret, .png, .pdf or .svg")
    parser.set_defaults(run=_backtest)


def _backtest(arguments: argparse.Namespace) -> None:
    # Before minutes of replays rather than after them.
    for option, file in (("--json", arguments.json), ("--figure", arguments.figure)):
        if file not in (None, "-") and not Path(file).absolute().parent.is_dir():
            raise InputError(f"{option}: no such folder: {Path(file).absolute().parent}")
    if arguments.figure is not None:
        if Path(arguments.figure).suffix not in FIGURE_SUFFIXES:
            endings = ", ".join(FIGURE_SUFFIXES)
            raise InputError(f"--figure: must end in {endings}, but got {arguments.figure!r}.")
        require_matplotlib()
    if (arguments.storage is None) == (arguments.curves is None):
        raise InputError("give either --storage URL or --curves FILE.")
    if arguments.curves is not None:
        if arguments.study is not None:
            raise InputError("--study belongs to --storage, not to --curves.")
        study = read_file(arguments.curves, arguments.direction, arguments.n_steps)
    else:
        if arguments.direction is not None:
            raise InputError("--direction belongs to --curves; a study has its own.")
        study = from_study(open_study(arguments.storage, arguments.study), arguments.n_steps)
    with _progress_bar() as progress:
        report = backtest(
            study,
            arguments.pruner,
            n_orders=arguments.orders,
            seed=arguments.seed,
            n_trials=arguments.trials,
            budget=arguments.budget,
            top=arguments.top,
            jobs=arguments.jobs,
            progress=progress,
        )
    _write(report, arguments.json, arguments.figure)


def _write(report: BacktestReport, json_file: str | None, figure: str | None) -> None:
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
    try:
        if json_file not in (None, "-"):
            Path(str(json_file)).write_text(text + "\n", encoding="utf-8")
        if figure is not None:
            report.figure().savefig(figure, dpi=150)
    except OSError as error:
        raise InputError(f"cannot write: {error}") from error
    sys.stdout.write((text if json_file == "-" else report.table()) + "\n")


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if that is a terminal."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # Optuna brings it

    with tqdm(desc="replays", disable=None, leave=False, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


_COMMANDS: tuple[Callable[[Commands], None], ...] = (
    _add_backtest,
    lambda commands: add_explain(commands, open_study),
    lambda commands: add_report(commands, open_study),
    add_serve,
)
"""Each adds its parser to the commands and sets ``run`` to a function of the arguments."""


def open_study(storage: str, name: str | None = None) -> Study:
    """Open a finished study for reading; nothing is created or written.

    Args:
        storage: A database URL, or the path of an SQLite or a journal file.
        name: The study's name; may be left out where the storage holds one study only.

    Raises:
        InputError: If the storage cannot be read or has no such study.
    """
    shown = without_passwords(storage, [storage])
    try:
        backend = open_storage(storage)
        names = optuna.get_all_study_names(backend)
        if name is None and len(names) == 1:
            name = names[0]
        if name in names:
            return optuna.load_study(study_name=name, storage=backend)
    except InputError:
        raise
    except Exception as error:  # of whatever database, driver or file
        # Optuna's own words hide the database's.
        why = without_passwords(first_line(error.__cause__ or error), [storage])
        raise InputError(f"cannot read storage {shown!r}: {why}") from error
    if not names:
        raise InputError(f"storage {shown!r} holds no study.")
    listed = ", ".join(names[:10]) + (f", ... ({len(names)} studies)" if len(names) > 10 else "")
    if name is None:
        raise InputError(f"which study of {shown!r}? It holds: {listed}.")
    raise InputError(f"no study named {name!r} in {shown!r}; it holds: {listed}.")
