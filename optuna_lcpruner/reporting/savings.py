"""What pruning saved so far: a summary, and a callback that shows it while the search goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.formatting import duration, number, percent
from optuna_lcpruner._util.validation import real
from optuna_lcpruner.curves.horizon import announced_n_steps
from optuna_lcpruner.records.ledger import LedgerError
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.reporting.decisions import Row, on_record, single_objective, step_maps
from optuna_lcpruner.study.continuation import continuations, n_own_reports
from optuna_lcpruner.study.feasibility import is_feasible
from optuna_lcpruner.study.pace import seconds_to_start


@dataclass(frozen=True)
class Savings:
    """What was not trained, against training every pruned trial to its horizon.

    Attributes:
        trained: Reports made by all trials.
        saved: Reports that the pruned trials did not make.
        seconds: Time that these would have taken at each trial's own pace, once it had started up;
            None without timings.
        spent_seconds: Time that all trials which have ended took together.
        n_pruned: Trials that were pruned.
        n_ended: Trials that have ended, in whatever way.
    """

    trained: int
    saved: int
    seconds: float | None
    spent_seconds: float
    n_pruned: int
    n_ended: int

    @property
    def share(self) -> float:
        """The part of all reports that was saved."""
        whole = self.trained + self.saved
        return self.saved / whole if whole else 0.0

    def __str__(self) -> str:
        pruned = f"{self.n_pruned} of {self.n_ended} pruned"
        time = "" if self.seconds is None else f", about {duration(self.seconds)}"
        return f"{pruned}, {percent(self.share)} of the steps saved{time}"


def savings_of(
    trials: Sequence[FrozenTrial], maximize: bool, rows: Sequence[Row] | None = None
) -> Savings:
    """Sum up what was not trained; see :func:`left_out` for the arguments."""
    left = left_out(trials, maximize, rows)
    start_up, seconds = seconds_to_start(trials) or 0.0, None
    for i, reports in left.items():
        trial = trials[i]
        if trial.duration is not None and trial.intermediate_values:
            training = trial.duration.total_seconds() - start_up
            seconds = (seconds or 0.0) + reports * training / max(1, n_own_reports(trial))
    took = [trial.duration.total_seconds() for trial in trials if trial.duration is not None]
    return Savings(
        sum(n_own_reports(trial) for trial in trials),
        sum(left.values()),
        seconds,
        sum(took),
        len(left),
        sum(trial.state.is_finished() for trial in trials),
    )


def left_out(
    trials: Sequence[FrozenTrial], maximize: bool, rows: Sequence[Row] | None = None
) -> dict[int, int]:
    """Reports that pruned trials did not make, by trial number; not of those that went on.

    Args:
        trials: The study's trials.
        maximize: Its direction.
        rows: The decisions on record: then of the trials that these stopped, by the horizons that
            they saw; a trial that diverged had the usual one. None without a ledger: of all pruned
            trials, by what each announced or the completed trials show.
    """
    begun = {n for n, t in continuations(trials).items() if t.state != TrialState.WAITING}
    pruned = [t.number for t in trials if t.state == TrialState.PRUNED and t.number not in begun]
    horizons = _shown(pruned, trials, maximize) if rows is None else _on_record(pruned, rows)
    return {
        number: max(0, horizon - len(trials[number].intermediate_values))
        for number, horizon in horizons.items()
    }


def _on_record(pruned: Sequence[int], rows: Sequence[Row]) -> dict[int, int]:
    horizons = {row["trial"]: row["horizon"] for row in rows if row["horizon"] is not None}
    usual = int(np.median(list(horizons.values()))) if horizons else 0
    stopped = {row["trial"] for row in rows if row["action"] == "prune"}
    return {number: horizons.get(number, usual) for number in pruned if number in stopped}


def _shown(pruned: Sequence[int], trials: Sequence[FrozenTrial], maximize: bool) -> dict[int, int]:
    lengths, maps = step_maps(pruned, trials, maximize)
    found = {}
    for trial in (trials[i] for i in pruned):
        n_steps = announced_n_steps(trial.user_attrs) or lengths.n_steps
        steps = maps.get(trial.number)
        found[trial.number] = 0 if n_steps is None or steps is None else steps.horizon(n_steps)
    return found


@dataclass(frozen=True)
class Summary:
    """What a search saved and found; ``print`` shows it, ``line`` is one line of it.

    Attributes:
        study: The study's name.
        states: Number of trials by state.
        savings: What was not trained.
        best_trial: The number of the best feasible trial; None before one has completed.
        best_value: Its value.
        price_per_hour: What an hour of training costs, in any currency; None if that is not known.
    """

    study: str
    states: Mapping[str, int]
    savings: Savings
    best_trial: int | None
    best_value: float | None
    price_per_hour: float | None = None

    @property
    def line(self) -> str:
        """What was saved so far and the best value, in one line."""
        best = "" if self.best_value is None else f"; best {number(self.best_value)}"
        return f"{self.savings}{best}"

    def __str__(self) -> str:
        saved, states = self.savings, ", ".join(f"{n} {s.lower()}" for s, n in self.states.items())
        time = "" if saved.seconds is None else f", {duration(saved.seconds)}"
        rows = [
            ("trials", f"{sum(self.states.values())}: {states}"),
            ("spent", f"{saved.trained} steps, {duration(saved.spent_seconds)}"),
            ("saved", f"{saved.saved} steps ({percent(saved.share)} of all){time}"),
        ]
        if self.price_per_hour is not None:
            spent, kept = (self._price(s) for s in (saved.spent_seconds, saved.seconds or 0.0))
            price = f"{spent:.2f} spent, {kept:.2f} saved, at {self.price_per_hour:g} an hour"
            rows.append(("cost", price))
        if self.best_value is not None:
            rows.append(("best", f"{number(self.best_value)} (trial {self.best_trial})"))
        return "\n".join((self.study, *(f"  {name:7}{text}" for name, text in rows)))

    def to_dict(self) -> dict[str, Any]:
        """All numbers in plain types."""
        return asdict(self)

    def _price(self, seconds: float) -> float:
        return seconds / 3600.0 * (self.price_per_hour or 0.0)


def summary(
    study: Study, *, price_per_hour: float | None = None, ledger: Setting = None
) -> Summary:
    """Sum up what pruning saved, in steps, in time and in money.

    Saved is what the pruned trials would have trained on to their ends: as on record in the ledger,
    or without one as long as completed trials were. Time is at each trial's own pace; of trials
    that ran at once it adds up.

    Args:
        study: The study.
        price_per_hour: What an hour of one trial's training costs, in any currency.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.LearningCurvePruner`; by default beside the study.

    Raises:
        InputError: If the study has several objectives.
        ValueError: If the price is negative.

    Example:
        >>> import optuna
        >>> from optuna_lcpruner import summary
        >>> study = optuna.create_study()
        >>> study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=3)
        >>> summary(study).savings.n_ended
        3
    """
    if price_per_hour is not None:
        price_per_hour = real("price_per_hour", price_per_hour, 0.0, float("inf"))
    try:
        trials, rows = on_record(study, ledger)
    except LedgerError:
        return replace(_so_far(study), price_per_hour=price_per_hour)
    return replace(_so_far(study, trials, rows or None), price_per_hour=price_per_hour)


def _so_far(
    study: Study,
    trials: Sequence[FrozenTrial] | None = None,
    rows: Sequence[Row] | None = None,
) -> Summary:
    single_objective(study)
    trials = study.get_trials(deepcopy=False) if trials is None else trials
    maximize = study.direction == StudyDirection.MAXIMIZE
    ended = [
        (trial.value if maximize else -trial.value, -trial.number)
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.value is not None and is_feasible(trial)
    ]
    best = -max(ended)[1] if ended else None
    return Summary(
        study.study_name,
        dict(sorted(Counter(trial.state.name for trial in trials).items())),
        savings_of(trials, maximize, rows),
        best,
        None if best is None else trials[best].value,
    )


class SavingsCallback:
    """Show while a search goes on what pruning has saved so far.

    A callback of ``study.optimize``: after a trial it writes one line, ``31 of 48 pruned, 52 % of
    the steps saved, about 4 min; best 0.108``, or shows it behind a bar of tqdm. It needs no
    ledger.

    Args:
        bar: A bar of tqdm, moved on by one a trial; by default lines on the standard output.
        every: Seconds between two lines; 0 for one a trial. A bar moves with each trial.

    Raises:
        ValueError: If ``every`` is negative.

    Example:
        >>> import optuna
        >>> from optuna_lcpruner import SavingsCallback
        >>> study = optuna.create_study()
        >>> def objective(trial):
        ...     return trial.suggest_int("x", 2, 2)
        >>> study.optimize(objective, n_trials=1, callbacks=[SavingsCallback()])
        0 of 1 pruned, 0 % of the steps saved; best 2
    """

    def __init__(self, bar: Any = None, every: float = 10.0) -> None:
        self._bar = bar
        self._every = real("every", every, 0.0, float("inf"))
        self._last = -float("inf")

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Show it, unless it was shown a moment ago."""
        if self._bar is not None:
            self._bar.update()
        if time.monotonic() - self._last < self._every:
            return
        line = _so_far(study).line
        if self._bar is not None:
            self._bar.set_postfix_str(line)
        else:
            from tqdm import tqdm  # type: ignore[import-untyped]  # Optuna brings it

            tqdm.write(line)  # above a bar, if there is one
        self._last = time.monotonic()
