"""The tutorial's faults: each test fails on the original and passes on ours.

The original runs too, and must fail: a test that it passes shows no repair.
"""

from __future__ import annotations

import asyncore
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import legacy_chat
from legacy_chat import ChatServer, ChatSession
from tests.legacy_chat.rooms import (
    Room,
    original,
    original_room,
    our_room,
    room_of,
)
from tests.support import ORIGINALS, Peer, turn_once

FAILS = pytest.mark.xfail(strict=True, reason="the original is not repaired")


@pytest.fixture(
    params=[pytest.param(original_room, marks=FAILS, id="original"), our_room],
    ids=lambda each: "ours" if each is our_room else None,
)
def room(request: pytest.FixtureRequest, any_loop: str) -> Iterator[Room]:
    """The original, where the test must fail, and ours, on every loop."""
    with request.param(any_loop) as room:
        yield room


def test_r1_client_dropped_without_out_leaves_clients(room: Room) -> None:
    a, b = room.join_many(2)
    ghost = room.session(a)
    a.close()
    room.until(lambda: ghost.socket.fileno() < 0)
    b.send("hi!")
    room.until(lambda: b.got)
    assert list(room.server.clients) == [room.session(b)]
    assert not ghost.producer_fifo


def test_r2_a_character_cut_by_tcp_reaches_the_others_whole(room: Room) -> None:
    a, b = room.join_many(2)
    for byte in "你😀".encode():
        before = len(a.got)
        a.send(bytes([byte]))
        room.until(lambda before=before: a.ended or len(a.got) > before)
    assert a.got == "你😀".encode()
    room.until(lambda: b.got.endswith("😀".encode()))
    assert b.got.decode() == f"用户{a.name} 说:你用户{a.name} 说:😀"


def test_r3_invalid_utf8_reaches_the_others_as_replacements(
    room: Room,
) -> None:
    a, b = room.join_many(2)
    a.send(b"\xff\xfe ok.")
    room.until(lambda: a.ended or len(a.got) == 6)
    assert a.got == b"\xff\xfe ok."
    room.until(lambda: b.got or a.ended)
    assert b.got.decode() == f"用户{a.name} 说:\ufffd\ufffd ok."


def test_r3_half_a_character_before_out_is_replaced_too(room: Room) -> None:
    a, b, c = room.join_many(3)
    a.send("你".encode()[:2] + b"out")
    room.until(lambda: a.ended)
    room.fence(c, b)
    assert a.got == "你".encode()[:2]
    name = f"用户{a.name}"
    said = f"{name} 说:\ufffd{name} 说:{name}退出聊天"
    assert b.got.decode().removesuffix(f"用户{c.name} 说:<fence>") == said


def test_r4_a_second_out_in_one_read_loses_nothing(room: Room) -> None:
    a, b = room.join_many(2)
    # Data that the peer does not read at once waits in the session's queue.
    room.session(a).socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    queued = b"x" * 500_000
    room.session(a).push(queued)
    a.send("byeoutoutend.")
    room.until(lambda: a.ended)
    assert a.got == queued + b"bye"
    room.until(lambda: b.got.endswith(b"end."))
    assert b.got.decode().count("退出聊天") == 1


def test_r5_accept_that_returns_none_lets_the_server_go_on(
    room: Room, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room.server, "accept", lambda: None)
    room.server.handle_read_event()
    monkeypatch.undo()
    room.join()
    assert "服务器已经异常" not in capsys.readouterr().out


def test_r5_out_of_descriptors_the_server_does_not_spin(
    room: Room, out_of_descriptors: Callable[[], None]
) -> None:
    a = room.join()
    failures = 0
    accept = room.server.accept

    def counting() -> Any:
        nonlocal failures
        try:
            return accept()
        except OSError:
            failures += 1
            raise

    room.server.accept = counting
    waiting = socket.socket()
    out_of_descriptors()
    waiting.connect(room.server.socket.getsockname())
    room.peers.append(Peer(waiting))
    # Clients in the room are served: fifty messages take at least fifty turns.
    for turn in range(50):
        before = len(a.got)
        a.send(f"{turn}.")
        room.until(lambda before=before: len(a.got) > before)
    assert 1 <= failures < 10


def test_r6_client_lost_during_a_broadcast_costs_no_message(
    room: Room,
) -> None:
    a, b, c, d = room.join_many(4)
    # The reset has arrived, and the loop has not seen it: the push detects it.
    dead = room.session(b)
    b.reset()
    room.session(a).broadcasting(b"1.")
    room.session(a).broadcasting(b"2.")
    said = f"用户{a.name} 说:1.用户{a.name} 说:2."
    room.until(lambda: c.got.decode() == d.got.decode() == said)
    # The next messages arrive in a later turn than the one that detected the reset.
    for text in ("3.", "4."):
        a.send(text)
        room.until(lambda text=text: c.got.decode().endswith(text))
    assert dead not in list(room.server.clients)


