from __future__ import annotations

import zipfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import SAYS_CONSTRAINTS, constrained, finished, make_study, reports
from optuna.trial import TrialState

from optuna_lcpruner._util.validation import InputError
from optuna_lcpruner.backtest.data import (
    RecordedStudy,
    from_curves,
    from_study,
    read_file,
    recorded,
)

CURVES = [[0.1 * i, 0.2 * i, 0.3 * i] for i in range(1, 7)]


def steps(study: RecordedStudy) -> list[tuple[int, ...]]:
    return [trial.steps for trial in study.trials]


def values(study: RecordedStudy) -> list[tuple[float, ...]]:
    return [trial.values for trial in study.trials]


def finals(study: RecordedStudy) -> list[float]:
    return [trial.value for trial in study.trials]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_study_gives_its_completed_trials_and_counts_the_others() -> None:
    study = make_study(
        [
            *(finished(reports([1.0, 2.0 + i]), value=7.0 + i) for i in range(5)),
            finished(reports([1.0]), value=1.0, state=TrialState.PRUNED),
            finished({}, value=3.0),
            finished(reports([5.0, float("nan")], steps=[4, 2]), value=5.0),
            finished(reports([9.0]), state=TrialState.FAIL),
        ],
        direction="minimize",
    )
    read = from_study(study)
    assert [trial.number for trial in read.trials] == [0, 1, 2, 3, 4, 7]
    assert finals(read) == [7, 8, 9, 10, 11, 5]  # what was returned, not the last report
    assert dict(read.left_out) == {"pruned": 1, "fail": 1, "without reports": 1}
    assert not read.maximize
    assert read.trials[-1].steps == (2, 4)  # in order of the steps
    np.testing.assert_array_equal(read.trials[-1].values, [np.nan, 5.0])


@pytest.mark.parametrize("how", SAYS_CONSTRAINTS)
def test_a_study_says_who_keeps_its_constraints(how: str) -> None:
    given = [(-1.0, 0.0), (0.0, 1e-9), (), (2.0,), (-3.0,)]
    study = make_study(constrained(finished({0: 1.0}), *values, how=how) for values in given)
    read = from_study(study).trials
    assert [trial.constraints for trial in read] == given
    assert [trial.feasible for trial in read] == [True, False, True, False, True]


def test_a_trial_that_went_on_took_as_long_as_all_of_its_reports_would_have() -> None:
    trials = [finished(reports([0.1, 0.2, 0.3, 0.4])) for _ in range(5)]
    trials[1].user_attrs = {"lcpruner_resumed_from": 0, "lcpruner_resumed_at_step": 2}
    for trial in trials:
        trial.datetime_start = datetime(2026, 1, 2)
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=8)
    study = from_study(make_study(trials))
    assert [trial.seconds for trial in study.trials] == [8.0, 32.0, 8.0, 8.0, 8.0]


def test_infeasible_trials_count_as_curves_but_one_must_be_feasible() -> None:
    trials = [constrained(finished({0: 1.0}), 1.0) for _ in range(4)]
    assert len(from_study(make_study([*trials, finished({0: 0.5})])).trials) == 5
    diverged = finished({0: 1.0}, value=float("inf"))
    for last in (constrained(finished({0: 1.0}), 0.5), diverged):
        study = make_study([*trials, trials[0], last])
        with pytest.raises(InputError, match=r"none of the [56] completed .* is feasible, so"):
            from_study(study)


@pytest.mark.parametrize(
    ("reported", "n_steps", "n_reports"),
    [
        ([range(10)] * 6, 10, 10),
        ([range(1, 11)] * 6, 10, 10),
        ([range(500, 5001, 500)] * 6, 5000, 10),
        ([range(0, 50, 5)] * 6, 50, 10),
        ([range(10)] * 4 + [range(3)] * 6, 10, 10),  # most stopped early
        ([range(10)] * 19 + [range(40)], 10, 10),  # a single overlong one
    ],
)
def test_the_horizon_is_where_trainings_end(
    reported: Sequence[Sequence[int]], n_steps: int, n_reports: int
) -> None:
    study = make_study(finished(dict.fromkeys(s, 1.0)) for s in reported)
    read = from_study(study)
    assert (read.n_steps, read.n_reports, read.announced) == (n_steps, n_reports, False)


