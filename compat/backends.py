"""What the selectors loop needs of a selector, twice: epoll itself, and any other.

select() tells three things apart: readable, writable, exceptional. The ``selectors``
module knows two: it never reports urgent data, reports a hang-up as writable, and drops
the events of descriptors that it does not know, so that a loop on top of it spins
without seeing why. Where the default selector is epoll we therefore speak to epoll
ourselves; any other default (kqueue, or gevent's) is used as it is.

Rule 1: interests and events are poll's bits, whatever is behind them.
Rule 2: a back end knows descriptors, never channels, and calls nobody.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import stat
from typing import Protocol

__all__ = [
    "ERR",
    "GONE",
    "HUP",
    "IN",
    "LONGEST_WAIT",
    "NVAL",
    "OUT",
    "PRI",
    "READABLE",
    "WRITABLE",
    "Backend",
    "EpollBackend",
    "SelectorBackend",
    "as_poll2_waits",
    "is_epoll_default",
    "new_backend",
]

# poll's bits, which are epoll's too; spelled out because not every platform has poll.
IN = 0x001
PRI = 0x002
OUT = 0x004
ERR = 0x008
HUP = 0x010
NVAL = 0x020

# What poll() reports whether it was asked for or not.
GONE = HUP | ERR | NVAL

# What select() calls readable and writable: POLLIN_SET and POLLOUT_SET in the kernel's
# fs/select.c. A hang-up counts as readable only, an error as both.
READABLE = IN | HUP | ERR
WRITABLE = OUT | ERR

# Seconds. poll and epoll count milliseconds in a C int: 24 days. A turn that ends after
# a day for nothing is followed by the next.
LONGEST_WAIT = 86_400.0

# Milliseconds: poll() counts them in a C int.
LIMIT = 1 << 31


class Backend(Protocol):
    """What the loop needs of a selector. Interests and events are poll's bits."""

    def watch(self, fd: int, interest: int) -> bool:
        """Register *fd*, or change its interest.

        False if the kernel did not have it, True if it did (or cannot tell). OSError
        with EBADF: it is closed; with EPERM: it is a file that is always ready.
        """

    def forget(self, fd: int) -> bool:
        """Unregister *fd*. False if it was closed, and may be reported all the same."""

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """The events, at the latest after so many seconds; None waits for ever.

        Each descriptor comes once.
        """

    def quieten(self, fd: int, interest: int) -> None:
        """*fd* reports what its interest does not ask for: only on changes from now."""

    def truth(self, interests: dict[int, int]) -> dict[int, int]:
        """The events of {descriptor: interest} now, whatever is registered."""

    def close(self) -> None:
        """Give the descriptor back."""


class EpollBackend:
    """epoll, in its own bits: urgent data, hang-ups, unknown descriptors."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._known: set[int] = set()

    def watch(self, fd: int, interest: int) -> bool:
        if fd == self._epoll.fileno():
            # Closed, and the number was free when this epoll needed one.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if fd in self._known:
            try:
                self._epoll.modify(fd, interest)
            except FileNotFoundError:
                # The kernel dropped it when the socket closed.
                self._known.discard(fd)
            else:
                return True
        self._known.add(fd)
        try:
            self._epoll.register(fd, interest)
        except FileExistsError:
            # Closed, and the same open file put back under the same number by dup2.
            self._epoll.modify(fd, interest)
        except OSError:
            self._known.discard(fd)
            raise
        return False

    def forget(self, fd: int) -> bool:
        self._known.discard(fd)
        try:
            self._epoll.unregister(fd)
        except OSError as error:
            # Closed; or the number is another file's by now, of a kind that may be
            # known to no epoll (EPERM), or this very epoll's (EINVAL).
            if error.errno not in (
                errno.EBADF,
                errno.ENOENT,
                errno.EPERM,
                errno.EINVAL,
            ):
                raise
            return False
        return True

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        return self._epoll.poll(_bounded(seconds), max(len(self._known), 1))

    def quieten(self, fd: int, interest: int) -> None:
        self._epoll.modify(fd, interest | select.EPOLLET)

    def truth(self, interests: dict[int, int]) -> dict[int, int]:
        poll = select.poll()
        for fd, interest in interests.items():
            poll.register(fd, interest)
        return dict(poll.poll(0))

    def close(self) -> None:
        self._epoll.close()


class SelectorBackend:
    """Any selector of the ``selectors`` module. It has no urgent data."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, fd: int, interest: int) -> bool:
        # Always anew: a selector's own table cannot tell that the kernel has dropped
        # a descriptor which was closed and given out again.
        self.forget(fd)
        _refuse_closed_and_regular(fd)
        events = 0
        if interest & IN:
            events |= selectors.EVENT_READ
        if interest & OUT:
            events |= selectors.EVENT_WRITE
        if events:
            try:
                self._selector.register(fd, events)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # So macOS's kqueue refuses terminals and /dev/null.
                raise _always_ready() from None
        return True

    def forget(self, fd: int) -> bool:
        # A selector drops the events of what is not in its own table.
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        return True

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        try:
            found = self._selector.select(_bounded(seconds))
        except OSError:
            keys = self._selector.get_map().values()
            closed = [(key.fd, IN | OUT) for key in keys if _is_closed(key.fd)]
            if not closed:
                raise
            # select() refuses all of them because of one; poll() calls that one ready.
            return closed
        ready: dict[int, int] = {}
        for key, events in found:
            mask = IN if events & selectors.EVENT_READ else 0
            mask |= OUT if events & selectors.EVENT_WRITE else 0
            # kqueue reports reading and writing apart.
            ready[key.fd] = ready.get(key.fd, 0) | mask
        return list(ready.items())

    def quieten(self, fd: int, interest: int) -> None:
        """A selector reports only what it was asked for."""

    def truth(self, interests: dict[int, int]) -> dict[int, int]:
        return interests

    def close(self) -> None:
        self._selector.close()


def new_backend() -> Backend:
    """The default selector, looked up now: gevent may have patched it since import."""
    return EpollBackend() if is_epoll_default() else SelectorBackend()


def is_epoll_default() -> bool:
    """Return whether the default selector is epoll, which reports hang-ups."""
    return selectors.DefaultSelector is getattr(selectors, "EpollSelector", None)


def as_poll2_waits(timeout: float | None) -> float | None:
    """Return how many seconds ``asyncore.poll2`` waits; None without end, if negative.

    Raises:
        OverflowError: and ValueError: the timeout fits in no C int of milliseconds; as
            from ``select.poll().poll()``.

    Source: CPython 3.11, Lib/asyncore.py, poll2().
    """
    if timeout is None:
        return None
    milliseconds = int(timeout * 1000)
    if not -LIMIT <= milliseconds < LIMIT:
        raise OverflowError(
            f"timeout must be below {LIMIT / 1000:g} seconds, got {timeout!r}"
        )
    return None if milliseconds < 0 else max(timeout, 0.0)


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def _refuse_closed_and_regular(fd: int) -> None:
    """Raise what epoll raises; other selectors take both, and do not tell."""
    if os.name == "nt":
        # Sockets have numbers of their own there, of which fstat() knows nothing.
        return
    # kqueue never reports the end of a regular file.
    if stat.S_ISREG(os.fstat(fd).st_mode):
        raise _always_ready()


def _is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def _always_ready() -> OSError:
    return PermissionError(errno.EPERM, os.strerror(errno.EPERM))