def test_r6_a_push_that_raises_costs_the_others_nothing(room: Room) -> None:
    a, b, c = room.join_many(3)

    def broken(data: bytes) -> None:
        raise ValueError("this session is broken")

    room.session(b).push = broken
    a.send("hi!")
    room.until(lambda: c.got or a.ended)
    assert c.got.decode() == f"用户{a.name} 说:hi!"
    assert not a.ended


def test_r7_an_error_in_a_session_is_logged_with_its_traceback(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = room.join_many(2)

    def broken() -> None:
        raise ValueError("this session is broken")

    room.session(a).handle_read = broken
    a.send("hi!")
    room.until(lambda: a.ended)
    assert "ValueError: this session is broken" in caplog.text
    b.send("there?")
    room.until(lambda: b.got == b"there?")


def test_r7_an_error_in_the_server_is_logged_with_its_traceback(
    room: Room, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = room.join()

    def broken() -> None:
        raise ValueError("the server is broken")

    with monkeypatch.context() as patch:
        patch.setattr(room.server, "handle_accept", broken)
        asyncore.read(room.server)
    assert "ValueError: the server is broken" in caplog.text
    a.send("there?")
    room.until(lambda: a.got == b"there?")


@pytest.mark.parametrize(
    "server_class",
    [pytest.param("original", marks=FAILS), "ours"],
)
def test_r8_ipv6_works_and_names_keep_the_address_and_port(
    server_class: str, any_loop: str
) -> None:
    classes = original() if server_class == "original" else legacy_chat
    try:
        server = classes.ChatServer(host="::1", post=0)
    except OSError:
        asyncore.close_all()
        raise
    with room_of(server, any_loop) as room:
        a, b = room.join_many(2)
        a.send("hi!")
        room.until(lambda: b.got)
        assert b.got.decode() == f"用户{a.name} 说:hi!"
        assert a.name.startswith("::1")


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> str:
    """Resolve a name to an IPv6, an IPv4 and a foreign address."""
    family6, family4 = socket.AF_INET6, socket.AF_INET
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *args, **options: [
            (family6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (family6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
            (family4, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (family4, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ],
    )
    return "both.example"


def test_r8_a_name_with_several_addresses_is_served_on_each(
    two_addresses: str, any_loop: str
) -> None:
    with our_room(any_loop, host=two_addresses) as room:
        peers = [
            Peer(socket.create_connection((ip, room.server.port)))
            if ip == "127.0.0.1"
            else _over_ipv6(room.server.port)
            for ip in ("::1", "127.0.0.1")
        ]
        room.peers += peers
        room.until(lambda: len(room.server.clients) == 2)
        peers[0].send("hi!")
        room.until(lambda: peers[1].got)
        assert peers[1].got.decode() == f"用户{peers[0].name} 说:hi!"
        room.server.close()


def test_r8_a_free_port_is_free_on_every_address(two_addresses: str) -> None:
    bound: list[int] = []
    with contextlib.ExitStack() as taken:

        class Unlucky(ChatServer):
            """The first port that one address gets is taken on the other address."""

            def listen(self, num: int) -> None:
                super().listen(num)
                bound.append(self.socket.getsockname()[1])
                if len(bound) == 1:
                    other = taken.enter_context(socket.socket())
                    other.bind(("127.0.0.1", bound[0]))

        server = Unlucky(host=two_addresses, port=0)
        assert len(bound) > 1
        assert server.port == bound[-1]
        server.close()


def test_r8_a_port_that_is_taken_on_one_address_is_an_error(
    two_addresses: str,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            ChatServer(host=two_addresses, port=taken.getsockname()[1])


def _over_ipv6(port: int) -> Peer:
    sock = socket.socket(socket.AF_INET6)
    sock.connect(("::1", port))
    return Peer(sock)


def test_joining_and_leaving_cost_the_same_in_a_full_room() -> None:
    """Counted in comparisons, not in seconds."""
    compared = 0

    class Member(ChatSession):
        def __init__(self) -> None:
            """Make no socket."""

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        __hash__ = object.__hash__

    server = ChatServer(host="127.0.0.1", port=0)
    server.close()
    crowd = [Member() for _ in range(5000)]
    for member in crowd:
        if member not in server.clients:
            server.clients.append(member)
    for member in reversed(crowd):
        server.clients.remove(member)
    assert compared < 100
    assert server.clients == []


def test_original_loops_are_among_those_tested(any_loop: str) -> None:
    turn_once(any_loop, {}, 0)
    assert set(ORIGINALS) == {"asyncore.poll", "asyncore.poll2"}


def test_server_gets_emfile_without_descriptors(
    out_of_descriptors: Callable[[], None],
) -> None:
    out_of_descriptors()
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        socket.socket()
