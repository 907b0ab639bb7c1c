"""Outputs that README and pages quote are what the examples print today."""

from __future__ import annotations

import re

import pytest
import quotes
from quotes import assert_same

pytest.importorskip("sklearn")

QUOTED = [
    (path.name, name, block)
    for path in quotes.PAGES
    for name, _, block in quotes.BLOCK.findall(path.read_text(encoding="utf-8"))
]


@pytest.mark.slow
def test_quotes_are_what_is_printed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("pages"))
    blocks, trial = quotes.examples(tmp_path_factory.mktemp("quickstart"))
    assert {name for _, name, _ in QUOTED} == set(blocks) | set(quotes.benchmarks())
    for page, name, block in QUOTED:
        assert block.strip(), page
        if name in blocks:
            assert_same(block, blocks[name])
    named = {n for path in quotes.PAGES for n in quotes.TRIAL.findall(path.read_text("utf-8"))}
    assert named == {trial}


def test_benchmarks_are_quoted_as_printed() -> None:
    blocks = quotes.benchmarks()
    quoted = [(name, block.strip()) for _, name, block in QUOTED if name in blocks]
    assert len(quoted) >= 2
    assert quoted == [(name, blocks[name]) for name, _ in quoted]


def test_every_output_below_code_is_printed_by_the_command() -> None:
    """A text block that follows a Python block, and every line that begins as a reason does."""
    for path in quotes.PAGES:
        text = quotes.BLOCK.sub("", path.read_text(encoding="utf-8"))
        assert not re.search(r"^```\n\n```text\n", text, re.M), path.name
        assert not re.search(r"^ *(trial \d+ )?pruned: P = \d", text, re.M), path.name


@pytest.mark.parametrize(
    ("quoted", "printed", "same"),
    [
        ("best 0.1126 in 45 s\n", "best  0.1127 in 9 s", True),
        ("trial 22 pruned", "trial 28 pruned", False),
        ("P = 0.012", "P = 0.019", False),
        ("base rate 0.1", "early ranks 0.1", False),
    ],
)
def test_what_counts_as_the_same(quoted: str, printed: str, same: bool) -> None:
    if same:
        assert_same(quoted, printed)
    else:
        with pytest.raises(AssertionError):
            assert_same(quoted, printed)
