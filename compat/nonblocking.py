"""Write to a pipe, a terminal or a socket that may have no reader, without waiting.

Rule 1: the blocking mode of a file stays as it is: other processes may share it.
Rule 2: a regular file is written as the system takes it. No system call writes to a
disk without waiting for that disk.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from compat.files import file_behind

__all__ = ["PATIENCE", "is_writable", "write_some"]

# Seconds in which a reader that is merely behind catches up.
PATIENCE = 0.1

# Bytes of one write where the system cannot be told not to wait: a pipe that is ready
# takes PIPE_BUF.
PIECE = getattr(select, "PIPE_BUF", 512)

# select() takes no descriptor above this.
SELECT_LIMIT = 1024

# Tells pwritev() not to wait, for a write alone. 0 where the system has no such flag.
_NOWAIT = getattr(os, "RWF_NOWAIT", 0) if hasattr(os, "pwritev") else 0

# What pwritev() raises for a file that cannot be written like that: a terminal, or a
# pipe on an older system.
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ESPIPE)

Write: TypeAlias = Callable[[memoryview], int]


def write_some(fd: int, data: bytes | memoryview, patience: float = 0.0) -> int:
    """Write as much of *data* as the file takes; return the number of bytes.

    Args:
        patience: seconds that may pass without a byte being taken.

    Raises:
        OSError: the file cannot be written.
    """
    view, mode = memoryview(data), os.fstat(fd).st_mode
    if _NOWAIT and not stat.S_ISREG(mode):
        try:
            return _write_while_taken(fd, view, patience, partial(_write_nowait, fd))
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    with _writer(fd, mode) as write:
        return _write_while_taken(fd, view, patience, write)


def is_writable(fd: int, patience: float = 0.0) -> bool:
    """Return whether the file takes a byte within *patience* seconds.

    True where the system cannot tell.
    """
    if not 0 <= fd < SELECT_LIMIT:
        return True
    try:
        return bool(select.select((), (fd,), (), patience)[1])
    except (OSError, ValueError):
        # Closed, or no file that select() knows: the write says which.
        return True


def _write_while_taken(fd: int, view: memoryview, patience: float, write: Write) -> int:
    done = 0
    end = time.monotonic() + patience
    while done < len(view):
        try:
            done += write(view[done:])
            end = time.monotonic() + patience
        except BlockingIOError:
            left = end - time.monotonic()
            if left <= 0 or not is_writable(fd, left):
                break
    return done


def _write_nowait(fd: int, view: memoryview) -> int:
    # -1 is the file's own position.
    return os.pwritev(fd, (view,), -1, _NOWAIT)


@contextmanager
def _writer(fd: int, mode: int) -> Iterator[Write]:
    """A function that writes to the file, or raises BlockingIOError."""
    own = _opened_again(fd, mode)
    if own is not None:
        try:
            yield partial(os.write, own)
        finally:
            os.close(own)
    elif stat.S_ISREG(mode) or not os.get_blocking(fd):
        yield partial(os.write, fd)
    else:
        yield partial(_write_if_ready, fd)


def _opened_again(fd: int, mode: int) -> int | None:
    """A non-blocking descriptor for the same pipe or terminal; None if there is none.

    A terminal may be ready and take fewer bytes than one write has; a pipe, when
    another writer comes first. Only O_NONBLOCK keeps such a write from waiting.
    """
    try:
        if stat.S_ISFIFO(mode):
            path = f"/dev/fd/{fd}"
        elif os.isatty(fd):
            path = os.ttyname(fd)
        else:
            return None
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        own = os.open(path, flags)
    except OSError:
        # Another user's, without a name here, or a pipe without a reader.
        return None
    # Where /dev/fd duplicates descriptors, the mode is the shared one.
    if file_behind(own) == file_behind(fd) and not os.get_blocking(own):
        return own
    os.close(own)
    return None


def _write_if_ready(fd: int, view: memoryview) -> int:
    if not is_writable(fd):
        raise BlockingIOError("the file takes nothing at the moment")
    return os.write(fd, view[:PIECE])
