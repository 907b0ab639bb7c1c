"""What people do with a pruner that nobody had thought of: it may be unsure, never wrongly sure.

Each class is a kind of use, with neighbours of the input that it was first seen with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import optuna
import pytest
from helpers import SAYS_CONSTRAINTS, constrained, finished, reports, sqlite
from numpy.typing import ArrayLike, NDArray
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner, PruneIfAny, explain, report
from optuna_lcpruner.decision.decision import Reason

Array = NDArray[np.float64]


def curve(end: float, n: int = 20, start: float = 1.0, rate: float = 0.75) -> Array:
    """An exponential approach to ``end``, smaller is better, shape (n,)."""
    return end + (start - end) * rate ** np.arange(n)


def study_with(pruner: BasePruner, *curves: ArrayLike, storage: BaseStorage | None = None) -> Study:
    """A study that minimises, with completed trainings that nobody pruned."""
    study = optuna.create_study(
        study_name="s", pruner=pruner, sampler=optuna.samplers.RandomSampler(0), storage=storage
    )
    for values in curves:
        study.add_trial(finished(reports(values)))
    return study


def train(
    study: Study,
    values: Iterable[float],
    *,
    steps: Sequence[int] | None = None,
    value: float | None = None,
    returns_if_stopped: bool = False,
) -> int | None:
    """Train until it is told to stop: after so many reports; None if it is not."""
    trial = study.ask()
    shown = list(reports(np.asarray(list(values)), steps).items())
    for n, (step, reported) in enumerate(shown, 1):
        trial.report(reported, step)
        if trial.should_prune():
            if returns_if_stopped:
                study.tell(trial, reported)
            else:
                study.tell(trial, state=TrialState.PRUNED)
            return n
    study.tell(trial, shown[-1][1] if value is None else value)
    return None


def reason(study: Study) -> str:
    """The newest trial's reason."""
    return str(study.trials[-1].user_attrs["lcpruner_reason"])


def said(study: Study) -> str:
    """The reasons of all decisions about the newest trial, from the ledger."""
    return "\n".join(d.message for d in explain(study, study.trials[-1].number).decisions)


class TestValuesWithoutACurve:
    @pytest.mark.parametrize(
        ("n", "n_reports", "start", "rate"),
        [  # each value of each with each of the others
            (3, 0, 2.3, 0.85),
            (10, 1, 2.3, 0.85),
            (3, 1, 2.3, 0.5),
            (10, 0, 2.3, 0.5),
            (3, 0, 0.9, 0.9),
            (10, 1, 0.9, 0.9),
        ],
    )
    def test_are_to_beat_and_nothing_else(
        self, n: int, n_reports: int, start: float, rate: float
    ) -> None:
        study = study_with(LearningCurvePruner(n_steps=40))
        for value in np.linspace(0.35, 0.42, n):
            study.add_trial(finished(reports([value] * n_reports), value))
        for end in (0.2, 0.05):
            assert train(study, curve(end, 40, start, rate)) is None
            assert reason(study).startswith("startup: ")
        assert study.best_value < 0.35

    def test_say_why_nothing_is_pruned(self) -> None:
        study = study_with(LearningCurvePruner(n_steps=40))
        for value in (0.35, 0.38, 0.42):
            study.add_trial(finished({}, value))
        train(study, curve(0.05, 40, 2.3))
        assert reason(study) == (
            "startup: 0 of n_startup_trials=3 completed with a curve, 3 without"
        )

    def test_still_are_the_best_value(self) -> None:
        study = study_with(LearningCurvePruner(n_steps=20), curve(0.5), curve(0.45), curve(0.4))
        study.add_trial(finished({}, 0.1))
        assert train(study, curve(0.3)) is not None
        assert "against best 0.1" in reason(study)

    @pytest.mark.parametrize("n", [3, 6, 15])
    def test_the_best_of_them_is_no_verdict_on_curves(self, n: int) -> None:
        """That no curve got to a value without one says nothing of curves."""
        curves = [curve(e) for e in np.linspace(0.35, 0.5, n)]
        study = study_with(LearningCurvePruner(n_steps=20), *curves)
        study.add_trial(finished({}, 0.2))
        assert train(study, curve(0.1)) is None
        assert train(study, curve(0.9)) is not None


