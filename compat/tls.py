"""TLS for any dispatcher or async_chat, on any loop.

    >>> class Session(TLS, compat.async_chat):
    ...     def __init__(self, sock):
    ...         super().__init__(sock)
    ...         self.start_tls(context, server_side=True)

Three parts. ``TLSSocket`` replaces the channel's ``socket``. ``Handshake`` is a channel
that takes the place of the waiting channel in the map. ``TLS`` is the mixin: it begins
the handshake and delivers decrypted data.

It uses ``ssl.SSLObject`` between two ``MemoryBIO``, not ``ssl.SSLSocket``, because

- OpenSSL then does no I/O and cannot block. "Reading needs a write" means some more
  bytes to send, "writing needs a read" an unfinished handshake;
- a turn's coalesced writes are one send. SSLSocket makes one send for every 16 KiB, and
  two reads for every record, however short;
- an SSLSocket loses the connection unless a write that the kernel did not accept is
  repeated with the same bytes. Here, other bytes may come first.

Rule 1: ``send`` counts bytes only when the kernel has accepted their whole record. So
all that asyncore derives from that count stays right: the original's ``writable``,
``close_when_done``, a limit on the backlog. The channel keeps its cached interest, and
a broadcast group sends its log to it as to a plain channel.
Rule 2: decrypted data is delivered without waiting for another packet, but only while
the channel is ``readable``.
Rule 3: an unfinished handshake costs other channels no turn. The map holds a Handshake;
the loop neither polls nor dispatches to the channel itself, whose pushes wait.
Rule 4: a peer cannot cause a traceback.
Rule 5: from ``start_tls`` on, no byte passes a channel's ``socket`` in plain, in either
direction: before the handshake is over, after it, and after ``close``. Methods that
could bypass TLS are missing.
Rule 6: one thread at a time uses OpenSSL and the unsent records. Another thread gets
BlockingIOError, so its channel queues the data and the loop sends it.
"""

from __future__ import annotations

import asyncore
import contextlib
import errno
import io
import logging
import os
import socket
import ssl
import time
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar

from compat._types import Map
from compat.async_chat import Original, async_chat
from compat.scheduler import call_later, call_soon_threadsafe, is_running
from compat.urgent import drop_urgent_data

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "CLOSE_NOTIFY",
    "CUT",
    "TLS",
    "Handshake",
    "HandshakeError",
    "TLSSocket",
    "over_tls",
]

# Seconds for a handshake: several round trips to the far side of the world, lost once.
PATIENCE = 10.0

# Seconds of a lingering close: the peer's time to receive the last bytes and to close.
LINGER = 2.0

# Maximum number of lingering closes; further sockets are closed at once. No limit on
# connections counts a rejected peer, which would hold a descriptor all that time.
MOST_LINGERING = 64

# Bytes received or encrypted at a time, the same as asynchat's buffers: four TLS
# records of at most 16 KiB.
SIZE = 65536

# Maximum number of pending retries: encrypted writes that send() did not count. Only a
# program that bypasses its own queue has more than one. The limit bounds their memory.
FEW_PROMISES = 4

# Maximum bytes of unsent records. A write needs less. A peer causes the rest: it
# requests answers (that no new handshake is allowed) without reading them.
MOST_UNSENT = 2 * SIZE

# The reasons for the end of the input: with and without the peer's close_notify.
CLOSE_NOTIFY = "close_notify"
CUT = "the connection was cut off, without a close_notify"

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

# OpenSSL's reason: (the kind, for counters; the message, for people).
REASONS = {
    "HTTP_REQUEST": ("no TLS", "it speaks HTTP without TLS"),
    "WRONG_VERSION_NUMBER": ("no TLS", "it does not speak TLS"),
    # A plain chat room causes this, too, because it echoes.
    "UNEXPECTED_MESSAGE": ("protocol", "what it says is no handshake of TLS"),
    "UNSUPPORTED_PROTOCOL": ("version", "its TLS is too old"),
    "TLSV1_ALERT_PROTOCOL_VERSION": ("version", "it wants another version of TLS"),
    "NO_SHARED_CIPHER": ("cipher", "there is no cipher that both know"),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": ("cipher", "it accepts nothing that was offered"),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "no certificate",
        "it shows no certificate, and one is required",
    ),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "no certificate",
        "it requires a certificate, and was shown none",
    ),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "distrusted",
        "it does not trust who has issued the certificate that it was shown",
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": (
        "distrusted",
        "it does not accept the certificate that it was shown",
    ),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": (
        "distrusted",
        "it does not accept the certificate that it was shown",
    ),
}

