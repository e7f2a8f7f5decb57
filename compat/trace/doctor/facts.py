"""A turn as the doctor's rules look at it: walked through once for all of them.

Rule 1: what stands here is of the turn that is over. What a reader knows of a channel
may be of later.
Rule 2: of what is past, a few numbers for each channel are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from compat.trace.doctor.findings import Location
from compat.trace.model import Call, Event, TracedChannel, Turn, walk
from compat.trace.render.formatting import duration

__all__ = ["CallFacts", "FactCollector", "TraceFacts", "TurnFacts"]


class CallFacts(NamedTuple):
    """A call as it was made.

    Attributes:
        outer: what it was made in, None if that is the loop.
        late: had its channel closed in an earlier turn than this one?
    """

    call: Call
    outer: CallFacts | None
    late: bool

    def around(self) -> Iterator[Call]:
        """The calls that it was made in, the innermost first."""
        made = self.outer
        while made is not None:
            yield made.call
            made = made.outer


@dataclass
class TurnFacts:
    """A turn, walked through once for all the rules.

    Attributes:
        made: its calls in the order in which they began.
        events: everything else, in order.
        moved: channels (their numbers) that bytes came from or went to.
        parents: channels in whose calls others were opened or told of.
        hidden: channels whose code goes past recv() and send(), to the socket itself,
            which a trace does not see.
        changed: channels that became something else in a callback: connected, closed.
        listeners: channels that listen, or did.
        errors: what handle_error was called for, by channel.
        ends: channels whose handle_close was called.
        behind: channels whose handle_backlog was called.
        reads, writes: channels whose handle_read, whose handle_write was called.
        status: what every channel is when the turn is over, by its number. (What the
            reader knows of it may be of later.)
        outermost: the call that was begun last of those that no other is around.
        asked: microseconds that asking took, without what was called before it (a
            trace of asyncore's own loop does not tell them apart).
        us: microseconds from the asking to the end.
    """

    turn: Turn
    status: dict[int, str]
    listeners: set[int] = field(default_factory=set)
    made: list[CallFacts] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    moved: set[int] = field(default_factory=set)
    parents: set[int] = field(default_factory=set)
    hidden: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    errors: dict[int, str] = field(default_factory=dict)
    ends: set[int] = field(default_factory=set)
    behind: set[int] = field(default_factory=set)
    reads: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    outermost: Call | None = None
    interest_us: int = 0
    us: int = 0

    def place(self, channel: TracedChannel | None, line: int = 0) -> Location:
        """Where this is."""
        turn = self.turn
        return Location(turn.number, turn.thread, line or turn.line, channel)


@dataclass
class TraceFacts:
    """The trace as a whole.

    Attributes:
        us: microseconds from its first event to its last.
        turns: how many there are.
        last: the place of its last event.
        ended: "closed", "full", or "" if its end is missing.
        lost: lines that are missing, in how many gaps.
    """

    us: int = 0
    turns: int = 0
    last: Location = field(default_factory=lambda: Location(0, 1, 1, None))
    end_reason: str = ""
    lost_lines: int = 0
    gaps: int = 0

    def add(self, seen: TurnFacts) -> None:
        """Another turn is over."""
        self.turns += bool(seen.turn.number)
        self.us = max(self.us, seen.turn.end)
        self.last = seen.place(None)

    def part(self, us: int) -> str:
        """A time, and what part of the whole it is."""
        return (
            f"{duration(us)}, {us / self.us:.0%} of the time"
            if self.us
            else duration(us)
        )


class FactCollector:
    """Walks through a turn, in the order in which things began."""

    def __init__(self) -> None:
        # When a channel closed: microseconds, and in which thread.
        self._closed: dict[int, tuple[int, int]] = {}
        self._status: dict[int, str] = {}
        self._listeners: set[int] = set()
        # By thread: when its last turn was over.
        self._ends: dict[int, int] = {}

    def through(self, turn: Turn) -> TurnFacts:
        since = self._ends.get(turn.thread, 0)
        asked = max(0, min(turn.interest_us, turn.at - since))
        seen = TurnFacts(turn, self._status, self._listeners, interest_us=asked)
        self._ends[turn.thread] = turn.end
        if turn.number:
            seen.us = turn.end - turn.at + asked
        outer: CallFacts | None = None
        for entry, begins in walk(turn.entries):
            if isinstance(entry, Event):
                self._event(seen, entry, outer)
            elif begins:
                outer = self._call(seen, entry, outer)
            elif outer is not None:
                outer = outer.outer
        return seen

    def lose(self) -> None:
        """Lines are missing: a channel may have closed, or been opened again."""
        self._closed.clear()
        self._status.clear()

    def _call(self, seen: TurnFacts, call: Call, outer: CallFacts | None) -> CallFacts:
        made = CallFacts(call, outer, self._is_late(seen.turn, call))
        seen.made.append(made)
        if outer is None:
            seen.outermost = call
        if call.channel is not None:
            _note(seen, call, call.channel.number)
        return made

    def _event(self, seen: TurnFacts, event: Event, outer: CallFacts | None) -> None:
        seen.events.append(event)
        if event.channel is None:
            return
        number = event.channel.number
        if event.kind == "open":
            self._closed.pop(number, None)
            if outer is not None:
                _note_parents(seen, outer)
        elif event.kind == "state" and "is" in event.fields:
            self._becomes(seen, event, number)

    def _becomes(self, seen: TurnFacts, event: Event, number: int) -> None:
        status = self._status[number] = event.fields["is"]
        if status == "closed":
            self._closed[number] = event.at, event.thread
        elif status == "listening":
            self._listeners.add(number)
        if _is_from_a_callback(seen):
            seen.changed.add(number)

    def _is_late(self, turn: Turn, call: Call) -> bool:
        if call.channel is None or call.channel.number not in self._closed:
            return False
        at, thread = self._closed[call.channel.number]
        # In the turn in which it closed, others may not know yet.
        return call.at > at and (thread != call.thread or at < turn.at)


def _is_from_a_callback(seen: TurnFacts) -> bool:
    """Is what happens now the work of one, and not of the program between two turns?

    What was found in the wait comes before any; who closes outside of them calls close.
    """
    return seen.outermost is not None and seen.outermost.name != "close"


def _note_parents(seen: TurnFacts, outer: CallFacts) -> None:
    for call in (outer.call, *outer.around()):
        if call.channel is not None:
            seen.parents.add(call.channel.number)


def _note(seen: TurnFacts, call: Call, number: int) -> None:
    # Where lines were lost, its code may be unknown.
    is_unknown = call.code is None and call.fields.get("f")
    if is_unknown or (call.code and any(map(_PAST.search, call.code.source))):
        seen.hidden.add(number)
    if call.name == "handle_read":
        seen.reads.add(number)
    elif call.name == "handle_write":
        seen.writes.add(number)
    if call.received or call.sent:
        seen.moved.add(number)
    elif call.name in ("handle_accepted", "handle_connect"):
        seen.parents.add(number)
    elif call.name == "handle_error":
        seen.errors[number] = call.error
    elif call.name == "handle_close":
        seen.ends.add(number)
    elif call.name == "handle_backlog":
        seen.behind.add(number)


# What code says that reads or writes without the channel's recv() and send().
_PAST = re.compile(r"\.sock(et)?\b(?!\.error)|recvfrom|sendto|os\.(read|write)")
