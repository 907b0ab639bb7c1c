"""Record learning curves of small models, trained on data that come with scikit-learn.

    python tests/recorded/record.py
    python tests/recorded/record.py --task digits cart_pole --out DIRECTORY

Each task is a random search: its configurations are drawn from a search space, and each is trained
to the end. The curves of one metric of a task make a study, the file ``TASK_METRIC.npz`` with

    curves     (n_configurations, n_steps) float32 of five digits, NaN from where a run diverged
    maximize   whether larger is better
    name       TASK_METRIC
    hp_json    (n_configurations,) the hyper-parameters of each row, as JSON
    steps      n_steps

The tasks:

    digits             classes of digits; learning rates up to where training fails
    noisy_labels       the same, a quarter of the training labels wrong: the loss of some rises
                       again; the learning rate drops tenfold after 60 % of the training
    cancer             malignant or not; the learning rate follows a cosine
    diabetes           regression from 200 patients: wide networks overfit, fast ones diverge
    friedman           regression of a known function; the rate drops at 50 % and again at 75 %
    clusters           three classes of many clusters; what is reported is the training loss of
                       the epoch's last ten mini-batches
    autoencoder        digits through a narrow layer, by Adam; the rate drops at 70 %
    photo              colours of a photo from coordinates, by Adam, in decibels; the rate rises
                       for 10 % of the training, then falls to 0
    digits_boosting    gradient boosting of trees by histograms, ten trees a round
    friedman_boosting  stochastic gradient boosting of trees
    cart_pole          reward of a policy that learns by REINFORCE to balance a pole

All seeds are fixed. A second recording on the same machine gives the same files; on another one,
rounding differs and a long training drifts away from the recorded one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

Array = NDArray[np.float64]
Settings = dict[str, Any]
Metrics = dict[str, float]
Schedule = Callable[[float], float]

N_CONFIGURATIONS = 240
LONGEST_EPISODE = 500
"""Steps after which an episode of cart-pole ends."""


# --- data ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """Standardized inputs and targets; the targets of ``classes`` are one-hot."""

    x: Array
    y: Array
    x_validation: Array
    y_validation: Array
    classes: bool


def split(
    x: Array, y: Array, n_train: int, *, classes: bool, wrong: float = 0.0, least: float = 1e-9
) -> Data:
    """Shuffle and split; a share ``wrong`` of the training labels is drawn anew.

    Inputs of a standard deviation below ``least`` are divided by that instead.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    x = (x - x[:n_train].mean(axis=0)) / np.maximum(x[:n_train].std(axis=0), least)
    if classes:
        n_classes = y.max() + 1
        redrawn = rng.random(n_train) < wrong
        y[:n_train][redrawn] = rng.integers(n_classes, size=redrawn.sum())
        y = np.eye(n_classes)[y]
    else:
        y = y.reshape(len(x), -1)
        y = (y - y[:n_train].mean(axis=0)) / y[:n_train].std(axis=0)
    return Data(x[:n_train], y[:n_train], x[n_train:], y[n_train:], classes)


@cache
def digits(wrong: float = 0.0) -> Data:
    """1797 images of 8 x 8 pixels."""
    loaded = datasets.load_digits(return_X_y=True)
    return split(*loaded, 900, classes=True, wrong=wrong, least=2.0)


@cache
def images() -> Data:
    """The same images, each its own target."""
    data = digits()
    return Data(data.x, data.x, data.x_validation, data.x_validation, classes=False)


@cache
def cancer() -> Data:
    """569 tumours, 30 measures."""
    return split(*datasets.load_breast_cancer(return_X_y=True), 200, classes=True)


@cache
def diabetes() -> Data:
    """442 patients, 10 measures."""
    return split(*datasets.load_diabetes(return_X_y=True), 200, classes=False)


@cache
def friedman() -> Data:
    """Friedman's first function of ten inputs, five of them without effect."""
    made = datasets.make_friedman1(n_samples=1500, noise=1.0, random_state=0)
    return split(*made, 500, classes=False)


@cache
def clusters() -> Data:
    """Three classes of four clusters each, 5 % of the labels wrong."""
    x, y = datasets.make_classification(
        4000,
        n_features=12,
        n_informative=8,
        n_classes=3,
        n_clusters_per_class=4,
        flip_y=0.05,
        random_state=0,
    )
    return split(x, y, 3000, classes=True)


