"""Every decision on record, in a database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
import sqlalchemy
from optuna.study import Study
from sqlalchemy import (
    BigInteger,
    Connection,
    DateTime,
    Double,
    Engine,
    Index,
    Integer,
    String,
    Text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column

from optuna_lcpruner._util.formatting import LEFT_BEHIND
from optuna_lcpruner._util.optuna_storage import is_sqlite, storage_of
from optuna_lcpruner._util.redaction import describe_error
from optuna_lcpruner._util.validation import InputError, finite_or_none
from optuna_lcpruner.decision.decision import Decision, Reason
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.records.location import Address, Setting, address, checked

SCHEMA_VERSION = 1
"""Version of the tables that this package reads and writes."""

_PATIENCE = 60  # heuristic
"""Seconds to wait for another process that makes the tables."""

_TRIAL_STARTED_WITHIN = 1.0  # heuristic
"""Seconds by which a start read back may differ: some databases drop fractions of a second."""


_MYSQL = ("mysql", "mariadb")
"""Names of SQLAlchemy's dialects for MySQL and MariaDB."""

# Left to itself MySQL takes a database's character set, finds "Run" and "run" equal, cuts texts at
# 64 kB and times at the second.
_KEPT_EXACTLY = {
    f"{name}_{option}": value
    for name in _MYSQL
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}
_LONG_TEXT = Text().with_variant(mysql.LONGTEXT(), *_MYSQL)
_TIME = DateTime().with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
_LARGE = BigInteger().with_variant(Integer(), "sqlite")  # all of SQLite's integers are


class LedgerError(InputError):
    """A ledger cannot be read; the message says which and why."""


class _Base(MappedAsDataclass, DeclarativeBase):
    pass


class SchemaVersion(_Base):
    """One row: the version of the tables beside it."""

    __tablename__ = "lcpruner_schema"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]


class LedgerEntry(_Base, kw_only=True):
    """One decision, whether it stopped the trial or not.

    Attributes:
        id: Row number.
        study: The study's name.
        trial: The trial's number.
        trial_started: When the trial started, as Optuna has it: tells a study from a deleted one
            of the same name.
        step: The step decided at; None before the first report.
        n_points: Finite reports so far.
        value: The newest finite report.
        horizon: Reports of a full training; None where the decision did not need it.
        incumbent: Best objective value of the completed trials.
        incumbent_trial: The number of the trial that has it.
        p_beat: Probability that the trial ends better than the incumbent.
        threshold: What ``p_beat`` was compared with.
        caution: What the threshold was multiplied by, below 1 where the rule would have stopped the
            study's best trial; None where no forecast was judged.
        mean: Expected final value.
        q05: 5 % quantile of the final value.
        q25: 25 % quantile.
        q50: Median.
        q75: 75 % quantile.
        q95: 95 % quantile.
        engine: Name of the posterior.
        engine_status: ``"ok"``, ``"not asked"``, ``"not converged"``, or ``"failed"``.
        look: How many looks the trial had, this one included.
        reason: Name of a :class:`~optuna_lcpruner.decision.decision.Reason`.
        message: The reason with its numbers, for people, as LearningCurvePruner says by itself; in
            lines below it what each source said, and remarks.
        decided_by: Names of the pruners that decided, where several were asked.
        action: ``"continue"``, ``"prune"``, or ``"control"``: would be pruned, but runs on in the
            control group.
        milliseconds: How long deciding took, the reading of the study included.
        version: Version of this package.
        decided_at: When, in UTC.
    """

    __tablename__ = "lcpruner_decisions"
    __table_args__ = (Index("ix_lcpruner_decisions_study_trial", "study", "trial"), _KEPT_EXACTLY)

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    study: Mapped[str] = mapped_column(String(512))
    trial: Mapped[int]
    trial_started: Mapped[datetime | None] = mapped_column(_TIME)
    step: Mapped[int | None] = mapped_column(BigInteger)
    n_points: Mapped[int]
    value: Mapped[float | None] = mapped_column(Double)
    horizon: Mapped[int | None] = mapped_column(_LARGE)
    incumbent: Mapped[float | None] = mapped_column(Double)
    incumbent_trial: Mapped[int | None]
    p_beat: Mapped[float | None] = mapped_column(Double)
    threshold: Mapped[float | None] = mapped_column(Double)
    caution: Mapped[float | None] = mapped_column(Double)
    mean: Mapped[float | None] = mapped_column(Double)
    q05: Mapped[float | None] = mapped_column(Double)
    q25: Mapped[float | None] = mapped_column(Double)
    q50: Mapped[float | None] = mapped_column(Double)
    q75: Mapped[float | None] = mapped_column(Double)
    q95: Mapped[float | None] = mapped_column(Double)
    engine: Mapped[str] = mapped_column(String(64))
    engine_status: Mapped[str] = mapped_column(String(16))
    look: Mapped[int]
    reason: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(_LONG_TEXT)
    decided_by: Mapped[str | None] = mapped_column(_LONG_TEXT)
    action: Mapped[str] = mapped_column(String(16))
    milliseconds: Mapped[float] = mapped_column(Double)
    version: Mapped[str] = mapped_column(String(32))
    decided_at: Mapped[datetime] = mapped_column(_TIME)

    @property
    def words(self) -> str:
        """The first line of the message: the reason with its numbers."""
        return self.message.partition("\n")[0]

    @property
    def details(self) -> list[str]:
        """The lines below it: what each source said, and remarks."""
        return self.message.splitlines()[1:]


