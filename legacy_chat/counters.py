"""The room's counters and gauges, and their form on one line.

Rule 1: no delivery is counted by itself: a broadcast is counted once, with the number
of its receivers; an echo is counted as input, unless it is left out.
Rule 2: a figure that needs an iteration over the room is computed for a snapshot only.
Rule 3: every reason is present from the start, with 0: a rate needs a first value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["CLOSED", "REFUSED", "Counters", "Figure", "line", "snapshot"]

# Why a connection was rejected.
REFUSED = ("full", "address", "descriptors")

# Why a session was closed, in this order: the client sent the terminator; it closed;
# the connection broke; a handler raised; the client was too slow; it was idle; the
# server shut down and the queue was flushed; the grace period ended before that; a
# program called close().
CLOSED = ("out", "eof", "reset", "error", "slow", "idle", "shutdown", "grace", "closed")


class Counters:
    """Totals since the server was made.

    Attributes:
        accepted: connections that became clients.
        refused: connections that were rejected, by reason, one of REFUSED.
        closed: clients whose connection has ended, by reason, one of CLOSED.
        messages_in, bytes_in: input of the clients. A message is the data of one read
            without terminators, which are not counted.
        messages_out, bytes_out: output to the clients, echoes included. A broadcast
            counts once for each receiver.
        bytes_dropped: bytes that were still queued for clients when they were closed.
        backlog_peak: bytes of the longest queue of one client that was observed, at
            each close and each snapshot.
        pauses: pauses of reading, because a client exceeded the rate limit.
        turns: turns of the loop.
        longest_turn: seconds of the longest turn, without the wait for I/O.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = dict.fromkeys(REFUSED, 0)
        self.closed = dict.fromkeys(CLOSED, 0)
        self.messages_in = self.bytes_in = 0
        # Output is input that was echoed, and broadcasts.
        self._messages_silent = self._bytes_silent = 0
        self._messages_broadcast = self._bytes_broadcast = 0
        self.bytes_dropped = 0
        self.backlog_peak = 0
        self.pauses = 0
        self.turns = 0
        self.longest_turn = 0.0

    def not_echoed(self, size: int) -> None:
        """Count a message of *size* bytes that its client does not get back."""
        self._messages_silent += 1
        self._bytes_silent += size

    def broadcast(self, receivers: int, size: int) -> None:
        """Count one message of *size* bytes to each of the receivers."""
        self._messages_broadcast += receivers
        self._bytes_broadcast += receivers * size

    @property
    def messages_out(self) -> int:
        return self.messages_in - self._messages_silent + self._messages_broadcast

    @property
    def bytes_out(self) -> int:
        return self.bytes_in - self._bytes_silent + self._bytes_broadcast

    @property
    def connected(self) -> int:
        """Clients whose connection has not ended."""
        return self.accepted - sum(self.closed.values())

    def turn(self, seconds: float) -> None:
        """Count a turn and its duration; for ``compat.on_turn``."""
        self.turns += 1
        if seconds > self.longest_turn:
            self.longest_turn = seconds

    def saw_backlog(self, size: int) -> None:
        """Record that a client's queue holds *size* bytes."""
        if size > self.backlog_peak:
            self.backlog_peak = size


class Figure(NamedTuple):
    """One figure of a snapshot, with its description.

    Attributes:
        name: without unit and prefix.
        kind: "counter" or "gauge", as in Prometheus.
        unit: "", "bytes" or "seconds".
        about: the description, one sentence.
        value: a number, or numbers by reason.
    """

    name: str
    kind: str
    unit: str
    about: str
    value: float | dict[str, int]


def snapshot(counters: Counters, clients: int, backlogs: list[int]) -> list[Figure]:
    """Return the figures of *counters*, and of the sessions' current queues."""
    counters.saw_backlog(max(backlogs, default=0))
    now: dict[str, Any] = {
        "clients": clients,
        "connections": len(backlogs),
        "backlog": sum(backlogs),
    }
    return [
        Figure(name, kind, unit, about, now.get(name, getattr(counters, name, 0)))
        for name, kind, unit, about in _TABLE
    ]


def line(figures: Iterable[Figure]) -> str:
    """Return the figures on one line: ``clients=2 refused_full=0 …``."""
    return " ".join(f"{name}={value:g}" for name, value in flat(figures).items())


def flat(figures: Iterable[Figure]) -> dict[str, float]:
    """Return the figures by name; a figure by reason has one entry for each."""
    found: dict[str, float] = {}
    for figure in figures:
        if isinstance(figure.value, dict):
            for reason, value in figure.value.items():
                found[f"{figure.name}_{reason}"] = value
        else:
            found[figure.name] = figure.value
    return found


_TABLE = (
    ("clients", "gauge", "", "Clients in the room."),
    ("connections", "gauge", "", "Clients, and sessions that are closing."),
    ("accepted", "counter", "", "Connections that became clients."),
    ("refused", "counter", "", "Connections that were rejected."),
    ("closed", "counter", "", "Clients whose connection has ended."),
    ("messages_in", "counter", "", "Messages from clients."),
    ("bytes_in", "counter", "", "Bytes of these messages."),
    ("messages_out", "counter", "", "Messages queued for clients, echoes included."),
    ("bytes_out", "counter", "", "Bytes of these messages."),
    ("bytes_dropped", "counter", "", "Bytes dropped because their client was closed."),
    ("backlog", "gauge", "bytes", "Bytes queued for all clients now."),
    ("backlog_peak", "gauge", "bytes", "The longest queue of one client, as observed."),
    (
        "pauses",
        "counter",
        "",
        "Pauses of reading from clients that exceeded the rate limit.",
    ),
    ("turns", "counter", "", "Turns of the loop."),
    ("longest_turn", "gauge", "seconds", "The longest turn, without the wait for I/O."),
)
