"""One message, many channels: what is said to an audience is written down once.

Rule 1: every member gets the same bytes in the same order as if each message had been
pushed to it when it was said, what it pushes itself included.
Rule 2: a message costs the same however many listen. A turn's messages are one log,
and when the turn is over, who said nothing meanwhile gets that as one object; who did
gets the log with its own words in the place of what it is not to hear.
Rule 3: the log ends with its turn. What a peer does not take then is queued in its
channel, as if it had been pushed there. All channels that queue a large log share it:
what a message costs in memory does not depend on the number of members either.
Rule 4: no handler is called before everybody has been written to.
Rule 5: who has a ``push`` or a ``send`` of its own gets every message by its ``push``.
Rule 6: where ``may_read`` decides on reads, a turn ends its reads once its log is full
(``FULL_LOG``). Every channel that was ready then is read before another is read again,
except for a few short messages in each turn, which do not wait. Those are read in
rounds, too. A channel that joins during a round is read in the next one.
"""

from __future__ import annotations

import asyncore
import sys
from collections.abc import Collection, Iterable, Iterator
from threading import get_ident
from typing import Any, Protocol, TypeAlias, TypeGuard

from compat.channels import LEAVES, Map
from compat.chat import SMALL, announce, async_chat, copied
from compat.schedule import turned_here

__all__ = ["Audience"]

# Bytes of a turn's log that end its reads. Sending so much to 1,000 members takes about
# 50 ms. One read, of 64 KiB, may add three times its size and a name.
FULL_LOG = 65_536

# A read is short if at most so many bytes are there to be read. So many short reads are
# made in a turn that has ended its reads: those who chat do not wait for those who send
# megabytes.
SHORT_READ = 1024
SHORT_READS = 16

# What one member gets of the log: from where, to where, then words of its own, from
# where again, and so on; the last number is from where to the end.
Part: TypeAlias = list[Any]


class Listener(Protocol):
    """What an audience is made of."""

    def push(self, data: Any, /) -> None: ...
    def handle_error(self) -> None: ...


