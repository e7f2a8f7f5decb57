"""``async_chat`` that announces, that can gather, and that reads in linear time.

asyncore asks every channel in every turn. A channel that announces need not be asked:
its loop keeps the last answer until the channel announces, or is called. asynchat sends
in every ``push``. A channel that gathers queues, and sends once when the turn is over.

Rule 1: announcing says that the loop should ask, never what the answer will be.
Rule 2: it is the original class underneath, and its methods do what they did.
Rule 3: no method needs ``self`` to be of this class. Once it is installed in asynchat,
a class that was derived from the original before calls these as its base class's.
Rule 4: gathered or not, a peer gets the same bytes in the same order. What must not
wait for the end of the turn, such as ``close`` and ``send``, first sends what waits.
Rule 5: every handler sees ``ac_in_buffer`` as the original would show it.
Rule 6: the attributes are named so that no program has its own of that name.
"""

from __future__ import annotations

import asynchat
import asyncore
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from compat.schedule import at_turn_end, wake_other_thread

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from compat.audience import Audience

__all__ = ["announce", "announces", "async_chat", "wants_to_write"]

Original = asynchat.async_chat

# Entries of a queue that are joined before it is known how long they are.
FEW_PIECES = 8


class Board(Protocol):
    """Where a loop finds what was announced to it."""

    def announce(self) -> None:
        """Ask the channel again; and end the wait, if another thread says so."""

    def leave(self) -> None:
        """Forget the channel, whose socket is about to be closed."""


class Lazy:
    """An attribute that is made when it is first used, for most are not."""

    def __init__(self, kind: Callable[[], Any]) -> None:
        self._kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, channel: Any, owner: type | None = None) -> Any:
        if channel is None:
            return self
        made = channel.__dict__[self._name] = self._kind()
        return made


