"""A trace in a terminal: turn by turn, with the calls as an indented tree.

    turn 5  0.420961 s  selectors asked 3 channels in 6 µs, may wait 30 s
      waited 250 µs: ready to read: ChatSession#2
      ChatSession#2.handle_read()  read 5: "hello"                             69 µs
        collect_incoming_data("hell")                             room.py:40   28 µs
          push("hell")                                                          3 µs
        holds back "o": it may begin the terminator "out"

Rule 1: no line is wider than it may be, unless it may be narrower than 40 columns; what
is left out is ``…``.
Rule 2: a call stands above what happened in it; an exception, below.
Rule 3: a turn is shown from what it holds, so that it can be shown while the program
runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from compat.trace.reading import Call, Channel, Entry, Event, Reader, State, Turn, walk
from compat.trace.words import (
    clip,
    count,
    counted,
    duration,
    happened,
    named,
    packed,
    place,
    quoted,
    readable,
    seconds,
    title,
    traffic,
    wanted,
    where,
    why,
    width,
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


class Part(NamedTuple):
    """A piece of a line, and how it looks: a key of STYLES, or ""."""

    text: str
    style: str = ""


def lines(
    turn: Turn, reader: Reader, *, color: bool = False, columns: int = COLUMNS
) -> Iterator[str]:
    """The lines of a turn, without their ends.

    Args:
        reader: what has read the turn.
        color: with the escapes of a terminal.
        columns: that a line may take.
    """
    columns = max(columns, LEAST)
    for parts in _turn(turn, reader, columns):
        yield "".join(_painted(parts, columns, color)).rstrip()


def _turn(turn: Turn, reader: Reader, columns: int) -> Iterator[list[Part]]:
    if turn.number:
        yield _head(turn)
    elif turn.entries:
        yield [Part("before the first turn", "turn"), Part(_thread(turn), "faint")]
    for wants, channels in _interests(turn.interests).items():
        label = f"  wants {wanted(*wants)}: "
        yield [Part(label), Part(_names(channels, columns - len(label)), "who")]
    if turn.number:
        yield _woke(turn, columns)
    yield from _entries(turn.entries, reader, columns)


def _head(turn: Turn) -> list[Part]:
    limit = "no limit" if turn.timeout is None else f"{turn.timeout:g} s"
    asked = f"{count(turn.channels, 'channel')} in {duration(turn.asked)}"
    told = f"  {readable(turn.by)} asked {asked}, may wait {limit}{_thread(turn)}"
    return [Part(f"turn {turn.number}", "turn"), Part(f"  {seconds(turn.at)}{told}")]


def _thread(turn: Turn) -> str:
    return f", thread {turn.thread}" if turn.thread != 1 else ""


def _interests(interests: Iterable[Event]) -> dict[tuple[bool, bool], list[Channel]]:
    """Who wants the same, in the order of the first."""
    found: dict[tuple[bool, bool], list[Channel]] = {}
    for event in interests:
        if event.channel is not None:
            wants = bool(event.fields.get("r")), bool(event.fields.get("w"))
            found.setdefault(wants, []).append(event.channel)
    return found


def _woke(turn: Turn, columns: int) -> list[Part]:
    if turn.waited is None:
        return [Part("  waits still", "faint")]
    parts = [Part(f"  waited {duration(turn.waited)}: {why(turn.why)}")]
    ready = {"read": turn.read, "write": turn.write, "urgent data": turn.urgent}
    for what, channels in ready.items():
        if channels:
            label = f" to {what}: " if what != "urgent data" else f" with {what}: "
            room = columns - sum(width(part.text) for part in parts) - len(label) - 1
            parts += [Part(label), Part(_names(channels, room), "who"), Part(";")]
    return parts[:-1] if len(parts) > 1 else parts


def _names(channels: list[Channel], room: int) -> str:
    """As many of their names as go in, at least one."""
    said = named(channels[0])
    for at, channel in enumerate(channels[1:], 1):
        longer = f"{said}, {named(channel)}"
        if width(longer) > room - len(" and 9,999 more"):
            return f"{said} and {len(channels) - at:,} more"
        said = longer
    return said


def _entries(
    entries: list[Entry], reader: Reader, columns: int
) -> Iterator[list[Part]]:
    callers: list[Call] = []
    for entry, begins in walk(entries):
        if isinstance(entry, Event):
            yield from _event(entry, callers, columns)
        elif begins:
            yield _call(entry, callers, reader, columns)
            callers.append(entry)
        else:
            if entry.error and entry.do != "handle_error":
                yield _raised(entry, callers, columns)
            callers.pop()


def _call(call: Call, callers: list[Call], reader: Reader, columns: int) -> list[Part]:
    is_method = call.do.isidentifier()
    whose = _whose(call, callers, "." if is_method else ": ")
    parts = [*_indent(callers), *whose, Part(title(call))]
    after = _told(call, callers, reader)
    timing = f"{duration(call.us):>{DURATION}}"
    right = f"  {_placed(place(call.code), columns)} {timing}"
    used = sum(width(part.text) for part in (*parts, *after)) + width(right)
    parts += _payload(call, "()" if is_method else "", columns - used)
    parts += after
    return [*parts, Part("\t"), Part(right, "faint")]


def _payload(call: Call, empty: str, room: int) -> list[Part]:
    """What it was given, in parentheses; what went through the socket, behind."""
    went = traffic(call)
    if call.size is not None:
        after = f")  {went}" if went else ")"
        given = _data(call.data, call.size, room - len("(") - len(after))
        return [Part("("), given, Part(after)]
    if not went:
        return [Part(empty)]
    if call.data is None:
        return [Part(f"{empty}  {went}")]
    told = f"{empty}  {went}: "
    data = quoted(call.data, call.taken or call.given, room - len(told))
    return [Part(told), Part(data, "data")]


def _data(data: bytes | None, size: int, room: int) -> Part:
    if data is None:
        return Part(count(size, "byte"))
    return Part(counted(data, size, room), "data")


def _told(call: Call, callers: list[Call], reader: Reader) -> list[Part]:
    """What is said behind a call: to whom it goes, or what it is called for."""
    told, to, but = "", call.fields.get("to"), call.fields.get("but")
    if isinstance(to, int):
        told = f" to {to:,}"
        channel = reader.channels.get(but) if isinstance(but, int) else None
        if callers and channel is not None and callers[-1].channel is channel:
            told += " others" if to != 1 else " other"
        elif channel is not None:
            told += f", not {named(channel)}"
    parts = [Part(told, "who")] if told else []
    if call.do == "handle_error" and call.error:
        parts.append(Part(f" for {clip(readable(call.error), 36)}", "error"))
    return parts


def _raised(call: Call, callers: list[Call], columns: int) -> list[Part]:
    error = Part(f"raises {readable(call.error)}", "error")
    at = f"  {_placed(where(call.where), columns)}" if call.where else ""
    return [*_indent(callers), error, Part("\t"), Part(at, "faint")]


def _placed(at: str, columns: int) -> str:
    return clip(at, columns // 3) if columns >= PLACED else ""


def _event(event: Event, callers: list[Call], columns: int) -> Iterator[list[Part]]:
    begin = [*_indent(callers), *_whose(event, callers, " ")]
    room = columns - sum(width(part.text) for part in begin)
    for said in packed(happened(event), room):
        held = isinstance(event, State) and bool(event.fields.get("held"))
        yield [*begin, Part(said, "held" if held else "state")]


def _whose(entry: Entry, callers: list[Call], between: str) -> list[Part]:
    """The channel's name, unless the call around it is the same channel's."""
    channel = entry.channel
    if channel is None or (callers and callers[-1].channel is channel):
        return []
    return [Part(named(channel), "who"), Part(between)]


def _indent(callers: list[Call]) -> list[Part]:
    level = len(callers)
    deep = [Part(f"{level} deep: ", "faint")] if level > DEEPEST else []
    return [Part("  " * (min(level, DEEPEST) + 1)), *deep]


def _painted(parts: list[Part], columns: int, color: bool) -> Iterator[str]:
    r"""The parts in so many columns; behind a part ``"\t"``, to the right."""
    tab = next((at for at, part in enumerate(parts) if part.text == "\t"), len(parts))
    right = parts[tab + 1 :]
    left = columns - sum(width(part.text) for part in right)
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
