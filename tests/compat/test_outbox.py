"""The states of an outbox: idle, queued for the flush, blocked, closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

import compat
from compat._outbox import State
from compat._types import Original
from compat.async_chat import outbox_of, queue_of
from tests.support import in_a_turn, turn_once, turn_until

LARGE = b"x" * 3_000_000


class Channel(compat.async_chat):
    """A channel on one end of a socket pair; the test holds the other end."""

    ac_coalesce_writes = True

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        super().__init__(ours)

    @property
    def state(self) -> State:
        return outbox_of(self).state

    def drain(self) -> bool:
        """Receive at the peer; return whether everything has been sent."""
        try:
            self.peer.recv(1 << 20)
        except BlockingIOError:
            return not self.producer_fifo
        return False


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.discard_buffers()
    channel.close()
    channel.peer.close()


def test_idle_channel_has_no_queue(channel: Channel) -> None:
    assert queue_of(channel) is None
    assert channel.ac_backlog_size() == 0


def test_second_init_empties_queue_and_buffers(channel: Channel) -> None:
    channel.producer_fifo.append(b"old")
    channel.ac_in_buffer = b"old"
    channel.incoming.append(b"old")
    compat.async_chat.__init__(channel, channel.socket)
    assert not channel.producer_fifo
    assert channel.ac_in_buffer == b""
    assert channel.incoming == []


def test_patched_original_init_is_called(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(Original, "__init__", lambda *args: called.append(args))
    compat.async_chat.__init__(channel, None, {})
    assert called == [(channel, None, {})]


def test_push_is_queued_until_the_end_of_the_turn(loop: str, channel: Channel) -> None:
    states: list[State] = []
    in_a_turn(loop, lambda: (channel.push(b"data"), states.append(channel.state)))
    assert [*states, channel.state] == [State.QUEUED, State.IDLE]


def test_full_send_buffer_blocks_until_the_peer_reads(
    loop: str, channel: Channel
) -> None:
    in_a_turn(loop, lambda: channel.push(LARGE))
    assert channel.state is State.BLOCKED
    in_a_turn(loop, lambda: channel.push(b"more"))
    assert channel.state is State.BLOCKED
    turn_until(loop, channel.drain)
    assert channel.state is State.IDLE


@pytest.mark.parametrize("used", [False, True])
def test_data_of_a_closed_channel_is_sent_after_a_reconnection(
    loop: str, channel: Channel, used: bool
) -> None:
    if used:
        channel.push(b"earlier")
    in_a_turn(loop, channel.close)
    channel.push(b"later")
    ours, peer = socket.socketpair()
    with peer:
        ours.setblocking(False)
        channel.set_socket(ours)
        channel.connected = True
        turn_until(loop, lambda: not channel.producer_fifo)
        assert peer.recv(100) == b"later"
    assert channel.state is State.IDLE


def test_closed_channel_queues_nothing_for_the_flush(
    loop: str, channel: Channel
) -> None:
    in_a_turn(loop, lambda: (channel.push(b"earlier"), channel.close()))
    channel.push(b"later")
    assert channel.state is State.CLOSED


def test_push_of_a_group_returns_the_number_of_receivers(loop: str) -> None:
    members, group, counts = [Channel() for _ in range(3)], compat.BroadcastGroup(), []
    for member in members[:2]:
        group.add(member)

    def push() -> None:
        counts.extend(group.push(b"x", exclude=each) for each in (None, *members))

    in_a_turn(loop, push)
    assert counts == [2, 1, 1, 2]
    for member in members:
        member.close()
        member.peer.close()


class Immediate(Channel):
    """A channel that sends in every push, and counts its send attempts."""

    ac_coalesce_writes = False
    attempts = 0

    def initiate_send(self) -> None:
        self.attempts += 1
        super().initiate_send()


class Producer:
    """A producer of three messages."""

    def __init__(self) -> None:
        self.left = 3

    def more(self) -> bytes:
        self.left -= 1
        return b"part" if self.left >= 0 else b""


def test_producer_is_sent_once_per_turn_if_uncoalesced(loop: str) -> None:
    channel = Immediate()
    channel.push_with_producer(Producer())
    attempts = channel.attempts
    turn_once(loop)
    assert channel.attempts - attempts == 1
    channel.close()
    channel.peer.close()
