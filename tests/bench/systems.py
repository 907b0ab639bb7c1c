"""What searches hyper-parameters in ``searches.py``: Optuna's samplers with pruners, and others.

Each is set up as its own documentation recommends for a search with learning curves; what needs a
package that is not installed is left out and said so (``pip install optuna-lcpruner[peers]``).
Rungs of those that train rung by rung: a third each of the one above, four at most.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState
from replay import ours, peers

DIVERGED = 1e9
"""Loss of a training that diverged, for systems that only rank."""


@dataclass(frozen=True)
class Problem:
    """What a system is told.

    Attributes:
        name: Of the problem.
        space: The hyper-parameters.
        n_steps: Steps of a full training.
        maximize: The direction.
    """

    name: str
    space: dict[str, BaseDistribution]
    n_steps: int
    maximize: bool

    def loss(self, value: float) -> float:
        """A value where smaller is better; a training that diverged gets a very large one."""
        if not math.isfinite(value):
            return DIVERGED
        return min(-value if self.maximize else value, DIVERGED)

    @property
    def first_rung(self) -> int:
        """Steps of the lowest of at most four rungs, each a third of the one above."""
        return max(1, self.n_steps // 27)


@dataclass(frozen=True)
class Job:
    """What a system wants trained.

    Attributes:
        params: The hyper-parameters.
        until: The steps it shall have been trained for, in all.
        key: The same key, the same training: it goes on where it paused.
        handle: The system's own.
    """

    params: dict[str, Any]
    until: int
    key: Any
    handle: Any = None


class System(ABC):
    """Proposes trainings, stops them, learns from them."""

    @abstractmethod
    def ask(self) -> Job | None:
        """What is to be trained next; None if it waits for others."""

    def stops(self, job: Job, step: int, value: float) -> bool:
        """Be told of a step, from 0; return whether the training stops."""
        return False

    @abstractmethod
    def tell(self, job: Job, values: Sequence[float], stopped: bool) -> None:
        """Be told that a training ended, was stopped, diverged (NaN) or paused as wanted."""

    def close(self) -> None:
        """Clean up."""
        return


# --- Optuna -------------------------------------------------------------------------------------

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "tpe_after60": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=60),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=False),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}


class OptunaSystem(System):
    """A sampler and a pruner of Optuna's."""

    def __init__(
        self, problem: Problem, sampler: optuna.samplers.BaseSampler, pruner: Any, seed: int
    ) -> None:
        self._problem = problem
        self._study = optuna.create_study(
            study_name=f"seed {seed}",  # Hyperband's brackets follow from the name
            direction="maximize" if problem.maximize else "minimize",
            sampler=sampler,
            pruner=pruner,
        )

    def ask(self) -> Job:
        """A trial, to be trained to its end."""
        trial = self._study.ask(self._problem.space)
        return Job(trial.params, self._problem.n_steps, trial.number, trial)

    def stops(self, job: Job, step: int, value: float) -> bool:
        """Report a value and ask the pruner."""
        job.handle.report(value, step)
        return bool(job.handle.should_prune())

    def tell(self, job: Job, values: Sequence[float], stopped: bool) -> None:
        """Tell the study how the trial ended."""
        if stopped:
            self._study.tell(job.handle, state=TrialState.PRUNED)
        elif math.isfinite(values[-1]):
            self._study.tell(job.handle, values[-1])
        else:
            self._study.tell(job.handle, state=TrialState.FAIL)


# --- others -------------------------------------------------------------------------------------


