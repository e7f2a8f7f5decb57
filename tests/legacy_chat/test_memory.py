"""Memory that clients cost the server: at most README's formula, and only while they
are connected."""

from __future__ import annotations

import gc
import socket
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legacy_chat import ChatServer, ChatSession
from tests.greedy import greedy, most_memory
from tests.legacy_chat.rooms import Room, our_room, room_of
from tests.secure import write_files
from tests.support import in_a_turn, turn_once

LIMITS: dict[str, dict[str, float]] = {
    "no limits": {},
    "idle": {"idle": 3600.0},
    "flood": {"flood_bytes": 1e6, "flood_messages": 100.0},
    "pausing": {"flood_messages": 0.001, "flood_burst": 1000.0, "idle": 3600.0},
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Disable the collector: only reference counts free objects."""
    gc.disable()
    yield
    gc.enable()


def end_session(room: Room, end: str) -> list[weakref.ref[Any]]:
    """Close a session with a long queue; return weak references to both."""
    peer = room.join()
    room.peers.remove(peer)
    peer.send("hello.")
    session = room.session(peer)
    room.until(lambda: session._counters.messages_in)
    # More than the kernel accepts; the turn that sends leaves the rest in the queue.
    session.push(b"x" * 8_000_000)
    turn_once(room.loop, timeout=0)
    assert session.ac_backlog_size() > 1_000_000
    watched = [weakref.ref(session), weakref.ref(session.producer_fifo)]
    if end == "reset":
        peer.reset()
        room.until(lambda: session not in room.server.clients)
    elif end == "slow":
        in_a_turn(room.loop, lambda: room.server.clients.push(b"more"))
    elif end == "grace":
        room.server._close_sessions()
    else:
        session.close()
    assert session not in room.server.clients
    assert not session.producer_fifo
    peer.close()
    return watched


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("end", ["close", "slow", "reset", "grace"])
def test_closed_session_is_freed_at_once(
    loop: str, limits: str, end: str, no_collector: None
) -> None:
    with our_room(loop, **LIMITS[limits]) as room:
        room.join()
        watched = end_session(room, end)
        turn_once(loop, timeout=0)
        assert [each() for each in watched] == [None, None]


class Kicking(ChatServer):
    """A session that closes a client that sends too much."""

    def handle_session_paused(self, session: ChatSession) -> None:
        super().handle_session_paused(session)
        session.close()


def test_session_closed_as_it_pauses_is_freed_at_once(
    loop: str, no_collector: None
) -> None:
    server = Kicking(
        host="127.0.0.1", port=0, flood_messages=0.001, flood_burst=1000.0, idle=3600.0
    )
    with room_of(server, loop) as room:
        peer = room.join()
        session = weakref.ref(room.session(peer))
        peer.send("one")
        room.until(lambda: server.counters.messages_in)
        peer.send("too many")
        room.until(lambda: server.counters.pauses)
        turn_once(loop, timeout=0)
        assert session() is None


def kept(sessions: Any) -> int:
    """Return the bytes of memory of the queues, each object counted once."""
    objects = {}
    for session in sessions:
        for entry in session.producer_fifo:
            kept = entry.obj if isinstance(entry, memoryview) else entry
            if kept is not None:
                objects[id(kept)] = kept
    return sum(map(len, objects.values()))


# Maximum bytes that one turn adds to a queue.
TURN = 512 * 1024


# Bytes of one read.
READ = 65_536


@settings(max_examples=12)
@given(
    sends=st.lists(
        st.tuples(
            st.integers(0, 11),
            st.sampled_from((1, 300, 5_000, 65_536)),
            st.sampled_from(("x", "\xff", "out", "xout")),
        ),
        min_size=20,
        max_size=60,
    ),
    limit=st.sampled_from((10_000, 100_000, 1_000_000)),
    loop=st.sampled_from(("select", "poll", "selectors")),
)
def test_queues_keep_no_more_than_clients_times_limit(
    sends: list[tuple[int, int, str]], limit: int, loop: str
) -> None:
    """Twelve clients send and receive nothing."""
    with our_room(loop, send_queue=limit) as room:
        peers = room.join_many(12)
        sessions = [room.session(peer) for peer in peers]
        room.peers.clear()
        for session in sessions:
            session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        for number, size, text in sends:
            try:
                peers[number].sock.setblocking(False)
                peers[number].sock.send((text.encode("latin-1") * size)[:READ])
            except OSError:
                # The client was closed as slow, or the server reads it later.
                continue
            turn_once(loop, timeout=0)
            for session in sessions:
                assert session.ac_backlog_size() <= limit + TURN
            assert kept(sessions) <= 12 * limit + TURN
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("terminator", [b"out", b"\n"])
def test_read_full_of_terminators_has_few_messages(
    loop: str, terminator: bytes
) -> None:
    """Each message is sent with its sender's name."""
    with our_room(loop, terminator=terminator) as room:
        sender, other = room.join_many(2)
        session = room.session(sender)
        unit = b"\xff" + terminator
        sender.send(unit * (READ // len(unit)))
        room.until(lambda: sender.ended)
        # First the data before the terminator, then the farewell, then the rest.
        assert room.server.counters.messages_in == 102
        assert other.got.count("说:\ufffd".encode()) == 102
        assert session._terminators == 101


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize("text", ["x", "\xff"])
def test_memory_grows_with_clients_not_with_their_square(loop: str, text: str) -> None:
    clients, send_queue = 40, 65_536
    result = greedy(loop, clients, text, send_queue)
    assert result.closed == clients
    assert result.grown <= most_memory(clients, send_queue)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_tls_memory_grows_with_clients(loop: str, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    clients, send_queue = 20, 65_536
    result = greedy(loop, clients, "x", send_queue, files["cert"], files["key"])
    assert result.closed == clients
    assert result.grown <= most_memory(clients, send_queue, tls=True)
