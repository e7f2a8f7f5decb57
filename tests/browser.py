"""A real browser, headless: Debian's Chromium, driven with playwright.

Rule 1: what is missing is named, in the reason why a test is skipped.
Rule 2: a page that writes to the console, fails or asks for anything but itself, has
failed.
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
    """What is not there, or ""."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install '.[browser]'"
    if _path() is None:
        return f"no browser: none of {', '.join(NAMES)} is in the PATH"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without windows."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # In a container there is no sandbox to be had; the pages are our own.
        browser = playwright.chromium.launch(
            executable_path=_path(), args=["--no-sandbox"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, **options: Any) -> Iterator[Any]:
    """A window to visit files in; what they should not have done is an error."""
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
    """Open a file in a window, and wait until it is ready; return the window."""
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-state=ready]", state="attached")
    return page


def _note(request: Any, faults: list[str]) -> None:
    if not request.is_navigation_request():
        faults.append(f"it asked for {request.url}")


def _path() -> str | None:
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in found if path), None)
