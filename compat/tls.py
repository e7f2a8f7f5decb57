"""TLS for any dispatcher or async_chat, on any loop.

    >>> class Session(TLS, compat.async_chat):
    ...     def __init__(self, sock):
    ...         super().__init__(sock)
    ...         self.start_tls(context, server_side=True)

Three parts. ``TLSSocket`` is what a channel then has as its ``socket``. ``Handshake``
is a channel, which stands in the map in the place of the one that waits for it.
``TLS`` is the mixin, which begins the handshake and delivers what is decrypted.

It is ``ssl.SSLObject`` between two ``MemoryBIO``, and not ``ssl.SSLSocket``, because

- OpenSSL then never reads or writes, so nothing that it wants can block: "reading needs
  a write" is some bytes more to send, "writing needs a read" a handshake not finished;
- a turn's gathered writes are one send. SSLSocket makes one for every 16 KiB, and two
  reads for every record, however short;
- a write that the kernel did not take must be repeated to an SSLSocket with the same
  bytes, or the connection is lost. Here another order is an order, no more.

Rule 1: ``send`` counts what the kernel has taken, and nothing before it has all of its
record. So whatever asyncore builds on that count stays right: the original's
``writable``, ``close_when_done``, a limit on the backlog. A channel that announces goes
on doing so, and an audience's log is written to it as to a plain one.
Rule 2: what is decrypted waits for no packet, and is delivered to nobody who is not
``readable``.
Rule 3: who has not finished its handshake costs nobody else a turn. It is in the map
as a Handshake: the channel itself is asked and called for nothing, and what it pushes
waits.
Rule 4: there is no traceback for what a peer does.
Rule 5: from ``start_tls`` on, no byte passes a channel's ``socket`` in plain, in either
direction: before the handshake is over, after it, and after ``close``. A method that
could do so is missing.
Rule 6: one thread at a time uses OpenSSL and the records that wait. Another thread gets
BlockingIOError, so a channel queues its data and the loop sends it.
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

from compat.channels import Map
from compat.chat import Original, async_chat
from compat.schedule import call_later, call_soon_threadsafe, is_turned
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

# Seconds for a peer to take the last words that are said to it.
LINGER = 2.0

# So many peers are waited for at most, and the sockets of more are closed at once. Who
# was refused is in nobody's count, and would have a descriptor for all that time.
MOST_LINGERING = 64

# Bytes taken from the wire, or encrypted, at a time: what asynchat reads and writes.
# Four records of TLS, which are 16 KiB at most.
SIZE = 65536

# Writes that were refused and may be repeated. More than one are the work of a program
# that sends past its own queue; who never repeats any shall not cost memory.
FEW_PROMISES = 4

# Bytes of records that the kernel has not taken. A write is less; what is beyond are
# answers that a peer asks for, and does not read: that there is no new handshake.
MOST_UNSENT = 2 * SIZE

# Why nothing more can be read: the peer has said so, or it has only stopped.
CLOSE_NOTIFY = "close_notify"
CUT = "the connection was cut off, without a close_notify"

# Attributes of the socket beneath that a TLSSocket passes on: none moves a byte.
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

# Attributes of the SSLObject that a TLSSocket passes on.
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

# What OpenSSL calls it, what a counter calls it, what a person is told.
REASONS = {
    "HTTP_REQUEST": ("no TLS", "it speaks HTTP without TLS"),
    "WRONG_VERSION_NUMBER": ("no TLS", "it does not speak TLS"),
    # So does a room without TLS: it echoes.
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
    """A handshake did not come to its end.

    Attributes:
        kind: why, for counting: "timeout", "closed", "no TLS", "version", "cipher",
            "no certificate", "certificate", "distrusted", "protocol".
        strerror: the same, for people; also what ``str`` gives.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(errno.ECONNABORTED, reason)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.strerror)


