"""Standard output and other streams, for the command lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = [
    "complain",
    "escape_the_rest",
    "is_coloured",
    "reserve_standard_descriptors",
    "settle",
    "throw_away",
    "writing",
]

# The descriptors of standard input, output and error.
STANDARD = range(3)


def reserve_standard_descriptors() -> None:
    """Keep sockets and files from getting the number of a closed standard stream.

    Otherwise a library's output to standard error would go into that file.
    """
    fd = os.open(os.devnull, os.O_RDWR)
    while fd in STANDARD:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def complain(*lines: str) -> None:
    """Write lines to standard error, if it is writable."""
    if sys.stderr is not None:
        # A failure cannot be reported anywhere else.
        with suppress(OSError, ValueError):
            print(*lines, sep="\n", file=sys.stderr, flush=True)


def settle() -> None:
    """Flush standard output and error before exit; discard data that cannot be written.

    Python flushes both streams again at exit, and reports a failure.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            throw_away(stream)


def escape_the_rest(stream: Any) -> None:
    """Escape characters that *stream* cannot encode: a terminal may lack Chinese."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def is_coloured(stream: TextIO) -> bool:
    """Return whether *stream* is a terminal and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def throw_away(stream: TextIO) -> None:
    """Discard the stream's buffer, because its reader is gone.

    Python flushes the stream again at exit, and reports a failure.
    """
    if not stream.closed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Context manager: add the file's name to an OSError.

    The system names a file that cannot be opened, but not one that cannot be written.
    """
    try:
        yield
    except OSError as error:
        error.filename = path
        raise
