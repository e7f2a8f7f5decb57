"""Timers and thread-safe callbacks, which asyncore lacks, on every loop.

Rule 1: a scheduler belongs to a map. The loop that runs the map runs the scheduler,
after the turn's reads, writes and exceptional conditions.
Rule 2: ``call_soon_threadsafe`` may be called from any thread and from a signal
handler; call everything else in the thread that runs the map's loop.
Rule 3: a callback's exception is logged and does not end the loop. ExitNow,
KeyboardInterrupt and SystemExit end it, as in asyncore.
Rule 4: an empty scheduler without a running loop is discarded.
"""

from __future__ import annotations

import asyncore
import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from threading import get_ident
from typing import Any, TypeAlias

from compat import instrument
from compat._runtime import this_process
from compat._types import LEAVES, Group, Map, Writer
from compat.forks import at_fork
from compat.instrument import Instrument
from compat.pollers import LONGEST_WAIT
from compat.values import check_callable, checked_seconds
from compat.wakeup import Waker

__all__ = [
    "Scheduler",
    "Timer",
    "at_turn_end",
    "call_later",
    "call_soon_threadsafe",
    "is_running",
    "on_turn",
    "running_here",
    "scheduler_of",
    "wake_other_thread",
]

Callback: TypeAlias = Callable[..., object]
Args: TypeAlias = tuple[Any, ...]

# Cancelled timers stay in the heap until they are due, or until more than this many of
# them make up more than half of the heap.
FEW_CANCELLED = 64


class Timer:
    """A scheduled callback, as ``call_later`` returns it.

    Attributes:
        when: the time at which the callback is due, on the clock of ``time.monotonic``.
    """

    __slots__ = ("_args", "_callback", "_scheduler", "when")

    def __init__(
        self, when: float, scheduler: Scheduler, callback: Callback, args: Args
    ) -> None:
        self.when = when
        self._scheduler = scheduler
        # None once it has run or was cancelled.
        self._callback: Callback | None = callback
        self._args = args

    def cancel(self) -> None:
        """Cancel the callback. Does nothing if it has run or was cancelled already."""
        if self._callback is not None:
            self._callback, self._args = None, ()
            self._scheduler._count_cancelled()
            if (observer := instrument.current) is not None:
                observer.timer_cancelled(self)

    @property
    def pending(self) -> bool:
        """True until the callback has run or was cancelled."""
        return self._callback is not None

    def _run(self) -> None:
        callback, args = self._callback, self._args
        self._callback, self._args = None, ()
        if callback is not None:
            _call(callback, args, instrument.current, self)


