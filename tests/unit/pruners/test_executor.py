"""Forecasts in the background: one in flight, the newest wins, no failure stops training."""

from __future__ import annotations

import os
import pickle
import threading
import time
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest
from by_hand import ByHand
from helpers import BAD, N_STEPS, SpyEngine, good_trials, judge, make_study, names, reports, watch
from serving import wait

from optuna_lcpruner import LearningCurvePruner, Reason
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.posterior.weighted_sum.priors import paper_prior
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC
from optuna_lcpruner.pruners import executor as module
from optuna_lcpruner.pruners.executor import Background, Question, answer, worker_processes

KNOWLEDGE = StudyKnowledge(Scale(0.0, 1.0, True))
DOOMED = BAD[:12]


def question(n: int) -> Question:
    curve = LearningCurve(np.arange(1.0, n + 1), np.linspace(0.1, 0.5, n), 40)
    return Question((curve,), KNOWLEDGE, n)


class Warnings(list[tuple[str, str]]):
    def __call__(self, topic: str, message: str) -> None:
        self.append((topic, message))


def make(executor: Executor, timeout: float = 60.0) -> tuple[Background, Warnings]:
    warnings = Warnings()
    return Background(ClosedForm(), executor, timeout, warnings), warnings


def test_the_answer_comes_at_the_next_check() -> None:
    executor = ByHand()
    background, warnings = make(executor)
    assert background.exchange("a", question(5)) is None
    assert executor.steps == [5]
    executor.finish()
    found = background.exchange("a", question(6))
    assert found is not None
    assert found.question.step == 5
    assert found.forecasts[0].mean() == answer(ClosedForm(), question(5)).forecasts[0].mean()
    assert executor.steps == [6]
    assert background.exchange("a", question(7)) is None  # handed out once
    assert warnings == []


def test_one_in_flight_and_the_newest_waits() -> None:
    executor = ByHand()
    background, _ = make(executor)
    for n in (5, 6, 7, 8):
        assert background.exchange("a", question(n)) is None
        assert executor.steps == [5]
    executor.finish()
    assert executor.steps == [8]  # 6 and 7 were overtaken


def test_an_answer_that_was_overtaken_is_dropped() -> None:
    executor = ByHand()
    background, _ = make(executor)
    background.exchange("a", question(5))
    background.exchange("a", question(6))
    executor.finish()
    executor.finish()
    found = background.exchange("a", question(7))
    assert found is not None
    assert found.question.step == 6


def test_an_executor_that_closes_after_the_search_is_no_news() -> None:
    """Only a check that is made of it is."""

    class Closing(ByHand):
        closed = False

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if self.closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(fn, *args, **kwargs)

    executor = Closing()
    background, warnings = make(executor)
    background.exchange("a", question(5))
    background.exchange("a", question(6))  # waits
    executor.closed = True
    executor.finish()
    assert warnings == []
    background.exchange("a", question(7))
    assert [topic for topic, _ in warnings] == ["executor"]


def test_trials_do_not_wait_for_each_other() -> None:
    executor = ByHand()
    background, _ = make(executor)
    background.exchange("a", question(5))
    background.exchange("b", question(9))
    assert executor.steps == [5, 9]
    executor.finish()
    assert background.exchange("b", question(10)) is None
    found = background.exchange("a", question(6))
    assert found is not None
    assert found.question.step == 5


