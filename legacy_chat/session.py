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
"""

from __future__ import annotations

import asyncore
import codecs
import logging
import socket
from collections.abc import Iterable
from typing import Any, Protocol

import compat
from legacy_chat.room import Clients, say

__all__ = ["ChatSession"]

# An UTF-8 character has four bytes at most, so an unfinished one has three.
LONGEST_CUT = 3

# A byte above it is part of a longer character.
LAST_ASCII = 0x7F

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
        server: the dispatcher that accepted it; the session joins its map.
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

    def __init__(
        self, server: Any, conn: socket.socket, addr: str, port: int, clients: Room
    ) -> None:
        # The tutorial never looked into its server, so it may be anything.
        compat.async_chat.__init__(self, conn, getattr(server, "_map", None))
        self.server = server
        self.addr = addr
        self.port = port
        self.set_terminator(b"out")
        self.user = "用户" + str(self.addr) + str(self.port)
        self.clients = clients
        if self not in clients:
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
        if not self._leaving:
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
        self.close_when_done()
        self._leave()
        farewell = f"{self.decode_msg(self.user)}退出聊天"
        self.broadcasting(self.encode_msg(farewell))

    def close(self) -> None:
        """Leave the room, without a word, and close the socket."""
        self._leave()
        compat.async_chat.close(self)

    def handle_expt(self) -> None:
        """Take an urgent byte, which is no part of the conversation.

        Left where it is, it would wake the loop in every turn.
        """
        try:
            self.socket.recv(1, socket.MSG_OOB)
        except OSError as error:
            logger.debug("%s: no urgent data to take: %s", self.user, error)

    def handle_error(self) -> None:
        """Log what went wrong with this client, and close it alone."""
        logger.exception("%s: closing after an error", self.user)
        self.handle_close()

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

    def _push_to_others(self, data: bytes) -> None:
        if isinstance(self.clients, Clients):
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


def _unfinished(data: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character that is not whole yet."""
    tail = data[-LONGEST_CUT:]
    return len(tail) - codecs.utf_8_decode(tail, "replace")[1]
