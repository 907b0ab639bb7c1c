"""No password in a text that somebody reads."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy
from helpers import good_trials, make_study
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from sqlalchemy.exc import OperationalError

from optuna_lcpruner import Forecaster, LearningCurvePruner
from optuna_lcpruner._util.redaction import describe_error, redact
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import LedgerError
from optuna_lcpruner.records.location import Address, checked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:pw1@h/db", "postgresql://u:***@h/db"),
        (
            "postgresql+psycopg2://u:p@w:1@h:5432/db?x=1",
            "postgresql+psycopg2://u:***@h:5432/db?x=1",
        ),
        ("redis://:pw1@h:6379/0", "redis://:***@h:6379/0"),
        ("at 'mysql://u:pw1@h/db' and more", "at 'mysql://u:***@h/db' and more"),
        ("postgresql://h/db?user=u&password=pw1&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        ("host=h password=pw1 dbname=d", "host=h password=*** dbname=d"),
        ("host=h password='p w' dbname=d", "host=h password=*** dbname=d"),
        ('{"password": "pw1", "user": "u"}', '{"password": ***, "user": "u"}'),
        ("PGPASSWORD=pw1 psql", "PGPASSWORD=*** psql"),
        ("postgresql:/u:pw1@h", "postgresql:/u:***@h"),
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("could not decide at step 3: no such table", "could not decide at step 3: no such table"),
    ],
)
def test_table(text: str, shown: str) -> None:
    assert redact(text) == shown


@settings(deadline=None)
@given(st.text(min_size=3, max_size=12), st.sampled_from(["{}", "for user u: {} is wrong", "x{}y"]))
def test_wherever_it_stands_once_it_is_known(secret: str, words: str) -> None:
    assume(secret.strip() and not set(secret) & set("/:@") and secret not in words)
    assume(secret not in "***" and secret not in "postgresql://u:***@h/db")
    for written in (secret, quote(secret, safe="")):
        url = f"postgresql://u:{written}@h/db"
        assert secret not in redact(words.format(secret), [url])
        assert written not in redact(url, [url]).replace("***", "")


def test_an_error_is_one_line_in_the_drivers_words() -> None:
    driver = Exception('connection to "h" failed: pw1\nIs the server running?')
    error = OperationalError("SELECT secret", {"a": "parameter"}, driver)
    assert describe_error(error, ["postgresql://u:pw1@h/db"]) == 'connection to "h" failed: ***'
    wrapped = StorageInternalError("Optuna's words")
    wrapped.__cause__ = error
    assert describe_error(wrapped).startswith('connection to "h" failed')
    ours = LedgerError("cannot read ledger")
    ours.__cause__ = error
    assert describe_error(ours) == "cannot read ledger"
    assert describe_error(KeyError()) == "KeyError()"
    assert len(describe_error(ValueError("x" * 10**6))) == 300


URL = "postgresql+psycopg2://u:topsecret@127.0.0.1:1/db"


@pytest.mark.parametrize("unit", ["x", ":/a:", "secret", "password='", "secret =", "://:@"])
def test_long_texts_take_no_longer_by_the_letter(unit: str) -> None:
    """A repetition without a bound would take hours here."""
    text = unit * (10**5 // len(unit))
    redact(text)


class TestWhatPeopleSee:
    def test_of_a_pruner(self) -> None:
        assert "topsecret" not in repr(LearningCurvePruner(ledger=URL))

    def test_of_a_ledger(self) -> None:
        address = Address(URL)
        assert "topsecret" not in repr(address)
        assert address.shown == "postgresql+psycopg2://u:***@127.0.0.1:1/db"
        assert "topsecret" not in describe_error(
            OperationalError("", {}, Exception("password=topsecret"))
        )

    @pytest.mark.parametrize(
        "url", ["postgresql:/u:topsecret@h", "postgresql://u:topsecret@h:port/db"]
    )
    def test_of_a_ledger_that_cannot_be(self, url: str) -> None:
        with pytest.raises(ValueError, match="ledger must be") as caught:
            checked(url)
        assert "topsecret" not in str(caught.value)
        assert caught.value.__suppress_context__  # SQLAlchemy's own message shows it

    @pytest.mark.parametrize("fails", [trial_attributes, ledger_writer])
    def test_of_whatever_a_pruner_says_once(
        self, fails: object, warned: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = OSError(f"cannot reach {URL}")
        monkeypatch.setattr(fails, "writer", lambda *arguments: raise_(broken))
        pruner = LearningCurvePruner(20, ledger=f"sqlite:///{tmp_path}/l.db")
        study = make_study(good_trials(), pruner=pruner)
        trial = study.ask()
        trial.report(0.1, 0)
        trial.should_prune()
        assert len(warned) == 1
        assert "cannot reach" in warned[0]
        assert "topsecret" not in warned[0]

    def test_of_a_forecaster(self) -> None:
        class Secret(InMemoryStorage):
            url = URL

            def __repr__(self) -> str:
                return f"Secret({self.url})"

        study = make_study(good_trials(), storage=Secret())
        told = []
        forecaster = Forecaster(study._storage, tell=lambda event: told.append(event.text()))
        assert "topsecret" not in repr(forecaster)
        study._storage.get_all_studies = lambda: raise_(OSError(f"cannot reach {URL}: topsecret"))
        forecaster.run_pass()
        assert len(told) == 1
        assert "topsecret" not in told[0]
        assert "cannot reach" in told[0]


def raise_(error: Exception) -> None:
    raise error


def test_sqlalchemys_own_hiding_is_not_enough() -> None:
    """Why the query of a URL is looked at: SQLAlchemy shows a password that stands there."""
    url = sqlalchemy.make_url("postgresql://h/db?password=pw1")
    assert "pw1" in url.render_as_string(hide_password=True)
