"""A trace as one HTML page: steps through turns and calls, and the state of channels.

Rule 1: the page is complete. It makes no network requests, and its policy forbids them.
Rule 2: the contents of a trace are data. Every ``<`` is escaped, the policy allows only
the page's script, and the script writes text, never HTML.
Rule 3: the page shows only recorded data. Bytes that were not recorded are shown as
unknown.
Rule 4: rows are arrays that refer to texts by number, so 100,000 events take a few MB.

The sources are in ``page/``: the frame, the style, the script in the order of SCRIPTS,
and every word in each language.

The data of the script
======================

``rows`` has each turn before its entries, and each call before its children. The first
number is the kind of a row. ``dt`` are microseconds since the turn's ``at``. An int in
the place of a text is its index in ``strings``, 0 for none. Zeros at the end of a call
are omitted.

    0 turn      at, number, thread, by, timeout, channels, asked
    1 woke      depth, dt, waited, why, read, write, urgent
    2 call      depth, dt, us, do, ch, f, data, n, in, out, error, where, to, but, id
    3 state     depth, dt, ch, which of STATE have changed (bits), their values
    4 open      depth, dt, ch
    5 interest  depth, dt, ch, 1 to read + 2 to write
    6 timer     depth, dt, id, seconds (null: cancelled), f
    7 end       depth, dt, why
    8 turn      of a nested loop: depth, dt, number, by, timeout, channels, asked
    9 lost      depth, dt, lines. A later woke row of its turn has a depth

``n`` is the size of the argument plus one, 0 for none. ``channels`` are number, class,
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

__all__ = ["LANGUAGES", "SCRIPTS", "asset", "page"]

# Later scripts use the earlier ones.
SCRIPTS = (
    "bytes.js",
    "model.js",
    "words.js",
    "list.js",
    "viewport.js",
    "time.js",
    "views.js",
    "page.js",
)

# Categories of characters that page/bytes.js escapes, too.
INVISIBLE = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")

# The fields of a state, from the lowest bit up; the first three are texts.
STATE = ("is", "local", "peer", "terminator", "held", "backlog", "queued")
TEXTS = 3

READY = ("read", "write", "urgent")

Row: TypeAlias = list[Any]


def page(
    turns: Iterable[Turn],
    reader: Reader,
    lang: str = "en",
    title: str = "",
    part: bool = False,
) -> str:
    """Return an HTML page that shows a trace, for any browser of the last years.

    It has about 40 bytes for each event; its creation needs twice as much memory.

    Args:
        turns: all turns of a trace, or those to show; read to their end.
        reader: the reader of the turns.
        lang: the first language, one of LANGUAGES; the page can switch.
        title: "" for the name of the program.
        part: whether the trace has other turns, which are not shown.

    Raises:
        ValueError: *lang* is unknown.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang must be one of {', '.join(LANGUAGES)}, got {lang!r}")
    data = _data(turns, reader, part)
    header = reader.header or TraceHeader()
    script = "\n".join(map(asset, SCRIPTS))
    style = asset("page.css")
    return _filled(
        asset("page.html"),
        lang=lang,
        title=html.escape(_visible(title or header.program or "compat trace")),
        policy=f"default-src 'none'; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
        style=style,
        words=_inert(asset("words.json")),
        trace=_inert(data),
        script=script,
    )


def asset(name: str) -> str:
    """Return the text of a file in ``page/``."""
    return (resources.files("compat.trace.render") / "page" / name).read_text("utf-8")


def _visible(text: str) -> str:
    """Escape characters that hide or reorder text, as visibleText in bytes.js does."""
    return "".join(
        escaped(each) if unicodedata.category(each) in INVISIBLE else each
        for each in text
    )


def _filled(frame: str, **parts: str) -> str:
    """Replace each ``{{name}}`` of the frame, but none in the parts."""
    done = []
    for piece in frame.split("{{"):
        name, found, rest = piece.partition("}}")
        done.append(parts[name] + rest if found else piece)
    return "".join(done)