class _Rounds:
    """Turns in which every channel is read once, before any is read again.

    Attributes:
        number: the present round's.
        lasts: Did an earlier turn of this round refuse a channel?
        refused: Did this turn refuse a channel?
    """

    def __init__(self) -> None:
        self.number = 1
        self.lasts = self.refused = False

    def had(self, number: int) -> bool:
        """Return whether a channel that was read in that round has to wait."""
        return self.lasts and number == self.number

    def end_turn(self) -> None:
        """Go on with the round if a channel was refused, and else begin the next."""
        self.lasts, self.refused = self.refused, False
        if not self.lasts:
            self.number += 1


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
        # Those who get a part of it: who spoke, or came late.
        self._parts: dict[async_chat, Part] = {}
        # The thread in whose turn the log is written; 0 between two turns.
        self._thread = 0
        # Reads, and the short ones beyond a full log, with their number in this turn.
        self._reads, self._short_reads = _Rounds(), _Rounds()
        self._short_count = 0

    def __contains__(self, channel: object) -> bool:
        return channel in self._members

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def unwritten(self) -> int:
        """Bytes that this turn has told everybody, and that nobody has been sent."""
        return len(self._log)

    def add(self, channel: Listener) -> None:
        """Let it hear what is said from now on. Harmless if it does already.

        Raises:
            ValueError: it gathers, and is in another audience.
        """
        if channel in self._members:
            return
        if self._reads.lasts and isinstance(channel, async_chat):
            # Otherwise a round would not end while channels join.
            channel._compat_round = self._reads.number
        if self._may_read_log(channel):
            if channel._compat_audience is not None:
                raise ValueError(
                    f"{channel!r} is in another audience: leave that first"
                )
            channel._compat_audience = self
            if self._log:
                self._parts[channel] = [len(self._log)]
            self._members[channel] = True
        else:
            self._pushed[channel] = None
            self._members[channel] = False

    def discard(self, channel: Listener) -> None:
        """Tell it nothing more. It still gets what has been said."""
        if self._reads_log(channel):
            self.catch_up(channel)
            self._parts.pop(channel, None)
            channel._compat_audience = None
        self._members.pop(channel, None)
        self._pushed.pop(channel, None)

    def may_read(self, channel: async_chat) -> bool:
        """Return whether *channel* may read in this turn; for its ``watch_reads``.

        False once the log of this turn is full; see rule 6. True wherever no loop of
        compat turns the map.
        """
        reads, short_reads = self._reads, self._short_reads
        was_read = reads.had(channel._compat_round)
        if not was_read and len(self._log) < FULL_LOG:
            channel._compat_round = reads.number
            return True
        if not short_reads.had(channel._compat_short_round):
            if self._short_count == SHORT_READS:
                short_reads.refused = True
            elif _has_little_to_read(channel):
                channel._compat_short_round = short_reads.number
                self._short_count += 1
                return True
        if was_read:
            # The round ends with a turn that refuses no other channel, so this turn
            # needs an end.
            return self._thread != get_ident() and not self._begin()
        reads.refused = True
        return False

    def push(
        self, data: bytes | bytearray | memoryview, but: Listener | None = None
    ) -> None:
        """Tell everybody, *but* one.

        What a member's own ``push`` raises goes to its ``handle_error``; the others
        hear the message all the same.

        Raises:
            TypeError: *data* is not bytes, bytearray or memoryview.
        """
        if type(data) is not bytes:
            data = copied(data)
        if self._thread != get_ident() and not self._begin():
            # Nobody would end the turn.
            self._push_to(self._members, data, but)
            return
        log = self._log
        if self._reads_log(but):
            # What is written next is passed over.
            here, rest = len(log), len(log) + len(data)
            part = self._parts.get(but)
            if part is None:
                self._parts[but] = [0, here, b"", rest]
            elif part[-1] == here:
                part[-1] = rest
            else:
                part += (here, b"", rest)
        log += data
        if self._pushed:
            self._push_to(self._pushed, data, but)

    def keep(self, channel: async_chat, data: bytes) -> bool:
        """Let a member have that, between what it has heard and what it will hear.

        False if it has to be queued: no loop of ours turns the map in this thread.
        """
        if self._thread != get_ident() and not self._begin():
            return False
        here = len(self._log)
        part = self._parts.get(channel)
        if part is None:
            self._parts[channel] = [0, here, data, here]
        else:
            part += (here, data, here)
        return True

    def catch_up(self, channel: async_chat) -> None:
        """Queue for a member what it has not had of the log."""
        if self._thread != get_ident() or not self._reads_log(channel):
            return
        part = self._parts.get(channel, [0])
        if part == [len(self._log)]:
            return
        self._parts[channel] = [len(self._log)]
        if pieces := _heard(self._log, part):
            channel._compat_queue(b"".join(pieces))
            channel._compat_added = True
            channel._compat_wait()

    def _begin(self) -> bool:
        """Begin a turn's log; False if no loop of ours turns the map in this thread."""
        schedule = turned_here(self._map)
        if schedule is None:
            return False
        schedule.wait_for_turn_end(self)
        self._thread = get_ident()
        return True

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
        for member in list(members):
            if member is but:
                continue
            try:
                member.push(data)
            except LEAVES:
                raise
            except Exception:
                member.handle_error()

    @property
    def _compat_has_log(self) -> bool:
        return self._thread != 0

    def _compat_turn_ends(self) -> None:
        """Write the log to everybody."""
        log, parts = self._log, self._parts
        self._log, self._parts, self._thread = bytearray(), {}, 0
        self._reads.end_turn()
        self._short_reads.end_turn()
        self._short_count = 0
        behind = []
        # Those who spoke come first: while the others are written to, they answer.
        # Copies, here and below: another thread may close a channel, which leaves.
        for channel, part in list(parts.items()):
            if _write_part(channel, log, part):
                behind.append(channel)
        size, directly = len(log), _send is _SEND
        for channel, reads_log in list(self._members.items()) if size else ():
            if not reads_log or channel in parts:
                continue
            if (
                channel._compat_fifo
                or not (directly and channel.connected)
                or size > channel.ac_out_buffer_size
            ):
                if _write(channel, log):
                    behind.append(channel)
                continue
            # As _write(), without the calls: this is what a room does most.
            try:
                sent = channel.socket.send(log)
            except OSError:
                sent = 0
            if sent != size:
                _leave(channel, memoryview(log)[sent:], at_the_front=True)
        for channel in behind:
            try:
                channel._compat_look_at_backlog()
            except LEAVES:
                raise
            except BaseException:
                channel.handle_error()


