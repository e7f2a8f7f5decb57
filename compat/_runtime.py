"""State per thread, per map and per process.

Rule: a module with state that a fork invalidates registers a function with ``at_fork``.
"""

from __future__ import annotations

import threading
from typing import Any

from compat.forks import at_fork
from compat.locks import RLock

__all__ = ["this_process", "this_thread"]


class Life:
    """An object that lives as long as its thread. Thread numbers are reused."""


class ThreadState(threading.local):
    """One thread's loops, and the state that they keep between calls of ``loop()``."""

    def __init__(self) -> None:
        self.life = Life()
        # The number of nested loops that run now.
        self.depth = 0
        # The Waker of all loops; None before the first one.
        self.waker: Any = None
        # The id of the map of the last call, and this_process.reports at its begin.
        self.flushed = (0, 0)
        # The SelectorLoops to use again, by the id of their map.
        self.loops: dict[int, Any] = {}
        # The SelectorLoops that run now, the innermost last.
        self.running: list[Any] = []


class ProcessState:
    """The state that all threads share."""

    def __init__(self) -> None:
        # The name of the loop that install() has put into asyncore; None without.
        self.installed_loop: str | None = None
        # The Schedulers of the maps that have a running loop or anything scheduled.
        # By the map's id, because a dict cannot be a key. The scheduler holds its map,
        # so the id is not reused while the scheduler is registered.
        self.schedulers: dict[int, Any] = {}
        # Reentrant, because a signal handler may interrupt its holder.
        self.lock = RLock()
        # The number of changes of interest that channels have reported.
        self.reports = 0
        # The number of forks between the first process and this one.
        self.forks = 0


def _after_fork_in_child() -> None:
    # A thread that does not exist in the child may have held the lock.
    this_process.lock = RLock()
    this_process.forks += 1


this_thread = ThreadState()
this_process = ProcessState()

at_fork(after_in_child=_after_fork_in_child)
