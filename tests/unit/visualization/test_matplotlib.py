"""Charts with matplotlib: each layer as it says, and a file without a window."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.visualization import matplotlib as with_matplotlib
from optuna_lcpruner.visualization.charts import Band, Chart, Line, Points

CHART = Chart(
    "A title",
    "Step",
    "US$ and $x$",
    [
        Band([0, 1], [1.0, 2.0], [3.0, 4.0], "band", "#E69F00"),
        Line([0, 1, 2], [1.0, None, 3.0], "curve", "#0072B2", dash="dash", width=4.0, opacity=0.5),
        Points([1, 2], [5.0, 6.0], "points", "#009E73", "diamond", low=[4.0, 5.0], high=[7.0, 8.0]),
    ],
    log_y=True,
    x_range=(0.0, 3.0),
    y_range=(0.5, 9.0),
)

EMPTY = Chart("Nothing", "Step", "Value", [])


@pytest.fixture(autouse=True)
def figures_are_closed() -> Iterator[None]:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def drawn(monkeypatch: pytest.MonkeyPatch, chart: Chart, name: str = "decisions") -> Any:
    """The axes of a chart that one of the functions gets."""
    monkeypatch.setattr(with_matplotlib, f"{name}_chart", lambda *_: chart)
    study: Any = None
    plot = getattr(with_matplotlib, f"plot_{name}")
    return plot(study, 0) if name == "forecast" else plot(study)


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> Any:
    return drawn(monkeypatch, CHART)


@pytest.mark.parametrize(
    "name",
    [name.removeprefix("plot_") for name in with_matplotlib.__all__ if name.startswith("plot_")],
)
def test_each_function_draws_its_chart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, CHART, name).get_title() == "A title"


def test_labels_and_axes(axes: Any) -> None:
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "A title", "Step", "US$ and $x$"
    )  # fmt: skip
    assert not axes.yaxis.label.get_parse_math()
    assert axes.get_yscale() == "log"
    assert (axes.get_xlim(), axes.get_ylim()) == ((0.0, 3.0), (0.5, 9.0))
    assert axes.get_legend_handles_labels()[1] == ["band", "curve", "points"]


def test_a_line_with_a_gap(axes: Any) -> None:
    (line,) = [line for line in axes.lines if line.get_label() == "curve"]
    np.testing.assert_array_equal(line.get_xydata(), [[0, 1], [1, np.nan], [2, 3]])
    assert (line.get_linestyle(), line.get_color(), line.get_alpha()) == ("--", "#0072B2", 0.5)
    assert line.get_linewidth() == 3.0


def test_a_band(axes: Any) -> None:
    (band,) = [one for one in axes.collections if one.get_label() == "band"]
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert corners == {(0.0, 1.0), (0.0, 3.0), (1.0, 2.0), (1.0, 4.0)}


def test_points_with_error_bars(axes: Any) -> None:
    (points,) = [line for line in axes.lines if line.get_label() == "points"]
    np.testing.assert_array_equal(points.get_xydata(), [[1, 5], [2, 6]])
    assert (points.get_marker(), points.get_linestyle()) == ("D", "None")
    (bars,) = [one for one in axes.collections if hasattr(one, "get_segments")]
    np.testing.assert_array_equal(bars.get_segments(), [[[1, 4], [1, 7]], [[2, 5], [2, 8]]])


def test_nothing_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = drawn(monkeypatch, EMPTY)
    assert empty.get_legend() is None
    assert empty.get_yscale() == "linear"


def test_a_document_without_a_window() -> None:
    import matplotlib.pyplot as plt

    document = with_matplotlib.svg_of(CHART)
    assert ElementTree.fromstring(document).tag.endswith("svg")
    assert "dc:date" not in document
    assert plt.get_fignums() == []


class TestWithoutMatplotlib:
    def test_no_axes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
        with pytest.raises(InputError, match="pip install matplotlib"):
            drawn(monkeypatch, CHART)

    def test_no_document(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(InputError, match="pip install matplotlib"):
            with_matplotlib.svg_of(CHART)
