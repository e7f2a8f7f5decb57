"""``legacy-chat connect``: a conversation between a terminal, or a pipe, and a room.

Rule 1: what a peer says cannot steer a terminal: there, control characters are shown as
escapes. A pipe gets the bytes as they are.
Rule 2: a character that TCP has cut is shown whole, once it is.
Rule 3: leaving is saying the terminator. The room writes out what is queued before it
closes, so a pipe sees its whole echo, and the others see the farewell.
Rule 4: standard input is read by a thread, because not every system can wait for it
beside a socket; only the loop's thread touches the conversation.
"""

from __future__ import annotations

import asynchat
import codecs
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, TextIO

import compat
from compat.urgent import drop_urgent_data
from legacy_chat.escapes import visible

if TYPE_CHECKING:
    import ssl

__all__ = ["Conversation", "connect"]

# Seconds of silence after which a room that was left counts as gone.
PATIENCE = 5.0

# Pieces of input on their way at a time: a pipe is read no faster than the room takes
# it.
PIECES = 16


class Conversation(asynchat.async_chat):
    """The client's end of the connection.

    Args:
        sock: connected.
        screen: where the room's words go.
        map: the channel map.
        terminator: what ends a conversation in this room.

    Attributes:
        failure: what ended it, if that was no ordinary end.
    """

    failure: BaseException | None = None

    handle_expt = drop_urgent_data

    def __init__(
        self,
        sock: socket.socket,
        screen: TextIO,
        map: compat.Map,
        terminator: bytes = b"out",
    ) -> None:
        asynchat.async_chat.__init__(self, sock, map)
        self.set_terminator(None)
        self._terminator = terminator
        self._screen = screen
        self._is_terminal = screen.isatty()
        self._decoder = codecs.getincrementaldecoder("utf8")("replace")
        self._leaving: compat.Timer | None = None

    def collect_incoming_data(self, data: bytes) -> None:
        """Show what has come."""
        if self._leaving is not None:
            self._wait_for_the_end()
        if self._is_terminal:
            self._show(self._decoder.decode(data))
        else:
            self._screen.buffer.write(data)
            self._screen.flush()

    def found_terminator(self) -> None:
        """There is none: the protocol does not frame what the room says."""

    def leave(self) -> None:
        """Say the terminator; the second time, or in silence, just close."""
        if self._leaving is not None:
            self.close()
            return
        self._wait_for_the_end()
        self.push(self._terminator)

    def close(self) -> None:
        """Close the socket, and stop waiting for an answer."""
        if self._leaving is not None:
            self._leaving.cancel()
        asynchat.async_chat.close(self)

    def handle_close(self) -> None:
        """The room has closed: show what is left of a cut character, and end."""
        self.close()
        self._show(self._decoder.decode(b"", final=True))

    def handle_error(self) -> None:
        """End; whoever turned the loop is told why."""
        self.failure = sys.exception()
        self.close()

    def _wait_for_the_end(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._leaving = compat.call_later(PATIENCE, self.close, map=self._map)

    def _show(self, text: str) -> None:
        if not text:
            return
        # A line for each piece.
        end = "" if text.endswith("\n") else "\n"
        self._screen.write(visible(text) + end)
        self._screen.flush()


class Piece:
    """A producer of one piece of input, which tells when it has been written."""

    def __init__(self, data: bytes, written: threading.Semaphore) -> None:
        self._data = data
        self._written = written

    def more(self) -> bytes:
        """The piece, then nothing."""
        data, self._data = self._data, b""
        if not data:
            self._written.release()
        return data


def connect(
    host: str,
    port: int,
    loop: str = "auto",
    terminator: bytes = b"out",
    tls: ssl.SSLContext | None = None,
) -> None:
    """Talk until the input ends, the room closes, or a signal says so.

    Args:
        loop: a key of ``compat.LOOPS``, or "auto".
        terminator: what ends a conversation in this room.
        tls: a client's context; the server has to be *host*, if that checks names.

    Raises:
        OSError: nobody listens there; ``socket.gaierror``: there is no such host.
        BrokenPipeError: nobody reads standard output any more.
        compat.tls.HandshakeError: the server is not who it has to be, or speaks no TLS.
    """
    map: dict[int, Conversation] = {}
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    talk = _begin(sock, map, terminator, host, tls)
    threading.Thread(target=_read_input, args=(talk, map), daemon=True).start()
    signals = (signal.SIGINT, signal.SIGTERM)
    with compat.on_signals(signals, lambda signum: talk.leave(), map=map):
        compat.loop(map=map, loop=loop)
    if talk.failure is not None:
        raise talk.failure


def _begin(
    sock: socket.socket,
    map: compat.Map,
    terminator: bytes,
    host: str,
    tls: ssl.SSLContext | None,
) -> Conversation:
    if tls is None:
        return Conversation(sock, sys.stdout, map, terminator)
    # Here, for that imports this.
    from legacy_chat.tls import SecureConversation

    return SecureConversation(sock, sys.stdout, map, terminator, tls, host)


def _read_input(talk: Conversation, map: compat.Map) -> None:
    """Hand standard input to the loop, piece by piece; at its end, leave."""
    keyboard = sys.stdin.fileno()
    typed = os.isatty(keyboard)
    free = threading.Semaphore(PIECES)
    while data := os.read(keyboard, 65536):
        # A line that is typed goes without its end, as the tutorial's input() sent it.
        data = data.rstrip(b"\r\n") if typed else data
        if data:
            free.acquire()
            piece = Piece(data, free)
            compat.call_soon_threadsafe(talk.push_with_producer, piece, map=map)
    compat.call_soon_threadsafe(talk.leave, map=map)
