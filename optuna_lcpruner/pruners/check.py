"""``check(study)``: is all as the pruner needs it, and from when on will it prune?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.formatting import count, table
from optuna_lcpruner._util.validation import loaded
from optuna_lcpruner.curves.horizon import MIN_TRIALS_TO_JUDGE
from optuna_lcpruner.curves.learning_curve import MAX_KNOTS
from optuna_lcpruner.decision.decision import Reason
from optuna_lcpruner.decision.preconditions import Preconditions
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
from optuna_lcpruner.study.standings import MOST_TRAININGS
from optuna_lcpruner.study.summary import MetricProblem, StudySummary
from optuna_lcpruner.study.units import changed_unit


@dataclass(frozen=True)
class Finding:
    """What was found about one thing.

    Attributes:
        about: What: ``"pruner"``, ``"n_steps"``, ``"steps"``, ``"direction"``, ``"metric"``,
            ``"target"``, ``"unit"``, ``"folds"``, ``"constraints"``, ``"stops"``, ``"workers"`` or
            ``"pruning"``.
        is_problem: Whether something should be changed.
        text: What was found, in words.
    """

    about: str
    is_problem: bool
    text: str


@dataclass(frozen=True)
class Check:
    """What :func:`check` found; ``print`` shows it.

    Attributes:
        study: The study's name.
        findings: One a thing.
    """

    study: str
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> list[Finding]:
        """Those by which something should be changed."""
        return [finding for finding in self.findings if finding.is_problem]

    def __str__(self) -> str:
        rows = [("PROBLEM" if f.is_problem else "ok", f.about, f.text) for f in self.findings]
        found = count(len(self.problems), "problem") if self.problems else "no problem"
        return table((self.study, "", found), rows, left=(0, 1, 2))


def check(study: Study, pruner: BasePruner | None = None) -> Check:
    """Look whether a study's trials are as the pruner needs them, and from when on it prunes.

    After three completed trials most mistakes show. During the search the log warns of the same.
    The study is only read.

    Args:
        study: The study.
        pruner: The pruner that is to be used; by default the study's own.

    Example:
        >>> import optuna
        >>> from optuna_lcpruner import LearningCurvePruner, check
        >>> study = optuna.create_study(pruner=LearningCurvePruner(n_steps=40))
        >>> check(study).problems
        []
    """
    loaded(study)
    return Check(study.study_name, tuple(_findings(study, pruner or study.pruner)))


def _findings(study: Study, pruner: BasePruner) -> Iterator[Finding]:
    own = isinstance(pruner, LearningCurvePruner)
    name = repr(pruner) if own else type(pruner).__name__
    hint = "" if own else ": Optuna stores no pruner, so pass pruner=LearningCurvePruner(...)"
    yield Finding("pruner", not own, name + hint)
    settings = pruner if isinstance(pruner, LearningCurvePruner) else LearningCurvePruner()
    conditions = settings.judge.conditions
    if len(study.directions) > 1:
        yield Finding("direction", True, f"{len(study.directions)} objectives; it prunes none")
        return
    maximize = study.direction == StudyDirection.MAXIMIZE
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    summary = settings.judge.new_reader().new_record(maximize).update(completed)
    yield _length(conditions, summary)
    if summary.n_curves:
        yield from _unit(study, summary)
        yield _steps(summary)
        yield from _metric(summary, maximize, conditions.check_metric)
        yield _folds(completed)
    if summary.n_feasible < summary.n_completed:
        yield Finding(
            "constraints",
            summary.n_feasible == 0,
            f"{summary.n_feasible} of {summary.n_completed} completed trials keep them",
        )
    if summary.n_told_to_stop:
        yield Finding(
            "stops",
            True,
            f"{count(summary.n_told_to_stop, 'trial')} told to stop returned a value all the same: "
            "raise optuna.TrialPruned where should_prune() is true",
        )
    yield from _workers(study, completed)
    yield _pruning(settings, conditions, summary)


def _workers(study: Study, completed: Sequence[FrozenTrial]) -> Iterator[Finding]:
    """Trials that nobody trains any more, by how long completed ones took."""
    longest = max((t.duration for t in completed if t.duration), default=timedelta(0))
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    since = datetime.now() - MOST_TRAININGS * longest
    dead = [t for t in running if longest and t.datetime_start and t.datetime_start < since]
    if dead:
        yield Finding(
            "workers",
            True,
            f"{count(len(dead), 'trial')} running for longer than {MOST_TRAININGS:g} trainings "
            "take: was the worker killed? With RDBStorage(url, heartbeat_interval=60) Optuna "
            "fails them",
        )


def _length(conditions: Preconditions, summary: StudySummary) -> Finding:
    lengths = summary.lengths
    doubt = lengths.doubt_about(conditions.n_steps)
    if doubt is not None:
        return Finding("n_steps", True, doubt)
    if conditions.n_steps is not None:
        shown = "" if lengths.n_steps is None else f"; completed trials show {lengths.n_steps:g}"
        return Finding("n_steps", False, f"{conditions.n_steps}, as given{shown}")
    if lengths.n_steps is None:
        return Finding("n_steps", False, "unknown until a trial completes; better pass it")
    return Finding("n_steps", False, f"{lengths.n_steps:g}, as completed trials show")


def _steps(summary: StudySummary) -> Finding:
    lengths = summary.lengths
    return Finding(
        "steps",
        False,
        f"{lengths.first_step:g} to {lengths.median_last_step:g}, {lengths.stride or 1:g} from "
        "one report to the next: n_steps is in this unit",
    )


def _metric(summary: StudySummary, maximize: bool, checked: bool) -> Iterator[Finding]:
    problem = summary.problem if checked else None
    wrong = problem is MetricProblem.WRONG_DIRECTION
    direction = "maximize" if maximize else "minimize"
    yield Finding("direction", wrong, problem.value if problem and wrong else direction)
    if problem is not None and not wrong:
        yield Finding("metric", True, problem.value)
        return
    if summary.n_curves < MIN_TRIALS_TO_JUDGE:
        judged = count(MIN_TRIALS_TO_JUDGE, "completed trial")
        yield Finding("metric", False, f"not judged yet, nor the direction: that takes {judged}")
        return
    if not checked:
        yield Finding("metric", False, "not judged, nor the direction: check_metric=False")
        return
    yield Finding("metric", False, "the returned value fits the reported ones")
    yield Finding("target", False, f"the objective returns its {summary.target.value} report")


def _unit(study: Study, summary: StudySummary) -> Iterator[Finding]:
    """Say where nothing but trials of another unit have been stopped since one completed."""
    stopped = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    starts = {
        t.number: t.intermediate_values[min(t.intermediate_values)]
        for t in stopped
        if t.intermediate_values
    }
    changed = changed_unit(starts, summary)
    if changed is not None:
        yield Finding("unit", True, changed)


def _folds(completed: Sequence[FrozenTrial]) -> Finding:
    """Scores of cross-validation are no learning curve: the value is their mean."""
    several = [t for t in completed if len(t.intermediate_values) > 1 and t.value is not None]
    means = [np.mean(list(t.intermediate_values.values())) for t in several]
    same = [
        bool(np.isclose(mean, float(t.value or 0.0)))
        for mean, t in zip(means, several, strict=True)
    ]
    if len(same) > 1 and np.mean(same) > 0.8:
        return Finding(
            "folds",
            True,
            "the returned value is the mean of the reports: if these are the folds of a "
            "cross-validation they are no learning curve; WilcoxonPruner is for them",
        )
    return Finding("folds", False, "none: the returned value is not the mean of the reports")


def _pruning(
    pruner: LearningCurvePruner, conditions: Preconditions, summary: StudySummary
) -> Finding:
    refusal = conditions.with_study(summary, 0, lambda topic, message: None)
    waits = refusal is not None and refusal.reason in (Reason.STARTUP, Reason.NO_BEST_VALUE)
    if refusal is not None and not waits:
        return Finding("pruning", False, f"none by forecast: {refusal.message}")
    missing = max(
        conditions.n_startup_trials - summary.n_curves, conditions.n_best - summary.n_feasible
    )
    when = f"after {count(missing, 'more completed trial')}" if waits else "from now on"
    first = f"from step {conditions.n_warmup_steps} and " if conditions.n_warmup_steps else "from "
    lengths = summary.lengths
    n_reports = (conditions.n_steps or lengths.n_steps or 0) / (lengths.stride or 1.0)
    looks = f"third of {MAX_KNOTS} parts" if n_reports > MAX_KNOTS else "second report"
    words = f"by forecast {when}, {first}the {looks} on"
    if waits and pruner.judge.ranks_early:
        words += "; before that by early ranks, where three other trials are under way"
    return Finding("pruning", False, words)
