"""Random conversations.

Rule 1: a conversation depends only on its seed, its number and the reference's answers,
so a difference can be reproduced.
Rule 2: a client that the reference has disconnected sends nothing more.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.model.transcript import Action, Answers

__all__ = ["Generator"]

# Attempts to generate a message that the profile allows; then the client closes.
TRIES = 50

# The share of messages that are cut, where the framing is "stream".
CUT = 0.2


class Generator:
    """Generates the actions of a conversation; update() gets the answers."""

    def __init__(self, profile: Profile, seed: int, number: int) -> None:
        self._plan = profile.fuzz
        self._cuts = profile.framing == "stream"
        self._random = random.Random(f"{seed}:{number}")
        # The data that each connected client has sent.
        self._sent: dict[str, bytes] = {}
        self._half_closed: set[str] = set()
        self._opened = 0

    def __iter__(self) -> Iterator[Action]:
        for _ in range(self._plan.steps):
            yield self._action()

    def update(self, answers: Answers) -> None:
        """Remove the clients whose connections have ended."""
        for client, (_, end) in answers.items():
            if end:
                self._remove(client)

    def _action(self) -> Action:
        do = self._weighted(self._plan.actions)
        connected, most = len(self._sent), self._plan.clients
        if connected < min(2, most) or (do == "open" and connected < most):
            client = f"c{self._opened}"
            self._opened += 1
            self._sent[client] = b""
            return Action(client, "open")
        client = self._random.choice(list(self._sent))
        if client in self._half_closed:
            return self._close(client, "drop")
        if do in ("send", "open"):
            return self._send(client, "send")
        if do == "send and close":
            return self._send(client, self._random.choice(["drop", "half-close"]))
        return self._close(client, do)

    def _send(self, client: str, do: str) -> Action:
        for _ in range(TRIES):
            data = self._message()
            sent = self._sent[client] + data
            if data and not any(re.search(each, sent) for each in self._plan.never):
                self._sent[client] = sent
                self._close(client, do)
                return Action(client, do, data, self._cut())
        return self._close(client, "drop")

    def _close(self, client: str, do: str) -> Action:
        """Return the action without data, and note its effect on the connection."""
        if do == "half-close":
            self._half_closed.add(client)
        elif do != "send":
            self._remove(client)
        return Action(client, do)

    def _remove(self, client: str) -> None:
        self._sent.pop(client, None)
        self._half_closed.discard(client)

    def _cut(self) -> str:
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
        piece = self._random.choice(self._plan.pieces)
        fill = self._random.choice(self._plan.fill)
        room = self._random.randint(1, self._plan.longest) - len(piece)
        count = max(0, room // len(fill))
        before = self._random.choice([0, self._random.randint(0, count), count])
        return fill * before + piece + fill * (count - before)

    def _some(self, choices: Sequence[bytes], most: int) -> list[bytes]:
        return self._random.choices(choices, k=self._random.randint(1, most))

    def _weighted(self, weights: dict[str, float]) -> str:
        return self._random.choices(list(weights), list(weights.values()))[0]
