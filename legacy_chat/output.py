"""Lines for standard output and the log, which nobody may be reading.

Rule 1: the room does not wait for who does not read. A pipe that is full, a terminal
that was stopped with Ctrl-S: it gets a moment to catch up, once; what does not go in
then is dropped.
Rule 2: the room fails with no reader. Closed, a disk without room, an encoding without
Chinese: likewise.
Rule 3: a terminal is written through a non-blocking descriptor of our own. select()
reports a terminal as writable although a line does not fit; O_NONBLOCK on the stream's
own descriptor would reach every process of that terminal.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from compat.streams import settle
from legacy_chat.escapes import one_line

__all__ = ["PATIENCE", "complain", "settle", "write_line"]

# Seconds for a reader that is merely behind. One that does not read costs the room so
# much only once, if whoever writes waits no more before something has gone in.
PATIENCE = 0.1

# Characters that are written at a time. A pipe that is ready takes so many bytes, and a
# character has four at most.
PIECE = getattr(select, "PIPE_BUF", 512) // 4

# select() takes no descriptor above this.
SELECT_LIMIT = 1024


def write_line(stream: TextIO, line: str, patience: float = 0.0) -> None:
    """Write *line* and its end, if *stream* takes it within *patience* seconds.

    Raises:
        BlockingIOError: it does not. The line may have been cut.
        OSError: and ValueError: it cannot be written.
    """
    text = line + "\n"
    with _terminal_of(stream) as terminal:
        if terminal is not None:
            _write_to_terminal(terminal, _encoded(text, stream), stream, patience)
            return
    for begin in range(0, len(text), PIECE):
        _wait_for_room(stream, patience)
        stream.write(text[begin : begin + PIECE])
        stream.flush()


def complain(program: str, message: str) -> None:
    """Write ``program: message`` to standard error, or lose it; it never blocks."""
    with suppress(AttributeError, OSError, ValueError):
        write_line(sys.stderr, f"{program}: {one_line(message)}", PATIENCE)


@contextmanager
def _terminal_of(stream: TextIO) -> Iterator[int | None]:
    """Open the stream's terminal once more; None if it is none, or does not open."""
    try:
        fd = stream.fileno()
        flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK
        terminal = os.open(os.ttyname(fd), flags) if os.isatty(fd) else None
    except (AttributeError, OSError, ValueError):
        terminal = None
    try:
        yield terminal
    finally:
        if terminal is not None:
            os.close(terminal)


def _encoded(text: str, stream: TextIO) -> bytes:
    return text.encode(stream.encoding or "utf-8", stream.errors or "strict")


def _write_to_terminal(
    terminal: int, data: bytes, stream: TextIO, patience: float
) -> None:
    # What was printed before.
    stream.flush()
    while data:
        _wait_for_room(stream, patience)
        data = data[os.write(terminal, data) :]


def _wait_for_room(stream: TextIO, patience: float) -> None:
    if not _takes_more(stream, patience):
        raise BlockingIOError("nobody reads it, and it is full")


def _takes_more(stream: TextIO, patience: float) -> bool:
    try:
        fd = stream.fileno()
        if not 0 <= fd < SELECT_LIMIT:
            return True
        return bool(select.select((), (fd,), (), patience)[1])
    except (AttributeError, OSError, ValueError):
        # No file, or closed: writing will not wait, and will tell.
        return True
