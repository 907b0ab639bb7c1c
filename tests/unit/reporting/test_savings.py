"""What was saved so far: by the ledger and without one, as lines and behind a bar."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import finished, make_study, reports, saturating
from histories import STARTED, filled
from optuna.trial import TrialState

from optuna_lcpruner import InputError, SavingsCallback, set_n_steps, summary
from optuna_lcpruner.records.ledger import Ledger
from optuna_lcpruner.records.location import Address
from optuna_lcpruner.study.continuation import enqueue_continuation


def pruned(n: int, seconds: float | None = None, **attrs: Any) -> optuna.trial.FrozenTrial:
    trial = finished(reports(saturating(0.3)[:n]), state=TrialState.PRUNED, user_attrs=attrs)
    trial.datetime_start = STARTED
    trial.datetime_complete = STARTED + timedelta(seconds=seconds or 0)
    return trial


def complete(end: float) -> optuna.trial.FrozenTrial:
    trial = finished(reports(saturating(end)))
    trial.datetime_start = trial.datetime_complete = STARTED
    return trial


class TestSummary:
    def test_without_a_ledger_as_long_as_completed_trials(self) -> None:
        study = make_study([complete(0.8), complete(0.9), pruned(2, 4.0), pruned(5, 20.0)])
        found = summary(study, price_per_hour=360.0)
        saved = found.savings
        assert (saved.trained, saved.saved) == (20 + 20 + 2 + 5, 18 + 15)
        assert (saved.n_pruned, saved.n_ended) == (2, 4)
        np.testing.assert_allclose((saved.seconds, saved.spent_seconds), (18 * 2 + 15 * 4, 24))
        np.testing.assert_allclose(saved.share, 33 / 80)
        assert (found.best_trial, found.best_value) == (1, saturating(0.9)[-1])
        assert found.line == ("2 of 4 pruned, 41.2 % of the steps saved, about 96 s; best 0.8853")
        assert str(found).splitlines()[1:] == [
            "  trials 4: 2 complete, 2 pruned",
            "  spent  47 steps, 24 s",
            "  saved  33 steps (41.2 % of all), 96 s",
            "  cost   2.40 spent, 9.60 saved, at 360 an hour",
            "  best   0.8853 (trial 1)",
        ]

    def test_starting_up_is_no_training(self) -> None:
        """Each takes 10 s to start and, but for the last one, 2 s a report."""
        n_reports = {0: 20, 1: 20, 2: 2, 3: 5, 4: 9, 5: 4}
        trials = [complete(0.8), complete(0.9), *(pruned(n_reports[i]) for i in range(2, 6))]
        for trial, (i, n) in zip(trials, n_reports.items(), strict=True):
            pace = 3.0 if i == 5 else 2.0
            trial.datetime_complete = STARTED + timedelta(seconds=10.0 + pace * n)
        found = summary(make_study(trials)).savings.seconds
        np.testing.assert_allclose(found, 2.0 * (18 + 15 + 11) + 3.0 * 16)
        few = summary(make_study(trials[:4])).savings.seconds  # too few to tell
        np.testing.assert_allclose(few, 18 * 14.0 / 2 + 15 * 20.0 / 5)

    def test_a_trial_takes_no_less_than_no_time(self) -> None:
        trials = [complete(0.8), *(pruned(n, 10.0 - n) for n in (2, 3, 4, 5))]
        trials[0].datetime_complete = STARTED + timedelta(seconds=1.0)
        assert summary(make_study(trials)).savings.seconds > 0.0

    def test_a_length_that_was_announced(self) -> None:
        study = make_study([complete(0.8), pruned(2, lcpruner_n_steps=10)])
        assert summary(study).savings.saved == 8

    def test_a_trial_that_went_on_is_counted_once(self) -> None:
        study = make_study([complete(0.8), pruned(4, 8.0)])
        enqueue_continuation(study, study.get_trials()[1])
        saved = summary(study).savings
        assert (saved.trained, saved.saved, saved.seconds) == (24, 16, 32.0)
        on = study.get_trials()[2]
        on.state, on.intermediate_values = TrialState.PRUNED, reports(saturating(0.3)[:10])
        on.datetime_start, on.datetime_complete = STARTED, STARTED + timedelta(seconds=6)
        study = make_study([*study.get_trials()[:2], on])
        saved = summary(study).savings
        # It has made six more in six seconds, and of twenty it did not make ten.
        assert (saved.trained, saved.saved, saved.seconds) == (30, 10, 10.0)

    def test_before_any_trial_has_completed(self) -> None:
        found = summary(make_study([pruned(2)]))
        assert (found.savings.saved, found.best_value) == (0, None)
        assert found.line == "1 of 1 pruned, 0 % of the steps saved, about 0 s"
        assert summary(make_study()).savings.share == 0.0

    def test_with_a_ledger_as_the_report(self, tmp_path: Path) -> None:
        history = filled(tmp_path)
        savings = history.report().savings
        assert summary(history.study, ledger=history.url).savings == savings

    def test_of_an_empty_ledger_as_without_one(self, tmp_path: Path) -> None:
        history = filled(tmp_path)
        Ledger(Address(history.url)).append([e for e in history.entries if e.trial == 99] or [
            history.entries[0]
        ])  # fmt: skip
        other = make_study([complete(0.8), pruned(2)])
        assert summary(other, ledger=history.url).savings == summary(other).savings

    def test_the_best_is_feasible(self) -> None:
        better = complete(0.95)
        better.system_attrs["constraints"] = [1.0]
        assert summary(make_study([complete(0.9), better])).best_trial == 0

    def test_refused(self) -> None:
        with pytest.raises(ValueError, match="price_per_hour"):
            summary(make_study(), price_per_hour=-1.0)
        with pytest.raises(InputError, match="2 objectives"):
            summary(optuna.create_study(directions=["minimize", "minimize"]))


class Bar:
    """What SavingsCallback asks of a bar of tqdm."""

    def __init__(self) -> None:
        self.n, self.shown = 0, ""

    def update(self) -> None:
        self.n += 1

    def set_postfix_str(self, text: str) -> None:
        self.shown = text


class TestCallback:
    def searched(self, callback: Any) -> optuna.Study:
        study = make_study([complete(0.8), complete(0.9)])

        def objective(trial: optuna.Trial) -> float:
            set_n_steps(trial, 20)
            trial.report(0.1, 0)
            if trial.number % 2:
                raise optuna.TrialPruned
            return 0.1

        study.optimize(objective, n_trials=4, callbacks=[callback])
        return study

    def test_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        study = self.searched(SavingsCallback(every=0))
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4
        assert lines[-1].partition(", about")[0] == summary(study).line.partition(", about")[0]
        assert lines[-1].startswith("2 of 6 pruned, 46.3 % of the steps saved")

    def test_a_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        bar = Bar()
        self.searched(SavingsCallback(bar))  # the first trial, and then every ten seconds
        assert bar.n == 4
        assert bar.shown.startswith("0 of 3 pruned")
        assert capsys.readouterr().out == ""

    def test_refused(self) -> None:
        with pytest.raises(ValueError, match="every"):
            SavingsCallback(every=-1.0)
