"""Where the lines of a trace go: a bounded file, or a terminal.

Rule 1: whatever happens to the output, the program that is traced goes on.
Rule 2: a file is known by its identity, not by its number: a program that closes every
descriptor gets none of its own overwritten.
Rule 3: only whole lines are written, so what is there can be read, whenever it ends.
Rule 4: what was in a file is there until there is a trace to write, and nobody writes
into a trace that another program is still writing.
Rule 5: a reader that stalls never stops the program. What it has not taken waits, up to
WAITING bytes; what is beyond that is dropped, counted, and said in the trace where it
is missing. Only a regular file is written as the system takes it.
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
from typing import TYPE_CHECKING, Protocol, TextIO

from compat.console import is_coloured
from compat.files import PRIVATE, OpenFile, file_behind
from compat.locks import RLock
from compat.nonblocking import PATIENCE, is_writable, write_some
from compat.trace.format import MIN_SIZE

if TYPE_CHECKING:
    from compat.trace.model import Turn

__all__ = ["WAITING", "File", "Live", "Sink", "check_file"]

END = '{"e":"end","t":%d,"why":"%s"}\n'
LOST = '{"e":"lost","t":%d,"n":%d}\n'

# For the last line, and one about lines that were dropped.
RESERVE = 128

# Bytes that wait for a reader: a second of a busy room. A block that is larger waits if
# it is alone.
WAITING = 1 << 20

# Seconds that the end of a trace waits for a reader that goes on reading.
FAREWELL = 1.0


STDERR = 2

# For the log.
SLOW = (
    "%s: the reader of the trace is too slow: lines are dropped, and the trace says "
    "where and how many"
)
UNREAD = "%s: the reader of the trace has not taken the last %d bytes"


class Sink(Protocol):
    """What takes the lines of a trace, whole ones, in blocks.

    Attributes:
        has_begun: would it be missed if it were abandoned?
    """

    @property
    def has_begun(self) -> bool: ...
    def write(self, block: bytes, now: int) -> None: ...
    def close(self, now: int) -> None: ...
    def abandon(self) -> None: ...


class _Queue:
    """Blocks of lines that wait for a reader.

    Args:
        take: writes as many bytes as go in now, and returns how many.
        notice: makes the block that stands for dropped lines, from when the last of
            them was dropped, in microseconds since the trace began, and their number.
    """

    def __init__(
        self, take: Callable[[memoryview], int], notice: Callable[[int, int], bytes]
    ) -> None:
        self._take = take
        self._notice = notice
        self._blocks: deque[memoryview] = deque()
        self._size = 0
        # Lines that were dropped since the last notice, and when the last was.
        self._lost, self._lost_at = 0, 0
        self.has_lost = False

    def __len__(self) -> int:
        """Bytes that wait."""
        return self._size

    def add(self, block: bytes, now: int, lines: int) -> bool:
        """Let a block of *lines* wait; return False if it is dropped.

        After a block was dropped, all are until half of the room is free again, so that
        a trace has few gaps.
        """
        room = WAITING // 2 if self._lost else WAITING
        if self._size and self._size + len(block) > room:
            self._lost += lines
            self._lost_at, self.has_lost = now, True
            return False
        self.add_last(block)
        return True

    def add_last(self, block: bytes) -> None:
        """Let a block wait, however much does."""
        if self._lost:
            self._append(self._notice(self._lost_at, self._lost))
            self._lost = 0
        self._append(block)

    def flush(self) -> None:
        """Write what goes in without waiting.

        Raises:
            OSError: as from *take*.
        """
        while self._blocks:
            block = self._blocks[0]
            taken = self._take(block)
            self._size -= taken
            if taken < len(block):
                self._blocks[0] = block[taken:]
                return
            self._blocks.popleft()

    def drain(self, seconds: float, wait: Callable[[], object]) -> None:
        """Write what waits, while the reader goes on taking it, for *seconds* at most.

        Args:
            wait: for the reader, for PATIENCE seconds at most.

        Raises:
            OSError: as from *take*.
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
        """Let nothing wait any more: the reader is gone."""
        self._blocks.clear()
        self._size = 0

    def _append(self, block: bytes) -> None:
        self._blocks.append(memoryview(block))
        self._size += len(block)


