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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from compat.trace.format import is_sound
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


# Bytes that are remembered of what a channel has read: longer terminators are rare.
TAIL = 256

# Characters of a version that an error repeats.
LONGEST_VERSION = 40


class TraceError(ValueError):
    """This is no trace, or one of a version that is not known here."""


class _Thread:
    """What has been read of one thread."""

    def __init__(self, number: int, has_gap: bool) -> None:
        self.turn = Turn(0, number, has_gap=has_gap)
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
        self.header: TraceHeader | None = None
        self.channels: dict[int, TracedChannel] = {}
        self.code: dict[int, Code] = {}
        self.end_reason = ""
        self.is_intact = True
        self.line = 0
        self.lost_lines = 0
        self.gaps = 0
        # The one that has written the last line.
        self._last = _Thread(1, has_gap=False)
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
            if not isinstance(fields, dict) or not is_sound(fields):
                raise ValueError("no line of a trace")
        except (ValueError, RecursionError):
            fields = {}
        if self.header is None:
            self.header = _header(fields)
            return None
        if not fields:
            self.is_intact = False
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

    def channel(self, number: int) -> TracedChannel:
        """The channel of that number; a new one, if it is not known."""
        return self.channels.setdefault(number, TracedChannel(number))

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
        elif what == "woke" and depth == 0 and not thread.turn.has_gap:
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
            self._threads[number] = _Thread(number, has_gap=bool(self.gaps))
        return self._threads[number]

    def _lose(self, fields: dict[str, Any]) -> None:
        """Lines of any thread are missing here."""
        self.lost_lines += max(0, fields.get("n") or 0)
        self.gaps += 1
        thread = self._threads.setdefault(self._last.turn.thread, self._last)
        for each in self._threads.values():
            each.turn.has_gap = True
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
        call.children = thread.open[at:]
        thread.open[at:] = [call]

        if call.received and call.channel is not None:
            self._has_read(call, call.channel.number)

    def _has_read(self, call: Call, number: int) -> None:
        data = call.data or b""
        whole = call.size is None and len(data) == call.received
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
            channel.class_name = fields.get("class", "?")
            channel.module = fields.get("module", "")
        elif what == "state" and channel is not None:
            for name, value in fields.items():
                if name in _STATE:
                    setattr(channel, _STATE[name], value)
        elif what == "end":
            self.end_reason = fields.get("why", "")
        event = (self.line, what, at, fields.get("d", 0), thread, channel, fields)
        if what == "state" and channel is not None:
            tail = self._tails.get(channel.number, b"")
            known = 0 < channel.held <= len(tail)
            holds = tail[-channel.held :] if known else None
            return StateChange(*event, channel.terminator, holds)
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
            reader.is_intact = False
            break
        turn = reader.feed(line)
        if turn is not None and (turn.number or turn.entries):
            yield turn
        if not reader.is_intact:
            break
    if reader.header is None:
        raise TraceError("this is no trace: it has no whole line")
    yield from reader.rest()


def _header(fields: dict[str, Any]) -> TraceHeader:
    if fields.get("format") != "compat-trace":
        raise TraceError("this is no trace: its first line is not a trace's header")
    if fields.get("version") != 1:
        version = repr(fields.get("version"))[:LONGEST_VERSION]
        raise TraceError(f"this trace has version {version}: only 1 is known here")
    return TraceHeader(
        **{name: fields[name] for name in TraceHeader.__annotations__ if name in fields}
    )


def _is_inside(entry: Entry, call: Call) -> bool:
    # What began before it is another call's, whose line is missing.
    return entry.depth > call.depth and entry.at >= call.at


def _is_interest(entry: Entry) -> bool:
    return isinstance(entry, Event) and entry.kind == "interest"
