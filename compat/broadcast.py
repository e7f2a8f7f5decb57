"""Broadcast groups: one message for many channels, stored once.

Rule 1: every member receives the same bytes in the same order as if each message had
been pushed to it at once. This includes the member's own pushes.
Rule 2: storing a message costs the same for any number of members. A turn's messages
form one log, which is sent at the end of the turn. Members without private
output receive the log as one object. Other members receive it with their private output
in place of the messages that exclude them.
Rule 3: the log ends with its turn. Each outbox queues its unsent rest, as if it had
been pushed there. All channels that queue a large log share it, so the memory per
message does not depend on the number of members either.
Rule 4: no handler is called before the log has been sent to every member.
Rule 5: a channel with its own ``push`` or ``send`` gets every message by its ``push``.
A method that is replaced in a class takes effect at the end of the turn, one that is
assigned to a channel after it joined within CHECK_INTERVAL seconds.
Rule 6: where ``may_read`` controls reads, a turn stops reading once its log is full
(``FULL_LOG``). Every channel that was ready then is read before any channel is read
again. A few short messages per turn are exempt; they have separate rounds. A
channel that joins during a round is read in the next one.
"""

from __future__ import annotations

import asyncore
import time
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import groupby
from threading import get_ident
from typing import Any, Protocol, TypeAlias

from compat import instrument
from compat._entries import SMALL, copied
from compat._outbox import Outbox
from compat._rounds import Rounds
from compat._types import LEAVES, Map
from compat.async_chat import async_chat, outbox_of
from compat.scheduler import running_here

__all__ = ["BroadcastGroup"]

# Bytes. A turn stops reading once its log has this size, which takes about 50 ms to
# send to 1,000 members. One read of 64 KiB may add three times its size and a name,
# or a name for each terminator in it.
FULL_LOG = 65_536

# The methods that a group leaves out when it sends to a member's socket itself.
SENDING = ("push", "send", "initiate_send")

# Seconds between two searches for channels that replace one of them, and the share of
# the time that the searches may use.
CHECK_INTERVAL = 0.1
CHECK_SHARE = 0.01

# A member's view of the log: [begin, end, own bytes, begin, end, own bytes, …, begin]
# The last *begin* starts the segment that runs to the end of the log.
Segments: TypeAlias = list[Any]


class Listener(Protocol):
    """A member of a broadcast group."""

    def push(self, data: Any, /) -> None: ...
    def handle_error(self) -> None: ...


