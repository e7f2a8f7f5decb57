"""What is wrong with a program, by its trace: findings, worst first.

    >>> reader = Reader()
    >>> for line in report(examine(read_trace("room.trace", reader), reader)):
    ...     print(line)

A callback is slow from 0.25 s on, or from 0.1 s on if it is so three times: what
asyncio's debug mode calls slow once, a machine that is too busy may have made of a
quick one. ``--slow 0.05`` has every one of 50 ms. Who is
ready in vain is told of after 50 turns; or, where a trace is short, after three, if
each is a mistake by itself and they are a tenth of all. ``python -m compat.trace doctor
--help`` has the rest.

Rule 1: a finding is certain. What a healthy program also does, however busy it is, is
none; every threshold stands in thresholds.py, with its unit and its reason. What a
short trace may show is a part of it: of its turns, of its time.
Rule 2: what has happened ten thousand times is one finding, with a count, where it was
first or worst, and one sentence that says what to do.
Rule 3: one turn is held at a time, and of a channel a few numbers.
Rule 4: a turn in which lines may be missing is passed over, and nothing is concluded
from what was before it together with what is behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from compat.trace.doctor.facts import FactCollector, TraceFacts
from compat.trace.doctor.findings import Finding, Severity
from compat.trace.doctor.rules import RULES
from compat.trace.doctor.thresholds import DEFAULTS, Thresholds
from compat.trace.model import Turn
from compat.trace.reader import Reader

__all__ = ["Finding", "Severity", "Thresholds", "examine", "report"]


def examine(
    turns: Iterable[Turn], reader: Reader, limits: Thresholds = DEFAULTS
) -> list[Finding]:
    """Say what is wrong, worst first. An empty list: nothing that is certain.

    Args:
        turns: as read_trace gives them, with *reader*; they are walked through once.
        reader: what knows why the trace has ended.
        limits: other thresholds than the usual ones.
    """
    rules = [rule(limits) for rule in RULES]
    whole = TraceFacts()
    walk = FactCollector()
    for turn in turns:
        seen = walk.through(turn)
        whole.add(seen)
        if turn.has_gap:
            walk.lose()
        for rule in rules:
            if turn.has_gap:
                rule.lose()
            else:
                rule.look(seen)
    whole.end_reason = reader.end_reason
    whole.lost_lines, whole.gaps = reader.lost_lines, reader.gaps
    found = [finding for rule in rules for finding in rule.findings(whole)]
    return sorted(found, key=lambda finding: (finding.severity, -finding.weight))


def report(findings: Iterable[Finding]) -> Iterator[str]:
    """The findings as lines of text, for people."""
    count = 0
    for count, finding in enumerate(findings, 1):
        yield f"{count}. {finding.severity.name.lower()}: {finding.summary}"
        if finding.line:
            yield f"   look at: {', '.join(_places(finding))}"
        for more in finding.more:
            yield f"   {more}"
        yield f"   do: {finding.advice}"
        yield ""
    yield ("nothing found", "1 finding")[count] if count < 2 else f"{count} findings"


def _places(finding: Finding) -> Iterator[str]:
    thread = f" of thread {finding.thread}" if finding.thread > 1 else ""
    yield f"turn {finding.turn}{thread}"
    if finding.channel:
        yield finding.channel
    if finding.where:
        yield finding.where
    yield f"line {finding.line} of the trace"
