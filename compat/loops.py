"""Which loop turns the channels, and why that one; then turning them.

Rule 1: a loop asked for by name is used or is an error; only "auto" may choose.
Rule 2: choosing changes nothing, so that it can be asked without cleaning up.
Rule 3: the original classes are never touched. A loop is a function of a timeout and a
map that asks each channel what it wants, waits, and calls it; that is all it is.
Rule 4: with no timers and no other threads, ``loop`` is asyncore's ``loop``: the same
turns, the same end.
"""

from __future__ import annotations

import asyncore
import os
import select
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeAlias

from compat.backends import LONGEST_WAIT, as_poll2_waits, is_epoll_default
from compat.channels import Map
from compat.schedule import Schedule, Waker, schedule_of
from compat.selector_loop import SelectorLoop

__all__ = [
    "LOOPS",
    "Choice",
    "MissingLoopError",
    "UnknownLoopError",
    "choose",
    "loop",
]

# Sets what "auto" means.
VARIABLE = "COMPAT_LOOP"

# asyncore's own, which stay within reach while install() has put ours in their place.
ORIGINALS = {"poll": asyncore.poll, "poll2": asyncore.poll2}

# One turn, of at most so many seconds; None waits until something is ready.
Turn: TypeAlias = Callable[[float | None], None]


class UnknownLoopError(ValueError):
    """No loop has this name."""


class MissingLoopError(RuntimeError):
    """This platform does not have the loop of this name."""


class Loop(NamedTuple):
    """A row of the table: a name and what stands behind it."""

    name: str
    turned_by: str
    is_here: Callable[[], bool]
    # Gives the turns of a map. A waker is watched beside it; lasting says that there
    # will be more than a turn or two, as_poll2 that the calls are asyncore.poll2's.
    entered: Callable[[Map, Waker | None, bool, bool], AbstractContextManager[Turn]]


class Choice(NamedTuple):
    """A loop's name, and why it was chosen, for people."""

    name: str
    why: str


def choose(name: str = "auto") -> Choice:
    """Say which loop *name* stands for. "auto" asks COMPAT_LOOP, then the platform.

    Raises:
        UnknownLoopError: neither "auto" nor a key of LOOPS; COMPAT_LOOP likewise.
        MissingLoopError: there is such a loop, but not on this platform.
    """
    if name != "auto":
        return Choice(_checked(name, f"loop={name!r}"), "asked for by name")
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "auto"):
        return Choice(_checked(wanted, f"{VARIABLE}={wanted!r}"), f"{VARIABLE} says so")
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
    """Turn the channels until the map is empty, or *count* times.

    Args:
        timeout: seconds that one turn may wait; not a limit on the whole loop.
        use_poll: as in asyncore: make the calls that ``asyncore.poll2`` makes, on any
            loop. It hands hang-ups and errors to ``handle_close`` whether they were
            asked for or not, and waits without end for a negative timeout. Ignored
            where the platform has no poll.
        map: None for ``asyncore.socket_map`` as it is at the call.
        count: turns; None for no limit, 0 for none.
        loop: a key of LOOPS, or "auto".
        wait_for_timers: go on with an empty map for as long as a timer or a call
            from another thread is pending. asyncore's loop ends with the map.

    Raises:
        ExitNow: and KeyboardInterrupt, SystemExit: from a handler or a timer. Every
            other exception went to that channel's ``handle_error``, or to the log.
        UnknownLoopError: and MissingLoopError: as from ``choose``.

    Source: CPython 3.11, Lib/asyncore.py, loop().
    """
    if map is None:
        map = asyncore.socket_map
    name = choose(loop).name
    as_poll2 = name == "poll" or (use_poll and LOOPS["poll"].is_here())
    if timeout is not None and not use_poll:
        # select() and poll() refuse a time that is too large for them.
        timeout = min(timeout, LONGEST_WAIT)
    schedule = schedule_of(map)
    with (
        _this_thread.turning(schedule, keep=count is not None) as waker,
        LOOPS[name].entered(map, waker, count is None, as_poll2) as turn,
    ):
        while (map or (wait_for_timers and schedule.pending)) and (
            count is None or count > 0
        ):
            if as_poll2:
                timeout = as_poll2_waits(timeout)
            turn(schedule.patience(timeout))
            schedule.turn_over(waker)
            if count is not None:
                count -= 1


def _checked(name: str, given: str) -> str:
    if name not in LOOPS:
        raise UnknownLoopError(f"{given} is none of {', '.join(('auto', *LOOPS))}")
    if not LOOPS[name].is_here():
        raise MissingLoopError(f"{given}: this platform does not have it")
    return name


