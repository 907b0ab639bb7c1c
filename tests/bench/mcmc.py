"""The sampled posterior against the closed form, the truth and simple rules; with standard errors.

    python tests/bench/mcmc.py                                  all but the recorded curves
    python tests/bench/mcmc.py STUDY.npz ... --parts real       300 recorded curves

The parts:

curve   One curve f(t) = 0.86 - 0.62 exp(-0.28 t^0.62) with noise of 0.004, 50 of 100 steps seen:
        what each engine says of its end, under several seeds of the noise.
real    Recorded studies as for ``replay.py``: 20 completed runs of a study are known, others are
        forecast, by each of ``--engines``; ``pool`` is the pruner's default, which learns from the
        known runs. On the working scale: mean log density of the final value (no curve counts below
        -10), median absolute error of the median, coverage of the 90 % interval. ``last`` is the
        last value, ``gain`` the last value plus the mean gain of the known runs from there, both
        with the known runs' deviation.
time    Diagnostics of one posterior of the eleven families, 50 of 100 points.
loop    Training loops in threads that ask after every report: reports per second and milliseconds
        of a check. One worker process makes the forecasts in the background.

Seconds are processor time but in ``loop``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import optuna
from calibration import completed, knowledge_of, load
from optuna.pruners import BasePruner
from scipy import stats

from optuna_lcpruner import LearningCurvePruner
from optuna_lcpruner.curves.learning_curve import LearningCurve, PositionGrid
from optuna_lcpruner.curves.scale import Scale
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import Engine, StudyKnowledge
from optuna_lcpruner.posterior.opinion_pool import OpinionPool
from optuna_lcpruner.posterior.weighted_sum.sampler import MCMC
from optuna_lcpruner.pruners.executor import worker_processes

UNIT = StudyKnowledge(Scale(0.0, 1.0, True))
SEEN = (0.1, 0.2, 0.4, 0.8)
T = 100
REAL: dict[str, Callable[[], Engine]] = {
    "mcmc": MCMC,
    "closed_form": ClosedForm,
    "pool": OpinionPool,
}
"""Engines asked about recorded curves."""
PARTS = ("curve", "real", "time", "loop")


def ask(engine: Engine, values: np.ndarray, n: int) -> Forecast:
    """Forecast a curve in [0, 1] after n of T reports."""
    return engine(LearningCurve(np.arange(1.0, n + 1), values[:n], T), UNIT)


def plus_minus(x: np.ndarray, digits: int = 3) -> str:
    """Mean +- standard error."""
    return f"{np.mean(x):{digits + 4}.{digits}f} +- {np.std(x) / np.sqrt(len(x)):.{digits}f}"


def curve_part(sampler: MCMC, n_seeds: int) -> None:
    truth = 0.86 - 0.62 * np.exp(-0.28 * np.arange(1.0, T + 1) ** 0.62)
    print(f"one curve, 50 of {T} seen, truth {truth[-1]:.4f}, {n_seeds} seeds of the noise")
    print(f"{'engine':12s} {'mean':>7s} {'sd':>7s} {'bias':>18s} {'|z| < 1.645':>12s}")
    for name, engine in (
        ("mcmc", sampler),
        ("closed_form", ClosedForm()),
    ):
        rows = []
        for seed in range(n_seeds):
            noise = 0.004 * np.random.default_rng(seed).normal(size=T)
            end = ask(engine, truth + noise, 50)
            rows.append((end.mean(noise=False), end.std(noise=False)))
        mean, sd = np.array(rows).T
        covered = np.mean(np.abs(mean - truth[-1]) < 1.645 * sd)
        print(
            f"{name:12s} {mean.mean():7.4f} {sd.mean():7.4f} "
            f"{plus_minus(mean - truth[-1], 4):>18s} {covered:12.2f}"
        )
    print()


def recorded(paths: list[Path], n_curves: int) -> Iterator[tuple[np.ndarray, StudyKnowledge, int]]:
    """A fixed random choice of recorded curves: (curve, knowledge of its study, n of steps)."""
    rng = np.random.default_rng(0)
    studies = []
    for path in paths:
        curves, _ = load(path)
        curves = rng.permutation(curves[np.isfinite(curves).all(axis=1)])
        if len(curves) > 25:
            known = [completed(i, c) for i, c in enumerate(curves[:20])]
            studies.append((knowledge_of(known, curves.shape[1]), curves[20:]))
    for i in range(n_curves):
        knowledge, curves = studies[i % len(studies)]
        yield curves[int(rng.integers(len(curves)))], knowledge, curves.shape[1]


Found = tuple[float, float, float, float]
"""Of one forecast: log density, absolute error, whether it covers, whether it converged."""


@cache
def chosen(paths: tuple[Path, ...], n_curves: int) -> list[tuple[np.ndarray, StudyKnowledge, int]]:
    """The recorded curves of a process, read once."""
    return list(recorded(list(paths), n_curves))


def real_curve(
    sampler: MCMC,
    engines: list[str],
    paths: tuple[Path, ...],
    n_curves: int,
    index: int,
    fraction: float,
) -> dict[str, Found]:
    """What each engine and simple rule found for one recorded curve; empty if it ends too soon."""
    np.seterr(all="ignore")
    curve, knowledge, n_steps = chosen(paths, n_curves)[index]
    n = max(2, round(fraction * n_steps))
    if n >= n_steps:
        return {}
    scale, end = knowledge.scale, float(curve[-1])
    now = int(PositionGrid(n_steps).nearest(n))
    known = (knowledge.completed[:, -1] - knowledge.completed[:, now]) / scale.unit
    z, last = (end - scale.location) / scale.unit, (curve[n - 1] - scale.location) / scale.unit
    found: dict[str, Found] = {}
    for name, middle, deviation in (
        ("last", last, float(np.sqrt(np.mean(known**2) + 1e-6))),
        ("gain", last + float(known.mean()), max(float(known.std()), 1e-3)),
    ):
        error = abs(z - middle)
        density = float(stats.norm.logpdf(z, middle, deviation))
        found[name] = density, error, float(error < 1.645 * deviation), 1.0
    seen = LearningCurve(np.arange(1.0, n + 1), curve[:n], n_steps)
    for name in engines:
        ahead = (sampler if name == "mcmc" else REAL[name]())(seen, knowledge)
        low, median, high = ahead.quantile([0.05, 0.5, 0.95])
        density = float(ahead.pdf(end)) * scale.unit
        converged = ahead.diagnostics is None or ahead.diagnostics.converged
        found[name] = (
            float(np.log(max(density, 1e-300))),
            abs(end - float(median)) / scale.unit,
            float(low <= end <= high),
            float(converged),
        )
    return found


def real_part(
    sampler: MCMC, engines: list[str], paths: list[Path], n_curves: int, jobs: int
) -> None:
    print(f"{n_curves} recorded curves of {len(paths)} studies")
    print(f"{'engine':12s} {'seen':>5s} {'log density':>16s} {'|error|':>16s} ", end="")
    print(f"{'coverage':>16s} {'converged':>10s}", flush=True)
    with ProcessPoolExecutor(jobs) as workers:
        waiting = [
            (
                fraction,
                [
                    workers.submit(
                        real_curve, sampler, engines, tuple(paths), n_curves, i, fraction
                    )
                    for i in range(n_curves)
                ],
            )
            for fraction in SEEN
        ]
        for fraction, curves in waiting:
            rows: dict[str, list[Found]] = {}
            for future in curves:
                for name, found in future.result().items():
                    rows.setdefault(name, []).append(found)
            for name, all_found in rows.items():
                density, error, inside, converged = np.array(all_found).T
                print(
                    f"{name:12s} {fraction:5.0%} {plus_minus(np.maximum(density, -10.0), 2):>16s} "
                    f"{np.median(error):7.4f} +- {median_error(error):.4f} "
                    f"{plus_minus(inside, 2):>16s} {np.mean(converged):10.3f}",
                    flush=True,
                )
    print()


def median_error(x: np.ndarray) -> float:
    """Standard error of a median, by 200 bootstrap samples."""
    rng = np.random.default_rng(0)
    return float(np.std([np.median(rng.choice(x, len(x))) for _ in range(200)]))


def time_part(sampler: MCMC, repeats: int) -> None:
    print("one posterior of the eleven families, 50 of 100 points")
    print(f"{'seconds':>8s} {'steps':>6s} {'tau':>6s} {'ESS':>6s} {'R-hat':>6s} {'accepted':>9s}")
    truth = 0.86 - 0.62 * np.exp(-0.28 * np.arange(1.0, T + 1) ** 0.62)
    ask(MCMC(max_steps=10), truth, 50)  # imports
    times = []
    for seed in range(repeats):
        values = truth + 0.004 * np.random.default_rng(seed).normal(size=T)
        start = time.process_time()
        d = ask(sampler, values, 50).diagnostics
        times.append(time.process_time() - start)
        assert d is not None
        print(
            f"{times[-1]:8.2f} {d.n_steps:6d} {d.autocorrelation_time:6.1f} "
            f"{d.effective_sample_size:6.0f} {d.r_hat:6.3f} {d.acceptance:9.2f} {d.status}",
            flush=True,
        )
    print(f"median {np.median(times):.2f} s\n")


def loop_part(counts: list[int], n_steps: int, pause: float) -> None:
    print(f"training loops of {n_steps} reports, {1e3 * pause:g} ms of training each")
    print(
        f"{'trials':>6s} {'pruner':24s} {'reports/s':>10s} {'check, median ms':>17s} {'99 %':>8s}"
    )
    for n_trials in counts:
        with worker_processes(1) as executor:
            executor.submit(ask, MCMC(max_steps=10), np.linspace(0.1, 0.5, T), 50).result()
            settings = {"n_steps": n_steps, "threshold": 0.0, "publish": False}
            pruners = {
                "none": optuna.pruners.NopPruner(),
                "closed_form": LearningCurvePruner(**settings, engine="closed_form"),
                "mcmc, in the background": LearningCurvePruner(
                    **settings, engine="mcmc", executor=executor
                ),
                "mcmc, waiting": LearningCurvePruner(**settings, engine="mcmc"),
            }
            for name, pruner in pruners.items():
                few = 3 if name.endswith("waiting") else n_steps
                rate, checks = train(pruner, n_trials, n_steps, few, pause)
                middle, high = np.quantile(1e3 * checks, [0.5, 0.99])
                print(
                    f"{n_trials:6d} {name:24s} {rate:10.1f} {middle:17.3f} {high:8.2f}", flush=True
                )
    print()


def train(
    pruner: BasePruner, n_trials: int, n_steps: int, n_reports: int, pause: float
) -> tuple[float, np.ndarray]:
    """Reports per second of trials in parallel threads, and the seconds of each check."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    rng = np.random.default_rng(0)
    for _ in range(20):
        curve = rng.uniform(0.6, 0.9) - 0.5 * np.arange(1.0, n_steps + 1) ** -0.5
        values = dict(enumerate(curve.tolist()))
        study.add_trial(optuna.trial.create_trial(value=curve[-1], intermediate_values=values))
    trials = [study.ask() for _ in range(n_trials)]
    checks: list[float] = []

    def run(trial: optuna.Trial) -> None:
        own = np.random.default_rng(trial.number)
        for step in range(n_reports):
            time.sleep(pause)
            trial.report(0.7 - 0.5 * (step + 1.0) ** -0.5 + 0.01 * own.normal(), step)
            start = time.perf_counter()
            trial.should_prune()
            checks.append(time.perf_counter() - start)

    start = time.perf_counter()
    with ThreadPoolExecutor(n_trials) as threads:
        list(threads.map(run, trials))
    return n_trials * n_reports / (time.perf_counter() - start), np.array(checks)


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="*")
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--effective", type=float, default=200.0, help="effective draws wanted")
    parser.add_argument("--recorded", type=int, default=300, help="recorded curves")
    parser.add_argument("--engines", nargs="+", choices=REAL, default=list(REAL), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="processes for recorded curves")
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 8], help="training loops")
    parser.add_argument("--reports", type=int, default=100, help="reports of a training loop")
    parser.add_argument("--repeats", type=int, default=10, help="of the parts curve and time")
    arguments = parser.parse_args()
    sampler = MCMC(effective_sample_size=arguments.effective)
    parts: dict[str, Callable[[], None]] = {
        "curve": lambda: curve_part(sampler, arguments.repeats),
        "time": lambda: time_part(sampler, arguments.repeats),
        "loop": lambda: loop_part(arguments.trials, arguments.reports, 0.02),
    }
    if arguments.studies:
        parts["real"] = lambda: real_part(
            sampler, arguments.engines, arguments.studies, arguments.recorded, arguments.jobs
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    np.seterr(all="ignore")
    for name in arguments.parts or parts:
        parts[name]()


if __name__ == "__main__":
    main()
