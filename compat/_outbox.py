"""A channel's unsent data: one object with one state.

Rule 1: another thread may push at any moment, without losing or splitting a message.
Queues change under ``_lock``, which is never held while a handler or a send runs. Only
the thread that has claimed the channel sends; unsent data goes back to the front of the
queue.
Rule 2: coalesced or not, a peer receives the same bytes in the same order. A call
that must not wait for the end of the turn first makes the attempts that the pushes
would have made.
Rule 3: an outbox keeps its channel alive only while the end of the turn has to flush
it. An idle channel outside of a broadcast group has none.
Rule 4: a program may change the queue, ``producer_fifo``, at any time. So the state
shows the last step of this module, and the queue shows the unsent data.
"""

from __future__ import annotations

import asyncore
import errno
import sys
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any
from weakref import ref

from compat import instrument
from compat._entries import EMPTY, SMALL, first_of, insert, join_first
from compat._runtime import this_process
from compat._types import LEAVES, Group, Notified, Original
from compat.forks import at_fork
from compat.locks import RLock
from compat.scheduler import at_turn_end, wake_other_thread

__all__ = [
    "CLOSING",
    "HARMLESS",
    "QUEUED",
    "Outbox",
    "ProgramsOutbox",
    "handle_failed_send",
    "interest_changed",
]

# The backlog's upper bound where its size is unknown: a limit then counts the bytes.
UNCOUNTED = sys.maxsize

# Error numbers of a full send buffer and of a lost connection.
HARMLESS = {errno.EWOULDBLOCK, *asyncore._DISCONNECTED}

# Reentrant, because a signal handler may push. A fork replaces it in the child.
_lock = RLock()


class State(Enum):
    """The state of an outbox, which determines its next step."""

    # Nothing is queued.
    IDLE = auto()
    # Data is queued, and no send has been attempted since.
    QUEUED = auto()
    # The peer has not received all; the loop sends the rest when the socket is ready.
    BLOCKED = auto()
    # close() makes its last send attempts, which call no handler.
    CLOSING = auto()
    CLOSED = auto()


IDLE, QUEUED, BLOCKED, CLOSING, CLOSED = State


