"""Differences between two servers' answers, and the first byte of each.

Rule: the bytes that a client received in a step are compared as one string, with the
end of the connection: never by packet, never by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from legacy_chat.baseline.model.transcript import (
    Action,
    Answers,
    Received,
    Step,
    Transcript,
)

__all__ = [
    "ActionMismatch",
    "Mismatch",
    "character_start",
    "compare",
    "differences",
    "first_difference",
]


@dataclass(frozen=True)
class Mismatch:
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

    def clients(self) -> Iterator[tuple[str, Received, Received]]:
        """Yield each client whose data differs, with both sides."""
        for name in {**self.recorded, **self.now}:
            recorded, now = (
                side.get(name, Received()) for side in (self.recorded, self.now)
            )
            if recorded != now:
                yield name, recorded, now


@dataclass(frozen=True)
class ActionMismatch:
    """Two transcripts that go on with different actions; None at the end of one."""

    at: int
    left: Action | None
    right: Action | None


def compare(
    at: int, action: Action, recorded: Answers, now: Answers
) -> Mismatch | None:
    """Return the difference in one step; None if there is none."""
    return None if recorded == now else Mismatch(at, action, recorded, now)


def differences(
    left: Transcript, right: Transcript
) -> Iterator[Mismatch | ActionMismatch]:
    """Yield the differences in answers, up to the first difference in actions."""
    nothing: Step | tuple[None, Answers] = (None, {})
    pairs = zip_longest(left.steps, right.steps, fillvalue=nothing)
    for at, ((action, recorded), (other, now)) in enumerate(pairs, 1):
        if action is None or action != other:
            yield ActionMismatch(at, action, other)
            return
        found = compare(at, action, recorded, now)
        if found is not None:
            yield found


def first_difference(one: bytes, other: bytes) -> int:
    """Return the index of the first different byte, or of its character's start."""
    first = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return min(character_start(one, first), character_start(other, first))


def character_start(data: bytes, index: int) -> int:
    """Return *index*, or the start of the character that contains it."""
    start = index
    while 0 < start < len(data) and index - start < 3 and 0x80 <= data[start] < 0xC0:
        start -= 1
    return start
