"""Check a server against a transcript: repeat the actions, and compare the answers.

Rule 1: an outcome is same, different, or not played. A conversation that was not played
to its end is never the same.
Rule 2: the first difference ends a conversation, because it may cause everything after
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from legacy_chat.baseline.model.compare import Mismatch, compare
from legacy_chat.baseline.model.errors import FormatError, RunError
from legacy_chat.baseline.model.format import Action, Answers, Step, Transcript
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.replay.player import TIMEOUT, Player, numbered
from legacy_chat.baseline.replay.server import Endpoint

__all__ = ["Result", "check"]


class Result(NamedTuple):
    """The result of one transcript on one server.

    Attributes:
        name: the transcript's name; on: the server's, such as its loop.
        steps: the number of steps played; seconds: their duration.
        difference: the first difference; None for none.
        error: why the transcript could not be played; skipped: why it was not tried.
        note: why the server may not have caused the outcome.
    """

    name: str
    on: str = ""
    steps: int = 0
    seconds: float = 0.0
    difference: Mismatch | None = None
    error: str = ""
    skipped: str = ""
    note: str = ""

    @property
    def outcome(self) -> str:
        """Return "same", "different", "error" or "skipped"."""
        if self.difference is not None:
            return "different"
        return "error" if self.error else "skipped" if self.skipped else "same"

    def as_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        found = self.difference
        return {
            "transcript": self.name,
            "on": self.on,
            "outcome": self.outcome,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            **({"error": self.error} if self.error else {}),
            **({"skipped": self.skipped} if self.skipped else {}),
            **({"note": self.note} if self.note else {}),
            **({"difference": found.as_json()} if found is not None else {}),
        }


def check(
    transcript: Transcript,
    endpoint: Endpoint,
    profile: Profile,
    timeout: float = TIMEOUT,
    *,
    cut: str = "",
    name: str = "",
    on: str = "",
    stepped: Callable[[], object] = lambda: None,
) -> Result:
    """Play the transcript's actions to the server at *endpoint*, and compare.

    Args:
        cut: the cut of every message, in place of the transcript's; the framing must
            be "stream".
        stepped: called after each step.
    """
    begin = time.monotonic()
    steps = 0
    difference: Mismatch | None = None
    error = ""
    header = transcript.header
    try:
        with Player(
            endpoint,
            profile,
            timeout,
            witness=header.witness,
            host=header.host,
            cut=cut or header.cut,
            recorded_quiet=header.quiet,
        ) as conversation:
            for at, last, step in numbered(transcript.steps):
                difference = _answer(at, step, conversation, bool(cut), last)
                steps = at
                stepped()
                if difference is not None:
                    conversation.break_off()
                    break
            else:
                difference = _rest(steps, conversation)
    except (RunError, FormatError) as failure:
        error = f"after {steps} steps: {failure}"
    took = time.monotonic() - begin
    return Result(name or header.title, on, steps, took, difference, error)


def _rest(steps: int, player: Player) -> Mismatch | None:
    """Return the difference made by data after the last step."""
    return compare(steps + 1, Action("nobody", "wait"), {}, player.rest())


def _answer(
    at: int, step: Step, player: Player, cut: bool, last: bool
) -> Mismatch | None:
    action, recorded = step
    action = action._replace(cut="") if cut else action
    now: Answers = player.step(action, recorded, last=last)
    return compare(at, action, recorded, now)