def test_what_is_kept_of_trials_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial that has not asked for longest is forgotten."""
    monkeypatch.setattr(module, "_MOST_TRIALS", 2)
    executor = ByHand()
    asked, _ = make(executor)
    asked.exchange("a", question(5))
    asked.exchange("b", question(6))
    asked.exchange("a", question(7))
    asked.exchange("c", question(8))
    while executor.work:
        executor.finish()
    found = [asked.exchange(trial, question(9)) for trial in "acb"]
    assert [one and one.question.step for one in found] == [7, 8, None]


def test_a_crash_is_a_warning() -> None:
    executor = ByHand()
    background, warnings = make(executor)
    background.exchange("a", question(5))
    background.exchange("a", question(6))
    executor.fail(RuntimeError("worker died"))
    assert executor.steps == []  # tried again at the next check, not before
    assert background.exchange("a", question(7)) is None
    assert executor.steps == [7]
    assert [topic for topic, _ in warnings] == ["worker"]
    assert "worker died" in warnings[0][1]


def test_a_question_is_sent_once() -> None:
    executor = ByHand()
    background, _ = make(executor)
    for _ in range(3):
        assert background.exchange("a", question(5)) is None
    assert executor.steps == [5]
    executor.finish()
    assert executor.work == []
    assert background.exchange("a", question(5)) is not None
    assert executor.work == []


def test_one_that_failed_is_not_sent_again() -> None:
    executor = ByHand()
    background, warnings = make(executor)
    background.exchange("a", question(5))
    executor.fail(ArithmeticError("no"))
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="no"):
            background.exchange("a", question(5))
    assert executor.work == []
    assert background.exchange("a", question(6)) is None
    executor.finish()
    assert background.exchange("a", question(6)) is not None
    assert [topic for topic, _ in warnings] == ["worker"]


@pytest.mark.parametrize("error", [BrokenProcessPool("killed"), CancelledError()])
def test_one_that_was_lost_with_its_worker_is(error: Exception) -> None:
    executor = ByHand()
    background, _ = make(executor)
    background.exchange("a", question(5))
    executor.fail(error)
    assert background.exchange("a", question(5)) is None
    executor.finish()
    assert background.exchange("a", question(5)) is not None


def test_the_time_in_a_queue_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    executor = ByHand()
    background, warnings = make(executor, timeout=60.0)
    for trial in "abc":
        background.exchange(trial, question(5))
    now = 50.0
    executor.finish()
    now = 100.0
    executor.finish()
    now = 150.0
    assert background.exchange("c", question(5)) is None
    assert len(executor.work) == 1
    assert warnings == []
    now = 161.0
    assert background.exchange("c", question(5)) is None
    assert len(executor.work) == 2  # sent again
    assert [topic for topic, _ in warnings] == ["hung"]


def test_a_hung_worker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    executor = ByHand()
    background, warnings = make(executor, timeout=60.0)
    background.exchange("a", question(5))
    running = executor.work[0][0]
    running.set_running_or_notify_cancel()  # too late to cancel
    now = 61.0
    assert background.exchange("a", question(6)) is None
    assert [topic for topic, _ in warnings] == ["hung"]
    assert executor.steps == [5, 6]
    running.set_result(answer(ClosedForm(), question(5)))  # comes after all: dropped
    executor.work.pop(0)
    assert background.exchange("a", question(7)) is None
    executor.finish()
    found = background.exchange("a", question(8))
    assert found is not None
    assert found.question.step == 6


def test_a_question_in_the_queue_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    executor = ByHand()
    background, _ = make(executor, timeout=60.0)
    background.exchange("a", question(5))
    now = 61.0
    background.exchange("a", question(6))
    assert executor.work[0][0].cancelled()


def test_an_executor_that_is_gone_is_a_warning() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    background, warnings = make(executor)
    assert background.exchange("a", question(5)) is None
    assert background.exchange("a", question(6)) is None
    assert {topic for topic, _ in warnings} == {"executor"}
    assert background.is_refused


# --- in the pruner ---


def make_pruner(**settings: Any) -> LearningCurvePruner:
    defaults = {"n_steps": N_STEPS, "threshold": 0.05, "engine": "closed_form"}
    return LearningCurvePruner(**{**defaults, **settings})


def test_checks_take_the_verdict_on_the_report_before() -> None:
    executor = ByHand()
    waiting = make_pruner()
    background = make_pruner(executor=executor)
    study = make_study(good_trials())
    expected = watch(study, waiting, reports(DOOMED))
    study = make_study(good_trials())
    trial = study.ask()
    decisions = []
    for step, value in reports(DOOMED).items():
        trial.report(value, step)
        decisions.append(background.decide(study, study.get_trials(deepcopy=False)[-1]))
        if executor.work:
            executor.finish()
    assert decisions[1].reason is Reason.FORECAST_PENDING
    assert not decisions[1].prune
    for before, now in zip(expected[1:-1], decisions[2:], strict=True):
        assert (before.reason, before.step) == (now.reason, now.step)
        assert now.p_beat == pytest.approx(before.p_beat, rel=1e-9)
    assert decisions[-1].reason is Reason.BELOW_THRESHOLD


def test_asking_again_at_the_same_report_takes_an_answer() -> None:
    executor = ByHand()
    pruner = make_pruner(executor=executor)
    study = make_study(good_trials())
    trial = study.ask()
    for step, value in reports(DOOMED).items():
        trial.report(value, step)
    frozen = study.get_trials(deepcopy=False)[-1]
    assert not pruner.prune(study, frozen)
    executor.finish()
    assert pruner.prune(study, frozen)
    assert pruner.decide(study, frozen).reason is Reason.BELOW_THRESHOLD


def test_patience_needs_no_more_answers() -> None:
    executor = ByHand()
    pruner = make_pruner(executor=executor, patience=3)
    study = make_study(good_trials())
    trial = study.ask()
    for step, value in reports(DOOMED).items():
        trial.report(value, step)
    frozen = study.get_trials(deepcopy=False)[-1]
    assert not pruner.prune(study, frozen)
    executor.finish()
    assert pruner.prune(study, frozen)


def test_training_does_not_wait() -> None:
    released = threading.Event()

    class Blocked(ClosedForm):
        def __call__(self, *args: Any) -> Any:
            released.wait()
            return super().__call__(*args)

    study = make_study(good_trials())
    with ThreadPoolExecutor(1) as executor:
        try:
            pruner = make_pruner(executor=executor, engine=Blocked(), publish=False)
            decisions = watch(study, pruner, reports(DOOMED))  # done while the engine is not
        finally:
            released.set()
    assert set(names(decisions[1:])) == {"FORECAST_PENDING"}


def test_failures_keep_the_trial_going() -> None:
    class Broken:
        def __call__(self, *args: Any) -> Any:
            raise ArithmeticError("no")

    study = make_study(good_trials())
    with ThreadPoolExecutor(1) as executor:
        pruner = make_pruner(executor=executor, engine=Broken())
        decisions = watch(study, pruner, reports(DOOMED))
    assert not any(decision.prune for decision in decisions)


def test_without_an_executor_the_check_waits() -> None:
    study = make_study(good_trials())
    spy = SpyEngine(ClosedForm())
    decisions = watch(study, make_pruner(engine=spy), reports(DOOMED))
    assert decisions[-1].reason is Reason.BELOW_THRESHOLD
    assert len(spy.curves) == len(DOOMED) - 1


def test_a_pickled_pruner_waits() -> None:
    with ThreadPoolExecutor(1) as executor:
        copied = pickle.loads(pickle.dumps(make_pruner(executor=executor)))
    decisions = watch(make_study(good_trials()), copied, reports(DOOMED))
    assert decisions[-1].reason is Reason.BELOW_THRESHOLD


def test_settings_are_checked() -> None:
    with pytest.raises(TypeError, match="executor"):
        make_pruner(executor=3)
    with pytest.raises(ValueError, match="executor_timeout"):
        make_pruner(executor_timeout=-1.0)


# --- with the sampled posterior ---

SMALL = MCMC(paper_prior(["pow3", "Janoschek", "ilog2"]))


@pytest.mark.slow
def test_the_sampled_posterior_prunes() -> None:
    decision = judge(make_study(good_trials()), make_pruner(engine=SMALL), reports(DOOMED))
    assert decision.reason is Reason.BELOW_THRESHOLD
    assert decision.p_beat is not None
    assert decision.p_beat < 0.05


def test_a_run_without_convergence_decides_nothing() -> None:
    pruner = make_pruner(engine=MCMC(SMALL.prior, max_steps=20))
    decision = watch(make_study(good_trials()), pruner, reports(DOOMED), each=False)[-1]
    assert decision.reason is Reason.NOT_CONVERGED
    assert not decision.prune
    assert "raise max_steps" in decision.message


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_worker_processes_leave_nothing_behind() -> None:
    study = make_study(good_trials())
    with worker_processes(1) as executor:
        pruner = make_pruner(executor=executor, engine=SMALL)
        trial = study.ask()
        for step, value in reports(DOOMED).items():
            trial.report(value, step)
        frozen = study.get_trials(deepcopy=False)[-1]
        deadline = time.monotonic() + 60
        while not pruner.prune(study, frozen) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert pruner.decide(study, frozen).reason is Reason.BELOW_THRESHOLD
        pid = executor.submit(os.getpid).result()
        hangs = executor.submit(time.sleep, 100)
        wait(hangs.running)  # else it is withdrawn rather than ended
    assert not alive(pid)
    with pytest.raises(BrokenProcessPool):  # nobody waited for it
        hangs.result(60)
