"""One message, many channels: what is said to an audience is written down once.

Rule 1: every member gets the same bytes in the same order as if each message had been
pushed to it when it was said, what it pushes itself included.
Rule 2: a message costs the same however many listen. A turn's messages are one log,
and when the turn is over, who said nothing meanwhile gets that as one object; who did
gets the rest of it, behind what it pushed.
Rule 3: the log ends with its turn. What a peer does not take then is queued in its
channel, as if it had been pushed there.
Rule 4: who has a ``push`` or a ``send`` of its own gets every message by its ``push``.
"""

from __future__ import annotations

import asyncore
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Protocol, TypeGuard

from compat.channels import Map
from compat.chat import announce, async_chat, wants_to_write
from compat.schedule import turned_here

__all__ = ["Audience"]


class Listener(Protocol):
    """What an audience is made of."""

    def push(self, data: Any, /) -> None: ...
    def handle_error(self) -> None: ...


class Audience(Collection[Any]):
    """Channels that are told the same, in the order of their joining.

    Args:
        map: the map that they are in; None for ``asyncore.socket_map``. Channels of
            other maps may join, and get each message by their ``push``.

    A channel that gathers (``ac_gather``) has one audience at most. Everything here
    belongs to the thread that turns the map.
    """

    def __init__(self, map: Map | None = None) -> None:
        self._map = asyncore.socket_map if map is None else map
        # In the order of joining; True for those who read the log.
        self._members: dict[Any, bool] = {}
        # Those who do not.
        self._pushed: dict[Any, None] = {}
        self._log = bytearray()
        # How many bytes of the log a member has had already: who spoke, or came late.
        self._had: dict[async_chat, int] = {}

    def __contains__(self, channel: object) -> bool:
        return channel in self._members

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def add(self, channel: Listener) -> None:
        """Let it hear what is said from now on. Harmless if it does already.

        Raises:
            ValueError: it gathers, and is in another audience.
        """
        if channel in self._members:
            return
        if self._may_read_log(channel):
            if channel._compat_audience is not None:
                raise ValueError(
                    f"{channel!r} is in another audience: leave that first"
                )
            channel._compat_audience = self
            if self._log:
                self._had[channel] = len(self._log)
            self._members[channel] = True
        else:
            self._pushed[channel] = None
            self._members[channel] = False

    def discard(self, channel: Listener) -> None:
        """Tell it nothing more. It still gets what has been said."""
        if self._reads_log(channel):
            self.catch_up(channel)
            self._had.pop(channel, None)
            channel._compat_audience = None
        self._members.pop(channel, None)
        self._pushed.pop(channel, None)

    def push(
        self, data: bytes | bytearray | memoryview, but: Listener | None = None
    ) -> None:
        """Tell everybody, *but* one.

        What a member's own ``push`` raises goes to its ``handle_error``; the others
        hear the message all the same.

        Raises:
            TypeError: *data* is not bytes, bytearray or memoryview.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data={data!r} is not bytes, bytearray or memoryview")
        schedule = turned_here(self._map)
        if schedule is None:
            # Nobody would end the turn.
            self._push_to(self._members, data, but)
            return
        if not self._log:
            schedule.wait_for_turn_end(self)
        log = self._log
        if self._reads_log(but):
            if self._had.get(but, 0) != len(log):
                self.catch_up(but)
            self._had[but] = len(log) + len(data)
        log += data
        if self._pushed:
            self._push_to(self._pushed, data, but)

    def catch_up(self, channel: async_chat) -> None:
        """Queue for a member what it has not had of the log."""
        log = self._log
        if not log:
            return
        had = self._had.get(channel, 0)
        if had < len(log):
            self._had[channel] = len(log)
            new = bytes(memoryview(log)[had:]) if had else bytes(log)
            channel._compat_queue(new)
            channel._compat_wait()

    def _may_read_log(self, channel: Any) -> TypeGuard[async_chat]:
        return (
            isinstance(channel, async_chat)
            and channel.ac_gather
            and getattr(channel, "_map", None) is self._map
            and all(
                getattr(type(channel), name) is getattr(async_chat, name)
                and name not in vars(channel)
                for name in ("push", "send", "initiate_send")
            )
        )

    def _reads_log(self, channel: object) -> TypeGuard[async_chat]:
        return self._members.get(channel, False)

    def _push_to(
        self, members: Iterable[Listener], data: Any, but: Listener | None
    ) -> None:
        # A copy: with a push that fails, somebody leaves in the middle of the walk.
        for member in tuple(members):
            if member is but:
                continue
            try:
                member.push(data)
            except (asyncore.ExitNow, KeyboardInterrupt, SystemExit):
                raise
            except Exception:
                member.handle_error()

    def _compat_turn_ends(self) -> None:
        """Write the log to everybody. No handler is called from here."""
        log, self._log = bytes(self._log), bytearray()
        had, self._had = self._had, {}
        for channel, count in had.items():
            if count < len(log):
                channel._compat_queue(log[count:])
                announce(channel)
        size = len(log)
        for channel, reads_log in self._members.items():
            if not reads_log or channel in had:
                continue
            sent = 0
            if not wants_to_write(channel) and size <= channel.ac_out_buffer_size:
                try:
                    sent = channel.socket.send(log)
                except OSError:
                    # Full, or gone: the channel's own attempt, in the next turn, tells.
                    sent = 0
            if sent != size:
                channel._compat_queue(log[sent:])
                announce(channel)
