"""Early ranks: brackets, comparisons, and the pruner while many train and few have completed."""

import math
from collections import Counter
from fractions import Fraction

import optuna
import pytest
from forecasting import Watching
from helpers import N_STEPS, constrained, good_trials, make_study, saturating, sqlite
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner, RemotePruner, explain
from optuna_lcpruner.decision.early_ranks import MANY, UNTIL, bracket_of, is_compared, rank_among
from optuna_lcpruner.records import ledger_writer


class TestBrackets:
    @pytest.mark.parametrize(
        ("horizon", "sizes"),
        [(1, [1]), (2, [1]), (3, [3, 2]), (20, [9, 5, 3]), (100, [81, 34, 15, 8, 5])],
    )
    def test_shares_are_those_of_hyperband(self, horizon, sizes):
        counts = Counter(bracket_of("s", number, horizon) for number in range(4000))
        assert sorted(counts) == list(range(len(sizes)))
        for bracket, size in enumerate(sizes):
            share = size / sum(sizes)
            error = math.sqrt(share * (1 - share) / 4000)
            assert abs(counts[bracket] / 4000 - share) <= 4 * error

    def test_a_trials_bracket_is_its_own_and_the_studys(self):
        brackets = [[bracket_of(name, number, 100) for number in range(50)] for name in "aab"]
        assert brackets[0] == brackets[1] != brackets[2]

    @pytest.mark.parametrize(
        ("bracket", "at"), [(0, [2, 4, 10, 28, 82]), (1, [4, 10, 28, 82]), (3, [28, 82])]
    )
    def test_where_trials_are_compared(self, bracket, at):
        assert [t for t in range(1, 101) if is_compared(bracket, t, t - 1)] == at

    def test_a_gap_does_not_skip_a_comparison(self):
        assert is_compared(0, 9, 3)
        assert not is_compared(0, 9, 4)
        assert is_compared(0, 50, 9)
        assert is_compared(2, 11, 8)


@pytest.mark.parametrize(
    ("value", "others", "expected"),
    [
        (1.0, [], (1, 1)),
        (1.0, [2.0], (2, 1)),
        (1.0, [1.0, 1.0], (1, 1)),
        (1.0, [0.0, 2.0, 3.0, 0.5, 0.5], (3, 2)),
        (0.0, [-math.inf, -math.inf], (1, 1)),
    ],
)
def test_ranks(value, others, expected):
    assert rank_among(value, others) == expected


def crowd(pruner, n_others=MANY + 4, direction="maximize", storage=None, completed=(), upto=6):
    """A study in which many trials run, and one of the first bracket that is worse than all."""
    study = make_study(completed, direction=direction, storage=storage, pruner=pruner)
    sign = 1 if direction == "maximize" else -1
    trials = [study.ask() for _ in range(n_others)]
    for i, trial in enumerate(trials):
        for step, value in enumerate(saturating(0.5 + 0.01 * i)[:upto]):
            trial.report(sign * value, step)
    while True:
        last = study.ask()
        if bracket_of(study.study_name, last.number, N_STEPS) == 0:
            return study, last, sign
        study.tell(last, state=TrialState.FAIL)


def others_report(study, trial, reports):
    """The other running trials make these reports."""
    for other in study.get_trials(deepcopy=False):
        if not other.state.is_finished() and other.number != trial.number:
            for step, value in reports.items():
                study._storage.set_trial_intermediate_value(other._trial_id, step, value)


def train(trial, sign, level=0.05, n=4):
    """Reports of a training that does not learn; whether and where it is stopped."""
    for step in range(n):
        trial.report(sign * level, step)
        if trial.should_prune():
            return step
    return None


def reason(study):
    return study.get_trials(deepcopy=False)[-1].user_attrs["lcpruner_reason"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_who_is_behind_the_others_is_stopped_before_any_has_completed(direction):
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS), direction=direction)
    assert train(trial, sign) == 1
    said = reason(study)
    assert said.startswith("pruned: behind the others: rank ")
    n_compared = sum(
        bracket_of(study.study_name, t.number, N_STEPS) == 0
        for t in study.trials
        if len(t.intermediate_values) > 1
    )
    kept = max(n_compared // 3, 1)
    assert f"rank {n_compared} of {n_compared}, {kept} go on at step 1" in said
    assert said.endswith("0 of 8 trainings completed")


def test_who_is_ahead_goes_on():
    _, trial, sign = crowd(LearningCurvePruner(N_STEPS))
    assert train(trial, sign, level=0.9) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"compare_running": False},
        {"risk": 0.0},
        {"threshold": 0.05},
        {"n_startup_trials": 9},
        {"n_warmup_steps": 10},
    ],
)
def test_not_where_it_is_not_wanted(settings):
    _, trial, sign = crowd(LearningCurvePruner(N_STEPS, **settings))
    assert train(trial, sign) is None


def test_not_among_few():
    _, trial, sign = crowd(LearningCurvePruner(N_STEPS), n_others=MANY - 1)
    assert train(trial, sign) is None


