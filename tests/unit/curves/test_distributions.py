"""Distributions of parameters: their quantiles, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from optuna_lcpruner.curves.distributions import Exponential, LogNormal, Normal


@pytest.mark.parametrize(
    ("prior", "scipys"),
    [
        (Normal(0.3, 2.0), stats.norm(0.3, 2.0)),
        (LogNormal(-1.0, 0.5), stats.lognorm(0.5, scale=np.exp(-1.0))),
        (Exponential(0.2), stats.expon(scale=0.2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_quantiles(prior, scipys):
    levels = np.array([1e-6, 0.05, 0.5, 0.8, 1.0 - 1e-6])
    assert_allclose(prior.quantile(stats.norm.ppf(levels)), scipys.ppf(levels), rtol=1e-7)
