"""Reports: from a ledger and a study made by hand, from a real study, as text, HTML and JSON."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers import (
    N_STEPS,
    SAYS_CONSTRAINTS,
    good_study,
    good_trials,
    make_study,
    reports,
    saturating,
    sqlite,
)
from histories import SIGN, STARTED, History, control, entry, filled, judged
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from optuna_lcpruner import LearningCurvePruner, Reason, explain
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.cli.main import main
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import COLUMNS, Ledger, LedgerError
from optuna_lcpruner.records.location import Address
from optuna_lcpruner.reporting.build_report import report
from optuna_lcpruner.reporting.report import Report


@pytest.fixture(params=["maximize", "minimize"])
def found(request: pytest.FixtureRequest, tmp_path: Path) -> Report:
    return filled(tmp_path, request.param).report()


class TestReport:
    def test_counts(self, found: Report) -> None:
        assert found.states == {"COMPLETE": 4, "FAIL": 1, "PRUNED": 4, "RUNNING": 1}
        assert found.n_decisions == 16
        assert found.reasons["UNDECIDED"] == 6
        assert found.reasons["CONTROL"] == 4
        assert found.milliseconds == 1.0

    def test_the_control_group(self, found: Report) -> None:
        assert (found.n_pruned, found.n_control) == (3, 3)
        cost = found.cost
        assert (cost.n_ended, cost.n_beat, cost.share) == (2, 1, 0.5)
        np.testing.assert_allclose(
            cost.share_interval, stats.binomtest(1, 2).proportion_ci(0.95, "exact"), rtol=1e-9
        )
        expected = (0.01 + 0.015 + 0.002 + 0.01 + 0.02 + 0.02) / 6
        np.testing.assert_allclose(cost.expected, expected)
        np.testing.assert_allclose(cost.steps_saved, 3 * (16 + 12) / 2)  # the first look counts

    @pytest.mark.parametrize("direction", SIGN)
    @pytest.mark.parametrize(("value", "n_beat"), [(0.95, 0), (0.957, 0), (0.96, 1)])
    def test_what_beats_the_best(
        self, direction: str, value: float, n_beat: int, tmp_path: Path
    ) -> None:
        history = History(tmp_path, direction)
        history.trial(control(3, 0.01), value=value)
        assert history.report().cost.n_beat == n_beat

    @pytest.mark.parametrize("direction", SIGN)
    @pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
    def test_an_infeasible_trial_beats_nothing(
        self, how: str, direction: str, tmp_path: Path
    ) -> None:
        """Though its value is better; the forecast of its value is scored all the same."""
        history = History(tmp_path, direction)
        history.trial(control(3, 0.01), value=0.99, constraints=(-1.0, 0.5), how=how)
        history.trial(control(3, 0.01), value=0.99, constraints=(-1.0, 0.0), how=how)
        history.trial(control(3, 0.01), value=0.915, constraints=(1.0, 0.0), how=how)
        found = history.report()
        assert (found.n_infeasible, found.cost.n_ended, found.cost.n_beat) == (2, 3, 1)
        assert [(row.n_looks, row.in_ninety) for row in found.accuracy] == [(3, 1 / 3)]
        assert [(row.n_looks, row.beat) for row in found.reliability] == [(3, 1 / 3)]
        assert found.log_scores is not None
        np.testing.assert_allclose(
            found.log_scores.forecast, -(np.log(0.01) + 2 * np.log(0.99)) / 3
        )

    def test_only_completed_trials_are_counted_as_infeasible(self, tmp_path: Path) -> None:
        history = History(tmp_path)
        history.trial(judged(1, Reason.UNDECIDED, 0.3), value=0.9, constraints=(1.0,))
        history.trial(value=0.9)
        for state in (TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL):
            history.trial(n=4, state=state, constraints=(1.0,))
        text = str(history.report())
        assert "5 trials (2 complete, 1 of them infeasible, 1 fail, 1 pruned, 1 running)" in text
        assert "An infeasible trial beats nothing; P(beat) is about the value alone." in text
        assert "infeasible" not in str(filled(tmp_path, "minimize").report())

    def test_accuracy(self, found: Report) -> None:
        assert [(row.low, row.n_looks, row.n_trials) for row in found.accuracy] == [
            (0.1, 3, 2), (0.25, 2, 2), (0.75, 1, 1)
        ]  # fmt: skip
        early, middle, late = found.accuracy
        np.testing.assert_allclose(early.median_error, 0.99 - 0.9141)
        np.testing.assert_allclose(late.last_value_error, 0.115)
        # Each of the two members that ended stands for three trials.
        np.testing.assert_allclose((early.in_half, early.in_ninety), (1 / 7, 1 / 7))
        np.testing.assert_allclose((middle.in_half, middle.in_ninety), (0.0, 0.5))

    @pytest.mark.parametrize("missing", [0, 10])
    @pytest.mark.parametrize("first", [0, 1])
    @pytest.mark.parametrize("gap", [1, 50])
    def test_a_late_beginning_counts_as_trained(
        self, gap: int, first: int, missing: int, tmp_path: Path
    ) -> None:
        """Resumed, or NaN at first: by its step the look is at 16 of 20, by its reports at 6."""
        history = History(tmp_path)
        full = [gap * (i + first) for i in range(20)]
        for _ in range(2):
            history.trial(value=0.957, steps=full)
        look = judged(full[15], Reason.UNDECIDED, 0.3, n_points=6, horizon=20)
        history.trial(look, value=0.9, steps=full[missing:])
        assert [(row.low, row.n_looks) for row in history.report().accuracy] == [(0.75, 1)]

    def test_the_last_value_rule_knows_what_was_known_then(self, tmp_path: Path) -> None:
        """Of three trainings that gained 0.1, 0.2 and 0.4 since they were here, those before."""
        history = History(tmp_path)
        for gain in (0.1, 0.2, 0.4):
            history.trial(judged(10, Reason.UNDECIDED, 0.3, value=0.5), value=0.5 + gain)
        found = history.report().log_scores
        assert found is not None
        p = [0.5, *stats.norm.cdf([-0.457 / 0.1, -0.457 / np.sqrt((0.1**2 + 0.2**2) / 2)])]
        np.testing.assert_allclose(found.last_value, -np.mean(np.log(1 - np.array(p))), rtol=1e-3)

    def test_reliability(self, found: Report) -> None:
        rows = {row.low: row for row in found.reliability}
        assert set(rows) == {0.01, 0.3}
        np.testing.assert_allclose(rows[0.01].p_beat, (0.01 + 0.01 + 0.02) / 3)
        np.testing.assert_allclose(rows[0.01].beat, 2 / 3)
        np.testing.assert_allclose(rows[0.3].p_beat, (0.3 + 0.5 + 3 * 0.3) / 5)
        np.testing.assert_allclose(rows[0.3].beat, 3 / 5)
        assert found.log_scores is not None
        assert found.log_scores.n_looks == 6

    def test_savings(self, found: Report) -> None:
        assert found.savings.trained == 4 * 20 + 4 + 6 + 8 + 6 + 10 + 3
        assert found.savings.saved == 16 + 14 + 12 + 10
        np.testing.assert_allclose(found.savings.seconds, 10.0 * (16 + 14 + 12) + 1.0)

    def test_closest_calls(self, found: Report) -> None:
        assert [(call.trial, call.p_beat) for call in found.closest] == [
            (3, 0.015), (2, 0.01), (4, 0.002)
        ]  # fmt: skip
        assert found.closest[0].step == 5
        sign = SIGN["maximize" if found.maximize else "minimize"]
        assert found.closest[0].forecast == sign * 0.9141
        assert found.closest[0].low == (0.902 if found.maximize else -0.921)

    def test_a_deleted_study_of_the_same_name(self, tmp_path: Path) -> None:
        history = filled(tmp_path)
        for number in (0, 50):
            late = judged(1, Reason.UNDECIDED, 0.9, study="s", trial=number)
            late.trial_started = STARTED - timedelta(days=1)
            history.entries.append(late)
        assert history.report().n_decisions == 16

    def test_without_a_control_group(self, tmp_path: Path) -> None:
        history = History(tmp_path)
        history.trial(judged(1, Reason.UNDECIDED, 0.3), value=0.915)
        history.trial(
            judged(3, Reason.BELOW_THRESHOLD, 0.01), value=0.4, n=4, state=TrialState.PRUNED
        )
        found = history.report()
        assert found.cost.share is None
        text = str(found)
        assert "by the forecasts 1 % of them would have beaten the best." in text
        assert "control_fraction=0.05" in text
        assert "not pruned: the better ones" in text

    def test_told_to_stop_but_went_on(self, tmp_path: Path) -> None:
        history = History(tmp_path)
        history.trial(judged(3, Reason.BELOW_THRESHOLD, 0.01), value=0.4, n=12)
        found = history.report()
        assert (found.n_pruned, found.savings.saved, found.closest) == (0, 0, [])

    def test_of_an_empty_ledger(self, tmp_path: Path) -> None:
        history = History(tmp_path)
        Ledger(Address(history.url)).append([entry(0, Reason.STARTUP, study="other")])
        found = report(history.study, ledger=history.url)
        assert (found.n_decisions, found.milliseconds, found.log_scores) == (0, None, None)
        assert "No trial with a forecast has completed." in str(found)
        assert "No trial was pruned by forecast." in found.to_html()
        assert (found.ledger, found.n_without) == (history.url, 0)
        assert "None about" not in str(found)

    @pytest.mark.parametrize(
        ("state", "n", "n_without"),
        [
            (TrialState.COMPLETE, 3, 1),
            (TrialState.PRUNED, 3, 1),
            (TrialState.FAIL, 3, 1),
            (TrialState.RUNNING, 3, 0),
            (TrialState.FAIL, 0, 0),
        ],
    )
    def test_trials_without_decisions(
        self, state: TrialState, n: int, n_without: int, tmp_path: Path
    ) -> None:
        history = History(tmp_path)
        history.trial(entry(0, Reason.STARTUP), value=0.957)
        value = 0.5 if state == TrialState.COMPLETE else None
        history.trial(value=value, n=n, state=state)
        found = history.report()
        assert found.n_without == n_without
        said = f"None about 1 finished trial that reported, in {history.url} (a copied study or a "
        text = " ".join(str(found).split())
        assert (said in text) is (said in found.to_html()) is bool(n_without)
        json.dumps(found.to_dict(), allow_nan=False)

    def test_two_objectives(self) -> None:
        study = optuna.create_study(directions=["minimize", "minimize"])
        with pytest.raises(InputError, match="2 objectives"):
            report(study)


@pytest.mark.parametrize("n_nan", [0, 8])
@pytest.mark.slow
def test_of_a_real_study(n_nan: int, tmp_path: Path) -> None:
    """Half of the condemned run on; what is estimated is near what is known of them all."""
    rng = np.random.default_rng(0)
    # The name decides who is in the control group.
    study = optuna.create_study(
        study_name="s", storage=sqlite(f"sqlite:///{tmp_path}/study.db"), direction="maximize"
    )
    study.add_trials(good_trials())
    study.pruner = LearningCurvePruner(N_STEPS, control_fraction=0.5, nan_policy="ignore")

    def objective(trial: optuna.Trial) -> float:
        curve = saturating(rng.uniform(0.2, 0.92)) + rng.normal(0.0, 0.01, N_STEPS)
        curve[:n_nan] = np.nan
        for step, value in reports(curve).items():
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(curve[-1])

    study.optimize(objective, n_trials=40)
    found = report(study)
    states = [trial.state for trial in study.get_trials()]
    assert found.n_pruned == states.count(TrialState.PRUNED) > 3
    marked = ["lcpruner_control_since_step" in t.user_attrs for t in study.get_trials()]
    assert found.n_control == sum(marked) > 3
    assert found.cost.n_ended == found.n_control
    assert sum(found.reasons.values()) == found.n_decisions
    asked = sum(len(t.intermediate_values) for t in study.get_trials()[5:])
    assert found.n_decisions == asked
    assert found.cost.steps_interval is not None
    low, high = found.cost.steps_interval
    assert found.cost.steps_saved is not None
    # Half the interval is two standard errors; it is no wider than a point where all stop alike.
    saved = found.savings.saved
    assert abs(found.cost.steps_saved - saved) <= max(high - low, 0.05 * saved)
    assert len(found.closest) == min(5, found.n_pruned)


def multiply(path: Path, n_trials: int) -> None:
    """Give every trial the decisions of trial 0."""
    others = ", ".join(name for name in COLUMNS if name != "trial")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "WITH RECURSIVE counted(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM counted "
            f"WHERE i < {n_trials - 1}) INSERT INTO lcpruner_decisions (trial, {others}) "
            f"SELECT i, {others} FROM lcpruner_decisions, counted"
        )
    connection.close()


@pytest.mark.slow
def test_of_a_long_ledger(tmp_path: Path) -> None:
    """10^5 decisions; the time it takes is in docs/ledger.md."""
    history = History(tmp_path)
    n_trials, n = 1000, 100
    rows = [entry(step, Reason.UNDECIDED, 0.3, value=0.8, q25=0.91, q75=0.92) for step in range(n)]
    for row in rows:
        row.horizon = 101
    for _ in range(n_trials):
        history.study.add_trial(
            FrozenTrial(
                number=0, trial_id=-1, state=TrialState.COMPLETE, params={}, distributions={},
                user_attrs={}, system_attrs={}, value=0.91, intermediate_values={100: 0.9},
                datetime_start=STARTED, datetime_complete=STARTED,
            )
        )  # fmt: skip
    for row in rows:
        row.trial, row.trial_started = 0, STARTED
    Ledger(Address(history.url)).append(rows)
    multiply(tmp_path / "maximize.db", n_trials)
    found = report(history.study, ledger=history.url)
    assert found.n_decisions == n_trials * n
    assert sum(row.n_looks for row in found.accuracy) == n_trials * n
    assert {row.n_trials for row in found.accuracy} == {n_trials}


@pytest.fixture(scope="module")
def real_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of a study and the ledger beside it."""
    folder = tmp_path_factory.mktemp("real")
    study = good_study(f"sqlite:///{folder}/study.db")
    study.pruner = LearningCurvePruner(N_STEPS)
    trial = study.ask()
    for step, value in enumerate(saturating(0.89)[:4]):
        trial.report(value, step)
        trial.should_prune()
    study.tell(trial, 0.89)
    assert trial_attributes.writer().flush(20)
    assert ledger_writer.flush(20)
    study._storage.remove_session()
    return folder