def test_not_without_a_known_length():
    _, trial, sign = crowd(LearningCurvePruner())
    assert train(trial, sign) is None


def test_not_after_eight_have_completed():
    completed = [*good_trials(), *good_trials()[:3]]
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS), completed=completed)
    assert len(completed) == UNTIL
    train(trial, sign)
    assert "behind" not in reason(study)


def test_a_trial_that_runs_again_is_spared():
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS))
    trial.set_user_attr("lcpruner_requeued_from", 0)
    assert train(trial, sign) is None
    assert reason(study).startswith("requeued, runs on: rank ")


def test_the_control_group_is_of_forecasts():
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS, control_fraction=1.0))
    assert train(trial, sign) == 1
    assert "lcpruner_control_since_step" not in study.get_trials()[-1].user_attrs


@pytest.mark.parametrize("check", [True, False])
def test_where_nearly_all_get_worse_ranks_say_nothing(check):
    """Who reports a loss and maximises would lose the best first."""
    pruner = LearningCurvePruner(N_STEPS, check_metric=check)
    study, trial, _ = crowd(pruner, upto=0)
    others_report(study, trial, {step: 1.0 / (step + 1) for step in range(3)})
    losses = (0.9, 0.2, 0.1)
    stopped = []
    for step, loss in enumerate(losses):
        trial.report(loss, step)
        stopped.append(trial.should_prune())
    assert any(stopped) is not check


def test_infeasible_trials_are_no_measure():
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS))
    for other in study.get_trials(deepcopy=False):
        if not other.state.is_finished() and other.number != trial.number:
            study._storage.set_trial_system_attr(other._trial_id, "constraints", [1.0])
    assert train(trial, sign) is None


def test_not_where_completed_trials_break_constraints():
    broken = constrained(good_trials()[0], 1.0)
    _, trial, sign = crowd(LearningCurvePruner(N_STEPS), completed=[broken])
    assert train(trial, sign) is None


def test_trials_of_another_length_are_no_measure():
    study, trial, sign = crowd(LearningCurvePruner())
    trial.set_user_attr("lcpruner_n_steps", N_STEPS)
    for other in study.get_trials(deepcopy=False):
        if not other.state.is_finished() and other.number != trial.number:
            study._storage.set_trial_user_attr(other._trial_id, "lcpruner_n_steps", 2 * N_STEPS)
    assert train(trial, sign) is None


def test_who_began_at_a_later_step_is_no_measure():
    pruner = LearningCurvePruner(N_STEPS, check_metric=False)
    study, trial, sign = crowd(pruner, upto=0)
    others_report(study, trial, {7: 7.0, 8: 8.0, 9: 9.0})
    assert train(trial, sign) is None


def test_a_report_to_be_ignored_does_not_count_as_the_worst():
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS, nan_policy="ignore"))
    others_report(study, trial, {6: math.nan, 7: 1.0})
    for step, value in enumerate((0.9, 0.95, math.nan)):
        trial.report(sign * value, step)
        assert not trial.should_prune()


def test_trials_that_diverge_are_behind_all():
    pruner = LearningCurvePruner(N_STEPS, nan_policy="ignore", check_metric=False)
    study, trial, sign = crowd(pruner, upto=0)
    others_report(study, trial, {0: 0.5, 1: math.nan, 2: math.nan, 3: math.nan})
    assert train(trial, sign) is None


def test_explained(tmp_path):
    study, trial, sign = crowd(
        LearningCurvePruner(N_STEPS), storage=sqlite(f"sqlite:///{tmp_path}/s.db")
    )
    assert train(trial, sign) == 1
    study.tell(trial, state=TrialState.PRUNED)
    assert ledger_writer.flush(20)
    summary = explain(study, trial.number).summary
    assert summary.startswith(f"Trial {trial.number} was pruned at step 1, look 2: rank ")
    assert Fraction(*map(int, summary.split("rank ")[1].split(",")[0].split(" of "))) == 1


def test_the_same_in_another_worker(tmp_path):
    study, trial, sign = crowd(
        LearningCurvePruner(N_STEPS), storage=sqlite(f"sqlite:///{tmp_path}/s.db")
    )
    for step in range(2):
        trial.report(sign * 0.05, step)
    seen = study.get_trials()[-1]
    decisions = [
        LearningCurvePruner(N_STEPS).decide(
            optuna.load_study(study_name=study.study_name, storage=f"sqlite:///{tmp_path}/s.db"),
            seen,
        )
        for _ in range(2)
    ]
    assert decisions[0] == decisions[1]
    assert decisions[0].prune


def test_a_trainer_follows_it_from_a_forecaster():
    study, trial, sign = crowd(RemotePruner())
    for step in range(2):
        trial.report(sign * 0.05, step)
    watching = Watching(study._storage, pruner=LearningCurvePruner(N_STEPS))
    watching.look()
    assert trial.should_prune()
