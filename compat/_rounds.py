"""Rounds of reads: which channels may read once a turn has received enough.

Rule 1: a turn that has received enough refuses all further channels. It begins a round,
which lasts until a turn refuses no channel. In a round, only the channels that the turn
before has refused may read, so that each of them reads before any reads again.
Rule 2: a turn that has received enough still makes SHORT_READS short reads, so that
chatting clients do not wait for bulk senders. Short reads have their own rounds.
Rule 3: nothing here keeps a channel alive.
"""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakSet

__all__ = ["SHORT_READ", "SHORT_READS", "Rounds"]

# Bytes: a read is short if the socket holds no more than this.
SHORT_READ = 1024
# Short reads of a turn that has received enough.
SHORT_READS = 16


class Rounds:
    """The rounds of one broadcast group."""

    def __init__(self) -> None:
        self._reads, self._short_reads = _Round(), _Round()
        # This turn's short reads beyond the limit.
        self._short_count = 0

    def may_read(self, channel: Any, *, log_is_full: bool) -> bool:
        """Return whether *channel* may read in this turn."""
        is_admitted = self._reads.admits(channel)
        if is_admitted and not log_is_full:
            return True
        if self._short_reads.admits(channel):
            if self._short_count == SHORT_READS:
                self._short_reads.refuse(channel)
            elif _has_little_to_read(channel):
                self._short_count += 1
                return True
        if is_admitted:
            self._reads.refuse(channel)
        return False

    def end_turn(self) -> bool:
        """Continue or end the rounds; return whether one lasts."""
        self._short_count = 0
        lasting = [each.end_turn() for each in (self._reads, self._short_reads)]
        return any(lasting)


class _Round:
    def __init__(self) -> None:
        self._lasts = False
        # The channels that the last turn has refused, and those that this one has.
        self._waiting: WeakSet[Any] = WeakSet()
        self._refused: WeakSet[Any] = WeakSet()

    def admits(self, channel: Any) -> bool:
        return not self._lasts or channel in self._waiting

    def refuse(self, channel: Any) -> None:
        self._refused.add(channel)

    def end_turn(self) -> bool:
        self._waiting, self._refused = self._refused, WeakSet()
        self._lasts = bool(self._waiting)
        return self._lasts


def _has_little_to_read(channel: Any) -> bool:
    # Over TLS, decrypted data has left the kernel.
    pending = getattr(channel.socket, "pending", None)
    if pending is not None and pending() > SHORT_READ:
        return False
    if sys.platform == "win32":
        return False
    # Imported here: a program without a broadcast group may have its own modules of
    # these names.
    from fcntl import ioctl
    from termios import FIONREAD

    try:
        size = ioctl(channel.socket.fileno(), FIONREAD, bytes(4))
    except (OSError, ValueError):
        # The socket is closed; the read reports that.
        return True
    return int.from_bytes(size, sys.byteorder) <= SHORT_READ
