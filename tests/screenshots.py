"""Pictures in the docs of the study that the quick start leaves: a forecast, optuna-dashboard.

python examples/quickstart.py
python tests/screenshots.py --storage sqlite:///quickstart.db    # --forecast: without a browser
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import optuna
from browser import TrialTable, chromium, serving
from matplotlib.ticker import LogLocator, NullFormatter

from optuna_lcpruner import publish_to_dashboard
from optuna_lcpruner.visualization.matplotlib import plot_forecast

FIGURES_WIDTH, TABLE_WIDTH, HEIGHT = 1400, 2000, 1500
"""Of the window, in pixels."""

N_ROWS = 9


def box_around(elements: list[Any], margin: float) -> dict[str, float]:
    """The part of the page that holds these elements."""
    boxes = [element.bounding_box() for element in elements]
    left, top = (min(box[side] for box in boxes) - margin for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes) + margin
    bottom = max(box["y"] + box["height"] for box in boxes) + margin
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def figures(page: Any, address: str, path: Path) -> None:
    """The study's page: its figures."""
    page.set_viewport_size({"width": FIGURES_WIDTH, "height": HEIGHT})
    page.goto(address)
    page.get_by_text("Calibration of P(beat best)").first.wait_for()
    page.wait_for_timeout(3000)
    shown = page.locator('[id^="user-defined-plot:"]').all()
    page.screenshot(path=path, full_page=True, clip=box_around(shown, margin=8.0))


def table(page: Any, address: str, path: Path) -> None:
    """The trial table sorted by P(beat), without the columns of the parameters."""
    page.set_viewport_size({"width": TABLE_WIDTH, "height": HEIGHT})
    page.goto(address)
    trials = TrialTable(page)
    trials.click("UserAttribute lcpruner_p_beat_best")
    hidden = [
        f"th:nth-child({i + 1}), td:nth-child({i + 1})"
        for i, name in enumerate(page.locator("th").all_inner_texts())
        if name.startswith("Param ")
    ]
    page.add_style_tag(content=f"{', '.join(hidden)} {{ display: none }}")
    trials.header("Number").scroll_into_view_if_needed()
    page.wait_for_timeout(2000)
    rows = page.locator("tbody tr").all()[:N_ROWS]
    header = page.locator("thead").last
    page.screenshot(path=path, full_page=True, clip=box_around([header, *rows], margin=0.0))


def draw_forecast(study: optuna.Study, trial: int, path: Path) -> None:
    """The forecast of a stopped trial, on the scale of the quick start's own figure."""
    axes = plot_forecast(study, trial)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures for the docs.")
    parser.add_argument("--storage", default="sqlite:///quickstart.db")
    parser.add_argument("--study", default="quickstart-1", help="its name")
    parser.add_argument("--trial", type=int, default=22, help="the one whose forecast is drawn")
    parser.add_argument("--forecast", action="store_true", help="draw the forecast only")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "docs")
    args = parser.parse_args()
    study = optuna.load_study(study_name=args.study, storage=args.storage)
    path = args.folder / "forecast.png"
    draw_forecast(study, args.trial, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    if args.forecast:
        return
    publish_to_dashboard(study, every=0)
    with serving(study._storage) as dashboard, chromium(FIGURES_WIDTH, HEIGHT) as page:
        address = f"{dashboard}/studies/{study._study_id}"
        for picture, name in ((figures, "figures"), (table, "table")):
            path = args.folder / f"dashboard_{name}.png"
            picture(page, address, path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