class Smac(System):
    """SMAC3's multi-fidelity facade: Hyperband, a random forest proposes."""

    def __init__(self, problem: Problem, seed: int, budget: int) -> None:
        from smac import MultiFidelityFacade, Scenario
        from smac.intensifier.hyperband_utils import get_n_trials_for_hyperband_multifidelity

        self._problem, self._folder = problem, tempfile.TemporaryDirectory()
        scenario = Scenario(
            config_space(problem),
            deterministic=True,
            # A quarter of them, at most, are drawn at random before the forest proposes.
            n_trials=max(
                8,
                get_n_trials_for_hyperband_multifidelity(
                    total_budget=budget,
                    min_budget=problem.first_rung,
                    max_budget=problem.n_steps,
                    eta=3,
                    print_summary=False,
                ),
            ),
            min_budget=problem.first_rung,
            max_budget=problem.n_steps,
            seed=seed,
            output_directory=Path(self._folder.name),
        )

        def never(config: Any, seed: int, budget: float) -> float:
            raise NotImplementedError

        self._smac = MultiFidelityFacade(scenario, never, overwrite=True, logging_level=50)
        self._worst = -math.inf

    def ask(self) -> Job | None:
        """A configuration and its rung."""
        info = self._smac.ask()
        params = dict(info.config)
        until = min(max(1, round(info.budget)), self._problem.n_steps)
        return Job(params, until, tuple(sorted(params.items())), info)

    def tell(self, job: Job, values: Sequence[float], stopped: bool) -> None:
        """The loss at the rung."""
        from smac.runhistory.dataclasses import TrialValue

        loss = self._problem.loss(values[-1])
        if loss < DIVERGED:
            self._worst = max(self._worst, loss)
        elif self._worst > -math.inf:  # on the forest's scale nothing else would be told apart
            loss = self._worst
        self._smac.tell(job.handle, TrialValue(cost=loss, time=1.0))

    def close(self) -> None:
        """Remove what it wrote."""
        self._folder.cleanup()


class Dehb(System):
    """DEHB by ask and tell: differential evolution within Hyperband."""

    def __init__(self, problem: Problem, seed: int, budget: int) -> None:
        from dehb import DEHB

        self._problem, self._folder = problem, tempfile.TemporaryDirectory()
        self._dehb = DEHB(
            cs=config_space(problem),
            dimensions=len(problem.space),
            min_fidelity=problem.first_rung,
            max_fidelity=problem.n_steps,
            n_workers=1,
            seed=seed,
            output_path=self._folder.name,
            save_freq="end",
            log_level="ERROR",
        )

    def ask(self) -> Job | None:
        """A configuration and its rung."""
        info = self._dehb.ask()
        params = dict(info["config"])
        until = min(max(1, round(info["fidelity"])), self._problem.n_steps)
        return Job(params, until, tuple(sorted(params.items())), info)

    def tell(self, job: Job, values: Sequence[float], stopped: bool) -> None:
        """The loss at the rung."""
        self._dehb.tell(job.handle, {"fitness": self._problem.loss(values[-1]), "cost": job.until})

    def close(self) -> None:
        """Remove what it wrote."""
        self._folder.cleanup()


