"""The client's end of a conversation with a room.

Rule 1: data from a peer cannot control a terminal: characters that a terminal does not
show are written as escapes there. A pipe receives the bytes unchanged.
Rule 2: a character that TCP has split is shown once it is complete.
Rule 3: only the loop's thread uses the conversation.
"""

from __future__ import annotations

import asynchat
import asyncore
import codecs
import socket
import sys
import time
from typing import TextIO

import compat
from compat.characters import visible
from compat.urgent import drop_urgent_data
from legacy_chat.screen import Screen

__all__ = ["Conversation", "StreamError"]

# Seconds without data from a room after which leave() gives the room up.
PATIENCE = 5.0

# Seconds after a signal for the room to close and for standard output to be flushed.
GRACE = 1.0


class StreamError(Exception):
    """Standard input cannot be read, or standard output cannot be written."""


class Conversation(asynchat.async_chat):
    """The client's end of the connection.

    Args:
        sock: a connected socket.
        screen: the stream for the room's data.
        map: the channel map.
        terminator: the bytes that end a conversation in this room.

    Attributes:
        failure: the exception that ended the conversation; None after a normal end.
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
        self._screen = Screen(screen, self._screen_changed)
        self._decoder = codecs.getincrementaldecoder("utf8")("replace")
        self._leave_timer: compat.Timer | None = None
        # The time by which the conversation ends after a signal; None before.
        self._deadline: float | None = None

    def readable(self) -> bool:
        """Return whether the screen has room, or a signal has set the deadline."""
        return not self._screen.is_full or self._deadline is not None

    def collect_incoming_data(self, data: bytes) -> None:
        """Show the received data."""
        if self._leave_timer is not None:
            self._restart_timer()
        if self._deadline is not None and self._screen.is_full:
            # EOF must still be read; the data is dropped, because the screen is full.
            return
        if self._is_terminal:
            self._show(self._decoder.decode(data))
        else:
            self._screen.write(data)

    def found_terminator(self) -> None:
        """Never called: the protocol does not frame the room's data."""

    def leave(self) -> None:
        """Send the terminator, and close after PATIENCE seconds without data.

        The second call closes at once.
        """
        if self._leave_timer is not None:
            self.close()
            return
        self._restart_timer()
        self.push(self._terminator)

    def interrupt(self) -> None:
        """Leave because of a signal."""
        is_second = self._deadline is not None
        self._deadline = time.monotonic() + (0.0 if is_second else GRACE)
        if is_second or self._is_in_handshake():
            self._abort()
        else:
            self.leave()

    def fail(self, failure: BaseException) -> None:
        """Keep *failure* for the caller, and close."""
        self.failure = failure
        self.close()

    def close(self) -> None:
        """Cancel the timer of leave(), and close the socket."""
        self._cancel_timer()
        asynchat.async_chat.close(self)

    def finish(self) -> None:
        """Wait until the screen is flushed; after a signal, until the deadline."""
        self._screen.flush(self._seconds_left())
        self._check_screen()

    def handle_close(self) -> None:
        """Close, and show an incomplete last character as U+FFFD."""
        self.close()
        if self._is_terminal:
            self._show(self._decoder.decode(b"", final=True))

    def handle_error(self) -> None:
        """Close, and keep the exception for the caller of the loop."""
        error = sys.exception()
        assert error is not None
        self.fail(error)

    def _restart_timer(self) -> None:
        self._cancel_timer()
        left = self._seconds_left()
        seconds = PATIENCE if left is None else left
        self._leave_timer = compat.call_later(seconds, self._timed_out, map=self._map)

    def _cancel_timer(self) -> None:
        if self._leave_timer is not None:
            self._leave_timer.cancel()

    def _seconds_left(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic())

    def _timed_out(self) -> None:
        if self._deadline is not None:
            self._abort()
        elif self.readable() and not self._is_in_handshake():
            self.close()
        else:
            # The room is not silent: the full screen paused reads, or the handshake
            # is still in progress.
            self._restart_timer()

    def _is_in_handshake(self) -> bool:
        # During a handshake, the map has the handshake's channel, which has a timeout.
        return self not in self._map.values()

    def _abort(self) -> None:
        self.close()
        # With TLS, another channel keeps the socket until close_notify is sent.
        asyncore.close_all(self._map)

    def _show(self, text: str) -> None:
        if not text:
            return
        # One line for each piece of data.
        shown = visible(text) + ("" if text.endswith("\n") else "\n")
        self._screen.write(shown.encode(self._encoding, "backslashreplace"))

    def _screen_changed(self) -> None:
        compat.call_soon_threadsafe(self._check_screen, map=self._map)

    def _check_screen(self) -> None:
        error = self._screen.failure
        if isinstance(error, BrokenPipeError):
            self.fail(error)
        elif error is not None:
            self.fail(StreamError(f"standard output: {error.strerror}"))
