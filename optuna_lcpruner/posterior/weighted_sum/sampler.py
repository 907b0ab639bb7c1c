"""The paper's posterior: the weighted combination of all families, sampled by an ensemble.

Model and priors: :mod:`~optuna_lcpruner.posterior.weighted_sum.model` and
:mod:`~optuna_lcpruner.posterior.weighted_sum.priors`; what is integrated out:
:mod:`~optuna_lcpruner.posterior.weighted_sum.marginal_likelihood`. Here the coordinates v are
sampled (W walkers, D coordinates, S steps), with

start      many draws from the prior, of which W are taken by tempered posterior weight
burn-in    the first half of the run, however long it becomes
the end    once the draws are worth enough and parts of the run agree, or at the budget
forecast   a mixture of at most ``n_components`` draws, each with its own mean and variance

The random numbers come from the curve and the settings: the same question gets the same answer,
unless the budget in seconds is what ends the run.

Source: Domhan et al. 2015, section 3.2. Differs: parameters that enter linearly are integrated
exactly, walkers start apart instead of in one point, and the run says whether it has converged.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.posterior.weighted_sum.convergence import (
    Diagnostics,
    autocorrelation_time,
    split_r_hat,
)
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import Data, log_density
from optuna_lcpruner.posterior.weighted_sum.model import WeightedCurves
from optuna_lcpruner.posterior.weighted_sum.predictive import forecast_of
from optuna_lcpruner.posterior.weighted_sum.priors import paper_prior

LARGEST_R_HAT = 1.05  # heuristic
"""Split R-hat up to which a run counts as converged."""

_STARTS = 40  # heuristic
"""Draws from the prior for each walker's start."""

_FIRST_CHECK = 150  # heuristic
"""Steps before a run is judged for the first time; then after 1.4 times as many, and so on."""

_STRETCH_OF_STEPS = 50  # heuristic
"""Steps between two looks at the clock."""

_MOST_TRIES = 20  # heuristic
"""Batches of such draws until enough of them are possible."""


