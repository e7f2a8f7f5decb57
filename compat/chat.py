"""``async_chat`` that announces: it tells its loop when its interest may have changed.

asyncore asks every channel in every turn. A channel that announces need not be asked:
its loop keeps the last answer until the channel announces, or is called.

Rule 1: announcing says that the loop should ask, never what the answer will be.
Rule 2: it is the original class underneath, and its methods do what they did.
Rule 3: no method needs ``self`` to be of this class. Once it is installed in asynchat,
a class that was derived from the original before calls these as its base class's.
"""

from __future__ import annotations

import asynchat
from typing import Any, Protocol

from compat.schedule import wake_other_thread

__all__ = ["announce", "announces", "async_chat"]

Original = asynchat.async_chat


class Board(Protocol):
    """Where a loop finds what was announced to it."""

    def announce(self) -> None:
        """Ask the channel again; and end the wait, if another thread says so."""


class async_chat(Original):  # noqa: N801  # the original's name
    """The original, and it announces.

    Everything that the original's ``readable`` and ``writable`` look at is announced
    when a method changes it. A subclass that has a ``readable`` or ``writable`` of its
    own is asked in every turn, as asyncore does. One that changes ``producer_fifo`` by
    hand outside of its handlers calls ``announce()`` afterwards, or is found out
    within a tenth of a second.
    """

    # The loop that turns it, once that has asked it.
    _board: Board | None = None

    def announce(self) -> None:
        """Let the loop ask again."""
        announce(self)

    def push(self, data: Any) -> None:
        Original.push(self, data)
        announce(self)

    def push_with_producer(self, producer: Any) -> None:
        Original.push_with_producer(self, producer)
        announce(self)

    def close_when_done(self) -> None:
        Original.close_when_done(self)
        announce(self)

    def discard_buffers(self) -> None:
        Original.discard_buffers(self)
        announce(self)

    def connect(self, address: Any) -> None:
        Original.connect(self, address)
        announce(self)

    def add_channel(self, map: Any = None) -> None:
        Original.add_channel(self, map)
        announce(self)

    def del_channel(self, map: Any = None) -> None:
        Original.del_channel(self, map)
        announce(self)

    def close(self) -> None:
        Original.close(self)
        announce(self)


def announce(channel: Any) -> None:
    """Tell the loop that turns *channel*, if one does, to ask it again."""
    board: Board | None = getattr(channel, "_board", None)
    if board is not None:
        board.announce()
    else:
        # A loop that asks everybody does so when its wait ends, and a loop that does
        # not know the channel yet finds it then.
        wake_other_thread(getattr(channel, "_map", None))


def announces(channel: Any) -> bool:
    """May a loop keep this channel's answers until it announces?"""
    kind = type(channel)
    return (
        isinstance(channel, async_chat)
        and kind.readable is Original.readable
        and kind.writable is Original.writable
        and "readable" not in vars(channel)
        and "writable" not in vars(channel)
    )
