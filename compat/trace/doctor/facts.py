"""The facts about a turn that the doctor's rules use, collected in one pass.

Rule 1: facts are true at the end of their turn. The reader may already know later ones.
Rule 2: only a few numbers for each channel outlive a turn.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from compat.trace.doctor.findings import START, Location
from compat.trace.model import Call, Event, TracedChannel, Turn, walk
from compat.trace.render.formatting import duration

__all__ = ["CallFacts", "FactCollector", "TraceFacts", "TurnFacts"]


class CallFacts(NamedTuple):
    """A call and its callers.

    Attributes:
        caller: None if the loop made the call.
        is_late: whether its channel was closed in an earlier turn.
    """

    call: Call
    caller: CallFacts | None
    is_late: bool

    def callers(self) -> Iterator[Call]:
        """Yield the calls around this one, the innermost first."""
        facts = self.caller
        while facts is not None:
            yield facts.call
            facts = facts.caller


@dataclass
class TurnFacts:
    """The facts about a turn. Channels are represented by their numbers.

    Attributes:
        status: the status of every channel at the end of the turn.
        listeners: channels that listen, or did.
        interest_us: microseconds of the interest update. In a trace of asyncore's loop,
            the time of earlier calls is subtracted.
        us: microseconds from the interest update to the end.
        calls: in the order of their starts. events: everything else.
        called: for each method, the channels on which it was called.
        moved: channels that received or sent bytes.
        parents: channels whose calls opened or accepted others.
        hidden: channels whose code uses the socket itself, not recv() and send(); a
            trace does not show that.
        changed: channels whose status a callback changed.
        errors: the exception that handle_error was called for, by channel.
        outermost: the last call that the loop started.
    """

    turn: Turn
    status: dict[int, str]
    listeners: set[int]
    interest_us: int
    us: int
    calls: list[CallFacts] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    called: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    moved: set[int] = field(default_factory=set)
    parents: set[int] = field(default_factory=set)
    hidden: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    errors: dict[int, str] = field(default_factory=dict)
    outermost: Call | None = None

    def location(self, channel: TracedChannel | None, line: int = 0) -> Location:
        """Return a location in this turn."""
        turn = self.turn
        return Location(turn.number, turn.thread, line or turn.line, channel)


@dataclass
class TraceFacts:
    """The facts about the whole trace.

    Attributes:
        us: microseconds from its start to its last event.
        turns: their number.
        last: the location of the last event.
        end_reason: "closed", "full", or "" if its end is missing.
        lost_lines: the number of missing lines, in *gaps* places.
    """

    us: int = 0
    turns: int = 0
    last: Location = START
    end_reason: str = ""
    lost_lines: int = 0
    gaps: int = 0

    def add(self, facts: TurnFacts) -> None:
        """Add a turn."""
        self.turns += bool(facts.turn.number)
        self.us = max(self.us, facts.turn.end)
        self.last = facts.location(None)

    def share(self, us: int) -> str:
        """Return a duration and its share of the whole time, as text."""
        share = f", {us / self.us:.0%} of the time" if self.us else ""
        return f"{duration(us)}{share}"


class FactCollector:
    """Collects the facts of one turn after another."""

    def __init__(self) -> None:
        # The time in microseconds, and the thread, in which a channel closed.
        self._closed: dict[int, tuple[int, int]] = {}
        self._status: dict[int, str] = {}
        self._listeners: set[int] = set()
        # The end of the last turn, by thread.
        self._ends: dict[int, int] = {}

    def collect(self, turn: Turn) -> TurnFacts:
        """Return the facts about a turn."""
        since = turn.at - self._ends.get(turn.thread, 0)
        interest_us = max(0, min(turn.interest_us, since))
        us = turn.end - turn.at + interest_us if turn.number else 0
        facts = TurnFacts(turn, self._status, self._listeners, interest_us, us)
        self._ends[turn.thread] = turn.end
        caller: CallFacts | None = None
        for entry, begins in walk(turn.entries):
            if isinstance(entry, Event):
                self._event(facts, entry, caller)
            elif begins:
                caller = CallFacts(entry, caller, self._is_late(turn, entry))
                _add_call(facts, caller)
            elif caller is not None:
                caller = caller.caller
        return facts

    def forget(self) -> None:
        """Lines are missing: a channel may have closed, or have been opened again."""
        self._closed.clear()
        self._status.clear()

    def _event(self, facts: TurnFacts, event: Event, caller: CallFacts | None) -> None:
        facts.events.append(event)
        if event.channel is None:
            return
        number = event.channel.number
        if event.kind == "open":
            self._closed.pop(number, None)
            for call in (caller.call, *caller.callers()) if caller else ():
                if call.channel is not None:
                    facts.parents.add(call.channel.number)
        elif event.kind == "state" and "is" in event.fields:
            status = self._status[number] = event.fields["is"]
            if status == "closed":
                self._closed[number] = event.at, event.thread
            elif status == "listening":
                self._listeners.add(number)
            # Changes before the first callback of the turn were found in the wait, and
            # outside of callbacks, a program calls close.
            if facts.outermost is not None and facts.outermost.name != "close":
                facts.changed.add(number)

    def _is_late(self, turn: Turn, call: Call) -> bool:
        if call.channel is None or call.channel.number not in self._closed:
            return False
        at, thread = self._closed[call.channel.number]
        # In the turn in which it closed, other code may not have been notified yet.
        return call.at > at and (thread != call.thread or at < turn.at)


def _add_call(facts: TurnFacts, made: CallFacts) -> None:
    call = made.call
    facts.calls.append(made)
    if made.caller is None:
        facts.outermost = call
    if call.channel is None:
        return
    number = call.channel.number
    facts.called[call.name].add(number)
    # Where lines were lost, the code may be unknown.
    is_unknown = call.code is None and call.fields.get("f")
    if is_unknown or (call.code and any(map(_USES_SOCKET.search, call.code.source))):
        facts.hidden.add(number)
    if call.received or call.sent:
        facts.moved.add(number)
    elif call.name in ("handle_accepted", "handle_connect"):
        facts.parents.add(number)
    elif call.name == "handle_error":
        facts.errors[number] = call.error


# Code that reads or writes without the channel's recv() and send().
_USES_SOCKET = re.compile(r"\.sock(et)?\b(?!\.error)|recvfrom|sendto|os\.(read|write)")
