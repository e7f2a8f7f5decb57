"""The server's end of one client's connection: the tutorial's session.

Kept from the tutorial, byte for byte: the session echoes a client's data unchanged and
sends the data to the other clients as ``用户{ip}{port} 说:{text}``. A tail that could
begin the terminator ``out`` is held back. ``out`` anywhere ends the session after the
data before it is delivered. Data after it in the same read still goes to the others.

Repaired, and must stay true:

Rule 1: a closed session is not in ``clients``.
Rule 2: other clients receive whole characters; bytes that are not UTF-8 reach them as
U+FFFD. The echo is unchanged.
Rule 3: a failure of one client costs no other client a message.
Rule 4: every close has one reason, which is logged and counted once.
Rule 5: a client that has half-closed its connection still receives its queued data.
Rule 6: nothing here depends on the length of a message: each read is passed on at once
and never accumulated.
Rule 7: a closed session has an empty queue, and this package keeps no reference to it.
"""

from __future__ import annotations

import asyncore
import codecs
import logging
import socket
import sys
from functools import cached_property
from typing import Any

import compat
from compat.urgent import drop_urgent_data
from legacy_chat.counters import Counters
from legacy_chat.limits import Limits
from legacy_chat.output import log_event, print_line
from legacy_chat.rate_limit import RateLimiter
from legacy_chat.room import Clients

__all__ = ["ChatSession", "drain"]

# Bytes. A UTF-8 character has at most four, so an incomplete one has at most three.
LONGEST_PARTIAL = 3

# drain(): bytes of one read, and the maximum number of reads.
DRAIN = 65536, 16

# Maximum terminators after the first one; data after them is dropped. Each message
# between two of them is broadcast with the sender's name, which multiplies its size.
MOST_TERMINATORS = 100

# A larger byte belongs to a multi-byte character.
LAST_ASCII = 0x7F

# Log levels of the close reasons that matter to an operator; DEBUG for all others.
LEVELS = {"slow": logging.WARNING, "idle": logging.INFO, "grace": logging.INFO}

# The limits of a session whose server has none, and the counters that nothing reads.
DEFAULTS = Limits()
UNREAD = Counters()

logger = logging.getLogger("legacy_chat")