class SyneTune(System):
    """A scheduler of Syne Tune's that stops trainings at rungs."""

    scheduler = "ASHA"
    takes_logs = False
    """Whether hyper-parameters on a logarithmic scale are handed over as logarithms."""

    def settings(self, problem: Problem) -> dict[str, Any]:
        """Settings beside the default ones."""
        return {}

    def __init__(self, problem: Problem, seed: int, budget: int) -> None:
        from syne_tune import config_space as cs
        from syne_tune.optimizer import baselines

        space = {}
        for name, d in problem.space.items():
            if isinstance(d, FloatDistribution):
                if d.log and self.takes_logs:
                    space[name] = cs.uniform(math.log(d.low), math.log(d.high))
                else:
                    space[name] = (cs.loguniform if d.log else cs.uniform)(d.low, d.high)
            elif isinstance(d, IntDistribution):
                space[name] = cs.randint(d.low, d.high)
            elif isinstance(d, CategoricalDistribution):
                space[name] = cs.choice(list(d.choices))
        self._problem, self._number = problem, 0
        self._scheduler = getattr(baselines, self.scheduler)(
            space,
            metric="loss",
            time_attr="step",
            max_t=problem.n_steps,
            random_seed=seed,
            **self.settings(problem),
        )

    def ask(self) -> Job:
        """A configuration, to be trained to its end."""
        from datetime import datetime

        from syne_tune.backend.trial_status import Trial

        suggested = self._scheduler.suggest()
        trial = Trial(self._number, suggested.config, datetime.now())
        self._number += 1
        self._scheduler.on_trial_add(trial)
        params = dict(trial.config)
        for name, d in self._problem.space.items():
            if self.takes_logs and isinstance(d, FloatDistribution) and d.log:
                params[name] = min(max(math.exp(params[name]), d.low), d.high)
        return Job(params, self._problem.n_steps, trial.trial_id, trial)

    def stops(self, job: Job, step: int, value: float) -> bool:
        """Report a step but the last."""
        if step + 1 == job.until:
            return False
        result = {"loss": self._problem.loss(value), "step": step + 1}
        stop = self._scheduler.on_trial_result(job.handle, result) == "STOP"
        return stop or not math.isfinite(value)

    def tell(self, job: Job, values: Sequence[float], stopped: bool) -> None:
        """Complete a trial, or say that it failed or is gone."""
        if stopped:
            self._scheduler.on_trial_remove(job.handle)
        elif math.isfinite(values[-1]):
            result = {"loss": self._problem.loss(values[-1]), "step": len(values)}
            self._scheduler.on_trial_complete(job.handle, result)
        else:
            self._scheduler.on_trial_error(job.handle)


class Bohb(SyneTune):
    """BOHB of Syne Tune's: the same with a kernel density estimate that proposes.

    The estimate takes no logarithms itself, and by its default waits for more trials than BOHB's.
    """

    scheduler = "BOHB"
    takes_logs = True

    def settings(self, problem: Problem) -> dict[str, Any]:
        """One trial more than hyper-parameters is enough for an estimate, as in BOHB."""
        return {"num_min_data_points": len(problem.space) + 1}


class Ax(System):
    """Ax's client with what it chooses by default: Sobol, then a Gaussian process; its stopping."""

    def __init__(self, problem: Problem, seed: int, budget: int) -> None:
        import logging

        from ax.api.client import Client
        from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

        logging.getLogger("ax").setLevel(logging.CRITICAL)
        parameters: list[Any] = []
        for name, d in problem.space.items():
            if isinstance(d, CategoricalDistribution):
                parameters.append(
                    ChoiceParameterConfig(name=name, values=list(d.choices), parameter_type="str")
                )
                continue
            log = isinstance(d, FloatDistribution) and d.log
            parameters.append(
                RangeParameterConfig(
                    name=name,
                    bounds=(d.low, d.high),
                    parameter_type="int" if isinstance(d, IntDistribution) else "float",
                    scaling="log" if log else "linear",
                )
            )
        self._problem = problem
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(parameters=parameters)
        self._client.configure_optimization(objective="value" if problem.maximize else "-value")
        self._worst = math.nan

    def ask(self) -> Job | None:
        """A configuration, to be trained to its end."""
        for index, params in self._client.get_next_trials(max_trials=1).items():
            return Job(dict(params), self._problem.n_steps, index, index)
        return None

    def stops(self, job: Job, step: int, value: float) -> bool:
        """Attach a value and ask."""
        diverged = not math.isfinite(value)
        if diverged:
            if math.isnan(self._worst):
                return False
            value = self._worst
        worse = min if self._problem.maximize else max
        self._worst = value if math.isnan(self._worst) else worse(self._worst, value)
        self._client.attach_data(job.handle, {"value": value}, progression=step + 1)
        return diverged or bool(self._client.should_stop_trial_early(job.handle))

    def tell(self, job: Job, values: Sequence[float], stopped: bool) -> None:
        """Say how the trial ended."""
        if stopped:
            self._client.mark_trial_early_stopped(job.handle)
        elif math.isfinite(values[-1]):
            self._client.complete_trial(job.handle)
        else:
            self._client.mark_trial_abandoned(job.handle)  # a failed one is proposed again


