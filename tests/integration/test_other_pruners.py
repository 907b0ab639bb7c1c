"""Inside pruners and trials of others: PatientPruner, MultiMetricPruner, TorchDistributedTrial."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import (
    BAD,
    GOOD_ENDS,
    N_STEPS,
    environment,
    good_trials,
    installed,
    make_study,
    names,
    reports,
    saturating,
    sqlite,
    watch,
)
from multi_metric import load
from optuna.pruners import BasePruner, PatientPruner, ThresholdPruner
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from several import Says, on_record, ours, train

from optuna_lcpruner import Decision, LearningCurvePruner, PruneIfAny, explain


@pytest.mark.filterwarnings("ignore:PatientPruner is experimental")
class TestInsideAPatientPruner:
    """It asks only about trials that have not improved for some reports."""

    @pytest.fixture
    def study(self, tmp_path: Path) -> Study:
        storage = sqlite(f"sqlite:///{tmp_path}/s.db")
        pruner = PatientPruner(ours(), patience=3)
        return make_study(good_trials(), storage=storage, pruner=pruner)

    def test_what_it_asks_about_is_decided_and_on_record(self, study: Study) -> None:
        """Rising to step 7, then falling: the question comes four reports later."""
        trial = train(study, np.concatenate([np.linspace(0.1, 0.17, 8), np.full(12, 0.12)]))
        assert trial.state == TrialState.PRUNED
        assert trial.last_step == 11
        assert trial.user_attrs["lcpruner_reason"].startswith("pruned: P = ")
        assert [(row.step, row.action) for row in on_record(study, trial)] == [(11, "prune")]
        assert explain(study, trial.number).summary.startswith(
            f"Trial {trial.number} was pruned at step 11, look 12: its chance to beat the "
        )

    def test_what_it_does_not_ask_about_has_no_reason(self, study: Study) -> None:
        """Hopeless by its curve, but it improves all the time."""
        train(study, np.linspace(0.1, 0.05, N_STEPS))  # so that there is a ledger
        trial = train(study, np.linspace(0.1, 0.12, N_STEPS))
        assert trial.state == TrialState.COMPLETE
        assert trial.user_attrs == {}
        assert on_record(study, trial) == []
        said = explain(study, trial.number).summary
        assert "ran to its end with 0.12; no decision about it is on record in sqlite:///" in said

    def test_what_it_asks_about_and_ours_keeps(self, study: Study) -> None:
        dip = saturating(0.97, rate=8.0)  # better than the best from step 6 on
        dip[9:14] = dip[8] - 0.01
        trial = train(study, dip)
        assert trial.state == TrialState.COMPLETE
        rows = on_record(study, trial)
        assert [row.step for row in rows] == [12, 13]
        assert {row.action for row in rows} == {"continue"}
        assert not trial.user_attrs["lcpruner_reason"].startswith("pruned")


@pytest.mark.parametrize("which", ["stand-in", "registry"])
class TestInsideAMultiMetricPruner:
    """Two metrics of a study with two objectives: each is judged by its own reports."""

    DIRECTIONS = {"loss": "minimize", "accuracy": "maximize"}  # noqa: RUF012

    def around(self, which: str, pruner: BasePruner, joint: bool = False) -> BasePruner:
        found: BasePruner = load(which)[0](pruner, metric_directions=self.DIRECTIONS, joint=joint)
        return found

    def study(self, which: str, pruner: BasePruner, joint: bool = False) -> Any:
        """A study with five completed trials, and what trains another one."""
        reporting = load(which)[1]
        study = optuna.create_study(
            directions=["minimize", "maximize"], pruner=self.around(which, Says(False), joint)
        )

        def one_more(accuracy: Any, loss: Any) -> FrozenTrial:
            def objective(trial: Trial) -> tuple[float, float]:
                reporter = reporting(trial)
                for step in range(N_STEPS):
                    values = {"loss": float(loss[step]), "accuracy": float(accuracy[step])}
                    reporter.report(values, step)
                    if reporter.should_prune():
                        raise optuna.TrialPruned
                return float(loss[-1]) + 1.0, float(accuracy[-1]) / 2.0

            study.optimize(objective, n_trials=1)
            return study.get_trials(deepcopy=False)[-1]

        for end in GOOD_ENDS:
            one_more(saturating(end), 1.0 - saturating(end))
        study.pruner = self.around(which, pruner, joint)
        return study, one_more

    def test_each_metric_can_stop_a_trial(self, which: str, warned: list[str]) -> None:
        _, one_more = self.study(which, ours())
        better = saturating(0.95)
        states = [
            one_more(better, 1.0 - better).state,
            one_more(BAD, 1.0 - better).state,
            one_more(better, 1.0 - BAD).state,
        ]
        assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
        assert warned == []

    def test_stopped_trials_do_not_count_as_whole(self, which: str) -> None:
        """They are "complete" to the pruner; it thinks as in a study of the whole ones alone."""
        pruner = Recorded(ours(), obeyed=False)
        study, one_more = self.study(which, Says(True, since=6))
        for end in (0.3, 0.5, 0.7):
            assert one_more(saturating(end), 1.0 - saturating(end)).state == TrialState.PRUNED
        study.pruner = self.around(which, pruner)
        curve = saturating(0.88)
        one_more(curve, 1.0 - curve)
        alone = watch(make_study(good_trials()), ours(), reports(curve))[:-1]
        about_accuracy = pruner.decisions[1::2][:-1]  # the loss comes first
        assert [d.reason for d in about_accuracy] == [d.reason for d in alone]
        assert [d.message for d in about_accuracy] == [d.message for d in alone]
        assert sum(d.p_beat is not None for d in alone) > 10

    def test_ranks_show_no_future(self, which: str) -> None:
        """Nobody's rank is known beyond the step asked about: nothing is stopped."""
        pruner = Recorded(ours())
        _, one_more = self.study(which, pruner, joint=True)
        assert one_more(BAD, 1.0 - BAD).state == TrialState.COMPLETE
        assert set(names(pruner.decisions)) == {"TOO_FEW_REPORTS", "NO_BEST_VALUE"}

    def test_an_executor_is_not_used(self, which: str) -> None:
        """It would wait for ever for the forecast of a trial that has no number."""
        with ThreadPoolExecutor(1) as executor:
            _, one_more = self.study(which, ours(executor=executor))
            assert one_more(BAD, 1.0 - BAD).state == TrialState.PRUNED

    def test_others_beside_it(
        self, which: str, warned: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody writes to a trial that is in no storage."""
        written = []
        write = InMemoryStorage.set_trial_user_attr

        def noted(self: InMemoryStorage, trial_id: int, key: str, value: Any) -> None:
            written.append(trial_id)
            write(self, trial_id, key, value)

        monkeypatch.setattr(InMemoryStorage, "set_trial_user_attr", noted)
        _, one_more = self.study(which, PruneIfAny([ours(), ThresholdPruner(upper=5.0)]))
        better = saturating(0.95)
        loss = np.r_[1.0 - better[:10], np.full(10, 6.0)]
        trial = one_more(better, loss)
        assert trial.state == TrialState.PRUNED
        assert not any(key.startswith("lcpruner_") for key in trial.user_attrs)
        assert written
        assert min(written) >= 0
        assert warned == []

    def test_a_ledger_cannot_be_kept(self, which: str, tmp_path: Path, warned: list[str]) -> None:
        path = tmp_path / "ledger.db"
        _, one_more = self.study(which, ours(ledger=f"sqlite:///{path}"))
        assert one_more(BAD, 1.0 - BAD).state == TrialState.PRUNED
        assert len(warned) == 1
        assert "no ledger: the pruner around this one does not say which trial" in warned[0]
        assert not path.exists()


class Recorded(BasePruner):
    """Keeps the decisions, and stops trials only where it is obeyed."""

    def __init__(self, pruner: LearningCurvePruner, obeyed: bool = True) -> None:
        self.pruner = pruner
        self.obeyed = obeyed
        self.decisions: list[Decision] = []

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        self.decisions.append(self.pruner.decide(study, trial))
        return self.obeyed and self.decisions[-1].prune


DISTRIBUTED = """
import json, os, sys, warnings
import numpy as np
import optuna
import torch.distributed as dist
from helpers import BAD, reports, saturating, sqlite
from optuna_integration import TorchDistributedTrial
from optuna_lcpruner import LearningCurvePruner

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
stopped = []

def objective(trial):
    together = TorchDistributedTrial(trial)
    values = BAD if together.number % 2 else saturating(0.95)
    for step, value in reports(values).items():
        together.report(value if rank == 0 else -1.0, step)  # only rank 0's is told
        if together.should_prune():
            stopped.append([together.number, step])
            raise optuna.TrialPruned
    return value

if rank == 0:
    study = optuna.load_study(
        study_name="s",
        storage=sqlite(f"sqlite:///{folder}/study.db"),
        pruner=LearningCurvePruner(20, threshold=0.05),
    )
    study.optimize(objective, n_trials=2)
else:
    for _ in range(2):
        try:
            objective(None)
        except optuna.TrialPruned:
            pass
print(json.dumps(stopped))
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.skipif(not installed("torch"), reason="torch is not installed")
def test_two_ranks_of_torch_distributed(tmp_path: Path) -> None:
    """Rank 0 decides, both stop; one decision a report is on record, not one a rank."""
    pytest.importorskip("optuna_integration")
    storage = sqlite(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    study.add_trials(good_trials())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(rank), str(tmp_path)],
            env={**environment(), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in said)
    assert first == second
    doomed, promising = study.get_trials()[5:]
    assert first == [[doomed.number, doomed.last_step]]
    assert (doomed.state, promising.state) == (TrialState.PRUNED, TrialState.COMPLETE)
    assert doomed.user_attrs["lcpruner_reason"].startswith("pruned: P = ")
    for trial in (doomed, promising):
        rows = on_record(study, trial)
        assert [row.step for row in rows] == sorted(trial.intermediate_values)
