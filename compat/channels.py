"""What a loop knows of a channel, and of the map that holds it.

Rule 1: a channel is whatever has the methods; it need not be a dispatcher.
Rule 2: the map is the caller's: any mutable mapping, changed at any time by anybody.
"""

from __future__ import annotations

import asyncore
from collections.abc import MutableMapping
from typing import Any, Protocol, TypeAlias

__all__ = ["LEAVES", "Channel", "Map"]

# What leaves a loop when a handler raises it. As in asyncore, these are the classes of
# the import, whatever a program assigns to asyncore.ExitNow later.
LEAVES = (asyncore.ExitNow, KeyboardInterrupt, SystemExit)


class Channel(Protocol):
    """The part of ``asyncore.dispatcher`` that a loop asks and calls."""

    accepting: bool

    def readable(self) -> Any: ...
    def writable(self) -> Any: ...
    def handle_read_event(self) -> None: ...
    def handle_write_event(self) -> None: ...
    def handle_expt_event(self) -> None: ...
    def handle_close(self) -> None: ...
    def handle_error(self) -> None: ...


# Keys are descriptors; asyncore also lets them be objects with a fileno().
Map: TypeAlias = MutableMapping[Any, Any]
