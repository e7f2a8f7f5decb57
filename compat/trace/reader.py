"""Read a trace: channels, code, and turns with their calls as trees.

Rule 1: reading ends at the first line that is incomplete, not JSON, or has a field of
the wrong type. The lines before it count.
Rule 2: fields and events of a later version are ignored.
Rule 3: only one turn of each thread is kept, so a trace may be larger than the memory.
Rule 4: calls may be nested as deeply as Python allows: no function here recurses.
Rule 5: where lines were lost, the other lines keep their places. A call never gets
entries that began before it, and the turns that may lack lines are marked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from compat.trace.format import FORMAT, VERSION, is_valid
from compat.trace.model import (
    Call,
    Code,
    Entry,
    Event,
    StateChange,
    TracedChannel,
    TraceHeader,
    Turn,
)

__all__ = ["Reader", "TraceError", "read_lines", "read_trace"]

# Bytes kept of the data that a channel received last: longer terminators are rare.
TAIL = 256

# Characters of an unknown version in an error.
MAX_VERSION = 40


class TraceError(ValueError):
    """The file is not a trace, or has an unknown version."""


class _Thread:
    """The current turn of one thread, and its entries without a parent so far."""

    def __init__(self, number: int, has_gap: bool) -> None:
        self.turn = Turn(0, number, has_gap=has_gap)
        # The deepest last.
        self.open: list[Entry] = []

    def close_entries(self) -> None:
        """Add the open entries to the turn: a line at depth 0 has no parent."""
        self.turn.entries += self.open
        self.open = []


class Reader:
    """Converts the lines of a trace to turns.

    Attributes:
        header: the first line; None before it is read.
        channels, code: all that were read so far, by number.
        end_reason: "closed" or "full"; "" if the trace has no last line.
        is_intact: False if a line was incomplete or invalid.
        line: the number of the last valid line.
        lost_lines: the number of lines that the recorder dropped, in *gaps* places.
    """

    def __init__(self) -> None:
        self.header: TraceHeader | None = None
        self.channels: dict[int, TracedChannel] = {}
        self.code: dict[int, Code] = {}
        self.end_reason = ""
        self.is_intact = True
        self.line = 0
        self.lost_lines = 0
        self.gaps = 0
        # The thread of the last line.
        self._last = _Thread(1, has_gap=False)
        self._threads: dict[int, _Thread] = {}
        # The last bytes that each channel received, if they are known.
        self._tails: dict[int, bytes] = {}

    def feed(self, line: str | bytes) -> Turn | None:
        """Read the next line; return a turn if the line completes one.

        A turn is complete when its thread starts the next one.

        Raises:
            TraceError: the first line is not a valid header.
        """
        self.line += 1
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict) or not is_valid(fields):
                fields = {}
        except (ValueError, RecursionError):
            fields = {}
        if self.header is None:
            self.header = _header(fields)
            return None
        if not fields:
            self.is_intact = False
            self.line -= 1
            return None
        return self._process(fields)

    def rest(self) -> list[Turn]:
        """Return the last turn of each thread, complete or not."""
        for thread in self._threads.values():
            thread.close_entries()
        return [thread.turn for thread in self._threads.values()]

    def channel(self, number: int) -> TracedChannel:
        """Return the channel with that number; create it if it is unknown."""
        return self.channels.setdefault(number, TracedChannel(number))

    def _process(self, fields: dict[str, Any]) -> Turn | None:
        kind, number = fields.get("e"), fields.get("th", 1)
        if kind == "lost":
            self._add_gap(fields)
            return None
        thread = self._last = self._thread(number)
        depth = fields.get("d", 0)
        if kind == "code":
            self._add_code(fields)
        elif kind == "turn" and depth == 0:
            return self._begin_turn(thread, fields)
        elif kind == "woke" and depth == 0 and not thread.turn.has_gap:
            self._end_wait(thread.turn, fields)
        elif kind == "call":
            self._add_call(thread, self._call(fields, number))
        else:
            thread.open.append(self._event(fields, number))
        if depth == 0:
            thread.close_entries()
        return None

    def _thread(self, number: int) -> _Thread:
        if number not in self._threads:
            self._threads[number] = _Thread(number, has_gap=bool(self.gaps))
        return self._threads[number]

    def _add_gap(self, fields: dict[str, Any]) -> None:
        self.lost_lines += max(0, fields.get("n") or 0)
        self.gaps += 1
        thread = self._threads.setdefault(self._last.turn.thread, self._last)
        for each in self._threads.values():
            each.turn.has_gap = True
        self._tails.clear()
        event = self._event(fields, thread.turn.thread)
        # It belongs to the call that encloses the entries before it, if that follows.
        event.depth = thread.open[-1].depth if thread.open else 0
        thread.open.append(event)
        if not event.depth:
            thread.close_entries()

    def _begin_turn(self, thread: _Thread, fields: dict[str, Any]) -> Turn:
        thread.close_entries()
        last = thread.turn
        at = len(last.entries)
        while at and _is_interest(last.entries[at - 1]):
            at -= 1
        interests = [each for each in last.entries[at:] if isinstance(each, Event)]
        del last.entries[at:]
        thread.turn = Turn(
            fields.get("n", 0),
            last.thread,
            self.line,
            fields.get("t", 0),
            fields.get("by", ""),
            fields.get("timeout"),
            fields.get("channels", 0),
            fields.get("asked", 0),
            interests=interests,
        )
        return last

    def _end_wait(self, turn: Turn, fields: dict[str, Any]) -> None:
        turn.waited, turn.why = fields.get("waited", 0), fields.get("why", "")
        for name, ready in turn.ready.items():
            ready.extend(map(self.channel, fields.get(name, ())))

    def _add_call(self, thread: _Thread, call: Call) -> None:
        at = len(thread.open)
        while at and _is_inside(thread.open[at - 1], call):
            at -= 1
        call.children = thread.open[at:]
        thread.open[at:] = [call]
        if call.received and call.channel is not None:
            number, data = call.channel.number, call.data or b""
            is_whole = call.size is None and len(data) == call.received
            tail = self._tails.get(number, b"") + data
            self._tails[number] = tail[-TAIL:] if is_whole else b""

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
        kind, at, depth = fields.get("e", "?"), fields.get("t", 0), fields.get("d", 0)
        channel = self.channel(fields["ch"]) if fields.get("ch") else None
        event = self.line, kind, at, depth, thread, channel, fields
        if kind == "end":
            self.end_reason = fields.get("why", "")
        if channel is None or kind not in _UPDATES:
            return Event(*event)
        for name, attribute in _UPDATES[kind].items():
            if name in fields:
                setattr(channel, attribute, fields[name])
        if kind != "state":
            return Event(*event)
        tail = self._tails.get(channel.number, b"")
        is_known = 0 < channel.held <= len(tail)
        held_bytes = tail[-channel.held :] if is_known else None
        return StateChange(*event, channel.terminator, held_bytes)

    def _add_code(self, fields: dict[str, Any]) -> None:
        number = fields.get("f", 0)
        self.code[number] = Code(
            number,
            fields.get("do", "?"),
            fields.get("class"),
            fields.get("file", "?"),
            fields.get("line", 0),
            fields.get("source", []),
        )


# The fields of an event that change its channel, and the channel's attributes.
_UPDATES = {
    "open": {"fd": "fd", "class": "class_name", "module": "module"},
    "state": {"is": "status"}
    | {
        name: name
        for name in ("local", "peer", "terminator", "held", "backlog", "queued")
    },
}


def read_trace(path: str | Path, reader: Reader | None = None) -> Iterator[Turn]:
    """Yield the turns of a file, in the order of their ends.

    Args:
        reader: gets the channels and the code during the iteration, and afterwards
            the reason why the trace ended.

    Raises:
        OSError: the file cannot be read.
        TraceError: the file is not a trace.
    """
    with open(path, "rb") as file:
        yield from read_lines(file, reader)


def read_lines(lines: Iterable[bytes], reader: Reader | None = None) -> Iterator[Turn]:
    """Yield the turns of an open file or other lines; see read_trace."""
    reader = reader or Reader()
    for line in lines:
        if not line.endswith(b"\n"):
            reader.is_intact = False
            break
        turn = reader.feed(line)
        if turn is not None and (turn.number or turn.entries):
            yield turn
        if not reader.is_intact:
            break
    if reader.header is None:
        raise TraceError("not a trace: it has no complete line")
    yield from reader.rest()


def _header(fields: dict[str, Any]) -> TraceHeader:
    if fields.get("format") != FORMAT:
        raise TraceError("not a trace: its first line is not a trace's header")
    if fields.get("version") != VERSION:
        version = repr(fields.get("version"))[:MAX_VERSION]
        raise TraceError(f"version must be {VERSION}, got {version}")
    names = TraceHeader.__annotations__
    return TraceHeader(**{name: fields[name] for name in names if name in fields})


def _is_inside(entry: Entry, call: Call) -> bool:
    # An earlier entry belongs to another call, whose line is missing.
    return entry.depth > call.depth and entry.at >= call.at


def _is_interest(entry: Entry) -> bool:
    return isinstance(entry, Event) and entry.kind == "interest"
