"""A room in the test's own process: ours or the original, on any loop.

Rule: nothing runs in parallel to the test; the test itself runs every turn of the loop.
"""

from __future__ import annotations

import asyncore
import contextlib
import os
import select
import socket
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import legacy_chat
from tests.support import ROOT, Peer, turn_until

BESIDE_US = ROOT.parent / "shared" / "tutorial" / "server.py"
ORIGINAL = Path(os.environ.get("LEGACY_CHAT_TUTORIAL", BESIDE_US))


class Room:
    """A server, its peers, and the loop that runs it."""

    def __init__(self, server: Any, loop: str, map: Any = None) -> None:
        self.server = server
        self.loop = loop
        self.map = map
        self.peers: list[Peer] = []

    def until(self, holds: Callable[[], object]) -> None:
        """Run the loop until *holds()*; receive the peers' data meanwhile."""

        def look() -> object:
            for peer in self.peers:
                if peer.sock.fileno() >= 0:
                    peer.receive_available()
            return holds()

        turn_until(self.loop, look, self.map)

    def join(self) -> Peer:
        """Return a new peer that the server has accepted."""
        before = len(self.server.clients)
        family = self.server.socket.family
        address = self.server.socket.getsockname()
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.connect(address)
        peer = Peer(sock)
        self.peers.append(peer)
        self.until(lambda: len(self.server.clients) > before)
        return peer

    def join_many(self, count: int) -> list[Peer]:
        return [self.join() for _ in range(count)]

    def session(self, peer: Peer) -> Any:
        """Return the server's session of a peer."""
        return next(each for each in self.server.clients if each.user[2:] == peer.name)

    def fence(self, sender: Peer, *others: Peer) -> None:
        """Run the loop until all data sent before has reached the others."""
        sender.send("<fence>")
        self.until(lambda: all(b"<fence>" in peer.got for peer in others))


@contextmanager
def room_of(server: Any, loop: str, map: Any = None) -> Iterator[Room]:
    """Run *server* on *loop*; close everything at the end."""
    room = Room(server, loop, map)
    try:
        yield room
    finally:
        for peer in room.peers:
            peer.close()
        asyncore.close_all(map, ignore_all=True)


@contextmanager
def our_room(loop: str, **options: Any) -> Iterator[Room]:
    """Run our server on a free loopback port."""
    server = legacy_chat.ChatServer(**{"host": "127.0.0.1", "port": 0, **options})
    with room_of(server, loop, options.get("map")) as room:
        yield room


def original() -> types.SimpleNamespace:
    """Return the classes of the tutorial's script, which runs here without clients."""
    if not ORIGINAL.exists():
        pytest.skip(
            f"the original is not at {BESIDE_US.parent.name}/{BESIDE_US.name} beside "
            "this checkout; name it in LEGACY_CHAT_TUTORIAL"
        )
    names: dict[str, Any] = {"__name__": "tutorial"}
    bind = asyncore.dispatcher.bind
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(None):
        patch.setattr(asyncore, "loop", lambda: None)
        patch.setattr(
            asyncore.dispatcher, "bind", lambda self, addr: bind(self, ("127.0.0.1", 0))
        )
        exec(compile(ORIGINAL.read_text("utf8"), str(ORIGINAL), "exec"), names)
    names["s"].close()
    return types.SimpleNamespace(**names)


@contextmanager
def original_room(loop: str) -> Iterator[Room]:
    """Run the original's server on a free loopback port."""
    with room_of(original().ChatServer(host="127.0.0.1", post=0), loop) as room:
        yield room


def stop_reading(room: Room, peer: Peer) -> legacy_chat.ChatSession:
    """Stop reading from a peer, and shrink the kernel's buffers for it."""
    room.peers.remove(peer)
    session = room.session(peer)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    return session


def connect(room: Room, source: str = "127.0.0.1") -> Peer:
    """Return a peer that has just connected."""
    sock = socket.socket()
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", room.server.port))
    peer = Peer(sock)
    room.peers.append(peer)
    return peer


def connect_narrowly(room: Room) -> Peer:
    """Return a peer that has just connected, with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", room.server.port))
    peer = Peer(sock)
    room.peers.append(peer)
    return peer


def receive_a_little(peer: Peer, session: legacy_chat.ChatSession, queued: int) -> bool:
    """Receive a little; return whether the session's queue is below *queued* bytes."""
    if select.select([peer.sock], [], [], 0)[0]:
        peer.sock.recv(100_000)
    return session.ac_backlog_size() < queued


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now
