"""LearningCurvePruner: (study, trial) -> Decision -> bool. The door to Optuna."""

from __future__ import annotations

import copy
import math
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.arrays import IntArray
from optuna_lcpruner._util.attributes import REQUEUED_ATTRIBUTE
from optuna_lcpruner._util.optuna_storage import study_id_of, trial_id_of
from optuna_lcpruner._util.validation import boolean, choice, integer, real
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import oriented
from optuna_lcpruner.decision.control_group import in_control_group
from optuna_lcpruner.decision.decision import Decision, Reason, abstain
from optuna_lcpruner.decision.preconditions import Preconditions, Reports
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.decision.self_check import Caution, self_check
from optuna_lcpruner.posterior.engines import engine_of
from optuna_lcpruner.posterior.interface import Engine, FastEngine, StudyKnowledge, Target
from optuna_lcpruner.pruners._answer import Answer, Answers, Case, ask
from optuna_lcpruner.pruners._memory import DecisionMemory, check_reports
from optuna_lcpruner.pruners.executor import Background, Question
from optuna_lcpruner.records.ledger import DecisionContext
from optuna_lcpruner.records.location import Setting, checked
from optuna_lcpruner.study.history import StudyRecord
from optuna_lcpruner.study.reader import StudyReader
from optuna_lcpruner.study.stand_in import is_made_up
from optuna_lcpruner.study.standings import Standing
from optuna_lcpruner.study.summary import StudySummary

_FEW = 16  # heuristic
"""Completed curves from which on early ranks are not asked: their share would be this small."""

_MOST_STARTUP = 8  # heuristic
"""Who wants more completed trials than this wants nothing to be stopped before."""


