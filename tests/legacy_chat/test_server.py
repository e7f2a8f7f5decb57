"""The server beyond the tutorial's: listener, pauses, shutdown, subclasses."""

from __future__ import annotations

import asyncore
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

import compat
from legacy_chat import ChatServer, ChatSession
from tests.legacy_chat.rooms import our_room
from tests.support import Peer, process, turn_once, turn_until


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the server's pause: the tests depend on the pause, not on its length."""
    monkeypatch.setattr("legacy_chat.listener.ACCEPT_PAUSE", 0.02)


def test_port_is_accepted_in_place_of_post() -> None:
    with our_room("select", port=0) as room:
        assert room.server.port == room.server.socket.getsockname()[1]


def test_port_and_post_together_are_an_error() -> None:
    with pytest.raises(TypeError, match="post=19528 and port=0 mean the same"):
        ChatServer(20, "127.0.0.1", 19528, port=0)


def test_server_that_cannot_listen_leaves_an_empty_map() -> None:
    with our_room("select") as room:
        in_map = dict(asyncore.socket_map)
        with pytest.raises(OSError, match="in use"):
            ChatServer(host="127.0.0.1", port=room.server.port)
        assert asyncore.socket_map == in_map


def test_host_that_does_not_resolve_is_an_oserror(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(socket.gaierror):
        ChatServer(host="nobody.example", port=0)


def test_private_map_holds_the_server_and_its_sessions(any_loop: str) -> None:
    map: dict[int, Any] = {}
    with our_room(any_loop, map=map) as room:
        a = room.join()
        a.send("hi!")
        room.until(lambda: a.got == b"hi!")
        assert len(map) == 2
        assert not asyncore.socket_map


def test_server_may_have_another_session_class(any_loop: str) -> None:
    class Shouting(ChatSession):
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data.upper())

    with our_room(any_loop, session_class=Shouting) as room:
        a, b = room.join_many(2)
        a.send("hi!")
        room.until(lambda: a.got == b"HI!" and b.got.endswith("说:HI!".encode()))


