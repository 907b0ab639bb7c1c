import numpy as np
import pytest

from optuna_lcpruner import check, explain, report, requeue, summary
from optuna_lcpruner._util.validation import (
    InputError,
    choice,
    finite_or_none,
    integer,
    missing,
    real,
)
from optuna_lcpruner.visualization import plot_forecast


def test_what_is_allowed_comes_back_as_a_plain_value() -> None:
    assert type(integer("n", np.int64(3), 3)) is int
    assert type(real("x", np.float32(0.5), 0.0, 1.0)) is float
    assert real("x", 1, 0.0, 1.0) == 1.0
    assert choice("c", "a", ("a", "b")) == "a"


@pytest.mark.parametrize(
    ("check", "kind", "message"),
    [
        (lambda: integer("n", 2, 3), ValueError, "n must be at least 3, but got 2."),
        (lambda: integer("n", 3.0, 3), TypeError, "n must be an integer, but got 3.0."),
        (lambda: integer("n", True, 0), TypeError, "n must be an integer, but got True."),
        (lambda: real("x", 1.5, 0.0, 1.0), ValueError, "x must be between 0 and 1, but got 1.5."),
        (lambda: real("x", np.nan, 0.0, 1.0), ValueError, "x must be between 0 and 1, but got nan"),
        (lambda: real("x", "1", 0.0, 1.0), TypeError, "x must be a number, but got '1'."),
        (lambda: choice("c", "d", ("a", "b")), ValueError, "c must be one of 'a', 'b', but got 'd"),
    ],
)
def test_what_is_not_allowed_is_named(check, kind, message) -> None:
    with pytest.raises(kind) as caught:
        check()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("value", [None, np.nan, np.inf, -np.inf])
def test_no_database_keeps_what_is_not_finite(value) -> None:
    assert finite_or_none(value) is None


def test_a_finite_number_becomes_a_plain_one() -> None:
    found = finite_or_none(np.float64(-1.5))
    assert type(found) is float
    assert found == -1.5


def test_missing_says_what_to_install() -> None:
    error = missing("a figure", "plotly", "matplotlib")
    assert isinstance(error, InputError)
    assert str(error) == ("a figure needs plotly and matplotlib: pip install plotly matplotlib")


def test_a_name_is_no_study() -> None:
    """Whoever asks about a study by its name learns how to load it."""
    asked = [
        check,
        summary,
        report,
        lambda study: explain(study, 0),
        lambda study: requeue(study, 1),
        lambda study: plot_forecast(study, 0),
    ]
    for ask in asked:
        with pytest.raises(
            TypeError, match=r"optuna\.load_study\(study_name='x', storage=\.\.\.\)"
        ):
            ask("x")
        with pytest.raises(TypeError, match=r"must be an optuna\.Study, but got None"):
            ask(None)
