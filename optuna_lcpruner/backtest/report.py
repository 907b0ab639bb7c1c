"""What a back-test reports: its outcomes as text, JSON, a figure and advice.

The symbols are those of :mod:`~optuna_lcpruner.backtest.outcome`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from optuna_lcpruner._util.dataframes import dataframe
from optuna_lcpruner._util.formatting import number, table, wrapped
from optuna_lcpruner.backtest.data import RecordedStudy
from optuna_lcpruner.backtest.figure import draw
from optuna_lcpruner.backtest.outcome import Interval, PrunerResult, Share

KEEP = 0.95  # heuristic
"""Share of the orders in which a setting must keep the best trial to be advised."""


@dataclass(frozen=True, repr=False)
class BacktestReport:
    """What each pruner would have done to a finished study.

    Attributes:
        study: The trials that were replayed.
        n_trials: Trials of a replay.
        budget: Full trainings' worth of reports in the budget.
        top: Indices of the study's best feasible trials, best first.
        results: One a pruner.
        n_workers: Trials that run at once.
    """

    study: RecordedStudy
    n_trials: int
    budget: float
    top: tuple[int, ...]
    results: tuple[PrunerResult, ...]
    n_workers: int = 1

    @property
    def advice(self) -> str:
        """Which of our settings would have kept the best trial in 95 % of the orders for least."""
        ours = [(r, r.share("kept"), r.interval("cost").mean) for r in self.results if r.ours]
        if not ours:
            return "No setting of lcpruner was among the pruners, so there is none to advise."
        safe = [entry for entry in ours if entry[1].share >= KEEP]
        if not safe:
            result, kept, cost = max(ours, key=lambda entry: (entry[1].count, -entry[2]))
            return (
                f"No lcpruner setting here would have kept the best trial in {KEEP:.0%} of the "
                f"random orders; closest is {result.pruner}, in {kept.count} of {kept.n} for "
                f"{cost:.0%} of the steps: try lower risks."
            )
        result, kept, cost = min(safe, key=lambda entry: entry[2])
        peers = [
            (r.interval("cost").mean, r)
            for r in self.results
            if not r.ours and r.share("kept").share >= KEEP and r.interval("cost").mean < cost
        ]
        if peers:
            return _prefer(*min(peers, key=lambda peer: peer[0]), result)
        return (
            f"Use {result.pruner}: of the lcpruner settings here that would have kept the best "
            f"trial in at least {KEEP:.0%} of the random orders ({kept.count} of {kept.n}) it is "
            f"the cheapest, at {cost:.0%} of the steps{_not_originally(result)}."
        )

    def table(self) -> str:
        """The report as text."""
        advice = wrapped(self.advice)
        parts = (self._head(), self._measures(), self._within_budget(), self._top(), [advice])
        return "\n\n".join("\n".join(lines) for lines in parts)

    def __repr__(self) -> str:
        pruners = ", ".join(r.pruner for r in self.results)
        return f"BacktestReport({self.study.name!r}, {self.n_trials} trials: {pruners})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.table())}</pre>"

    def to_dataframe(self) -> Any:
        """A row a replay as a ``pandas.DataFrame``: its pruner, and the numbers of its Outcome.

        Raises:
            InputError: If pandas is not installed.
        """
        return dataframe(
            [
                {"pruner": r.pruner, **asdict(outcome)}
                for r in self.results
                for outcome in (r.original, *r.orders)
            ]
        )

    def _head(self) -> Iterator[str]:
        study, n = self.study, len(self.study.trials)
        direction = "maximize" if study.maximize else "minimize"
        yield f"{study.name}: {n} trials, {direction}, a full training is {study.n_steps} steps"
        if study.left_out:
            why = ", ".join(f"{count} {reason}" for reason, count in study.left_out)
            yield f"left out: {why}"
            if dict(study.left_out).get("pruned"):
                yield "  how the pruned would have ended is unknown; less can be saved on the rest"
        diverged = sum(trial.diverged for trial in study.trials)
        if diverged:
            yield f"{diverged} of the trials diverged: they fail unless a pruner stops them"
        if self._n_infeasible:
            yield f"{self._n_infeasible} of the trials are infeasible: none of them is the best"
        n_orders = len(self.results[0].orders)
        yield f"replayed{self._by} in {n_orders} random orders of its trials and the original one"

    @property
    def _by(self) -> str:
        return f" by {self.n_workers} workers" if self.n_workers > 1 else ""

    @property
    def _unit(self) -> str:
        return "hours" if self.study.in_hours else "full trainings"

    @property
    def _n_infeasible(self) -> int:
        return sum(not trial.feasible for trial in self.study.trials)

    def _measures(self) -> Iterator[str]:
        of = f"the first {self.n_trials}" if self.n_trials < len(self.study.trials) else "all"
        yield f"{of} trials of each order: what is spent, and is the best of them kept?"
        yield "  steps spent  share of the reports made [in nine of ten orders]"
        columns = ["pruner", "steps spent"]
        if self.study.in_hours:
            of_all = ", of all workers together" if self.n_workers > 1 else ""
            yield f"  min saved    minutes of training saved{of_all}"
            columns.append("min saved")
        if self.n_workers > 1:
            alike = "" if self.study.in_hours else ", all steps lasting alike"
            yield f"  time         until the last of these trials has ended, in {self._unit}{alike}"
            columns.append("time")
        yield "  pruned       trials stopped"
        yield "  best kept    orders in which the best trial ran to its end [95 % interval, %]"
        yield "  regret       0: the best is kept; 1: only a median trial [in nine of ten orders]"
        yield ""
        rows = [(*columns, "pruned", "best kept", "regret", "ms/decision")]
        for r in self.results:
            cost = r.interval("cost")
            cells = {
                "pruner": r.pruner,
                "steps spent": f"{cost.mean:.0%} [{100 * cost.low:.0f}, {100 * cost.high:.0f}]",
                "min saved": number(60.0 * r.interval("saved").mean),
                "time": number(r.interval("duration").mean),
                "pruned": f"{r.interval('n_pruned').mean:.0f}",
                "best kept": _share_cell(r.share("kept")),
                "regret": _regret_cell(r.interval("regret")),
                "ms/decision": f"{r.interval('ms').mean:.2f}",
            }
            rows.append(tuple(cells[name] for name in rows[0]))
        yield _aligned(rows)

    def _within_budget(self) -> Iterator[str]:
        plural = "" if self.budget == 1 else "s"
        whole = f"{self.budget:g} full training{plural}"
        yield f"with the steps of {whole} to spend: is the best found?"
        yield "  best found   orders in which the study's best trial ran to its end [95 %, %]"
        yield "  regret       as above, against the best of the whole study"
        yield ""
        rows: list[tuple[str, ...]] = [("pruner", "best found", "regret")]
        ran_out = False
        for r in self.results:
            mark = "*" if r.share("ran_out").share > 0.5 else ""
            ran_out |= bool(mark)
            found = _share_cell(r.share("budget_kept")) + mark
            rows.append((r.pruner, found, _regret_cell(r.interval("budget_regret"))))
        yield _aligned(rows)
        if ran_out:
            yield "* ran all trials before the budget was spent; with more it would have gone on"

    def _top(self) -> Iterator[str]:
        trials = [self.study.trials[index] for index in self.top]
        yield "the best trials: kept, stopped at a step, or not run, in the original order; then in"
        yield "how many of the random orders that ran them they were stopped, and at which step"
        yield ""
        rows = [
            ("pruner", *(f"trial {trial.number} ({trial.value:.5g})" for trial in trials)),
        ]
        for r in self.results:
            cells = [r.pruner]
            for i, trial in enumerate(trials):
                share, median = r.top_stopped(i)
                now = r.original.stopped[i]
                first = "kept" if now is None else "not run" if now == 0 else _at(trial.steps, now)
                later = "not run" if share.n == 0 else f"{share.count}/{share.n}"
                if share.count:
                    later += f" {_at(trial.steps, median)}"
                cells.append(f"{first}; {later}")
            rows.append(tuple(cells))
        yield _aligned(rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types: all replays, and the numbers of the table."""
        study = self.study
        return {
            "study": study.name,
            "direction": "maximize" if study.maximize else "minimize",
            "n_trials_recorded": len(study.trials),
            "n_infeasible": self._n_infeasible,
            "left_out": dict(study.left_out),
            "n_steps": study.n_steps,
            "n_trials": self.n_trials,
            "budget": self.budget,
            "n_workers": self.n_workers,
            "duration_unit": self._unit,
            "top_trials": [
                {"number": study.trials[i].number, "value": study.trials[i].value} for i in self.top
            ],
            "advice": self.advice,
            "pruners": [
                {
                    "pruner": r.pruner,
                    **{m: asdict(r.interval(m)) for m in _NUMBERS},
                    **{
                        m: {**asdict(r.share(m)), "interval": list(r.share(m).interval)}
                        for m in _TRUTHS
                    },
                    "original": asdict(r.original),
                    "orders": [asdict(outcome) for outcome in r.orders],
                }
                for r in self.results
            ],
        }

    def figure(self) -> Any:
        """Cost against regret, and regret within the budget; a matplotlib Figure.

        Raises:
            InputError: If matplotlib is not installed.
        """
        n_orders = len(self.results[0].orders)
        return draw(
            self.results,
            f"{self.n_trials} trials",
            f"budget of {self.budget:g} full trainings",
            f"{self.study.name}: mean and 5 %-95 % range over {n_orders} random orders{self._by}",
        )