class Outbox:
    """The queue of one channel.

    Attributes:
        queue: bytes, producers, and None for the end; None until something is queued.
        state: one State.
        group: the broadcast group, which may hold earlier messages for the channel.
        channel: the channel, while the end of the turn has to flush this outbox.
        carried: upper bound of the bytes that earlier turns have left in the queue; 0
            if it has been empty since.
        added: upper bound of the bytes that this turn has queued.
    """

    __slots__ = (
        "added",
        "carried",
        "channel",
        "group",
        "queue",
        "state",
    )

    def __init__(self) -> None:
        self.queue: deque[Any] | None = None
        self.state = IDLE
        self.group: Group | None = None
        self.channel: Any = None
        self.carried = self.added = 0

    def entries(self) -> deque[Any]:
        """Return the queue; create it if necessary."""
        if self.queue is None:
            with _lock:
                if self.queue is None:
                    self.queue = deque()
        queue: deque[Any] = self.queue
        return queue

    def is_empty(self) -> bool:
        """Return whether push may leave the queue out: no program's own queue."""
        return self.queue is None or (type(self.queue) is deque and not self.queue)

    def size(self) -> int:
        """Return the number of queued bytes; data of producers does not count."""
        return sum(
            len(entry)
            for entry in tuple(self.queue or ())
            if isinstance(entry, bytes | bytearray | memoryview)
        )

    def push(self, channel: Any, data: bytes | memoryview) -> None:
        """Queue data for the end of the turn."""
        with _lock:
            self.added += len(data)
            insert(channel, data)
        self.flush_at_turn_end(channel)

    def push_producer(self, channel: Any, producer: Any) -> None:
        """Queue a producer for the end of the turn."""
        self.take_over(channel)
        channel.producer_fifo.append(producer)
        self.added = UNCOUNTED
        self.flush_at_turn_end(channel)

    def put_back(self, channel: Any, data: Any, *, at_the_front: bool) -> None:
        """Queue the unsent rest of a broadcast group's messages.

        With *at_the_front*, another thread's push during the send stays behind *data*.
        """
        if self.group is None:
            # Another thread has closed the channel.
            return
        with _lock:
            self.carried += len(data)
            rest = bytes(data) if len(data) < SMALL else data
            insert(channel, rest, at_the_front=at_the_front)
        self.wait_for_peer(channel)
        if (observer := instrument.current) is not None:
            observer.state_changed(channel)

    def wait_for_peer(self, channel: Any) -> None:
        """Let the loop send the queue when the socket is ready."""
        if self.state is IDLE and self.queue:
            self.state = BLOCKED
        interest_changed(channel)

    def push_now(self, channel: Any, data: Any) -> None:
        """Queue *data* and attempt a send, as the original's push."""
        size, queue = channel.ac_out_buffer_size, channel.producer_fifo
        is_bytes = isinstance(data, bytes | bytearray | memoryview)
        if is_bytes and len(data) > size and type(queue) is deque:
            # As the original, but atomic, because another thread may push.
            queue.extend([data[at : at + size] for at in range(0, len(data), size)])
            channel.initiate_send()
        else:
            Original.push(channel, data)
        self.wait_for_peer(channel)

    def take_over(self, channel: Any) -> None:
        """Queue the broadcast group's messages before the channel's next output."""
        if self.group is not None:
            self.group.flush_to(channel)

    def flush_at_turn_end(self, channel: Any) -> None:
        """Flush at the end of the turn, if not earlier."""
        if self.state in (CLOSING, CLOSED):
            return
        self.state = QUEUED
        if self.channel is None:
            # Set before the call: in another thread, the turn may end meanwhile.
            self.channel, map = channel, getattr(channel, "_map", None)
            if map is None or not at_turn_end(map, self):
                self.channel = None

    def begin_loop(self, channel: Any) -> None:
        """Flush at the end of the first turn, if data was pushed before the loop."""
        if self.added:
            # A loop that a fork or Ctrl+C has ended may have left it.
            self.channel = None
            self.flush_at_turn_end(channel)

    def flush(self) -> None:
        """Flush; errors go to the channel's ``handle_error``, as from a handler."""
        channel = self.channel
        if channel is None:
            return
        self.take_over(channel)
        self.channel = None
        try:
            # Otherwise this turn has already attempted to send.
            if self.state is QUEUED:
                self.state = BLOCKED
                self.send_queued(channel, to_the_end=True)
            if self.queue:
                interest_changed(channel)
                if self.carried and self.added:
                    self.check_backlog(channel)
                with _lock:
                    self.carried, self.added = self.carried + self.added, 0
            else:
                self.emptied()
        except LEAVES:
            raise
        except BaseException:
            channel.handle_error()

    def send_now(self, channel: Any) -> None:
        """Make the send attempts that wait for the end of the turn."""
        self.take_over(channel)
        if self.state is QUEUED:
            self.state = BLOCKED
            self.send_queued(channel, to_the_end=False)

    def close(self, channel: Any, may_send: Callable[[], bool]) -> None:
        """Flush without calling a handler, and leave the broadcast group."""
        self.take_over(channel)
        is_queued = self.state is QUEUED
        self.state = CLOSING
        try:
            if is_queued and may_send():
                self.send_queued(channel, to_the_end=False)
            if self.group is not None:
                self.group.discard(channel)
        finally:
            self.state = CLOSED

    def reopen(self) -> None:
        """Accept data for the end of the turn again: the channel has a new socket."""
        if self.state is CLOSED:
            self.state = IDLE

    def emptied(self) -> None:
        """Reset the sizes: later data is not the backlog of an earlier turn."""
        if self.carried or self.added or self.state is BLOCKED:
            with _lock:
                if not self.queue:
                    self.carried = self.added = 0
                    if self.state is BLOCKED:
                        self.state = IDLE

    def send_queued(self, channel: Any, *, to_the_end: bool) -> None:
        """Attempt one send per queued entry; stop once the send buffer is full."""
        queue = self.queue or ()
        for _ in range(len(queue)):
            first = first_of(queue)
            if first is EMPTY or (first is None and not to_the_end):
                return
            channel.initiate_send()
            if not channel.connected or first_of(queue) is first:
                return

    def send_first(self, channel: Any) -> None:
        """Attempt to send the first entry; the caller has claimed the channel."""
        queue: Any = self.queue
        if channel.ac_coalesce_writes is True:
            # Before the send: a thread that pushes from now on wakes the loop.
            if self.state is QUEUED:
                self.state = BLOCKED
            if len(queue) > 1:
                with _lock:
                    join_first(queue, channel.ac_out_buffer_size)
        if queue:
            self._send_entry(channel, queue)
        if not queue:
            self.emptied()

    def _send_entry(self, channel: Any, queue: deque[Any]) -> None:
        """Attempt to send the first entry; the original handles uncommon entries."""
        with _lock:
            first = first_of(queue)
            if first is EMPTY:
                return
            if type(first) is bytearray:
                # Freeze it: another thread may be about to append to it.
                first = queue[0] = bytes(first)
        if first is None and type(queue) is deque:
            del queue[0]
            channel.handle_close()
            return
        size, kind = channel.ac_out_buffer_size, type(first)
        is_view = kind is memoryview and first.format == "B" and len(first) > 0
        if not (is_view or (kind is bytes and 0 < len(first) <= size)):
            if hasattr(first, "more") and channel.ac_coalesce_writes is True:
                # The original queues the producer's data, too.
                if self.carried:
                    self.carried = UNCOUNTED
                else:
                    self.added = UNCOUNTED
            Original.initiate_send(channel)
            return
        try:
            sent = channel.send(first[:size])
        except OSError:
            channel.handle_error()
            return
        with _lock:
            if first_of(queue) is not first:
                # Another thread has discarded the entry.
                return
            if sent == len(first):
                del queue[0]
            elif sent:
                queue[0] = first[sent:]

    def check_backlog(self, channel: Any) -> None:
        """Call ``handle_backlog`` if the queue exceeds its limit."""
        limit = channel.ac_backlog_limit
        # The backlog of a closed channel is irrelevant.
        is_open = channel.connected or channel.connecting
        if is_open and 0 < limit < self.carried + self.added:
            with _lock:
                self.carried, self.added = self.size(), 0
            if self.carried > limit:
                channel.handle_backlog()


