"""A lingering close: the last bytes reach the peer before its connection ends.

If a socket with unread input is closed, the kernel answers with a reset. So it does to
data that arrives later. The reset may overtake the last bytes.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import weakref
from typing import ClassVar

from compat._types import Map
from compat.async_chat import async_chat
from compat.scheduler import call_later, is_running
from compat.tls.errors import display_name
from compat.urgent import drop_urgent_data

__all__ = ["LingeringClose", "close_after"]

# Seconds: the peer's time to receive the last bytes and to close.
LINGER = 2.0

# Maximum number of lingering closes; further sockets are closed at once. No limit on
# connections counts a rejected peer, which would hold a descriptor all that time.
MOST_LINGERING = 64

logger = logging.getLogger("compat")


class LingeringClose(async_chat):
    """Send the last bytes, then wait up to two seconds for the peer to close."""

    lingering: ClassVar[weakref.WeakSet[LingeringClose]] = weakref.WeakSet()

    handle_expt = drop_urgent_data

    def __init__(self, sock: socket.socket, data: bytes, map: Map) -> None:
        super().__init__(sock, map)
        self.lingering.add(self)
        self.set_terminator(None)
        self._timer = call_later(LINGER, self.close, map=map)
        if data:
            self.push(data)
        self._shut_down_when_sent()

    def collect_incoming_data(self, data: bytes) -> None:
        """Drop data that arrives too late."""

    def found_terminator(self) -> None:
        """Never called: there is no terminator."""

    def handle_write(self) -> None:
        super().handle_write()
        self._shut_down_when_sent()

    def handle_error(self) -> None:
        logger.info("%s: error after close", display_name(self.addr), exc_info=True)
        self.close()

    def close(self) -> None:
        self.lingering.discard(self)
        self._timer.cancel()
        super().close()

    def _shut_down_when_sent(self) -> None:
        if self.connected and not self.producer_fifo:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                # The peer has disconnected meanwhile.
                self.close()


def close_after(
    data: bytes, sock: socket.socket, map: Map | None, *, linger: bool
) -> None:
    """Send *data* and close *sock*; with *linger*, after the peer has closed.

    The rest of *data* that the send buffer does not hold is sent by a LingeringClose,
    if a compat loop runs *map*.
    """
    sent = 0
    if data:
        # The peer may have disconnected.
        with contextlib.suppress(OSError):
            sent = sock.send(data)
    if (
        (sent < len(data) or linger)
        and map is not None
        and is_running(map)
        and len(LingeringClose.lingering) < MOST_LINGERING
    ):
        LingeringClose(sock, data[sent:], map)
    else:
        sock.close()
