"""Draw cost against regret from the results of ``replay.py --json``.

    python tests/bench/front.py RESULTS.json ... FIGURE.png

Ours is the line of its one knob; every other pruner is a point. Lower left is better. Bars are the
standard errors of the mean over replays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

NOT_ON_THE_KNOB = ("threshold_0.05", "ensemble_0.05", "one_curve_0.05")
"""Of ours, but not points of the line."""


def summary(replays: list[dict]) -> tuple[float, float, float]:
    """Mean cost, mean regret and the regret's standard error."""
    regret = np.array([r["regret"] for r in replays])
    return (
        float(np.mean([r["cost"] for r in replays])),
        float(regret.mean()),
        float(regret.std() / np.sqrt(regret.size)),
    )


def main() -> None:
    """Parse arguments, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("figure", type=Path)
    arguments = parser.parse_args()
    results = {k: v for path in arguments.results for k, v in json.loads(path.read_text()).items()}
    points = {k: summary(v) for k, v in results.items() if v}
    points.pop("none", None)
    ours = {
        "risk 0.04 (default)" if name == "default" else name.replace("_", " "): point
        for name, point in points.items()
        if name == "default" or name.startswith("risk_")
    }
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    cost, regret, error = np.array(sorted(ours.values())).T
    axes.errorbar(
        cost, regret, error, color="tab:blue", marker="o", lw=2, capsize=2,
        label="LearningCurvePruner along its knob",
    )  # fmt: skip
    for name, (x, y, _) in ours.items():
        axes.annotate(
            name,
            (x, y),
            xytext=(-6, -6),
            textcoords="offset points",
            fontsize=7,
            color="tab:blue",
            ha="right",
        )
    for name, (x, y, error) in points.items():
        if name == "default" or name.startswith("risk_"):
            continue
        color, below = ("tab:cyan", -10) if name in NOT_ON_THE_KNOB else ("tab:red", 4)
        axes.errorbar(x, y, error, color=color, marker="s", ms=4, lw=1, capsize=2)
        axes.annotate(
            name.replace("_", " "),
            (x, y),
            xytext=(5, below),
            textcoords="offset points",
            fontsize=7,
            color=color if below < 0 else "black",
        )
    axes.set_xlabel("cost: share of all steps spent")
    axes.set_ylabel("regret: 0 the best was kept, 1 the median trial")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=-0.012)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.figure, dpi=110)


if __name__ == "__main__":
    main()
