"""Pruners that decide together: what becomes of the trial, and who is said to have decided."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from forecasting import Watching
from helpers import (
    BAD,
    N_STEPS,
    good_study,
    good_trials,
    make_study,
    reports,
    saturating,
)
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from several import Says, on_record, ours, train

from optuna_lcpruner import (
    PruneIfAll,
    PruneIfAny,
    Reason,
    RemotePruner,
    explain,
    report,
)
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.visualization.charts import decisions_chart

GOOD = saturating(0.95)
"""Better than the best: it is never stopped by forecast."""

pytestmark = pytest.mark.filterwarnings("ignore:PatientPruner is experimental")


class Broken(BasePruner):
    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        raise OSError("cannot reach postgresql://me:secret@db/studies")


@pytest.fixture
def studies(tmp_path: Path) -> Callable[[BasePruner], Study]:
    """Makes studies with five completed trials and a ledger beside them."""
    files = count()
    return lambda pruner: good_study(f"sqlite:///{tmp_path}/{next(files)}.db", pruner)


TRUE, FALSE = Says(True), Says(False)


@pytest.mark.parametrize(
    ("pruner", "stops_bad", "stops_good"),
    [
        (PruneIfAny([ours(), FALSE]), True, False),
        (PruneIfAny([ours(), TRUE]), True, True),
        (PruneIfAny([FALSE, FALSE]), False, False),
        (PruneIfAny([ours()]), True, False),
        (PruneIfAll([ours(), FALSE]), False, False),
        (PruneIfAll([ours(), TRUE]), True, False),
        (PruneIfAll([TRUE, TRUE]), True, True),
        (PruneIfAll([ours()]), True, False),
        (PruneIfAny([PruneIfAll([ours(), FALSE]), FALSE]), False, False),
        (PruneIfAny([PruneIfAll([ours(), TRUE]), FALSE]), True, False),
        (PruneIfAll([PruneIfAny([ours(), TRUE]), TRUE]), True, True),
    ],
)
def test_what_is_stopped(pruner: BasePruner, stops_bad: bool, stops_good: bool) -> None:
    study = make_study(good_trials(), pruner=pruner)
    assert (train(study, BAD).state == TrialState.PRUNED) is stops_bad
    assert (train(study, GOOD).state == TrialState.PRUNED) is stops_good


@pytest.mark.parametrize("kind", [PruneIfAny, PruneIfAll])
def test_all_are_asked_at_each_check(kind: type[PruneIfAny]) -> None:
    pruners = [Says(answer) for answer in (True, False, True)]
    study = make_study(good_trials())
    trial = study.ask()
    trial.report(0.1, 0)
    answer = kind(pruners).prune(study, study.get_trials()[-1])
    assert type(answer) is bool
    assert [pruner.n_asked for pruner in pruners] == [1, 1, 1]


def test_halving_keeps_its_rungs_although_another_would_do() -> None:
    """Later trials are compared with what a trial had at its rungs."""
    halving = SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study = make_study(pruner=PruneIfAny([Says(True, since=1), halving]))
    trial = train(study, GOOD)
    assert trial.last_step == 1
    assert trial.system_attrs == {"completed_rung_0": GOOD[1]}


class TestWhoDecided:
    def test_another_pruner(
        self, studies: Callable[[BasePruner], Study], logged: list[str]
    ) -> None:
        study = studies(PruneIfAny([ours(), Says(True, since=8)]))
        trial = train(study, GOOD[:12])
        assert trial.state == TrialState.PRUNED
        said = trial.user_attrs["lcpruner_reason"]
        assert said.startswith("pruned by Says (LearningCurvePruner: ")
        assert trial.user_attrs["lcpruner_decided_at_step"] == 8
        rows = on_record(study, trial)
        assert [row.step for row in rows] == list(range(9))
        assert [row.action for row in rows] == ["continue"] * 8 + ["prune"]
        last = rows[-1]
        assert (last.reason, last.decided_by) == ("OTHER_PRUNER", "Says")
        assert said == f"pruned by Says (LearningCurvePruner: {last.message.splitlines()[0]})"
        assert last.p_beat is not None
        assert last.p_beat > 0.05
        assert last.q50 is not None
        assert f"Trial {trial.number}: {said}" in logged
        words = str(explain(study, trial.number))
        story = f"Trial {trial.number} was pruned at step 8 {said[7:]}."
        assert " ".join(words.split()).startswith(story)
        assert "pruned by another pruner" in words.splitlines()[-1]

    def test_ours(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAny([ours(), FALSE]))
        trial = train(study, BAD)
        said = trial.user_attrs["lcpruner_reason"]
        assert said.startswith("pruned by LearningCurvePruner: P = ")
        last = on_record(study, trial)[-1]
        assert (last.reason, last.action) == ("BELOW_THRESHOLD", "prune")
        assert last.decided_by == "LearningCurvePruner"
        ours_said = last.message.splitlines()[0].removeprefix("pruned: ")
        assert said == f"pruned by LearningCurvePruner: {ours_said}"
        assert explain(study, trial.number).summary.startswith(
            f"Trial {trial.number} was pruned at step {last.step} by LearningCurvePruner, look "
        )

    def test_ours_of_a_trial_that_diverges(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAny([ours(), FALSE]))
        trial = train(study, [0.1, math.nan])
        said = "pruned by LearningCurvePruner: diverged: nan reported at step 1"
        assert trial.user_attrs["lcpruner_reason"] == said
        on_record(study, trial)
        assert explain(study, trial.number).summary == (
            f"Trial {trial.number} was pruned at step 1 by LearningCurvePruner, look 2: "
            "nan reported at step 1."
        )

    def test_both_of_a_trial_that_diverges(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAll([ours(), ThresholdPruner(lower=0.0)]))
        trial = train(study, [0.1, math.nan])
        on_record(study, trial)
        assert explain(study, trial.number).summary == (
            f"Trial {trial.number} was pruned at step 1 by LearningCurvePruner and "
            "ThresholdPruner, look 2: nan reported at step 1."
        )

    def test_both(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAll([ours(), Says(True, since=10)]))
        trial = train(study, BAD)
        said = trial.user_attrs["lcpruner_reason"]
        assert said.startswith(
            "pruned by LearningCurvePruner and Says (LearningCurvePruner: pruned: P = "
        )
        rows = on_record(study, trial)
        assert rows[-1].step == 10
        assert [row.action for row in rows] == ["continue"] * 10 + ["prune"]
        assert {row.reason for row in rows[5:-1]} == {"OVERRULED"}
        assert report(study).n_pruned == 1

    def test_ours_is_overruled(
        self, studies: Callable[[BasePruner], Study], logged: list[str]
    ) -> None:
        """Nobody is told of a prune that did not happen."""
        study = studies(PruneIfAll([ours(), FALSE]))
        trial = train(study, BAD[:9])
        assert trial.state == TrialState.COMPLETE
        said = trial.user_attrs["lcpruner_reason"]
        assert said.startswith(
            "overruled, runs on: not pruned by Says (LearningCurvePruner: pruned: P = "
        )
        rows = on_record(study, trial)
        assert {row.action for row in rows} == {"continue"}
        assert any(row.reason == "OVERRULED" for row in rows)
        assert not any("Trial" in message and "pruned" in message for message in logged)
        words = explain(study, trial.number).summary
        assert words.startswith(f"Trial {trial.number} ran to its end with 0.1; not pruned: ")
        assert words.endswith("but it was spared: overruled, runs on.")
        found = report(study)
        assert (found.n_pruned, found.savings.saved) == (0, 0)
        assert found.reliability  # its looks count: it showed its end

    def test_nobody(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAny([ours(), FALSE]))
        alone = studies(ours())
        trials = [train(one, GOOD[:8]) for one in (study, alone)]
        assert trials[0].user_attrs == trials[1].user_attrs
        rows = [on_record(one, trial) for one, trial in zip((study, alone), trials, strict=True)]
        assert [r.message for r in rows[0]] == [r.message for r in rows[1]]

    def test_before_ours_looks(self, studies: Callable[[BasePruner], Study]) -> None:
        """Reasons that are not shown by themselves are, with a decision in front of them."""
        study = studies(PruneIfAny([ours(n_warmup_steps=9), Says(True, since=3)]))
        trial = train(study, BAD)
        said = "pruned by Says (LearningCurvePruner: warm-up: step 3 is before n_warmup_steps=9)"
        assert trial.user_attrs["lcpruner_reason"] == said
        assert explain(study, trial.number).summary == (
            f"Trial {trial.number} was pruned at step 3 {said[7:]}."
        )

    def test_a_wrapper_that_does_not_ask_ours(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAny([PatientPruner(ours(), patience=5), Says(True, since=3)]))
        trial = train(study, BAD)
        assert trial.user_attrs["lcpruner_reason"] == "pruned by Says at step 3"
        assert trial.user_attrs["lcpruner_decided_at_step"] == 3

    def test_a_wrapper_that_asks_ours(self, studies: Callable[[BasePruner], Study]) -> None:
        """Ours cannot know that the one around its wrapper decides otherwise; it is not told."""
        study = studies(PruneIfAll([PatientPruner(ours(), patience=3), FALSE]))
        trial = train(study, np.linspace(0.1, 0.05, N_STEPS)[:9])
        assert trial.state == TrialState.COMPLETE
        assert trial.user_attrs["lcpruner_reason"].startswith("overruled, runs on: not pruned by S")
        assert {row.action for row in on_record(study, trial)} == {"continue"}

    def test_one_combination_in_another(self, studies: Callable[[BasePruner], Study]) -> None:
        inner = PruneIfAll([ours(), FALSE])
        study = studies(PruneIfAny([inner, ThresholdPruner(lower=0.09)]))
        trial = train(study, [*BAD[:9], 0.08])
        said = trial.user_attrs["lcpruner_reason"]
        assert said.startswith("pruned by ThresholdPruner (LearningCurvePruner: pruned: P = ")
        rows = on_record(study, trial)
        assert [row.action for row in rows] == ["continue"] * 9 + ["prune"]
        assert rows[-2].reason == "OVERRULED"
        by = "PruneIfAll(LearningCurvePruner, Says) and ThresholdPruner"
        assert rows[-2].decided_by == by

    def test_no_pruner_of_ours(self) -> None:
        pruner = PruneIfAll([ThresholdPruner(upper=1.0), MedianPruner(n_startup_trials=1)])
        study = make_study(good_trials(), pruner=pruner, direction="minimize")
        trial = train(study, [0.5, 2.0])
        said = "pruned by ThresholdPruner and MedianPruner at step 1"
        assert trial.user_attrs["lcpruner_reason"] == said

    def test_not_published_unless_wanted(self) -> None:
        study = make_study(good_trials(), pruner=PruneIfAny([ours(publish=False), TRUE]))
        assert train(study, GOOD).user_attrs == {}

    def test_the_same_question_again(
        self, studies: Callable[[BasePruner], Study], warned: list[str]
    ) -> None:
        """As fastai's callback asks: the same answer, nothing more on record."""
        study = studies(PruneIfAll([ours(), FALSE]))
        trial = study.ask()
        for step, value in reports(BAD[:6]).items():
            trial.report(value, step)
        assert [trial.should_prune() for _ in range(3)] == [False] * 3
        assert trial_attributes.writer().flush(10)
        frozen = study.get_trials()[-1]
        assert frozen.user_attrs["lcpruner_reason"].startswith("overruled")
        assert len(on_record(study, frozen)) == 1
        assert warned == []

    def test_ours_alone_decides_as_it_says(self, studies: Callable[[BasePruner], Study]) -> None:
        """A combination changes what is told, not what the pruner thinks."""
        pruner = ours()
        study = studies(PruneIfAll([pruner, FALSE]))
        trial = study.ask()
        for step, value in reports(BAD[:6]).items():
            trial.report(value, step)
        assert trial.should_prune() is False
        decision = pruner.decide(study, study._storage.get_trial(trial._trial_id))
        assert decision.reason is Reason.BELOW_THRESHOLD
        assert decision.message.startswith("pruned: P = ")


