"""Progress on a terminal: the steps done, their rate, and the time left.

Rule: nothing is written to a pipe or a file.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

__all__ = ["Progress"]

# Minimum seconds between two updates.
INTERVAL = 0.1

ERASE = "\r\x1b[K"


class Progress:
    """A line on standard error that is updated in place.

    Args:
        seconds: the total duration; 0 if unknown.
    """

    def __init__(self, what: str, seconds: float = 0.0) -> None:
        self._what = what
        self._total = 0
        self._seconds = seconds
        self._done = 0
        self._begin = self._shown = time.monotonic()
        self._lock = threading.Lock()
        self.shows = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.erase()

    def expect(self, total: int) -> None:
        """Set the total number of steps."""
        self._total = total

    def step(self, note: str = "") -> None:
        """Count a finished step, and update the line if it is due."""
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if self.shows and now - self._shown >= INTERVAL:
                self._shown = now
                sys.stderr.write(ERASE + self.line(now - self._begin, note))
                sys.stderr.flush()

    def erase(self) -> None:
        """Erase the line, to make room for other output."""
        if self.shows:
            sys.stderr.write(ERASE)
            sys.stderr.flush()

    def line(self, seconds: float, note: str = "") -> str:
        """Return the line's text after *seconds*."""
        rate = self._done / seconds if seconds > 0 else 0.0
        total = f" of {self._total:,}" if self._total else ""
        parts = [f"{self._what}: {self._done:,}{total} steps", f"{rate:,.0f}/s"]
        left = self._left(seconds, rate)
        if left is not None:
            parts.append(f"{int(left) // 60}:{int(left) % 60:02d} left")
        return ", ".join([*parts, *filter(None, [note])])

    def _left(self, seconds: float, rate: float) -> float | None:
        if self._seconds:
            return max(0.0, self._seconds - seconds)
        if self._total and rate:
            return max(0.0, (self._total - self._done) / rate)
        return None
