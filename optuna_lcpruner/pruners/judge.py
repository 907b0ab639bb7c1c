"""From a trial to a decision: check the reports, read the study, ask the engine, apply the rule.

A `Judge` is its settings and these steps. It remembers and records nothing: that is the pruner's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.arrays import IntArray
from optuna_lcpruner._util.attributes import REQUEUED_ATTRIBUTE
from optuna_lcpruner._util.formatting import number
from optuna_lcpruner._util.optuna_storage import study_id_of, trial_id_of
from optuna_lcpruner._util.redaction import redact
from optuna_lcpruner.curves.learning_curve import LearningCurve, ordered, usable
from optuna_lcpruner.curves.scale import oriented
from optuna_lcpruner.decision.control_group import in_control_group
from optuna_lcpruner.decision.decision import Decision, Reason, abstain
from optuna_lcpruner.decision.preconditions import Preconditions, Reports, Warn
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.decision.self_check import Caution, self_check
from optuna_lcpruner.posterior.interface import Engine, FastEngine, StudyKnowledge, Target
from optuna_lcpruner.pruners._answer import Answer, Answers, Case, ask
from optuna_lcpruner.pruners.executor import Background, Question
from optuna_lcpruner.records.ledger import DecisionContext
from optuna_lcpruner.study.feasibility import is_feasible
from optuna_lcpruner.study.history import StudyRecord
from optuna_lcpruner.study.reader import StudyReader
from optuna_lcpruner.study.stand_in import is_made_up
from optuna_lcpruner.study.standings import Standing
from optuna_lcpruner.study.summary import StudySummary

_MOST_BEFORE = 10  # heuristic
"""Reports after which a trial without a finite one has diverged, whatever others reported."""

_FEW = 16  # heuristic
"""Completed curves from which on early ranks are not asked: their share would be this small."""


@dataclass(frozen=True)
class Judge:
    """The settings of :class:`~optuna_lcpruner.LearningCurvePruner`, and what follows from them.

    Attributes:
        conditions: What stands before a forecast.
        rule: When a forecast or a rank stops a trial.
        engine: The posterior.
        target: Which report the objective returns, or ``"auto"``.
        ranks_early: Whether it counts where a trial stands while few have completed.
        by_time: Whether a training costs the time it takes.
        control_fraction: Share of the trials that run on all the same.
    """

    conditions: Preconditions
    rule: Rule
    engine: Engine
    target: str
    ranks_early: bool
    by_time: bool
    control_fraction: float

    def new_reader(self, record: StudyRecord | None = None) -> StudyReader:
        """Return what reads a study's trials.

        Args:
            record: What was read of them before, if anything.
        """
        # A length that the user gave holds whatever trials announce.
        return StudyReader(self.conditions.n_steps is None, self.conditions.n_best, record)

    def decide(
        self,
        study: Study,
        trial: FrozenTrial,
        record: StudyRecord,
        warn: Warn,
        context: DecisionContext | None = None,
    ) -> Decision:
        """Decide as for the first time, with the reason in words. Never raises.

        Args:
            study: The study.
            trial: The trial.
            record: Of the study's completed trials, what was read before.
            warn: Called with ``(topic, message)`` about what should be said once.
            context: Filled in with what was looked at.
        """
        context, reader = context or DecisionContext(""), self.new_reader(record)
        with np.errstate(all="ignore"):  # whatever the caller has made errors
            return in_words(lambda: self.judge(study, trial, reader, context, warn), warn)

    def judge(
        self,
        study: Study,
        trial: FrozenTrial,
        reader: StudyReader,
        context: DecisionContext,
        warn: Warn,
        background: Background | None = None,
    ) -> Decision:
        """Decide about a trial. Each step returns what the next one needs, or the decision.

        Args:
            study: The study.
            trial: The trial.
            reader: Reads the study's trials.
            context: Filled in with what was looked at.
            warn: Called with ``(topic, message)`` about what should be said once.
            background: Makes the forecasts, if they are not waited for.
        """
        reports = check_reports(study, trial, self.conditions, context, warn)
        if isinstance(reports, Decision):
            if reports.reason is Reason.DIVERGED:
                return self._already_better(study, trial, reader) or reports
            return reports
        case = self._read(study, trial, reports, reader, context, warn)
        if isinstance(case, Decision):
            return case
        answered = self._forecast(study, trial, case, background)
        if isinstance(answered, Decision):
            return answered
        return self._apply_rule(study, trial, case, answered, context)

    def _already_better(
        self, study: Study, trial: FrozenTrial, reader: StudyReader
    ) -> Decision | None:
        """The decision about a diverged trial whose best report, its value, is the study's best."""
        if self.target == "last" or is_made_up(trial):
            return None
        maximize = study.direction == StudyDirection.MAXIMIZE
        steps, values = ordered(trial.intermediate_values)
        reported = oriented(values[usable(values)], maximize)
        _, summary = reader.read(study, maximize)
        is_best = np.isfinite(summary.incumbent) and np.any(reported > summary.incumbent)
        if self._target(summary) is not Target.BEST or not is_best or not is_feasible(trial):
            return None
        best = float(oriented(np.max(reported), maximize))
        detail = f"{number(best)} reported before {values[-1]}, and the best report is returned"
        return abstain(Reason.ALREADY_BETTER, detail, int(steps[-1]))

    def _read(
        self,
        study: Study,
        trial: FrozenTrial,
        reports: Reports,
        reader: StudyReader,
        context: DecisionContext,
        warn: Warn,
    ) -> Case | Decision:
        """Put the trial's curve beside what the study knows, unless that alone decides."""
        step = reports.step
        maximize = study.direction == StudyDirection.MAXIMIZE
        steps = reports.steps[reports.finite]
        values = oriented(reports.values[reports.finite], maximize)
        if is_made_up(trial):
            record, summary = reader.read_made_up(study, trial, maximize, self.target)
        else:
            record, summary = reader.read(study, maximize)
        context.incumbent_trial = summary.incumbent_trial
        refusal = self.conditions.with_study(summary, step, warn)
        waits = refusal is not None and refusal.reason in (Reason.STARTUP, Reason.NO_BEST_VALUE)
        if refusal is not None and not (waits and self.ranks_early):
            return refusal
        says = _quiet if waits else warn
        curve = self.conditions.curve(reports, values, trial.user_attrs, summary, says)
        if isinstance(curve, Decision):
            return refusal or curve
        standing = self._standing(study, trial, curve, steps, reader, summary)
        if refusal is not None:
            if standing is None:
                return refusal
            requeued = REQUEUED_ATTRIBUTE in trial.user_attrs
            n = self.conditions.n_startup_trials
            slowness = self._slowness(study, trial, reader)
            judged = self.rule.judge_among(standing, curve.seen, n, requeued, slowness)
            return judged or refusal
        if standing is not None:
            curve = replace(curve, p_by_ranks=standing.p_beats_completed)
        target = self._target(summary)
        with reader.lock:
            knowledge = record.knowledge(summary, curve.horizon, curve.stride, target)
        refusal = self.conditions.whole_trainings(knowledge, step)
        if refusal is not None:
            return refusal
        context.horizon = curve.horizon
        reached = float(values[-1] if target is Target.LAST else values.max())
        return Case(
            curves=(curve, *self.conditions.earlier(curve, steps, self.rule.patience - 1)),
            knowledge=knowledge,
            step=step,
            incumbent=summary.incumbent if maximize else -summary.incumbent,
            ahead=reached > summary.incumbent,
            slowness=self._slowness(study, trial, reader),
        )

    def _target(self, summary: StudySummary) -> Target:
        """Which report the objective returns."""
        return summary.target if self.target == "auto" else Target(self.target)

    def _slowness(self, study: Study, trial: FrozenTrial, reader: StudyReader) -> float:
        """How many times as long a trial takes a report as others; 1 where that does not count."""
        if not self.by_time or is_made_up(trial):
            return 1.0
        return reader.slowness(study, trial)

    def _standing(
        self,
        study: Study,
        trial: FrozenTrial,
        curve: LearningCurve,
        steps: IntArray,
        reader: StudyReader,
        summary: StudySummary,
    ) -> Standing | None:
        """Where a trial stands among the others, while few have completed."""
        # Where completed trials broke constraints, who is ahead may break them too.
        few = summary.n_curves < _FEW and summary.n_feasible == summary.n_completed
        if not self.ranks_early or not few or is_made_up(trial):
            return None
        return reader.standing(study, trial, curve, steps, self.conditions.check_metric)

    def _forecast(
        self, study: Study, trial: FrozenTrial, case: Case, background: Background | None
    ) -> Answers | Decision:
        """Ask the engine about the curves, here or in the background."""
        curves, step = case.curves, case.step
        if background is None or is_made_up(trial):  # could not be told from another one
            answers = [ask(self.engine, look, case.knowledge, case.incumbent) for look in curves]
        else:
            key = (study_id_of(study), trial_id_of(trial), trial.datetime_start)
            answer = background.exchange(key, Question(curves, case.knowledge, step))
            if answer is None:
                return abstain(Reason.FORECAST_PENDING, "", step)
            curves, step = answer.question.curves, answer.question.step
            answers = [Answer.of(forecast, case.incumbent) for forecast in answer.forecasts]
        doubt = next((answer.doubt for answer in answers if answer.doubt), "")
        if doubt:
            return abstain(Reason.NOT_CONVERGED, doubt, step)
        return Answers(curves, step, answers)

    def _apply_rule(
        self,
        study: Study,
        trial: FrozenTrial,
        case: Case,
        answered: Answers,
        context: DecisionContext,
    ) -> Decision:
        """Compare P(beat) with the threshold."""
        n_before = trial.number
        if is_made_up(trial):
            n_before = len(study.get_trials(deepcopy=False))
        caution = self._caution(case.knowledge, case.curves[0].horizon)
        newest, *earlier = [
            (
                answer,
                self.rule.threshold_at(1 + n_before, look.seen, caution.factor, case.slowness),
            )
            for answer, look in zip(answered.answers, answered.curves, strict=True)
        ]
        context.caution, context.forecast = caution.factor, newest[0].forecast
        return self.rule.judge(
            newest[0].p,
            newest[1],
            step=answered.step,
            incumbent=case.incumbent,
            forecast=newest[0].forecast,
            ahead=case.ahead,
            earlier=[(answer.p, threshold) for answer, threshold in earlier],
            spare=lambda: self._spared(study, trial),
            remark="; ".join(filter(None, (caution.remark, _pace_in_words(case.slowness)))),
        )

    def _caution(self, knowledge: StudyKnowledge, horizon: int) -> Caution:
        """Return how careful to be, worked out anew when another trial has completed."""
        if getattr(self.engine, "p_and_forecast", None) is None:  # a second or two a look
            return Caution()
        engine, n = cast(FastEngine, self.engine), self.conditions.n_startup_trials
        return knowledge.cached(
            ("caution", horizon),
            lambda: self_check(engine, self.rule, knowledge, horizon, n),
        )

    def _spared(self, study: Study, trial: FrozenTrial) -> Reason | None:
        """Why a trial runs on although the forecast is against it, if so."""
        if REQUEUED_ATTRIBUTE in trial.user_attrs:
            return Reason.REQUEUED
        if in_control_group(study.study_name, trial.number, self.control_fraction):
            return Reason.CONTROL
        return None


