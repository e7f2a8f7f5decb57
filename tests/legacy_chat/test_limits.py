"""The limits on clients, and what happens to a client that exceeds one."""

from __future__ import annotations

import asyncore
import logging
import select
import socket
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legacy_chat import ChatServer, ChatSession
from legacy_chat.limits import Limits
from legacy_chat.rate_limit import TokenBucket
from tests.legacy_chat.rooms import Room, our_room, room_of
from tests.support import Peer, in_a_turn, turn_once, turn_until

FULL = "服务器 说:聊天室已满"
TOO_MANY = "服务器 说:同一地址的连接过多"


def deafen(room: Room, peer: Peer) -> ChatSession:
    """Stop reading from a peer, and shrink the kernel's buffers for it."""
    room.peers.remove(peer)
    session = room.session(peer)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    return session


def knock(room: Room, source: str = "127.0.0.1") -> Peer:
    """Return a peer that has just connected."""
    sock = socket.socket()
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", room.server.port))
    peer = Peer(sock)
    room.peers.append(peer)
    return peer


def knock_narrowly(room: Room) -> Peer:
    """Return a peer that has just connected, with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", room.server.port))
    peer = Peer(sock)
    room.peers.append(peer)
    return peer


def sip(peer: Peer, session: ChatSession, queued: int) -> bool:
    """Receive a little; return whether the session's queue is below *queued* bytes."""
    if select.select([peer.sock], [], [], 0)[0]:
        peer.sock.recv(100_000)
    return session.ac_backlog_size() < queued


# Slow clients.


