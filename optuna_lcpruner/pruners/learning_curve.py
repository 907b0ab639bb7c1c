"""LearningCurvePruner: (study, trial) -> Decision -> bool. The door to Optuna."""

from __future__ import annotations

import copy
import math
from concurrent.futures import Executor
from typing import Any, Literal

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.validation import boolean, choice, integer, real
from optuna_lcpruner.decision.decision import Decision
from optuna_lcpruner.decision.preconditions import Preconditions
from optuna_lcpruner.decision.rule import Rule
from optuna_lcpruner.posterior.engines import engine_of
from optuna_lcpruner.posterior.interface import Engine
from optuna_lcpruner.pruners._memory import DecisionMemory
from optuna_lcpruner.pruners.executor import Background
from optuna_lcpruner.pruners.judge import Judge
from optuna_lcpruner.records.location import Setting, checked
from optuna_lcpruner.study.stand_in import is_made_up

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
        nan_policy: ``"prune"`` stops a trial whose newest report is NaN or infinite, after warm-up,
            unless its best report is its value and beats the best; ``"ignore"`` leaves such reports
            out.
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
        conditions = Preconditions(
            None if n_steps is None else integer("n_steps", n_steps, 1),
            integer("n_startup_trials", n_startup_trials, 0),
            integer("n_warmup_steps", n_warmup_steps, 0),
            integer("interval_steps", interval_steps, 1),
            choice("nan_policy", nan_policy, ("prune", "ignore")),
            boolean("check_metric", check_metric),
            boolean("prune_infeasible", prune_infeasible),
            integer("n_best", n_best, 1),
        )
        rule = Rule(
            real("risk", risk, 0.0, 1.0),
            None if threshold is None else real("threshold", threshold, 0.0, 1.0),
            integer("patience", patience, 1),
            None
            if stop_below_std is None
            else real("stop_below_std", stop_below_std, 0.0, math.inf),
            conditions.n_best,
        )
        by_time = choice("cost", cost, ("steps", "time")) == "time"
        if by_time and threshold is not None:
            raise ValueError(
                f"give cost='time' or threshold={threshold}, not both: only the threshold that "
                "follows from risk goes by time."
            )
        self._judge = Judge(
            conditions,
            rule,
            engine_of(engine),
            choice("target", target, ("auto", "last", "best")),
            # A fixed threshold is the user's own rule, and without any risk nothing is stopped.
            ranks_early=boolean("compare_running", compare_running)
            and rule.threshold is None
            and rule.risk > 0.0
            and conditions.n_startup_trials <= _MOST_STARTUP,
            by_time=by_time,
            control_fraction=real("control_fraction", control_fraction, 0.0, 1.0),
        )
        self._memory = DecisionMemory(
            "LearningCurvePruner",
            _name_of(engine),
            boolean("publish", publish),
            checked(ledger),
            self._judge.new_reader,
        )
        timeout = real("executor_timeout", executor_timeout, 0.0, math.inf)
        self._background = Background.of(
            self._judge.engine, executor, timeout, self._memory.warn_once
        )

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
        return self._judge.conditions.n_best

    @property
    def judge(self) -> Judge:
        """How it decides, without what it remembers; not for users."""
        return self._judge

    def warn_once(self, topic: str, message: str) -> None:
        """Log a warning about a topic, the first time; not for users."""
        self._memory.warn_once(topic, message)

    @property
    def cannot_serve(self) -> str | None:
        """The setting, if any, with which it cannot decide for the trials of other processes."""
        if self._background is not None:
            return "an executor: it is the forecaster's to have"
        if self._judge.by_time:
            return "cost='time', which the trainer's clock tells"
        thins_out = self._judge.conditions.interval_steps > 1
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
            study,
            trial,
            lambda reader, context: self._judge.judge(
                study, trial, reader, context, self._memory.warn_once, self._background
            ),
        )
        if decision.prune and trial.intermediate_values and not is_made_up(trial):
            changed = self._memory.memo(study).known.note_stopped(trial)
            if changed is not None:
                self._memory.warn_once("unit", f"{changed}.")
        return decision

    def __repr__(self) -> str:
        conditions, rule = self._judge.conditions, self._judge.rule
        return (
            f"LearningCurvePruner(n_steps={conditions.n_steps}, risk={rule.risk}, "
            f"threshold={rule.threshold}, n_best={conditions.n_best}, "
            f"n_startup_trials={conditions.n_startup_trials}, "
            f"n_warmup_steps={conditions.n_warmup_steps}, "
            f"interval_steps={conditions.interval_steps}, patience={rule.patience})"
        )


def forgetful(pruner: LearningCurvePruner, background: Background | None) -> LearningCurvePruner:
    """Return a copy of a pruner that remembers no study.

    Args:
        pruner: The pruner.
        background: Makes the copy's forecasts; without it a check waits for its forecast.
    """
    other = copy.copy(pruner)
    other._background = background
    return other


def _name_of(engine: str | Engine) -> str:
    return engine if isinstance(engine, str) else getattr(engine, "__name__", type(engine).__name__)
