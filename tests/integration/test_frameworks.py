"""The examples run, shortened; what they print and how they number steps agrees with the study."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers import EXAMPLES, installed, numbers, refused, run_example
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner import explain, resumed_from

pytestmark = pytest.mark.slow

BOOSTED = ("sklearn", "optuna_integration")
LEARNED = ("sklearn", "torch")


@dataclass(frozen=True)
class Example:
    """An example, shortened, and the reports that its full training makes.

    Attributes:
        name: Its file, without ``.py``.
        needs: Packages it imports.
        trials: How many trials.
        length: The option that sets the length of a training, and its value.
        unit: What a step is.
        n_steps: Steps of a full training; None: each trial announces its own.
        first: The first step reported.
        every: Steps from one report to the next.
        looks_every: Reports from one look to the next.
        studies: Its studies.
        more: Further options.
        launcher: Options of Python that launch it.
    """

    name: str
    needs: tuple[str, ...]
    trials: int
    length: tuple[str, int]
    unit: str
    n_steps: int | None
    first: int = 0
    every: int = 1
    looks_every: int = 1
    studies: tuple[str, ...] = ("",)
    more: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()

    @property
    def options(self) -> list[str]:
        option, value = self.length
        return ["--trials", f"{self.trials}", f"--{option}", f"{value}", *self.more]

    def full(self, trial: FrozenTrial) -> int:
        """Steps of the trial's full training."""
        announced = trial.user_attrs.get("lcpruner_n_steps")
        assert (announced is None) == (self.n_steps is not None)
        return int(announced) if self.n_steps is None else self.n_steps


LIGHT = (
    Example("sklearn_partial_fit", ("sklearn",), 16, ("epochs", 12), "epochs", 12),
    Example("xgboost_cancer", ("xgboost", *BOOSTED), 9, ("rounds", 40), "rounds", None),
    Example(
        "lightgbm_diabetes", ("lightgbm", *BOOSTED), 9, ("rounds", 50), "rounds", 50, 4, every=5
    ),
    Example(
        "lightgbm_folds", ("lightgbm", "sklearn"), 7, ("rounds", 15), "rounds", None, 4, every=5
    ),
    Example("minibatch_loss", ("sklearn",), 9, ("epochs", 2), "iterations", None, looks_every=10),
    Example("noisy_reward", (), 20, ("updates", 20), "updates", 20, first=1),
    Example(
        "search_matrix",
        ("sklearn",),
        9,
        ("epochs", 6),
        "epochs",
        6,
        studies=("-grid", "-random", "-tpe"),
        more=("--repeats", "1"),
    ),
    Example(
        "second_study",
        ("sklearn",),
        8,
        ("epochs", 6),
        "epochs",
        6,
        studies=("-first", "-cold", "-warm"),
    ),
)
RESUMED = (
    Example("resume_sklearn", ("sklearn",), 16, ("epochs", 12), "epochs", 12),
    Example("resume_pytorch", LEARNED, 40, ("epochs", 12), "epochs", 12),
)
"""Those in which pruned trials go on from their checkpoints."""

HEAVY = (
    Example(
        "keras_digits",
        ("tensorflow", "keras", *BOOSTED),
        10,
        ("epochs", 6),
        "epochs",
        6,
    ),
    Example("pytorch_schedules", LEARNED, 16, ("epochs", 12), "epochs", 12),
    Example(
        "torchrun_digits",
        (*LEARNED, *BOOSTED),
        14,
        ("epochs", 8),
        "epochs",
        8,
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
    ),
    Example(
        "lightning_digits", ("lightning", *LEARNED, *BOOSTED), 12, ("epochs", 8), "epochs", None
    ),
    Example(
        "huggingface_trainer",
        ("transformers", "accelerate", *LEARNED),
        8,
        ("steps", 120),
        "steps",
        120,
        first=20,
        every=20,
    ),
    Example(
        "search_matrix",
        LEARNED,
        14,
        ("epochs", 8),
        "epochs",
        8,
        studies=("-gp",),
        more=("--samplers", "gp", "--repeats", "1"),
    ),
)


def parameters(example: Example, heavy: bool) -> object:
    """A case of its own; skipped, with the names of what is missing, where it cannot run."""
    missing = sorted(name for name in set(example.needs) if not installed(name))
    why = f"not installed: {', '.join(missing)}"
    marks = [pytest.mark.skipif(bool(missing), reason=why)]
    if heavy:
        marks.append(pytest.mark.frameworks)
    name = example.name + ("-gp" if "gp" in example.more else "")
    return pytest.param(example, id=name, marks=marks)


CASES = [parameters(e, heavy=False) for e in LIGHT] + [parameters(e, heavy=True) for e in HEAVY]