class BroadcastGroup(Collection[Any]):
    """A broadcast group: channels that receive the same messages, in joining order.

    Args:
        map: the map of the channels; None for ``asyncore.socket_map``. Channels of
            other maps may join, and get each message by their ``push``.

    A channel that coalesces writes (``ac_coalesce_writes``) belongs to one group only.
    Call the methods in the thread that runs the map's loop.

    Attributes:
        limits_reads: True if ``may_read`` decides about reads; see ``watch_reads``.
        flushed: the bytes of all messages that the members' outboxes have taken over.
    """

    def __init__(self, map: Map | None = None) -> None:
        self._map = asyncore.socket_map if map is None else map
        # In joining order; the outboxes of the members that are sent the log.
        self._members: dict[Any, Outbox | None] = {}
        # The other members, which get each message by their push.
        self._pushed: dict[Any, None] = {}
        self._log = bytearray()
        # Members with a view of the log: with private output, excluded or late.
        self._views: dict[Any, Segments] = {}
        # The thread of the turn that writes the log; 0 between two turns.
        self._thread = 0
        self._rounds = Rounds()
        self.limits_reads = False
        self.flushed = 0
        # The classes of the members that are sent the log, and the time of the next
        # search for channels with a replaced method.
        self._kinds: set[type[async_chat]] = set()
        self._check_at = 0.0

    def __contains__(self, channel: object) -> bool:
        return channel in self._members

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def has_log(self) -> bool:
        """True if this turn has begun a log that is not flushed yet."""
        return self._thread != 0

    def add(self, channel: Any) -> None:
        """Send *channel* all later messages. Does nothing if it is a member already.

        Raises:
            ValueError: *channel* coalesces writes and belongs to another group.
        """
        if channel in self._members:
            return
        outbox = None
        if self._can_send_log(channel):
            outbox = outbox_of(channel)
            if outbox.group is not None:
                raise ValueError(f"{channel!r} is in another group: leave that first")
            outbox.group = self
            self._kinds.add(type(channel))
            if self._log:
                self._views[channel] = [len(self._log)]
        else:
            self._pushed[channel] = None
        self._members[channel] = outbox

    def discard(self, channel: Any) -> None:
        """Send *channel* no later messages. It still receives the earlier ones."""
        outbox = self._members.get(channel)
        if outbox is not None:
            self.flush_to(channel)
            self._views.pop(channel, None)
            outbox.group = None
        self._members.pop(channel, None)
        self._pushed.pop(channel, None)

    def may_read(self, channel: async_chat) -> bool:
        """Return whether *channel* may read in this turn, while ``limits_reads``.

        False once the log of this turn is full; see rule 6. Always True if no compat
        loop runs the map.
        """
        if self._rounds.may_read(channel, log_is_full=len(self._log) >= FULL_LOG):
            return True
        # Begin a log, so that the end of this turn calls the group: it may end a round.
        return self._thread != get_ident() and not self._begin()

    def push(
        self, data: bytes | bytearray | memoryview, exclude: Listener | None = None
    ) -> int:
        """Send *data* to every member, except for *exclude*.

        Exceptions of a member's own ``push`` go to its ``handle_error``; the other
        members still receive the message.

        Returns:
            The number of members that the message is for.

        Raises:
            TypeError: *data* is not bytes, bytearray or memoryview.
        """
        if (observer := instrument.current) is None:
            return self._push(data, exclude)
        call = partial(self._push, data, exclude)
        return observer.broadcast(self, data, exclude, call)

    def _push(self, data: Any, exclude: Any) -> int:
        if type(data) is not bytes:
            data = copied(data)
        members = self._members
        count = len(members) - (exclude in members)
        if self._thread != get_ident() and not self._begin():
            # No loop would end the turn.
            self._push_to(members, data, exclude)
            self.flushed += len(data)
            return count
        if members.get(exclude) is not None:
            self._skip(exclude, len(data))
        self._log += data
        if len(self._log) >= FULL_LOG:
            self.limits_reads = True
        if self._pushed:
            self._push_to(self._pushed, data, exclude)
        return count

    def append_private(self, channel: async_chat, data: bytes) -> bool:
        """Insert *data* into a member's view of the log, after the present messages.

        Returns:
            False if the caller must queue *data*: no compat loop runs the map in this
            thread.
        """
        if self._thread != get_ident() and not self._begin():
            return False
        here = len(self._log)
        segments = self._views.get(channel)
        if segments is None:
            self._views[channel] = [0, here, data, here]
        else:
            segments += (here, data, here)
        return True

    def flush_to(self, channel: async_chat) -> None:
        """Queue the rest of a member's view of the log in its outbox."""
        outbox = self._members.get(channel)
        if self._thread != get_ident() or outbox is None:
            return
        segments = self._views.get(channel, [0])
        if segments == [len(self._log)]:
            return
        self._views[channel] = [len(self._log)]
        if pieces := _pieces(self._log, segments):
            outbox.push(channel, b"".join(pieces))

    def flush(self) -> None:
        """Send the log to every member."""
        log, views = self._log, self._views
        self._log, self._views, self._thread = bytearray(), {}, 0
        if self.limits_reads:
            self.limits_reads = self._rounds.end_turn()
        self.flushed += len(log)
        self._check_overrides(log, views)
        # Members with private output first: their peers can answer while the loop
        # sends to the others.
        behind = self._send_views(log, views)
        if log:
            behind += self._send_log(log, views)
        for channel in behind:
            try:
                outbox_of(channel).check_backlog(channel)
            except LEAVES:
                raise
            except BaseException:
                channel.handle_error()

    def _check_overrides(self, log: bytearray, views: dict[Any, Segments]) -> None:
        """Let members with a replaced method get this turn's messages by their push.

        Classes are compared in every turn, channels only every CHECK_INTERVAL seconds.
        """
        began = time.monotonic()
        if began < self._check_at and all(map(_inherits_sending, self._kinds)):
            return
        shared = [each for each, outbox in list(self._members.items()) if outbox]
        overridden = [each for each in shared if not self._can_send_log(each)]
        self._kinds = {*map(type, shared)}.difference(map(type, overridden))
        for channel in overridden:
            pieces = _pieces(log, views.pop(channel, [0]))
            outbox_of(channel).group = None
            self._members[channel] = self._pushed[channel] = None
            for piece in pieces:
                self._push_to((channel,), bytes(piece), None)
        now = time.monotonic()
        self._check_at = now + max(CHECK_INTERVAL, (now - began) / CHECK_SHARE)

    def _send_views(self, log: bytearray, views: dict[Any, Segments]) -> list[Any]:
        """Send each view of the log; return the channels with an older backlog."""
        behind, view = [], memoryview(log)
        # Copies, here and below: another thread may close a channel, which removes it.
        for channel, segments in list(views.items()):
            outbox = self._members.get(channel)
            if outbox is None:
                continue
            data = b""
            if len(segments) == 4 and not outbox.queue and channel.connected:
                # The common case of one private message: _send_pieces(), inlined.
                begin, end, data, rest = segments
                if log:
                    data = b"".join((view[begin:end], data, view[rest:]))
            if not data or len(data) > channel.ac_out_buffer_size:
                if _send_pieces(channel, outbox, _pieces(log, segments)):
                    behind.append(channel)
                continue
            try:
                sent = _send(channel, data)
            except OSError:
                # As in _send_all().
                sent = 0
            if sent != len(data):
                outbox.put_back(channel, memoryview(data)[sent:], at_the_front=True)
        return behind

    def _send_log(self, log: bytearray, views: Iterable[Any]) -> list[Any]:
        """Send the whole log to the members without a view; as _send_views."""
        behind, size, observer = [], len(log), instrument.current
        others = self._members.copy()
        for channel in views:
            others.pop(channel, None)
        for channel, outbox in others.items():
            if outbox is None:
                continue
            if (
                outbox.queue
                or not channel.connected
                or size > channel.ac_out_buffer_size
            ):
                if _send_pieces(channel, outbox, [log]):
                    behind.append(channel)
                continue
            # _send_pieces() inlined: the most frequent send of a chat room.
            try:
                if observer is None:
                    sent = channel.socket.send(log)
                else:
                    sent = observer.send(channel, log, channel.socket.send)
            except OSError:
                sent = 0
            if sent != size:
                outbox.put_back(channel, memoryview(log)[sent:], at_the_front=True)
        return behind

    def _skip(self, channel: Any, size: int) -> None:
        """Leave the next *size* bytes of the log out of a member's view."""
        here, rest = len(self._log), len(self._log) + size
        segments = self._views.get(channel)
        if segments is None:
            self._views[channel] = [0, here, b"", rest]
        elif segments[-1] == here:
            segments[-1] = rest
        else:
            segments += (here, b"", rest)

    def _begin(self) -> bool:
        """Begin a turn's log; False if no compat loop runs the map in this thread."""
        scheduler = running_here(self._map)
        if scheduler is None:
            return False
        scheduler.groups.append(self)
        self._thread = get_ident()
        return True

    def _can_send_log(self, channel: Any) -> bool:
        return (
            isinstance(channel, async_chat)
            and channel.ac_coalesce_writes
            and getattr(channel, "_map", None) is self._map
            and _inherits_sending(type(channel))
            and vars(channel).keys().isdisjoint(SENDING)
        )

    def _push_to(
        self, members: Iterable[Listener], data: Any, exclude: Listener | None
    ) -> None:
        # A copy: a push that fails may remove its channel during the iteration.
        for member in list(members):
            if member is exclude:
                continue
            try:
                member.push(data)
            except LEAVES:
                raise
            except Exception:
                member.handle_error()