class ChatSession(compat.async_chat):
    """One client in the room, on an accepted socket.

    A session coalesces writes: data queued during a turn is sent when the turn ends.

    Args:
        server: the dispatcher that accepted the socket. The session joins the server's
            map and applies its ``limits``. It calls the server's
            ``handle_session_opened(session)`` and, after the close,
            ``handle_session_closed(session, reason, dropped)``, where defined.
            *dropped* is the number of bytes still queued for the client.
        conn: the connected socket; the session owns it from now on.
        addr: the client's IP address, as text.
        port: the client's port.
        clients: the room that the session joins: a list, or the server's ``clients``.

    Attributes:
        user: the client's name: ``用户``, the address, the port.
        server, addr, port, clients: as given.
    """

    ac_coalesce_writes = True

    # Bytes of one send: one read with the user's name before it fits.
    ac_out_buffer_size = 131_072

    # Placeholders for an error raised before __init__ has assigned them.
    addr = ""
    port: Any = ""
    clients: Any = Clients()

    # The first bytes of a character whose remaining bytes have not arrived.
    _partial = b""

    # The value of ``user``, and the encoded prefix made from it.
    _prefix_cache: tuple[object, bytes] = (None, b"")

    # The terminator was received: no more echo, and the close is queued.
    _terminated = False

    # Terminators received after the first one.
    _terminators = 0

    # EOF was read: the client sends no more data, but may still receive.
    _has_ended = False

    # The reason of a close that is pending; "" for none.
    _reason = ""

    # The rate limiter of the reads; None for no limit.
    _rate_limiter: RateLimiter | None = None

    ac_backlog_limit = DEFAULTS.send_queue

    handle_expt = drop_urgent_data

    # The room's counters.
    _counters = UNREAD

    def __init__(
        self, server: Any, conn: socket.socket, addr: str, port: int, clients: Any
    ) -> None:
        # As in the tutorial, the server may be any object, also one without a map.
        compat.async_chat.__init__(self, map=getattr(server, "_map", None))
        # The base class would look up the address, which is known.
        conn.setblocking(False)
        self.set_socket(conn, self._map)
        # Also after a reset before accept() returned; a read or a send detects that.
        # asyncore would poll such a channel as writable in every turn and never send.
        self.connected = True
        self.server = server
        self.addr = addr
        self.port = port
        # A subclass may have used the placeholder.
        vars(self).pop("user", None)
        limits = getattr(server, "limits", DEFAULTS)
        self.set_terminator(limits.terminator)
        # A subclass may have another default.
        if limits.send_queue != DEFAULTS.send_queue:
            self.ac_backlog_limit = limits.send_queue
        self.clients = clients
        if isinstance(clients, Clients):
            self._counters = clients.counters
            self.watch_reads(clients)
        self._notify_server("handle_session_opened")
        # The server's hook may have closed the session.
        if self._is_open() and self not in clients:
            clients.append(self)

    @cached_property
    def user(self) -> str:
        """The client's name, made on first use: a silent client needs none."""
        return f"用户{self.addr}{self.port}"

    def encode_msg(self, msg: str | bytes) -> bytes:
        """Encode text as UTF-8; return bytes unchanged."""
        return msg if isinstance(msg, bytes) else msg.encode("utf8")

    def decode_msg(self, msg: str | bytes) -> str:
        """Decode UTF-8, with U+FFFD for invalid bytes; return text unchanged."""
        return msg.decode("utf8", "replace") if isinstance(msg, bytes) else msg

    def collect_incoming_data(self, data: bytes) -> None:
        """Echo *data* to the client and broadcast it to the others."""
        if not data:
            return
        counters = self._counters
        if not self._terminated:
            self.push(data)
        elif self._terminators > MOST_TERMINATORS:
            return
        else:
            counters.not_echoed(len(data))
        counters.messages_in += 1
        counters.bytes_in += len(data)
        if self._partial or data[-1] > LAST_ASCII:
            data = self._partial + data
            whole = len(data) - _partial_size(data)
            data, self._partial = data[:whole], data[whole:]
            if not data:
                return
        self.broadcasting(data)

    def broadcasting(self, msg: str | bytes) -> None:
        """Send *msg* to every other client, after this client's name."""
        if self._prefix_cache[0] is not self.user:
            prefix = f"{self.decode_msg(self.user)} 说:"
            self._prefix_cache = self.user, self.encode_msg(prefix)
        if not (isinstance(msg, bytes) and msg.isascii() and self._has_default_codec()):
            msg = self.encode_msg(self.decode_msg(msg))
        self._push_to_others(self._prefix_cache[1] + msg)

    def found_terminator(self) -> None:
        """End the session, and send a farewell; later calls are counted."""
        if self._terminated:
            self._terminators += 1
            if self._terminators > MOST_TERMINATORS:
                # No more are searched for, so terminators cost no time either.
                self.set_terminator(None)
            return
        if self._partial:
            # The character stays incomplete.
            partial, self._partial = self._partial, b""
            self.broadcasting(partial)
        print_line("accept close")
        self._terminated = True
        self.close_when_flushed("out")
        farewell = f"{self.decode_msg(self.user)}退出聊天"
        self.broadcasting(self.encode_msg(farewell))

    def close(self) -> None:
        """Leave the room without a farewell, and close the socket."""
        was_open = self._is_open()
        self._leave()
        compat.async_chat.close(self)
        if self._rate_limiter is not None:
            self._rate_limiter.cancel()
        if was_open:
            self._report_close()
            self.discard_buffers()

    def close_because(self, reason: str) -> None:
        """Close the session at once; *reason* is one of ``counters.CLOSED``."""
        self._reason = reason
        self.close()

    def close_when_flushed(self, reason: str) -> None:
        """Leave the room, and close when the queue is flushed."""
        self._reason = self._reason or reason
        self._leave()
        self.close_when_done()

    def limit_rate(self, limiter: RateLimiter) -> None:
        """Limit the size of a read, and cancel *limiter* at the close."""
        self._rate_limiter = limiter
        self.ac_in_buffer_size = min(self.ac_in_buffer_size, limiter.largest_read)

    def handle_close(self) -> None:
        """Handle EOF or a broken connection.

        After a half-close, the client's queue is flushed before the close.
        """
        # Called once, because reading SO_ERROR clears the error.
        if self._is_broken():
            self.close_because("reset")
        elif (not self._reason or self.producer_fifo) and self._can_still_send():
            self._has_ended = True
            # Otherwise the loop reports EOF again in every turn.
            self.pause_reading()
            if not self._reason:
                self.close_when_flushed("eof")
        else:
            if self._reason:
                drain(self.socket)
            self.close_because(self._reason or "eof")

    def handle_backlog(self) -> None:
        """Disconnect the client: its queue exceeds ``ac_backlog_limit``."""
        self.close_because("slow")

    def handle_error(self) -> None:
        """Log the exception, and close this session only."""
        logger.exception(
            "%s: closing after an error",
            self.user,
            extra={"event": "error", "client": self.user},
        )
        self.close_because("error")

    def _is_open(self) -> bool:
        return self._map.get(self._fileno) is self

    def _can_still_send(self) -> bool:
        """Return whether this is the first EOF and data is still queued."""
        if isinstance(self.clients, Clients):
            # Queue the broadcasts of this turn.
            self.clients.flush_to(self)
        # asynchat also calls handle_close() at the None that ends the queue.
        return (
            self.connected
            and not self._has_ended
            and self.writable()
            and (not self._reason or None in self.producer_fifo)
        )

    def _is_broken(self) -> bool:
        """Return whether an error ends the connection, also if no loop reported one."""
        if isinstance(sys.exception(), OSError):
            return True
        if self._reason and not self.ac_backlog_size():
            # The pending close was complete.
            return False
        try:
            return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        except OSError:
            # Other code has closed the socket.
            return self.connected

    def _has_default_codec(self) -> bool:
        """Return whether no subclass overrides the codec: ASCII stays unchanged."""
        kind = type(self)
        return (
            kind.encode_msg is ChatSession.encode_msg
            and kind.decode_msg is ChatSession.decode_msg
        )

    def _leave(self) -> None:
        if self in self.clients:
            self.clients.remove(self)

    def _report_close(self) -> None:
        """Report the close to the log and to the server."""
        reason, dropped = self._reason or "closed", self.ac_backlog_size()
        level = LEVELS.get(reason, logging.DEBUG)
        if logger.isEnabledFor(level):
            log_event(
                "closed",
                level,
                "%s: closed: %s, %d bytes dropped",
                self.user,
                reason,
                dropped,
                client=self.user,
                reason=reason,
                dropped=dropped,
            )
        self._notify_server("handle_session_closed", reason, dropped)

    def _notify_server(self, hook: str, *args: object) -> None:
        handler = getattr(self.server, hook, None)
        if handler is not None:
            handler(self, *args)

    def _push_to_others(self, data: bytes) -> None:
        if isinstance(self.clients, Clients):
            receivers = self.clients.push(data, exclude=self)
            self._counters.broadcast(receivers, len(data))
            return
        # A copy, because a push that fails removes its client during the iteration.
        for client in tuple(self.clients):
            if client is self:
                continue
            try:
                client.push(data)
            except asyncore.ExitNow:
                raise
            except Exception:
                client.handle_error()


def drain(sock: Any) -> None:
    """Read and discard the data of a socket that is about to be closed.

    Closing a socket with unread data sends a reset, and the peer may lose data that it
    has not read yet.
    """
    size, times = DRAIN
    try:
        while times and sock.recv(size):
            times -= 1
    except OSError:
        # Nothing more has arrived, or the peer is gone.
        return


def _partial_size(data: bytes) -> int:
    """Return how many bytes of an incomplete UTF-8 character end *data*."""
    tail = data[-LONGEST_PARTIAL:]
    return len(tail) - codecs.utf_8_decode(tail, "replace")[1]
