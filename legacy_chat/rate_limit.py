"""The rate limit of a client's input.

Rule 1: the rate limit loses no data. The room reads no faster than allowed, and TCP
flow control makes the sender wait.
Rule 2: times are from ``time.monotonic``, which cannot be set back.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import compat
from legacy_chat.limits import Limits

__all__ = ["RateLimiter", "TokenBucket"]


class TokenBucket:
    """A token bucket that may go into debt.

    Args:
        rate: tokens per second; 0 for no limit.
        size: maximum number of tokens. The bucket is full at first.
    """

    __slots__ = ("_time", "_tokens", "rate", "size")

    def __init__(self, rate: float, size: float, now: float) -> None:
        self.rate = rate
        self.size = size
        self._tokens = size
        self._time = now

    def take(self, count: float, now: float) -> float:
        """Take *count* tokens, even if that leaves a debt.

        Returns:
            seconds until the bucket has one token again, or is full if its size is
            smaller than one; 0 if it already has.
        """
        if not self.rate:
            return 0.0
        earned = (now - self._time) * self.rate
        self._tokens = min(self.size, self._tokens + earned) - count
        self._time = now
        return max(0.0, (min(1.0, self.size) - self._tokens) / self.rate)


class RateLimiter:
    """Pauses the reads of one session, so that they stay within the limits.

    A read that exceeds the limit is still delivered whole, so that message boundaries
    do not change; the next read waits until the excess is paid off. No read is larger
    than a burst, and no pause is longer than a burst lasts.

    Args:
        map: the map of the session.
        paused: called with the session at each pause.

    Attributes:
        largest_read: maximum bytes of one read.
    """

    __slots__ = ("_bytes", "_map", "_messages", "_paused", "_timer", "largest_read")

    def __init__(
        self, limits: Limits, map: compat.Map, paused: Callable[..., object]
    ) -> None:
        now = time.monotonic()
        burst = limits.flood_burst
        self._bytes = TokenBucket(limits.flood_bytes, limits.flood_bytes * burst, now)
        self._messages = TokenBucket(
            limits.flood_messages, max(1.0, limits.flood_messages * burst), now
        )
        self.largest_read = sys.maxsize
        if limits.flood_bytes:
            self.largest_read = max(1, math.ceil(self._bytes.size))
        self._map = map
        self._timer: compat.Timer | None = None
        self._paused = paused

    def data_read(self, session: compat.async_chat, size: int) -> None:
        """Count a read, and pause the session if needed; for its ``watch_reads``."""
        now = time.monotonic()
        wait = max(self._bytes.take(size, now), self._messages.take(1, now))
        # asyncore's own loop has no timers: nothing would end the pause.
        if wait > 0 and compat.is_running(self._map):
            self.cancel()
            session.pause_reading()
            self._timer = compat.call_later(wait, session.resume_reading, map=self._map)
            # Last, because the callback may close the session.
            self._paused(session)

    def cancel(self) -> None:
        """Cancel the timer of a pause, because the session is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
