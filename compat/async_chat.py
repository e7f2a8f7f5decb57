"""``async_chat`` with cached interest, coalesced writes and reads in linear time.

asyncore calls every channel's ``readable`` and ``writable`` in every turn. This class
announces a change of interest instead: the loop keeps the cached interest until the
channel announces a change or is dispatched. asynchat sends in every ``push``. A channel
that coalesces writes (``ac_coalesce_writes``) only queues, and flushes at the end of
the turn.

Rule 1: an announcement says that interest may have changed, never the new interest.
Rule 2: the class derives from the original, and its methods keep their contracts.
Rule 3: no method needs ``self`` to be of this class. After ``install()``, a class that
was derived from the original earlier calls these methods as its base class's.
Rule 4: coalesced or not, a peer receives the same bytes in the same order. Methods that
must not wait for the end of the turn, such as ``close`` and ``send``, first make the
send attempts that the pushes would have made.
Rule 5: every handler sees ``ac_in_buffer`` as the original would show it.
Rule 6: the attributes have names that no program uses itself.
Rule 7: another thread may push at any moment, without losing or splitting a message.
Queues change under ``_queue_lock``, which is never held while a handler or a send runs.
Only the loop's thread sends on a channel that coalesces writes; unsent data goes back
to the front of the queue. On any other channel, only the thread that has claimed it
(``_compat_sender``) sends. Neither Ctrl+C nor a fork leaves a channel claimed.
"""

from __future__ import annotations

import asynchat
import asyncore
import errno
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from compat._types import LEAVES, Map, Notified
from compat.forks import at_fork
from compat.locks import RLock
from compat.scheduler import at_turn_end, wake_other_thread

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from compat.broadcast import BroadcastGroup

__all__ = [
    "async_chat",
    "attach",
    "copied",
    "detach",
    "flush_pushes_at_turn_end",
    "has_cached_interest",
    "interest_changed",
    "keeps_answers",
    "needs_write_event",
    "wants_to_write",
]

Original = asynchat.async_chat

# The backlog's upper bound where its size is unknown: a limit then counts the bytes.
UNCOUNTED = sys.maxsize

# Bytes. A queue merges smaller pieces: one object per piece would cost a multiple of
# its data. All channels that queue a larger piece share it.
SMALL = 4096

MayRead: TypeAlias = Callable[[Any], bool]
OnRead: TypeAlias = Callable[[Any, int], object]

# Reentrant, because a signal handler may push. A fork replaces it in the child.
_queue_lock = RLock()

_NOTHING: dict[str, Any] = {}

# Stands for the first entry of an empty queue, because None is a valid entry.
_EMPTY = object()

# Added to the thread's number in a claim. A fork raises it above all earlier claims,
# because the claiming threads do not exist in the child.
_process = 0


class Lazy:
    """An attribute that is created on first use, because most channels never use it."""

    def __init__(self, kind: Callable[[], Any]) -> None:
        self._kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, channel: Any, owner: type | None = None) -> Any:
        if channel is None:
            return self
        # Atomic, because two threads may get here at once.
        return channel.__dict__.setdefault(self._name, self._kind())


