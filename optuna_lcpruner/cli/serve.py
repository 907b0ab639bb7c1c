"""``optuna-lcpruner serve``: forecast the running trials of studies, away from their training."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

import optuna
from optuna.storages import BaseStorage

from optuna_lcpruner._util.formatting import count
from optuna_lcpruner._util.redaction import describe_error, redact
from optuna_lcpruner._util.validation import InputError, integer, real
from optuna_lcpruner.cli._common import open_storage
from optuna_lcpruner.pruners.executor import worker_processes
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
from optuna_lcpruner.service.events import Event
from optuna_lcpruner.service.forecaster import LONGEST_PAUSE, Forecaster
from optuna_lcpruner.service.study_worker import Counts
from optuna_lcpruner.version import __version__

STORAGE_VARIABLE = "OPTUNA_LCPRUNER_STORAGE"
"""Environment variable that holds the storage's URL where ``--storage`` is not given."""

STATUS_EVERY = 60.0  # heuristic
"""Seconds between two lines of the log that say how things stand."""

_SETTINGS: tuple[tuple[str, Any, str], ...] = (
    ("n-steps", int, "steps of a full training (default: as announced or seen)"),
    ("risk", float, "accepted chance that a stopped trial would have become the best (0.04)"),
    ("threshold", float, "prune below this fixed probability instead"),
    ("n-best", int, "how many trials are wanted (1)"),
    ("engine", ("pool", "closed_form", "mcmc"), "the posterior (pool)"),
    ("n-startup-trials", int, "completed trials before anything is pruned by forecast (3)"),
    ("n-warmup-steps", int, "no pruning before this step (0)"),
    ("patience", int, "looks below the threshold in a row (1)"),
    ("target", ("auto", "last", "best"), "which report the objective returns (auto)"),
    ("nan-policy", ("prune", "ignore"), "what becomes of a trial that reports NaN (prune)"),
    ("check-metric", bool, "prune nothing by forecast where reports do not fit results (yes)"),
    ("prune-infeasible", bool, "stop a trial once it breaks a constraint (no)"),
    ("compare-running", bool, "compare with running trials while few have completed (yes)"),
    ("stop-below-std", float, "also prune once the forecast is this narrow and not better"),
    ("control-fraction", float, "share of the trials that run on although hopeless (0)"),
)
"""Settings of the pruner: option, type or choices, help."""