def _has_little_to_read(channel: async_chat) -> bool:
    # Of TLS, what is decrypted has left the kernel.
    pending = getattr(channel.socket, "pending", None)
    if pending is not None and pending() > SHORT_READ:
        return False
    if sys.platform == "win32":
        return False
    # Here, for a program that has no audience may have modules of these names.
    from fcntl import ioctl
    from termios import FIONREAD

    try:
        size = ioctl(channel.socket.fileno(), FIONREAD, bytes(4))
    except (OSError, ValueError):
        # It is closed, which reading shows.
        return True
    return int.from_bytes(size, sys.byteorder) <= SHORT_READ


def _heard(log: bytearray, part: Part) -> list[Any]:
    """What one member gets, in pieces, the empty ones left out."""
    view = memoryview(log)
    pieces = [view[part[-1] :]]
    for at in range(len(part) - 4, -1, -3):
        begin, end, own = part[at : at + 3]
        pieces += (own, view[begin:end])
    return [piece for piece in reversed(pieces) if piece]


def _write_part(channel: async_chat, log: bytearray, part: Part) -> bool:
    """Write what one member gets. Does that add to what it had not taken before?"""
    if (
        len(part) == 4
        and len(log) <= channel.ac_out_buffer_size // 2
        and not channel._compat_fifo
    ):
        # The usual: it has said one thing. As below, without the calls.
        begin, end, own, rest = part
        view = memoryview(log)
        return _write(channel, b"".join((view[begin:end], own, view[rest:])))
    pieces, behind = _heard(log, part), channel._compat_behind
    size = sum(map(len, pieces))
    if size and size <= channel.ac_out_buffer_size and not channel._compat_fifo:
        pieces = [b"".join(pieces)]
    # What has to wait, or takes several sends as it is, is not copied.
    for piece in pieces:
        _write(channel, piece)
    return behind and size > 0


def _write(channel: async_chat, data: Any) -> bool:
    """Send, and queue what is not taken. As _write_part."""
    behind, waits = channel._compat_behind, bool(channel._compat_fifo)
    sent, size, most = 0, len(data), channel.ac_out_buffer_size
    while sent < size and channel.connected and not waits:
        piece = data if size <= most else memoryview(data)[sent : sent + most]
        try:
            taken = _send(channel, piece)
        except OSError:
            # Full, or gone: the channel's own attempt, in the next turn, tells.
            break
        sent += taken
        if taken < len(piece):
            break
    if sent < size:
        _leave(channel, memoryview(data)[sent:], at_the_front=not waits)
    return behind and size > 0


def _send(channel: async_chat, piece: Any) -> int:
    return channel.socket.send(piece)


# As it is here; a trace puts another in its place, and wants to see what is sent.
_SEND = _send


def _leave(channel: async_chat, data: memoryview, *, at_the_front: bool) -> None:
    """Let the channel write it, when its peer takes something again.

    What another thread has pushed while the beginning of *data* was sent comes behind
    it: *at_the_front*.
    """
    if channel._compat_audience is None:
        # Another thread has closed it.
        return
    rest = bytes(data) if len(data) < SMALL else data
    channel._compat_queue(rest, at_the_front=at_the_front)
    channel._compat_behind = True
    announce(channel)
