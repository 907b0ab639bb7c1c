"""Trial attributes elsewhere: as MLflow's tags, and names that anything takes, pandas' too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import BAD, N_STEPS, good_trials, make_study, saturating, sqlite
from optuna.trial import TrialState

from optuna_lcpruner import Forecaster, LearningCurvePruner, RemotePruner, requeue, set_n_steps
from optuna_lcpruner.records import trial_attributes as publishing
from optuna_lcpruner.visualization import dashboard

DECISION = {
    "lcpruner_p_beat_best",
    "lcpruner_forecast",
    "lcpruner_forecast_lower",
    "lcpruner_forecast_upper",
    "lcpruner_decided_at_step",
    "lcpruner_reason",
}
USER = {
    *DECISION,
    "lcpruner_n_steps",
    "lcpruner_control_since_step",
    "lcpruner_requeued_from",
}
SYSTEM = {"lcpruner_verdict", "lcpruner_identity", "lcpruner_dashboard"}


def objective(trial: optuna.Trial) -> float:
    """Approaches a value that the parameter sets, or never leaves its start."""
    end = trial.suggest_float("end", 0.1, 1.0)
    set_n_steps(trial, N_STEPS)
    curve = BAD if end < 0.4 else saturating(end)
    for step, value in enumerate(curve):
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(curve[-1])


def searched(storage: Any = None, **settings: Any) -> optuna.Study:
    """A study with five completed trials, about to train a hopeless and a good one."""
    study = make_study(good_trials(), storage=storage, pruner=LearningCurvePruner(**settings))
    for end in (0.1, 0.95):
        study.enqueue_trial({"end": end})
    return study


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MLflow as it will be again afterwards, without what it keeps for the process."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # newer ones would call home
    monkeypatch.chdir(tmp_path)  # its folders of artifacts
    before = dict(os.environ)
    module = pytest.importorskip("mlflow")
    yield module
    module.set_tracking_uri(None)
    module.tracking.fluent._active_experiment_id = None
    for name in set(os.environ) - set(before):
        if name.startswith("MLFLOW_"):
            del os.environ[name]


# Optuna means to drop its callback in version 6, without a successor.
@pytest.mark.filterwarnings("ignore:MLflowCallback has been deprecated:FutureWarning")
# MLflow's own tables, with SQLAlchemy 2.1.
@pytest.mark.filterwarnings("ignore:.*noload.*loader strategy is deprecated:DeprecationWarning")
@pytest.mark.parametrize("windows", [False, True])
def test_tags_in_mlflow(
    windows: bool, mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow refuses some names on Windows alone, a colon; up to 2.15 everywhere."""
    # Not there up to 2.15, which has one rule for all.
    monkeypatch.setattr("mlflow.utils.validation.is_windows", lambda: windows, raising=False)
    integration = pytest.importorskip("optuna_integration")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    study = searched()
    study.optimize(objective, n_trials=2, callbacks=[integration.MLflowCallback(tracking_uri=uri)])
    pruned, good = study.get_trials()[5:]
    assert pruned.state == TrialState.PRUNED
    assert good.state == TrialState.COMPLETE
    client = mlflow.tracking.MlflowClient(uri)
    experiment = client.get_experiment_by_name(study.study_name)
    runs = client.search_runs([experiment.experiment_id])
    tags = {run.data.tags["number"]: run.data.tags for run in runs}
    assert set(tags) == {"5", "6"}
    assert tags["5"]["state"] == "PRUNED"
    assert tags["5"]["lcpruner_reason"].startswith("pruned: P = ")
    for trial in (pruned, good):
        shown = {k: v for k, v in tags[str(trial.number)].items() if k.startswith("lcpruner")}
        assert set(shown) == {*DECISION, "lcpruner_n_steps"}
        assert shown == {name: str(value) for name, value in trial.user_attrs.items()}


@pytest.fixture
def studies(tmp_path: Path) -> list[optuna.Study]:
    """Studies in which the package writes every attribute that it has."""
    local = searched(sqlite(f"sqlite:///{tmp_path}/local.db"))
    local.optimize(objective, n_trials=2)
    assert requeue(local, 1) == [5]
    local.optimize(objective, n_trials=1)

    control = searched(control_fraction=1.0)
    control.optimize(objective, n_trials=2)

    remote = searched()
    remote.pruner = RemotePruner()
    trial = remote.ask()
    trial.report(0.1, 0)
    now = [0.0]
    forecaster = Forecaster(
        remote._storage, pruner=LearningCurvePruner(N_STEPS), clock=lambda: now[0]
    )
    for _ in range(6):
        now[0] += 0.5
        forecaster.run_pass()
    assert dashboard.claim(remote, 0.0) is not None

    assert publishing.writer().flush(20)
    return [local, control, remote]


def test_names_are_identifiers(studies: list[optuna.Study]) -> None:
    """Of ASCII letters: MLflow's tags, columns, keyword arguments take them on every platform."""
    user, system = set(), set()
    for study in studies:
        user |= set(study.user_attrs)
        system |= set(study._storage.get_study_system_attrs(study._study_id))
        for trial in study.get_trials():
            user |= set(trial.user_attrs)
            system |= set(trial.system_attrs)
    system = {name for name in system if "lcpruner" in name}  # the others are Optuna's
    assert [n for n in user | system if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", n)] == []
    assert user == USER
    assert system == SYSTEM


def test_names_in_a_query_of_pandas(studies: list[optuna.Study]) -> None:
    """Without backticks."""
    pytest.importorskip("pandas")
    table = studies[0].trials_dataframe()
    found = table.query("user_attrs_lcpruner_p_beat_best < 0.5 and state == 'PRUNED'")
    assert found["number"].tolist() == [5]
    found = table.query("user_attrs_lcpruner_requeued_from == 5")
    assert found["number"].tolist() == [7]
