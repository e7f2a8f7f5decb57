"""Lines for standard output and the log, which nobody may be reading.

Rule 1: the room does not wait for who does not read. A pipe that is full, a terminal
that was stopped with Ctrl-S: it gets a moment to catch up, once; what does not go in
then is dropped.
Rule 2: the room fails with no reader. Closed, a disk without room, an encoding without
Chinese: likewise.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from compat.nonblocking import PATIENCE, is_writable, write_some
from compat.streams import settle
from legacy_chat.escapes import one_line

__all__ = ["PATIENCE", "complain", "settle", "write_line"]


def write_line(stream: TextIO, line: str, patience: float = 0.0) -> None:
    """Write *line* and its end, if *stream* takes it within *patience* seconds.

    A stream that does not read costs the room *patience* only once, if the caller
    passes none until something has been written.

    Raises:
        BlockingIOError: it does not. The line may have been cut.
        OSError: and ValueError: it cannot be written.
    """
    fd = _descriptor(stream)
    if fd is None:
        stream.write(f"{line}\n")
        stream.flush()
        return
    data = f"{line}\n".encode(stream.encoding or "utf-8", stream.errors or "strict")
    if is_writable(fd, patience):
        # What the program has written before.
        stream.flush()
        if write_some(fd, data, patience) == len(data):
            return
    raise BlockingIOError("nobody reads it, and it is full")


def complain(program: str, message: str) -> None:
    """Write ``program: message`` to standard error, or lose it; it never blocks."""
    with suppress(AttributeError, OSError, ValueError):
        write_line(sys.stderr, f"{program}: {one_line(message)}", PATIENCE)


def _descriptor(stream: TextIO) -> int | None:
    """None if it has none, or if text is more than its bytes there."""
    if sys.platform == "win32":
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        # No file, or closed: then writing says so.
        return None
