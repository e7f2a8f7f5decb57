"""A trace as JSON that ui.perfetto.dev and chrome://tracing open.

A track for each thread has its turns, in these the asking, the wait and the calls; a
counter for each channel has its backlog, and one what it holds back. Format: "Trace
Event Format", JSON Object Format; times are microseconds.

Rule 1: what stands in a slice ends in it, and slices beside each other do not overlap,
though each time was rounded for itself: a time that would break this is moved.
Rule 2: of what begins at the same time, the outer one comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from compat.trace.model import Call, Event, StateChange, Turn, walk
from compat.trace.reader import Reader
from compat.trace.render.formatting import place, readable
from compat.trace.render.messages import counted, happened, named, title, why

__all__ = ["chunks"]

# All is one process.
PROCESS = 1

ENCODER = json.JSONEncoder(separators=(",", ":"))

Fields = dict[str, Any]


def chunks(turns: Iterable[Turn], reader: Reader) -> Iterator[str]:
    """The pieces of the file, ASCII, as many as there are events.

    Args:
        turns: in the order of their ends.
        reader: what reads the turns.
    """
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    before = ""
    for event in _events(turns, reader):
        yield before + ENCODER.encode(event)
        before = ",\n"
    yield "\n]}\n"


def _events(turns: Iterable[Turn], reader: Reader) -> Iterator[Fields]:
    tracks: dict[int, _Track] = {}
    for turn in turns:
        track = tracks.get(turn.thread)
        if track is None:
            if not tracks and reader.header is not None:
                yield _meta("process_name", 0, readable(reader.header.program))
            track = tracks[turn.thread] = _Track(turn.thread)
            yield _meta("thread_name", turn.thread, f"thread {turn.thread}")
        yield from track.turn(turn)


class _Track:
    """The slices of a thread.

    Attributes:
        now: before this, in microseconds, nothing more may be.
    """

    def __init__(self, thread: int) -> None:
        self.now = 0
        self._thread = thread
        # The ends of the slices that are open, the innermost last.
        self._ends: list[int] = []

    def turn(self, turn: Turn) -> Iterator[Fields]:
        """The events of a turn."""
        name = f"turn {turn.number}" if turn.number else "before the first turn"
        begin = turn.at - turn.interest_us
        yield self._open(name, "turn", begin, turn.end, _of_turn(turn))
        if turn.number:
            yield self._whole("ask", "turn", begin, turn.at, {"of": turn.channels})
            if turn.waited is not None:
                told = _of_wait(turn)
                over = turn.at + turn.waited
                yield self._whole("wait", "wait", turn.at, over, told)
        for entry, begins in walk(turn.entries):
            if isinstance(entry, Event):
                yield from self._event(entry)
            elif begins:
                name = title(entry)
                if entry.channel is not None:
                    between = "." if entry.name.isidentifier() else ": "
                    name = f"{named(entry.channel)}{between}{name}"
                yield self._open(name, "call", entry.at, entry.end, _of_call(entry))
            else:
                self._close()
        self._close()

    def _open(self, name: str, kind: str, begin: int, end: int, args: Fields) -> Fields:
        begin = self._moved(begin)
        end = max(begin, self._inside(end))
        self.now = begin
        self._ends.append(end)
        slice = self._fields("X", name, kind, begin, args)
        return slice | {"dur": end - begin}

    def _close(self) -> None:
        self.now = self._ends.pop()

    def _whole(
        self, name: str, kind: str, begin: int, end: int, args: Fields
    ) -> Fields:
        slice = self._open(name, kind, begin, end, args)
        self._close()
        return slice

    def _event(self, event: Event) -> Iterator[Fields]:
        at = self.now = self._moved(event.at)
        if event.channel is not None:
            for what in ("backlog", "held"):
                size = 0 if event.fields.get("is") == "closed" else None
                size = event.fields.get(what, size)
                if size is not None:
                    name = f"{named(event.channel)} {what}"
                    yield self._fields("C", name, what, at, {"bytes": size})
        if isinstance(event, StateChange) and "is" not in event.fields:
            return
        if event.kind != "interest":
            said = "; ".join(happened(event))
            if event.channel is not None:
                said = f"{named(event.channel)} {said}"
            yield self._fields("i", said, "state", at, {}) | {"s": "t"}

    def _moved(self, at: int) -> int:
        return self._inside(max(at, self.now))

    def _inside(self, at: int) -> int:
        return min(at, self._ends[-1]) if self._ends else at

    def _fields(self, ph: str, name: str, cat: str, ts: int, args: Fields) -> Fields:
        where = {"pid": PROCESS, "tid": self._thread}
        return {"ph": ph, "name": name, "cat": cat, "ts": ts, **where, "args": args}


def _of_turn(turn: Turn) -> Fields:
    timeout = None if turn.timeout is None else f"{turn.timeout:g} s"
    return {"by": readable(turn.loop), "channels": turn.channels, "timeout": timeout}


def _of_wait(turn: Turn) -> Fields:
    args: Fields = {"why": why(turn.why)}
    for name in ("read", "write", "urgent"):
        if ready := getattr(turn, name):
            args[name] = [named(channel) for channel in ready]
    return args


def _of_call(call: Call) -> Fields:
    args: Fields = {}
    if call.data is not None:
        size = call.size if call.size is not None else call.received or call.sent
        args["data"] = counted(call.data, int(size))
    elif call.size is not None:
        args["given"] = call.size
    told = {"in": call.received, "out": call.sent, "code": place(call.code)}
    told |= {"error": readable(call.error), "where": readable(call.where)}
    return args | {name: value for name, value in told.items() if value}


def _meta(name: str, thread: int, value: str) -> Fields:
    where = {"pid": PROCESS, "tid": thread}
    return {"ph": "M", "name": name, **where, "args": {"name": value}}
