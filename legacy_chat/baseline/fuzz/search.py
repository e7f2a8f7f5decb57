"""The search for differences with random conversations.

Rule: a difference counts if it occurs again on new servers. Other differences are
reported as unsteady.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

from compat.trace.render.messages import count
from legacy_chat.baseline.fuzz.generator import Generator
from legacy_chat.baseline.fuzz.minimise import minimise
from legacy_chat.baseline.model.transcript import Answers
from legacy_chat.baseline.replay.lockstep import Lockstep, Played

__all__ = ["SearchPlan", "SearchResult", "search"]

# Attempts to reproduce a difference.
ATTEMPTS = 3


class SearchPlan(NamedTuple):
    """The extent of a search.

    Attributes:
        seconds: the longest duration; conversations: the maximum; 0 for no limit.
        first: the number of the first conversation.
    """

    seed: int = 0
    seconds: float = 60.0
    conversations: int = 0
    first: int = 0


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
        played = count(self.conversations, "conversation")
        text = f"{played}, {count(self.steps, 'step')}, in {self.seconds:.0f} s: "
        if self.found is None:
            text += "no difference"
        else:
            text += f"conversation {self.number} is answered differently"
        if self.unsteady:
            numbers = ", ".join(map(str, self.unsteady))
            text += f"; differed once, and not again: {numbers}"
        return text


def search(
    plan: SearchPlan, pair: Lockstep, stepped: Callable[[], object] = lambda: None
) -> SearchResult:
    """Play random conversations until the answers differ or a limit is reached.

    Args:
        stepped: called after each step.

    Raises:
        ReplayError: a server cannot be played to, or the reference hangs.
    """
    begin = time.monotonic()
    steps = 0
    unsteady: list[int] = []

    def update(answers: Answers) -> None:
        nonlocal steps
        steps += 1
        generator.update(answers)
        stepped()

    for played in itertools.count(1):
        number = plan.first + played - 1
        generator = Generator(pair.profile, plan.seed, number)
        conversation = pair.play(generator, update)
        found = None
        if conversation.difference is not None:
            found = _reproduced(conversation, pair, stepped)
            if found is None:
                unsteady.append(number)
        seconds = time.monotonic() - begin
        is_over = played == plan.conversations or 0 < plan.seconds <= seconds
        if found is not None or is_over:
            return SearchResult(played, steps, seconds, number, found, tuple(unsteady))
        if played % pair.profile.fuzz.restart_after == 0:
            pair.restart()
    raise AssertionError("count() has no end")


def _reproduced(
    played: Played, pair: Lockstep, stepped: Callable[[], object]
) -> Played | None:
    """Return the shortest form of *played*; None if no attempt reproduces it."""
    attempts = (minimise(played.actions, pair, stepped) for _ in range(ATTEMPTS))
    return next(filter(None, attempts), None)
