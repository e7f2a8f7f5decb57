"""``async_chat`` with cached interest, coalesced writes and reads in linear time.

asyncore polls every channel in every turn. This class reports changes of interest
instead, so the loop may cache it. asynchat sends in every ``push``. A channel that
coalesces writes only queues, and flushes at the end of the turn.

Rule 1: the class derives from the original, and its methods keep their contracts.
Rule 2: no method needs ``self`` to be of this class. After ``install()``, a class that
was derived from the original earlier calls these methods as its base class's.
Rule 3: the attributes have names that no program uses itself.
Rule 4: any assignment of a program to a class or an instance takes effect at the
channel's next event: a mixin, a patched method, its own queue.
"""

from __future__ import annotations

import asyncore
from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from compat import instrument
from compat._entries import copied
from compat._outbox import (
    CLOSING,
    HARMLESS,
    QUEUED,
    Outbox,
    ProgramsOutbox,
    handle_failed_send,
    interest_changed,
)
from compat._reader import LinearReader, awaits_connection, reset_input
from compat._runtime import this_process
from compat._types import Map, Notified, Original

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "async_chat",
    "attach",
    "detach",
    "flush_pushes_at_turn_end",
    "has_cached_interest",
    "keeps_answers",
    "outbox_of",
    "queue_of",
    "wants_to_write",
]


