"""The selectors loop: registrations that stay in the kernel between turns.

``asyncore.poll`` polls the interest of every channel in every turn, and passes every
descriptor to the kernel. Here the cost follows activity:

Rule 1: for the same ready set, the same calls in the same order as ``asyncore.poll``:
all reads, then all writes, then all exceptional conditions, each in map order. A
channel is dispatched only if it and its socket are the same as when it was polled.
Rule 2: the interest of a channel that announces (compat.async_chat) is cached. The loop
updates it after an announcement or a dispatch. It polls every other object in every
turn, because that object's interest may depend on anything.
Rule 3: the map belongs to the caller. The loop resyncs (compares the map with its
registrations) on entry, when new channels do not explain the map's size, and when a
polled object is not in the map. Otherwise it resyncs at a bounded rate, before a wait
that could be long. Assignments to a channel or a class take effect from the channel's
next event on. The loop compares a channel when it is ready and after its dispatch; with
few channels, in every turn.
Rule 4: nothing here outlives the loop: after its end, it holds no channel and no map.
Rule 5: a loop that was entered as poll2 makes ``asyncore.poll2``'s calls instead: one
channel after the other, by ``readwrite``, with hang-ups and errors.
"""

from __future__ import annotations

import asyncore
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from operator import attrgetter
from typing import Any
from weakref import WeakValueDictionary

from compat import instrument
from compat._types import Map
from compat.async_chat import (
    attach,
    detach,
    has_cached_interest,
    keeps_answers,
    needs_write_event,
    wants_to_write,
)
from compat.instrument import Instrument
from compat.pollers import GONE, IN, NVAL, OUT, PRI, as_poll2_waits
from compat.registrations import Descriptors
from compat.wakeup import Waker

__all__ = ["SelectorLoop"]

# The interest of a channel that has nothing to write.
QUIET = IN | PRI

_NOTHING: dict[str, Any] = {}

# Seconds between two resyncs, which find unannounced changes: a channel that replaced
# another one in the map, or a socket that was closed without its channel.
LOOK_AGAIN = 0.1

# Up to this many channels are compared in every turn; that costs less than polling.
FEW = 8

# The share of time that resyncs may use, for any number of channels.
LOOK_SHARE = 0.02


class Known:
    """A registration: a channel in the map, and its cached interest."""

    __slots__ = (
        "_loop",
        "_told",
        "channel",
        "fd",
        "interest",
        "key",
        "kind",
        "number",
        "own",
        "restless",
        "socket",
    )

    def __init__(self, loop: SelectorLoop, key: Any, channel: Any) -> None:
        self._loop = loop
        self.key = key
        self.channel = channel
        # True if the channel must be polled in every turn.
        self.restless = True
        # The class and the attributes of a channel that announces.
        self.kind = type(channel)
        self.own: dict[str, Any] = _NOTHING
        # The channel's position in the map.
        self.number = 0
        self.fd = -1
        self.interest = 0
        self.socket: Any = None
        self._told = False

    def interest_changed(self) -> None:
        """Update this channel's interest in the next turn, which begins at once."""
        if not self._told:
            self._told = True
            self._loop.news.append(self)
        self._loop.wake_other_thread()

    def unregister(self) -> None:
        """Unregister the channel, which leaves the map with its socket still open."""
        self._loop.let_go(self)

    def is_still_in(self, map: Map) -> bool:
        """Return whether channel and socket are the same as when it was polled."""
        channel = self.channel
        return map.get(self.key) is channel and _socket_of(channel) is self.socket

    @property
    def is_orphaned(self) -> bool:
        """True if a fork has left the loop's thread in the parent."""
        waker = self._loop._waker
        return waker is not None and waker.is_orphaned

    def listen(self) -> None:
        """Queue the next announcement again."""
        self._told = False