class async_chat(Original):  # noqa: N801  # the original's name
    """The original, with announcements.

    Every method announces a change of the state that the original's ``readable`` and
    ``writable`` read. A subclass with its own ``readable`` or ``writable`` is polled in
    every turn, as in asyncore. A subclass that changes ``producer_fifo`` outside of its
    handlers calls ``interest_changed()`` afterwards. Otherwise the loop notices the
    change up to 0.1 seconds later (longer with very many channels).

    Attributes:
        ac_coalesce_writes: True if ``push``, ``push_with_producer`` and
            ``close_when_done`` only queue. The end of the turn flushes the queue, with
            one ``send`` per ``ac_out_buffer_size`` bytes. A loop that is not compat's
            flushes in its next turns. Keep it False in a program that exits without its
            loop (``os._exit``), blocks in a handler, or writes to ``socket`` itself.
        ac_backlog_limit: for a channel that coalesces writes, the largest allowed
            ``ac_backlog_size()`` in bytes; 0 for no limit. See ``handle_backlog``.
    """

    ac_coalesce_writes = False
    ac_backlog_limit = 0

    # The claim of the sending thread: its number plus _process. Unclaimed: 0, or an
    # older process's claim.
    _compat_sender = 0
    # True while close() makes its last send attempts.
    _compat_closing = False

    # True if the queue has not been empty since an earlier turn ended.
    _compat_behind = False

    # Will the end of the turn flush this channel? Has the turn queued data for it?
    _compat_listed = False
    _compat_added = False

    # Upper bound of the backlog in bytes; counted exactly once it exceeds the limit.
    _compat_counted = 0

    _compat_paused = False

    # See watch_reads().
    _compat_may_read: MayRead | None = None
    _compat_on_read: tuple[OnRead, ...] = ()

    # The group's rounds of reads and of short reads in which it was last read.
    _compat_round = _compat_short_round = 0

    # Every message uses the following. Without class attributes, lookups are faster.

    # The queue; None until something is queued, so an idle client has none.
    _compat_fifo: deque[Any] | None

    # True if something is queued and no send has been attempted since.
    _compat_waits: bool

    # Its broadcast group.
    _compat_group: BroadcastGroup | None

    # Its registration with the loop that caches its interest.
    _compat_registration: Notified | None

    # Received data, and the number of its bytes that the handlers have consumed.
    _compat_read: Any
    _compat_gone: int

    if not TYPE_CHECKING:
        incoming = Lazy(list)

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep a mixin's names, and the queue that a subclass defines."""
        super().__init_subclass__(**options)
        for name in _ADDED:
            places = [kind for kind in cls.__mro__ if name in vars(kind)]
            if places[0] is async_chat and len(places) > 1:
                setattr(cls, name, vars(places[1])[name])
        if cls.producer_fifo is not _FIFO:
            cls._compat_fifo = _OWN_FIFO  # type: ignore[assignment]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # Not in __init__: a subclass may call the original's __init__ instead.
        channel = super().__new__(cls)
        channel._compat_fifo = channel._compat_group = None
        channel._compat_registration = None
        channel._compat_waits = False
        channel._compat_read, channel._compat_gone = b"", 0
        return channel

    def __init__(self, sock: Any = None, map: Any = None) -> None:
        Original.__init__(self, sock, map)
        if isinstance(self, async_chat):
            del self.incoming
            self._compat_fifo = None

    def interest_changed(self) -> None:
        """Let the loop update this channel's interest."""
        interest_changed(self)

    # Reading.

    @property
    def ac_in_buffer(self) -> Any:
        """Received data that no handler has collected yet."""
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

    def watch_reads(self, may_read: MayRead | None = None, *on_read: OnRead) -> None:
        """Call ``may_read(channel)`` before each read, and each *on_read* after it.

        Args:
            may_read: returns False if the channel must wait for the next turn; None
                lets the channel read in every turn.
            on_read: each callback gets the channel and the number of bytes that one
                ``recv`` returned, before a handler gets the data. Not called at the end
                of the stream.

        Each call replaces the previous settings; a call without arguments removes them.
        For this, a subclass with its own ``handle_read`` must call the inherited one.
        """
        self._compat_may_read = may_read
        self._compat_on_read = on_read

    def handle_read(self) -> None:
        """Read, collect and find terminators, in time linear in the bytes read.

        Source: CPython 3.11, Lib/asynchat.py, async_chat.handle_read(), which copies
        the rest of the buffer after every terminator.
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
        """Pass received data to the handlers."""
        if self._compat_gone:
            # A handler raised during the last read.
            self._compat_read, self._compat_gone = self.ac_in_buffer, 0
        read = self._compat_read = self._compat_read + data
        begin = 0
        # Handlers may change the buffer and the terminator: reload both after each
        # call. Increasing _compat_gone removes bytes from the front of the buffer.
        while (left := len(read) - begin) > 0:
            terminator = self.get_terminator()
            if not terminator:
                self.collect_incoming_data(self.ac_in_buffer if begin else read)
                break
            if isinstance(terminator, int):
                if left < terminator:
                    self.collect_incoming_data(self.ac_in_buffer if begin else read)
                    self.ac_in_buffer = b""
                    # Read again: the handler may have set another number.
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
                # A cheap test first: the last byte is rarely in the terminator.
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
        """The queue: bytes, producers, and None for the end."""
        # Not self._compat_fifo: in a subclass it may call this.
        queues = vars(self)
        fifo: deque[Any] | None = queues.get("_compat_fifo")
        if fifo is None:
            with _queue_lock:
                fifo = queues.get("_compat_fifo")
                if fifo is None:
                    fifo = queues["_compat_fifo"] = deque()
        return fifo

    @producer_fifo.setter
    def producer_fifo(self, fifo: deque[Any]) -> None:
        vars(self)["_compat_fifo"] = fifo

    def ac_backlog_size(self) -> int:
        """Return the number of bytes that are queued for the peer and not yet sent.

        Data that a producer has yet to supply does not count. Messages that an
        ``BroadcastGroup`` got in this turn do not count either.
        """
        return _backlog_size(self)

    def handle_backlog(self) -> None:
        """Handle a backlog of more than ``ac_backlog_limit`` bytes; does nothing here.

        Called at the end of a turn that added data to a backlog from an earlier turn.
        Data of a single turn never triggers the call, and neither does
        ``close_when_done``, which adds no data. Exceptions go to ``handle_error``. A
        loop that is not compat's never calls it. It is not called on a closed channel.
        """

    def writable(self) -> bool:
        """Return whether data is queued or the channel awaits its connection."""
        if not isinstance(self, async_chat):
            return bool(Original.writable(self))
        return wants_to_write(self)

    def handle_write(self) -> None:
        """Attempt one send; with coalesced writes, send until the send buffer is full.

        A turn may queue any amount of data. A peer that keeps up must not fall behind.
        """
        if isinstance(self, async_chat) and self.ac_coalesce_writes is True:
            self._compat_write(to_the_end=True)
        else:
            Original.handle_write(self)

    def push(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(self, async_chat):
            Original.push(self, data)
            interest_changed(self)
        elif self.ac_coalesce_writes is True:
            if type(data) is not bytes:
                data = copied(data)
            audience = self._compat_group
            if audience is None or not audience.keep(self, data):
                self._compat_queue(data)
                self._compat_added = True
                self._compat_wait()
        elif (
            type(data) is bytes
            and 0 < len(data) <= self.ac_out_buffer_size
            and (
                (fifo := self._compat_fifo) is None
                or (not fifo and type(fifo) is deque)
            )
            and self.connected
            and type(self).send is _SEND
            and super(async_chat, type(self)).send is _SEND_BENEATH
            and type(self).initiate_send is async_chat.initiate_send
            and not ("send" in self.__dict__ or "initiate_send" in self.__dict__)
        ):
            # The original without its queue: the fast path of an echo, the usual push.
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
                interest_changed(self)
        else:
            size, fifo = self.ac_out_buffer_size, self.producer_fifo
            if (
                isinstance(data, bytes | bytearray | memoryview)
                and len(data) > size
                and type(fifo) is deque
            ):
                # As the original, but atomic, because another thread may push.
                fifo.extend([data[at : at + size] for at in range(0, len(data), size)])
                self.initiate_send()
            else:
                Original.push(self, data)
            interest_changed(self)

    def push_with_producer(self, producer: Any) -> None:
        if getattr(self, "ac_coalesce_writes", False) is True:
            _catch_up(self)
            self.producer_fifo.append(producer)
            self._compat_counted, self._compat_added = UNCOUNTED, True
            self._compat_wait()
        else:
            Original.push_with_producer(self, producer)
            interest_changed(self)

    def close_when_done(self) -> None:
        _catch_up(self)
        Original.close_when_done(self)
        if getattr(self, "ac_coalesce_writes", False) is True:
            self._compat_wait()
        else:
            interest_changed(self)

    def send(self, data: ReadableBuffer) -> int:
        """Send at once, after flushing the writes that wait for the end of the turn.

        Source: CPython 3.11, Lib/asyncore.py, dispatcher.send().
        """
        if not isinstance(self, async_chat):
            return Original.send(self, data)
        if self.ac_coalesce_writes is True and self._compat_sender <= _process:
            _write_now(self)
        if super(async_chat, type(self)).send is not _SEND_BENEATH:
            return super().send(data)
        try:
            return self.socket.send(data)
        except OSError as error:
            self._compat_send_failed(error)
            return 0

    def initiate_send(self) -> None:
        """Attempt to send the first queued entry.

        Source: CPython 3.11, Lib/asynchat.py, async_chat.initiate_send(). A channel
        that coalesces writes joins as many entries as fit into one send.
        """
        if not isinstance(self, async_chat):
            Original.initiate_send(self)
            return
        fifo = self._compat_fifo
        if not fifo or not self.connected:
            return
        me = get_ident() + _process
        # This thread's claim already exists in a handler that its send has called.
        before = me if self._compat_sender == me else 0
        try:
            with _queue_lock:
                if self._compat_sender > _process and self._compat_sender != me:
                    # Each push announces its data, so the loop sends it.
                    return
                self._compat_sender = me
            if self.ac_coalesce_writes is True:
                # Before the send: a thread that pushes from now on wakes the loop.
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
        interest_changed(self)

    # Connecting, registering and closing.

    def connect(self, address: Any) -> None:
        _beneath(self, "connect")(address)
        interest_changed(self)

    def add_channel(self, map: Any = None) -> None:
        _beneath(self, "add_channel")(map)
        interest_changed(self)

    def del_channel(self, map: Any = None) -> None:
        registration: Notified | None = getattr(self, "_compat_registration", None)
        if registration is not None:
            registration.unregister()
        _beneath(self, "del_channel")(map)
        interest_changed(self)

    def close(self) -> None:
        try:
            if getattr(self, "ac_coalesce_writes", False) is True:
                self._compat_take_leave()
        finally:
            _beneath(self, "close")()
            interest_changed(self)

    # Coalesced writes.

    def _compat_queue(
        self, data: bytes | memoryview, *, at_the_front: bool = False
    ) -> None:
        """Queue *data* in pieces that fit into one send. Large data is not copied."""
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
                # Another thread has just sent the last entry.
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
        """Flush at the end of the turn, if not earlier."""
        self._compat_waits = True
        if not self._compat_listed:
            # Set before the call: in another thread, the turn may end meanwhile.
            self._compat_listed = True
            if not at_turn_end(self._map, self):
                self._compat_listed = False

    def _compat_flush(self) -> None:
        """Flush; errors go to this channel's ``handle_error``, as from a handler."""
        _catch_up(self)
        if not self._compat_listed:
            return
        waits, added = self._compat_waits, self._compat_added
        self._compat_listed = self._compat_waits = self._compat_added = False
        try:
            # Otherwise this turn has already attempted to send.
            if waits:
                self._compat_write(to_the_end=True)
            if self._compat_fifo:
                interest_changed(self)
                if added and self._compat_behind:
                    self._compat_look_at_backlog()
                self._compat_behind = True
        except LEAVES:
            raise
        except BaseException:
            self.handle_error()

    def _compat_write(self, *, to_the_end: bool) -> None:
        """Attempt one send per queued entry; stop once the send buffer is full.

        These are at least as many attempts as the pushes would have made.
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
        """Attempt to send the first entry; the original handles uncommon entries."""
        with _queue_lock:
            first = _first_of(fifo)
            if first is _EMPTY:
                return
            if type(first) is bytearray:
                # Freeze it: another thread may be about to append to it.
                first = fifo[0] = bytes(first)
        size = self.ac_out_buffer_size
        if not ((type(first) is bytes and 0 < len(first) <= size) or _is_view(first)):
            if hasattr(first, "more"):
                # The original queues the producer's data, too.
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
                # Another thread has discarded the entry.
                return
            if sent == len(first):
                del fifo[0]
            elif sent:
                fifo[0] = first[sent:]

    def _compat_push_at_once(self, data: bytes) -> None:
        """Send *data*, queue the unsent rest; this thread has claimed the channel."""
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
        """Close on disconnection, ignore EWOULDBLOCK, raise any other error.

        Source: CPython 3.11, Lib/asyncore.py, dispatcher.send().
        """
        if error.errno == errno.EWOULDBLOCK:
            return
        if error.errno not in asyncore._DISCONNECTED:
            raise error
        # The last sends of close() must not call a handler.
        if not self._compat_closing:
            self.handle_close()

    def _compat_take_leave(self) -> None:
        """Flush, and leave the broadcast group."""
        self._compat_closing = True
        try:
            _write_now(self)
            if self._compat_group is not None:
                self._compat_group.discard(self)
        finally:
            self._compat_closing = False

    def _compat_look_at_backlog(self) -> None:
        limit = self.ac_backlog_limit
        # The backlog of a closed channel is irrelevant.
        is_open = self.connected or self.connecting
        if is_open and 0 < limit < self._compat_counted:
            self._compat_counted = _backlog_size(self)
            if self._compat_counted > limit:
                self.handle_backlog()


_BUFFER = async_chat.ac_in_buffer
_FIFO = async_chat.producer_fifo

# Set in a subclass with its own producer_fifo: every access reads that queue.
_OWN_FIFO = property(lambda channel: channel.producer_fifo, lambda channel, fifo: None)

# Names that the original lacks. A mixin after this class keeps its own.
_ADDED = (
    "ac_backlog_limit",
    "ac_backlog_size",
    "ac_coalesce_writes",
    "interest_changed",
    "handle_backlog",
    "pause_reading",
    "resume_reading",
    "watch_reads",
)

# Before a program replaces them.
_READABLE, _WRITABLE = async_chat.readable, async_chat.writable

# Before a trace replaces it: a trace has to see every send, so the fast path is off.
_SEND = async_chat.send

# The original inherits it; a mixin or a patch of the dispatcher replaces it.
_SEND_BENEATH = Original.send


def interest_changed(channel: Any) -> None:
    """Tell the loop of *channel*, if it has one, that interest may have changed."""
    registration: Notified | None = getattr(channel, "_compat_registration", None)
    if registration is not None:
        registration.interest_changed()
    else:
        # A loop without cached interest polls every channel once its wait ends. A loop
        # that does not know the channel yet finds it then.
        wake_other_thread(getattr(channel, "_map", None))


def attach(channel: Any, registration: Notified) -> bool:
    """Let *channel* notify the loop's registration when its interest may have changed.

    Returns:
        False if the loop must poll the channel in every turn: its interest cannot be
        cached, or it notifies another loop that runs it.
    """
    if not has_cached_interest(channel):
        return False
    current = channel._compat_registration
    if current is not None and not current.is_orphaned:
        return False
    channel._compat_registration = registration
    return True


def detach(channel: async_chat, registration: Notified) -> None:
    """Undo ``attach``."""
    if channel._compat_registration is registration:
        channel._compat_registration = None


def flush_pushes_at_turn_end(map: Map) -> None:
    """Let the first turn flush data that was pushed before the loop of *map* began."""
    for channel in list(map.values()):
        # Through __dict__, because a map may hold any object.
        if getattr(channel, "__dict__", _NOTHING).get("_compat_added"):
            channel._compat_listed = True
            at_turn_end(map, channel)


def wants_to_write(channel: async_chat) -> bool:
    """Return the interest of a channel that inherits ``writable``."""
    return bool(channel._compat_fifo) or awaits_connection(channel)


def needs_write_event(channel: async_chat) -> bool:
    """Return whether a loop must update the interest of a channel that it has read.

    The channel is not connected, or has queued data that no flush will send.
    """
    if channel._compat_fifo and not channel._compat_waits:
        return True
    return not channel.connected


def awaits_connection(channel: async_chat) -> bool:
    """Return whether the channel must be writable to notice its connection.

    This differs from the original for a paused channel whose peer was gone before the
    channel was created. asyncore would poll it as writable in every turn without ever
    calling a handler.
    """
    return not channel.connected and (channel.connecting or not channel._compat_paused)


def has_cached_interest(channel: Any) -> bool:
    """Return whether a loop may cache this channel's interest until it announces."""
    return (
        isinstance(channel, async_chat)
        and keeps_answers(type(channel))
        and vars(channel).keys().isdisjoint(("readable", "writable"))
    )