_DECISIONS = LedgerEntry.metadata.tables[LedgerEntry.__tablename__]
COLUMNS = tuple(column.name for column in _DECISIONS.columns if column.name != "id")
"""The columns of an entry, without its row number."""


@dataclass
class DecisionContext:
    """What is known about a decision beside the decision itself, noted while it is made.

    Attributes:
        engine: Name of the posterior.
        n_points: Finite reports so far.
        value: The newest of them.
        look: Looks at the trial so far, this one included.
        horizon: Reports of a full training, where the decision needed it.
        incumbent_trial: The number of the study's best trial, where the decision needed it.
        caution: What the threshold was multiplied by, where the decision needed it.
        forecast: Gives the forecast that the decision rests on, if there is one.
        milliseconds: How long deciding took.
        decided_at: When, in UTC.
    """

    engine: str
    n_points: int = 0
    value: float | None = None
    look: int = 0
    horizon: int | None = None
    incumbent_trial: int | None = None
    caution: float | None = None
    forecast: Callable[[], Forecast] | None = None
    milliseconds: float = 0.0
    decided_at: datetime = field(
        default_factory=lambda: datetime.now(timezone.utc).replace(tzinfo=None)
    )


_STATUS = {Reason.FAILED: "failed", Reason.NOT_CONVERGED: "not converged"}


def entry(
    decision: Decision,
    circumstances: DecisionContext,
    *,
    study: str,
    trial: int,
    trial_started: datetime | None,
    version: str,
) -> LedgerEntry:
    """Put a decision and its circumstances into one row; works the forecast out.

    Numbers become plain Python numbers, what is not finite becomes None: no database keeps NaN.
    """
    status = _STATUS.get(decision.reason, "not asked")
    mean = q25 = q75 = None
    if circumstances.forecast is not None:
        with np.errstate(all="ignore"):
            end = circumstances.forecast()
            q25, q75 = end.quantile([0.25, 0.75])  # the others are the decision's
            mean = end.mean()
        status = "ok"
    return LedgerEntry(
        study=study,
        trial=trial,
        trial_started=trial_started,
        step=decision.step,
        n_points=circumstances.n_points,
        value=finite_or_none(circumstances.value),
        horizon=circumstances.horizon,
        incumbent=finite_or_none(decision.incumbent),
        incumbent_trial=circumstances.incumbent_trial,
        p_beat=finite_or_none(decision.p_beat),
        threshold=finite_or_none(decision.threshold),
        caution=circumstances.caution,
        mean=finite_or_none(mean),
        q05=finite_or_none(decision.low),
        q25=finite_or_none(q25),
        q50=finite_or_none(decision.forecast),
        q75=finite_or_none(q75),
        q95=finite_or_none(decision.high),
        engine=circumstances.engine[:64],
        engine_status=status,
        look=circumstances.look,
        reason=decision.reason.name,
        message=decision.in_full,
        decided_by=" and ".join(decision.decided_by) or None,
        action=_action(decision),
        milliseconds=circumstances.milliseconds,
        version=version,
        decided_at=circumstances.decided_at,
    )


def _action(decision: Decision) -> str:
    if decision.reason is Reason.CONTROL:
        return "control"
    return "prune" if decision.prune else "continue"


