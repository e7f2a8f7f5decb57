"""The original modules, on their own two loops: what the others are compared with.

From Python 3.12 on they are the packages pyasyncore and pyasynchat.
"""

from __future__ import annotations

import asynchat
import asyncore
import socket
from typing import Any

from tests.benchmarks.servers import chats, wire

__all__ = ["echo", "room"]


class Echo(chats.Echo, asynchat.async_chat):
    pass


class Room(chats.Room, asynchat.async_chat):
    pass


class Door(asyncore.dispatcher):
    """One client a turn, as in the tutorial."""

    def __init__(self, listener: socket.socket, session: type[chats.Echo]) -> None:
        super().__init__(listener)
        self.accepting = True
        self.session = session

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        self.session(sock)

    def handle_error(self) -> None:
        raise  # noqa: PLE0704


def room(port: int, loop: str) -> None:
    """The tutorial's room."""
    _serve(port, Room, loop)


def echo(port: int, loop: str) -> None:
    """What comes in goes back."""
    _serve(port, Echo, loop)


def _serve(port: int, session: type[chats.Echo], loop: str) -> None:
    door = Door(wire.listen(port), session)
    asyncore.loop(use_poll=loop == "poll")
    door.close()
