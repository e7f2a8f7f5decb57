"""Check a server against a transcript: repeat the actions, and compare the answers.

Rule 1: an outcome is same, different, or not played. A conversation that was not played
to its end is never the same.
Rule 2: the first difference ends a conversation, because it may cause everything after
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from legacy_chat.baseline.model.compare import Mismatch, compare
from legacy_chat.baseline.model.errors import FormatError, ReplayError
from legacy_chat.baseline.model.profile import Profile
from legacy_chat.baseline.model.transcript import Action, Transcript, numbered
from legacy_chat.baseline.replay.player import TIMEOUT, Player, conversation
from legacy_chat.baseline.replay.server import Endpoint

__all__ = ["Result", "check"]


@dataclass(frozen=True)
class Result:
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


def check(
    transcript: Transcript,
    endpoint: Endpoint,
    profile: Profile,
    timeout: float = TIMEOUT,
    *,
    cut: str = "",
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

    def count() -> None:
        nonlocal steps
        steps += 1
        stepped()

    difference, error = None, ""
    header = transcript.header
    header = replace(header, cut=cut or header.cut)
    try:
        with conversation(endpoint, profile, timeout, header) as player:
            difference = _first_mismatch(transcript, player, bool(cut), count)
            if difference is not None:
                player.abort()
    except (ReplayError, FormatError) as failure:
        error = f"after {steps} steps: {failure}"
    seconds = time.monotonic() - begin
    return Result(header.title, "", steps, seconds, difference, error)


def _first_mismatch(
    transcript: Transcript, player: Player, cut: bool, count: Callable[[], object]
) -> Mismatch | None:
    at = 0
    for at, last, (whole, recorded) in numbered(transcript.steps):
        action = replace(whole, cut="") if cut else whole
        now = player.step(action, recorded, last=last)
        count()
        if found := compare(at, action, recorded, now):
            return found
    return compare(at + 1, Action("no client", "wait"), {}, player.late_answers())
