"""One turn on epoll, kqueue or whatever ``selectors.DefaultSelector`` is.

``asyncore.poll`` hands the kernel every descriptor in every turn; here the kernel
keeps them, and hears only of what changed. What that buys it must not cost:

Rule 1: for the same ready set, the same calls in the same order as ``asyncore.poll``:
all reads, then all writes, then all exceptional conditions, each in map order. A
channel is called only while it and its socket are still the ones that were asked.
Rule 2: what select() would not wake for does not end the wait, and what it would wake
for does.
Rule 3: a descriptor is a number that the kernel gives out again. What is registered is
compared with the channel's socket, not with the number; what cannot be compared is
asked of the kernel anew; what reports without being registered has the selector
rebuilt.
Rule 4: nothing here keeps a channel, a socket or a map alive.

Why there are two back ends. select() tells three things apart: readable, writable,
exceptional. ``selectors`` knows two: it never reports urgent data, reports a hang-up
as writable, and drops the events of descriptors that it does not know, so that a loop
on top of it spins without seeing why. Where the default selector is epoll we therefore
speak to epoll ourselves, in poll's own bits; any other default (kqueue, or gevent's)
is used as it is.
"""

from __future__ import annotations

import asyncore
import errno
import os
import select
import selectors
import time
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

from compat.channels import Channel, Map
from compat.schedule import Waker

__all__ = ["SelectorLoop"]

# poll's bits, which are epoll's too; spelled out because not every platform has poll.
IN = 0x001
PRI = 0x002
OUT = 0x004
ERR = 0x008
HUP = 0x010
NVAL = 0x020

# What select() calls readable and writable: POLLIN_SET and POLLOUT_SET in the kernel's
# fs/select.c. A hang-up counts as readable only, an error as both.
READABLE = IN | HUP | ERR
WRITABLE = OUT | ERR


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
        """The events, at the latest after so many seconds; None waits for ever."""

    def quieten(self, fd: int, interest: int) -> None:
        """*fd* reports what its interest does not ask for: only on changes from now."""

    def truth(self, interests: dict[int, int]) -> dict[int, int]:
        """The events of these descriptors at this moment, whatever is registered."""

    def close(self) -> None:
        """Give the descriptor back."""


