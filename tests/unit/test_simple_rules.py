from __future__ import annotations

import pytest
from bench.simple_rules import KeepTopPruner, LastValuePruner
from helpers import constrained, finished, make_study, reports
from optuna.pruners import BasePruner

NAN = float("nan")


@pytest.mark.parametrize(
    ("rule", "settings", "message"),
    [
        (KeepTopPruner, {"after": 0}, "after must be at least 1, but got 0"),
        (KeepTopPruner, {"after": 3, "share": 0}, "share must be above 0 and at most 1, but got 0"),
        (LastValuePruner, {"after": 0}, "after must be at least 1, but got 0"),
        (LastValuePruner, {"after": 3, "margin": -1}, "margin must be at least 0, but got -1"),
    ],
)
def test_a_setting_that_cannot_be(
    rule: type[BasePruner], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rule(**settings)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(
    ("pruner", "others", "curve", "stops"),
    [
        (KeepTopPruner(2, 0.5), [1, 2, 3, 4, 5], [9, 3.5, 9], False),  # third of six
        (KeepTopPruner(2, 0.5), [1, 2, 3, 4, 5], [9, 2.5, 9], True),  # fourth
        (KeepTopPruner(2, 0.5), [1, 2, 3, 4, 5], [9], False),  # too early
        (KeepTopPruner(2, 0.01), [1, 2, 3, 4, 5], [0, 6], False),  # the best stays in any case
        (KeepTopPruner(2, 1.0), [1, 2, 3, 4, 5], [9, NAN], True),
        (KeepTopPruner(2, 0.5), [1, 2, 3, 4], [9, 0], False),  # startup
        (LastValuePruner(2, 0.5), [1, 2, 3, 4, 5], [0, 4.1], False),  # best 5, median 3
        (LastValuePruner(2, 0.5), [1, 2, 3, 4, 5], [0, 3.9], True),
        (LastValuePruner(2, 0.5), [1, 2, 3, 4, 5], [0], False),
        (LastValuePruner(2, 0.5), [1, 2, 3, 4, 5], [9, NAN], True),
        (LastValuePruner(2, 0.5), [1, 2, 3, 4], [0, 0], False),
    ],
)
def test_simple_rules(
    pruner: BasePruner, others: list[float], curve: list[float], stops: bool, direction: str
) -> None:
    sign = 1 if direction == "maximize" else -1
    study = make_study(
        (finished(reports([0.0, sign * v])) for v in others), direction=direction, pruner=pruner
    )
    trial = study.ask()
    assert not trial.should_prune()  # nothing reported
    decisions = []
    for step, value in enumerate(curve):
        trial.report(sign * value, step)
        decisions.append(trial.should_prune())
    assert any(decisions) == stops


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_last_value_rule_goes_by_feasible_trials(direction: str) -> None:
    sign = 1 if direction == "maximize" else -1
    trials = [finished(reports([0.0, sign * v])) for v in (1.0, 2.0, 3.0, 4.0, 5.0)]
    trials += [constrained(finished(reports([0.0, sign * 9.0])), 1.0) for _ in range(2)]
    rule = LastValuePruner(1, 0.5)
    for n, value, stops in ((7, 4.1, False), (7, 3.9, True), (6, 0.0, False)):
        study = make_study(trials[7 - n :], direction=direction, pruner=rule)
        trial = study.ask()
        trial.report(sign * value, 0)
        assert trial.should_prune() == stops  # best 5, median 3; six are but four feasible ones