class TestAPrunerThatRaises:
    @pytest.mark.parametrize("kind", [PruneIfAny, PruneIfAll])
    def test_it_is_left_out_and_said_once(self, kind: type[PruneIfAny], warned: list[str]) -> None:
        study = make_study(good_trials(), pruner=kind([ours(), Broken()]))
        states = [train(study, BAD).state for _ in range(2)]
        assert states == [TrialState.PRUNED if kind is PruneIfAny else TrialState.COMPLETE] * 2
        assert warned == [
            f"{kind.__name__}: Broken raised, so it is left out: "
            "OSError('cannot reach postgresql://me:***@db/studies')"
        ]

    def test_the_reason_says_so(self) -> None:
        study = make_study(good_trials(), pruner=PruneIfAll([ours(), Broken()]))
        said = train(study, BAD).user_attrs["lcpruner_reason"]
        assert said.startswith("overruled, runs on: not pruned by Broken, which raised (Learn")

    def test_nothing_is_left_behind(self) -> None:
        """The next question, to a pruner alone, is told of as ever."""
        study = make_study(good_trials(), pruner=PruneIfAny([Broken(), ours()]))
        train(study, GOOD)
        study.pruner = ours()
        assert train(study, BAD).user_attrs["lcpruner_reason"].startswith("pruned: P = ")

    def test_ours_cannot_decide_and_another_prunes(
        self, studies: Callable[[BasePruner], Study], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any) -> Any:
            raise ValueError("no posterior")

        study = studies(PruneIfAny([ours(engine=broken), Says(True, since=3)]))
        trial = train(study, BAD)
        said = trial.user_attrs["lcpruner_reason"]
        assert said == (
            "pruned by Says (LearningCurvePruner: could not decide: ValueError('no posterior'))"
        )
        assert on_record(study, trial)[-1].action == "prune"


