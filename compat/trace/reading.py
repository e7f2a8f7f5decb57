"""A trace, read back: channels, code, and turns with their calls as trees.

Rule 1: a line that is not whole, that is not JSON, or in which something has another
type than compat.trace gives it, is the end of what can be read; what stood before it
counts.
Rule 2: what a later version adds is passed over.
Rule 3: one turn is held at a time, so a trace may be larger than the memory.
Rule 4: calls may be nested as deep as Python lets a program go: nothing here recurses.
Rule 5: where lines were lost, what is left stands where it stood. No call gets what
happened before it began, and the turns in which lines may be missing say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

__all__ = [
    "Call",
    "Channel",
    "Code",
    "Entry",
    "Event",
    "Header",
    "Reader",
    "State",
    "TraceError",
    "Turn",
    "read_lines",
    "read_trace",
    "walk",
]


# Bytes that are remembered of what a channel has read: longer terminators are rare.
TAIL = 256

# Characters of a version that an error repeats.
LONGEST_VERSION = 40


class TraceError(ValueError):
    """This is no trace, or one of a version that is not known here."""


@dataclass
class Header:
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
    do: str
    kind: str | None
    file: str
    line: int
    source: list[str]


@dataclass
class Channel:
    """A channel, and what became of it by the last event that was read.

    Attributes:
        number: ``ch`` in the file.
        kind: the name of its class.
        status: "new", "connecting", "connected", "listening", "closing" or "closed".
        held: bytes that are held back. backlog: bytes that wait for the peer.
    """

    number: int
    fd: int = -1
    kind: str = "?"
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
        return f"{self.kind}#{self.number}"


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
    what: str
    at: int
    depth: int
    thread: int
    channel: Channel | None
    fields: dict[str, Any]


@dataclass
class State(Event):
    """What became of a channel; ``fields`` has what has changed.

    Attributes:
        terminator: what the channel waited for then, changed or not.
        holds: the bytes that it held back then; None if the trace does not tell, as
            when what was read has been cut.
    """

    terminator: str | int | None = None
    holds: bytes | None = None


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
    do: str
    at: int
    us: int
    depth: int
    thread: int
    channel: Channel | None
    code: Code | None
    size: int | None
    data: bytes | None
    taken: int
    given: int
    error: str
    where: str
    fields: dict[str, Any]
    inside: list[Entry] = field(default_factory=list)

    @property
    def end(self) -> int:
        """When it was over."""
        return self.at + self.us

    @property
    def would_block(self) -> bool:
        """Return whether its socket took or gave nothing then, which is no failure."""
        return self.do in _TRIES and self.error.partition(":")[0] in _WOULD_BLOCK

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
    by: str = ""
    timeout: float | None = None
    channels: int = 0
    asked: int = 0
    waited: int | None = None
    why: str = ""
    read: list[Channel] = field(default_factory=list)
    write: list[Channel] = field(default_factory=list)
    urgent: list[Channel] = field(default_factory=list)
    interests: list[Event] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    torn: bool = False

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
                within.append((entry, iter(entry.inside)))
            continue
        within.pop()
        if call is not None:
            yield call, False


def _calls(entries: Iterable[Entry]) -> Iterator[Call]:
    for entry, begins in walk(entries):
        if begins and isinstance(entry, Call):
            yield entry


class _Thread:
    """What has been read of one thread."""

    def __init__(self, number: int, torn: bool) -> None:
        self.turn = Turn(0, number, torn=torn)
        # What has no parent yet, the deepest last.
        self.open: list[Entry] = []


class Reader:
    """Makes turns of lines.

    Attributes:
        header: the first line, once it has been read.
        channels, code: by their numbers, all that have been seen so far.
        ended: why the trace ended: "closed", "full", or "" if its end is missing.
        whole: False if the last line was cut off.
        line: the number of the last line that counts.
        lost: lines that were not written, in how many gaps.
    """

    def __init__(self) -> None:
        self.header: Header | None = None
        self.channels: dict[int, Channel] = {}
        self.code: dict[int, Code] = {}
        self.ended = ""
        self.whole = True
        self.line = 0
        self.lost = 0
        self.gaps = 0
        # The one that has written the last line.
        self._last = _Thread(1, torn=False)
        self._threads: dict[int, _Thread] = {}
        # The end of what each channel has read, as far as it is known.
        self._tails: dict[int, bytes] = {}

    def feed(self, line: str | bytes) -> Turn | None:
        """Read the next line; return the turn that is over by that, if one is.

        A turn is over when the next wait of its thread begins.

        Raises:
            TraceError: it is the first line, and not a header that is known here.
        """
        self.line += 1
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict) or not _is_sound(fields):
                raise ValueError("no line of a trace")
        except (ValueError, RecursionError):
            fields = {}
        if self.header is None:
            self.header = _header(fields)
            return None
        if not fields:
            self.whole = False
            self.line -= 1
            return None
        return self._take(fields)

    def rest(self) -> list[Turn]:
        """The turns that the trace ended in, one for each thread."""
        turns = []
        for thread in self._threads.values():
            thread.turn.entries += thread.open
            thread.open = []
            turns.append(thread.turn)
        return turns

    def channel(self, number: int) -> Channel:
        """The channel of that number; a new one, if it is not known."""
        return self.channels.setdefault(number, Channel(number))

    def _take(self, fields: dict[str, Any]) -> Turn | None:
        what, number = fields.get("e"), fields.get("th", 1)
        if what == "lost":
            self._lose(fields)
            return None
        thread = self._last = self._thread(number)
        depth = fields.get("d", 0)
        if what == "code":
            self._learn(fields)
        elif what == "turn" and depth == 0:
            return self._begin_turn(thread, fields)
        elif what == "woke" and depth == 0 and not thread.turn.torn:
            self._wake(thread, fields)
        elif what == "call":
            self._close_call(thread, self._call(fields, number))
        else:
            thread.open.append(self._event(fields, number))
        if depth == 0:
            self._settle(thread)
        return None

    def _thread(self, number: int) -> _Thread:
        if number not in self._threads:
            self._threads[number] = _Thread(number, torn=bool(self.gaps))
        return self._threads[number]

    def _lose(self, fields: dict[str, Any]) -> None:
        """Lines of any thread are missing here."""
        self.lost += max(0, fields.get("n") or 0)
        self.gaps += 1
        thread = self._threads.setdefault(self._last.turn.thread, self._last)
        for each in self._threads.values():
            each.turn.torn = True
        # What was read meanwhile is not known.
        self._tails.clear()
        event = self._event(fields, thread.turn.thread)
        # Inside of the call that has the entries before it, if that is still to come.
        event.depth = thread.open[-1].depth if thread.open else 0
        thread.open.append(event)
        if not event.depth:
            self._settle(thread)

    def _settle(self, thread: _Thread) -> None:
        """What stands before a line at depth 0 has no parent to wait for."""
        thread.turn.entries += thread.open
        thread.open = []

    def _begin_turn(self, thread: _Thread, fields: dict[str, Any]) -> Turn:
        over = thread.turn
        over.entries += thread.open
        thread.open = []
        at = len(over.entries)
        while at and _is_interest(over.entries[at - 1]):
            at -= 1
        interests = [each for each in over.entries[at:] if isinstance(each, Event)]
        del over.entries[at:]
        thread.turn = Turn(
            fields.get("n", 0),
            over.thread,
            self.line,
            fields.get("t", 0),
            fields.get("by", ""),
            fields.get("timeout"),
            fields.get("channels", 0),
            fields.get("asked", 0),
            interests=interests,
        )
        return over

    def _wake(self, thread: _Thread, fields: dict[str, Any]) -> None:
        turn = thread.turn
        turn.waited, turn.why = fields.get("waited", 0), fields.get("why", "")
        for name in ("read", "write", "urgent"):
            getattr(turn, name).extend(map(self.channel, fields.get(name, ())))

    def _close_call(self, thread: _Thread, call: Call) -> None:
        at = len(thread.open)
        while at and _is_inside(thread.open[at - 1], call):
            at -= 1
        call.inside = thread.open[at:]
        thread.open[at:] = [call]

        if call.taken and call.channel is not None:
            self._has_read(call, call.channel.number)

    def _has_read(self, call: Call, number: int) -> None:
        data = call.data or b""
        whole = call.size is None and len(data) == call.taken
        tail = self._tails.get(number, b"") + data
        self._tails[number] = tail[-TAIL:] if whole else b""

    def _call(self, fields: dict[str, Any], thread: int) -> Call:
        data = fields.get("data")
        return Call(
            self.line,
            fields.get("do", "?"),
            fields.get("t", 0),
            fields.get("us", 0),
            fields.get("d", 0),
            thread,
            self.channel(fields["ch"]) if fields.get("ch") else None,
            self.code.get(fields.get("f", 0)),
            fields.get("n"),
            None if data is None else data.encode("utf-8", "surrogateescape"),
            fields.get("in", 0),
            fields.get("out", 0),
            fields.get("error", ""),
            fields.get("where", ""),
            fields,
        )

    def _event(self, fields: dict[str, Any], thread: int) -> Event:
        what, at = fields.get("e", "?"), fields.get("t", 0)
        channel = self.channel(fields["ch"]) if fields.get("ch") else None
        if what == "open" and channel is not None:
            channel.fd, channel.opened = fields.get("fd", -1), at
            channel.kind = fields.get("class", "?")
            channel.module = fields.get("module", "")
        elif what == "state" and channel is not None:
            for name, value in fields.items():
                if name in _STATE:
                    setattr(channel, _STATE[name], value)
        elif what == "end":
            self.ended = fields.get("why", "")
        event = (self.line, what, at, fields.get("d", 0), thread, channel, fields)
        if what == "state" and channel is not None:
            tail = self._tails.get(channel.number, b"")
            known = 0 < channel.held <= len(tail)
            holds = tail[-channel.held :] if known else None
            return State(*event, channel.terminator, holds)
        return Event(*event)

    def _learn(self, fields: dict[str, Any]) -> None:
        number = fields.get("f", 0)
        self.code[number] = Code(
            number,
            fields.get("do", "?"),
            fields.get("class"),
            fields.get("file", "?"),
            fields.get("line", 0),
            fields.get("source", []),
        )


def _is_sound(fields: dict[str, Any]) -> bool:
    """Return whether each field that is known here has the type that it needs."""
    what = fields.get("e")
    if what == "call" and isinstance(fields.get("in"), float):
        return False
    if what == "turn" and not isinstance(fields.get("n", 0), int):
        return False
    return all(_fits(name, value) for name, value in fields.items())


def _fits(name: str, value: Any) -> bool:
    kind = _KINDS.get(name)
    if kind is None:
        return True
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return False
    if isinstance(value, int | float):
        least = 0 if name in _COUNTED else -_MOST
        return name == "terminator" or least <= value < _MOST
    if isinstance(value, list):
        return all(type(each) is _IN_LISTS[name] for each in value)
    return not (name == "data" and _NO_BYTES.search(str(value)))


# No number of a trace is as large, infinity is; and NaN is less than no number. A
# terminator is whatever the program has set.
_MOST = 1 << 63

# Halves of surrogate pairs that surrogateescape does not write.
_NO_BYTES = re.compile("[\\ud800-\\udc7f\\udd00-\\udfff]")

# What is never less than nothing.
_COUNTED = frozenset(
    ("t", "d", "th", "ch", "f", "us", "waited", "asked", "channels", "line")
)

_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("e", "do", "data", "error", "where", "file", "why"), str),
    **dict.fromkeys(("is", "local", "peer", "module", "by", "unseen"), str),
    **dict.fromkeys(("program", "python", "asyncore", "began"), str),
    **dict.fromkeys((*_COUNTED, "fd", "out", "held", "backlog", "queued"), int),
    **dict.fromkeys(("max", "id", "to", "but"), int),
    **dict.fromkeys(("r", "w", "cancelled"), bool),
    "class": (str, type(None)),
    "n": (int, type(None)),
    "payload": (int, type(None)),
    "terminator": (str, int, type(None)),
    "timeout": (int, float, type(None)),
    "in": (int, float),
    **dict.fromkeys(("read", "write", "urgent", "source"), list),
}
_IN_LISTS: dict[str, type] = {"read": int, "write": int, "urgent": int, "source": str}

_STATE = {
    "is": "status",
    "local": "local",
    "peer": "peer",
    "terminator": "terminator",
    "held": "held",
    "backlog": "backlog",
    "queued": "queued",
}


def read_trace(path: str | Path, reader: Reader | None = None) -> Iterator[Turn]:
    """The turns of a file, in the order of their ends.

    Args:
        reader: what knows the channels and the code while the turns are walked
            through, and afterwards why the trace ended.

    Raises:
        OSError: it cannot be read.
        TraceError: it is no trace.
    """
    with open(path, "rb") as file:
        yield from read_lines(file, reader)


def read_lines(lines: Iterable[bytes], reader: Reader | None = None) -> Iterator[Turn]:
    """As read_trace, of what is open already."""
    reader = reader or Reader()
    for line in lines:
        if not line.endswith(b"\n"):
            reader.whole = False
            break
        turn = reader.feed(line)
        if turn is not None and (turn.number or turn.entries):
            yield turn
        if not reader.whole:
            break
    if reader.header is None:
        raise TraceError("this is no trace: it has no whole line")
    yield from reader.rest()


def _header(fields: dict[str, Any]) -> Header:
    if fields.get("format") != "compat-trace":
        raise TraceError("this is no trace: its first line is not a trace's header")
    if fields.get("version") != 1:
        version = repr(fields.get("version"))[:LONGEST_VERSION]
        raise TraceError(f"this trace has version {version}: only 1 is known here")
    return Header(
        **{name: fields[name] for name in Header.__annotations__ if name in fields}
    )


def _is_inside(entry: Entry, call: Call) -> bool:
    # What began before it is another call's, whose line is missing.
    return entry.depth > call.depth and entry.at >= call.at


def _is_interest(entry: Entry) -> bool:
    return isinstance(entry, Event) and entry.what == "interest"