class Scheduler:
    """One map's timers, thread-safe callbacks, and flushes at the end of a turn."""

    def __init__(self, map: Map) -> None:
        self.map = map
        # (time, number, timer). The numbers keep the order of timers of equal times.
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        # The cancelled timers in the heap.
        self._cancelled = 0
        # Of call_soon_threadsafe().
        self._soon: deque[tuple[Callback, Args]] = deque()
        # The wakers of the loops that run the map, the innermost last.
        self.wakers: list[Waker] = []
        # The thread whose loop runs the map.
        self.thread = 0
        # The number of active waking_on_signals().
        self._signals = 0
        # The callbacks of on_turn().
        self._turn_watchers: list[Callable[[float], object]] = []
        # To flush at the end of the turn: channels first, then broadcast groups.
        self._writers: deque[Writer] = deque()
        self.groups: deque[Group] = deque()

    def call_later(self, seconds: float, callback: Callback, *args: Any) -> Timer:
        """See the function of the same name. O(log n) in the number of timers."""
        check_callable(callback)
        when = time.monotonic() + checked_seconds(seconds)
        timer = Timer(when, self, callback, args)
        self._number += 1
        heapq.heappush(self._heap, (timer.when, self._number, timer))
        if (observer := instrument.current) is not None:
            observer.timer_created(timer, seconds, callback)
        return timer

    def call_soon_threadsafe(self, callback: Callback, *args: Any) -> None:
        """See the function of the same name."""
        check_callable(callback)
        self._soon.append((callback, args))
        self.wake()

    def wake(self) -> None:
        """End the wait of the loop that runs the map, if there is one."""
        # A slice, because the loop's thread may remove the waker at any moment.
        for waker in self.wakers[-1:]:
            waker.wake()

    @property
    def pending(self) -> bool:
        """True if a timer or a callback has yet to run."""
        return bool(self._soon) or len(self._heap) > self._cancelled

    def next_timeout(self, timeout: float | None) -> float | None:
        """Return the seconds that the next turn may wait: *timeout*, or less."""
        observer = instrument.current
        if observer is None and not (self._heap or self._soon or self._writers):
            return timeout
        left = self._seconds_left(timeout)
        if observer is not None:
            reason = "callback" if self._soon else "timer"
            if left == timeout or (self._writers and not self._soon):
                # Not shortened, or only because there is something to flush.
                reason = ""
            observer.turn_begins(reason)
        return left

    def _seconds_left(self, timeout: float | None) -> float | None:
        if self._soon or self._writers:
            return 0.0
        while self._heap and not self._heap[0][2].pending:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        if not self._heap:
            return timeout
        # Bounded, because the product below is infinite for a very distant time.
        left = min(self._heap[0][0] - time.monotonic(), LONGEST_WAIT)
        # Round up to milliseconds: asyncore's poll2 rounds down with int(). A loop that
        # wakes half a millisecond early would run idle turns until the timer is due.
        left = max(0.0, math.ceil(left * 1000) / 1000)
        return left if timeout is None else min(left, timeout)

    def run_due(self) -> None:
        """Run the callbacks of other threads, then the timers that are due.

        Callbacks that are added meanwhile wait for the next turn, so that they cannot
        starve the channels.
        """
        newest, now = self._number, time.monotonic()
        for _ in range(len(self._soon)):
            # A callback may have run a nested loop, which has run the rest.
            if self._soon:
                _call(*self._soon.popleft(), instrument.current)
        while self._heap:
            when, number, timer = self._heap[0]
            if when > now or number > newest:
                return
            heapq.heappop(self._heap)
            if timer.pending:
                timer._run()
            else:
                self._cancelled -= 1

    def flush(self) -> None:
        """Flush all coalesced writes of the turn.

        Data that a flush queues waits for the end of the next turn, which begins at
        once.
        """
        for _ in range(len(self._writers)):
            _flush(self._writers.popleft())
        self._flush_groups()

    def finish_turn(self, waker: Waker) -> None:
        """Run due callbacks, flush, and report the turn's duration to ``on_turn``."""
        is_watched = bool(self._turn_watchers)
        woke_at = (waker.woke_at or time.monotonic()) if is_watched else 0.0
        if self._soon or self._heap:
            self.run_due()
        if self._writers or self.groups:
            self.flush()
        if is_watched:
            seconds = time.monotonic() - woke_at
            for callback in tuple(self._turn_watchers):
                _call(callback, (seconds,))

    def _flush_groups(self) -> None:
        while self.groups:
            # Remove a group only after its flush: Ctrl+C may come between two calls.
            if self.groups[0].has_log:
                _flush(self.groups[0])
            else:
                self.groups.popleft()

    def flush_last_turn(self) -> None:
        """Like flush, but if one flush raises, the others still run."""
        if not (self._writers or self.groups):
            return
        with ExitStack() as stack:
            stack.callback(self._flush_groups)
            while self._writers:
                stack.callback(_flush, self._writers.pop())

    @contextmanager
    def waking_on_signals(self) -> Iterator[None]:
        """Context manager: loops that begin within it end their wait on a signal."""
        self._signals += 1
        try:
            yield
        finally:
            self._signals -= 1
            self.forget_if_idle()

    def until_signal(self, waker: Waker) -> AbstractContextManager[None]:
        """Context manager: a signal ends the wait of *waker*, if that is wanted."""
        return waker.waking_on_signals() if self._signals else _NOTHING

    def forget_if_idle(self) -> None:
        """Discard the scheduler unless something is scheduled or a loop runs it."""
        with this_process.lock:
            is_needed = (
                self.wakers
                or self.groups
                or self.pending
                or self._signals
                or self._turn_watchers
            )
            if not is_needed and _schedulers.get(id(self.map)) is self:
                del _schedulers[id(self.map)]

    def _count_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > FEW_CANCELLED and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].pending]
            heapq.heapify(self._heap)
            self._cancelled = 0
        if not self.wakers:
            self.forget_if_idle()


