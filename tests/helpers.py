"""Small factories shared by the tests of the modules that talk to Optuna."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from numpy.typing import ArrayLike, NDArray
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from optuna_lcpruner import Decision, LearningCurvePruner

Array = NDArray[np.float64]

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

N_STEPS = 20
"""Reports of a full training in these tests."""

GOOD_ENDS = (0.80, 0.82, 0.84, 0.86, 0.90)
"""What the five completed trainings of a typical study approach; they start near 0.1."""

BAD = np.full(N_STEPS, 0.1)
"""A training that never leaves its start: after a few reports it is beyond doubt hopeless."""


def installed(package: str) -> bool:
    """Whether a package can be imported; one that replaced itself as it was has no spec."""
    return package in sys.modules or importlib.util.find_spec(package) is not None


def saturating(end: float, n: int = N_STEPS, start: float = 0.1, rate: float = 4.0) -> Array:
    """An exponential approach to ``end``, shape (n,); larger is better."""
    t = np.arange(1, n + 1) / n
    return end - (end - start) * np.exp(-rate * t)


def reports(values: ArrayLike, steps: Iterable[int] | None = None) -> dict[int, float]:
    """Values by step; steps 0, 1, 2, ... by default. Keeps the order of the steps."""
    values = np.atleast_1d(np.asarray(values, dtype=float)).tolist()
    return dict(zip(range(len(values)) if steps is None else steps, values, strict=False))


def finished(
    curve: Mapping[int, float],
    value: float | None = None,
    state: TrialState = TrialState.COMPLETE,
    user_attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """A trial with these reports; a complete one returns its newest report unless told."""
    if value is None and state == TrialState.COMPLETE:
        value = curve[max(curve)]
    return create_trial(
        state=state,
        value=value,
        intermediate_values=dict(curve),
        user_attrs=dict(user_attrs or {}),
    )


SAYS_CONSTRAINTS = ("list", "set_constraint")
"""How a trial says its constraint values: samplers' ``constraints_func``, or one by one."""


def constrained(trial: FrozenTrial, *values: float, how: str = "list") -> FrozenTrial:
    """The trial, with these constraint values as Optuna stores them."""
    if how == "list":
        trial.system_attrs["constraints"] = list(values)
        return trial
    if not hasattr(trial, "set_constraint"):
        pytest.skip("Optuna 4 has no set_constraint")
    for i, value in enumerate(values):
        trial.set_constraint(f"c{i}", value)
    return trial


def good_trials(**kwargs: Any) -> list[FrozenTrial]:
    """The five completed trainings of a typical study, reported at steps 0, 1, ..., 19."""
    return [finished(reports(saturating(end)), **kwargs) for end in GOOD_ENDS]


def make_study(
    trials: Iterable[FrozenTrial] = (),
    direction: str = "maximize",
    storage: Any = None,
    pruner: BasePruner | None = None,
) -> Study:
    """A study with these trials already in it."""
    study = optuna.create_study(direction=direction, storage=storage, pruner=pruner)
    study.add_trials(trials)
    return study


def begun_at(
    started: datetime,
    study: Study,
    params: dict[str, Any] | None = None,
    distributions: dict[str, BaseDistribution] | None = None,
) -> Trial:
    """A running trial of the study that began at a given time."""
    frozen = create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)
    frozen.datetime_start = started
    study.add_trial(frozen)
    return Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)


def train(trial: Trial, curve: ArrayLike) -> float:
    """Make a curve's reports, in an objective, until the trial is told to stop; the last one."""
    for step, value in reports(curve).items():
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


class Recording(BasePruner):
    """Asks ``pruner.decide`` whenever Optuna asks, and keeps the answers."""

    def __init__(self, pruner: LearningCurvePruner) -> None:
        self.pruner = pruner
        self.decisions: list[Decision] = []
        self.asked: list[tuple[int, Decision]] = []

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        decision = self.pruner.decide(study, trial)
        self.decisions.append(decision)
        self.asked.append((trial.number, decision))
        return decision.prune


def watch(
    study: Study,
    pruner: LearningCurvePruner,
    curve: Mapping[int, float],
    user_attrs: Mapping[str, Any] | None = None,
    *,
    each: bool = True,
) -> list[Decision]:
    """Train a new trial of the study to the end of these reports; ask after each, or the last."""
    study.pruner = recording = Recording(pruner)
    trial = study.ask()
    for key, value in (user_attrs or {}).items():
        trial.set_user_attr(key, value)
    for step, value in curve.items():
        trial.report(value, step)
        if each:
            trial.should_prune()
    if not each:
        trial.should_prune()
    return recording.decisions


