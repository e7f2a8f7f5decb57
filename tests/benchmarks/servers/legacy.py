"""legacy-chat on the loops of compat."""

from __future__ import annotations

import asyncore
import os
import socket
import tempfile
from typing import Any

import compat
from legacy_chat import ChatServer, ChatSession
from tests.benchmarks.servers import chats, wire

__all__ = ["echo", "room", "room_echo"]

# Bytes of a trace; no benchmark reaches them.
NO_LIMIT = 1 << 40


def room(port: int, loop: str) -> None:
    """Serve the room of legacy_chat."""
    _serve(port, loop, ChatSession)


class QuietSession(ChatSession):
    def broadcasting(self, msg: str | bytes) -> None:
        pass


def room_echo(port: int, loop: str) -> None:
    """Serve the room without broadcasts."""
    _serve(port, loop, QuietSession)


def _serve(port: int, loop: str, session_class: type[ChatSession]) -> None:
    wire.raise_limit()
    server = ChatServer(wire.BACKLOG, wire.HOST, port=port, session_class=session_class)
    wire.print_port(server.port)
    run(loop)


class Echo(chats.Echo, compat.async_chat):
    pass


class Listener(asyncore.dispatcher):
    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener)
        self.accepting = True

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        Echo(sock)


def echo(port: int, loop: str) -> None:
    """Serve the echo protocol."""
    Listener(wire.listen(port))
    run(loop)


def run(loop: str) -> None:
    """Run a loop of compat, or selectors with a trace."""
    if not loop.startswith("traced"):
        compat.loop(loop=loop)
        return
    payload = None if loop == "traced-none" else 64
    handle, path = tempfile.mkstemp()
    os.close(handle)
    with compat.tracing(path, payload, NO_LIMIT):
        # The benchmark kills its servers, so remove the name now.
        os.unlink(path)
        compat.loop(loop="selectors")
