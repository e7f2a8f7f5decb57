"""OpenSSL between two buffers: bytes in, bytes out, no socket.

``ssl.SSLObject`` between two ``MemoryBIO``, not ``ssl.SSLSocket``, because

- OpenSSL then does no I/O and cannot block. "Reading needs a write" means some more
  bytes to send, "writing needs a read" an unfinished handshake;
- a turn's coalesced writes are one send. SSLSocket makes one send for every 16 KiB, and
  two reads for every record, however short;
- an SSLSocket loses the connection unless a write that the kernel did not accept is
  repeated with the same bytes. Here, other bytes may come first.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
from typing import TYPE_CHECKING, Any

from compat.tls.errors import reason_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["CLOSE_NOTIFY", "SIZE", "TRUNCATED", "Engine"]

# Bytes received or encrypted at a time, the same as asynchat's buffers: four TLS
# records of at most 16 KiB.
SIZE = 65536

# The reasons for the end of the input: with and without the peer's close_notify.
CLOSE_NOTIFY = "close_notify"
TRUNCATED = "the connection was closed without a close_notify"


class Engine:
    """One side of a TLS connection.

    Attributes:
        ssl: the SSLObject, for its ``getpeercert``, ``version`` and so on.
        ended: the reason for the end of the input; empty before the end.
        error: the arguments of the OSError at the end; empty for a regular end. An
            exception object would keep its frames alive.
    """

    def __init__(
        self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None
    ) -> None:
        if context.check_hostname and not server_side and not server_hostname:
            # SSLSocket checks this itself; SSLObject would accept any server.
            raise ValueError(
                "server_hostname must be given: the context checks it (check_hostname)"
            )
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._in, self._out, server_side, server_hostname)
        self.ended = ""
        self.error: tuple[Any, ...] = ()
        self._close_notify_sent = False

    @property
    def buffered(self) -> int:
        """The number of received bytes that are not decrypted."""
        return self._in.pending

    def output(self) -> bytes:
        """Remove and return the bytes to send."""
        return self._out.read() if self._out.pending else b""

    def handshake(self, data: bytes) -> bool:
        """Add received *data*; return whether the handshake is over.

        Raises:
            ssl.SSLError: the handshake has failed; ``output`` has the alert.
        """
        self._in.write(data)
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self, data: bytes | None) -> bytes:
        """Add *data* (b"" at the end, None for none); return the decrypted data."""
        if data:
            self._in.write(data)
        elif data is not None:
            self._in.write_eof()
        pieces = []
        try:
            while self._in.pending or self.ssl.pending() or data == b"":
                piece = self.ssl.read(SIZE)
                if not piece:
                    self.ended = CLOSE_NOTIFY
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            # The rest is not a whole record.
            pass
        except ssl.SSLEOFError:
            self.ended = TRUNCATED
        except ssl.SSLError as error:
            self.fail(reason_of(error)[1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def fail(self, reason: str) -> None:
        """End the input with an error."""
        self.ended = reason
        self.error = errno.ECONNABORTED, reason

    def encrypt(self, data: ReadableBuffer) -> None:
        """Encrypt *data* into the output.

        Raises:
            BlockingIOError: a renegotiation, which the context allows, is under way.
            ConnectionAbortedError: OpenSSL has failed.
        """
        try:
            self.ssl.write(data)
        except ssl.SSLWantReadError:
            raise BlockingIOError(
                errno.EWOULDBLOCK, "a renegotiation is under way"
            ) from None
        except ssl.SSLError as error:
            reason = reason_of(error)[1]
            raise ConnectionAbortedError(errno.ECONNABORTED, reason) from error

    def close_notify(self) -> bytes:
        """Return the close_notify, once; empty after an error."""
        if self._close_notify_sent or self.error:
            return b""
        self._close_notify_sent = True
        # unwrap() raises because the peer's close_notify has not arrived.
        with contextlib.suppress(ssl.SSLError):
            self.ssl.unwrap()
        return self.output()
