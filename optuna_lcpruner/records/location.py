"""Where a study's ledger is: the argument ``ledger`` and what follows from the study's storage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from optuna_lcpruner._util.optuna_storage import is_in_memory, is_sqlite, relational
from optuna_lcpruner._util.redaction import redact
from optuna_lcpruner._util.validation import InputError

Setting = str | Literal[False] | None
"""A database URL; False: no ledger; None: beside the study, see :func:`address`."""


@dataclass(frozen=True)
class Address:
    """Where a ledger is.

    Attributes:
        url: Database URL, a file's path absolute.
        connect_args: What the database's driver is given besides, as for the study's storage.
    """

    url: str = field(repr=False)
    connect_args: Mapping[str, Any] = field(compare=False, repr=False, default_factory=dict)

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return redact(self.url, [self.url])


def checked(setting: object) -> Setting:
    """The argument ``ledger``, or an error that says what is allowed.

    Raises:
        InputError: If it is a string but no URL of a database that keeps anything.
        TypeError: If it is neither a string nor None or False.
    """
    if setting is None or setting is False:
        return setting
    if not isinstance(setting, str):
        raise TypeError(f"ledger must be a database URL, None or False, but got {setting!r}.")
    try:
        url = sqlalchemy.make_url(setting)
    except (SQLAlchemyError, ValueError):  # a ValueError: the port is no number
        # Not raised from it: SQLAlchemy's own message has the password.
        shown = redact(setting, [setting])
        raise InputError(
            f"ledger must be a database URL, as sqlite:///decisions.db, but got {shown!r}."
        ) from None
    if is_in_memory(url):
        raise InputError(f"ledger must be a database that lasts, but got {setting!r}.")
    return _absolute(url) if is_sqlite(url) else setting


def address(setting: Setting, storage: BaseStorage) -> Address | None:
    """Where the decisions about a study go; None for nowhere.

    By default, for a study in an SQLite file: a file of the same name with ``.lcpruner`` after it;
    in another database: that database, in tables of our own; in memory, a journal, behind the gRPC
    proxy or Dask: nowhere.
    """
    if setting is False:
        return None
    if setting is not None:
        return Address(_absolute(sqlalchemy.make_url(setting)))
    database = relational(storage)
    if database is None:
        return None
    url = database.engine.url
    if not is_sqlite(url):
        options = database.engine_kwargs.get("connect_args", {})
        return Address(url.render_as_string(hide_password=False), options)
    # A "file:" URI may be in memory, read-only or on a device of SQLite's own.
    if is_in_memory(url) or str(url.database).startswith("file:"):
        return None
    return Address(_absolute(URL.create("sqlite", database=f"{_file(database)}.lcpruner")))


def _file(database: RDBStorage) -> str:
    """The file of an SQLite database, as it was opened: the process may be elsewhere by now."""
    try:
        with database.engine.connect() as connection:
            for _, name, file in connection.exec_driver_sql("PRAGMA database_list"):
                if name == "main" and file:
                    return str(file)
    except SQLAlchemyError:  # out of reach for the moment
        pass
    return str(database.engine.url.database)


def _absolute(url: URL) -> str:
    """The URL with an SQLite file's path made absolute: the process may change its folder."""
    if is_sqlite(url) and url.database and not url.database.startswith("file:"):
        url = url.set(database=os.path.abspath(url.database))
    return url.render_as_string(hide_password=False)
