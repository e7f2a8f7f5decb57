"""Timers and thread-safe callbacks, which asyncore lacks, on every loop.

Rule 1: a schedule belongs to a map. The loop that runs the map runs the schedule, after
the turn's reads, writes and exceptional conditions.
Rule 2: ``call_soon_threadsafe`` may be called from any thread and from a signal
handler; call everything else in the thread that runs the map's loop.
Rule 3: a callback's exception is logged and does not end the loop. ExitNow,
KeyboardInterrupt and SystemExit end it, as in asyncore.
Rule 4: an empty schedule without a running loop is discarded.
"""

from __future__ import annotations

import asyncore
import errno
import heapq
import math
import os
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from threading import get_ident
from types import FrameType
from typing import Any, ClassVar, Protocol

from compat._types import LEAVES, Map
from compat.files import OpenFile, file_behind
from compat.forks import at_fork
from compat.locks import RLock
from compat.pollers import LONGEST_WAIT
from compat.values import shown

__all__ = [
    "Scheduler",
    "Timer",
    "Waker",
    "at_turn_end",
    "call_later",
    "call_soon_threadsafe",
    "is_running",
    "on_signals",
    "on_turn",
    "running_here",
    "scheduler_of",
    "wake_other_thread",
]

# Cancelled timers stay in the heap until they are due, or until more than this many of
# them make up more than half of the heap.
FEW_CANCELLED = 64

_NOTHING: dict[str, Any] = {}


