"""The event loops: choosing one, and running it.

Rule 1: a loop that is requested by name is used, or is an error; only "auto" chooses.
Rule 2: choosing a loop has no side effects, so callers need no cleanup.
Rule 3: the original classes are never changed. A loop is only a function of a timeout
and a map: it polls the channels' interest, waits, and dispatches.
Rule 4: without timers and other threads, ``loop`` behaves as asyncore's ``loop``: the
same turns, the same end.
"""

from __future__ import annotations

import asyncore
import os
import select
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import get_ident
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from compat._runtime import this_process, this_thread
from compat._types import Map
from compat.async_chat import flush_pushes_at_turn_end
from compat.descriptors import Descriptors
from compat.pollers import LONGEST_WAIT, as_poll2_waits, is_epoll_default
from compat.scheduler import Scheduler, scheduler_of
from compat.selector_loop import SelectorLoop
from compat.wakeup import Waker

__all__ = [
    "LOOPS",
    "Choice",
    "LoopType",
    "MissingLoopError",
    "UnknownLoopError",
    "WithWaker",
    "choose",
    "close_kept",
    "enter",
    "loop",
]

# The environment variable that overrides "auto".
VARIABLE = "COMPAT_LOOP"

# asyncore's own functions, which stay available while install() replaces them.
ORIGINALS = {"poll": asyncore.poll, "poll2": asyncore.poll2}

# Maps whose selectors a thread keeps; alternating between more maps registers anew.
FEW_MAPS = 8

# Runs one turn that waits at most the given seconds; None waits without limit.
Turn: TypeAlias = Callable[[float | None], None]


class UnknownLoopError(ValueError):
    """There is no loop with this name."""


class MissingLoopError(RuntimeError):
    """The platform lacks the loop with this name."""


class LoopType(NamedTuple):
    """A value of LOOPS: the implementation's name for display, and its condition."""

    implementation: str
    is_available: Callable[[], bool]


class Choice(NamedTuple):
    """A loop's name, and the reason for the choice, for display."""

    name: str
    why: str


def choose(name: str = "auto") -> Choice:
    """Choose the loop for *name*. "auto" uses COMPAT_LOOP, else the platform's best.

    Raises:
        UnknownLoopError: *name* or COMPAT_LOOP is neither "auto" nor a key of LOOPS.
        MissingLoopError: this platform lacks the loop.
    """
    if name != "auto":
        return Choice(_checked(name, "loop"), "requested by name")
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "auto"):
        return Choice(_checked(wanted, VARIABLE), f"from {VARIABLE}")
    best = selectors.DefaultSelector.__name__
    # Windows. Elsewhere there is epoll, kqueue, /dev/poll or poll.
    if best == "SelectSelector":
        return Choice("select", "auto: this platform has nothing better")
    return Choice("selectors", f"auto: this platform has {best}")


def loop(
    timeout: float | None = 30.0,
    use_poll: bool = False,
    map: Map | None = None,
    count: int | None = None,
    *,
    loop: str = "auto",
    wait_for_timers: bool = False,
) -> None:
    """Run the event loop until the map is empty, or for *count* turns.

    Args:
        timeout: maximum seconds that one turn waits; not a limit on the whole loop.
        use_poll: call as ``asyncore.poll2``, if the platform has poll: hang-ups go to
            ``handle_close`` at once. A negative timeout waits without limit.
        map: None for ``asyncore.socket_map``.
        count: number of turns; None for no limit.
        loop: a key of LOOPS, or "auto".
        wait_for_timers: run on with an empty map while a timer or callback is pending.

    Raises:
        ExitNow: also KeyboardInterrupt and SystemExit, from a handler or a callback.
            Any other exception goes to the channel's ``handle_error``, or to the log.
        UnknownLoopError: also MissingLoopError, as from ``choose``.

    Source: CPython 3.11, Lib/asyncore.py, loop().
    """
    map = asyncore.socket_map if map is None else map
    name = choose(loop).name
    as_poll2 = name == "poll" or (use_poll and LOOPS["poll"].is_available())
    with (
        _scheduled(map, keep=count is not None) as (scheduler, waker),
        enter(name, map, waker, lasting=count is None, as_poll2=as_poll2) as turn,
    ):
        while count is None or count > 0:
            if not (map or (wait_for_timers and scheduler.pending)):
                return
            turn(scheduler.next_timeout(_seconds(timeout, use_poll, as_poll2)))
            scheduler.finish_turn(waker)
            count = count and count - 1


def enter(
    name: str, map: Map, waker: Waker | None = None, *, lasting: bool, as_poll2: bool
) -> AbstractContextManager[Turn]:
    """Context manager: yield the function that runs one turn of the loop *name*.

    Args:
        waker: ends the wait of a turn.
        lasting: whether more than a turn or two will follow.
        as_poll2: dispatch as ``asyncore.poll2`` does.
    """
    as_poll2 = as_poll2 or name == "poll"
    # Only epoll reports the hang-ups and errors that poll2 needs.
    if name == "selectors" and (not as_poll2 or is_epoll_default()):
        return _selector_turn(map, waker, lasting, as_poll2)
    # These have no registrations, so each turn passes all descriptors to the kernel.
    original = ORIGINALS["poll2" if as_poll2 else "poll"]
    view = map if waker is None else WithWaker(map, waker)
    return nullcontext(lambda timeout: original(timeout, view))


def close_kept() -> None:
    """Close the waker and the selectors that this thread keeps between its loops."""
    # Remove before closing: Ctrl+C must not leave closed objects there.
    kept, this_thread.loops = this_thread.loops, {}
    waker, this_thread.waker = this_thread.waker, None
    for each in kept.values():
        each.descriptors.close()
    if waker is not None:
        waker.close()


