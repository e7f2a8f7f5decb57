"""``legacy-chat connect``: a conversation between a terminal, or a pipe, and a room.

Rule 1: what a peer says cannot steer a terminal: there, characters that cannot be seen
are shown as escapes. A pipe gets the bytes as they are.
Rule 2: a character that TCP has cut is shown whole, once it is.
Rule 3: leaving is saying the terminator. The room writes out what is queued before it
closes, so a pipe sees its whole echo, and the others see the farewell.
Rule 4: standard input is read by a thread, because not every system can wait for it
beside a socket, and standard output is written by another, because its reader may
stall; only the loop's thread touches the conversation.
Rule 5: a signal ends the conversation within HURRY seconds, whatever the room and the
reader of standard output do; a second signal ends it at once.
"""

from __future__ import annotations

import asynchat
import asyncore
import codecs
import errno
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TextIO

import compat
from compat.urgent import drop_urgent_data
from legacy_chat.escapes import visible
from legacy_chat.screen import Screen

if TYPE_CHECKING:
    import ssl

__all__ = ["Conversation", "StreamError", "connect"]

# Seconds of silence after which a room that was left counts as gone.
PATIENCE = 5.0

# Seconds after a signal for the room to close, and for standard output to be read.
HURRY = 1.0

# Pieces of input on their way at a time: a pipe is read no faster than the room takes
# it.
PIECES = 16


class StreamError(Exception):
    """Standard input cannot be read, or standard output cannot be written."""


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
        self._is_terminal = screen.isatty()
        self._encoding = screen.encoding
        self._screen = Screen(screen, self._screen_has_changed)
        self._decoder = codecs.getincrementaldecoder("utf8")("replace")
        self._leaving: compat.Timer | None = None
        # The time by which a signal wants this to end.
        self._deadline: float | None = None

    def readable(self) -> bool:
        """Return whether the screen has room, or a signal has ended the waiting."""
        return not self._screen.is_full or self._deadline is not None

    def collect_incoming_data(self, data: bytes) -> None:
        """Show what has come."""
        if self._leaving is not None:
            self._wait_for_the_end()
        if self._deadline is not None and self._screen.is_full:
            # The end of the conversation is still to be read; nobody takes the rest.
            return
        if self._is_terminal:
            self._show(self._decoder.decode(data))
        else:
            self._screen.write(data)

    def found_terminator(self) -> None:
        """There is none: the protocol does not frame what the room says."""

    def leave(self) -> None:
        """Say the terminator; the second time, or in silence, just close."""
        if self._leaving is not None:
            self.close()
            return
        self._wait_for_the_end()
        self.push(self._terminator)

    def interrupt(self) -> None:
        """Leave because of a signal."""
        is_second = self._deadline is not None
        self._deadline = time.monotonic() + (0.0 if is_second else HURRY)
        if is_second or self._is_in_handshake():
            self._end_now()
        else:
            self.leave()

    def fail(self, failure: BaseException) -> None:
        """End because of *failure*."""
        self.failure = failure
        self.close()

    def close(self) -> None:
        """Close the socket, and stop waiting for an answer."""
        if self._leaving is not None:
            self._leaving.cancel()
        asynchat.async_chat.close(self)

    def finish(self) -> None:
        """Wait for the reader of the screen; after a signal, not for long."""
        left = None
        if self._deadline is not None:
            left = max(0.0, self._deadline - time.monotonic())
        self._screen.flush(left)
        self._look_at_the_screen()

    def handle_close(self) -> None:
        """The room has closed: show what is left of a cut character, and end."""
        self.close()
        if self._is_terminal:
            self._show(self._decoder.decode(b"", final=True))

    def handle_error(self) -> None:
        """End; whoever turned the loop is told why."""
        error = sys.exception()
        assert error is not None
        self.fail(error)

    def _wait_for_the_end(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        seconds = PATIENCE
        if self._deadline is not None:
            seconds = max(0.0, self._deadline - time.monotonic())
        self._leaving = compat.call_later(seconds, self._stop_waiting, map=self._map)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._end_now()
        elif self.readable() and not self._is_in_handshake():
            self.close()
        else:
            # Not the room is silent: it was not read, or not reached yet.
            self._wait_for_the_end()

    def _is_in_handshake(self) -> bool:
        # Meanwhile the map has the handshake's channel, which has a limit of its own.
        return self not in self._map.values()

    def _end_now(self) -> None:
        self.close()
        # With TLS, the socket lingers in a channel of its own.
        asyncore.close_all(self._map)

    def _show(self, text: str) -> None:
        if not text:
            return
        # A line for each piece.
        shown = visible(text) + ("" if text.endswith("\n") else "\n")
        self._screen.write(shown.encode(self._encoding, "backslashreplace"))

    def _screen_has_changed(self) -> None:
        compat.call_soon_threadsafe(self._look_at_the_screen, map=self._map)

    def _look_at_the_screen(self) -> None:
        error = self._screen.failure
        if isinstance(error, BrokenPipeError):
            self.fail(error)
        elif error is not None:
            self.fail(StreamError(f"standard output: {error.strerror}"))


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
    signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Talk until the input ends, the room closes, or a signal says so.

    Args:
        loop: a key of ``compat.LOOPS``, or "auto".
        terminator: what ends a conversation in this room.
        tls: a client's context; the server has to be *host*, if that checks names.
        signals: the signals that end the conversation.

    Raises:
        OSError: nobody listens there; ``socket.gaierror``: there is no such host.
        BrokenPipeError: nobody reads standard output any more.
        StreamError: standard input cannot be read, or standard output not written.
        KeyboardInterrupt: a signal came before or after the conversation.
        compat.tls.HandshakeError: the server is not who it has to be, or speaks no TLS.
    """
    if sys.stdout is None:
        raise StreamError("standard output is closed")
    map: dict[int, Conversation] = {}
    with _interrupted_by(signals):
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talk = _begin(sock, map, terminator, host, tls)
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
    """While this lasts, each of these signals raises KeyboardInterrupt."""
    with ExitStack() as stack:
        for each in signals:
            before = signal.signal(each, signal.default_int_handler)
            stack.callback(signal.signal, each, before)
        yield


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
    try:
        keyboard = sys.stdin.fileno()
        typed = os.isatty(keyboard)
        free = threading.Semaphore(PIECES)
        while data := _read(keyboard, typed):
            # A line that is typed goes without its end, as the tutorial's input()
            # sent it.
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
            # Another process has made it non-blocking.
            select.select((keyboard,), (), ())
        except OSError as error:
            if typed and error.errno == errno.EIO:
                # The terminal has hung up.
                return b""
            raise
