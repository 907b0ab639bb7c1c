"""``optuna-lcpruner backtest``: what pruners would have saved and lost on a finished study."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import DIRECTIONS, from_study, read_file
from optuna_lcpruner.backtest.figure import require_matplotlib
from optuna_lcpruner.backtest.replay import DEFAULT_PRUNERS, pruner_names
from optuna_lcpruner.backtest.report import BacktestReport
from optuna_lcpruner.backtest.run import backtest, progress_bar
from optuna_lcpruner.cli._common import open_study

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


def add_backtest(commands: Any) -> None:
    """Add the command to the parsers of ``optuna-lcpruner``."""
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
    source.add_argument("--curves", metavar="FILE", help=".npz or .csv of learning curves instead")
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
    how.add_argument(
        "--workers", type=int, default=1, metavar="W", help="trials under way at once (1)"
    )
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
    with progress_bar(disable=None) as progress:
        if arguments.curves is not None:
            if arguments.study is not None:
                raise InputError("--study belongs to --storage, not to --curves.")
            study = read_file(arguments.curves, arguments.direction, arguments.n_steps)
        else:
            if arguments.direction is not None:
                raise InputError("--direction belongs to --curves; a study has its own.")
            study = from_study(open_study(arguments.storage, arguments.study), arguments.n_steps)
        report = backtest(
            study,
            arguments.pruner,
            n_orders=arguments.orders,
            seed=arguments.seed,
            n_trials=arguments.trials,
            budget=arguments.budget,
            top=arguments.top,
            jobs=arguments.jobs,
            n_workers=arguments.workers,
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
