"""Standings: comparisons by step, and the pruner while few trials have completed."""

import math
from datetime import datetime

import numpy as np
import optuna
import pytest
from forecasting import Watching
from helpers import N_STEPS, constrained, good_trials, make_study, saturating
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from scipy import stats

from optuna_lcpruner import LearningCurvePruner, RemotePruner, explain
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.early_ranks import p_best, weights_of_kappa
from optuna_lcpruner.records import ledger_writer
from optuna_lcpruner.study.standings import Standings, is_compared

RUNNING, COMPLETE, PRUNED = TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED


class TestIsCompared:
    def test_ever_more_rarely(self):
        at = [t for t in range(1, 101) if is_compared(t, t - 1)]
        assert at == [3, 4, 5, 7, 9, 11, 14, 18, 24, 31, 40, 52, 67, 87]

    @pytest.mark.parametrize(
        ("position", "before", "expected"),
        [(2, 0, False), (2.9, 0, False), (3, 0, True), (6, 5, False), (6, 4, True), (90, 3, True),
         (90, 87, False), (90, 86.5, True), (5, 5, False)],
    )  # fmt: skip
    def test_a_gap_does_not_skip_a_comparison(self, position, before, expected):
        assert is_compared(position, before) is expected


def trial_of(number, reports, state=RUNNING, **more):
    """A trial with these reports by step, or from step 0 on."""
    if not isinstance(reports, dict):
        reports = dict(enumerate(reports))
    value = reports[max(reports)] if state is COMPLETE else None
    trial = create_trial(state=state, value=value, intermediate_values=reports, **more)
    trial.number = number
    return trial


def resumed(number, step):
    """The attributes of a trial that goes on where another stopped."""
    return {"lcpruner_resumed_from": number, "lcpruner_resumed_at_step": step}


def standing_of(trials, number=0, maximize=True, by_length=False, check_metric=True):
    standings = Standings(maximize, by_length)
    standings.update(trials, 0.0)
    reports = trials[number].intermediate_values
    steps = np.array([s for s in sorted(reports) if math.isfinite(reports[s])])
    sign = 1.0 if maximize else -1.0
    values = [sign * reports[s] for s in steps]
    curve = LearningCurve(steps - steps[0] + 1.0, values, N_STEPS)
    return standings.standing(number, curve, steps, check_metric, 0.0)


OTHERS = [[0.0, 0.1 * i, 0.2 * i, 0.3 * i] for i in range(1, 7)]