def _hash(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _inert(data: str) -> str:
    """Return JSON that cannot end an element or begin a comment."""
    return data.replace("<", "\\u003c")


def _data(turns: Iterable[Turn], reader: Reader, part: bool) -> str:
    rows = _Rows()
    # The turns of different threads alternate; they are shown in the order of their
    # starts.
    shown = [rows.turn(turn) for turn in turns if turn.number or turn.entries]
    shown.sort(key=lambda turn: turn[0])
    header = {
        **vars(reader.header or TraceHeader()),
        "ended": reader.end_reason,
        "whole": reader.is_intact,
        "line": reader.line,
        "lost": reader.lost_lines,
        "part": part,
    }
    rest = {
        "header": header,
        "strings": list(rows.strings),
        "channels": [
            [each.number, each.class_name, each.module, each.fd]
            for each in rows.channels.values()
        ],
        "code": [list(vars(each).values()) for each in reader.code.values()],
    }
    return f'{{"rows":[{",".join(text for _, text in shown)}],{_json(rest)[1:]}'


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


class _Rows:
    """Converts turns to rows, and numbers their texts and channels."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {"": 0}
        self.channels: dict[int, TracedChannel] = {}

    def turn(self, turn: Turn) -> tuple[int, str]:
        """Return the turn's start, and its rows as JSON without the outer brackets."""
        at = turn.at if turn.number else turn.entries[0].at
        figures = [turn.number, turn.thread, self._text(turn.loop), turn.timeout]
        rows: list[Row] = [[0, at, *figures, turn.channels, turn.interest_us]]
        rows += filter(None, (self._event(each, 0, at) for each in turn.interests))
        if turn.waited is not None:
            ready = [[*map(self._number, found)] for found in turn.ready.values()]
            rows.append([1, 0, turn.waited, turn.waited, self._text(turn.why), *ready])
        for entry, depth in _with_depth(turn.entries):
            if isinstance(entry, Call):
                rows.append(self._call(entry, depth, at))
            elif row := self._event(entry, depth, at):
                rows.append(row)
        return at, _json(rows)[1:-1]

    def _call(self, call: Call, depth: int, at: int) -> Row:
        data, fields = call.data, call.fields
        text = "" if data is None else data.decode("utf-8", "surrogateescape")
        row = [
            2,
            depth,
            call.at - at,
            call.us,
            self._text("flush" if call.name == "turn ends" else call.name),
            self._number(call.channel),
            call.code.number if call.code else 0,
            self._text(text),
            0 if call.size is None else call.size + 1,
            call.received,
            call.sent,
            self._text(call.error),
            self._text(call.where),
            *(fields.get(name, 0) for name in ("to", "but", "id")),
        ]
        while not row[-1]:
            row.pop()
        return row

    def _event(self, event: Event, depth: int, at: int) -> Row:
        """Return no row for an unknown event, or one that lacks its channel."""
        if event.kind in ("state", "open", "interest") and event.channel is None:
            return []
        row = self._fields(event)
        # A wait at depth 0 would be the turn's.
        row[1:1] = (depth or event.kind == "woke", event.at - at)
        return row if len(row) > 2 else []

    def _fields(self, event: Event) -> Row:
        fields, number = event.fields, self._number(event.channel)
        why = self._text(fields.get("why", ""))
        match event.kind:
            case "woke":
                ready = [fields.get(name, []) for name in READY]
                return [1, fields.get("waited", 0), why, *ready]
            case "state":
                return [3, number, *self._changes(fields)]
            case "open":
                return [4, number]
            case "interest":
                return [5, number, fields.get("r", False) + 2 * fields.get("w", False)]
            case "timer":
                return [6, fields.get("id", 0), fields.get("in"), fields.get("f", 0)]
            case "end":
                return [7, why]
            case "turn":
                loop, timeout = self._text(fields.get("by", "")), fields.get("timeout")
                figures = [fields.get(name, 0) for name in ("channels", "asked")]
                return [8, fields.get("n", 0), loop, timeout, *figures]
            case "lost":
                return [9, fields.get("n") or 0]
        return []

    def _changes(self, fields: dict[str, Any]) -> Row:
        bits, values = 0, []
        for place, name in enumerate(STATE):
            if name in fields:
                bits |= 1 << place
                value = fields[name]
                values.append(self._text(value) if place < TEXTS else value)
        return [bits, *values]

    def _text(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def _number(self, channel: TracedChannel | None) -> int:
        if channel is None:
            return 0
        self.channels.setdefault(channel.number, channel)
        return channel.number


def _with_depth(entries: list[Entry]) -> Iterator[tuple[Entry, int]]:
    """Yield entries and their depths in the tree, parents first.

    The depth in the file would be wrong where a trace ends in the middle of a call. A
    state change that is written after a callback is shown as the callback's last entry.
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