class TestControlGroup:
    def test_another_pruner_may_stop_a_member(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAny([ours(control_fraction=1.0), Says(True, since=8)]))
        trial = train(study, BAD)
        said = trial.user_attrs["lcpruner_reason"]
        assert said.startswith("pruned by Says (LearningCurvePruner: control group, runs on: P = ")
        on_record(study, trial)
        found = report(study)
        assert (found.n_control, found.n_pruned, found.cost.n_ended) == (1, 0, 0)


class TestRemote:
    """The forecaster decides and tells; the trainer's combination has the last word."""

    def test_the_trainer_overrules(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAll([RemotePruner(), FALSE]))
        watching = Watching(study._storage, [study.study_name])
        trial = study.ask()
        for step, value in reports(BAD[:10]).items():
            trial.report(value, step)
            watching.look(1)
            assert trial.should_prune() is False
        study.tell(trial, 0.1)
        frozen = study.get_trials()[-1]
        rows = on_record(study, frozen)
        assert {row.reason for row in rows if row.step == 9} == {"BELOW_THRESHOLD", "OVERRULED"}
        words = explain(study, frozen.number).summary
        assert words.startswith(f"Trial {frozen.number} ran to its end with 0.1; not pruned: ")
        assert report(study).n_pruned == 0

    def test_the_trainer_overrules_for_a_while(
        self, studies: Callable[[BasePruner], Study]
    ) -> None:
        """What counts is the look that stopped the trial, not an earlier one of the forecaster."""
        study = studies(PruneIfAll([RemotePruner(), Says(True, since=8)]))
        watching = Watching(study._storage, [study.study_name])
        trial = study.ask()
        stopped = False
        for step, value in reports(BAD).items():
            trial.report(value, step)
            watching.look(1)
            stopped = trial.should_prune()
            if stopped:
                break
        study.tell(trial, state=TrialState.PRUNED)
        assert stopped
        on_record(study, study.get_trials()[-1])
        assert [call.step for call in report(study).closest] == [8]
        summary = explain(study, trial.number).summary
        assert summary.startswith(f"Trial {trial.number} was pruned at step 8, look ")

    def test_the_forecasters_prune_is_on_record_once(
        self, studies: Callable[[BasePruner], Study]
    ) -> None:
        study = studies(PruneIfAny([RemotePruner(), FALSE]))
        trial = study.ask()
        for step, value in reports(BAD[:8]).items():
            trial.report(value, step)
        Watching(study._storage, [study.study_name]).look()
        assert trial.should_prune() is True
        rows = on_record(study, study.get_trials()[-1])
        assert [(row.step, row.action) for row in rows] == [(7, "prune")]

    def test_another_pruner_stops_it(self, studies: Callable[[BasePruner], Study]) -> None:
        study = studies(PruneIfAny([RemotePruner(), Says(True, since=4)]))
        trial = train(study, GOOD)
        said = "pruned by Says (LearningCurvePruner: forecast pending: no verdict yet)"
        assert trial.user_attrs["lcpruner_reason"] == said
        (row,) = on_record(study, trial)
        assert (row.action, row.decided_by) == ("prune", "Says")
        assert row.message == "forecast pending: no verdict yet"