class Timer:
    """A scheduled callback, as ``call_later`` returns it.

    Attributes:
        when: the time at which the callback is due, on the clock of ``time.monotonic``.
    """

    __slots__ = ("_args", "_callback", "_schedule", "when")

    def __init__(
        self,
        scheduler: Scheduler,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        self.when = when
        self._schedule = scheduler
        self._callback: Callable[..., object] | None = callback
        self._args = args

    def cancel(self) -> None:
        """Cancel the callback. Does nothing if it has run or was cancelled already."""
        if self._callback is not None:
            self._callback, self._args = None, ()
            self._schedule._one_cancelled()

    @property
    def pending(self) -> bool:
        """True until the callback has run or was cancelled."""
        return self._callback is not None

    def _run(self) -> None:
        callback, args = self._callback, self._args
        self._callback, self._args = None, ()
        if callback is not None:
            _call(callback, args)


class Waker:
    """The self-pipe of a loop: lets another thread end the loop's wait.

    A waker is a channel that always wants to read and is in no map of the caller's. A
    byte written to one end of a socket pair makes the other end ready, on every loop.
    ``signal.set_wakeup_fd`` writes a signal's byte to it, too.

    A daemon closes all descriptors that it did not open, mostly after a fork. Soon its
    log or a client has their numbers. Therefore the waker identifies each end by its
    open file, and never uses or closes a number that belongs to another file. The
    exception is a signal's byte, which C code writes to a number. After a fork, that is
    disabled until the next turn, which checks the number. If a program closes
    everything without a fork, the byte goes to the number's new owner.
    """

    accepting = False

    _all: ClassVar[weakref.WeakSet[Waker]] = weakref.WeakSet()

    # The ends to close; empty if Ctrl-C came before the socket pair existed.
    _ends: tuple[tuple[socket.socket, OpenFile], ...] = ()

    # True in a forked child until the next turn: the program may be closing everything.
    _forked = False

    _hears_signals = False

    # The time.monotonic() at which this turn's wait ended; None before that.
    woke_at: float | None = None

    def __init__(self) -> None:
        self._life = weakref.ref(_this_thread.life)
        self._open()
        Waker._all.add(self)

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable; called in every turn."""
        if self._forked:
            self._forked = False
            if self.mend():
                # The old pair may have held a wake-up.
                self.wake()
            elif self._hears_signals:
                self._hear_signals()
        return self._reader.fileno()

    def signal_fd(self) -> int:
        """Return the descriptor to write to; for ``signal.set_wakeup_fd``."""
        return self._writer.fileno()

    def wake(self) -> None:
        """End the current wait, or the next one if no wait is in progress."""
        if self._forked and not self._is_whole():
            return
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            # Full of earlier wake-ups: the reader is ready already.
            return
        except OSError as error:
            # The loop's thread has closed the pair: nothing waits any more.
            if error.errno != errno.EBADF:
                raise

    @property
    def left_behind(self) -> bool:
        """True if the waker's thread is gone: a fork keeps only the calling thread."""
        return self._life() is None

    @contextmanager
    def hearing_signals(self) -> Iterator[None]:
        """Context manager: within it, a signal ends the wait."""
        # A Python signal handler runs after the wait, so C code has to end the wait.
        # Otherwise a signal just before the wait would not be handled until its end.
        before = None if self._hears_signals else self._hear_signals()
        if before is None:
            yield
            return
        self._hears_signals = True
        try:
            yield
        finally:
            self._hears_signals = False
            signal.set_wakeup_fd(before)

    def mend(self) -> bool:
        """Replace a pair that the program has closed; return whether it had."""
        if self._is_whole():
            return False
        self.close()
        self._open()
        if self._hears_signals:
            self._hear_signals()
        return True

    def close(self) -> None:
        """Close both descriptors, except for numbers that belong to another file."""
        for end, file in self._ends:
            if file_behind(end.fileno()) == file:
                end.close()
            else:
                end.detach()

    def _open(self) -> None:
        self._reader, self._writer = _socket_pair()
        self._know_ends()

    def _know_ends(self) -> None:
        ends = self._reader, self._writer
        self._ends = tuple((end, file_behind(end.fileno())) for end in ends)

    def _is_whole(self) -> bool:
        files = [file_behind(end.fileno()) == file for end, file in self._ends]
        return bool(files) and all(files)

    def _hear_signals(self) -> int | None:
        try:
            return signal.set_wakeup_fd(self.signal_fd(), warn_on_full_buffer=False)
        except ValueError:
            # Not the main thread. The handler runs there, and wakes this thread.
            return None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        """Receive and drop the wake-ups: the schedule holds the callbacks."""
        try:
            while len(self._reader.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def handle_write_event(self) -> None:
        """Never called, because ``writable`` returns False."""

    def handle_expt_event(self) -> None:
        """A socket pair has no urgent data."""

    def handle_close(self) -> None:
        """The pair closes with its loop."""

    def handle_error(self) -> None:
        _log("the waker of a loop failed")

    @classmethod
    def _after_fork(cls) -> None:
        for waker in list(cls._all):
            waker._forked = True
            if waker._hears_signals:
                # The child may close everything now, and C code cannot check the file.
                signal.set_wakeup_fd(-1)
            if waker._is_whole():
                waker._renew()

    def _renew(self) -> None:
        # Parent and child would read each other's wake-ups. The numbers stay the same:
        # select() may be waiting for one of them.
        try:
            pair = _socket_pair()
        except OSError:
            # No descriptors are free; closing these two frees some.
            self.close()
            self._open()
            return
        for (end, _), new in zip(self._ends, pair, strict=True):
            with new:
                os.dup2(new.fileno(), end.fileno(), inheritable=False)
        self._know_ends()


class Writer(Protocol):
    """A channel or broadcast group that flushes at the end of a turn."""

    def _compat_flush(self) -> None:
        """Flush. A second call does nothing."""


class Log(Writer, Protocol):
    """A broadcast group: it flushes its log of a turn's messages."""

    @property
    def _compat_has_log(self) -> bool:
        """True if this turn has begun a log that is not flushed yet."""


class Scheduler:
    """One map's timers, thread-safe callbacks, and flushes at the end of a turn."""

    def __init__(self, map: Map) -> None:
        self.map = map
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        self._cancelled = 0
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._wakers: list[Waker] = []
        # The thread whose loop runs the map.
        self._thread = 0
        # The number of active on_signals().
        self._signals = 0
        # The callbacks of on_turn().
        self._turn_watchers: list[Callable[[float], object]] = []
        # To flush at the end of the turn: channels first, then broadcast groups.
        self._writers: deque[Writer] = deque()
        self._audiences: deque[Log] = deque()

    def call_later(
        self, seconds: float, callback: Callable[..., object], *args: Any
    ) -> Timer:
        """See the function of the same name. O(log n) in the number of timers."""
        _check(callback)
        when = time.monotonic() + _checked_seconds(seconds)
        timer = Timer(self, when, callback, args)
        self._number += 1
        heapq.heappush(self._heap, (timer.when, self._number, timer))
        return timer

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """See the function of the same name."""
        _check(callback)
        self._soon.append((callback, args))
        self.wake()

    def wake(self) -> None:
        """End the wait of the loop that runs the map, if there is one."""
        # A slice, because the loop's thread may remove the waker at any moment.
        for waker in self._wakers[-1:]:
            waker.wake()

    @property
    def pending(self) -> bool:
        """True if a timer or a callback has yet to run."""
        return bool(self._soon) or len(self._heap) > self._cancelled

    def next_timeout(self, timeout: float | None) -> float | None:
        """Return the seconds that the next turn may wait: *timeout*, or less."""
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
                _call(*self._soon.popleft())
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
            self._writers.popleft()._compat_flush()
        self._end_audiences()

    def finish_turn(self, waker: Waker) -> None:
        """Run due callbacks, flush, and report the turn's duration to ``on_turn``."""
        if not self._turn_watchers:
            self.run_due()
            self.flush()
            return
        woke_at = time.monotonic() if waker.woke_at is None else waker.woke_at
        self.run_due()
        self.flush()
        seconds = time.monotonic() - woke_at
        for callback in tuple(self._turn_watchers):
            _call(callback, (seconds,))

    def wait_for_turn_end(self, audience: Log) -> None:
        """Flush a broadcast group at the end of the turn, after the channels."""
        self._audiences.append(audience)

    def _end_audiences(self) -> None:
        while self._audiences:
            # Remove a group only after its flush: Ctrl+C may come between two calls.
            if self._audiences[0]._compat_has_log:
                self._audiences[0]._compat_flush()
            else:
                self._audiences.popleft()

    def _after_fork(self) -> None:
        self._wakers[:] = [each for each in self._wakers if not each.left_behind]
        _registry.forget_if_idle(self)

    def _end_last_turn(self) -> None:
        """Like end_turn, but if one flush raises, the others still run."""
        with ExitStack() as stack:
            stack.callback(self._end_audiences)
            while self._writers:
                stack.callback(self._writers.pop()._compat_flush)

    @contextmanager
    def turned_with(self, waker: Waker) -> Iterator[None]:
        """Context manager: within it, wake-ups go to *waker*."""
        try:
            # Inside of the try: Ctrl+C may come after any call.
            self._wakers.append(waker)
            self._thread = get_ident()
            self._list_who_was_told_before()
            with waker.hearing_signals() if self._signals else nullcontext():
                yield
        finally:
            try:
                self._end_last_turn()
            finally:
                self._wakers.remove(waker)
                _registry.forget_if_idle(self)

    def _list_who_was_told_before(self) -> None:
        """Let the first turn flush data that was pushed before the loop began."""
        for channel in list(self.map.values()):
            # Through __dict__, because a map may hold any object.
            if getattr(channel, "__dict__", _NOTHING).get("_compat_added"):
                channel._compat_listed = True
                self._writers.append(channel)

    def _one_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > FEW_CANCELLED and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].pending]
            heapq.heapify(self._heap)
            self._cancelled = 0
        if not self._wakers:
            _registry.forget_if_idle(self)


