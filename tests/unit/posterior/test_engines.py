"""The engines by name."""

from __future__ import annotations

import re

import pytest

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.engines import engine_of
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("pool", OpinionPool()),
        ("closed_form", ClosedForm()),
        ("mcmc", MCMC()),
    ],
)
def test_each_name_stands_for_an_engine_as_it_is_by_default(name: str, made: object) -> None:
    found = engine_of(name)
    assert type(found) is type(made)
    assert found == made or vars(found) == vars(made)


def test_the_pruners_documentation_names_them_all() -> None:
    documented = (LearningCurvePruner.__doc__ or "").split("engine: The posterior:")[1]
    names = set(re.findall(r'``"(\w+)"``', documented.split("executor:")[0]))
    assert {type(engine_of(name)).__name__ for name in names} == {
        "OpinionPool",
        "ClosedForm",
        "MCMC",
    }


def test_an_engine_is_itself() -> None:
    own = ClosedForm(families=("pow3",))
    assert engine_of(own) is own

    def function(*_: object) -> None: ...

    assert engine_of(function) is function  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("engine", "error", "message"),
    [
        ("gp", ValueError, "engine must be one of 'pool', 'closed_form', 'mcmc'"),
        (3, TypeError, "engine must be a name or a callable, but got 3"),
        (None, TypeError, "engine must be a name or a callable, but got None"),
    ],
)
def test_what_is_no_engine(engine: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        engine_of(engine)  # type: ignore[arg-type]
