"""The TLS handshakes of a server's clients.

Rule: a client joins the room after its handshake. Until then it receives nothing, and
nothing is queued for it.
"""

from __future__ import annotations

import collections
import socket
import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import compat
from compat.tls import Handshake, HandshakeError, TLSSocket
from legacy_chat.admission import Places

if TYPE_CHECKING:
    from legacy_chat.server import ChatServer

__all__ = ["Entrance"]


class Entrance:
    """The handshakes of a server's clients that are in progress.

    Args:
        patience: seconds for each handshake.

    An address may make as many handshakes at a time as it may have clients. A client
    that exceeds a limit only after its handshake is then sent the reason.

    Attributes:
        handshakes: the handshakes in progress.
        refused: the number of failed handshakes, by ``HandshakeError.kind``.

    Raises:
        ssl.SSLError: *context* is a client's context.
    """

    def __init__(
        self, server: ChatServer, context: ssl.SSLContext, patience: float
    ) -> None:
        self.server = server
        self.context = context
        self.patience = patience
        self.handshakes: set[Handshake] = set()
        self._places = Places(server.limits)
        self.refused: collections.Counter[str] = collections.Counter()
        # Raises for a client's context now, not at the first connection.
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)

    def begin(self, sock: socket.socket, addr: Any) -> None:
        """Begin the handshake of an accepted socket, unless a limit rejects it."""
        connected = self.server.counters.connected + len(self.handshakes)
        reason = self._places.refusal(connected, addr[0])
        if reason:
            self.server.refuse(sock, reason, addr[0])
            return
        with ExitStack() as undo:
            undo.callback(sock.close)
            secure = TLSSocket(sock, self.context, server_side=True)
            undo.callback(secure.close)
            _Entering(self, secure, addr)
            undo.pop_all()

    def came(self, handshake: Handshake, address: str) -> None:
        """Add a handshake that has begun."""
        self.handshakes.add(handshake)
        self._places.take(address)

    def went(self, handshake: Handshake, address: str) -> None:
        """Remove a handshake that has ended, whatever the result."""
        if handshake in self.handshakes:
            self.handshakes.remove(handshake)
            self._places.give_back(address)

    def close(self) -> None:
        """Close the connections whose handshakes are in progress."""
        for handshake in list(self.handshakes):
            handshake.close()


class _Entering(Handshake):
    """The handshake of one accepted connection."""

    def __init__(self, entrance: Entrance, sock: TLSSocket, addr: Any) -> None:
        self._entrance = entrance
        self._from = addr
        entrance.came(self, addr[0])
        super().__init__(sock, entrance.server._map, entrance.patience)

    def handle_secured(self, sock: TLSSocket) -> None:
        self._entrance.server.let_in(sock, self._from)

    def handle_refused(self, error: HandshakeError) -> None:
        self._entrance.refused[error.kind] += 1
        super().handle_refused(error)

    def handle_error(self) -> None:
        self._entrance.server.handle_error()

    def del_channel(self, map: compat.Map | None = None) -> None:
        self._entrance.went(self, self._from[0])
        super().del_channel(map)