class TestAnotherKindOfCurve:
    @pytest.mark.parametrize(
        ("n", "start", "end", "rate"),
        [
            (3, 0.9, 0.05, 0.75),
            (12, 0.9, 0.05, 0.75),
            (5, 1.0, 0.05, 0.8),
            (12, 1.0, 0.05, 0.8),
            (3, 0.5, 0.08, 0.75),
            (5, 0.5, 0.08, 0.75),
            (3, 2.3, 0.02, 0.7),
            (12, 2.3, 0.02, 0.7),
        ],
    )
    def test_from_scratch_after_fine_tuned_ones(
        self, n: int, start: float, end: float, rate: float
    ) -> None:
        """What starts near the end teaches little about what starts far away, for a while."""
        fine_tuned = [curve(e, 20, 0.2) for e in np.linspace(0.10, 0.14, n)]
        study = study_with(LearningCurvePruner(n_steps=20), *fine_tuned)
        stopped = train(study, curve(end, 20, start, rate))
        assert stopped is None or stopped > 8

    @pytest.mark.parametrize("n", [15, 40, 60])
    def test_however_many_there_are(self, n: int) -> None:
        fine_tuned = [curve(e, 20, 0.2) for e in np.linspace(0.10, 0.14, n)]
        study = study_with(LearningCurvePruner(n_steps=20), *fine_tuned)
        assert train(study, curve(0.03)) is None

    def test_one_from_scratch_does_not_speak_for_all(self) -> None:
        fine_tuned = [curve(e, 20, 0.2) for e in np.linspace(0.10, 0.14, 10)]
        study = study_with(LearningCurvePruner(n_steps=20), *fine_tuned, curve(0.2))
        assert train(study, curve(0.03)) is None

    def test_is_said_in_the_reason(self) -> None:
        fine_tuned = [curve(e, 20, 0.2) for e in (0.10, 0.11, 0.12, 0.13, 0.14)]
        study = study_with(LearningCurvePruner(n_steps=20), *fine_tuned)
        trial = study.ask()
        for step, value in enumerate(curve(0.05, 20, 2.3)[:3]):
            trial.report(value, step)
        found = study.pruner.decide(study, study.trials[-1])  # type: ignore[attr-defined]
        assert not found.prune
        assert found.in_full.endswith("unlike the completed trials, which therefore say little")

    def test_a_hopeless_one_of_the_same_kind_is_still_stopped(self) -> None:
        alike = [curve(e, 20, 1.0) for e in (0.10, 0.11, 0.12, 0.13, 0.14)]
        assert train(study_with(LearningCurvePruner(n_steps=20), *alike), curve(0.9)) is not None


class TestConstraints:
    @pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
    def test_the_best_is_the_best_feasible_one(self, how: str) -> None:
        study = study_with(LearningCurvePruner(n_steps=20))
        for end, value in ((0.5, -1.0), (0.45, 0.0), (0.10, 1.0), (0.12, 1.0)):
            study.add_trial(constrained(finished(reports(curve(end))), value, how=how))
        assert train(study, curve(0.30)) is None
        assert "against best 0.4523" in reason(study)
        assert reason(study).startswith(Reason.ALREADY_BETTER.value)

    @pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
    def test_none_feasible(self, how: str) -> None:
        study = study_with(LearningCurvePruner(n_steps=20))
        for end in (0.10, 0.12, 0.15, 0.2):
            study.add_trial(constrained(finished(reports(curve(end))), -1.0, 0.5, how=how))
        assert train(study, curve(0.5)) is None
        assert reason(study) == (
            "waiting for a best value: none of 4 completed trials keeps the constraints"
        )

    def test_infeasible_ones_teach_what_curves_look_like(self) -> None:
        study = study_with(LearningCurvePruner(n_steps=20), curve(0.3))
        for end in (0.35, 0.4):
            study.add_trial(constrained(finished(reports(curve(end))), 1.0))
        assert train(study, curve(0.9)) is not None
        decision = study.pruner.decide(study, study.get_trials()[-1])  # type: ignore[attr-defined]
        assert decision.in_full.endswith("base rate 0.500")  # but only one is to beat

    @pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
    @pytest.mark.parametrize("wanted", [False, True])
    def test_a_running_trial_that_breaks_one(self, how: str, wanted: bool) -> None:
        pruner = LearningCurvePruner(n_steps=20, prune_infeasible=wanted)
        study = study_with(pruner)
        trial = study.ask()
        trial.report(1.0, 0)
        assert not trial.should_prune()
        frozen = constrained(study.trials[-1], 0.5, how=how)
        study._storage.set_trial_system_attr(
            trial._trial_id, *next(i for i in frozen.system_attrs.items() if "constr" in i[0])
        )
        trial.report(0.9, 1)
        assert trial.should_prune() is wanted


