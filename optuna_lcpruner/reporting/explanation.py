"""Why a trial was pruned, or why it was not: the ledger's decisions about it, in words."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from optuna.study import Study, StudyDirection
from optuna.trial import TrialState

from optuna_lcpruner._util.dataframes import dataframe
from optuna_lcpruner._util.formatting import (
    LEFT_BEHIND,
    count,
    format_beside,
    format_distinct,
    number,
    p_is,
    probability,
    table,
    wrapped,
)
from optuna_lcpruner._util.validation import InputError, finite_or_none, loaded
from optuna_lcpruner.decision.decision import OURS, Reason
from optuna_lcpruner.records.ledger import COLUMNS, LedgerEntry, LedgerError, open_ledger
from optuna_lcpruner.records.ledger_writer import flush
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.reporting.decisions import ran_without
from optuna_lcpruner.study.feasibility import is_feasible

_HEADER = (
    "step",
    "reports",
    "value",
    "forecast",
    "90 % interval",
    "P(beat)",
    "threshold",
    "best",
    "of trial",
    "decision",
)


@dataclass(frozen=True, repr=False)
class Explanation:
    """The story of a trial's decisions; ``print`` shows it, and a notebook.

    Attributes:
        study: The study's name.
        trial: The trial's number.
        state: What became of the trial.
        value: Its objective value, None without one.
        maximize: The study's direction.
        decisions: The decisions about it, in the order they were made.
        ledger: Where they were looked for: a database URL without its password.
        n_reports: Reports that the trial made.
        feasible: Whether it keeps the study's constraints, as far as they are known.
    """

    study: str
    trial: int
    state: TrialState
    value: float | None
    maximize: bool
    decisions: tuple[LedgerEntry, ...]
    ledger: str | None = None
    n_reports: int = 0
    feasible: bool = True

    @property
    def summary(self) -> str:
        """What became of the trial, and why, in one sentence."""
        if not self.decisions:
            return f"{self._fate()}; no decision about it is on record{self._where()}."
        stop = _last_stop(self.decisions)
        if stop is not None:
            pruned = self.state == TrialState.PRUNED
            fate = f"Trial {self.trial}" if pruned else f"{self._fate()}, though it"
            return f"{fate} was {'pruned' if pruned else 'to stop'} at step {stop.step}" + (
                f"{_why_pruned(stop)}."
            )
        pruned = self.state == TrialState.PRUNED  # by the objective itself, say
        verb = "the decisions on record let it run" if pruned else "not pruned"
        return f"{self._fate()}; {_why_not(self.decisions, verb)}."

    @property
    def sources(self) -> list[str]:
        """What each source said at the look that stopped the trial, or came closest; and remarks.

        The chance to beat the best by the curve model, by similar trials, by base rate and, early
        in a study, by ranks. Empty where nothing of it is on record.
        """
        look = _last_stop(self.decisions) or min(_judged(self.decisions), key=_margin, default=None)
        if look is None or not look.details:
            return []
        return [f"At step {look.step}: {look.details[0]}.", *(f"{d}." for d in look.details[1:])]

    def table(self, max_rows: int | None = None) -> str:
        """The decisions as a table; a run of looks without a forecast is one line.

        Args:
            max_rows: Lines to show, from the start and the end; by default all.
        """
        rows = [
            line
            for (_, judged), run in groupby(
                self.decisions, key=lambda entry: (entry.reason, entry.p_beat is not None)
            )
            for line in ([_row([one]) for one in run] if judged else [_row(list(run))])
        ]
        if max_rows is None or len(rows) <= max_rows:
            return table(_HEADER, rows, left=(9,))
        end = max_rows // 2
        shown = table(_HEADER, [*rows[: max_rows - end], *rows[len(rows) - end :]], left=(9,))
        lines = shown.splitlines()
        lines.insert(1 + max_rows - end, f"... {len(rows) - max_rows} more ...")
        return "\n".join(lines)

    def __str__(self) -> str:
        parts = ["\n".join(map(wrapped, (self.summary, *self.sources)))]
        if self.decisions:
            parts.append(self.table(max_rows=40))
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return f"Explanation({self.study!r}, {len(self.decisions)} decisions: {self.summary})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def to_dataframe(self) -> Any:
        """The decisions as a ``pandas.DataFrame``, a row each, all that is on record of it.

        Raises:
            InputError: If pandas is not installed.
        """
        return dataframe(
            [{name: getattr(entry, name) for name in COLUMNS} for entry in self.decisions]
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain types, as ``--json`` prints it; times in ISO 8601."""
        return {
            "study": self.study,
            "trial": self.trial,
            "state": self.state.name,
            "value": finite_or_none(self.value),
            "feasible": self.feasible,
            "direction": "maximize" if self.maximize else "minimize",
            "summary": self.summary,
            "ledger": self.ledger,
            "n_reports": self.n_reports,
            "decisions": [
                {name: _plain(getattr(entry, name)) for name in COLUMNS} for entry in self.decisions
            ],
        }

    def _fate(self) -> str:
        elsewhere = ", but by no decision on record" if self.decisions else ""
        ends = {
            TrialState.COMPLETE: "ran to its end",
            TrialState.PRUNED: f"was pruned{elsewhere}",
            TrialState.FAIL: "failed",
            TrialState.RUNNING: "is running",
            TrialState.WAITING: "has not begun",
        }
        with_value = self.value is not None and self.state == TrialState.COMPLETE
        value = f" with {number(float(self.value or 0.0))}" if with_value else ""
        but = " (infeasible)" if self.state == TrialState.COMPLETE and not self.feasible else ""
        return f"Trial {self.trial} {ends[self.state]}{value}{but}"

    def _where(self) -> str:
        """Where no decision was found, and what may be the matter if there should be some."""
        if self.ledger is None:
            return ""
        expected = self.state.is_finished() and self.n_reports > 0
        return f" in {self.ledger}" + (f" ({LEFT_BEHIND})" if expected else "")


