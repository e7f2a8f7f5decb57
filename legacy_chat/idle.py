"""The idle timeout: clients without traffic are disconnected.

Times are from ``time.monotonic``, which cannot be set back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import compat
from legacy_chat.room import Clients

__all__ = ["IdleSweep"]

# Sweeps in each idle period: an idle client is closed at most period / SWEEPS late.
SWEEPS = 4


@dataclass(eq=False)
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

    seconds: float
    clients: Clients
    sessions: Callable[[], Iterable[Any]]
    close: Callable[[Any], None]
    map: compat.Map

    def __post_init__(self) -> None:
        # Sessions that were read since the last sweep.
        self._read: set[compat.async_chat] = set()
        # For each session: the time of the last traffic, and its queue in bytes.
        self._last: dict[compat.async_chat, tuple[float, int]] = {}
        self._flushed_before = 0
        self._schedule()

    def watch(self, session: compat.async_chat) -> None:
        """Start the timeout of a new session; its arrival counts as a read."""
        self._read.add(session)

    def data_read(self, session: compat.async_chat, size: int) -> None:
        """Record a read of *session*; for its ``watch_reads``."""
        self._read.add(session)

    def forget(self, session: compat.async_chat) -> None:
        """Drop all references to a closed session."""
        self._read.discard(session)
        self._last.pop(session, None)

    def cancel(self) -> None:
        """Stop sweeping."""
        self._timer.cancel()

    def sweep(self) -> None:
        """Close the idle sessions, and schedule the next sweep."""
        now = time.monotonic()
        before, self._last = self._last, {}
        clients = self.clients
        recently = clients.flushed - self._flushed_before
        self._flushed_before = clients.flushed
        idle = []
        for session in self.sessions():
            backlog = session.ac_backlog_size()
            since, queued = before.get(session, (now, 0))
            if session in clients:
                queued += recently
            if session in self._read or queued > backlog:
                since = now
            self._last[session] = since, backlog
            if now - since >= self.seconds:
                idle.append(session)
        self._read.clear()
        self._schedule()
        for session in idle:
            self.close(session)

    def _schedule(self) -> None:
        self._timer = compat.call_later(self.seconds / SWEEPS, self.sweep, map=self.map)
