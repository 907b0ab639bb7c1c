"""Each benchmark command runs, on a small made-up study, and prints what it promises."""

from __future__ import annotations

import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two recorded studies of 40 configurations x 12 steps, a few of them diverging."""
    rng = np.random.default_rng(0)
    paths = []
    for source, maximize in (("alpha_one", True), ("beta_two", False)):
        ends, rates = rng.uniform(0.3, 0.9, (40, 1)), rng.uniform(0.1, 0.6, (40, 1))
        curves = ends * (1 - np.exp(-rates * np.arange(1, 13))) + rng.normal(0, 0.005, (40, 12))
        curves[:3, 6:] = np.nan
        hp_json = [
            json.dumps({"end": float(end), "rate": float(rate)})
            for end, rate in zip(ends[:, 0], rates[:, 0], strict=True)
        ]
        hp_json[5] = ""
        path = tmp_path_factory.mktemp("recorded") / f"{source}.npz"
        np.savez(
            path,
            curves=curves if maximize else 1 - curves,
            maximize=maximize,
            name=source,
            hp_json=hp_json,
        )
        paths.append(str(path))
    return paths


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(script: str, *arguments: str) -> str:
    """As :func:`run`, in this process: for those that begin no others, and without the imports."""
    printed, verbosity = io.StringIO(), optuna.logging.get_verbosity()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), redirect_stdout(printed):
        patch.setattr(sys, "argv", [script, *arguments])
        patch.setattr(sys, "path", [str(BENCH), *sys.path])
        warnings.simplefilter("ignore")
        importlib.import_module(script.removesuffix(".py")).main()
    optuna.logging.set_verbosity(verbosity)
    return printed.getvalue()


def columns(output: str, name: str) -> list[float]:
    """The numbers of the last row that begins with this name."""
    rows = [line for line in output.splitlines() if line.split()[:1] == [name]]
    return [float(cell) for cell in rows[-1].split()[1:]]


def test_replay(recorded: list[str]) -> None:
    output = run(
        "replay.py", *recorded, "--orders", "2", "--trials", "30",
        "--per-study", "default", "--pruners", "none", "median_w3", "default",
    )  # fmt: skip
    cost, regret, _, kept, _, replays = columns(output, "none")
    # What diverged is pruned by nobody here, so no pruning spends all and keeps the best.
    assert (cost, regret, kept, replays) == (1.0, 0.0, 1.0, 4)
    together, _, apart = output.partition("\n\n")
    assert columns(together, "default")[0] < 0.9
    lines = [line.split() for line in apart.splitlines()]
    assert [line[0] for line in lines] == ["alpha_one", "default", "beta_two", "default"]
    mean = sum(float(lines[row][1]) for row in (1, 3)) / 2
    assert mean == pytest.approx(columns(together, "default")[0], abs=1e-3)


def test_replay_within_a_budget(recorded: list[str]) -> None:
    output = run(
        "replay.py", *recorded, "--orders", "1", "--budget", "5", "--pruners", "none", "default"
    )
    assert columns(output, "none")[0] == pytest.approx(1.0)


def test_replay_refuses_unknown_pruners(recorded: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "replay.py"), *recorded, "--pruners", "medium"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown pruners ['medium']" in done.stderr


def test_replay_with_tpe(recorded: list[str]) -> None:
    output = run(
        "replay.py", *recorded, "--orders", "1", "--trials", "20", "--sampler", "tpe",
        "--pruners", "none", "default",
    )  # fmt: skip
    cost, *_, replays = columns(output, "none")
    assert (cost, replays) == (1.0, 2)
    assert 0 < columns(output, "default")[0] < 1


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("replay")


@pytest.mark.parametrize(
    ("last", "stopped", "state"),
    [
        (0.5, False, "COMPLETE"),
        (0.5, True, "PRUNED"),
        (np.nan, True, "PRUNED"),
        (np.nan, False, "FAIL"),
    ],
)
def test_how_a_replayed_trial_ends(
    replay: ModuleType, last: float, stopped: bool, state: str
) -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.report(1.0, 0)
    completed = replay.finish(study, trial, np.array([1.0, last]), stopped)
    assert study.trials[0].state.name == state
    assert completed is (state == "COMPLETE")
    assert study.trials[0].value == {"COMPLETE": 0.5, "PRUNED": 1.0, "FAIL": None}[state]


def test_nearest_configuration(replay: ModuleType) -> None:
    space = replay.Space(
        np.array(
            [
                '{"kind": "a", "rate": 0.001, "text": "x"}',
                '{"kind": "b", "rate": 0.1}',
                '{"rate": 0.1}',
                '{"kind": "a", "rate": 1.0}',
                "",
            ]
        )
    )
    assert set(space.distributions) == {"kind", "rate"}  # one text alone does not vary
    left = np.arange(5)
    # From 0.1 on a log scale of three decades: 0 is 2/3 away, 3 is 1/3 away, 1 another category.
    assert space.nearest({"kind": "a", "rate": 0.1}, left) == 3
    assert space.nearest({"kind": "a", "rate": 0.1}, left[left != 3]) == 0
    assert space.nearest({"kind": "b", "rate": 0.1}, left) == 1
    assert space.nearest({"kind": "b", "rate": 0.1}, np.array([2, 3])) == 2
    assert space.nearest({"kind": "a", "rate": 0.1}, np.array([1, 2, 4])) == 1  # none is no match
    assert space.nearest({"kind": "b", "rate": 0.002}, np.array([2, 0])) == 0


def test_calibration(recorded: list[str]) -> None:
    output = call(
        "calibration.py", *recorded, "--runs", "10", "--trials", "30", "--risks", "1.0", "0.0"
    )
    assert len(re.findall(r"^ +\d+% ", output, re.MULTILINE)) == 5
    for order in ("random", "good first", "bad first", "TPE"):
        assert f"reliability, {order}, risk=" in output
        assert re.search(rf"^{order}[ -]+[01]\.\d", output, re.MULTILINE)
    rows = re.findall(r"^  [01]\.00 .*$", output, re.MULTILINE)
    wrong_0, wrong_1, lost_0, lost_1 = (re.findall(r"(\d\.\d+) \+-", row) for row in rows)
    assert wrong_0 == lost_0 == ["0.000"] * 4  # risk 0: nothing is stopped
    assert "0.000" not in wrong_1 + lost_1


def test_searches(recorded: list[str], tmp_path: Path) -> None:
    saved, figure = tmp_path / "searches.json", tmp_path / "searches.png"
    command = [
        "searches.py", recorded[1], "--tasks", "diabetes", "--seeds", "2", "--at", "2", "5",
        "--systems", "random", "random+default", "no_such_system",
        "--against", "random", "--workers", "1", "3", "--per-problem", "--json", str(saved),
    ]  # fmt: skip
    output = run(*command, "--figure", str(figure))
    assert figure.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert output.startswith("left out: no_such_system: unknown; samplers are random, tpe")
    assert run(*command) == output  # nothing was searched again
    rows = re.findall(r"^(?:random|tpe)\S* +\d.*$", output, re.MULTILINE)
    assert len(rows) == 4
    for row in rows:
        early, late = map(float, row.split()[1:3])
        assert early >= late
    assert [" +- " in row for row in rows] == [False, True] * 2
    assert re.search(r"^diabetes, trained( +[01]\.\d{3}){2}$", output, re.MULTILINE)
    searches = [json.loads(line) for line in saved.read_text().splitlines()]
    assert len(searches) == 16
    for search in searches:
        spent, seconds, _ = np.transpose(search["found"])
        assert np.all(np.diff([0.0, *seconds, search["seconds"]]) >= 0.0)
        assert 0.0 < search["own_seconds"] < search["seconds"]
        assert np.all(np.diff(spent) >= 0)
        assert spent[-1] <= search["budget"]
        assert len(spent) <= search["begun"]
    one = {(s["problem"], s["system"], s["seed"]): s for s in searches if s["n_workers"] == 1}
    for seed in range(2):  # the same trainings until the first is stopped
        alone = one["diabetes, trained", "random", seed]
        pruned = one["diabetes, trained", "random+default", seed]
        assert np.all(np.diff([steps for steps, _, _ in alone["found"]]) >= 60)
        first, same = ([(s, r) for s, _, r in of["found"][:2]] for of in (alone, pruned))
        assert first == same
        assert pruned["begun"] > alone["begun"]
    ends = [[r for _, _, r in one["diabetes, trained", "random", i]["found"]] for i in range(2)]
    assert ends[0] != ends[1]


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("searches")


def test_the_regret_of_a_search(searches: ModuleType) -> None:
    found = ((20, 1.5, 0.5), (50, 4.0, 0.1), (90, 8.0, 0.3))
    search = searches.Search("p", "tpe", 1, 0, 100, 3, 0.1, 9.0, found)
    assert [search.regret(share) for share in (0.1, 0.2, 0.5, 1.0)] == [1.0, 0.5, 0.1, 0.1]
    assert [search.regret(seconds=s) for s in (1.0, 1.5, 3.9, 4.0)] == [1.0, 0.5, 0.5, 0.1]
    up, down = (searches.Trainings(None, *ends, None) for ends in ((0.9, 0.5), (0.1, 0.5)))
    assert [up.regret(value) for value in (0.9, 0.7, 0.2)] == pytest.approx([0.0, 0.5, 1.0])
    assert [down.regret(value) for value in (0.0, 0.3)] == pytest.approx([-0.25, 0.5])


class _Rungs:
    """Wants two configurations trained to 3 steps, then the first one to 5."""

    def __init__(self, job: Any) -> None:
        self.jobs = [job({"x": i}, until, i) for i, until in ((0, 3), (1, 3), (0, 5))]
        self.told: list[tuple[int, list[float]]] = []

    def ask(self) -> Any:
        return self.jobs.pop(0) if self.jobs else None

    def stops(self, job: Any, step: int, value: float) -> bool:
        return False

    def tell(self, job: Any, values: list[float], stopped: bool) -> None:
        self.told.append((job.key, values))


def test_a_paused_training_goes_on(searches: ModuleType) -> None:
    seeds: list[int] = []

    def train(params: dict, seed: int) -> Iterator[float]:
        seeds.append(seed)
        return iter([params["x"] + step / 10 for step in range(5)])

    problem = searches.Problem("p", {}, 5, True)
    rungs = _Rungs(searches.Job)
    run = searches.Searching(searches.Trainings(problem, 1.0, 0.0, train), rungs, 1, 100, 3)
    run.run()
    assert seeds == [30_000, 30_001]
    assert rungs.told == [
        (0, [0.0, 0.1, 0.2]),
        (1, [1.0, 1.1, 1.2]),
        (0, [0.0, 0.1, 0.2, 0.3, 0.4]),
    ]
    assert (run.begun, 100 - run.left) == (2, 3 + 3 + 2)
    assert [(steps, regret) for steps, _, regret in run.found] == [(8, pytest.approx(0.6))]


def test_a_training_that_the_budget_cuts_off_does_not_count(searches: ModuleType) -> None:
    problem = searches.Problem("p", {}, 5, True)
    trainings = searches.Trainings(problem, 1.0, 0.0, lambda params, seed: iter([0.5] * 5))
    found = []
    for budget in (7, 8):
        run = searches.Searching(trainings, _Rungs(searches.Job), 1, budget, 0)
        run.run()
        found.append(len(run.found))
    assert found == [0, 1]


@pytest.mark.parametrize("name", ["smac", "dehb", "asha", "bohb", "ax", "neps"])
@pytest.mark.filterwarnings("ignore")
def test_another_system(searches: ModuleType, recorded: list[str], name: str) -> None:
    missing = searches.why_not(name)
    if missing:
        pytest.skip(missing)
    for path in recorded:  # larger is better, and smaller
        for n_workers in (1, 3):
            found = [
                searches.search((path, False, name, n_workers, seed, 10.0)) for seed in range(3)
            ]
            assert min(search.regret(1.0) for search in found) < 0.7  # 1 in the wrong direction


def test_trainings_differ_from_search_to_search(
    searches: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def train(settings: dict, seed: int, n_steps: int) -> Iterator[dict[str, float]]:
        seeds.append(seed)
        return iter([{"loss": 1.0}] * n_steps)

    task = replace(searches.BY_NAME["diabetes"], train=train)
    monkeypatch.setitem(searches.BY_NAME, "diabetes", task)
    for seed in (3, 4):
        assert searches.search(("diabetes", True, "random", 1, seed, 2.0)).begun == 2
    assert seeds == [30_000, 30_001, 40_000, 40_001]


def test_risk() -> None:
    output = call("risk.py", "--studies", "10", "--trials", "50")
    rows = [line.split() for line in output.splitlines() if line.startswith("exact")]
    assert len(rows) == 15
    for _, _, _, risk, wrong, _, error, lost, cost in rows:
        assert float(wrong) < float(risk) + 4 * float(error)
        assert 0 < float(lost) < 1 or float(risk) < 0.04
        assert 0.05 < float(cost) < 1


def test_second_study(recorded: list[str], tmp_path: Path) -> None:
    """Two studies in which the same configurations are the best."""
    paths = [shutil.copy(path, tmp_path / f"same_{i}.npz") for i, path in enumerate(recorded)]
    output = run("second_study.py", *map(str, paths), "--orders", "2", "--pruners", "median_w3")
    assert output.startswith("2 studies, 2 orders\n")
    rows = dict(re.findall(r"^median_w3 +(none|best 3|worst 3) +(\S.*)$", output, re.MULTILINE))
    assert [row.count(" +- ") for row in rows.values()] == [0, 3, 3]
    costs = {start: float(row.split()[0]) for start, row in rows.items()}
    assert costs["best 3"] < costs["none"] < costs["worst 3"]
    refused = subprocess.run(
        [sys.executable, str(BENCH / "second_study.py"), *recorded],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "none of these studies has another one of its source" in refused.stderr


ABLATED = (
    "full",
    "without the analogues",
    "remaining cost ignored",
    "threshold in proportion",
    "one curve, fixed threshold",
)


def test_ablation(recorded: list[str]) -> None:
    output = run(
        "ablation.py", *recorded, "--orders", "1", "--trials", "10",
        "--variants", *ABLATED,
    )  # fmt: skip
    for variant in ABLATED:
        (cost,) = re.findall(rf"^{variant} .*\d: (0\.\d+)/\d\.\d+$", output, re.MULTILINE)
        assert float(cost) < 0.85  # something is stopped, that is, something could be decided


def test_fit_pool(recorded: list[str]) -> None:
    output = call("fit_pool.py", *recorded, "--orders", "3", "--trials", "30")
    for voices in (
        "both",
        "both and rank",
        "both and pruned",
        "both and records",
        "both, nothing learned",
        "both, as shipped",
    ):
        assert re.search(rf"^{voices}  +0\.\d{{4}} ", output, re.MULTILINE)
    assert re.search(r"^  alpha +\[", output, re.MULTILINE)


def test_speed() -> None:
    output = call(
        "speed.py", "--finished", "4", "--reports", "5", "--trials", "1", "--repeats", "2"
    )
    for storage in ("memory", "SQLite", "journal"):
        assert re.search(rf"^ +{storage} +4 ", output, re.MULTILINE)


def test_ledger() -> None:
    output = run("ledger.py", "--trials", "2", "--rows", "300", "--gaps", "1")
    assert "on record: 50 of 50" in output
    assert re.search(r"should_prune with a ledger +50 ", output)
    assert "300 decisions, written in batches of 200" in output
    assert "report: " in output


def test_load(tmp_path: Path) -> None:
    output = run(
        "load.py", "--storage", f"sqlite:///{tmp_path}/load.db", "--rounds", "1",
        "--processes", "1", "--trials", "2", "--trainings", "2", "--reports", "4",
        "--finished", "8", "--columns", "none", "median", "ours", "ours, remote",
        "--growth", "4", "8", "--repeats", "20",
    )  # fmt: skip
    number = r" +\d+(?:\.\d+)?"
    rows = {
        name: [float(cell) for cell in re.findall(r"[\d.]+", cells)]
        for name, cells in re.findall(rf"^(\w+(?:, \w+)?)((?:{number})+)$", output, re.MULTILINE)
    }
    sent = {name: cells[-4:] for name, cells in rows.items()}  # report, decision, in the background
    assert sent["none"][1:] == [0, 0, 0]
    assert sent["median"][1] > 5
    assert sent["median"][2:] == [0, 0]
    assert 0 < sent["ours"][1] < sent["median"][1]  # a first report of a trial asks nothing
    assert sent["ours"][2] < sent["median"][1]  # what it reads is read once in some seconds
    assert sent["ours"][3] > 0
    assert rows["median"][3] == 1.0
    assert 0 < sent["ours, remote"][1] < sent["median"][1]
    for finished in (4, 8):
        assert re.search(rf"^ +{finished}(?: +\d+\.\d\d){{4}}$", output, re.MULTILINE)


@pytest.mark.slow
def test_mcmc(recorded: list[str]) -> None:
    output = run(
        "mcmc.py", *recorded, "--effective", "50",
        "--recorded", "1", "--repeats", "1", "--parts", "curve", "real", "time",
    )  # fmt: skip
    for seen in (10, 20, 40, 80):
        for engine in ("mcmc", "closed_form", "last", "gain"):
            assert re.search(rf"^{engine} +{seen}% .* \d\.\d+$", output, re.MULTILINE)
    assert re.search(r"^median \d", output, re.MULTILINE)


@pytest.mark.slow
def test_mcmc_in_training_loops() -> None:
    output = run("mcmc.py", "--parts", "loop", "--trials", "1", "--reports", "8")
    rates = re.findall(r"^ +1 (.*?)  +([\d.]+) ", output, re.MULTILINE)
    assert [name for name, _ in rates] == [
        "none", "closed_form", "mcmc, in the background", "mcmc, waiting"
    ]  # fmt: skip
    assert all(float(rate) > 0 for _, rate in rates)


def test_front(recorded: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    run(
        "replay.py", *recorded, "--orders", "1", "--trials", "10", "--json", str(results),
        "--pruners", "none", "median_w3", "default", "risk_0.02",
    )  # fmt: skip
    call("front.py", str(results), str(tmp_path / "front.png"))
    assert (tmp_path / "front.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_soak() -> None:
    output = run("soak.py", "--minutes", "0.15", "--every", "2", "--trials", "2", "--pause", "0.02")
    rows = [line.split() for line in output.splitlines() if re.match(r"^ +\d+\.\d ", line)]
    assert len(rows) >= 3
    assert int(rows[-1][-3]) > 0  # trials
    assert all(row[-1] == "0" for row in rows)  # lost


def test_concepts_draws_what_the_page_tells(tmp_path: Path) -> None:
    output = call("concepts.py", str(tmp_path))
    for name in ("p_beat", "decisions"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    page = (BENCH.parents[1] / "docs" / "how_it_decides.md").read_text(encoding="utf-8")
    (p_beat,) = re.findall(r"after 20 reports: P\(beat\) = ([\d.]+)", output)
    assert f"P(beat), here {p_beat}" in page
    stops = dict(re.findall(r"trial (\d+): pruned after (\d+) reports", output))
    ends = dict(re.findall(r"trial (\d+): .*, ([\d.]+) at the end", output))
    (best,) = re.findall(r"best of the completed trials: ([\d.]+)", output)
    assert set(stops) == {"40", "24"}
    assert f"flattened out after {stops['40']}" in page
    assert f"far behind after {stops['24']} epochs" in page
    assert max(ends["40"], ends["24"]) < ends["43"] < best < ends["57"]


def test_parallel(recorded: list[str], tmp_path: Path) -> None:
    figure = tmp_path / "parallel.png"
    output = run(
        "parallel.py", *recorded, "--workers", "1", "4", "--budget", "6", "--orders", "1",
        "--pruners", "none", "default", "--figure", str(figure),
    )  # fmt: skip
    assert figure.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for table in output.split("worker")[1:]:
        _, _, all_begun, all_whole = columns(table, "none")
        _, _, begun, whole = columns(table, "default")
        assert all_begun - all_whole <= 4  # those that diverge, and those under way
        assert begun > all_begun
        assert whole < all_whole


def test_stages(recorded: list[str]) -> None:
    output = run("stages.py", *recorded, "--workers", "1", "--budget", "8", "--orders", "1")
    (_, *header), *rows = (line.split() for line in output.splitlines()[3:])
    assert [word for word in header if word != "completed"] == ["3", "4-10", "11-"]
    assert sum(int(n) for row in rows for n in re.findall(r"\((\d+)\)", " ".join(row))) > 10


def test_resume(recorded: list[str]) -> None:
    output = run("resume.py", *recorded, "--budget", "5", "--orders", "1")
    number = r"[ +-]+\d\.\d{4}"
    assert re.search(rf"^random, 1 studies{6 * number}", output, re.MULTILINE)
    assert re.search(rf"^all{6 * number}", output, re.MULTILINE)


def test_seconds() -> None:
    output = call(
        "seconds.py", "--task", "cancer", "--orders", "2", "--trials", "12", "--budget", "4"
    )
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line}
    assert rows["steps"][2] == "+0.000"  # to itself
    assert float(rows["none"][-1]) <= 4 <= float(rows["time"][-2])  # completed, begun


def test_early_ranks(recorded: list[str]) -> None:
    output = call("early_ranks.py", *recorded, "--orders", "1")
    assert re.search(r"^alpha_one", output, re.MULTILINE)


def test_the_best_three(recorded: list[str]) -> None:
    output = call("best_k.py", *recorded, "--orders", "1", "--trials", "12")
    rows = [line.split() for line in output.splitlines()[1:]]
    assert [row[1] for row in rows] == ["n_best=1", "n_best=3"] * 2
    for one, three in zip(rows[::2], rows[1::2], strict=True):
        assert float(one[2]) < float(three[2]) <= 1.0  # what spends more
        assert float(one[4]) <= float(three[4])


def test_reprint(tmp_path: Path) -> None:
    """The commands of the files run, the outputs replace the old ones, the commands stay."""
    sums, kept = tmp_path / "sums.txt", tmp_path / "kept.txt"
    command = '$ python -c \\\n    "print(1 + 1)"\n'
    sums.write_text(command + "old\n\nolder\n")
    needs = "$ python -c \"print('STUDIES')\"\n"
    kept.write_text(needs + "as it was\n")
    folder = ("--folder", str(tmp_path))
    assert "left as it is: kept" in run("reprint.py", *folder)
    assert sums.read_text() == command + "2\n"
    assert kept.read_text() == needs + "as it was\n"
    sums.write_text(command + "old\n")
    run("reprint.py", *folder, "--studies", str(tmp_path), "kept")
    assert sums.read_text() == command + "old\n"
    assert kept.read_text() == needs + f"{tmp_path}\n"


PRINTED = sorted((BENCH.parents[1] / "docs" / "benchmarks").glob("*.txt"))


@pytest.mark.parametrize("path", PRINTED, ids=lambda path: path.stem)
def test_printed_files_begin_with_a_command_that_there_is(path: Path) -> None:
    command, _, output = path.read_text(encoding="utf-8").replace("\\\n", " ").partition("\n")
    script = re.match(r"\$ (?:python tests/bench/(\w+\.py)|optuna-lcpruner \w+) ?", command)
    assert script
    assert script[1] is None or (BENCH / script[1]).is_file()
    assert output.strip()
