"""Explanations: the sentence and the table for each fate of a trial, and the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import (
    BAD,
    N_STEPS,
    SAYS_CONSTRAINTS,
    constrained,
    finished,
    good_study,
    good_trials,
    make_study,
    names,
    reports,
    saturating,
    sqlite,
    watch,
)
from histories import entry, judged
from optuna.trial import TrialState

from optuna_lcpruner import LearningCurvePruner, Reason, explain, report
from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.cli.main import main
from optuna_lcpruner.records import ledger_writer, trial_attributes
from optuna_lcpruner.records.ledger import COLUMNS, Ledger, LedgerEntry, LedgerError
from optuna_lcpruner.records.location import Address
from optuna_lcpruner.reporting.explanation import Explanation


def story(
    *decisions: LedgerEntry, state: TrialState = TrialState.COMPLETE, value: float | None = 0.8
) -> Explanation:
    return Explanation("s", 7, state, value, True, decisions)


WAITED = [entry(i, Reason.STARTUP) for i in range(3)]
CLOSE = entry(5, Reason.UNDECIDED, 0.03)
FAR = entry(6, Reason.UNDECIDED, 0.4)
NOTHING = "no decision about it is on record in sqlite:////l.db"
HINT = "a copied study or a moved database leaves its ledger behind"
OUTLOOK = "the forecast was 0.9141 [0.902, 0.921] against the best, 0.957 of trial 4"


class TestSummary:
    def test_pruned(self) -> None:
        ignored = entry(7, Reason.BELOW_THRESHOLD, 0.0029)
        last = entry(8, Reason.BELOW_THRESHOLD, 0.0031)
        found = story(CLOSE, ignored, last, state=TrialState.PRUNED)
        assert found.summary == (
            "Trial 7 was pruned at step 8, look 9: its chance to beat the best, P = 0.003, "
            f"was below the threshold 0.020; {OUTLOOK}."
        )

    @pytest.mark.parametrize("reason", [Reason.DIVERGED, Reason.NARROW_FORECAST])
    def test_pruned_for_another_reason(self, reason: Reason) -> None:
        found = story(entry(8, reason), state=TrialState.PRUNED)
        assert found.summary == "Trial 7 was pruned at step 8, look 9: words."

    def test_told_to_stop_but_went_on(self) -> None:
        found = story(entry(8, Reason.BELOW_THRESHOLD, 0.0031), FAR)
        assert found.summary.startswith(
            "Trial 7 ran to its end with 0.8, though it was to stop at step 8, look 9: "
        )

    def test_pruned_by_somebody_else(self) -> None:
        found = story(FAR, state=TrialState.PRUNED)
        assert found.summary.startswith(
            "Trial 7 was pruned, but by no decision on record; the decisions on record let it run: "
            "at 1 look "
        )

    def test_never_below_the_threshold(self) -> None:
        found = story(*WAITED, FAR, CLOSE)
        assert found.summary == (
            "Trial 7 ran to its end with 0.8; not pruned: at 2 looks its chance to beat the best "
            "was never below the threshold, closest at step 5 with P = 0.030 against 0.020; there "
            f"{OUTLOOK}."
        )

    def test_infeasible(self) -> None:
        found = replace(story(CLOSE), feasible=False)
        assert found.summary.startswith(
            "Trial 7 ran to its end with 0.8 (infeasible); not pruned: "
        )
        running = replace(story(CLOSE, state=TrialState.RUNNING, value=None), feasible=False)
        assert running.summary.startswith("Trial 7 is running; ")

    def test_closest_is_by_the_ratio(self) -> None:
        """The threshold falls as the training goes on."""
        found = story(CLOSE, entry(15, Reason.UNDECIDED, 0.011, threshold=0.01))
        assert "closest at step 15 with P = 0.011 against 0.010" in found.summary

    @pytest.mark.parametrize("reason", [Reason.PATIENCE, Reason.ALREADY_BETTER])
    def test_below_it_but_spared(self, reason: Reason) -> None:
        found = story(FAR, entry(8, reason, 0.01), entry(9, reason, 0.005))
        assert found.summary == (
            "Trial 7 ran to its end with 0.8; not pruned: its chance to beat the best was below "
            "the threshold at 2 of 3 looks, lowest at step 9 with P = 0.005 against 0.020, but it "
            f"was spared: {reason.value}."
        )

    def test_no_forecast(self) -> None:
        found = story(entry(0, Reason.TOO_FEW_REPORTS), *WAITED[1:])
        assert found.summary == (
            "Trial 7 ran to its end with 0.8; not pruned: no decision about it came to a forecast: "
            "startup (2), too few reports (1)."
        )

    def test_threshold_zero(self) -> None:
        found = story(entry(8, Reason.UNDECIDED, 0.0, threshold=0.0))
        assert "the threshold is 0, nothing is pruned by forecast" in found.summary

    def test_failures_are_told(self) -> None:
        broken = entry(9, Reason.FAILED, message="could not decide: gone")
        assert story(FAR, broken, broken).summary.endswith(
            "; 2 times deciding failed (could not decide: gone)."
        )

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            (TrialState.COMPLETE, "ran to its end with 0.8"),
            (TrialState.FAIL, "failed"),
            (TrialState.RUNNING, "is running"),
            (TrialState.WAITING, "has not begun"),
        ],
    )
    def test_nothing_on_record(self, state: TrialState, words: str) -> None:
        assert story(state=state).summary == (
            f"Trial 7 {words}; no decision about it is on record."
        )
        assert str(story(state=state)) == story(state=state).summary

    @pytest.mark.parametrize(
        ("state", "n_reports", "said"),
        [
            (TrialState.COMPLETE, 3, f"ran to its end with 0.8; {NOTHING} ({HINT})."),
            (TrialState.PRUNED, 3, f"was pruned; {NOTHING} ({HINT})."),
            (TrialState.FAIL, 3, f"failed; {NOTHING} ({HINT})."),
            (TrialState.FAIL, 0, f"failed; {NOTHING}."),
            (TrialState.RUNNING, 3, f"is running; {NOTHING}."),
            (TrialState.WAITING, 0, f"has not begun; {NOTHING}."),
        ],
    )
    def test_where_it_looked(self, state: TrialState, n_reports: int, said: str) -> None:
        found = Explanation("s", 7, state, 0.8, True, (), "sqlite:////l.db", n_reports)
        assert found.summary == f"Trial 7 {said}"
        assert (found.to_dict()["ledger"], found.to_dict()["n_reports"]) == (
            "sqlite:////l.db", n_reports,
        )  # fmt: skip

    def test_reasons_of_another_version(self) -> None:
        found = story(entry(3, Reason.STARTUP, reason="MOON_PHASE"))
        assert "came to a forecast: MOON_PHASE (1)" in found.summary
        assert found.table().endswith("MOON_PHASE")


TABLE = """
step  reports   value  forecast   90 % interval  P(beat)  threshold   best  of trial  decision
 0-2        3                                                                         startup
   5     6/20    0.85    0.9141  [0.902, 0.921]    0.030      0.020  0.957         4  undecided
   6     7/20  0.8512    0.9141  [0.902, 0.921]  < 0.001      0.020  0.957         4  pruned