class TestAHorizonFarBeyondTheTrainings:
    @pytest.mark.parametrize("n_steps", [50, 2200, 2400, 100_000])
    def test_knots_lie_where_trainings_are(self, n_steps: int, warned: list[str]) -> None:
        pruner = LearningCurvePruner(n_steps=n_steps)
        study = study_with(pruner, curve(0.5), curve(0.45), curve(0.4))
        assert train(study, curve(0.2)) is None
        assert train(study, curve(0.9)) is not None
        assert [m for m in warned if "in the unit of your steps?" in m] == warned
        assert len(warned) == 1

    def test_boosting_with_early_stopping(self) -> None:
        rounds = [np.r_[curve(e, 50, 1, 0.9), [curve(e, 50, 1, 0.9)[-1] + 0.001] * 10]
                  for e in (0.5, 0.45, 0.4)]  # fmt: skip
        study = study_with(LearningCurvePruner(n_steps=10_000), *rounds)
        assert train(study, curve(0.2, 60, 1, 0.9)) is None
        longer = np.r_[curve(0.2, 60, 1, 0.9), np.linspace(0.2, 0.1, 100)]
        assert train(study, longer) is None


class TestStoppedButReturnedItsValue:
    @pytest.mark.parametrize(
        ("storage", "publish", "combined"),
        [  # each value of each with each of the others
            (None, True, False),
            (None, False, True),
            ("sqlite", True, True),
            pytest.param("sqlite", False, False, marks=pytest.mark.slow),
        ],
    )
    def test_is_no_full_training(
        self,
        storage: str | None,
        publish: bool,
        combined: bool,
        warned: list[str],
        tmp_path: object,
    ) -> None:
        where = None if storage is None else sqlite(f"sqlite:///{tmp_path}/study.db")
        ours = LearningCurvePruner(n_steps=20, publish=publish, ledger=False)
        pruner = PruneIfAny([ours]) if combined else ours
        study = study_with(pruner, curve(0.5), curve(0.45), curve(0.4), storage=where)
        n = 0
        for u in np.random.default_rng(0).random(6):
            n += train(study, curve(0.6 + 0.3 * u), returns_if_stopped=True) is not None
        assert n >= 5
        assert train(study, curve(0.25, rate=0.85)) is None
        assert [m for m in warned if "was told to stop returned a value" in m] == warned
        assert len(warned) == 1


