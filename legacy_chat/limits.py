"""Limits that protect the other clients and the machine from one client.

Rule 1: a limit that is off costs nothing, neither a call nor an attribute of a client.
Rule 2: clients within the limits are unaffected.
Rule 3: the rate limit loses no data. The room reads no faster than allowed, and TCP
flow control makes the sender wait.
Rule 4: times are from ``time.monotonic``, which cannot be set back.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import compat
from legacy_chat.ranges import RANGES, check

if TYPE_CHECKING:
    from legacy_chat.room import Clients
    from legacy_chat.session import ChatSession

__all__ = ["IdleSweep", "Limits", "Places", "Throttle"]

# Sweeps in each idle period: an idle client is closed at most period / SWEEPS late.
SWEEPS = 4


@dataclass(frozen=True)
class Limits:
    """The limits that ChatServer accepts as keywords; 0 turns a limit off.

    legacy_chat.ranges lists the range of each value; the README's table of options
    shows it.

    Attributes:
        max_clients: simultaneous connections, including sessions that are closing.
        max_per_address: the same, from one IP address.
        send_queue: bytes that may be queued for a client; it is disconnected if its
            queue still exceeds this after a turn that added to it.
        flood_bytes: bytes a second that are read from a client, 1 or more.
        flood_messages: messages a second, 0.001 or more; a message is the data of one
            read.
        flood_burst: seconds' worth of both that may arrive at once, 0.01 to 3600.
        idle: seconds without traffic in either direction after which a client is
            disconnected; 0.05 to 86400.
        keepalive: idle seconds before the first TCP keepalive probe; without an answer
            for as long again, the connection is dropped. At most 32767.
        terminator: the bytes that end a conversation.

    Raises:
        ValueError: a number is outside its range; the terminator is empty.
        TypeError: the terminator is not bytes.
    """

    max_clients: int = 0
    max_per_address: int = 0
    send_queue: int = 1 << 20
    flood_bytes: float = 0
    flood_messages: float = 0
    flood_burst: float = 5.0
    idle: float = 0
    keepalive: int = 90
    terminator: bytes = b"out"

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in RANGES:
                check(name, value)
        if not isinstance(self.terminator, bytes):
            raise TypeError(f"terminator={self.terminator!r} is not bytes")
        if not self.terminator:
            raise ValueError("terminator=b'' would be everywhere: give a byte or more")

    @property
    def throttles(self) -> bool:
        """Return whether reads are rate-limited."""
        return bool(self.flood_bytes or self.flood_messages)


class Places:
    """Admission control: a maximum of clients, in total and for each address."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_clients
        self._most_from_one = limits.max_per_address
        self._from: Counter[str] = Counter()

    def refusal(self, connected: int, address: str) -> str:
        """Return why one more client is rejected, one of REFUSED; "" to admit it."""
        if self._most and connected >= self._most:
            return "full"
        if self._most_from_one and self._from[address] >= self._most_from_one:
            return "address"
        return ""

    def take(self, address: str) -> None:
        """Count a client that was admitted."""
        if self._most_from_one:
            self._from[address] += 1

    def give_back(self, address: str) -> None:
        """Stop counting a client that has left."""
        if self._most_from_one:
            self._from[address] -= 1
            if self._from[address] <= 0:
                del self._from[address]


class Bucket:
    """A token bucket that may go into debt.

    Args:
        rate: tokens a second; 0 for no limit.
        size: maximum number of tokens. The bucket is full at first.
    """

    __slots__ = ("_at", "_left", "rate", "size")

    def __init__(self, rate: float, size: float, now: float) -> None:
        self.rate = rate
        self.size = size
        self._left = size
        self._at = now

    def take(self, count: float, now: float) -> float:
        """Take *count* tokens, even if that leaves a debt.

        Returns:
            seconds until the bucket has one token again, or is full if its size is
            smaller than one; 0 if it already has.
        """
        if not self.rate:
            return 0.0
        self._left = min(self.size, self._left + (now - self._at) * self.rate) - count
        self._at = now
        return max(0.0, (min(1.0, self.size) - self._left) / self.rate)


