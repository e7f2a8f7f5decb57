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
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeAlias

from compat._runtime import this_thread
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
    "MissingLoopError",
    "UnknownLoopError",
    "WithWaker",
    "choose",
    "close_kept",
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


class Loop(NamedTuple):
    """A row of the table LOOPS: a loop's name and its functions."""

    name: str
    turned_by: str
    is_here: Callable[[], bool]
    # Context manager: yields the function that runs one turn of a map, and polls the
    # waker, too. lasting: there will be more than a turn or two. as_poll2: dispatch as
    # asyncore.poll2 does.
    entered: Callable[[Map, Waker | None, bool, bool], AbstractContextManager[Turn]]


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
        return Choice(_checked(name, f"loop={name!r}"), "requested by name")
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "auto"):
        return Choice(_checked(wanted, f"{VARIABLE}={wanted!r}"), f"from {VARIABLE}")
    best = selectors.DefaultSelector.__name__
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
        use_poll: as in asyncore: make the calls of ``asyncore.poll2``, on any loop. It
            passes hang-ups and errors to ``handle_close`` whatever the interest, and
            a negative timeout waits without limit. Ignored if the platform lacks poll.
        map: None for the current ``asyncore.socket_map``.
        count: number of turns; None for no limit, 0 runs none.
        loop: a key of LOOPS, or "auto".
        wait_for_timers: continue with an empty map while a timer or a callback from
            another thread is pending. asyncore's loop ends with an empty map.

    Raises:
        ExitNow: also KeyboardInterrupt and SystemExit, from a handler or a callback.
            Any other exception goes to the channel's ``handle_error``, or to the log.
        UnknownLoopError: also MissingLoopError, as from ``choose``.

    Source: CPython 3.11, Lib/asyncore.py, loop().
    """
    if map is None:
        map = asyncore.socket_map
    name = choose(loop).name
    as_poll2 = name == "poll" or (use_poll and LOOPS["poll"].is_here())
    if timeout is not None and not use_poll:
        # select() and poll() reject a time that is too large for them.
        timeout = min(timeout, LONGEST_WAIT)
    scheduler = scheduler_of(map)
    with (
        _waker(scheduler, keep=count is not None) as waker,
        LOOPS[name].entered(map, waker, count is None, as_poll2) as turn,
    ):
        flush_pushes_at_turn_end(map)
        while (map or (wait_for_timers and scheduler.pending)) and (
            count is None or count > 0
        ):
            if as_poll2:
                timeout = as_poll2_waits(timeout)
            turn(scheduler.next_timeout(timeout))
            scheduler.finish_turn(waker)
            if count is not None:
                count -= 1


def _checked(name: str, given: str) -> str:
    if name not in LOOPS:
        raise UnknownLoopError(f"{given} is none of {', '.join(('auto', *LOOPS))}")
    if not LOOPS[name].is_here():
        raise MissingLoopError(f"{given}: this platform does not have it")
    return name


class WithWaker:
    """A view of a map plus the waker, for asyncore.poll and poll2.

    The caller's map does not change: a program may count or close its channels.
    """

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


@contextmanager
def _waker(scheduler: Scheduler, *, keep: bool) -> Iterator[Waker]:
    """Context manager: yield the waker of one loop().

    The end of the outermost loop closes waker and selectors, unless *keep* is set and
    the map is not empty: a program may call loop(count=1) a million times.
    """
    here = this_thread
    here.waker = waker = _waker_beside(scheduler.map)
    here.depth += 1
    try:
        with scheduler.running_with(waker):
            yield waker
    finally:
        here.depth -= 1
        if here.depth == 0 and not (keep and scheduler.map):
            close_kept()


def _waker_beside(map: Map) -> Waker:
    """Return a waker whose descriptors are not keys of the map.

    The map may still hold channels whose sockets are closed; the kernel reuses their
    numbers.
    """
    waker: Waker | None = this_thread.waker
    if waker is not None:
        waker.reopen_if_closed()
        if this_thread.depth:
            return waker
    waker = waker or Waker()
    taken = []
    while any(fd in map for fd in waker.descriptors):
        taken.append(waker)
        waker = Waker()
    for each in taken:
        each.close()
    return waker


@contextmanager
def _selector_loop(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> Iterator[Turn]:
    here = this_thread
    descriptors = _kept_descriptors(map)
    running = SelectorLoop(map, waker, descriptors, lasting=lasting, as_poll2=as_poll2)
    try:
        # Inside of the try: Ctrl+C may come after any call.
        here.running.append(running)
        yield running.turn
    except BaseException:
        # Drop them: the exception may have interrupted an update.
        kept = here.descriptors.items()
        here.descriptors = {key: each for key, each in kept if each is not descriptors}
        raise
    finally:
        here.running.pop()
        running.leave()
        for outer in here.running:
            outer.invalidate()
        if descriptors not in here.descriptors.values():
            descriptors.close()


def _kept_descriptors(map: Map) -> Descriptors:
    """Return the registrations of this thread's last loop of *map*, or new ones.

    A nested loop has its own.
    """
    in_use = [each.descriptors for each in this_thread.running]
    # The id is only a hint: each loop resyncs with the map that it is given. The wrong
    # registrations merely need more changes.
    kept: dict[int, Descriptors] = this_thread.descriptors
    kept[id(map)] = found = kept.pop(id(map), None) or Descriptors()
    if len(kept) > FEW_MAPS:
        kept.pop(next(key for key, each in kept.items() if each not in in_use)).close()
    return Descriptors() if found in in_use else found


def close_kept() -> None:
    """Close the waker and the selectors that this thread keeps between its loops."""
    # Remove before closing: Ctrl+C must not leave closed objects there.
    kept, this_thread.descriptors = this_thread.descriptors, {}
    waker, this_thread.waker = this_thread.waker, None
    for descriptors in kept.values():
        descriptors.close()
    if waker is not None:
        waker.close()


@contextmanager
def _enter_select(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> Iterator[Turn]:
    view = map if waker is None else WithWaker(map, waker)
    name = "poll2" if as_poll2 else "poll"
    yield lambda timeout: ORIGINALS[name](timeout, view)


def _enter_poll(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> AbstractContextManager[Turn]:
    return _enter_select(map, waker, lasting, as_poll2=True)


def _enter_selectors(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> AbstractContextManager[Turn]:
    # Only epoll reports the hang-ups and errors that poll2 needs.
    enter = _enter_poll if as_poll2 and not is_epoll_default() else _selector_loop
    return enter(map, waker, lasting, as_poll2)


LOOPS = {
    row.name: row
    for row in (
        Loop(
            "select",
            "asyncore.poll",
            lambda: hasattr(select, "select"),
            _enter_select,
        ),
        Loop(
            "poll",
            "asyncore.poll2",
            lambda: hasattr(select, "poll"),
            _enter_poll,
        ),
        Loop(
            "selectors",
            "compat.selector_loop, on selectors.DefaultSelector",
            lambda: True,
            _enter_selectors,
        ),
    )
}