class File:
    """A file of *limit* bytes at most; a pipe, a FIFO or a terminal likewise.

    A new file is readable by its owner alone; one that is there keeps its mode, its
    owner and, if it is a link, its target. A FIFO may get its reader later.

    Args:
        path: written from the start; what was in it goes with the second block, or
            when this is closed.
        limit: bytes.
        over: called once, when nothing more is written: the file is full, or gone.

    Raises:
        OSError: it cannot be opened for writing, or another trace is written to it.
    """

    def __init__(self, path: str, limit: int, over: Callable[[], None]) -> None:
        self._path = path
        # The program may go to another folder before a FIFO has a reader.
        self._absolute = os.path.abspath(path)
        self._left = limit - RESERVE
        self._over = over
        self._lock = RLock()
        # The first block, while there is no other; None once it is written.
        self._held: bytes | None = b""
        self._ended = self._warned = False
        self._stderr = file_behind(STDERR)
        self._fd = self._open(os.O_CREAT)
        self._file = _named(path) if self._fd is None else file_behind(self._fd)
        self._queue: _Queue | None = None
        if self._fd is None or not _is_regular(self._fd):
            self._queue = _Queue(self._take_now, _lost_line)

    @property
    def has_begun(self) -> bool:
        """Is what was in the file gone?"""
        return self._held is None

    def write(self, block: bytes, now: int) -> None:
        """Write these lines, as far as there is room.

        Args:
            now: microseconds since the trace began.
        """
        if self._ended:
            # A forked child must not ask for the lock: it may be another thread's,
            # which has stayed behind.
            return
        with self._lock:
            if self._ended:
                return
            full = len(block) > self._left
            if full:
                # Up to the last line that is whole.
                block = block[: block.rfind(b"\n", 0, self._left) + 1]
            why = self._put(block, now)
            if full and not why:
                last = (END % (now, "full")).encode()
                why = self._put(last, now, last=True) or "it is full"
                self._drain(PATIENCE)
            if why:
                # With the lock, or another thread might write to what is closed.
                self.abandon()
        self._tell_lost()
        if why:
            self._over()
            self._warn("%s: the trace ends here, the program goes on: %s", why)

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
        self._tell_lost()
        if unread:
            self._warn(UNREAD, unread)

    def abandon(self) -> None:
        """Write nothing more."""
        self._ended = True
        fd, self._fd = self._fd, None
        if fd is not None and file_behind(fd) == self._file:
            os.close(fd)

    def _open(self, create: int = 0) -> int | None:
        """A descriptor; None for a FIFO that has no reader yet."""
        flags = os.O_WRONLY | create
        for name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK", "O_NOCTTY"):
            flags |= getattr(os, name, 0)
        try:
            fd = os.open(self._absolute if not create else self._path, flags, PRIVATE)
        except OSError as error:
            if error.errno == errno.ENXIO and _is_fifo(self._absolute):
                return None
            raise
        try:
            _take(fd, self._path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _put(self, block: bytes, now: int, last: bool = False) -> str:
        """Why it could not be written, or nothing."""
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

    def _take_now(self, view: memoryview) -> int:
        """Write what goes in now; return how many bytes."""
        if self._fd is None:
            fd = self._open()
            if fd is None:
                return 0
            # Another file may have taken its name, and even its number.
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
        """Give the reader a moment; return how many bytes it has not taken then."""
        if self._queue is None:
            return 0
        try:
            self._queue.drain(seconds, self._wait)
        except OSError:
            # The reader has gone, and the rest is nobody's.
            self._queue.clear()
        return len(self._queue)

    def _wait(self) -> None:
        if self._fd is None:
            time.sleep(PATIENCE)
        else:
            is_writable(self._fd, PATIENCE)

    def _tell_lost(self) -> None:
        if self._queue is not None and self._queue.has_lost and not self._warned:
            self._warned = self._warn(SLOW)

    def _warn(self, message: str, *args: object) -> bool:
        # Where warnings go by default may be a client by now.
        if file_behind(STDERR) != self._stderr:
            return False
        return _warn(message, self._path, *args)


class Live:
    """A terminal, or what stands for it: turn by turn, as text.

    Args:
        stream: None for standard error, so that what the program prints stays its own.
        limit: bytes of trace, after which nothing more is printed.
        over: called once, when that is so, or when nobody reads any more.
    """

    has_begun = True

    def __init__(
        self, limit: int, over: Callable[[], None], stream: TextIO | None = None
    ) -> None:
        if stream is None and sys.stderr is None:
            raise OSError(errno.EBADF, "standard error is closed")
        self._stream = stream or sys.stderr
        self._left = limit
        self._over = over
        # Here, for most traces go to a file; and now, for a program may have a package
        # of its own that is called compat.
        from compat.trace.reader import Reader
        from compat.trace.render import text
        from compat.trace.render.messages import message

        self._lines = text.lines
        self._reader = Reader()
        self._file = _behind(self._stream)
        self._color = is_coloured(self._stream)
        self._lock = RLock()
        self._ended = False
        self._queue = _Queue(
            self._take_now,
            lambda at, count: self._encoded(message("lost", count=count) + "\n"),
        )

    def write(self, block: bytes, now: int) -> None:
        """Print the turns that these lines complete."""
        with self._lock:
            self._left -= len(block)
            for line in block.splitlines():
                if not self._ended and (turn := self._reader.feed(line)) is not None:
                    self._print(turn, now)
            if self._left < 0 and not self._ended:
                self._give_up("it is full")

    def close(self, now: int) -> None:
        """Print what is left."""
        with self._lock:
            if not self._ended:
                for turn in self._reader.rest():
                    self._print(turn, now)
            if not self._ended:
                self._drain(FAREWELL)
        self.abandon()

    def abandon(self) -> None:
        """Print nothing more."""
        self._ended = True

    def _print(self, turn: Turn, now: int) -> None:
        if _behind(self._stream) != self._file:
            # Its number may be a client's by now.
            self._give_up("the program has closed it")
            return
        try:
            lines = list(self._lines(turn, self._reader, color=self._color))
            block = "".join(f"{line}\n" for line in lines)
            if not len(self._queue) and not _is_stalled(self._stream):
                # What the program has printed before.
                self._stream.flush()
            self._queue.add(self._encoded(block), now, len(lines))
            self._queue.flush()
        except (OSError, ValueError) as error:
            self._queue.clear()
            self._give_up(str(error))

    def _encoded(self, text: str) -> bytes:
        stream = self._stream
        return text.encode(stream.encoding or "utf-8", stream.errors or "strict")

    def _take_now(self, view: memoryview) -> int:
        if self._file is None or sys.platform == "win32":
            # No file, or one whose ends of lines are others.
            self._stream.write(bytes(view).decode(self._stream.encoding or "utf-8"))
            self._stream.flush()
            return len(view)
        return write_some(self._stream.fileno(), view)

    def _drain(self, seconds: float) -> None:
        try:
            self._queue.drain(seconds, self._wait)
        except (OSError, ValueError):
            # The reader has gone, and the rest is nobody's.
            self._queue.clear()
        if self._queue.has_lost:
            _warn(SLOW, "-")

    def _wait(self) -> None:
        is_writable(self._stream.fileno(), PATIENCE)

    def _give_up(self, why: str) -> None:
        self._drain(PATIENCE)
        self.abandon()
        self._over()
        if _behind(self._stream) == self._file:
            _warn("the trace ends here, the program goes on: %s", why)


def check_file(path: str) -> None:
    """Find out whether a trace could be written to that file, and leave it as it is.

    Raises:
        OSError: as from File.
    """
    is_there = os.path.lexists(path)
    if is_there and not os.path.isfile(path):
        # Whoever reads a pipe would take it for the end.
        return
    File(path, MIN_SIZE, lambda: None).abandon()
    if not is_there:
        os.unlink(path)


def _take(fd: int, path: str) -> None:
    """Let no other program write a trace to that file, for as long as it is open."""
    if sys.platform == "win32" or not _is_regular(fd):
        return
    # Not above, for Windows has none.
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        why = "another program is writing its trace to it"
        raise OSError(errno.EBUSY, why, path) from None
    except OSError:
        # Its filesystem has no locks: who names one file twice gets what he asked for.
        return


def _is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _is_fifo(path: str) -> bool:
    return stat.S_ISFIFO(os.stat(path).st_mode)


def _named(path: str) -> OpenFile:
    """As file_behind, of a file that is not open."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _lost_line(at: int, count: int) -> bytes:
    return (LOST % (at, count)).encode()


def _warn(message: str, *args: object) -> bool:
    """Tell the log; return False if that would wait for a reader that stalls."""
    if any(map(_is_stalled, _streams_of_the_log())):
        return False
    logging.getLogger("compat").warning(message, *args)
    return True


def _streams_of_the_log() -> list[TextIO | None]:
    logger: logging.Logger | None = logging.getLogger("compat")
    handlers: list[logging.Handler | None] = []
    while logger is not None:
        handlers += logger.handlers
        logger = logger.parent if logger.propagate else None
    return [getattr(each, "stream", None) for each in handlers or [logging.lastResort]]


def _is_stalled(stream: TextIO | None) -> bool:
    try:
        return stream is not None and not is_writable(stream.fileno())
    except (OSError, ValueError, AttributeError):
        # No file, or closed: a line for it waits for nobody.
        return False


def _behind(stream: TextIO) -> OpenFile:
    """The file that a stream writes to; None if it is closed, or has none."""
    try:
        return file_behind(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None