@cache
def photo() -> Data:
    """Every fifth pixel of a photo: waves of its coordinates, and its three colours."""
    pixels = datasets.load_sample_image("china.jpg")[::5, ::5] / 255
    rows, columns = np.indices(pixels.shape[:2]).reshape(2, -1) / len(pixels)
    waves = np.random.default_rng(0).normal(0, 6, (2, 24))
    angles = np.stack([rows, columns], axis=1) @ waves
    x = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return split(x, pixels.reshape(-1, 3), 5000, classes=False)


# --- networks -----------------------------------------------------------------------------------


def new_network(sizes: list[int], rng: np.random.Generator) -> list[Array]:
    """Weights ~ N(0, 2 / n_in) and zero biases, one after the other."""
    parameters = []
    for n_in, n_out in pairwise(sizes):
        parameters += [rng.normal(0, np.sqrt(2 / n_in), (n_in, n_out)), np.zeros(n_out)]
    return parameters


def forward(
    parameters: list[Array], x: Array, dropout: float = 0.0, rng: np.random.Generator | None = None
) -> list[Array]:
    """The input of each layer, then the output of the last; rectifiers between the layers."""
    values = [x]
    for weights, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        hidden = np.maximum(values[-1] @ weights + bias, 0)
        if rng is not None and dropout > 0:
            hidden *= (rng.random(hidden.shape) >= dropout) / (1 - dropout)
        values.append(hidden)
    return [*values, values[-1] @ parameters[-2] + parameters[-1]]


