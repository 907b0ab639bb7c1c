"""The snippets of docs/frameworks.md, run as they are there with small trainings around them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import environment, installed
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner

PAGE = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
SECTIONS = {
    title: re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
}
N_TRIALS = 4

RNG = np.random.default_rng(0)
X, NOISE = RNG.normal(size=(200, 5)), RNG.normal(size=200)
Y = X[:, 0] + 0.1 * NOISE


class EveryOther(BasePruner):
    """Stops every other trial at its second report, whatever was reported."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number % 2 == 1 and len(trial.intermediate_values) >= 2


def run(title: str, **names: Any) -> optuna.Study:
    """A study of the objective that the section's only snippet defines."""
    (code,) = SECTIONS[title]
    assert len([line for line in code.splitlines() if line]) <= 6, "a snippet of five lines"
    exec(compile(code, title, "exec"), names)
    study = optuna.create_study(direction="minimize", pruner=EveryOther())
    study.optimize(names["objective"], n_trials=N_TRIALS)
    return study


def assert_pruned_and_whole(study: optuna.Study, steps: range) -> None:
    """Full trainings report these steps and return the last report; the others were stopped."""
    for trial in study.trials:
        reported = list(trial.intermediate_values)
        if trial.number % 2:
            assert trial.state == TrialState.PRUNED
            assert reported == list(steps)[:2]
        else:
            assert trial.state == TrialState.COMPLETE
            assert reported == list(steps)
            np.testing.assert_allclose(trial.value, trial.intermediate_values[steps[-1]], rtol=1e-6)


def test_the_study() -> None:
    code = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)[0]
    names = {"optuna": optuna, "LearningCurvePruner": LearningCurvePruner}

    def objective(trial: optuna.Trial) -> float:
        for step in range(40):
            trial.report(0.9**step, step)
        return 0.9**39

    exec(code.replace("n_trials=60", "n_trials=1"), names | {"objective": objective})


def test_lightgbm() -> None:
    pytest.importorskip("optuna_integration")
    lightgbm = pytest.importorskip("lightgbm")
    train = lightgbm.Dataset(X[:100], Y[:100], params={"verbosity": -1}, free_raw_data=False)

    def params(trial: optuna.Trial) -> dict[str, Any]:
        rate = trial.suggest_float("learning_rate", 0.01, 0.3)
        return {"learning_rate": rate, "metric": "rmse", "verbosity": -1, "num_threads": 1}

    valid = train.create_valid(X[100:], Y[100:])
    study = run("LightGBM", lightgbm=lightgbm, params=params, train=train, valid=valid)
    assert_pruned_and_whole(study, range(40))


def test_xgboost() -> None:
    pytest.importorskip("optuna_integration")
    xgboost = pytest.importorskip("xgboost")
    train, valid = (
        xgboost.DMatrix(X[rows], label=Y[rows] > 0) for rows in (slice(100), slice(100, None))
    )

    def params(trial: optuna.Trial) -> dict[str, Any]:
        eta = trial.suggest_float("eta", 0.01, 0.3)
        return {"objective": "binary:logistic", "eval_metric": "logloss", "eta": eta, "nthread": 1}

    study = run("XGBoost", xgboost=xgboost, params=params, train=train, valid=valid)
    assert_pruned_and_whole(study, range(40))


def needs(*packages: str) -> Any:
    """The marks of a test of a large framework."""
    absent = [name for name in packages if not installed(name)]
    skipped = pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")
    return lambda test: pytest.mark.frameworks(pytest.mark.slow(skipped(test)))


def in_a_process(code: str, folder: Path, *launcher: str) -> str:
    """What a script prints; frameworks warn as they are imported, which would end a test."""
    (folder / "script.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *launcher, "script.py"],
        cwd=folder,
        env=environment() | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMON = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
import optuna
from test_snippets import EveryOther, X, Y, assert_pruned_and_whole, run
"""

KERAS = """
import os
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras

def make_model(trial):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(trial.suggest_float("rate", 0.01, 0.1)), loss="mse")
    return model

valid = (X[100:], Y[100:])
study = run("Keras", make_model=make_model, x=X[:100], y=Y[:100], valid=valid)
assert_pruned_and_whole(study, range(40))
"""

LINEAR = """
import torch

x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(Y, dtype=torch.float32)
"""

LIGHTNING = """
import lightning

class Module(lightning.LightningModule):
    def __init__(self, rate):
        super().__init__()
        self.rate, self.layer = rate, torch.nn.Linear(5, 1)

    def training_step(self, batch):
        return ((self.layer(batch[0])[:, 0] - batch[1]) ** 2).mean()

    def validation_step(self, batch):
        self.log("val_loss", self.training_step(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)

def loader(rows):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[rows], y[rows]), 50)

