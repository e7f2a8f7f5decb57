"""The limits on clients, and the effect of exceeding one."""

from __future__ import annotations

import asyncore
import socket
import sys
import time
from typing import Any

import pytest

from legacy_chat import ChatServer, ChatSession
from legacy_chat.limits import Limits
from tests.legacy_chat.rooms import (
    Room,
    connect,
    connect_narrowly,
    our_room,
    stop_reading,
)
from tests.support import in_a_turn, turn_once

# Slow clients.


def test_slow_client_is_disconnected(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with our_room(loop, send_queue=50_000) as room:
        speaker, listener, deaf = room.join_many(3)
        session = stop_reading(room, deaf)
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
        session = stop_reading(room, deaf)
        for _ in range(40):
            before = len(speaker.got)
            speaker.send(b"x" * 60_000)
            room.until(lambda before=before: len(speaker.got) == before + 60_000)
        assert session.ac_backlog_size() > Limits.send_queue
        assert session in room.server.clients
        deaf.close()


def test_session_class_may_set_its_send_queue_limit() -> None:
    class Patient(ChatSession):
        ac_backlog_limit = 5

    with our_room("select", session_class=Patient) as room:
        assert room.session(room.join()).ac_backlog_limit == 5
    with our_room("select", session_class=Patient, send_queue=7) as room:
        assert room.session(room.join()).ac_backlog_limit == 7


@pytest.mark.parametrize("end", ["sends out", "closes its half", "the server stops"])
def test_queued_data_arrives_before_the_close(loop: str, end: str) -> None:
    with our_room(loop, send_queue=50_000) as room:
        slow = room.join()
        session = room.session(slow)
        room.peers.remove(slow)
        in_a_turn(loop, lambda: session.push(b"x" * 8_000_000))
        assert session.ac_backlog_size() > 50_000
        if end == "sends out":
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

        def send(size: int) -> None:
            nonlocal said
            said += size
            in_a_turn(loop, lambda: room.server.clients.push(b"x" * size))

        while not session.ac_backlog_size():
            send(20_000)
        for _ in range(5):
            quick.receive_available()
            send(50_000)
        room.peers.append(quick)
        room.until(lambda: len(quick.got) == said)
        assert session in room.server.clients


def test_half_closed_client_gets_the_data_of_its_last_turn(loop: str) -> None:
    with our_room(loop) as room:
        speakers = room.join_many(6)
        half = connect_narrowly(room)
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
        loud = connect_narrowly(room)
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
def test_terminator_is_found_in_any_segmentation(loop: str, cut: int) -> None:
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


def test_terminator_that_is_not_bytes_is_an_error() -> None:
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
    peer = connect(room)
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
