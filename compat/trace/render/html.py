"""A trace as one page: step through turns and calls, and see what became of channels.

Rule 1: the page is whole. It asks the network for nothing, and its policy forbids it.
Rule 2: what a trace holds is data. Its ``<`` are escaped, the policy lets run only the
script that stands here, and the script writes text, never HTML.
Rule 3: what the page shows is in the trace. Bytes that were not recorded are not made
up; what is not known is shown as not known.
Rule 4: rows are arrays, with texts by number, so that 100,000 events stay a few MB.

The parts stand in ``page/``: the frame, its style, its script in the order of SCRIPTS,
and every word in each language.

What the script is given
========================

``rows``: a turn, then what it holds, each call before what happened in it. The first
number says which; ``dt`` are microseconds since the turn's ``at``; an int that names a
text is its place in ``strings``, 0 for none. Zeros at the end of a call are left out.

    0 turn      at, number, thread, by, timeout, channels, asked
    1 woke      depth, dt, waited, why, read, write, urgent
    2 call      depth, dt, us, do, ch, f, data, n, in, out, error, where, to, but, id
    3 state     depth, dt, ch, which of STATE have changed (bits), their values
    4 open      depth, dt, ch
    5 interest  depth, dt, ch, 1 to read + 2 to write
    6 timer     depth, dt, id, seconds (null: cancelled), f
    7 end       depth, dt, why
    8 turn      of a loop inside of a call: depth, dt, number, by, timeout, channels,
                asked
    9 lost      depth, dt, lines; what was woken behind it in its turn has a depth

``n`` is one more than the bytes given, 0 for none. ``channels`` are number, class,
module, descriptor; ``code`` are number, name, class, file, line, source.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import unicodedata
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any, TypeAlias

from compat.characters import escaped
from compat.trace.model import (
    Call,
    Entry,
    Event,
    StateChange,
    TracedChannel,
    TraceHeader,
    Turn,
    walk,
)
from compat.trace.reader import Reader
from compat.trace.render.messages import LANGUAGES

__all__ = ["LANGUAGES", "page"]

# In the order in which they build on each other.
SCRIPTS = (
    "bytes.js",
    "model.js",
    "words.js",
    "list.js",
    "part.js",
    "time.js",
    "views.js",
    "page.js",
)

# Categories of characters that page/bytes.js shows as escapes, too.
UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")

# What a state may change, from the lowest bit up; the first three are texts.
STATE = ("is", "local", "peer", "terminator", "held", "backlog", "queued")
TEXTS = 3

Row: TypeAlias = list[Any]


def page(
    turns: Iterable[Turn],
    reader: Reader,
    lang: str = "en",
    title: str = "",
    part: bool = False,
) -> str:
    """One HTML page that shows a trace, for any browser of the last years.

    Args:
        turns: of a whole trace, or those that are to be shown; read to their end.
        reader: who reads them.
        lang: the language that it begins with: one of LANGUAGES; it has a switch.
        title: "" for the name of the program.
        part: are there others, that are not to be shown?

    Its size is some 40 bytes an event; twice as much memory is needed to make it.

    Raises:
        ValueError: *lang* is not known.
    """
    if lang not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise ValueError(f"lang={lang!r} is no language of the page: {known} are")
    trace = _trace(turns, reader, part)
    header = reader.header or TraceHeader()
    script = "\n".join(map(_part, SCRIPTS))
    style = _part("page.css")
    return _fill(
        _part("page.html"),
        lang=lang,
        title=html.escape(_seen(title or header.program or "compat trace")),
        policy=f"default-src 'none'; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
        style=style,
        words=_inert(_part("words.json")),
        trace=_inert(trace),
        script=script,
    )


def _seen(text: str) -> str:
    """As seenText in bytes.js: escapes for what steers or hides other text."""
    return "".join(
        escaped(each) if unicodedata.category(each) in UNSEEN else each for each in text
    )


def _part(name: str) -> str:
    return (resources.files("compat.trace.render") / "page" / name).read_text("utf-8")


def _fill(frame: str, **parts: str) -> str:
    """The frame, with each ``{{name}}`` replaced; what is put in is not looked into."""
    done = []
    for piece in frame.split("{{"):
        name, found, rest = piece.partition("}}")
        done.append(parts[name] + rest if found else piece)
    return "".join(done)


def _hash(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _inert(data: str) -> str:
    """JSON that can end no element and begin no comment."""
    return data.replace("<", "\\u003c")


def _trace(turns: Iterable[Turn], reader: Reader, part: bool) -> str:
    """What the script is given, as JSON."""
    rows = _Rows()
    # Threads take turns; each is shown from its first moment on.
    told = [rows.of(turn) for turn in turns if turn.number or turn.entries]
    told.sort(key=lambda turn: turn[0])
    header = vars(reader.header or TraceHeader())
    rest = {
        "header": {
            **header,
            "ended": reader.end_reason,
            "whole": reader.is_intact,
            "line": reader.line,
            "lost": reader.lost_lines,
            "part": part,
        },
        "strings": list(rows.strings),
        "channels": [_channel(each) for each in rows.channels.values()],
        "code": [
            [each.number, each.name, each.class_name, each.file, each.line, each.source]
            for each in reader.code.values()
        ],
    }
    return f'{{"rows":[{",".join(text for _, text in told)}],{_json(rest)[1:]}'


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _channel(channel: TracedChannel) -> Row:
    return [channel.number, channel.class_name, channel.module, channel.fd]


class _Rows:
    """Makes rows of turns, and numbers the texts that they name."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {"": 0}
        self.channels: dict[int, TracedChannel] = {}

    def of(self, turn: Turn) -> tuple[int, str]:
        """When it began, and its rows, joined."""
        at = turn.at if turn.number else turn.entries[0].at
        figures = [turn.number, turn.thread, self._text(turn.loop), turn.timeout]
        rows: list[Row] = [[0, at, *figures, turn.channels, turn.interest_us]]
        rows += filter(None, (self._event(each, 0, at) for each in turn.interests))
        if turn.waited is not None:
            rows.append(self._woke(turn, at))
        for entry, depth in _placed(turn.entries):
            if isinstance(entry, Call):
                rows.append(self._call(entry, depth, at))
            elif row := self._event(entry, depth, at):
                rows.append(row)
        return at, _json(rows)[1:-1]

    def _woke(self, turn: Turn, at: int) -> Row:
        ready = (turn.read, turn.write, turn.urgent)
        who = [[self._number(each) for each in found] for found in ready]
        return [1, 0, turn.waited, turn.waited, self._text(turn.why), *who]

    def _call(self, call: Call, depth: int, at: int) -> Row:
        data, fields = call.data, call.fields
        said = "" if data is None else data.decode("utf-8", "surrogateescape")
        row = [
            2,
            depth,
            call.at - at,
            call.us,
            self._text(call.name),
            self._number(call.channel),
            call.code.number if call.code else 0,
            self._text(said),
            0 if call.size is None else call.size + 1,
            call.received,
            call.sent,
            self._text(call.error),
            self._text(call.where),
            fields.get("to", 0),
            fields.get("but", 0),
            fields.get("id", 0),
        ]
        while not row[-1]:
            row.pop()
        return row

    def _event(self, event: Event, depth: int, at: int) -> Row:
        """Nothing, if the page does not know it, or no channel is named that should."""
        if event.kind in _OF_CHANNELS and event.channel is None:
            return []
        row = _EVENTS.get(event.kind, _Rows._nothing)(self, event)
        # At depth 0, it would be the turn's own.
        row[1:1] = (depth or event.kind == "woke", event.at - at)
        return row if len(row) > 2 else []

    def _state(self, event: Event) -> Row:
        bits, values = 0, []
        for place, name in enumerate(STATE):
            if name in event.fields:
                value = event.fields[name]
                bits |= 1 << place
                values.append(self._text(value) if place < TEXTS else value)
        return [3, self._number(event.channel), bits, *values]

    def _open(self, event: Event) -> Row:
        return [4, self._number(event.channel)]

    def _interest(self, event: Event) -> Row:
        r, w = event.fields.get("r", False), event.fields.get("w", False)
        return [5, self._number(event.channel), r + 2 * w]

    def _timer(self, event: Event) -> Row:
        fields = event.fields
        return [6, fields.get("id", 0), fields.get("in"), fields.get("f", 0)]

    def _end(self, event: Event) -> Row:
        return [7, self._text(event.fields.get("why", ""))]

    def _turn(self, event: Event) -> Row:
        fields = event.fields
        by, timeout = self._text(fields.get("by", "")), fields.get("timeout")
        figures = fields.get("channels", 0), fields.get("asked", 0)
        return [8, fields.get("n", 0), by, timeout, *figures]

    def _inner_woke(self, event: Event) -> Row:
        fields = event.fields
        who = [fields.get(name, []) for name in ("read", "write", "urgent")]
        return [1, fields.get("waited", 0), self._text(fields.get("why", "")), *who]

    def _lost(self, event: Event) -> Row:
        return [9, event.fields.get("n") or 0]

    def _nothing(self, event: Event) -> Row:
        return []

    def _text(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def _number(self, channel: TracedChannel | None) -> int:
        if channel is None:
            return 0
        self.channels.setdefault(channel.number, channel)
        return channel.number


_OF_CHANNELS = ("state", "open", "interest")

_EVENTS = {
    "state": _Rows._state,
    "open": _Rows._open,
    "interest": _Rows._interest,
    "timer": _Rows._timer,
    "end": _Rows._end,
    "turn": _Rows._turn,
    "woke": _Rows._inner_woke,
    "lost": _Rows._lost,
}


def _placed(entries: list[Entry]) -> Iterator[tuple[Entry, int]]:
    """What stands in a tree, each before what is in it, with its depth in the tree.

    The depth in the file would be wrong where a trace ends in the middle of a call.
    What became of channels is written behind the callback that is over; here it is the
    last that happened in it.
    """
    depth, follows = 0, False
    for entry, begins in walk(entries):
        if not begins:
            depth -= 1
        elif isinstance(entry, Call):
            yield entry, depth
            depth += 1
        else:
            follows = follows and isinstance(entry, StateChange)
            yield entry, depth + follows
            continue
        follows = not begins