class Ledger:
    """The tables of a ledger; each call opens a connection of its own and closes it.

    Args:
        where: Its address.
    """

    def __init__(self, where: Address) -> None:
        self._where = where
        self._is_sqlite = is_sqlite(sqlalchemy.make_url(where.url))
        self._prepared = False
        self._engine: Engine | None = None

    @property
    def shown(self) -> str:
        """Its URL without the password."""
        return self._where.shown

    def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Write entries in one transaction; the tables are made first.

        Raises:
            SQLAlchemyError: If the database cannot be written; nothing of it is then.
            LedgerError: If the tables are of another version of this package.
        """
        rows = [{name: getattr(entry, name) for name in COLUMNS} for entry in entries]
        engine = self._connected()
        if not self._prepared:
            _prepare(engine)
        self._prepared = False  # until it worked: the file may have been removed meanwhile
        with engine.begin() as connection:
            connection.execute(sqlalchemy.insert(_DECISIONS), rows)
        self._prepared = True

    def of_trial(self, study: str, trial: int, started: datetime | None) -> list[LedgerEntry]:
        """The decisions about one trial, in the order they were made.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        chosen = (
            sqlalchemy.select(LedgerEntry)
            .where(LedgerEntry.study == study, LedgerEntry.trial == trial)
            .order_by(LedgerEntry.decided_at, LedgerEntry.id)
        )
        with self._reading() as connection, Session(connection) as session:
            found = session.scalars(chosen).all()
            session.expunge_all()
        return [entry for entry in found if same_start(entry.trial_started, started)]

    def of_study(self, study: str, columns: Sequence[str] = COLUMNS) -> dict[str, list[Any]]:
        """All decisions about a study, a list a column, in the order they were made.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        chosen = (
            sqlalchemy.select(*(_DECISIONS.c[name] for name in columns))
            .where(_DECISIONS.c.study == study)
            .order_by(_DECISIONS.c.decided_at, _DECISIONS.c.id)
        )
        with self._reading() as connection:
            rows = connection.execute(chosen).all()
        return {name: [row[i] for row in rows] for i, name in enumerate(columns)}

    def _connected(self) -> Engine:
        """An engine without a pool: nothing is open when the process forks or waits."""
        if self._engine is None:
            self._engine = sqlalchemy.create_engine(
                self._where.url,
                poolclass=sqlalchemy.pool.NullPool,
                connect_args=dict(self._where.connect_args),
                hide_parameters=True,
            )
        return self._engine

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        url = sqlalchemy.make_url(self._where.url)
        # SQLite would make an empty database.
        is_file = self._is_sqlite and not str(url.database).startswith("file:")
        if is_file and not os.path.isfile(str(url.database)):
            raise LedgerError(_none_there(self.shown))
        try:
            with self._connected().connect() as connection:
                version = _version(connection)
                if version is None:
                    raise LedgerError(_none_there(f"in {self.shown}"))
                _check_version(version)
                yield connection
        except SQLAlchemyError as error:
            raise LedgerError(
                f"cannot read ledger {self._where.shown}: {describe_error(error)}"
            ) from error


def open_ledger(setting: Setting, study: Study) -> Ledger:
    """The ledger of a study, for reading.

    Args:
        setting: The argument ``ledger``, see :data:`~optuna_lcpruner.records.location.Setting`; by
            default the one of the study's pruner, if that says so, else beside the study.
        study: The study.

    Raises:
        LedgerError: If the study has none.
        InputError: If the setting is no database URL.
    """
    if setting is None:
        setting = getattr(study.pruner, "ledger", None)
    where = address(checked(setting), storage_of(study))
    if where is None:
        raise LedgerError(
            f"study {study.study_name!r} has no ledger beside it: outside databases there is one "
            "only where LearningCurvePruner(ledger=...) put it, and a copied study leaves its "
            "ledger behind; give that URL."
        )
    return Ledger(where)


def _none_there(where: str) -> str:
    return f"there is no ledger {where}, so no decision is on record ({LEFT_BEHIND})"


def same_start(noted: datetime | None, started: datetime | None) -> bool:
    """Whether an entry's ``trial_started`` is this trial's start, up to a database's digits."""
    if noted is None or started is None:
        return noted is started
    return abs((noted - started).total_seconds()) <= _TRIAL_STARTED_WITHIN


def refuses_contents(error: Exception) -> bool:
    """Whether the entries are at fault: a text or number that the database can never hold."""
    never = (DataError, IntegrityError, ValueError, OverflowError)
    return isinstance(error, never) and not isinstance(error, LedgerError)


def _version(connection: Connection) -> int | None:
    """The schema version found, None where there is no ledger yet."""
    if not sqlalchemy.inspect(connection).has_table(SchemaVersion.__tablename__):
        return None
    return connection.scalar(sqlalchemy.select(SchemaVersion.version))


def _prepare(engine: Engine) -> None:
    """Make the tables unless they are there; one process at a time."""
    with engine.connect() as connection:
        if _version(connection) == SCHEMA_VERSION:
            return
    with engine.connect() as connection:
        _lock(connection)
        version = _version(connection)
        if version is None:
            _Base.metadata.create_all(connection)
            row = {"id": 1, "version": SCHEMA_VERSION}
            connection.execute(sqlalchemy.insert(SchemaVersion), row)
        else:
            _check_version(version)
        connection.commit()


def _check_version(version: int) -> None:
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger has schema version {version}, this package knows {SCHEMA_VERSION}: "
            "read it with the version of optuna-lcpruner that wrote it, or give another ledger"
        )


def _lock(connection: Connection) -> None:
    """Wait until no other process prepares the same tables; held until the connection is closed."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7251466)")  # any number of our own
    elif connection.dialect.name in _MYSQL:
        # Not the transaction's: MySQL ends that at each change of a table.
        got = connection.scalar(sqlalchemy.select(sqlalchemy.func.get_lock("lcpruner", _PATIENCE)))
        if got != 1:
            raise LedgerError("another process is preparing the ledger's tables, and does not end")
