"""What the command lines ask of standard output, and of other streams."""

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

# The numbers of standard input, output and error.
STANDARD = range(3)


def reserve_standard_descriptors() -> None:
    """Let no socket and no file get the number of a closed standard stream.

    Whatever a library writes to standard error would go there.
    """
    fd = os.open(os.devnull, os.O_RDWR)
    while fd in STANDARD:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def complain(*lines: str) -> None:
    """Write lines to standard error, if that can be written."""
    if sys.stderr is not None:
        # There is nowhere else to tell of a failure.
        with suppress(OSError, ValueError):
            print(*lines, sep="\n", file=sys.stderr, flush=True)


def settle() -> None:
    """Before the end: what still cannot be written is to be no failure at exit.

    Python flushes both streams once more, and says so if that fails.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            throw_away(stream)


def escape_the_rest(stream: Any) -> None:
    """What it cannot encode is escapes from now on: a terminal without Chinese."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def is_coloured(stream: TextIO) -> bool:
    """Is it a terminal, whose user has not set NO_COLOR?"""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def throw_away(stream: TextIO) -> None:
    """Let what is left in the stream's buffer go nowhere: nobody reads any more.

    Python flushes it once more at exit, and says so if that fails.
    """
    if not stream.closed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Let what goes wrong in here have the file's name.

    The system names a file that cannot be opened, and none that cannot be written.
    """
    try:
        yield
    except OSError as error:
        error.filename = path
        raise