class TLSSocket:
    """TLS on a connected socket, as asyncore's classes use a socket; never blocking.

    Args:
        sock: connected; it belongs to this object from now on.
        server_hostname: who the peer has to be; needed by a client's context, unless
            that has ``check_hostname`` off.

    It sends and receives as an ``ssl.SSLSocket`` that does not block. It passes on the
    attributes in OF_SOCKET (``getpeername``, ``setsockopt``) and in OF_TLS
    (``getpeercert``, ``version``). It has no other attribute of a socket: ``sendmsg``
    or ``dup`` would bypass TLS.

    Attributes:
        ended: why nothing more can be read: CLOSE_NOTIFY, CUT, or what went wrong.
            Empty while it can.
        taken: how many calls of ``recv`` have had an answer.

    Raises:
        ValueError: *server_hostname* is missing, or none; ``ssl.SSLError``: the context
            is for the other side.
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
            # SSLSocket says so itself; SSLObject would take anybody.
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
        # What is decrypted, and how much of that recv has given away.
        self._plain, self._gone = b"", 0
        # Has the end, or what went wrong, been told to recv's caller?
        self._told = False
        # The arguments of the error, which would keep the frames that it has been in.
        self._error: tuple[Any, ...] = ()
        # Records, or the rest of them, that the kernel has not taken.
        self._unsent = b""
        # What was encrypted and not counted, because the kernel had not taken it.
        self._promised: list[bytes] = []
        # The thread that uses the connection, by the process that it is in.
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
        """The descriptor to wait for; -1 when it is closed."""
        return -1 if self._closed else self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """It never blocks.

        Raises:
            ValueError: it is asked to.
        """
        if flag:
            raise ValueError("a TLSSocket never blocks")
        self._sock.setblocking(False)

    def settimeout(self, seconds: float | None) -> None:
        """It never blocks, so 0 is the only timeout.

        Raises:
            ValueError: *seconds* is not 0.
        """
        self.setblocking(seconds != 0)

    @property
    def waiting(self) -> bool:
        """Is there anything for ``recv``, whatever comes from the wire?"""
        if self._closed:
            return False
        return bool(self._plain or (self.ended and not self._told))

    def look(self) -> bool:
        """Take once what has come from the wire; is there anything for ``recv``?"""
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
        """At most *size* decrypted bytes; none at the end.

        Raises:
            BlockingIOError: there is no whole record yet.
            ConnectionAbortedError: what came is no TLS, or not what was sent.
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
        """As ``recv``, into *buffer*; return the number of bytes.

        Args:
            nbytes: at most that many; 0 and None stand for the size of the buffer.

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
        """As ``recv``; with a *buffer*, as ``recv_into``."""
        if buffer is None:
            return self.recv(size)
        return self.recv_into(buffer, size)

    def pending(self) -> int:
        """Bytes that are decrypted and not received yet."""
        return len(self._plain) - self._gone

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Encrypt and send; return how many bytes the kernel has taken.

        It takes all or none of each 64 KiB. Who is told that some were not taken offers
        the same bytes again, as asyncore's classes do: more may follow them, and they
        may be cut elsewhere. They have been encrypted, so they go first whatever is
        offered next, and count when they are offered.

        Raises:
            BlockingIOError: nothing was taken, or the handshake is not over.
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
                # Full, or gone, which the next one who sends is told.
                break
            sent += taken
        return sent

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Encrypt and send all of *data*.

        Raises:
            BlockingIOError: the kernel has not taken all of it. How much it has taken
                is unknown, as with any socket that does not block.
            OSError: and ValueError: as from ``send``.
        """
        with memoryview(data).cast("B") as rest:
            sent = self.send(rest, flags)
            while sent < len(rest):
                sent += self.send(rest[sent:])

    def write(self, data: ReadableBuffer) -> int:
        """As ``send``."""
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
        """A file that encrypts and decrypts.

        As with a pipe that does not block, its methods return None or raise
        BlockingIOError where others would wait. Closing it leaves the socket open.

        Raises:
            ValueError: *mode* is not made of r, w and b; a text file has no buffer.
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
        """Say that nothing more will be sent, in TLS and beneath.

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
            OSError: there is none; as from a socket.
        """
        self._sock.recv(1, socket.MSG_OOB)

    def close(self) -> None:
        """Say goodbye, once and without waiting, and close the socket.

        A peer that has been sent only part of a record is not told that this was all.
        One that cannot be told at once may be told for two seconds more, by a channel
        in the map, where a loop of ours turns that.
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
            # Or the kernel answers what nobody has read with a reset, and forgets what
            # the peer has not had.
            with contextlib.suppress(OSError):
                self._sock.recv(SIZE)
        self._let_go(words, linger=False)

    def _check(self, flags: int = 0) -> None:
        """Refuse what would reach the socket beneath: a goodbye may still be on it."""
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
            # What has come of a record is in the other: the sum is bounded.
            data = self._sock.recv(SIZE - self._in.pending)
        except BlockingIOError:
            # There may be something that came with the end of the handshake.
            self._decrypt(None)
        except OSError as error:
            self.ended, self._error = f"{error.strerror or error}", error.args
        else:
            self._decrypt(data)

    def _decrypt(self, data: bytes | None) -> None:
        """Decrypt what is whole; with *data* more, or with none the end."""
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
            # The rest is no whole record.
            pass
        except ssl.SSLEOFError:
            self.ended = CUT
        except ssl.SSLError as error:
            self._fail(_why(error)[1])
        self._plain = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        # An answer to a new handshake, or the alert. If it is not taken, sending tells
        # why; and a record that waits goes with the next.
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
            # A new handshake, by somebody's context that allows one.
            raise BlockingIOError(errno.EWOULDBLOCK, "a handshake goes on") from None
        except ssl.SSLError as error:
            reason = _why(error)[1]
            raise ConnectionAbortedError(errno.ECONNABORTED, reason) from error

    def _claim(self) -> bool:
        """Return whether this thread may use OpenSSL, which serves one at a time.

        It is refused rather than blocked. A fork leaves the claims of other threads
        behind, and an interrupted claim is good for the next one of its thread.
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
        """Send what is encrypted, as far as the kernel takes it."""
        if self._out.pending:
            self._unsent += self._out.read()
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def _keep_promise(self, data: bytes) -> int:
        """How much of *data* has been sent already, and was not counted."""
        for place, promised in enumerate(self._promised):
            if data.startswith(promised):
                del self._promised[place]
                return len(promised)
            if data and promised.startswith(data):
                self._promised[place] = promised[len(data) :]
                return len(data)
        return 0

    def _last_words(self) -> bytes:
        """The close_notify; nothing if it would not be true, or is said already."""
        if self._said_goodbye or not self._secured or self._unsent or self._error:
            return b""
        self._said_goodbye = True
        # It does not wait for the peer's, which is what the error says.
        with contextlib.suppress(ssl.SSLError):
            self._ssl.unwrap()
        return self._out.read()

    def _let_go(self, words: bytes, *, linger: bool) -> None:
        """Close the socket, after *words*; *linger* until the peer has closed."""
        self._closed = True
        sent = 0
        if words:
            # It may be gone as well.
            with contextlib.suppress(OSError):
                sent = self._sock.send(words)
        left = words[sent:]
        if (
            (left or linger)
            and self._map is not None
            and is_turned(self._map)
            and len(_Goodbye.lingering) < MOST_LINGERING
        ):
            _Goodbye(self._sock, left, self._map)
        else:
            self._sock.close()


class _File(io.RawIOBase):
    """What ``makefile`` gives, without a buffer."""

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
    """The channel in which a handshake is made, on the socket beneath a TLSSocket.

    Args:
        sock: whose handshake it is.
        map: the channel map; None for ``asyncore.socket_map``.
        patience: seconds, after which the peer is refused. Under asyncore's own loop,
            which has no timers, by the first turn that begins later: something has to
            happen, or the loop's timeout (30 s, if it is given none) to end a turn.

    It begins at once, and ends in one of the two hooks, or in ``close``.
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
        if not is_turned(self._map):
            # Perhaps asyncore's own loop will. That asks, and this is asked.
            self.writable = self._wants_the_clock  # type: ignore[method-assign]
        self._advance()

    def handle_secured(self, sock: TLSSocket) -> None:
        """The handshake is over; this channel has left the map.

        Make a channel of *sock* here. If it is a ``TLS``, it is called for what has
        come already.
        """

    def handle_refused(self, error: HandshakeError) -> None:
        """There is no TLS with this peer; the socket is closed. Log it."""
        logger.warning("%s: no TLS: %s", self.peer, error)

    @property
    def peer(self) -> str:
        """The peer's address and port, for people."""
        return _name(self.addr)

    def collect_incoming_data(self, data: bytes) -> None:
        """Hand it to OpenSSL."""
        self._tls._in.write(data)
        self._advance()

    def found_terminator(self) -> None:
        """There is none: the records say themselves how long they are."""

    def handle_write(self) -> None:
        """Send what OpenSSL has said."""
        super().handle_write()
        self._look_at_the_clock()

    def handle_expt_event(self) -> None:
        """Drop urgent data, unless this channel has left the map in the same turn."""
        if not self._over:
            super().handle_expt_event()

    def handle_close(self) -> None:
        """The peer has gone."""
        self._refuse(HandshakeError("closed", "it left in the middle of the handshake"))

    def handle_error(self) -> None:
        """A hook has raised."""
        super().handle_error()
        self._tls.close()

    def close(self) -> None:
        """Give up; no hook is called."""
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
            # The peer may turn out to be gone by that.
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
            # The alert is of use only if no reset overtakes it.
            alert = b"".join(self.producer_fifo)
            self._tls._let_go(alert, linger=error.kind not in ("closed", "timeout"))
            self.handle_refused(error)

    def _leave(self) -> bool:
        """Leave the map, and the socket to the other; False if that is done."""
        if self._over:
            return False
        self._over = True
        self._timer.cancel()
        # It would refer to itself.
        vars(self).pop("writable", None)
        self.del_channel()
        self.socket, self.connected = None, False
        self._tls._handshake = None
        return True

    def _look_at_the_clock(self) -> bool:
        """Refuse who is too late; is this over?"""
        if not self._over and time.monotonic() >= self._timer.when:
            self._refuse(HandshakeError("timeout", "it took too long"))
        return self._over

    def _wants_the_clock(self) -> bool:
        return type(self).writable(self) or time.monotonic() >= self._timer.when