def explain(study: Study, trial_number: int, *, ledger: Setting = None) -> Explanation:
    """Why a trial was pruned, or why it was not.

    Args:
        study: The study.
        trial_number: The trial's number.
        ledger: Where the decisions are, as for
            :class:`~optuna_lcpruner.LearningCurvePruner`; by default beside the study.

    Returns:
        The decisions about the trial with a summary; ``print`` shows both.

    Raises:
        InputError: If the study has no such trial.
        LedgerError: If there is no ledger or it cannot be read.
    """
    loaded(study)
    trials = study.get_trials(deepcopy=False)
    number = -1 if isinstance(trial_number, bool) else operator.index(trial_number)
    if not 0 <= number < len(trials):
        raise InputError(
            f"study {study.study_name!r} has no trial {trial_number}: "
            f"it has {len(trials)}, counted from 0."
        )
    trial = trials[number]
    flush()
    without = ran_without(study.study_name, trials)
    try:
        book = open_ledger(ledger, study)
        found = book.of_trial(study.study_name, number, trial.datetime_start)
    except LedgerError as error:
        raise LedgerError(f"{error}{without}") from error
    single = len(study.directions) == 1
    return Explanation(
        study.study_name,
        number,
        trial.state,
        trial.value if single else None,
        single and study.direction == StudyDirection.MAXIMIZE,
        tuple(found),
        book.shown,
        len(trial.intermediate_values),
        is_feasible(trial),
    )


