"""The standard streams and the end of a command.

Rule 1: a failure outside the program is one line on standard error, never a traceback.
The line quotes arguments, file names and errors of the system, and cannot control a
terminal.
Rule 2: a full pipe, or a terminal stopped with Ctrl-S, delays an error message by at
most PATIENCE seconds. The message is then dropped.
Rule 3: a standard stream that is closed, full or without a reader does not change the
exit status of a command that does not need it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from compat.characters import one_line
from compat.nonblocking import PATIENCE, is_writable, write_some

__all__ = [
    "PATIENCE",
    "STDOUT",
    "CommandError",
    "complain",
    "discard",
    "escape_unencodable",
    "flush_or_discard",
    "is_coloured",
    "reason",
    "reserve_standard_descriptors",
    "run_command",
    "write_line",
    "writing",
]

# The name of standard output in error messages.
STDOUT = "standard output"


class CommandError(Exception):
    """A command cannot be performed; the message is for the user."""


def run_command(program: str, command: Callable[[], int], failed: int = 1) -> int:
    """Run *command*; return the exit status that it returns, or *failed*.

    A CommandError or an OSError is reported in one line. A reader of standard output
    that has closed it is not reported. Ctrl-C is a normal end: the status is 0.
    """
    reserve_standard_descriptors()
    escape_unencodable(sys.stdout)
    try:
        status = command()
        if sys.stdout is not None:
            with writing(STDOUT):
                sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 0
    except (CommandError, OSError) as error:
        if isinstance(error, BrokenPipeError) and error.filename in (None, STDOUT):
            discard(sys.stdout)
        else:
            complain(f"{program}: {reason(error)}")
        return failed
    finally:
        flush_or_discard()


def reason(error: Exception) -> str:
    """Return the message of an error; for an OSError, its file's name and its text."""
    if not isinstance(error, OSError):
        return str(error)
    name = f"{error.filename}: " if error.filename is not None else ""
    return f"{name}{error.strerror or error}"


def complain(*lines: str) -> None:
    """Write lines to standard error, escaped, or drop them after PATIENCE seconds."""
    # AttributeError: there is no standard error. A failure cannot be reported.
    with suppress(AttributeError, OSError, ValueError):
        for line in lines:
            write_line(sys.stderr, one_line(line), PATIENCE)


def write_line(stream: TextIO, line: str, patience: float = 0.0) -> None:
    """Write *line* and a newline, if *stream* accepts them within *patience* seconds.

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
    raise BlockingIOError("the stream is full, and its reader has stopped")


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


def reserve_standard_descriptors() -> None:
    """Keep sockets and files from getting the number of a closed standard stream.

    Otherwise a library's output to standard error would go into that file.
    """
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def flush_or_discard() -> None:
    """Flush standard output and error before exit; discard data that cannot be written.

    Python flushes both streams again at exit, and reports a failure.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            discard(stream)


def discard(stream: TextIO) -> None:
    """Discard the stream's buffer and all later output."""
    if not stream.closed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def escape_unencodable(stream: Any) -> None:
    """Escape characters that *stream* cannot encode: a terminal may lack Chinese."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def is_coloured(stream: TextIO) -> bool:
    """Return whether *stream* is a terminal and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


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
