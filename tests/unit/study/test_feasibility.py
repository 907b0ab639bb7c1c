"""Which trials keep the study's constraints."""

import optuna
import pytest
from helpers import SAYS_CONSTRAINTS, constrained, finished

from optuna_lcpruner.study.feasibility import constraint_values, is_feasible

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
@pytest.mark.parametrize(
    ("values", "feasible"),
    [((-1.0,), True), ((0.0,), True), ((1e-9,), False), ((-1.0, 2.0), False), ((-INF, 0.0), True)],
)
def test_zero_or_less_is_feasible(how, values, feasible):
    trial = constrained(finished({0: 1.0}), *values, how=how)
    assert is_feasible(trial) is feasible
    assert sorted(constraint_values(trial.system_attrs)) == sorted(values)


def test_without_constraints():
    assert is_feasible(finished({0: 1.0}))
    assert not is_feasible(constrained(finished({0: 1.0}), NAN))


@pytest.mark.filterwarnings("ignore:`constraints_func` has been deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_agrees_with_optuna():
    def constraints(trial):
        return [trial.params["x"] - 0.5]

    sampler = optuna.samplers.TPESampler(seed=0, constraints_func=constraints)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=12)
    best = max((t for t in study.trials if is_feasible(t)), key=lambda t: t.value)
    assert best.number == study.best_trial.number
    assert not all(map(is_feasible, study.trials))