def test_an_announced_horizon_counts_more_than_what_is_seen() -> None:
    trials = [
        finished(reports([1.0, 2.0]), user_attrs={"lcpruner_n_steps": n})
        for n in (30, 30, 30, 50, 50)
    ]
    read = from_study(make_study(trials))
    assert (read.n_steps, read.announced) == (30, True)
    assert [trial.n_steps for trial in read.trials] == [30, 30, 30, 50, 50]
    assert from_study(make_study(trials), n_steps=12).n_steps == 12

    study = make_study(finished(reports([1.0, 2.0])) for _ in range(5))
    study.set_user_attr("lcpruner_n_steps", 70)
    read = from_study(study)
    assert (read.n_steps, read.announced) == (70, False)  # no trial tells a pruner


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ([], "has no trials"),
        ([finished({0: 1.0}, state=TrialState.PRUNED)] * 9, r"no completed trial \(but 9 pruned\)"),
        ([finished({}, value=1.0)] * 9, "none of the 9 completed trials .* reported"),
        (
            [finished({0: 1.0})] * 4 + [finished({}, value=1.0)],
            r"has 4 completed .* at least 5 \(left out: 1 without reports\)",
        ),
    ],
)
def test_a_study_without_curves_is_refused(trials: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_study(make_study(trials))


def test_a_study_with_two_objectives_is_refused() -> None:
    with pytest.raises(InputError, match="has 2 objectives"):
        from_study(optuna.create_study(directions=["minimize", "maximize"]))


def test_lists_may_differ_in_length_and_hold_nan() -> None:
    nan = float("nan")
    read = from_curves([*CURVES, [0.5], [0.5, nan, 0.7], [0.5, nan]], "maximize")
    assert steps(read)[-3:] == [(0,), (0, 1, 2), (0, 1)]
    assert [trial.diverged for trial in read.trials] == [False] * 8 + [True]
    np.testing.assert_array_equal(values(read)[-2], [0.5, nan, 0.7])
    assert read.n_steps == 3


def test_diverged_trainings_do_not_count_as_usable() -> None:
    with pytest.raises(InputError, match="has 4 completed trials"):
        from_curves([*CURVES[:4], *[[0.1, float("inf")]] * 5], "maximize")


@pytest.mark.parametrize("curves", [[1.0, 2.0], [["a"]], "abc", [[[1.0]]]])
def test_what_is_not_curves_is_refused(curves: Any) -> None:
    with pytest.raises(InputError, match="one sequence of numbers a trial"):
        from_curves(curves, "maximize")


def test_npz(tmp_path: Path) -> None:
    curves = np.array(CURVES)
    curves[2, 1:] = np.nan
    path = tmp_path / "study.npz"
    np.savez(path, curves=curves, maximize=False, name="mine")
    read = read_file(path)
    assert (read.name, read.maximize, read.n_steps) == ("mine", False, 3)
    np.testing.assert_array_equal(values(read), curves)
    assert [trial.diverged for trial in read.trials] == [False, False, True, False, False, False]
    assert read_file(path, "maximize").maximize  # whoever says it knows better

    np.savez(path, curves=curves)
    assert read_file(path, "minimize").name == "study"


LONG = "Trial,step,value,lr\n" + "".join(
    f"t{i},{step},{value},x\n"
    for step, row in ((10, 0.1), (5, 0.2), (20, 0.3))
    for i, value in ((i, row * i) for i in range(1, 7))
)


def test_long_csv(tmp_path: Path) -> None:
    read = read_file(write(tmp_path / "a.csv", LONG), "maximize")
    assert (read.name, len(read.trials)) == ("a", 6)
    assert steps(read) == [(5, 10, 20)] * 6
    np.testing.assert_allclose(values(read), [[0.2 * i, 0.1 * i, 0.3 * i] for i in range(1, 7)])
    np.testing.assert_allclose(finals(read), [0.3 * i for i in range(1, 7)])


def test_what_a_trial_returned(tmp_path: Path) -> None:
    rows = [f"{i},{step},0.{step},{10 * i}\n" for i in range(5) for step in (1, 2)]
    text = "\ufefftrial,step,value,final\n" + "".join(rows) + "\n5,1,0.5,\n5,2,nan,\n6,1,1,\n"
    read = read_file(write(tmp_path / "a.csv", text), "minimize")
    assert finals(read)[:5] == [0, 10, 20, 30, 40]
    assert steps(read) == [(1, 2)] * 6 + [(1,)]
    assert read.trials[5].diverged  # NaN was its last report
    assert finals(read)[6] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs columns trial, step, value.*it has nothing"),
        ("\n", "needs columns trial, step, value.*it has nothing"),
        ("a,b\n1,2\n", "it has 'a', 'b'"),
        ("trial,step,value\n1,0,abc\n", "line 2: 'abc' is not a number"),
        ("trial,step,value\n1,0\n", "line 2: not 3 cells, as the header has"),
        ("trial,step,value\n1,0,2,3\n", "line 2: not 3 cells, as the header has"),
        ("trial,step,value\n\n1,0,a\n", "line 3: 'a' is not a number"),
        ("trial,step,value\n1,-1,0.5\n", "step must be 0, 1, 2, ..., but got '-1'"),
        ("trial,step,value\n1,0.5,0.5\n", "step must be 0, 1, 2, ..., but got '0.5'"),
        ("trial,step,value\n1,nan,0.5\n", "step must be 0, 1, 2, ..., but got 'nan'"),
        ("trial,step,value\n1,,0.5\n", "line 2: '' is not a number"),
        ("trial,step,value\n1,0,\n", "line 2: '' is not a number"),
        ("trial,step,value\n1,0,0.5\n1,0,0.6\n", "line 3: step 0 of trial 1 is there twice"),
        ("trial,step,value\n1,0,0.5\n", "has 1 completed trials"),
        ("trial,step,value\n\x00,\x00,\x00\n", "is not a number|cannot be read"),
    ],
)
def test_a_malformed_csv_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_file(write(tmp_path / "a.csv", text), "maximize")


