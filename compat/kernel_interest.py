"""The interest that the kernel knows: for each descriptor, that of all its channels.

Rule 1: a map may hold several channels on one descriptor, under a number and under an
object with a ``fileno()``. The kernel's interest is the union of theirs.
Rule 2: the kernel is called only where interest or socket has changed, and to verify.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from compat.descriptors import UNKNOWN, Descriptors, reference_to
from compat.pollers import IN, READ_ONLY
from compat.registration import Registration
from compat.wakeup import Waker

__all__ = ["KernelInterest"]


class KernelInterest:
    """The registrations of a map by descriptor.

    Attributes:
        by_fd: the registrations that have interest.
        read_only: the channels with cached interest that only want to read, alone on
            their descriptor: nearly all, nearly always.
        closed: the channels whose descriptor was closed without them.
    """

    def __init__(self, descriptors: Descriptors) -> None:
        self.descriptors = descriptors
        self.by_fd: dict[int, tuple[Registration, ...]] = {}
        self.read_only: dict[int, Registration] = {}
        self.closed: list[Registration] = []

    def clear(self) -> None:
        """Drop all registrations; the kernel keeps its own."""
        for held in (self.by_fd, self.read_only, self.closed):
            held.clear()

    def has(self, waker: Waker) -> bool:
        """Return whether the waker is registered, under its current number."""
        return self.descriptors.is_registered(waker.fileno(), IN, waker)

    def take_closed(self) -> list[Registration]:
        """Return the closed ones, for dispatch; each poll finds them again."""
        closed, self.closed = self.closed, []
        return closed

    def set(
        self, registration: Registration, fd: int, interest: int, sock: Any
    ) -> None:
        """Store a channel's interest and apply it to the kernel."""
        if registration.interest:
            sharing = self.by_fd.pop(registration.fd)
            if len(sharing) > 1:
                others = (each for each in sharing if each is not registration)
                self.by_fd[registration.fd] = tuple(others)
            if registration.fd != fd:
                self.apply(registration.fd)
        registration.fd, registration.interest = fd, interest
        registration.socket_ref = reference = reference_to(sock if interest else None)
        is_comparable = not interest or reference() is not UNKNOWN
        registration.known_interest = interest if is_comparable else -1
        if interest:
            self.by_fd[fd] = (*self.by_fd.get(fd, ()), registration)
        self.apply(fd)

    def apply(self, fd: int, *, anew: bool = False) -> None:
        """Apply the joint interest of all channels on a descriptor to the kernel."""
        sharing = self.by_fd.get(fd)
        self.read_only.pop(fd, None)
        if sharing is None:
            self.descriptors.unregister(fd)
            return
        first = sharing[0]
        interest = first.interest
        if len(sharing) > 1:
            interest = reduce(or_, [each.interest for each in sharing])
        elif interest == READ_ONLY and not first.always_poll:
            self.read_only[fd] = first
        sock = first.socket_ref()
        if not anew and self.descriptors.is_registered(fd, interest, sock):
            return
        if not self.descriptors.register(fd, interest, sock):
            self.closed += [each for each in sharing if each not in self.closed]
            for each in sharing:
                # The next poll finds it closed again.
                each.known_interest = -1

    def sync(self, waker: Waker | None) -> None:
        """Register the waker, drop leftover registrations, verify some others."""
        waker_fd = -1 if waker is None else waker.fileno()
        if waker is not None and not self.has(waker):
            self.descriptors.register(waker_fd, IN, waker)
        for fd in self.descriptors.fds() - self.by_fd.keys() - {waker_fd}:
            self.descriptors.unregister(fd)
        # dup2 may have put another open file under a registered number.
        for fd in self.descriptors.next_to_verify():
            if fd in self.by_fd:
                self.apply(fd, anew=True)
