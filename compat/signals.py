"""Signals that call a function in a loop, between two turns."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from compat._types import Map
from compat.scheduler import scheduler_of
from compat.values import check_callable, shown

__all__ = ["on_signals"]


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
        scheduler_of(scheduler.map).call_soon_threadsafe(callback, signum)

    check_callable(callback)
    scheduler = scheduler_of(map)
    with scheduler.waking_on_signals(), ExitStack() as stack:
        for signum in signums:
            stack.callback(signal.signal, signum, _install(signum, handler))
        yield


def _install(signum: int, handler: Callable[[int, Any], object]) -> Any:
    """Install *handler* for a signal; return the previous handler.

    Raises:
        ValueError: *signum* is not a signal number. OSError: as from ``signal.signal``.
    """
    known = isinstance(signum, int) and signum in signal.valid_signals()
    if not known or isinstance(signum, bool):
        raise ValueError(f"signums must be numbers of signals, got {shown(signum)}")
    return signal.signal(signum, handler)
