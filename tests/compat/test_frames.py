"""Frame loops: ``loop(timeout=0, count=1)`` again and again, with other code between.

The loop keeps its registrations between two calls. Each test changes the map or a
channel there, in a way that the loop must notice in the next call.
"""

from __future__ import annotations

import asyncore
import gc
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import compat
from compat.settled import FEW_CHANNELS
from tests.support import turn_once

# Enough channels that the loop does not look at each of them in every turn.
MANY = FEW_CHANNELS + 3


class Reader(asyncore.dispatcher):
    """A plain dispatcher that records its data and counts its polls."""

    def __init__(self, sock: Any, map: Any) -> None:
        super().__init__(sock, map)
        self.read: list[bytes] = []
        self.polled = 0

    def readable(self) -> bool:
        self.polled += 1
        return True

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.read.append(self.recv(4096))


class Chat(compat.async_chat):
    """A chat that records its data."""

    def __init__(self, sock: Any, map: Any) -> None:
        super().__init__(sock, map)
        self.set_terminator(None)
        self.read: list[bytes] = []

    def collect_incoming_data(self, data: bytes) -> None:
        self.read.append(data)


class Coalescing(Chat):
    ac_coalesce_writes = True


Kind = Callable[[Any, Any], Any]
KINDS = pytest.mark.parametrize("kind", [Reader, Chat, Coalescing])


class Frames:
    """Some channels, their peers, and a frame loop that has run some calls."""

    def __init__(self) -> None:
        self.map: dict[Any, Any] = {}
        self.peers: list[socket.socket] = []

    def add(self, kind: Kind, count: int = 1) -> list[Any]:
        """Add channels; return them."""
        channels = []
        for _ in range(count):
            ours, peer = socket.socketpair()
            peer.setblocking(False)
            self.peers.append(peer)
            channels.append(kind(ours, self.map))
        return channels

    def call(self, count: int = 1) -> None:
        """Run one call of the frame loop, or some."""
        for _ in range(count):
            turn_once("selectors", self.map, timeout=0)


@pytest.fixture
def frames() -> Iterator[Frames]:
    frames = Frames()
    yield frames
    asyncore.close_all(frames.map, ignore_all=True)
    frames.call()
    for peer in frames.peers:
        peer.close()


@KINDS
def test_data_between_two_calls_is_read(frames: Frames, kind: Kind) -> None:
    channels = frames.add(kind, MANY)
    frames.call(3)
    for number, peer in enumerate(frames.peers):
        peer.send(b"%d" % number)
    frames.call()
    assert [each.read for each in channels] == [[b"%d" % n] for n in range(MANY)]


def test_plain_dispatcher_is_polled_once_in_every_call(frames: Frames) -> None:
    (channel,) = frames.add(Reader)
    frames.add(Chat, MANY)
    frames.call(5)
    assert channel.polled == 5


@KINDS
def test_dropped_channel_is_freed_between_two_calls(frames: Frames, kind: Kind) -> None:
    frames.add(kind, MANY)
    frames.call(3)
    gc.disable()
    try:
        key = next(iter(frames.map))
        watched = weakref.ref(frames.map[key]), weakref.ref(frames.map[key].socket)
        frames.map.pop(key).close()
        assert [each() for each in watched] == [None, None]
    finally:
        gc.enable()
    frames.call()


@KINDS
def test_map_of_a_frame_loop_is_freed_with_its_channels(kind: Kind) -> None:
    class Map(dict[int, Any]):
        """A dict that takes weak references."""

    frames = Frames()
    frames.map = Map()
    frames.add(kind, MANY)
    frames.call(3)
    watched = weakref.ref(frames.map), weakref.ref(next(iter(frames.map.values())))
    for channel in frames.map.values():
        channel.socket.close()
    for peer in frames.peers:
        peer.close()
    del frames, channel
    gc.collect()
    assert [each() for each in watched] == [None, None]


@KINDS
def test_channel_reopened_under_its_number_is_read(frames: Frames, kind: Kind) -> None:
    *_, last = frames.add(kind, MANY)
    frames.call(3)
    number = last.socket.fileno()
    last.del_channel()
    last.socket.close()
    ours, peer = socket.socketpair()
    frames.peers.append(peer)
    if ours.fileno() != number:
        os.dup2(ours.fileno(), number)
        ours.close()
        ours = socket.socket(fileno=number)
    last.set_socket(ours, frames.map)
    peer.send(b"again")
    frames.call()
    assert last.read == [b"again"]


@KINDS
def test_channel_that_replaces_another_by_hand_is_called(
    frames: Frames, kind: Kind
) -> None:
    first, *_ = frames.add(kind, MANY)
    frames.call(3)
    replacing = kind(first.socket, {})
    frames.map[first.socket.fileno()] = replacing
    frames.peers[0].send(b"for the new one")
    frames.call()
    assert (first.read, replacing.read) == ([], [b"for the new one"])


@pytest.mark.parametrize("kind", [Reader, Chat])
def test_class_that_stops_reading_is_obeyed_in_the_next_call(
    frames: Frames, kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = frames.add(kind, MANY)
    frames.call(3)
    frames.peers[0].send(b"later")
    with monkeypatch.context() as patch:
        patch.setattr(kind, "readable", lambda channel: False)
        frames.call()
        assert first.read == []
    frames.call()
    assert first.read == [b"later"]


def test_paused_channel_reads_in_the_call_after_it_resumes(frames: Frames) -> None:
    first, *_ = frames.add(Chat, MANY)
    frames.call(3)
    frames.peers[0].send(b"later")
    first.pause_reading()
    frames.call()
    assert first.read == []
    first.resume_reading()
    frames.call()
    assert first.read == [b"later"]


def test_push_between_two_calls_is_flushed_in_the_next_call(frames: Frames) -> None:
    first, *_ = frames.add(Coalescing, MANY)
    frames.call(3)
    for word in (b"one ", b"two"):
        first.push(word)
    frames.call()
    assert frames.peers[0].recv(100) == b"one two"


def test_blocked_data_is_sent_when_the_peer_receives(frames: Frames) -> None:
    first, *_ = frames.add(Chat, MANY)
    frames.call(3)
    first.push(b"x" * 5_000_000)
    received = 0
    while received < 5_000_000:
        frames.call()
        received += len(frames.peers[0].recv(1 << 20))
    assert not first.writable()


@pytest.mark.parametrize("answer", [True, False])
def test_few_channels_need_no_report_of_a_change(frames: Frames, answer: bool) -> None:
    (channel,) = frames.add(Chat)
    frames.call(3)
    frames.peers[0].send(b"data")
    channel.readable = lambda: answer
    frames.call()
    assert channel.read == ([b"data"] if answer else [])


@KINDS
def test_two_maps_in_turn_keep_their_channels(frames: Frames, kind: Kind) -> None:
    other = Frames()
    channels = [*frames.add(kind, MANY), *other.add(kind, MANY)]
    for _ in range(3):
        frames.call()
        other.call()
    for peer in (*frames.peers, *other.peers):
        peer.send(b"data")
    frames.call()
    other.call()
    assert [each.read for each in channels] == [[b"data"]] * len(channels)
    asyncore.close_all(other.map)
    for peer in other.peers:
        peer.close()
