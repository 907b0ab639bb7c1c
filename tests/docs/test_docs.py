"""The documentation: the site builds without a warning, links lead somewhere, examples are true."""

from __future__ import annotations

import html
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from browser import MissingError, chromium
from helpers import environment

import optuna_lcpruner

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", str(DOCS), str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    return folder


class Page(HTMLParser):
    """What a page links to, what can be linked to, and what it shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.entries: set[str] = set()
        self._skipped = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = {key: value or "" for key, value in attrs}
        if "id" in of:
            self.anchors.add(of["id"])
        if tag == "dt" and "id" in of:
            self.entries.add(of["id"])
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        if tag in ("img", "script", "iframe", "source") and "src" in of:
            self.loads.append(of["src"])
        if tag == "link" and of.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(of["href"])


@cache
def page(path: Path) -> Page:
    return Page(path)


def html_of(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def test_every_page_is_built_and_in_a_table_of_contents(site: Path) -> None:
    menu = {urlsplit(link).path for link in page(site / "index.html").links}
    for name in PAGES:
        assert (site / f"{name}.html").is_file()
        if name != "index":
            assert f"{name}.html" in menu


def test_links_inside_the_site_lead_somewhere(site: Path) -> None:
    n = 0
    for path in html_of(site):
        for link in page(path).links:
            address = urlsplit(link)
            if address.scheme:
                continue
            n += 1
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert target.is_file(), f"{path.name}: {link}"
            assert target.is_relative_to(site.resolve())
            if address.fragment and target.suffix == ".html":
                assert unquote(address.fragment) in page(target).anchors, f"{path.name}: {link}"
    assert n > 500


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Neither formulas nor fonts nor styles: pages can be read without a network."""
    for path in html_of(site):
        assert page(path).loads
        for address in page(path).loads:
            if address.startswith("data:"):
                continue
            assert not urlsplit(address).netloc, f"{path.name}: {address}"
            assert (path.parent / urlsplit(address).path).is_file(), f"{path.name}: {address}"


def external_links() -> set[str]:
    """Addresses outside this repository, in the pages and the README."""
    texts = [path.read_text(encoding="utf-8") for path in (*DOCS.glob("*.md"), ROOT / "README.md")]
    return {link for text in texts for link in re.findall(r"\]\((\w+:[^)\s]*)\)", text)}


def test_external_links_are_well_formed() -> None:
    """Whether they are there is not looked up: tests need no network."""
    assert external_links()
    for link in external_links():
        address = urlsplit(link)
        assert address.scheme == "https", link
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", address.netloc), link


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    words = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def test_links_work_on_github_too() -> None:
    """Files and headings that the pages and the README link to, as they lie in the repository."""
    n = 0
    for path in (*DOCS.glob("*.md"), ROOT / "README.md"):
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s:]+)\)", text):
            address = urlsplit(link)
            target = path.parent / address.path if address.path else path
            assert target.exists(), f"{path.name}: {link}"
            n += 1
            if address.fragment:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
                assert address.fragment in map(slug, headings), f"{path.name}: {link}"
    assert n > 60


def test_pages_read_well_on_github() -> None:
    """No directives or roles of MyST but those that show nothing a reader there would miss."""
    allowed = {"index": {"{toctree}"}, "api": {"{eval-rst}"}}
    for name in PAGES:
        used = {language for language, _ in blocks(name) if language.startswith("{")}
        assert used - {"{literalinclude}"} == allowed.get(name, set()), name
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        assert not re.search(r"\{[\w:-]+\}`|^:::|^\(\w+\)=$", text, re.M), name
        assert not text.startswith("---"), name


def test_what_is_included_is_linked_as_well() -> None:
    """The printed files of the benchmarks: GitHub shows nothing where the site includes them."""
    printed = {path.name for path in (DOCS / "benchmarks").glob("*.txt")}
    linked, included = set(), set()
    for name in PAGES:
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        here = set(re.findall(r"\]\(benchmarks/(\w+\.txt)\)", text))
        shown = re.findall(r"^```\{literalinclude\} benchmarks/(\w+\.txt)\n```$", text, re.M)
        assert len(shown) == text.count("{literalinclude}"), name
        assert set(shown) <= here, name
        linked |= here
        included |= set(shown)
    assert included
    assert linked == printed


def test_what_is_included_is_shown(site: Path) -> None:
    shown = html.unescape((site / "benchmarks.html").read_text(encoding="utf-8"))
    for name in ("replay_recorded", "speed"):
        printed = (DOCS / "benchmarks" / f"{name}.txt").read_text(encoding="utf-8")
        assert printed.splitlines()[-1] in shown


