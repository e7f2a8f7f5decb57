"""A turn stops reading once its broadcast group has a full log; rounds are fair."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from compat._rounds import SHORT_READ, SHORT_READS
from compat.broadcast import FULL_LOG
from tests.support import turn_once, turn_until

READ = 65_536


class Group:
    """Channels whose reads a broadcast group limits; it gets their data three times."""

    def __init__(self, loop: str, size: int) -> None:
        self.loop = loop
        self.members = compat.BroadcastGroup()
        # Which channel read how many bytes, turn by turn.
        self.turns: list[list[tuple[int, int]]] = []
        self.channels = [Channel(self, number) for number in range(size)]

    def turn(self) -> list[tuple[int, int]]:
        self.turns.append([])
        turn_once(self.loop, timeout=0)
        for channel in self.channels:
            channel.drop_received()
        return self.turns[-1]

    def close(self) -> None:
        for channel in self.channels:
            channel.discard_buffers()
            channel.close()
            channel.peer.close()


class Channel(compat.async_chat):
    ac_coalesce_writes = True

    def __init__(self, group: Group, number: int) -> None:
        ours, self.peer = socket.socketpair()
        for sock in (ours, self.peer):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.peer.setblocking(False)
        super().__init__(ours)
        self.set_terminator(None)
        self.group, self.number = group, number
        self.watch_reads(group.members)
        group.members.add(self)

    def collect_incoming_data(self, data: bytes) -> None:
        self.group.turns[-1].append((self.number, len(data)))
        self.group.members.push(data * 3, exclude=self)

    def found_terminator(self) -> None:
        """Do nothing: there is no terminator."""

    def give(self, size: int) -> None:
        self.peer.sendall(b"x" * size)

    def drop_received(self) -> None:
        # Nothing is left, or the channel was closed.
        with suppress(BlockingIOError, ConnectionResetError):
            while self.peer.recv(1 << 20):
                pass


@pytest.fixture
def groups() -> Iterator[list[Group]]:
    made: list[Group] = []
    yield made
    for group in made:
        group.close()


def make(groups: list[Group], loop: str, size: int) -> Group:
    groups.append(Group(loop, size))
    return groups[-1]


def test_full_turn_leaves_the_others_for_the_next_turns(
    loop: str, groups: list[Group]
) -> None:
    group = make(groups, loop, 4)
    for channel in group.channels:
        channel.give(2 * READ)
    turns = [group.turn() for _ in range(9)]
    readers = [number for turn in turns for number, _ in turn]
    assert all(len(turn) <= 1 for turn in turns)
    assert sorted(readers[:4]) == sorted(readers[4:]) == [0, 1, 2, 3]


def test_short_message_does_not_wait_for_long_ones(
    loop: str, groups: list[Group]
) -> None:
    group = make(groups, loop, 6)
    for channel in group.channels[:5]:
        channel.give(2 * READ)
    for _ in range(3):
        group.channels[5].give(SHORT_READ)
        assert (5, SHORT_READ) in group.turn()


def test_turn_has_few_short_reads_beyond_a_full_log(
    loop: str, groups: list[Group]
) -> None:
    group = make(groups, loop, SHORT_READS + 10)
    group.channels[0].give(READ)
    for channel in group.channels[1:]:
        channel.give(1)
    assert len(group.turn()) == 1 + SHORT_READS
    assert len(group.turn()) == 9


def test_short_reads_go_round_when_there_are_too_many(
    loop: str, groups: list[Group]
) -> None:
    group = make(groups, loop, 5 + SHORT_READS + 1)
    *greedy, last = group.channels[:5] + group.channels[5:]
    for channel in greedy[:5]:
        channel.give(4 * READ)
    readers: list[int] = []
    for turn in range(5):
        for channel in greedy[5:]:
            channel.give(1)
        if turn == 2:
            last.give(1)
        readers = [number for number, _ in group.turn()]
        if turn >= 2 and last.number in readers:
            break
    assert last.number in readers
    assert turn <= 3


def test_newcomers_do_not_make_a_round_last(loop: str, groups: list[Group]) -> None:
    group = make(groups, loop, 2)
    for channel in group.channels:
        channel.give(5 * READ)
    readers: list[int] = []
    for number in range(2, 8):
        group.channels.append(Channel(group, number))
        group.channels[-1].give(READ)
        readers += [number for number, _ in group.turn()]
    assert readers.count(0) > 1


def test_reader_of_a_round_is_read_again_once_the_others_were(
    loop: str, groups: list[Group]
) -> None:
    """Also if the refused channels are gone before they are read."""
    group = make(groups, loop, 3)
    for channel in group.channels:
        channel.give(3 * READ)
    ((first, _),) = group.turn()
    for channel in group.channels:
        if channel.number != first:
            channel.close()
    turn_until(loop, lambda: group.turn() == [(first, READ)])


def test_original_loops_read_every_channel(groups: list[Group]) -> None:
    """The original loops end no turn, so there is no next turn to wait for."""
    group = make(groups, "asyncore.poll", 3)
    for channel in group.channels:
        channel.give(READ)
    assert len(group.turn()) == 3


@settings(max_examples=25)
@given(
    gifts=st.lists(
        st.lists(st.sampled_from((0, 1, 500, 2000, 30_000, READ)), min_size=8),
        min_size=1,
        max_size=6,
    ),
    loop=st.sampled_from(tuple(compat.LOOPS)),
)
def test_no_turn_adds_more_than_its_limit(gifts: list[list[int]], loop: str) -> None:
    group = Group(loop, 8)
    left = 0
    try:
        while gifts or left:
            for channel, size in zip(
                group.channels, gifts.pop() if gifts else [], strict=False
            ):
                if left + size <= 8 * READ:
                    channel.give(size)
                    left += size
            sizes = [size for _, size in group.turn()]
            left -= sum(sizes)
            assert 3 * sum(sizes) <= FULL_LOG + 3 * (READ + SHORT_READS * SHORT_READ)
    finally:
        group.close()


def test_members_that_wait_share_a_large_log(loop: str, groups: list[Group]) -> None:
    group = make(groups, loop, 3)
    deaf: Any = group.channels[1:]
    for channel in deaf:
        channel.producer_fifo.append(b"x" * 3_000_000)
    group.channels[0].give(READ)
    group.turns.append([])
    turn_once(loop, timeout=0)
    queues = [list(channel.producer_fifo)[1:] for channel in deaf]
    assert queues[0] == queues[1]
    for mine, other in zip(*queues, strict=True):
        assert mine.obj is other.obj


def test_short_entries_are_merged_in_a_queue(loop: str, groups: list[Group]) -> None:
    group = make(groups, loop, 2)
    speaker, deaf = group.channels
    deaf.producer_fifo.append(b"x" * 3_000_000)
    for _ in range(200):
        speaker.give(10)
        group.turns.append([])
        turn_once(loop, timeout=0)
    queue = list(deaf.producer_fifo)
    assert sum(map(len, queue[1:])) == 200 * 30
    assert len(queue) < 5
