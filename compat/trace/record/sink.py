"""The destination of a trace's lines: a file of limited size, a pipe or a FIFO.

Rule 1: no error of the output stops the traced program.
Rule 2: a file is identified by itself, not by its descriptor. A program may close every
descriptor and reuse the numbers; none of its files is overwritten.
Rule 3: only whole lines are written, so a file is readable at any moment.
Rule 4: an existing file keeps its contents until the trace has something to write. Two
programs cannot write a trace to the same file.
Rule 5: a reader that stalls never stops the program. Unread blocks wait in a queue of
``WAITING`` bytes; further lines are dropped and counted, and the trace marks the gap. A
warning is omitted if the log stalls, too. A write to a regular file may wait.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, TextIO

from compat.files import PRIVATE, file_behind
from compat.locks import RLock
from compat.nonblocking import PATIENCE, is_writable
from compat.trace.format import MIN_SIZE

__all__ = ["FAREWELL", "BlockQueue", "File", "Sink", "check_file", "is_stalled", "warn"]

END = '{"e":"end","t":%d,"why":"%s"}\n'
LOST = '{"e":"lost","t":%d,"n":%d}\n'

# Bytes for the last line, and for one about dropped lines.
RESERVE = 128

# Bytes that wait for a reader: a second of a busy room. A larger block waits alone.
WAITING = 1 << 20

# Seconds that the end of a trace waits for a reader that still reads.
FAREWELL = 1.0

STDERR = 2


class Sink(Protocol):
    """The destination of a trace; it gets whole lines, in blocks."""

    @property
    def has_begun(self) -> bool:
        """True once abandoning the sink would lose something."""

    def write(self, block: bytes, now: int) -> None: ...
    def close(self, now: int) -> None: ...
    def abandon(self) -> None: ...


class BlockQueue:
    """Blocks of lines that wait for a reader.

    Args:
        write: writes as many bytes as the reader accepts now; returns their number.
        notice: returns the block that replaces dropped lines. Its arguments are their
            number, and the time of the last one in microseconds of the trace.

    Attributes:
        has_lost: True once a block was dropped.
    """

    def __init__(
        self, write: Callable[[memoryview], int], notice: Callable[[int, int], bytes]
    ) -> None:
        self._write = write
        self._notice = notice
        self._blocks: deque[memoryview] = deque()
        self._size = 0
        # Lines dropped since the last notice, and the time of the last one.
        self._lost = self._lost_at = 0
        self.has_lost = False

    def __len__(self) -> int:
        """Return the number of waiting bytes."""
        return self._size

    def add(self, block: bytes, now: int, lines: int) -> bool:
        """Queue a block of *lines* lines; return False if it is dropped.

        After a dropped block, blocks are dropped until half of the queue is free. So a
        trace has few gaps.
        """
        room = WAITING // 2 if self._lost else WAITING
        if self._size and self._size + len(block) > room:
            self._lost += lines
            self._lost_at, self.has_lost = now, True
            return False
        self.add_last(block)
        return True

    def add_last(self, block: bytes) -> None:
        """Queue a block, beyond any limit of the queue."""
        if self._lost:
            self._append(self._notice(self._lost, self._lost_at))
            self._lost = 0
        self._append(block)

    def flush(self) -> None:
        """Write the data that the reader accepts now.

        Raises:
            OSError: as from *write*.
        """
        while self._blocks:
            block = self._blocks[0]
            written = self._write(block)
            self._size -= written
            if written < len(block):
                self._blocks[0] = block[written:]
                return
            self._blocks.popleft()

    def drain(self, seconds: float, wait: Callable[[], object]) -> None:
        """Write for at most *seconds*, until the queue is empty or the reader stalls.

        Args:
            wait: waits for the reader, for at most PATIENCE seconds.

        Raises:
            OSError: as from *write*.
        """
        end = time.monotonic() + seconds
        self.flush()
        while self._size and time.monotonic() < end:
            before = self._size
            wait()
            self.flush()
            if self._size == before:
                break

    def clear(self) -> None:
        """Drop all blocks: the reader is gone."""
        self._blocks.clear()
        self._size = 0

    def _append(self, block: bytes) -> None:
        self._blocks.append(memoryview(block))
        self._size += len(block)


class File:
    """A file, pipe, FIFO or terminal that gets at most *limit* bytes.

    A new file is readable only by its owner. An existing one keeps its mode, its owner
    and, if it is a link, its target. A FIFO may get its reader later.

    Args:
        path: overwritten by the second block, or when the sink is closed.
        limit: bytes.
        over: called once, when the file is full or gone.

    Raises:
        OSError: the file cannot be written, or another program writes a trace to it.
    """

    def __init__(self, path: str, limit: int, over: Callable[[], None]) -> None:
        self._path = path
        # The program may change its folder before a FIFO has a reader.
        self._absolute = os.path.abspath(path)
        self._left = limit - RESERVE
        self._over = over
        self._lock = RLock()
        # The first block, until there is a second one; None once it is written.
        self._held: bytes | None = b""
        self._ended = self._warned = False
        self._stderr = file_behind(STDERR)
        self._fd = self._open(os.O_CREAT)
        status = os.stat(path if self._fd is None else self._fd)
        self._file = status.st_dev, status.st_ino
        self._queue: BlockQueue | None = None
        if self._fd is None or not _is_regular(self._fd):
            self._queue = BlockQueue(
                self._write_now, lambda count, at: (LOST % (at, count)).encode()
            )

    @property
    def has_begun(self) -> bool:
        """True once the earlier contents of the file are gone."""
        return self._held is None

    def write(self, block: bytes, now: int) -> None:
        """Write these lines, up to the limit.

        Args:
            now: microseconds since the trace began.
        """
        if self._ended:
            # Without the lock: in a forked child, a thread that does not exist there
            # may hold it.
            return
        with self._lock:
            if self._ended:
                return
            full = len(block) > self._left
            if full:
                # Up to the last whole line.
                block = block[: block.rfind(b"\n", 0, self._left) + 1]
            reason = self._put(block, now)
            if full and not reason:
                last = (END % (now, "full")).encode()
                reason = self._put(last, now, last=True) or "it is full"
                self._drain(PATIENCE)
            if reason:
                # With the lock, or another thread might write to a closed file.
                self.abandon()
        self._warn_of_gaps()
        if reason:
            self._over()
            self._warn("%s: the trace ends here, and the program continues: %s", reason)

    def close(self, now: int) -> None:
        """Write the last line."""
        unread = 0
        try:
            with self._lock:
                if not self._ended:
                    self._put((END % (now, "closed")).encode(), now, last=True)
                    unread = self._drain(FAREWELL)
        finally:
            self.abandon()
        self._warn_of_gaps()
        if unread:
            self._warn("%s: the reader of the trace left %d bytes unread", unread)

    def abandon(self) -> None:
        """Write nothing more."""
        self._ended = True
        fd, self._fd = self._fd, None
        if fd is not None and file_behind(fd) == self._file:
            os.close(fd)

    def _open(self, create: int = 0) -> int | None:
        """Return a descriptor; None for a FIFO that has no reader yet."""
        flags = os.O_WRONLY | create
        for name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK", "O_NOCTTY"):
            flags |= getattr(os, name, 0)
        try:
            fd = os.open(self._path if create else self._absolute, flags, PRIVATE)
        except OSError as error:
            is_fifo = error.errno == errno.ENXIO and stat.S_ISFIFO(
                os.stat(self._absolute).st_mode
            )
            if is_fifo:
                return None
            raise
        try:
            _lock_file(fd, self._path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _put(self, block: bytes, now: int, last: bool = False) -> str:
        """Write or queue a block; return the reason if that is impossible."""
        if self._fd is not None and file_behind(self._fd) != self._file:
            return "the program has closed it"
        first = self._held is not None
        if self._held is not None:
            if not self._held and not last:
                self._held = block
                self._left -= len(block)
                return ""
            block, self._held = self._held + block, None
        try:
            if self._queue is None:
                self._write_all(block, first)
            elif last:
                self._queue.add_last(block)
            elif not self._queue.add(block, now, block.count(b"\n")):
                block = b""
            if self._queue is not None:
                self._queue.flush()
        except OSError as error:
            return str(error.strerror)
        self._left -= len(block)
        return ""

    def _write_all(self, block: bytes, first: bool) -> None:
        assert self._fd is not None
        view = memoryview(block)
        if first:
            os.ftruncate(self._fd, 0)
        while view:
            view = view[os.write(self._fd, view) :]

    def _write_now(self, view: memoryview) -> int:
        if self._fd is None:
            fd = self._open()
            if fd is None:
                return 0
            # Another file may have got its name, and even its inode number.
            mode = os.fstat(fd).st_mode
            if file_behind(fd) != self._file or not stat.S_ISFIFO(mode):
                os.close(fd)
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._fd = fd
        try:
            return os.write(self._fd, view)
        except BlockingIOError:
            return 0

    def _drain(self, seconds: float) -> int:
        """Wait at most *seconds* for the reader; return the number of unread bytes."""
        if self._queue is None:
            return 0
        try:
            self._queue.drain(seconds, self._wait)
        except OSError:
            # The reader is gone.
            self._queue.clear()
        return len(self._queue)

    def _wait(self) -> None:
        if self._fd is None:
            time.sleep(PATIENCE)
        else:
            is_writable(self._fd, PATIENCE)

    def _warn_of_gaps(self) -> None:
        if self._queue is not None and self._queue.has_lost and not self._warned:
            self._warned = self._warn(
                "%s: lines of the trace are dropped, because its reader is slow"
            )

    def _warn(self, message: str, *args: object) -> bool:
        # The descriptor of standard error may be a client's now.
        if file_behind(STDERR) != self._stderr:
            return False
        return warn(message, self._path, *args)


def check_file(path: str) -> None:
    """Check that a trace can be written to *path*; the file stays unchanged.

    Raises:
        OSError: as from File.
    """
    exists = os.path.lexists(path)
    if exists and not os.path.isfile(path):
        # The reader of a pipe would take this for the end.
        return
    File(path, MIN_SIZE, lambda: None).abandon()
    if not exists:
        os.unlink(path)


def warn(message: str, *args: object) -> bool:
    """Log a warning; return False if a stream of the log stalls."""
    logger: logging.Logger | None = logging.getLogger("compat")
    handlers: list[logging.Handler | None] = []
    while logger is not None:
        handlers += logger.handlers
        logger = logger.parent if logger.propagate else None
    for handler in handlers or [logging.lastResort]:
        if is_stalled(getattr(handler, "stream", None)):
            return False
    logging.getLogger("compat").warning(message, *args)
    return True


def is_stalled(stream: TextIO | None) -> bool:
    """Return whether a write to the stream would wait for its reader."""
    try:
        return stream is not None and not is_writable(stream.fileno())
    except (OSError, ValueError, AttributeError):
        # Not a file, or closed: a write does not wait.
        return False


def _lock_file(fd: int, path: str) -> None:
    """Lock a regular file against the traces of other programs, until it is closed."""
    if sys.platform == "win32" or not _is_regular(fd):
        return
    # Imported here, because Windows lacks it.
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        reason = "another program is writing its trace to it"
        raise OSError(errno.EBUSY, reason, path) from None
    except OSError:
        # The filesystem has no locks.
        return


def _is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)
