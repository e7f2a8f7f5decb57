"""The client's end of a connection with TLS.

Rule: without TLS, this module is not imported.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TextIO

import compat
from compat.tls import CLOSE_NOTIFY, TLS, HandshakeError, TLSSocket
from legacy_chat.conversation import Conversation

__all__ = ["SecureConversation"]


class SecureConversation(TLS, Conversation):
    """The client's end of a connection with TLS.

    Args:
        host: the name that the server's certificate must have.

    Raises:
        OSError: no certificate can have the name *host*.
    """

    def __init__(
        self,
        sock: socket.socket,
        screen: TextIO,
        map: compat.Map,
        terminator: bytes,
        context: ssl.SSLContext,
        host: str,
    ) -> None:
        super().__init__(sock, screen, map, terminator)
        try:
            self.start_tls(context, server_hostname=host)
        except ValueError as error:
            self.close()
            raise OSError(errno.EINVAL, str(error)) from error

    def handle_refused(self, error: HandshakeError) -> None:
        """Close, and keep *error* for the caller of the loop."""
        self.failure = error
        self.close()

    def handle_close(self) -> None:
        """Close; an end without ``close_notify`` is a failure."""
        super().handle_close()
        sock = self.socket
        if isinstance(sock, TLSSocket) and sock.ended not in ("", CLOSE_NOTIFY):
            self.failure = ConnectionAbortedError(errno.ECONNABORTED, sock.ended)
