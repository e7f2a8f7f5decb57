"""Where the lines of a trace go: a bounded file, or a terminal.

Rule 1: whatever happens to the output, the program that is traced goes on.
Rule 2: a file is known by its identity, not by its number: a program that closes every
descriptor gets none of its own overwritten.
Rule 3: only whole lines are written, so what is there can be read, whenever it ends.
Rule 4: what was in a file is there until there is a trace to write, and nobody writes
into a trace that another program is still writing.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO

from compat.files import OpenFile, file_behind
from compat.streams import is_coloured
from compat.trace import LEAST

if TYPE_CHECKING:
    from compat.trace.reading import Turn

__all__ = ["File", "Live", "Sink", "check_file"]

END = '{"e":"end","t":%d,"why":"%s"}\n'

# For the last line.
RESERVE = 64

STDERR = 2


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


class File:
    """A file of *limit* bytes at most.

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
        self._left = limit - RESERVE
        self._over = over
        self._lock = threading.Lock()
        # The first block, while there is no other; None once it is written.
        self._held: bytes | None = b""
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
        try:
            _take(self._fd, path)
        except BaseException:
            os.close(self._fd)
            raise
        self._file = file_behind(self._fd)
        self._stderr = file_behind(STDERR)

    @property
    def has_begun(self) -> bool:
        """Is what was in the file gone?"""
        return self._held is None

    def write(self, block: bytes, now: int) -> None:
        """Write these lines, as far as there is room.

        Args:
            now: microseconds since the trace began.
        """
        if self._fd < 0:
            # A forked child must not ask for the lock: it may be another thread's,
            # which has stayed behind.
            return
        with self._lock:
            if self._fd < 0:
                return
            full = len(block) > self._left
            if full:
                # Up to the last line that is whole.
                block = block[: block.rfind(b"\n", 0, self._left) + 1]
                block += (END % (now, "full")).encode()
            self._left -= len(block)
            why = self._put(block) or ("it is full" if full else "")
            if why:
                # With the lock, or another thread might write to what is closed.
                self.abandon()
        if why:
            self._tell(why)

    def close(self, now: int) -> None:
        """Write the last line."""
        with self._lock:
            if self._fd >= 0:
                self._put((END % (now, "closed")).encode(), last=True)
            self.abandon()

    def abandon(self) -> None:
        """Write nothing more."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and file_behind(fd) == self._file:
            os.close(fd)

    def _put(self, block: bytes, last: bool = False) -> str:
        """Why it could not be written, or nothing."""
        if file_behind(self._fd) != self._file:
            return "the program has closed it"
        first = self._held is not None
        if self._held is not None:
            if not self._held and not last:
                self._held = block
                return ""
            block, self._held = self._held + block, None
        view = memoryview(block)
        try:
            if first and _is_regular(self._fd):
                os.ftruncate(self._fd, 0)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            return str(error.strerror)
        return ""

    def _tell(self, why: str) -> None:
        self._over()
        # Where warnings go by default may be a client by now.
        if file_behind(STDERR) == self._stderr:
            _warn("%s: the trace ends here, the program goes on: %s", self._path, why)


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
        from compat.trace import text
        from compat.trace.reading import Reader

        self._lines = text.lines
        self._reader = Reader()
        self._file = _behind(self._stream)
        self._color = is_coloured(self._stream)
        self._lock = threading.RLock()
        self._ended = False

    def write(self, block: bytes, now: int) -> None:
        """Print the turns that these lines complete."""
        with self._lock:
            self._left -= len(block)
            for line in block.splitlines():
                if not self._ended and (turn := self._reader.feed(line)) is not None:
                    self._print(turn)
            if self._left < 0 and not self._ended:
                self._give_up("it is full")

    def close(self, now: int) -> None:
        """Print what is left."""
        with self._lock:
            if not self._ended:
                for turn in self._reader.rest():
                    self._print(turn)
        self.abandon()

    def abandon(self) -> None:
        """Print nothing more."""
        self._ended = True

    def _print(self, turn: Turn) -> None:
        if _behind(self._stream) != self._file:
            # Its number may be a client's by now.
            self._give_up("the program has closed it")
            return
        try:
            for line in self._lines(turn, self._reader, color=self._color):
                self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
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
    File(path, LEAST, lambda: None).abandon()
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


def _warn(message: str, *args: object) -> None:
    logging.getLogger("compat").warning(message, *args)


def _behind(stream: TextIO) -> OpenFile:
    """The file that a stream writes to; None if it is closed, or has none."""
    try:
        return file_behind(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None
