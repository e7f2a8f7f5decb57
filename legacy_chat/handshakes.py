"""The TLS handshakes of a server's clients.

Rule: a client joins the room after its handshake. Until then it receives nothing, and
nothing is queued for it.
"""

from __future__ import annotations

import collections
import socket
import ssl
from contextlib import ExitStack
from typing import Any, Protocol

import compat
from compat.tls import Handshake, HandshakeError, TLSSocket
from legacy_chat.admission import AdmissionControl
from legacy_chat.counters import Counters
from legacy_chat.limits import Limits

__all__ = ["HandshakePool"]


class Server(Protocol):
    """The attributes of ChatServer that the pool uses."""

    limits: Limits
    counters: Counters

    def admit(self, sock: Any, addr: Any) -> None: ...
    def refuse(self, sock: Any, reason: str, address: str = "") -> None: ...
    def handle_error(self) -> None: ...


class HandshakePool:
    """The handshakes of a server's clients that are in progress.

    Args:
        timeout: seconds for each handshake.
        map: the map of the server.

    An address may make as many handshakes at a time as it may have clients. A client
    that exceeds a limit only after its handshake is then sent the reason.

    Attributes:
        in_progress: the handshakes in progress.
        refused: the number of failed handshakes, by ``HandshakeError.kind``.

    Raises:
        ssl.SSLError: *context* is a client's context.
    """

    def __init__(
        self, server: Server, context: ssl.SSLContext, timeout: float, map: compat.Map
    ) -> None:
        self.server = server
        self.context = context
        self.timeout = timeout
        self.map = map
        self.in_progress: set[Handshake] = set()
        self._admission = AdmissionControl(server.limits)
        self.refused: collections.Counter[str] = collections.Counter()
        # Raises for a client's context now, not at the first connection.
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)

    def start(self, sock: socket.socket, addr: Any) -> None:
        """Start the handshake of an accepted socket, unless a limit rejects it."""
        connected = self.server.counters.connected + len(self.in_progress)
        reason = self._admission.refusal(connected, addr[0])
        if reason:
            self.server.refuse(sock, reason, addr[0])
            return
        with ExitStack() as undo:
            undo.callback(sock.close)
            secure = TLSSocket(sock, self.context, server_side=True)
            undo.callback(secure.close)
            _ServerHandshake(self, secure, addr)
            undo.pop_all()

    def add(self, handshake: Handshake, address: str) -> None:
        """Add a handshake that has begun."""
        self.in_progress.add(handshake)
        self._admission.add(address)

    def remove(self, handshake: Handshake, address: str) -> None:
        """Remove a handshake that has succeeded or failed."""
        if handshake in self.in_progress:
            self.in_progress.remove(handshake)
            self._admission.remove(address)

    def close(self) -> None:
        """Close the connections whose handshakes are in progress."""
        for handshake in list(self.in_progress):
            handshake.close()


class _ServerHandshake(Handshake):
    """The handshake of one accepted connection."""

    def __init__(self, pool: HandshakePool, sock: TLSSocket, addr: Any) -> None:
        self._pool = pool
        self._from = addr
        pool.add(self, addr[0])
        super().__init__(sock, pool.map, pool.timeout)

    def handle_secured(self, sock: TLSSocket) -> None:
        self._pool.server.admit(sock, self._from)

    def handle_refused(self, error: HandshakeError) -> None:
        self._pool.refused[error.kind] += 1
        super().handle_refused(error)

    def handle_error(self) -> None:
        self._pool.server.handle_error()

    def del_channel(self, map: compat.Map | None = None) -> None:
        self._pool.remove(self, self._from[0])
        super().del_channel(map)
