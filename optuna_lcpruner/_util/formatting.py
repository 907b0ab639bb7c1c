"""How numbers read in messages, tables and reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from textwrap import fill

LEFT_BEHIND = "a copied study or a moved database leaves its ledger behind"
"""What may be the matter where no decision is on record."""


def probability(p: float) -> str:
    """A probability: three decimals; how small a small one is nobody can know."""
    return f"{p:.3f}" if p >= LEAST else f"< {LEAST}"


LEAST = 0.001  # heuristic
"""Probabilities below this are told from each other only beside a threshold as small."""


def format_distinct(
    p: float, threshold: float, words: Callable[[float], str] = "{:.3g}".format
) -> tuple[str, str]:
    """A probability and the larger threshold, with as many digits as show which is larger.

    Args:
        p: The probability.
        threshold: The threshold.
        words: How it reads where these digits are enough.
    """
    if p < LEAST <= threshold:
        return probability(p), words(threshold)
    usual = probability(p), words(threshold)
    if p >= LEAST and float(usual[0]) < float(usual[1]):
        return usual
    for digits in range(1 if p < LEAST else 4, 18):
        usual = f"{p:.{digits}g}", f"{threshold:.{digits}g}"
        if float(usual[0]) < float(usual[1]):
            break
    return usual


def p_is(text: str) -> str:
    """``P = 0.010``, or ``P < 0.001`` of a probability in words."""
    return f"P {text}" if text.startswith("<") else f"P = {text}"


_MOST_DIGITS = 15  # a float has no more


def number(x: float) -> str:
    """A metric value, to four digits."""
    return f"{x:.4g}"


def format_beside(*values: float | None) -> Callable[[float], str]:
    """What formats values of a metric that stand beside each other, so that one sees them differ.

    Four digits, or as many as give the largest difference three; ``None`` does not count.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    spread = max(known, default=0.0) - min(known, default=0.0)
    if not 0.0 < spread < math.inf:
        return number
    largest = max(map(abs, known))
    digits = 3 + math.floor(math.log10(largest)) - math.floor(math.log10(spread))
    return f"{{:.{min(max(digits, 4), _MOST_DIGITS)}g}}".format


def percent(share: float) -> str:
    """A share: ``52 %``, with three digits at most."""
    return f"{100 * share:.3g} %"


def duration(seconds: float) -> str:
    """A time, in the largest unit that leaves some of it: ``16.1 min``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def wrapped(text: str) -> str:
    """A text in lines of at most 100 columns; no word is broken."""
    return fill(text, 100, break_long_words=False, break_on_hyphens=False)


def count(n: int, one: str, many: str | None = None) -> str:
    """A number of things: ``1 trial``, ``2 trials``, ``2 studies``."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Columns under their headings, set right but for those in `left`; no trailing blanks."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
