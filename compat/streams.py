"""What the command lines ask of standard output, and of other streams."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["escape_the_rest", "is_coloured", "throw_away", "writing"]


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
