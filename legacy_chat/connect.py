"""``legacy-chat connect``: connects a terminal, or a pipe, to a room.

Rule 1: to leave is to send the terminator. The room flushes its queue before it closes,
so a pipe receives its whole echo, and the others receive the farewell.
Rule 2: one thread reads standard input, because not every system can poll it together
with a socket. Another thread writes standard output, because its reader may stall. Only
the loop's thread uses the conversation.
Rule 3: a signal ends the conversation within GRACE seconds, even if the room or the
reader of standard output does not respond; a second signal ends it at once.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import compat
from legacy_chat.conversation import Conversation, StreamError

if TYPE_CHECKING:
    import ssl

__all__ = ["begin", "connect"]

# Pieces of input that are queued at a time: a pipe is read no faster than the room
# accepts its data.
PIECES = 16


class Piece:
    """A producer of one piece of input, which releases *written* once it is used."""

    def __init__(self, data: bytes, written: threading.Semaphore) -> None:
        self._data = data
        self._written = written

    def more(self) -> bytes:
        """Return the piece, then b""."""
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
    signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Send and receive until the input ends, the room closes, or a signal arrives.

    Args:
        loop: a key of ``compat.LOOPS``, or "auto".
        terminator: the bytes that end a conversation in this room.
        tls: a client's context; None for plain TCP. If it checks names, the server's
            certificate must have the name *host*.
        signals: the signals that end the conversation.

    Raises:
        OSError: no server listens there. ``socket.gaierror``: the host has no address.
        BrokenPipeError: the reader of standard output has closed it.
        StreamError: standard input cannot be read, or standard output written.
        KeyboardInterrupt: a signal arrived before or after the conversation.
        compat.tls.HandshakeError: the server has no TLS, or no certificate for *host*.
    """
    if sys.stdout is None:
        raise StreamError("standard output is closed")
    map: dict[int, Conversation] = {}
    with _interrupted_by(signals):
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talk = begin(sock, map, terminator, host, tls)
        if sys.stdin is None:
            talk.leave()
        else:
            threading.Thread(target=_read_input, args=(talk, map), daemon=True).start()
        with compat.on_signals(signals, lambda signum: talk.interrupt(), map=map):
            compat.loop(map=map, loop=loop)
        talk.finish()
    if talk.failure is not None:
        raise talk.failure


@contextmanager
def _interrupted_by(signals: Iterable[int]) -> Iterator[None]:
    """Let each of these signals raise KeyboardInterrupt in this block."""
    with ExitStack() as stack:
        for each in signals:
            before = signal.signal(each, signal.default_int_handler)
            stack.callback(signal.signal, each, before)
        yield


def begin(
    sock: socket.socket,
    map: compat.Map,
    terminator: bytes,
    host: str,
    tls: ssl.SSLContext | None,
) -> Conversation:
    """Return the conversation on a connected socket, in *map*."""
    if tls is None:
        return Conversation(sock, sys.stdout, map, terminator)
    # Imported here, because a client without TLS does not need ssl.
    from legacy_chat.secure_conversation import SecureConversation

    talk = SecureConversation(sock, sys.stdout, map, terminator)
    try:
        talk.start_tls(tls, server_hostname=host)
    except ValueError as error:
        talk.close()
        raise OSError(errno.EINVAL, str(error)) from error
    return talk


def _read_input(talk: Conversation, map: compat.Map) -> None:
    """Queue standard input in the loop's thread, piece by piece; at EOF, leave."""
    try:
        keyboard = sys.stdin.fileno()
        typed = os.isatty(keyboard)
        free = threading.Semaphore(PIECES)
        while data := _read(keyboard, typed):
            # A typed line is sent without its newline, as by the tutorial's input().
            data = data.rstrip(b"\r\n") if typed else data
            if data:
                free.acquire()
                piece = Piece(data, free)
                compat.call_soon_threadsafe(talk.push_with_producer, piece, map=map)
    except OSError as error:
        failure = StreamError(f"standard input: {error.strerror}")
        compat.call_soon_threadsafe(talk.fail, failure, map=map)
    else:
        compat.call_soon_threadsafe(talk.leave, map=map)


def _read(keyboard: int, typed: bool) -> bytes:
    while True:
        try:
            return os.read(keyboard, 65536)
        except BlockingIOError:
            # Another process has made standard input non-blocking.
            select.select((keyboard,), (), ())
        except OSError as error:
            if typed and error.errno == errno.EIO:
                # The terminal has hung up.
                return b""
            raise