def check_reports(
    study: Study,
    trial: FrozenTrial,
    preconditions: Preconditions,
    context: DecisionContext,
    warn: Warn,
) -> Reports | Decision:
    """Return the reports to forecast from, or the decision that they alone make.

    Args:
        study: The study.
        trial: The trial.
        preconditions: The settings.
        context: Filled in with what was looked at.
        warn: Called with ``(topic, message)`` about what should be said once.
    """
    if len(study.directions) > 1:
        return abstain(Reason.MULTI_OBJECTIVE, "pruning needs a single objective")
    if not trial.intermediate_values:
        return abstain(Reason.NOTHING_REPORTED)
    if preconditions.prune_infeasible and not is_feasible(trial):
        return abstain(Reason.INFEASIBLE, "", max(trial.intermediate_values))
    steps, values = ordered(trial.intermediate_values)
    reports = Reports(steps, values, usable(values))
    context.n_points = reports.n_finite
    context.value = float(values[reports.finite][-1]) if context.n_points else None
    looked = preconditions.looks(steps)
    context.look = int(np.count_nonzero(looked))
    early = preconditions.without_storage(reports, bool(looked[-1]))
    diverged = early is not None and early.reason is Reason.DIVERGED
    if diverged and not _has_begun(reports, study, trial):
        return abstain(Reason.TOO_FEW_REPORTS, "none of them finite yet", reports.step)
    return early or preconditions.counts_down(list(trial.intermediate_values), warn) or reports


def _has_begun(reports: Reports, study: Study, trial: FrozenTrial) -> bool:
    """Whether a trial should have a finite report by now: it or another one had, or it is late.

    A metric may be undefined at first: the reward before the first episode has ended.
    """
    return (
        reports.n_finite > 0
        or reports.steps.size > _MOST_BEFORE
        or any(
            at <= reports.step and usable(np.array(value))
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
            for at, value in other.intermediate_values.items()
        )
    )


def in_words(decide: Callable[[], Decision], warn: Warn) -> Decision:
    """Return a decision with its words worked out; one that says so if that fails."""
    try:
        decision = decide()
        decision.description  # noqa: B018
    except Exception as error:
        return failed(error, warn)
    return decision


def failed(error: Exception, warn: Warn) -> Decision:
    """Return the decision where none could be made, and say so once."""
    warn("error", f"could not decide, so the trial goes on: {error!r}")
    return abstain(Reason.FAILED, redact(repr(error)))


def _pace_in_words(slowness: float) -> str:
    if slowness == 1.0:
        return ""
    return f"threshold times {slowness:.2g}, the time it has taken by that of other trials"


def _quiet(topic: str, message: str) -> None:
    """Warn of nothing: while a study waits, its length may yet show."""