def add_serve(commands: Any) -> None:
    """Add the command to the parsers of ``optuna-lcpruner``."""
    parser = commands.add_parser(
        "serve",
        help="forecast running trials for trainers with RemotePruner()",
        description=(
            "Watch the running trials of studies, forecast them, and write verdicts to the\n"
            "storage, where RemotePruner() reads them. One of these serves a study.\n"
            "SIGTERM or Ctrl-C ends it after the trial in hand."
        ),
        epilog="exit code: 0 stopped as told, 1 storage or executor gone, 2 wrong arguments",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to watch")
    what.add_argument(
        "--storage",
        metavar="URL",
        help="database URL, redis://..., grpc://HOST:PORT, or an SQLite or journal file "
        f"(default: the environment variable {STORAGE_VARIABLE}, which no process list shows)",
    )
    what.add_argument(
        "--study", action="append", metavar="NAME", help="may be given several times (default: all)"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="seconds between two looks (1)"
    )
    where = how.add_mutually_exclusive_group()
    where.add_argument(
        "--processes", type=int, metavar="N", help="forecast in N processes (in this one)"
    )
    where.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="forecast on the Dask cluster that has its scheduler there",
    )
    how.add_argument(
        "--give-up-after",
        type=float,
        default=300.0,
        metavar="S",
        help="seconds without the storage, or --once without forecasts, then exit code 1 (300)",
    )
    how.add_argument("--once", action="store_true", help="look once at each trial, then exit")
    deciding = parser.add_argument_group("deciding (see LearningCurvePruner)")
    for name, kind, text in _SETTINGS:
        if kind is bool:
            deciding.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=text)
        elif isinstance(kind, tuple):
            deciding.add_argument(f"--{name}", choices=kind, help=text)
        else:
            metavar = "N" if kind is int else "X"
            deciding.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    out = parser.add_argument_group("output")
    out.add_argument("--ledger", metavar="URL", help="database of the ledger (beside the study)")
    out.add_argument("--no-ledger", action="store_true", help="no ledger")
    out.add_argument(
        "--no-publish", action="store_true", help="no trial attributes but the verdict"
    )
    out.add_argument("--log-json", action="store_true", help="log in lines of JSON")
    out.add_argument("--verbose", action="store_true", help="log each verdict")
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    arguments.storage = arguments.storage or os.environ.get(STORAGE_VARIABLE)
    if not arguments.storage:
        raise InputError(f"give --storage URL, or set {STORAGE_VARIABLE}.")
    pruner = _pruner(arguments)
    try:
        give_up_after = real("--give-up-after", arguments.give_up_after, 0.0, float("inf"))
        interval = real("--interval", arguments.interval, 0.0, 3600.0)
        if arguments.processes is not None:
            integer("--processes", arguments.processes, 1)
    except ValueError as error:
        raise InputError(str(error)) from error
    if arguments.dask is not None:
        _require_dask()
    log = Log(sys.stderr, as_json=arguments.log_json, verbose=arguments.verbose)
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(log.heard())
        stack.enter_context(_stopped_by_signals(stop))
        storage = _opened(arguments, 0.0 if arguments.once else give_up_after, stop, log)
        if storage is None:
            return 0 if stop.is_set() else 1
        try:
            executor = _executor(arguments, stack)
        except OSError as error:
            log.say(logging.ERROR, "dask_out_of_reach", why=describe_error(error, []))
            return 1
        forecaster = Forecaster(
            storage,
            arguments.study,
            pruner,
            interval=interval,
            executor=executor,
            tell=log.tell,
            stop=stop,
        )
        log.say(
            logging.INFO,
            "started",
            storage=redact(arguments.storage, [arguments.storage]),
            studies=", ".join(arguments.study) if arguments.study else "all",
            version=__version__,
        )
        well = (forecaster.run_once if arguments.once else forecaster.run)(give_up_after)
        done = forecaster.counts
        log.say(logging.INFO, "stopped", verdicts=done.verdicts, prunes=done.prunes)
    return 0 if well else 1


def _require_studies(storage: BaseStorage, names: Sequence[str]) -> None:
    """One who goes on watching waits for a study; one who looks once cannot."""
    there = optuna.get_all_study_names(storage) if names else []
    missing = [name for name in names if name not in there]
    if missing:
        listed = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "") or "no study"
        raise InputError(f"no study named {missing[0]!r}; the storage holds: {listed}.")


def _pruner(arguments: argparse.Namespace) -> LearningCurvePruner:
    names = (name.replace("-", "_") for name, _, _ in _SETTINGS)
    given = {name: getattr(arguments, name) for name in names}
    settings = {name: value for name, value in given.items() if value is not None}
    if arguments.no_ledger and arguments.ledger is not None:
        raise InputError("give either --ledger URL or --no-ledger.")
    try:
        return LearningCurvePruner(
            ledger=False if arguments.no_ledger else arguments.ledger,
            publish=not arguments.no_publish,
            **settings,
        )
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error


def _require_dask() -> None:
    try:
        import distributed  # noqa: F401 - it sets up its loggers, before they come into ours
    except ImportError as error:
        raise InputError("--dask needs a package: pip install distributed.") from error


