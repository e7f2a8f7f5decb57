"""For any data queued in any way, a slow peer's channel gets its handle_backlog calls.

Hypothesis plays turns: data for a channel, the way it is queued, and the bytes that its
peer receives meanwhile. The sockets are real, and count the bytes that were accepted.

Rule 1: ``handle_backlog`` is called once if a turn has added data, a part of the
earlier backlog is still queued, and the backlog exceeds the limit.
Rule 2: it is not called if the turn has added nothing, if nothing was queued before, if
the backlog is within the limit, or if the channel is closed.
Rule 3: it may or may not be called if the turn has added data and all of the earlier
backlog has been sent.
"""

from __future__ import annotations

import asyncore
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from compat.tls import TLS
from tests.secure import SecurePeer, client_context, server_context, until
from tests.support import in_a_turn

LIMIT = 20_000
NARROW = 4096

SIZES = st.sampled_from((1, 300, 7_000, 30_000))
WAYS = st.sampled_from(
    (
        "push",
        "group",
        "group but another",
        "group but this",
        "producer",
        "thread",
        "timer",
        "write handler",
        "send",
        "close_when_done",
        "pause",
        "resume",
        "discard",
    )
)
# The usual ways more often.
STEPS = st.one_of(
    st.tuples(st.sampled_from(("push", "group", "take")), SIZES),
    st.tuples(WAYS, SIZES),
)
TURNS = st.lists(st.lists(STEPS, max_size=4), min_size=2, max_size=10)
# The turns before which data is queued outside of any turn.
OUTSIDE = st.sets(st.integers(0, 9), max_size=2)


class Counted(socket.socket):
    """A socket that counts the bytes that the kernel has taken."""

    to_kernel = 0

    def send(self, data: Any, flags: int = 0) -> int:
        sent = super().send(data, flags)
        self.to_kernel += sent
        return sent


class Producer:
    """A producer that returns all its bytes at once."""

    def __init__(self, size: int) -> None:
        self._data = b"p" * size

    def more(self) -> bytes:
        data, self._data = self._data, b""
        return data


class Channel(compat.async_chat):
    """A channel that counts its handle_backlog calls and the data for its peer."""

    ac_coalesce_writes = True
    ac_backlog_limit = LIMIT
    calls = 0
    pushed = 0
    direct = 0
    said_while_writing = 0

    def collect_incoming_data(self, data: bytes) -> None:
        """Ignore the data: peers send nothing."""

    def found_terminator(self) -> None:
        """Do nothing: there is no terminator."""

    def handle_write(self) -> None:
        if self.said_while_writing:
            size, self.said_while_writing = self.said_while_writing, 0
            self.push_bytes(size)
        super().handle_write()

    def handle_backlog(self) -> None:
        self.calls += 1

    def handle_error(self) -> None:
        raise  # noqa: PLE0704  # a test's own error is to be seen

    def push_bytes(self, size: int) -> None:
        self.pushed += size
        self.push(b"x" * size)

    @property
    def taken(self) -> int:
        """Return the number of queued bytes that the kernel has taken."""
        sock: Any = self.socket
        return int(sock.to_kernel) - self.direct

    def take(self, size: int) -> None:
        raise NotImplementedError


class Plain(Channel):
    """A channel on a socket pair."""

    def __init__(self, loop: str) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
        super().__init__(Counted(fileno=ours.detach()))
        self.set_terminator(None)

    def take(self, size: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self.peer.recv(size)


class Secure(TLS, Channel):
    """A channel over TLS."""

    def __init__(self, loop: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        self.set_terminator(None)
        self.start_tls(server_context(), server_side=True)
        self.far = peer = SecurePeer(theirs, client_context())
        self.peer = peer.sock
        until(loop, lambda: peer.secured and self._fileno is not None, peer)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
        self._count_sends(self.socket)

    def _count_sends(self, sock: Any) -> None:
        send, sock.to_kernel = sock.send, 0

        def counted(data: Any) -> int:
            sent: int = send(data)
            sock.to_kernel += sent
            return sent

        sock.send = counted

    def take(self, size: int) -> None:
        with contextlib.suppress(OSError):
            self.peer.recv(size)


class Play:
    """A channel in a broadcast group, and the record of its turns."""

    def __init__(self, kind: Callable[[str], Channel], loop: str) -> None:
        self.loop = loop
        self.channel, self.other = kind(loop), Plain(loop)
        self.group = compat.BroadcastGroup()
        # Whether data was queued, and not discarded, before this turn; and whether a
        # producer ever was.
        self.behind = self.produces = False
        self.group.add(self.other)
        self.group.add(self.channel)

    def close(self) -> None:
        for channel in (self.channel, self.other):
            channel.peer.close()
            channel.discard_buffers()
            channel.close()
        asyncore.close_all(ignore_all=True)

    def turn(self, steps: list[tuple[str, int]], outside: bool) -> None:
        """Play one turn, and check its handle_backlog calls by the rules."""
        channel = self.channel
        calls = channel.calls
        # A producer that has returned all its data has not yet returned its end.
        pushed, self.behind = channel.pushed, bool(channel.producer_fifo)
        if outside:
            channel.push_bytes(300)
        in_a_turn(self.loop, lambda: [self.step(*step) for step in steps])
        called, added = channel.calls - calls, channel.pushed > pushed
        self.other.take(1 << 20)
        too_much = channel.ac_backlog_size() > LIMIT and channel.connected
        if not (added and self.behind and too_much):
            assert called == 0
        elif channel.taken < pushed:
            assert called == 1
        else:
            assert called <= 1
        if not self.produces:
            assert channel.ac_backlog_size() == channel.pushed - channel.taken

    def step(self, way: str, size: int) -> None:
        channel = self.channel
        if way == "take":
            channel.take(size)
        elif way == "group but this":
            self.group.push(b"x" * size, exclude=channel)
        elif way.startswith("group"):
            if channel in self.group:
                channel.pushed += size
            exclude = self.other if way.endswith("another") else None
            self.group.push(b"x" * size, exclude=exclude)
        elif way == "producer":
            self.produces = True
            channel.pushed += size
            channel.push_with_producer(Producer(size))
        elif way == "thread":
            thread = threading.Thread(target=channel.push_bytes, args=(size,))
            thread.start()
            thread.join()
        elif way == "timer":
            compat.call_later(0, channel.push_bytes, size)
        elif way == "write handler":
            channel.said_while_writing += size
        elif way == "send":
            channel.direct += channel.send(b"!")
        else:
            self.rare(way)

    def rare(self, way: str) -> None:
        channel = self.channel
        if way == "close_when_done":
            channel.close_when_done()
        elif way == "pause":
            channel.pause_reading()
        elif way == "resume":
            channel.resume_reading()
        elif way == "discard":
            channel.discard_buffers()
            channel.pushed, self.behind = channel.taken, False


@pytest.mark.parametrize("kind", [Plain, Secure])
def test_handle_backlog_is_called_for_every_kind_of_growth(
    loop: str, kind: Callable[[str], Channel]
) -> None:
    @settings(max_examples=60)
    @given(TURNS, OUTSIDE)
    def holds(turns: list[list[tuple[str, int]]], outside: set[int]) -> None:
        play = Play(kind, loop)
        try:
            for number, steps in enumerate(turns):
                play.turn(steps, number in outside)
                if not play.channel.connected:
                    return
        finally:
            play.close()

    holds()
