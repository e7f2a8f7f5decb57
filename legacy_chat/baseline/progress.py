"""How far it is, on a terminal: steps done, how fast, how long still.

Rule: into a pipe or a file not a byte is written.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

__all__ = ["Progress"]

# Seconds between two pictures.
INTERVAL = 0.1

ERASE = "\r\x1b[K"


class Progress:
    """A line on standard error that is written anew all the time.

    Args:
        seconds: how long it takes, if that is known.
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
        """So many steps there will be."""
        self._total = total

    def step(self, note: str = "") -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if self.shows and now - self._shown >= INTERVAL:
                self._shown = now
                sys.stderr.write(ERASE + self.line(now - self._begin, note))
                sys.stderr.flush()

    def erase(self) -> None:
        """Make place for a line that stays."""
        if self.shows:
            sys.stderr.write(ERASE)
            sys.stderr.flush()

    def line(self, seconds: float, note: str = "") -> str:
        """What is shown after so many seconds."""
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
