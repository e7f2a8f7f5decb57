"""legacy-chat on the loops of compat."""

from __future__ import annotations

import asyncore
import socket
from typing import Any

import compat
from legacy_chat import ChatServer
from tests.benchmarks.servers import chats, wire

__all__ = ["echo", "room"]


def room(port: int, loop: str) -> None:
    """The room as it is."""
    wire.raise_limit()
    server = ChatServer(wire.BACKLOG, wire.HOST, port=port)
    wire.announce(server.port)
    compat.loop(loop=loop)


class Echo(chats.Echo, compat.async_chat):
    pass


class Door(asyncore.dispatcher):
    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener)
        self.accepting = True

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        Echo(sock)


def echo(port: int, loop: str) -> None:
    """What comes in goes back."""
    Door(wire.listen(port))
    compat.loop(loop=loop)
