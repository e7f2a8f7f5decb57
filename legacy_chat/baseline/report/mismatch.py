"""Differences as text and as JSON: both sides, around the first byte that differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from legacy_chat.baseline.model.compare import (
    ActionMismatch,
    Mismatch,
    character_start,
    first_difference,
)
from legacy_chat.baseline.model.fields import json_data
from legacy_chat.baseline.model.transcript import Action, Received
from legacy_chat.baseline.report.text import (
    escaped_error,
    readable,
    received_text,
    sentence,
    width,
)

__all__ = ["mismatch_json", "mismatch_lines"]

# Bytes that are shown before the first difference, and after it.
BEFORE = 24
AFTER = 40

# Clients of one step that are shown: in a full room, all miss the same data.
SHOWN = 3


def mismatch_lines(
    found: Mismatch | ActionMismatch, left: str = "recorded", right: str = "now"
) -> Iterator[str]:
    """Yield escaped lines: the step, then both sides for each client that differs."""
    return map(escaped_error, _lines(found, left, right))


def mismatch_json(found: Mismatch) -> dict[str, Any]:
    """Return the difference as a JSON object."""
    return {
        "at": found.at,
        "client": found.action.client,
        "do": found.action.do,
        "data": json_data(found.action.data),
        "clients": {
            name: {
                "recorded": _received_json(recorded),
                "now": _received_json(now),
                "byte": first_difference(recorded.data, now.data),
            }
            for name, recorded, now in found.clients()
        },
    }


def _received_json(received: Received) -> dict[str, Any]:
    return {"got": json_data(received.data), "end": received.end}


def _lines(found: Mismatch | ActionMismatch, left: str, right: str) -> Iterator[str]:
    if isinstance(found, ActionMismatch):
        yield f"step {found.at}: {_or_end(found.left)} / {_or_end(found.right)}"
        return
    yield f"step {found.at}: {sentence(found.action)}"
    if found.error:
        yield f"  {right}: {found.error}"
        return
    clients = list(found.clients())
    for name, recorded, now in clients[:SHOWN]:
        if recorded.data == now.data:
            sides = f"{left} {received_text(recorded)}, {right} {received_text(now)}"
            yield f"  {name}: {sides}"
        else:
            yield from _both_sides(name, {left: recorded, right: now})
    if others := [name for name, *_ in clients[SHOWN:]]:
        yield f"  and {len(others)} more clients: {', '.join(others)}"


def _or_end(action: Action | None) -> str:
    return "the end" if action is None else sentence(action)


def _both_sides(name: str, sides: dict[str, Received]) -> Iterator[str]:
    one, other = (received.data for received in sides.values())
    first = first_difference(one, other)
    yield f"  {name}, byte {first}:"
    start = character_start(one, max(0, first - BEFORE))
    space = max(map(len, sides))
    for label, received in sides.items():
        yield f"    {label:{space}}  {_excerpt(received, start, first)}"
    before = readable(one[start:first])
    yield " " * (6 + space + width(before) + (3 if start else 1)) + "^"


def _excerpt(received: Received, start: int, first: int) -> str:
    data, end = received
    if not data:
        return received_text(received)
    stop = character_start(data, first + AFTER)
    shown = f'{"..." if start else ""}"{readable(data[start:stop])}"'
    if stop < len(data):
        shown += f" and {len(data) - stop:,} more bytes"
    return f"{shown}, {received_text(Received(b'', end))}" if end else shown