class TLS(asyncore.dispatcher):
    """A mixin: TLS for a dispatcher or an async_chat, ours or the original's.

    Call ``start_tls`` once, when the socket is connected: on an accepted socket in
    ``__init__``, as a client in ``handle_connect``. From then on the channel is out of
    the map until the handshake is over; what it pushes meanwhile is sent afterwards.

    A ``readable`` or ``writable`` of its own has to be its class's, not the instance's.
    """

    # Something is decrypted that it did not want to read yet.
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
            context: None for a client's: ``ssl.create_default_context()``, which
                verifies the server's certificate, and its name.
            server_hostname: who the server has to be, for a client.
            patience: seconds for the handshake; see ``Handshake``.

        What was pushed in a connection goes out as it is; what has come in it, and was
        not collected, is dropped: somebody on the way may have put it there. What was
        pushed before there was a connection (``handle_connect``) is encrypted. If the
        peer turns out to have left, ``handle_close`` is called and no handshake begins.

        Raises:
            ValueError: *server_hostname* is needed, or *context* is.
            ssl.SSLError: *context* is for the other side.
            RuntimeError: what was pushed before has not been taken yet; the channel is
                about to close; ``start_tls`` was called before.
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
        """The handshake is over. ``self.socket`` tells with whom: ``getpeercert()``."""

    def handle_refused(self, error: HandshakeError) -> None:
        """There is no TLS with this peer. Log it, and close."""
        logger.warning("%s: no TLS: %s", _name(self.addr), error)
        self.handle_close()

    def handle_read_event(self) -> None:
        """Call ``handle_read`` as long as there is something, and it is wanted."""
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
                # Who does not read is called in the next turn, as by any loop.
                more = sock.waiting and sock.taken != taken and bool(self.readable())
        finally:
            if sock.waiting:
                self._tls_hold()

    def handle_write_event(self) -> None:
        """Deliver what waits, where writing had to be asked for to be called."""
        if self._tls_held:
            self._tls_deliver()
            if not type(self).writable(self):
                return
        super().handle_write_event()

    def close(self) -> None:
        """Close it; afterwards it does not refer to itself."""
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
        """Refuse to begin a handshake that could never end."""
        sock = self.socket
        if sock is None or sock.fileno() < 0:
            raise OSError(errno.EBADF, "start_tls needs an open socket")
        if isinstance(sock, TLSSocket):
            raise RuntimeError("start_tls must be called once, and was called before")
        try:
            sock.getpeername()
        except OSError as error:
            # A connection that its peer has reset is the handshake's to refuse.
            if not (
                self.connected or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            ):
                reason = "start_tls needs a connected socket: call it in handle_connect"
                raise OSError(errno.ENOTCONN, reason) from error

    def _tls_end_plain(self: Any) -> None:
        """Send what was queued in plain, and drop what came in plain."""
        queued: Any = ()
        if isinstance(self, Original):
            queued = self.producer_fifo
            if None in queued:
                raise RuntimeError("start_tls must not follow close_when_done")
            if isinstance(self, async_chat):
                # Its send makes the attempts that wait for the end of the turn.
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
        """As if the loop had found it readable."""
        sock = self.socket
        if not isinstance(sock, TLSSocket) or sock.fileno() < 0:
            return
        if type(self).readable(self):
            asyncore.read(self)
        else:
            self._tls_hold()

    # No loop tells a channel that it has become readable by what it says itself. While
    # something is held back, it listens to its own answers.

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
        if wants and is_turned(self._map):
            call_soon_threadsafe(self._tls_deliver, map=self._map)
        return wants

    def _tls_writable(self) -> object:
        # A loop without calls can be made to call by this: there is nearly always room.
        return type(self).writable(self) or (
            not is_turned(self._map) and type(self).readable(self)
        )


class _Upgrade(Handshake):
    """The handshake of a channel that has begun in plain."""

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
    """The last words to a peer, and the wait until it has closed; two seconds at most.

    Without the wait, something that it still sends would be answered with a reset,
    which may overtake the words.
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
        """It comes too late."""

    def found_terminator(self) -> None:
        """There is none."""

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
                # It has gone meanwhile.
                self.close()


def over_tls(kind: Any) -> Any:
    """A class like *kind*, with the mixin; what is no class, or has it, as it is."""
    if not isinstance(kind, type) or issubclass(kind, TLS):
        return kind
    return type(kind.__name__, (TLS, kind), {"__module__": kind.__module__})


def _why(error: ssl.SSLError) -> tuple[str, str]:
    """What a counter calls it, and what a person is told."""
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
    """An address for people: host and port, if it has these."""
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]} port {address[1]}"
    return str(address or "a peer")
