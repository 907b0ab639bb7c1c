"""The control group: who belongs to it, and what the pruner does with those who do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import (
    BAD,
    N_STEPS,
    finished,
    good_study,
    good_trials,
    make_study,
    names,
    reports,
    saturating,
    watch,
)
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner, explain
from optuna_lcpruner._util.attributes import CONTROL_ATTRIBUTE
from optuna_lcpruner.decision.control_group import in_control_group
from optuna_lcpruner.records import trial_attributes


def members(study: str, fraction: float, n: int = 10_000) -> set[int]:
    return {number for number in range(n) if in_control_group(study, number, fraction)}


class TestMembers:
    @pytest.mark.parametrize("fraction", [0.01, 0.05, 0.5])
    def test_as_many_as_asked_for(self, fraction: float) -> None:
        n = 10_000
        error = np.sqrt(fraction * (1.0 - fraction) / n)
        np.testing.assert_allclose(len(members("s", fraction)) / n, fraction, atol=4 * error)

    def test_none_and_all(self) -> None:
        assert members("s", 0.0) == set()
        assert members("s", 1.0) == set(range(10_000))

    def test_a_larger_group_holds_the_smaller(self) -> None:
        assert members("s", 0.05) < members("s", 0.1)

    def test_studies_have_groups_of_their_own(self) -> None:
        """As many in both as chance has it."""
        both = len(members("s", 0.1) & members("t", 0.1))
        np.testing.assert_allclose(both, 100, atol=40)

    def test_neighbours_are_independent(self) -> None:
        group = members("s", 0.1)
        pairs = sum(number + 1 in group for number in group)
        np.testing.assert_allclose(pairs, 100, atol=40)

    def test_the_same_on_every_machine(self) -> None:
        """Values of a first run: a change would move trials of running studies."""
        assert sorted(members("s", 0.1, 60)) == FIRST_RUN
        assert in_control_group("ä 学 \udcff", 3, 1.0)


FIRST_RUN = [1, 31, 32, 35, 36, 41, 50, 53, 54, 56]


def make_pruner(**settings: Any) -> LearningCurvePruner:
    return LearningCurvePruner(
        **{"n_steps": N_STEPS, "threshold": 0.05, "control_fraction": 1.0, **settings}
    )


class TestPruner:
    @pytest.mark.parametrize(("kind", "publishing"), [("memory", False), ("sqlite", True)])
    def test_a_member_runs_on_and_is_marked(
        self, kind: str, publishing: bool, tmp_path: Path
    ) -> None:
        is_file = kind == "sqlite"
        study = (
            good_study(f"sqlite:///{tmp_path}/study.db") if is_file else make_study(good_trials())
        )
        settings = {"publish": publishing, "n_warmup_steps": 4}
        pruned = names(
            watch(study, make_pruner(control_fraction=0.0, **settings), reports(BAD[:12]))
        )
        decisions = watch(study, make_pruner(**settings), reports(BAD[:12]))
        assert names(decisions) == [name.replace("BELOW_THRESHOLD", "CONTROL") for name in pruned]
        assert pruned.index("BELOW_THRESHOLD") == 4
        assert pruned.count("BELOW_THRESHOLD") > 5
        assert trial_attributes.writer().flush(20)
        attrs = [trial.user_attrs for trial in study.get_trials()[-2:]]
        assert [attr.get(CONTROL_ATTRIBUTE) for attr in attrs] == [None, 4]
        if publishing:
            assert attrs[1]["lcpruner_decided_at_step"] > 4
        control = next(d for d in decisions if d.reason.name == "CONTROL")
        assert not control.prune
        assert control.message.startswith("control group, runs on: P = ")
        if is_file:
            actions = [entry.action for entry in explain(study, 6).decisions]
            assert [a == "control" for a in actions] == [n == "CONTROL" for n in names(decisions)]
            assert "spared: control group, runs on." in explain(study, 6).summary
            assert {entry.action for entry in explain(study, 5).decisions} == {"continue", "prune"}

    @pytest.mark.parametrize("copied", [None, 15])
    def test_the_mark_stays_where_it_was_after_a_restart(self, copied: int | None) -> None:
        """Each check by a new pruner; Optuna's retry copies the mark of the trial it retries."""
        study = make_study(good_trials())
        attrs = {} if copied is None else {CONTROL_ATTRIBUTE: copied}
        study.enqueue_trial({}, user_attrs=attrs)
        trial = study.ask()
        for step, value in reports(BAD[:12]).items():
            trial.report(value, step)
            study.pruner = make_pruner(n_warmup_steps=4)
            assert not trial.should_prune()
        assert trial_attributes.writer().flush(20)
        assert study.get_trials()[-1].user_attrs[CONTROL_ATTRIBUTE] == 4

    def test_of_many_trials_the_members_run_on(self) -> None:
        study = make_study(good_trials())
        study.pruner = make_pruner(control_fraction=0.3)

        def objective(trial: optuna.Trial) -> float:
            for step, value in enumerate(BAD[:9]):
                trial.report(value, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return float(BAD[-1])

        study.optimize(objective, n_trials=16)
        done = {t.number for t in study.get_trials()[5:] if t.state == TrialState.COMPLETE}
        assert done == {n for n in range(5, 21) if in_control_group(study.study_name, n, 0.3)}

    def test_other_trials_are_not_marked(self) -> None:
        study = make_study(good_trials())
        watch(study, make_pruner(control_fraction=0.0), reports(BAD))
        watch(study, make_pruner(), reports(saturating(0.95)))
        assert all(CONTROL_ATTRIBUTE not in t.user_attrs for t in study.get_trials())

    def test_the_optimistic_rule(self) -> None:
        study = make_study(good_trials())
        curve = reports(saturating(0.8))
        settings: dict[str, Any] = {"threshold": 0.0, "stop_below_std": 0.5}
        spared = names(watch(study, make_pruner(**settings), curve))
        settled = names(watch(study, make_pruner(control_fraction=0.0, **settings), curve))
        assert "NARROW_FORECAST" in settled
        assert spared == [name.replace("NARROW_FORECAST", "CONTROL") for name in settled]

    def test_a_diverged_member_is_pruned(self) -> None:
        study = make_study(good_trials())
        decisions = watch(study, make_pruner(), reports([0.1, 0.2, float("nan")]))
        assert decisions[-1].prune

    def test_a_storage_that_cannot_write_costs_no_trial(self) -> None:
        class ReadOnly(InMemoryStorage):
            def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
                raise PermissionError("read-only")

        study = make_study([finished(reports(saturating(e))) for e in (0.8, 0.9, 0.85)],
                           storage=ReadOnly())  # fmt: skip
        assert "CONTROL" in names(watch(study, make_pruner(), reports(BAD)))
