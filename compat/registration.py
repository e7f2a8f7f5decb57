"""One channel's registration: its interest, and its descriptor in the kernel.

Rule 1: only a registration with cached interest holds its channel. Any other one holds
it from the end of a wait to the end of that turn; the reference to its socket is weak.
Rule 2: a report of changed interest may come from any thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any, Protocol
from weakref import ref

from compat._types import Map
from compat.descriptors import UNKNOWN, reference_to
from compat.wakeup import Waker

__all__ = ["NO_ATTRIBUTES", "Registration", "overridden"]

# The attributes of an object that has none.
NO_ATTRIBUTES: dict[str, Any] = {}


class Owner(Protocol):
    """The registrations of a map, as one of them uses them."""

    waker: Waker | None
    thread: int
    pending_updates: deque[Registration]

    def detach(self, registration: Registration) -> None:
        """Unregister a channel that leaves the map."""


class Registration:
    """A channel in the map, its cached interest, and its descriptor in the kernel."""

    __slots__ = (
        "_owner",
        "always_poll",
        "attributes",
        "channel",
        "channel_ref",
        "fd",
        "interest",
        "is_pending",
        "key",
        "kind",
        "known_interest",
        "position",
        "socket",
        "socket_ref",
    )

    channel: Any
    socket: Any
    attributes: dict[str, Any]

    def __init__(self, owner: Owner, key: Any) -> None:
        self._owner, self.key = owner, key
        # True if the interest is not cached: every turn polls the channel.
        self.always_poll = True
        # The channel that joined, if every turn polls it.
        self.channel_ref: Callable[[], Any] = _unknown
        # The class of a channel with cached interest.
        self.kind: type = object
        # The channel's position in the map.
        self.position = 0
        # The kernel's side: the descriptor, the interest (0: not registered), and a
        # reference to the socket for which that holds.
        self.fd, self.interest, self.socket_ref = -1, 0, reference_to(None)
        # The interest; -1 if the socket cannot be compared, so that no poll equals it.
        self.known_interest = -1
        self.let_go()
        # True if the next turn updates the interest.
        self.is_pending = False

    def interest_changed(self) -> None:
        """Update this channel's interest in the next turn, which begins at once."""
        owner = self._owner
        if not self.is_pending:
            self.is_pending = True
            owner.pending_updates.append(self)
        if get_ident() != owner.thread and owner.waker is not None:
            owner.waker.wake()

    def unregister(self) -> None:
        """Unregister the channel, which leaves the map with its socket still open."""
        self._owner.detach(self)

    def hold(self, channel: Any) -> None:
        """Hold the channel as it was polled."""
        self.channel = channel
        self.attributes = getattr(channel, "__dict__", NO_ATTRIBUTES)
        sock = self.socket_ref()
        self.socket = self.attributes.get("socket") if sock is UNKNOWN else sock

    def remember(self, channel: Any) -> None:
        """Let ``has_joined`` recognise this channel."""
        try:
            self.channel_ref = ref(channel)
        except TypeError:
            # An object without weak references.
            self.channel_ref = _unknown

    def has_joined(self, channel: Any) -> bool:
        """Return False for None, and if another channel has joined under this key."""
        known = self.channel_ref()
        return channel is not None and (known is channel or known is UNKNOWN)

    def let_go(self) -> None:
        """Hold nothing."""
        self.channel = self.socket = None
        self.attributes = NO_ATTRIBUTES

    def is_current(self, map: Map) -> bool:
        """Return whether channel and socket are the same as when it was polled."""
        return (
            self.channel is not None
            and map.get(self.key) is self.channel
            # Not an attribute of the class: another object may have a method or a
            # property named socket, which is another object each time.
            and self.attributes.get("socket") is self.socket
        )

    @property
    def is_orphaned(self) -> bool:
        """True if a fork has left the loop's thread in the parent."""
        return self._owner.waker is not None and self._owner.waker.is_orphaned


def overridden(registrations: Iterable[Registration]) -> list[Registration]:
    """Return those whose ``readable``, ``writable`` or class was replaced."""
    return [
        each
        for each in registrations
        if (
            "readable" in each.attributes
            or "writable" in each.attributes
            or type(each.channel) is not each.kind
        )
        and not each.always_poll
    ]


def _unknown() -> object:
    return UNKNOWN
