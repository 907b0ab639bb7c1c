"""A sampler under ForecastSampler sees pruned trials as completed; nobody else does."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import SAYS_CONSTRAINTS, constrained, installed, make_study, sqlite
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_lcpruner import ForecastSampler, LearningCurvePruner
from optuna_lcpruner.samplers.forecast_sampler import WORST, as_forecast

X = FloatDistribution(0.0, 1.0)
NAN = float("nan")


def complete(value: float, x: float = 0.5) -> FrozenTrial:
    return create_trial(
        value=value, params={"x": x}, distributions={"x": X}, intermediate_values={0: value}
    )


def pruned(forecast: Any, last: float = 0.1, x: float = 0.5) -> FrozenTrial:
    return create_trial(
        state=TrialState.PRUNED,
        value=last if np.isfinite(last) else None,
        params={"x": x},
        distributions={"x": X},
        intermediate_values={0: 0.1, 1: last},
        user_attrs={} if forecast is None else {"lcpruner_forecast": forecast},
    )


def values(trials: list[FrozenTrial], maximize: bool = True) -> list[float | None]:
    return [
        t.value if t.state is TrialState.COMPLETE else None for t in as_forecast(trials, maximize)
    ]


def test_pruned_trials_count_as_completed_at_their_forecast() -> None:
    trials = [complete(0.9), pruned(0.6), pruned(0.7)]
    assert values(trials) == [0.9, 0.6, 0.7]


def test_the_trials_themselves_stay_as_they_are() -> None:
    trials = [complete(0.9), pruned(0.6)]
    seen = as_forecast(trials, True)[1]
    assert (trials[1].state, trials[1].value) == (TrialState.PRUNED, 0.1)
    assert seen.intermediate_values == {0: 0.1, 1: 0.1}
    assert (seen.number, seen.params) == (trials[1].number, trials[1].params)


@pytest.mark.parametrize("forecast", [None, "0.6", NAN, float("inf")])
def test_without_a_forecast_a_pruned_trial_stays_pruned(forecast: Any) -> None:
    assert values([complete(0.9), pruned(forecast)]) == [0.9, None]


def test_a_trial_that_failed_or_runs_stays_so_whatever_was_forecast() -> None:
    trials = [
        create_trial(state=state, intermediate_values={0: 0.1}, user_attrs={"lcpruner_forecast": 1})
        for state in (TrialState.FAIL, TrialState.RUNNING)
    ]
    assert values([complete(0.9), *trials]) == [0.9, None, None]


def test_a_diverged_trial_counts_as_the_worst_of_the_others() -> None:
    # Its last forecast is from before it diverged.
    assert values([complete(0.9), pruned(0.3), complete(0.5), pruned(0.8, last=NAN)])[-1] == 0.3
    assert values([complete(0.9), pruned(1.3), pruned(0.8, NAN)], maximize=False)[-1] == 1.3


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        (TrialState.WAITING, [0.9, 0.6, None]),
        (TrialState.RUNNING, [0.9, 0.6, None]),
        (TrialState.FAIL, [0.9, 0.6, None]),
        (TrialState.PRUNED, [0.9, None, 0.7]),
        (TrialState.COMPLETE, [0.9, None, 0.8]),
    ],
)
def test_a_trial_that_went_on_counts_once(state: TrialState, seen: list[float | None]) -> None:
    on = pruned(0.7)
    on.state, on.value = state, 0.8 if state is TrialState.COMPLETE else None
    on.set_user_attr("lcpruner_resumed_from", 1)
    on.set_user_attr("lcpruner_resumed_at_step", 1)
    trials = [complete(0.9), pruned(0.6), on]
    for number, trial in enumerate(trials):
        trial.number = number
    assert values(trials) == seen


def test_nothing_is_handed_on_while_no_trial_has_completed() -> None:
    assert values([pruned(0.6), pruned(0.8, last=NAN)]) == [None, None]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_is_behind_stays_behind_where_most_trials_tie(sign: float) -> None:
    """An accuracy of 1, say."""
    trials = [*[complete(1.0 * sign)] * 4, pruned(0.3 * sign), pruned(0.5 * sign)]
    seen = values(trials, maximize=sign > 0)
    assert seen == pytest.approx([1.0 * sign] * 4 + [0.3 * sign, 0.5 * sign])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_huge_forecast_does_not_flatten_the_others(sign: float) -> None:
    trials = [
        complete(0.1 * sign), complete(0.2 * sign), complete(0.3 * sign), pruned(1e30 * sign),
        pruned(0.4 * sign),
    ]  # fmt: skip
    seen = values(trials, maximize=sign < 0)
    # best 0.1, median of 0.1, 0.2, 0.3, 0.4, 1e30: 0.3
    assert seen == pytest.approx([0.1 * sign, 0.2 * sign, 0.3 * sign, 2.1 * sign, 0.4 * sign])


@pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_is_too_bad_is_so_by_feasible_trials(sign: float, how: str) -> None:
    ends = ((0.1, 0.0), (0.2, 0.0), (0.3, 0.0), (-50.0, 1.0))
    trials = [constrained(complete(value * sign), c, how=how) for value, c in ends]
    trials.append(constrained(pruned(1e30 * sign), 0.0, how=how))
    # best 0.1, median of 0.1, 0.2, 0.3, 1e30: 0.25; -50 does not count
    assert values(trials, maximize=sign < 0)[-1] == pytest.approx(1.6 * sign)
    # While none is feasible all count: best -50, median 0.2.
    for trial in trials:
        constrained(trial, 1.0)
    assert values(trials, maximize=sign < 0)[-1] == pytest.approx(452.0 * sign)


@pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
def test_a_pruned_trial_that_lacks_the_constraints_of_others_stays_pruned(how: str) -> None:
    trials = [constrained(complete(0.9), 0.0, 1.0, how=how), pruned(0.6), pruned(0.8, last=NAN)]
    assert values(trials) == [0.9, None, None]
    constrained(trials[1], -1.0, how=how)  # one of two
    assert values(trials) == [0.9, None, None]
    trials[1] = constrained(pruned(0.6), -1.0, 2.0, how=how)
    assert values(trials) == [0.9, 0.6, None]


class Watching(BaseSampler):
    """Draws at random; keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[list[FrozenTrial]] = []
        self.told: list[tuple[TrialState, Any]] = []
        self._random = optuna.samplers.RandomSampler(seed=0)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict:
        self.shown.append(study.get_trials(deepcopy=False))
        return {}

    def sample_relative(self, *_: Any) -> dict:
        return {}

    def sample_independent(self, study: optuna.Study, *arguments: Any) -> Any:
        self.shown.append(study.trials)
        return self._random.sample_independent(study, *arguments)

    def after_trial(self, study: optuna.Study, trial: Any, state: Any, values: Any) -> None:
        self.told.append((state, values))


