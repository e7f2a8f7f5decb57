"""A maximum of clients, in total and for each address."""

from __future__ import annotations

from typing import Any

import pytest

from legacy_chat import ChatServer, ChatSession
from tests.legacy_chat.rooms import connect, our_room, room_of

FULL = "服务器 说:聊天室已满"
TOO_MANY = "服务器 说:同一地址的连接过多"


def test_client_beyond_the_limit_is_refused(any_loop: str) -> None:
    with our_room(any_loop, max_clients=2) as room:
        a, _ = room.join_many(2)
        late = connect(room)
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
        late = connect(room)
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
        late = connect(room)
        room.until(lambda: late.ended)
        assert late.got.decode() == TOO_MANY
        assert room.server.counters.refused["address"] == 1
        try:
            connect(room, "127.0.0.2")
        except OSError as error:
            pytest.skip(f"this system has one loopback address: {error}")
        room.until(lambda: len(room.server.clients) == 3)
        a.send("out")
        room.until(lambda: a.ended)
        connect(room)
        room.until(lambda: len(room.server.clients) == 3)


def test_server_may_close_a_session_in_its_open_hook(loop: str) -> None:
    class Banning(ChatServer):
        def handle_session_opened(self, session: ChatSession) -> None:
            super().handle_session_opened(session)
            session.close()

    server = Banning(host="127.0.0.1", port=0, max_clients=1)
    with room_of(server, loop) as room:
        for _ in range(2):
            peer = connect(room)
            room.until(lambda peer=peer: peer.ended)
            assert len(server.clients) == server.counters.connected == 0
        assert server.counters.closed["closed"] == 2


def test_failed_session_does_not_count_against_the_limit(loop: str) -> None:
    class Broken(ChatSession):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            raise ValueError("it is broken")

    with our_room(loop, max_clients=1, session_class=Broken) as room:
        for _ in range(3):
            peer = connect(room)
            room.until(lambda peer=peer: peer.ended)
            assert peer.got == b""
        assert room.server.counters.closed["error"] == 3
        assert room.server.counters.connected == 0
