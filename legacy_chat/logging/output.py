"""Lines for standard output and the log, which may have no reader.

Rule 1: the room does not wait for a reader. A full pipe, or a terminal stopped with
Ctrl-S, gets PATIENCE seconds to catch up, once; the rest of the line is then dropped.
Rule 2: no failure of a stream ends the room: a closed reader, a full disk, an encoding
without Chinese.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from compat.nonblocking import PATIENCE, is_writable, write_some
from compat.streams import settle
from legacy_chat.logging.escapes import one_line

__all__ = ["PATIENCE", "complain", "settle", "write_line"]


def write_line(stream: TextIO, line: str, patience: float = 0.0) -> None:
    """Write *line* and a newline, if *stream* accepts them within *patience* seconds.

    A stream without a reader delays the room only once, if the caller passes 0 after a
    failure until a line has been written.

    Raises:
        BlockingIOError: the stream is full. The line may have been cut.
        OSError: and ValueError: the stream cannot be written.
    """
    fd = _descriptor(stream)
    if fd is None:
        stream.write(f"{line}\n")
        stream.flush()
        return
    data = f"{line}\n".encode(stream.encoding or "utf-8", stream.errors or "strict")
    if is_writable(fd, patience):
        # Earlier output of the program.
        stream.flush()
        if write_some(fd, data, patience) == len(data):
            return
    raise BlockingIOError("nobody reads it, and it is full")


def complain(program: str, message: str) -> None:
    """Write ``program: message`` to standard error, or drop it after PATIENCE s."""
    with suppress(AttributeError, OSError, ValueError):
        write_line(sys.stderr, f"{program}: {one_line(message)}", PATIENCE)


def _descriptor(stream: TextIO) -> int | None:
    """Return the stream's descriptor; None without one, and on Windows.

    A Windows console is written as text, not as bytes.
    """
    if sys.platform == "win32":
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        # Not a file, or closed: the write then raises.
        return None
