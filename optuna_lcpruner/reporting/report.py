"""What a report says and how it reads: as text, as plain types, as an HTML page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from optuna_lcpruner._util.dataframes import dataframe
from optuna_lcpruner._util.formatting import (
    LEFT_BEHIND,
    count,
    duration,
    format_beside,
    number,
    percent,
    probability,
    table,
    wrapped,
)
from optuna_lcpruner._util.validation import choice
from optuna_lcpruner.decision.decision import Reason
from optuna_lcpruner.reporting.savings import Savings
from optuna_lcpruner.reporting.scoring import Accuracy, LogScores, PruningCost, Reliability


@dataclass(frozen=True)
class Call:
    """A prune by forecast.

    Attributes:
        trial: The trial's number.
        step: The step it was stopped at.
        p_beat: Its chance to beat the best there.
        threshold: What that was compared with.
        forecast: Median of its forecast final value.
        low: 5 % quantile.
        high: 95 % quantile.
        incumbent: The best value at that time.
    """

    trial: int
    step: int
    p_beat: float
    threshold: float
    forecast: float | None
    low: float | None
    high: float | None
    incumbent: float


@dataclass(frozen=True)
class SecondChance:
    """A trial that runs again, unpruned, what was pruned before.

    Attributes:
        first: The number of the pruned trial.
        trial: Its own number.
        state: What became of it.
        value: Its objective value; None if it has not ended.
        incumbent: The best value when the first was pruned.
        beat: Whether it is feasible and ``value`` better than that; None if it has not ended.
        feasible: Whether it keeps the study's constraints, as far as they are known.
    """

    first: int
    trial: int
    state: str
    value: float | None
    incumbent: float
    beat: bool | None
    feasible: bool = True


@dataclass(frozen=True)
class _Section:
    title: str
    lines: tuple[str, ...]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, repr=False)
class Report:
    """What the ledger says of a study, in hindsight; ``print`` shows it, and a notebook.

    Attributes:
        study: The study's name.
        maximize: Its direction.
        states: Number of trials by state.
        n_infeasible: Completed trials that are infeasible.
        n_decisions: Decisions on record.
        n_careful: Of these, those whose threshold was lowered since the rule would have stopped
            the best trial.
        reasons: Number of decisions by reason.
        milliseconds: Median time that a decision took; None without any.
        accuracy: Error and coverage of the forecasts by the fraction seen.
        reliability: P(beat) against what happened.
        log_scores: P(beat) against the last-value rule.
        n_pruned: Trials that were pruned by forecast.
        n_control: Trials of the control group that would have been.
        cost: What pruning by forecast cost and saved, by the control group.
        savings: What was not trained.
        closest: Prunes with the highest P(beat).
        second_chances: Pruned trials that :func:`~optuna_lcpruner.requeue` or
            :class:`~optuna_lcpruner.ResumeCallback` gave one.
        ledger: Where the decisions were looked for: a database URL without its password.
        n_without: Finished trials that reported, but have no decision on record.
    """

    study: str
    maximize: bool
    states: Mapping[str, int]
    n_infeasible: int
    n_decisions: int
    n_careful: int
    reasons: Mapping[str, int]
    milliseconds: float | None
    accuracy: Sequence[Accuracy]
    reliability: Sequence[Reliability]
    log_scores: LogScores | None
    n_pruned: int
    n_control: int
    cost: PruningCost
    savings: Savings
    closest: Sequence[Call]
    second_chances: Sequence[SecondChance]
    ledger: str
    n_without: int

    def __str__(self) -> str:
        blocks = [wrapped(self._title)]
        for section in self._sections():
            lines = [wrapped(line) for line in section.lines]
            block = [section.title, "-" * len(section.title), *lines]
            if section.rows:
                block += ["", table(section.header, section.rows)]
            blocks.append("\n".join(block))
        return "\n\n".join(blocks)

    def __repr__(self) -> str:
        return f"Report({self.study!r}, {self.n_decisions} decisions: {self.savings})"

    def _repr_html_(self) -> str:
        return self._body()

    def to_dict(self) -> dict[str, Any]:
        """All numbers in plain types, as ``--json`` prints them."""
        return asdict(self)

    def to_dataframe(self, of: str = "reliability") -> Any:
        """One of the report's tables as a ``pandas.DataFrame``.

        Args:
            of: ``"reliability"``, ``"accuracy"``, ``"closest"`` or ``"second_chances"``.

        Raises:
            ValueError: If there is no such table.
            InputError: If pandas is not installed.
        """
        name = choice("of", of, ("reliability", "accuracy", "closest", "second_chances"))
        return dataframe([asdict(row) for row in getattr(self, name)])

    def to_html(self, figures: Sequence[str] = ()) -> str:
        """The report as one HTML page that needs nothing else.

        Args:
            figures: Figures that it ends with, each an SVG as text:
                :func:`optuna_lcpruner.visualization.matplotlib.svg_figures` draws them.
        """
        body = "\n".join([self._body(), *(f"<figure>{figure}</figure>" for figure in figures)])
        return _PAGE.format(title=escape(self._title), body=body)

    def _body(self) -> str:
        body = [f"<h1>{escape(self._title)}</h1>"]
        for section in self._sections():
            body.append(f"<h2>{escape(section.title)}</h2>")
            body += [f"<p>{escape(line)}</p>" for line in section.lines]
            if section.rows:
                rows = [_html_row("th", section.header)]
                rows += [_html_row("td", row) for row in section.rows]
                body.append("<table>\n" + "\n".join(rows) + "\n</table>")
        return "\n".join(body)

    @property
    def _title(self) -> str:
        direction = "maximize" if self.maximize else "minimize"
        but = f", {self.n_infeasible} of them infeasible" if self.n_infeasible else ""
        states = ", ".join(
            f"{n} {state.lower()}{but if state == 'COMPLETE' else ''}"
            for state, n in self.states.items()
        )
        return (
            f"Study {self.study!r}, {direction}: {sum(self.states.values())} trials ({states}), "
            f"{self.n_decisions} decisions"
        )

    def _sections(self) -> list[_Section]:
        return [
            _savings(self),
            _decisions(self),
            _cost(self),
            _accuracy(self),
            _reliability(self),
            _closest(self),
            *([_chances(self)] if self.second_chances else []),
        ]


def _decisions(found: Report) -> _Section:
    took = "" if found.milliseconds is None else f", {found.milliseconds:.1f} ms in the median"
    rows = tuple(
        (Reason[name].value if name in Reason.__members__ else name, str(n))
        for name, n in found.reasons.items()
    )
    lines = [f"{found.n_decisions} on record{took}."]
    if found.n_careful:
        lines.append(
            f"Self-check: {found.n_careful} were made with a lowered threshold, since the rule "
            "would have stopped the best trial so far."
        )
    if found.n_without:
        trials = count(found.n_without, "finished trial")
        lines.append(f"None about {trials} that reported, in {found.ledger} ({LEFT_BEHIND}).")
    return _Section("Decisions", tuple(lines), ("reason", "n"), rows)


def _cost(found: Report) -> _Section:
    cost, title = found.cost, "What pruning cost"
    pruned = f"{found.n_pruned} trials were pruned by forecast"
    if cost.expected is not None:
        pruned += f"; by the forecasts {percent(cost.expected)} of them would have beaten the best"
    if found.n_control == 0:
        return _Section(
            title,
            (
                f"{pruned}.",
                "Whether that is right is unknown, since no trial of a control group would have "
                "been pruned: LearningCurvePruner(control_fraction=0.05) keeps one.",
            ),
        )
    lines = [
        f"{pruned}.",
        f"Control group: {found.n_control} that would have been pruned ran on, {cost.n_ended} to "
        "their end.",
    ]
    if cost.share is not None:
        low, high = cost.share_interval
        lines.append(
            f"{cost.n_beat} of {cost.n_ended} beat the best value at that time: estimated "
            f"{percent(cost.share)} of the prunes would have, 95 % interval "
            f"[{percent(low)}, {percent(high)}]."
        )
    if cost.steps_saved is not None:
        interval = (
            "too few for an interval"
            if cost.steps_interval is None
            else f"95 % interval [{cost.steps_interval[0]:.0f}, {cost.steps_interval[1]:.0f}]"
        )
        lines.append(f"Estimated {cost.steps_saved:.0f} reports saved by the prunes, {interval}.")
    lines.append("Members that failed or still run are left out.")
    return _Section(title, tuple(lines))


def _weighting(found: Report) -> str:
    if found.cost.n_ended:
        return (
            "Shares are weighted: a member of the control group stands for "
            f"{(found.n_pruned + found.n_control) / found.cost.n_ended:.3g} trials."
        )
    return "Without a control group they are of the trials that were not pruned: the better ones."


def _accuracy(found: Report) -> _Section:
    title = "Forecasts against the ends of completed trials"
    if not found.accuracy:
        return _Section(title, ("No trial with a forecast has completed.",))
    rows = tuple(
        (
            f"{100 * row.low:.0f}-{100 * row.high:.0f} %",
            str(row.n_looks),
            str(row.n_trials),
            number(row.median_error),
            number(row.last_value_error),
            percent(row.in_half),
            percent(row.in_ninety),
        )
        for row in found.accuracy
    )
    header = (
        "seen",
        "looks",
        "trials",
        "error of the median",
        "of the last value",
        "in 50 % interval",
        "in 90 % interval",
    )
    lines = [
        "Errors are medians over looks, in units of the metric: how far the forecast's median, and "
        "the newest report itself, were from the final value.",
        "Of the final values about 50 % and 90 % should lie within these intervals.",
        _weighting(found),
    ]
    return _Section(title, tuple(lines), header, rows)


def _reliability(found: Report) -> _Section:
    title = "Does P(beat best) happen as often as it says?"
    if found.log_scores is None:
        return _Section(title, ("No trial with a forecast has completed.",))
    scores = found.log_scores
    rows = tuple(
        (
            f"{row.low:g}-{row.high:g}",
            str(row.n_looks),
            str(row.n_trials),
            probability(row.p_beat),
            probability(row.beat) if row.beat > 0.0 else "0",
        )
        for row in found.reliability
    )
    error = scores.standard_error
    apart = f"{scores.forecast - scores.last_value:+.3f}"
    lines = [
        "Each line: of the looks with such a P(beat) the mean, and the share of their trials that "
        "did beat the best; right forecasts make the two alike.",
        _weighting(found),
        f"Log score: {scores.forecast:.3f} over {scores.n_looks} looks at "
        f"{count(scores.n_trials, 'trial')}. It is the mean of -ln(the probability that was given "
        "to what happened): the smaller the better, 0.693 for always saying 1/2.",
        f"Last-value rule: {scores.last_value:.3f}. It forecasts the newest report, give or take "
        "what the trials completed by then had still gained from that part of a training on. The "
        f"difference is {apart}" + ("." if error is None else f" +- {error:.3f} (standard error)."),
    ]
    if not found.cost.n_ended and found.n_pruned:
        lines.append(
            "That is no fair comparison: the pruned trials, of which P(beat) was low, are missing, "
            "and the last-value rule is not held to what it would have said of them. A control "
            "group, control_fraction=0.05, puts them back."
        )
    if found.n_infeasible:
        lines.append("An infeasible trial beats nothing; P(beat) is about the value alone.")
    header = ("P(beat)", "looks", "trials", "mean P", "share that beat the best")
    return _Section(title, tuple(lines), header, rows)


def _savings(found: Report) -> _Section:
    savings = found.savings
    whole = savings.trained + savings.saved
    share = f" ({percent(savings.share)} of {whole})" if whole else ""
    lines = [
        f"{savings.trained} reports were made; training every pruned trial to its horizon would "
        f"have taken {savings.saved} more{share}."
    ]
    if savings.seconds is not None:
        lines.append(
            f"At each trial's own pace, once it had started up, that is "
            f"{duration(savings.seconds)}, beside {duration(savings.spent_seconds)} spent."
        )
    return _Section("Saved", tuple(lines))


def _closest(found: Report) -> _Section:
    if not found.closest:
        return _Section("Closest calls", ("No trial was pruned by forecast.",))
    shown = [format_beside(c.forecast, c.low, c.high, c.incumbent) for c in found.closest]
    rows = tuple(
        (
            str(call.trial),
            str(call.step),
            probability(call.p_beat),
            probability(call.threshold),
            "" if call.forecast is None else words(call.forecast),
            ""
            if call.low is None or call.high is None
            else f"[{words(call.low)}, {words(call.high)}]",
            words(call.incumbent),
        )
        for call, words in zip(found.closest, shown, strict=True)
    )
    header = ("trial", "step", "P(beat)", "threshold", "forecast", "90 % interval", "best")
    return _Section(
        "Closest calls", ("Prunes with the highest chance to beat the best.",), header, rows
    )


def _chances(found: Report) -> _Section:
    rows = tuple(
        (
            str(chance.first),
            str(chance.trial),
            chance.state.lower(),
            "" if chance.value is None else number(chance.value),
            number(chance.incumbent),
            _beat(chance),
        )
        for chance in found.second_chances
    )
    header = ("pruned", "again", "state", "value", "best when pruned", "beat it")
    return _Section("Second chances", ("Pruned trials that ran again or went on.",), header, rows)


def _beat(chance: SecondChance) -> str:
    if chance.beat is None:
        return ""
    if not chance.feasible:
        return "no, infeasible"
    return "yes" if chance.beat else "no"


def _html_row(cell: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(value)}</{cell}>" for value in values) + "</tr>"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.3rem; }}
h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
p {{ margin: 0.3rem 0; }}
figure {{ margin: 2rem 0; }}
svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; margin-top: 0.8rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #ccc; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
