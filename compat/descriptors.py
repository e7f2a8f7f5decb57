"""Descriptors that stay registered although the kernel reuses their numbers.

Rule 1: a registration is compared with its socket, never with the number alone. An
object that cannot be compared is registered again with the kernel each time.
Rule 2: exactly the events that would wake select() end the wait.
Rule 3: an unregistered descriptor, or one of a replaced socket, may report stale
events. They cause a rebuild of the poller; they are never returned and never spin.
Rule 4: nothing here keeps a socket alive.
"""

from __future__ import annotations

import errno
import time
import weakref
from collections.abc import Callable, KeysView, Mapping
from typing import Any, ClassVar, TypeVar

from compat.forks import at_fork
from compat.pollers import IN, OUT, PRI, READABLE, WRITABLE, Poller, new_poller

__all__ = ["UNKNOWN", "Descriptors", "descriptor_of", "reference_to"]

T = TypeVar("T")

# This many calls of next_to_verify() return all descriptors.
VERIFYING_CALLS = 10

# The referent of a reference to a socket that cannot be compared.
UNKNOWN = object()


class Entry:
    """A registered descriptor, and the socket that it was registered for."""

    __slots__ = ("_socket", "fd", "interest", "is_edge_triggered")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.interest = 0
        # Set because the descriptor kept reporting events outside of its interest.
        self.is_edge_triggered = False
        self._socket: Callable[[], Any] = _unknown

    @property
    def socket(self) -> Any:
        """The socket; None once it is collected, UNKNOWN without weak references."""
        return self._socket()

    @socket.setter
    def socket(self, sock: Any) -> None:
        self._socket = reference_to(sock)

    def is_for(self, sock: Any) -> bool:
        """Return whether it was registered for this very socket; False if unknown."""
        known = self._socket()
        is_comparable = known is not None and known is not UNKNOWN
        return is_comparable and known is sock and bool(sock.fileno() == self.fd)


# How stale events arise. epoll registers open files and identifies each one by its
# descriptor at registration. Closing the last descriptor of an open file silently
# drops the registration. Closing one of several (a duplicate, a forked child's copy)
# keeps it: events continue under a number that is free, or already another socket's.
# Such a registration cannot be removed, because removal needs the descriptor. The two
# cases look alike when they happen. Therefore a number that was seen closed is
# *tainted*: poll() compares its events with select.poll(), which knows no
# registrations, and the first stale event makes it build a new epoll object.


