"""The records on their way to the peer.

Rule: ``send`` counts bytes only when the kernel has accepted their whole record.
Uncounted bytes are encrypted already, and must leave before any others. So ``send``
remembers them as *retries*, and counts them once the caller offers them again.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from compat.tls.engine import Engine

__all__ = ["Records"]

# Maximum number of retries. Only a program that bypasses its own queue has more than
# one. The limit bounds their memory.
MOST_RETRIES = 4


class Records:
    """The unsent records of one connection.

    Attributes:
        unsent: records, or their rest, that the kernel has not accepted.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._retries: list[bytes] = []
        self.unsent = b""

    def send(self, sock: socket.socket, piece: bytes | memoryview) -> int:
        """Encrypt and send *piece*; return the number of its bytes that count.

        Raises:
            BlockingIOError: the kernel has not accepted the whole record.
            OSError: as from a socket.
        """
        self.flush(sock)
        if self.unsent:
            raise BlockingIOError(errno.EWOULDBLOCK, "the last record is not sent yet")
        if self._retries and (counted := self._retry(bytes(piece))):
            return counted
        if not piece:
            return 0
        self._engine.encrypt(piece)
        self.flush(sock)
        if self.unsent:
            self._retries.append(bytes(piece))
            del self._retries[:-MOST_RETRIES]
            raise BlockingIOError(errno.EWOULDBLOCK, "part of the record is not sent")
        return len(piece)

    def flush(self, sock: socket.socket) -> None:
        """Send as much as the kernel accepts."""
        self.unsent += self._engine.output()
        if self.unsent:
            with contextlib.suppress(BlockingIOError):
                self.unsent = self.unsent[sock.send(self.unsent) :]

    def _retry(self, data: bytes) -> int:
        """Return how many bytes of *data* were encrypted before and not counted."""
        for place, retry in enumerate(self._retries):
            if data.startswith(retry):
                del self._retries[place]
                return len(retry)
            if data and retry.startswith(data):
                self._retries[place] = retry[len(data) :]
                return len(data)
        return 0
