"""``async_chat`` that announces, that can gather, and that reads in linear time.

asyncore asks every channel in every turn. A channel that announces need not be asked:
its loop keeps the last answer until the channel announces, or is called. asynchat sends
in every ``push``. A channel that gathers queues, and sends once when the turn is over.

Rule 1: announcing says that the loop should ask, never what the answer will be.
Rule 2: it is the original class underneath, and its methods do what they did.
Rule 3: no method needs ``self`` to be of this class. Once it is installed in asynchat,
a class that was derived from the original before calls these as its base class's.
Rule 4: gathered or not, a peer gets the same bytes in the same order. What must not
wait for the end of the turn, such as ``close`` and ``send``, first makes the attempts
to send that the pushes would have made.
Rule 5: every handler sees ``ac_in_buffer`` as the original would show it.
Rule 6: the attributes are named so that no program has its own of that name.
Rule 7: another thread may push at any moment, and no message is lost or cut in two by
that. Queues change under ``_queue_lock``, which is never held during a call of a
handler or a send. A channel that coalesces writes is sent to by the loop's thread only;
what a send did not take goes back to the front. Any other channel is sent to by the one
thread that has claimed it (``_compat_sender``). Neither Ctrl+C nor a fork leaves a
channel claimed.
"""

from __future__ import annotations

import asynchat
import asyncore
import errno
import sys
from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from compat.channels import LEAVES
from compat.forks import at_fork
from compat.locks import RLock
from compat.schedule import at_turn_end, wake_other_thread

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from compat.audience import Audience

__all__ = [
    "announce",
    "announces",
    "async_chat",
    "copied",
    "keeps_answers",
]

Original = asynchat.async_chat

# So many bytes may wait, for all that is known: a limit has them counted.
UNCOUNTED = sys.maxsize

# Bytes. Smaller pieces are merged in a queue: an object for each would cost a multiple
# of what it holds. Larger ones are shared by all the channels that queue them.
SMALL = 4096

MayRead: TypeAlias = Callable[[Any], bool]
OnRead: TypeAlias = Callable[[Any, int], object]

# Reentrant, because a signal handler may push. A fork renews it.
_queue_lock = RLock()

# In place of the first entry of an empty queue; None is an entry.
_EMPTY = object()

# Added to a thread's number where it claims a channel. A fork makes it larger than all
# claims before, because the threads that made those are not in the child.
_process = 0


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
        # In one step, for two threads may be here.
        return channel.__dict__.setdefault(self._name, self._kind())


