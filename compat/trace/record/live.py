"""A trace as text on a terminal, turn by turn, while the program runs."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TextIO

from compat.console import is_coloured
from compat.files import OpenFile, file_behind
from compat.locks import RLock
from compat.nonblocking import PATIENCE, is_writable, write_some
from compat.trace.record.sink import FAREWELL, BlockQueue, is_stalled, warn

if TYPE_CHECKING:
    from compat.trace.model import Turn

__all__ = ["Live"]


class Live:
    """The sink that prints.

    Args:
        limit: bytes of trace; then the output ends.
        over: called once, at the limit or when the stream is gone.
        stream: None for standard error, which leaves standard output to the program.
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
        # Imported here, because most traces go to a file; and now, because a program
        # may have its own package named compat.
        from compat.trace.reader import Reader
        from compat.trace.render import text
        from compat.trace.render.messages import message

        self._lines = text.lines
        self._reader = Reader()
        self._file = _file_of(self._stream)
        self._color = is_coloured(self._stream)
        self._lock = RLock()
        self._ended = False
        self._queue = BlockQueue(
            self._write_now,
            lambda count, at: self._encoded(message("lost", count=count) + "\n"),
        )

    def write(self, block: bytes, now: int) -> None:
        """Print the turns that these lines complete."""
        with self._lock:
            self._left -= len(block)
            self._feed(block.splitlines(), now)
            if self._left < 0 and not self._ended:
                self._give_up("it is full")

    def close(self, now: int) -> None:
        """Print the rest."""
        with self._lock:
            self._print_rest(now)
            if not self._ended:
                self._drain(FAREWELL)
        self.abandon()

    def abandon(self) -> None:
        """Print nothing more."""
        self._ended = True

    def _feed(self, lines: Iterable[bytes], now: int) -> None:
        for line in lines:
            if not self._ended and (turn := self._reader.feed(line)) is not None:
                self._print(turn, now)

    def _print_rest(self, now: int) -> None:
        for turn in self._reader.rest() if not self._ended else ():
            self._print(turn, now)

    def _print(self, turn: Turn, now: int) -> None:
        if _file_of(self._stream) != self._file:
            # The descriptor may be a client's now.
            self._give_up("the program has closed it")
            return
        try:
            lines = list(self._lines(turn, self._reader, color=self._color))
            if not len(self._queue) and not is_stalled(self._stream):
                # The program's own earlier output.
                self._stream.flush()
            block = self._encoded("".join(f"{line}\n" for line in lines))
            self._queue.add(block, now, len(lines))
            self._queue.flush()
        except (OSError, ValueError) as error:
            self._queue.clear()
            self._give_up(str(error))

    def _encoded(self, text: str) -> bytes:
        stream = self._stream
        return text.encode(stream.encoding or "utf-8", stream.errors or "strict")

    def _write_now(self, view: memoryview) -> int:
        if self._file is None or sys.platform == "win32":
            # Not a file, or one that translates line ends.
            self._stream.write(bytes(view).decode(self._stream.encoding or "utf-8"))
            self._stream.flush()
            return len(view)
        return write_some(self._stream.fileno(), view)

    def _drain(self, seconds: float) -> None:
        try:
            self._queue.drain(
                seconds, lambda: is_writable(self._stream.fileno(), PATIENCE)
            )
        except (OSError, ValueError):
            # The reader is gone.
            self._queue.clear()
        if self._queue.has_lost:
            warn("%s: lines of the trace are dropped, because its reader is slow", "-")

    def _give_up(self, reason: str) -> None:
        self._drain(PATIENCE)
        self.abandon()
        self._over()
        if _file_of(self._stream) == self._file:
            warn("the trace ends here, and the program continues: %s", reason)


def _file_of(stream: TextIO) -> OpenFile:
    """Return the identity of a stream's file; None if it is closed or not a file."""
    try:
        return file_behind(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None