class TestALongerTrainingThanBefore:
    @pytest.mark.parametrize(
        ("n", "longer", "start", "rate"),
        [(10, 50, 2.0, 0.95), (10, 40, 2.0, 0.93), (8, 30, 1.0, 0.9), (20, 100, 2.0, 0.97)],
    )
    def test_what_lies_beyond_is_unknown(
        self, n: int, longer: int, start: float, rate: float, warned: list[str]
    ) -> None:
        shorter = [curve(e, n, start, rate) for e in np.linspace(0.3, 0.6, 10)]
        study = study_with(LearningCurvePruner(n_steps=longer), *shorter)
        assert train(study, curve(0.6, longer, start, rate)) is None
        assert len(warned) == 1
        assert "is longer than any training that has completed" in warned[0]

    @pytest.mark.parametrize(
        ("n", "noise"),
        [
            (10, 0.01),
            (40, 0.03),
            (40, 0.05),
            (10, 0.1),
            *(
                pytest.param(n, noise, marks=pytest.mark.slow)
                for n, noise in ((40, 0.01), (10, 0.03), (10, 0.05), (40, 0.1))
            ),
        ],
    )
    def test_nor_does_noise_hide_it(self, n: int, noise: float) -> None:
        for seed in range(3):
            rng = np.random.default_rng(seed)
            shorter = [
                curve(e, 10, 2, 0.95) + noise * rng.normal(size=10)
                for e in rng.uniform(0.3, 0.6, n)
            ]
            study = study_with(LearningCurvePruner(n_steps=50), *shorter)
            assert train(study, curve(0.35, 50, 2, 0.95) + noise * rng.normal(size=50)) is None

    def test_three_of_the_new_length_teach_again(self) -> None:
        shorter = [curve(e, 10, 2, 0.95) for e in np.linspace(0.3, 0.6, 10)]
        longer = [curve(e, 50, 2, 0.95) for e in (0.4, 0.5, 0.6)]
        study = study_with(LearningCurvePruner(n_steps=50), *shorter, *longer)
        assert train(study, curve(1.6, 50, 2, 0.95)) is not None


class TestTheUnitOfSteps:
    def test_steps_in_another_unit_than_n_steps(self, warned: list[str]) -> None:
        study = study_with(LearningCurvePruner(n_steps=20))
        steps = list(range(500, 10_001, 500))
        for end in (0.5, 0.45, 0.4, 0.9):
            assert train(study, curve(end), steps=steps) is None
        assert len(warned) == 1
        assert "well beyond n_steps=20: is it in the unit of your steps?" in warned[0]
        assert reason(study).startswith("longer than a full training: step 1000 is beyond")

    @pytest.mark.parametrize("n_steps", [20, None])
    def test_a_counter_that_goes_on(self, n_steps: int | None, warned: list[str]) -> None:
        study = study_with(LearningCurvePruner(n_steps=n_steps))
        for i, end in enumerate((0.5, 0.45, 0.4, 0.9, 0.95)):
            assert train(study, curve(end), steps=range(20 * i, 20 * i + 20)) is None
        assert len(warned) == 1
        assert "does the step counter begin anew with each trial?" in warned[0]
        assert reason(study).startswith("step counter goes on from trial to trial")

    def test_a_counter_that_went_on_for_a_while(self) -> None:
        study = study_with(LearningCurvePruner(n_steps=200))
        for i in range(5):
            study.add_trial(finished(reports(curve(0.5 - 0.02 * i), range(20 * i, 20 * i + 20))))
        assert train(study, curve(0.2), steps=range(100, 120)) is None

    def test_after_trials_that_counted_down(self) -> None:
        study = study_with(LearningCurvePruner(n_steps=20))
        for end in (0.5, 0.45, 0.4, 0.42):
            train(study, curve(end), steps=range(19, -1, -1))
        assert train(study, curve(0.2)) is None
        assert reason(study).startswith("startup: 0 of n_startup_trials=3 completed with a curve")

    def test_counting_down(self, warned: list[str]) -> None:
        study = study_with(LearningCurvePruner(n_steps=20))
        for end in (0.5, 0.45, 0.4, 0.9, 0.95, 0.99):
            assert train(study, curve(end), steps=range(19, -1, -1)) is None
        assert len(warned) == 1
        assert warned[0].startswith("LearningCurvePruner: steps count down (19, 18, 17, ...)")
        assert reason(study).startswith("steps count down: from 19 to 1")

    def test_two_reports_in_the_wrong_order_are_no_countdown(self) -> None:
        study = study_with(LearningCurvePruner(n_steps=20), curve(0.3), curve(0.35), curve(0.4))
        assert train(study, curve(0.95)[[1, 0, 2, 3, 4, 5, 6]], steps=[1, 0, 2, 3, 4, 5, 6])