class EpollBackend:
    """epoll, in its own bits: urgent data, hang-ups, unknown descriptors."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._known: set[int] = set()

    def watch(self, fd: int, interest: int) -> bool:
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
            if error.errno not in (errno.EBADF, errno.ENOENT):
                raise
            return False
        return True

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        return self._epoll.poll(seconds, max(len(self._known), 1))

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
        events = 0
        if interest & IN:
            events |= selectors.EVENT_READ
        if interest & OUT:
            events |= selectors.EVENT_WRITE
        if events:
            self._selector.register(fd, events)
        return True

    def forget(self, fd: int) -> bool:
        # A selector drops the events of what is not in its own table.
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        return True

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        ready = []
        for key, events in self._selector.select(seconds):
            mask = IN if events & selectors.EVENT_READ else 0
            mask |= OUT if events & selectors.EVENT_WRITE else 0
            ready.append((key.fd, mask))
        return ready

    def quieten(self, fd: int, interest: int) -> None:
        """A selector reports only what it was asked for."""

    def truth(self, interests: dict[int, int]) -> dict[int, int]:
        return interests

    def close(self) -> None:
        self._selector.close()


def new_backend() -> Backend:
    """The default selector, looked up now: gevent may have patched it since import."""
    if selectors.DefaultSelector is getattr(selectors, "EpollSelector", None):
        return EpollBackend()
    return SelectorBackend()


class _Watched:
    """A descriptor that we watch, and the socket for whose sake."""

    __slots__ = ("_socket", "edge", "fd", "interest")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.interest = 0
        # Reports only changes, because it kept reporting what nobody asked for.
        self.edge = False
        self._socket: Callable[[], Any] | None = None

    @property
    def socket(self) -> Any:
        return self._socket and self._socket()

    def stands_for(self, sock: Any) -> bool:
        """Was it registered for this very socket? False also if nobody can tell."""
        known = self._socket
        return known is not None and known() is sock and sock.fileno() == self.fd

    def belongs_to(self, sock: Any) -> None:
        self._socket = None
        if hasattr(sock, "fileno"):
            try:
                self._socket = weakref.ref(sock)
            except TypeError:
                # It takes no weak references: the kernel is asked in every turn.
                return


class _Asked(NamedTuple):
    """A channel that wants something in this turn."""

    key: Any
    channel: Channel
    socket: Any
    fd: int
    interest: int

    def is_still_in(self, map: Map) -> bool:
        """Neither replaced nor reconnected since it was asked?"""
        return (
            map.get(self.key) is self.channel
            and getattr(self.channel, "socket", None) is self.socket
        )


class SelectorLoop:
    """The selector of one map in one thread, and what it watches.

    ``turn`` may be called again from inside a handler. A turn compares all that is
    watched with the map, so any map may be given at any time; the same one again costs
    no registration.
    """

    _all: ClassVar[weakref.WeakSet[SelectorLoop]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._watched: dict[int, _Watched] = {}
        # Regular files: epoll refuses them, select() says that they are always ready.
        self._always: set[int] = set()
        # Numbers under which the kernel may still report a socket that was closed,
        # because somebody holds a duplicate: another process, a file_dispatcher.
        self._tainted: set[int] = set()
        SelectorLoop._all.add(self)

    def turn(self, timeout: float | None, map: Map, waker: Waker | None = None) -> None:
        """Ask the channels, wait at most *timeout* seconds, call what is ready.

        Args:
            timeout: None waits until something is ready.
            waker: ends the wait; with one, an empty map is waited for, too.

        Raises:
            ExitNow: and KeyboardInterrupt, SystemExit: from a handler. Also whatever
                a channel's ``readable`` or ``writable`` raises.
            TypeError: and ValueError: a channel wants to read or write, and its key in
                the map is no descriptor; as from select().

        Source: CPython 3.11, Lib/asyncore.py, poll(). A channel whose socket was
        closed without it gets ``handle_close``, as from poll2() there.
        """
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout={timeout!r} is negative")
        asked = _ask(map)
        if not asked and waker is None:
            if map:
                time.sleep(timeout)  # type: ignore[arg-type]  # None: as asyncore.poll
            return
        invalid = self._compare(asked, waker)
        ready = self._wait(0.0 if invalid else timeout)
        if waker is not None and ready.pop(waker.fileno(), 0):
            waker.handle_read_event()
        if ready:
            _call_ready(asked, ready, map)
        if invalid:
            _close_invalid(asked, invalid, map)

    def close(self) -> None:
        """Forget everything; another turn begins with a new selector."""
        if self._backend is not None:
            self._backend.close()
        self._forget()

    def _forget(self) -> None:
        self._backend = None
        self._watched.clear()
        self._always.clear()
        self._tainted.clear()

    def _compare(self, asked: list[_Asked], waker: Waker | None) -> set[int]:
        """Tell the kernel what has changed; return the descriptors that are closed."""
        wanted: dict[int, tuple[int, Any]] = {}
        for each in asked:
            interest, sock = wanted.get(each.fd, (0, each.socket))
            wanted[each.fd] = (interest | each.interest, sock)
        if waker is not None:
            wanted[waker.fileno()] = (IN, waker)
        for fd in self._watched.keys() - wanted.keys():
            self._drop(fd)
        invalid = set()
        for fd, (interest, sock) in wanted.items():
            watched = self._watched.get(fd)
            if (
                watched is None
                or watched.interest != interest
                or not watched.stands_for(sock)
            ) and not self._watch(fd, interest, sock):
                invalid.add(fd)
        return invalid

    def _watch(self, fd: int, interest: int, sock: Any) -> bool:
        """Register, or register anew. False if the descriptor is closed."""
        watched = self._watched.setdefault(fd, _Watched(fd))
        registered = watched.interest and fd not in self._always
        watched.interest, watched.edge = interest, False
        watched.belongs_to(sock)
        self._always.discard(fd)
        try:
            kept = self._open_backend().watch(fd, interest)
        except PermissionError:
            self._always.add(fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            self._drop(fd)
            return False
        else:
            if registered and not kept:
                self._tainted.add(fd)
        return True

    def _drop(self, fd: int) -> None:
        del self._watched[fd]
        if fd in self._always:
            self._always.remove(fd)
        elif not self._open_backend().forget(fd):
            self._tainted.add(fd)

    def _open_backend(self) -> Backend:
        if self._backend is None:
            self._backend = new_backend()
        return self._backend

    def _wait(self, seconds: float | None) -> dict[int, int]:
        """What is ready of what was asked for, by descriptor."""
        ready = {fd: self._watched[fd].interest & (IN | OUT) for fd in self._always}
        if ready:
            seconds = 0.0
        began = time.monotonic()
        left = seconds
        while True:
            events = self._open_backend().wait(left)
            ready.update(self._sift(events))
            if ready or not events:
                return ready
            # Only what select() would not have woken for: go on waiting.
            if seconds is not None:
                left = max(0.0, began + seconds - time.monotonic())

    def _sift(self, events: list[tuple[int, int]]) -> dict[int, int]:
        """Of what the kernel reports, that which select() would have reported."""
        ready: dict[int, int] = {}
        phantoms = False
        for fd, mask in events:
            watched = self._watched.get(fd)
            if watched is None:
                phantoms = True
                continue
            hit = _hit(watched.interest, mask)
            if not hit:
                watched.edge = True
                self._open_backend().quieten(fd, watched.interest)
                continue
            if watched.edge:
                watched.edge = False
                self._open_backend().watch(fd, watched.interest)
            ready[fd] = ready.get(fd, 0) | hit
        if self._tainted:
            phantoms |= self._clear_of_phantoms(ready)
        if phantoms:
            self._rebuild()
        return ready

    def _clear_of_phantoms(self, ready: dict[int, int]) -> bool:
        """Take out of *ready* what another socket reported; True if there was any."""
        suspects = {
            fd: self._watched[fd].interest for fd in ready if fd in self._tainted
        }
        if not suspects:
            return False
        truth = self._open_backend().truth(suspects)
        found = False
        for fd, interest in suspects.items():
            real = ready[fd] & _hit(interest, truth.get(fd, 0))
            found |= real != ready[fd]
            ready[fd] = real
            if not real:
                del ready[fd]
        return found

    def _rebuild(self) -> None:
        """Begin a new selector, the only way to be rid of what reports by mistake."""
        old = list(self._watched.values())
        self.close()
        for watched in old:
            self._watch(watched.fd, watched.interest, watched.socket)

    @classmethod
    def _after_fork_in_child(cls) -> None:
        # The kernel's table is the parent's: to unregister there would deafen it.
        for each in list(cls._all):
            each._forget()


def _ask(map: Map) -> list[_Asked]:
    asked = []
    for key, channel in list(map.items()):
        reads = channel.readable()
        writes = channel.writable()
        if not (reads or writes):
            continue
        interest = PRI
        if reads:
            interest |= IN
        # A listening socket is never writable; select() would report it at once.
        if writes and not channel.accepting:
            interest |= OUT
        sock = getattr(channel, "socket", None)
        asked.append(_Asked(key, channel, sock, _descriptor(key), interest))
    return asked


def _descriptor(key: Any) -> int:
    """What select() would make of a map's key, with select()'s errors."""
    if isinstance(key, int):
        fd = key
    elif hasattr(key, "fileno"):
        fd = key.fileno()
    else:
        raise TypeError(f"a descriptor or an object with fileno() is needed: {key!r}")
    if fd < 0:
        raise ValueError(f"a descriptor cannot be negative: {key!r}")
    return fd


def _hit(interest: int, mask: int) -> int:
    hit = interest & mask & PRI
    if interest & IN and mask & READABLE:
        hit |= IN
    if interest & OUT and mask & WRITABLE:
        hit |= OUT
    return hit


def _call_ready(asked: list[_Asked], ready: dict[int, int], map: Map) -> None:
    """All reads, then all writes, then all exceptional conditions.

    By asyncore's own functions, looked up each time: a program may have its own there.
    """
    active = [each for each in asked if ready.get(each.fd, 0) & each.interest]
    for each in active:
        if ready[each.fd] & each.interest & IN and each.is_still_in(map):
            asyncore.read(each.channel)
    for each in active:
        if ready[each.fd] & each.interest & OUT and each.is_still_in(map):
            asyncore.write(each.channel)
    for each in active:
        if ready[each.fd] & PRI and each.is_still_in(map):
            asyncore._exception(each.channel)


def _close_invalid(asked: list[_Asked], invalid: set[int], map: Map) -> None:
    """Tell the channels whose socket was closed behind their back.

    Source: CPython 3.11, Lib/asyncore.py, readwrite(), for POLLNVAL.
    """
    for each in asked:
        if each.fd not in invalid or not each.is_still_in(map):
            continue
        try:
            each.channel.handle_close()
        except (asyncore.ExitNow, KeyboardInterrupt, SystemExit):
            raise
        except Exception:
            each.channel.handle_error()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SelectorLoop._after_fork_in_child)
