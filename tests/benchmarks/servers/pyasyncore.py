"""The original modules on their own two loops: the baseline.

From Python 3.12 on they are the packages pyasyncore and pyasynchat.
"""

from __future__ import annotations

import asynchat
import asyncore
import socket
from typing import Any

from tests.benchmarks.servers import chats, wire

__all__ = ["echo", "room", "room_echo"]


class Echo(chats.Echo, asynchat.async_chat):
    pass


class Room(chats.Room, asynchat.async_chat):
    pass


class QuietRoom(chats.QuietRoom, asynchat.async_chat):
    pass


class Listener(asyncore.dispatcher):
    """Accepts one client a turn, as the tutorial does."""

    def __init__(self, listener: socket.socket, session: type[chats.Echo]) -> None:
        super().__init__(listener)
        self.accepting = True
        self.session = session

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        self.session(sock)

    def handle_error(self) -> None:
        raise  # noqa: PLE0704


def room(port: int, loop: str) -> None:
    """Serve the tutorial's room."""
    _serve(port, Room, loop)


def room_echo(port: int, loop: str) -> None:
    """Serve the room without broadcasts."""
    _serve(port, QuietRoom, loop)


def echo(port: int, loop: str) -> None:
    """Serve the echo protocol."""
    _serve(port, Echo, loop)


def _serve(port: int, session: type[chats.Echo], loop: str) -> None:
    server = Listener(wire.listen(port), session)
    asyncore.loop(use_poll=loop == "poll")
    server.close()
