"""The channel of an unfinished handshake.

Rule: it takes the place of the waiting channel in the map, so that the handshake costs
no other channel a turn.
"""

from __future__ import annotations

import logging
import ssl
import time

from compat._types import Map
from compat.async_chat import async_chat
from compat.scheduler import call_later, is_running
from compat.tls.errors import HandshakeError, display_name, reason_of
from compat.tls.socket import TLSSocket
from compat.urgent import drop_urgent_data

__all__ = ["TIMEOUT", "Handshake"]

# Seconds for a handshake: several round trips to the far side of the world, lost once.
TIMEOUT = 10.0

logger = logging.getLogger("compat")


class Handshake(async_chat):
    """The channel that performs a handshake, on the socket beneath a TLSSocket.

    Args:
        sock: the TLSSocket.
        map: the channel map; None for ``asyncore.socket_map``.
        timeout: seconds after which the peer is rejected. asyncore's own loop has no
            timers. There, the first turn that begins later rejects the peer: after some
            event, or after the loop's timeout (30 s by default).

    The handshake begins at once, and ends in one of the two hooks, or in ``close``.
    """

    handle_expt = drop_urgent_data

    def __init__(
        self, sock: TLSSocket, map: Map | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._tls = sock
        self._over = False
        super().__init__(sock.beneath, map)
        self.set_terminator(None)
        sock.start_handshake(self, self._map)
        self._timer = call_later(timeout, self._check_time, map=self._map)
        if not is_running(self._map):
            # asyncore's own loop may run the map. It has no timers, but it calls
            # writable() in every turn.
            self.writable = self._writable_or_late  # type: ignore[method-assign]
        self._advance(b"")

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
        return display_name(self.addr)

    def collect_incoming_data(self, data: bytes) -> None:
        """Pass received data to OpenSSL."""
        self._advance(data)

    def found_terminator(self) -> None:
        """Never called: there is no terminator, because records carry their length."""

    def handle_write(self) -> None:
        """Send OpenSSL's output."""
        super().handle_write()
        self._check_time()

    def handle_expt_event(self) -> None:
        """Drop urgent data, unless this channel has left the map in the same turn."""
        if not self._over:
            super().handle_expt_event()

    def handle_close(self) -> None:
        """Reject the peer, which has disconnected."""
        self._reject(
            HandshakeError("closed", "the peer disconnected during the handshake")
        )

    def handle_error(self) -> None:
        """Handle an exception of a hook: close the socket."""
        super().handle_error()
        self._tls.close()

    def close(self) -> None:
        """Abandon the handshake without calling a hook."""
        if self._leave():
            self._tls.close_after(b"")

    def _advance(self, data: bytes) -> None:
        if self._check_time():
            return
        failed, done = None, False
        try:
            done = self._tls.engine.handshake(data)
        except ssl.SSLError as error:
            failed = HandshakeError(*reason_of(error))
        answer = self._tls.engine.output()
        if answer and not self._over:
            # The push may find that the peer is gone.
            self.push(answer)
        if failed is not None:
            self._reject(failed)
        elif done:
            self._finish()

    def _finish(self) -> None:
        fd, tls = self._fileno, self._tls
        if not self._leave():
            return
        tls.secure(b"".join(self.producer_fifo))
        self.handle_secured(tls)
        deliver = getattr(self._map.get(fd), "tls_deliver", None)
        if tls.engine.buffered and deliver is not None:
            deliver()

    def _reject(self, error: HandshakeError) -> None:
        if self._leave():
            # Linger, so that no reset overtakes the alert.
            alert = b"".join(self.producer_fifo)
            self._tls.close_after(alert, linger=error.kind not in ("closed", "timeout"))
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
        self._tls.end_handshake()
        return True

    def _check_time(self) -> bool:
        """Reject a peer that is too late; return whether the handshake is over."""
        if not self._over and time.monotonic() >= self._timer.when:
            self._reject(HandshakeError("timeout", "the handshake took too long"))
        return self._over

    def _writable_or_late(self) -> bool:
        return type(self).writable(self) or time.monotonic() >= self._timer.when
