"""What a client may do to the others, and to the machine.

Rule 1: a limit that is off costs nothing, neither a call nor an attribute of a client.
Rule 2: who keeps within them does not notice them.
Rule 3: speaking too fast costs nobody a byte. It is not read any faster than allowed,
and TCP lets the speaker wait.
Rule 4: time is ``time.monotonic``'s; nobody can set that back.
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

# In how many steps the time of an idle client is measured: it lasts at most so much
# longer than it was given.
SWEEPS = 4


@dataclass(frozen=True)
class Limits:
    """What ChatServer takes as keywords; 0 turns a limit off.

    Each value has a smallest and a largest one, which legacy_chat.ranges lists and the
    README's table of options states.

    Attributes:
        max_clients: connections at a time, those who are leaving included.
        max_per_address: the same, from one IP address.
        send_queue: bytes that may wait for a client; one that lets more wait is closed.
        flood_bytes: bytes a second that are read from a client, 1 or more.
        flood_messages: messages a second, 0.001 or more, and a message is what one read
            returns.
        flood_burst: seconds' worth of both that may come at once, 0.01 to 3600.
        idle: seconds after which a client is closed, if no byte went either way; 0.05
            to 86400.
        keepalive: seconds of silence, after which TCP asks whether the client is still
            there; when it has not answered for as long again, it is closed. TCP allows
            32767.
        terminator: the bytes that end a conversation.

    Raises:
        ValueError: a number is outside of its range; the terminator is empty.
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
        """Is there a limit to what is read?"""
        return bool(self.flood_bytes or self.flood_messages)


class Places:
    """Who may come in: so many at most, and so many from one address."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_clients
        self._most_from_one = limits.max_per_address
        self._from: Counter[str] = Counter()

    def refusal(self, connected: int, address: str) -> str:
        """Why not one more, a key of REFUSED; "" if there is a place."""
        if self._most and connected >= self._most:
            return "full"
        if self._most_from_one and self._from[address] >= self._most_from_one:
            return "address"
        return ""

    def take(self, address: str) -> None:
        """Somebody has come in."""
        if self._most_from_one:
            self._from[address] += 1

    def give_back(self, address: str) -> None:
        """And has gone."""
        if self._most_from_one:
            self._from[address] -= 1
            if self._from[address] <= 0:
                del self._from[address]


class Bucket:
    """Tokens that come at a rate, and of which only so many are kept.

    Args:
        rate: tokens a second; 0 for no limit.
        size: the most that are kept. It begins full.
    """

    __slots__ = ("_at", "_left", "rate", "size")

    def __init__(self, rate: float, size: float, now: float) -> None:
        self.rate = rate
        self.size = size
        self._left = size
        self._at = now

    def take(self, count: float, now: float) -> float:
        """Take so many, more than there are if need be.

        Returns:
            seconds until there will be one again, or any part of one that is owed.
        """
        if not self.rate:
            return 0.0
        self._left = min(self.size, self._left + (now - self._at) * self.rate) - count
        self._at = now
        return max(0.0, (min(1.0, self.size) - self._left) / self.rate)


class Throttle:
    """Pauses the reads of one session, so that they are no faster than allowed.

    A read that is too much is still a whole one, so that messages are cut where they
    would be anyway; the next one waits for as long as this one was too much. No read
    asks for more than a burst, and no pause is longer than what a burst takes.

    Args:
        paused: called with the session whenever it has to wait.

    Attributes:
        largest_read: the bytes that one read may ask for.
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
        """Pause the session, if that was too much; for its ``watch_reads``."""
        now = time.monotonic()
        wait = max(self._bytes.take(size, now), self._messages.take(1, now))
        if wait > 0:
            self._pause(session, wait)

    def cancel(self) -> None:
        """Forget the pause: the session is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause(self, session: ChatSession, seconds: float) -> None:
        if not compat.is_turned(session._map):
            # asyncore's own loop has no timers: nobody would end the pause.
            return
        self.cancel()
        session.pause_reading()
        self._timer = compat.call_later(
            seconds, session.resume_reading, map=session._map
        )
        # Last, for it may close the session.
        self._paused(session)


class IdleSweep:
    """Finds the clients with whom no byte has gone either way for a time.

    Reading says so itself. Writing does not, since a message to a full room is to cost
    nothing for each who hears it: what a client has taken is what it had in its queue
    at the last sweep, and what was said to it since, less what it has now. What is said
    in the turn of a sweep is in no queue yet, and counts for the next.

    Args:
        seconds: for how long.
        clients: those who hear what is said.
        sessions: gives all there are, those who are leaving included.
        close: what to do with one that is idle.
        map: the map that the sessions are in.
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
        # Since when somebody has been quiet, and how much it had in its queue.
        self._quiet: dict[ChatSession, tuple[float, int]] = {}
        self._said_then = 0
        self._wait()

    def watch(self, session: ChatSession) -> None:
        """Begin to measure: *session* has just come, which counts as a read."""
        self._heard.add(session)

    def data_read(self, session: ChatSession, size: int) -> None:
        """*session* was read; for its ``watch_reads``."""
        self._heard.add(session)

    def forget(self, session: ChatSession) -> None:
        """*session* is closed: keep nothing of it."""
        self._heard.discard(session)
        self._quiet.pop(session, None)

    def cancel(self) -> None:
        """Sweep no more."""
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
