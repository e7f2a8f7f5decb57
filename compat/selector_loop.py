"""The selectors loop: registrations that stay in the kernel between turns.

``asyncore.poll`` polls the interest of every channel in every turn, and passes every
descriptor to the kernel. Here the cost follows activity (compat.registrations).

Rule 1: for the same ready set, the same calls in the same order as ``asyncore.poll``:
all reads, then all writes, then all exceptional conditions, each in map order. A
channel is dispatched only if it and its socket are the same as when it was polled.
Rule 2: asyncore's functions are looked up for each call: a program may replace them.
Rule 3: a loop that was entered as poll2 makes ``asyncore.poll2``'s calls instead: one
channel after the other, by ``readwrite``, with hang-ups and errors.
"""

from __future__ import annotations

import asyncore
import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeAlias

from compat import instrument
from compat._outbox import QUEUED
from compat._types import Map
from compat.descriptors import Descriptors
from compat.instrument import Instrument
from compat.pollers import GONE, IN, NVAL, OUT, PRI, as_poll2_waits
from compat.registration import Registration
from compat.registrations import Registrations
from compat.wakeup import Waker

__all__ = ["SelectorLoop"]

# The ready channels if all are registered for reading only, else empty; then the events
# by descriptor. In nearly every turn the first is all there is.
Ready: TypeAlias = tuple[list[Registration], dict[int, int]]


# A turn has three parts, so that another event loop can host it: that loop waits for
# the poller's descriptor in place of wait(None), and calls the other two.
#
#   prepare   update the interest of the channels that may have changed it
#   wait      poll the kernel; before a long wait, look for unreported changes
#   dispatch  call the ready channels
#
# Channels that a handler adds are registered by the next prepare().


