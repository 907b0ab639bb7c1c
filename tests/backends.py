"""The storages that the package must work on: opened by kind and address, in any process.

Servers are taken from the environment, ``OPTUNA_LCPRUNER_TEST_POSTGRES`` and ``_MYSQL`` (URLs of a
user who may make and drop databases) and ``_REDIS``; ``.ci/run`` sets them. The gRPC proxy and the
Dask cluster are started by the tests themselves.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from helpers import environment, sqlite
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

POSTGRES = "OPTUNA_LCPRUNER_TEST_POSTGRES"
MYSQL = "OPTUNA_LCPRUNER_TEST_MYSQL"
REDIS = "OPTUNA_LCPRUNER_TEST_REDIS"

IN_THIS_PROCESS = ("memory", "sqlite memory")
SHARED = ("sqlite", "journal", "postgresql", "mysql", "redis", "grpc", "dask")
"""Kinds that several processes can open."""

SERVERS = ("postgresql", "mysql", "redis", "grpc", "dask")


def kinds(*names: str) -> list[Any]:
    """Parameters of a test; those of kinds that need a server are slow."""
    return [pytest.param(name, marks=pytest.mark.slow if name in SERVERS else ()) for name in names]


def open_storage(kind: str, where: str) -> BaseStorage:
    """The storage of this kind at this address, as :func:`place` gives it."""
    if kind == "sqlite":
        return sqlite(where)
    if kind in ("postgresql", "mysql"):
        return RDBStorage(where)
    if kind == "journal":
        return JournalStorage(JournalFileBackend(where))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "redis":
            from optuna.storages.journal import JournalRedisBackend

            url, prefix = where.split()
            return JournalStorage(JournalRedisBackend(url, prefix=prefix))
        if kind == "grpc":
            from optuna.storages import GrpcStorageProxy

            return GrpcStorageProxy(host="127.0.0.1", port=int(where))
        if kind == "dask":
            import distributed
            from optuna_integration import DaskStorage

            scheduler, name = where.split()
            return DaskStorage(
                name=name, client=distributed.Client(scheduler, set_as_default=False)
            )
    raise AssertionError(kind)


def place(kind: str, folder: Path) -> AbstractContextManager[str]:
    """Inside it there is a storage of this kind, empty at first, at the address given."""
    if kind == "sqlite":
        return _at(f"sqlite:///{folder}/study.db")
    if kind == "journal":
        return _at(f"{folder}/study.log")
    if kind in ("postgresql", "mysql"):
        return database(server(POSTGRES if kind == "postgresql" else MYSQL))
    if kind == "redis":
        return _redis(server(REDIS))
    return {"grpc": _grpc_proxy, "dask": _dask_cluster}[kind](folder)


def server(variable: str) -> str:
    """The address in an environment variable; without it the test is skipped."""
    address = os.environ.get(variable)
    if not address:
        pytest.skip(f"no server: {variable} is not set")
    return address


@contextmanager
def _at(where: str) -> Iterator[str]:
    yield where


@contextmanager
def database(url: str, options: str = "") -> Iterator[str]:
    """The URL of a new database on the same server, dropped at the end.

    Args:
        url: URL of another database there.
        options: What follows ``CREATE DATABASE`` and the name.
    """
    name = f"lcpruner_{uuid.uuid4().hex}"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} {options}")
    try:
        made = sqlalchemy.make_url(url).set(database=name)
        yield made.render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if engine.dialect.name == "postgresql" else ""
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
        engine.dispose()


@contextmanager
def _redis(url: str) -> Iterator[str]:
    import redis

    prefix = uuid.uuid4().hex
    yield f"{url} {prefix}"
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"{prefix}:*"):
            client.delete(key)


PROXY = """
import sys
from helpers import sqlite
from optuna.storages import get_storage, run_grpc_proxy_server

run_grpc_proxy_server(get_storage(sqlite(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]))
"""


@contextmanager
def _grpc_proxy(folder: Path) -> Iterator[str]:
    pytest.importorskip("grpc")
    if not hasattr(optuna.storages, "run_grpc_proxy_server"):
        pytest.skip(f"Optuna {optuna.__version__} has no gRPC proxy; 4.2 has")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    url = f"sqlite:///{folder}/behind_the_proxy.db"
    proxy = subprocess.Popen([sys.executable, "-c", PROXY, url, port], env=environment())
    try:
        wait_for(proxy, int(port))
        yield port
    finally:
        proxy.kill()
        proxy.wait()


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Until the process listens; an error if it ends or takes a minute."""
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() < end, "the server does not listen"
            time.sleep(0.1)


@contextmanager
def _dask_cluster(folder: Path) -> Iterator[str]:
    distributed = pytest.importorskip("distributed")
    # Imported, not looked for: once imported, the package stands in sys.modules without a spec.
    pytest.importorskip("optuna_integration")

    with distributed.LocalCluster(
        n_workers=0, host="127.0.0.1", dashboard_address=None, local_directory=str(folder)
    ) as cluster:
        yield f"{cluster.scheduler_address} studies"