class TestCommand:
    @pytest.fixture
    def run(
        self,
        real_study: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[..., tuple[int, str, str]]:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(real_study, tmp_path, dirs_exist_ok=True)
        self.study = good_study(f"sqlite:///{tmp_path}/study.db")

        def run(*argv: str) -> tuple[int, str, str]:
            code = main(["report", "--storage", "study.db", *argv])
            return code, *capsys.readouterr()

        return run

    def test_prints_and_writes_a_page_where_asked(
        self, run: Callable[..., tuple[int, str, str]], tmp_path: Path
    ) -> None:
        found = report(self.study)
        assert run() == (0, f"{found}\n", "")
        assert not list(tmp_path.glob("*.html"))
        assert run("--html", "page.html") == (0, f"{found}\n", "")
        page = (tmp_path / "page.html").read_text("utf-8")
        assert found._repr_html_() in page
        assert page.count("<svg") == 3

    def test_json(self, run: Callable[..., tuple[int, str, str]]) -> None:
        _, out, _ = run("--json")
        assert json.loads(out) == json.loads(json.dumps(report(self.study).to_dict()))

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (("--html", "no/such/folder.html"), "cannot write"),
            (("--ledger", "nowhere.db"), "no ledger"),
            (("--study", "x"), "no study named"),
        ],
    )
    def test_errors_are_one_line(
        self,
        argv: tuple[str, ...],
        words: str,
        run: Callable[..., tuple[int, str, str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("optuna_lcpruner.cli.report.svg_figures", lambda *_, **__: [])
        code, out, err = run(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


class TestWithoutThisPruner:
    """A study that another pruner ran is told so, and of the back-test."""

    HINT = "seems to have run without LearningCurvePruner: optuna-lcpruner backtest tells"

    def test_it_is_said(self) -> None:
        study = make_study(good_trials())
        for ask in (lambda: report(study), lambda: explain(study, 0)):
            with pytest.raises(LedgerError, match=self.HINT):
                ask()

    def test_not_of_a_study_of_ours(self) -> None:
        study = make_study(good_trials(user_attrs={"lcpruner_reason": "undecided"}))
        for ask in (lambda: report(study), lambda: explain(study, 0)):
            with pytest.raises(LedgerError) as caught:
                ask()
            assert "without LearningCurvePruner" not in str(caught.value)