def _checked(name: str, given_by: str) -> str:
    if name not in LOOPS:
        names = ", ".join(("auto", *LOOPS))
        raise UnknownLoopError(f"{given_by}={name!r} is none of {names}")
    if not LOOPS[name].is_available():
        raise MissingLoopError(f"{given_by}={name!r}: this platform does not have it")
    return name


def _seconds(timeout: float | None, use_poll: bool, as_poll2: bool) -> float | None:
    if timeout is not None and not use_poll:
        # select() and poll() reject a time that is too large for them.
        timeout = min(timeout, LONGEST_WAIT)
    return as_poll2_waits(timeout) if as_poll2 else timeout


# asyncore's own loops accept a waker only as a channel in their map. The caller's map
# must not change, because a program may count or close its channels. Therefore they
# poll a view: the two methods of a map that they call, and the waker as its last item.


class WithWaker:
    """A view of a map plus the waker, for asyncore.poll and poll2."""

    def __init__(self, map: Map, waker: Waker) -> None:
        self.map = map
        self._waker = waker

    def __len__(self) -> int:
        return len(self.map) + 1

    def items(self) -> list[tuple[Any, Any]]:
        self._waker.woke_at = None
        return [*self.map.items(), (self._waker.fileno(), self._waker)]

    def get(self, key: Any) -> Any:
        if self._waker.woke_at is None:
            # The first lookup is for the first ready channel: the wait has ended.
            self._waker.woke_at = time.monotonic()
        channel = self.map.get(key)
        if channel is None and key == self._waker.fileno():
            return self._waker
        return channel


# A loop could close its descriptors at its end. But a program may call loop(count=1) a
# million times, in its own loop. Therefore a thread keeps one waker for all its loops,
# and the descriptors of a few maps, until a loop without a count ends, or its map is
# empty. Nested loops share the waker; each has its own descriptors, because an event
# that one of them receives would be missed by the other.


@contextmanager
def _scheduled(map: Map, *, keep: bool) -> Iterator[tuple[Scheduler, Waker]]:
    """Context manager: run the map's scheduler; with *keep*, keep the waker open."""
    scheduler, here, reports = scheduler_of(map), this_thread, this_process.reports
    here.waker = waker = _waker_beside(map)
    here.depth += 1
    try:
        # Inside of the try: Ctrl+C may come after any call.
        scheduler.wakers.append(waker)
        scheduler.thread = get_ident()
        if here.flushed != (id(map), reports):
            # A push without a loop counts as a report.
            flush_pushes_at_turn_end(map)
        here.flushed = (0, 0)
        with scheduler.until_signal(waker):
            yield scheduler, waker
        here.flushed = (id(map), reports)
    finally:
        try:
            scheduler.flush_last_turn()
        finally:
            here.depth -= 1
            scheduler.wakers.remove(waker)
            scheduler.forget_if_idle()
            if here.depth == 0 and not (keep and map):
                close_kept()


def _waker_beside(map: Map) -> Waker:
    # The map may still hold channels whose sockets are closed. The kernel reuses their
    # numbers, so a new waker may get one that is a key of the map.
    waker: Waker | None = this_thread.waker
    if waker is not None:
        waker.reopen_if_closed()
        if this_thread.depth:
            return waker
    waker = waker or Waker()
    unusable = []
    reader, writer = waker.descriptors
    while reader in map or writer in map:
        unusable.append(waker)
        waker = Waker()
        reader, writer = waker.descriptors
    for each in unusable:
        each.close()
    return waker


@contextmanager
def _selector_turn(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> Iterator[Turn]:
    here = this_thread
    running = _kept_loop(map, waker, lasting, as_poll2)
    try:
        # Inside of the try: Ctrl+C may come after any call.
        here.running.append(running)
        running.enter(map)
        yield running.turn
    except BaseException:
        # Drop it: the exception may have interrupted an update.
        kept = here.loops.items()
        here.loops = {key: each for key, each in kept if each is not running}
        raise
    finally:
        here.running.pop()
        running.leave()
        # The handlers may have changed channels of the loops around this one.
        for outer in here.running:
            outer.invalidate()
        # Not kept: that of a nested loop on the same map, and that of a loop that an
        # exception has ended.
        if running not in here.loops.values():
            running.descriptors.close()


def _kept_loop(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> SelectorLoop:
    # This thread's last loop of the map, or a new one; not one that is still running.
    # The id is only a hint: each loop compares its registrations with the map that it
    # is given. The wrong registrations merely need more changes.
    kept: dict[int, SelectorLoop] = this_thread.loops
    running: list[SelectorLoop] = this_thread.running
    # A map of weak references must empty itself while the loop waits.
    caches = lasting and not isinstance(map, WeakValueDictionary)
    found = kept.pop(id(map), None)
    is_running = found in running
    if found is None or not (is_running or found.fits(waker, caches, as_poll2)):
        descriptors = found.descriptors if found else Descriptors()
        found = SelectorLoop(waker, descriptors, caches, as_poll2)
    kept[id(map)] = found
    # The dict is in the order of last use. A running loop's descriptors stay open: its
    # turns would register everything again.
    if len(kept) > FEW_MAPS:
        oldest = next(key for key, each in kept.items() if each not in running)
        kept.pop(oldest).descriptors.close()
    if is_running:
        return SelectorLoop(waker, Descriptors(), caches, as_poll2)
    return found


LOOPS = {
    "select": LoopType("asyncore.poll", lambda: hasattr(select, "select")),
    "poll": LoopType("asyncore.poll2", lambda: hasattr(select, "poll")),
    "selectors": LoopType(
        "compat.selector_loop, on selectors.DefaultSelector", lambda: True
    ),
}
