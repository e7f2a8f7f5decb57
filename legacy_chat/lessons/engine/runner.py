"""Run a lesson.

Rule 1: the whole lesson runs before any of it is shown, so every shown claim was
checked.
Rule 2: the trace is that of the run itself.
"""

from __future__ import annotations

from pathlib import Path

import compat
from compat.trace.reader import read_trace
from legacy_chat.lessons.engine.harness import Harness
from legacy_chat.lessons.engine.lesson import Lesson
from legacy_chat.lessons.engine.step_run import StepRun

__all__ = ["run_lesson"]

# Bytes of each payload that the trace keeps.
PAYLOAD = 64


def run_lesson(lesson: Lesson, loop: str, trace: Path) -> list[StepRun]:
    """Run all steps and the answer, and write the trace.

    Args:
        loop: a key of ``compat.LOOPS``.

    Raises:
        ScenarioError: it cannot run here, or does not behave as planned.
        OSError: a system call failed, or the trace cannot be written.
    """
    steps = (*lesson.steps, lesson.answer)
    with Harness(loop) as harness, compat.tracing(trace, payload=PAYLOAD):
        runs = [harness.run(step.act) for step in steps]
    for turn in read_trace(trace):
        for run in runs:
            if run.first <= turn.number <= run.last:
                run.turns.append(turn)
    return runs
