"""The closed-form posterior by dense covariance matrices instead of the tridiagonal whitening."""

import numpy as np
from numpy.testing import assert_allclose
from scipy import stats

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.closed_form.shapes import shape_grid
from optuna_lcpruner.posterior.interface import StudyKnowledge
from optuna_lcpruner.posterior.weighted_sum.marginal_likelihood import design


def curve_of(values, horizon, positions=None):
    values = np.asarray(values, float)
    return LearningCurve(
        np.arange(1.0, values.size + 1) if positions is None else positions, values, horizon
    )


def dense_posterior(prior, families, horizon, knots, z, ahead, seen):
    """The same model by brute force.

    Every combination (rho, kappa), sigma, shape is a joint Gaussian of all knots:
    mean X m, covariance X V X' + sigma^2 s s' * C, with C the covariance of the AR(1) process.
    Returns weights, then mean and variance at the knots ahead of value and curve, (C,), (P, C).
    """
    grid = shape_grid(horizon, families)
    positions = np.linspace(1, horizon, grid.psi.shape[1])
    every = np.r_[knots, ahead]
    n = len(knots)
    m = np.array([prior.asymptote[0], prior.rise[0]])
    v = np.diag([prior.asymptote[1] ** 2, prior.rise[1] ** 2])
    error = prior.model_error[0] + (prior.model_error[1] - prior.model_error[0]) * seen
    lag = np.abs(every[:, None] - every[None, :])
    log_weights, results = [], []
    for rho in prior.rho:
        if rho == 1.0:
            correlation = 1.0 + np.minimum(every[:, None], every[None, :]) - every[0]
        else:
            correlation = np.where(lag == 0, 1.0, float(rho) ** lag)
        for kappa in prior.kappa:
            s = (positions[every] / horizon) ** -kappa
            for sigma in prior.sigma:
                noise = sigma**2 * s[:, None] * s[None, :] * correlation
                for psi, mass in zip(grid.psi, grid.mass.sum(axis=1), strict=True):
                    x = np.column_stack([np.ones(len(every)), psi[every]])
                    signal = x @ v @ x.T
                    total = signal + noise
                    mean = x @ m
                    evidence = stats.multivariate_normal(mean[:n], total[:n, :n]).logpdf(z)
                    log_prior = stats.norm(*prior.log_sigma).logpdf(np.log(sigma))
                    log_weights.append(np.log(mass) + log_prior + evidence)
                    # The random walk stays in the curve, other noise does not.
                    for hidden in (total, total if rho == 1.0 else signal):
                        gain = np.linalg.solve(total[:n, :n], hidden[:n, n:]).T
                        located = mean[n:] + gain @ (z - mean[:n])
                        spread = np.diag(hidden[n:, n:] - gain @ hidden[:n, n:])
                        results.append((located, spread + error**2))
    weights = np.exp(np.array(log_weights) - np.max(log_weights))
    value = [np.array(part).T for part in zip(*results[0::2], strict=True)]
    latent = [np.array(part).T for part in zip(*results[1::2], strict=True)]
    return weights, *value, *latent


def coordinates(prior, n, size=0.7, seed=0):
    return size * np.random.default_rng(seed).normal(size=(n, prior.n_coordinates))


WORKING = StudyKnowledge(Scale(0.0, 1.0, True))


def assert_same_as_dense(prior, families, horizon, positions, seed=0, rtol=1e-8):
    rng = np.random.default_rng(seed)
    curve = curve_of(
        0.8 - 0.6 * np.asarray(positions, float) ** -0.5 + 0.03 * rng.normal(size=len(positions)),
        horizon,
        positions,
    )
    knots, z = curve.on_knots
    grid = curve.knots.positions
    ahead = np.unique(np.linspace(knots[-1] + 1, len(grid) - 1, 4).astype(int))
    forecast = ClosedForm(prior, families)(curve, WORKING, grid[ahead])
    weights, mean, variance, latent_mean, latent_variance = dense_posterior(
        prior, families, horizon, knots, z, ahead, positions[-1] / horizon
    )
    kept = weights > 2e-4
    # The engine leaves light components out; order (noise model, level, shape) is the same.
    assert forecast.weights.size == np.count_nonzero(kept)
    assert_allclose(forecast.weights, weights[kept] / weights[kept].sum(), rtol=1e-6)
    assert_allclose(forecast.observed.location, mean[:, kept], rtol=rtol, atol=rtol)
    assert_allclose(forecast.observed.scale, np.sqrt(variance[:, kept]), rtol=rtol)
    assert_allclose(forecast.latent.location, latent_mean[:, kept], rtol=rtol, atol=rtol)
    assert_allclose(forecast.latent.scale, np.sqrt(latent_variance[:, kept]), rtol=rtol)
    # What was left out weighs too little to matter.
    full = weights / weights.sum()
    assert_allclose(forecast.mean(), mean[-1] @ full, atol=3e-3)


PLACES = {
    "contiguous": (20, np.arange(1, 9)),
    "two points": (12, [1, 2]),
    "one point": (12, [1]),
    "gaps": (20, [1, 2, 5, 6, 11]),
    "late start": (30, [7, 9, 10, 15, 16, 17]),
    "one ahead": (9, np.arange(1, 9)),
    "averaged": (300, np.arange(1, 91)),
    "averaged, with a gap": (300, [*range(1, 30), *range(60, 90)]),
}


def sample_curves(prior, horizon, n, rng):
    """Curves from a prior of weighted sums at positions 1 to the horizon, by rejection.

    Returns the curves without noise, (n, horizon), and sigma, (n,).
    """
    t = np.arange(1.0, horizon + 1)
    curves, sigmas = np.empty((0, horizon)), np.empty(0)
    while len(curves) < n:
        found = design(prior, horizon, rng.normal(size=(2 * n + 16, prior.n_coordinates)), t)
        b = rng.normal(size=found.x.shape[:2])
        with np.errstate(all="ignore"):
            path = found.offset + np.einsum("wp,wpn->wn", b, found.x)
            good = np.all(np.isfinite(path), axis=1) & (path[:, -1] > path[:, 0])
        curves, sigmas = np.vstack([curves, path[good]]), np.r_[sigmas, found.sigma[good]]
    return curves[:n], sigmas[:n]