def make_module(trial):
    return Module(trial.suggest_float("rate", 0.01, 0.1))

study = run(
    "Lightning",
    lightning=lightning,
    make_module=make_module,
    train=loader(slice(100)),
    valid=loader(slice(100, None)),
)
assert_pruned_and_whole(study, range(40))
"""

TRAINER = """
import transformers

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 1)

    def forward(self, x, labels):
        error = self.layer(x)[:, 0] - labels
        return {"loss": (error**2).mean(), "logits": error}

rows = [{"x": x[i], "labels": y[i]} for i in range(200)]

def make_trainer(rate, callbacks=()):
    arguments = transformers.TrainingArguments(
        "out",
        learning_rate=rate,
        max_steps=30,
        eval_strategy="steps",
        eval_steps=10,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        seed=0,
    )
    return transformers.Trainer(
        args=arguments,
        model_init=Model,
        train_dataset=rows[:100],
        eval_dataset=rows[100:],
        callbacks=list(callbacks),
    )
"""

SEARCH = """
from test_snippets import SECTIONS
code = SECTIONS["Hugging Face"][0].replace("n_trials=60", "n_trials=4")
storage = optuna.storages.InMemoryStorage()
names = {
    "trainer": make_trainer(0.1),
    "search_space": lambda trial: {"learning_rate": trial.suggest_float("rate", 0.01, 0.1)},
    # The pruner is replaced, and the study kept.
    "LearningCurvePruner": lambda n_steps: EveryOther(),
}
code = code.replace("pruner=", "study_name='s', storage=storage, pruner=")
exec(code, names | {"storage": storage})
study = optuna.load_study(study_name="s", storage=storage)
assert_pruned_and_whole(study, range(10, 31, 10))
"""

RANKS = """
import contextlib
import torch.distributed as dist
from pathlib import Path

dist.init_process_group("gloo")
rank = dist.get_rank()
LearningCurvePruner = lambda n_steps: EveryOther()
note = Path(f"rank{rank}.txt").open("a")
"""

LOOP = """
def train(trial):
    rate = trial.suggest_float("rate", 0.01, 0.1)
    layer = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(5, 1))
    optimizer = torch.optim.SGD(layer.parameters(), rate)
    for epoch in range(3):
        loss = ((layer(x[rank::2])[:, 0] - y[rank::2]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(trial.number, epoch, rate, file=note, flush=True)
        yield loss.item()
"""

IN_TRAINER = """
make = make_trainer

class Note(transformers.TrainerCallback):
    def __init__(self, trial):
        self.trial = trial

    def on_evaluate(self, args, state, control, **others):
        print(self.trial.number, state.global_step, args.learning_rate, file=note, flush=True)

def make_trainer(trial, callbacks):
    rate = trial.suggest_float("rate", 0.01, 0.1)
    return make(rate, callbacks=[Note(trial), *callbacks])
"""

END = """
if rank == 0:
    assert_pruned_and_whole(study, STEPS)
dist.destroy_process_group()
"""


@needs("keras", "tensorflow", "optuna_integration")
def test_keras(tmp_path: Path) -> None:
    in_a_process(COMMON + KERAS, tmp_path)


@needs("lightning", "torch", "optuna_integration")
def test_lightning(tmp_path: Path) -> None:
    in_a_process(COMMON + LINEAR + LIGHTNING, tmp_path)


@needs("transformers", "accelerate", "torch")
def test_hugging_face(tmp_path: Path) -> None:
    in_a_process(COMMON + LINEAR + TRAINER + SEARCH, tmp_path)


@needs("torch", "transformers", "accelerate", "optuna_integration")
@pytest.mark.parametrize("in_trainer", [False, True], ids=["loop", "hugging_face"])
def test_torchrun(in_trainer: bool, tmp_path: Path) -> None:
    """Both ranks train the same steps of the same trials with the same rate, and stop together."""
    loop, in_a_trainer = SECTIONS["torchrun, several GPUs a training"]
    begin, _, end = loop.partition("if dist.get_rank()")
    ending = "if dist.get_rank()" + re.sub(r"\b60\b", f"{N_TRIALS}", end) + END
    if in_trainer:
        code = TRAINER + IN_TRAINER + begin + in_a_trainer + ending
        steps = range(10, 31, 10)
    else:
        code, steps = LOOP + begin + ending, range(3)
    code = COMMON + LINEAR + RANKS + code.replace("STEPS", repr(steps))
    in_a_process(
        code, tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    )
    notes = [(tmp_path / f"rank{rank}.txt").read_text() for rank in range(2)]
    assert notes[0] == notes[1]
    assert len(notes[0].splitlines()) == sum(2 if n % 2 else 3 for n in range(N_TRIALS))
