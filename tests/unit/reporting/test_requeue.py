"""Second chances: who gets one, that it runs to its end, and what the report says of it."""

from __future__ import annotations

import logging
import queue
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import (
    GOOD_STUDY,
    N_STEPS,
    SAYS_CONSTRAINTS,
    begun_at,
    good_study,
    good_trials,
    make_study,
    reports,
    saturating,
    sqlite,
)
from histories import History, judged
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from optuna_lcpruner import LearningCurvePruner, Reason, explain, report, requeue, resumed_from
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import LedgerError
from optuna_lcpruner.reporting.build_report import calls
from optuna_lcpruner.study.continuation import enqueue_continuation, second_chance_of

ATTRIBUTE = "lcpruner_requeued_from"


ENDS = (0.2, 0.9)


def objective(trial: optuna.Trial) -> float:
    """Approaches a value that the parameter sets."""
    curve = saturating(trial.suggest_float("end", *ENDS))
    for step, value in enumerate(curve):
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(curve[-1])


Logged = Callable[[], list[tuple[str, str]]]


def searched(study: optuna.Study, seed: int) -> optuna.Study:
    """Five completed trials, then fifteen with end drawn at random."""
    study.sampler = optuna.samplers.RandomSampler(seed=seed)
    study.optimize(objective, n_trials=15)
    return study


@pytest.fixture(scope="module")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a finished search: its study and the ledger beside it."""
    folder = tmp_path_factory.mktemp("search")
    pruner = LearningCurvePruner(N_STEPS, ledger=f"sqlite:///{folder}/study.db.lcpruner")
    quick = optuna.create_study(study_name=GOOD_STUDY, direction="maximize", pruner=pruner)
    quick.add_trials(good_trials())
    searched(quick, seed=0)
    assert trial_attributes.writer().flush(60.0)
    assert ledger_writer.flush(60.0)
    study = good_study(f"sqlite:///{folder}/study.db")
    study.add_trials(quick.get_trials()[5:])
    study._storage.remove_session()
    return folder


@pytest.fixture
def study(finished_search: Path, tmp_path: Path) -> optuna.Study:
    """A copy of that search, each test its own."""
    shutil.copytree(finished_search, tmp_path, dirs_exist_ok=True)
    return optuna.load_study(
        study_name=GOOD_STUDY,
        storage=sqlite(f"sqlite:///{tmp_path}/study.db"),
        sampler=optuna.samplers.RandomSampler(seed=2),
        pruner=LearningCurvePruner(N_STEPS),
    )


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Gives the lines in the log since it was asked last, with their levels."""
    found = queue.SimpleQueue[logging.LogRecord]()
    handler = QueueHandler(found)
    logger = logging.getLogger("optuna.lcpruner")
    logger.addHandler(handler)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.INFO)

    def lines() -> list[tuple[str, str]]:
        records = [found.get() for _ in range(found.qsize())]
        return [(record.levelname, record.getMessage()) for record in records]

    yield lines
    optuna.logging.set_verbosity(verbosity)
    logger.removeHandler(handler)


class TestCalls:
    def test_all_prunes_by_forecast_the_closest_first(self, study: optuna.Study) -> None:
        found = calls(study)
        assert sorted(call.trial for call in found) == [
            trial.number for trial in study.get_trials() if trial.state == TrialState.PRUNED
        ]
        assert len(found) > 5
        p = [call.p_beat for call in found]
        assert p == sorted(p, reverse=True)
        assert list(report(study).closest) == found[:5]

    def test_two_objectives(self) -> None:
        two = optuna.create_study(directions=["minimize", "minimize"])
        with pytest.raises(ValueError, match="2 objectives"):
            calls(two)


