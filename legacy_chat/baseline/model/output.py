"""Output of the commands: standard output, or a file that is replaced when complete."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from compat.console import STDOUT, writing
from compat.replacing import SHARED, replacing

__all__ = ["opened", "print_lines", "standard_output"]


@contextmanager
def opened(path: Path, mode: int = SHARED) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes text to *path*, as UTF-8; ``-`` is standard output.

    A new file gets the *mode*. OSError: it cannot be written, or the output is closed.
    """
    if str(path) == "-":
        stream = standard_output()
        yield lambda text: _write(stream, text)
    else:
        with replacing(str(path), mode) as write:
            yield write


def print_lines(lines: Iterable[str]) -> None:
    """Print to standard output, if it is open."""
    for line in lines:
        if sys.stdout is not None:
            _write(sys.stdout, f"{line}\n")


def standard_output() -> TextIO:
    """Return standard output, set to UTF-8; raise OSError if it is closed."""
    if sys.stdout is None:
        raise OSError(f"{STDOUT} is closed")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf8", newline="\n")
    return sys.stdout


def _write(stream: TextIO, text: str) -> None:
    with writing(STDOUT):
        stream.write(text)
