"""Whole searches, side by side: who finds the best value for a budget of training steps?

    python tests/bench/searches.py STUDY.npz ... [--systems tpe tpe+default smac] [--seeds 3]
    python tests/bench/searches.py --tasks cancer diabetes --at 10 20 50 --workers 1 8 --jobs 2

Every system (``systems.py``) searches the same problems with the same seeds: recorded studies (see
``replay.py``), where the configuration nearest to the proposed hyper-parameters is trained, and
tasks of ``tests/recorded``, which are trained for real. The budget, the last of ``--at``, is in
full trainings' worth of steps. A training that goes on where an earlier one with the same
hyper-parameters paused pays only for its further steps, which rung by rung systems do. With several
workers the steps of a training all take the same time, drawn for it (log-normal, standard deviation
of the logarithm 0.5).

    at      regret (best - found) / (best - median) after as many full trainings' worth of steps, at
            most 1: best and median are those of the recorded configurations, found is the best that
            was trained to its end
    +-      standard error of the last
    less    last regret minus that of the reference (``--against``), search by search, and its error
    at s    regret when as many seconds are spent as the quickest system took for the same search
    worst   problems on which no system ends worse
    begun, whole    trainings begun, and trained to their end (once more where a system asks for it
            again, which costs it nothing)
    own s   seconds that the system itself took for a search
    all s   with those that the trainings took, of all workers
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from replay import Space
from systems import Job, Problem, System, names_of_systems, system_of, why_not
from threadpoolctl import threadpool_limits

RECORDED = Path(__file__).parents[1] / "recorded"
sys.path.insert(0, str(RECORDED))
from record import TASKS, Task  # noqa: E402

BY_NAME = {task.name: task for task in TASKS}

# --- problems -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trainings:
    """A problem and how its configurations are trained.

    Attributes:
        problem: What systems are told.
        best: The best final value recorded.
        median: The median one.
        train: Hyper-parameters and seed -> values, step by step.
    """

    problem: Problem
    best: float
    median: float
    train: Callable[[dict, int], Iterator[float]]

    def regret(self, value: float) -> float:
        """A value as a regret, at most 1."""
        return min(1.0, (self.best - value) / (self.best - self.median))


def recorded(path: Path) -> Trainings:
    """A recorded study: the nearest configuration is trained, once used again, too."""
    with np.load(path, allow_pickle=True) as data:
        curves, maximize = data["curves"].astype(float), bool(data["maximize"])
        space = Space(data["hp_json"])
    if not space.distributions:
        sys.exit(f"{path} has no hyper-parameters that vary")
    every = np.arange(len(curves))

    def train(params: dict, seed: int) -> Iterator[float]:
        return iter(curves[space.nearest(params, every)].tolist())

    problem = Problem(path.stem, space.distributions, curves.shape[1], maximize)
    return Trainings(problem, *ends(curves, maximize), train)


def trained(name: str) -> Trainings:
    """A task of ``tests/recorded``, trained for real; its last metric is tuned."""
    task = BY_NAME[name]
    metric, maximize = metric_of(task)
    curves = np.load(RECORDED / f"{name}_{metric}.npz")["curves"].astype(float)
    constant = {key: values[0] for key, values in task.space.items() if len(values) == 1}
    space = {
        key: distribution_of(values) for key, values in task.space.items() if key not in constant
    }

    def train(params: dict, seed: int) -> Iterator[float]:
        # A number of a list is searched for by its place in it.
        settings = constant | {
            key: task.space[key][value] if isinstance(space[key], IntDistribution) else value
            for key, value in params.items()
        }
        for metrics in itertools.islice(task.train(settings, seed, task.n_steps), task.n_steps):
            yield float(metrics[metric])

    problem = Problem(f"{name}, trained", space, task.n_steps, maximize)
    return Trainings(problem, *ends(curves, maximize), train)


def metric_of(task: Task) -> tuple[str, bool]:
    """The metric that is tuned, the last of a task, and whether larger is better."""
    return list(task.maximize.items())[-1]


def distribution_of(values: tuple | list) -> BaseDistribution:
    """Of a range on a logarithmic scale, of strings, or of places in a list of numbers."""
    if isinstance(values, tuple):
        return FloatDistribution(*values, log=True)
    if isinstance(values[0], str):
        return CategoricalDistribution(values)
    return IntDistribution(0, len(values) - 1)


def ends(curves: np.ndarray, maximize: bool) -> tuple[float, float]:
    """Best and median final value."""
    return (
        float((np.nanmax if maximize else np.nanmin)(curves[:, -1])),
        float(np.nanmedian(curves[:, -1])),
    )


# --- searches -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """One search.

    Attributes:
        problem: Its name.
        system: Its name.
        n_workers: Trainings at once.
        seed: Its seed.
        budget: In steps.
        begun: Trainings begun.
        own_seconds: What the system took for itself.
        seconds: What system and trainings took together.
        found: For each training that came to its end, the steps and seconds spent until then, and
            its regret.
    """

    problem: str
    system: str
    n_workers: int
    seed: int
    budget: int
    begun: int
    own_seconds: float
    seconds: float
    found: tuple[tuple[int, float, float], ...]

    @property
    def key(self) -> tuple:
        """What tells it from others."""
        return self.problem, self.system, self.n_workers, self.seed, self.budget

    def regret(self, share: float = 1.0, seconds: float = float("inf")) -> float:
        """Regret when a share of the budget, or these seconds, are spent; 1 if nothing ended."""
        return min(
            (
                regret
                for steps, until, regret in self.found
                if steps <= share * self.budget and until <= seconds
            ),
            default=1.0,
        )


class Training:
    """A configuration in training, or paused."""

    def __init__(self, values: Iterator[float]) -> None:
        self._values = values
        self.seen: list[float] = []

    def step(self) -> float:
        """Train one step; once diverged, it stays so."""
        diverged = bool(self.seen) and not np.isfinite(self.seen[-1])
        self.seen.append(float("nan") if diverged else next(self._values, float("nan")))
        return self.seen[-1]


class Searching:
    """A search under way."""

    def __init__(
        self, trainings: Trainings, system: System, n_workers: int, budget: int, seed: int
    ) -> None:
        self.trainings, self.system, self.n_workers = trainings, system, n_workers
        self.left, self.budget, self.seed = budget, budget, seed
        self.begun, self.own_seconds, self.seconds = 0, 0.0, 0.0
        self.found: list[tuple[int, float, float]] = []
        self._rng = np.random.default_rng(seed)
        self._paused: dict[object, Training] = {}
        # When its next step is done, number, seconds a step, job, training.
        self._running: list[tuple[float, int, float, Job, Training]] = []
        self._number = itertools.count()

    def run(self) -> None:
        """Train until the budget is spent, or the system wants nothing trained."""
        self._employ(0.0)
        while self._running and self.left > 0:
            now, number, seconds, job, training = heapq.heappop(self._running)
            self.left -= 1
            start = time.perf_counter()
            value = training.step()
            self.seconds += time.perf_counter() - start
            stopped = self._own(self.system.stops, job, len(training.seen) - 1, value)
            ended = stopped or len(training.seen) >= job.until or not np.isfinite(value)
            if not ended:
                heapq.heappush(self._running, (now + seconds, number, seconds, job, training))
                continue
            self._end(job, training, stopped)
            if self.left > 0:
                self._employ(now)

    def _employ(self, now: float) -> None:
        """Give every idle worker something to train."""
        idle = 0
        while len(self._running) < self.n_workers and idle < 1000:
            job = self._own(self.system.ask)
            if job is None:
                return
            training = self._paused.get(job.key)
            if training is None:
                made = self.trainings.train(job.params, 10_000 * self.seed + self.begun)
                training = self._paused[job.key] = Training(made)
                self.begun += 1
            if len(training.seen) >= job.until:  # was trained as far before
                idle += 1
                self._end(job, training, False)
                continue
            seconds = float(self._rng.lognormal(0.0, 0.5))
            heapq.heappush(
                self._running, (now + seconds, next(self._number), seconds, job, training)
            )

    def _end(self, job: Job, training: Training, stopped: bool) -> None:
        """Tell the system, and keep what came to its end."""
        seen = training.seen[: job.until]
        self._own(self.system.tell, job, seen, stopped)
        if len(seen) == self.trainings.problem.n_steps and np.isfinite(seen[-1]) and not stopped:
            regret = self.trainings.regret(seen[-1])
            self.found.append((self.budget - self.left, self.seconds, regret))

    def _own(self, act: Callable, *arguments: object) -> object:
        """Let the system act, and time it."""
        start = time.perf_counter()
        answer = act(*arguments)
        took = time.perf_counter() - start
        self.own_seconds, self.seconds = self.own_seconds + took, self.seconds + took
        return answer


Kind = tuple[str, bool, str, int, int, float]
"""Study or task, whether it is a task, system, workers, seed, budget in full trainings."""


def problem_of(name: str, is_task: bool) -> Trainings:
    """A problem by path or task."""
    return trained(name) if is_task else recorded(Path(name))


def search(kind: Kind) -> Search:
    """One search from its beginning to its end."""
    name, is_task, system, n_workers, seed, budget = kind
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.simplefilter("ignore")
    trainings = problem_of(name, is_task)
    steps = round(budget * trainings.problem.n_steps)
    with np.errstate(all="ignore"), threadpool_limits(1):
        made = system_of(system, trainings.problem, seed, steps)
        run = Searching(trainings, made, n_workers, steps, seed)
        run.run()
        made.close()
    problem = trainings.problem.name
    return Search(
        problem,
        system,
        n_workers,
        seed,
        steps,
        run.begun,
        run.own_seconds,
        run.seconds,
        tuple(run.found),
    )


def run_all(kinds: list[Kind], jobs: int, path: Path | None) -> list[Search]:
    """All searches, in this order; those kept in the file are not run again, others are added."""
    done: dict[tuple, Search] = {}
    for line in path.read_text().splitlines() if path and path.exists() else []:
        fields = json.loads(line)
        got = Search(**fields | {"found": tuple(map(tuple, fields["found"]))})
        done[got.key] = got

    problems = {of: problem_of(*of).problem for of in dict.fromkeys(kind[:2] for kind in kinds)}

    def key(kind: Kind) -> tuple:
        problem = problems[kind[:2]]
        return problem.name, *kind[2:5], round(kind[5] * problem.n_steps)

    keys = [key(kind) for kind in kinds]
    with ProcessPoolExecutor(jobs) as pool:
        running = {
            pool.submit(search, kind): its for kind, its in zip(kinds, keys, strict=True)
            if its not in done
        }  # fmt: skip
        for future in as_completed(running):
            done[running[future]] = got = future.result()
            if path:
                with path.open("a") as file:
                    file.write(json.dumps(asdict(got)) + "\n")
    return [done[its] for its in keys]


# --- what they came to --------------------------------------------------------------------------


def table(searches: list[Search], at: list[float], against: str) -> Iterable[str]:
    """A line for each system: means over problems and seeds."""
    quickest: dict[tuple, float] = {}
    for s in searches:
        which = s.problem, s.seed
        quickest[which] = min(s.seconds, quickest.get(which, s.seconds))
    regret = {
        name: {(s.problem, s.seed): s.regret() for s in searches if s.system == name}
        for name in dict.fromkeys(s.system for s in searches)
    }
    worst = dict.fromkeys(regret, 0)
    for problem in dict.fromkeys(s.problem for s in searches):
        ended = {
            name: np.mean([r for (p, _), r in of.items() if p == problem])
            for name, of in regret.items()
        }
        for name, mean in ended.items():
            worst[name] += mean >= max(ended.values()) - 1e-12
    width = max(16, *map(len, regret))
    names_at = " ".join(f"{f'at {budget:g}':>7s}" for budget in at)
    yield (
        f"{'system':{width}s} {names_at} {'+-':>6s} {'less':>16s} {'at s':>6s} {'worst':>5s} "
        f"{'begun':>6s} {'whole':>5s} {'own s':>6s} {'all s':>6s} searches"
    )
    for name in regret:
        mine = [s for s in searches if s.system == name]
        cells = " ".join(
            f"{np.mean([s.regret(budget / at[-1]) for s in mine]):7.3f}" for budget in at
        )
        in_time = np.mean([s.regret(seconds=quickest[s.problem, s.seed]) for s in mine])
        ended = np.array(list(regret[name].values()))
        less = " " * 16
        if against in regret and name != against:
            pairs = [of - regret[against][k] for k, of in regret[name].items()]
            less = f"{np.mean(pairs):+7.3f} +- {np.std(pairs) / np.sqrt(len(pairs)):.3f}"
        counted = [(s.begun, len(s.found), s.own_seconds, s.seconds) for s in mine]
        begun, whole, own, every = np.mean(counted, axis=0)
        yield (
            f"{name:{width}s} {cells} {ended.std() / np.sqrt(len(mine)):6.3f} {less:>16s} "
            f"{in_time:6.3f} {worst[name]:5d} {begun:6.0f} {whole:5.0f} {own:6.1f} {every:6.1f} "
            f"{len(mine):8d}"
        )


def by_problem(searches: list[Search]) -> Iterable[str]:
    """Regret at the end, a line for each problem and a column for each system."""
    names = list(dict.fromkeys(s.system for s in searches))
    width = max(len(s.problem) for s in searches)
    widths = {name: max(7, len(name)) for name in names}
    yield " ".join([f"{'at the end':{width}s}", *(f"{n:>{widths[n]}s}" for n in names)])
    for problem in dict.fromkeys(s.problem for s in searches):
        here = [s for s in searches if s.problem == problem]
        means = {n: np.mean([s.regret() for s in here if s.system == n]) for n in names}
        yield " ".join([f"{problem:{width}s}", *(f"{means[n]:{widths[n]}.3f}" for n in names)])


def draw(searches: list[Search], workers: list[int], budget: float, path: Path) -> None:
    """Mean regret against what is spent, a panel for each number of workers."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 + 4 * len(workers), 4.2), layout="constrained")
    panels = figure.subplots(1, len(workers), sharey=True, squeeze=False)[0]
    shares = np.linspace(0.05, 1, 96)
    names = list(dict.fromkeys(s.system for s in searches))
    colours = dict(zip(names, colormaps["tab20"].colors * len(names), strict=False))
    for axes, n in zip(panels, workers, strict=True):
        courses = {
            name: [
                np.mean([s.regret(share) for s in searches if (s.system, s.n_workers) == (name, n)])
                for share in shares
            ]
            for name in names
        }
        for name in sorted(names, key=lambda name: -courses[name][-1]):  # as they end, from above
            ours = name.endswith("+default")
            width, style = (2.4, "-") if ours else (1.2, "--")
            axes.plot(
                shares * budget, courses[name], style, label=name, lw=width, color=colours[name]
            )
        title = "1 worker" if n == 1 else f"{n} workers"
        axes.set(title=title, xlabel="full trainings' worth of steps", ylim=(0.0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small", loc="upper right")
    panels[0].set(ylabel="regret")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Parse arguments, search, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", type=Path, help="recorded studies")
    parser.add_argument("--tasks", nargs="+", choices=BY_NAME, default=[], metavar="TASK")
    parser.add_argument(
        "--systems",
        nargs="+",
        default=["random", "tpe", "tpe+median_w3", "tpe+hyperband", "tpe+halving_eta4",
                 "random+default", "tpe+default"],
        metavar="SYSTEM",
        help=f"an Optuna sampler, alone or with a pruner of replay.py; {names_of_systems()}",
    )  # fmt: skip
    parser.add_argument("--against", default="tpe+default", help="the reference of 'less'")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each kind")
    parser.add_argument(
        "--at",
        nargs="+",
        type=float,
        default=[5, 10, 20],
        help="full trainings' worth of steps after which regret is printed; the last is the budget",
    )
    parser.add_argument("--workers", nargs="+", type=int, default=[1])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--per-problem", action="store_true", help="a line for each problem")
    parser.add_argument("--json", type=Path, help="keep searches in this file, go on from it")
    parser.add_argument("--figure", type=Path, help="draw regret against what is spent")
    arguments = parser.parse_args()
    at = sorted(arguments.at)
    problems = [(str(path), False) for path in arguments.studies]
    problems += [(name, True) for name in arguments.tasks]
    if not problems:
        parser.error("give recorded studies, or --tasks")
    missing = {name: why for name in arguments.systems if (why := why_not(name))}
    for name, why in missing.items():
        print(f"left out: {name}: {why}")
    systems = [name for name in arguments.systems if name not in missing]
    if not systems:
        parser.error("none of these systems is here")
    kinds = [
        (*problem, system, n_workers, seed, at[-1])
        for n_workers in arguments.workers
        for problem in problems
        for system in systems
        for seed in range(arguments.seeds)
    ]
    searches = run_all(kinds, arguments.jobs, arguments.json)
    print(f"{len(problems)} problems, {arguments.seeds} seeds, budget {at[-1]:g}")
    for n_workers in arguments.workers:
        mine = [s for s in searches if s.n_workers == n_workers]
        print(f"\n{n_workers} worker{'s' * (n_workers > 1)}")
        print("\n".join(table(mine, at, arguments.against)))
        if arguments.per_problem:
            print("\n" + "\n".join(by_problem(mine)))
    if arguments.figure:
        draw(searches, arguments.workers, at[-1], arguments.figure)


if __name__ == "__main__":
    main()