class TestStanding:
    def test_who_is_ahead(self):
        trials = [trial_of(0, [0.0, 0.25, 0.5])]
        trials += [trial_of(i, reports) for i, reports in enumerate(OTHERS, 1)]
        found = standing_of(trials)
        assert (found.n_ahead, found.n, found.step, found.n_rivals) == (4, 6, 2, 6)
        assert str(found) == "4 of 6 were better at step 2"

    def test_minimized(self):
        trials = [trial_of(0, [0.0, -0.25, -0.5])]
        trials += [trial_of(i, [-v for v in r]) for i, r in enumerate(OTHERS, 1)]
        down = standing_of(trials, maximize=False)
        trials = [trial_of(0, [0.0, 0.25, 0.5])]
        trials += [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        assert down == standing_of(trials)

    def test_the_probability_is_that_of_the_ranks(self):
        trials = [trial_of(0, [0.0, 1.0, 2.0])]
        trials += [trial_of(i, r[:3]) for i, r in enumerate(OTHERS, 1)]
        found = standing_of(trials)
        column = np.array([2.0, *(r[2] for r in OTHERS)])
        second = np.array([1.0, *(r[1] for r in OTHERS)])
        z = stats.norm.ppf((stats.rankdata(column) - 0.5) / 7)
        weights = weights_of_kappa([(2 / 3, second, column)])
        seen = 3 / N_STEPS
        expected = p_best(z[0], seen, z[1:], np.full(6, seen), weights)
        assert found.p_best == pytest.approx(expected)
        assert found.p_beats_completed is None

    def test_a_stopped_trial_counts_as_behind_but_is_no_rival(self):
        running = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        stopped = trial_of(7, [0.0, 5.0], PRUNED)
        own = trial_of(0, [0.0, 0.25, 0.5])
        found, without = standing_of([own, *running, stopped]), standing_of([own, *running])
        assert (found.n_ahead, found.n, found.n_rivals) == (4, 7, 6)
        assert found.p_best > without.p_best

    def test_one_that_was_stopped_later_is_compared(self):
        own = trial_of(0, [0.0, 0.25, 0.5])
        trials = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        found = standing_of([own, *trials, trial_of(7, [0.0, 1.0, 2.0], PRUNED)])
        assert (found.n_ahead, found.n, found.n_rivals) == (5, 7, 6)

    @pytest.mark.parametrize("state", [RUNNING, PRUNED, COMPLETE])
    def test_a_trial_that_went_on_counts_once(self, state):
        own = trial_of(0, [0.0, 0.25, 0.5])
        running = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        stopped = trial_of(7, [0.0, 1.0], PRUNED)
        on = trial_of(8, [0.0, 1.0, 2.0], state, user_attrs=resumed(7, 1))
        alone = trial_of(7, [0.0, 1.0, 2.0], state)
        assert standing_of([own, *running, stopped, on]) == standing_of([own, *running, alone])

    def test_the_one_that_goes_on_is_not_compared_with_itself(self):
        running = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        stopped = trial_of(0, [0.0, 0.25], PRUNED)
        on = trial_of(7, [0.0, 0.25, 0.5], user_attrs=resumed(0, 1))
        found = standing_of([stopped, *running, on], 7)
        assert found == standing_of([trial_of(0, [0.0, 0.25, 0.5]), *running])

    def test_one_that_waits_to_go_on_is_the_stopped_one(self):
        own = trial_of(0, [0.0, 0.25, 0.5])
        running = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        stopped = trial_of(7, [0.0, 1.0, 2.0], PRUNED)
        waits = trial_of(8, [0.0, 1.0, 2.0], TrialState.WAITING, user_attrs=resumed(7, 2))
        found = standing_of([own, *running, stopped, waits])
        assert found == standing_of([own, *running, stopped])

    def test_a_number_of_another_study_takes_nothing_away(self):
        own = trial_of(0, [0.0, 0.25, 0.5])
        running = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        stopped = trial_of(7, [0.0, 1.0], PRUNED)
        reports = [0.0, 1.5, 2.0]
        stranger = trial_of(8, reports, user_attrs=resumed(7, 1))
        found = standing_of([own, *running, stopped, stranger])
        assert found == standing_of([own, *running, stopped, trial_of(8, reports)])

    def test_completed_ones_are_where_they_ended(self):
        own = trial_of(0, [0.0, 0.25, 0.5])
        running = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        whole = trial_of(7, np.linspace(0, 3, N_STEPS), COMPLETE)
        found = standing_of([own, *running, whole])
        assert found.n_rivals == 7
        assert found.p_best < found.p_beats_completed < 1.0
        assert found.p_best < standing_of([own, *running]).p_best

    def test_against_the_completed_ones_where_enough_are_compared(self):
        own = trial_of(0, [0.0, 0.25, 0.5])
        others = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        whole = trial_of(8, np.linspace(0, 3, N_STEPS), COMPLETE)
        assert standing_of([own, *others[:4], whole]).p_beats_completed is None
        found = standing_of([own, *others[:5], whole])
        assert found.p_best < found.p_beats_completed < 1.0

    def test_the_others_ranks_count_stopped_trials_too(self):
        """A stopped trial is behind the rivals as well, so they are further ahead."""
        trials = [trial_of(0, [0.0, 0.25, 0.5]), *(trial_of(i, r) for i, r in enumerate(OTHERS, 1))]
        stopped = [trial_of(i, [0.0, 5.0], PRUNED) for i in range(7, 10)]
        found = standing_of([*trials, *stopped])
        weights = weights_of_kappa(
            [(2 / 3, *(np.array([0.25 * n, *(r[n] for r in OTHERS)]) for n in (1, 2)))]
        )
        at = [[0.5, *(r[n] for r in OTHERS)] for n in (2, 3)]
        own = stats.norm.ppf((stats.rankdata(at[0])[0] + 3 - 0.5) / 10)
        # At the fourth report there are the six of them, and the stopped ones.
        z = stats.norm.ppf((stats.rankdata(at[1][1:]) + 3 - 0.5) / 9)
        expected = p_best(own, 3 / N_STEPS, z, np.full(6, 4 / N_STEPS), weights)
        assert found.p_best == pytest.approx(expected)

    def test_equal_reports_share_a_rank(self):
        others = [trial_of(i, [0.0, 0.1, 0.5]) for i in range(1, 7)]
        found = standing_of([trial_of(0, [0.0, 0.1, 0.5]), *others])
        assert found.n_ahead == 0
        assert found.p_best == pytest.approx(1 / 7, rel=0.02)

    def test_beyond_the_horizon_a_training_is_at_its_end(self):
        own = trial_of(0, [0.0, 0.25, 0.5])
        found = []
        for n_more in (0, 2 * N_STEPS):
            paths = [np.linspace(0.0, end, N_STEPS) for end in range(1, 7)]
            paths = [np.r_[path, np.full(n_more, path[-1])] for path in paths]
            found.append(standing_of([own, *(trial_of(i, p) for i, p in enumerate(paths, 1))]))
        assert found[0].p_best == pytest.approx(found[1].p_best, rel=1e-12)

    def test_stopped_trials_have_no_say_in_whether_all_get_worse(self):
        worse = [trial_of(i, [-v for v in r]) for i, r in enumerate(OTHERS)]
        stopped = [trial_of(i, [0.0, -1.0], PRUNED) for i in range(6, 12)]
        assert standing_of([*worse, *stopped]) is None

    def test_a_report_that_comes_later_counts_from_then_on(self):
        standings, curve = (
            Standings(True, False),
            LearningCurve([1.0, 2.0, 3.0], [0, 0.25, 0.5], 20),
        )
        trials = [trial_of(0, [0.0, 0.25, 0.5]), *(trial_of(i, r) for i, r in enumerate(OTHERS, 1))]
        late = [trial_of(7, r) for r in ([0.0, 1.0], [0.0, 1.0, 2.0])]
        standings.update([*trials, late[0]], 0.0)
        assert standings.standing(0, curve, np.arange(3), True, 0.0).n_ahead == 4
        standings.update([late[1]], 0.0)
        found = standings.standing(0, curve, np.arange(3), True, 0.0)
        assert found.n_ahead == 5
        assert found == standing_of([*trials, late[1]])

    def test_one_report_far_off_counts_as_the_one_before(self):
        others = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        off, on = (trial_of(0, [0.0, 0.35, v, 1.05][:n]) for n, v in ((3, -99.0), (3, 0.35)))
        found, expected = standing_of([off, *others]), standing_of([on, *others])
        assert found.n_ahead == expected.n_ahead == 5
        assert found.p_best >= expected.p_best

    def test_one_that_is_far_ahead_of_all_is_where_it_stood_among_them(self):
        own = trial_of(0, [0.0, 0.25, 0.5])
        running = [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        far = [trial_of(7, [0.0, 1.0, 2.0, 3.0, *(3.0 + i for i in range(n))]) for n in (0, 8)]
        assert standing_of([own, *running, far[0]]) == standing_of([own, *running, far[1]])

    @pytest.mark.parametrize(
        "other",
        [
            trial_of(7, [0.0, 1.0, 2.0], system_attrs={"constraints": [1.0]}),
            trial_of(7, [0.0, 1.0, 2.0], user_attrs={"lcpruner_n_steps": 7}),
            trial_of(7, {}),
            trial_of(7, [math.nan, math.nan, math.nan]),
            trial_of(7, [0.0, 1.0], TrialState.FAIL),
            trial_of(7, {7: 0.1}, PRUNED),
            trial_of(7, {2: 1.0, 1: 0.5, 0: 0.0}),
            trial_of(7, {2: 9.0}, COMPLETE),
        ],
        ids=["infeasible", "length", "none", "nan", "failed", "later", "counts down", "no curve"],
    )
    def test_no_measure(self, other):
        trials = [trial_of(0, [0.0, 0.25, 0.5])]
        trials += [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        expected = standing_of(trials, by_length=True)
        assert (expected.n_ahead, expected.n) == (4, 6)
        assert standing_of([*trials, other], by_length=True) == expected

    def test_another_length_where_the_user_gave_it(self):
        trials = [trial_of(0, [0.0, 0.25, 0.5])]
        trials += [trial_of(1, OTHERS[0], user_attrs={"lcpruner_n_steps": 7})]
        assert standing_of(trials).n == 1

    def test_says_nothing_of_an_infeasible_trial(self):
        trials = [trial_of(0, [0.0, 0.25, 0.5], system_attrs={"constraints": [1.0]})]
        trials += [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        assert standing_of(trials) is None

    @pytest.mark.parametrize("check", [True, False])
    def test_where_nearly_all_get_worse(self, check):
        trials = [trial_of(i, [-v for v in r]) for i, r in enumerate(OTHERS)]
        assert (standing_of(trials, check_metric=check) is None) is check

    def test_a_report_to_be_ignored(self):
        trials = [trial_of(0, [0.0, 0.25, 0.5, 0.6])]
        trials += [trial_of(i, r) for i, r in enumerate(OTHERS, 1)]
        trials += [trial_of(7, [0.0, 1.0, math.nan, 3.0])]
        found = standing_of(trials)
        assert (found.n_ahead, found.n) == (6 - 1, 7)

    def test_taken_in_step_by_step_as_at_once(self):
        standings = Standings(True, False)
        trials = [trial_of(i, r) for i, r in enumerate(OTHERS)]
        for n in range(1, 5):
            standings.update((trial_of(i, r[:n]) for i, r in enumerate(OTHERS)), 0.0)
        stopped = trial_of(5, OTHERS[5], PRUNED)
        standings.update([stopped], 0.0)
        curve = LearningCurve(np.arange(1.0, 5.0), OTHERS[0], N_STEPS)
        found = standings.standing(0, curve, np.arange(4), True, 0.0)
        assert found == standing_of([*trials[:5], stopped])


def crowd(pruner, n_others=20, direction="maximize", storage=None, completed=(), upto=6):
    """A study in which many trials run, and one that has just begun."""
    study = make_study(completed, direction=direction, storage=storage, pruner=pruner)
    sign = 1 if direction == "maximize" else -1
    trials = [study.ask() for _ in range(n_others)]
    for i, trial in enumerate(trials):
        for step, value in enumerate(saturating(0.5 + 0.01 * i)[:upto]):
            trial.report(sign * value, step)
    return study, study.ask(), sign


def journal(folder):
    return JournalStorage(JournalFileBackend(f"{folder}/s.log"))


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
    assert train(trial, sign) == 2
    said = reason(study)
    assert said.startswith("pruned: behind the others: 20 of 20 were better at step 2, P ")
    assert said.endswith(" to end best of 21")
    p, threshold = said.split(", P ")[1].removesuffix(" to end best of 21").rsplit(" < ", 1)
    assert (
        float(p.strip("=< "))
        <= float(threshold)
        == pytest.approx(0.04 * 6 / 21 * (1 - 3 / N_STEPS), rel=0.01)
    )


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
        {"patience": 2},
    ],
)
def test_not_where_it_is_not_wanted(settings):
    _, trial, sign = crowd(LearningCurvePruner(N_STEPS, **settings))
    assert train(trial, sign) is None


@pytest.mark.parametrize("settings", [{}, {"risk": 0.5}, {"risk": 0.5, "n_startup_trials": 2}])
def test_not_among_few(settings):
    _, trial, sign = crowd(LearningCurvePruner(N_STEPS, **settings), n_others=2)
    assert train(trial, sign) is None


def test_not_among_fewer_than_the_trials_that_are_to_complete_first():
    _, trial, sign = crowd(LearningCurvePruner(N_STEPS, risk=0.5, n_startup_trials=8), n_others=7)
    assert train(trial, sign) is None


def test_not_without_a_known_length():
    _, trial, sign = crowd(LearningCurvePruner())
    assert train(trial, sign) is None


@pytest.mark.parametrize(("n_completed", "asked"), [(3, True), (15, True), (16, False)])
def test_among_forecasts_it_is_a_source_that_fades(n_completed, asked):
    completed = [good_trials()[i % 5] for i in range(n_completed)]
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS), completed=completed)
    train(trial, sign, level=0.5, n=3)
    words = study.pruner.decide(study, study.get_trials()[-1]).in_full
    assert words.startswith(("undecided", "pruned: P"))
    assert ("early ranks" in words) is asked