class TestRequeue:
    def test_the_closest_calls_run_to_their_end(self, study: optuna.Study) -> None:
        closest = [call.trial for call in calls(study)[:2]]
        n = len(study.get_trials())
        assert requeue(study, 2) == closest
        study.optimize(objective, n_trials=2)
        trials = study.get_trials()
        again = trials[n:]
        assert [trial.user_attrs[ATTRIBUTE] for trial in again] == closest
        for trial, first in zip(again, closest, strict=True):
            assert trial.params == trials[first].params
            assert trial.state == TrialState.COMPLETE
            assert len(trial.intermediate_values) == N_STEPS
            decisions = explain(study, trial.number).decisions
            spared = [entry for entry in decisions if entry.reason == "REQUEUED"]
            assert spared
            assert {entry.action for entry in spared} == {"continue"}
        assert "requeued, runs on" in explain(study, n).summary

    def test_the_report_tells_how_they_ended(self, study: optuna.Study) -> None:
        before = report(study)
        assert before.second_chances == []
        assert "Second chances" not in str(before)
        first, _ = requeue(study, 2)
        study.optimize(objective, n_trials=1)
        done, waiting = report(study).second_chances
        assert (done.first, done.trial, done.state) == (first, 20, "COMPLETE")
        assert done.value == study.get_trials()[20].value
        assert done.beat is (done.value > done.incumbent)
        assert (waiting.state, waiting.value, waiting.beat) == ("WAITING", None, None)
        text = str(report(study))
        assert "Second chances" in text
        assert "best when pruned" in text

    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize(("value", "beat"), [(0.95, False), (0.96, True)])
    def test_what_beats_the_best(
        self, direction: str, value: float, beat: bool, tmp_path: Path
    ) -> None:
        history = History(tmp_path, direction)
        history.trial(
            judged(3, Reason.BELOW_THRESHOLD, 0.01), value=0.4, n=4, state=TrialState.PRUNED
        )
        history.trial(judged(3, Reason.REQUEUED, 0.01), value=value, attrs={ATTRIBUTE: 0})
        found = history.report()
        assert [chance.beat for chance in found.second_chances] == [beat]
        # Chosen for its high P: it says nothing about P in general.
        assert found.log_scores is None
        assert found.n_control == 0

    def test_what_a_callback_let_go_on_says_nothing_about_p_in_general(
        self, tmp_path: Path
    ) -> None:
        """It was chosen for its high P as well."""
        history = History(tmp_path)
        history.trial(
            judged(3, Reason.BELOW_THRESHOLD, 0.01), value=0.4, n=4, state=TrialState.PRUNED
        )
        resumed = {"lcpruner_resumed_from": 0, "lcpruner_resumed_at_step": 3}
        history.trial(judged(3, Reason.UNDECIDED, 0.3), value=0.96, attrs=resumed)
        found = history.report()
        assert [chance.beat for chance in found.second_chances] == [True]
        assert found.log_scores is None

    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    @pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
    def test_an_infeasible_one_beats_nothing(
        self, how: str, direction: str, tmp_path: Path
    ) -> None:
        history = History(tmp_path, direction)
        history.trial(
            judged(3, Reason.BELOW_THRESHOLD, 0.01), value=0.4, n=4, state=TrialState.PRUNED
        )
        history.trial(value=0.96, attrs={ATTRIBUTE: 0}, constraints=(1.0,), how=how)
        history.trial(value=0.96, attrs={ATTRIBUTE: 0}, constraints=(0.0,), how=how)
        found = history.report()
        assert [(chance.beat, chance.feasible) for chance in found.second_chances] == [
            (False, False), (True, True)
        ]  # fmt: skip
        ends = [line.split(maxsplit=5)[5] for line in str(found).splitlines()[-2:]]
        assert ends == ["no, infeasible", "yes"]

    def test_going_on_from_a_checkpoint(self, study: optuna.Study) -> None:
        """The two parts are the training that was never stopped."""
        closest = [call.trial for call in calls(study)[:2]]
        assert requeue(study, 2, resume=True) == closest
        made: dict[int, list[int]] = {}

        def goes_on(trial: optuna.Trial) -> float:
            curve, point = saturating(trial.suggest_float("end", *ENDS)), resumed_from(trial)
            assert point is not None
            steps = made[point.number] = list(range(point.step + 1, N_STEPS))
            for step in steps:
                trial.report(curve[step], step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return float(curve[-1])

        study.optimize(goes_on, n_trials=2)
        trials = study.get_trials()
        for trial, first in zip(trials[20:], closest, strict=True):
            assert trial.state == TrialState.COMPLETE
            assert trial.intermediate_values == reports(saturating(trial.params["end"]))
            assert len(made[first]) + len(trials[first].intermediate_values) == N_STEPS
        found = report(study)
        assert [(c.first, c.state) for c in found.second_chances] == [
            (first, "COMPLETE") for first in closest
        ]
        assert found.savings.trained == sum(
            len(t.intermediate_values) for t in trials if t.number not in closest
        )
        assert set(requeue(study, 1000)).isdisjoint(closest)

    def test_one_that_a_callback_has_let_go_on_had_its_chance(self, study: optuna.Study) -> None:
        first, second = (call.trial for call in calls(study)[:2])
        enqueue_continuation(study, study.get_trials()[first])
        assert requeue(study, 1) == [second]

    def test_each_gets_one(self, study: optuna.Study) -> None:
        closest = [call.trial for call in calls(study)]
        assert requeue(study, 2) == closest[:2]
        assert requeue(study, 3) == closest[2:5]
        assert requeue(study, 1000) == closest[5:]
        assert requeue(study, 1) == []

    def test_a_second_chance_that_diverges_is_stopped(self, study: optuna.Study) -> None:
        requeue(study, 1)
        trial = study.ask()
        trial.report(float("nan"), 0)
        assert trial.should_prune()

    def test_in_a_journal(self, tmp_path: Path) -> None:
        storage = JournalStorage(JournalFileBackend(f"{tmp_path}/s.log"))
        setting = f"sqlite:///{tmp_path}/l.db"
        study = make_study(good_trials(), storage=storage)
        study.pruner = LearningCurvePruner(N_STEPS, ledger=setting)
        study.enqueue_trial({"end": 0.3})
        study.optimize(objective, n_trials=1)
        assert requeue(study, 1) == [5]
        study.optimize(objective, n_trials=1)
        assert study.get_trials()[6].state == TrialState.COMPLETE
        np.testing.assert_allclose(study.get_trials()[6].params["end"], 0.3)
        (chance,) = report(study).second_chances
        assert (chance.first, chance.trial, chance.state) == (5, 6, "COMPLETE")

    @pytest.mark.parametrize(
        ("k", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)]
    )
    def test_bad_numbers(self, k: Any, error: type[Exception], study: optuna.Study) -> None:
        with pytest.raises(error, match=r"^k must be"):
            requeue(study, k)

    def test_resume_is_a_boolean(self, study: optuna.Study) -> None:
        with pytest.raises(TypeError, match=r"^resume must be"):
            requeue(study, 1, resume=1)  # type: ignore[arg-type]

    def test_no_ledger(self) -> None:
        with pytest.raises(LedgerError):
            requeue(make_study(good_trials()), 1)


