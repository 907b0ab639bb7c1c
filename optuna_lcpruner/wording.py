"""How numbers read in messages, tables and reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence

LEFT_BEHIND = "a copied study or a moved database leaves its ledger behind"
"""What may be the matter where no decision is on record."""


def probability(p: float) -> str:
    """A probability: three decimals, small ones in powers of ten."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def told_apart(
    p: float, threshold: float, words: Callable[[float], str] = "{:.3g}".format
) -> tuple[str, str]:
    """A probability and the larger threshold, with as many digits as show which is larger.

    Args:
        p: The probability.
        threshold: The threshold.
        words: How it reads where these digits are enough.
    """
    shown, digits = (probability(p), words(threshold)), 3
    while not float(shown[0]) < float(shown[1]) and digits < 17:
        digits += 1
        shown = f"{p:.{digits}g}", f"{threshold:.{digits}g}"
    return shown


def number(x: float) -> str:
    """A metric value, to four digits."""
    return f"{x:.4g}"


def count(n: int, one: str, many: str | None = None) -> str:
    """A number of things: ``1 trial``, ``2 trials``, ``2 studies``."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Columns under their headings, set right but for those in `left`; no trailing blanks.

    Args:
        header: The headings.
        rows: A row's cells, as many as there are headings.
        left: Indices of columns of words.
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