class SelectorLoop:
    """The registrations of one map's channels, in one thread."""

    def __init__(self) -> None:
        self._descriptors = Descriptors()
        # True between entering and leaving.
        self.busy = False
        # The time from which a resync also repeats every registration in the kernel.
        self._verify_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._map: Map = {}
        self._waker: Waker | None = None
        self._lasting = False
        self._as_poll2 = False
        self._thread = 0
        self._known: dict[Any, Known] = {}
        # During a resync: the old registrations that the map has not confirmed yet.
        self._before: dict[Any, Known] = {}
        # The channels to poll in every turn.
        self._restless: list[Known] = []
        # The classes of the others; they must not replace readable or writable.
        self._kinds: set[type] = set()
        self._by_fd: dict[int, list[Known]] = {}
        # The announcing channels that only want to read, alone on their descriptor.
        self._quiet: dict[int, Known] = {}
        # The channels whose key is an object with a fileno(), not a number.
        self._by_object: list[Known] = []
        # The announcements since the last update.
        self.news: deque[Known] = deque()
        self._invalid: list[Known] = []
        # The map position of the next new channel.
        self._number = 0
        # The error of select() for the first key that is not a descriptor.
        self._unwaitable: Exception | None = None
        # Resync in the next turn; at the latest when _look_at has come.
        self._stale = True
        self._look_at = 0.0

    @contextmanager
    def entered(
        self, map: Map, waker: Waker | None, *, lasting: bool, as_poll2: bool
    ) -> Iterator[Callable[[float | None], None]]:
        """Context manager: yield the function that runs one turn.

        The function's argument is the timeout in seconds.

        Args:
            waker: ends the wait; with a waker, the loop also waits on an empty map.
            lasting: False for a turn or two, for which cached interest does not pay:
                every turn polls all channels.
            as_poll2: make the calls of ``asyncore.poll2``, not of ``asyncore.poll``.

        A loop inside of a handler needs its own SelectorLoop.
        """
        self._map, self._waker, self._lasting = map, waker, lasting
        self._as_poll2 = as_poll2
        self._thread = threading.get_ident()
        self.busy = True
        try:
            yield self._turn
        finally:
            self.busy = False
            self._take_boards_back()
            self._reset()

    def look_again(self) -> None:
        """Resync in the next turn: another loop has dispatched to the channels."""
        self._stale = True

    def wake_other_thread(self) -> None:
        """End the wait, if another thread runs the loop."""
        if threading.get_ident() != self._thread and self._waker is not None:
            self._waker.wake()

    def let_go(self, known: Known) -> None:
        """Unregister a channel that leaves, before its descriptor is closed.

        Afterwards the descriptor would no longer identify the kernel's registration.
        """
        if threading.get_ident() == self._thread:
            if self._known.get(known.key) is known:
                del self._known[known.key]
            self._forget(known)

    def close(self) -> None:
        """Close the selector; another turn would open a new one."""
        self._descriptors.close()
        self._stale = True

    def _turn(self, timeout: float | None) -> None:
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
            raise ValueError(f"timeout={timeout!r} is negative")
        if self._waker is not None:
            self._waker.woke_at = None
        everything = self._ask_who_may_have_changed()
        self._refuse_unwaitable()
        for known in self._by_object:
            if known.interest and not (self._as_poll2 and known.restless):
                # Another channel's readable() may have closed it meanwhile. select()
                # calls fileno() now; poll2 has called it when it polled the channel.
                _descriptor(known.key)
        idle = self._waker is None and not self._by_fd and not self._invalid
        if idle and not (self._as_poll2 and self._map):
            if self._map:
                # No channel has interest. As asyncore.poll, which rejects None here.
                asyncore.time.sleep(timeout)
            return
        observer = instrument.current
        if observer is not None:
            observer.wait_begins("selectors", timeout)
        quiet, ready = self._wait(timeout, everything)
        if observer is not None:
            self._report_ready(observer, quiet, ready)
        if self._waker is not None:
            self._waker.woke_at = time.monotonic()
            if ready.pop(self._waker.fileno(), 0):
                self._waker.handle_read_event()
        if quiet:
            quiet.sort(key=_NUMBER)
            if self._ask_overridden(quiet):
                quiet = [known for known in quiet if known.interest & IN]
            self._read(quiet)
        elif self._as_poll2:
            self._call_as_poll2(ready)
        else:
            self._call_ready(ready)
            self._close_invalid()
        if isinstance(self._map, WeakValueDictionary):
            # Hold no channel between turns: the map must empty itself.
            self._take_boards_back()
            self._known, self._restless, self._by_fd = {}, [], {}
            self._quiet.clear()
            self._by_object.clear()
            self.news.clear()
            self._stale = True

    # Synchronising with the map.

    def _ask_who_may_have_changed(self) -> bool:
        """Update registrations from the map; return whether this was a full resync."""
        if (
            self._stale
            # No channel announces: polling all of them is a resync.
            or len(self._restless) == len(self._known)
            # A fork has dropped the back end.
            or self._descriptors.backend is None
            or time.monotonic() >= self._look_at
            or not all(map(keeps_answers, self._kinds))
        ):
            self._ask_all()
            return True
        newcomers = self._newcomers()
        if newcomers is None:
            self._ask_all()
            return True
        if len(self._known) <= FEW:
            self._announce_for_them()
        for known in self._restless:
            if self._map.get(known.key) is not known.channel:
                self._ask_all()
                return True
            self._ask(known)
        while self.news:
            known = self.news.popleft()
            known.listen()
            if self._known.get(known.key) is not known:
                # The channel has left, and may have joined again.
                continue
            if self._map.get(known.key) is known.channel:
                self._ask(known)
            else:
                del self._known[known.key]
                self._forget(known)
        for key, channel in newcomers:
            if self._map.get(key) is channel and key not in self._known:
                known = self._known[key] = self._meet(key, channel)
                known.number, self._number = self._number, self._number + 1
                if known.restless:
                    self._restless.append(known)
                self._ask(known)
        return False

    def _announce_for_them(self) -> None:
        """Announce for channels whose attributes were changed from outside."""
        for known in self._known.values():
            channel = known.channel
            if not known.restless and (
                (known.interest & OUT == 0) == wants_to_write(channel)
                or "readable" in known.own
                or "writable" in known.own
                or type(channel) is not known.kind
            ):
                known.interest_changed()

    def _newcomers(self) -> list[tuple[Any, Any]] | None:
        """Return the channels added last; None if they do not explain the map's size.

        Channels added while polling are polled in the next turn.
        """
        count = len(self._map) - len(self._known)
        if count == 0:
            return []
        if count < 0 or type(self._map) is not dict:
            return None
        try:
            newest = list(islice(reversed(self._map.items()), count))
        except RuntimeError:
            # On free-threaded Python, another thread has changed the map meanwhile.
            return None
        if any(key in self._known for key, _ in newest):
            return None
        return newest[::-1]

    def _ask_all(self) -> None:
        began = time.monotonic()
        self._stale = False
        self.news.clear()
        before = self._before = self._known
        self._known, self._restless = {}, []
        self._kinds.clear()
        for number, (key, channel) in enumerate(list(self._map.items())):
            known = before.pop(key, None)
            if known is None or known.channel is not channel:
                if known is not None:
                    self._forget(known)
                known = self._meet(key, channel)
            known.number = number
            known.listen()
            self._known[key] = known
            if known.restless:
                self._restless.append(known)
            self._ask(known)
        self._number = len(self._known)
        for known in before.values():
            self._forget(known)
        self._before = {}
        self._keep_only_what_is_wanted()
        if began >= self._verify_at:
            # dup2 may have put another open file under a registered number.
            for fd in list(self._by_fd):
                self._tell(fd, anew=True)
        now = time.monotonic()
        self._look_at = now + max(LOOK_AGAIN, (now - began) / LOOK_SHARE)
        if began >= self._verify_at:
            self._verify_at = self._look_at

    def _keep_only_what_is_wanted(self) -> None:
        """Register the waker, and drop leftover registrations."""
        wakes = -1
        if self._waker is not None:
            wakes = self._waker.fileno()
            if not self._descriptors.watches(wakes, IN, self._waker):
                self._descriptors.watch(wakes, IN, self._waker)
        for fd in list(self._descriptors):
            if fd not in self._by_fd and fd != wakes:
                self._descriptors.drop(fd)

    def _take_boards_back(self) -> None:
        for known in (*self._known.values(), *self._before.values()):
            _take_board_back(known)

    def _meet(self, key: Any, channel: Any) -> Known:
        known = Known(self, key, channel)
        if not isinstance(key, int):
            self._by_object.append(known)
        # A channel that another loop runs too keeps announcing to that loop.
        if self._lasting and attach(channel, known):
            known.restless = False
        return known

    def _forget(self, known: Known) -> None:
        self._want(known, known.fd, 0, None)
        _take_board_back(known)
        if known in self._by_object:
            self._by_object.remove(known)

    # Updating interest.

    def _ask(self, known: Known) -> None:
        channel = known.channel
        if not known.restless:
            self._see_whether_it_announces(known)
        reads = channel.readable()
        writes = channel.writable()
        interest = QUIET if reads else 0
        if writes:
            if not self._as_poll2:
                interest |= PRI
            # A listening socket is never writable; select() would report it at once.
            if not channel.accepting:
                interest |= OUT
        sock = _socket_of(channel)
        try:
            fd = _descriptor(known.key) if interest else known.fd
        except (TypeError, ValueError) as error:
            if self._as_poll2:
                raise
            self._unwaitable = self._unwaitable or error
        else:
            is_registered = not interest or (
                known.fd == fd
                and known.socket is sock
                and self._descriptors.stands_for(fd, sock)
            )
            if known.interest != interest or not is_registered:
                self._want(known, fd, interest, sock)
            known.socket = sock
        if (observer := instrument.current) is not None:
            reads, writes = bool(known.interest & IN), bool(known.interest & OUT)
            observer.channel_polled(known.key, channel, reads, writes)

    def _see_whether_it_announces(self, known: Known) -> None:
        """Poll the channel in every turn from now on, if it no longer announces."""
        if has_cached_interest(known.channel):
            known.kind, known.own = type(known.channel), vars(known.channel)
            self._kinds.add(known.kind)
            return
        _take_board_back(known)
        known.restless = True
        self._restless.append(known)
        self._restless.sort(key=_NUMBER)
        self._quiet.pop(known.fd, None)

    def _refuse_unwaitable(self) -> None:
        """Raise the error of select(), once all channels have been polled."""
        error, self._unwaitable = self._unwaitable, None
        if error is not None:
            raise error

    def _want(self, known: Known, fd: int, interest: int, sock: Any) -> None:
        """Store a channel's interest and apply it to the kernel."""
        if known.interest:
            self._by_fd[known.fd].remove(known)
            if known.fd != fd:
                self._tell(known.fd)
        known.fd, known.interest, known.socket = fd, interest, sock
        if interest:
            self._by_fd.setdefault(fd, []).append(known)
        self._tell(fd)

    def _tell(self, fd: int, *, anew: bool = False) -> None:
        """Apply the joint interest of all channels on a descriptor to the kernel."""
        sharing = self._by_fd.get(fd)
        if not sharing:
            self._by_fd.pop(fd, None)
            self._quiet.pop(fd, None)
            self._descriptors.drop(fd)
            return
        first = sharing[0]
        if first.interest == QUIET and not first.restless and len(sharing) == 1:
            self._quiet[fd] = first
        else:
            self._quiet.pop(fd, None)
        interest, sock = 0, first.socket
        for known in sharing:
            interest |= known.interest
        if not anew and self._descriptors.watches(fd, interest, sock):
            return
        if not self._descriptors.watch(fd, interest, sock):
            self._invalid += [known for known in sharing if known not in self._invalid]

    # Waiting and dispatching.

    def _wait(
        self, timeout: float | None, everything: bool
    ) -> tuple[list[Known], dict[int, int]]:
        """Return the ready channels if all are quiet, otherwise the ready events."""
        hang_ups = self._as_poll2
        if self._invalid:
            return self._descriptors.wait(0.0, {}, hang_ups)
        if not everything and timeout != 0:
            # Something may have changed without an announcement. Resync, but not in
            # every turn: only when the loop is idle, or when a resync is due.
            now = time.monotonic()
            pause = max(0.0, self._look_at - now)
            if timeout is None or pause < timeout:
                quiet, ready = self._descriptors.wait(pause, self._quiet, hang_ups)
                if quiet or ready:
                    return quiet, ready
                self._ask_all()
                self._refuse_unwaitable()
                if self._invalid:
                    return [], {}
                if timeout is not None:
                    timeout = max(0.0, timeout - (time.monotonic() - now))
        return self._descriptors.wait(timeout, self._quiet, hang_ups)

    def _report_ready(
        self, observer: Instrument, quiet: list[Known], ready: dict[int, int]
    ) -> None:
        active = [(known, IN) for known in quiet] or [
            (known, events & (known.interest | GONE))
            for fd, events in ready.items()
            for known in self._by_fd.get(fd, ())
        ]
        active.sort(key=_in_map_order)
        read, write, urgent = (
            [known.channel for known, events in active if events & wanted]
            for wanted in (IN | GONE, OUT, PRI)
        )
        waker = self._waker
        woken = waker is not None and waker.fileno() in ready
        observer.wait_ends(read, write, urgent, woken)

    def _ask_overridden(self, active: list[Known]) -> bool:
        """Poll channels with a replaced ``readable`` or ``writable``; return if any.

        A changed class counts as a replacement.
        """
        replaced = [
            known
            for known in active
            if (
                "readable" in known.own
                or "writable" in known.own
                or type(known.channel) is not known.kind
            )
            and not known.restless
        ]
        for known in replaced:
            self._ask(known)
        return bool(replaced)

    def _active(self, ready: dict[int, int]) -> list[tuple[Known, int]]:
        """Return the ready channels in map order, with the events of each."""
        self._ask_overridden(
            [known for fd in ready for known in self._by_fd.get(fd, ())]
        )
        wanted = GONE if self._as_poll2 else 0
        active = [
            (known, ready[fd] & (known.interest | wanted))
            for fd in ready
            for known in self._by_fd.get(fd, ())
        ]
        active = [(known, events) for known, events in active if events]
        active.sort(key=_in_map_order)
        return active

    def _call_ready(self, ready: dict[int, int]) -> None:
        """Dispatch all reads, then all writes, then all exceptional conditions.

        Calls asyncore's functions, looked up each time: a program may replace them.
        """
        active = self._active(ready)
        self._read([known for known, events in active if events & IN])
        for known, events in active:
            if events & OUT and known.is_still_in(self._map):
                asyncore.write(known.channel)
        for known, events in active:
            if events & PRI and known.is_still_in(self._map):
                asyncore._exception(known.channel)
        for known, events in active:
            if events != IN and not known.restless:
                known.interest_changed()

    def _call_as_poll2(self, ready: dict[int, int]) -> None:
        """Dispatch all events of one channel after the other, in map order.

        poll2 passes a descriptor's events to the channel under that number. Of channels
        that share a descriptor, it registers only the last one's interest.

        Source: CPython 3.11, Lib/asyncore.py, poll2().
        """
        for known in self._invalid:
            ready[known.fd] = NVAL
        self._invalid = []
        events_of: dict[int, int] = {}
        for known, events in self._active(ready):
            # The first channel determines the position, the last one the events.
            events_of[known.fd] = events
        called = [
            (self._known[fd], events)
            for fd, events in events_of.items()
            if fd in self._known
        ]
        for known, events in called:
            if known.is_still_in(self._map):
                asyncore.readwrite(known.channel, events)
            if not known.restless:
                known.interest_changed()

    def _read(self, active: list[Known]) -> None:
        """Dispatch reads to *active*, which is in map order."""
        map = self._map
        read: Callable[[Any], None] = (
            _read_as_poll2 if self._as_poll2 else asyncore.read
        )
        for known in active:
            channel: Any = known.channel
            if known.restless:
                if known.is_still_in(map):
                    read(channel)
                continue
            own = known.own
            if map.get(known.key) is not known.channel:
                continue
            if own.get("socket") is not known.socket:
                # The channel has a new socket, which the next turn registers.
                known.interest_changed()
                continue
            read(channel)
            # Announce for handlers that change attributes directly. Writes that wait
            # for the end of this turn need no registration yet.
            if (
                needs_write_event(channel)
                or "readable" in own
                or "writable" in own
                or type(channel) is not known.kind
            ):
                known.interest_changed()

    def _close_invalid(self) -> None:
        """Dispatch POLLNVAL to channels whose socket was closed without them.

        Source: CPython 3.11, Lib/asyncore.py, readwrite(), for POLLNVAL.
        """
        invalid, self._invalid = self._invalid, []
        for known in invalid:
            if not known.restless:
                known.interest_changed()
            if known.is_still_in(self._map):
                asyncore.readwrite(known.channel, NVAL)


_NUMBER = attrgetter("number")


def _read_as_poll2(channel: Any) -> None:
    asyncore.readwrite(channel, IN)


def _in_map_order(active: tuple[Known, int]) -> int:
    return active[0].number


def _socket_of(channel: Any) -> Any:
    """Return the socket in a channel's attributes, for identity comparisons.

    An object that is not a dispatcher may have a method or property named ``socket``,
    which is another object each time.
    """
    return getattr(channel, "__dict__", _NOTHING).get("socket")


def _take_board_back(known: Known) -> None:
    if not known.restless:
        detach(known.channel, known)


def _descriptor(key: Any) -> int:
    """Return the descriptor of a map's key, with select()'s errors."""
    if isinstance(key, int):
        fd = key
    elif hasattr(key, "fileno"):
        fd = key.fileno()
    else:
        raise TypeError(f"a descriptor or an object with fileno() is needed: {key!r}")
    if fd < 0:
        raise ValueError(f"a descriptor cannot be negative: {key!r}")
    return fd
