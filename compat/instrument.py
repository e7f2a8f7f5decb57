"""The hook through which the loops report their steps.

Rule 1: a process has at most one instrument, ``current``. The loops read it at each
report, so any thread may set or remove it at any time.
Rule 2: a method with a *call* argument calls it exactly once. It returns the result,
and lets exceptions pass. The methods themselves raise no exception.
Rule 3: without an instrument, a report costs one test.
Rule 4: asyncore's own ``poll`` and ``poll2``, which run the loops "select" and "poll",
report neither polls nor waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Instrument", "current", "original"]


class Instrument:
    """An observer of the loops. Each method does nothing; override the ones needed."""

    def original(self, function: Any) -> Any:
        """Return the method that the wrapper *function* replaces, else *function*."""
        return function

    def turn_begins(self, shortened_by: str) -> None:
        """A turn begins: the loop polls its channels next.

        Args:
            shortened_by: the reason for a wait that is shorter than the timeout:
                "timer", "callback" (from another thread), or "" for neither.
        """

    def channel_polled(self, key: Any, channel: Any, reads: bool, writes: bool) -> None:
        """The loop has updated the interest of the channel under *key* of its map."""

    def wait_begins(self, loop: str, timeout: float | None) -> None:
        """The loop named *loop* waits at most *timeout* seconds; None for no limit."""

    def wait_ends(
        self, read: list[Any], write: list[Any], urgent: list[Any], woken: bool
    ) -> None:
        """The wait has ended; the loop dispatches these channels, in map order.

        Args:
            woken: True if another thread or a signal has ended the wait.
        """

    def timer_created(
        self, timer: object, seconds: float, callback: Callable[..., object]
    ) -> None:
        """``call_later`` has created *timer*."""

    def timer_cancelled(self, timer: object) -> None:
        """*timer* was cancelled before it was due."""

    def run_callback(
        self,
        timer: object | None,
        callback: Callable[..., object],
        call: Callable[[], object],
    ) -> None:
        """Run *callback*, of a timer or (None) of ``call_soon_threadsafe``."""
        call()

    def flush(self, writer: Any, call: Callable[[], None]) -> None:
        """Flush *writer*, an outbox or a broadcast group, at the end of a turn."""
        call()

    def broadcast(
        self, group: Any, data: Any, exclude: Any, call: Callable[[], int]
    ) -> int:
        """Push *data* to the members of *group*, except for *exclude*."""
        return call()

    def send(self, channel: Any, data: Any, call: Callable[[Any], int]) -> int:
        """Send *data*, a broadcast group's log or a part of it, to a member's peer."""
        return call(data)

    def state_changed(self, channel: Any) -> None:
        """The loop, not a method of the channel, has changed the channel's queue."""


# The instrument of this process. Read it as ``instrument.current``.
current: Instrument | None = None


def original(function: Any) -> Any:
    """Return the method that an instrument's wrapper replaces, else *function*."""
    # Read once: another thread may remove the instrument.
    observer = current
    return function if observer is None else observer.original(function)
