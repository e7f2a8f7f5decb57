"""pyftpdlib's ioloop: asyncore's classes on its epoll."""

from __future__ import annotations

import socket
from typing import Any

from pyftpdlib.ioloop import Acceptor, AsyncChat, IOLoop

from tests.benchmarks.servers import chats, wire

__all__ = ["echo", "room", "room_echo"]


class Echo(chats.Echo, AsyncChat):
    pass


class Room(chats.Room, AsyncChat):
    pass


class QuietRoom(chats.QuietRoom, AsyncChat):
    pass


class Listener(Acceptor):
    def __init__(self, listener: socket.socket, session: type[chats.Echo]) -> None:
        super().__init__(listener)
        self.accepting = True
        self.session = session

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        self.session(sock)

    def handle_error(self) -> None:
        raise  # noqa: PLE0704


def room(port: int, variant: str) -> None:
    """Serve the room."""
    _serve(port, Room)


def room_echo(port: int, variant: str) -> None:
    """Serve the room without broadcasts."""
    _serve(port, QuietRoom)


def echo(port: int, variant: str) -> None:
    """Serve the echo protocol."""
    _serve(port, Echo)


def _serve(port: int, session: type[chats.Echo]) -> None:
    server = Listener(wire.listen(port), session)
    IOLoop.instance().loop()
    server.close()
