"""should_stop decides what LearningCurvePruner decides in a study of the same trials."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    BAD,
    GOOD_ENDS,
    N_STEPS,
    SpyEngine,
    finished,
    judge,
    make_study,
    reports,
    saturating,
)
from optuna.trial import TrialState

from optuna_lcpruner import Decision, LearningCurvePruner, Reason, should_stop
from optuna_lcpruner.posterior.opinion_pool import OpinionPool

RECORDED = Path(__file__).parents[2] / "recorded"

COMPLETED = [saturating(end) for end in GOOD_ENDS]
DOOMED = BAD[:12]


def recorded(name: str) -> tuple[np.ndarray, str]:
    """The curves of a recorded study that did not diverge, in a random order; its direction."""
    with np.load(RECORDED / f"{name}.npz") as data:
        curves, maximize = data["curves"].astype(float), bool(data["maximize"])
    curves = curves[np.isfinite(curves).all(axis=1)]
    return np.random.default_rng(1).permutation(curves), "maximize" if maximize else "minimize"


def by_pruner(
    curve: np.ndarray, direction: str, others: dict[str, list[np.ndarray]], **settings: Any
) -> Decision:
    """The pruner's decision about a trial that has made these reports, in a study of its own."""
    study = make_study(direction=direction)
    study.add_trials([finished(reports(c)) for c in others.get("completed", [])])
    for name, state in (("stopped", TrialState.PRUNED), ("running", TrialState.RUNNING)):
        study.add_trials([finished(reports(c), state=state) for c in others.get(name, [])])
    pruner = LearningCurvePruner(publish=False, ledger=False, **settings)
    return judge(study, pruner, reports(curve))


@pytest.mark.parametrize(
    ("name", "n_completed", "with_others"),
    [  # each number with others and without, each study with few and with many
        ("digits_accuracy", 0, False),
        ("friedman_r2", 0, True),
        ("digits_loss", 2, False),
        ("digits_accuracy", 2, True),
        ("friedman_r2", 6, False),
        ("digits_loss", 6, True),
        ("digits_accuracy", 20, False),
        ("digits_loss", 20, True),
    ],
)
def test_the_decisions_of_the_pruner(name: str, n_completed: int, with_others: bool) -> None:
    curves, direction = recorded(name)
    others = {"completed": list(curves[:n_completed])}
    if with_others:
        others["stopped"] = [curve[: 3 + i] for i, curve in enumerate(curves[20:25])]
        others["running"] = [curve[: 5 + 2 * i] for i, curve in enumerate(curves[25:31])]
    n = curves.shape[1]
    said = []
    for curve in curves[31:34]:
        for seen in (1, 3, n // 3):
            expected = by_pruner(curve[:seen], direction, others, n_steps=n)
            decision = should_stop(curve[:seen], direction=direction, n_steps=n, **others)
            assert decision == expected
            said.append(decision)
    if n_completed > 2:
        assert {d.reason for d in said} >= {Reason.TOO_FEW_REPORTS, Reason.BELOW_THRESHOLD}
        assert all(d.forecast is not None for d in said if d.p_beat is not None)


def test_both_directions_occur() -> None:
    assert {recorded(name)[1] for name in ("digits_accuracy", "digits_loss")} == {
        "maximize",
        "minimize",
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"risk": 0.3},
        {"threshold": 0.05, "patience": 2},
        {"engine": "closed_form"},
        {"n_warmup_steps": 15},
        {"target": "best"},
        {},
    ],
)
def test_settings_are_those_of_the_pruner(settings: dict[str, Any]) -> None:
    curves, direction = recorded("digits_loss")
    others = {"completed": list(curves[:8])}
    for curve in curves[8:10]:
        decision = should_stop(curve[:9], direction=direction, **others, **settings)
        assert decision == by_pruner(curve[:9], direction, others, **settings)


def test_steps_may_be_given() -> None:
    by_step = [dict(zip(range(500, 10_500, 500), c.tolist(), strict=True)) for c in COMPLETED]
    doomed = dict(zip(range(500, 6500, 500), DOOMED.tolist(), strict=True))
    decision = should_stop(doomed, completed=by_step, n_steps=10_000, direction="maximize")
    plain = should_stop(DOOMED, completed=COMPLETED, n_steps=N_STEPS, direction="maximize")
    assert plain.prune
    assert decision.step == 6000
    assert decision.p_beat == plain.p_beat


def test_final_values_are_what_trainings_returned() -> None:
    values = [0.81, 0.83, 0.85, 0.87, 0.95]
    study = make_study([finished(reports(c), v) for c, v in zip(COMPLETED, values, strict=True)])
    curve = saturating(0.91)[:15]
    decision = should_stop(
        curve, completed=COMPLETED, final_values=values, n_steps=N_STEPS, direction="maximize"
    )
    assert decision == judge(study, LearningCurvePruner(N_STEPS), reports(curve))
    assert decision.incumbent == 0.95


def test_what_completed_trainings_say_is_worked_out_once() -> None:
    engine = SpyEngine(OpinionPool())
    for n in (10, 11, 12):
        should_stop(
            BAD[:n],
            completed=[list(c) for c in COMPLETED],
            running=[saturating(0.7)[:n]],
            n_steps=N_STEPS,
            direction="maximize",
            engine=engine,
        )
    first, *others = engine.knowledge
    assert all(other is first for other in others)
    assert len(others) == 2


