"""The interfaces of a channel and of the map that holds it.

Rule 1: a channel is any object with these methods; it need not be a dispatcher.
Rule 2: the map belongs to the caller. It is any mutable mapping, and any code may
change it at any time.
"""

from __future__ import annotations

import asynchat
import asyncore
from collections.abc import MutableMapping
from typing import Any, Protocol, TypeAlias

__all__ = ["LEAVES", "Channel", "Group", "Map", "Notified", "Original", "Writer"]

# The exceptions that end a loop when a handler raises them. As in asyncore, these are
# the classes at import: a later assignment to asyncore.ExitNow changes nothing.
LEAVES = (asyncore.ExitNow, KeyboardInterrupt, SystemExit)

# asynchat's own class, also while another one is installed in its place.
Original = asynchat.async_chat


class Channel(Protocol):
    """The part of ``asyncore.dispatcher`` that a loop uses."""

    accepting: bool

    def readable(self) -> Any: ...
    def writable(self) -> Any: ...
    def handle_read_event(self) -> None: ...
    def handle_write_event(self) -> None: ...
    def handle_expt_event(self) -> None: ...
    def handle_close(self) -> None: ...
    def handle_error(self) -> None: ...


class Notified(Protocol):
    """A channel's registration with its loop, as the channel uses it."""

    @property
    def is_orphaned(self) -> bool:
        """True if a fork has left the loop's thread in the parent."""

    def interest_changed(self) -> None:
        """Update the channel's interest; from another thread, also end the wait."""

    def unregister(self) -> None:
        """Unregister the channel, whose socket is about to be closed."""


class ReadGate(Protocol):
    """Decides which channels read in a turn: a broadcast group, for example.

    Attributes:
        limits_reads: False while every channel may read.
    """

    limits_reads: bool

    def may_read(self, channel: Any, /) -> bool:
        """Return whether *channel* may read; False if it must wait for a later turn."""


class Writer(Protocol):
    """An outbox or broadcast group that flushes at the end of a turn."""

    def flush(self) -> None:
        """Flush. A second call does nothing."""


class Group(Writer, Protocol):
    """A broadcast group, as schedulers and its members' outboxes use it."""

    @property
    def has_log(self) -> bool:
        """True if this turn has begun a log that is not flushed yet."""

    def append_private(self, channel: Any, data: bytes) -> bool: ...
    def flush_to(self, channel: Any) -> None: ...
    def discard(self, channel: Any, /) -> None: ...


# Keys are descriptors; asyncore also accepts objects with a fileno().
Map: TypeAlias = MutableMapping[Any, Any]
