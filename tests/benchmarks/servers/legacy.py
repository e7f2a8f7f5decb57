"""legacy-chat on the loops of compat."""

from __future__ import annotations

import asyncore
import os
import socket
import tempfile
from typing import Any

import compat
from legacy_chat import ChatServer
from tests.benchmarks.servers import chats, wire

__all__ = ["echo", "room"]

# Bytes of trace, which no benchmark reaches.
NO_LIMIT = 1 << 40


def room(port: int, loop: str) -> None:
    """The room as it is."""
    wire.raise_limit()
    server = ChatServer(wire.BACKLOG, wire.HOST, port=port)
    wire.announce(server.port)
    turn(loop)


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
    turn(loop)


def turn(loop: str) -> None:
    """Turn the channels on a loop of compat, or on selectors, traced."""
    if not loop.startswith("traced"):
        compat.loop(loop=loop)
        return
    payload = None if loop == "traced-none" else 64
    handle, path = tempfile.mkstemp()
    os.close(handle)
    with compat.tracing(path, payload, NO_LIMIT):
        # A server is killed when it has been measured, and cleans nothing up.
        os.unlink(path)
        compat.loop(loop="selectors")
