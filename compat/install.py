"""Install compat's loop and async_chat in the original modules, and uninstall them.

Rule 1: installation replaces globals of the original modules. Programs assign to
``asyncore.socket_map``, ``asyncore.poll`` or ``asyncore.select`` and expect every class
and function to see the new value.
Rule 2: a program's own assignments take precedence. ``loop`` calls the program's
``poll``; the original functions call the program's ``select`` or ``time``.
Rule 3: ``uninstall`` removes only compat's objects, never a program's replacements.
"""

from __future__ import annotations

import asynchat
import asyncore
import select
import selectors
import time
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from types import ModuleType
from typing import Any, TypeAlias

from compat._runtime import this_process
from compat._types import Map, Original
from compat.async_chat import async_chat
from compat.loop import LOOPS, ORIGINALS, choose, enter
from compat.loop import loop as run_loop

__all__ = ["install", "uninstall"]

# (module, name, original).
Function: TypeAlias = tuple[ModuleType, str, Any]


def install(loop: str = "auto") -> AbstractContextManager[object, None]:
    """Make ``asyncore.loop``, ``poll`` and ``poll2`` run compat's loop.

    Args:
        loop: a key of LOOPS, or "auto"; this call makes the choice, once.

    Repeated calls, with another loop too, are allowed; one ``uninstall`` undoes all of
    them. As a context manager, it restores the previous state. The order of imports
    is irrelevant. A class that was derived earlier from the original ``async_chat``
    continues to work, and is polled in every turn.

    Raises:
        UnknownLoopError: also MissingLoopError, as from ``choose``.
    """
    name = choose(loop).name
    before, this_process.installed_loop = this_process.installed_loop, name
    for module, part, original, ours in _PARTS:
        if getattr(module, part) is original:
            setattr(module, part, ours)
    restored: ExitStack[None] = ExitStack()
    restored.callback(uninstall if before is None else partial(install, before))
    return restored


def uninstall() -> None:
    """Restore the originals. Does nothing if nothing is installed."""
    for module, part, original, ours in _PARTS:
        if getattr(module, part) is ours:
            setattr(module, part, original)
    this_process.installed_loop = None


def poll(timeout: float | None = 0.0, map: Map | None = None) -> None:
    """Run one turn of the installed loop, in place of ``asyncore.poll``.

    Source: CPython 3.11, Lib/asyncore.py, poll().
    """
    _turn("poll", timeout, map)


def poll2(timeout: float | None = 0.0, map: Map | None = None) -> None:
    """Run one turn of the installed loop, with the calls of ``asyncore.poll2``.

    Source: CPython 3.11, Lib/asyncore.py, poll2().
    """
    _turn("poll2", timeout, map)


def loop(
    timeout: float | None = 30.0,
    use_poll: bool = False,
    map: Map | None = None,
    count: int | None = None,
) -> None:
    """Run the installed loop, in place of ``asyncore.loop``.

    Source: CPython 3.11, Lib/asyncore.py, loop().
    """
    if map is None:
        map = asyncore.socket_map
    turn = asyncore.poll
    if use_poll and hasattr(asyncore.select, "poll"):
        turn = asyncore.poll2
    name = "poll2" if turn is poll2 else "poll"
    ours = turn in (poll, poll2) and not _uses_its_own(name)
    if ours and this_process.installed_loop is not None:
        as_poll2 = name == "poll2"
        run_loop(timeout, as_poll2, map, count, loop=_loop_for(name))
        return
    while map and (count is None or count > 0):
        turn(timeout, map)
        if count is not None:
            count -= 1


def _turn(name: str, timeout: float | None, map: Map | None) -> None:
    if map is None:
        map = asyncore.socket_map
    if not map or this_process.installed_loop is None or _uses_its_own(name):
        ORIGINALS[name](timeout, map)
        return
    as_poll2 = name == "poll2"
    with enter(_loop_for(name), map, lasting=False, as_poll2=as_poll2) as turn:
        turn(timeout)


def _uses_its_own(name: str) -> bool:
    """Return whether the program has replaced a function that *name* waits with.

    A program that patches selectors too, as gevent does, gets the installed loop.
    """
    # A running trace replaces the module with a proxy that wraps it.
    module = getattr(asyncore.select, "__wrapped__", asyncore.select)
    if module is not select or (name == "poll" and asyncore.time is not time):
        return True
    return selectors.DefaultSelector is _DEFAULT_SELECTOR and _is_replaced(_WAITS[name])


def _loop_for(name: str) -> str:
    """Return the installed loop, or select if poll cannot stand in for asyncore.poll.

    poll may be missing, for example after eventlet has patched the process. It also
    calls ``asyncore.readwrite``, and so bypasses a program's own ``asyncore.read``.
    """
    installed = this_process.installed_loop or "select"
    if installed != "poll" or name == "poll2":
        return installed
    is_usable = LOOPS["poll"].is_available() and not _is_replaced(_DISPATCH)
    return "poll" if is_usable else "select"


def _is_replaced(functions: tuple[Function, ...]) -> bool:
    return any(getattr(module, name, None) is not it for module, name, it in functions)


_DEFAULT_SELECTOR = selectors.DefaultSelector

# The functions with which the originals wait and dispatch, before a program's patches.
_WAITS: dict[str, tuple[Function, ...]] = {
    "poll": (
        (select, "select", getattr(select, "select", None)),
        (time, "sleep", time.sleep),
    ),
    "poll2": ((select, "poll", getattr(select, "poll", None)),),
}
_DISPATCH: tuple[Function, ...] = tuple(
    (asyncore, name, getattr(asyncore, name))
    for name in ("read", "write", "_exception", "readwrite")
)

# (module, name, original, replacement). A program's own replacement stays.
_PARTS: tuple[tuple[ModuleType, str, Any, Any], ...] = (
    (asyncore, "poll", ORIGINALS["poll"], poll),
    (asyncore, "poll2", ORIGINALS["poll2"], poll2),
    (asyncore, "poll3", asyncore.poll3, poll2),
    (asyncore, "loop", asyncore.loop, loop),
    (asynchat, "async_chat", Original, async_chat),
)
