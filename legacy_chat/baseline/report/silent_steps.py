"""Warnings for steps of a recording without data: the answer may have been late.

Rule: only a step that leaves a client connected causes a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from legacy_chat.baseline.model.transcript import Step
from legacy_chat.baseline.report.text import sentence

__all__ = ["warn_of_silent_steps"]


def warn_of_silent_steps(
    steps: Iterable[Step], quiet: float, warn: Callable[[str], object]
) -> Iterator[Step]:
    """Yield the steps, and call *warn* with a line for each one without data.

    Args:
        quiet: seconds that the recording waited for an answer.
    """
    connected: set[str] = set()
    silent = False
    for at, step in enumerate(steps, 1):
        action, answers = step
        connected.add(action.client)
        if action.do in ("drop", "reset"):
            connected.discard(action.client)
        if connected and not answers:
            silent = True
            warn(f"step {at}, {sentence(action)}: no data within {quiet:g} s")
        connected -= {name for name, (_, end) in answers.items() if end}
        yield step
    if silent:
        warn("if an answer was due, record again with a longer --quiet SECONDS")
