"""A trace as JSON for ui.perfetto.dev and chrome://tracing.

Each thread has a track of turns, which contain the interest update, the wait and the
calls. Each channel has a counter of its backlog and one of its held-back bytes.
Format: "Trace Event Format", JSON Object Format; times are microseconds.

Rule 1: a slice ends within its parent, and siblings do not overlap. Each time of a
trace was rounded separately; a time that breaks this rule is moved.
Rule 2: of slices with the same start, the parent comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from compat.trace.model import Call, Event, StateChange, Turn, walk
from compat.trace.reader import Reader
from compat.trace.render.formatting import location, readable
from compat.trace.render.messages import (
    call_title,
    channel_name,
    describe,
    quoted_with_size,
    wake_reason,
)

__all__ = ["chunks"]

# The only process.
PROCESS = 1

ENCODER = json.JSONEncoder(separators=(",", ":"))

Fields = dict[str, Any]


def chunks(turns: Iterable[Turn], reader: Reader) -> Iterator[str]:
    """Yield the pieces of the file, in ASCII, about one for each event.

    Args:
        turns: in the order of their ends.
        reader: the reader of the turns.
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
                yield _metadata("process_name", 0, readable(reader.header.program))
            track = tracks[turn.thread] = _Track(turn.thread)
            yield _metadata("thread_name", turn.thread, f"thread {turn.thread}")
        yield from track.turn(turn)


class _Track:
    """The slices of a thread.

    Attributes:
        now: the earliest time of the next event, in microseconds.
    """

    def __init__(self, thread: int) -> None:
        self.now = 0
        self._thread = thread
        # The ends of the open slices, the innermost last.
        self._ends: list[int] = []

    def turn(self, turn: Turn) -> Iterator[Fields]:
        """Yield the events of a turn."""
        name = f"turn {turn.number}" if turn.number else "before the first turn"
        begin = turn.at - turn.interest_us
        yield self._open(name, "turn", begin, turn.end, _turn_arguments(turn))
        if turn.number:
            channels = {"of": turn.channels}
            yield self._leaf("interest", "turn", begin, turn.at, channels)
            if turn.waited is not None:
                end, arguments = turn.at + turn.waited, _wait_arguments(turn)
                yield self._leaf("wait", "wait", turn.at, end, arguments)
        for entry, begins in walk(turn.entries):
            if isinstance(entry, Event):
                yield from self._event(entry)
            elif begins:
                yield self._call(entry)
            else:
                self._close()
        self._close()

    def _call(self, call: Call) -> Fields:
        name = call_title(call)
        if call.channel is not None:
            between = "." if call.name.isidentifier() else ": "
            name = f"{channel_name(call.channel)}{between}{name}"
        return self._open(name, "call", call.at, call.end, _call_arguments(call))

    def _open(self, name: str, kind: str, begin: int, end: int, args: Fields) -> Fields:
        begin = self.now = self._moved(begin)
        end = max(begin, self._inside(end))
        self._ends.append(end)
        return self._fields("X", name, kind, begin, args) | {"dur": end - begin}

    def _close(self) -> None:
        self.now = self._ends.pop()

    def _leaf(self, name: str, kind: str, begin: int, end: int, args: Fields) -> Fields:
        leaf = self._open(name, kind, begin, end, args)
        self._close()
        return leaf

    def _event(self, event: Event) -> Iterator[Fields]:
        at = self.now = self._moved(event.at)
        if event.channel is not None:
            for counter in ("backlog", "held"):
                size = 0 if event.fields.get("is") == "closed" else None
                size = event.fields.get(counter, size)
                if size is not None:
                    name = f"{channel_name(event.channel)} {counter}"
                    yield self._fields("C", name, counter, at, {"bytes": size})
        if isinstance(event, StateChange) and "is" not in event.fields:
            return
        if event.kind != "interest":
            text = "; ".join(describe(event))
            if event.channel is not None:
                text = f"{channel_name(event.channel)} {text}"
            yield self._fields("i", text, "state", at, {}) | {"s": "t"}

    def _moved(self, at: int) -> int:
        return self._inside(max(at, self.now))

    def _inside(self, at: int) -> int:
        return min(at, self._ends[-1]) if self._ends else at

    def _fields(self, ph: str, name: str, cat: str, ts: int, args: Fields) -> Fields:
        track = {"pid": PROCESS, "tid": self._thread}
        return {"ph": ph, "name": name, "cat": cat, "ts": ts, **track, "args": args}


def _turn_arguments(turn: Turn) -> Fields:
    timeout = None if turn.timeout is None else f"{turn.timeout:g} s"
    loop = readable(turn.loop)
    return {"loop": loop, "channels": turn.channels, "timeout": timeout}


def _wait_arguments(turn: Turn) -> Fields:
    names = {
        kind: [*map(channel_name, found)] for kind, found in turn.ready.items() if found
    }
    return {"why": wake_reason(turn.why), **names}


def _call_arguments(call: Call) -> Fields:
    args: Fields = {}
    if call.data is not None:
        size = call.size if call.size is not None else call.received or call.sent
        args["data"] = quoted_with_size(call.data, size)
    elif call.size is not None:
        args["size"] = call.size
    args |= {"in": call.received, "out": call.sent, "code": location(call.code)}
    args |= {"error": readable(call.error), "where": readable(call.where)}
    return {name: value for name, value in args.items() if value or name == "size"}


def _metadata(name: str, thread: int, value: str) -> Fields:
    track = {"pid": PROCESS, "tid": thread}
    return {"ph": "M", "name": name, **track, "args": {"name": value}}
