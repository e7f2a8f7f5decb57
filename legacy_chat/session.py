"""One client's half of the conversation: the tutorial's session.

What is kept, to the byte: what a client sends comes back to it unchanged and goes to
the others as ``用户{ip}{port} 说:{text}``; a tail that could begin the terminator
``out`` is held back; ``out`` anywhere ends the session once what stood before it is
delivered; what stands behind it in the same read still goes to the others.

What is repaired, and must stay true:

Rule 1: who is closed, by whom- or whatever, is no longer in ``clients``.
Rule 2: others get whole characters; bytes that are not UTF-8 reach them as U+FFFD. The
echo is not touched.
Rule 3: one client's trouble costs no other client its message.
Rule 4: every end has a reason, which is logged and counted once.
Rule 5: who only listens to the end, with a half-closed connection, gets what is queued.
Rule 6: nothing here depends on the length of a message: what is read is passed on, and
never collected.
Rule 7: a closed session has an empty queue, and nothing of ours refers to it.
"""

from __future__ import annotations

import asyncore
import codecs
import contextlib
import logging
import socket
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import compat
from compat.urgent import drop_urgent_data
from legacy_chat.counters import Counters
from legacy_chat.limits import Limits
from legacy_chat.room import Clients, say

if TYPE_CHECKING:
    from legacy_chat.limits import Throttle

__all__ = ["ChatSession", "drain"]

# An UTF-8 character has four bytes at most, so an unfinished one has three.
LONGEST_CUT = 3

# Bytes read at a time from somebody whose words come too late, and how often at most.
DRAIN = 65536, 16

# A byte above it is part of a longer character.
LAST_ASCII = 0x7F

# Reasons that are of interest to who runs the room, and how much.
LEVELS = {"slow": logging.WARNING, "idle": logging.INFO, "grace": logging.INFO}

# How a session behaves whose server has no limits.
USUAL = Limits()

logger = logging.getLogger("legacy_chat")


class Room(Protocol):
    """The tutorial's list of clients, or our Clients."""

    def append(self, session: ChatSession, /) -> None: ...
    def remove(self, session: ChatSession, /) -> None: ...
    def __contains__(self, session: object, /) -> bool: ...
    def __iter__(self) -> Any: ...
    def __len__(self) -> int: ...