def call_later(
    seconds: float, callback: Callable[..., object], *args: Any, map: Map | None = None
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
    callback: Callable[..., object], *args: Any, map: Map | None = None
) -> None:
    """Run ``callback(*args)`` in the loop of *map*, and end the loop's wait.

    Args:
        map: None for ``asyncore.socket_map``.

    Call this from any thread or from a signal handler. Callbacks run in the order of
    the calls. Without a running loop, the callback waits for one.

    Raises:
        TypeError: *callback* is not callable.
    """
    with _registry.lock:
        scheduler_of(map).call_soon_threadsafe(callback, *args)


def scheduler_of(map: Map | None) -> Scheduler:
    """Return the schedule of *map*; create it if necessary."""
    return _registry.scheduler_of(asyncore.socket_map if map is None else map)


def wake_other_thread(map: Map | None) -> None:
    """End the wait of the loop of *map*, if another thread runs that loop."""
    found = _registry.find(map)
    if found is not None and found._thread != get_ident():
        with _registry.lock:
            found.wake()


def at_turn_end(map: Map, writer: Writer) -> bool:
    """Flush *writer*, a channel of *map*, at the end of the turn; from any thread.

    Returns:
        False if no compat loop runs *map*.
    """
    found = _schedules.get(id(map))
    if found is None or not found._wakers:
        return False
    found._writers.append(writer)
    if found._thread != get_ident():
        wake_other_thread(map)
    return True


def running_here(map: Map) -> Scheduler | None:
    """Return the schedule of *map* if a compat loop runs it in this thread."""
    found = _registry.find(map)
    if found is None or not found._wakers or found._thread != get_ident():
        return None
    return found


