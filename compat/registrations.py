"""Descriptors that stay registered although the kernel reuses their numbers.

Rule 1: a registration is compared with its socket, never with the number alone. An
object that cannot be compared is registered again with the kernel each time.
Rule 2: exactly the events that would wake select() end the wait.
Rule 3: an unregistered descriptor, or one of a replaced socket, may report stale
events. They cause a rebuild of the selector; they are never reported and never spin.
Rule 4: nothing here keeps a socket alive.

How stale events arise. epoll registers open files and identifies each by its descriptor
at registration. Closing the last descriptor of an open file silently drops the
registration. Closing one of several (a duplicate, a forked child's copy) keeps it:
events continue under a number that is free, or already another socket's. Such a
registration cannot be removed, because removal needs the descriptor. The two cases look
alike when they happen. Therefore a number that was seen closed is *tainted*: poll()
checks its events until a new selector is built.
"""

from __future__ import annotations

import errno
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from compat.forks import at_fork
from compat.pollers import IN, OUT, PRI, READABLE, WRITABLE, Backend, new_backend

__all__ = ["Descriptors"]

T = TypeVar("T")


class Watched:
    """A registered descriptor, and the socket that it was registered for."""

    __slots__ = ("_socket", "edge", "fd", "interest")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.interest = 0
        # Edge-triggered, because it kept reporting events outside of its interest.
        self.edge = False
        self._socket: Callable[[], Any] | None = None

    @property
    def socket(self) -> Any:
        """The socket; None once it is collected, or if it takes no weak reference."""
        return self._socket and self._socket()

    def stands_for(self, sock: Any) -> bool:
        """Return whether it was registered for this very socket; False if unknown."""
        known = self._socket
        return known is not None and known() is sock and sock.fileno() == self.fd

    def belongs_to(self, sock: Any) -> None:
        self._socket = None
        if hasattr(sock, "fileno"):
            try:
                self._socket = weakref.ref(sock)
            except TypeError:
                # No weak references: the kernel has to register it again each time.
                return


