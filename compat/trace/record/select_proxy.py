"""The proxy of asyncore's ``select`` module while a trace is written.

Rule 1: a caller that is not a loop gets the module's own functions.
Rule 2: the kernel gets the loop's descriptors and timeout unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from compat._runtime import this_thread
from compat.loop import WithWaker
from compat.trace.record.channel_state import TracedChannel
from compat.trace.record.recorder import Recorder, Trace
from compat.trace.record.wrappers import Wrappers

__all__ = ["SelectProxy"]


class SelectProxy:
    """The ``select`` module, with a line for each wait of asyncore's loops."""

    def __init__(self, real: Any, trace: Trace, wrappers: Wrappers) -> None:
        self.__wrapped__ = real
        self._trace = trace
        self._wrappers = wrappers

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__wrapped__, name)
        return self._poll if name == "poll" else found

    def select(self, r: Any, w: Any, x: Any, timeout: Any = None) -> Any:
        """As select.select."""
        map = _polled_map()
        if map is None:
            return self.__wrapped__.select(r, w, x, timeout)
        recorder = self.begin_wait("select", map, r, w, timeout)
        result = self.__wrapped__.select(r, w, x, timeout)
        self.end_wait(recorder, map, result, result[0])
        return result

    def _poll(self) -> Any:
        return Poller(self.__wrapped__.poll(), self)

    def begin_wait(
        self, name: str, map: Any, r: Any, w: Any, timeout: Any, unit: int = 1
    ) -> Recorder:
        """Record the interest of *map*'s channels, and that a wait begins.

        Args:
            unit: the number of *timeout*'s units in a second.
        """
        recorder = self._trace.here.recorder
        interests = self._interests(recorder, map, r, w)
        recorder.begin_wait(name, timeout, len(map), interests, unit)
        return recorder

    def end_wait(self, recorder: Recorder, map: Any, ready: Any, fds: Any) -> None:
        """Record the channels that are ready to read, to write, and for urgent data.

        Args:
            fds: the descriptors with an event that a waker may have.
        """
        numbers = (
            [
                self._wrappers.find(key, channel).number
                for key in keys
                if (channel := map.get(key)) is not None
            ]
            for keys in ready
        )
        recorder.end_wait(numbers, _is_woken(map, fds))

    def _interests(
        self, recorder: Recorder, map: Any, r: Any, w: Any
    ) -> Iterator[tuple[TracedChannel, tuple[bool, bool]]]:
        """Yield the channels whose interest may have changed."""
        # Most turns have the same interest as the last one.
        lists = (r, w, id(map), self._trace.version)
        if lists == recorder.known_lists:
            return
        before = recorder.known_lists or ((), (), 0, 0)
        reads, writes = set(r), set(w)
        # Hold no object that is a key.
        recorder.known_lists = (
            lists if all(type(key) is int for key in (*r, *w)) else None
        )
        find = self._wrappers.find
        for key in (*r, *(key for key in w if key not in reads)):
            if (channel := map.get(key)) is not None:
                yield find(key, channel), (key in reads, key in writes)
        for key in (*before[0], *before[1]):
            channel = None if key in reads or key in writes else map.get(key)
            if channel is not None:
                yield find(key, channel), (False, False)


class Poller:
    """A ``select.poll`` object, with a line for each of its waits."""

    def __init__(self, real: Any, proxy: SelectProxy) -> None:
        self._real = real
        self._proxy = proxy
        self._flags: dict[Any, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def register(self, fd: Any, *flags: int) -> None:
        """As the original."""
        self._real.register(fd, *flags)
        self._flags[fd] = flags[0] if flags else -1

    def poll(self, timeout: Any = None) -> Any:
        """As the original; *timeout* is in milliseconds."""
        map = _polled_map()
        if map is None:
            return self._real.poll(timeout)
        proxy, module = self._proxy, self._proxy.__wrapped__
        r, w = (
            [fd for fd, flags in self._flags.items() if flags & wanted]
            for wanted in (module.POLLIN, module.POLLOUT)
        )
        recorder = proxy.begin_wait("poll", map, r, w, timeout, unit=1000)
        result = self._real.poll(timeout)
        gone = module.POLLHUP | module.POLLERR | module.POLLNVAL
        ready = (
            [fd for fd, events in result if events & wanted]
            for wanted in (module.POLLIN | gone, module.POLLOUT, module.POLLPRI)
        )
        proxy.end_wait(recorder, map, ready, [fd for fd, _ in result])
        return result


def _polled_map() -> Any:
    """Return the map of the asyncore.poll or poll2 that has called our caller.

    asyncore passes no map to its ``select``, and a loop that runs since before the
    trace cannot be replaced. None, if the caller is another function: a program may use
    ``asyncore.select`` itself.
    """
    names = sys._getframe(2).f_locals
    map = names.get("map")
    if type(names) is dict:
        # Before 3.13 this is a copy, which the frame would keep alive.
        names.clear()
    if isinstance(map, WithWaker):
        map = map.map
    return map if isinstance(map, Mapping) else None


def _is_woken(map: Any, ready: list[Any]) -> bool:
    waker = this_thread.waker
    fd = -1 if waker is None else waker.descriptors[0]
    return fd in ready and fd not in map
