"""``TLS``: the mixin for a channel class."""

from __future__ import annotations

import asyncore
import errno
import logging
import socket
import ssl
from typing import Any

from compat._types import Map, Original
from compat.async_chat import async_chat
from compat.scheduler import call_soon_threadsafe, is_running
from compat.tls.engine import SIZE
from compat.tls.errors import HandshakeError, display_name
from compat.tls.handshake import TIMEOUT, Handshake
from compat.tls.socket import TLSSocket
from compat.urgent import drop_urgent_data

__all__ = ["TLS", "over_tls"]

logger = logging.getLogger("compat")


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
        timeout: float = TIMEOUT,
    ) -> None:
        """Begin the handshake.

        Args:
            context: None for a client's ``ssl.create_default_context()``, which
                verifies the server's certificate, and its name.
            server_hostname: the expected name of the server, for a client.
            timeout: seconds for the handshake; see ``Handshake``.

        Data pushed since the connection was made is first sent in plain; earlier data
        (``handle_connect``) is encrypted. Uncollected input is dropped: an attacker may
        have inserted it. If the peer has disconnected, no handshake begins, and
        ``handle_close`` is called.

        Raises:
            ValueError: *server_hostname* or *context* is needed; ``ssl.SSLError``:
                *context* is for the other side.
            RuntimeError: plain data is unsent; the channel is closing; or this is the
                second call.
            OSError: the socket is closed, not connected yet, or listening.
        """
        sock = self._tls_wrap(context, server_side, server_hostname)
        if self.connected:
            self._tls_end_plain()
            if sock.fileno() < 0:
                return
        self.del_channel()
        self.socket = sock
        Upgrade(self, sock, self._map, timeout)

    def handle_secured(self) -> None:
        """The handshake is over; ``self.socket.getpeercert()`` identifies the peer."""

    def handle_refused(self, error: HandshakeError) -> None:
        """The handshake has failed. Log the error, and close."""
        logger.warning("%s: no TLS: %s", display_name(self.addr), error)
        self.handle_close()

    def handle_read_event(self) -> None:
        """Call ``handle_read`` while data is available and the channel is readable."""
        sock = self.socket
        if not isinstance(sock, TLSSocket):
            self._tls_read_plain()
            return
        self._tls_release()
        if not sock.receive():
            return
        try:
            more = True
            while more:
                reads = sock.reads
                super().handle_read_event()
                # A channel that did not read is called again in the next turn.
                more = sock.has_result and sock.reads != reads and bool(self.readable())
        finally:
            if sock.has_result:
                self._tls_hold()

    def handle_write_event(self) -> None:
        """Deliver held data, for which ``_tls_writable`` returned True; then write."""
        if self._tls_held:
            self.tls_deliver()
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

    def _tls_wrap(
        self, context: ssl.SSLContext | None, server_side: bool, name: str | None
    ) -> TLSSocket:
        if context is None and server_side:
            raise ValueError("context must be given for a server, got None")
        self._tls_check_connection()
        context = context or ssl.create_default_context()
        return TLSSocket(
            self.socket, context, server_side=server_side, server_hostname=name
        )

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
            raise RuntimeError("start_tls must wait until pushed plain data is sent")
        if isinstance(self, Original):
            self.ac_in_buffer = b""

    def _tls_read_plain(self) -> None:
        if self.connecting and not self.connected and not self.accepting:
            self.handle_connect_event()
            if isinstance(self.socket, TLSSocket):
                return
        super().handle_read_event()

    def tls_deliver(self) -> None:
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
            call_soon_threadsafe(self.tls_deliver, map=self._map)
        return wants

    def _tls_writable(self) -> object:
        # A loop without thread-safe callbacks dispatches a write instead: the send
        # buffer nearly always has space.
        return type(self).writable(self) or (
            not is_running(self._map) and type(self).readable(self)
        )


class Upgrade(Handshake):
    """The handshake of a channel that called ``start_tls``."""

    def __init__(self, channel: TLS, sock: TLSSocket, map: Map, timeout: float) -> None:
        self._channel = channel
        super().__init__(sock, map, timeout)

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


def over_tls(kind: Any) -> Any:
    """Return a class like *kind* with the mixin.

    Anything else, and a class that has the mixin already, is returned unchanged.
    """
    if not isinstance(kind, type) or issubclass(kind, TLS):
        return kind
    return type(kind.__name__, (TLS, kind), {"__module__": kind.__module__})
