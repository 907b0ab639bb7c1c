"""Draw the two figures of docs/how_it_decides.md from a recorded study.

    python tests/bench/concepts.py docs

One trial after a few epochs, among those that have completed: its forecast, and the part of it that
lies beyond the best value. And P(beat) of some trials at every look, with the threshold.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from optuna_lcpruner import Decision, Forecast, LearningCurvePruner
from optuna_lcpruner.posterior.opinion_pool import OpinionPool

RECORDED = Path(__file__).parents[1] / "recorded" / "friedman_r2.npz"

N_COMPLETED = 12
"""The first trials of that study: they have completed before those that are shown."""

SHOWN, N_SEEN = 43, 20
"""The trial of the first figure, and the reports it has made."""

FOLLOWED = {57: "C2", 43: "C0", 40: "C1", 24: "C3"}
"""The trials of the second figure: what they are drawn in."""


class Keeping:
    """The default engine, with its last forecast at hand."""

    def __init__(self) -> None:
        self.engine = OpinionPool()
        self.last: Forecast | None = None

    def __call__(self, *question: Any) -> Forecast:
        self.last = self.engine(*question)
        return self.last


def study_of(curves: np.ndarray) -> optuna.Study:
    """A study in which these curves have completed."""
    study = optuna.create_study(direction="maximize")
    for curve in curves:
        reports = dict(enumerate(curve.tolist()))
        study.add_trial(
            optuna.trial.create_trial(value=float(curve[-1]), intermediate_values=reports)
        )
    return study


def followed(study: optuna.Study, pruner: LearningCurvePruner, curve: np.ndarray) -> list[Decision]:
    """What is decided after each report of this curve until it is pruned."""
    trial, decisions = study.ask(), []
    for step, value in enumerate(curve.tolist()):
        trial.report(value, step)
        decisions.append(pruner.decide(study, study._storage.get_trial(trial._trial_id)))
        if decisions[-1].prune:
            break
    return decisions


def draw_p_beat(figure: Any, curves: np.ndarray) -> None:
    """One trial, its forecast, and the part of it beyond the best value."""
    n, earlier, curve = curves.shape[1], curves[:N_COMPLETED], curves[SHOWN]
    engine = Keeping()
    pruner = LearningCurvePruner(n_steps=n, engine=engine, risk=0.0)
    decision = followed(study_of(earlier), pruner, curve[:N_SEEN])[-1]
    print(f"trial {SHOWN} after {N_SEEN} reports: P(beat) = {decision.p_beat:.2f}")
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (3, 1)})
    steps = np.arange(1, n + 1)
    for i, other in enumerate(earlier):
        left.plot(steps, other, color="0.75", lw=0.8, label="completed trials" if i == 0 else None)
    left.plot(steps[:N_SEEN], curve[:N_SEEN], color="C0", lw=2.5, label="this trial so far")
    left.plot(
        steps[N_SEEN - 1 :], curve[N_SEEN - 1 :], "C0:", label="how it went on, not known then"
    )
    for axes in (left, right):
        axes.axhline(decision.incumbent, color="C3", lw=1)
        axes.spines[["top", "right"]].set_visible(False)
    left.annotate(
        "the best value so far", (1, decision.incumbent), xytext=(0, 4),
        textcoords="offset points", color="C3",
    )  # fmt: skip
    left.set(xlabel="epoch", ylabel="validation R²", ylim=(0.4, 1.0), xlim=(0, n))
    left.legend(frameon=False, loc="lower right", fontsize="small")
    assert engine.last is not None
    y = np.linspace(0.2, 1.0, 1000)
    density = engine.last.pdf(y)
    right.plot(density, y, color="C0", lw=1)
    beyond = y > decision.incumbent
    right.fill_betweenx(y[~beyond], density[~beyond], color="C0", alpha=0.2)
    right.fill_betweenx(y[beyond], density[beyond], color="C3", alpha=0.6)
    right.annotate(
        f"P(beat) = {decision.p_beat:.2f}", (0.98, decision.incumbent), xytext=(0, 12),
        xycoords=("axes fraction", "data"), textcoords="offset points", color="C3", ha="right",
    )  # fmt: skip
    right.set(xlabel="density", xticks=[], xlim=(0, 1.05 * density.max()))
    right.set_title("its forecast of the end", fontsize="medium")


def draw_decisions(figure: Any, curves: np.ndarray) -> None:
    """Curves of some trials; P(beat) after each of their reports, and the threshold."""
    n, earlier = curves.shape[1], curves[:N_COMPLETED]
    left, right = figure.subplots(1, 2)
    thresholds: dict[int, float] = {}
    for number, colour in FOLLOWED.items():
        study, pruner = study_of(earlier), LearningCurvePruner(n_steps=n)
        decisions = followed(study, pruner, curves[number])
        judged = [d for d in decisions if d.p_beat is not None and d.step is not None]
        thresholds |= {d.step: d.threshold for d in judged}
        pruned, ran = decisions[-1].prune, len(decisions)
        fate = f"pruned after {ran} reports" if pruned else "runs to its end"
        print(f"trial {number}: {fate}, {curves[number, -1]:.3f} at the end")
        left.plot(np.arange(1, ran + 1), curves[number, :ran], color=colour, lw=2)
        left.plot(np.arange(ran, n + 1), curves[number, ran - 1 :], color=colour, ls=":", lw=1)
        right.plot([d.step + 1 for d in judged], [d.p_beat for d in judged], color=colour, lw=2)
        if pruned:
            left.plot(ran, curves[number, ran - 1], "X", color=colour, ms=9)
            right.plot(ran, decisions[-1].p_beat, "X", color=colour, ms=9)
    best = float(earlier[:, -1].max())
    print(f"best of the completed trials: {best:.3f}")
    left.axhline(best, color="0.3", lw=1)
    left.annotate("the best value so far", (1, best), xytext=(0, 4), textcoords="offset points")
    left.plot([], [], "X", color="0.3", ms=9, label="pruned here")
    left.plot([], [], ":", color="0.3", label="how it would have gone on")
    left.set(xlabel="epoch", ylabel="validation R²", ylim=(0.2, 1.0), xlim=(0, n + 1))
    left.legend(frameon=False, loc="lower right", fontsize="small")
    steps = sorted(thresholds)
    right.plot(
        np.array(steps) + 1, [thresholds[s] for s in steps], color="0.3", ls="--", label="threshold"
    )
    right.set(xlabel="epoch", ylabel="P(beat)", yscale="log", ylim=(2e-4, 1.5), xlim=(0, n + 1))
    right.legend(frameon=False, loc="lower left", fontsize="small")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Parse arguments, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    from matplotlib.figure import Figure  # slow to import, and only needed here

    curves = np.load(RECORDED)["curves"]
    curves = curves[np.all(np.isfinite(curves), axis=1)]
    for draw, name in ((draw_p_beat, "p_beat"), (draw_decisions, "decisions")):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        draw(figure, curves)
        figure.savefig(folder / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
