"""Has a sampler converged? Autocorrelation, effective sample size, split R-hat. Pure.

Glossary:
    x    a scalar followed by an ensemble, shape (S steps, W walkers)
    tau  integrated autocorrelation time in steps: S W / tau draws count as independent
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optuna_lcpruner._util.arrays import Array


@dataclass(frozen=True)
class Diagnostics:
    """How far the draws behind a forecast can be trusted.

    Attributes:
        converged: Whether they can.
        status: The verdict in words, with what to change.
        acceptance: Share of proposals accepted.
        autocorrelation_time: Of the curve's expected final value, in steps.
        effective_sample_size: Independent draws that its mean is worth.
        r_hat: Split R-hat of the curve's final value.
        n_steps: Steps run, burn-in included.
        n_walkers: Walkers.
    """

    converged: bool
    status: str
    acceptance: float
    autocorrelation_time: float
    effective_sample_size: float
    r_hat: float
    n_steps: int
    n_walkers: int


def autocorrelation_time(x: Array) -> float:
    """Integrated autocorrelation time of an ensemble, in steps; at least 1.

    tau = 1 + 2 sum_k rho_k up to the first lag k >= 5 tau, rho_k the autocorrelation about the mean
    of all walkers: a walker that stays in a place of its own counts as correlated with itself. NaN
    for a constant.

    Source: Sokal 1997, section 3; averaged over walkers as in Goodman & Weare 2010, section 5.
    """
    n = len(x)
    centred = x - x.mean()
    size = 2 ** int(np.ceil(np.log2(2 * n)))
    spectrum = np.fft.rfft(centred, size, axis=0)
    power = np.mean(np.abs(spectrum) ** 2, axis=1)
    covariance = np.fft.irfft(power, size)[:n] / np.arange(n, 0, -1)
    if not covariance[0] > 0.0:
        return float("nan")
    taus = 2.0 * np.cumsum(covariance / covariance[0]) - 1.0
    wide_enough = np.arange(n) >= 5.0 * taus
    window = int(np.argmax(wide_enough)) if np.any(wide_enough) else n - 1
    return max(1.0, float(taus[window]))


_GROUPS = 4  # heuristic


def split_r_hat(mean: Array, variance: Array) -> float:
    """Split R-hat of a quantity whose mean and variance are known at each draw.

    The walkers are dealt into four groups and the run is cut in half. With B the variance of the
    means of these eight parts and V that of all draws, own variance included,

        R-hat = sqrt(1 + B / V)

    Single walkers are too short a sequence to compare, groups of them are not (Margossian et al.
    2024, nested R-hat). A value of 1.05 means that parts differ by a third of the deviation.

    Args:
        mean: Conditional means, (S, W).
        variance: Conditional variances, (S, W).
    """
    halves = np.array_split(mean, 2)
    parts = [np.mean(half[:, g::_GROUPS]) for half in halves for g in range(_GROUPS)]
    total = float(np.var(mean) + np.mean(variance))
    if not total > 0.0:
        return 1.0 if float(np.ptp(parts)) == 0.0 else float("inf")
    return float(np.sqrt(1.0 + np.var(parts, ddof=1) / total))
