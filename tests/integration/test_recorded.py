"""The recorded studies hold what a benchmark needs, and their script still gives them."""

import json
from pathlib import Path

import numpy as np
import pytest
from recorded import record
from recorded.record import TASKS

STUDIES = {
    f"{task.name}_{metric}": (task, metric, maximize)
    for task in TASKS
    for metric, maximize in task.maximize.items()
}


def load(name):
    with np.load(Path(record.__file__).with_name(f"{name}.npz")) as study:
        return dict(study)


def test_one_file_a_study():
    files = Path(record.__file__).parent.glob("*.npz")
    assert {path.stem for path in files} == set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_contents(name):
    task, _, maximize = STUDIES[name]
    study = load(name)
    curves = study["curves"]
    n_configurations, n_steps = curves.shape
    assert curves.dtype == np.float32
    assert n_configurations >= 150
    assert n_steps == study["steps"] == task.n_steps >= 30
    assert study["name"] == name
    assert study["maximize"] == maximize
    assert [json.loads(row) for row in study["hp_json"]] == [
        task.settings(number) for number in range(n_configurations)
    ]


@pytest.mark.parametrize("name", STUDIES)
def test_a_search_among_good_and_bad(name):
    curves = load(name)["curves"]
    final = curves[np.isfinite(curves[:, -1]), -1]
    assert len(final) > len(curves) / 2
    assert len(np.unique(final)) > 40
    assert not np.isinf(curves).any()
    diverged = np.isnan(curves)
    assert (diverged[:, 1:] >= diverged[:, :-1]).all()  # for good
    assert len(np.unique(curves[~diverged[:, -1]], axis=0)) > 0.9 * len(final)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_training_again_gives_the_recorded_values(task):
    for number in (0, 1):
        again = task.curves(number, n_steps=3)
        for metric, values in again.items():
            expected = load(f"{task.name}_{metric}")["curves"][number, :3]
            np.testing.assert_allclose(values, expected, rtol=1e-2)


def test_a_run_that_diverges_is_nan_from_there_on():
    def train(settings, seed, n_steps):
        yield from ({"loss": value} for value in (3.0, 1e39, 2.0))

    task = record.Task("made_up", train, 5, {}, {"loss": False})
    np.testing.assert_array_equal(task.curves(0)["loss"], [3, *[np.nan] * 4])


@pytest.mark.parametrize("classes", [True, False])
def test_gradients_are_those_of_finite_differences(classes):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
    y = np.eye(3)[y.argmax(axis=1)] if classes else y
    parameters = record.new_network([4, 6, 5, 3], rng)

    def loss():
        return record.loss_and_slope(record.forward(parameters, x)[-1], y, classes)

    values = record.forward(parameters, x)
    gradients = record.backward(parameters, values, loss()[1])
    for array, gradient in zip(parameters, gradients, strict=True):
        for index in np.ndindex(array.shape):
            losses, kept = [], array[index]
            for change in (1e-6, -1e-6):
                array[index] = kept + change
                losses.append(loss()[0])
            array[index] = kept
            slope = (losses[0] - losses[1]) / 2e-6
            np.testing.assert_allclose(gradient[index], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"momentum": 0.5}, [-0.2, -0.5]),  # 0.1 * 2, then 0.1 * (2 + 1)
        ({"momentum": 0.0, "weight_decay": 0.5}, [-0.2, -0.39]),
        ({"optimizer": "adam"}, [-0.1, -0.2]),  # a constant gradient: steps of the learning rate
    ],
)
def test_optimizer(settings, expected):
    parameter, path = np.zeros(1), []
    optimizer = record.Optimizer([parameter], settings)
    for _ in expected:
        optimizer.update([np.full(1, 2.0)], rate=0.1)
        path.append(parameter[0])
    np.testing.assert_allclose(path, expected, rtol=1e-6)


def test_schedules():
    progress = (0.0, 0.05, 0.5, 0.75)
    rates = {
        record.constant: (1, 1, 1, 1),
        record.cosine: (1, 0.993844, 0.5, 0.146447),
        record.warm_up: (0, 0.5, 5 / 9, 2.5 / 9),
        record.drops(0.5, 0.75): (1, 1, 0.1, 0.01),
    }
    for schedule, expected in rates.items():
        np.testing.assert_allclose([schedule(p) for p in progress], expected, atol=1e-6)


def test_cart_pole_from_rest():
    """A push right moves the cart right and the pole's top left; gravity alone keeps it upright."""
    rest = np.zeros((2, 4))
    moved = record.cart_pole(rest, np.array([0.0, 11.0]))
    # 1.1 kg: turned = -10 / (0.5 (4/3 - 1/11)), pushed = 10 - 0.05 turned / 1.1
    np.testing.assert_allclose(moved[0], 0)
    np.testing.assert_allclose(moved[1], [0, 0.214634, 0, -0.321951], rtol=1e-5)


def test_five_digits():
    values = np.array([0.0, 123456.0, -0.00123456, 1.0, np.nan, 9.99999e30])
    expected = np.array([0.0, 123460.0, -0.0012346, 1.0, np.nan, 1e31], dtype=np.float32)
    np.testing.assert_allclose(record.five_digits(values), expected, rtol=1e-7)