class Throttle:
    """Rate limiter: pauses the reads of one session, so that they stay in the limits.

    A read that exceeds the limit is still delivered whole, so that message boundaries
    do not change; the next read waits until the excess is paid off. No read asks for
    more than a burst, and no pause is longer than a burst lasts.

    Args:
        paused: called with the session at each pause.

    Attributes:
        largest_read: maximum bytes of one read.
    """

    __slots__ = ("_bytes", "_messages", "_paused", "_timer", "largest_read")

    def __init__(self, limits: Limits, paused: Callable[[ChatSession], None]) -> None:
        now = time.monotonic()
        burst = limits.flood_burst
        self._bytes = Bucket(limits.flood_bytes, limits.flood_bytes * burst, now)
        self._messages = Bucket(
            limits.flood_messages, max(1.0, limits.flood_messages * burst), now
        )
        self.largest_read = sys.maxsize
        if limits.flood_bytes:
            self.largest_read = max(1, math.ceil(self._bytes.size))
        self._timer: compat.Timer | None = None
        self._paused = paused

    def data_read(self, session: ChatSession, size: int) -> None:
        """Count a read, and pause the session if needed; for its ``watch_reads``."""
        now = time.monotonic()
        wait = max(self._bytes.take(size, now), self._messages.take(1, now))
        if wait > 0:
            self._pause(session, wait)

    def cancel(self) -> None:
        """Cancel the timer of a pause, because the session is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause(self, session: ChatSession, seconds: float) -> None:
        if not compat.is_turned(session._map):
            # asyncore's own loop has no timers: nothing would end the pause.
            return
        self.cancel()
        session.pause_reading()
        self._timer = compat.call_later(
            seconds, session.resume_reading, map=session._map
        )
        # Last, because the callback may close the session.
        self._paused(session)


class IdleSweep:
    """Finds the clients without traffic in either direction for a time.

    Reads are reported by ``watch_reads``. Writes are not, because a broadcast must not
    cost anything for each member. Each sweep computes them: the queue at the last
    sweep, plus the broadcasts since, minus the queue now. Broadcasts of the sweep's own
    turn are not queued yet; the next sweep counts them.

    Args:
        seconds: the idle timeout.
        clients: the members of the room, which receive the broadcasts.
        sessions: returns all sessions, including those that are closing.
        close: called with each idle session.
        map: the map of the sessions.
    """

    def __init__(
        self,
        seconds: float,
        clients: Clients,
        sessions: Callable[[], Iterable[ChatSession]],
        close: Callable[[ChatSession], None],
        map: compat.Map,
    ) -> None:
        self._seconds = seconds
        self._clients = clients
        self._sessions = sessions
        self._close = close
        self._map = map
        # Sessions that were read since the last sweep.
        self._heard: set[ChatSession] = set()
        # For each session: the time of the last traffic seen, and its queue in bytes.
        self._quiet: dict[ChatSession, tuple[float, int]] = {}
        self._said_then = 0
        self._wait()

    def watch(self, session: ChatSession) -> None:
        """Start the timeout of a new session; its arrival counts as a read."""
        self._heard.add(session)

    def data_read(self, session: ChatSession, size: int) -> None:
        """Record a read of *session*; for its ``watch_reads``."""
        self._heard.add(session)

    def forget(self, session: ChatSession) -> None:
        """Drop all references to a closed session."""
        self._heard.discard(session)
        self._quiet.pop(session, None)

    def cancel(self) -> None:
        """Stop sweeping."""
        self._timer.cancel()

    def _wait(self) -> None:
        self._timer = compat.call_later(
            self._seconds / SWEEPS, self._sweep, map=self._map
        )

    def _sweep(self) -> None:
        now = time.monotonic()
        before, self._quiet = self._quiet, {}
        clients = self._clients
        said = clients.counters.bytes_said_ever - clients.unwritten - self._said_then
        self._said_then += said
        idle = []
        for session in self._sessions():
            backlog = session.ac_backlog_size()
            since, had = before.get(session, (now, 0))
            if session in clients:
                had += said
            if session in self._heard or had > backlog:
                since = now
            self._quiet[session] = since, backlog
            if now - since >= self._seconds:
                idle.append(session)
        self._heard.clear()
        self._wait()
        for session in idle:
            self._close(session)
