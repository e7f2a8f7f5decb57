"""The search for differences with random conversations.

Rule: a difference counts if it occurs again on new servers. Other differences are
reported as unsteady.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

from legacy_chat.baseline.fuzz.generator import Generator
from legacy_chat.baseline.fuzz.minimise import minimise
from legacy_chat.baseline.model.transcript import Answers
from legacy_chat.baseline.replay.lockstep import Lockstep, Played
from legacy_chat.baseline.report.text import plural

__all__ = ["SearchResult", "search"]

# Attempts to reproduce a difference.
ATTEMPTS = 3


class SearchResult(NamedTuple):
    """The result of a search.

    Attributes:
        number: the conversation that differed; found: its shortest form.
        unsteady: the numbers of conversations that differed only once.
    """

    conversations: int
    steps: int
    seconds: float
    number: int = 0
    found: Played | None = None
    unsteady: tuple[int, ...] = ()

    def summary(self) -> str:
        """Return the last line of the output."""
        played = f"{plural(self.conversations, 'conversation')}, "
        played += f"{plural(self.steps, 'step')}, in {self.seconds:.0f} s: "
        if self.found is None:
            played += "no difference"
        else:
            played += f"conversation {self.number} is answered differently"
        if self.unsteady:
            played += "; differed once, and not again: "
            played += ", ".join(map(str, self.unsteady))
        return played


def search(
    pair: Lockstep,
    seed: int = 0,
    seconds: float = 0.0,
    conversations: int = 0,
    first: int = 0,
    stepped: Callable[[], object] = lambda: None,
) -> SearchResult:
    """Play random conversations until the answers differ or a limit is reached.

    Args:
        seconds: the longest duration; conversations: the maximum; 0 for no limit.
        first: the number of the first conversation.
        stepped: called after each step.
    """
    begin = time.monotonic()
    steps = 0
    unsteady: list[int] = []

    def update(answers: Answers) -> None:
        nonlocal steps
        steps += 1
        generator.update(answers)
        stepped()

    for number in itertools.count(first):
        generator = Generator(pair.profile, seed, number)
        played, found, count = pair.play(generator, update), None, number - first + 1
        if played.difference is not None:
            found = _reproduced(played, pair, stepped)
            if found is None:
                unsteady.append(number)
        duration = time.monotonic() - begin
        is_over = count == conversations or 0 < seconds <= duration
        if found is not None or is_over:
            return SearchResult(count, steps, duration, number, found, tuple(unsteady))
        if count % pair.profile.fuzz.restart_after == 0:
            pair.restart()
    raise AssertionError("count() has no end")


def _reproduced(
    played: Played, pair: Lockstep, stepped: Callable[[], object]
) -> Played | None:
    """Return the shortest form of *played*; None if no attempt reproduces it."""
    attempts = (minimise(played.actions, pair, stepped) for _ in range(ATTEMPTS))
    return next(filter(None, attempts), None)
