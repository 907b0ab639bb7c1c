"""What would a pruner have done? A finished study, replayed through several pruners.

:func:`backtest` runs every pruner on the same orders of the study's trials and returns a
:class:`~optuna_lcpruner.backtest.BacktestReport`.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import (
    RecordedStudy,
    from_curves,
    from_study,
    maximizes,
    read_file,
)
from optuna_lcpruner.backtest.outcome import Outcome, PrunerResult
from optuna_lcpruner.backtest.replay import DEFAULT_PRUNERS, Replay, make_pruner, replay
from optuna_lcpruner.backtest.report import BacktestReport
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner

Curves = Study | RecordedStudy | str | Path | Iterable[Iterable[float]]
"""A study, its trials as recorded, a file of curves, or the curves themselves."""


def backtest(
    study_or_curves: Curves,
    pruners: Sequence[str | BasePruner] | Mapping[str, str | BasePruner] | None = None,
    *,
    direction: str | None = None,
    n_steps: float | None = None,
    n_orders: int = 20,
    seed: int = 0,
    n_trials: int | None = None,
    budget: float | None = None,
    top: int = 3,
    jobs: int = 1,
    n_workers: int = 1,
    progress: Callable[[int, int], None] | bool = False,
) -> BacktestReport:
    """Replay a finished study's completed trials through pruners, in its and in random orders.

    The same arguments give the same report, times aside, whatever ``jobs`` is.

    Args:
        study_or_curves: An Optuna study, a file of curves or the curves; see
            :mod:`optuna_lcpruner.backtest.data`. A study is only read.
        pruners: Names with settings (:func:`~optuna_lcpruner.backtest.make_pruner`) or
            pruners, or both by a name of one's own; by default ``DEFAULT_PRUNERS``.
        direction: ``"minimize"`` or ``"maximize"``, of curves that do not say; not for a study.
        n_steps: Steps of a full training, by default as announced or seen.
        n_orders: Random orders.
        seed: Of the orders.
        n_trials: Trials of a replay, drawn anew in each order; all by default.
        budget: Full trainings' worth of reports; by default a fifth of the trials, at most 20.
        top: The best feasible trials whose fate is reported.
        jobs: Processes. Above 1 pruners of one's own must be picklable, and a script needs
            ``if __name__ == "__main__":``.
        n_workers: Trials at once, as that many workers of a study would have run them.
        progress: Called with the replays done and their number, first with none done; True shows a
            bar.

    Raises:
        InputError: If an argument, the study or a file cannot be used.
    """
    positive = {"n_orders": n_orders, "top": top, "jobs": jobs, "n_workers": n_workers}
    for name, value in positive.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, but got {value}.")
    if seed < 0:
        raise InputError(f"seed must be at least 0, but got {seed}.")
    study = _read(study_or_curves, direction, n_steps)
    n = len(study.trials)
    if n_trials is not None and n_trials < 2:
        raise InputError(f"n_trials must be at least 2, but got {n_trials}.")
    n_trials = n if n_trials is None else min(n_trials, n)
    budget = float(min(20, math.ceil(n / 5))) if budget is None else budget
    if not 0 < budget < math.inf:
        raise InputError(f"budget must be above 0, but got {budget}.")
    asked = _pruners(pruners, study)

    work = _Work(study, asked, n_trials, budget * study.n_reports, seed, n_workers)
    tasks = [(order, name) for order in range(n_orders + 1) for name in asked]
    replays: dict[tuple[int, str], Replay] = {}
    with progress_bar() if progress is True else nullcontext(progress or _silent) as told:
        told(0, len(tasks))
        for task, result in _run(work, tasks, jobs):
            replays[task] = result
            told(len(replays), len(tasks))

    finals = _finals(study)
    ranked = np.argsort(-finals, kind="stable")  # NaN last
    best = tuple(int(i) for i in ranked[: min(top, int(np.isfinite(finals).sum()))])
    results = []
    for name, pruner in asked.items():
        outcomes = [
            _outcome(order, replays[order, name], study, finals, best, work)
            for order in range(n_orders + 1)
        ]
        ours = isinstance(pruner, LearningCurvePruner)
        results.append(PrunerResult(name, ours, outcomes[0], tuple(outcomes[1:])))
    return BacktestReport(study, n_trials, budget, best, tuple(results), n_workers)


@contextmanager
def progress_bar(disable: bool | None = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, there from the beginning; what it yields moves it on.

    Args:
        disable: Whether to show none; None: unless stderr is a terminal.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]  # Optuna brings it

    with tqdm(desc="replays", disable=disable, leave=False, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            bar.refresh()

        yield progress


def _silent(done: int, total: int) -> None:
    """Show nothing."""


def _read(source: Curves, direction: str | None, n_steps: float | None) -> RecordedStudy:
    if isinstance(source, (RecordedStudy, Study)):
        if direction is not None:
            raise InputError("direction is that of the study; give none.")
        if isinstance(source, Study):
            return from_study(source, n_steps)
        if n_steps is not None:
            raise InputError("n_steps is that of the recorded study; give none.")
        return source
    if isinstance(source, (str, Path)):
        return read_file(source, direction, n_steps)
    maximizes(direction)
    return from_curves(source, str(direction), n_steps=n_steps)


def _pruners(
    pruners: Sequence[str | BasePruner] | Mapping[str, str | BasePruner] | None,
    study: RecordedStudy,
) -> dict[str, BasePruner]:
    if pruners is None:
        pruners = DEFAULT_PRUNERS
    if not isinstance(pruners, Mapping):
        named = [(p if isinstance(p, str) else type(p).__name__, p) for p in pruners]
        if len({name for name, _ in named}) < len(named):
            twice = ", ".join(sorted({n for n, _ in named if sum(n == m for m, _ in named) > 1}))
            raise InputError(f"given twice: {twice}; to tell pruners apart give a mapping by name.")
        pruners = dict(named)
    if not pruners:
        raise InputError("no pruner given.")
    return {
        name: make_pruner(pruner, study) if isinstance(pruner, str) else pruner
        for name, pruner in pruners.items()
    }


@dataclass(frozen=True)
class _Work:
    """What all replays share."""

    study: RecordedStudy
    pruners: Mapping[str, BasePruner]
    n_trials: int
    n_reports: float
    seed: int
    n_workers: int

    def run(self, order: int, name: str) -> Replay:
        n = len(self.study.trials)
        indices = (
            np.random.default_rng([self.seed, order]).permutation(n) if order else np.arange(n)
        )
        return replay(
            self.study,
            indices.tolist(),
            self.pruners[name],
            n_trials=self.n_trials,
            n_reports=self.n_reports,
            n_workers=self.n_workers,
            study_name=f"backtest-{self.seed}-{order}",
        )


def _run(
    work: _Work, tasks: Sequence[tuple[int, str]], jobs: int
) -> Iterator[tuple[tuple[int, str], Replay]]:
    if jobs == 1:
        for task in tasks:
            yield task, work.run(*task)
        return
    # Spawned: a fork would copy locks that other threads hold.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            futures = {pool.submit(work.run, *task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _finals(study: RecordedStudy) -> Array:
    """Final values, larger is better, NaN where a trial diverged or is infeasible."""
    sign = 1.0 if study.maximize else -1.0
    return np.array(
        [sign * t.value if t.feasible and not t.diverged else np.nan for t in study.trials]
    )


def _outcome(
    order: int,
    replayed: Replay,
    study: RecordedStudy,
    finals: Array,
    top: Sequence[int],
    work: _Work,
) -> Outcome:
    trials, spent, pruned = (
        np.array(part) for part in (replayed.trials, replayed.spent, replayed.pruned)
    )
    found = np.where(pruned, np.nan, finals[trials])
    recorded = np.array([len(study.trials[i].steps) for i in trials])
    first = slice(work.n_trials)
    regret, kept = _regret(finals[trials[first]], found[first])
    began = np.array(replayed.before) < work.n_reports
    budget_regret, budget_kept = _regret(finals, found[began])
    fate = {
        int(i): int(n) if stop else None for i, n, stop in zip(trials, spent, pruned, strict=True)
    }
    return Outcome(
        order,
        float(spent[first].sum() / recorded[first].sum()),
        regret,
        kept,
        int(pruned[first].sum()),
        budget_regret,
        budget_kept,
        bool(spent.sum() < work.n_reports),
        tuple(fate.get(i, 0) for i in top),
        replayed.ms_per_decision,
        max(replayed.ended[first]),
        float(np.array(study.step_times)[trials[first]] @ (recorded - spent)[first]),
    )


def _regret(finals: Array, found: Array) -> tuple[float, bool]:
    """Regret of the values found against all final ones, and whether the best is among them."""
    finals, found = (values[np.isfinite(values)] for values in (finals, found))
    if finals.size == 0:
        return 0.0, True  # nothing to find
    best = float(finals.max())
    got = float(found.max()) if found.size else -math.inf
    if got >= best:
        return 0.0, True
    spread = best - float(np.median(finals))
    return (min(1.0, (best - got) / spread) if spread > 0 else 1.0), False
