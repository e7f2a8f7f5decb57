"""Twisted's protocols on its epoll reactor."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor  # noqa: E402  # the line above makes it
from twisted.internet.protocol import Factory, Protocol  # noqa: E402

from tests.benchmarks.servers import wire  # noqa: E402

__all__ = ["echo", "room", "room_echo"]


class Echo(Protocol):
    """Sends all data back."""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        self.transport.write(data)


class Room(Echo):
    """A client in the room."""

    clients: dict[Room, Any] = {}  # noqa: RUF012  # there is one room

    def connectionMade(self) -> None:  # noqa: N802
        peer = self.transport.getPeer()
        self.user = wire.user(peer.host, peer.port)
        self.prefix = wire.prefix(self.user)
        self.clients[self] = self.transport.write

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        data, last = wire.split_last(data)
        if data:
            self.transport.write(data)
            self.broadcast(self.prefix + data)
        if last:
            self.broadcast(wire.last_message(self.user))
            self.clients.pop(self, None)
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802
        self.clients.pop(self, None)

    def broadcast(self, text: bytes) -> None:
        for client, write in self.clients.items():
            if client is not self:
                write(text)


class QuietRoom(Room):
    """A client in a room without broadcasts."""

    def broadcast(self, text: bytes) -> None:
        pass


def room(port: int, variant: str) -> None:
    """Serve the room."""
    _serve(port, Room)


def room_echo(port: int, variant: str) -> None:
    """Serve the room without broadcasts."""
    _serve(port, QuietRoom)


def echo(port: int, variant: str) -> None:
    """Serve the echo protocol."""
    _serve(port, Echo)


def _serve(port: int, protocol: type[Protocol]) -> None:
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    listener = wire.listen(port)
    which: Any = reactor
    which.adoptStreamPort(listener.fileno(), socket.AF_INET, factory)
    # The reactor has a duplicate of the descriptor now.
    listener.close()
    which.run(installSignalHandlers=False)
