"""StudyKnowledge: what engines may use of the other trials."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from optuna_lcpruner.curves.scale import Scale, spanning
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import FastEngine, StudyKnowledge, Target

FINAL = np.array([0.5, 0.9, 0.7])
COMPLETED = FINAL[:, None] * np.linspace(0.2, 1.0, 4)


def knowing(best: float = 0.9, **settings: object) -> StudyKnowledge:
    """What a study knows of three trials, the second of which is the best."""
    scale = spanning(0.1, best, True)
    return StudyKnowledge(scale, Target.LAST, COMPLETED, FINAL, **settings)  # type: ignore[arg-type]


class TestBest:
    def test_is_one_on_the_working_scale(self) -> None:
        assert knowing().best == pytest.approx(0.9)

    def test_its_row(self) -> None:
        assert knowing().best_row == 1
        assert knowing(best=0.95).best_row is None  # a value without a curve
        assert StudyKnowledge(Scale(0.0, 1.0, True)).best_row is None

    def test_whether_a_curve_led_to_it(self) -> None:
        assert knowing().best_has_curve
        assert not knowing(best=0.95).best_has_curve
        assert knowing(best=0.95, n_completed=4).best_has_curve  # one too old to be here


@pytest.mark.parametrize(("n_completed", "n"), [(None, 3), (7, 7), (0, 1)])
def test_the_base_rate_is_the_chance_of_one_more_to_be_the_best(
    n_completed: int | None, n: int
) -> None:
    known = knowing(n_completed=n_completed)
    assert known.n == n
    assert known.base_rate == pytest.approx(1.0 / (n + 1))


class TestWithout:
    def test_the_others_stay(self) -> None:
        others = knowing(n_completed=3).without(1)
        assert others is not None
        np.testing.assert_array_equal(others.final, [0.5, 0.7])
        np.testing.assert_array_equal(others.completed, COMPLETED[[0, 2]])
        assert others.n == 2
        assert others.best == pytest.approx(0.7)
        assert others.scale.location == knowing().scale.location

    def test_a_better_one_breaks_constraints_and_is_no_best_value(self) -> None:
        others = knowing(best=0.7).without(2)
        assert others is not None
        assert others.best == pytest.approx(0.5)

    def test_the_start_is_no_better_than_the_worst_value(self) -> None:
        known = replace(knowing(), scale=spanning(0.6, 0.9, True))
        others = known.without(1)
        assert others is not None
        assert others.scale.location == pytest.approx(0.5)

    def test_none_without_a_worse_one(self) -> None:
        assert knowing().without(0) is None

    def test_what_depends_on_single_trials_is_worked_out_anew(self) -> None:
        known = knowing()
        for key in ("peers", "shapes"):
            known.cached(key, lambda: "of all")
        others = known.without(1)
        assert others is not None
        assert others.cached("peers", lambda: "of the others") == "of the others"
        assert others.cached("shapes", lambda: "of the others") == "of all"


class TestCached:
    def test_is_made_once(self) -> None:
        known, made = knowing(), iter(range(10))
        assert [known.cached("a", lambda: next(made)) for _ in range(3)] == [0, 0, 0]
        assert known.cached("b", lambda: next(made)) == 1

    def test_stays_on_another_scale(self) -> None:
        known = knowing()
        known.cached("a", lambda: 1)
        moved = known.on_scale(Scale(3.0, 2.0, True))
        assert moved.scale.location == 3.0
        assert moved.cached("a", lambda: 2) == 1

    def test_is_not_sent_along(self) -> None:
        known = knowing()
        known.cached("a", lambda: 1)
        sent = pickle.loads(pickle.dumps(known))
        assert sent.cached("a", lambda: 2) == 2
        np.testing.assert_array_equal(sent.final, known.final)


def test_an_engine_that_has_the_probability_first_is_told_from_one_that_has_not() -> None:
    assert isinstance(ClosedForm(), FastEngine)
    assert not isinstance(lambda curve, knowledge, positions=None: None, FastEngine)