def hopeless_but_three(trial: optuna.Trial) -> float:
    """The first three approach 0.9, later ones stay near 0.1."""
    trial.suggest_float("x", 0.0, 1.0)
    value = 0.0
    for step in range(12):
        end = 0.9 + 0.01 * trial.number if trial.number < 3 else 0.1
        value = end - (end - 0.1) * float(np.exp(-0.2 * (step + 1)))
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


@pytest.mark.parametrize("storage", ["memory", "sqlite", "journal"])
def test_only_the_sampler_sees_it(storage: str, tmp_path: Path) -> None:
    where: dict[str, Callable[[], Any]] = {
        "memory": lambda: None,
        "sqlite": lambda: sqlite(f"sqlite:///{tmp_path}/study.db"),
        "journal": lambda: optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
        ),
    }
    watching = Watching()
    study = optuna.create_study(
        direction="maximize",
        storage=where[storage](),
        sampler=ForecastSampler(watching),
        pruner=LearningCurvePruner(n_steps=12, ledger=False),
    )
    study.optimize(hopeless_but_three, n_trials=5)
    assert [t.state.name for t in study.trials] == 3 * ["COMPLETE"] + 2 * ["PRUNED"]
    assert study.best_trial.number == 2
    stopped = study.trials[3]
    assert stopped.value == stopped.intermediate_values[max(stopped.intermediate_values)]
    for seen in watching.shown[-2:]:  # as the last trial begins, and as x is drawn for it
        assert [t.state.name for t in seen] == 4 * ["COMPLETE"] + ["RUNNING"]
        forecast = stopped.user_attrs["lcpruner_forecast"]
        values = [trial.value for trial in study.trials[:3]] + [forecast]
        worst = max(values) + WORST * (np.median(values) - max(values))
        assert seen[3].value == pytest.approx(max(forecast, worst)) != stopped.value
    assert watching.told[-1] == (TrialState.PRUNED, [study.trials[4].value])


def needing(package: str) -> Any:
    there = installed(package)
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


def gp() -> BaseSampler:
    return GPSampler(seed=0, n_startup_trials=2)