def keeps_answers(kind: type[async_chat]) -> bool:
    """Return whether a class inherits all that ``has_cached_interest`` relies on."""
    return (
        kind.readable is _READABLE
        and kind.writable is _WRITABLE
        and kind.producer_fifo is _FIFO
        and kind.connected is False
        and kind.__getattribute__ is object.__getattribute__
    )


def copied(data: bytes | bytearray | memoryview) -> bytes:
    """Return pushed data as bytes: the caller may change a buffer before it is sent.

    Raises:
        TypeError: *data* is not bytes, bytearray or memoryview.
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


def _beneath(channel: Any, name: str) -> Callable[..., Any]:
    """Return a method that the original inherits, perhaps from a mixin."""
    if isinstance(channel, async_chat):
        method: Callable[..., Any] = getattr(super(async_chat, channel), name)
        return method
    return partial(getattr(Original, name), channel)


def _catch_up(channel: Any) -> None:
    """Queue the broadcast group's messages before the channel's next output."""
    audience: BroadcastGroup | None = getattr(channel, "_compat_group", None)
    if audience is not None:
        audience.catch_up(channel)


def _write_now(channel: Any) -> None:
    """Make the send attempts that wait for the end of the turn."""
    _catch_up(channel)
    if getattr(channel, "_compat_waits", False) and channel._compat_sender <= _process:
        channel._compat_waits = False
        channel._compat_write(to_the_end=False)


def _first_of(fifo: Sequence[Any]) -> Any:
    """Return the first entry, or _EMPTY: another thread may have just sent it."""
    try:
        return fifo[0]
    except IndexError:
        return _EMPTY


def _is_view(entry: Any) -> bool:
    """Return whether an entry is a non-empty view of bytes."""
    return type(entry) is memoryview and entry.format == "B" and len(entry) > 0


def _join_first(fifo: deque[Any], limit: int) -> None:
    """Join the leading bytes entries that fit into one send."""
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
    # A thread that does not exist in the child may have held the lock.
    global _queue_lock, _process  # noqa: PLW0603  # neither can be changed in its place
    _queue_lock = RLock()
    # Larger than any thread's number.
    _process += 1 << 64


at_fork(after_in_child=_after_fork_in_child)