class ChatSession(compat.async_chat):
    """A client in the room, on an accepted socket.

    It gathers: what a turn has for it is sent when the turn is over.

    Args:
        server: the dispatcher that accepted it; the session joins its map, keeps its
            ``limits``, and calls its ``handle_session_opened(session)`` and, at the
            end, ``handle_session_closed(session, reason, dropped)``, as far as it has
            them; *dropped* are bytes that were queued for the client.
        conn: the connected socket, which the session owns from here on.
        addr: the client's IP address, as text.
        port: the client's port.
        clients: the room that it joins: a list, or the server's ``clients``.

    Attributes:
        user: the client's name: ``用户``, the address, the port.
        server, addr, port, clients: as given.
    """

    ac_gather = True

    # What one read brings, and a name before it, go out with one send.
    ac_out_buffer_size = 131_072

    # Until __init__ is through, for the error that may end it.
    user = "用户"
    clients: Room = Clients()

    # The beginning of a character whose other bytes have not come yet.
    _cut = b""

    # What begins all that it says, and the name that this is made of.
    _voice: tuple[object, bytes] = (None, b"")

    # Has said ``out``: nothing more is echoed, and the end is queued.
    _leaving = False

    # Its end has been read: it will say no more, but may still listen.
    _has_ended = False

    # Why it will be closed, if that is known before.
    _reason = ""

    # Where what it says is counted, and what it is read with, if not by itself.
    _counters = Counters()
    _throttle: Throttle | None = None

    ac_backlog_limit = USUAL.send_queue

    handle_expt = drop_urgent_data

    def __init__(
        self, server: Any, conn: socket.socket, addr: str, port: int, clients: Room
    ) -> None:
        # The tutorial never looked into its server, so it may be anything.
        compat.async_chat.__init__(self, conn, getattr(server, "_map", None))
        # Also if it was reset before accept() returned, as reading or sending shows.
        # asyncore would find it writable in every turn, and never send to it.
        self.connected = True
        self.server = server
        self.addr = addr
        self.port = port
        self._keep(getattr(server, "limits", USUAL))
        self.user = "用户" + str(self.addr) + str(self.port)
        self.clients = clients
        if isinstance(clients, Clients):
            self._counters = clients.counters
            self.watch_reads(clients.may_read)
        self._tell_server("handle_session_opened")
        # The server may have closed it at once.
        if self._is_open() and self not in clients:
            clients.append(self)

    def encode_msg(self, msg: str | bytes) -> bytes:
        """UTF-8 of a text; bytes as they are."""
        return msg if isinstance(msg, bytes) else msg.encode("utf8")

    def decode_msg(self, msg: str | bytes) -> str:
        """The text of UTF-8, with U+FFFD for what is none; a text as it is."""
        return msg.decode("utf8", "replace") if isinstance(msg, bytes) else msg

    def collect_incoming_data(self, data: bytes) -> None:
        """Echo to the client, and tell the others."""
        if not data:
            return
        counters = self._counters
        counters.messages_in += 1
        counters.bytes_in += len(data)
        if self._leaving:
            counters.not_echoed(len(data))
        else:
            self.push(data)
        if self._cut or data[-1] > LAST_ASCII:
            data = self._cut + data
            whole = len(data) - _unfinished(data)
            data, self._cut = data[:whole], data[whole:]
        if data:
            self.broadcasting(data)

    def broadcasting(self, msg: str | bytes) -> None:
        """Tell every other client what this one says."""
        if self._voice[0] is not self.user:
            begin = f"{self.decode_msg(self.user)} 说:"
            self._voice = self.user, self.encode_msg(begin)
        if not isinstance(msg, bytes) or not (msg.isascii() and self._spells_as_here()):
            msg = self.encode_msg(self.decode_msg(msg))
        self._push_to_others(self._voice[1] + msg)

    def found_terminator(self) -> None:
        """The client takes its leave. A second ``out`` changes nothing."""
        if self._leaving:
            return
        if self._cut:
            # It will never be whole.
            cut, self._cut = self._cut, b""
            self.broadcasting(cut)
        say("accept close")
        self._leaving = True
        self.finish("out")
        farewell = f"{self.decode_msg(self.user)}退出聊天"
        self.broadcasting(self.encode_msg(farewell))

    def close(self) -> None:
        """Leave the room, without a word, and close the socket."""
        ended = self._is_open()
        self._leave()
        compat.async_chat.close(self)
        if self._throttle is not None:
            self._throttle.cancel()
        if ended:
            self._tell_why()
            self.discard_buffers()

    def close_because(self, reason: str) -> None:
        """Close it, for a reason: one of ``counters.CLOSED``."""
        self._reason = reason
        self.close()

    def throttle(self, throttle: Throttle) -> None:
        """Be read no faster than *throttle* allows."""
        self._throttle = throttle
        self.ac_in_buffer_size = min(self.ac_in_buffer_size, throttle.largest_read)

    def finish(self, reason: str) -> None:
        """Leave the room, and close when what is queued has been taken."""
        self._reason = self._reason or reason
        self._leave()
        self.close_when_done()

    def handle_close(self) -> None:
        """The client has closed, or the connection is broken.

        One that has only said that it will say no more gets what is queued first.
        """
        # Once, for whoever asks the socket takes the error away.
        broken = self._is_broken()
        if not broken and self._may_listen_on():
            self._has_ended = True
            # Or its end would be read again in every turn.
            self.pause_reading()
            if not self._reason:
                self.finish("eof")
        elif broken:
            self.close_because("reset")
        else:
            if self._reason:
                drain(self.socket)
            self.close_because(self._reason or "eof")

    def handle_backlog(self) -> None:
        """More is waiting for the client than it may leave waiting."""
        self.close_because("slow")

    def handle_error(self) -> None:
        """Log what went wrong with this client, and close it alone."""
        logger.exception(
            "%s: closing after an error",
            self.user,
            extra={"event": "error", "client": self.user},
        )
        self.close_because("error")

    def _is_open(self) -> bool:
        return self._map.get(self._fileno) is self

    def _may_listen_on(self) -> bool:
        """Is there something queued yet, and was its end read for the first time?"""
        if isinstance(self.clients, Clients):
            # What it was told in this turn is queued now.
            self.clients.catch_up(self)
        # asynchat says that it has come to the end of its queue, a None, likewise.
        return (
            self.connected
            and not self._has_ended
            and self.writable()
            and (not self._reason or None in self.producer_fifo)
        )

    def _is_broken(self) -> bool:
        """Is it an error that ends it, of which a loop may have said no more?"""
        if isinstance(sys.exception(), OSError):
            return True
        if self._reason and not self.ac_backlog_size():
            # It had come to its end.
            return False
        try:
            return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        except OSError:
            # Closed behind its back.
            return self.connected

    def _spells_as_here(self) -> bool:
        """Would encode_msg and decode_msg give back the ASCII that they are given?"""
        kind = type(self)
        return (
            kind.encode_msg is ChatSession.encode_msg
            and kind.decode_msg is ChatSession.decode_msg
        )

    def _leave(self) -> None:
        if self in self.clients:
            self.clients.remove(self)

    def _keep(self, limits: Limits) -> None:
        """Take what differs from the usual; the rest is the class's."""
        self.set_terminator(limits.terminator)
        if limits.send_queue != USUAL.send_queue:
            self.ac_backlog_limit = limits.send_queue

    def _tell_why(self) -> None:
        """Say once, to the log and to the server, that it has ended."""
        reason, dropped = self._reason or "closed", self.ac_backlog_size()
        level = LEVELS.get(reason, logging.DEBUG)
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "%s: closed: %s, %d bytes not taken",
                self.user,
                reason,
                dropped,
                extra={
                    "event": "closed",
                    "client": self.user,
                    "reason": reason,
                    "dropped": dropped,
                },
            )
        self._tell_server("handle_session_closed", reason, dropped)

    def _tell_server(self, hook: str, *args: object) -> None:
        tell = getattr(self.server, hook, None)
        if tell is not None:
            tell(self, *args)

    def _push_to_others(self, data: bytes) -> None:
        if isinstance(self.clients, Clients):
            counters = self._counters
            counters.said += 1
            counters.bytes_said += len(data)
            if self._leaving:
                counters.told(len(data))
            self.clients.push(data, but=self)
            return
        # A copy: with a push that fails, somebody leaves in the middle of the walk.
        others: Iterable[ChatSession] = tuple(self.clients)
        for client in others:
            if client is self:
                continue
            try:
                client.push(data)
            except asyncore.ExitNow:
                raise
            except Exception:
                client.handle_error()


def drain(sock: Any) -> None:
    """Drop what a peer has said that is about to be closed.

    Closed with something unread, a socket resets, which can cost the peer what it has
    not read yet.
    """
    size, times = DRAIN
    # Nothing more is there, or the peer is gone.
    with contextlib.suppress(OSError):
        while times and sock.recv(size):
            times -= 1


def _unfinished(data: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character that is not whole yet."""
    tail = data[-LONGEST_CUT:]
    return len(tail) - codecs.utf_8_decode(tail, "replace")[1]
