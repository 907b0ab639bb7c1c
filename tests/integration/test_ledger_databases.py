"""The ledger on every kind of database, whatever its character set: many writers, odd contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
import sqlalchemy
from backends import MYSQL, POSTGRES, database, server
from helpers import run_together
from sqlalchemy import Column, Integer, MetaData, Table

from optuna_lcpruner import Decision, Reason
from optuna_lcpruner.records import ledger
from optuna_lcpruner.records.ledger import (
    COLUMNS,
    DecisionContext,
    Ledger,
    LedgerEntry,
    LedgerError,
    SchemaVersion,
)
from optuna_lcpruner.records.ledger_writer import LedgerWriter
from optuna_lcpruner.records.location import Address

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901)

ODD = [
    "plain",
    "it's",
    'a "b"',
    "a%sb :name \\",
    "a;DROP TABLE lcpruner_decisions--",
    "ä 学 🎓",
    "a\nb",
    "",
    "x" * 512,
    "学" * 512,
    "学" * 511,
]


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """The URL of a database of a kind, or of another one by a number, made when first asked for."""
    with ExitStack() as stack:

        @cache
        def made(kind: str, number: int = 0) -> str:
            if kind == "sqlite":
                return f"sqlite:///{tmp_path_factory.mktemp('ledger')}/l.db"
            if kind == "postgresql":
                return stack.enter_context(database(server(POSTGRES)))
            charset = {"mysql": "utf8mb4", "mysql in latin1": "latin1"}[kind]
            return stack.enter_context(database(server(MYSQL), f"CHARACTER SET {charset}"))

        yield made


KINDS = ["sqlite", "postgresql", "mysql", "mysql in latin1"]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, databases: Callable[..., str]) -> str:
    """The URL of a database without a ledger."""
    return without_ledger(databases(request.param))


def without_ledger(url: str) -> str:
    """The same URL; the tables are gone."""
    engine = sqlalchemy.create_engine(url)
    LedgerEntry.metadata.drop_all(engine)
    engine.dispose()
    return url


def row(message: str = "words", facts: DecisionContext | None = None, **where: Any) -> LedgerEntry:
    """An entry about trial 7 of study "s"."""
    where = {"study": "s", "trial": 7, "trial_started": STARTED, "version": "1.2.3", **where}
    facts = facts or DecisionContext("pool")
    return ledger.entry(Decision(Reason.WARM_UP, message, 3), facts, **where)


def test_what_is_written_is_read(url: str) -> None:
    kept = ledger.entry(
        Decision(Reason.UNDECIDED, "words", 2**40, 5e-300, 1e308, -1e308),
        DecisionContext(
            "pool", n_points=3, value=0.1 + 0.2, look=2, horizon=2**40, milliseconds=1 / 3,
            decided_at=STARTED,
        ),
        study="s", trial=7, trial_started=STARTED, version="1.2.3",
    )  # fmt: skip
    book = Ledger(Address(url))
    book.append([kept, row(trial=8)])
    (found,) = book.of_trial("s", 7, STARTED)
    assert {name: getattr(found, name) for name in COLUMNS} == {
        name: getattr(kept, name) for name in COLUMNS
    }


def test_odd_names_and_messages(url: str) -> None:
    book = Ledger(Address(url))
    book.append([row(text, study=text) for text in ODD])
    for text in ODD:
        assert [(r.study, r.message) for r in book.of_trial(text, 7, STARTED)] == [(text, text)]
        assert book.of_study(text, ["message"]) == {"message": [text]}


def test_names_differ_in_case_and_accents(url: str) -> None:
    """MySQL finds them equal, left to itself."""
    names = ["digits", "Digits", "dígits"]
    book = Ledger(Address(url))
    book.append([row(name, study=name) for name in names])
    assert [book.of_study(name, ["message"])["message"] for name in names] == [[n] for n in names]


def test_long_messages(url: str) -> None:
    text = "ß" * 100_000
    book = Ledger(Address(url))
    book.append([row(text)])
    assert book.of_study("s", ["message"]) == {"message": [text]}


def test_in_the_order_they_were_made(url: str) -> None:
    """Two processes write in their own time; decisions come within a second."""
    made = [STARTED + timedelta(milliseconds=100 * i) for i in range(4)]
    book = Ledger(Address(url))
    for i in (2, 3, 0, 1):
        book.append([row(str(i), DecisionContext("pool", decided_at=made[i]))])
    assert book.of_study("s", ["message"]) == {"message": ["0", "1", "2", "3"]}


def test_a_batch_is_written_whole_or_not_at_all(url: str) -> None:
    book = Ledger(Address(url))
    book.append([row()])
    bad = row()
    bad.reason = None  # type: ignore[assignment]
    with pytest.raises(sqlalchemy.exc.DBAPIError):
        book.append([row(), bad])
    assert book.of_study("s", ["message"]) == {"message": ["words"]}


CANNOT_BE_KEPT = {
    "surrogate": (row("half a pair: \udc80"), KINDS),
    "long name": (row(study="x" * 513), KINDS[1:]),
    "zero": (row("a\0b"), ["postgresql"]),
    "32 bit": (row(trial=2**31), KINDS[1:]),
    "64 bit": (row(trial=2**63), KINDS),
}


@pytest.mark.parametrize(
    ("url", "what"),
    [(kind, what) for what, (_, kinds) in CANNOT_BE_KEPT.items() for kind in kinds],
    indirect=["url"],
)
def test_what_cannot_be_kept_costs_itself_alone(url: str, what: str, warned: list[str]) -> None:
    bad, _ = CANNOT_BE_KEPT[what]
    writer = LedgerWriter(Address(url))
    for entry in (row("1"), bad, row("2"), bad, row("3")):
        writer.submit(lambda entry=entry: entry)  # type: ignore[misc]
    assert writer.flush(20)
    writer.submit(lambda: row("4"))
    assert writer.flush(20)
    assert Ledger(Address(url)).of_study("s", ["message"]) == {"message": ["1", "2", "3", "4"]}
    assert len(warned) == 1
    assert "a decision cannot be put on record: " in warned[0]


def test_interrupted_making_is_finished(url: str) -> None:
    """The table of the version is there, the version is not."""
    engine = sqlalchemy.create_engine(url)
    Table(SchemaVersion.__tablename__, MetaData(), Column("id", Integer, primary_key=True),
          Column("version", Integer, nullable=False)).create(engine)  # fmt: skip
    engine.dispose()
    Ledger(Address(url)).append([row()])
    assert Ledger(Address(url)).of_study("s", ["message"]) == {"message": ["words"]}


def test_tables_of_another_version_are_left_alone(url: str) -> None:
    book = Ledger(Address(url))
    book.append([row()])
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.update(SchemaVersion).values(version=99))
    for use in (lambda: Ledger(Address(url)).append([row()]), lambda: book.of_study("s")):
        with pytest.raises(LedgerError, match=r"version 99, this package knows 1"):
            use()
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.select(sqlalchemy.func.count(LedgerEntry.id))) == 1
    engine.dispose()


def test_reading_makes_no_tables(url: str) -> None:
    with pytest.raises(LedgerError, match="no ledger") as caught:
        Ledger(Address(url)).of_study("s")
    assert sqlalchemy.make_url(url).database.rpartition("/")[2] in str(caught.value)
    engine = sqlalchemy.create_engine(url)
    assert not any("lcpruner" in name for name in sqlalchemy.inspect(engine).get_table_names())
    engine.dispose()


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "mysql+pymysql"])
def test_no_password_in_errors(scheme: str) -> None:
    """Nobody listens at port 1."""
    book = Ledger(Address(f"{scheme}://me:secret@127.0.0.1:1/studies"))
    with pytest.raises(LedgerError, match="me:") as caught:
        book.of_study("s")
    assert "secret" not in str(caught.value)


WORKER = """
import sys
from datetime import datetime
from optuna_lcpruner import Decision, Reason
from optuna_lcpruner.records import ledger
from optuna_lcpruner.records import ledger_writer
from optuna_lcpruner.records.location import Address
from optuna_lcpruner.records.ledger_writer import LedgerWriter

worker, n, *urls = sys.argv[1:]
writers = [ledger_writer.writer(Address(url)) for url in urls]
facts = ledger.DecisionContext("pool")
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(n)):
    for writer in writers:
        writer.submit(lambda i=i: ledger.entry(
            Decision(Reason.WARM_UP, "wörds 学 🎓" * 100, i), facts,
            study="s", trial=int(worker), trial_started=None, version="1"))
    if i % 50 == 49:
        assert ledger_writer.flush(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
def test_four_processes_lose_nothing(kind: str, databases: Callable[..., str]) -> None:
    """They make the tables and write, all at once."""
    n = 225  # not a multiple of 50: the rest is written as the process ends
    urls = [without_ledger(databases(kind, number)) for number in (0, 1)]
    assert run_together(WORKER, [(str(i), str(n), *urls) for i in range(4)]) == [""] * 4
    for url in urls:
        found = Ledger(Address(url)).of_study("s", ["trial", "step", "message"])
        assert sorted(zip(*found.values(), strict=True)) == [
            (trial, step, "wörds 学 🎓" * 100) for trial in range(4) for step in range(n)
        ]
