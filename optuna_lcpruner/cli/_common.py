"""From what a command line says to an Optuna storage."""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.study import Study
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from optuna_lcpruner._util.optuna_storage import is_in_memory, is_sqlite
from optuna_lcpruner._util.redaction import describe_error, redact
from optuna_lcpruner._util.validation import InputError, did_you_mean
from optuna_lcpruner.backtest.data import first_line


def open_storage(storage: str, engine_kwargs: dict[str, Any] | None = None) -> BaseStorage:
    """Open a storage that exists; nothing is created.

    Args:
        storage: A database URL, ``redis://...`` of a Redis journal, ``grpc://HOST:PORT`` of a
            storage proxy, or the path of an SQLite or a journal file.
        engine_kwargs: For the engine of a relational database.

    Raises:
        InputError: If it is none of these, or a package that it needs is not installed.
        Exception: Whatever a storage raises that cannot be reached.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # Redis, gRPC: the user's choice
            return _open(storage, engine_kwargs)
    except InputError:
        raise
    except NoSuchModuleError:
        shown = redact(storage, [storage])
        raise InputError(
            f"cannot read storage {shown!r}: SQLAlchemy knows no such database or driver; "
            "try sqlite:///FILE, postgresql://... or mysql://..."
        ) from None
    except (ArgumentError, ImportError, RuntimeError, ValueError) as error:
        # No such dialect, no driver, tables of another Optuna, a port that is no number.
        if isinstance(error, StorageInternalError):
            raise
        shown = redact(storage, [storage])
        raise InputError(
            f"cannot read storage {shown!r}: {describe_error(error, [storage])}"
        ) from None


def _open(storage: str, engine_kwargs: dict[str, Any] | None) -> BaseStorage:
    if re.match(r"rediss?://", storage):
        return JournalStorage(JournalRedisBackend(storage))
    if storage.startswith("grpc://"):
        return _proxy(storage)
    url = make_url(storage) if "://" in storage else sqlite_url(storage)
    file = url.database if is_sqlite(url) and not is_in_memory(url) else None
    if file is not None and not file.startswith("file:"):  # an URI of SQLite's own it may open
        path = Path(file)
        if not path.is_file():  # SQLite would make an empty database
            raise InputError(f"no such file: {path}")
        with path.open("rb") as opened:
            right = opened.read(15) == b"SQLite format 3"
        if "://" not in storage and not right:
            try:
                return JournalStorage(JournalFileBackend(str(path)))
            except ValueError as error:
                raise InputError(f"{path} is neither an SQLite nor a journal file.") from error
        if not right:
            raise InputError(f"{path} is not an SQLite database.")
    text = url.render_as_string(hide_password=False)
    return RDBStorage(text, skip_table_creation=True, engine_kwargs=engine_kwargs)


def sqlite_url(path: str) -> URL:
    """The URL of an SQLite file, whatever its name."""
    return URL.create("sqlite", database=path)


def _proxy(storage: str) -> BaseStorage:
    try:
        from optuna.storages import GrpcStorageProxy  # since Optuna 4.2
    except ImportError as error:
        raise InputError("grpc:// needs Optuna 4.2 or newer.") from error
    try:
        host, port = urlsplit(storage).hostname, urlsplit(storage).port
    except ValueError:
        host = port = None
    if host is None or port is None:
        shown = redact(storage, [storage])
        raise InputError(f"the storage proxy's address is grpc://HOST:PORT, but got {shown!r}.")
    return GrpcStorageProxy(host=host, port=port)


def open_study(storage: str, name: str | None = None) -> Study:
    """Open a finished study for reading; nothing is created or written.

    Args:
        storage: A database URL, or the path of an SQLite or a journal file.
        name: The study's name; may be left out where the storage holds one study only.

    Raises:
        InputError: If the storage cannot be read or has no such study.
    """
    shown = redact(storage, [storage])
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
        why = redact(first_line(error.__cause__ or error), [storage])
        raise InputError(f"cannot read storage {shown!r}: {why}") from error
    if not names:
        raise InputError(f"storage {shown!r} holds no study.")
    listed = ", ".join(names[:10]) + (f", ... ({len(names)} studies)" if len(names) > 10 else "")
    if name is None:
        raise InputError(f"which study of {shown!r}? It holds: {listed}.")
    raise InputError(
        f"no study named {name!r} in {shown!r}; it holds: {listed}.{did_you_mean(name, names)}"
    )


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