class async_chat(Original):  # noqa: N801  # the original's name
    """The original, and it announces.

    Everything that the original's ``readable`` and ``writable`` look at is announced
    when a method changes it. A subclass that has a ``readable`` or ``writable`` of its
    own is asked in every turn, as asyncore does. One that changes ``producer_fifo`` by
    hand outside of its handlers calls ``announce()`` afterwards, or is found out
    within a tenth of a second.

    Attributes:
        ac_gather: True lets ``push``, ``push_with_producer`` and ``close_when_done``
            only queue. What a turn has queued is sent at its end, with one ``send`` for
            every ``ac_out_buffer_size`` bytes; under a loop that is not compat's, in
            its next turns. A program that leaves without its loop (``os._exit``),
            blocks in a handler, or writes to ``socket`` itself, leaves it False.
        ac_backlog_limit: for one that gathers, the bytes of ``ac_backlog_size()`` that
            are too many; 0 for no limit. See ``handle_backlog``.
    """

    ac_gather = False
    ac_backlog_limit = 0

    # The claim of the thread that makes an attempt to send: its number and _process, 0
    # or an older process's for none. And is it the last attempt?
    _compat_sender = 0
    _compat_closing = False

    # Has a turn ended with something queued that is still there?
    _compat_behind = False

    # Is it called when the turn is over, and has that turn told the peer something?
    _compat_listed = False
    _compat_added = False

    # At least as many bytes as wait for the peer; brought down to that when too many.
    _compat_counted = 0

    _compat_paused = False

    # See watch_reads().
    _compat_may_read: MayRead | None = None
    _compat_on_read: tuple[OnRead, ...] = ()

    # The rounds of its audience's reads, and short reads, in which it was read last.
    _compat_round = _compat_short_round = 0

    # These are used for every message, and found faster where the class has none.

    # What is queued, if anything ever was: a client that was told nothing has none.
    _compat_fifo: deque[Any] | None

    # Has something been queued that no attempt was made to send?
    _compat_waits: bool

    # Whose messages it gets.
    _compat_audience: Audience | None

    # The loop that turns it, once that has asked it.
    _compat_board: Board | None

    # What has been read, and how much of that has gone to the handlers.
    _compat_read: Any
    _compat_gone: int

    if not TYPE_CHECKING:
        incoming = Lazy(list)

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # Not in __init__, for a class may call the original's.
        channel = super().__new__(cls)
        channel._compat_fifo = channel._compat_audience = channel._compat_board = None
        channel._compat_waits = False
        channel._compat_read, channel._compat_gone = b"", 0
        return channel

    def __init__(self, sock: Any = None, map: Any = None) -> None:
        Original.__init__(self, sock, map)
        if isinstance(self, async_chat):
            del self.incoming
            self._compat_fifo = None

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

    def readable(self) -> bool:
        """Yes, as the original; not while reading is paused."""
        return not getattr(self, "_compat_paused", False)

    def pause_reading(self) -> None:
        """Read nothing until ``resume_reading()``: the peer's bytes wait with it."""
        self._compat_paused = True
        announce(self)

    def resume_reading(self) -> None:
        """Read again. Harmless if reading was not paused."""
        if self._compat_paused:
            del self._compat_paused
            announce(self)

    def watch_reads(self, may_read: MayRead | None = None, *on_read: OnRead) -> None:
        """Call ``may_read(channel)`` before each read, and the others after it.

        Args:
            may_read: returns False if the channel has to wait for the next turn; None
                lets it read in every turn.
            on_read: each is called with the channel and the number of bytes that one
                ``recv`` returned, before a handler gets them; not at the end.

        Each call replaces what the last one has set; without arguments, it ends that. A
        subclass with a ``handle_read`` of its own calls the inherited one for this.
        """
        self._compat_may_read = may_read
        self._compat_on_read = on_read

    def handle_read(self) -> None:
        """Read, collect, and find terminators, in time linear in what was read.

        Source: CPython 3.11, Lib/asynchat.py, async_chat.handle_read(), which copies
        what is left after every terminator.
        """
        if getattr(type(self), "ac_in_buffer", None) is not _BUFFER:
            Original.handle_read(self)
            return
        may_read = self._compat_may_read
        if may_read is not None and not may_read(self):
            return
        try:
            data = self.recv(self.ac_in_buffer_size)
        except BlockingIOError:
            return
        except OSError:
            self.handle_error()
            return
        for on_read in self._compat_on_read if data else ():
            on_read(self, len(data))
        self._compat_collect(data)

    def _compat_collect(self, data: Any) -> None:
        """Let the handlers have what was read."""
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
                # Most ends are in no terminator, which is quickly seen.
                held = (
                    asynchat.find_prefix_at_end(rest, terminator)
                    if rest[-1] in terminator
                    else 0
                )
                if held:
                    if held != left:
                        self.collect_incoming_data(rest[:-held])
                        self.ac_in_buffer = self.ac_in_buffer[-held:]
                    return
                self.collect_incoming_data(rest)
                break
            read, begin = self._compat_read, self._compat_gone
        self._compat_read = b""
        if self._compat_gone:
            self._compat_gone = 0

    # Writing.

    @property
    def producer_fifo(self) -> deque[Any]:
        """What is queued: bytes, producers, and None for the end."""
        fifo = self._compat_fifo
        if fifo is None:
            with _queue_lock:
                fifo = self._compat_fifo
                if fifo is None:
                    fifo = self._compat_fifo = deque()
        return fifo

    @producer_fifo.setter
    def producer_fifo(self, fifo: deque[Any]) -> None:
        self._compat_fifo = fifo

    def ac_backlog_size(self) -> int:
        """Return the bytes that are queued for the peer, and that it has not taken.

        What a producer has yet to give is not counted, nor what an ``Audience`` was
        told in this turn.
        """
        return _backlog_size(self)

    def handle_backlog(self) -> None:
        """More than ``ac_backlog_limit`` bytes wait for the peer; does nothing.

        Called when a turn is over that has added to what the peer had not taken before;
        what one turn adds is no reason, nor is ``close_when_done``, which adds nothing.
        What it raises goes to ``handle_error``. A loop that is not compat's does not
        call it, and nobody does once the channel is closed.
        """

    def writable(self) -> bool:
        """Is anything queued, or is there no connection yet? As the original."""
        if not isinstance(self, async_chat):
            return bool(Original.writable(self))
        return bool(self._compat_fifo) or awaits_connection(self)

    def handle_write(self) -> None:
        """Make an attempt to send; one that gathers, until its peer is full.

        What a turn adds has no limit, and who takes all of it is not to fall behind.
        """
        if isinstance(self, async_chat) and self.ac_gather is True:
            self._compat_write(to_the_end=True)
        else:
            Original.handle_write(self)

    def push(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(self, async_chat):
            Original.push(self, data)
            announce(self)
        elif self.ac_gather is True:
            if type(data) is not bytes:
                data = copied(data)
            audience = self._compat_audience
            if audience is None or not audience.keep(self, data):
                self._compat_queue(data)
                self._compat_added = True
                self._compat_wait()
        elif (
            type(data) is bytes
            and 0 < len(data) <= self.ac_out_buffer_size
            and not self._compat_fifo
            and self.connected
            and type(self).send is _SEND
            and type(self).initiate_send is async_chat.initiate_send
            and not ("send" in self.__dict__ or "initiate_send" in self.__dict__)
        ):
            # The original without its queue: it is what an echo does most.
            is_free = False
            try:
                with _queue_lock:
                    is_free = not (self._compat_sender > _process or self._compat_fifo)
                    if is_free:
                        self._compat_sender = get_ident() + _process
                if is_free:
                    self._compat_push_at_once(data)
            finally:
                if is_free:
                    self._compat_sender = 0
            if not is_free:
                Original.push(self, data)
            if self._compat_fifo:
                announce(self)
        else:
            size, fifo = self.ac_out_buffer_size, self.producer_fifo
            if (
                isinstance(data, bytes | bytearray | memoryview)
                and len(data) > size
                and isinstance(fifo, deque)
            ):
                # As the original, but in one step: another thread may push.
                fifo.extend([data[at : at + size] for at in range(0, len(data), size)])
                self.initiate_send()
            else:
                Original.push(self, data)
            announce(self)

    def push_with_producer(self, producer: Any) -> None:
        if getattr(self, "ac_gather", False) is True:
            _catch_up(self)
            self.producer_fifo.append(producer)
            self._compat_counted, self._compat_added = UNCOUNTED, True
            self._compat_wait()
        else:
            Original.push_with_producer(self, producer)
            announce(self)

    def close_when_done(self) -> None:
        _catch_up(self)
        Original.close_when_done(self)
        if getattr(self, "ac_gather", False) is True:
            self._compat_wait()
        else:
            announce(self)

    def send(self, data: ReadableBuffer) -> int:
        """Send at once; first, once, what waits for the end of the turn.

        Source: CPython 3.11, Lib/asyncore.py, dispatcher.send().
        """
        if not isinstance(self, async_chat):
            return Original.send(self, data)
        if self.ac_gather is True and self._compat_sender <= _process:
            _write_now(self)
        try:
            return self.socket.send(data)
        except OSError as error:
            self._compat_send_failed(error)
            return 0

    def initiate_send(self) -> None:
        """Make one attempt to send what is queued.

        Source: CPython 3.11, Lib/asynchat.py, async_chat.initiate_send(). One that
        gathers attempts as many entries at once as go into one send.
        """
        if not isinstance(self, async_chat):
            Original.initiate_send(self)
            return
        fifo = self._compat_fifo
        if not fifo or not self.connected:
            return
        me = get_ident() + _process
        # Its own claim, in a handler that its send has called.
        before = me if self._compat_sender == me else 0
        try:
            with _queue_lock:
                if self._compat_sender > _process and self._compat_sender != me:
                    # What was queued meanwhile has announced, so the loop sends it.
                    return
                self._compat_sender = me
            if self.ac_gather is True:
                # First of all: a thread that pushes from now on wakes the loop itself.
                self._compat_waits = False
                if len(fifo) > 1:
                    _join_first(fifo, self.ac_out_buffer_size)
            if fifo:
                self._compat_send_first(fifo)
        finally:
            if self._compat_sender == me:
                self._compat_sender = before
        if self._compat_behind and not fifo:
            self._compat_behind = False

    def discard_buffers(self) -> None:
        _write_now(self)
        Original.discard_buffers(self)
        if getattr(self, "_compat_behind", False):
            self._compat_behind = False
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
        try:
            if getattr(self, "ac_gather", False) is True:
                self._compat_take_leave()
        finally:
            Original.close(self)
            announce(self)

    # Gathering.

    def _compat_queue(
        self, data: bytes | memoryview, *, at_the_front: bool = False
    ) -> None:
        """Queue it, in pieces that go into one send. Nothing large is copied."""
        size, piece = len(data), self.ac_out_buffer_size
        pieces: list[Any] = [data]
        if size > piece:
            view = memoryview(data)
            pieces = [view[begin : begin + piece] for begin in range(0, size, piece)]
        with _queue_lock:
            self._compat_counted += size
            fifo = self.producer_fifo
            try:
                last = fifo[-1] if fifo else None
            except IndexError:
                # Another thread has just sent it.
                last = None
            if at_the_front:
                fifo.extendleft(reversed(pieces))
            elif size >= SMALL or last is None:
                fifo.extend(pieces)
            elif type(last) is bytearray and len(last) + size <= piece:
                last += data
            else:
                fifo.append(bytearray(data))

    def _compat_wait(self) -> None:
        """Write when the turn is over, if not before."""
        self._compat_waits = True
        if not self._compat_listed:
            # First, for by the time that another thread's call returns, it may be over.
            self._compat_listed = True
            if not at_turn_end(self._map, self):
                self._compat_listed = False

    def _compat_turn_ends(self) -> None:
        """Write what waits; an error is this channel's, as in a handler."""
        _catch_up(self)
        if not self._compat_listed:
            return
        waits, added = self._compat_waits, self._compat_added
        self._compat_listed = self._compat_waits = self._compat_added = False
        try:
            # If not, the peer has taken something in this turn, and is full again.
            if waits:
                self._compat_write(to_the_end=True)
            if self._compat_fifo:
                announce(self)
                if added and self._compat_behind:
                    self._compat_look_at_backlog()
                self._compat_behind = True
        except LEAVES:
            raise
        except BaseException:
            self.handle_error()

    def _compat_write(self, *, to_the_end: bool) -> None:
        """Try to send as often as there are entries; no more once the peer is full.

        That is at least as often as the pushes would have tried.
        """
        fifo = self._compat_fifo or ()
        for _ in range(len(fifo)):
            first = _first_of(fifo)
            if first is _EMPTY or (first is None and not to_the_end):
                return
            self.initiate_send()
            if not self.connected or _first_of(fifo) is first:
                return

    def _compat_send_first(self, fifo: deque[Any]) -> None:
        """Try to send the first entry; what is rare about it is the original's."""
        with _queue_lock:
            first = _first_of(fifo)
            if first is _EMPTY:
                return
            if type(first) is bytearray:
                # Another thread may be about to add to it.
                first = fifo[0] = bytes(first)
        size = self.ac_out_buffer_size
        if not ((type(first) is bytes and 0 < len(first) <= size) or _is_view(first)):
            if hasattr(first, "more"):
                # What it gives is queued, too.
                self._compat_counted = UNCOUNTED
            Original.initiate_send(self)
            return
        try:
            sent = self.send(first[:size])
        except OSError:
            self.handle_error()
            return
        with _queue_lock:
            if _first_of(fifo) is not first:
                # Another thread has discarded it.
                return
            if sent == len(first):
                fifo.popleft()
            elif sent:
                fifo[0] = first[sent:]

    def _compat_push_at_once(self, data: bytes) -> None:
        """Send it, and queue what is not taken: the channel is claimed for that."""
        try:
            sent = self.socket.send(data)
            if sent != len(data):
                self.producer_fifo.appendleft(data[sent:])
        except OSError as error:
            self.producer_fifo.appendleft(data)
            self._compat_push_failed(error)

    def _compat_push_failed(self, error: OSError) -> None:
        try:
            self._compat_send_failed(error)
        except OSError:
            self.handle_error()

    def _compat_send_failed(self, error: OSError) -> None:
        """Close if the peer is gone; raise what is wrong otherwise, but for a full one.

        Source: CPython 3.11, Lib/asyncore.py, dispatcher.send().
        """
        if error.errno == errno.EWOULDBLOCK:
            return
        if error.errno not in asyncore._DISCONNECTED:
            raise error
        # What close() still tries to send has nobody to tell of that.
        if not self._compat_closing:
            self.handle_close()

    def _compat_take_leave(self) -> None:
        """Send what waits, and hear nothing more."""
        self._compat_closing = True
        try:
            _write_now(self)
            if self._compat_audience is not None:
                self._compat_audience.discard(self)
        finally:
            self._compat_closing = False

    def _compat_look_at_backlog(self) -> None:
        limit = self.ac_backlog_limit
        # Once it is closed, nobody waits for that.
        is_open = self.connected or self.connecting
        if is_open and 0 < limit < self._compat_counted:
            self._compat_counted = _backlog_size(self)
            if self._compat_counted > limit:
                self.handle_backlog()


_BUFFER = async_chat.ac_in_buffer

# As they are here, for a program may put its own in their place.
_READABLE, _WRITABLE = async_chat.readable, async_chat.writable

# As it is here; a trace puts another in its place, and wants to see what is sent.
_SEND = async_chat.send


def announce(channel: Any) -> None:
    """Tell the loop that turns *channel*, if one does, to ask it again."""
    board: Board | None = getattr(channel, "_compat_board", None)
    if board is not None:
        board.announce()
    else:
        # A loop that asks everybody does so when its wait ends, and a loop that does
        # not know the channel yet finds it then.
        wake_other_thread(getattr(channel, "_map", None))


def awaits_connection(channel: async_chat) -> bool:
    """Return whether the channel has to be writable to learn that it is connected.

    As the original, but for one whose peer was gone before it was made, and that is not
    read at present: asyncore would find it writable in every turn, and never call it.
    """
    return not channel.connected and (channel.connecting or not channel._compat_paused)


def announces(channel: Any) -> bool:
    """May a loop keep this channel's answers until it announces?"""
    return (
        isinstance(channel, async_chat)
        and keeps_answers(type(channel))
        and vars(channel).keys().isdisjoint(("readable", "writable"))
    )


def keeps_answers(kind: type[async_chat]) -> bool:
    """Return whether a class keeps ``readable``, ``writable`` and ``connected``."""
    return (
        kind.readable is _READABLE
        and kind.writable is _WRITABLE
        and kind.connected is False
        and kind.__getattribute__ is object.__getattribute__
    )


def copied(data: bytes | bytearray | memoryview) -> bytes:
    """What is pushed, as it is now: it may be changed before it is sent.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"data={data!r} is not bytes, bytearray or memoryview")
    return bytes(data)


def _backlog_size(channel: async_chat) -> int:
    return sum(
        len(entry)
        for entry in tuple(channel._compat_fifo or ())
        if isinstance(entry, bytes | bytearray | memoryview)
    )


def _catch_up(channel: Any) -> None:
    """Queue what was said to its audience before what the channel does next."""
    audience: Audience | None = getattr(channel, "_compat_audience", None)
    if audience is not None:
        audience.catch_up(channel)


def _write_now(channel: Any) -> None:
    """Make the attempts that wait for the end of the turn."""
    _catch_up(channel)
    if getattr(channel, "_compat_waits", False) and channel._compat_sender <= _process:
        channel._compat_waits = False
        channel._compat_write(to_the_end=False)


def _first_of(fifo: Sequence[Any]) -> Any:
    """The first entry, or _EMPTY: another thread may just have sent it."""
    try:
        return fifo[0]
    except IndexError:
        return _EMPTY


def _is_view(entry: Any) -> bool:
    """Return whether an entry is a view of bytes, and not empty."""
    return type(entry) is memoryview and entry.format == "B" and len(entry) > 0


def _join_first(fifo: deque[Any], limit: int) -> None:
    """Make one entry of those bytes at the front that go into one send."""
    pieces, size = [], 0
    with _queue_lock:
        while fifo:
            first = fifo[0]
            if type(first) not in (bytes, bytearray) or size + len(first) > limit:
                break
            size += len(first)
            pieces.append(fifo.popleft())
        if pieces:
            fifo.appendleft(b"".join(pieces))


def _after_fork_in_child() -> None:
    # Another thread may have held it, and that thread is not here any more.
    global _queue_lock, _process  # noqa: PLW0603  # neither can be changed in its place
    _queue_lock = RLock()
    # No thread's number is as large.
    _process += 1 << 64


at_fork(after_in_child=_after_fork_in_child)