class TestTheDirection:
    @staticmethod
    def overfitting(q: float) -> Array:
        return q + 0.03 * np.arange(12)

    @pytest.mark.parametrize("target", ["auto", "best"])
    def test_the_best_report_may_be_the_first(self, target: str, warned: list[str]) -> None:
        study = study_with(LearningCurvePruner(n_steps=12, target=target))
        stopped = [
            train(study, self.overfitting(q), value=q)
            for q in np.random.default_rng(1).uniform(0.2, 0.8, 20)
        ]
        assert not warned
        assert sum(n is not None for n in stopped) > 5

    def test_it_can_be_overruled(self, warned: list[str]) -> None:
        study = study_with(LearningCurvePruner(n_steps=12, check_metric=False))
        for q in (0.3, 0.35, 0.4, 0.45, 0.5):
            study.add_trial(finished(reports(self.overfitting(q))))
        assert train(study, self.overfitting(0.9)) is not None
        assert not warned

    def test_the_warning_names_the_causes(self, warned: list[str]) -> None:
        study = study_with(LearningCurvePruner(n_steps=12))
        for q in (0.3, 0.35, 0.4, 0.45, 0.5):
            study.add_trial(finished(reports(self.overfitting(q))))
        assert train(study, self.overfitting(0.9)) is None
        for cause in ("is the direction wrong", "running mean", "overfit", "check_metric=False"):
            assert cause in warned[0]


class TestOneThatWillBeTheBest:
    ENDS = (0.5, 0.45, 0.4, 0.35, 0.3)

    def test_survives_one_report_that_is_far_off(self) -> None:
        losses = curve(0.28)
        losses[8] = 0.9
        study = study_with(LearningCurvePruner(20), *map(curve, self.ENDS))
        assert train(study, losses) is None
        assert study.best_trial == study.trials[-1]

    def test_is_not_stopped_before_a_drop_that_the_others_went_through(self) -> None:
        """It is no better than they are before it."""
        before = np.where(np.arange(20) < 14, 0.2, 0.0)
        study = study_with(LearningCurvePruner(20), *(curve(end) + before for end in self.ENDS))
        assert train(study, curve(0.29) + before) is None
        assert study.best_trial == study.trials[-1]


class TestScale:
    @staticmethod
    def search(change: Callable[[Array], Array], n: int = 20) -> tuple[int, int]:
        """Trials pruned and reports made of a search over curves of a changed metric."""
        study, rng = study_with(LearningCurvePruner(n_steps=20)), np.random.default_rng(2)
        pruned = sum(train(study, change(curve(rng.uniform(0.3, 0.9)))) is not None
                     for _ in range(n))  # fmt: skip
        return pruned, sum(len(trial.intermediate_values) for trial in study.trials)

    @staticmethod
    @cache
    def pruned_as_it_is() -> int:
        """Trials pruned of a search over the curves themselves."""
        return TestScale.search(lambda c: c)[0]

    @pytest.mark.parametrize(
        "factor", [30.0, *(pytest.param(f, marks=pytest.mark.slow) for f in (1e3, 1e6, 1e12))]
    )
    def test_a_huge_first_report(self, factor: float) -> None:
        pruned = self.pruned_as_it_is()
        with_transient, made = self.search(lambda c: np.r_[c[0] * factor, c[1:]])
        assert with_transient >= 0.8 * pruned
        assert made < 216  # 60 of the first three, 46 % of what the others could

    @pytest.mark.parametrize(
        ("n", "factor"),
        [
            (3, 1e3),
            *(
                pytest.param(n, factor, marks=pytest.mark.slow)
                for n, factor in ((2, 30.0), (3, 30.0), (2, 1e3), (2, 1e6), (3, 1e6))
            ),
        ],
    )
    def test_several_transients_do_not_stop_the_best(self, n: int, factor: float) -> None:
        rng = np.random.default_rng(4)
        study, best = study_with(LearningCurvePruner(n_steps=50)), np.inf
        lost = stopped = 0
        for end in rng.uniform(0.3, 0.9, 20):
            values = np.r_[np.full(n, factor), curve(end, 50 - n, 1.0, 0.9)]
            was_stopped = train(study, values) is not None
            stopped += was_stopped
            lost += was_stopped and values[-1] < best
            best = min(best, study.best_value)
        assert lost == 0
        assert stopped > 7

    @pytest.mark.parametrize("n", [50, 100, pytest.param(200, marks=pytest.mark.slow)])
    def test_nor_does_a_long_perplexity(self, n: int) -> None:
        losses = [curve(e, n, 10.8, 1 - 6 / n) for e in np.linspace(3.1, 5, 5)]
        study = study_with(LearningCurvePruner(n_steps=n), *np.exp(losses))
        assert train(study, np.exp(curve(2.7, n, 10.8, 1 - 6 / n))) is None

    @pytest.mark.parametrize(
        ("low", "high", "start"),
        [(4.0, 7.0, 9.0), pytest.param(3.0, 6.0, 10.8, marks=pytest.mark.slow)],
    )
    def test_a_metric_and_its_logarithm(self, low: float, high: float, start: float) -> None:
        def loss(c: Array) -> Array:
            return (
                low
                + (high - low) * (c - 0.3) / 0.6
                + (start - high) * (c[0] > 0.9) * ((c - c[-1]) / (c[0] - c[-1]))
            )

        _, in_log = self.search(loss)
        _, in_perplexity = self.search(lambda c: np.exp(loss(c)))
        assert 400 - in_perplexity >= 0.8 * (400 - in_log)