class LearningCurvePruner(BasePruner):
    """Stop a trial when its learning curve is unlikely to end better than the study's best value.

    At each report the values so far, ``y_1..y_n`` of a training of ``T`` reports, are extrapolated
    to its end by a Bayesian ensemble of eleven parametric curves and by what similar earlier trials
    went on to gain. The ``M``-th trial of the study is pruned iff::

        P(y_T beats the best value | y_1..y_n, the study)
            <  min(risk, 20 sqrt(risk) / M) * (1 - n / T),

    or, if ``threshold`` is given, iff that probability is below it.

    Values may be on any scale and in either direction; steps may start at 0 or 1, have gaps and
    arrive in any order. The pruner never raises: where it cannot judge it lets the trial run and
    says why (:meth:`decide`, and the trial attribute ``lcpruner_reason``).

    Not promised: the probability is that of a model. A late jump that neither the curve nor an
    earlier trial shows (a first learning-rate drop) is not foreseen, and with a sampler that keeps
    improving later trials have better chances than it says.

    Args:
        n_steps: Steps of a full training, in the unit of the steps given to ``trial.report``
            (epochs: the number of epochs). By default what the objective announces with
            :func:`~optuna_lcpruner.set_n_steps`, else what completed trials show.
        risk: From careful to aggressive, in [0, 1]: bounds the chance that a trial which is stopped
            would have become the best, as far as P is right (measured in docs/benchmarks.md); 0
            never prunes by forecast.
        threshold: Prune below this fixed probability instead; in [0, 1]. The paper's rule is
            ``threshold=0.05`` with ``engine="mcmc"``.
        n_best: How many trials are wanted, for an ensemble or a second stage: a trial is pruned
            when it is unlikely to come among the best ``n_best``. The best value is then the
            ``n_best``-th best, here and in reasons, ledger and report.
        n_startup_trials: Completed trials needed before anything is pruned by forecast.
        n_warmup_steps: No pruning while the step is below this.
        interval_steps: Steps between two looks, counted from ``n_warmup_steps``.
        patience: Consecutive looks below the threshold that it takes to prune.
        target: Which report the objective returns: ``"last"``, ``"best"``, or ``"auto"`` to learn
            it from completed trials.
        nan_policy: ``"prune"`` stops a trial whose newest report is NaN or infinite, after warm-up;
            ``"ignore"`` leaves such reports out.
        check_metric: Whether to prune nothing by forecast, with a warning, where completed trials'
            reports do not fit what they returned or get worse from the first one on; False where
            that is as it should be.
        prune_infeasible: Whether to stop a trial as soon as one of its constraints is known to be
            broken (``trial.set_constraint``, Optuna 5). The best value is that of the best feasible
            trial either way.
        compare_running: Whether it counts, while few trials have completed, where a trial stands
            among all that came as far. Before ``n_startup_trials`` have completed, one is stopped
            that is unlikely to end best of all under way: if three others are at least, not with
            ``patience`` above 1. Not at all with a ``threshold``, nor if ``n_startup_trials`` is
            above eight. False: nothing but divergence stops a trial before ``n_startup_trials``
            have completed.
        cost: What a training costs: ``"steps"``, or the ``"time"`` they take, where some trials are
            faster than others. Then the factor ``1 - n / T`` is multiplied by the time the trial
            has taken, by what the study's ended trials took for as many reports: slow trials are
            stopped sooner and fast ones later. It begins once it shows how long trials take to
            start up, after five of different lengths. What else the machine does makes a trial
            slower, and changes the decision.
        stop_below_std: Also prune once the forecast's standard deviation, in metric units, is below
            this and its median is not better than the best (the paper's optimistic rule, there
            0.005 for accuracies). Off by default.
        publish: Show each decision as user attributes of the trial: ``lcpruner_p_beat_best``,
            ``lcpruner_forecast``, ``lcpruner_forecast_lower``, ``lcpruner_forecast_upper``,
            ``lcpruner_decided_at_step``, ``lcpruner_reason``.
        control_fraction: Share of the trials, in [0, 1], that run on although they would be pruned
            by forecast, so that what pruning costs can be estimated; 0.05 is a good value, by
            default 0. Which ones depends on the study's name and the trial's number alone. They
            have the user attribute ``lcpruner_control_since_step``.
        ledger: Keeps every decision, those that do not prune too, in this database (an SQLAlchemy
            URL). By default, for a study in an SQLite file, in a file of that name with
            ``.lcpruner`` after it; for one in another database there, in tables of our own; for
            one in memory or in a journal nowhere. False: nowhere.
        engine: The posterior: ``"pool"`` as above, ``"closed_form"`` for the ensemble of curves
            without similar trials, ``"mcmc"`` for the paper's weighted combination (a second or two
            a look), or any callable like :class:`~optuna_lcpruner.posterior.Engine`.
        executor: Makes the forecasts while training goes on, a ``concurrent.futures.Executor``: a
            check hands over the curve and judges the newest forecast that is ready. By default a
            check waits for its forecast. A copy made by pickle has no executor.
        executor_timeout: Seconds after which a forecast counts as lost.

    Raises:
        ValueError: If a setting is out of its range.
        TypeError: If a setting is of the wrong type.

    Source: Domhan, Springenberg & Hutter 2015, "Speeding up automatic hyperparameter optimization
    of deep neural networks by extrapolation of learning curves", section 3.
    """

    def __init__(
        self,
        n_steps: int | None = None,
        *,
        risk: float = 0.04,
        threshold: float | None = None,
        n_best: int = 1,
        n_startup_trials: int = 3,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
        patience: int = 1,
        target: str = "auto",
        nan_policy: str = "prune",
        check_metric: bool = True,
        prune_infeasible: bool = False,
        compare_running: bool = True,
        cost: str = "steps",
        stop_below_std: float | None = None,
        publish: bool = True,
        control_fraction: float = 0.0,
        ledger: str | Literal[False] | None = None,
        engine: str | Engine = "pool",
        executor: Executor | None = None,
        executor_timeout: float = 60.0,
    ) -> None:
        self._conditions = Preconditions(
            None if n_steps is None else integer("n_steps", n_steps, 1),
            integer("n_startup_trials", n_startup_trials, 0),
            integer("n_warmup_steps", n_warmup_steps, 0),
            integer("interval_steps", interval_steps, 1),
            choice("nan_policy", nan_policy, ("prune", "ignore")),
            boolean("check_metric", check_metric),
            boolean("prune_infeasible", prune_infeasible),
            integer("n_best", n_best, 1),
        )
        self._rule = Rule(
            real("risk", risk, 0.0, 1.0),
            None if threshold is None else real("threshold", threshold, 0.0, 1.0),
            integer("patience", patience, 1),
            None
            if stop_below_std is None
            else real("stop_below_std", stop_below_std, 0.0, math.inf),
            self._conditions.n_best,
        )
        # A fixed threshold is the user's own rule, and without any risk nothing is stopped.
        self._ranks_early = (
            boolean("compare_running", compare_running)
            and self._rule.threshold is None
            and self._rule.risk > 0.0
            and self._conditions.n_startup_trials <= _MOST_STARTUP
        )
        self._by_time = choice("cost", cost, ("steps", "time")) == "time"
        if self._by_time and threshold is not None:
            raise ValueError(
                f"give cost='time' or threshold={threshold}, not both: only the threshold that "
                "follows from risk goes by time."
            )
        self._target = choice("target", target, ("auto", "last", "best"))
        self._control_fraction = real("control_fraction", control_fraction, 0.0, 1.0)
        self._engine = engine_of(engine)
        # A length that the user gave holds whatever trials announce.
        self._reader = partial(StudyReader, n_steps is None, self._conditions.n_best)
        self._memory = DecisionMemory(
            "LearningCurvePruner",
            _name_of(engine),
            boolean("publish", publish),
            checked(ledger),
            self._reader,
        )
        timeout = real("executor_timeout", executor_timeout, 0.0, math.inf)
        self._background = background_of(self, executor, timeout)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_background": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._memory = copy.copy(self._memory)

    @property
    def ledger(self) -> Setting:
        """The setting ``ledger``."""
        return self._memory.ledger

    @property
    def n_best(self) -> int:
        """The setting ``n_best``."""
        return self._conditions.n_best

    @property
    def cannot_serve(self) -> str | None:
        """The setting, if any, with which it cannot decide for the trials of other processes."""
        if self._background is not None:
            return "an executor: it is the forecaster's to have"
        if self._by_time:
            return "cost='time', which the trainer's clock tells"
        thins_out = self._conditions.interval_steps > 1
        return "interval_steps, which is the trainer's" if thins_out else None

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial; see :class:`optuna.pruners.BasePruner`. Never raises."""
        return self._decide(study, trial).prune

    def decide(self, study: Study, trial: FrozenTrial) -> Decision:
        """The decision behind :meth:`prune`, with its reason and numbers. Never raises.

        The same reports get the same decision, however often it is asked. A trial that has ended
        is judged by what the study says today, and nobody is told of it.
        """
        return self._memory.in_words(lambda: self._decide(study, trial))

    def _decide(self, study: Study, trial: FrozenTrial) -> Decision:
        decision = self._memory.decide(
            study, trial, lambda reader, context: self._judge(study, trial, reader, context)
        )
        if decision.prune and trial.intermediate_values and not is_made_up(trial):
            changed = self._memory.memo(study).known.note_stopped(trial)
            if changed is not None:
                self._memory.warn_once("unit", f"{changed}.")
        return decision

    def _judge(
        self, study: Study, trial: FrozenTrial, reader: StudyReader, context: DecisionContext
    ) -> Decision:
        """Check the reports, read the study, build the curves, ask the engine, apply the rule.

        Each step returns what the next one needs, or the decision.
        """
        warn = self._memory.warn_once
        reports = check_reports(study, trial, self._conditions, context, warn)
        if isinstance(reports, Decision):
            return reports
        case = self._read(study, trial, reports, reader, context)
        if isinstance(case, Decision):
            return case
        answered = self._forecast(study, trial, case)
        if isinstance(answered, Decision):
            return answered
        return self._apply_rule(study, trial, case, answered, context)

    def _read(
        self,
        study: Study,
        trial: FrozenTrial,
        reports: Reports,
        reader: StudyReader,
        context: DecisionContext,
    ) -> Case | Decision:
        """Put the trial's curve beside what the study knows, unless that alone decides."""
        warn, step = self._memory.warn_once, reports.step
        maximize = study.direction == StudyDirection.MAXIMIZE
        steps = reports.steps[reports.finite]
        values = oriented(reports.values[reports.finite], maximize)
        lock = self._memory.lock
        if is_made_up(trial):
            record, summary = reader.read_made_up(study, trial, maximize, lock, self._target)
        else:
            record, summary = reader.read(study, maximize, lock)
        context.incumbent_trial = summary.incumbent_trial
        refusal = self._conditions.with_study(summary, step, warn)
        waits = refusal is not None and refusal.reason in (Reason.STARTUP, Reason.NO_BEST_VALUE)
        if refusal is not None and not (waits and self._ranks_early):
            return refusal
        says = _quiet if waits else warn
        curve = self._conditions.curve(reports, values, trial.user_attrs, summary, says)
        if isinstance(curve, Decision):
            return refusal or curve
        standing = self._standing(study, trial, curve, steps, reader, summary)
        if refusal is not None:
            if standing is None:
                return refusal
            requeued = REQUEUED_ATTRIBUTE in trial.user_attrs
            n = self._conditions.n_startup_trials
            slowness = self._slowness(study, trial, reader)
            judged = self._rule.judge_among(standing, curve.seen, n, requeued, slowness)
            return judged or refusal
        if standing is not None:
            curve = replace(curve, p_by_ranks=standing.p_beats_completed)
        target = summary.target if self._target == "auto" else Target(self._target)
        with lock:
            knowledge = record.knowledge(summary, curve.horizon, curve.stride, target)
        refusal = self._conditions.whole_trainings(knowledge, step)
        if refusal is not None:
            return refusal
        context.horizon = curve.horizon
        reached = float(values[-1] if target is Target.LAST else values.max())
        return Case(
            curves=(curve, *self._conditions.earlier(curve, steps, self._rule.patience - 1)),
            knowledge=knowledge,
            step=step,
            incumbent=summary.incumbent if maximize else -summary.incumbent,
            ahead=reached > summary.incumbent,
            slowness=self._slowness(study, trial, reader),
        )

    def _slowness(self, study: Study, trial: FrozenTrial, reader: StudyReader) -> float:
        """How many times as long a trial takes a report as others; 1 where that does not count."""
        if not self._by_time or is_made_up(trial):
            return 1.0
        return reader.slowness(study, trial, self._memory.lock)

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
        if not self._ranks_early or not few or is_made_up(trial):
            return None
        return reader.standing(
            study, trial, curve, steps, self._memory.lock, self._conditions.check_metric
        )

    def _forecast(self, study: Study, trial: FrozenTrial, case: Case) -> Answers | Decision:
        """Ask the engine about the curves, here or in the background."""
        curves, step = case.curves, case.step
        if self._background is None or is_made_up(trial):  # could not be told from another one
            answers = [ask(self._engine, look, case.knowledge, case.incumbent) for look in curves]
        else:
            key = (study_id_of(study), trial_id_of(trial), trial.datetime_start)
            answer = self._background.exchange(key, Question(curves, case.knowledge, step))
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
                self._rule.threshold_at(1 + n_before, look.seen, caution.factor, case.slowness),
            )
            for answer, look in zip(answered.answers, answered.curves, strict=True)
        ]
        context.caution, context.forecast = caution.factor, newest[0].forecast
        return self._rule.judge(
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
        if getattr(self._engine, "p_and_forecast", None) is None:  # a second or two a look
            return Caution()
        engine, n = cast(FastEngine, self._engine), self._conditions.n_startup_trials
        return knowledge.cached(
            ("caution", horizon),
            lambda: self_check(engine, self._rule, knowledge, horizon, n),
        )

    def _spared(self, study: Study, trial: FrozenTrial) -> Reason | None:
        """Why a trial runs on although the forecast is against it, if so."""
        if REQUEUED_ATTRIBUTE in trial.user_attrs:
            return Reason.REQUEUED
        if in_control_group(study.study_name, trial.number, self._control_fraction):
            return Reason.CONTROL
        return None

    def __repr__(self) -> str:
        conditions = self._conditions
        return (
            f"LearningCurvePruner(n_steps={conditions.n_steps}, risk={self._rule.risk}, "
            f"threshold={self._rule.threshold}, n_best={conditions.n_best}, "
            f"n_startup_trials={conditions.n_startup_trials}, "
            f"n_warmup_steps={conditions.n_warmup_steps}, "
            f"interval_steps={conditions.interval_steps}, patience={self._rule.patience})"
        )


def background_of(
    pruner: LearningCurvePruner, executor: Executor | None, timeout: float
) -> Background | None:
    """Return what asks an executor for a pruner's forecasts; None without an executor.

    Raises:
        TypeError: If it is no executor.
    """
    if executor is None:
        return None
    if not isinstance(executor, Executor):
        raise TypeError(f"executor must be a concurrent.futures.Executor, got {executor!r}.")
    return Background(pruner._engine, executor, timeout, pruner._memory.warn_once)


def forgetful(pruner: LearningCurvePruner, background: Background | None) -> LearningCurvePruner:
    """Return a copy of a pruner that remembers no study.

    Args:
        pruner: The pruner.
        background: Makes the copy's forecasts; without it a check waits for its forecast.
    """
    other = copy.copy(pruner)
    other._background = background
    return other


def new_record(pruner: LearningCurvePruner, maximize: bool) -> StudyRecord:
    """Return what a pruner reads completed trials into, of a study in this direction."""
    return pruner._reader().new_record(maximize)


def decide_about(
    pruner: LearningCurvePruner,
    study: Study,
    trial: FrozenTrial,
    record: StudyRecord,
    context: DecisionContext | None = None,
) -> Decision:
    """Decide as for the first time; the decision is remembered and recorded nowhere.

    Args:
        pruner: Decides.
        study: The study.
        trial: The trial.
        record: Of the study's completed trials, what was read before.
        context: Filled in with what was looked at.
    """
    reader = pruner._reader(record=record)
    context = context or DecisionContext("")
    with np.errstate(all="ignore"):  # whatever the caller has made errors
        return pruner._memory.in_words(lambda: pruner._judge(study, trial, reader, context))


def _pace_in_words(slowness: float) -> str:
    if slowness == 1.0:
        return ""
    return f"threshold times {slowness:.2g}, the time it has taken by that of other trials"


def _quiet(topic: str, message: str) -> None:
    """Warn of nothing: while a study waits, its length may yet show."""


def _name_of(engine: str | Engine) -> str:
    return engine if isinstance(engine, str) else getattr(engine, "__name__", type(engine).__name__)
