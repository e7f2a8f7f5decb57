"""Timers and wake-ups: what asyncore never had, on every loop.

Rule 1: a schedule belongs to a map; whichever loop turns that map runs it, after the
turn's reads, writes and exceptional conditions.
Rule 2: ``call_soon_threadsafe`` may be called from any thread and from a signal
handler; everything else belongs to the thread that turns the map.
Rule 3: what a callback raises is logged and ends nothing, except what leaves an
asyncore loop too: ExitNow, KeyboardInterrupt, SystemExit.
Rule 4: a schedule with nothing in it and no loop running is forgotten.
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

from compat.backends import LONGEST_WAIT
from compat.channels import LEAVES, Map
from compat.files import OpenFile, file_behind
from compat.forks import at_fork
from compat.locks import RLock
from compat.values import shown

__all__ = [
    "Schedule",
    "Timer",
    "Waker",
    "at_turn_end",
    "call_later",
    "call_soon_threadsafe",
    "is_turned",
    "on_signals",
    "on_turn",
    "schedule_of",
    "turned_here",
    "wake_other_thread",
]

# Cancelled timers stay in the heap until they come up, or until there are this many
# of them and they are the greater part.
FEW_CANCELLED = 64

_NOTHING: dict[str, Any] = {}


class Timer:
    """What ``call_later`` returns: a callback that has not run yet.

    Attributes:
        when: the time at which it is due, on the clock of ``time.monotonic``.
    """

    __slots__ = ("_args", "_callback", "_schedule", "when")

    def __init__(
        self,
        schedule: Schedule,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        self.when = when
        self._schedule = schedule
        self._callback: Callable[..., object] | None = callback
        self._args = args

    def cancel(self) -> None:
        """Let it never run. Harmless when it has run or was cancelled already."""
        if self._callback is not None:
            self._callback, self._args = None, ()
            self._schedule._one_cancelled()

    @property
    def pending(self) -> bool:
        """True until it has run or was cancelled."""
        return self._callback is not None

    def _run(self) -> None:
        callback, args = self._callback, self._args
        self._callback, self._args = None, ()
        if callback is not None:
            _call(callback, args)


class Waker:
    """Ends the wait of the thread that turns a loop, from another thread.

    It is a channel that is always readable and belongs to no map of the caller's:
    a byte written to one end of a socket pair makes the other end ready, on every
    loop. A signal's byte arrives here too, by way of ``signal.set_wakeup_fd``.

    A daemon closes every descriptor that it knows nothing of, mostly after a fork, and
    soon the numbers are those of its log or of a client. So each end is known by its
    file, and one that is another's by now is neither used nor closed. Only a signal's
    byte is written to a number, from C: after a fork not before the next turn, which
    knows; a program that closes everything without one has it written to whoever has
    the number by then.
    """

    accepting = False

    _all: ClassVar[weakref.WeakSet[Waker]] = weakref.WeakSet()

    # What is to be closed; nothing, if Ctrl-C came before there was a socket pair.
    _ends: tuple[tuple[socket.socket, OpenFile], ...] = ()

    # This is a forked child, in which the program may just be closing everything.
    _forked = False

    _hears_signals = False

    # When the wait of this turn was over, by time.monotonic; None before.
    woke_at: float | None = None

    def __init__(self) -> None:
        self._life = weakref.ref(_this_thread.life)
        self._open()
        Waker._all.add(self)

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor that becomes readable; a loop asks for it in every turn."""
        if self._forked:
            self._forked = False
            if self.mend():
                # What was said to the old pair.
                self.wake()
            elif self._hears_signals:
                self._hear_signals()
        return self._reader.fileno()

    def signal_fd(self) -> int:
        """The descriptor to write to; for ``signal.set_wakeup_fd``."""
        return self._writer.fileno()

    def wake(self) -> None:
        """End the present wait, or the next one if there is none."""
        if self._forked and not self._is_whole():
            return
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            # Full of earlier wake-ups: the reader is ready as it is.
            return
        except OSError as error:
            # Closed by the thread that has turned the loop: nobody waits any more.
            if error.errno != errno.EBADF:
                raise

    @property
    def left_behind(self) -> bool:
        """Is its thread gone? A fork takes only one along."""
        return self._life() is None

    @contextmanager
    def hearing_signals(self) -> Iterator[None]:
        """While this lasts, a signal ends the wait."""
        # A handler in Python runs when the wait is over; the wait must be ended from C.
        # Without this, a signal between the last look and the wait is slept through.
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
        """Begin a new pair if the program has closed this one. Was there need to?"""
        if self._is_whole():
            return False
        self.close()
        self._open()
        if self._hears_signals:
            self._hear_signals()
        return True

    def close(self) -> None:
        """Give back both descriptors, unless they are another's by now."""
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
            # This is not the main thread. There the handler runs, and wakes this one.
            return None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        """Take what has come. Who wakes has left word in the schedule before."""
        try:
            while len(self._reader.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def handle_write_event(self) -> None:
        """Never asked for."""

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
                # The child may close everything now, and this is not looked at in C.
                signal.set_wakeup_fd(-1)
            if waker._is_whole():
                waker._renew()

    def _renew(self) -> None:
        # Parent and child would read each other's wake-ups. The numbers stay: select()
        # may be waiting for one of them.
        try:
            pair = _socket_pair()
        except OSError:
            # No number is free, but for these two.
            self.close()
            self._open()
            return
        for (end, _), new in zip(self._ends, pair, strict=True):
            with new:
                os.dup2(new.fileno(), end.fileno(), inheritable=False)
        self._know_ends()


class Writer(Protocol):
    """What has something to write at the end of a turn."""

    def _compat_turn_ends(self) -> None:
        """Write it. A second call finds nothing to do."""


class Log(Writer, Protocol):
    """What an audience is told in a turn."""

    @property
    def _compat_has_log(self) -> bool:
        """Has this turn begun a log that is not written yet?"""


class Schedule:
    """One map's timers, calls from other threads, and writers at the end of a turn."""

    def __init__(self, map: Map) -> None:
        self.map = map
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        self._cancelled = 0
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._wakers: list[Waker] = []
        # The thread that turns the map.
        self._thread = 0
        # How many on_signals() last.
        self._signals = 0
        # Who wants to know how long a turn took.
        self._turn_watchers: list[Callable[[float], object]] = []
        # Who has something to write when the turn is over: channels, then audiences.
        self._writers: deque[Writer] = deque()
        self._audiences: deque[Log] = deque()

    def call_later(
        self, seconds: float, callback: Callable[..., object], *args: Any
    ) -> Timer:
        """See the function of that name. O(log n) in the number of timers."""
        _check(callback)
        when = time.monotonic() + _checked_seconds(seconds)
        timer = Timer(self, when, callback, args)
        self._number += 1
        heapq.heappush(self._heap, (timer.when, self._number, timer))
        return timer

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """See the function of that name."""
        _check(callback)
        self._soon.append((callback, args))
        self.wake()

    def wake(self) -> None:
        """End the wait of the loop that turns the map, if one does."""
        # At most one; the loop's thread may take it away between two looks.
        for waker in self._wakers[-1:]:
            waker.wake()

    @property
    def pending(self) -> bool:
        """Is there anything that a loop would still run?"""
        return bool(self._soon) or len(self._heap) > self._cancelled

    def patience(self, timeout: float | None) -> float | None:
        """How many seconds the next turn may wait: *timeout*, or less."""
        if self._soon or self._writers:
            return 0.0
        while self._heap and not self._heap[0][2].pending:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        if not self._heap:
            return timeout
        # The product below is infinite for a time that lies too far ahead.
        left = min(self._heap[0][0] - time.monotonic(), LONGEST_WAIT)
        # Up to whole milliseconds: asyncore's poll2 cuts the rest off with int(), and
        # a loop that wakes half a millisecond early turns idly until the time has come.
        left = max(0.0, math.ceil(left * 1000) / 1000)
        return left if timeout is None else min(left, timeout)

    def run_due(self) -> None:
        """Run what other threads have asked for, then the timers whose time has come.

        What a callback adds waits for the next turn, so that nothing starves the
        channels.
        """
        newest, now = self._number, time.monotonic()
        for _ in range(len(self._soon)):
            # A callback may have turned a loop of its own, which has run the rest.
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

    def end_turn(self) -> None:
        """Let everybody write what the turn has gathered.

        What is queued by that waits for the end of the next turn, which begins at once.
        """
        for _ in range(len(self._writers)):
            self._writers.popleft()._compat_turn_ends()
        self._end_audiences()

    def turn_over(self, waker: Waker) -> None:
        """Run what is due, let everybody write, and say how long the turn took."""
        if not self._turn_watchers:
            self.run_due()
            self.end_turn()
            return
        woke_at = time.monotonic() if waker.woke_at is None else waker.woke_at
        self.run_due()
        self.end_turn()
        seconds = time.monotonic() - woke_at
        for callback in tuple(self._turn_watchers):
            _call(callback, (seconds,))

    def wait_for_turn_end(self, audience: Log) -> None:
        """Let an audience write when the channels have."""
        self._audiences.append(audience)

    def _end_audiences(self) -> None:
        while self._audiences:
            # Ctrl+C may come between any two calls, so it stays here until then.
            if self._audiences[0]._compat_has_log:
                self._audiences[0]._compat_turn_ends()
            else:
                self._audiences.popleft()

    def _after_fork(self) -> None:
        self._wakers[:] = [each for each in self._wakers if not each.left_behind]
        _registry.forget_if_idle(self)

    def _end_last_turn(self) -> None:
        """As end_turn; and if one of them raises, the others write all the same."""
        with ExitStack() as stack:
            stack.callback(self._end_audiences)
            while self._writers:
                stack.callback(self._writers.pop()._compat_turn_ends)

    @contextmanager
    def turned_with(self, waker: Waker) -> Iterator[None]:
        """While this lasts, wake-ups go to *waker*."""
        try:
            # In here, for Ctrl+C may come when any call is over.
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
        """What is pushed between two loops belongs to the first turn of the next."""
        for channel in list(self.map.values()):
            # By its dict, for anything may be in a map.
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
    """Run ``callback(*args)`` in the loop that turns *map*, *seconds* from now.

    Args:
        seconds: 0 or more, and finite. With 0 it runs at the end of the next turn.
        map: None for ``asyncore.socket_map``.

    Call it in the thread that turns the map. The timer waits for a loop if none is
    running yet; asyncore's own ``loop`` does not run it.

    Raises:
        ValueError: *seconds* is negative, no number, or no finite float.
        TypeError: *callback* cannot be called.
    """
    return schedule_of(map).call_later(seconds, callback, *args)


def call_soon_threadsafe(
    callback: Callable[..., object], *args: Any, map: Map | None = None
) -> None:
    """Run ``callback(*args)`` in the loop that turns *map*, and wake it if it waits.

    Args:
        map: None for ``asyncore.socket_map``.

    It may be called from any thread and from a signal handler. Callbacks run in the
    order of the calls. The call waits for a loop if none is running yet.

    Raises:
        TypeError: *callback* cannot be called.
    """
    with _registry.lock:
        schedule_of(map).call_soon_threadsafe(callback, *args)


def schedule_of(map: Map | None) -> Schedule:
    """The schedule of *map*, made if there is none."""
    return _registry.schedule_of(asyncore.socket_map if map is None else map)


def wake_other_thread(map: Map | None) -> None:
    """End the wait of the loop that turns *map*, if that is another thread's."""
    found = _registry.find(map)
    if found is not None and found._thread != get_ident():
        with _registry.lock:
            found.wake()


def at_turn_end(map: Map, writer: Writer) -> bool:
    """Let a channel of *map* write when the turn is over; False if no loop turns it.

    It may be called from any thread.
    """
    found = _schedules.get(id(map))
    if found is None or not found._wakers:
        return False
    found._writers.append(writer)
    if found._thread != get_ident():
        wake_other_thread(map)
    return True


def turned_here(map: Map) -> Schedule | None:
    """The schedule of *map*, if one of our loops turns it in this thread."""
    found = _registry.find(map)
    if found is None or not found._wakers or found._thread != get_ident():
        return None
    return found


@contextmanager
def on_signals(
    signums: Iterable[int], callback: Callable[[int], object], map: Map | None = None
) -> Iterator[None]:
    """While this lasts, these signals call ``callback(signum)`` in the loop of *map*.

    The callback runs between two turns, never in the middle of a handler, and a loop
    that waits is woken at once. Enter it in the main thread, before the loop.

    A loop in another thread is told by Python's own handler, which runs in the main
    thread: a signal that comes just as that one begins to wait for something, as in
    ``Thread.join``, may not be seen before its wait is over.

    Raises:
        ValueError: one of *signums* is no signal's number; or this is not the main
            thread, as from ``signal.signal``.
        OSError: one of the signals cannot be handled, as SIGKILL.
        TypeError: *callback* cannot be called.
    """

    def handler(signum: int, frame: object) -> None:
        call_soon_threadsafe(callback, signum, map=schedule.map)

    _check(callback)
    schedule = schedule_of(map)
    with ExitStack() as stack:
        stack.callback(_registry.forget_if_idle, schedule)
        for signum in signums:
            stack.callback(signal.signal, signum, _handle(signum, handler))
        schedule._signals += 1
        try:
            yield
        finally:
            schedule._signals -= 1


@contextmanager
def on_turn(
    callback: Callable[[float], object], map: Map | None = None
) -> Iterator[None]:
    """While this lasts, call ``callback(seconds)`` after every turn of *map*'s loop.

    Args:
        callback: is given the seconds from the end of the turn's wait to its own end:
            how long the channels had nobody who listened to them.
        map: None for ``asyncore.socket_map``.

    What the callback raises is logged, as a timer's errors are. asyncore's own ``loop``
    does not call it.

    Raises:
        TypeError: *callback* cannot be called.
    """
    _check(callback)
    schedule = schedule_of(map)
    schedule._turn_watchers.append(callback)
    try:
        yield
    finally:
        schedule._turn_watchers.remove(callback)
        _registry.forget_if_idle(schedule)


def is_turned(map: Map) -> bool:
    """Does a loop of ours turn *map* now, so that its timers will run?"""
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
        # Not float() alone, which reads a str, too.
        finite = math.isfinite(seconds)
    except (TypeError, ValueError, OverflowError):
        # No number; a signaling NaN of decimal's; an int that no float can hold.
        finite = False
    if not (finite and seconds >= 0):
        raise ValueError(f"seconds must be finite and >= 0, got {shown(seconds)}")
    return float(seconds)


def _handle(signum: int, handler: Callable[[int, FrameType | None], object]) -> Any:
    """Let *handler* handle a signal; return the handler before.

    Raises:
        ValueError: *signum* is no signal's number. OSError: as from ``signal.signal``.
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
    # Not above: a program may have a module of its own that is called logging.
    import logging

    logging.getLogger("compat").exception(message, *args, stacklevel=2)


class _Registry:
    """The schedules there are: one for each map that is turned, or has a timer."""

    def __init__(self) -> None:
        # By the map's id, for a dict can be no key. The schedule holds its map, so
        # the id is not given out again while it is here.
        self._schedules: dict[int, Schedule] = {}
        # Reentrant, because a signal handler runs in the middle of anything.
        self.lock = RLock()

    def find(self, map: Map | None) -> Schedule | None:
        return self._schedules.get(id(map))

    def schedule_of(self, map: Map) -> Schedule:
        with self.lock:
            found = self.find(map)
            if found is None:
                found = self._schedules[id(map)] = Schedule(map)
            return found

    def forget_if_idle(self, schedule: Schedule) -> None:
        with self.lock:
            idle = not (
                schedule._wakers
                or schedule._audiences
                or schedule.pending
                or schedule._signals
                or schedule._turn_watchers
            )
            if idle and self.find(schedule.map) is schedule:
                del self._schedules[id(schedule.map)]


def _before_fork() -> None:
    # What is queued would be written twice, by the parent and by the child.
    for schedule in list(_registry._schedules.values()):
        if schedule._wakers and schedule._thread == get_ident():
            schedule.end_turn()


def _after_fork_in_child() -> None:
    # Another thread may have held it, and that thread is not here any more.
    _registry.lock = RLock()
    Waker._after_fork()
    for schedule in list(_registry._schedules.values()):
        schedule._after_fork()


class _Life:
    """As long as a thread's. Its number says less: it is given out again."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.life = _Life()


_this_thread = _Thread()
_registry = _Registry()
_schedules = _registry._schedules

at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
