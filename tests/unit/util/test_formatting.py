import math

import pytest

from optuna_lcpruner._util.formatting import (
    count,
    format_beside,
    format_distinct,
    number,
    probability,
    table,
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (probability(0.25), "0.250"),
        (probability(0.001), "0.001"),
        (probability(0.00099), "< 0.001"),
        (probability(0.0), "< 0.001"),
        (number(1234.5), "1234"),
        (number(0.000123456), "0.0001235"),
        (count(0, "trial"), "0 trials"),
        (count(1, "trial"), "1 trial"),
        (count(2, "trial"), "2 trials"),
        (count(1, "study", "studies"), "1 study"),
        (count(2, "study", "studies"), "2 studies"),
    ],
)
def test_how_numbers_read(words: str, expected: str) -> None:
    assert words == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.1285, 0.11589, 0.18241, 0.1126), "0.1285 0.1159 0.1824 0.1126"),
        ((6.868, 1.084, 14.24, 0.1494), "6.868 1.084 14.24 0.1494"),
        ((-76270.51, -76271.23, -76269.4, -76270.0), "-76270.51 -76271.23 -76269.4 -76270"),
        ((0.99951, 0.9989812, 0.99987, 0.99948), "0.99951 0.998981 0.99987 0.99948"),
        ((1.0 + 1e-15, 1.0), "1 1"),
        ((1234.5,), "1234"),
        ((1234.5, None, math.inf), "1234 inf"),
        ((-1.5e308, 1.5e308), "-1.5e+308 1.5e+308"),
        ((0.0, 5e-324), "0 4.941e-324"),
    ],
)
def test_values_that_stand_beside_each_other(
    values: tuple[float | None, ...], expected: str
) -> None:
    shown = format_beside(*values)
    assert " ".join(shown(value) for value in values if value is not None) == expected


@pytest.mark.parametrize(
    ("p", "threshold", "shown"),
    [
        (0.01, 0.038, ("0.010", "0.038")),
        (0.0379, 0.038, ("0.0379", "0.038")),
        (0.037999, 0.038001, ("0.037999", "0.038001")),
        (0.0, 0.038, ("< 0.001", "0.038")),
        (0.0, 1e-9, ("0", "1e-09")),
        (2e-7, 2.04e-7, ("2e-07", "2.04e-07")),
    ],
)
def test_the_smaller_of_two_reads_smaller(
    p: float, threshold: float, shown: tuple[str, str]
) -> None:
    assert format_distinct(p, threshold) == shown


def test_a_table_is_set_right_but_for_words() -> None:
    text = table(("n", "what"), [("1", "one"), ("10", "")], left=(1,))
    assert text == " n  what\n 1  one\n10"