def test_the_share_of_early_ranks():
    """log odds = (N log odds of the others + log odds by ranks) / (N + 1)."""
    completed = good_trials()
    answers = {}
    for compares in (True, False):
        pruner = LearningCurvePruner(N_STEPS, compare_running=compares)
        study, trial, _ = crowd(pruner, completed=completed)
        for step, value in enumerate((0.2, 0.4, 0.5)):
            trial.report(value, step)
        answers[compares] = pruner.decide(study, study.get_trials()[-1])
    by_ranks = float(answers[True].in_full.split("early ranks ")[1].split()[0])
    odds = {key: math.log(one.p_beat / (1 - one.p_beat)) for key, one in answers.items()}
    n = len(completed)
    expected = (n * odds[False] + math.log(by_ranks / (1 - by_ranks))) / (n + 1)
    assert odds[True] == pytest.approx(expected, abs=0.02)


def test_a_trial_that_runs_again_is_spared():
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS))
    trial.set_user_attr("lcpruner_requeued_from", 0)
    assert train(trial, sign) is None
    assert reason(study).startswith("requeued, runs on: 20 of 20 were better at step 2, P ")


def test_the_control_group_is_of_forecasts():
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS, control_fraction=1.0))
    assert train(trial, sign) == 2
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


def test_explained(tmp_path):
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS, ledger=f"sqlite:///{tmp_path}/l.db"))
    assert train(trial, sign) == 2
    study.tell(trial, state=TrialState.PRUNED)
    assert ledger_writer.flush(20)
    summary = explain(study, trial.number).summary
    where = "20 of 20 were better at step 2"
    assert summary.startswith(f"Trial {trial.number} was pruned at step 2, look 3: {where}")


