"""A real browser, headless: Debian's Chromium, driven with playwright.

Rule 1: the reason of a skipped test names the missing program.
Rule 2: a page that writes to the console, raises an error or requests any other URL
fails its test.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["chromium", "missing", "opened", "visit"]

NAMES = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """Return a message about the missing program, or ""."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install '.[browser]'"
    if _path() is None:
        return f"no browser: none of {', '.join(NAMES)} is in the PATH"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Containers have no sandbox; the pages are our own.
        browser = playwright.chromium.launch(
            executable_path=_path(), args=["--no-sandbox"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, **options: Any) -> Iterator[Any]:
    """Open a window for files; raise an error if a page broke rule 2."""
    options.setdefault("viewport", {"width": 1440, "height": 900})
    faults: list[str] = []
    context = browser.new_context(**options)
    try:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: _note(request, faults))
        yield page
        assert faults == []
    finally:
        context.close()


def visit(page: Any, file: Path) -> Any:
    """Open a file in a window; return the window when the page is ready."""
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-state=ready]", state="attached")
    return page


def _note(request: Any, faults: list[str]) -> None:
    if not request.is_navigation_request():
        faults.append(f"the page requested {request.url}")


def _path() -> str | None:
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in found if path), None)
