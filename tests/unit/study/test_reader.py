"""Completed trials are read again only when another has completed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import optuna
import pytest
import sqlalchemy
from backends import open_storage, place
from helpers import N_STEPS, Recording, finished, good_trials, names, reports, saturating
from optuna.study import Study
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner._util import optuna_storage
from optuna_lcpruner.study import reader
from optuna_lcpruner.study.reader import change_token


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(place(kind, tmp_path_factory.mktemp("at"))))


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def twins(request: pytest.FixtureRequest, places: Callable[[str], str]) -> tuple[Study, Study]:
    """One study in a database, as two workers have it open."""
    where = places(request.param)
    here = optuna.create_study(
        storage=open_storage(request.param, where),
        pruner=LearningCurvePruner(N_STEPS, threshold=0.0, publish=False, ledger=False),
        direction="maximize",
    )
    there = optuna.load_study(
        study_name=here.study_name, storage=open_storage(request.param, where)
    )
    return here, there


@contextmanager
def statements(study: Study) -> Iterator[list[str]]:
    """What the study's storage sends to its database meanwhile."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = study._storage._backend.engine  # type: ignore[attr-defined]
    sqlalchemy.event.listen(engine, "before_cursor_execute", note)
    yield sent
    sqlalchemy.event.remove(engine, "before_cursor_execute", note)


class TestMark:
    def test_changes_with_each_completed_trial(self, twins: tuple[Study, Study]) -> None:
        here, there = twins
        marks = [change_token(here)]
        for trial in good_trials():
            there.add_trial(trial)
            marks.append(change_token(here))
        assert None not in marks
        assert len(set(marks)) == 6
        assert change_token(there) == marks[-1]

    def test_and_with_nothing_else(self, twins: tuple[Study, Study]) -> None:
        here, there = twins
        there.add_trials(good_trials())
        before = change_token(here)
        there.add_trial(finished(reports([0.1, 0.2]), 0.2, TrialState.PRUNED))
        there.add_trial(finished(reports([0.1]), state=TrialState.FAIL))
        there.enqueue_trial({})
        trial = there.ask()
        trial.report(0.5, 0)
        trial.set_user_attr("a", 1)
        other = optuna.create_study(storage=there._storage)
        other.add_trials(good_trials())
        assert change_token(here) == before != change_token(other)

    @pytest.mark.parametrize("kind", ["memory", "journal"])
    def test_none_where_trials_are_at_hand(self, kind: str, places: Callable[[str], str]) -> None:
        storage = None if kind == "memory" else open_storage(kind, places(kind))
        assert change_token(optuna.create_study(storage=storage)) is None

    def test_none_if_the_database_cannot_answer(self, twins: tuple[Study, Study]) -> None:
        here, _ = twins
        engine = here._storage._backend.engine  # type: ignore[attr-defined]
        engine.pool = sqlalchemy.pool.NullPool(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        assert change_token(here) is None


class TestDecisions:
    def test_one_statement_while_nothing_completes(self, twins: tuple[Study, Study]) -> None:
        here, there = twins
        there.add_trials(good_trials())
        mine, other = here.ask(), there.ask()
        sent = []
        for step, value in enumerate(saturating(0.8)[:8]):
            mine.report(value, step)
            other.report(value, step)
            with statements(here) as during:
                mine.should_prune()
            sent.append(len(during))
        assert sent[0] == 0  # one report says nothing
        assert sent[1] > 1
        assert sent[2:] == [1] * 6

    def test_what_others_complete_is_known_at_once(self, twins: tuple[Study, Study]) -> None:
        here, there = twins
        there.add_trials(good_trials())
        here.pruner = recording = Recording(here.pruner)  # type: ignore[arg-type]
        trial = here.ask()
        for step, value in enumerate(saturating(0.8)[:8]):
            trial.report(value, step)
            trial.should_prune()
            if step in (3, 5):
                there.add_trial(finished(reports(saturating(0.9 + step / 100))))
        best = [decision.incumbent for decision in recording.decisions]
        ends = [saturating(end)[-1] for end in (0.9, 0.93, 0.95)]
        assert best[0] is None
        assert best[1:] == pytest.approx(3 * ends[:1] + 2 * ends[1:2] + 2 * ends[2:])

    def test_one_thread_reads_for_all(self, twins: tuple[Study, Study]) -> None:
        here, there = twins
        there.add_trials(good_trials())
        trials = [here.ask() for _ in range(8)]
        for trial in trials:
            for step, value in enumerate(saturating(0.8)[:4]):
                trial.report(value, step)
        together = threading.Barrier(len(trials))

        def ask(trial: optuna.Trial) -> bool:
            together.wait(20)
            return trial.should_prune()

        with statements(here) as during, ThreadPoolExecutor(len(trials)) as pool:
            assert list(pool.map(ask, trials)) == [False] * 8
        assert sum("FROM trial_intermediate_values" in sent for sent in during) == 1

    def test_a_thread_that_never_comes_back_is_not_waited_for(
        self, twins: tuple[Study, Study], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a child that was forked while another thread read."""
        monkeypatch.setattr(reader, "LONGEST_WAIT", 0.05)
        here, there = twins
        there.add_trials(good_trials())
        here.pruner = recording = Recording(here.pruner)  # type: ignore[arg-type]
        stuck, other = here.ask(), here.ask()
        for step, value in enumerate(saturating(0.8)[:4]):
            stuck.report(value, step)
            other.report(value, step)
        reading, leave, get_trials = threading.Event(), threading.Event(), here.get_trials

        def slow(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread() is first:
                reading.set()
                assert leave.wait(60)
            return get_trials(*arguments, **named)

        monkeypatch.setattr(here, "get_trials", slow)
        first, second = (
            threading.Thread(target=trial.should_prune, daemon=True) for trial in (stuck, other)
        )
        first.start()
        assert reading.wait(60)
        second.start()
        second.join(60)
        assert recording.asked == [(other.number, recording.decisions[0])]
        assert names(recording.decisions) == ["UNDECIDED"]
        leave.set()
        first.join(60)

    def test_without_a_mark_they_are_read_each_time(
        self, twins: tuple[Study, Study], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(optuna_storage, "_question", lambda: 1 / 0)
        here, there = twins
        there.add_trials(good_trials())
        here.pruner = recording = Recording(here.pruner)  # type: ignore[arg-type]
        trial = here.ask()
        for step, value in enumerate(saturating(0.8)[:4]):
            trial.report(value, step)
            with statements(here) as during:
                trial.should_prune()
            assert len(during) > 1 or step == 0
        assert names(recording.decisions) == ["TOO_FEW_REPORTS", *["UNDECIDED"] * 3]
