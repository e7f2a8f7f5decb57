"""Write to a pipe, a terminal or a socket that may have no reader, without waiting.

Rule 1: the blocking mode of a file stays unchanged: other processes may share it.
Rule 2: a write to a regular file may wait. No system call writes to a
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

# Seconds for a slow reader to catch up.
PATIENCE = 0.1

# Bytes of one write if the system has no non-blocking write: a ready pipe accepts
# PIPE_BUF without waiting.
PIECE = getattr(select, "PIPE_BUF", 512)

# select() accepts only descriptors below this.
SELECT_LIMIT = 1024

# The flag of pwritev() for one non-blocking write; 0 if the system lacks it.
_NOWAIT = getattr(os, "RWF_NOWAIT", 0) if hasattr(os, "pwritev") else 0

# The errors of pwritev() for a file without such writes: a terminal, or a pipe on an
# older system.
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ESPIPE)

Write: TypeAlias = Callable[[memoryview], int]


def write_some(fd: int, data: bytes | memoryview, patience: float = 0.0) -> int:
    """Write as much of *data* as the file accepts; return the number of bytes.

    Args:
        patience: maximum seconds to wait for the file to accept another byte.

    Raises:
        OSError: the file cannot be written.
    """
    done, is_supported = 0, bool(_NOWAIT)
    try:
        # Nearly always the only system call.
        done = _write_nowait(fd, data) if is_supported else 0
    except BlockingIOError:
        # Full; or a regular file, which may wait.
        done = 0
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        is_supported = False
    if done == len(data):
        return done
    view, mode = memoryview(data)[done:], os.fstat(fd).st_mode
    if is_supported and not stat.S_ISREG(mode):
        at_once = partial(_write_nowait, fd)
        return done + _write_until_full(fd, view, patience, at_once)
    with _writer(fd, mode) as write:
        return done + _write_until_full(fd, view, patience, write)


def is_writable(fd: int, patience: float = 0.0) -> bool:
    """Return whether the file accepts a byte within *patience* seconds.

    True if the system cannot report that.
    """
    if not 0 <= fd < SELECT_LIMIT:
        return True
    try:
        return bool(select.select((), (fd,), (), patience)[1])
    except (OSError, ValueError):
        # Closed, or a file that select() cannot poll: the write raises the error.
        return True


def _write_until_full(fd: int, view: memoryview, patience: float, write: Write) -> int:
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


def _write_nowait(fd: int, data: bytes | memoryview) -> int:
    # Offset -1 is the file's current position.
    return os.pwritev(fd, (data,), -1, _NOWAIT)


@contextmanager
def _writer(fd: int, mode: int) -> Iterator[Write]:
    """Context manager: yield a write function that raises BlockingIOError if full."""
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
    """Return a non-blocking descriptor for the same pipe or terminal, or None.

    A ready terminal may accept fewer bytes than one write has. So may a pipe with
    another writer. Only O_NONBLOCK keeps such a write from waiting.
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
        # Another user's file, a file without a name, or a pipe without a reader.
        return None
    # If /dev/fd duplicates descriptors, both share the blocking mode.
    if file_behind(own) == file_behind(fd) and not os.get_blocking(own):
        return own
    os.close(own)
    return None


def _write_if_ready(fd: int, view: memoryview) -> int:
    if not is_writable(fd):
        raise BlockingIOError("the file accepts nothing at the moment")
    return os.write(fd, view[:PIECE])
