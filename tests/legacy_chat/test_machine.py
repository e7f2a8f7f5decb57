"""A client that keeps reading receives every byte that the room's model predicts.

Hypothesis plays rooms on each loop: clients connect, send any bytes in any cuts, stop
reading, read a little, read again, close one half, reset, vanish. A fence message
follows each step, so that the test detects superfluous bytes as well as missing ones.

Rule 1: the server runs in the test's own thread, and only until all expected data has
arrived. Over the loopback that is at once.
Rule 2: each segment is read before the next is sent, so that the test knows the content
and the order of the reads, even of a read that is not broadcast.
Rule 3: the kernel decides when it accepts no more data for a client that does not read,
so no choice of Hypothesis depends on earlier results. A step without a suitable client
does nothing.

LEGACY_CHAT_EXAMPLES=300 in the environment plays 300 rooms, different ones each time.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from legacy_chat import ChatServer, ChatSession
from tests.legacy_chat.model import Speaker
from tests.legacy_chat.rooms import Room, room_of
from tests.support import Peer

pytestmark = pytest.mark.skipif(
    sys.platform != "linux",
    reason="elsewhere a byte sent over the loopback need not have arrived at once",
)

VARIABLE = "LEGACY_CHAT_EXAMPLES"
EXAMPLES = int(os.environ.get(VARIABLE, "15"))
STEPS = 20

# Concurrent clients, without the witness.
MOST_CLIENTS = 5

# Bytes that may be queued for a client; and that the kernel buffers for one, about.
SEND_QUEUE = 25_000
NARROW = 8192

TERMINATORS = st.sampled_from((b"out", b"/quit\r\n"))
WORDS = st.one_of(
    st.text("outhe /q你é😀").map(str.encode),
    st.sampled_from((b"o", b"ou", b"/quit\r", "你".encode()[:2], b"\xff", b"\xf0\x9f")),
    st.binary(min_size=1, max_size=9),
)
# Seldom, for it ends things.
LEAVES = st.sampled_from((b"out", b"out and more", b"/quit\r\n", b"\xe4outout"))
DATA = st.one_of(
    *(st.lists(WORDS, min_size=1, max_size=4).map(b"".join) for _ in range(3)),
    st.tuples(WORDS, LEAVES, WORDS).map(b"".join),
)
LONG = st.sampled_from((b"x" * 3000, "你".encode() * 3000, b"\xff" * 5000))
# More than is taken meanwhile.
LOUD = b"x" * 60_000
SIPS = st.sampled_from((2000, 10_000, 30_000))
LENGTHS = st.lists(st.integers(1, 9), max_size=4)
# Which of the clients that can do the step.
WHO = st.integers(0, MOST_CLIENTS)


class Watched(ChatServer):
    """A server that records why sessions ended, and their unsent bytes."""

    def __init__(self, terminator: bytes) -> None:
        self.reasons: dict[ChatSession, str] = {}
        self.dropped: dict[ChatSession, int] = {}
        super().__init__(
            host="127.0.0.1", port=0, send_queue=SEND_QUEUE, terminator=terminator
        )

    def handle_session_closed(
        self, session: ChatSession, reason: str, dropped: int
    ) -> None:
        self.reasons[session] = reason
        self.dropped[session] = dropped
        super().handle_session_closed(session, reason, dropped)


class Client:
    """One client, and the model's state of it.

    Attributes:
        owed: every byte that it must receive, from the first.
        listens: whether it reads.
        stays: whether it has not left in any way.
    """

    def __init__(self, peer: Peer, session: ChatSession, terminator: bytes) -> None:
        self.peer = peer
        self.session = session
        self.speaker = Speaker(peer.name, terminator)
        self.owed = b""
        self.listens = self.stays = True

    @property
    def missing(self) -> int:
        return len(self.owed) - len(self.peer.got)

    @property
    def is_settled(self) -> bool:
        """Whether it has ended, has all bytes that it is owed, or has wrong bytes."""
        if self.stays and not self.missing:
            return True
        return self.peer.ended or not self.owed.startswith(self.peer.got)

    @property
    def leaves_with(self) -> str:
        """Return the reason of a client that left and receives its whole queue."""
        return "out" if self.speaker.left else "eof"


class Machine(RuleBasedStateMachine):
    """A room on a loop, and its model.

    Attributes:
        loop: the loop's name.
    """

    loop: str

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []
        self.fences = 0
        # Bytes: the maximum that one turn has queued for a client.
        self.most = 0
        self.until_closed = contextlib.ExitStack()

    @initialize(terminator=TERMINATORS)
    def opens(self, terminator: bytes) -> None:
        self.terminator = terminator
        self.server = Watched(terminator)
        self.room: Room = self.until_closed.enter_context(
            room_of(self.server, self.loop)
        )
        self.witness = self.admit()
        self.admit()
        self.stop_reading(self.admit())
        # The loop has opened its own descriptors before this. Each client has two.
        self.descriptors = open_descriptors() - 2 * len(self.clients)

    # The clients' steps.

    @rule(listens=st.booleans())
    def enters(self, listens: bool) -> None:
        if len(self.clients) <= MOST_CLIENTS:
            client = self.admit()
            if not listens:
                self.stop_reading(client)

    @rule(talk=st.lists(st.tuples(WHO, DATA, LENGTHS), min_size=1, max_size=5))
    def talk(self, talk: list[tuple[int, bytes, list[int]]]) -> None:
        for who, data, lengths in talk:
            for client in one_of(self.present(), who):
                self.send_in_segments(client, data, lengths)

    @rule(who=WHO, data=LONG, times=st.integers(1, 9))
    def sends_much(self, who: int, data: bytes, times: int) -> None:
        for client in one_of([self.witness, *self.present()], who):
            for _ in range(times):
                self.send_in_segments(client, data, [])

    @rule(who=WHO, times=st.integers(2, 9), size=SIPS)
    def sends_much_and_reads_little(self, who: int, times: int, size: int) -> None:
        """Make each turn send a part of the data that earlier turns have queued."""
        deaf = [each for each in self.present() if not each.listens]
        for client in one_of(deaf, who):
            for _ in range(times):
                take(client.peer, size)
                self.send_in_segments(client, LOUD, [])

    @rule(who=WHO)
    def stops_reading_or_reads_again(self, who: int) -> None:
        for client in one_of(self.others(), who):
            if client.listens:
                self.stop_reading(client)
            else:
                self.read_again(client)

    @rule(who=WHO)
    def closes_its_half(self, who: int) -> None:
        for client in one_of(self.present(), who):
            self.close_half(client)

    @rule(who=WHO, resets=st.booleans())
    def vanishes(self, who: int, resets: bool) -> None:
        for client in one_of(self.others(), who):
            if resets:
                client.peer.reset()
            else:
                client.peer.close()
            left = () if resets and client.stays else ("eof", "out")
            self.ends(client, (*left, "reset", "slow"))

    # Invariants after each step.

    @invariant()
    def holds(self) -> None:
        # In this order, which Hypothesis would not keep.
        self.reading_clients_have_all_their_data()
        self.slow_clients_are_those_that_do_not_read()
        self.room_has_the_clients_that_stay()
        self.no_queue_is_longer_than_allowed()
        self.no_descriptor_is_left_open()

    def reading_clients_have_all_their_data(self) -> None:
        self.arrives()
        self.fences += 1
        self.send(self.witness, b"<%d>" % self.fences)
        for client in self.clients:
            if client.listens:
                assert client.peer.got == client.owed
                assert client.peer.ended is not client.stays
        for client in [each for each in self.clients if each.peer.ended]:
            self.ends(client, (client.leaves_with,))

    def slow_clients_are_those_that_do_not_read(self) -> None:
        for client in self.clients:
            if reason := self.reason(client):
                assert not client.listens
                dropped = self.server.dropped[client.session]
                if reason == "slow":
                    assert SEND_QUEUE < dropped <= self.longest
                    client.stays = False
                else:
                    assert not client.stays
                    assert (reason, dropped) == (client.leaves_with, 0)

    def room_has_the_clients_that_stay(self) -> None:
        here = [each.session for each in self.clients if each.stays]
        assert self.server.clients == here

    def no_queue_is_longer_than_allowed(self) -> None:
        for client in self.clients:
            if self.is_open(client):
                assert client.session.ac_backlog_size() <= self.longest

    @property
    def longest(self) -> int:
        """Return the most queued bytes: the limit or a turn's, and another turn's."""
        return max(SEND_QUEUE, self.most) + self.most

    def no_descriptor_is_left_open(self) -> None:
        sessions = sum(map(self.is_open, self.clients))
        expected = self.descriptors + len(self.clients) + sessions
        assert open_descriptors() == expected

    def teardown(self) -> None:
        with self.until_closed:
            for client in self.clients:
                client.peer.close()
            if self.clients:
                self.room.until(lambda: not any(map(self.is_open, self.clients)))
                assert self.server.clients == []
                assert open_descriptors() == self.descriptors

    # Helpers.

    def admit(self) -> Client:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        sock.connect(("127.0.0.1", self.server.port))
        peer = Peer(sock)
        self.room.peers.append(peer)
        before = len(self.server.clients)
        self.room.until(lambda: len(self.server.clients) > before)
        client = Client(peer, self.room.session(peer), self.terminator)
        self.clients.append(client)
        return client

    def send(self, client: Client, segment: bytes) -> None:
        """Send *data*, and expect the output that the model predicts."""
        client.peer.send(segment)
        output = client.speaker.outputs(segment)
        client.owed += output.echo
        client.stays = not client.speaker.left
        for other in self.clients:
            if other is not client and other.stays:
                other.owed += output.broadcast
        self.most = max(self.most, len(output.echo), len(output.broadcast))
        self.room.until(lambda: not self.is_open(client) or is_read(client))
        self.arrives()

    def send_in_segments(self, client: Client, data: bytes, lengths: list[int]) -> None:
        for length in (*lengths, len(data)):
            segment, data = data[:length], data[length:]
            if segment and client.stays and self.is_open(client):
                self.send(client, segment)

    def arrives(self) -> None:
        """Run the loop until each client that reads has all bytes that it is owed.

        The wait ends for a client with wrong bytes.
        """
        listening = [each for each in self.clients if each.listens]
        self.room.until(lambda: all(each.is_settled for each in listening))
        for client in listening:
            assert client.owed.startswith(client.peer.got)

    def ends(self, client: Client, reasons: tuple[str, ...]) -> None:
        """Run the loop until the server has noticed that a client is gone."""
        self.room.until(lambda: not self.is_open(client))
        assert self.reason(client) in reasons
        self.forget(client)

    def forget(self, client: Client) -> None:
        client.peer.close()
        self.clients.remove(client)
        if client.listens:
            self.room.peers.remove(client.peer)

    def stop_reading(self, client: Client) -> None:
        # From here on the kernel is to keep little for it.
        client.session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
        self.room.peers.remove(client.peer)
        client.listens = False

    def read_again(self, client: Client) -> None:
        self.room.peers.append(client.peer)
        client.listens = True
        if self.reason(client) == "slow":
            self.room.until(lambda: client.peer.ended)
            assert client.owed.startswith(client.peer.got)
            assert client.missing > 0
            self.forget(client)

    def close_half(self, client: Client) -> None:
        client.peer.sock.shutdown(socket.SHUT_WR)
        client.stays = False
        self.room.until(lambda: client.session not in self.server.clients)

    def others(self) -> list[Client]:
        """Return all clients but the witness."""
        return self.clients[1:]

    def present(self) -> list[Client]:
        """Return the other clients that can send."""
        return [each for each in self.others() if each.stays and self.is_open(each)]

    def reason(self, client: Client) -> str:
        """Return why the server has closed the client; "" if it has not."""
        return self.server.reasons.get(client.session, "")

    def is_open(self, client: Client) -> bool:
        return client.session not in self.server.reasons


def one_of(clients: list[Client], who: int) -> list[Client]:
    """Return one of them, or nothing if there is none."""
    return [clients[who % len(clients)]] if clients else []


def take(peer: Peer, size: int) -> None:
    """Receive at most that much, unless the peer was closed."""
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        peer.got += peer.sock.recv(size, socket.MSG_DONTWAIT)


def is_read(client: Client) -> bool:
    """Return whether the server has read all data of the client."""
    try:
        return not client.session.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.timeout(120 + 2 * EXAMPLES)
def test_state_machine_agrees_with_the_model(loop: str) -> None:
    # Close descriptors of earlier tests now, not while descriptors are counted.
    gc.collect()
    options: dict[str, Any] = {"derandomize": True, "phases": [Phase.generate]}
    if VARIABLE in os.environ:
        # A failure is also minimised, which is slow.
        options = {}
    run_state_machine_as_test(
        type("MachineOnOneLoop", (Machine,), {"loop": loop}),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )
