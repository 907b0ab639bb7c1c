"""Is a storage a relational database, and does it last?"""

from __future__ import annotations

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import URL


def relational(storage: BaseStorage) -> RDBStorage | None:
    """The relational storage that this one is, or is a cache before; None for another kind."""
    backend = getattr(storage, "_backend", storage)  # Optuna's cache has no public name for it
    return backend if isinstance(backend, RDBStorage) else None


def uncached(storage: BaseStorage) -> BaseStorage:
    """The storage without Optuna's cache before it."""
    return relational(storage) or storage


def is_sqlite(url: URL) -> bool:
    """Whether the URL is of an SQLite database."""
    return url.get_backend_name() == "sqlite"


def is_in_memory(url: URL) -> bool:
    """Whether the URL is of an SQLite database that no file keeps."""
    return is_sqlite(url) and url.database in (None, "", ":memory:")
