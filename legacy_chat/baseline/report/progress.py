"""Progress on a terminal: the steps done, their rate, and the time left.

Rule: nothing is written to a pipe or a file.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Self

__all__ = ["Progress"]

# Minimum seconds between two updates.
INTERVAL = 0.1

ERASE = "\r\x1b[K"


class Progress:
    """A line on standard error that is updated in place.

    Args:
        seconds: the total duration; 0 if unknown.

    Attributes:
        total: the number of steps; 0 if unknown.
    """

    def __init__(self, what: str, seconds: float = 0.0) -> None:
        self.total = 0
        self.shows = sys.stderr is not None and sys.stderr.isatty()
        self._what = what
        self._seconds = seconds
        self._done = 0
        self._begin = self._shown = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.erase()

    def step(self) -> None:
        """Count a finished step, and update the line if it is due; thread-safe."""
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if self.shows and now - self._shown >= INTERVAL:
                self._shown = now
                self._write(self.line(now - self._begin))

    def erase(self) -> None:
        """Erase the line, to make room for other output."""
        if self.shows:
            self._write("")

    def line(self, seconds: float) -> str:
        """Return the line's text after *seconds*."""
        rate = self._done / seconds if seconds > 0 else 0.0
        total = f" of {self.total:,}" if self.total else ""
        text = f"{self._what}: {self._done:,}{total} steps, {rate:,.0f}/s"
        if self._seconds:
            left = max(0.0, self._seconds - seconds)
        elif self.total and rate:
            left = max(0.0, (self.total - self._done) / rate)
        else:
            return text
        return f"{text}, {int(left) // 60}:{int(left) % 60:02d} left"

    def _write(self, text: str) -> None:
        sys.stderr.write(ERASE + text)
        sys.stderr.flush()