""".strip("\n")


class TestTable:
    def test_of_a_pruned_trial(self) -> None:
        found = story(*WAITED, entry(5, Reason.UNDECIDED, 0.03, value=0.85),
                      entry(6, Reason.BELOW_THRESHOLD, 1.23e-5, value=0.8512345))  # fmt: skip
        assert found.table() == TABLE

    def test_failures_of_no_step(self) -> None:
        row = story(*[entry(None, Reason.FAILED)] * 2).table().splitlines()[-1]
        assert row.split() == ["0", "could", "not", "decide"]

    def test_looks_with_a_forecast_have_a_line_each(self) -> None:
        found = story(*(entry(i, Reason.UNDECIDED, 0.1) for i in range(7)))
        assert len(found.table().splitlines()) == 8

    def test_a_long_one_is_cut_in_the_middle(self) -> None:
        found = story(*(entry(i, Reason.UNDECIDED, 0.1) for i in range(100)))
        lines = str(found).split("\n\n")[1].splitlines()
        assert [line.split()[0] for line in lines] == [
            "step", *map(str, range(20)), "...", *map(str, range(80, 100))
        ]  # fmt: skip
        assert lines[21] == "... 60 more ..."
        assert len(found.table().splitlines()) == 101


class TestToDict:
    def test_everything_on_record(self) -> None:
        found = story(CLOSE).to_dict()
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert found["direction"] == "maximize"
        assert (found["study"], found["trial"], found["state"], found["value"]) == (
            "s", 7, "COMPLETE", 0.8,
        )  # fmt: skip
        assert found["summary"] == story(CLOSE).summary
        (decision,) = found["decisions"]
        assert set(decision) == set(COLUMNS)
        assert decision["p_beat"] == 0.03
        assert decision["decided_at"] == "2026-01-02T03:04:05"

    @pytest.mark.parametrize("value", [float("inf"), -float("inf")])
    def test_json_has_no_infinity(self, value: float) -> None:
        found = story(CLOSE, value=value).to_dict()
        assert found["value"] is None
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def make_pruner(**settings: Any) -> LearningCurvePruner:
    return LearningCurvePruner(**{"n_steps": N_STEPS, "threshold": 0.05, **settings})


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return good_study(f"sqlite:///{tmp_path}/study.db")


@pytest.fixture(scope="module")
def watched_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study's file and its ledger beside it; trial 5 runs and is to stop."""
    folder = tmp_path_factory.mktemp("watched")
    study = good_study(f"sqlite:///{folder}/study.db")
    watch(study, make_pruner(), reports(BAD[:6]))
    assert trial_attributes.writer().flush(60.0)
    assert ledger_writer.flush(60.0)
    study._storage.remove_session()
    return folder