@dataclass(frozen=True)
class Run:
    example: Example
    folder: Path
    result: subprocess.CompletedProcess[str]

    @property
    def studies(self) -> list[optuna.Study]:
        prefix = self.example.name.replace("_", "-")
        storage = optuna.storages.get_storage(f"sqlite:///{self.folder}/study.db")
        return [
            optuna.load_study(study_name=prefix + suffix, storage=storage)
            for suffix in self.example.studies
        ]

    def section(self, study: optuna.Study) -> str:
        """What is printed about one study."""
        _, _, rest = self.result.stdout.partition(f"\n{study.study_name}: ")
        return rest.partition("\nsearch-matrix-")[0]


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An example run once, its studies in study.db."""
    example, folder = request.param, tmp_path_factory.mktemp(request.param.name)
    storage = ("--storage", "sqlite:///study.db")
    result = run_example(
        f"{example.name}.py",
        *example.options,
        *storage,
        folder=folder,
        launcher=example.launcher,
    )
    return Run(example, folder, result)


def test_every_example_is_run() -> None:
    tried = {example.name for example in (*LIGHT, *HEAVY)}
    elsewhere = {"own_engine", "own_family", "quickstart", "ray_scheduler", "shared"}
    tried |= {example.name for example in RESUMED}
    assert tried | elsewhere == {path.stem for path in EXAMPLES.glob("*.py")}


def test_it_succeeds_without_warnings(run: Run) -> None:
    assert run.result.returncode == 0, run.result.stderr
    for word in ("Warning", "warning", "Traceback", "Error"):
        assert word not in run.result.stderr
    left = {path.name for path in run.folder.iterdir()}
    assert left == {"study.db", "study.db.lcpruner"}


def test_its_summary_is_what_the_database_says(run: Run) -> None:
    for study in run.studies:
        text, trials = run.section(study), study.trials
        completed = study.get_trials(states=[TrialState.COMPLETE])
        pruned = study.get_trials(states=[TrialState.PRUNED])
        assert len(completed) + len(pruned) == len(trials) == run.example.trials
        spent = run.example.every * sum(len(trial.intermediate_values) for trial in trials)
        full = sum(run.example.full(trial) for trial in trials)
        assert numbers(r"^(\d+) trials", text) == [len(trials)]
        assert numbers(r"completed +(\d+)", text) == [len(completed)]
        assert numbers(r"pruned +(\d+)", text) == [len(pruned)]
        saved = round(100 * (1 - spent / full))
        pattern = rf"{run.example.unit} +(\d+) of (\d+) .*?(\d+)% saved"
        assert numbers(pattern, text) == [spent, full, saved]
        value, best = numbers(r"best value +([\d.]+) \(trial (\d+)\)", text)
        assert best == study.best_trial.number
        np.testing.assert_allclose(value, study.best_value, atol=5.1e-5)


def test_it_prunes_and_says_why(run: Run) -> None:
    for study in run.studies:
        pattern = r"One of the pruned, trial (\d+):\n  (pruned: P = .*)\n"
        shown = re.search(pattern, run.section(study))
        assert shown is not None, run.result.stdout
        trial = study.trials[int(shown[1])]
        assert trial.state == TrialState.PRUNED
        assert trial.user_attrs["lcpruner_reason"] == shown[2]


def test_full_trainings_report_the_steps_that_the_page_says(run: Run) -> None:
    example = run.example
    for study in run.studies:
        for trial in study.get_trials(states=[TrialState.COMPLETE]):
            end = example.first + example.full(trial)
            steps = list(range(example.first, end, example.every))
            assert list(trial.intermediate_values) == steps


def test_the_pruner_knows_where_a_training_ends(run: Run) -> None:
    """Whatever the numbering: so many reports ahead, and the last one leaves nothing to save."""
    example = run.example
    for study in run.studies:
        forecasts = 0
        for trial in study.trials:
            reports = example.full(trial) // example.every
            decisions = explain(study, trial.number).decisions
            horizons = {d.horizon for d in decisions if d.p_beat is not None}
            assert horizons <= {reports}
            forecasts += len(horizons)
            over = [d.step for d in decisions if d.reason == "BEYOND_HORIZON"]
            judged = trial.state == TrialState.COMPLETE and horizons
            if judged and example.looks_every == 1:
                assert over == [max(trial.intermediate_values)]
            else:
                assert over in ([], [max(trial.intermediate_values)])
        assert forecasts > 3


@pytest.mark.parametrize(
    "example", [parameters(one, heavy="torch" in one.needs) for one in RESUMED]
)
def test_pruned_trials_go_on_from_their_checkpoints(example: Example, tmp_path: Path) -> None:
    storage = ("--storage", "sqlite:///study.db")
    result = run_example(f"{example.name}.py", *example.options, *storage, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    for word in ("Warning", "warning", "Traceback", "Error"):  # of a report made twice, say
        assert word not in result.stderr
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/study.db")
    trials = study.get_trials()
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    assert all(trial.state in ended for trial in trials)
    resumed = [trial for trial in trials if resumed_from(trial) is not None]
    assert resumed
    own = 0
    for trial in trials:
        steps, point = list(trial.intermediate_values), resumed_from(trial)
        assert steps == list(range(len(steps)))
        own += len(steps) - (0 if point is None else point.step + 1)
        if point is not None:
            first = trials[point.number]
            assert first.state == TrialState.PRUNED
            assert trial.params == first.params
            so_far = [trial.intermediate_values[step] for step in range(point.step + 1)]
            assert so_far == list(first.intermediate_values.values())
            said = f"trial {first.number}, after epoch {point.step}, as trial {trial.number}: "
            assert said + trial.state.name.lower() in result.stdout
    full = example.full(trials[0]) * (len(trials) - len(resumed))
    pattern = r"epochs +(\d+) of (\d+) .*?(\d+)% saved"
    assert numbers(pattern, result.stdout) == [own, full, round(100 * (1 - own / full))]
    assert numbers(r"(\d+) pruned trials went on", result.stdout) == [len(resumed)]
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"study.db.lcpruner"} == {"study.db"}


def test_trainings_that_diverge_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    storage = ("--storage", "sqlite:///study.db")
    result = run_example(
        "sklearn_partial_fit.py", "--trials=8", "--epochs=2", *storage, folder=tmp_path
    )
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/study.db")
    pruned = study.get_trials(states=[TrialState.PRUNED])
    diverged = [t for t in pruned if np.isnan(list(t.intermediate_values.values())[-1])]
    assert diverged
    assert numbers(r"pruned +\d+ \((\d+) diverged\)", result.stdout) == [len(diverged)]
    for trial in diverged:
        assert trial.user_attrs["lcpruner_reason"].startswith("pruned: diverged: nan reported")


def test_a_summary_of_trials_that_all_diverge(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    result = run_example("sklearn_partial_fit.py", "--trials=1", "--epochs=12", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    pattern = r"completed +(\d+)\n +pruned +(\d+) \((\d+) diverged\)"
    assert numbers(pattern, result.stdout) == [0, 1, 1]
    assert "best value" not in result.stdout


def test_a_grid_is_printed_as_a_matrix(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    options = ["--samplers=grid", "--trials=30", "--epochs=3", "--repeats=2"]
    storage = ("--storage", "sqlite:///study.db")
    result = run_example("search_matrix.py", *options, *storage, folder=tmp_path)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/study.db")
    _, _, table = result.stdout.partition("\nlearning rate")
    header, *rows = [re.split(r" {2,}", line.strip()) for line in table.splitlines()[1:]]
    assert header == [f"{hidden} hidden" for hidden in (4, 8, 16, 32, 64)]
    assert len(rows) == 6
    cells = {
        (float(rate), int(column.split()[0])): cell
        for rate, *row in rows
        for column, cell in zip(header, row, strict=True)
    }
    assert len(cells) == len(study.trials) == 30
    for trial in study.trials:
        cell = cells[trial.params["learning_rate"], trial.params["hidden"]]
        if trial.state == TrialState.PRUNED:
            assert cell == f"pruned after {len(trial.intermediate_values)}"
            continue
        mean, low, high = numbers(r"^([\d.]+) \[([\d.]+), ([\d.]+)\]", cell)
        np.testing.assert_allclose(mean, trial.value, atol=5.1e-4)
        np.testing.assert_allclose(0.5 * (low + high), mean, atol=1.1e-3)  # of two repeats
        assert low < high
        assert cell.endswith("*") == (trial.number == study.best_trial.number)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "--trials: must be an integer >= 1, but got '0'"),
        (["--updates", "1"], "--updates: must be an integer >= 2, but got '1'"),
        (["--updates", "x"], "--updates: must be an integer >= 2, but got 'x'"),
        (["--storage", "s.db"], "--storage: cannot open 's.db', try sqlite:///FILE"),
        (["--epochs", "9"], "unrecognized arguments: --epochs 9"),
    ],
)
def test_refuses(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused("noisy_reward.py", *options, folder=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(installed("torch"), reason="PyTorch is installed")
def test_the_gaussian_process_asks_for_torch(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    result = run_example("search_matrix.py", "--samplers", "tpe", "gp", folder=tmp_path)
    assert result.returncode == 2
    assert "--samplers: gp needs PyTorch: pip install torch" in result.stderr
