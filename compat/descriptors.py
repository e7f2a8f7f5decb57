"""Descriptors that stay registered, though the kernel gives their numbers out again.

Rule 1: what is registered is compared with the socket, never with the number alone.
What cannot be compared is asked of the kernel anew.
Rule 2: what select() would not wake for does not end the wait, and what it would wake
for does.
Rule 3: what reports without being registered, or in the name of a socket that is no
longer there, has the selector rebuilt; it is never reported, and never spins.
Rule 4: nothing here keeps a socket alive.

How a number comes to lie. epoll registers open files, and names them by the descriptor
they had at that moment. Close the last descriptor of an open file, and the registration
is gone, silently. Close one of several (a duplicate, a forked child's), and it stays:
events go on coming under a number that is free, or by now another socket's. It can be
unregistered no more, for that takes the descriptor. Nothing tells the two cases apart
when it happens; so a number that was seen closed is *tainted*, and what it reports is
checked with poll(), until a new selector is built.
"""

from __future__ import annotations

import errno
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from compat.backends import IN, OUT, PRI, READABLE, WRITABLE, Backend, new_backend
from compat.forks import at_fork

__all__ = ["Descriptors"]

T = TypeVar("T")


class Watched:
    """A descriptor that the kernel watches, and the socket for whose sake."""

    __slots__ = ("_socket", "edge", "fd", "interest")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.interest = 0
        # Reports only changes, because it kept reporting what nobody asked for.
        self.edge = False
        self._socket: Callable[[], Any] | None = None

    @property
    def socket(self) -> Any:
        """The socket, while it lives and if it can be known."""
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
                # It takes no weak references, so it is asked of the kernel each time.
                return


class Descriptors:
    """A selector, and all that was told to it."""

    _all: ClassVar[weakref.WeakSet[Descriptors]] = weakref.WeakSet()

    def __init__(self) -> None:
        # None before the first is watched, and in the child of a fork.
        self.backend: Backend | None = None
        self._watched: dict[int, Watched] = {}
        # Regular files: epoll refuses them, select() says that they are always ready.
        self._always: set[int] = set()
        self._tainted: set[int] = set()
        Descriptors._all.add(self)

    def __iter__(self) -> Iterator[int]:
        return iter(self._watched)

    def __len__(self) -> int:
        return len(self._watched)

    def stands_for(self, fd: int, sock: Any) -> bool:
        """Is the descriptor watched for this very socket?"""
        watched = self._watched.get(fd)
        return watched is not None and watched.stands_for(sock)

    def watches(self, fd: int, interest: int, sock: Any) -> bool:
        """Is this what is registered, for this very socket?"""
        watched = self._watched.get(fd)
        return (
            watched is not None
            and watched.interest == interest
            and watched.stands_for(sock)
        )

    def watch(self, fd: int, interest: int, sock: Any) -> bool:
        """Register, or register anew. False if the descriptor is closed."""
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
        """Watch it no more. Harmless if it is not watched."""
        if self._watched.pop(fd, None) is None:
            return
        if fd in self._always:
            self._always.remove(fd)
        elif not self._open().forget(fd):
            self._tainted.add(fd)

    def wait(
        self, seconds: float | None, quiet: Mapping[int, T], hang_ups: bool = False
    ) -> tuple[list[T], dict[int, int]]:
        """What is ready of what was asked for.

        Args:
            quiet: what stands behind the descriptors that are watched for reading. If
                only those report, and only that, as in nearly every turn, there is
                nothing to sift.
            hang_ups: report HUP and ERR too, as poll() does, whatever was asked for.

        Returns:
            in that case what stands behind them, and nothing; otherwise nothing, and
            {descriptor: IN, OUT and PRI; with *hang_ups*, HUP and ERR}.
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
            # Only what select() would not have woken for: go on waiting.
            if seconds is not None:
                left = max(0.0, began + seconds - time.monotonic())

    def close(self) -> None:
        """Forget everything; what is watched next is watched by a new selector."""
        backend = self.backend
        self._forget()
        if backend is not None:
            backend.close()

    def _forget(self) -> None:
        # In this order, for Ctrl+C may come in between: what a backend still watches is
        # found out; what none watches any more is not to be taken for watched.
        self._watched.clear()
        self._always.clear()
        self._tainted.clear()
        self.backend = None

    def _open(self) -> Backend:
        if self.backend is None:
            self.backend = new_backend()
        return self.backend

    def _sift(self, events: list[tuple[int, int]], hang_ups: bool) -> dict[int, int]:
        """Of what the kernel reports, that which select() would have reported.

        Or poll(), with *hang_ups*, which reports all that epoll does.
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
                # kqueue reports reading and writing apart.
                ready[fd] = ready.get(fd, 0) | mask
                continue
            hit = mask if hang_ups else _hit(watched.interest, mask)
            if hit:
                ready[fd] = ready.get(fd, 0) | hit
            # What is changed reports once more, so it is changed only if need be.
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
        """The events without what another socket reported; was there any of that?"""
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
        """Begin a new selector, the only way to be rid of what reports by mistake."""
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
    # The kernel's table is the parent's: to unregister there would deafen it.
    for each in list(Descriptors._all):
        each._forget()


at_fork(after_in_child=_after_fork_in_child)
