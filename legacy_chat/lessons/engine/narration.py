"""The events of a step as lines of text: turns, calls, and notes about peers.

Rule 1: every line comes from the trace or from a note.
Rule 2: a turn that looks like the previous one is counted, not shown. Of more turns
that differ, the first two and the last two are shown.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from compat.trace.model import Call, Entry, Event, TracedChannel, Turn
from compat.trace.render.formatting import clip, readable
from compat.trace.render.messages import call_title, count, interest, message
from legacy_chat.lessons.engine.harness import user_of
from legacy_chat.lessons.engine.phrases import NAMES, NOTES, filled_in, phrase
from legacy_chat.lessons.engine.step_run import Note, StepRun

__all__ = ["Narration", "Row", "name_of"]

# Characters of sent or received data that are shown; of longer data, the first ones.
LONGEST_DATA = 48
BEGINNING = 9

# Of more turns, those in the middle are left out; the same for the lines of a turn.
MAX_TURNS = 5
MAX_CALLS = 20

# Of more names, the first and the last are shown.
MAX_NAMES = 3

# Columns of a line that the room prints or logs.
MAX_PRINTED = 72

# Notes of actions before a turn; all others are effects of one.
ACTIONS = ("present", "connects", "sends", "disconnects")


class Row(NamedTuple):
    """A line of the narration.

    Attributes:
        call: the method that it shows the call of.
        is_optional: a later turn without this line still looks like this one.
    """

    text: str
    call: str = ""
    is_optional: bool = False


@dataclass
class _Block:
    """A turn with the notes around it.

    Attributes:
        before, rows, after: actions before the turn; the turn; its effects.
        repeats: the number of following turns that look like it.
    """

    number: int
    rows: list[Row]
    before: list[Row] = field(default_factory=list)
    after: list[Row] = field(default_factory=list)
    repeats: int = 0

    def all_rows(self) -> list[Row]:
        return [*self.before, *self.rows, *self.after]

    def looks_like(self, earlier: _Block) -> bool:
        """Return whether it differs from *earlier* in figures only."""
        rows = earlier.all_rows()
        required = [row for row in rows if not row.is_optional]
        return _shape(self.all_rows()) in (_shape(rows), _shape(required))


class Narration:
    """The lines of one step's run, in one language."""

    def __init__(self, run: StepRun, lang: str) -> None:
        self._run = run
        self._lang = lang
        self._blocks = self._merged(self._all_blocks())

    def repeated_turns(self) -> set[int]:
        """Return the numbers of the turns that are counted, not shown."""
        shown = {block.number for block in self._blocks}
        return {turn.number for turn in self._run.turns} - shown

    def rows(self) -> Iterator[Row]:
        """Yield the lines in the order of the events."""
        blocks = self._blocks
        hidden = _middle(len(blocks), MAX_TURNS, 2)
        for at, block in enumerate(blocks):
            if at not in hidden:
                yield from block.all_rows()
                if block.repeats:
                    yield Row(self._phrase("same turns", count=block.repeats))
            elif at == hidden[0]:
                turns = sum(1 + blocks[each].repeats for each in hidden)
                yield Row(self._phrase("more turns", count=turns))

    def _phrase(self, name: str, **values: object) -> str:
        return phrase(name, self._lang, **values)

    def _all_blocks(self) -> list[_Block]:
        run = self._run
        blocks = {
            turn.number: _Block(turn.number, [*self._turn(turn)]) for turn in run.turns
        }
        # For notes after the last turn, or without any.
        blocks[run.last + 1] = _Block(run.last + 1, [])
        for turn, notes in itertools.groupby(run.notes, operator.attrgetter("turn")):
            rows = blocks[turn].after if turn in blocks else blocks[turn + 1].before
            for note in notes:
                if note.kind in ACTIONS:
                    rows = blocks[turn + 1].before
                rows.append(self._note(note))
        return [*blocks.values()]

    def _merged(self, blocks: list[_Block]) -> list[_Block]:
        """Count blocks that look like the one before."""
        merged: list[_Block] = []
        for block in blocks:
            if merged and block.rows and block.looks_like(merged[-1]):
                merged[-1].repeats += 1
            elif block.rows or block.before:
                merged.append(block)
        return merged

    def _note(self, note: Note) -> Row:
        if note.kind in ("prints", "logs"):
            data = clip(self._with_names(note.data), MAX_PRINTED)
        else:
            data = self._data(note.data, None)
        who = self._listed([name_of(each, self._lang) for each in note.peers])
        text = filled_in(NOTES[note.kind], self._lang, data, who=who)
        return Row(text, is_optional=note.kind == "present")

    def _turn(self, turn: Turn) -> Iterator[Row]:
        ready = [
            self._phrase(how, who=self._listed([*map(self._owner, channels)]))
            for how in ("read", "write", "urgent")
            if (channels := getattr(turn, how))
        ]
        text = self._phrase("comma").join(ready) or self._phrase("none")
        yield Row(self._phrase("turn", number=turn.number, ready=text))
        for event in turn.interests:
            yield Row("  " + self._interest(event), is_optional=True)
        setup = _opened_outside_of_calls(turn)
        entries = [each for each in turn.entries if each.channel not in setup]
        rows = [row for entry in entries for row in self._entry(entry, None)]
        hidden = _middle(len(rows), MAX_CALLS, 6)
        for at, row in enumerate(rows):
            if at not in hidden:
                yield row
            elif at == hidden[0]:
                yield Row("    " + self._phrase("more calls", count=len(hidden)))

    def _entry(self, entry: Entry, caller: TracedChannel | None) -> Iterator[Row]:
        """A call with all calls in it, or a change of state."""
        indent = "  " * (entry.depth + 1)
        if isinstance(entry, Call):
            yield Row(indent + self._call(entry, caller), entry.name)
            for inner in entry.children:
                yield from self._entry(inner, entry.channel or caller)
        elif entry.kind == "state":
            for text in self._state(entry):
                yield Row(indent + text)

    def _call(self, call: Call, caller: TracedChannel | None) -> str:
        text = call_title(call, self._lang)
        if call.channel is not None and call.channel is not caller:
            text = self._phrase("of", who=self._owner(call.channel), does=text)
        parts = [text]
        if call.data:
            size = call.received or call.sent if call.size is None else call.size
            parts.append(self._data(call.data, size))
        if call.error:
            # handle_error is called for an exception, and raises none.
            how = "handles" if call.name == "handle_error" else "raised"
            parts.append(self._phrase(how, error=call.error.partition(":")[0]))
        return " ".join(parts)

    def _state(self, event: Event) -> Iterator[str]:
        for name in ("held", "backlog"):
            if name in event.fields:
                size = count(event.fields[name], "byte", self._lang)
                yield self._phrase(name, count=size)
        status = event.fields.get("is")
        if status and event.channel is not None:
            who, state = self._owner(event.channel), message(f"is {status}", self._lang)
            yield self._phrase("state", who=who, state=state)

    def _interest(self, event: Event) -> str:
        what = interest(event.fields.get("r"), event.fields.get("w"), self._lang)
        who = self._owner(event.channel) if event.channel else "?"
        return self._phrase("interest", who=who, what=what)

    def _data(self, data: bytes, size: int | None) -> str:
        """Quote data, with names in place of addresses; clip it if it is long."""
        text = self._with_names(data)
        size = len(data) if size is None else size
        if len(text) <= LONGEST_DATA and size == len(data):
            return f'"{text}"'
        return f'"{text[:BEGINNING]}…" ({count(size, "byte", self._lang)})'

    def _with_names(self, data: bytes) -> str:
        text = readable(data.decode("utf-8", "surrogateescape"))
        for name, port in self._run.ports.items():
            text = text.replace(user_of(port), f"用户{{{name_of(name, self._lang)}}}")
        return text

    def _owner(self, channel: TracedChannel) -> str:
        peer = self._run.peer_of(channel)
        return name_of(peer, self._lang) if peer else channel.class_name

    def _listed(self, names: list[str]) -> str:
        """``Ann``, ``Ann and Bob``, ``Ann, Bob and Cid``, ``Ann … Eve``."""
        if len(names) > MAX_NAMES:
            return f"{names[0]} … {names[-1]}"
        *others, last = names or [""]
        head = [self._phrase("item").join(others)] if others else []
        return self._phrase("and").join([*head, last])


def name_of(peer: str, lang: str) -> str:
    """Return the name of a peer for people."""
    if peer in NAMES:
        return NAMES[peer].in_language(lang)
    return peer.replace("guest", phrase("guest", lang))


def _shape(rows: Iterable[Row]) -> str:
    return re.sub(r"[0-9,]+", "0", "\n".join(row.text for row in rows))


def _opened_outside_of_calls(turn: Turn) -> list[TracedChannel]:
    """Return the channels that no callback opened: the setup of the next step."""
    return [
        entry.channel
        for entry in turn.entries
        if not isinstance(entry, Call) and entry.kind == "open" and entry.channel
    ]


def _middle(total: int, most: int, ends: int) -> range:
    """Return the indexes to leave out, if *total* exceeds *most*."""
    return range(ends, total - ends) if total > most else range(0)
