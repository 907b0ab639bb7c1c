"""The ledger: what a row holds, where it is kept, old and damaged files, many writers."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from helpers import (
    BAD,
    N_STEPS,
    SpyEngine,
    good_trials,
    judge,
    make_study,
    reports,
    saturating,
    sqlite,
)
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import OperationalError

from optuna_lcpruner import Decision, LearningCurvePruner, Reason
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.posterior.weighted_sum.priors import paper_prior
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC
from optuna_lcpruner.records import ledger, ledger_writer
from optuna_lcpruner.records.ledger import (
    COLUMNS,
    SCHEMA_VERSION,
    DecisionContext,
    Ledger,
    LedgerEntry,
    LedgerError,
    same_start,
)
from optuna_lcpruner.records.location import Address, address, checked

NAN, INF = float("nan"), float("inf")
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901)


def at(path: Path) -> Address:
    return Address(f"sqlite:///{path}")


def row(
    decision: Decision | None = None, facts: DecisionContext | None = None, **where: Any
) -> LedgerEntry:
    """An entry about trial 7 of study "s"."""
    where = {"study": "s", "trial": 7, "trial_started": STARTED, "version": "1.2.3", **where}
    return ledger.entry(
        decision or Decision(Reason.WARM_UP, "warm-up: step 3", 3),
        facts or DecisionContext("pool"),
        **where,
    )


def as_dict(entry: LedgerEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in COLUMNS}


class TestSetting:
    @pytest.mark.parametrize(
        "setting", [None, False, "sqlite:////a.db", "postgresql+psycopg2://u:p@h/d"]
    )
    def test_allowed(self, setting: Any) -> None:
        assert checked(setting) == setting

    @pytest.mark.parametrize(
        ("setting", "error", "words"),
        [
            ("study.db", ValueError, "database URL"),
            ("", ValueError, "database URL"),
            ("sqlite://", ValueError, "that lasts"),
            ("sqlite:///:memory:", ValueError, "that lasts"),
            (True, TypeError, "None or False"),
            (0, TypeError, "None or False"),
            (Path("a.db"), TypeError, "None or False"),
        ],
    )
    def test_others_are_named(self, setting: Any, error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words) as caught:
            LearningCurvePruner(ledger=setting)
        assert repr(setting) in str(caught.value)


class TestAddress:
    def test_beside_an_sqlite_study(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        study = make_study(storage=sqlite("sqlite:///study one.db"))
        found = address(None, study._storage)
        assert found == at(tmp_path / "study one.db.lcpruner")

    def test_in_the_studys_own_database(self) -> None:
        url = sqlalchemy.make_url("postgresql://me:secret@host/studies")
        options = {"sslmode": "require"}
        backend = RDBStorage.__new__(RDBStorage)  # no server to connect to
        backend.engine = SimpleNamespace(url=url)
        backend.engine_kwargs = {"connect_args": options}
        found = address(None, SimpleNamespace(_backend=backend))  # type: ignore[arg-type]
        assert found is not None
        assert found.url == "postgresql://me:secret@host/studies"
        assert found.connect_args == options
        assert "secret" not in found.shown
        assert "secret" not in repr(found)

    @pytest.mark.parametrize("kind", ["memory", "sqlite memory", "sqlite uri", "journal"])
    def test_nowhere(self, kind: str, tmp_path: Path) -> None:
        storage: Any = {
            "memory": InMemoryStorage,
            "sqlite memory": lambda: sqlite("sqlite://"),
            "sqlite uri": lambda: sqlite(f"sqlite:///file:{tmp_path}/s.db?mode=rwc&uri=true"),
            "journal": lambda: JournalStorage(JournalFileBackend(f"{tmp_path}/s.log")),
        }[kind]()
        assert address(None, make_study(storage=storage)._storage) is None

    def test_as_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        storage = InMemoryStorage()
        assert address("sqlite:///l.db", storage) == at(tmp_path / "l.db")
        assert address("sqlite:///l.db?timeout=3", storage) == Address(
            f"sqlite:///{tmp_path}/l.db?timeout=3"
        )
        assert address("postgresql://h/d", storage) == Address("postgresql://h/d")

    def test_off(self, tmp_path: Path) -> None:
        study = make_study(storage=sqlite(f"sqlite:///{tmp_path}/study.db"))
        assert address(False, study._storage) is None


class TestEntry:
    def test_of_a_judged_trial(self) -> None:
        spy = SpyEngine(OpinionPool())
        decision = judge(
            make_study(good_trials()),
            LearningCurvePruner(N_STEPS, engine=spy),
            reports(saturating(0.89)[:6]),
        )
        forecast = OpinionPool()(spy.curves[-1], spy.knowledge[-1])
        facts = DecisionContext(
            "pool", n_points=6, value=0.7, look=6, horizon=20, incumbent_trial=4,
            forecast=lambda: forecast, milliseconds=1.5, decided_at=STARTED + timedelta(seconds=9),
        )  # fmt: skip
        found = as_dict(row(decision, facts))
        expected: dict[str, Any] = {
            "study": "s",
            "trial": 7,
            "trial_started": STARTED,
            "step": 5,
            "n_points": 6,
            "value": 0.7,
            "horizon": 20,
            "incumbent": decision.incumbent,
            "incumbent_trial": 4,
            "caution": None,
            "p_beat": decision.p_beat,
            "threshold": decision.threshold,
            "mean": forecast.mean(),
            "q05": decision.low,
            "q25": pytest.approx(float(forecast.quantile(0.25)), rel=1e-9),
            "q50": decision.forecast,
            "q75": pytest.approx(float(forecast.quantile(0.75)), rel=1e-9),
            "q95": decision.high,
            "engine": "pool",
            "engine_status": "ok",
            "look": 6,
            "reason": "UNDECIDED",
            "message": decision.in_full,
            "decided_by": None,
            "action": "continue",
            "milliseconds": 1.5,
            "version": "1.2.3",
            "decided_at": STARTED + timedelta(seconds=9),
        }
        assert found == expected

    @pytest.mark.parametrize(
        ("reason", "status", "action"),
        [
            (Reason.WARM_UP, "not asked", "continue"),
            (Reason.FAILED, "failed", "continue"),
            (Reason.NOT_CONVERGED, "not converged", "continue"),
            (Reason.DIVERGED, "not asked", "prune"),
            (Reason.CONTROL, "not asked", "control"),
        ],
    )
    def test_without_a_forecast(self, reason: Reason, status: str, action: str) -> None:
        found = row(Decision(reason, "words", 3))
        assert (found.reason, found.engine_status, found.action) == (reason.name, status, action)
        assert [getattr(found, name) for name in ("mean", "p_beat", "q05", "q25", "q50")] == [
            None
        ] * 5

    def test_a_run_without_convergence_has_its_horizon(self, tmp_path: Path) -> None:
        where = at(tmp_path / "l.db")
        study = make_study(good_trials())
        engine = MCMC(paper_prior(["pow3"]), max_steps=20)
        pruner = LearningCurvePruner(N_STEPS, engine=engine, ledger=where.url)
        judge(study, pruner, reports(BAD[:6]))
        assert ledger_writer.flush()
        found = Ledger(where).of_study(study.study_name, ["reason", "horizon", "q50"])
        assert found == {"reason": ["NOT_CONVERGED"], "horizon": [N_STEPS], "q50": [None]}

    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_what_is_not_finite_is_left_out(self, value: float) -> None:
        decision = Decision(Reason.UNDECIDED, "words", 3, 0.5, value, value)
        found = row(decision, DecisionContext("pool", value=value))
        assert (found.p_beat, found.threshold, found.incumbent, found.value) == (
            0.5,
            None,
            None,
            None,
        )

    def test_starts_are_compared_to_the_second(self) -> None:
        assert same_start(STARTED, STARTED.replace(microsecond=0))
        assert not same_start(STARTED, STARTED + timedelta(seconds=2))
        assert same_start(None, None)
        assert not same_start(STARTED, None)


class TestLedger:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        book = Ledger(at(tmp_path / "l.db"))
        kept = [row(Decision(Reason.WARM_UP, f"step {i}", i)) for i in (1, 0, 2)]
        other_trial, other_study = row(trial=8), row(study="t")
        book.append([*kept, other_trial])
        book.append([other_study])
        found = Ledger(at(tmp_path / "l.db")).of_trial("s", 7, STARTED)
        assert [as_dict(entry) for entry in found] == [as_dict(entry) for entry in kept]
        columns = book.of_study("s")
        assert set(columns) == set(COLUMNS)
        assert columns["step"] == [1, 0, 2, 3]
        assert book.of_study("t", ["trial", "step"]) == {"trial": [7], "step": [3]}
        assert book.of_study("nobody", ["trial"]) == {"trial": []}

    def test_in_the_order_they_were_made(self, tmp_path: Path) -> None:
        """Two processes write in their own time."""
        book = Ledger(at(tmp_path / "l.db"))
        late, early = (
            row(Decision(Reason.WARM_UP, "words", step), DecisionContext("pool", decided_at=when))
            for step, when in ((1, STARTED + timedelta(seconds=1)), (0, STARTED))
        )
        book.append([late, early])
        assert [entry.step for entry in book.of_trial("s", 7, STARTED)] == [0, 1]
        assert book.of_study("s", ["step"]) == {"step": [0, 1]}

    def test_a_deleted_study_of_the_same_name(self, tmp_path: Path) -> None:
        book = Ledger(at(tmp_path / "l.db"))
        book.append([row(trial_started=STARTED - timedelta(days=1)), row()])
        assert len(book.of_trial("s", 7, STARTED)) == 1

    @pytest.mark.parametrize(
        "name",
        ["plain", "it's", 'a "b"', "a%sb", "a;DROP TABLE x--", "ä 学 🎓", "a\nb", "", "x" * 512],
    )
    def test_odd_study_names(self, name: str, tmp_path: Path) -> None:
        book = Ledger(at(tmp_path / "l.db"))
        book.append([row(study=name), row(study=name + "x")])
        assert [entry.study for entry in book.of_trial(name, 7, STARTED)] == [name]
        assert book.of_study(name, ["study"]) == {"study": [name]}

    def test_odd_file_names(self, tmp_path: Path) -> None:
        folder = tmp_path / "a b%20ü#"
        folder.mkdir()
        storage = make_study(
            storage=optuna.storages.RDBStorage(
                sqlalchemy.URL.create("sqlite", database=f"{folder}/s.db").render_as_string()
            )
        )._storage
        where = address(None, storage)
        assert where is not None
        Ledger(where).append([row()])
        assert (folder / "s.db.lcpruner").is_file()
        assert len(Ledger(where).of_trial("s", 7, STARTED)) == 1

    def test_large_steps_and_numbers(self, tmp_path: Path) -> None:
        book = Ledger(at(tmp_path / "l.db"))
        book.append([row(Decision(Reason.UNDECIDED, "words", 2**40, 5e-324, 1e308, -1e308))])
        (found,) = book.of_trial("s", 7, STARTED)
        assert (found.step, found.p_beat, found.threshold, found.incumbent) == (
            2**40,
            5e-324,
            1e308,
            -1e308,
        )

    def test_reading_makes_no_file(self, tmp_path: Path) -> None:
        book = Ledger(at(tmp_path / "l.db"))
        with pytest.raises(LedgerError, match=r"no ledger sqlite:.*l\.db"):
            book.of_trial("s", 7, STARTED)
        with pytest.raises(LedgerError, match="no ledger"):
            book.of_study("s")
        assert list(tmp_path.iterdir()) == []

    def test_reading_makes_no_tables(self, tmp_path: Path) -> None:
        storage = sqlite(f"sqlite:///{tmp_path}/study.db")
        make_study(storage=storage)
        before = set(sqlalchemy.inspect(storage.engine).get_table_names())
        with pytest.raises(LedgerError, match=r"no ledger in .*study\.db"):
            Ledger(at(tmp_path / "study.db")).of_study("s")
        assert set(sqlalchemy.inspect(storage.engine).get_table_names()) == before

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "l.db"
        path.write_text("notes " * 1000)
        with pytest.raises(LedgerError, match="not a database"):
            Ledger(at(path)).of_study("s")
        with pytest.raises(sqlalchemy.exc.DatabaseError, match="not a database"):
            Ledger(at(path)).append([row()])
        assert path.read_text() == "notes " * 1000

    def test_a_file_removed_meanwhile(self, tmp_path: Path) -> None:
        """The next batch fails, the one after it finds a new file with tables."""
        path = tmp_path / "l.db"
        book = Ledger(at(path))
        book.append([row()])
        path.unlink()
        with pytest.raises(OperationalError):
            book.append([row()])
        book.append([row()])
        assert len(book.of_trial("s", 7, STARTED)) == 1

    def test_a_batch_is_written_whole_or_not_at_all(self, tmp_path: Path) -> None:
        book = Ledger(at(tmp_path / "l.db"))
        bad = row()
        bad.reason = None  # type: ignore[assignment]
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            book.append([row(), bad])
        assert book.of_study("s", ["step"]) == {"step": []}


class TestSchema:
    def test_of_a_new_ledger(self, tmp_path: Path) -> None:
        Ledger(at(tmp_path / "l.db")).append([row()])
        with sqlite3.connect(tmp_path / "l.db") as connection:
            assert connection.execute("SELECT * FROM lcpruner_schema").fetchall() == [
                (1, SCHEMA_VERSION)
            ]
        connection.close()

    def test_a_file_of_another_version_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "l.db"
        Ledger(at(path)).append([row()])
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE lcpruner_schema SET version = 99")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(LedgerError, match=r"version 99, this package knows 1"):
            Ledger(at(path)).append([row()])
        with pytest.raises(LedgerError, match=r"version 99, this package knows 1"):
            Ledger(at(path)).of_study("s")
        assert path.read_bytes() == before

    def test_a_read_only_file_can_be_read(self, tmp_path: Path) -> None:
        Ledger(at(tmp_path / "l.db")).append([row()])
        book = Ledger(Address(f"sqlite:///file:{tmp_path}/l.db?mode=ro&uri=true"))
        assert len(book.of_trial("s", 7, STARTED)) == 1
        with pytest.raises(OperationalError, match="readonly"):
            book.append([row()])


@pytest.mark.slow
def test_a_long_ledger_is_read_in_seconds(tmp_path: Path) -> None:
    """10^5 decisions; the time it takes is in docs/ledger.md, here they have to be right."""
    book = Ledger(at(tmp_path / "l.db"))
    n = 100_000
    one = row()
    for _ in range(n // 20_000):
        book.append([one] * 20_000)
    found = book.of_study("s", ["trial", "step", "p_beat"])
    assert np.array(found["trial"]).sum() == 7 * n


def test_circumstances_note_the_time() -> None:
    before = datetime.now(timezone.utc).replace(tzinfo=None)
    noted = DecisionContext("pool").decided_at
    after = datetime.now(timezone.utc).replace(tzinfo=None)
    assert before <= noted <= after