def test_the_same_in_another_worker(tmp_path):
    study, trial, sign = crowd(LearningCurvePruner(N_STEPS), storage=journal(tmp_path))
    for step in range(3):
        trial.report(sign * 0.05, step)
    seen = study.get_trials()[-1]
    decisions = [
        LearningCurvePruner(N_STEPS).decide(
            optuna.load_study(study_name=study.study_name, storage=journal(tmp_path)), seen
        )
        for _ in range(2)
    ]
    assert decisions[0] == decisions[1]
    assert decisions[0].prune


def test_a_trainer_follows_it_from_a_forecaster():
    study, trial, sign = crowd(RemotePruner())
    for step in range(3):
        trial.report(sign * 0.05, step)
    watching = Watching(study._storage, pruner=LearningCurvePruner(N_STEPS))
    watching.look()
    assert trial.should_prune()


def n_rivals(trials, now, seen_at=0.0):
    """How many rivals the first trial has; it has four reports of twenty."""
    standings = Standings(True, False)
    standings.update(trials, seen_at)
    standings.update(trials, now)  # without news
    curve = LearningCurve(np.arange(1.0, 5.0), [0.0, 0.1, 0.2, 0.3], N_STEPS)
    return standings.standing(0, curve, np.arange(4), True, now).n_rivals