@pytest.fixture
def watched(watched_once: Path, tmp_path: Path) -> optuna.Study:
    """A copy of that study, each test its own."""
    shutil.copytree(watched_once, tmp_path, dirs_exist_ok=True)
    return good_study(f"sqlite:///{tmp_path}/study.db")


class TestExplain:
    def test_a_trial_of_a_study(self, study: optuna.Study) -> None:
        decisions = watch(study, make_pruner(), reports(BAD[:12]))
        found = explain(study, 5)  # what waits in this process is written first
        assert [entry.reason for entry in found.decisions] == names(decisions)
        assert (found.study, found.trial, found.state) == (study.study_name, 5, TrialState.RUNNING)
        assert found.maximize
        study.tell(5, state=TrialState.PRUNED)
        again = explain(study, 5)
        last = decisions[-1]
        assert last.p_beat is not None
        assert again.summary.startswith("Trial 5 was pruned at step ")
        assert "of trial 4" in again.summary

    def test_a_trial_without_decisions(self, watched: optuna.Study) -> None:
        assert explain(watched, 0).decisions == ()

    @pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
    def test_an_infeasible_trial(self, how: str, watched: optuna.Study) -> None:
        for value in (0.5, 0.0):
            watched.add_trial(constrained(finished({0: 0.8}), -1.0, value, how=how))
        bad, good = explain(watched, 6), explain(watched, 7)
        assert bad.summary.startswith("Trial 6 ran to its end with 0.8 (infeasible); no decision")
        assert good.summary.startswith("Trial 7 ran to its end with 0.8; no decision")
        assert (bad.to_dict()["feasible"], good.to_dict()["feasible"]) == (False, True)

    def test_numpy_numbers(self, watched: optuna.Study) -> None:
        assert len(explain(watched, np.int64(5)).decisions) == 6  # type: ignore[arg-type]

    @pytest.mark.parametrize("number", [-1, 6, True])
    def test_no_such_trial(self, number: int, watched: optuna.Study) -> None:
        with pytest.raises(InputError, match=f"no trial {number}: it has 6"):
            explain(watched, number)

    def test_no_ledger(self) -> None:
        with pytest.raises(
            LedgerError, match=r"has no ledger beside it: .*ledger=\.\.\..* a copied study leaves "
        ):
            explain(make_study(good_trials()), 0)

    def test_the_pruners_ledger_is_found(self, tmp_path: Path) -> None:
        setting = f"sqlite:///{tmp_path}/l.db"
        study = make_study(good_trials(), pruner=make_pruner(ledger=setting))
        trial = study.ask()
        trial.report(0.5, 0)
        assert not trial.should_prune()
        assert len(explain(study, 5).decisions) == 1
        study.pruner = optuna.pruners.NopPruner()
        assert len(explain(study, 5, ledger=setting).decisions) == 1