class SelectorLoop:
    """The turns of one loop() on one map; a nested loop has its own.

    Args:
        waker: ends the wait; with a waker, the loop also waits on an empty map.
        caches_interest: False for a loop with a count: every turn polls all channels,
            because any code may run between two calls.
        as_poll2: make the calls of ``asyncore.poll2``, not of ``asyncore.poll``.
    """

    def __init__(
        self,
        waker: Waker | None,
        descriptors: Descriptors,
        caches_interest: bool,
        as_poll2: bool,
    ) -> None:
        self.descriptors = descriptors
        self._map: Map = {}
        self._waker = waker
        self._caches_interest = caches_interest
        self._as_poll2 = as_poll2
        self._registrations = Registrations(
            waker, descriptors, caches_interest, as_poll2
        )
        # True if the last prepare() has polled all channels.
        self._resynced = False

    def fits(self, waker: Waker | None, caches_interest: bool, as_poll2: bool) -> bool:
        """Return whether another call of ``loop()`` may enter this loop again."""
        return (
            not (caches_interest or self._caches_interest)
            and self._waker is waker
            and self._as_poll2 == as_poll2
        )

    def enter(self, map: Map) -> None:
        """Begin a call of ``loop()`` on *map*."""
        self._map = map
        self._registrations.enter(map)

    def leave(self) -> None:
        """End it: let no channel report to this loop, or be held by it."""
        self._registrations.leave()
        self._map = {}

    def invalidate(self) -> None:
        """Resync in the next turn: another loop has dispatched to the channels."""
        self._registrations.is_stale = True

    def turn(self, timeout: float | None) -> None:
        """Update interest, wait at most *timeout* seconds, dispatch ready channels.

        Raises:
            ExitNow: and KeyboardInterrupt, SystemExit: from a handler. Also all
                exceptions of a channel's ``readable`` or ``writable``.
            TypeError: and ValueError: a channel wants to read or write, but its key in
                the map is not a descriptor; as from select().

        Source: CPython 3.11, Lib/asyncore.py, poll(). A channel whose socket was
        closed without it gets ``handle_close``, as from poll2() there.
        """
        if self._as_poll2:
            timeout = as_poll2_waits(timeout)
        elif timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative, got {timeout!r}")
        self.prepare()
        if self._waker is not None or self._has_something_to_poll():
            self.dispatch(*self.wait(timeout))
        elif self._map:
            # As asyncore.poll, which rejects None here.
            asyncore.time.sleep(timeout)

    def prepare(self) -> None:
        """Update the interest of the channels that may have changed it."""
        if self._waker is not None:
            self._waker.woke_at = None
        self._resynced = self._registrations.update()

    def wait(self, timeout: float | None) -> Ready:
        """Poll the kernel for at most *timeout* seconds; None waits without limit."""
        waker, observer = self._waker, instrument.current
        if observer is not None:
            observer.wait_begins("selectors", timeout)
        readers, events = self._poll(timeout)
        if not readers and (events or self._registrations.kernel.closed):
            self._registrations.hold(events)
        if observer is not None:
            self._report_ready(observer, readers, events)
        if waker is not None:
            waker.woke_at = time.monotonic()
            if events and events.pop(waker.fileno(), 0):
                waker.handle_read_event()
        return readers, events

    def dispatch(self, readers: list[Registration], events: dict[int, int]) -> None:
        """Call the handlers of the channels that ``wait`` has returned."""
        if readers:
            readers.sort(key=_POSITION)
            # Before the first handler: an override by one applies from the next turn.
            if self._registrations.update_overridden(readers):
                readers = [each for each in readers if each.interest & IN]
            self._read(readers)
        elif self._as_poll2:
            self._dispatch_as_poll2(events)
        elif events or self._registrations.kernel.closed:
            self._dispatch_in_phases(events)
            self._close_closed()
        self._registrations.let_go()

    # Waiting.

    def _has_something_to_poll(self) -> bool:
        # False if no channel has interest. asyncore.poll2 polls even then.
        registrations = self._registrations
        return bool(
            registrations.kernel.by_fd
            or registrations.kernel.closed
            or (self._as_poll2 and self._map)
        )

    def _poll(self, timeout: float | None) -> Ready:
        registrations, poll2 = self._registrations, self._as_poll2
        read_only = registrations.kernel.read_only
        if registrations.kernel.closed:
            return self.descriptors.poll(0.0, {}, poll2)
        if not self._resynced and timeout != 0:
            # Something may have changed without a report. Resync, but not in every
            # turn: only when the loop is idle, or when a resync is due.
            pause = max(0.0, registrations.resync_at - registrations.now)
            if timeout is None or pause < timeout:
                ready = self.descriptors.poll(pause, read_only, poll2)
                if any(ready):
                    return ready
                registrations.resync()
                if registrations.kernel.closed:
                    return [], {}
                if timeout is not None:
                    waited = time.monotonic() - registrations.now
                    timeout = max(0.0, timeout - waited)
        return self.descriptors.poll(timeout, read_only, poll2)

    def _report_ready(
        self, observer: Instrument, readers: list[Registration], events: dict[int, int]
    ) -> None:
        by_fd = self._registrations.kernel.by_fd
        ready = [(each, IN) for each in readers] or [
            (each, mask & (each.interest | GONE))
            for fd, mask in events.items()
            for each in by_fd.get(fd, ())
        ]
        ready.sort(key=lambda pair: pair[0].position)
        read, write, urgent = (
            [each.channel for each, mask in ready if mask & wanted]
            for wanted in (IN | GONE, OUT, PRI)
        )
        woken = self._waker is not None and self._waker.fileno() in events
        observer.wait_ends(read, write, urgent, woken)

    # Dispatching.

    def _dispatch_in_phases(self, events: dict[int, int]) -> None:
        # All reads, then all writes, then all exceptional conditions.
        ready = self._ready(events)
        self._read([each for each, mask in ready if mask & IN])
        for each, mask in ready:
            if mask & OUT and each.is_current(self._map):
                asyncore.write(each.channel)
        for each, mask in ready:
            if mask & PRI and each.is_current(self._map):
                asyncore._exception(each.channel)
        for each, mask in ready:
            if mask != IN and not each.always_poll:
                each.interest_changed()

    def _dispatch_as_poll2(self, events: dict[int, int]) -> None:
        # poll2 dispatches all events of one channel after the other, in map order. It
        # passes a descriptor's events to the channel under that number. Of channels
        # that share a descriptor, it registers only the last one's interest.
        # Source: CPython 3.11, Lib/asyncore.py, poll2().
        for each in self._registrations.kernel.take_closed():
            events[each.fd] = NVAL
        # The first channel determines the position, the last one the events.
        events_of = {each.fd: mask for each, mask in self._ready(events)}
        by_key = self._registrations.by_key
        for each, mask in [
            (by_key[fd], mask) for fd, mask in events_of.items() if fd in by_key
        ]:
            if each.is_current(self._map):
                asyncore.readwrite(each.channel, mask)
            if not each.always_poll:
                each.interest_changed()

    def _ready(self, events: dict[int, int]) -> list[tuple[Registration, int]]:
        # The ready channels in map order, with the events of each.
        by_fd = self._registrations.kernel.by_fd
        self._registrations.update_overridden(
            [each for fd in events for each in by_fd.get(fd, ())]
        )
        wanted = GONE if self._as_poll2 else 0
        found = [
            (each, mask)
            for fd in events
            for each in by_fd.get(fd, ())
            if (mask := events[fd] & (each.interest | wanted))
        ]
        found.sort(key=lambda pair: pair[0].position)
        return found

    def _read(self, readers: list[Registration]) -> None:
        # The readers are in map order.
        map = self._map
        read: Callable[[Any], None] = (
            _read_as_poll2 if self._as_poll2 else asyncore.read
        )
        for each in readers:
            channel: Any = each.channel
            if each.always_poll:
                if each.is_current(map):
                    read(channel)
                continue
            own = each.attributes
            if map.get(each.key) is not channel:
                continue
            if own.get("socket") is not each.socket:
                # The channel has a new socket, which the next turn registers.
                each.interest_changed()
                continue
            read(channel)
            # Report for handlers that change attributes directly. An outbox that waits
            # for the end of the turn is flushed there.
            outbox = own.get("_compat_outbox")
            if (
                (outbox is not None and outbox.queue and outbox.state is not QUEUED)
                or not own.get("connected")
                or "writable" in own
                or type(channel) is not each.kind
            ):
                each.interest_changed()

    def _close_closed(self) -> None:
        # As poll2 for POLLNVAL: the socket was closed without its channel.
        # Source: CPython 3.11, Lib/asyncore.py, readwrite().
        for each in self._registrations.kernel.take_closed():
            if not each.always_poll:
                each.interest_changed()
            if each.is_current(self._map):
                asyncore.readwrite(each.channel, NVAL)


_POSITION = attrgetter("position")


def _read_as_poll2(channel: Any) -> None:
    asyncore.readwrite(channel, IN)
