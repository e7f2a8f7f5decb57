"""A persistent epoll loop as most people would write it: the traps are laid for it.

The loop registers a descriptor when the map gains it, unregisters it when the map loses
it, and dispatches events in the order in which epoll reports them. Its faults are not
obvious; test_traps_are_traps.py shows them.
"""

from __future__ import annotations

import asyncore
import contextlib
import select
from typing import Any

__all__ = ["NaiveLoop"]


class NaiveLoop:
    """asyncore.poll2 with a persistent epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._flags: dict[Any, int] = {}

    def turn(self, timeout: float, map: Any) -> None:
        """Update the registrations from the map, wait, and dispatch the events."""
        for fd in [fd for fd in self._flags if fd not in map]:
            del self._flags[fd]
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
        for fd, channel in list(map.items()):
            flags = 0
            if channel.readable():
                flags |= select.EPOLLIN | select.EPOLLPRI
            if channel.writable() and not channel.accepting:
                flags |= select.EPOLLOUT
            if fd not in self._flags:
                self._epoll.register(fd, flags)
            elif flags != self._flags[fd]:
                self._epoll.modify(fd, flags)
            self._flags[fd] = flags
        for fd, flags in self._epoll.poll(timeout):
            channel = map.get(fd)
            if channel is not None:
                asyncore.readwrite(channel, flags)

    def close(self) -> None:
        self._epoll.close()
