"""The doctor's findings in the trace of each lesson, on each loop: exactly these."""

from __future__ import annotations

from pathlib import Path

import pytest

from compat.trace import doctor
from compat.trace.doctor.findings import Finding
from compat.trace.doctor.thresholds import Thresholds
from compat.trace.reader import Reader, read_trace
from legacy_chat.lessons import LESSONS
from legacy_chat.lessons.engine.runner import run_lesson

# Nothing here depends on the clock.
DEFAULTS = Thresholds(spin_wait_us=1 << 40, slow_us=1 << 40, interest_share=2.0)

# The rules, and whose class is to be looked at.
FOUND: dict[int, list[tuple[str, str]]] = {
    # It decodes half a character.
    4: [("swallowed-error", "Hasty")],
    # Bob and Cid do not read, and the room gives them up.
    5: [("slow-reader", "ChatSession")],
    # It is called for an event of the descriptor's previous channel. Not by selectors.
    6: [("swallowed-error", "Newcomer")],
    7: [("busy-writer", "Echo")],
    8: [("spinning-listener", "Plain"), ("swallowed-error", "Plain")],
}


def examined(number: int, loop: str, trace: Path) -> list[Finding]:
    run_lesson(LESSONS[number - 1], loop, trace)
    reader = Reader()
    return doctor.examine(read_trace(trace, reader), reader, DEFAULTS)


@pytest.mark.parametrize("number", range(1, len(LESSONS) + 1))
def test_lesson_has_only_the_findings_it_is_about(
    number: int, loop: str, tmp_path: Path
) -> None:
    found = examined(number, loop, tmp_path / "trace")
    due = FOUND.get(number, [])
    if (number, loop) == (6, "selectors"):
        due = []
    assert [(each.rule, each.channel.partition("#")[0]) for each in found] == due


def test_slow_readers_of_a_lesson_both_close(loop: str, tmp_path: Path) -> None:
    (slow,) = examined(5, loop, tmp_path / "trace")
    assert slow.count == 2
    assert "2 peers read too slowly" in slow.summary
    assert ": 2 closed, " in slow.summary