class Neps(System):
    """NePS's PriorBand within Hyperband, without a user's prior."""

    def __init__(self, problem: Problem, seed: int, budget: int) -> None:
        import logging

        import neps
        import torch

        logging.getLogger("neps").setLevel(logging.CRITICAL)
        torch.manual_seed(seed)
        space: dict[str, Any] = {"steps": neps.IntegerFidelity(problem.first_rung, problem.n_steps)}
        for name, d in problem.space.items():
            if isinstance(d, FloatDistribution):
                space[name] = neps.Float(d.low, d.high, log=d.log)
            elif isinstance(d, IntDistribution):
                space[name] = neps.Integer(d.low, d.high)
            elif isinstance(d, CategoricalDistribution):
                space[name] = neps.Categorical(tuple(d.choices))
        self._problem = problem
        made = type("Space", (neps.PipelineSpace,), space)()
        self._neps = neps.AskAndTell(neps.algorithms.priorband(made))

    def ask(self) -> Job:
        """A configuration and its rung."""
        trial = self._neps.ask()
        params = {name: trial.config[name] for name in self._problem.space}
        until = min(max(1, round(trial.config["steps"])), self._problem.n_steps)
        return Job(params, until, tuple(sorted(params.items())), trial)

    def tell(self, job: Job, values: Sequence[float], stopped: bool) -> None:
        """The loss at the rung."""
        self._neps.tell(job.handle.metadata.id, self._problem.loss(values[-1]))


def config_space(problem: Problem) -> Any:
    """A problem's space as a ConfigSpace."""
    from ConfigSpace import ConfigurationSpace
    from ConfigSpace import hyperparameters as hp

    space = ConfigurationSpace(seed=0)
    for name, d in problem.space.items():
        if isinstance(d, FloatDistribution):
            space.add(hp.UniformFloatHyperparameter(name, d.low, d.high, log=d.log))
        elif isinstance(d, IntDistribution):
            space.add(hp.UniformIntegerHyperparameter(name, d.low, d.high))
        elif isinstance(d, CategoricalDistribution):
            space.add(hp.CategoricalHyperparameter(name, list(d.choices)))
    return space


# --- by name ------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[type, str]] = {
    "smac": (Smac, "smac"),
    "dehb": (Dehb, "dehb"),
    "asha": (SyneTune, "syne_tune"),
    "bohb": (Bohb, "syne_tune"),
    "ax": (Ax, "ax"),
    "neps": (Neps, "neps"),
}
"""Systems beside Optuna, and the module each needs."""

NEEDS = {"gp": "torch", "cmaes": "cmaes"}
"""Modules that samplers of Optuna need."""


def names_of_systems() -> str:
    """The names, in words."""
    return f"samplers are {', '.join(SAMPLERS)}; other systems {', '.join(OTHERS)}"


def why_not(name: str) -> str:
    """Why a system cannot be had here; empty if it can."""
    sampler, _, pruner = name.partition("+")
    if name in OTHERS:
        module = OTHERS[name][1]
    elif sampler in SAMPLERS and (not pruner or pruner in (peers() | ours())):
        module = NEEDS.get(sampler, "optuna")
    else:
        return f"unknown; {names_of_systems()}"
    return "" if importlib.util.find_spec(module) else f"the module {module!r} is not installed"


def system_of(name: str, problem: Problem, seed: int, budget: int) -> System:
    """A system by name.

    Args:
        name: A sampler of Optuna's, alone or with a pruner behind "+", or another system.
        problem: What it searches.
        seed: Its seed.
        budget: Steps of the whole search.
    """
    np.random.seed(seed)  # some draw from here  # noqa: NPY002
    if name in OTHERS:
        return OTHERS[name][0](problem, seed, budget)
    sampler, _, pruner = name.partition("+")
    made = (peers() | ours())[pruner or "none"]
    return OptunaSystem(problem, SAMPLERS[sampler](seed), made(problem.n_steps), seed)