def _inherits_sending(kind: type[async_chat]) -> bool:
    """Return whether a class inherits the methods of SENDING."""
    return (
        kind.push is _PUSH
        and kind.send is _SEND
        and kind.initiate_send is _INITIATE_SEND
    ) or all(
        # A trace has replaced them.
        instrument.original(getattr(kind, name)) is method
        for name, method in zip(SENDING, _METHODS, strict=True)
    )


def _pieces(log: bytearray, segments: Segments) -> list[Any]:
    """Return one member's view of the log as a list of non-empty pieces."""
    view = memoryview(log)
    pieces = [view[segments[-1] :]]
    for at in range(len(segments) - 4, -1, -3):
        begin, end, own = segments[at : at + 3]
        pieces += (own, view[begin:end])
    return [piece for piece in reversed(pieces) if piece]


def _send_pieces(channel: async_chat, outbox: Outbox, pieces: list[Any]) -> bool:
    """Send data of any size; return whether that adds to an old backlog."""
    behind, size = outbox.carried > 0, sum(map(len, pieces))
    if size <= channel.ac_out_buffer_size and not outbox.queue and pieces[1:]:
        pieces = [b"".join(pieces)]
    # Data that must be queued, or needs several sends anyway, is not copied.
    for piece in _merged(pieces):
        _send_all(channel, outbox, piece)
    return behind and size > 0


def _merged(pieces: Iterable[Any]) -> Iterator[Any]:
    """Yield the pieces; join runs of small ones, because each takes one send."""
    for is_small, run in groupby(pieces, lambda piece: len(piece) < SMALL):
        if is_small:
            yield b"".join(run)
        else:
            yield from run


def _send_all(channel: async_chat, outbox: Outbox, data: Any) -> None:
    """Send *data* and queue the unsent rest."""
    waits, sent, size = bool(outbox.queue), 0, len(data)
    most = channel.ac_out_buffer_size
    while sent < size and channel.connected and not waits:
        piece = data if size <= most else memoryview(data)[sent : sent + most]
        try:
            taken = _send(channel, piece)
        except OSError:
            # Full or disconnected: the channel's own send, next turn, handles either.
            break
        sent += taken
        if taken < len(piece):
            break
    if sent < size:
        outbox.put_back(channel, memoryview(data)[sent:], at_the_front=not waits)


def _send(channel: async_chat, piece: Any) -> int:
    if (observer := instrument.current) is None:
        return channel.socket.send(piece)
    return observer.send(channel, piece, channel.socket.send)


# Before a program replaces them.
_METHODS = _PUSH, _SEND, _INITIATE_SEND = (
    async_chat.push,
    async_chat.send,
    async_chat.initiate_send,
)