class TestTrialsOfAnotherStudy:
    def test_its_second_chances_are_not_ours(self, study: optuna.Study, tmp_path: Path) -> None:
        pruner = LearningCurvePruner(N_STEPS, ledger=f"sqlite:///{tmp_path}/l.db")
        other = searched(make_study(good_trials(), pruner=pruner), seed=1)
        closest = [call.trial for call in calls(study)]
        assert set(requeue(other, 1000)) & set(closest)
        other.optimize(objective, n_trials=4)  # of the others no parameter has been asked for
        study.add_trials(other.get_trials()[20:])
        assert report(study).second_chances == []
        assert requeue(study, 1000) == closest
        assert [chance.first for chance in report(study).second_chances] == closest

    def test_its_decisions_are_not_ours(self, tmp_path: Path) -> None:
        """Of the same name in another storage, and of the same ledger."""
        setting = f"sqlite:///{tmp_path}/l.db"
        studies = [optuna.create_study(study_name="s", direction="maximize") for _ in range(2)]
        days = (datetime(2026, 1, 1), datetime(2026, 1, 2))
        for study, day, ends in zip(studies, days, ([0.3, 0.31], [0.32, 0.33]), strict=True):
            study.add_trials(good_trials())
            study.pruner = LearningCurvePruner(N_STEPS, ledger=setting)
            for end in ends:
                trial = begun_at(day, study, {"end": end}, {"end": FloatDistribution(*ENDS)})
                with pytest.raises(optuna.TrialPruned):
                    objective(trial)
                study.tell(trial, state=TrialState.PRUNED)
        for study in studies:
            again = requeue(study, 1000, ledger=setting)
            assert sorted(again) == [5, 6]
            trials = study.get_trials()
            assert [trial.system_attrs["fixed_params"] for trial in trials[7:]] == [
                trials[number].params for number in again
            ]

    def test_a_copy_keeps_its_second_chances(self, study: optuna.Study, tmp_path: Path) -> None:
        closest = [call.trial for call in calls(study)]
        requeue(study, 2)
        study.optimize(objective, n_trials=1)
        target = sqlite(f"sqlite:///{tmp_path}/copy.db")
        optuna.copy_study(
            from_study_name=study.study_name, from_storage=study._storage, to_storage=target
        )
        copy = optuna.load_study(study_name=study.study_name, storage=target)
        ledger = f"sqlite:///{tmp_path}/study.db.lcpruner"
        assert requeue(copy, 2, ledger=ledger) == closest[2:4]

    def test_without_what_was_enqueued_its_parameters_tell(self, study: optuna.Study) -> None:
        """Optuna notes what was enqueued; a trial made by hand has its parameters alone."""
        first, second, *_ = (call.trial for call in calls(study))
        for number, params in ((first, study.trials[first].params), (second, {"end": 0.5})):
            study.add_trial(
                create_trial(
                    params=params,
                    distributions=study.trials[first].distributions,
                    user_attrs={ATTRIBUTE: number},
                    value=0.5,
                )
            )
        assert requeue(study, 1) == [second]

    @pytest.mark.parametrize(
        ("params", "given", "same"),
        [
            ({"x": 1.0, "c": "a"}, {"c": "a", "x": 1.0}, True),
            ({"x": 1.0, "c": "a"}, {"x": 1.0, "c": "b"}, False),
            ({"x": 1.0}, {"y": 1.0}, False),
            ({"x": 1.0}, {}, False),
            ({"x": float("nan")}, {"x": float("nan")}, True),
            ({"x": float("nan")}, {"x": 1.0}, False),
            ({"x": 1.0}, {"x": 1.0, "asked for later": 2}, True),
        ],
    )
    def test_parameters_that_agree(
        self, params: dict[str, Any], given: dict[str, Any], same: bool
    ) -> None:
        pruned, again = create_trial(value=0.5), create_trial(value=0.5)
        pruned.params, pruned.number = params, 0
        again.system_attrs = {"fixed_params": given}
        again.user_attrs, again.number = {ATTRIBUTE: 0}, 1
        assert second_chance_of(again, [pruned, again]) == (0 if same else None)

    @pytest.mark.parametrize("number", [None, -1, 1, 2, 99, "0", 0.0])
    def test_numbers_of_no_earlier_trial(self, number: Any) -> None:
        trials = [create_trial(value=0.5) for _ in range(2)]
        trials[1].user_attrs, trials[1].number = {ATTRIBUTE: number}, 1
        assert second_chance_of(trials[1], trials) is None


