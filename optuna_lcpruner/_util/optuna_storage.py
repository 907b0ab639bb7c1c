"""What needs Optuna's private names: what a storage is inside, several attributes at once.

Nothing else in the package touches the inside of a storage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL
from sqlalchemy.dialects import mysql, postgresql, sqlite

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy


def relational(storage: BaseStorage) -> RDBStorage | None:
    """Return the relational storage that this one is or is a cache of; None for another kind."""
    backend = getattr(storage, "_backend", storage)  # Optuna's cache has no public name for it
    return backend if isinstance(backend, RDBStorage) else None


def uncached(storage: BaseStorage) -> BaseStorage:
    """Return the storage without Optuna's cache before it."""
    return relational(storage) or storage


def is_sqlite(url: URL) -> bool:
    """Whether the URL is of an SQLite database."""
    return url.get_backend_name() == "sqlite"


def is_in_memory(url: URL) -> bool:
    """Whether the URL is of an SQLite database that no file keeps."""
    return is_sqlite(url) and url.database in (None, "", ":memory:")


def writes_are_free(storage: BaseStorage) -> bool:
    """Whether the storage is in memory, where a thread of its own would only be in the way.

    An in-memory SQLite database exists on its creator's thread alone.
    """
    if isinstance(storage, InMemoryStorage):
        return True
    database = relational(storage)
    return database is not None and is_in_memory(database.engine.url)


def set_user_attrs(storage: BaseStorage, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set several user attributes of a trial.

    In a relational database this is one transaction of two statements, where Optuna has one of
    two statements for each attribute.

    Raises:
        RuntimeError: If the trial has ended.
        KeyError: If it is not there any more.
        Exception: Whatever the storage raises when it is out of reach.
    """
    database = relational(storage)
    if (
        database is not None
        and len(attributes) > 1
        and _set_at_once(database, trial_id, attributes)
    ):
        return
    for key, value in attributes.items():
        storage.set_trial_user_attr(trial_id, key, value)


def _set_at_once(database: RDBStorage, trial_id: int, attributes: Mapping[str, Any]) -> bool:
    """Write all attributes in one statement; False where it is not known how."""
    try:
        from optuna.storages._rdb.models import TrialModel, TrialUserAttributeModel
        from optuna.storages._rdb.storage import _create_scoped_session

        check = database.check_trial_is_updatable
    except (ImportError, AttributeError):  # of a version of Optuna that names them otherwise
        return False
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]
    kind = database.engine.dialect.name
    statement: Any
    if kind in ("mysql", "mariadb"):
        new = mysql.insert(TrialUserAttributeModel).values(rows)
        statement = new.on_duplicate_key_update(value_json=new.inserted.value_json)
    elif kind in ("sqlite", "postgresql"):
        insert = sqlite.insert if kind == "sqlite" else postgresql.insert
        upsert = insert(TrialUserAttributeModel).values(rows)
        statement = upsert.on_conflict_do_update(
            index_elements=["trial_id", "key"], set_={"value_json": upsert.excluded.value_json}
        )
    else:
        return False
    with _create_scoped_session(database.scoped_session, True) as session:
        trial: Any = TrialModel.find_or_raise_by_id(trial_id, session)
        check(trial_id, trial.state)
        session.execute(statement)
    return True


def storage_of(study: Study) -> BaseStorage:
    """Return the storage of a study."""
    return study._storage


def study_id_of(study: Study | FrozenStudy) -> int:
    """Return the number of a study in its storage."""
    return study._study_id


def trial_id_of(trial: FrozenTrial | Trial) -> int:
    """Return the number of a trial in its storage, which is not ``trial.number``."""
    return trial._trial_id


def change_token(study: Study) -> tuple[Any, ...] | None:
    """Return what changes whenever a trial of the study completes or another takes its place.

    None where it cannot be asked, or where reading the trials costs no more: in other storages
    than a database. None too for a study that keeps the trials it has read: they may be older
    than the mark.
    """
    if type(study).get_trials is not Study.get_trials:
        return None
    database = relational(storage_of(study))
    if database is None:
        return None
    try:
        with database.engine.connect() as connection:
            return tuple(connection.execute(_question(), {"study": study_id_of(study)}).one())
    except Exception:  # whatever is wrong, reading the trials will tell
        return None


@cache
def _question() -> sqlalchemy.Executable:
    from optuna.storages._rdb.models import TrialModel  # not public; without it there is no mark

    trials = TrialModel.__table__.c  # the columns: some attributes of the class are not
    return sqlalchemy.select(
        sqlalchemy.func.count(),
        sqlalchemy.func.max(trials.trial_id),
        sqlalchemy.func.max(trials.datetime_complete),
    ).where(
        trials.study_id == sqlalchemy.bindparam("study"),
        trials.state == TrialState.COMPLETE,
    )
