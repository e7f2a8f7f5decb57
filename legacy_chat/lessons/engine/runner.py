"""Playing a lesson, and holding what happened against what it claims.

Rule 1: a lesson is played as a whole before anything of it is shown, so that nothing is
claimed that did not happen.
Rule 2: the trace is that of the run itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import compat
from compat.trace.reader import read_trace
from legacy_chat.lessons.engine.harness import Note, Stage
from legacy_chat.lessons.engine.lesson import Claim, Lesson, Seen, Step

__all__ = ["Scene", "play"]

# Bytes of what is read and said that the trace keeps.
PAYLOAD = 64


@dataclass
class Scene:
    """A step that has been played.

    Attributes:
        notes: what was done and heard outside of the trace.
        first, last: the numbers of its turns: first <= number <= last.
    """

    step: Step
    seen: Seen
    notes: list[Note]
    first: int
    last: int

    def claims(self) -> list[tuple[Claim, bool]]:
        """What is claimed of this loop, and whether it holds."""
        return [
            (claim, bool(claim.holds(self.seen)))
            for claim in self.step.claims
            if self.seen.loop in (claim.loops or (self.seen.loop,))
        ]


def play(lesson: Lesson, loop: str, trace: Path) -> list[Scene]:
    """Play all steps, and the answer, and keep the trace.

    Args:
        loop: a key of ``compat.LOOPS``.

    Raises:
        StageError: it cannot be played here, or does not go as it should.
        OSError: likewise; or the trace cannot be written.
    """
    scenes: list[Scene] = []
    with Stage(loop) as stage, compat.tracing(trace, payload=PAYLOAD):
        for step in (*lesson.steps, lesson.answer):
            seen, notes = stage.play(step.act)
            scenes.append(Scene(step, seen, notes, stage.begun + 1, stage.turns))
    _hand_out(trace, scenes)
    return scenes


def _hand_out(trace: Path, scenes: list[Scene]) -> None:
    """Give each scene its turns."""
    for turn in read_trace(trace):
        for scene in scenes:
            if scene.first <= turn.number <= scene.last:
                scene.seen.turns.append(turn)