def test_files_that_are_not_what_they_seem(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_file(tmp_path / "a.csv", "maximize")
    with pytest.raises(InputError, match="must end in"):
        read_file(write(tmp_path / "a.txt", ""), "maximize")
    with pytest.raises(InputError, match=r"not an \.npz file"):
        read_file(write(tmp_path / "a.npz", "text"), "maximize")
    np.savez_compressed(tmp_path / "d.npz", curves=np.random.default_rng(0).random((20, 20)))
    whole = (tmp_path / "d.npz").read_bytes()
    for at in range(0, len(whole), 7):  # whatever byte is lost: read all the same, or said
        (tmp_path / "d.npz").write_bytes(whole[:at] + b"(" + whole[at + 1 :])
        with suppress(InputError):
            read_file(tmp_path / "d.npz", "maximize")
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        archive.writestr("curves.npy", b"\x93NUMPY\x01\x00\x03\x00{((")
    with pytest.raises(InputError, match=r"not an \.npz file"):
        read_file(tmp_path / "e.npz", "maximize")
    np.savez(tmp_path / "b.npz", values=[1.0])
    with pytest.raises(InputError, match="no array 'curves', only values"):
        read_file(tmp_path / "b.npz", "maximize")
    np.savez(tmp_path / "c.npz", curves=[1.0])
    with pytest.raises(InputError, match=r"must be \(n_trials, n_steps\), but got \(1,\)"):
        read_file(tmp_path / "c.npz", "maximize")
    (tmp_path / "d.csv").write_bytes(b"trial,step,value\n\xff,2,1\n")
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path / "d.csv", "maximize")
    with pytest.raises(InputError, match="direction must be"):
        read_file(write(tmp_path / "e.csv", LONG))


def test_recorded_counts_what_it_leaves_out_itself() -> None:
    read = from_curves([*CURVES, [], []], "maximize")
    assert read.left_out == (("without reports", 2),)
    again = recorded("again", True, read.trials, {"pruned": 3})
    assert again.left_out == (("pruned", 3),)
