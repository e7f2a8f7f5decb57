"""The signals that end a command with cleanup of servers, clients and unfinished files.

Rule 1: the first signal raises; later ones are ignored, because they would interrupt
the cleanup.
Rule 2: a signal that was ignored before (as under nohup) stays ignored.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

__all__ = ["Ended", "ended_by_signals", "handled"]

# Windows does not have all of them.
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
]


class Ended(KeyboardInterrupt):
    """A signal ended the command; the argument is the signal's name."""


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call *handler* for the signals in this block, in the main thread."""
    with ExitStack() as stack:
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before = signal.signal(signum, handler)
                stack.callback(signal.signal, signum, before)
        yield


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise Ended at the first signal; do nothing outside the main thread."""
    received: list[int] = []

    def end(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if len(received) == 1:
            raise Ended(signal.Signals(signum).name)

    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(handled(end))
        yield