class TestLedgerLeftBehind:
    @pytest.fixture
    def study(self, watched: optuna.Study) -> optuna.Study:
        """A study whose trial 5 was pruned."""
        watched.tell(5, state=TrialState.PRUNED)
        assert explain(watched, 5).decisions
        return watched

    @pytest.fixture
    def pruned(self, tmp_path: Path) -> Path:
        """Where its ledger is."""
        return tmp_path / "study.db.lcpruner"

    def test_by_a_copy_under_another_name(self, study: optuna.Study, pruned: Path) -> None:
        storage = study._storage
        optuna.copy_study(
            from_study_name=study.study_name, from_storage=storage, to_storage=storage,
            to_study_name="copy",
        )  # fmt: skip
        copy = optuna.load_study(study_name="copy", storage=storage)
        said = f"is on record in sqlite:///{pruned} ({HINT})."
        assert explain(copy, 5).summary == f"Trial 5 was pruned; no decision about it {said}"
        assert (
            f"0 on record. None about 6 finished trials that reported, in sqlite:///{pruned} "
            f"({HINT})."
        ) in " ".join(str(report(copy)).split())

    def test_by_a_copy_in_another_file(
        self, study: optuna.Study, pruned: Path, tmp_path: Path
    ) -> None:
        target = sqlite(f"sqlite:///{tmp_path}/copy.db")
        optuna.copy_study(
            from_study_name=study.study_name, from_storage=study._storage, to_storage=target
        )
        copy = optuna.load_study(study_name=study.study_name, storage=target)
        with pytest.raises(LedgerError) as caught:
            explain(copy, 5)
        assert str(caught.value) == (
            f"there is no ledger sqlite:///{tmp_path}/copy.db.lcpruner, so no decision is on "
            f"record ({HINT})"
        )
        there = explain(copy, 5, ledger=f"sqlite:///{pruned}")  # it has kept its name
        assert there.decisions
        # Once a decision is on record here, there is a ledger that lacks the others.
        watch(copy, make_pruner(), reports(BAD[:2]))
        copy.tell(6, state=TrialState.PRUNED)
        assert explain(copy, 5).summary.endswith(f"copy.db.lcpruner ({HINT}).")
        assert "None about 6 finished trials that reported, in sqlite:///" in " ".join(
            str(report(copy)).split()
        )

    @pytest.mark.parametrize("command", ["explain", "report"])
    def test_by_a_file_that_was_moved(
        self,
        command: str,
        study: optuna.Study,
        pruned: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        study._storage.remove_session()
        moved = (tmp_path / "study.db").rename(tmp_path / "moved.db")
        trial = ("--trial", "5") if command == "explain" else ()
        assert main([command, "--storage", str(moved), *trial]) == 2
        assert capsys.readouterr().err == (
            f"optuna-lcpruner: error: there is no ledger sqlite:///{moved}.lcpruner, so no "
            f"decision is on record ({HINT})\n"
        )
        assert main([command, "--storage", str(moved), *trial, "--ledger", str(pruned)]) == 0

    def test_no_password_is_shown(self) -> None:
        book = Ledger(Address("postgresql://me:secret@db/studies"))
        assert book.shown == "postgresql://me:***@db/studies"


class TestCommand:
    @pytest.fixture
    def run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., tuple[int, str, str]]:
        def run(*argv: str) -> tuple[int, str, str]:
            code = main(["explain", "--storage", f"{tmp_path}/study.db", *argv])
            return code, *capsys.readouterr()

        return run

    def test_text(self, watched: optuna.Study, run: Callable[..., tuple[int, str, str]]) -> None:
        expected = explain(watched, 5)
        assert run("--trial", "5") == (0, f"{expected}\n", "")
        assert "on record in sqlite:///" in " ".join(run("--trial", "0")[1].split())

    def test_all(self, study: optuna.Study, run: Callable[..., tuple[int, str, str]]) -> None:
        pruner = make_pruner(n_steps=100, threshold=0.0)
        watch(study, pruner, reports(saturating(0.89, 45)))
        _, short, _ = run("--trial", "5")
        _, long, _ = run("--trial", "5", "--all")
        assert " more ..." in short
        assert long == f"{explain(study, 5).summary}\n\n{explain(study, 5).table()}\n"
        assert len(long.splitlines()) > len(short.splitlines())

    def test_json(self, watched: optuna.Study, run: Callable[..., tuple[int, str, str]]) -> None:
        code, out, _ = run("--study", watched.study_name, "--trial", "5", "--json")
        assert code == 0
        assert json.loads(out) == explain(watched, 5).to_dict()

    def test_another_ledger(
        self, study: optuna.Study, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
    ) -> None:
        watch(study, make_pruner(ledger=f"sqlite:///{tmp_path}/l.db"), reports(BAD[:2]))
        explain(study, 5, ledger=f"sqlite:///{tmp_path}/l.db")
        by_file = run("--trial", "5", "--ledger", f"{tmp_path}/l.db")
        by_url = run("--trial", "5", "--ledger", f"sqlite:///{tmp_path}/l.db")
        assert by_file == by_url
        assert by_file[0] == 0

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (("--trial", "99"), "no trial 99"),
            (("--trial", "5", "--ledger", "nowhere.db"), "no ledger sqlite:"),
            (("--trial", "5", "--ledger", "foo://x"), "foo"),
            (("--trial", "5", "--study", "other"), "no study named 'other'"),
            (("--trial", "x"), "invalid int"),
            ((), "--trial"),
        ],
    )
    def test_errors_are_one_line(
        self,
        argv: tuple[str, ...],
        words: str,
        watched: optuna.Study,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        code, out, err = run(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


class TestSources:
    """What each source said stands below the sentence, of the look that decided."""

    SAID = "P by curve model 0.044, similar trials < 0.001"

    def shown(self, *entries: LedgerEntry, state: TrialState = TrialState.PRUNED) -> Explanation:
        return Explanation("s", 7, state, None, True, entries)

    def test_of_a_pruned_trial(self) -> None:
        early = judged(3, Reason.UNDECIDED, 0.3, message="undecided: words\nP by curve model 0.9")
        stop = judged(4, Reason.BELOW_THRESHOLD, 0.01, message=f"pruned: words\n{self.SAID}\nmore")
        found = self.shown(early, stop)
        assert found.sources == [f"At step 4: {self.SAID}.", "more."]
        assert str(found).splitlines()[2:4] == found.sources
        assert "curve model" not in found.summary

    def test_of_another_where_it_came_closest(self) -> None:
        closest = judged(3, Reason.UNDECIDED, 0.1, message=f"undecided: words\n{self.SAID}")
        other = judged(4, Reason.UNDECIDED, 0.5, message="undecided: words\nP by curve model 0.9")
        found = self.shown(closest, other, state=TrialState.COMPLETE)
        assert found.sources == [f"At step 3: {self.SAID}."]

    def test_nothing_on_record(self) -> None:
        assert self.shown(judged(4, Reason.BELOW_THRESHOLD, 0.01)).sources == []
        assert self.shown(entry(0, Reason.STARTUP)).sources == []
        assert self.shown().sources == []

    def test_a_table_of_pandas_and_one_line(self) -> None:
        found = self.shown(judged(3, Reason.UNDECIDED, 0.3), judged(4, Reason.BELOW_THRESHOLD, 0.1))
        assert found.to_dataframe()["p_beat"].tolist() == [0.3, 0.1]
        assert repr(found).startswith("Explanation('s', 2 decisions: Trial 7 was pruned at step 4")
        assert found._repr_html_().startswith("<pre>Trial 7 was pruned")
