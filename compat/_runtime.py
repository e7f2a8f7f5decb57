"""State per thread, per map and per process, and the hooks that repair it after a fork.

Rule 1: these are compat's only fork hooks. A module with state that a fork invalidates
registers a function with ``at_fork``.
Rule 2: nothing here keeps a compat module alive. Python holds the functions of
``os.register_at_fork`` until after its last garbage collection. A function holds its
module, which holds asyncore, its map and the program's channels. These would be
collected too late for their ResourceWarning and their ``__del__``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import ref

from compat.locks import RLock

__all__ = ["at_fork", "this_process", "this_thread"]


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
        # The SelectorLoops to use again, by the id of their map.
        self.selector_loops: dict[int, Any] = {}
        # The running ones, the innermost last.
        self.running: list[Any] = []


class ProcessState:
    """The Schedulers of all maps that have a running loop or anything scheduled."""

    def __init__(self) -> None:
        # By the map's id, because a dict cannot be a key. The scheduler holds its map,
        # so the id is not reused while the scheduler is registered.
        self.schedulers: dict[int, Any] = {}
        # Reentrant, because a signal handler may interrupt its holder.
        self.lock = RLock()


def at_fork(
    *, after_in_child: Callable[[], object], before: Callable[[], object] | None = None
) -> None:
    """Call these module-level functions at every fork; only their modules hold them.

    Args:
        after_in_child: called in the child, in the order of registration.
        before: called in the parent, in the reverse order.
    """
    if not hasattr(os, "register_at_fork"):
        return
    os.register_at_fork(after_in_child=_weakly(after_in_child))
    if before is not None:
        os.register_at_fork(before=_weakly(before))


def _weakly(function: Callable[[], object]) -> Callable[[], None]:
    reference = ref(function)

    def call() -> None:
        found = reference()
        if found is not None:
            found()

    return call


def _after_fork_in_child() -> None:
    # A thread that does not exist in the child may have held the lock.
    this_process.lock = RLock()


this_thread = ThreadState()
this_process = ProcessState()

at_fork(after_in_child=_after_fork_in_child)