class Descriptors:
    """A selector and its registrations."""

    _all: ClassVar[weakref.WeakSet[Descriptors]] = weakref.WeakSet()

    def __init__(self) -> None:
        # None before the first registration, and in the child of a fork.
        self.backend: Backend | None = None
        self._watched: dict[int, Watched] = {}
        # Regular files: epoll rejects them, select() reports them as always ready.
        self._always: set[int] = set()
        self._tainted: set[int] = set()
        Descriptors._all.add(self)

    def __iter__(self) -> Iterator[int]:
        return iter(self._watched)

    def __len__(self) -> int:
        return len(self._watched)

    def stands_for(self, fd: int, sock: Any) -> bool:
        """Return whether the descriptor is registered for this very socket."""
        watched = self._watched.get(fd)
        return watched is not None and watched.stands_for(sock)

    def watches(self, fd: int, interest: int, sock: Any) -> bool:
        """Return whether exactly this interest is registered for this very socket."""
        watched = self._watched.get(fd)
        return (
            watched is not None
            and watched.interest == interest
            and watched.stands_for(sock)
        )

    def watch(self, fd: int, interest: int, sock: Any) -> bool:
        """Register or modify; False if the descriptor is closed."""
        watched = self._watched.setdefault(fd, Watched(fd))
        registered = watched.interest and fd not in self._always
        watched.interest, watched.edge = interest, False
        watched.belongs_to(sock)
        self._always.discard(fd)
        try:
            kept = self._open().watch(fd, interest)
        except PermissionError:
            self._always.add(fd)
            if registered:
                self._tainted.add(fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            self.drop(fd)
            return False
        else:
            if registered and not kept:
                self._tainted.add(fd)
        return True

    def drop(self, fd: int) -> None:
        """Unregister *fd*. Does nothing if it is not registered."""
        if self._watched.pop(fd, None) is None:
            return
        if fd in self._always:
            self._always.remove(fd)
        elif not self._open().forget(fd):
            self._tainted.add(fd)

    def wait(
        self, seconds: float | None, quiet: Mapping[int, T], hang_ups: bool = False
    ) -> tuple[list[T], dict[int, int]]:
        """Wait for events, at most *seconds*; None for no limit.

        Args:
            quiet: the objects of the descriptors that are registered for reading only.
                In nearly every turn, only these report, and only IN. Then no event
                needs filtering.
            hang_ups: report HUP and ERR too, whatever the interest, as poll() does.

        Returns:
            (the ready objects of *quiet*, {}) in that case. Otherwise ([], {descriptor:
            events}) with IN, OUT and PRI; with *hang_ups*, also HUP and ERR.
        """
        ready = {fd: self._watched[fd].interest & (IN | OUT) for fd in self._always}
        if ready:
            seconds = 0.0
        began = time.monotonic()
        left = seconds
        while True:
            backend = self._open()
            events = backend.wait(left)
            if backend is not self.backend:
                # A signal handler has forked, and this is the child.
                return [], {}
            if not ready and not self._tainted:
                found: list[Any] = [quiet.get(fd) for fd, mask in events if mask == IN]
                if len(found) == len(events) and None not in found:
                    return found, ready
            ready.update(self._sift(events, hang_ups))
            if ready or not events:
                return [], ready
            # Only events that would not wake select(): continue to wait.
            if seconds is not None:
                left = max(0.0, began + seconds - time.monotonic())

    def close(self) -> None:
        """Drop all registrations; the next one creates a new selector."""
        backend = self.backend
        self._forget()
        if backend is not None:
            backend.close()

    def _forget(self) -> None:
        # In this order, because Ctrl+C may interrupt it. A later event reveals a
        # descriptor that is registered but not listed. Nothing reveals the opposite.
        self._watched.clear()
        self._always.clear()
        self._tainted.clear()
        self.backend = None

    def _open(self) -> Backend:
        if self.backend is None:
            self.backend = new_backend()
        return self.backend

    def _sift(self, events: list[tuple[int, int]], hang_ups: bool) -> dict[int, int]:
        """Return the events that select() would report.

        With *hang_ups*, the events that poll() would report: the same as epoll's.
        """
        ready: dict[int, int] = {}
        phantoms = False
        if self._tainted:
            events, phantoms = self._without_phantoms(events)
        for fd, mask in events:
            watched = self._watched.get(fd)
            if watched is None:
                phantoms = True
                continue
            if not (mask & ~watched.interest or watched.edge):
                # kqueue reports reading and writing separately.
                ready[fd] = ready.get(fd, 0) | mask
                continue
            hit = mask if hang_ups else _hit(watched.interest, mask)
            if hit:
                ready[fd] = ready.get(fd, 0) | hit
            # A modified descriptor reports once more, so modify only if necessary.
            if watched.edge and hit:
                watched.edge = False
                self._open().watch(fd, watched.interest)
            elif not watched.edge and not hit:
                watched.edge = True
                self._open().quieten(fd, watched.interest)
        if phantoms:
            self._rebuild()
        return ready

    def _without_phantoms(
        self, events: list[tuple[int, int]]
    ) -> tuple[list[tuple[int, int]], bool]:
        """Return the events without stale ones, and whether there were stale events."""
        suspects = {
            fd: IN | PRI | OUT
            for fd, _ in events
            if fd in self._tainted and fd in self._watched
        }
        if not suspects:
            return events, False
        truth = self._open().truth(suspects)
        real = []
        found = False
        for fd, mask in events:
            true = mask & truth.get(fd, 0) if fd in suspects else mask
            found |= true != mask
            if true:
                real.append((fd, true))
        return real, found

    def _rebuild(self) -> None:
        """Register everything with a new selector, the only way to end stale events."""
        old = list(self._watched.values())
        self.close()
        for watched in old:
            self.watch(watched.fd, watched.interest, watched.socket)


def _hit(interest: int, mask: int) -> int:
    hit = interest & mask & PRI
    if interest & IN and mask & READABLE:
        hit |= IN
    if interest & OUT and mask & WRITABLE:
        hit |= OUT
    return hit


def _after_fork_in_child() -> None:
    # The kernel's table is shared with the parent: unregistering would affect it too.
    for each in list(Descriptors._all):
        each._forget()


at_fork(after_in_child=_after_fork_in_child)