def _executor(arguments: argparse.Namespace, stack: ExitStack) -> Executor | None:
    """Return what makes the forecasts, to be closed with the stack; None for this process.

    Raises:
        OSError: If the Dask cluster is out of reach.
        InputError: If its address is none.
    """
    if arguments.processes is not None:
        return stack.enter_context(worker_processes(arguments.processes))
    if arguments.dask is None:
        return None
    from distributed import Client

    try:
        client = stack.enter_context(Client(arguments.dask, set_as_default=False))
    except ValueError as error:
        raise InputError(f"--dask: {error}") from error
    executor: Executor = client.get_executor()
    return executor


def _opened(
    arguments: argparse.Namespace, limit: float, stop: threading.Event, log: Log
) -> BaseStorage | None:
    """The storage; None if it stayed out of reach or there is no need any more."""
    url = arguments.storage
    options = {} if url.startswith("sqlite") or "://" not in url else {"pool_pre_ping": True}
    began, pause = time.monotonic(), 1.0
    while not stop.is_set():
        try:
            storage = open_storage(url, options)
            if arguments.once:
                _require_studies(storage, arguments.study or [])
            return storage
        except InputError:
            raise
        except Exception as error:
            why = describe_error(error, [url])
        waited = time.monotonic() - began
        left = limit - waited
        level = logging.WARNING if left > 0.0 else logging.ERROR
        log.say(level, "storage_out_of_reach", why=why, seconds=round(waited, 1))
        if left <= 0.0:
            return None
        stop.wait(min(pause, left))
        pause = min(2.0 * pause, LONGEST_PAUSE)
    return None


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set the event, the latter a second time interrupts."""

    def end(number: int, _: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Log:
    """Events as lines; on a terminal a line below them that says how things stand.

    Args:
        stream: Where to.
        as_json: Lines of JSON.
        verbose: Also what is told at level DEBUG.
    """

    def __init__(self, stream: TextIO, *, as_json: bool = False, verbose: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json
        self._level = logging.DEBUG if verbose else logging.INFO
        self._live = stream.isatty() and not as_json
        self._said_status = time.monotonic()
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        """Write an event if its level is high enough."""
        if event.name == "pass":
            self._status(event)
        elif event.level >= self._level:
            self._line(event)

    def say(self, level: int, name: str, **facts: object) -> None:
        """Write an event of this program's own."""
        self.tell(Event(level, name, facts))

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Inside it the warnings of Optuna, of this package, Dask and Python come here too."""
        loggers = [logging.getLogger(name) for name in ("optuna", "distributed", "py.warnings")]
        before = [logger.handlers for logger in loggers]
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.captureWarnings(True)
        for logger in loggers:
            logger.handlers = [_Handler(self)]
        try:
            yield
        finally:
            for logger, handlers in zip(loggers, before, strict=True):
                logger.handlers = handlers
            logging.captureWarnings(False)
            optuna.logging.set_verbosity(verbosity)
            if self._live:
                self._write("\n")

    def _status(self, event: Event) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\033[K{status(Counts(**event.facts))[:width]}")
        elif time.monotonic() - self._said_status >= STATUS_EVERY:
            self._said_status = time.monotonic()
            self._line(Event(logging.INFO, "status", event.facts))

    def _line(self, event: Event) -> None:
        text = event.json() if self._as_json else event.line()
        self._write(f"\r\033[K{text}\n" if self._live else f"{text}\n")

    def _write(self, text: str) -> None:
        with self._lock:
            self._stream.write(text)
            self._stream.flush()


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = redact(record.getMessage())
        self._log.tell(Event(record.levelno, "log", {"message": message}))


def status(counts: Counts) -> str:
    """How things stand, in one line."""
    parts = [
        count(counts.studies, "study", "studies"),
        count(counts.running, "running trial"),
        f"{counts.waiting} waiting",
        f"{count(counts.verdicts, 'verdict')}, {count(counts.prunes, 'prune')}",
        f"storage {1e3 * counts.storage_seconds:.0f} ms",
    ]
    if counts.failing:
        parts.append(f"{count(counts.failing, 'study', 'studies')} OUT OF REACH")
    return " | ".join(parts)
