"""A trace in a terminal: turn by turn, with the calls as an indented tree.

    turn 5  0.420961 s  selectors: interest of 3 channels in 6 µs, timeout 30 s
      waited 250 µs: ready to read: ChatSession#2
      ChatSession#2.handle_read()  read 5: "hello"                             69 µs
        collect_incoming_data("hell")                             room.py:40   28 µs
          push("hell")                                                          3 µs
      ChatSession#2 holds back "o": it may begin the terminator "out"

Rule 1: lines fit the width, which is at least 40 columns; ``…`` marks a cut.
Rule 2: a call is above its children; its exception is below them.
Rule 3: a turn is printed from its own contents, so the program may still be running.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from compat.trace.model import (
    Call,
    Entry,
    Event,
    StateChange,
    TracedChannel,
    Turn,
    walk,
)
from compat.trace.reader import Reader
from compat.trace.render.formatting import (
    clip,
    duration,
    file_and_line,
    location,
    packed,
    quoted,
    readable,
    seconds,
    width,
)
from compat.trace.render.messages import (
    LANGUAGES,
    call_title,
    channel_name,
    count,
    describe,
    interest,
    message,
    quoted_with_size,
    traffic,
    wake_reason,
)

__all__ = ["COLUMNS", "lines"]

# The width of a line if the output is not a terminal.
COLUMNS = 88

# A narrower terminal wraps the lines.
MIN_COLUMNS = 40

# Narrower lines omit the file and line of the code.
LOCATED = 60

# Deeper calls are not indented further; the line states their depth.
DEEPEST = 10

# Columns of a duration.
DURATION = 8

STYLES = {
    "turn": "1",
    "who": "36",
    "data": "32",
    "state": "33",
    "held": "1;33",
    "error": "1;31",
    "faint": "2",
}


class Fragment(NamedTuple):
    """A piece of a line, and its style: a key of STYLES, or ""."""

    text: str
    style: str = ""


# The fragments after it are aligned to the right.
ALIGN = Fragment("\t")


def lines(
    turn: Turn,
    reader: Reader,
    *,
    color: bool = False,
    columns: int = COLUMNS,
    lang: str = "en",
) -> Iterator[str]:
    """Yield the lines of a turn, without newlines.

    Args:
        reader: the reader of the turn.
        color: add a terminal's escape sequences.
        columns: the width of a line.
        lang: one of messages.LANGUAGES.

    Raises:
        ValueError: *lang* is unknown.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang must be one of {', '.join(LANGUAGES)}, got {lang!r}")
    columns = max(columns, MIN_COLUMNS)
    for fragments in _Text(reader, columns, lang).turn(turn):
        yield "".join(_painted(fragments, columns, color)).rstrip()


