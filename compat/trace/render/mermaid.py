"""A trace as a Mermaid sequence diagram, for a page that draws one.

Participants are, from left to right: peers, the loop, channels. Solid arrows are calls,
dashed ones bytes on their way; an arrow that ends in a cross is an exception.

Rule 1: what GitHub refuses is not made: a diagram has a limit, and ends in a note that
says where it was cut.
Rule 2: whatever a program or its peers wrote is text here, and never syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from compat.trace.model import Call, Event, StateChange, TracedChannel, Turn, walk
from compat.trace.reader import Reader
from compat.trace.render.formatting import clip, duration, packed, quoted, readable
from compat.trace.render.messages import counted, happened, named, title, why

__all__ = ["LIMIT", "diagram"]

# Messages and notes; more are hard to follow.
LIMIT = 200

# Characters: maxTextSize of Mermaid's defaults, which GitHub keeps, is 50,000. The rest
# is for the note at the end.
SIZE = 49_500

# Columns of a label, and of a line of a note.
LABEL = 56
NOTE = 36

LOOP = "L"

# What may stand in a text as it is. Of the rest much is syntax, and "#59;" is always a
# character. Two names of statements, before a colon and a "#", cost Mermaid's scanner
# an entity's end, and "wrap:" is an order.
ESCAPED = re.compile(
    r"""[^\w .,:()/=+…·"'!?*@-]|^\s|\s$|(?<=wrap):|(?<=st)y(?=le)|(?<=class)D"""
)


class DiagramLine(NamedTuple):
    """A line of the diagram, and whom it needs."""

    text: str
    who: tuple[str, ...]
    turn: int


def diagram(turns: Iterable[Turn], reader: Reader, *, limit: int = LIMIT) -> str:
    """The diagram, without a fence around it.

    Args:
        turns: those to be drawn.
        reader: what has read the turns.
        limit: messages and notes; there are fewer if the text would be longer than
            Mermaid takes, 50,000 characters.
    """
    lines: list[str] = []
    needed: dict[str, str] = {LOOP: _participant(LOOP, "the loop")}
    size = len("sequenceDiagram\n") + len(needed[LOOP]) + 1
    for line in _lines(turns, reader):
        new = {who: _declared(who, reader) for who in line.who if who not in needed}
        size += sum(len(text) + 1 for text in (line.text, *new.values()))
        if len(lines) >= limit or size > SIZE:
            lines.append(_note(LOOP, [f"more is left out, from turn {line.turn} on"]))
            break
        needed |= new
        lines.append(line.text)
    if not lines:
        lines.append(_note(LOOP, ["nothing was called"]))
    declared = [needed[who] for who in sorted(needed, key=_rank)]
    return "\n".join(["sequenceDiagram", *declared, *lines, ""])


def _lines(turns: Iterable[Turn], reader: Reader) -> Iterator[DiagramLine]:
    for turn in turns:
        begun = False
        for text, who in _messages(turn):
            if not begun and turn.number:
                yield DiagramLine(_note(LOOP, _woke(turn)), (LOOP,), turn.number)
            begun = True
            yield DiagramLine(text, who, turn.number)


def _messages(turn: Turn) -> Iterator[tuple[str, tuple[str, ...]]]:
    # Who is called, the innermost last.
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
            yield _message(called, "--x", callers[-1], text)


def _call(
    call: Call, caller: str, called: str
) -> Iterator[tuple[str, tuple[str, ...]]]:
    if call.name != "send" or not call.sent:
        yield _message(caller, "->>", called, _label(call))
    if call.channel is None:
        return
    peer = f"p{call.channel.number}"
    if call.received:
        yield _message(peer, "-->>", called, _bytes(call, call.received))
    if call.sent:
        yield _message(called, "-->>", peer, _bytes(call, call.sent))


def _label(call: Call) -> str:
    name = title(call)
    if call.name == "handle_error" and call.error:
        return f"{name} for {readable(call.error)}"
    told = f" to {call.fields['to']}" if "to" in call.fields else ""
    if call.size is None:
        return name
    if call.data is None:
        return f"{name}({call.size:,} bytes){told}"
    return f"{name}({counted(call.data, call.size, LABEL - len(name))}){told}"


def _bytes(call: Call, size: int) -> str:
    # What is given to a call is not what it wrote.
    if call.data is None or call.size is not None:
        return f"{size:,} bytes"
    return quoted(call.data, size, LABEL)


def _event(event: Event) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is worth a note: not each byte that waits, nor each interest."""
    if event.kind == "lost":
        yield _note(LOOP, happened(event)), (LOOP,)
        return
    if event.channel is None or event.kind not in ("open", "state"):
        return
    if isinstance(event, StateChange) and not event.fields.keys() & _TOLD:
        return
    who = f"c{event.channel.number}"
    yield _note(who, happened(event)), (who,)


_TOLD = {"is", "terminator", "held"}


def _woke(turn: Turn) -> list[str]:
    if turn.waited is None:
        return [f"turn {turn.number}{'' if turn.has_gap else ' waits still'}"]
    return [f"turn {turn.number}: {why(turn.why)}", f"waited {duration(turn.waited)}"]


def _message(
    sender: str, arrow: str, receiver: str, text: str
) -> tuple[str, tuple[str, ...]]:
    said = _escape(clip(text, LABEL + 24))
    return f"    {sender}{arrow}{receiver}: {said}", (sender, receiver)


def _note(who: str, phrases: list[str]) -> str:
    said = (_escape(clip(line, 2 * NOTE)) for line in packed(phrases, NOTE, ", "))
    return f"    Note over {who}: {'<br/>'.join(said)}"


def _declared(who: str, reader: Reader) -> str:
    channel = reader.channel(int(who[1:]))
    return _participant(who, named(channel) if who[0] == "c" else _peer(channel))


def _peer(channel: TracedChannel) -> str:
    return readable(channel.peer) or f"peer of {named(channel)}"


def _participant(who: str, name: str) -> str:
    return f"    participant {who} as {_escape(clip(name, LABEL))}"


def _rank(who: str) -> tuple[int, int]:
    """Peers, the loop, channels."""
    return "pLc".index(who[0]), int(who[1:] or 0)


def _escape(text: str) -> str:
    return ESCAPED.sub(lambda match: f"#{ord(match[0])};", text) or "#32;"
