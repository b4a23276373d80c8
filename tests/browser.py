"""A headless Chromium for pages from the disk: what a reader sees, and what a page asks for."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("there is no Chromium; Debian's package is called chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Any, path: Path, fragment: str = "", **options: Any) -> Iterator[Any]:
    """A page from the disk, without a network, once its plots are there.

    Fails at the end if it wrote an error to the console, or asked for anything but itself.
    """
    context = browser.new_context(offline=True, **{"viewport": DESKTOP, **options})
    page, wrong = context.new_page(), []
    page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    address = path.as_uri() + fragment
    page.goto(address)
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    yield page
    assert wrong == []
    assert {each.partition("#")[0] for each in asked} <= {path.as_uri(), "data:,"}
    context.close()


def until(page: Any, condition: str, seconds: float = 30) -> None:
    """Waits for a condition in JavaScript, which the page's own policy lets only us evaluate.

    Raises:
        TimeoutError: it does not come true.
    """
    ends = time.monotonic() + seconds
    while not page.evaluate(condition):
        if time.monotonic() > ends:
            raise TimeoutError(condition)
        page.wait_for_timeout(20)


def wide(page: Any) -> bool:
    """Whether a reader has to scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