class _Text:
    """The lines of turns, as fragments."""

    def __init__(self, reader: Reader, columns: int, lang: str) -> None:
        self._reader = reader
        self._columns = columns
        self._lang = lang

    def turn(self, turn: Turn) -> Iterator[list[Fragment]]:
        thread = ""
        if turn.thread != 1:
            thread = self._message("thread", number=turn.thread)
        if turn.number:
            title = Fragment(self._message("turn", number=turn.number), "turn")
            yield [title, Fragment(f"  {self._head(turn)}{thread}")]
        elif turn.entries:
            title = Fragment(self._message("before"), "turn")
            yield [title, Fragment(thread, "faint")]
        yield from self._interests(turn)
        if turn.number and not (turn.has_gap and turn.waited is None):
            yield self._wait(turn)
        yield from self._entries(turn.entries)

    def _message(self, key: str, **values: object) -> str:
        return message(key, self._lang, **values)

    def _head(self, turn: Turn) -> str:
        timeout = self._message("no timeout")
        if turn.timeout is not None:
            timeout = self._message("timeout", seconds=turn.timeout)
        checked = self._message(
            "checked",
            loop=readable(turn.loop),
            channels=count(turn.channels, "channel", self._lang),
            span=duration(turn.interest_us),
        )
        return f"{seconds(turn.at)}  {checked}{timeout}"

    def _interests(self, turn: Turn) -> Iterator[list[Fragment]]:
        groups: dict[tuple[bool, bool], list[TracedChannel]] = {}
        for event in turn.interests:
            if event.channel is not None:
                key = bool(event.fields.get("r")), bool(event.fields.get("w"))
                groups.setdefault(key, []).append(event.channel)
        for key, channels in groups.items():
            wanted = interest(*key, self._lang)
            label = self._message("interest of", what=wanted) + self._message("colon")
            yield self._named([Fragment(f"  {label}")], channels)

    def _wait(self, turn: Turn) -> list[Fragment]:
        if turn.waited is None:
            return [Fragment(f"  {self._message('waiting')}", "faint")]
        reason = wake_reason(turn.why, self._lang)
        waited = self._message("waited", span=duration(turn.waited), why=reason)
        fragments = [Fragment(f"  {waited}")]
        for kind, channels in turn.ready.items():
            if channels:
                what = self._message(f"ready {kind}")
                label = Fragment(self._message("ready to", what=what))
                fragments = self._named([*fragments, label], channels, reserved=1)
                fragments.append(Fragment(self._message("ready and")))
        return fragments[:-1] if len(fragments) > 1 else fragments

    def _named(
        self,
        fragments: list[Fragment],
        channels: list[TracedChannel],
        reserved: int = 0,
    ) -> list[Fragment]:
        """Add as many names as fit into the line, at least one."""
        room = self._columns - _width(fragments) - reserved
        names = channel_name(channels[0])
        for at, channel in enumerate(channels[1:], 1):
            longer = f"{names}{self._message('between names')}{channel_name(channel)}"
            if width(longer) > room - width(self._message("more names", count=9_999)):
                names += self._message("more names", count=len(channels) - at)
                break
            names = longer
        return [*fragments, Fragment(names, "who")]

    def _entries(self, entries: list[Entry]) -> Iterator[list[Fragment]]:
        callers: list[Call] = []
        for entry, begins in walk(entries):
            if isinstance(entry, Event):
                yield from self._event(entry, callers)
            elif begins:
                yield self._call(entry, callers)
                callers.append(entry)
            else:
                if entry.error and entry.name != "handle_error":
                    yield self._raised(entry, callers)
                callers.pop()

    def _call(self, call: Call, callers: list[Call]) -> list[Fragment]:
        is_method = call.name.isidentifier()
        between = "." if is_method else self._message("colon")
        begin = self._begin(call, callers, between)
        fragments = [*begin, Fragment(call_title(call, self._lang))]
        after = self._receivers(call, callers) + self._handled(call)
        timing = f"{duration(call.us):>{DURATION}}"
        right = f"  {self._located(location(call.code))} {timing}"
        room = self._columns - _width(fragments) - _width(after) - width(right)
        fragments += self._payload(call, "()" if is_method else "", room)
        return [*fragments, *after, ALIGN, Fragment(right, "faint")]

    def _payload(self, call: Call, empty: str, room: int) -> list[Fragment]:
        """Return the argument in parentheses, and the traffic at the socket."""
        bytes_moved = traffic(call, self._lang)
        if call.size is not None:
            after = f")  {bytes_moved}" if bytes_moved else ")"
            data = Fragment(count(call.size, "byte", self._lang))
            if call.data is not None:
                room -= len("(") + width(after)
                text = quoted_with_size(call.data, call.size, room, self._lang)
                data = Fragment(text, "data")
            return [Fragment("("), data, Fragment(after)]
        if not bytes_moved:
            return [Fragment(empty)]
        if call.data is None:
            return [Fragment(f"{empty}  {bytes_moved}")]
        label = f"{empty}  {bytes_moved}{self._message('colon')}"
        text = quoted(call.data, call.received or call.sent, room - width(label))
        return [Fragment(label), Fragment(text, "data")]

    def _receivers(self, call: Call, callers: list[Call]) -> list[Fragment]:
        to, excluded = call.fields.get("to"), call.fields.get("but")
        if not isinstance(to, int):
            return []
        channel = None
        if isinstance(excluded, int):
            channel = self._reader.channels.get(excluded)
        if callers and channel is not None and callers[-1].channel is channel:
            key = "to others" if to != 1 else "to other"
            return [Fragment(self._message(key, count=to), "who")]
        text = self._message("to", count=to)
        if channel is not None:
            text += self._message("except", who=channel_name(channel))
        return [Fragment(text, "who")]

    def _handled(self, call: Call) -> list[Fragment]:
        if call.name != "handle_error" or not call.error:
            return []
        error = clip(readable(call.error), 36)
        return [Fragment(self._message("for", error=error), "error")]

    def _raised(self, call: Call, callers: list[Call]) -> list[Fragment]:
        style = "faint" if call.would_block else "error"
        error = Fragment(self._message("raises", error=readable(call.error)), style)
        at = f"  {self._located(file_and_line(call.where))}" if call.where else ""
        return [*self._indent(callers), error, ALIGN, Fragment(at, "faint")]

    def _located(self, at: str) -> str:
        return clip(at, self._columns // 3) if self._columns >= LOCATED else ""

    def _event(self, event: Event, callers: list[Call]) -> Iterator[list[Fragment]]:
        begin = self._begin(event, callers, " ")
        style = "state"
        if event.kind == "lost":
            style = "error"
        elif isinstance(event, StateChange) and event.fields.get("held"):
            style = "held"
        room, between = self._columns - _width(begin), self._message("semicolon")
        for phrases in packed(describe(event, self._lang), room, between):
            yield [*begin, Fragment(phrases, style)]

    def _begin(self, entry: Entry, callers: list[Call], between: str) -> list[Fragment]:
        """Return the indentation and the channel, unless the caller has the same."""
        begin, channel = self._indent(callers), entry.channel
        if channel is None or (callers and callers[-1].channel is channel):
            return begin
        return [*begin, Fragment(channel_name(channel), "who"), Fragment(between)]

    def _indent(self, callers: list[Call]) -> list[Fragment]:
        level = len(callers)
        indent = Fragment("  " * (min(level, DEEPEST) + 1))
        if level <= DEEPEST:
            return [indent]
        return [indent, Fragment(self._message("depth", level=level), "faint")]


def _width(fragments: Iterable[Fragment]) -> int:
    return sum(width(each.text) for each in fragments)


def _painted(fragments: list[Fragment], columns: int, color: bool) -> Iterator[str]:
    """Yield the text of a line; the fragments after ALIGN end at its right edge."""
    end = fragments.index(ALIGN) if ALIGN in fragments else len(fragments)
    right = fragments[end + 1 :]
    left = columns - _width(right)
    for fragment in fragments[:end]:
        text = clip(fragment.text, left)
        left -= width(text)
        yield _styled(text, fragment.style, color)
        if text != fragment.text:
            break
    if right:
        yield " " * left
        yield from (_styled(each.text, each.style, color) for each in right)


def _styled(text: str, style: str, color: bool) -> str:
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if color and style and text else text