class async_chat(LinearReader):  # noqa: N801  # the original's name
    """The original, with reports of changed interest.

    A subclass with its own ``readable`` or ``writable`` is polled in every turn, as in
    asyncore. A subclass that changes ``producer_fifo`` outside of its handlers calls
    ``interest_changed()`` afterwards. Otherwise the loop notices the change up to 0.1
    seconds later (longer with very many channels).

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

    # False for a class with a mixin between this class and the original: its methods
    # may override those that the fast path of push() leaves out.
    _compat_has_fast_push = True

    # None until something is queued or the channel joins a broadcast group.
    _compat_outbox: Outbox | None

    # The claim of a sending thread. To claim the channel, a thread deletes the True of
    # the instance, because a deletion is atomic: it fails if another thread is sending.
    _compat_is_free = False
    # The thread that has claimed the channel in initiate_send().
    _compat_claimant = 0
    # this_process.forks, when the claim was last known to be of this process.
    _compat_forks = 0

    # Its registration with the loop that caches its interest.
    _compat_registration: Notified | None

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep a mixin's names, and choose the fast path of ``push``."""
        super().__init_subclass__(**options)
        for name in _ADDED:
            places = [kind for kind in cls.__mro__ if name in vars(kind)]
            if places[0] in _OURS and len(places) > 1:
                setattr(cls, name, vars(places[1])[name])
        beneath = cls.__mro__[cls.__mro__.index(async_chat) : cls.__mro__.index(_BASE)]
        if beneath != (async_chat, LinearReader, Original):
            cls._compat_has_fast_push = False

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # Not in __init__: a subclass may call the original's __init__ instead.
        channel = super().__new__(cls)
        channel._compat_registration = None
        channel._compat_is_free = True
        has_own_queue = cls.producer_fifo is not _FIFO
        channel._compat_outbox = ProgramsOutbox(channel) if has_own_queue else None
        return channel

    def __init__(self, sock: Any = None, map: Any = None) -> None:
        if Original.__init__ is not _INIT_BENEATH or not reset_input(self):
            Original.__init__(self, sock, map)
            return
        # The same, but the queue is created on first use.
        if self._compat_outbox is not None:
            self.producer_fifo = deque()
        asyncore.dispatcher.__init__(self, sock, map)

    def interest_changed(self) -> None:
        """Let the loop update this channel's interest."""
        interest_changed(self)

    @property
    def producer_fifo(self) -> deque[Any]:
        """The queue: bytes, producers, and None for the end."""
        return outbox_of(self).entries()

    @producer_fifo.setter
    def producer_fifo(self, fifo: deque[Any]) -> None:
        outbox_of(self).queue = fifo

    def ac_backlog_size(self) -> int:
        """Return the number of bytes that are queued for the peer and not yet sent.

        Data that a producer has yet to supply does not count. Messages that a
        ``BroadcastGroup`` got in this turn do not count either.
        """
        outbox = self._compat_outbox
        return 0 if outbox is None else outbox.size()

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
        """Attempt one send; with coalesced writes, until the send buffer is full."""
        outbox: Outbox | None = getattr(self, "_compat_outbox", None)
        if outbox is not None and self.ac_coalesce_writes is True:
            outbox.send_queued(self, to_the_end=True)
        else:
            Original.handle_write(self)

    def push(self, data: bytes | bytearray | memoryview) -> None:
        try:
            outbox = self._compat_outbox
        except AttributeError:
            Original.push(self, data)
            interest_changed(self)
            return
        if self.ac_coalesce_writes is True:
            if type(data) is not bytes:
                data = copied(data)
            outbox = outbox or outbox_of(self)
            group = outbox.group
            if group is None or not group.append_private(self, data):
                outbox.push(self, data)
        elif not (
            self._compat_has_fast_push
            and type(data) is bytes
            and 0 < len(data) <= self.ac_out_buffer_size
            and self.connected
            and type(self).send is _SEND
            and type(self).initiate_send is _INITIATE_SEND
            and Original.send is _SEND_BENEATH
            and (outbox is None or outbox.is_empty())
            and "send" not in (own := self.__dict__)
            and "initiate_send" not in own
            and self._compat_send_at_once(data)
        ):
            outbox_of(self).push_now(self, data)

    def push_with_producer(self, producer: Any) -> None:
        if getattr(self, "ac_coalesce_writes", False) is True:
            outbox_of(self).push_producer(self, producer)
        else:
            Original.push_with_producer(self, producer)
            interest_changed(self)

    def close_when_done(self) -> None:
        outbox: Outbox | None = getattr(self, "_compat_outbox", None)
        if outbox is not None:
            outbox.take_over(self)
        Original.close_when_done(self)
        if getattr(self, "ac_coalesce_writes", False) is True:
            outbox_of(self).flush_at_turn_end(self)
        else:
            interest_changed(self)

    def send(self, data: ReadableBuffer) -> int:
        """Send at once, after flushing the writes that wait for the end of the turn.

        Source: CPython 3.11, Lib/asyncore.py, dispatcher.send().
        """
        if not isinstance(self, async_chat):
            return Original.send(self, data)
        outbox = self._compat_outbox
        if outbox is None or self.ac_coalesce_writes is not True:
            return super().send(data)
        if self._compat_may_send():
            outbox.send_now(self)
        beneath = instrument.original(super(async_chat, type(self)).send)
        if outbox.state is not CLOSING or beneath is not _SEND_BENEATH:
            return super().send(data)
        try:
            return self.socket.send(data)
        except OSError as error:
            # The last sends of close() must not call a handler.
            if error.errno not in HARMLESS:
                raise
            return 0

    def initiate_send(self) -> None:
        """Attempt to send the first queued entry.

        Source: CPython 3.11, Lib/asynchat.py, async_chat.initiate_send(). A channel
        that coalesces writes joins as many entries as fit into one send.
        """
        if not isinstance(self, async_chat):
            Original.initiate_send(self)
            return
        outbox = self._compat_outbox
        if outbox is None or not outbox.queue or not self.connected:
            return
        if self._compat_forks != this_process.forks:
            self._compat_may_send()
        me = get_ident()
        if self._compat_claimant == me:
            # In a handler that this thread's send has called.
            outbox.send_first(self)
            return
        try:
            del self._compat_is_free
        except AttributeError:
            # Each push reports its data, so the loop sends it.
            return
        # No call before the try, or the release: Ctrl+C may come after any call.
        try:
            self._compat_claimant = me
            outbox.send_first(self)
        finally:
            self._compat_claimant = 0
            self._compat_is_free = True

    def discard_buffers(self) -> None:
        outbox: Outbox | None = getattr(self, "_compat_outbox", None)
        if outbox is not None:
            outbox.take_over(self)
            if outbox.state is QUEUED and self._compat_may_send():
                outbox.send_now(self)
        is_empty = outbox is not None and not outbox.queue
        Original.discard_buffers(self)
        if is_empty:
            return
        if outbox is not None:
            outbox.emptied()
        interest_changed(self)

    # Connecting, registering and closing. super() may be a mixin.

    def connect(self, address: Any) -> None:
        is_ours = isinstance(self, async_chat)
        super().connect(address) if is_ours else Original.connect(self, address)
        interest_changed(self)

    def add_channel(self, map: Any = None) -> None:
        outbox: Outbox | None = getattr(self, "_compat_outbox", None)
        if outbox is not None:
            outbox.reopen()
        is_ours = isinstance(self, async_chat)
        super().add_channel(map) if is_ours else Original.add_channel(self, map)
        interest_changed(self)

    def del_channel(self, map: Any = None) -> None:
        registration: Notified | None = getattr(self, "_compat_registration", None)
        if registration is not None:
            registration.unregister()
        is_ours = isinstance(self, async_chat)
        super().del_channel(map) if is_ours else Original.del_channel(self, map)
        interest_changed(self)

    def close(self) -> None:
        outbox: Outbox | None = getattr(self, "_compat_outbox", None)
        try:
            if outbox is not None:
                outbox.close(self, self._compat_may_send)
        finally:
            is_ours = isinstance(self, async_chat)
            super().close() if is_ours else Original.close(self)
            interest_changed(self)

    def _compat_send_at_once(self, data: bytes) -> bool:
        """Send *data* and queue the unsent rest: the fast path of an echo.

        False if the caller must queue *data*: another thread sends, or has queued.
        """
        if self._compat_forks != this_process.forks:
            self._compat_may_send()
        try:
            del self._compat_is_free
        except AttributeError:
            return False
        try:
            # No call before this try, or its release: Ctrl+C may come after any call.
            try:
                outbox = self._compat_outbox
                if outbox is not None and outbox.queue:
                    return False
                sent = self.socket.send(data)
                if sent != len(data):
                    self.producer_fifo.appendleft(data[sent:])
            finally:
                self._compat_is_free = True
        except OSError as error:
            sent = 0
            self.producer_fifo.appendleft(data)
            handle_failed_send(self, error)
        if sent != len(data):
            outbox_of(self).wait_for_peer(self)
        return True

    def _compat_may_send(self) -> bool:
        """Return whether no thread of this process sends; drop a parent's claim."""
        with this_process.lock:
            if self._compat_forks != this_process.forks:
                self._compat_forks = this_process.forks
                self._compat_claimant, self._compat_is_free = 0, True
            return self._compat_is_free