def test_failed_session_closes_only_its_client(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Picky(ChatSession):
        def __init__(self, server: ChatServer, *args: Any) -> None:
            super().__init__(server, *args)
            if len(server.clients) == 2:
                raise ValueError("one is enough")

    with our_room(loop, session_class=Picky) as room:
        a = room.join()
        refused = Peer(room.server.socket.getsockname())
        room.peers.append(refused)
        room.until(lambda: refused.ended)
        assert len(room.server.clients) == 1
        assert len(asyncore.socket_map) == 2
        assert "ValueError: one is enough" in caplog.text
        a.send("still here")
        room.until(lambda: a.got == b"still here")


def test_room_may_be_a_plain_list() -> None:
    ours, theirs = socket.socketpair()
    room: list[ChatSession] = []
    session = ChatSession(None, ours, "10.0.0.1", 5, room)
    assert room == [session]
    assert session.user == "用户10.0.0.15"
    session.close()
    theirs.close()
    assert room == []


def test_session_class_may_define_its_own_user() -> None:
    class Named(ChatSession):
        user = property(lambda self: f"{self.addr} at {self.port}")

    ours, theirs = socket.socketpair()
    room: list[ChatSession] = []
    session = Named(None, ours, "10.0.0.1", 5, room)
    assert session.user == "10.0.0.1 at 5"
    session.close()
    theirs.close()


def test_name_used_while_the_session_is_made_does_not_stay() -> None:
    class Early(ChatSession):
        def set_socket(self, sock: socket.socket, map: Any) -> None:
            names.append(self.user)
            super().set_socket(sock, map)

    names: list[str] = []
    ours, theirs = socket.socketpair()
    with theirs:
        session = Early(object(), ours, "10.0.0.1", 5, [])
        names.append(session.user)
        session.close()
    assert names == ["用户", "用户10.0.0.15"]


def test_out_of_descriptors_is_logged_once_and_recovers(
    loop: str,
    out_of_descriptors: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with our_room(loop) as room:
        a = room.join()
        waiting, later = socket.socket(), socket.socket()
        pauses = _count(room.server, "_pause")
        # The loop needs its own descriptors first.
        a.send("hi!")
        room.until(lambda: a.got == b"hi!")
        out_of_descriptors()
        waiting.connect(room.server.socket.getsockname())
        room.peers.append(told := Peer(waiting))
        room.until(lambda: told.ended)
        assert told.got.decode() == "服务器 说:服务器繁忙"
        later.connect(room.server.socket.getsockname())
        room.peers.append(Peer(later))
        room.until(lambda: len(pauses) == 2)
        said = [each for each in caplog.messages if "cannot accept" in each]
        assert len(said) == 1
        assert "Too many open files" in said[0]
        assert room.server.counters.refused["descriptors"] == 2
        a.close()
        room.until(lambda: not room.server.clients)
        # Both ends of the closed connection have freed a descriptor.
        room.peers.append(Peer(room.server.socket.getsockname()))
        room.until(lambda: "accepting again" in caplog.messages)
        room.until(lambda: len(room.server.clients) == 1)


def _count(server: ChatServer, method: str) -> list[Any]:
    """Return a list that records the calls of one of the server's methods."""
    calls: list[Any] = []
    original = getattr(server, method)

    def counting(*args: Any) -> Any:
        calls.append(args)
        return original(*args)

    setattr(server, method, counting)
    return calls


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM, errno.EPROTO])
def test_server_survives_any_failure_of_accept(
    loop: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Injected: the kernel cannot fail in these ways without failing the test too."""

    def fails() -> Any:
        raise OSError(number, os.strerror(number))

    with our_room(loop) as room:
        monkeypatch.setattr(room.server, "accept", fails)
        pauses = _count(room.server, "_pause")
        late = Peer(room.server.socket.getsockname())
        room.peers.append(late)
        room.until(lambda: pauses)
        monkeypatch.undo()
        room.until(lambda: len(room.server.clients) == 1)


def test_urgent_byte_does_not_keep_the_loop_busy(any_loop: str) -> None:
    with our_room(any_loop) as room:
        a = room.join()
        session = room.session(a)
        urgent = []
        take = session.handle_expt
        session.handle_expt = lambda: (urgent.append(1), take())
        a.sock.send(b"!", socket.MSG_OOB)
        room.until(lambda: urgent)
        a.send("hi.")
        room.until(lambda: a.got == b"hi.")
        assert len(urgent) == 1


def test_shut_down_flushes_the_queues(loop: str) -> None:
    with our_room(loop, send_queue=0) as room:
        a = room.join()
        queued = bytes(range(97, 107)) * 50_000
        room.session(a).push(queued)
        room.server.shut_down()
        room.until(lambda: a.ended)
        assert a.got == queued
        assert not asyncore.socket_map


def test_shut_down_waits_for_a_stalled_peer_only_for_its_grace(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with our_room(loop, send_queue=0) as room:
        a = room.join()
        room.peers.remove(a)
        room.session(a).push(b"x" * 50_000_000)
        compat.call_later(0, room.server.shut_down, 0.01)
        compat.loop(loop=loop)
        assert "the grace period is over: closing 1 clients" in caplog.messages
        a.close()


def test_tutorials_last_two_lines_work_unchanged() -> None:
    script = """
import asyncore, threading
from legacy_chat import ChatServer
s = ChatServer(post=0, host="127.0.0.1")
print(s.socket.getsockname()[1], flush=True)
asyncore.loop()
"""
    with process(sys.executable, "-W", "ignore", "-c", script) as server:
        port = int(server.wait_for(r"^(\d+)$")[1])
        a, b = Peer(("127.0.0.1", port)), Peer(("127.0.0.1", port))
        server.wait_for("client 127.0.0.1 enter")
        b.send("b is in.")
        b.wait_for("b is in.")
        a.send("hi!")
        b.wait_for(f"用户{a.name} 说:hi!")
        a.close()
        b.close()


def test_two_loops_in_one_process_run_the_same_classes() -> None:
    first: dict[int, Any] = {}
    second: dict[int, Any] = {}
    with (
        our_room("asyncore.poll", map=first) as one,
        our_room("selectors", map=second) as other,
    ):
        for room in (one, other):
            a = room.join()
            a.send("hi!")
            room.until(lambda a=a: a.got == b"hi!")


def test_unprintable_line_does_not_stop_the_room(
    loop: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = open(os.devnull, "w")  # noqa: SIM115
    closed.close()
    with our_room(loop) as room:
        monkeypatch.setattr(sys, "stdout", closed)
        a = room.join()
        a.send("hi!")
        room.until(lambda: a.got == b"hi!")
    assert "could not print a line" in caplog.text


def test_turn_until_fails_after_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.support.DEADLINE", 0.0)
    with pytest.raises(AssertionError, match="does not hold"):
        turn_until("select", lambda: False, {}, 0)


def test_turn_accepts_a_bounded_number_of_clients(
    any_loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("legacy_chat.listener.ACCEPTS_PER_TURN", 3)
    with our_room(any_loop) as room:
        address = ("127.0.0.1", room.server.port)
        waiting = [socket.create_connection(address) for _ in range(7)]
        try:
            seen = []
            while len(room.server.clients) < len(waiting):
                turn_once(any_loop)
                seen.append(len(room.server.clients))
            assert seen == [3, 6, 7]
        finally:
            for sock in waiting:
                sock.close()


def test_listener_accepts_only_pending_connections(any_loop: str) -> None:
    with our_room(any_loop) as room:
        accepted = []
        accept = room.server.accept
        room.server.accept = lambda: accepted.append(accept()) or accepted[-1]
        for count in (1, 2):
            room.join()
            assert len(accepted) == count
            assert None not in accepted


def test_accepted_socket_has_tcp_nodelay(any_loop: str) -> None:
    with our_room(any_loop) as room:
        room.join()
        (session,) = room.server.clients
        option = session.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option != 0
