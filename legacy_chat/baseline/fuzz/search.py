"""Random conversations, to find cases that the author of a rewrite did not consider.

Rule 1: a conversation depends only on its seed, its number and the reference's answers,
so a difference can be reproduced.
Rule 2: a client that the reference has disconnected sends nothing more.
Rule 3: a difference counts if it occurs again on new servers. Other differences are
reported as unsteady.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from compat.trace.render.messages import count
from legacy_chat.baseline.fuzz.minimise import minimise, says_never
from legacy_chat.baseline.model.format import Action, Answers
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.replay.lockstep import Lockstep, Played

__all__ = ["Author", "Hunt", "Outcome", "hunt"]

# Attempts to reproduce a difference.
AGAIN = 3

# Attempts to generate a message that the profile allows; then the client leaves.
TRIES = 50

# The share of messages that are cut, where the framing is "stream".
CUT = 0.2


class Hunt(NamedTuple):
    """The extent of a search.

    Attributes:
        seconds: the longest duration; conversations: the maximum; 0 for no limit.
        first: the number of the first conversation.
    """

    seed: int = 0
    seconds: float = 60.0
    conversations: int = 0
    first: int = 0


class Outcome(NamedTuple):
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
        said = (
            f"{count(self.conversations, 'conversation')}, "
            f"{count(self.steps, 'step')}, in {self.seconds:.0f} s: "
        )
        said += (
            f"conversation {self.number} is answered differently"
            if self.found is not None
            else "no difference"
        )
        if self.unsteady:
            numbers = ", ".join(map(str, self.unsteady))
            said += f"; differed once, and not again: {numbers}"
        return said


class Author:
    """Generates the actions of a conversation; ``hear()`` gets the answers."""

    def __init__(self, profile: Profile, seed: int, number: int) -> None:
        self._plan = profile.fuzz
        self._cuts = profile.framing == "stream"
        self._random = random.Random(f"{seed}:{number}")
        self._here: dict[str, list[Action]] = {}
        self._mute: set[str] = set()
        self._came = 0

    def __iter__(self) -> Iterator[Action]:
        for _ in range(self._plan.steps):
            yield self._action()

    def hear(self, answers: Answers) -> None:
        """Remove the clients whose connections have ended."""
        for client, got in answers.items():
            if got.end:
                self._here.pop(client, None)
                self._mute.discard(client)

    def _action(self) -> Action:
        few = min(2, self._plan.clients)
        do = self._weighted(self._plan.actions)
        if len(self._here) < few or (do == "open" and self._has_room()):
            return self._open()
        client = self._random.choice(list(self._here))
        if client in self._mute:
            return self._leave(client, "drop")
        if do in ("send", "open"):
            return self._say(client, "send")
        if do == "last words":
            return self._say(client, self._random.choice(["drop", "half-close"]))
        return self._leave(client, do)

    def _has_room(self) -> bool:
        return len(self._here) < self._plan.clients

    def _open(self) -> Action:
        client = f"c{self._came}"
        self._came += 1
        action = Action(client, "open")
        self._here[client] = [action]
        return action

    def _leave(self, client: str, do: str) -> Action:
        self._gone(client, do)
        return Action(client, do)

    def _say(self, client: str, do: str) -> Action:
        for _ in range(TRIES):
            action = Action(client, do, self._message())
            said = [*self._here[client], action]
            if action.data and not says_never(said, self._plan.never):
                self._here[client] = said
                self._gone(client, do)
                return action._replace(cut=self._a_cut())
        return self._leave(client, "drop")

    def _gone(self, client: str, do: str) -> None:
        if do == "half-close":
            self._mute.add(client)
        elif do in ("drop", "reset"):
            del self._here[client]
            self._mute.discard(client)

    def _a_cut(self) -> str:
        if self._cuts and self._random.random() < CUT:
            return f"random {self._random.randrange(1000)}"
        return ""

    def _message(self) -> bytes:
        kind = self._weighted(self._plan.messages)
        if kind == "pieces":
            return b"".join(self._some(self._plan.pieces, 4))
        if kind == "words":
            space = self._random.choice([b"", b" "])
            return space.join(self._some(self._plan.words, 6))
        return self._long()

    def _long(self) -> bytes:
        """Return copies of a filler with one piece after, within or before them."""
        sharp = self._random.choice(self._plan.pieces)
        fill = self._random.choice(self._plan.fill)
        room = self._random.randint(1, self._plan.longest) - len(sharp)
        count = max(0, room // len(fill))
        before = self._random.choice([0, self._random.randint(0, count), count])
        return fill * before + sharp + fill * (count - before)

    def _some(self, pool: Sequence[bytes], most: int) -> list[bytes]:
        return self._random.choices(pool, k=self._random.randint(1, most))

    def _weighted(self, weights: dict[str, float]) -> str:
        return self._random.choices(list(weights), list(weights.values()))[0]


def hunt(
    plan: Hunt, pair: Lockstep, stepped: Callable[[], object] = lambda: None
) -> Outcome:
    """Play random conversations until the answers differ or a limit is reached.

    Args:
        stepped: called after each step.

    Raises:
        RunError: a server cannot be played to, or the reference hangs.
    """
    begin = time.monotonic()
    steps = 0
    unsteady: list[int] = []

    def told(answers: Answers) -> None:
        nonlocal steps
        steps += 1
        author.hear(answers)
        stepped()

    for so_many in itertools.count(1):
        number = plan.first + so_many - 1
        author = Author(pair.profile, plan.seed, number)
        played = pair.play(author, told)
        found = None
        if played.difference is not None:
            found = _again(played, pair, stepped)
            if found is None:
                unsteady.append(number)
        seconds = time.monotonic() - begin
        over = so_many == plan.conversations or 0 < plan.seconds <= seconds
        if found is not None or over:
            return Outcome(so_many, steps, seconds, number, found, tuple(unsteady))
        if so_many % pair.profile.fuzz.fresh == 0:
            pair.renew()
    raise AssertionError("count() has no end")


def _again(
    played: Played, pair: Lockstep, stepped: Callable[[], object]
) -> Played | None:
    """Return the shortest form of *played*; None if no attempt reproduces it."""
    actions = [step.action for step in played.steps]
    for _ in range(AGAIN):
        found = minimise(actions, pair, stepped)
        if found is not None:
            return found
    return None
