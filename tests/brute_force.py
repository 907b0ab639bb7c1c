"""The closed-form posterior by dense covariance matrices instead of the tridiagonal whitening."""

import numpy as np
from scipy import stats

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.posterior.closed_form.shapes import shape_grid


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