def backward(
    parameters: list[Array], values: list[Array], slope: Array, dropout: float = 0.0
) -> list[Array]:
    """Gradients of the parameters, from the slope of the loss in each output."""
    gradients: list[Array] = []
    for layer in reversed(range(len(parameters) // 2)):
        gradients = [values[layer].T @ slope, slope.sum(axis=0), *gradients]
        if layer:
            slope = slope @ parameters[2 * layer].T * (values[layer] > 0) / (1 - dropout)
    return gradients


class Optimizer:
    """Gradient descent with momentum, or Adam; weight decay is part of the gradient."""

    def __init__(self, parameters: list[Array], settings: Settings) -> None:
        self.parameters = parameters
        self.momentum = settings.get("momentum", 0.9)
        self.weight_decay = settings.get("weight_decay", 0.0)
        self.adam = settings.get("optimizer") == "adam"
        self.first = [np.zeros_like(p) for p in parameters]
        self.second = [np.zeros_like(p) for p in parameters]
        self.n_updates = 0

    def update(self, gradients: list[Array], rate: float) -> None:
        """Change the parameters in place."""
        self.n_updates += 1
        for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
            g = g + self.weight_decay * p
            m *= self.momentum
            if not self.adam:
                m += g
                p -= rate * m
                continue
            m += (1 - self.momentum) * g
            v *= 0.999
            v += 0.001 * g**2
            size = np.sqrt(v / (1 - 0.999**self.n_updates)) + 1e-8
            p -= rate / (1 - self.momentum**self.n_updates) * m / size


def softmax(logits: Array) -> Array:
    """Probabilities of the classes, by row."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def loss_and_slope(outputs: Array, y: Array, classes: bool) -> tuple[float, Array]:
    """Cross-entropy or half the squared error, a mean over the rows, and its slope."""
    if not classes:
        difference = outputs - y
        return 0.5 * float(np.mean(difference**2)), difference / difference.size
    p = softmax(outputs)
    return -float(np.mean(np.log(p[y > 0] + 1e-12))), (p - y) / len(y)


def validation(parameters: list[Array], data: Data) -> Metrics:
    """Loss; for classes, accuracy and error; else R squared and decibels (PSNR of targets / sd)."""
    outputs, y = forward(parameters, data.x_validation)[-1], data.y_validation
    loss, _ = loss_and_slope(outputs, y, data.classes)
    if not data.classes:
        r2 = 1 - 2 * loss / float(np.mean((y - y.mean(axis=0)) ** 2))
        return {"loss": loss, "r2": r2, "decibels": -10 * float(np.log10(2 * loss))}
    hits = outputs.argmax(axis=1) == y.argmax(axis=1)
    accuracy = float(hits.mean()) if np.isfinite(outputs).all() else np.nan
    return {"loss": loss, "accuracy": accuracy, "error": 1 - accuracy}


def constant(progress: float) -> float:
    """The same learning rate all along."""
    return 1.0


def cosine(progress: float) -> float:
    """From 1 to 0."""
    return 0.5 * (1 + np.cos(np.pi * progress))


def warm_up(progress: float) -> float:
    """From 0 to 1 in a tenth of the training, then back to 0."""
    return min(progress / 0.1, (1 - progress) / 0.9)


def drops(*at: float) -> Schedule:
    """A tenth from each of these shares of the training on."""
    return lambda progress: 0.1 ** sum(progress >= share for share in at)


def train_network(
    settings: Settings,
    seed: int,
    n_steps: int,
    load: Callable[[], Data],
    schedule: Schedule = constant,
) -> Iterator[Metrics]:
    """Mini-batch training, one step an epoch."""
    data, rng = load(), np.random.default_rng(seed)
    hidden = [settings["width"]] * settings.get("layers", 1)
    if "code" in settings:
        hidden = [settings["width"], settings["code"], settings["width"]]
    parameters = new_network([data.x.shape[1], *hidden, data.y.shape[1]], rng)
    optimizer = Optimizer(parameters, settings)
    n_rows, size, dropout = len(data.x), settings["batch_size"], settings.get("dropout", 0.0)
    for epoch in range(n_steps):
        order, losses = rng.permutation(n_rows), []
        for start in range(0, n_rows - size + 1, size):
            rows = order[start : start + size]
            values = forward(parameters, data.x[rows], dropout, rng)
            loss, slope = loss_and_slope(values[-1], data.y[rows], data.classes)
            rate = settings["learning_rate"] * schedule((epoch + start / n_rows) / n_steps)
            optimizer.update(backward(parameters, values, slope, dropout), rate)
            losses.append(loss)
        yield {**validation(parameters, data), "batch_loss": float(np.mean(losses[-10:]))}


# --- boosting -----------------------------------------------------------------------------------


def boost_digits(settings: Settings, seed: int, n_steps: int) -> Iterator[Metrics]:
    """One step a round; the validation loss of ten trees a round."""
    data = digits(wrong=0.1)
    model = HistGradientBoostingClassifier(
        max_iter=n_steps, early_stopping=False, random_state=seed, **settings
    ).fit(data.x, data.y.argmax(axis=1))
    for p in model.staged_predict_proba(data.x_validation):
        yield {"loss": -float(np.mean(np.log(p[data.y_validation > 0] + 1e-12)))}


def boost_friedman(settings: Settings, seed: int, n_steps: int) -> Iterator[Metrics]:
    """One step a round; the root of the mean squared validation error."""
    data = friedman()
    model = GradientBoostingRegressor(n_estimators=n_steps, random_state=seed, **settings)
    model.fit(data.x, data.y[:, 0])
    for predicted in model.staged_predict(data.x_validation):
        yield {"rmse": float(np.sqrt(np.mean((predicted - data.y_validation[:, 0]) ** 2)))}


# --- reinforcement learning ---------------------------------------------------------------------


def cart_pole(state: Array, force: Array) -> Array:
    """0.02 s of the cart-pole of Barto, Sutton and Anderson (1983), by Euler's method.

    Cart 1 kg, pole 0.1 kg and 1 m long, no friction. The state, of shape (n, 4), is the cart's
    place and speed, then the pole's angle and angular speed.
    """
    _, speed, angle, turn = state.T
    sine, cosine_ = np.sin(angle), np.cos(angle)
    push = (force + 0.05 * turn**2 * sine) / 1.1
    turned = (9.8 * sine - cosine_ * push) / (0.5 * (4 / 3 - 0.1 * cosine_**2 / 1.1))
    pushed = push - 0.05 * turned * cosine_ / 1.1
    return state + 0.02 * np.stack([speed, pushed, turn, turned], axis=1)


def play(
    parameters: list[Array], n_episodes: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """States (time, episode, 4), actions and whether the episode still ran (time, episode)."""
    state = rng.uniform(-0.05, 0.05, (n_episodes, 4))
    running = np.ones(n_episodes, dtype=bool)
    states, actions, ran = [], [], []
    while running.any() and len(states) < LONGEST_EPISODE:
        logits = forward(parameters, state)[-1]
        right = rng.random(n_episodes) < softmax(logits)[:, 1]
        states.append(state)
        actions.append(right)
        ran.append(running)
        state = cart_pole(state, np.where(right, 10.0, -10.0))
        running = running & (np.abs(state[:, 0]) < 2.4) & (np.abs(state[:, 2]) < 0.2095)
    return np.array(states), np.array(actions), np.array(ran)


def train_policy(settings: Settings, seed: int, n_steps: int) -> Iterator[Metrics]:
    """REINFORCE, one step an update; the mean reward of the episodes the update learns from.

    A step of an episode is worth 1 in the middle of the track, 0 at its ends.
    """
    rng = np.random.default_rng(seed)
    parameters = new_network([4, settings["width"], 2], rng)
    optimizer = Optimizer(parameters, settings)
    for _ in range(n_steps):
        states, actions, ran = play(parameters, settings["episodes"], rng)
        rewards = ran * (1 - (states[..., 0] / 2.4) ** 2)
        yield {"reward": float(rewards.sum(axis=0).mean())}
        returns = np.zeros_like(rewards)
        following = np.zeros(settings["episodes"])
        for t in reversed(range(len(ran))):
            following = rewards[t] + settings["discount"] * following
            returns[t] = following
        advantage = returns[ran] - settings["baseline"] * returns[ran].mean()
        advantage /= returns[ran].std() + 1e-6
        values = forward(parameters, states[ran])
        slope = softmax(values[-1]) - np.eye(2)[actions[ran].astype(int)]
        slope *= advantage[:, None] / len(advantage)
        optimizer.update(backward(parameters, values, slope), settings["learning_rate"])


# --- the tasks ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A training, the space of its hyper-parameters, and the metrics that become studies.

    A list in the space holds values as likely as each other; a pair holds the bounds of a number
    that is uniform in its logarithm.
    """

    name: str
    train: Callable[[Settings, int, int], Iterator[Metrics]]
    n_steps: int
    space: dict[str, list[Any] | tuple[float, float]]
    maximize: dict[str, bool]  # metric -> direction

    def settings(self, number: int) -> Settings:
        """Hyper-parameters of a configuration, numbers to four digits."""
        rng = np.random.default_rng([number, *self.name.encode()])
        drawn = {}
        for name, values in self.space.items():
            if isinstance(values, list):
                drawn[name] = values[rng.integers(len(values))]
            else:
                drawn[name] = float(f"{np.exp(rng.uniform(*np.log(values))):.4g}")
        return drawn

    def curves(self, number: int, n_steps: int | None = None) -> dict[str, Array]:
        """Metric -> its first ``n_steps`` values, NaN from where it left the finite numbers."""
        n_steps = self.n_steps if n_steps is None else n_steps
        curves = {metric: np.full(n_steps, np.nan) for metric in self.maximize}
        with np.errstate(all="ignore"), threadpool_limits(1):
            steps = self.train(self.settings(number), number, self.n_steps)
            for step, metrics in zip(range(n_steps), steps, strict=False):
                if not all(np.isfinite(np.float32(metrics[metric])) for metric in curves):
                    break
                for metric, curve in curves.items():
                    curve[step] = metrics[metric]
        return curves


NETWORK = {"width": [8, 16, 32, 64, 128], "batch_size": [16, 32, 64, 128]}
MOMENTUM = {"momentum": [0.0, 0.5, 0.9, 0.95]}
DEEP = {"layers": [1, 2, 3]}
DROPOUT = {"dropout": [0.0, 0.1, 0.25, 0.5]}
DECAY = {"weight_decay": (1e-6, 1e-1)}

TASKS = (
    Task(
        "digits",
        partial(train_network, load=digits),
        50,
        {"learning_rate": (3e-4, 1.0)} | NETWORK | MOMENTUM | DEEP | DROPOUT | DECAY,
        {"accuracy": True, "loss": False},
    ),
    Task(
        "noisy_labels",
        partial(train_network, load=partial(digits, wrong=0.25), schedule=drops(0.6)),
        60,
        {"learning_rate": (1e-3, 0.5)} | NETWORK | MOMENTUM | DROPOUT | DECAY,
        {"error": False, "loss": False},
    ),
    Task(
        "cancer",
        partial(train_network, load=cancer, schedule=cosine),
        50,
        {"learning_rate": (3e-4, 1.0)} | NETWORK | MOMENTUM | DEEP | DROPOUT | DECAY,
        {"loss": False},
    ),
    Task(
        "diabetes",
        partial(train_network, load=diabetes),
        60,
        {"learning_rate": (1e-3, 0.5)} | NETWORK | MOMENTUM | DROPOUT,
        {"loss": False},
    ),
    Task(
        "friedman",
        partial(train_network, load=friedman, schedule=drops(0.5, 0.75)),
        60,
        {"learning_rate": (1e-3, 1.0)} | NETWORK | MOMENTUM | DEEP | DECAY,
        {"r2": True},
    ),
    Task(
        "clusters",
        partial(train_network, load=clusters),
        60,
        {"learning_rate": (1e-3, 1.0), "width": [4, 8, 16, 32], "batch_size": [16, 32, 64, 128]}
        | MOMENTUM
        | DEEP
        | DECAY,
        {"batch_loss": False},
    ),
    Task(
        "autoencoder",
        partial(train_network, load=images, schedule=drops(0.7)),
        50,
        {
            "optimizer": ["adam"],
            "learning_rate": (1e-4, 1e-1),
            "code": [4, 8, 12, 16],
            "weight_decay": (1e-7, 1e-3),
        }
        | NETWORK,
        {"loss": False},
    ),
    Task(
        "photo",
        partial(train_network, load=photo, schedule=warm_up),
        40,
        {
            "optimizer": ["adam"],
            "learning_rate": (1e-4, 1e-1),
            "width": [16, 32, 64, 128],
            "batch_size": [64, 128, 256],
            "momentum": [0.5, 0.9, 0.95],
        }
        | DEEP,
        {"decibels": True},
    ),
    Task(
        "digits_boosting",
        boost_digits,
        50,
        {
            "learning_rate": (1e-2, 0.7),
            "max_leaf_nodes": [4, 8, 16, 31],
            "min_samples_leaf": [2, 5, 10, 20, 50],
            "l2_regularization": (1e-3, 1e2),
            "max_features": [0.1, 0.3, 1.0],
        },
        {"loss": False},
    ),
    Task(
        "friedman_boosting",
        boost_friedman,
        80,
        {
            "learning_rate": (1e-2, 1.0),
            "max_depth": [1, 2, 3, 4, 6, 8],
            "min_samples_leaf": [1, 5, 10, 20],
            "subsample": [0.3, 0.5, 0.8, 1.0],
            "max_features": [0.3, 0.6, 1.0],
        },
        {"rmse": False},
    ),
    Task(
        "cart_pole",
        train_policy,
        70,
        {
            "optimizer": ["sgd", "adam"],
            "learning_rate": (1e-3, 0.3),
            "width": [4, 8, 16, 32],
            "episodes": [8, 16, 32],
            "discount": [0.8, 0.9, 0.95, 0.99, 1.0],
            "baseline": [0.0, 1.0],
        },
        {"reward": True},
    ),
)


# --- recording ----------------------------------------------------------------------------------


def five_digits(values: Array) -> NDArray[np.float32]:
    """Rounded to five significant digits."""
    digits_after = 4 - np.floor(np.log10(np.abs(np.where(values == 0, 1, values))))
    return (np.round(values * 10**digits_after) / 10**digits_after).astype(np.float32)


def summary(name: str, curves: Array, maximize: bool, seconds: float) -> str:
    """One line about a study: time, final values, share that diverged."""
    final = np.sort(curves[np.isfinite(curves[:, -1]), -1])[:: -1 if maximize else 1]
    diverged = np.isnan(curves[:, -1]).mean()
    best, median, worst = final[0], final[len(final) // 2], final[-1]
    return (
        f"{name:24} {seconds:4.0f} s  best {best:.4g}  median {median:.4g}  worst {worst:.4g}"
        f"  diverged {diverged:.0%}"
    )


def record(task: Task, out: Path) -> None:
    """Train all configurations of a task, write its studies."""
    start = time.perf_counter()
    runs = [task.curves(number) for number in range(N_CONFIGURATIONS)]
    seconds = time.perf_counter() - start
    for metric, maximize in task.maximize.items():
        name = f"{task.name}_{metric}"
        curves = five_digits(np.array([run[metric] for run in runs]))
        np.savez_compressed(
            out / f"{name}.npz",
            curves=curves,
            maximize=maximize,
            name=name,
            hp_json=[json.dumps(task.settings(number)) for number in range(N_CONFIGURATIONS)],
            steps=task.n_steps,
        )
        print(summary(name, curves, maximize, seconds), flush=True)


def main() -> None:
    """Record the tasks that are asked for."""
    parser = argparse.ArgumentParser(description="Record learning curves of small models.")
    names = [task.name for task in TASKS]
    parser.add_argument("--task", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="a directory")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        if task.name in arguments.task:
            record(task, arguments.out)


if __name__ == "__main__":
    main()
