"""A trace as a Mermaid sequence diagram, for a page that renders one.

The participants are, from left to right: peers, the loop, channels. Solid arrows are
calls, dashed arrows are bytes; an arrow that ends in a cross is an exception.

Rule 1: GitHub accepts every diagram: its size is limited, and its last note marks a
cut.
Rule 2: text of a program or its peers is never syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from compat.trace.model import Call, Event, StateChange, Turn, walk
from compat.trace.reader import Reader
from compat.trace.render.formatting import clip, duration, packed, quoted, readable
from compat.trace.render.messages import (
    call_title,
    channel_name,
    describe,
    quoted_with_size,
    wake_reason,
)

__all__ = ["LIMIT", "diagram"]

# Messages and notes; more are hard to follow.
LIMIT = 200

# Characters. Mermaid's default maxTextSize, which GitHub uses, is 50,000. The rest is
# for the last note.
SIZE = 49_500

# Columns of a label, and of a line of a note.
LABEL = 56
NOTE = 36

LOOP = "L"

# Characters to escape. Much punctuation is syntax, and "#59;" is always a character.
# Two statement names before a colon and a "#" cost Mermaid's scanner the end of an
# entity, and "wrap:" is a directive.
ESCAPED = re.compile(
    r"""[^\w .,:()/=+…·"'!?*@-]|^\s|\s$|(?<=wrap):|(?<=st)y(?=le)|(?<=class)D"""
)

# State changes without one of these are omitted: bytes that are queued, for example.
NOTED = {"is", "terminator", "held"}


class DiagramLine(NamedTuple):
    """A line of the diagram, and the participants that it needs."""

    text: str
    participants: tuple[str, ...]


def diagram(turns: Iterable[Turn], reader: Reader, *, limit: int = LIMIT) -> str:
    """Return the diagram, without a code fence.

    Args:
        reader: the reader of the turns.
        limit: the largest number of messages and notes. There are fewer if the diagram
            would exceed Mermaid's limit of 50,000 characters.
    """
    lines: list[str] = []
    declared: dict[str, str] = {LOOP: _participant(LOOP, "the loop")}
    size = len("sequenceDiagram\n") + len(declared[LOOP]) + 1
    for turn, line in _lines(turns):
        new = {
            each: _declared(each, reader)
            for each in line.participants
            if each not in declared
        }
        size += sum(len(text) + 1 for text in (line.text, *new.values()))
        if len(lines) >= limit or size > SIZE:
            lines.append(_note(LOOP, [f"cut off from turn {turn} on"]).text)
            break
        declared |= new
        lines.append(line.text)
    if not lines:
        lines.append(_note(LOOP, ["no calls"]).text)
    participants = [declared[each] for each in sorted(declared, key=_rank)]
    return "\n".join(["sequenceDiagram", *participants, *lines, ""])


def _lines(turns: Iterable[Turn]) -> Iterator[tuple[int, DiagramLine]]:
    """Yield turn numbers and lines; a note about the wait begins each turn."""
    for turn in turns:
        is_first = bool(turn.number)
        for line in _turn(turn):
            if is_first:
                yield turn.number, _note(LOOP, _wait(turn))
            is_first = False
            yield turn.number, line


def _turn(turn: Turn) -> Iterator[DiagramLine]:
    # The participants whose calls are open, the innermost last.
    callers = [LOOP]
    for entry, begins in walk(turn.entries):
        if isinstance(entry, Event):
            yield from _event(entry)
            continue
        called = f"c{entry.channel.number}" if entry.channel else callers[-1]
        if begins:
            yield from _call(entry, callers[-1], called)
            callers.append(called)
            continue
        callers.pop()
        if entry.error and entry.name != "handle_error" and not entry.would_block:
            text = f"raises {readable(entry.error)}"
            yield _arrow(called, "--x", callers[-1], text)


def _call(call: Call, caller: str, called: str) -> Iterator[DiagramLine]:
    if call.name != "send" or not call.sent:
        yield _arrow(caller, "->>", called, _label(call))
    if call.channel is None:
        return
    peer = f"p{call.channel.number}"
    if call.received:
        yield _arrow(peer, "-->>", called, _bytes(call, call.received))
    if call.sent:
        yield _arrow(called, "-->>", peer, _bytes(call, call.sent))


def _label(call: Call) -> str:
    name = call_title(call)
    if call.name == "handle_error" and call.error:
        return f"{name} for {readable(call.error)}"
    if call.size is None:
        return name
    data = f"{call.size:,} bytes"
    if call.data is not None:
        data = quoted_with_size(call.data, call.size, LABEL - len(name))
    to = f" to {call.fields['to']}" if "to" in call.fields else ""
    return f"{name}({data}){to}"


def _bytes(call: Call, size: int) -> str:
    # The data of a call with an argument is the argument.
    if call.data is None or call.size is not None:
        return f"{size:,} bytes"
    return quoted(call.data, size, LABEL)


def _event(event: Event) -> Iterator[DiagramLine]:
    if event.kind == "lost":
        yield _note(LOOP, describe(event))
    elif event.channel is not None and (
        event.kind == "open"
        or (isinstance(event, StateChange) and event.fields.keys() & NOTED)
    ):
        yield _note(f"c{event.channel.number}", describe(event))


def _wait(turn: Turn) -> list[str]:
    if turn.waited is None:
        return [f"turn {turn.number}{'' if turn.has_gap else ' is still waiting'}"]
    reason = wake_reason(turn.why)
    return [f"turn {turn.number}: {reason}", f"waited {duration(turn.waited)}"]


def _arrow(sender: str, arrow: str, receiver: str, text: str) -> DiagramLine:
    label = _escape(clip(text, LABEL + 24))
    return DiagramLine(f"    {sender}{arrow}{receiver}: {label}", (sender, receiver))


def _note(participant: str, phrases: list[str]) -> DiagramLine:
    text = (_escape(clip(line, 2 * NOTE)) for line in packed(phrases, NOTE, ", "))
    return DiagramLine(
        f"    Note over {participant}: {'<br/>'.join(text)}", (participant,)
    )


def _declared(participant: str, reader: Reader) -> str:
    channel = reader.channel(int(participant[1:]))
    name = channel_name(channel)
    if participant[0] == "p":
        name = readable(channel.peer) or f"peer of {name}"
    return _participant(participant, name)


def _participant(participant: str, name: str) -> str:
    return f"    participant {participant} as {_escape(clip(name, LABEL))}"


def _rank(participant: str) -> tuple[int, int]:
    """Order peers, the loop, channels."""
    return "pLc".index(participant[0]), int(participant[1:] or 0)


def _escape(text: str) -> str:
    return ESCAPED.sub(lambda match: f"#{ord(match[0])};", text) or "#32;"