@contextmanager
def on_signals(
    signums: Iterable[int], callback: Callable[[int], object], map: Map | None = None
) -> Iterator[None]:
    """Context manager: *signums* call ``callback(signum)`` in the loop of *map*.

    The callback runs between two turns, never in the middle of a handler. A signal ends
    the loop's wait at once. Enter it in the main thread, before the loop.

    If the loop runs in another thread, Python's signal handler in the main thread wakes
    it. A signal just as the main thread begins to block, as in ``Thread.join``, may be
    handled only after that call returns.

    Raises:
        ValueError: one of *signums* is not a signal number; or this is not the main
            thread, as from ``signal.signal``.
        OSError: one of the signals cannot be handled, such as SIGKILL.
        TypeError: *callback* is not callable.
    """

    def handler(signum: int, frame: object) -> None:
        call_soon_threadsafe(callback, signum, map=scheduler.map)

    _check(callback)
    scheduler = scheduler_of(map)
    with ExitStack() as stack:
        stack.callback(_registry.forget_if_idle, scheduler)
        for signum in signums:
            stack.callback(signal.signal, signum, _handle(signum, handler))
        scheduler._signals += 1
        try:
            yield
        finally:
            scheduler._signals -= 1


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
    _check(callback)
    scheduler = scheduler_of(map)
    scheduler._turn_watchers.append(callback)
    try:
        yield
    finally:
        scheduler._turn_watchers.remove(callback)
        _registry.forget_if_idle(scheduler)


def is_running(map: Map) -> bool:
    """Return whether a compat loop runs *map* now, so that its timers will run."""
    found = _registry.find(map)
    return found is not None and bool(found._wakers)


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
    return pair


def _check(callback: Callable[..., object]) -> None:
    if not callable(callback):
        raise TypeError(f"callback={callback!r} cannot be called")


def _checked_seconds(seconds: float) -> float:
    try:
        # Not float() alone, which also accepts a str.
        finite = math.isfinite(seconds)
    except (TypeError, ValueError, OverflowError):
        # Not a number; a decimal's signaling NaN; an int that no float can hold.
        finite = False
    if not (finite and seconds >= 0):
        raise ValueError(f"seconds must be finite and >= 0, got {shown(seconds)}")
    return float(seconds)


def _handle(signum: int, handler: Callable[[int, FrameType | None], object]) -> Any:
    """Install *handler* for a signal; return the previous handler.

    Raises:
        ValueError: *signum* is not a signal number. OSError: as from ``signal.signal``.
    """
    known = isinstance(signum, int) and signum in signal.valid_signals()
    if not known or isinstance(signum, bool):
        raise ValueError(f"signums must be numbers of signals, got {shown(signum)}")
    return signal.signal(signum, handler)


def _call(callback: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        callback(*args)
    except LEAVES:
        raise
    except Exception:
        _log("callback %r raised", callback)


def _log(message: str, *args: object) -> None:
    # Imported here: a program may have its own module named logging.
    import logging

    logging.getLogger("compat").exception(message, *args, stacklevel=2)


class _Registry:
    """All schedules: one per map with a running loop or anything scheduled."""

    def __init__(self) -> None:
        # By the map's id, because a dict cannot be a key. The schedule holds its map,
        # so the id is not reused while the schedule is registered.
        self._schedules: dict[int, Scheduler] = {}
        # Reentrant, because a signal handler may interrupt its holder.
        self.lock = RLock()

    def find(self, map: Map | None) -> Scheduler | None:
        return self._schedules.get(id(map))

    def scheduler_of(self, map: Map) -> Scheduler:
        with self.lock:
            found = self.find(map)
            if found is None:
                found = self._schedules[id(map)] = Scheduler(map)
            return found

    def forget_if_idle(self, scheduler: Scheduler) -> None:
        with self.lock:
            idle = not (
                scheduler._wakers
                or scheduler._audiences
                or scheduler.pending
                or scheduler._signals
                or scheduler._turn_watchers
            )
            if idle and self.find(scheduler.map) is scheduler:
                del self._schedules[id(scheduler.map)]


def _before_fork() -> None:
    # Otherwise both the parent and the child would send the queued data.
    for scheduler in list(_registry._schedules.values()):
        if scheduler._wakers and scheduler._thread == get_ident():
            scheduler.flush()


def _after_fork_in_child() -> None:
    # A thread that does not exist in the child may have held the lock.
    _registry.lock = RLock()
    Waker._after_fork()
    for scheduler in list(_registry._schedules.values()):
        scheduler._after_fork()


class _Life:
    """An object that lives as long as its thread. Thread numbers are reused."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.life = _Life()


_this_thread = _Thread()
_registry = _Registry()
_schedules = _registry._schedules

at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
