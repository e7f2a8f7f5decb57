"""Lines for standard output and the log, which nobody may be reading.

Rule 1: the room does not wait for who does not read. A pipe that is full, a terminal
that was stopped with Ctrl-S: it gets a moment to catch up, once; what does not go in
then is dropped.
Rule 2: the room fails with no reader. Closed, a disk without room, an encoding without
Chinese: likewise.
"""

from __future__ import annotations

import select
from typing import TextIO

from compat.streams import settle

__all__ = ["PATIENCE", "settle", "write_line"]

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
    for begin in range(0, len(text), PIECE):
        if not _takes_more(stream, patience):
            raise BlockingIOError("nobody reads it, and it is full")
        stream.write(text[begin : begin + PIECE])
        stream.flush()


def _takes_more(stream: TextIO, patience: float) -> bool:
    try:
        fd = stream.fileno()
        if not 0 <= fd < SELECT_LIMIT:
            return True
        return bool(select.select((), (fd,), (), patience)[1])
    except (AttributeError, OSError, ValueError):
        # No file, or closed: writing will not wait, and will tell.
        return True
