"""What the room has done, and what it is doing: figures, and a line of them.

Rule 1: nothing is counted for each delivery. A message is counted once; how many have
heard those since somebody last came or went is reckoned when the next one does.
Rule 2: a figure that needs a walk over the room is made when somebody asks for it.
Rule 3: every reason is there from the beginning, with 0: a rate needs a first value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from legacy_chat.session import ChatSession

__all__ = ["CLOSED", "REFUSED", "Counters", "Figure", "line", "snapshot"]

# Why somebody was not let in.
REFUSED = ("full", "address", "descriptors")

# Why a client's connection has ended: it said the terminator; it closed; it broke; an
# error in its handlers; it was too slow, or idle; the server stopped, and it had its
# messages, or took too long to take them; a program called close().
CLOSED = ("out", "eof", "reset", "error", "slow", "idle", "shutdown", "grace", "closed")


class Counters:
    """Totals since the server was made.

    Attributes:
        accepted: connections that became clients.
        refused: and that did not, by reason: a key of REFUSED.
        closed: clients whose connection has ended, by reason: a key of CLOSED.
        messages_in, bytes_in: what clients have said. A message is what one read
            returned; terminators are not counted.
        said, bytes_said: what the room was told since somebody last came or went.
        bytes_dropped: what was queued for clients that closed and had not taken it.
        backlog_peak: bytes, the longest queue of one client that was seen: whenever
            one is too long, or ends with a client, or somebody asks for a snapshot.
        pauses: how often reading from a client has paused, because it said too much.
        turns: of the loop.
        longest_turn: seconds, without the waiting.
    """

    __slots__ = (
        "_bytes_said_before",
        "_bytes_told",
        "_bytes_unechoed",
        "_told",
        "_unechoed",
        "accepted",
        "backlog_peak",
        "bytes_dropped",
        "bytes_in",
        "bytes_said",
        "closed",
        "longest_turn",
        "messages_in",
        "pauses",
        "refused",
        "said",
        "turns",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = dict.fromkeys(REFUSED, 0)
        self.closed = dict.fromkeys(CLOSED, 0)
        self.messages_in = self.bytes_in = 0
        self.said = self.bytes_said = 0
        self.bytes_dropped = 0
        self.backlog_peak = 0
        self.pauses = 0
        self.turns = 0
        self.longest_turn = 0.0
        # What was said, times those who heard it; of what was said, what had no echo.
        self._told = self._bytes_told = self._bytes_said_before = 0
        self._unechoed = self._bytes_unechoed = 0

    @property
    def messages_out(self) -> int:
        """What was queued for clients, echoes included, as of the last reckoning."""
        return self._told + self.messages_in - self._unechoed

    @property
    def bytes_out(self) -> int:
        """The same, in bytes."""
        return self._bytes_told + self.bytes_in - self._bytes_unechoed

    @property
    def bytes_said_ever(self) -> int:
        """What somebody has been told who has been here from the beginning."""
        return self._bytes_said_before + self.bytes_said

    def reckon(self, hearers: int) -> None:
        """So many have heard what was said, and others will hear the next."""
        self._told += hearers * self.said
        self._bytes_told += hearers * self.bytes_said
        self._bytes_said_before += self.bytes_said
        self.said = self.bytes_said = 0

    def told(self, size: int) -> None:
        """One more than usual hears a message: its speaker is not in the room."""
        self._told += 1
        self._bytes_told += size

    def not_echoed(self, size: int) -> None:
        """Who said this message was leaving."""
        self._unechoed += 1
        self._bytes_unechoed += size

    @property
    def connected(self) -> int:
        """Clients whose connection has not ended."""
        return self.accepted - sum(self.closed.values())

    def turn(self, seconds: float) -> None:
        """A turn is over; for ``compat.on_turn``."""
        self.turns += 1
        if seconds > self.longest_turn:
            self.longest_turn = seconds

    def saw_backlog(self, size: int) -> None:
        """A client has so many bytes in its queue."""
        if size > self.backlog_peak:
            self.backlog_peak = size


class Figure(NamedTuple):
    """One figure of a snapshot, with what there is to say about it.

    Attributes:
        name: without unit and prefix.
        kind: "counter" or "gauge", as Prometheus has it.
        unit: "", "bytes" or "seconds".
        about: one sentence.
        value: a number, or numbers by reason.
    """

    name: str
    kind: str
    unit: str
    about: str
    value: float | dict[str, int]


def snapshot(
    counters: Counters, clients: int, sessions: Iterable[ChatSession]
) -> list[Figure]:
    """What *counters* say, and what *sessions* have in their queues at the moment."""
    backlogs = [session.ac_backlog_size() for session in sessions]
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
    """The figures in a line: ``clients=2 refused_full=0 …``"""
    return " ".join(f"{name}={value:g}" for name, value in flat(figures).items())


def flat(figures: Iterable[Figure]) -> dict[str, float]:
    """The figures by their names; one with reasons has several."""
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
    ("connections", "gauge", "", "Clients, and those who are leaving it."),
    ("accepted", "counter", "", "Connections that became clients."),
    ("refused", "counter", "", "Connections that were refused."),
    ("closed", "counter", "", "Clients whose connection has ended."),
    ("messages_in", "counter", "", "Messages that clients have said."),
    ("bytes_in", "counter", "", "Bytes of these messages."),
    ("messages_out", "counter", "", "Messages queued for clients, echoes included."),
    ("bytes_out", "counter", "", "Bytes of these messages."),
    ("bytes_dropped", "counter", "", "Bytes that closed clients had not taken."),
    ("backlog", "gauge", "bytes", "Bytes queued for all clients now."),
    ("backlog_peak", "gauge", "bytes", "The longest queue of a client that was seen."),
    ("pauses", "counter", "", "Pauses in reading from clients that said too much."),
    ("turns", "counter", "", "Turns of the loop."),
    ("longest_turn", "gauge", "seconds", "The longest turn, without the waiting."),
)
