"""A trace in a terminal: turn by turn, with the calls as an indented tree.

    turn 5  0.420961 s  selectors asked 3 channels in 6 µs, may wait 30 s
      waited 250 µs: ready to read: ChatSession#2
      ChatSession#2.handle_read()  read 5: "hello"                             69 µs
        collect_incoming_data("hell")                             room.py:40   28 µs
          push("hell")                                                          3 µs
      ChatSession#2 holds back "o": it may begin the terminator "out"

Rule 1: no line is wider than it may be, unless it may be narrower than 40 columns; what
is left out is ``…``.
Rule 2: a call stands above what happened in it; an exception, below.
Rule 3: a turn is shown from what it holds, so that it can be shown while the program
runs.
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
    packed,
    place,
    quoted,
    readable,
    seconds,
    where,
    width,
)
from compat.trace.render.messages import (
    LANGUAGES,
    count,
    counted,
    happened,
    named,
    said,
    title,
    traffic,
    wanted,
    why,
)

__all__ = ["COLUMNS", "lines"]

# Where nobody says how wide a line may be.
COLUMNS = 88

# A narrower terminal wraps what it is given.
LEAST = 40

# Below so many, what is called matters more than where it stands.
PLACED = 60

# Deeper calls are not indented further; their depth is said.
DEEPEST = 10

# Of a duration, so that they stand below each other.
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
    """A piece of a line, and how it looks: a key of STYLES, or ""."""

    text: str
    style: str = ""


def lines(
    turn: Turn,
    reader: Reader,
    *,
    color: bool = False,
    columns: int = COLUMNS,
    lang: str = "en",
) -> Iterator[str]:
    """The lines of a turn, without their ends.

    Args:
        reader: what has read the turn.
        color: with the escapes of a terminal.
        columns: that a line may take.
        lang: one of phrases.LANGUAGES.

    Raises:
        ValueError: *lang* is not known.
    """
    if lang not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise ValueError(f"lang={lang!r} is no language of the text: {known} are")
    columns = max(columns, LEAST)
    for parts in _Text(reader, columns, lang).turn(turn):
        yield "".join(_painted(parts, columns, color)).rstrip()


class _Text:
    """The lines of turns, in parts."""

    def __init__(self, reader: Reader, columns: int, lang: str) -> None:
        self._reader = reader
        self._columns = columns
        self._lang = lang

    def turn(self, turn: Turn) -> Iterator[list[Fragment]]:
        if turn.number:
            yield self._head(turn)
        elif turn.entries:
            thread = Fragment(self._thread(turn), "faint")
            yield [Fragment(self._said("before"), "turn"), thread]
        yield from self._interests(turn)
        if turn.number and not (turn.has_gap and turn.waited is None):
            yield self._woke(turn)
        yield from self._entries(turn.entries)

    def _said(self, phrase: str, **values: object) -> str:
        return said(phrase, self._lang, **values)

    def _head(self, turn: Turn) -> list[Fragment]:
        channels = count(turn.channels, "channel", self._lang)
        asked = {"by": readable(turn.loop), "span": duration(turn.interest_us)}
        told = self._said("asked", channels=channels, **asked)
        if turn.timeout is None:
            told += self._said("no limit")
        else:
            told += self._said("limit", seconds=turn.timeout)
        return [
            Fragment(self._said("turn", number=turn.number), "turn"),
            Fragment(f"  {seconds(turn.at)}  {told}{self._thread(turn)}"),
        ]

    def _thread(self, turn: Turn) -> str:
        return self._said("thread", number=turn.thread) if turn.thread != 1 else ""

    def _interests(self, turn: Turn) -> Iterator[list[Fragment]]:
        for wants, channels in _by_interest(turn.interests).items():
            what = self._said("wants", what=wanted(*wants, self._lang))
            label = f"  {what}{self._said('colon')}"
            room = self._columns - width(label)
            yield [Fragment(label), Fragment(self._names(channels, room), "who")]

    def _woke(self, turn: Turn) -> list[Fragment]:
        if turn.waited is None:
            return [Fragment(f"  {self._said('waits')}", "faint")]
        reason = why(turn.why, self._lang)
        waited = self._said("waited", span=duration(turn.waited), why=reason)
        parts = [Fragment(f"  {waited}")]
        ready = {"read": turn.read, "write": turn.write, "urgent": turn.urgent}
        for kind, channels in ready.items():
            if channels:
                label = self._said("ready to", what=self._said(f"ready {kind}"))
                room = self._columns - _width(parts) - width(label) - 1
                names = Fragment(self._names(channels, room), "who")
                parts += [Fragment(label), names, Fragment(self._said("ready and"))]
        return parts[:-1] if len(parts) > 1 else parts

    def _names(self, channels: list[TracedChannel], room: int) -> str:
        """As many of their names as go in, at least one."""
        names = named(channels[0])
        for at, channel in enumerate(channels[1:], 1):
            longer = f"{names}{self._said('between names')}{named(channel)}"
            if width(longer) > room - width(self._said("more names", count=9_999)):
                return names + self._said("more names", count=len(channels) - at)
            names = longer
        return names

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
        whose = _whose(call, callers, "." if is_method else self._said("colon"))
        parts = [*self._indent(callers), *whose, Fragment(title(call, self._lang))]
        after = self._told(call, callers)
        timing = f"{duration(call.us):>{DURATION}}"
        right = f"  {self._placed(place(call.code))} {timing}"
        room = self._columns - _width(parts) - _width(after) - width(right)
        parts += self._payload(call, "()" if is_method else "", room)
        return [*parts, *after, Fragment("\t"), Fragment(right, "faint")]

    def _payload(self, call: Call, empty: str, room: int) -> list[Fragment]:
        """What it was given, in parentheses; what went through the socket, behind."""
        went = traffic(call, self._lang)
        if call.size is not None:
            after = f")  {went}" if went else ")"
            given = self._data(call.data, call.size, room - len("(") - width(after))
            return [Fragment("("), given, Fragment(after)]
        if not went:
            return [Fragment(empty)]
        if call.data is None:
            return [Fragment(f"{empty}  {went}")]
        told = f"{empty}  {went}{self._said('colon')}"
        data = quoted(call.data, call.received or call.sent, room - width(told))
        return [Fragment(told), Fragment(data, "data")]

    def _data(self, data: bytes | None, size: int, room: int) -> Fragment:
        if data is None:
            return Fragment(count(size, "byte", self._lang))
        return Fragment(counted(data, size, room, self._lang), "data")

    def _told(self, call: Call, callers: list[Call]) -> list[Fragment]:
        """What is said behind a call: to whom it goes, or what it is called for."""
        told, to, but = "", call.fields.get("to"), call.fields.get("but")
        if isinstance(to, int):
            channel = self._reader.channels.get(but) if isinstance(but, int) else None
            if callers and channel is not None and callers[-1].channel is channel:
                told = self._said("to others" if to != 1 else "to other", count=to)
            else:
                told = self._said("to", count=to)
                if channel is not None:
                    told += self._said("but", who=named(channel))
        parts = [Fragment(told, "who")] if told else []
        if call.name == "handle_error" and call.error:
            error = clip(readable(call.error), 36)
            parts.append(Fragment(self._said("for", error=error), "error"))
        return parts

    def _raised(self, call: Call, callers: list[Call]) -> list[Fragment]:
        style = "faint" if call.would_block else "error"
        error = Fragment(self._said("raises", error=readable(call.error)), style)
        at = f"  {self._placed(where(call.where))}" if call.where else ""
        return [*self._indent(callers), error, Fragment("\t"), Fragment(at, "faint")]

    def _placed(self, at: str) -> str:
        return clip(at, self._columns // 3) if self._columns >= PLACED else ""

    def _event(self, event: Event, callers: list[Call]) -> Iterator[list[Fragment]]:
        begin = [*self._indent(callers), *_whose(event, callers, " ")]
        room = self._columns - _width(begin)
        between = self._said("semicolon")
        for words in packed(happened(event, self._lang), room, between):
            held = isinstance(event, StateChange) and bool(event.fields.get("held"))
            style = "error" if event.kind == "lost" else "held" if held else "state"
            yield [*begin, Fragment(words, style)]

    def _indent(self, callers: list[Call]) -> list[Fragment]:
        level = len(callers)
        indent = Fragment("  " * (min(level, DEEPEST) + 1))
        if level <= DEEPEST:
            return [indent]
        return [indent, Fragment(self._said("deep", level=level), "faint")]


def _by_interest(
    interests: Iterable[Event],
) -> dict[tuple[bool, bool], list[TracedChannel]]:
    """Who wants the same, in the order of the first."""
    found: dict[tuple[bool, bool], list[TracedChannel]] = {}
    for event in interests:
        if event.channel is not None:
            wants = bool(event.fields.get("r")), bool(event.fields.get("w"))
            found.setdefault(wants, []).append(event.channel)
    return found


def _whose(entry: Entry, callers: list[Call], between: str) -> list[Fragment]:
    """The channel's name, unless the call around it is the same channel's."""
    channel = entry.channel
    if channel is None or (callers and callers[-1].channel is channel):
        return []
    return [Fragment(named(channel), "who"), Fragment(between)]


def _width(parts: Iterable[Fragment]) -> int:
    return sum(width(part.text) for part in parts)


def _painted(parts: list[Fragment], columns: int, color: bool) -> Iterator[str]:
    r"""The parts in so many columns; behind a part ``"\t"``, to the right."""
    tab = next((at for at, part in enumerate(parts) if part.text == "\t"), len(parts))
    right = parts[tab + 1 :]
    left = columns - _width(right)
    for part in parts[:tab]:
        text = clip(part.text, left)
        left -= width(text)
        yield _styled(text, part.style, color)
        if text != part.text:
            break
    if right:
        yield " " * left
        for part in right:
            yield _styled(part.text, part.style, color)


def _styled(text: str, style: str, color: bool) -> str:
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if color and style and text else text
