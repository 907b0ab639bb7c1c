"""A real optuna-dashboard, and a real Chromium to look at it with; for tests and screenshots."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")

SECONDS = 60.0
"""How long a page may take; a busy machine is slow."""


class MissingError(Exception):
    """There is no browser here; says which part of one."""


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(storage: Any, artifact_store: Any = None) -> Iterator[str]:
    """The address of optuna-dashboard, up to and with ``/dashboard``."""
    import optuna_dashboard

    app = optuna_dashboard.wsgi(storage, artifact_store=artifact_store)
    server = make_server("127.0.0.1", 0, app, handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dashboard"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)


@contextmanager
def chromium(width: int, height: int) -> Iterator[Any]:
    """An empty page of a window of this many pixels.

    Raises:
        MissingError: If playwright or Chromium are not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise MissingError("no playwright") from error
    found = next((path for path in CHROMIUM if Path(path).exists()), None)
    if found is None:
        raise MissingError("no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * SECONDS)
        yield page
        browser.close()


class TrialTable:
    """The table of all trials; a page that the menu calls Smart Selection, once Trials (Table)."""

    def __init__(self, page: Any) -> None:
        page.locator('a[href$="/smartSelection"], a[href$="/trialTable"]').first.click()
        self._page = page
        self.header("Number").wait_for()

    def header(self, name: str) -> Any:
        """The header cell of a column."""
        # What follows is said to screen readers alone: which way a click would sort.
        exactly = re.compile(rf"^{re.escape(name)}(sorted (a|de)scending)?$")
        return self._page.locator("th").filter(has_text=exactly)

    def click(self, name: str) -> None:
        """Sort by a column, or the other way."""
        self.header(name).get_by_role("button").click()
        self._page.wait_for_timeout(500)

    def column(self, name: str) -> list[str]:
        """A column's cells from top to bottom, as they are shown."""
        place = self.header(name).evaluate("cell => cell.cellIndex")
        cells = f"tbody tr td:nth-child({place + 1})"
        table = self._page.locator("table").filter(has=self.header(name))
        shown: list[str] = table.locator(cells).all_inner_texts()
        return shown
