"""The pollers of the selectors loop: epoll, and any other selector.

Rule 1: interests and events are poll's bits, with any poller.
Rule 2: a poller knows descriptors, never channels, and calls no handlers.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import stat
from contextlib import suppress
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
    "READ_ONLY",
    "WRITABLE",
    "EpollPoller",
    "Poller",
    "SelectorPoller",
    "as_poll2_waits",
    "is_epoll_default",
    "new_poller",
]

# poll's bits, the same as epoll's; spelled out because some platforms lack poll.
IN = 0x001
PRI = 0x002
OUT = 0x004
ERR = 0x008
HUP = 0x010
NVAL = 0x020

# The interest of a channel that has nothing to write.
READ_ONLY = IN | PRI

# Events that poll() reports for any interest.
GONE = HUP | ERR | NVAL

# Events that make select() report readable or writable: POLLIN_SET and POLLOUT_SET in
# the kernel's fs/select.c. A hang-up counts as readable only, an error as both.
READABLE = IN | HUP | ERR
WRITABLE = OUT | ERR

# Seconds. poll and epoll count milliseconds in a C int, which holds 24 days. A turn
# that ends after a day without events is followed by the next turn.
LONGEST_WAIT = 86_400.0

# Milliseconds: poll() counts them in a C int.
LIMIT = 1 << 31


class Poller(Protocol):
    """The selector interface of the loop."""

    def register(self, fd: int, interest: int, known: bool) -> bool:
        """Register *fd*, or modify its interest.

        Args:
            known: the caller has registered *fd*, and has not unregistered it.

        Returns:
            False if *fd* was not registered with the kernel; True if it was, or if the
            poller cannot know.

        Raises:
            OSError: EBADF if *fd* is closed, EPERM for a file that is always ready.
        """

    def unregister(self, fd: int) -> bool:
        """Unregister *fd*; False if it was closed and may still report events."""

    def poll(self, seconds: float | None, count: int) -> list[tuple[int, int]]:
        """Return (descriptor, events) pairs after at most *seconds*; None for no limit.

        Each descriptor appears once. *count* descriptors are registered.
        """

    def set_edge_triggered(self, fd: int, interest: int) -> None:
        """Report *fd* only at changes: it reports events outside of its interest."""

    def poll_now(self, interests: dict[int, int]) -> dict[int, int]:
        """Poll {descriptor: interest} now, independently of the registrations."""

    def close(self) -> None:
        """Close the poller's descriptor."""


# Why not selectors.EpollSelector? select() distinguishes three conditions: readable,
# writable, exceptional. The selectors module has two. It never reports urgent data,
# reports a hang-up as writable, and drops events of descriptors that it does not know.
# A loop on top of it spins without seeing the cause. Therefore, if the default selector
# is epoll, the loop calls epoll directly. It uses any other default (kqueue, or
# gevent's) unchanged, without urgent data there.


class EpollPoller:
    """epoll itself: it reports urgent data, hang-ups and unknown descriptors."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def register(self, fd: int, interest: int, known: bool) -> bool:
        if fd == self._epoll.fileno():
            # *fd* was closed, and this epoll object has taken its number.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if known:
            # The kernel has dropped it if the socket was closed.
            with suppress(FileNotFoundError):
                self._epoll.modify(fd, interest)
                return True
        try:
            self._epoll.register(fd, interest)
        except FileExistsError:
            # *fd* was closed, and dup2 put the same open file back under its number.
            self._epoll.modify(fd, interest)
        return False

    def unregister(self, fd: int) -> bool:
        try:
            self._epoll.unregister(fd)
        except OSError as error:
            # *fd* is closed, or its number belongs to another file: one that epoll
            # cannot register (EPERM), or this epoll object itself (EINVAL).
            if error.errno not in (
                errno.EBADF,
                errno.ENOENT,
                errno.EPERM,
                errno.EINVAL,
            ):
                raise
            return False
        return True

    def poll(self, seconds: float | None, count: int) -> list[tuple[int, int]]:
        return self._epoll.poll(_bounded(seconds), count or 1)

    def set_edge_triggered(self, fd: int, interest: int) -> None:
        self._epoll.modify(fd, interest | select.EPOLLET)

    def poll_now(self, interests: dict[int, int]) -> dict[int, int]:
        poll = select.poll()
        for fd, interest in interests.items():
            poll.register(fd, interest)
        return dict(poll.poll(0))

    def close(self) -> None:
        self._epoll.close()


class SelectorPoller:
    """Any selector of the ``selectors`` module, without urgent data."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, interest: int, known: bool) -> bool:
        # Always register again: the selector's own table does not show that the kernel
        # has dropped a descriptor that was closed and reused.
        self.unregister(fd)
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
                # macOS's kqueue rejects terminals and /dev/null with EINVAL.
                raise _always_ready() from None
        return True

    def unregister(self, fd: int) -> bool:
        # A selector drops the events of descriptors that are not in its own table.
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        return True

    def poll(self, seconds: float | None, count: int) -> list[tuple[int, int]]:
        try:
            found = self._selector.select(_bounded(seconds))
        except OSError:
            keys = self._selector.get_map().values()
            closed = [(key.fd, IN | OUT) for key in keys if _is_closed(key.fd)]
            if not closed:
                raise
            # One closed descriptor makes select() fail for all of them. poll() would
            # report that one as ready.
            return closed
        ready: dict[int, int] = {}
        for key, events in found:
            mask = IN if events & selectors.EVENT_READ else 0
            mask |= OUT if events & selectors.EVENT_WRITE else 0
            # kqueue reports reading and writing separately.
            ready[key.fd] = ready.get(key.fd, 0) | mask
        return list(ready.items())

    def set_edge_triggered(self, fd: int, interest: int) -> None:
        """A selector reports no events outside of the interest."""

    def poll_now(self, interests: dict[int, int]) -> dict[int, int]:
        return interests

    def close(self) -> None:
        self._selector.close()


def new_poller() -> Poller:
    """Return a poller for the current default selector, which gevent may patch."""
    return EpollPoller() if is_epoll_default() else SelectorPoller()


def is_epoll_default() -> bool:
    """Return whether the default selector is epoll, which reports hang-ups."""
    return selectors.DefaultSelector is getattr(selectors, "EpollSelector", None)


def as_poll2_waits(timeout: float | None) -> float | None:
    """Return the seconds that ``asyncore.poll2`` waits; None (no limit) if negative.

    Raises:
        OverflowError: and ValueError: the timeout in milliseconds does not fit into a C
            int; as from ``select.poll().poll()``.

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
    # As epoll does. Other selectors accept both kinds without an error.
    if os.name == "nt":
        # Windows numbers sockets separately; fstat() does not know these numbers.
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
