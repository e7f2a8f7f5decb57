"""What asyncore has for its ``select`` module, while a trace is written.

Rule 1: a program that uses it for purposes of its own gets the module itself.
Rule 2: what a loop asks for, and how long it waits, is what the kernel is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compat._runtime import this_thread
from compat.loop import WithWaker
from compat.trace.record.recorder import Recorder

if TYPE_CHECKING:
    from compat.trace.record.hooks import Hooks

__all__ = ["Kernel"]


class Kernel:
    """What asyncore has for its ``select`` module, while its waits are traced."""

    def __init__(self, real: Any, hooks: Hooks) -> None:
        self._compat_real = real
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._compat_real, name)
        return self._poll if name == "poll" else found

    def select(self, r: Any, w: Any, x: Any, timeout: Any = None) -> Any:
        """As select.select."""
        map = _turned_map()
        if map is None:
            return self._compat_real.select(r, w, x, timeout)
        recorder = self._hooks._trace.here.recorder
        began = recorder.wait(
            "select", timeout, len(map), self._interests(recorder, map, r, w)
        )
        result = self._compat_real.select(r, w, x, timeout)
        read, write, urgent = (self._numbers(map, keys) for keys in result)
        recorder.woke(began, read, write, urgent, woken=_is_woken(map, result[0]))
        return result

    def _poll(self) -> Any:
        return Poller(self._compat_real.poll(), self)

    def _interests(self, recorder: Recorder, map: Any, r: Any, w: Any) -> Any:
        """Who wants something else than before."""
        # Most turns want what the last one did.
        lists = (r, w, id(map), self._hooks._trace.version)
        if lists == recorder.known_lists:
            return
        before = recorder.known_lists or ((), (), 0, 0)
        reads, writes = set(r), set(w)
        # An object that is a key is kept for nobody.
        recorder.known_lists = (
            lists if all(type(key) is int for key in (*r, *w)) else None
        )
        for key in (*r, *(key for key in w if key not in reads)):
            if (channel := map.get(key)) is not None:
                seen = self._hooks.find(key, channel)
                yield seen, (key in reads, key in writes)
        for key in (*before[0], *before[1]):
            channel = None if key in reads or key in writes else map.get(key)
            if channel is not None:
                yield self._hooks.find(key, channel), (False, False)

    def _numbers(self, map: Any, keys: list[Any]) -> list[int]:
        return [
            self._hooks.find(key, channel).number
            for key in keys
            if (channel := map.get(key)) is not None
        ]


class Poller:
    """As select.poll(), and its wait is traced."""

    def __init__(self, real: Any, kernel: Kernel) -> None:
        self._real = real
        self._kernel = kernel
        self._flags: dict[Any, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def register(self, fd: Any, *flags: int) -> None:
        """As the original."""
        self._real.register(fd, *flags)
        self._flags[fd] = flags[0] if flags else -1

    def poll(self, timeout: Any = None) -> Any:
        """As the original; milliseconds."""
        map = _turned_map()
        if map is None:
            return self._real.poll(timeout)
        kernel, flags = self._kernel, self._flags
        module = kernel._compat_real
        recorder = kernel._hooks._trace.here.recorder
        reads = [fd for fd in flags if flags[fd] & module.POLLIN]
        writes = [fd for fd in flags if flags[fd] & module.POLLOUT]
        began = recorder.wait(
            "poll",
            timeout,
            len(map),
            kernel._interests(recorder, map, reads, writes),
            unit=1000,
        )
        result = self._real.poll(timeout)
        gone = module.POLLHUP | module.POLLERR | module.POLLNVAL
        read, write, urgent = (
            kernel._numbers(map, [fd for fd, events in result if events & wanted])
            for wanted in (module.POLLIN | gone, module.POLLOUT, module.POLLPRI)
        )
        woken = _is_woken(map, [fd for fd, _ in result])
        recorder.woke(began, read, write, urgent, woken=woken)
        return result


def _turned_map() -> Any:
    """The map that asyncore.poll is turning, who has called who calls this.

    None, if that is no poll: a program that asks what asyncore calls ``select`` for
    purposes of its own.
    """
    names = sys._getframe(2).f_locals
    map = names.get("map")
    if type(names) is dict:
        # Before 3.13 these are copies, which the frame would keep alive.
        names.clear()
    if isinstance(map, WithWaker):
        map = map.map
    return map if isinstance(map, Mapping) else None


def _is_woken(map: Any, read: list[Any]) -> bool:
    waker = this_thread.waker
    ours = -1 if waker is None else waker.descriptors[0]
    return ours in read and ours not in map
