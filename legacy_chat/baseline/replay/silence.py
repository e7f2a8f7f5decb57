"""Warnings for steps of a recording without data: the answer may have been late.

Rule: only a step that leaves a client connected causes a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from legacy_chat.baseline.model.format import Step
from legacy_chat.baseline.report.text import does

__all__ = ["watched"]


def watched(
    steps: Iterable[Step], quiet: float, warn: Callable[[str], object]
) -> Iterator[Step]:
    """Yield the steps, and call *warn* with a line for each one without data.

    Args:
        quiet: seconds that the recording waited for an answer.
    """
    here: set[str] = set()
    silent = 0
    for at, step in enumerate(steps, 1):
        action, answers = step
        here.add(action.client)
        if action.do in ("drop", "reset"):
            here.discard(action.client)
        if here and not answers:
            silent += 1
            what = f"{action.client} {does(action)}"
            warn(f"step {at}, {what}: nothing arrived within {quiet:g} s")
        here.difference_update(name for name, got in answers.items() if got.end)
        yield step
    if silent:
        warn("if an answer was due, record again with a longer --quiet SECONDS")
