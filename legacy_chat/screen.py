"""Standard output of ``legacy-chat connect``, written by a thread.

Rule 1: ``write`` never blocks. A full pipe or a stopped terminal blocks the thread
only; the loop still handles signals.
Rule 2: the thread writes to the descriptor, not to the stream. A thread that is blocked
in a stream holds its lock, and Python aborts at exit if it cannot acquire it.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import TextIO

__all__ = ["Screen"]

# Unwritten bytes at which the screen counts as full.
FULL = 65536

# Maximum bytes of one write.
LARGEST_WRITE = 65536


class Screen:
    """A queue of bytes, and the thread that writes it to a stream.

    Args:
        stream: a terminal, a pipe or a file.
        changed: called in the thread when a full screen has room again, and after a
            failure.

    Attributes:
        failure: the error that ended the thread; None before.
    """

    failure: OSError | None = None

    def __init__(self, stream: TextIO, changed: Callable[[], object]) -> None:
        self._stream = stream
        self._changed = changed
        self._queue = bytearray()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def is_full(self) -> bool:
        """Whether callers should wait for the reader before they write more."""
        return len(self._queue) >= FULL

    def write(self, data: bytes) -> None:
        """Queue *data*, even if the screen is full."""
        with self._condition:
            self._queue += data
            self._condition.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, daemon=True)
            self._thread.start()

    def flush(self, timeout: float | None) -> None:
        """Wait until everything is written, or *timeout* seconds (None: no limit)."""
        with self._condition:
            self._condition.wait_for(lambda: self.failure or not self._queue, timeout)

    def _write_all(self) -> None:
        try:
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._queue)
                    piece = bytes(self._queue[:LARGEST_WRITE])
                written = self._write_some(piece)
                with self._condition:
                    was_full = self.is_full
                    del self._queue[:written]
                    self._condition.notify_all()
                if was_full and not self.is_full:
                    self._changed()
        except OSError as error:
            with self._condition:
                self.failure = error
                self._condition.notify_all()
            self._changed()

    def _write_some(self, piece: bytes) -> int:
        fd = self._stream.fileno()
        try:
            return os.write(fd, piece)
        except BlockingIOError:
            # Another process has made the stream non-blocking.
            select.select((), (fd,), ())
            return 0