class Descriptors:
    """A poller and its registrations, kept between two loops."""

    _all: ClassVar[weakref.WeakSet[Descriptors]] = weakref.WeakSet()

    def __init__(self) -> None:
        # None before the first registration, and in the child of a fork.
        self.poller: Poller | None = None
        # The descriptors to register once more, because dup2 may have replaced them.
        self._to_verify: list[int] = []
        self._entries: dict[int, Entry] = {}
        # Regular files: epoll rejects them, select() reports them as always ready.
        self._always_ready: set[int] = set()
        self._tainted: set[int] = set()
        Descriptors._all.add(self)

    def fds(self) -> KeysView[int]:
        """Return the registered descriptors."""
        return self._entries.keys()

    def is_for(self, fd: int, sock: Any) -> bool:
        """Return whether the descriptor is registered for this very socket."""
        entry = self._entries.get(fd)
        return entry is not None and entry.is_for(sock)

    def is_registered(self, fd: int, interest: int, sock: Any) -> bool:
        """Return whether exactly this interest is registered for this very socket."""
        entry = self._entries.get(fd)
        return entry is not None and entry.interest == interest and entry.is_for(sock)

    def next_to_verify(self) -> list[int]:
        """Return a tenth of the descriptors, another one each time."""
        self._to_verify = self._to_verify or list(self._entries)
        count = len(self._entries) // VERIFYING_CALLS + 1
        found, self._to_verify = self._to_verify[:count], self._to_verify[count:]
        return found

    def register(self, fd: int, interest: int, sock: Any) -> bool:
        """Register or modify; False if the descriptor is closed."""
        entry = self._entries.setdefault(fd, Entry(fd))
        was_registered = entry.interest > 0 and fd not in self._always_ready
        entry.interest, entry.is_edge_triggered, entry.socket = interest, False, sock
        self._always_ready.discard(fd)
        try:
            modified = self._open().register(fd, interest, was_registered)
        except PermissionError:
            self._always_ready.add(fd)
            modified = False
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            self.unregister(fd)
            return False
        if was_registered and not modified:
            self._tainted.add(fd)
        return True

    def unregister(self, fd: int) -> None:
        """Unregister *fd*. Does nothing if it is not registered."""
        if self._entries.pop(fd, None) is None:
            return
        if fd in self._always_ready:
            self._always_ready.remove(fd)
        elif not self._open().unregister(fd):
            self._tainted.add(fd)

    def poll(
        self, seconds: float | None, read_only: Mapping[int, T], hang_ups: bool = False
    ) -> tuple[list[T], dict[int, int]]:
        """Wait for events, at most *seconds*; None for no limit.

        Args:
            read_only: the objects of the descriptors that are registered for reading
                only. In nearly every turn, only these report, and only IN. Then no
                event needs filtering.
            hang_ups: report HUP and ERR for any interest, as poll() does.

        Returns:
            (the ready objects of *read_only*, {}) in that case. Otherwise ([],
            {descriptor: events}) with IN, OUT and PRI; with *hang_ups*, also HUP, ERR.
        """
        entries, ready = self._entries, {}
        if self._always_ready:
            ready = {fd: entries[fd].interest & (IN | OUT) for fd in self._always_ready}
            seconds = 0.0
        while True:
            poller, began = self.poller or self._open(), time.monotonic()
            events = poller.poll(seconds, len(entries))
            if poller is not self.poller:
                # A signal handler has forked, and this is the child.
                return [], {}
            if not ready and not self._tainted:
                found: Any = [read_only.get(fd) for fd, mask in events if mask == IN]
                if len(found) == len(events) and None not in found:
                    return found, ready
            ready.update(self._sift(events, hang_ups))
            if ready or not events:
                return [], ready
            # Only events that would not wake select(): continue to wait.
            if seconds is not None:
                seconds = max(0.0, seconds - (time.monotonic() - began))

    def close(self) -> None:
        """Drop all registrations; the next one opens a new poller."""
        poller = self.poller
        self.forget()
        if poller is not None:
            poller.close()

    def forget(self) -> None:
        """Drop all registrations without closing the poller."""
        # In this order, because Ctrl+C may interrupt it. A later event reveals a
        # descriptor that is registered but not listed. Nothing reveals the opposite.
        self._entries.clear()
        self._always_ready.clear()
        self._tainted.clear()
        self.poller = None

    def _open(self) -> Poller:
        if self.poller is None:
            self.poller = new_poller()
        return self.poller

    def _sift(self, events: list[tuple[int, int]], hang_ups: bool) -> dict[int, int]:
        # Returns the events that select() would report. With hang_ups, those that
        # poll() would report: the same as epoll's.
        ready: dict[int, int] = {}
        real = self._without_stale(events) if self._tainted else events
        is_stale = real != events
        for fd, mask in real:
            entry = self._entries.get(fd)
            if entry is None:
                is_stale = True
                continue
            if not (mask & ~entry.interest or entry.is_edge_triggered):
                # kqueue reports reading and writing separately.
                ready[fd] = ready.get(fd, 0) | mask
                continue
            hit = mask if hang_ups else _hit(entry.interest, mask)
            if hit:
                ready[fd] = ready.get(fd, 0) | hit
            # A modified descriptor reports once more, so modify only if necessary.
            if entry.is_edge_triggered and hit:
                entry.is_edge_triggered = False
                self._open().register(fd, entry.interest, known=True)
            elif not entry.is_edge_triggered and not hit:
                entry.is_edge_triggered = True
                self._open().set_edge_triggered(fd, entry.interest)
        if is_stale:
            self._rebuild()
        return ready

    def _without_stale(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        suspects = {fd for fd, _ in events} & self._tainted & self._entries.keys()
        if not suspects:
            return events
        now = self._open().poll_now(dict.fromkeys(suspects, IN | PRI | OUT))
        return [
            (fd, real)
            for fd, mask in events
            if (real := mask & now.get(fd, 0) if fd in suspects else mask)
        ]

    def _rebuild(self) -> None:
        # Registering everything with a new poller is the only way to end stale events.
        entries = list(self._entries.values())
        self.close()
        for entry in entries:
            self.register(entry.fd, entry.interest, entry.socket)

    @classmethod
    def after_fork_in_child(cls) -> None:
        """Leave the kernel's table alone: the child shares it with the parent."""
        for each in list(cls._all):
            each.forget()


def reference_to(sock: Any) -> Callable[[], Any]:
    """Return a weak reference to a socket; UNKNOWN stands for one without them.

    The kernel has to register such a socket again each time.
    """
    try:
        return weakref.ref(sock) if hasattr(sock, "fileno") else _unknown
    except TypeError:
        return _unknown


def descriptor_of(key: Any) -> int:
    """Return the descriptor of a map's key, with select()'s errors."""
    if isinstance(key, int):
        fd = key
    elif hasattr(key, "fileno"):
        fd = key.fileno()
    else:
        raise TypeError(f"a descriptor or an object with fileno() is needed: {key!r}")
    if fd < 0:
        raise ValueError(f"a descriptor cannot be negative: {key!r}")
    return fd


def _unknown() -> object:
    return UNKNOWN


def _hit(interest: int, mask: int) -> int:
    hit = interest & mask & PRI
    if interest & IN and mask & READABLE:
        hit |= IN
    if interest & OUT and mask & WRITABLE:
        hit |= OUT
    return hit


def _after_fork_in_child() -> None:
    Descriptors.after_fork_in_child()


at_fork(after_in_child=_after_fork_in_child)
