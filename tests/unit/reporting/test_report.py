"""A report as text, as a page and as JSON."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from histories import History, filled, judged
from optuna.trial import TrialState

from optuna_lcpruner import Reason


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
        printed = str(filled(tmp_path).report())
        text = " ".join(printed.split())
        assert max(map(len, printed.splitlines())) <= 100
        for words in (
            "Study 's', maximize: 10 trials (4 complete, 1 fail, 4 pruned, 1 running), "
            "16 decisions",
            "Control group: 3 that would have been pruned ran on, 2 to their end.",
            "1 of 2 beat the best value at that time: estimated 50 % of the prunes would have, "
            "95 % interval [1.26 %, 98.7 %].",
            "117 reports were made; training every pruned trial to its horizon would have taken "
            "52 more (30.8 % of 169).",
            "At each trial's own pace, once it had started up, that is 7.02 min, "
            "beside 3.02 min spent.",
            "Shares are weighted: a member of the control group stands for 3 trials.",
        ):
            assert words in text
        assert "75-100 %" in text
        assert printed.splitlines()[2] == "Saved"

    def test_scores_are_explained(self, tmp_path: Path) -> None:
        """Without a control group the last-value rule is no fair opponent; with one it is."""
        words = "That is no fair comparison"
        assert words not in str(filled(tmp_path).report())
        history = History(tmp_path, "minimize")
        history.trial(judged(1, Reason.UNDECIDED, 0.3), value=0.915)
        stop = judged(3, Reason.BELOW_THRESHOLD, 0.01)
        history.trial(stop, n=4, state=TrialState.PRUNED)
        text = " ".join(str(history.report()).split())
        assert words in text
        assert "It is the mean of -ln(the probability that was given to what happened)" in text
        assert "Of the final values about 50 % and 90 % should lie within these intervals." in text

    def test_in_a_notebook_and_in_one_line(self, tmp_path: Path) -> None:
        found = filled(tmp_path).report()
        assert repr(found) == (
            "Report('s', 16 decisions: 4 of 9 pruned, 30.8 % of the steps saved, about 7.02 min)"
        )
        assert "<h1>Study &#x27;s&#x27;, maximize: 10 trials" in found._repr_html_()
        assert found._repr_html_() in found.to_html()

    def test_figures_of_the_page(self, tmp_path: Path) -> None:
        page = filled(tmp_path).report().to_html(figures=["<svg>one</svg>", "<svg>two</svg>"])
        assert page.index("<figure><svg>one</svg></figure>") < page.index("<svg>two</svg>")

    def test_tables_of_pandas(self, tmp_path: Path) -> None:
        found = filled(tmp_path).report()
        assert found.to_dataframe("closest")["trial"].tolist() == [3, 2, 4]
        assert found.to_dataframe()["n_looks"].sum() == 6
        with pytest.raises(ValueError, match="of must be one of"):
            found.to_dataframe("steps")

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
