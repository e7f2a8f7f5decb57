"""Measure the page's speed in a real browser: python -m tests.trace_page [EVENTS]

Loads the page of a busy room, 100,000 events by default, and prints the times of
loading, steps, scrolling, zoom and filters. A time runs from the input to the next
frame on the screen; the script's own share stands beside it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compat.trace.render.html import page
from tests.browser import chromium, missing, opened, visit
from tests.compat.trace.synthetic import large

TIMES = 60

# Measured actions: a name, and the script of the n-th repetition.
KEYS = """(n) => {
    const options = { key: "%s", shiftKey: %s, bubbles: true };
    document.body.dispatchEvent(new KeyboardEvent("keydown", options));
}"""
WHEEL = """(n) => {
    const line = document.querySelector("#time");
    const { left, width } = line.getBoundingClientRect();
    const where = { clientX: left + (n * 97 %% 100) / 100 * width, clientY: 0 };
    const turned = { deltaY: %s, ctrlKey: true, cancelable: true };
    line.dispatchEvent(new WheelEvent("wheel", { ...where, ...turned }));
}"""
SCROLL = """(n) => { document.querySelector("#events").scrollTop = %s; }"""
CHANGE = """(n) => {
    const field = document.querySelector("#%s");
    field.value = %s;
    field.dispatchEvent(new Event("%s"));
}"""
ACTIONS = {
    "step to the next call": KEYS % ("ArrowRight", "false"),
    "step to the next event": KEYS % ("ArrowDown", "false"),
    "step to the next turn": KEYS % ("ArrowRight", "true"),
    "to the end, to the beginning": """(n) =>
        document.querySelector(n % 2 ? "#first" : "#last").click()""",
    "zoom in and out": """(n) => document.querySelector(
        n % 40 < 20 ? "#zoom-in" : "#zoom-out").click()""",
    "zoom with the wheel": WHEEL % "n % 40 < 20 ? -100 : 100",
    "step to the next turn, zoomed in": """(n) => {
        const zoomed = document.querySelector("#part").textContent.includes(" of ");
        if (!zoomed) document.querySelector("#zoom-turn").click();
        document.querySelector("#turn-on").click();
    }""",
    "zoom, waits not shrunk": """(n) => {
        if (n === 0) document.querySelector("#by").click();
        document.querySelector(n % 40 < 20 ? "#zoom-in" : "#zoom-out").click();
    }""",
    "scroll by a page": SCROLL % "n * 400",
    "scroll to anywhere": SCROLL % "(n * 7919 % 60) * 43000",
    "filter by a channel": CHANGE % ("channel", "String(n % 50)", "change"),
    "find a text": CHANGE % ("text", '"message " + n', "input"),
}

# The state before each action: no filter, no zoom, the first event selected.
RESET = """() => {
    const initial = [["channel", "0", "change"], ["text", "", "input"]];
    for (const [id, value, kind] of initial) {
        const field = document.getElementById(id);
        field.value = value;
        field.dispatchEvent(new Event(kind));
    }
    document.getElementById("zoom-all").click();
    document.getElementById("first").click();
}"""

# Milliseconds of the script, and until the second frame, when the first is painted.
MEASURE = """async ([act, n]) => {
    const begin = performance.now();
    %s(n);
    const done = performance.now();
    await new Promise((frame) => requestAnimationFrame(() => setTimeout(frame)));
    return [done - begin, performance.now() - begin];
}"""


def main(events: int) -> None:
    """Measure all actions, and print a table."""
    trace = large(events)
    turns, reader = trace.read()
    begin = time.perf_counter()
    text = page(turns, reader)
    made = time.perf_counter() - begin
    size = len(text.encode())
    print(f"{len(trace.lines):,} events, {len(turns):,} turns: {size / 1e6:.1f} MB,")
    print(f"made in {made:.2f} s, {size / len(trace.lines):.0f} bytes an event")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.html"
        path.write_text(text, encoding="utf-8")
        with chromium() as browser, opened(browser) as window:
            _measure(window, path)


def _measure(window: Any, path: Path) -> None:
    loads = [_load(window, path) for _ in range(5)]
    print(f"load until everything is shown: {statistics.median(loads):.0f} ms")
    print(f"{'milliseconds':32}  script: median  longest  on screen: median  longest")
    for name, act in ACTIONS.items():
        window.evaluate(RESET)
        times = [window.evaluate(MEASURE % f"({act})", [0, n]) for n in range(TIMES)]
        script, screen = zip(*times, strict=True)
        figures = [*_summary(script), *_summary(screen)]
        print("{:32}  {:14.1f}  {:7.1f}  {:17.1f}  {:7.1f}".format(name, *figures))
    count = window.evaluate("document.querySelectorAll('*').length")
    print(f"{count} elements in the page")


def _load(window: Any, path: Path) -> float:
    visit(window, path)
    # The script runs before the browser reports the page as loaded.
    return float(
        window.evaluate("performance.getEntriesByType('navigation')[0].duration")
    )


def _summary(times: tuple[float, ...]) -> tuple[float, float]:
    return statistics.median(times), max(times)


if __name__ == "__main__":
    if missing():
        sys.exit(missing())
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