def test_another_completed_training_is_another_study() -> None:
    """Also one that differs in a value on the way, or in the value that it returned."""
    asked = {"n_steps": N_STEPS, "direction": "maximize"}
    curve = saturating(0.89)[:12]
    changed = [c.copy() for c in COMPLETED]
    changed[1][7] -= 0.2
    before = should_stop(curve, completed=COMPLETED, **asked)
    for others in ({"completed": changed}, {"completed": COMPLETED[:-1]}):
        now = should_stop(curve, **others, **asked)
        assert now.p_beat != before.p_beat
        assert now == by_pruner(curve, "maximize", others, n_steps=N_STEPS)
    assert should_stop(curve, completed=COMPLETED, **asked) == before


def test_the_caller_may_change_what_it_gave() -> None:
    asked = {"n_steps": N_STEPS, "direction": "maximize"}
    others = [c.copy() for c in COMPLETED]
    before = should_stop(DOOMED, completed=others, **asked)
    others[4][:] += 0.01
    after = should_stop(DOOMED, completed=others, **asked)
    assert after.incumbent == pytest.approx(before.incumbent + 0.01)


def test_an_engine_that_cannot_be_a_key() -> None:
    class Unhashable(SpyEngine):
        __hash__ = None  # type: ignore[assignment]

    decision = should_stop(
        DOOMED,
        completed=COMPLETED,
        n_steps=N_STEPS,
        direction="maximize",
        engine=Unhashable(OpinionPool()),
    )
    assert decision.reason is Reason.BELOW_THRESHOLD


def test_diverged_and_empty() -> None:
    assert should_stop([]).reason is Reason.NOTHING_REPORTED
    assert should_stop([0.5, float("nan")]).reason is Reason.DIVERGED
    nan_once = [*COMPLETED, np.full(N_STEPS, np.nan)]
    asked = {"n_steps": N_STEPS, "direction": "maximize"}
    decision = should_stop(DOOMED, completed=nan_once, **asked)
    assert decision == should_stop(DOOMED, completed=nan_once, **asked)
    assert decision.prune


def test_an_engine_that_fails_lets_the_training_run() -> None:
    def broken(curve: Any, knowledge: Any, positions: Any = None) -> Any:
        raise ArithmeticError("no")

    decision = should_stop(
        DOOMED, completed=COMPLETED, n_steps=N_STEPS, direction="maximize", engine=broken
    )
    assert decision.reason is Reason.FAILED
    assert not decision.prune


def test_it_warns_once_and_logs_nothing_else(logged: list[str]) -> None:
    asked = {"completed": COMPLETED, "direction": "maximize"}
    assert all(should_stop(BAD[:n], n_steps=N_STEPS, **asked).prune for n in (12, 13, 14))
    assert logged == []
    for n in (3, 4, 5):
        should_stop(BAD[:12], n_steps=11, direction="maximize", completed=COMPLETED[:n])
    (warning,) = logged
    assert "n_steps=11" in warning


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"curve": [[0.1, 0.2]]}, ValueError, "a curve of curve must be one-dimensional"),
        ({"curve": {-1: 0.1}}, ValueError, "a step of curve must be at least 0"),
        ({"curve": {0.5: 0.1}}, TypeError, "a step of curve must be an integer"),
        ({"completed": [{"a": 1.0}]}, TypeError, "a step of completed must be an integer"),
        ({"completed": [[]]}, ValueError, "needs a final value"),
        ({"completed": [[0.1]], "final_values": []}, ValueError, "equally long, but got 1 and 0"),
        ({"running": [0.1]}, ValueError, "a curve of running must be one-dimensional"),
        ({"direction": "up"}, ValueError, "direction must be one of 'minimize', 'maximize'"),
        ({"risk": 2.0}, ValueError, "risk must be between 0 and 1"),
        ({"risk": [0.1]}, TypeError, "risk must be a number"),
        ({"patience": 1.0}, TypeError, "patience must be an integer"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1"),
        ({"n_step": 5}, TypeError, "n_step"),
        ({"ledger": False}, TypeError, "ledger is for a study"),
        ({"control_fraction": 0.1}, TypeError, "control_fraction is for a study"),
    ],
)
def test_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    should_stop([0.1], patience=1)  # remembered, and equal to 1.0
    with pytest.raises(error, match=message):
        should_stop(**{"curve": [0.1], **arguments})


def test_threads_that_ask_at_once_hear_the_same() -> None:
    """They share what is read of the completed trainings."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    t = np.arange(20)
    try:
        for i in range(8):
            completed = [e - 0.7 * 0.8**t for e in np.linspace(0.81, 0.9, 40) + 1e-6 * i]
            start = threading.Barrier(6)

            def ask(curves: list[Any] = completed, start: threading.Barrier = start) -> Decision:
                start.wait()
                behind = 0.8 - 0.6 * 0.8 ** t[:8]
                return should_stop(behind, completed=curves, n_steps=20, direction="maximize")

            with ThreadPoolExecutor(6) as pool:
                decisions = [one.result() for one in [pool.submit(ask) for _ in range(6)]]
            assert len({(d.reason, d.p_beat) for d in decisions}) == 1
            assert decisions[0].p_beat is not None
    finally:
        sys.setswitchinterval(before)