def tpe() -> BaseSampler:
    return TPESampler(seed=0, n_startup_trials=2)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(tpe, id="tpe"),
        pytest.param(gp, id="gp", marks=[needing("torch"), pytest.mark.frameworks]),
    ],
)
def test_a_sampler_learns_from_what_was_pruned(make: Callable[[], BaseSampler]) -> None:
    """Forecasts fall with x, last values and completed trials rise with it."""
    history = [complete(1.0, 0.5), complete(0.9, 0.45)]
    history += [pruned(0.8 - 0.6 * x, last=0.5 * x, x=x) for x in np.linspace(0.0, 1.0, 21)]

    def mean_of_next(sampler: BaseSampler) -> float:
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(history)
        return float(np.mean([study.ask().suggest_float("x", 0.0, 1.0) for _ in range(10)]))

    assert mean_of_next(ForecastSampler(make())) < mean_of_next(make()) - 0.1


@needing("cmaes")
def test_cma_es_ends_a_generation_with_pruned_trials() -> None:
    def generations(wrap: Callable[[BaseSampler], BaseSampler]) -> int:
        study = optuna.create_study(
            direction="maximize", sampler=wrap(CmaEsSampler(seed=0, popsize=4, n_startup_trials=1))
        )
        for number in range(14):
            trial = study.ask()
            trial.suggest_float("x", 0.0, 1.0)
            trial.suggest_float("y", 0.0, 1.0)
            trial.report(0.5, 0)
            if number % 4:
                trial.set_user_attr("lcpruner_forecast", 0.3)
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, 0.9)
        return max(t.system_attrs.get("cma:generation", 0) for t in study.trials)

    assert generations(ForecastSampler) > generations(lambda sampler: sampler)


ANY: dict[str, Callable[[], BaseSampler]] = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "tpe in groups": lambda: TPESampler(seed=0, multivariate=True, group=True, n_startup_trials=2),
    "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=0, population_size=2),
    "qmc": lambda: optuna.samplers.QMCSampler(seed=0, warn_asynchronous_seeding=False),
    "grid": lambda: optuna.samplers.GridSampler({"x": [0.1, 0.2, 0.3, 0.4, 0.5]}, seed=0),
}


@pytest.mark.parametrize("name", ANY)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_any_sampler_runs_under_it(name: str) -> None:
    study = optuna.create_study(
        direction="maximize",
        sampler=ForecastSampler(ANY[name]()),
        pruner=LearningCurvePruner(n_steps=12),
    )
    study.optimize(hopeless_but_three, n_trials=8)
    # The grid has five points: its sampler ends the study itself.
    assert len(study.trials) == (5 if name == "grid" else 8)
    assert study.best_trial.number == 2


def test_threads_share_it() -> None:
    study = optuna.create_study(
        direction="maximize",
        sampler=ForecastSampler(TPESampler(seed=0, n_startup_trials=2)),
        pruner=LearningCurvePruner(n_steps=12),
    )
    study.optimize(hopeless_but_three, n_trials=16, n_jobs=4)
    assert sorted(t.number for t in study.trials) == list(range(16))
    assert all(t.state.is_finished() for t in study.trials)


def test_a_study_of_two_objectives_is_passed_on_as_it_is() -> None:
    watching = Watching()
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=ForecastSampler(watching)
    )
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=2)
    assert len(watching.shown[-1]) == 2


def test_under_hyperband_the_bracket_is_passed_on_as_it_is() -> None:
    watching = Watching()
    study = make_study(pruner=optuna.pruners.HyperbandPruner(1, 4, 2))
    study.sampler = ForecastSampler(watching)

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        for step in range(4):
            trial.report(x, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    study.optimize(objective, n_trials=6)
    assert all(t.state.is_finished() for t in study.trials)


def test_it_can_be_pickled_and_named_and_reseeded() -> None:
    sampler = ForecastSampler(TPESampler(seed=0))
    study = make_study()
    study.sampler = pickle.loads(pickle.dumps(sampler))
    before = study.ask().suggest_float("x", 0.0, 1.0)
    study.sampler = pickle.loads(pickle.dumps(sampler))
    assert study.ask().suggest_float("x", 0.0, 1.0) == before
    study.sampler = pickle.loads(pickle.dumps(sampler))
    study.sampler.reseed_rng()
    assert study.ask().suggest_float("x", 0.0, 1.0) != before
    assert str(sampler).startswith("ForecastSampler(")


def test_what_is_no_sampler_is_refused() -> None:
    with pytest.raises(TypeError, match="base_sampler must be an optuna"):
        ForecastSampler("tpe")  # type: ignore[arg-type]