_FIFO = async_chat.producer_fifo
_OURS = (async_chat, LinearReader)
# asyncore.dispatcher, also while a program has replaced it.
_BASE = Original.__mro__[1]

# Names that the original lacks. A mixin after this class keeps its own.
_ADDED = {
    name
    for kind in _OURS
    for name in vars(kind)
    if not (name.startswith("_") or hasattr(Original, name))
} - {"ac_in_buffer", "incoming", "producer_fifo"}

# Before a program or a trace replaces them: a replaced one turns the fast path off.
_READABLE, _WRITABLE = async_chat.readable, async_chat.writable
_SEND, _INITIATE_SEND = async_chat.send, async_chat.initiate_send
_SEND_BENEATH, _INIT_BENEATH = Original.send, Original.__init__


def attach(channel: Any, registration: Notified) -> bool:
    """Let *channel* notify the loop's registration when its interest may have changed.

    Returns:
        False if its interest cannot be cached, or another loop runs it already.
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


def outbox_of(channel: async_chat) -> Outbox:
    """Return the outbox of *channel*; create it if necessary."""
    outbox = channel._compat_outbox
    if outbox is None:
        with this_process.lock:
            outbox = channel._compat_outbox = channel._compat_outbox or Outbox()
    return outbox


def queue_of(channel: async_chat) -> Any:
    """Return the queue of *channel*, or None if nothing has been queued."""
    outbox = channel._compat_outbox
    return None if outbox is None else outbox.queue


def flush_pushes_at_turn_end(map: Map) -> None:
    """Let the first turn flush data that was pushed before the loop of *map* began."""
    for channel in list(map.values()):
        if isinstance(channel, async_chat) and channel._compat_outbox is not None:
            channel._compat_outbox.begin_loop(channel)


def wants_to_write(channel: async_chat) -> bool:
    """Return the interest of a channel that inherits ``writable``."""
    return bool(queue_of(channel)) or awaits_connection(channel)


def has_cached_interest(channel: Any) -> bool:
    """Return whether a loop may cache this channel's interest until it reports."""
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