def test_the_api_page_has_every_public_name(site: Path) -> None:
    entries = page(site / "api.html").entries
    assert {f"optuna_lcpruner.{name}" for name in optuna_lcpruner.__all__} <= entries


OURS = (optuna_lcpruner.LearningCurvePruner, optuna_lcpruner.RemotePruner)


def test_every_setting_of_the_pruners_is_explained(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    for pruner in OURS:
        for name in inspect.signature(pruner).parameters:
            assert f"<strong>{name}</strong>" in text


def test_formulas_are_formulas(site: Path) -> None:
    n = 0
    for path in html_of(site):
        for formula in re.findall(r"<math.*?</math>", path.read_text(encoding="utf-8"), re.S):
            n += 1
            assert "\\" not in formula, f"{path.name}: {formula}"
    assert n > 50


# --- pages as they look ---


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        with chromium(1280, 900) as window:
            yield window
    except MissingError as reason:
        pytest.skip(str(reason))


CUT_OFF = """[...document.querySelectorAll('pre, table, math, img')].filter(it => {
    if (it.getBoundingClientRect().right <= innerWidth) return false;
    for (let box = it; !box.matches('.content, body'); box = box.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
    return true;
}).map(it => it.textContent.slice(0, 60))"""
"""What is wider than the window, and in nothing that scrolls."""

CONTENT = "(it => [it.scrollWidth, it.clientWidth])(document.querySelector('.content'))"
"""The theme would let the whole text scroll sideways."""

BROKEN = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
@pytest.mark.slow
def test_pages_fit_the_window(site: Path, browser: Any, width: int) -> None:
    """No page scrolls sideways; what is too wide scrolls inside it; all pictures are shown."""
    browser.set_viewport_size({"width": width, "height": 900})
    for name in PAGES:
        browser.goto((site / f"{name}.html").as_uri())
        wide, window = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window == width, name
        wide, window = browser.evaluate(CONTENT)
        assert wide <= window, name
        assert browser.evaluate(CUT_OFF) == [], name
        assert browser.evaluate(BROKEN) == [], name


# --- examples are true ---


def blocks(name: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and text."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\S*)\n(.*?)^```$", text, re.M | re.S)


def test_the_korean_quick_start_has_the_same_commands() -> None:
    assert blocks("quickstart_ko") == blocks("quickstart")
    assert len(blocks("quickstart")) >= 6


def test_the_korean_quick_start_has_the_same_structure() -> None:
    """Sections, links and figures in the same order; what it links to exists in English alone."""
    one, other = (
        re.findall(
            r"^(#+) |\]\((?!quickstart(?:_ko)?\.md)([^)]+)\)",
            (DOCS / f"{name}.md").read_text(encoding="utf-8"),
            re.M,
        )
        for name in ("quickstart", "quickstart_ko")
    )
    assert one == other


def test_every_reason_is_explained() -> None:
    """By its first words, in the table of reasons; those that prune in bold."""
    text = (DOCS / "reasons.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (.*?) \|", text.split("## All reasons")[1], re.M)
    bold = {
        name for cell in cells if cell.startswith("**") for name in re.findall(r"`(.*?)`", cell)
    }
    other = {name for cell in cells for name in re.findall(r"`(.*?)`", cell)} - bold
    for reason in optuna_lcpruner.Reason:
        words = reason.value.removesuffix(" another pruner")
        found = {
            name
            for name in bold | other
            if name.split(":" if words == "startup" else "\0")[0] == words
        }
        assert found, reason
        assert (found <= bold) == reason.prunes, reason


def test_settings_named_in_the_pages_exist() -> None:
    settings = {name for pruner in OURS for name in inspect.signature(pruner).parameters}
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    used = set(re.findall(r"`(\w+)=", text)) | set(re.findall(r"`(n_\w+|\w+_\w+)`", text))
    assert len(used) > 12
    assert used <= settings | {"callbacks", "report", "sampler", "set_n_steps"}


def test_all_settings_are_listed_with_their_defaults() -> None:
    _, *tables = (DOCS / "settings.md").read_text(encoding="utf-8").split("## All settings")
    for pruner, text in zip(OURS, tables, strict=True):
        settings = inspect.signature(pruner).parameters
        listed = re.findall(r"^\| `(\w+)` \| `(\S+)` \| \S", text, re.M)
        assert listed == [
            (name, f"{setting.default!r}".replace("'", '"')) for name, setting in settings.items()
        ]