@dataclass(frozen=True)
class MCMC:
    """The weighted combination of families, sampled: ``(curve, knowledge, positions) -> Forecast``.

    Attributes:
        prior: Families and priors,
            :func:`~optuna_lcpruner.posterior.paper_prior` or another.
        n_walkers: Walkers, an even number of at least 2 D; by default 2 D, or 100 if that is more.
        effective_sample_size: Independent draws that a converged run is worth; 200 give a mean to
            7 % of the posterior's deviation.
        max_steps: Budget in steps.
        max_seconds: Budget in seconds.
        n_components: Most components of the forecast.
        seed: Another one gives another run of the same posterior.

    Raises:
        ValueError: If a setting is out of its range.
    """

    prior: WeightedCurves = field(default_factory=paper_prior)
    n_walkers: int | None = None
    effective_sample_size: float = 200.0
    max_steps: int = 3000
    max_seconds: float = 20.0
    n_components: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        least = 2 * self.prior.n_coordinates
        if self.n_walkers is not None and (self.n_walkers < least or self.n_walkers % 2):
            raise ValueError(
                f"n_walkers must be even and at least {least}, but got {self.n_walkers}."
            )
        for name in ("effective_sample_size", "max_steps", "max_seconds", "n_components"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, but got {getattr(self, name)}.")

    def __call__(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> Forecast:
        """See :class:`~optuna_lcpruner.posterior.Engine`.

        The forecast's ``diagnostics`` say whether the run has converged; decisions abstain on one
        that has not.
        """
        data = Data.of(curve, knowledge.scale)
        with np.errstate(all="ignore"):
            v, diagnostics = self._sample(data)
            return forecast_of(self.prior, data, v, diagnostics, curve, knowledge, positions)

    def _sample(self, data: Data) -> tuple[Array, Diagnostics]:
        """Run until the draws are good enough or the budget is spent; their coordinates, (C, D)."""
        from optuna_lcpruner.posterior.weighted_sum.moves import ensemble_sampler, state_of

        deadline = time.monotonic() + self.max_seconds
        seed = _seed(self.seed, data.horizon, data.t, data.z)
        rng = np.random.default_rng(seed)
        n_walkers = self.n_walkers or max(2 * self.prior.n_coordinates, 100)

        def density(v: Array) -> tuple[Array, Array, Array]:
            log_p, mean, variance = log_density(self.prior, v, data)
            return log_p, np.nan_to_num(mean), np.nan_to_num(variance)

        sampler = ensemble_sampler(n_walkers, self.prior.blocks, density)
        start = _dispersed(self.prior, data, n_walkers, rng)
        if len(start) < n_walkers:
            guess = rng.normal(size=(n_walkers, self.prior.n_coordinates))
            return guess, _unfit(n_walkers)
        state = state_of(start, seed)
        n, next_check = 0, float(_FIRST_CHECK)
        while True:
            steps = min(_STRETCH_OF_STEPS, self.max_steps - n)
            state = sampler.run_mcmc(state, steps)
            n += steps
            spent = n >= self.max_steps or time.monotonic() >= deadline
            if n < next_check and not spent:
                continue
            next_check = 1.4 * n
            acceptance = float(np.mean(sampler.acceptance_fraction))
            diagnostics = _judged(
                sampler.get_blobs(discard=n // 2), acceptance, n, self.effective_sample_size
            )
            if diagnostics.converged or spent:
                kept = sampler.get_chain(discard=n // 2, flat=True)
                size = min(self.n_components, len(kept))
                return rng.choice(kept, size, replace=False), diagnostics


def _seed(*parts: ArrayLike) -> int:
    """A seed from numbers, 32 bits."""
    digest = hashlib.blake2b(digest_size=4)
    for part in parts:
        digest.update(np.asarray(part, dtype=float).tobytes())
    return int.from_bytes(digest.digest(), "little")


def _dispersed(
    prior: WeightedCurves, data: Data, n_walkers: int, rng: np.random.Generator
) -> Array:
    """Starts: draws from the prior, taken by their likelihood to a power.

    The power is the largest up to 1 at which the effective number of draws is 2 W, so that walkers
    start over all plausible fits, each in a place of its own. Fewer than W come back where the
    prior allows no more.
    """
    v, log_p = np.empty((0, prior.n_coordinates)), np.empty(0)
    for _ in range(_MOST_TRIES):
        more = rng.normal(size=(_STARTS * n_walkers, prior.n_coordinates))
        parts = np.array_split(more, _STARTS)
        densities = np.concatenate([log_density(prior, part, data)[0] for part in parts])
        possible = densities > -np.inf
        v, log_p = np.vstack([v, more[possible]]), np.r_[log_p, densities[possible]]
        if log_p.size >= 2 * n_walkers:
            break
    log_likelihood = log_p + 0.5 * np.sum(v**2, axis=1)
    log_likelihood -= log_likelihood.max(initial=-np.inf)

    def effective(power: float) -> float:
        weights = np.exp(power * log_likelihood)
        return float(weights.sum() ** 2 / (weights**2).sum())

    low, high = 0.0, 1.0
    for _ in range(20):
        power = 0.5 * (low + high)
        low, high = (power, high) if effective(power) > 2 * n_walkers else (low, power)
    # The largest of log weight + Gumbel noise are a draw without replacement (Efraimidis 2006).
    order = np.argsort(-(low * log_likelihood + rng.gumbel(size=len(v))))
    return v[order[:n_walkers]]


def _unfit(n_walkers: int) -> Diagnostics:
    """Diagnostics of a run that could not start."""
    status = (
        "not started: the prior rules this curve out (it falls, or leaves the allowed range); "
        "the forecast is a guess from the prior"
    )
    return Diagnostics(False, status, 0.0, np.nan, 0.0, np.inf, 0, n_walkers)


def _judged(of_end: Array, acceptance: float, n_steps: int, wanted: float) -> Diagnostics:
    """Diagnostics of a run from mean and variance of the curve's end, (S, W, 2)."""
    mean, variance = of_end[:, :, 0], of_end[:, :, 1]
    tau = autocorrelation_time(mean)
    effective = mean.size / tau
    r_hat = split_r_hat(mean, variance)
    converged = effective >= wanted and r_hat <= LARGEST_R_HAT
    numbers = (
        f"effective sample size {effective:.0f}, split R-hat {r_hat:.3f} after {n_steps} steps"
    )
    status = f"converged: {numbers}"
    if not converged:
        status = (
            f"not converged: {numbers} (wanted: {wanted:.0f} and {LARGEST_R_HAT}); "
            "raise max_steps or max_seconds"
        )
    return Diagnostics(
        bool(converged), status, acceptance, tau, float(effective), r_hat, n_steps,
        mean.shape[1],
    )  # fmt: skip