def judge(
    study: Study,
    pruner: LearningCurvePruner,
    curve: Mapping[int, float],
    user_attrs: Mapping[str, Any] | None = None,
) -> Decision:
    """Ask once about a running trial that has made these reports."""
    return watch(study, pruner, curve, user_attrs, each=False)[-1]


def names(decisions: Sequence[Decision]) -> list[str]:
    """The names of the reasons."""
    return [decision.reason.name for decision in decisions]


GOOD_STUDY = "good"
"""Name of the study of :func:`good_study`."""


@cache
def _database(with_good_study: bool) -> bytes:
    """An SQLite file with Optuna's tables, which take long to make."""
    with TemporaryDirectory() as folder:
        storage = RDBStorage(f"sqlite:///{folder}/made.db")
        if with_good_study:
            study = optuna.create_study(
                study_name=GOOD_STUDY, storage=storage, direction="maximize"
            )
            study.add_trials(good_trials())
        storage.remove_session()
        storage.engine.dispose()
        return Path(folder, "made.db").read_bytes()


def sqlite(url: str, *, with_good_study: bool = False) -> RDBStorage:
    """An SQLite storage that does not wait for the disk; a new file is a copy of a finished one.

    Files are those of these tests: Optuna need not ask whether another version made them.
    """
    path = sqlalchemy.make_url(url).database
    is_file = path not in (None, "", ":memory:") and "uri=" not in url
    if is_file and not Path(path).exists():
        Path(path).write_bytes(_database(with_good_study))
    storage = RDBStorage(url, skip_compatibility_check=is_file, skip_table_creation=is_file)
    sqlalchemy.event.listen(
        storage.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF")
    )
    if storage.engine.url.database not in (None, ":memory:"):
        storage.engine.dispose()
    return storage


def good_study(url: str, pruner: BasePruner | None = None) -> Study:
    """A study of the good trials, alone in a new SQLite file."""
    storage = sqlite(url, with_good_study=True)
    return optuna.load_study(study_name=GOOD_STUDY, storage=storage, pruner=pruner)


class CountingStorage(InMemoryStorage):
    """Counts how often all trials of a study are read."""

    def __init__(self) -> None:
        super().__init__()
        self.n_reads = 0

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        self.n_reads += 1
        return super().get_all_trials(*args, **kwargs)


class SpyEngine:
    """An engine that keeps what it was given and answers like another one."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.curves: list[Any] = []
        self.knowledge: list[Any] = []

    def __call__(self, curve: Any, knowledge: Any, positions: Any = None) -> Any:
        self.curves.append(curve)
        self.knowledge.append(knowledge)
        return self.engine(curve, knowledge, positions)


def environment() -> dict[str, str]:
    """The environment of another Python that is to import what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run_example(
    name: str, *options: str, folder: Path, launcher: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run an example in a folder, as a user would; with options of Python that launch it."""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *launcher, str(EXAMPLES / name), *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def refused(name: str, *options: str, folder: Path) -> str:
    """Run an example with arguments it should not take, in this process; what it prints then."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(printed):
        patch.chdir(folder)
        patch.syspath_prepend(str(EXAMPLES))
        patch.setattr(sys, "argv", [name, *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert ended.value.code == 2
    return printed.getvalue()


def numbers(pattern: str, text: str) -> list[float]:
    """The numbers that a pattern finds in a text."""
    match = re.search(pattern, text)
    assert match is not None, f"no {pattern!r} in:\n{text}"
    return [float(group) for group in match.groups()]


def run_together(script: str, arguments: Sequence[Sequence[str]], *options: str) -> list[str]:
    """Run a script in a process for each of the arguments, all going on at once; their stderr.

    The script prints "ready" and reads a line, after which it begins.
    """
    workers = [
        subprocess.Popen(
            [sys.executable, *options, "-c", script, *own],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in arguments
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = []
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
        said.append(errors)
    return said


DOOMED = BAD[:12]
"""Twelve of twenty reports without any progress."""
PROMISING = saturating(0.95)[:12]
"""Twelve of twenty reports that lead to a new best value."""


def make_pruner(**settings: Any) -> LearningCurvePruner:
    return LearningCurvePruner(**{"n_steps": N_STEPS, "threshold": 0.05, **settings})