class TestSelfCheck:
    """The best of the study rose late, so that the rule would have stopped it."""

    @staticmethod
    def rising(end: float, late: float = 0.0) -> Array:
        """From -21 towards an end; by ``late`` more from the twentieth report on."""
        t = np.arange(50)
        early = -21 + (end + 21) * (1 - np.exp(-t / 12))
        return early + late * (1 - np.exp(-np.maximum(t - 20, 0) / 5))

    def study(self, tmp_path: object, *curves: Array) -> Study:
        study = optuna.create_study(
            study_name="s",
            direction="maximize",
            pruner=LearningCurvePruner(n_steps=50, ledger=f"sqlite:///{tmp_path}/l.db"),
        )
        for values in curves:
            study.add_trial(finished(reports(values)))
        return study

    def test_the_rule_becomes_more_careful_and_says_so(self, tmp_path: object) -> None:
        others = [self.rising(end) for end in (-13, -12, -12.5, -11.5, -19, -19.5)]
        study = self.study(tmp_path, *others, self.rising(-19, 14))
        train(study, self.rising(-15))
        assert "threshold lowered to 0.0" in said(study)
        assert "since the study's best trial would have been stopped at report" in said(study)
        assert "Self-check: " in str(report(study))
        decisions = explain(study, study.trials[-1].number).decisions
        assert {d.caution is None or 0.05 <= d.caution < 1.0 for d in decisions} == {True}

    @pytest.mark.parametrize(
        "shift",
        [
            pytest.param(shift, marks=[pytest.mark.slow] if i % 6 else [])
            for i, shift in enumerate(np.linspace(0.0, 3.9, 14))
        ],
    )
    def test_wherever_the_metric_lies(self, shift: float, tmp_path: object) -> None:
        """As the sum of where it starts and how far it came the best value is not the same."""
        others = [self.rising(end) + shift for end in (-13, -12, -12.5, -11.5, -19, -19.5)]
        study = self.study(tmp_path, *others, self.rising(-19, 14) + shift)
        train(study, self.rising(-15) + shift)
        assert "lowered" in said(study)

    def test_not_where_the_best_looked_like_it(self, tmp_path: object) -> None:
        study = self.study(tmp_path, *[self.rising(end) for end in (-13, -12, -11, -10, -5)])
        train(study, self.rising(-19))
        assert "lowered" not in said(study)
        assert "Self-check" not in str(report(study))

    def test_a_fixed_threshold_stays(self, tmp_path: object) -> None:
        others = [self.rising(end) for end in (-13, -12, -12.5, -11.5, -19, -19.5)]
        study = self.study(tmp_path, *others, self.rising(-19, 14))
        ledger = f"sqlite:///{tmp_path}/l.db"
        study.pruner = LearningCurvePruner(n_steps=50, threshold=0.05, ledger=ledger)
        train(study, self.rising(-15))
        assert "lowered" not in said(study)