_NUMBERS = ("cost", "regret", "n_pruned", "budget_regret", "ms", "duration", "saved")
_TRUTHS = ("kept", "budget_kept", "ran_out")


def _prefer(cost: float, peer: PrunerResult, ours: PrunerResult) -> str:
    """The advice where one of the other pruners keeps the best trial for less than any of ours."""
    cheaper = sum(a.cost < b.cost for a, b in zip(peer.orders, ours.orders, strict=True))
    kept, own = peer.share("kept"), ours.share("kept")
    return (
        f"Use {peer.pruner} on a study like this one: it would have kept the best trial in "
        f"{kept.count} of {kept.n} random orders for {cost:.0%} of the "
        f"steps{_not_originally(peer)}. Of the lcpruner settings here that would have kept it in "
        f"at least {KEEP:.0%}, {ours.pruner} is the cheapest ({own.count} of {own.n}), at "
        f"{ours.interval('cost').mean:.0%} of the steps{_not_originally(ours)}; {peer.pruner} "
        f"spent less in {cheaper} of the orders."
    )


def _not_originally(result: PrunerResult) -> str:
    return "" if result.original.kept else ", but not in the original order"


def _at(steps: Sequence[int], n_reports: float) -> str:
    return f"at {steps[max(0, math.ceil(n_reports) - 1)]}"


def _share_cell(share: Share) -> str:
    low, high = share.interval
    return f"{share.count}/{share.n} [{100 * low:.0f}, {100 * high:.0f}]"


def _regret_cell(regret: Interval) -> str:
    return f"{regret.mean:.3f} [{regret.low:.2f}, {regret.high:.2f}]"


_WIDTH = 100
"""Columns of a terminal that a table keeps to."""


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table; what is too wide goes on below, the first column repeated."""
    first, *others = zip(*rows, strict=True)
    blocks = [[first]]
    for column in others:
        wider = [*blocks[-1], column]
        if len(blocks[-1]) > 1 and sum(max(map(len, c)) + 2 for c in wider) > _WIDTH + 2:
            wider = [first, column]
            blocks.append(wider)
        blocks[-1] = wider
    texts = []
    for block in blocks:
        header, *lines = zip(*block, strict=True)
        texts.append(table(header, lines, left=range(len(header))))
    return "\n\n".join(texts)