def test_slow_client_is_disconnected(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with our_room(loop, send_queue=50_000) as room:
        speaker, listener, deaf = room.join_many(3)
        session = deafen(room, deaf)
        said = 0
        while session in room.server.clients:
            speaker.send(b"x" * 4000)
            said += 4000
            room.until(lambda said=said: speaker.got.count(b"x") == said)
            assert session.ac_backlog_size() <= 50_000 + 4000 + 100
        room.until(lambda: listener.got.count(b"x") == said)
        assert room.server.counters.closed["slow"] == 1
        assert room.server.counters.backlog_peak > 50_000
        assert f"{session.user}: closed: slow" in caplog.text
        assert not speaker.ended
        deaf.close()


def test_slow_client_stays_without_a_send_queue_limit(loop: str) -> None:
    with our_room(loop, send_queue=0) as room:
        speaker, deaf = room.join_many(2)
        session = deafen(room, deaf)
        for _ in range(40):
            before = len(speaker.got)
            speaker.send(b"x" * 60_000)
            room.until(lambda before=before: len(speaker.got) == before + 60_000)
        assert session.ac_backlog_size() > Limits.send_queue
        assert session in room.server.clients
        deaf.close()


def test_a_sessions_class_may_have_a_limit_of_its_own() -> None:
    class Patient(ChatSession):
        ac_backlog_limit = 5

    with our_room("select", session_class=Patient) as room:
        assert room.session(room.join()).ac_backlog_limit == 5
    with our_room("select", session_class=Patient, send_queue=7) as room:
        assert room.session(room.join()).ac_backlog_limit == 7


@pytest.mark.parametrize("end", ["says out", "closes its half", "the server stops"])
def test_data_queued_in_one_turn_arrives_before_the_close(loop: str, end: str) -> None:
    with our_room(loop, send_queue=50_000) as room:
        slow = room.join()
        session = room.session(slow)
        room.peers.remove(slow)
        in_a_turn(loop, lambda: session.push(b"x" * 8_000_000))
        assert session.ac_backlog_size() > 50_000
        if end == "says out":
            slow.send("out")
        elif end == "closes its half":
            slow.sock.shutdown(socket.SHUT_WR)
        else:
            in_a_turn(loop, lambda: room.server.shut_down(grace=3600.0))
        room.until(lambda: session not in room.server.clients)
        room.peers.append(slow)
        room.until(lambda: slow.ended)
        assert slow.got == b"x" * 8_000_000
        assert room.server.counters.closed["slow"] == 0


def test_client_that_reads_everything_is_never_slow(loop: str) -> None:
    """Each turn queues more than one send, and once more than the kernel buffers."""
    with our_room(loop, send_queue=100_000) as room:
        quick = room.join()
        session = room.session(quick)
        room.peers.remove(quick)
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        session.ac_out_buffer_size = 1000
        said = 0

        def say(size: int) -> None:
            nonlocal said
            said += size
            in_a_turn(loop, lambda: room.server.clients.push(b"x" * size))

        while not session.ac_backlog_size():
            say(20_000)
        for _ in range(5):
            quick.receive_available()
            say(50_000)
        room.peers.append(quick)
        room.until(lambda: len(quick.got) == said)
        assert session in room.server.clients


def test_half_closed_client_gets_the_data_of_its_last_turn(loop: str) -> None:
    with our_room(loop) as room:
        speakers = room.join_many(6)
        half = knock_narrowly(room)
        room.until(lambda: len(room.server.clients) == 7)
        session = room.session(half)
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        room.peers.remove(half)
        for speaker in speakers:
            speaker.send(b"x" * 10_000)
        half.sock.shutdown(socket.SHUT_WR)
        room.until(lambda: session not in room.server.clients)
        room.peers.append(half)
        room.until(lambda: half.ended)
        assert half.got.count(b"x") == 60_000


def test_paused_client_gets_its_queue_when_the_server_stops(loop: str) -> None:
    """A socket that is closed with unread data drops the data in its send buffer."""
    options: dict[str, Any] = {"flood_messages": 0.001, "flood_burst": 1000.0}
    with our_room(loop, **options) as room:
        loud = knock_narrowly(room)
        room.until(lambda: len(room.server.clients) == 1)
        session = room.session(loud)
        loud.send("one.")
        room.until(lambda: loud.got == b"one.")
        loud.send("two.")
        room.peers.remove(loud)
        in_a_turn(loop, lambda: session.push(b"x" * 1_000_000))
        in_a_turn(loop, lambda: room.server.shut_down(grace=3600.0))
        room.peers.append(loud)
        room.until(lambda: loud.ended)
        assert loud.got == b"one." + b"x" * 1_000_000
        assert room.server.counters.closed["shutdown"] == 1


# Flooding clients.


def test_flooding_client_is_delayed_and_loses_nothing(loop: str) -> None:
    said = bytes(range(ord("a"), ord("n"))) * 500
    with our_room(loop, flood_bytes=100_000, flood_burst=0.01) as room:
        a, b = room.join_many(2)
        a.send(said)
        room.until(lambda: len(a.got) == len(said))
        heard = b.got.replace(f"用户{a.name} 说:".encode(), b"")
        assert a.got == heard == said
        assert room.server.counters.pauses > 0


def test_other_clients_go_on_while_one_is_paused(loop: str) -> None:
    with our_room(loop, flood_messages=0.001, flood_burst=2000.0) as room:
        loud, b, c = room.join_many(3)
        for text in ("one.", "two."):
            loud.send(text)
            room.until(lambda text=text: c.got.decode().endswith(text))
        # This client has used up its messages for the next thousand seconds.
        loud.send("three.")
        b.send("still here.")
        room.until(lambda: c.got.endswith(b"still here."))
        assert b"three." not in c.got
        assert room.server.counters.pauses == 1
        assert loud.got.startswith(b"one.two.")
        assert b"three." not in loud.got
        room.session(loud).resume_reading()
        room.until(lambda: c.got.endswith(b"three."))


def test_a_pause_ends_with_its_client(loop: str) -> None:
    with our_room(loop, flood_messages=0.001, flood_burst=1000.0) as room:
        loud = room.join()
        loud.send("one.")
        room.until(lambda: loud.got == b"one.")
        room.session(loud).close()
        room.until(lambda: loud.ended)


def test_under_asyncores_own_loop_floods_are_read_as_they_come() -> None:
    with our_room("asyncore.poll", flood_messages=0.001) as room:
        a = room.join()
        for text in ("one.", "two.", "three."):
            a.send(text)
            room.until(lambda text=text: a.got.decode().endswith(text))
        assert room.server.counters.pauses == 0


@given(
    rate=st.floats(0.1, 1e6),
    burst=st.floats(0.1, 100),
    reads=st.lists(st.tuples(st.integers(1, 70_000), st.floats(0, 10)), min_size=1),
)
def test_bucket_passes_at_most_its_rate_plus_one_read(
    rate: float, burst: float, reads: list[tuple[int, float]]
) -> None:
    bucket = TokenBucket(rate, rate * burst, 0.0)
    now, taken, largest = 0.0, 0, 0
    for count, silence in reads:
        taken, largest = taken + count, max(largest, count)
        wait = bucket.take(count, now)
        assert taken <= rate * (burst + now) * 1.000001 + largest
        # No wait is longer than the debt at the given rate.
        assert wait <= (count + 1) / rate * 1.000001
        now += wait + silence


# Too many clients.


def test_client_beyond_the_limit_is_refused(any_loop: str) -> None:
    with our_room(any_loop, max_clients=2) as room:
        a, _ = room.join_many(2)
        late = knock(room)
        late.send("hi, may I?")
        room.until(lambda: late.ended)
        assert late.got.decode() == FULL
        assert room.server.counters.refused["full"] == 1
        a.close()
        room.until(lambda: len(room.server.clients) == 1)
        room.join()


def test_leaving_client_still_counts_against_the_limit(loop: str) -> None:
    with our_room(loop, max_clients=1, send_queue=0) as room:
        deaf = room.join()
        room.peers.remove(deaf)
        room.session(deaf).push(b"x" * 8_000_000)
        deaf.send("out")
        room.until(lambda: not room.server.clients)
        late = knock(room)
        room.until(lambda: late.ended)
        assert late.got.decode() == FULL
        room.peers.append(deaf)
        room.until(lambda: deaf.ended)
        assert deaf.got == b"x" * 8_000_000
        room.join()


def test_clients_beyond_the_address_limit_are_refused(
    any_loop: str,
) -> None:
    with our_room(any_loop, max_per_address=2) as room:
        a, _ = room.join_many(2)
        late = knock(room)
        room.until(lambda: late.ended)
        assert late.got.decode() == TOO_MANY
        assert room.server.counters.refused["address"] == 1
        try:
            knock(room, "127.0.0.2")
        except OSError as error:
            pytest.skip(f"this system has one loopback address: {error}")
        room.until(lambda: len(room.server.clients) == 3)
        a.send("out")
        room.until(lambda: a.ended)
        knock(room)
        room.until(lambda: len(room.server.clients) == 3)


def test_a_server_may_close_a_session_as_it_opens(loop: str) -> None:
    class Banning(ChatServer):
        def handle_session_opened(self, session: ChatSession) -> None:
            super().handle_session_opened(session)
            session.close()

    server = Banning(host="127.0.0.1", port=0, max_clients=1)
    with room_of(server, loop) as room:
        for _ in range(2):
            peer = knock(room)
            room.until(lambda peer=peer: peer.ended)
            assert len(server.clients) == server.counters.connected == 0
        assert server.counters.closed["closed"] == 2


def test_a_session_that_could_not_be_made_takes_no_place(loop: str) -> None:
    class Broken(ChatSession):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            raise ValueError("it is broken")

    with our_room(loop, max_clients=1, session_class=Broken) as room:
        for _ in range(3):
            peer = knock(room)
            room.until(lambda peer=peer: peer.ended)
            assert peer.got == b""
        assert room.server.counters.closed["error"] == 3
        assert room.server.counters.connected == 0


# Silent clients.


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("legacy_chat.idle.time", clock)
    return clock


def sweep(room: Room, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    room.server._idle.cancel()
    room.server._idle.sweep()


def test_a_silent_client_is_closed(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with our_room(loop, idle=0.05) as room:
        a = room.join()
        name = room.session(a).user
        room.until(lambda: a.ended)
        assert room.server.counters.closed["idle"] == 1
        assert f"{name}: closed: idle" in caplog.text


def test_client_that_sends_or_reads_is_not_idle(loop: str, clock: Clock) -> None:
    with our_room(loop, idle=3600.0) as room:
        speaker, listener = room.join_many(2)
        for number in range(5):
            speaker.send(f"{number}.")
            room.until(lambda number=number: listener.got.endswith(b"%d." % number))
            sweep(room, clock, 3000)
        assert speaker.ended is listener.ended is False
        sweep(room, clock, 3000)
        sweep(room, clock, 3000)
        room.until(lambda: speaker.ended and listener.ended)


def test_client_that_reads_nothing_is_idle(loop: str, clock: Clock) -> None:
    with our_room(loop, idle=3600.0, send_queue=0) as room:
        speaker, deaf = room.join_many(2)
        session = deafen(room, deaf)
        for _ in range(3):
            before = len(speaker.got)
            speaker.send(b"x" * 300_000)
            room.until(lambda before=before: len(speaker.got) == before + 300_000)
            sweep(room, clock, 2000)
        assert session not in room.server.clients
        assert room.server.counters.closed["idle"] == 1
        assert not speaker.ended
        deaf.close()


def test_leaving_client_that_reads_nothing_is_idle(loop: str, clock: Clock) -> None:
    with our_room(loop, idle=3600.0, send_queue=0) as room:
        a, b, deaf = room.join_many(3)
        session = deafen(room, deaf)
        session.push(b"x" * 500_000)
        deaf.send("out")
        room.until(lambda: session not in room.server.clients)
        # At first, the kernel still accepts data for this client.
        for number in range(20):
            a.send(f"{number}.")
            room.until(lambda number=number: b.got.endswith(b"%d." % number))
            sweep(room, clock, 2000)
        assert not session.connected
        assert len(room.server.clients) == 2
        assert room.server.counters.closed["idle"] == 1
        deaf.close()


def test_client_is_idle_despite_a_broadcast_in_the_sweeps_turn(
    loop: str, clock: Clock
) -> None:
    with our_room(loop, idle=3600.0, send_queue=0) as room:
        speaker, deaf = map(room.session, room.join_many(2))
        in_a_turn(loop, lambda: deaf.push(b"x" * 8_000_000))

        def says_more_than_before(size: int) -> None:
            speaker._push_to_others(b"x" * size)
            sweep(room, clock, 2000)

        for size in range(1, 5):
            in_a_turn(loop, lambda size=size: says_more_than_before(size))
        assert deaf not in room.server.clients


def test_a_slow_reader_is_not_idle_though_its_queue_grows(
    loop: str, clock: Clock
) -> None:
    with our_room(loop, idle=3600.0, send_queue=0) as room:
        speaker, slow = room.join_many(2)
        room.peers.remove(slow)
        session = room.session(slow)
        session.push(b"x" * 8_000_000)
        room.fence(speaker, speaker)
        for _ in range(4):
            before, queued = len(speaker.got), session.ac_backlog_size()
            speaker.send(b"x" * 200_000)
            room.until(lambda before=before: len(speaker.got) == before + 200_000)
            full = queued + 200_000
            # Several reads for each turn: only many of them make room to write.
            turn_until(loop, lambda full=full: sip(slow, session, full), timeout=0)
            sweep(room, clock, 2000)
        assert session in room.server.clients
        slow.close()


def test_keepalive_is_set_on_accepted_sockets(any_loop: str) -> None:
    with our_room(any_loop, keepalive=77) as room:
        sock = room.session(room.join()).socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
    with our_room(any_loop, keepalive=0) as room:
        sock = room.session(room.join()).socket
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# Endings.


@pytest.mark.parametrize("cut", range(1, 7))
def test_another_terminator_is_found_however_it_is_cut(loop: str, cut: int) -> None:
    whole = b"get out!/quit\r\n"
    with our_room(loop, terminator=b"/quit\r\n") as room:
        a, b = room.join_many(2)
        a.send(whole[: 8 + cut])
        room.until(lambda: a.got == b"get out!")
        a.send(whole[8 + cut :])
        room.until(lambda: a.ended)
        assert a.got == b"get out!"
        name = f"用户{a.name}"
        room.until(lambda: b.got.endswith("退出聊天".encode()))
        assert b.got.decode() == f"{name} 说:get out!{name} 说:{name}退出聊天"


def test_endless_message_is_forwarded_and_not_buffered(loop: str) -> None:
    piece = ("没有尽头" * 5000).encode()
    with our_room(loop) as room:
        a, b = room.join_many(2)
        session = room.session(a)
        for number in range(1, 65):
            a.send(piece)
            room.until(lambda number=number: len(a.got) == number * len(piece))
            assert len(session.ac_in_buffer) < len(session.get_terminator())
            assert session.ac_backlog_size() == 0
        heard = b.got.decode().replace(f"用户{a.name} 说:", "")
        assert heard == piece.decode() * 64


# Invalid values.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"max_clients": -1},
            "max_clients must be a whole number from 0 to .*, got -1",
        ),
        ({"max_clients": 1.5}, "max_clients must be a whole number .*, got 1.5"),
        (
            {"max_per_address": "5"},
            "max_per_address must be a whole number .*, got '5'",
        ),
        ({"send_queue": True}, "send_queue must be a whole number .*, got True"),
        (
            {"flood_bytes": float("nan")},
            "flood_bytes must be 0 or a number from 1 .* nan",
        ),
        ({"flood_bytes": 5e-324}, "flood_bytes must be 0 or a number .*, got 5e-324"),
        ({"flood_messages": -0.5}, "flood_messages must be 0 or a number .*, got -0.5"),
        ({"flood_burst": 0}, "flood_burst must be a number from 0.01 to 3600, got 0"),
        ({"idle": float("inf")}, "idle must be 0 or a number .*, got inf"),
        ({"idle": 1e-9}, "idle must be 0 or a number from 0.05 to 86400, got 1e-09"),
        ({"keepalive": None}, "keepalive must be a whole number .*, got None"),
        (
            {"keepalive": 10**5000},
            "keepalive must be .* to 32767, got an int of 16610 bi",
        ),
        ({"list_num": 0}, "list_num must be a whole number from 1 to 65535, got 0"),
        ({"port": 65536}, "port must be a whole number from 0 to 65535, got 65536"),
        ({"metrics": ("", "80")}, "the port of metrics must be a whole .*, got '80'"),
        ({"tls_timeout": 0}, "tls_timeout must be a number from 0.01 to 86400, got 0"),
        ({"terminator": b""}, "must have at least one byte, got b''"),
    ],
)
def test_invalid_limit_is_an_error_with_its_range(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        ChatServer(**{"host": "127.0.0.1", "port": 0, **options})
    assert not asyncore.socket_map


def test_invalid_grace_leaves_the_server_running() -> None:
    with our_room("select") as room:
        with pytest.raises(
            ValueError, match=r"grace must be a number from 0 .*, got -1"
        ):
            room.server.shut_down(-1)
        room.join()


def test_a_terminator_is_bytes() -> None:
    with pytest.raises(TypeError, match="terminator must be bytes, got 'out'"):
        ChatServer(host="127.0.0.1", port=0, terminator="out")  # type: ignore[arg-type]


def test_limits_ignore_changes_of_the_system_clock(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system clock goes back by an hour at each call."""
    shown = [2e9]

    def back() -> float:
        shown[0] -= 3600
        return shown[0]

    monkeypatch.setattr(time, "time", back)
    monkeypatch.setattr(time, "time_ns", lambda: int(back() * 1e9))
    options: dict[str, Any] = {"flood_bytes": 100_000, "flood_burst": 0.01}
    with our_room(loop, idle=0.1, **options) as room:
        a, b = room.join_many(2)
        a.send("x" * 3000)
        room.until(lambda: a.got.count(b"x") == b.got.count(b"x") == 3000)
        room.until(lambda: a.ended and b.ended)
        assert room.server.counters.closed["idle"] == 2
        assert room.server.counters.pauses > 0


# Clients that were gone before they were accepted.


def reset_before_accept(room: Room, data: bytes) -> None:
    """Connect, send, and reset, before the server accepts."""
    peer = knock(room)
    peer.send(data)
    room.peers.remove(peer)
    peer.reset()


LIMITED: dict[str, dict[str, Any]] = {
    "no limits": {},
    "flood": {"flood_messages": 0.001, "flood_burst": 1000.0},
    "idle": {"idle": 3600.0},
}


@pytest.mark.parametrize("limits", LIMITED)
def test_client_that_was_reset_before_accept_is_closed(loop: str, limits: str) -> None:
    with our_room(loop, **LIMITED[limits]) as room:
        listener = room.join()
        reset_before_accept(room, b"hello.")
        room.until(lambda: room.server.counters.closed["reset"])
        assert b"hello." in listener.got or sys.platform != "linux"
        assert len(room.server.clients) == 1


def test_paused_client_that_was_reset_does_not_spin(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is paused for 1,000 seconds, and has nothing to write."""
    calls: list[str] = []

    class Watched(ChatSession):
        def handle_read_event(self) -> None:
            calls.append("read")
            super().handle_read_event()

        def handle_write_event(self) -> None:
            calls.append("write")
            super().handle_write_event()

    options: dict[str, Any] = {"flood_messages": 0.001, "flood_burst": 1000.0}
    with our_room(loop, session_class=Watched, **options) as room:
        reset_before_accept(room, b"one.")
        room.until(lambda: room.server.counters.accepted)
        session = next(iter(room.server._sessions()))
        session.pause_reading()
        calls.clear()
        for _ in range(20):
            turn_once(loop, timeout=0)
        assert len(calls) <= 1
        for _ in range(3):
            in_a_turn(loop, lambda: room.server.clients.push(b"x" * 1_100_000))
        room.until(lambda: not room.server._sessions())