def call_later(
    seconds: float, callback: Callback, *args: Any, map: Map | None = None
) -> Timer:
    """Run ``callback(*args)`` in the loop of *map*, *seconds* from now.

    Args:
        seconds: finite and >= 0. With 0, the callback runs at the end of the next turn.
        map: None for ``asyncore.socket_map``.

    Call this in the thread that runs the map's loop. Without a running loop, the timer
    waits for one. asyncore's own ``loop`` does not run timers.

    Raises:
        ValueError: *seconds* is negative, not a number, or not a finite float.
        TypeError: *callback* is not callable.
    """
    return scheduler_of(map).call_later(seconds, callback, *args)


def call_soon_threadsafe(
    callback: Callback, *args: Any, map: Map | None = None
) -> None:
    """Run ``callback(*args)`` in the loop of *map*, and end the loop's wait.

    Args:
        map: None for ``asyncore.socket_map``.

    Call this from any thread or from a signal handler. Callbacks run in the order of
    the calls. Without a running loop, the callback waits for one.

    Raises:
        TypeError: *callback* is not callable.
    """
    with this_process.lock:
        scheduler_of(map).call_soon_threadsafe(callback, *args)


def scheduler_of(map: Map | None) -> Scheduler:
    """Return the scheduler of *map*; create it if necessary."""
    if map is None:
        map = asyncore.socket_map
    with this_process.lock:
        found = _schedulers.get(id(map))
        if found is None:
            found = _schedulers[id(map)] = Scheduler(map)
        return found


def wake_other_thread(map: Map | None) -> None:
    """End the wait of the loop of *map*, if another thread runs that loop."""
    found = _schedulers.get(id(map))
    if found is not None and found.thread != get_ident():
        with this_process.lock:
            found.wake()


def at_turn_end(map: Map, writer: Writer) -> bool:
    """Flush *writer*, a channel of *map*, at the end of the turn; from any thread.

    Returns:
        False if no compat loop runs *map*.
    """
    found = _schedulers.get(id(map))
    if found is None or not found.wakers:
        this_process.reports += 1
        return False
    found._writers.append(writer)
    if found.thread != get_ident():
        wake_other_thread(map)
    return True


def running_here(map: Map) -> Scheduler | None:
    """Return the scheduler of *map* if a compat loop runs it in this thread."""
    found = _schedulers.get(id(map))
    is_here = found is not None and found.wakers and found.thread == get_ident()
    return found if is_here else None


def is_running(map: Map) -> bool:
    """Return whether a compat loop runs *map* now, so that its timers will run."""
    found = _schedulers.get(id(map))
    return found is not None and bool(found.wakers)


@contextmanager
def on_turn(
    callback: Callable[[float], object], map: Map | None = None
) -> Iterator[None]:
    """Context manager: call ``callback(seconds)`` after every turn of *map*'s loop.

    Args:
        callback: gets the seconds from the end of the turn's wait to the turn's end.
            During that time the loop did not poll its channels.
        map: None for ``asyncore.socket_map``.

    Exceptions of the callback are logged, as those of a timer. asyncore's own ``loop``
    does not call it.

    Raises:
        TypeError: *callback* is not callable.
    """
    check_callable(callback)
    scheduler = scheduler_of(map)
    scheduler._turn_watchers.append(callback)
    try:
        yield
    finally:
        scheduler._turn_watchers.remove(callback)
        scheduler.forget_if_idle()


def _flush(writer: Writer) -> None:
    if (observer := instrument.current) is None:
        writer.flush()
    else:
        observer.flush(writer, writer.flush)


def _call(
    callback: Callback,
    args: Args,
    observer: Instrument | None = None,
    timer: Timer | None = None,
) -> None:
    try:
        if observer is None:
            callback(*args)
        else:
            observer.run_callback(timer, callback, partial(callback, *args))
    except LEAVES:
        raise
    except Exception:
        # Imported here: a program may have its own module named logging.
        import logging

        logging.getLogger("compat").exception("callback %r raised", callback)


def _before_fork() -> None:
    # Otherwise both the parent and the child would send the queued data.
    for scheduler in list(_schedulers.values()):
        if running_here(scheduler.map) is scheduler:
            scheduler.flush()


def _after_fork_in_child() -> None:
    for scheduler in list(_schedulers.values()):
        # A fork keeps only the calling thread.
        wakers = scheduler.wakers
        wakers[:] = [each for each in wakers if not each.is_orphaned]
        scheduler.forget_if_idle()


_schedulers: dict[int, Scheduler] = this_process.schedulers

_NOTHING = nullcontext()

at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