class ProgramsOutbox(Outbox):
    """The outbox of a class with its own ``producer_fifo``: each access reads that."""

    __slots__ = ("_channel", "_stored")

    def __init__(self, channel: Any) -> None:
        self._channel = ref(channel)
        self._stored: deque[Any] | None = None
        super().__init__()

    @property
    def queue(self) -> Any:
        return getattr(self._channel(), "producer_fifo", None)

    @queue.setter
    def queue(self, queue: deque[Any] | None) -> None:
        self._stored = queue

    def entries(self) -> deque[Any]:
        """Return the inherited queue, which the program's property may wrap."""
        if self._stored is None:
            with _lock:
                if self._stored is None:
                    self._stored = deque()
        return self._stored


def interest_changed(channel: Any) -> None:
    """Notify the loop of *channel*, if it has one, that interest may have changed."""
    this_process.reports += 1
    registration: Notified | None = getattr(channel, "_compat_registration", None)
    if registration is not None:
        registration.interest_changed()
    else:
        # A loop without cached interest looks at all channels once its wait ends.
        wake_other_thread(getattr(channel, "_map", None))


def handle_failed_send(channel: Any, error: OSError) -> None:
    """Close on disconnection, ignore EWOULDBLOCK, handle any other error.

    Source: CPython 3.11, Lib/asyncore.py, dispatcher.send().
    """
    if error.errno == errno.EWOULDBLOCK:
        return
    if error.errno in HARMLESS:
        try:
            channel.handle_close()
        except OSError:
            channel.handle_error()
    else:
        channel.handle_error()


def _after_fork_in_child() -> None:
    # A thread that does not exist in the child may have held the lock.
    global _lock  # noqa: PLW0603  # it cannot be changed in its place
    _lock = RLock()


at_fork(after_in_child=_after_fork_in_child)