def test_the_figure_of_decisions_names_no_wrong_comparison(
    studies: Callable[[BasePruner], Study],
) -> None:
    study = studies(PruneIfAny([ours(), Says(True, since=8)]))
    other, own = train(study, saturating(0.89)[:10]), train(study, BAD)
    on_record(study, own)
    texts = [
        text
        for layer in decisions_chart(study, None).layers
        for text in getattr(layer, "text", None) or ()
    ]
    assert len(texts) == 2
    assert texts[0].startswith(f"trial {other.number}: by another pruner, P = ")
    assert texts[1].startswith(f"trial {own.number}: ")
    assert " < 0.050" in texts[1]


class TestTheConstructor:
    @pytest.mark.parametrize(
        ("pruners", "error", "message"),
        [
            ([], ValueError, "pruners must have at least one pruner, but got none"),
            (None, TypeError, "pruners must be a list of pruners, but got None"),
            (NopPruner(), TypeError, "pruners must be a list of pruners, but got <"),
            ([NopPruner(), "median"], TypeError, "must be Optuna pruners, but one is 'median'"),
            ([NopPruner], TypeError, "must be Optuna pruners, but one is <class"),
        ],
    )
    def test_refuses(self, pruners: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            PruneIfAny(pruners)

    def test_repr(self) -> None:
        assert repr(PruneIfAny((ours(),))) == f"PruneIfAny([{ours()!r}])"

    def test_the_ledger_is_that_of_ours(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/elsewhere.db"
        pruner = PruneIfAll([FALSE, PruneIfAny([ours(ledger=url)])])
        assert pruner.ledger == url
        assert PruneIfAll([FALSE]).ledger is None
        study = make_study(good_trials(), pruner=pruner)
        trial = train(study, BAD)
        assert ledger_writer.flush(10)
        assert explain(study, trial.number).decisions

    def test_it_survives_pickle(self) -> None:
        pruner = PruneIfAny([ours(), Says(False)])
        again = pickle.loads(pickle.dumps(pruner))
        study = make_study(good_trials(), pruner=again)
        assert train(study, BAD).state == TrialState.PRUNED


def test_threads_do_not_hear_each_other() -> None:
    """Each trial's reason names what was decided about that trial."""
    study = make_study(good_trials(), pruner=PruneIfAll([ours(), Says(True, since=8)]))

    def objective(trial: Trial) -> float:
        values = BAD if trial.number % 2 else GOOD[:12]
        for step, value in reports(values).items():
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(values[-1])

    study.optimize(objective, n_trials=12, n_jobs=4)
    for trial in study.trials[5:]:
        said = trial.user_attrs["lcpruner_reason"]
        if trial.number % 2:
            assert trial.last_step == 8
            assert said.startswith("pruned by LearningCurvePruner and Says (")
        else:
            assert trial.state == TrialState.COMPLETE
            assert not said.startswith(("pruned", "overruled"))


class TestWithOptunasPruners:
    @pytest.mark.filterwarnings("ignore:WilcoxonPruner is experimental")
    @pytest.mark.parametrize("kind", [PruneIfAny, PruneIfAll])
    @pytest.mark.parametrize(
        "other",
        [
            lambda: HyperbandPruner(min_resource=1, max_resource=N_STEPS),
            lambda: MedianPruner(n_startup_trials=1),
            lambda: PatientPruner(None, patience=2),
            lambda: PercentilePruner(25.0, n_startup_trials=1),
            SuccessiveHalvingPruner,
            lambda: ThresholdPruner(lower=0.12),
            WilcoxonPruner,
        ],
        ids=["hyperband", "median", "patient", "percentile", "halving", "threshold", "wilcoxon"],
    )
    def test_it_is_asked_as_if_alone(
        self, kind: type[PruneIfAny], other: Callable[[], BasePruner], warned: list[str]
    ) -> None:
        """Beside one that never prunes, or always: it stops each trial where it does alone."""
        curves = [*map(saturating, (0.8, 0.5, 0.85, 0.2)), np.linspace(0.5, 0.2, N_STEPS)]
        beside = Says(kind is PruneIfAll)
        alone, combined = (  # Hyperband's brackets follow from the name
            optuna.create_study(study_name="s", direction="maximize", pruner=pruner)
            for pruner in (other(), kind([beside, other()]))
        )
        for curve in curves:
            mine, its = train(combined, curve), train(alone, curve)
            assert (mine.state, mine.last_step) == (its.state, its.last_step)
            assert mine.system_attrs == its.system_attrs
        assert any(trial.state == TrialState.PRUNED for trial in alone.trials)
        assert warned == []

    def test_a_threshold_beside_ours(self) -> None:
        pruner = PruneIfAny([ours(), ThresholdPruner(upper=10.0)])
        curve = 1.0 - GOOD
        study = make_study(direction="minimize", pruner=pruner)
        assert train(study, [*curve[:2], 11.0]).user_attrs["lcpruner_reason"] == (
            "pruned by ThresholdPruner (LearningCurvePruner: waiting for a best value: no "
            "completed trial yet)"
        )

    def test_a_diverged_trial_is_stopped_by_both(self) -> None:
        study = make_study(good_trials(), pruner=PruneIfAny([ours(), ThresholdPruner(lower=0.0)]))
        said = train(study, [0.1, math.nan]).user_attrs["lcpruner_reason"]
        assert said == (
            "pruned by LearningCurvePruner and ThresholdPruner (LearningCurvePruner: pruned: "
            "diverged: nan reported at step 1)"
        )

    def test_the_median_keeps_a_trial_that_ours_would_stop(self) -> None:
        pruner = PruneIfAll([ours(), MedianPruner(n_startup_trials=5, n_warmup_steps=10)])
        study = make_study(good_trials(), pruner=pruner)
        trial = train(study, BAD)
        assert trial.last_step == 10
        assert trial.user_attrs["lcpruner_reason"].startswith(
            "pruned by LearningCurvePruner and MedianPruner ("
        )