class async_chat(Original):  # noqa: N801  # the original's name
    """The original, and it announces.

    Everything that the original's ``readable`` and ``writable`` look at is announced
    when a method changes it. A subclass that has a ``readable`` or ``writable`` of its
    own is asked in every turn, as asyncore does. One that changes ``producer_fifo`` by
    hand outside of its handlers calls ``announce()`` afterwards, or is found out
    within a tenth of a second.

    Attributes:
        ac_gather: True lets ``push``, ``push_with_producer`` and ``close_when_done``
            only queue. What a turn has queued is sent at its end, with one ``send`` of
            at most ``ac_out_buffer_size`` bytes; under a loop that is not compat's, in
            its next turn. A program that leaves without its loop (``os._exit``), blocks
            in a handler, or writes to ``socket`` itself, leaves it False.
    """

    ac_gather = False

    # The loop that turns it, once that has asked it.
    _compat_board: Board | None = None

    # Has something been queued that no attempt was made to send, and is one being made?
    _compat_waits = False
    _compat_sending = False

    # Whose messages it gets.
    _compat_audience: Audience | None = None

    # What has been read, and how much of that has gone to the handlers.
    _compat_read: Any = b""
    _compat_gone = 0

    if not TYPE_CHECKING:
        # A client that has said and been told nothing has neither: 800 bytes.
        producer_fifo = Lazy(deque)
        incoming = Lazy(list)

    def __init__(self, sock: Any = None, map: Any = None) -> None:
        Original.__init__(self, sock, map)
        if isinstance(self, async_chat):
            del self.producer_fifo, self.incoming

    def announce(self) -> None:
        """Let the loop ask again."""
        announce(self)

    # Reading.

    @property
    def ac_in_buffer(self) -> Any:
        """What has been read and not been collected yet."""
        if self._compat_gone:
            self._compat_read, self._compat_gone = (
                self._compat_read[self._compat_gone :],
                0,
            )
        return self._compat_read

    @ac_in_buffer.setter
    def ac_in_buffer(self, data: Any) -> None:
        self._compat_read, self._compat_gone = data, 0

    def handle_read(self) -> None:
        """Read, collect, and find terminators, in time linear in what was read.

        Source: CPython 3.11, Lib/asynchat.py, async_chat.handle_read(), which copies
        what is left after every terminator.
        """
        if not isinstance(self, async_chat) or type(self).ac_in_buffer is not _BUFFER:
            Original.handle_read(self)
            return
        try:
            data = self.recv(self.ac_in_buffer_size)
        except BlockingIOError:
            return
        except OSError:
            self.handle_error()
            return
        if self._compat_gone:
            # A handler raised in the middle of the last read.
            self._compat_read, self._compat_gone = self.ac_in_buffer, 0
        read = self._compat_read = self._compat_read + data
        begin = 0
        # Handlers may change the buffer and the terminator, so nothing is remembered
        # from before a call. Adding to _compat_gone is cutting off from the front.
        while (left := len(read) - begin) > 0:
            terminator = self.get_terminator()
            if not terminator:
                self.collect_incoming_data(self.ac_in_buffer if begin else read)
                break
            if isinstance(terminator, int):
                if left < terminator:
                    self.collect_incoming_data(self.ac_in_buffer if begin else read)
                    self.ac_in_buffer = b""
                    # The handler may have set another number.
                    self.terminator -= left  # type: ignore[operator]
                    break
                self.collect_incoming_data(read[begin : begin + terminator])
                self._compat_gone += terminator
                self.terminator = 0
                self.found_terminator()
            elif (end := read.find(terminator, begin)) >= 0:
                if end > begin:
                    self.collect_incoming_data(read[begin:end])
                self._compat_gone += end - begin + len(terminator)
                self.found_terminator()
            else:
                rest = self.ac_in_buffer if begin else read
                held = asynchat.find_prefix_at_end(rest, terminator)
                if held:
                    if held != left:
                        self.collect_incoming_data(rest[:-held])
                        self.ac_in_buffer = self.ac_in_buffer[-held:]
                    return
                self.collect_incoming_data(rest)
                break
            read, begin = self._compat_read, self._compat_gone
        self._compat_read, self._compat_gone = b"", 0

    # Writing.

    def push(self, data: bytes | bytearray | memoryview) -> None:
        if not getattr(self, "ac_gather", False):
            waited = bool(self.producer_fifo)
            Original.push(self, data)
            if waited or self.producer_fifo:
                announce(self)
            return
        if type(data) is not bytes:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise TypeError(f"data={data!r} is not bytes, bytearray or memoryview")
            # It may be changed before it is sent.
            data = bytes(data)
        if self._compat_audience is not None:
            self._compat_audience.catch_up(self)
        self._compat_queue(data)
        if not self._compat_waits:
            self._compat_waits = True
            at_turn_end(self._map, self)

    def push_with_producer(self, producer: Any) -> None:
        _catch_up(self)
        if getattr(self, "ac_gather", False):
            self.producer_fifo.append(producer)
            self._compat_wait()
        else:
            Original.push_with_producer(self, producer)
            announce(self)

    def close_when_done(self) -> None:
        _catch_up(self)
        Original.close_when_done(self)
        if getattr(self, "ac_gather", False):
            self._compat_wait()
        else:
            announce(self)

    def send(self, data: ReadableBuffer) -> int:
        """Send at once; first, once, what waits for the end of the turn."""
        if getattr(self, "ac_gather", False) and not self._compat_sending:
            _write_now(self)
        try:
            return self.socket.send(data)
        except OSError:
            # The original tries again, and knows what to make of the error.
            return Original.send(self, data)

    def initiate_send(self) -> None:
        """Make one attempt to send what is queued.

        Source: CPython 3.11, Lib/asynchat.py, async_chat.initiate_send(). One that
        gathers attempts as many entries at once as go into one send, and closes in the
        same turn, if that was the last it had to do.
        """
        if not getattr(self, "ac_gather", False):
            Original.initiate_send(self)
            return
        fifo: deque[Any] = self.producer_fifo
        self._compat_waits, self._compat_sending = False, True
        try:
            if len(fifo) > 1:
                _join_first(fifo, self.ac_out_buffer_size)
            first = fifo[0] if fifo else None
            if (
                type(first) is bytes
                and 0 < len(first) <= self.ac_out_buffer_size
                and self.connected
            ):
                try:
                    sent = self.send(first)
                except OSError:
                    self.handle_error()
                    return
                if sent == len(first):
                    fifo.popleft()
                elif sent:
                    fifo[0] = first[sent:]
            else:
                Original.initiate_send(self)
            if fifo and fifo[0] is None and self.connected:
                Original.initiate_send(self)
        finally:
            self._compat_sending = False

    def discard_buffers(self) -> None:
        _catch_up(self)
        Original.discard_buffers(self)
        announce(self)

    # Coming and going.

    def connect(self, address: Any) -> None:
        Original.connect(self, address)
        announce(self)

    def add_channel(self, map: Any = None) -> None:
        Original.add_channel(self, map)
        announce(self)

    def del_channel(self, map: Any = None) -> None:
        board: Board | None = getattr(self, "_compat_board", None)
        if board is not None:
            board.leave()
        Original.del_channel(self, map)
        announce(self)

    def close(self) -> None:
        _write_now(self)
        audience: Audience | None = getattr(self, "_compat_audience", None)
        if audience is not None:
            audience.discard(self)
        Original.close(self)
        announce(self)

    def _compat_queue(self, data: bytes) -> None:
        """Queue it, in pieces that go into one send."""
        piece = self.ac_out_buffer_size
        if len(data) > piece:
            self.producer_fifo.extend(
                data[begin : begin + piece] for begin in range(0, len(data), piece)
            )
        else:
            self.producer_fifo.append(data)

    def _compat_wait(self) -> None:
        """Write when the turn is over, if not before."""
        if not self._compat_waits:
            self._compat_waits = True
            at_turn_end(self._map, self)

    def _compat_turn_ends(self) -> None:
        """Write what waits; an error is this channel's, as in a handler."""
        if self._compat_audience is not None:
            self._compat_audience.catch_up(self)
        if not self._compat_waits:
            return
        self._compat_waits = False
        try:
            self.initiate_send()
        except (asyncore.ExitNow, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            self.handle_error()
        if self.producer_fifo:
            announce(self)


_BUFFER = async_chat.ac_in_buffer


def announce(channel: Any) -> None:
    """Tell the loop that turns *channel*, if one does, to ask it again."""
    board: Board | None = getattr(channel, "_compat_board", None)
    if board is not None:
        board.announce()
    else:
        # A loop that asks everybody does so when its wait ends, and a loop that does
        # not know the channel yet finds it then.
        wake_other_thread(getattr(channel, "_map", None))


def wants_to_write(channel: async_chat) -> bool:
    """The original's ``writable``, of one that announces, without making its queue."""
    return bool(channel.__dict__.get("producer_fifo")) or not channel.connected


def announces(channel: Any) -> bool:
    """May a loop keep this channel's answers until it announces?"""
    kind = type(channel)
    return (
        isinstance(channel, async_chat)
        and kind.readable is Original.readable
        and kind.writable is Original.writable
        and "readable" not in vars(channel)
        and "writable" not in vars(channel)
    )


def _catch_up(channel: Any) -> None:
    """Queue what was said to its audience before what the channel does next."""
    audience: Audience | None = getattr(channel, "_compat_audience", None)
    if audience is not None:
        audience.catch_up(channel)


def _write_now(channel: Any) -> None:
    """Make the attempt that waits for the end of the turn."""
    _catch_up(channel)
    if getattr(channel, "_compat_waits", False) and not channel._compat_sending:
        channel._compat_waits = False
        channel.initiate_send()


def _join_first(fifo: deque[Any], limit: int) -> None:
    """Make one entry of those bytes at the front that go into one send."""
    if len(fifo) <= FEW_PIECES:
        try:
            whole = b"".join(fifo)
        except TypeError:
            # A producer, or the end.
            whole = b""
        if 0 < len(whole) <= limit:
            fifo.clear()
            fifo.append(whole)
            return
    count = size = 0
    for entry in fifo:
        if type(entry) is not bytes:
            break
        size += len(entry)
        if size > limit:
            break
        count += 1
    if count > 1:
        fifo.appendleft(b"".join([fifo.popleft() for _ in range(count)]))
