"""A report as text, as a page and as JSON."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from histories import filled


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.attributes: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [name for name, _ in attrs]
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.texts.append(data.strip())


class TestShown:
    def test_text(self, tmp_path: Path) -> None:
        text = str(filled(tmp_path).report())
        for line in (
            "Study 's', maximize: 10 trials (4 complete, 1 fail, 4 pruned, 1 running), "
            "16 decisions",
            "Control group: 3 that would have been pruned ran on, 2 to their end.",
            "1 of 2 beat the best value at that time: estimated 50 % of the prunes would have, "
            "95 % interval [1.26 %, 98.7 %].",
            "117 reports were made; training every pruned trial to its horizon would have taken "
            "52 more (30.8 % of 169).",
            "At each trial's own pace that is 7.02 min.",
            "Shares are weighted: a member of the control group stands for 3 trials.",
        ):
            assert line in text.splitlines()
        assert "75-100 %" in text

    def test_html_says_the_same_and_needs_nothing_else(self, tmp_path: Path) -> None:
        odd = '<b>&"it\'s" ü 学</b>'
        found = filled(tmp_path, name=odd).report()
        parser = Texts()
        parser.feed(found.to_html())
        assert parser.open == []
        assert "b" not in parser.tags
        assert set(parser.attributes) == {"lang", "charset"}
        words = [line.strip() for line in str(found).splitlines() if line.strip()]
        shown = " ".join(" ".join(parser.texts).split())
        for line in words:
            if not line.startswith("---"):
                assert " ".join(line.split()) in shown

    def test_dict(self, tmp_path: Path) -> None:
        found = filled(tmp_path).report()
        plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert plain["cost"]["share"] == 0.5
        assert plain["savings"]["saved"] == 52
        assert [row["trial"] for row in plain["closest"]] == [3, 2, 4]
        assert plain["accuracy"][0]["n_looks"] == 3
