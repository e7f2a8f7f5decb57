"""The idle timeout: clients without traffic are disconnected.

Times are from ``time.monotonic``, which cannot be set back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import compat

if TYPE_CHECKING:
    from legacy_chat.room import Clients
    from legacy_chat.session import ChatSession

__all__ = ["IdleSweep"]

# Sweeps in each idle period: an idle client is closed at most period / SWEEPS late.
SWEEPS = 4


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
