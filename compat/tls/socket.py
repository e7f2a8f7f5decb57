"""``TLSSocket``: a channel's socket, with TLS.

Rule 1: ``send`` counts bytes only when the kernel has accepted their whole record.
Rule 2: no method moves a byte past TLS.
Rule 3: one thread at a time uses OpenSSL and the unsent records.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

from compat._types import Map
from compat.tls.engine import SIZE, Engine
from compat.tls.errors import display_name
from compat.tls.file import FileMethods
from compat.tls.lingering import close_after
from compat.tls.records import Records

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["TLSSocket"]

# Maximum bytes of unsent records. A write needs less. A peer causes the rest: it
# requests answers (that no new handshake is allowed) without reading them.
MOST_UNSENT = 2 * SIZE

# Attributes of the underlying socket that a TLSSocket exposes: none moves a byte.
OF_SOCKET = {
    "family",
    "get_inheritable",
    "getblocking",
    "getpeername",
    "getsockname",
    "getsockopt",
    "gettimeout",
    "ioctl",
    "proto",
    "set_inheritable",
    "setsockopt",
    "timeout",
    "type",
}

# Attributes of the SSLObject that a TLSSocket exposes.
OF_TLS = {
    "cipher",
    "compression",
    "context",
    "get_channel_binding",
    "get_unverified_chain",
    "get_verified_chain",
    "getpeercert",
    "selected_alpn_protocol",
    "selected_npn_protocol",
    "server_hostname",
    "server_side",
    "session",
    "session_reused",
    "shared_ciphers",
    "verify_client_post_handshake",
    "version",
}

logger = logging.getLogger("compat")


class Closable(Protocol):
    """The channel of an unfinished handshake."""

    def close(self) -> None: ...


class TLSSocket(FileMethods):
    """TLS on a connected socket, for asyncore's classes; never blocks.

    Args:
        sock: a connected socket, which this object owns from now on.
        server_hostname: the expected name of the server; a client's context needs it
            unless its ``check_hostname`` is off.

    It sends and receives as a non-blocking ``ssl.SSLSocket``. It exposes the attributes
    in OF_SOCKET (``getpeername``, ``setsockopt``) and in OF_TLS (``getpeercert``,
    ``version``). It has no other attribute of a socket: ``sendmsg`` or ``dup`` would
    bypass TLS.

    Attributes:
        engine: the OpenSSL side of the connection.
        reads: the number of ``recv`` calls that gave data, the end or an error.

    Raises:
        ValueError: *server_hostname* is missing or invalid; ``ssl.SSLError``: the
            context is for the other side.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.engine = Engine(context, server_side, server_hostname)
        self.reads = 0
        self._sock = sock
        self._map: Map | None = None
        self._handshake: Closable | None = None
        self._secured = False
        self._closed = False
        # Decrypted data, and the number of its bytes that recv has returned.
        self._plain, self._returned = b"", 0
        # True once recv has reported the end or the error.
        self._end_reported = False
        self._records = Records(self.engine)
        # {process id: number of the thread that uses the connection}.
        self._users: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        if name in OF_SOCKET:
            return getattr(self._sock, name)
        if name in OF_TLS:
            return getattr(self.engine.ssl, name)
        raise AttributeError(
            f"TLSSocket has no attribute {name!r}: the socket beneath would bypass TLS"
        )

    def __repr__(self) -> str:
        return f"<TLSSocket on {self._sock!r}>"

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 when closed."""
        return -1 if self._closed else self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Accept only False: a TLSSocket never blocks.

        Raises:
            ValueError: *flag* is true.
        """
        if flag:
            raise ValueError("flag must be False: a TLSSocket never blocks")
        self._sock.setblocking(False)

    def settimeout(self, seconds: float | None) -> None:
        """Accept only 0: a TLSSocket never blocks.

        Raises:
            ValueError: *seconds* is not 0.
        """
        self.setblocking(seconds != 0)

    # Receiving.

    @property
    def ended(self) -> str:
        """The reason for the end of the input: CLOSE_NOTIFY, TRUNCATED, or an error.

        Empty before the end.
        """
        return self.engine.ended

    @property
    def has_result(self) -> bool:
        """True if ``recv`` would return or fail without receiving from the network."""
        if self._closed:
            return False
        return bool(self._plain or (self.ended and not self._end_reported))

    def receive(self) -> bool:
        """Receive once from the network; return whether ``recv`` has a result."""
        if self.has_result or self._closed or not self._secured:
            return self.has_result
        # If another thread is sending, the loop calls again.
        if self._claim():
            try:
                self._fill()
            finally:
                self._release()
        return self.has_result

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        """Return at most *size* decrypted bytes; empty at the end.

        Raises:
            BlockingIOError: no whole record has arrived yet.
            ConnectionAbortedError: the data is not TLS, or was changed on the way.
            OSError: as from a socket.
            ValueError: *size* is negative; *flags* are not 0.
        """
        self._check(flags)
        if size < 0:
            raise ValueError(f"size must be >= 0, got {size}")
        if size == 0:
            # An empty read must not report the end.
            return b""
        if not self.receive() and not self.ended:
            raise BlockingIOError(errno.EWOULDBLOCK, "no whole record has arrived yet")
        self.reads += 1
        if self._plain:
            data = self._plain[self._returned : self._returned + size]
            self._returned += len(data)
            if self._returned == len(self._plain):
                self._plain, self._returned = b"", 0
            return data
        self._end_reported = True
        if self.engine.error:
            raise OSError(*self.engine.error)
        return b""

    def pending(self) -> int:
        """Return the number of decrypted bytes that ``recv`` has not returned yet."""
        return len(self._plain) - self._returned

    def drop_urgent_data(self) -> None:
        """Receive an urgent byte, which TLS does not protect, and drop it.

        Raises:
            OSError: there is no urgent byte; as from a socket.
        """
        self._sock.recv(1, socket.MSG_OOB)

    # Sending.

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Encrypt and send; return the number of bytes that the kernel has accepted.

        Each 64 KiB counts as a whole or not at all. The caller must offer uncounted
        bytes again, as asyncore's classes do; more bytes may follow them, and they may
        be cut elsewhere. They are already encrypted, so they are sent before any
        other data, and count once they are offered again.

        Raises:
            BlockingIOError: nothing was accepted, or the handshake is not over.
            OSError: as from a socket.
            ValueError: *flags* are not 0.
        """
        self._check(flags)
        if not self._secured:
            raise BlockingIOError(errno.EWOULDBLOCK, "the handshake is not over yet")
        whole = data if type(data) is bytes else memoryview(data).cast("B")
        sent = taken = self._send_piece(whole[:SIZE])
        while taken == SIZE and sent < len(whole):
            try:
                taken = self._send_piece(whole[sent : sent + SIZE])
            except OSError:
                # Full or disconnected; the next send reports it.
                break
            sent += taken
        return sent

    # Closing.

    def shutdown(self, how: int) -> None:
        """Send the close_notify, except for SHUT_RD, and shut down the socket.

        Raises:
            OSError: as from a socket.
        """
        self._check()
        if how != socket.SHUT_RD:
            if not self._claim():
                raise BlockingIOError(errno.EWOULDBLOCK, "another thread uses it")
            try:
                self._records.unsent += self._close_notify()
                self._records.flush(self._sock)
            finally:
                self._release()
        self._sock.shutdown(how)

    def close(self) -> None:
        """Send the close_notify once, without waiting, and close the socket.

        If part of a record is unsent, no close_notify follows. If the send buffer is
        full and a compat loop runs the map, a lingering close sends the close_notify
        within the next two seconds.
        """
        if self._handshake is not None:
            self._handshake.close()
        if self._closed:
            return
        close_notify = b""
        if self._claim():
            try:
                close_notify = self._close_notify()
            finally:
                self._release()
        if close_notify:
            # The kernel would reset a connection with unread input, and discard data
            # that the peer has not received.
            with contextlib.suppress(OSError):
                self._sock.recv(SIZE)
        self.close_after(close_notify)

    # For the handshake.

    @property
    def beneath(self) -> socket.socket:
        """The socket without TLS, for the handshake's channel only."""
        return self._sock

    def start_handshake(self, handshake: Closable, map: Map) -> None:
        """Let ``close`` close *handshake*, whose channel is in *map*."""
        self._handshake, self._map = handshake, map

    def end_handshake(self) -> None:
        """Let ``close`` close this socket only."""
        self._handshake = None

    def secure(self, unsent: bytes) -> None:
        """Begin to encrypt; *unsent* is the unsent rest of the handshake."""
        self._records.unsent, self._secured = unsent, True

    def close_after(self, data: bytes, *, linger: bool = False) -> None:
        """Send *data* unencrypted and close; *linger* until the peer has closed."""
        self._closed = True
        close_after(data, self._sock, self._map, linger=linger)

    def _check(self, flags: int = 0) -> None:
        """Reject flags, and use after close: a lingering close may need the socket."""
        if flags:
            raise ValueError(f"flags must be 0 over TLS, got {flags}")
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _claim(self) -> bool:
        """Claim OpenSSL for this thread; return False if another thread uses it.

        A thread is rejected rather than blocked. After a fork, claims of the parent do
        not count. After an interruption, the same thread may claim again.
        """
        thread = get_ident()
        return self._users.setdefault(os.getpid(), thread) == thread

    def _release(self) -> None:
        self._users.clear()

    def _fill(self) -> None:
        engine = self.engine
        try:
            # An incomplete record stays in the engine: the sum of both is bounded.
            data = self._sock.recv(SIZE - engine.buffered)
        except BlockingIOError:
            # Data may have arrived with the end of the handshake.
            self._plain = engine.decrypt(None)
        except OSError as error:
            engine.ended, engine.error = f"{error.strerror or error}", error.args
            return
        else:
            self._plain = engine.decrypt(data)
        # Send the answer to a new handshake, or the alert. A later send reports errors
        # and flushes a record that waits.
        with contextlib.suppress(OSError):
            self._records.flush(self._sock)
        if len(self._records.unsent) > MOST_UNSENT:
            engine.fail("the peer requests answers without reading them")
        if engine.error:
            peer = display_name(_peer_of(self._sock))
            logger.info("%s: TLS has failed: %s", peer, engine.ended)

    def _send_piece(self, piece: bytes | memoryview) -> int:
        if not self._claim():
            raise BlockingIOError(errno.EWOULDBLOCK, "another thread uses it")
        try:
            return self._records.send(self._sock, piece)
        finally:
            self._release()

    def _close_notify(self) -> bytes:
        """Return the close_notify, once; empty before the end of the handshake.

        Empty behind unsent data, too: the peer could not read it.
        """
        if self._records.unsent or not self._secured:
            return b""
        return self.engine.close_notify()


def _peer_of(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError:
        return None
