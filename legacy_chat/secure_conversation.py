"""The client's end of a connection with TLS.

Rule: without TLS, this module is not imported.
"""

from __future__ import annotations

import errno

from compat.tls import CLOSE_NOTIFY, TLS, HandshakeError, TLSSocket
from legacy_chat.conversation import Conversation

__all__ = ["SecureConversation"]


class SecureConversation(TLS, Conversation):
    """The client's end of a connection with TLS; ``start_tls`` is called next."""

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
