"""Differences between two answers, and the first byte of each.

Rule 1: the bytes that a client received in a step are compared as one string, with the
end of the connection: never by packet, never by time.
Rule 2: a difference is shown with both sides, around the first byte that differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

from legacy_chat.baseline.model.format import (
    Action,
    Answers,
    Received,
    Step,
    Transcript,
    text_of,
)
from legacy_chat.baseline.report.text import does, got, readable, width

__all__ = ["Mismatch", "compare", "differences", "first_difference"]

# Bytes that are shown before the first difference, and after it.
BEFORE = 24
AFTER = 40

# Clients of one step that are shown: in a full room, all miss the same data.
SHOWN = 3


class Mismatch(NamedTuple):
    """Two different answers to one action.

    Attributes:
        at: the number of the step.
        recorded: the expected data of all clients; now: the received data.
        error: why there is no received data: the other server could not be played to.
    """

    at: int
    action: Action
    recorded: Answers
    now: Answers
    error: str = ""

    def clients(self) -> list[str]:
        """Return the clients whose data differs, in the order of their appearance."""
        names = dict.fromkeys([*self.recorded, *self.now])
        return [
            each for each in names if self._both_of(each)[0] != self._both_of(each)[1]
        ]

    def lines(self, left: str = "recorded", right: str = "now") -> Iterator[str]:
        """Return lines of text: the step, then both sides for each such client."""
        client = self.action.client
        yield f"step {self.at}: {client} {does(self.action)}"
        if self.error:
            yield f"  {right}: {self.error}"
            return
        clients = self.clients()
        for name in clients[:SHOWN]:
            yield from _both(name, *self._both_of(name), left, right)
        if len(clients) > SHOWN:
            others = clients[SHOWN:]
            yield f"  and {len(others)} clients more: {', '.join(others)}"

    def as_json(self) -> dict[str, Any]:
        """Return the difference as a JSON object."""
        pairs = {name: self._both_of(name) for name in self.clients()}
        return {
            "at": self.at,
            "client": self.action.client,
            "do": self.action.do,
            "data": text_of(self.action.data),
            "clients": {
                name: {
                    "recorded": _as_json(recorded),
                    "now": _as_json(now),
                    "byte": first_difference(recorded.data, now.data),
                }
                for name, (recorded, now) in pairs.items()
            },
        }

    def _both_of(self, client: str) -> tuple[Received, Received]:
        return self.recorded.get(client, Received()), self.now.get(client, Received())


def compare(
    at: int, action: Action, recorded: Answers, now: Answers
) -> Mismatch | None:
    """Return the difference in one step; None if there is none."""
    return None if recorded == now else Mismatch(at, action, recorded, now)


def differences(left: Transcript, right: Transcript) -> Iterator[Mismatch | str]:
    """Yield the differences in answers, up to the first difference in actions."""
    pairs = zip_longest(left.steps, right.steps)
    for at, (one, other) in enumerate(pairs, 1):
        if one is None or other is None or one.action != other.action:
            yield f"step {at}: {_step(one)} / {_step(other)}"
            return
        found = compare(at, one.action, one.answers, other.answers)
        if found is not None:
            yield found


def first_difference(one: bytes, other: bytes) -> int:
    """Return the index of the first different byte, or of its character's start."""
    first = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return min(_whole(one, first), _whole(other, first))


def _step(step: Step | None) -> str:
    if step is None:
        return "it is over"
    return f"{step.action.client} {does(step.action)}"


def _both(
    name: str, recorded: Received, now: Received, left: str, right: str
) -> Iterator[str]:
    if recorded.data == now.data:
        yield f"  {name}: {left} {got(recorded)}, {right} {got(now)}"
        return
    first = first_difference(recorded.data, now.data)
    yield f"  {name}, byte {first}:"
    start = _start(recorded.data, first)
    space = max(len(left), len(right))
    for label, each in ((left, recorded), (right, now)):
        yield f"    {label:{space}}  {_excerpt(each, start, first)}"
    before = readable(recorded.data[start:first])
    yield " " * (6 + space + width(before) + (3 if start else 1)) + "^"


def _excerpt(each: Received, start: int, first: int) -> str:
    if not each.data:
        return got(each)
    stop = _whole(each.data, first + AFTER)
    shown = f'{"..." if start else ""}"{readable(each.data[start:stop])}"'
    if stop < len(each.data):
        shown += f" and {len(each.data) - stop:,} bytes more"
    return f"{shown}, {got(Received(b'', each.end))}" if each.end else shown


def _start(data: bytes, first: int) -> int:
    """Return the start of the excerpt: BEFORE bytes earlier, not within a character."""
    return _whole(data, max(0, first - BEFORE))


def _whole(data: bytes, place: int) -> int:
    """Return *place*, or the start of the character that contains it."""
    start = place
    while 0 < start < len(data) and place - start < 3 and 0x80 <= data[start] < 0xC0:
        start -= 1
    return start


def _as_json(each: Received) -> dict[str, Any]:
    return {"got": text_of(each.data), "end": each.end}
