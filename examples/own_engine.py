"""An engine of one's own: a trial gains what completed trials gained from here on.

python examples/own_engine.py

It prints the reason of the last trial of a small study.
"""

from dataclasses import dataclass

import numpy as np
import optuna

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.posterior import Component, Forecast


@dataclass(frozen=True)
class SameGains:
    """Each completed trial's gain from here on, smoothed by a kernel of this width."""

    width: float = 0.05

    def __call__(self, curve, knowledge, positions=None):
        wanted = [curve.horizon] if positions is None else positions
        positions = np.array(wanted, dtype=float)
        seen, values = curve.on_knots
        scale = knowledge.scale
        now = (values[-1] - scale.location) / scale.unit
        ahead = curve.knots.nearest(positions)
        if len(knowledge.completed):
            earlier = knowledge.completed
            gains = (earlier[:, ahead] - earlier[:, seen[-1], None]).T / scale.unit
        else:  # nothing known: it may stay where it is
            gains = np.zeros((positions.size, 1))
        width = np.full(gains.shape, self.width)
        weights = np.full(gains.shape[1], 1.0 / gains.shape[1])
        part = Component(now + gains, width)
        return Forecast(positions, weights, part, part, df=np.inf, scale=scale)


def objective(trial):
    end = trial.suggest_float("end", 0.1, 1.0)
    for step in range(20):
        loss = end + (1.0 - end) * 0.8**step
        trial.report(loss, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    sampler=optuna.samplers.RandomSampler(seed=0),
    pruner=LearningCurvePruner(n_steps=20, engine=SameGains(), risk=0.02),
)
study.optimize(objective, n_trials=30)
print(study.trials[-1].user_attrs["lcpruner_reason"])
