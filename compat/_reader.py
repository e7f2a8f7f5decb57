"""Reading in linear time, with pauses and callbacks.

asynchat copies the rest of its buffer after every terminator. This class moves a read
position, and cuts the buffer only when a handler looks at it.

Rule 1: every handler sees ``ac_in_buffer`` as the original would show it.
Rule 2: a handler may change the buffer, the terminator and any method; each change
takes effect at the next call.
Rule 3: a class with its own ``ac_in_buffer``, and one that was derived from the
original before ``install()``, read with the original's code.
"""

from __future__ import annotations

import asynchat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from compat._outbox import interest_changed
from compat._types import Original, ReadGate

__all__ = ["LinearReader", "awaits_connection", "uncollected_size"]

OnRead: TypeAlias = Callable[[Any, int], object]


class Incoming:
    """``incoming``, a list that is created on first use: most channels never use it."""

    def __get__(self, channel: Any, owner: type | None = None) -> Any:
        # Atomic, because two threads may get here at once.
        return self if channel is None else vars(channel).setdefault("incoming", [])


class LinearReader(Original):
    """The reading half of ``compat.async_chat``."""

    if not TYPE_CHECKING:
        incoming = Incoming()

    _compat_paused = False

    # Every read uses these. Not class attributes: the interpreter caches the lookup of
    # an instance attribute only if the class has no attribute of that name.
    # Received data, and the number of its bytes that the handlers have consumed.
    _compat_buffer: Any
    _compat_position: int
    # See watch_reads().
    _compat_gate: ReadGate | None
    _compat_on_read: tuple[OnRead, ...] | None

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # Not in __init__: a subclass may call the original's __init__ instead.
        channel = super().__new__(cls)
        channel._compat_buffer, channel._compat_position = b"", 0
        channel._compat_gate = channel._compat_on_read = None
        return channel

    @property
    def ac_in_buffer(self) -> Any:
        """Received data that no handler has collected yet."""
        if self._compat_position:
            self.ac_in_buffer = self._compat_buffer[self._compat_position :]
        return self._compat_buffer

    @ac_in_buffer.setter
    def ac_in_buffer(self, data: Any) -> None:
        self._compat_buffer, self._compat_position = data, 0

    def readable(self) -> bool:
        """Return True, as the original does; False while reading is paused."""
        return not getattr(self, "_compat_paused", False)

    def pause_reading(self) -> None:
        """Stop reading until ``resume_reading()``; unread bytes stay in the kernel."""
        self._compat_paused = True
        interest_changed(self)

    def resume_reading(self) -> None:
        """Resume reading. Does nothing if reading was not paused."""
        if self._compat_paused:
            del self._compat_paused
            interest_changed(self)

    def watch_reads(self, gate: ReadGate | None = None, *on_read: OnRead) -> None:
        """Let *gate* decide before each read, and call each *on_read* after it.

        Args:
            gate: while its ``limits_reads`` is true, its ``may_read(channel)`` returns
                whether the channel reads in this turn. A ``BroadcastGroup`` is one.
                None lets the channel read in every turn.
            on_read: each callback gets the channel and the number of bytes that one
                ``recv`` returned, before a handler gets the data. Not called at the end
                of the stream.

        Each call replaces the previous settings; a call without arguments removes them.
        For this, a subclass with its own ``handle_read`` must call the inherited one.
        """
        self._compat_gate = gate
        self._compat_on_read = on_read or None

    def handle_read(self) -> None:
        """Read, collect and find terminators, in time linear in the bytes read.

        Source: CPython 3.11, Lib/asynchat.py, async_chat.handle_read().
        """
        if getattr(type(self), "ac_in_buffer", None) is not _BUFFER:
            Original.handle_read(self)
            return
        gate = self._compat_gate
        if gate is not None and gate.limits_reads and not gate.may_read(self):
            return
        try:
            data = self.recv(self.ac_in_buffer_size)
        except BlockingIOError:
            return
        except OSError:
            self.handle_error()
            return
        if self._compat_on_read is not None and data:
            for on_read in self._compat_on_read:
                on_read(self, len(data))
        if self._compat_position:
            # A handler raised during the last read.
            self.ac_in_buffer = self.ac_in_buffer
        held = self._compat_buffer
        buffer = self._compat_buffer = held + data  # Copies a view.
        if not buffer:
            return
        terminator: Any = self.get_terminator()
        if (
            held
            or type(terminator) is not bytes
            or buffer[-1] in terminator
            or buffer.find(terminator) >= 0
        ):
            self._compat_collect(terminator)
            return
        # The same, for data with nothing of the terminator: nearly every read.
        self.collect_incoming_data(buffer)
        self._compat_buffer = b""

    def _compat_collect(self, terminator: Any) -> None:
        """Pass data to the handlers, which may change the buffer and terminator."""
        buffer, begin = self._compat_buffer, 0
        left = len(buffer)
        while True:
            if not terminator:
                self.collect_incoming_data(self.ac_in_buffer if begin else buffer)
                break
            if isinstance(terminator, int):
                if left < terminator:
                    self._compat_count_down(left)
                    return
                end, length = begin + terminator, 0
            elif (end := buffer.find(terminator, begin)) >= 0:
                length = len(terminator)
            # A cheap test first: the last byte is rarely in the terminator.
            elif buffer[-1] not in terminator or not self._compat_holds_back(
                terminator
            ):
                rest = self.ac_in_buffer if begin else buffer
                self.collect_incoming_data(rest)
                break
            else:
                return
            if end != begin:
                self.collect_incoming_data(buffer[begin:end])
            self._compat_position += end - begin + length
            if not length:
                self.terminator = 0
            self.found_terminator()
            buffer, begin = self._compat_buffer, self._compat_position
            left = len(buffer) - begin
            if left <= 0:
                break
            terminator = self.get_terminator()
        self._compat_buffer = b""
        if self._compat_position:
            self._compat_position = 0

    def _compat_count_down(self, left: int) -> None:
        """Collect fewer bytes than a numeric terminator waits for."""
        self.collect_incoming_data(self.ac_in_buffer)
        self.ac_in_buffer = b""
        # Read again: the handler may have set another number.
        self.terminator -= left  # type: ignore[operator]

    def _compat_holds_back(self, terminator: bytes) -> bool:
        """Collect all but a tail that may begin the terminator; False if none does."""
        rest = self.ac_in_buffer
        held = asynchat.find_prefix_at_end(rest, terminator)
        if held and held != len(rest):
            self.collect_incoming_data(rest[:-held])
            self.ac_in_buffer = self.ac_in_buffer[-held:]
        return held > 0


_BUFFER, _INCOMING = LinearReader.ac_in_buffer, LinearReader.incoming


def reset_input(channel: Any) -> bool:
    """Empty the buffer and ``incoming``; False if the class has its own of either."""
    kind = type(channel)
    if (
        getattr(kind, "ac_in_buffer", None) is not _BUFFER
        or getattr(kind, "incoming", None) is not _INCOMING
    ):
        return False
    channel.ac_in_buffer = b""
    vars(channel).pop("incoming", None)
    return True


def uncollected_size(channel: LinearReader) -> int:
    """Return the size of ``ac_in_buffer``, without cutting it."""
    return len(channel._compat_buffer) - channel._compat_position


def awaits_connection(channel: LinearReader) -> bool:
    """Return whether the channel must be writable to notice its connection.

    This differs from the original for a paused channel whose peer was gone before the
    channel was created. asyncore would poll it as writable in every turn without ever
    calling a handler.
    """
    return not channel.connected and (channel.connecting or not channel._compat_paused)