class TestDead:
    """A worker that is killed leaves its trial running for ever."""

    @staticmethod
    def trials(now, ages, ended=(), n=4):
        """Running ones that began some seconds ago, and ended ones that took 10 s a report."""
        trials = [trial_of(i, 0.05 * np.arange(n if i else 4)) for i in range(len(ages))]
        for trial, age in zip(trials, ages, strict=True):
            trial.datetime_start = datetime.fromtimestamp(now - age)
        for state in ended:
            trial = trial_of(len(trials), [0.0, 0.1, 0.2, 0.3], state)
            trial.datetime_start = datetime.fromtimestamp(60.0)
            trial.datetime_complete = datetime.fromtimestamp(100.0)
            trials.append(trial)
        return trials

    @pytest.mark.parametrize(
        ("age", "rivals"), [(40.0, 1), (249.0, 1), (251.0, 0), (10_000.0, 0), (-40_000.0, 1)]
    )
    @pytest.mark.parametrize("ended", [(), (PRUNED, PRUNED)])
    def test_too_slow_for_its_reports(self, age, rivals, ended):
        """Ten seconds a report: five times as long as five of them take."""
        now = 1e6
        assert n_rivals(self.trials(now, [40.0, age], ended), now, now) == rivals

    @pytest.mark.parametrize(("age", "rivals"), [(590.0, 1), (610.0, 0)])
    def test_longer_than_three_trainings(self, age, rivals):
        now = 1e6
        assert n_rivals(self.trials(now, [40.0, age], n=16), now, now) == rivals

    @pytest.mark.parametrize(
        ("took", "silence", "rivals"),
        [(40.0, 20.0, 1), (40.0, 49.0, 1), (40.0, 51.0, 0), (160.0, 80.0, 1)],
    )
    def test_no_new_report_seen(self, took, silence, rivals):
        """For as long as five take, of others or of its own."""
        now = 1e6
        trials = self.trials(now, [40.0, took + silence])
        assert n_rivals(trials, now, now - silence) == rivals

    @pytest.mark.parametrize(("seconds", "rivals"), [(9.0, 1), (11.0, 0)])
    @pytest.mark.parametrize("seen", [False, True])
    def test_nobody_is_dead_at_once(self, seconds, rivals, seen):
        """However fast the others are."""
        now = 1e6
        trials = self.trials(now, [0.04, seconds + (0.04 if seen else 0.0)])
        assert n_rivals(trials, now, now - seconds if seen else now) == rivals

    def test_who_has_completed_is_a_rival_for_ever(self):
        now = 1e6
        assert n_rivals(self.trials(now, [40.0], (COMPLETE, PRUNED)), now, now) == 1

    def test_a_replay_is_not_timed(self):
        """Its trials say themselves how long their reports take."""
        now = 1e6
        trials = self.trials(now, [40.0, 400.0], (PRUNED,))
        assert n_rivals(trials, now, now - 300.0) == 0
        for trial in trials:
            trial.set_user_attr("lcpruner_seconds_per_report", 3600.0)
        assert n_rivals(trials, now, now - 300.0) == 1

    def test_clocks_that_say_nothing(self):
        trials = self.trials(1e6, [0.0, 1e5])
        assert n_rivals(trials, 1e6, 1e6) == 1
        for trial in trials:
            trial.datetime_start = None
        assert n_rivals(trials, 1e6, 0.0) == 1
