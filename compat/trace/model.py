"""What a trace holds: channels, code, and turns with their calls as trees.

Rule: calls may be nested as deep as Python lets a program go: nothing here recurses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = [
    "Call",
    "Code",
    "Entry",
    "Event",
    "StateChange",
    "TraceHeader",
    "TracedChannel",
    "Turn",
    "walk",
]


@dataclass
class TraceHeader:
    """The first line; see compat.trace."""

    program: str = ""
    python: str = ""
    asyncore: str = ""
    payload: int | None = None
    max: int = 0
    began: str = ""


@dataclass
class Code:
    """A function that was called.

    Attributes:
        number: ``f`` in the file.
        do: its name; kind: the name of its class, None if it is in none.
        source: its lines, without the common indent.
    """

    number: int
    name: str
    class_name: str | None
    file: str
    line: int
    source: list[str]


@dataclass
class TracedChannel:
    """A channel, and what became of it by the last event that was read.

    Attributes:
        number: ``ch`` in the file.
        kind: the name of its class.
        status: "new", "connecting", "connected", "listening", "closing" or "closed".
        held: bytes that are held back. backlog: bytes that wait for the peer.
    """

    number: int
    fd: int = -1
    class_name: str = "?"
    module: str = ""
    status: str = "new"
    local: str = ""
    peer: str = ""
    terminator: str | int | None = None
    held: int = 0
    backlog: int = 0
    queued: int = 0
    opened: int = 0

    @property
    def name(self) -> str:
        """For people: ``ChatSession#3``."""
        return f"{self.class_name}#{self.number}"


@dataclass
class Event:
    """A line of the file that is no call and no turn.

    Attributes:
        line: its number in the file, from 1 up: the header's.
        what: its ``e``: open, state, interest, timer, lost, end, turn, woke (the last
            two only in a call, from a loop that a handler has turned, or where lines
            were lost).
        at: microseconds since the trace began.
        depth: 0 outside of any call.
        channel: None if it has none.
        fields: all that the line has.
    """

    line: int
    kind: str
    at: int
    depth: int
    thread: int
    channel: TracedChannel | None
    fields: dict[str, Any]


@dataclass
class StateChange(Event):
    """What became of a channel; ``fields`` has what has changed.

    Attributes:
        terminator: what the channel waited for then, changed or not.
        holds: the bytes that it held back then; None if the trace does not tell, as
            when what was read has been cut.
    """

    terminator: str | int | None = None
    held_bytes: bytes | None = None


@dataclass
class Call:
    """A callback, or what a program asked of a channel.

    Attributes:
        line: its number in the file; do: the method's name.
        at, us: when it began, and how long it took, in microseconds.
        size: bytes that it was given, None if it is given none. taken, given: bytes
            that it read from its channel's socket and wrote to it.
        data: the first bytes that it was given, or read, or wrote; None if they were
            left out.
        error: what it raised, or "". where: "file:line" that raised it.
        inside: what happened in it, in the order of its end.
    """

    line: int
    name: str
    at: int
    us: int
    depth: int
    thread: int
    channel: TracedChannel | None
    code: Code | None
    size: int | None
    data: bytes | None
    received: int
    sent: int
    error: str
    where: str
    fields: dict[str, Any]
    children: list[Entry] = field(default_factory=list)

    @property
    def end(self) -> int:
        """When it was over."""
        return self.at + self.us

    @property
    def would_block(self) -> bool:
        """Return whether its socket took or gave nothing then, which is no failure."""
        return self.name in _TRIES and self.error.partition(":")[0] in _WOULD_BLOCK

    def calls(self) -> Iterator[Call]:
        """The calls in it, and in those; itself first."""
        return _calls([self])


# What a non-blocking socket raises when it takes or gives nothing at the moment, and
# from where: it is tried again when the socket is ready.
_WOULD_BLOCK = ("BlockingIOError", "SSLWantReadError", "SSLWantWriteError")
_TRIES = ("send", "recv")

Entry: TypeAlias = Call | Event


@dataclass
class Turn:
    """One pass of a loop: everybody was asked, it waited, and called who was ready.

    Attributes:
        number: from 1 up in each thread; 0 for what came before the first.
        at: when the wait began, in microseconds. timeout: seconds; None for no limit.
        waited: microseconds; None if it was waiting still when the trace ended.
        why: "ready", "timer", "wake-up" or "timeout"; "" if it was waiting still.
        read, write, urgent: who was ready.
        interests: what the asking brought, before the wait.
        entries: what happened after the wait.
        torn: were lines lost that may have been of this turn, or of others that are
            not in the trace?
    """

    number: int
    thread: int = 1
    line: int = 0
    at: int = 0
    loop: str = ""
    timeout: float | None = None
    channels: int = 0
    interest_us: int = 0
    waited: int | None = None
    why: str = ""
    read: list[TracedChannel] = field(default_factory=list)
    write: list[TracedChannel] = field(default_factory=list)
    urgent: list[TracedChannel] = field(default_factory=list)
    interests: list[Event] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    has_gap: bool = False

    def calls(self) -> Iterator[Call]:
        """Every call of the turn, outer ones before those in them."""
        return _calls(self.entries)

    @property
    def end(self) -> int:
        """When the last thing in it was over."""
        ends = [self.at + (self.waited or 0)]
        for entry in self.entries:
            ends.append(entry.end if isinstance(entry, Call) else entry.at)
        return max(ends)


def walk(entries: Iterable[Entry]) -> Iterator[tuple[Entry, bool]]:
    """Everything in *entries* and inside of it: each entry and True; after what is
    inside of a call, the call once more and False.
    """
    # Who is walked through, and what is left of it, the innermost last.
    within: list[tuple[Call | None, Iterator[Entry]]] = [(None, iter(entries))]
    while within:
        call, left = within[-1]
        entry = next(left, None)
        if entry is not None:
            yield entry, True
            if isinstance(entry, Call):
                within.append((entry, iter(entry.children)))
            continue
        within.pop()
        if call is not None:
            yield call, False


def _calls(entries: Iterable[Entry]) -> Iterator[Call]:
    for entry, begins in walk(entries):
        if begins and isinstance(entry, Call):
            yield entry