class TestItSaysWhy:
    def test_as_many_as_asked_for(self, study: optuna.Study, logged: Logged) -> None:
        requeue(study, 2)
        assert logged() == []

    def test_fewer(self, study: optuna.Study, logged: Logged) -> None:
        n = len(calls(study))
        assert len(requeue(study, 1000)) == n
        assert logged() == [
            ("INFO", f"requeue: {n} of 1000 enqueued: {n} trials pruned by forecast.")
        ]

    def test_fewer_are_left(self, study: optuna.Study, logged: Logged) -> None:
        n = len(calls(study))
        requeue(study, 2)
        assert len(requeue(study, 1000)) == n - 2
        assert logged() == [
            (
                "INFO",
                f"requeue: {n - 2} of 1000 enqueued: {n} trials pruned by forecast, 2 second "
                "chances given before.",
            )
        ]

    def test_all_have_had_theirs(self, study: optuna.Study, logged: Logged) -> None:
        n = len(requeue(study, 1000))
        logged()
        assert requeue(study, 1) == []
        assert logged() == [
            (
                "WARNING",
                f"requeue: nothing enqueued: {n} trials pruned by forecast, each given its second "
                "chance before.",
            )
        ]

    def test_none_was_pruned(self, tmp_path: Path, logged: Logged) -> None:
        storage = sqlite(f"sqlite:///{tmp_path}/study.db")
        study = make_study(storage=storage, pruner=LearningCurvePruner(N_STEPS))
        study.optimize(objective, n_trials=1)
        assert requeue(study, 1) == []
        assert logged() == [
            ("WARNING", "requeue: nothing enqueued: no trial was pruned by forecast.")
        ]

    def test_nothing_is_on_record(self, study: optuna.Study, logged: Logged) -> None:
        optuna.copy_study(
            from_study_name=study.study_name, from_storage=study._storage,
            to_storage=study._storage, to_study_name="copy",
        )  # fmt: skip
        calls(study)  # what waits in this process is written first
        copy = optuna.load_study(study_name="copy", storage=study._storage)
        logged()
        assert requeue(copy, 1) == []
        ((level, line),) = logged()
        assert level == "WARNING"
        assert line.startswith("requeue: nothing enqueued: no decision about study 'copy' is on ")
        assert "study.db.lcpruner (a copied study or a moved database leaves its" in line

    def test_of_some_nothing_is_on_record(
        self, study: optuna.Study, tmp_path: Path, logged: Logged
    ) -> None:
        """Trials of another study, after which this one goes on with a ledger of its own."""
        storage = sqlite(f"sqlite:///{tmp_path}/later.db")
        later = make_study(study.get_trials(), storage=storage, pruner=LearningCurvePruner(N_STEPS))
        later.enqueue_trial({"end": 0.9})
        later.optimize(objective, n_trials=1)
        n = sum(trial.state == TrialState.PRUNED for trial in study.get_trials())
        logged()
        assert requeue(later, 1) == []
        ((_, line),) = logged()
        assert line == (
            "requeue: nothing enqueued: no trial was pruned by forecast; no decision about "
            f"{n} pruned trials is on record in sqlite:///{tmp_path}/later.db.lcpruner (a copied "
            "study or a moved database leaves its ledger behind)."
        )