logger = logging.getLogger("compat")


class HandshakeError(ConnectionAbortedError):
    """A handshake failed.

    Attributes:
        kind: the reason, for counters: "timeout", "closed", "no TLS", "version",
            "cipher", "no certificate", "certificate", "distrusted", "protocol".
        strerror: the reason, for people; ``str`` returns it, too.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(errno.ECONNABORTED, reason)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.strerror)


class TLSSocket:
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
        ended: the reason for the end of the input: CLOSE_NOTIFY, CUT, or an error.
            Empty before the end.
        taken: the number of ``recv`` calls that gave data, the end or an error.

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
        if context.check_hostname and not server_side and not server_hostname:
            # SSLSocket checks this itself; SSLObject would accept any server.
            raise ValueError(
                "server_hostname is needed: the context checks it (check_hostname)"
            )
        self.ended = ""
        self.taken = 0
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._in, self._out, server_side, server_hostname)
        self._map: Map | None = None
        self._handshake: Handshake | None = None
        self._secured = False
        self._said_goodbye = False
        self._closed = False
        # Decrypted data, and the number of its bytes that recv has returned.
        self._plain, self._gone = b"", 0
        # True once recv has reported the end or the error.
        self._told = False
        # The arguments of the error: an exception object would keep its frames alive.
        self._error: tuple[Any, ...] = ()
        # Records, or their rest, that the kernel has not accepted.
        self._unsent = b""
        # Pending retries: encrypted data that send() did not count, because the kernel
        # had not accepted all of its record.
        self._promised: list[bytes] = []
        # {process id: number of the thread that uses the connection}.
        self._users: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        if name in OF_SOCKET:
            return getattr(self._sock, name)
        if name in OF_TLS:
            return getattr(self._ssl, name)
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
            raise ValueError("a TLSSocket never blocks")
        self._sock.setblocking(False)

    def settimeout(self, seconds: float | None) -> None:
        """Accept only 0: a TLSSocket never blocks.

        Raises:
            ValueError: *seconds* is not 0.
        """
        self.setblocking(seconds != 0)

    @property
    def waiting(self) -> bool:
        """True if ``recv`` would return or fail without receiving from the network."""
        if self._closed:
            return False
        return bool(self._plain or (self.ended and not self._told))

    def look(self) -> bool:
        """Receive once from the network; return whether ``recv`` has a result."""
        if self.waiting or self._closed or not self._secured:
            return self.waiting
        # If another thread is sending, the loop calls again.
        if self._claim():
            try:
                self._fill()
            finally:
                self._release()
        return self.waiting

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
        if not self.look() and not self.ended:
            raise BlockingIOError(errno.EWOULDBLOCK, "no whole record has come yet")
        self.taken += 1
        if self._plain:
            return self._take(size)
        self._told = True
        if self._error:
            raise OSError(*self._error)
        return b""

    def recv_into(
        self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0
    ) -> int:
        """Like ``recv``, but into *buffer*; return the number of bytes.

        Args:
            nbytes: maximum number of bytes; 0 and None mean the size of the buffer.

        Raises:
            TypeError: *buffer* is read-only.
            OSError: and ValueError: as from ``recv``.
        """
        with memoryview(buffer).cast("B") as view:
            if view.readonly:
                raise TypeError("buffer must be writable, got a read-only one")
            data = self.recv(min(nbytes or len(view), len(view)), flags)
            view[: len(data)] = data
        return len(data)

    def read(self, size: int = 1024, buffer: WriteableBuffer | None = None) -> Any:
        """Like ``recv``; with a *buffer*, like ``recv_into``."""
        if buffer is None:
            return self.recv(size)
        return self.recv_into(buffer, size)

    def pending(self) -> int:
        """Return the number of decrypted bytes that ``recv`` has not returned yet."""
        return len(self._plain) - self._gone

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Encrypt and send; return the number of bytes that the kernel has accepted.

        Each 64 KiB counts as a whole or not at all. The caller must offer uncounted
        bytes again, as asyncore's classes do; more bytes may follow them, and they may
        be cut elsewhere. They are already encrypted, so they go out first, whatever
        the caller offers next, and count once they are offered again.

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

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Encrypt and send all of *data*.

        Raises:
            BlockingIOError: the kernel has not accepted all of *data*. The accepted
                amount is unknown, as with any non-blocking socket.
            OSError: and ValueError: as from ``send``.
        """
        with memoryview(data).cast("B") as rest:
            sent = self.send(rest, flags)
            while sent < len(rest):
                sent += self.send(rest[sent:])

    def write(self, data: ReadableBuffer) -> int:
        """Like ``send``."""
        return self.send(data)

    def makefile(
        self,
        mode: str = "r",
        buffering: int = -1,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Return a file object that encrypts and decrypts.

        As with a non-blocking pipe, its methods return None or raise BlockingIOError
        instead of blocking. Closing the file leaves the socket open.

        Raises:
            ValueError: *mode* has letters other than r, w and b; or *buffering* is 0
                for a text file.
        """
        if not set(mode) <= set("rwb"):
            raise ValueError(f"mode must be of r, w and b, got {mode!r}")
        raw = _File(self, mode)
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("buffering must not be 0 for text, got 0")
            return raw
        size = buffering if buffering > 0 else io.DEFAULT_BUFFER_SIZE
        file: Any
        if not raw.writable():
            file = io.BufferedReader(raw, size)
        elif not raw.readable():
            file = io.BufferedWriter(raw, size)
        else:
            file = io.BufferedRWPair(raw, raw, size)
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, encoding, errors, newline)

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
                self._unsent += self._last_words()
                self._flush()
            finally:
                self._release()
        self._sock.shutdown(how)

    def drop_urgent_data(self) -> None:
        """Receive an urgent byte, which TLS does not protect, and drop it.

        Raises:
            OSError: there is no urgent byte; as from a socket.
        """
        self._sock.recv(1, socket.MSG_OOB)

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
        words = b""
        if self._claim():
            try:
                words = self._last_words()
            finally:
                self._release()
        if words:
            # The kernel would reset a connection with unread input, and discard data
            # that the peer has not received.
            with contextlib.suppress(OSError):
                self._sock.recv(SIZE)
        self._let_go(words, linger=False)

    def _check(self, flags: int = 0) -> None:
        """Reject flags, and use after close: a lingering close may need the socket."""
        if flags:
            raise ValueError(f"flags must be 0 over TLS, got {flags}")
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _take(self, size: int) -> bytes:
        data = self._plain[self._gone : self._gone + size]
        self._gone += len(data)
        if self._gone == len(self._plain):
            self._plain, self._gone = b"", 0
        return data

    def _fill(self) -> None:
        try:
            # An incomplete record waits in _in: the sum of both is bounded.
            data = self._sock.recv(SIZE - self._in.pending)
        except BlockingIOError:
            # Data may have arrived with the end of the handshake.
            self._decrypt(None)
        except OSError as error:
            self.ended, self._error = f"{error.strerror or error}", error.args
        else:
            self._decrypt(data)

    def _decrypt(self, data: bytes | None) -> None:
        """Add *data* (b"" at the end, None for none) and decrypt whole records."""
        if data:
            self._in.write(data)
        elif data is not None:
            self._in.write_eof()
        pieces = []
        try:
            while self._in.pending or self._ssl.pending() or data == b"":
                piece = self._ssl.read(SIZE)
                if not piece:
                    self.ended = CLOSE_NOTIFY
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            # The rest is not a whole record.
            pass
        except ssl.SSLEOFError:
            self.ended = CUT
        except ssl.SSLError as error:
            self._fail(_why(error)[1])
        self._plain = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        # Send the answer to a new handshake, or the alert. A later send reports errors
        # and flushes a record that waits.
        with contextlib.suppress(OSError):
            self._flush()
        if len(self._unsent) > MOST_UNSENT:
            self._fail("it asks for answers, and does not read them")

    def _fail(self, reason: str) -> None:
        self.ended = reason
        self._error = errno.ECONNABORTED, reason
        logger.info("%s: TLS has failed: %s", _peer(self._sock), reason)

    def _encrypt(self, data: ReadableBuffer) -> None:
        try:
            self._ssl.write(data)
        except ssl.SSLWantReadError:
            # A renegotiation, if the caller's context allows it.
            raise BlockingIOError(errno.EWOULDBLOCK, "a handshake goes on") from None
        except ssl.SSLError as error:
            reason = _why(error)[1]
            raise ConnectionAbortedError(errno.ECONNABORTED, reason) from error

    def _claim(self) -> bool:
        """Claim OpenSSL for this thread; return False if another thread uses it.

        A thread is rejected rather than blocked. After a fork, claims of the parent do
        not count. After an interruption, the same thread may claim again.
        """
        thread = get_ident()
        return self._users.setdefault(os.getpid(), thread) == thread

    def _release(self) -> None:
        self._users.clear()

    def _send_piece(self, piece: bytes | memoryview) -> int:
        if not self._claim():
            raise BlockingIOError(errno.EWOULDBLOCK, "another thread uses it")
        try:
            return self._send_alone(piece)
        finally:
            self._release()

    def _send_alone(self, piece: bytes | memoryview) -> int:
        self._flush()
        if self._unsent:
            raise BlockingIOError(errno.EWOULDBLOCK, "the last record is not sent yet")
        if self._promised and (kept := self._keep_promise(bytes(piece))):
            return kept
        if not piece:
            return 0
        self._encrypt(piece)
        self._flush()
        if self._unsent:
            self._promised.append(bytes(piece))
            del self._promised[:-FEW_PROMISES]
            raise BlockingIOError(errno.EWOULDBLOCK, "not all of the record is sent")
        return len(piece)

    def _flush(self) -> None:
        """Send encrypted data, as much as the kernel accepts."""
        if self._out.pending:
            self._unsent += self._out.read()
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def _keep_promise(self, data: bytes) -> int:
        """Return how many bytes of *data* were encrypted before and not counted."""
        for place, promised in enumerate(self._promised):
            if data.startswith(promised):
                del self._promised[place]
                return len(promised)
            if data and promised.startswith(data):
                self._promised[place] = promised[len(data) :]
                return len(data)
        return 0

    def _last_words(self) -> bytes:
        """Return the close_notify, once.

        Empty before the handshake is over, after an error, and behind unsent data.
        """
        if self._said_goodbye or not self._secured or self._unsent or self._error:
            return b""
        self._said_goodbye = True
        # unwrap() raises because the peer's close_notify has not arrived.
        with contextlib.suppress(ssl.SSLError):
            self._ssl.unwrap()
        return self._out.read()

    def _let_go(self, words: bytes, *, linger: bool) -> None:
        """Send *words* and close the socket; *linger* until the peer has closed."""
        self._closed = True
        sent = 0
        if words:
            # The peer may be gone already.
            with contextlib.suppress(OSError):
                sent = self._sock.send(words)
        left = words[sent:]
        if (
            (left or linger)
            and self._map is not None
            and is_running(self._map)
            and len(_Goodbye.lingering) < MOST_LINGERING
        ):
            _Goodbye(self._sock, left, self._map)
        else:
            self._sock.close()


class _File(io.RawIOBase):
    """The unbuffered file of ``makefile``."""

    def __init__(self, sock: TLSSocket, mode: str) -> None:
        self._sock = sock
        self._mode = mode

    def readable(self) -> bool:
        return "r" in self._mode or "w" not in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def fileno(self) -> int:
        return self._sock.fileno()

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:
            return None

    def write(self, data: ReadableBuffer, /) -> int | None:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return None


class Handshake(async_chat):
    """The channel that performs a handshake, on the socket beneath a TLSSocket.

    Args:
        sock: the TLSSocket.
        map: the channel map; None for ``asyncore.socket_map``.
        patience: seconds after which the peer is rejected. asyncore's own loop has no
            timers. There, the first turn that begins later rejects the peer: after some
            event, or after the loop's timeout (30 s by default).

    The handshake begins at once, and ends in one of the two hooks, or in ``close``.
    """

    handle_expt = drop_urgent_data

    def __init__(
        self, sock: TLSSocket, map: Map | None = None, patience: float = PATIENCE
    ) -> None:
        self._tls = sock
        self._over = False
        super().__init__(sock._sock, map)
        self.set_terminator(None)
        sock._handshake, sock._map = self, self._map
        self._timer = call_later(patience, self._look_at_the_clock, map=self._map)
        if not is_running(self._map):
            # asyncore's own loop may run the map. It has no timers, but it calls
            # writable() in every turn.
            self.writable = self._wants_the_clock  # type: ignore[method-assign]
        self._advance()

    def handle_secured(self, sock: TLSSocket) -> None:
        """The handshake is over; this channel has left the map.

        Create a channel for *sock* here. If that is a ``TLS``, data that has already
        arrived is delivered to it at once.
        """

    def handle_refused(self, error: HandshakeError) -> None:
        """The handshake has failed, and the socket is closed. Log the error."""
        logger.warning("%s: no TLS: %s", self.peer, error)

    @property
    def peer(self) -> str:
        """The peer's address and port, for display."""
        return _name(self.addr)

    def collect_incoming_data(self, data: bytes) -> None:
        """Pass received data to OpenSSL."""
        self._tls._in.write(data)
        self._advance()

    def found_terminator(self) -> None:
        """Never called: there is no terminator, because records carry their length."""

    def handle_write(self) -> None:
        """Send OpenSSL's output."""
        super().handle_write()
        self._look_at_the_clock()

    def handle_expt_event(self) -> None:
        """Drop urgent data, unless this channel has left the map in the same turn."""
        if not self._over:
            super().handle_expt_event()

    def handle_close(self) -> None:
        """Reject the peer, which has disconnected."""
        self._refuse(HandshakeError("closed", "it left in the middle of the handshake"))

    def handle_error(self) -> None:
        """Handle an exception of a hook: close the socket."""
        super().handle_error()
        self._tls.close()

    def close(self) -> None:
        """Abandon the handshake without calling a hook."""
        if self._leave():
            self._tls._let_go(b"", linger=False)

    def _advance(self) -> None:
        if self._look_at_the_clock():
            return
        refused, done = None, False
        try:
            self._tls._ssl.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            refused = HandshakeError(*_why(error))
        words = self._tls._out.read()
        if words and not self._over:
            # The push may find that the peer is gone.
            self.push(words)
        if refused is not None:
            self._refuse(refused)
        elif done:
            self._finish()

    def _finish(self) -> None:
        fd, tls = self._fileno, self._tls
        if not self._leave():
            return
        tls._unsent = b"".join(self.producer_fifo)
        tls._secured = True
        self.handle_secured(tls)
        channel = self._map.get(fd)
        if tls._in.pending and isinstance(channel, TLS):
            channel._tls_deliver()

    def _refuse(self, error: HandshakeError) -> None:
        if self._leave():
            # Linger, so that no reset overtakes the alert.
            alert = b"".join(self.producer_fifo)
            self._tls._let_go(alert, linger=error.kind not in ("closed", "timeout"))
            self.handle_refused(error)

    def _leave(self) -> bool:
        """Leave the map and hand over the socket; False if that was done already."""
        if self._over:
            return False
        self._over = True
        self._timer.cancel()
        # A bound method in the instance is a reference cycle.
        vars(self).pop("writable", None)
        self.del_channel()
        self.socket, self.connected = None, False
        self._tls._handshake = None
        return True

    def _look_at_the_clock(self) -> bool:
        """Reject a peer that is too late; return whether the handshake is over."""
        if not self._over and time.monotonic() >= self._timer.when:
            self._refuse(HandshakeError("timeout", "it took too long"))
        return self._over

    def _wants_the_clock(self) -> bool:
        return type(self).writable(self) or time.monotonic() >= self._timer.when


class TLS(asyncore.dispatcher):
    """A mixin: TLS for a dispatcher or an async_chat, compat's or the original.

    Call ``start_tls`` once, when the socket is connected: on an accepted socket in
    ``__init__``, as a client in ``handle_connect``. From then on, the channel is not in
    the map until the handshake is over; its pushes are sent afterwards.

    A subclass may define its own ``readable`` or ``writable``, an instance may not.
    """

    # True if decrypted data waits for the channel to become readable.
    _tls_held = False

    def start_tls(
        self,
        context: ssl.SSLContext | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Begin the handshake.

        Args:
            context: None for a client's default: ``ssl.create_default_context()``,
                which verifies the server's certificate, and its name.
            server_hostname: the expected name of the server, for a client.
            patience: seconds for the handshake; see ``Handshake``.

        Data pushed after the connection was made is first sent in plain. Uncollected
        input is dropped: an attacker may have inserted it. Data pushed before the
        connection was made (``handle_connect``) is encrypted. If the peer has already
        disconnected, ``handle_close`` is called and no handshake begins.

        Raises:
            ValueError: *server_hostname* or *context* is needed.
            ssl.SSLError: *context* is for the other side.
            RuntimeError: plain data is still unsent; the channel is about to close;
                ``start_tls`` was called before.
            OSError: the socket is closed, not connected yet, or listening.
        """
        if context is None:
            if server_side:
                raise ValueError("a server needs a context, with its certificate")
            context = ssl.create_default_context()
        self._tls_check_connection()
        sock = TLSSocket(
            self.socket,
            context,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        if self.connected:
            self._tls_end_plain()
            if sock.fileno() < 0:
                return
        self.del_channel()
        self.socket = sock
        _Upgrade(self, sock, patience)

    def handle_secured(self) -> None:
        """The handshake is over; ``self.socket.getpeercert()`` identifies the peer."""

    def handle_refused(self, error: HandshakeError) -> None:
        """The handshake has failed. Log the error, and close."""
        logger.warning("%s: no TLS: %s", _name(self.addr), error)
        self.handle_close()

    def handle_read_event(self) -> None:
        """Call ``handle_read`` while data is available and the channel is readable."""
        sock = self.socket
        if not isinstance(sock, TLSSocket):
            self._tls_read_plain()
            return
        self._tls_release()
        if not sock.look():
            return
        try:
            more = True
            while more:
                taken = sock.taken
                super().handle_read_event()
                # A channel that did not read is called again in the next turn.
                more = sock.waiting and sock.taken != taken and bool(self.readable())
        finally:
            if sock.waiting:
                self._tls_hold()

    def handle_write_event(self) -> None:
        """Deliver held data, for which ``_tls_writable`` returned True; then write."""
        if self._tls_held:
            self._tls_deliver()
            if not type(self).writable(self):
                return
        super().handle_write_event()

    def close(self) -> None:
        """Close the channel, and remove its reference cycle."""
        try:
            super().close()
        finally:
            self._tls_release()

    def handle_expt(self) -> None:
        """Drop urgent data, which TLS does not protect."""
        if isinstance(self.socket, TLSSocket):
            drop_urgent_data(self)
        else:
            super().handle_expt()

    def _tls_check_connection(self) -> None:
        """Raise unless the socket is open, connected, and without TLS."""
        sock = self.socket
        if sock is None or sock.fileno() < 0:
            raise OSError(errno.EBADF, "start_tls needs an open socket")
        if isinstance(sock, TLSSocket):
            raise RuntimeError("start_tls must be called once, and was called before")
        try:
            sock.getpeername()
        except OSError as error:
            # If the peer has reset the connection, the handshake fails instead.
            if not (
                self.connected or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            ):
                reason = "start_tls needs a connected socket: call it in handle_connect"
                raise OSError(errno.ENOTCONN, reason) from error

    def _tls_end_plain(self: Any) -> None:
        """Send the queued plain data, and drop the received plain data."""
        queued: Any = ()
        if isinstance(self, Original):
            queued = self.producer_fifo
            if None in queued:
                raise RuntimeError("start_tls must not follow close_when_done")
            if isinstance(self, async_chat):
                # send() first flushes the writes that wait for the end of the turn.
                async_chat.send(self, b"")
            for _ in range(len(queued)):
                self.initiate_send()
        elif isinstance(self, asyncore.dispatcher_with_send):
            for _ in range(0, len(self.out_buffer), SIZE):
                self.initiate_send()
            queued = self.out_buffer
        if queued and self.connected:
            raise RuntimeError("what was pushed in plain has not been sent yet")
        if isinstance(self, Original):
            self.ac_in_buffer = b""

    def _tls_read_plain(self) -> None:
        if self.connecting and not self.connected and not self.accepting:
            self.handle_connect_event()
            if isinstance(self.socket, TLSSocket):
                return
        super().handle_read_event()

    def _tls_deliver(self) -> None:
        """Dispatch a read if the channel is readable; hold the data otherwise."""
        sock = self.socket
        if not isinstance(sock, TLSSocket) or sock.fileno() < 0:
            return
        if type(self).readable(self):
            asyncore.read(self)
        else:
            self._tls_hold()

    # A loop does not notice that a channel with held data has become readable: the
    # socket reports nothing. While data is held, the channel overrides its own readable
    # and writable to notice that itself.

    def _tls_hold(self) -> None:
        self._tls_held = True
        self.readable = self._tls_readable  # type: ignore[method-assign]
        self.writable = self._tls_writable  # type: ignore[method-assign]
        self._tls_readable()

    def _tls_release(self) -> None:
        if self._tls_held:
            self._tls_held = False
            del self.readable, self.writable

    def _tls_readable(self) -> object:
        wants = type(self).readable(self)
        if wants and is_running(self._map):
            call_soon_threadsafe(self._tls_deliver, map=self._map)
        return wants

    def _tls_writable(self) -> object:
        # A loop without thread-safe callbacks dispatches a write instead: the send
        # buffer nearly always has space.
        return type(self).writable(self) or (
            not is_running(self._map) and type(self).readable(self)
        )


class _Upgrade(Handshake):
    """The handshake of a channel that called ``start_tls``."""

    def __init__(self, channel: TLS, sock: TLSSocket, patience: float) -> None:
        self._channel = channel
        super().__init__(sock, channel._map, patience)

    def handle_secured(self, sock: TLSSocket) -> None:
        self._channel.set_socket(sock, self._map)
        self._channel.handle_secured()

    def handle_refused(self, error: HandshakeError) -> None:
        self._channel.handle_refused(error)

    def handle_error(self) -> None:
        self._channel.handle_error()

    def close(self) -> None:
        super().close()
        self._channel.close()


class _Goodbye(async_chat):
    """A lingering close: send the last bytes, wait up to two seconds for the peer's.

    Without the wait, the kernel would answer later data of the peer with a reset, which
    may overtake the last bytes.
    """

    lingering: ClassVar[weakref.WeakSet[_Goodbye]] = weakref.WeakSet()

    handle_expt = drop_urgent_data

    def __init__(self, sock: socket.socket, words: bytes, map: Map) -> None:
        super().__init__(sock, map)
        self.lingering.add(self)
        self.set_terminator(None)
        self._timer = call_later(LINGER, self.close, map=map)
        if words:
            self.push(words)
        self._end_when_written()

    def collect_incoming_data(self, data: bytes) -> None:
        """Drop data that arrives too late."""

    def found_terminator(self) -> None:
        """Never called: there is no terminator."""

    def handle_write(self) -> None:
        super().handle_write()
        self._end_when_written()

    def handle_error(self) -> None:
        logger.info("%s: an error after the end", _name(self.addr), exc_info=True)
        self.close()

    def close(self) -> None:
        self.lingering.discard(self)
        self._timer.cancel()
        super().close()

    def _end_when_written(self) -> None:
        if self.connected and not self.producer_fifo:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                # The peer has disconnected meanwhile.
                self.close()


def over_tls(kind: Any) -> Any:
    """Return a class like *kind* with the mixin.

    Anything else, and a class that has the mixin already, is returned unchanged.
    """
    if not isinstance(kind, type) or issubclass(kind, TLS):
        return kind
    return type(kind.__name__, (TLS, kind), {"__module__": kind.__module__})


def _why(error: ssl.SSLError) -> tuple[str, str]:
    """Return the kind of an error, for counters, and its message, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = str(error.verify_message).rstrip(".")
        return "certificate", f"its certificate is not to be trusted: {reason}"
    name = error.reason or str(error.strerror or error)
    return REASONS.get(name) or ("protocol", name.replace("_", " ").lower())


def _peer(sock: socket.socket) -> str:
    try:
        return _name(sock.getpeername())
    except OSError:
        return _name(None)


def _name(address: Any) -> str:
    """Return an address for display: host and port, if it has these."""
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]} port {address[1]}"
    return str(address or "a peer")
