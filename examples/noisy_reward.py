"""Reinforcement learning: a policy learns to balance a pole, and its reward is noisy.

python examples/noisy_reward.py

The reward of each update is that of a few episodes, so it jumps about, falls back at times and
says little alone. With patience=3 a trial is pruned once three looks in a row have been against it.
"""

import numpy as np
import optuna
from numpy.typing import NDArray
from shared import options, print_summary

from optuna_lcpruner import LearningCurvePruner

Array = NDArray[np.float64]

LONGEST = 200
"""Steps of 0.02 s after which an episode ends at the latest."""


def swing(state: Array, push: Array) -> Array:
    """One step of cart poles: position, speed, angle, angular speed in rows; push in newtons.

    Cart of 1 kg, pole of 0.1 kg and half-length 0.5 m (Barto, Sutton & Anderson 1983).
    """
    _, speed, angle, spin = state
    sin, cos = np.sin(angle), np.cos(angle)
    thrust = (push + 0.05 * spin**2 * sin) / 1.1
    spin_up = (9.8 * sin - cos * thrust) / (2 / 3 - 0.05 * cos**2 / 1.1)
    return state + 0.02 * np.array([speed, thrust - 0.05 * spin_up * cos / 1.1, spin, spin_up])


def update(weights: Array, episodes: int, discount: float, rng: np.random.Generator):
    """Play episodes side by side; their mean reward and REINFORCE's gradient of it.

    A step is worth 1 in the middle of the track and 0 at its ends, 2.4 m away.
    """
    state = rng.uniform(-0.05, 0.05, (4, episodes))
    alive, slopes, rewards, played = np.ones(episodes, dtype=bool), [], [], []
    while alive.any() and len(rewards) < LONGEST:
        right = 1 / (1 + np.exp(-weights @ state))
        act = rng.random(episodes) < right
        slopes.append((act - right) * state * alive)  # of log pi(act | state)
        rewards.append((1 - np.abs(state[0]) / 2.4) * alive)
        played.append(alive)
        state = swing(state, np.where(act, 10.0, -10.0))
        alive = alive & (np.abs(state[0]) < 2.4) & (np.abs(state[2]) < 0.21)
    returns, ahead = np.zeros((len(rewards), episodes)), np.zeros(episodes)
    for t in reversed(range(len(rewards))):
        ahead = rewards[t] + discount * ahead
        returns[t] = ahead
    advantage = returns - returns[np.array(played)].mean()
    gradient = np.einsum("tse,te->s", slopes, advantage) / np.sum(played)
    return np.sum(rewards) / episodes, gradient


def main() -> None:
    args = options(__doc__, trials=60, updates=60).parse_args()

    def objective(trial: optuna.Trial) -> float:
        learning_rate = trial.suggest_float("learning_rate", 1e-2, 3.0, log=True)
        discount = 1 - trial.suggest_float("1 - discount", 1e-3, 0.5, log=True)
        episodes = trial.suggest_int("episodes", 2, 16, log=True)
        rng, weights, rewards = np.random.default_rng(trial.number), np.zeros(4), []
        for step in range(1, args.updates + 1):
            reward, gradient = update(weights, episodes, discount, rng)
            weights = weights + learning_rate * gradient
            rewards.append(reward)
            trial.report(reward, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(rewards[-10:]))  # one reward alone is luck

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="noisy-reward",
        storage=args.storage,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(n_steps=args.updates, patience=3),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, args.updates, "updates")


if __name__ == "__main__":
    main()
