"""The self-pipe with which other threads and signals end a loop's wait.

Rule 1: a waker never uses or closes a number that belongs to another file.
Rule 2: a forked child has its own socket pair, under the same numbers.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from compat._runtime import this_thread
from compat.files import OpenFile, file_behind
from compat.forks import at_fork

__all__ = ["Waker"]


# A byte written to one end of a socket pair makes the other end readable, on every
# loop. signal.set_wakeup_fd writes a signal's byte to it, too: a Python signal handler
# runs only after the wait, so C code has to end the wait.
#
# A daemon closes all descriptors that it did not open, mostly after a fork. Soon its
# log or a client has their numbers. Therefore each end is identified by its open file.
# The exception is a signal's byte, which C code writes to a number. After a fork, that
# is disabled until the next turn, which checks the number. If a program closes
# everything without a fork, the byte goes to the number's new owner.


class Waker:
    """A channel that always wants to read, and is in no map of the caller's."""

    accepting = False

    _all: ClassVar[weakref.WeakSet[Waker]] = weakref.WeakSet()

    # The ends to close; empty if Ctrl-C came before the socket pair existed.
    _ends: tuple[tuple[socket.socket, OpenFile], ...] = ()

    # True in a forked child until the next turn: the program may be closing everything.
    _forked = False

    _wakes_on_signals = False

    # The time.monotonic() at which this turn's wait ended; None before that.
    woke_at: float | None = None

    def __init__(self) -> None:
        self._life = weakref.ref(this_thread.life)
        self._open()
        Waker._all.add(self)

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable; called in every turn."""
        if self._forked:
            self._forked = False
            if self.reopen_if_closed():
                # The old pair may have held a wake-up.
                self.wake()
            elif self._wakes_on_signals:
                self._set_wakeup_fd()
        return self._reader.fileno()

    @property
    def descriptors(self) -> tuple[int, int]:
        """The numbers of both ends, without the checks of ``fileno``."""
        return self._reader.fileno(), self._writer.fileno()

    def wake(self) -> None:
        """End the current wait, or the next one if no wait is in progress."""
        if self._forked and not self._is_intact():
            return
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            # Full of earlier wake-ups: the reader is ready already.
            return
        except OSError as error:
            # The loop's thread has closed the pair, or one end so far: nothing waits
            # any more.
            if error.errno not in (errno.EBADF, errno.EPIPE):
                raise

    @property
    def is_orphaned(self) -> bool:
        """True if the waker's thread is gone: a fork keeps only the calling thread."""
        return self._life() is None

    @contextmanager
    def waking_on_signals(self) -> Iterator[None]:
        """Context manager: within it, a signal ends the wait."""
        # Otherwise a signal just before the wait would not be handled until its end.
        before = None if self._wakes_on_signals else self._set_wakeup_fd()
        if before is None:
            yield
            return
        self._wakes_on_signals = True
        try:
            yield
        finally:
            self._wakes_on_signals = False
            signal.set_wakeup_fd(before)

    def reopen_if_closed(self) -> bool:
        """Replace a pair that the program has closed; return whether it had."""
        if self._is_intact():
            return False
        self.close()
        self._open()
        if self._wakes_on_signals:
            self._set_wakeup_fd()
        return True

    def close(self) -> None:
        """Close both descriptors, except for numbers that belong to another file."""
        for end, file in self._ends:
            if file_behind(end.fileno()) == file:
                end.close()
            else:
                end.detach()

    # The methods of a channel.

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        """Receive and drop the wake-ups: the scheduler holds the callbacks."""
        try:
            while len(self._reader.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def handle_close(self) -> None:
        """The pair closes with its loop."""

    def handle_error(self) -> None:
        # Imported here: a program may have its own module named logging.
        import logging

        logging.getLogger("compat").exception("the waker of a loop failed")

    def _open(self) -> None:
        self._reader, self._writer = _socket_pair()
        self._identify_ends()

    def _identify_ends(self) -> None:
        ends = self._reader, self._writer
        self._ends = tuple((end, file_behind(end.fileno())) for end in ends)

    def _is_intact(self) -> bool:
        for end, file in self._ends:
            if file_behind(end.fileno()) != file:
                return False
        return bool(self._ends)

    def _set_wakeup_fd(self) -> int | None:
        writer = self._writer.fileno()
        try:
            return signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        except ValueError:
            # Not the main thread. The handler runs there, and wakes this thread.
            return None

    @classmethod
    def after_fork_in_child(cls) -> None:
        """Separate every waker of the child from the parent's."""
        for waker in list(cls._all):
            waker._forked = True
            if waker._wakes_on_signals:
                # The child may close everything now, and C code cannot check the file.
                signal.set_wakeup_fd(-1)
            if waker._is_intact():
                waker._renew()

    def _renew(self) -> None:
        # Parent and child would read each other's wake-ups. The numbers stay the same:
        # select() may be waiting for one of them.
        try:
            pair = _socket_pair()
        except OSError:
            # No descriptors are free; closing these two frees some.
            self.close()
            self._open()
            return
        for (end, _), new in zip(self._ends, pair, strict=True):
            with new:
                os.dup2(new.fileno(), end.fileno(), inheritable=False)
        self._identify_ends()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
    return pair


def _after_fork_in_child() -> None:
    Waker.after_fork_in_child()


at_fork(after_in_child=_after_fork_in_child)