def _last_stop(decisions: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """The last decision that would stop the trial, and that no other pruner overruled."""
    overruled = {entry.step for entry in decisions if entry.reason == Reason.OVERRULED.name}
    stops = (e for e in reversed(decisions) if e.action == "prune" and e.step not in overruled)
    return next(stops, None)


def _why_pruned(stop: LedgerEntry) -> str:
    by = f" by {stop.decided_by}" if stop.decided_by else ""
    if stop.reason == Reason.OTHER_PRUNER.name:
        return f"{by} ({OURS}: {stop.words})"
    if stop.reason != Reason.BELOW_THRESHOLD.name or stop.p_beat is None or stop.threshold is None:
        return f"{by}, look {stop.look}: {stop.words.removeprefix(f'{_phrase(stop.reason)}: ')}"
    p, threshold = format_distinct(stop.p_beat, stop.threshold, probability)
    return (
        f"{by}, look {stop.look}: its chance to beat the best, {p_is(p)}, was below the threshold "
        f"{threshold}; {_outlook(stop)}"
    )


def _why_not(decisions: Sequence[LedgerEntry], verb: str) -> str:
    judged = _judged(decisions)
    if judged:
        why = _why_not_judged(judged, verb)
    else:
        counts = Counter(entry.reason for entry in decisions).most_common()
        reasons = ", ".join(f"{_phrase(name)} ({n})" for name, n in counts)
        why = f"{verb}: no decision about it came to a forecast: {reasons}"
    failed = [entry for entry in decisions if entry.reason == Reason.FAILED.name]
    if failed and judged:
        why += f"; {count(len(failed), 'time')} deciding failed ({failed[-1].words})"
    return why


def _judged(decisions: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    return [e for e in decisions if e.p_beat is not None and e.threshold is not None]


def _why_not_judged(judged: Sequence[LedgerEntry], verb: str) -> str:
    if all(entry.threshold == 0.0 for entry in judged):
        return f"{verb}: the threshold is 0, nothing is pruned by forecast"
    below = [entry for entry in judged if _margin(entry) < 1.0]
    closest = min(judged, key=_margin)
    numbers = (
        f"at step {closest.step} with {p_is(probability(closest.p_beat or 0.0))} "
        f"against {probability(closest.threshold or 0.0)}"
    )
    looks = count(len(judged), "look")
    if not below:
        return (
            f"{verb}: at {looks} its chance to beat the best was never below the threshold, "
            f"closest {numbers}; there {_outlook(closest)}"
        )
    reasons = ", ".join(dict.fromkeys(_phrase(entry.reason) for entry in below))
    return (
        f"{verb}: its chance to beat the best was below the threshold at {len(below)} of "
        f"{looks}, lowest {numbers}, but it was spared: {reasons}"
    )


def _margin(entry: LedgerEntry) -> float:
    """P(beat) in units of the threshold; below 1 the rule stops the trial."""
    p, threshold = entry.p_beat or 0.0, entry.threshold or 0.0
    return p / threshold if threshold > 0.0 else float("inf")


def _outlook(entry: LedgerEntry) -> str:
    if entry.q50 is None or entry.q05 is None or entry.q95 is None or entry.incumbent is None:
        return "no forecast is on record"
    of = "" if entry.incumbent_trial is None else f" of trial {entry.incumbent_trial}"
    shown = format_beside(entry.q50, entry.q05, entry.q95, entry.incumbent)
    return (
        f"the forecast was {shown(entry.q50)} [{shown(entry.q05)}, {shown(entry.q95)}] against "
        f"the best, {shown(entry.incumbent)}{of}"
    )


def _phrase(reason: str) -> str:
    """The words of a reason; its name where another version of this package wrote it."""
    return Reason[reason].value if reason in Reason.__members__ else reason


def _row(run: Sequence[LedgerEntry]) -> list[str]:
    first, last = run[0], run[-1]
    step = "" if first.step is None else str(first.step)
    if first.step is not None and last.step not in (None, first.step):
        step += f"-{last.step}"
    of = "" if last.horizon is None else f"/{last.horizon}"
    shown = format_beside(last.value, last.q50, last.q05, last.q95, last.incumbent)
    interval = (
        "" if last.q05 is None or last.q95 is None else f"[{shown(last.q05)}, {shown(last.q95)}]"
    )
    return [
        step,
        f"{last.n_points}{of}",
        _shown(last.value, shown),
        _shown(last.q50, shown),
        interval,
        _shown(last.p_beat, probability),
        _shown(last.threshold, probability),
        _shown(last.incumbent, shown),
        "" if last.incumbent is None or last.incumbent_trial is None else str(last.incumbent_trial),
        _phrase(last.reason),
    ]


def _shown(value: float | None, words: Any) -> str:
    return "" if value is None else str(words(value))


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
