"""The contents of a trace: channels, code, and turns with their calls as trees.

Rule: calls may be nested as deeply as Python allows: no function here recurses.
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
    """The first line; see compat.trace.format."""

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
        class_name: None for a function outside a class.
        source: its lines, without their common indentation.
    """

    number: int
    name: str
    class_name: str | None
    file: str
    line: int
    source: list[str]


@dataclass
class TracedChannel:
    """A channel, as the events read so far describe it.

    Attributes:
        number: ``ch`` in the file.
        status: "new", "connecting", "connected", "listening", "closing" or "closed".
        held: bytes held back. backlog: bytes queued for the peer, in *queued* entries.
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

    @property
    def name(self) -> str:
        """The name in all views: ``ChatSession#3``."""
        return f"{self.class_name}#{self.number}"


@dataclass
class Event:
    """A line of the file that is neither a call nor a turn.

    Attributes:
        line: its number in the file; the header is line 1.
        kind: its ``e``: open, state, interest, timer, lost or end. Turn and woke occur
            only inside a call, from a nested loop, or where lines were lost.
        at: microseconds since the trace began.
        depth: 0 outside any call.
        fields: all fields of the line.
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
    """The change of a channel's state; ``fields`` has only the changes.

    Attributes:
        terminator: the channel's terminator at that time, changed or not.
        held_bytes: the bytes that it held back at that time; None if they are not in
            the trace, for example because a payload was cut.
    """

    terminator: str | int | None = None
    held_bytes: bytes | None = None


@dataclass
class Call:
    """A callback, or a call of a channel's method by the program.

    Attributes:
        line: its number in the file.
        at, us: its start and its duration, in microseconds.
        size: bytes of its argument, None if that is not bytes.
        received, sent: bytes that it read from the channel's socket, or wrote to it.
        data: the first bytes of its argument, else of those received or sent; None if
            the trace has no payloads.
        error: the exception that it raised, or "". where: "file:line" that raised it.
        children: calls and events inside it, in the order of their ends.
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
        """Its end, in microseconds since the trace began."""
        return self.at + self.us

    @property
    def would_block(self) -> bool:
        """Return whether its socket was not ready, which is not a failure."""
        return (
            self.name in ("send", "recv")
            and self.error.partition(":")[0] in _WOULD_BLOCK
        )

    def calls(self) -> Iterator[Call]:
        """Yield this call and all calls inside it, parents first."""
        return _calls([self])


# Exceptions of a non-blocking socket that is not ready: the call is repeated later.
_WOULD_BLOCK = ("BlockingIOError", "SSLWantReadError", "SSLWantWriteError")

Entry: TypeAlias = Call | Event


@dataclass
class Turn:
    """One iteration of a loop: it updated the interest, waited, and dispatched.

    Attributes:
        number: from 1 up in each thread; 0 for everything before the first turn.
        loop: "select", "poll" or "selectors".
        at: the start of the wait, in microseconds. timeout: seconds; None for no limit.
        channels: the number of channels whose interest was checked.
        interest_us: microseconds that this took.
        waited: microseconds; None if the wait had not ended when the trace ended.
        why: "ready", "timer", "wake-up" or "timeout"; "" while waiting.
        read, write, urgent: the ready channels.
        interests: interest that changed before the wait.
        entries: calls and events after the wait.
        has_gap: whether lines are missing that may belong to this turn, or to turns
            that are not in the trace.
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
        """Yield every call of the turn, parents first."""
        return _calls(self.entries)

    @property
    def ready(self) -> dict[str, list[TracedChannel]]:
        """The ready channels, by "read", "write" and "urgent"."""
        return {"read": self.read, "write": self.write, "urgent": self.urgent}

    @property
    def end(self) -> int:
        """The end of its last call or event."""
        return max(
            self.at + (self.waited or 0),
            *(each.end if isinstance(each, Call) else each.at for each in self.entries),
            0,
        )


def walk(entries: Iterable[Entry]) -> Iterator[tuple[Entry, bool]]:
    """Yield (entry, True) for each entry, parents first.

    After the children of a call, it yields (call, False).
    """
    # The calls that are open, and the rest of their children, the innermost last.
    stack: list[tuple[Call | None, Iterator[Entry]]] = [(None, iter(entries))]
    while stack:
        call, rest = stack[-1]
        entry = next(rest, None)
        if entry is not None:
            yield entry, True
            if isinstance(entry, Call):
                stack.append((entry, iter(entry.children)))
            continue
        stack.pop()
        if call is not None:
            yield call, False


def _calls(entries: Iterable[Entry]) -> Iterator[Call]:
    for entry, begins in walk(entries):
        if begins and isinstance(entry, Call):
            yield entry