class _WithWaker:
    """A map and the waker behind it, as asyncore.poll and poll2 look at a map.

    The caller's map stays as it is: a program may count it, or close all of it.
    """

    def __init__(self, map: Map, waker: Waker) -> None:
        self._map = map
        self._waker = waker

    def __len__(self) -> int:
        return len(self._map) + 1

    def items(self) -> list[tuple[Any, Any]]:
        self._waker.woke_at = None
        return [*self._map.items(), (self._waker.fileno(), self._waker)]

    def get(self, key: Any) -> Any:
        if self._waker.woke_at is None:
            # The first that is looked up is the first that is ready.
            self._waker.woke_at = time.monotonic()
        channel = self._map.get(key)
        if channel is None and key == self._waker.fileno():
            return self._waker
        return channel


class _Thread(threading.local):
    """What a thread keeps from one call of loop() to the next.

    So loop(count=1), called a million times from another loop, builds nothing anew.
    """

    # Maps whose selectors are kept; more of them in turn are registered anew.
    FEW_MAPS = 8

    def __init__(self) -> None:
        self._waker: Waker | None = None
        self._depth = 0
        self._selector_loops: dict[int, SelectorLoop] = {}
        # Those that turn at the moment, the innermost last.
        self._turning: list[SelectorLoop] = []

    @contextmanager
    def turning(self, schedule: Schedule, *, keep: bool) -> Iterator[Waker]:
        """Give a waker for the time of one loop(); then close, if nothing is left."""
        self._waker = waker = self._waker_beside(schedule.map)
        self._depth += 1
        try:
            with schedule.turned_with(waker):
                yield waker
        finally:
            self._depth -= 1
            if self._depth == 0 and not (keep and schedule.map):
                self._close()

    @contextmanager
    def selector_loop(self, map: Map) -> Iterator[SelectorLoop]:
        """The selector of a map; of a loop inside of a handler, one of its own."""
        found = self._selector_loop(map)
        if found.busy:
            found = SelectorLoop()
        try:
            # In here, for Ctrl+C may come when any call is over.
            self._turning.append(found)
            yield found
        except BaseException:
            # What it was just doing may be half done.
            kept = self._selector_loops.items()
            self._selector_loops = {
                key: each for key, each in kept if each is not found
            }
            raise
        finally:
            self._turning.pop()
            for outer in self._turning:
                outer.look_again()
            if found not in self._selector_loops.values():
                found.close()

    def _selector_loop(self, map: Map) -> SelectorLoop:
        # The id is no more than a hint: a turn compares all that is watched with the
        # map that it is given, and the wrong selector merely has more to change.
        found = self._selector_loops.pop(id(map), None) or SelectorLoop()
        self._selector_loops[id(map)] = found
        if len(self._selector_loops) > self.FEW_MAPS:
            idle = (key for key, kept in self._selector_loops.items() if not kept.busy)
            self._selector_loops.pop(next(idle)).close()
        return found

    def _waker_beside(self, map: Map) -> Waker:
        """A waker whose numbers are no keys of the map: of channels, closed by now."""
        if self._waker is not None:
            self._waker.mend()
            if self._depth:
                return self._waker
        waker = self._waker or Waker()
        taken = []
        while waker.fileno() in map or waker.signal_fd() in map:
            taken.append(waker)
            waker = Waker()
        for each in taken:
            each.close()
        return waker

    def _close(self) -> None:
        # Nothing that is closed is kept, even if Ctrl+C comes meanwhile.
        kept, self._selector_loops = self._selector_loops, {}
        waker, self._waker = self._waker, None
        for selector_loop in kept.values():
            selector_loop.close()
        if waker is not None:
            waker.close()


@contextmanager
def _enter_select(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> Iterator[Turn]:
    view = map if waker is None else _WithWaker(map, waker)
    name = "poll2" if as_poll2 else "poll"
    yield lambda timeout: ORIGINALS[name](timeout, view)


def _enter_poll(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> AbstractContextManager[Turn]:
    return _enter_select(map, waker, lasting, as_poll2=True)


@contextmanager
def _enter_selectors(
    map: Map, waker: Waker | None, lasting: bool, as_poll2: bool
) -> Iterator[Turn]:
    if as_poll2 and not is_epoll_default():
        # No other selector reports what poll2 has to know.
        with _enter_poll(map, waker, lasting, as_poll2) as turn:
            yield turn
        return
    with (
        _this_thread.selector_loop(map) as selector_loop,
        selector_loop.entered(map, waker, lasting=lasting, as_poll2=as_poll2) as turn,
    ):
        yield turn


_this_thread = _Thread()

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
