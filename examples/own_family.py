"""A curve family of one's own: a logistic, which climbs around its middle m with a width s.

python examples/own_family.py

f(t) = c - a phi(t) with the kernel phi(t) = 1 / (1 + exp((t - m) / s)). It prints mean and standard
deviation of the end, which is 0.8, without the family and with it, and the share of the family.
"""

import numpy as np

from optuna_lcpruner import LearningCurvePruner, forecast
from optuna_lcpruner.curves import FAMILIES, Family
from optuna_lcpruner.posterior import ClosedForm, OpinionPool


def kernel(m, s, t):  # a plain function: a lambda cannot be pickled
    return 1.0 / (1.0 + np.exp((t - m) / s))


def shapes(horizon):
    """The shapes to consider, a row each: m and s."""
    middles, widths = np.meshgrid(np.linspace(0.1, 0.9, 9), [0.02, 0.05, 0.1, 0.2])
    return horizon * np.column_stack([middles.ravel(), widths.ravel()])


ensemble = ClosedForm(families=(*FAMILIES, Family("logistic", kernel, shapes)))
pruner = LearningCurvePruner(n_steps=30, engine=OpinionPool(ensemble))

noise = np.random.default_rng(0).normal(0.0, 0.004, 30)
path = 0.8 - 0.7 * kernel(15.0, 2.0, np.arange(1.0, 31.0))
seen = (path + noise)[:17]  # just after its middle
for engine in ("closed_form", ensemble):
    ahead = forecast(seen, n_steps=30, direction="maximize", engine=engine)
    print(f"{ahead.mean():.3f} {ahead.std():.3f} {ahead.shares.get('logistic', 0.0):.2f}")
