"""Diagnose a program by its trace: findings, worst first.

    >>> reader = Reader()
    >>> for line in report(examine(read_trace("room.trace", reader), reader)):
    ...     print(line)

A callback is slow from 0.25 s on, or from 0.1 s on if that happens three times.
asyncio's debug mode reports 0.1 s at once, but an overloaded machine may stretch a
quick callback to that. ``--slow 0.05`` reports every callback of 50 ms. A busy loop is
reported after 50 turns; in a short trace, after three turns if each is a mistake by
itself and they are a tenth of all. ``python -m compat.trace doctor --help`` lists the
rules.

Rule 1: a finding is certain. A healthy program has none, however busy it is. Every
threshold is in thresholds.py. A short trace is judged by shares of its turns and time.
Rule 2: ten thousand occurrences are one finding, with a count, the first or the worst
location, and the remedy.
Rule 3: the doctor keeps one turn, and a few numbers for each channel.
Rule 4: a turn that may lack lines is skipped, and no conclusion combines facts from
before it with facts from after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from compat.trace.doctor.busy_loops import (
    BusyWriter,
    IgnoredEnd,
    SpinningListener,
    UnreadInput,
    UnreadUrgentData,
)
from compat.trace.doctor.errors import EscapedErrors, SwallowedErrors
from compat.trace.doctor.facts import FactCollector, TraceFacts
from compat.trace.doctor.findings import Finding
from compat.trace.doctor.limits import FullTrace, Gaps, SelectLimit
from compat.trace.doctor.queues import GrowingBacklog, SlowReaders, WritesAfterClose
from compat.trace.doctor.rule import Rule
from compat.trace.doctor.slow_code import SlowCallbacks, SlowInterest
from compat.trace.doctor.thresholds import DEFAULTS, Thresholds
from compat.trace.model import Turn
from compat.trace.reader import Reader

__all__ = ["examine", "report"]

# In the order of findings that are equally bad.
RULES: tuple[type[Rule], ...] = (
    EscapedErrors,
    SpinningListener,
    IgnoredEnd,
    UnreadInput,
    BusyWriter,
    UnreadUrgentData,
    SlowCallbacks,
    WritesAfterClose,
    GrowingBacklog,
    SlowReaders,
    SelectLimit,
    SwallowedErrors,
    SlowInterest,
    FullTrace,
    Gaps,
)


def examine(
    turns: Iterable[Turn], reader: Reader, thresholds: Thresholds = DEFAULTS
) -> list[Finding]:
    """Return the findings, worst first; an empty list if no fault is certain.

    Args:
        turns: all turns of a trace, as read_trace yields them.
        reader: the reader of the turns.
    """
    rules = [rule(thresholds) for rule in RULES]
    trace, collector = TraceFacts(), FactCollector()
    for turn in turns:
        facts = collector.collect(turn)
        trace.add(facts)
        if turn.has_gap:
            collector.forget()
        for rule in rules:
            if turn.has_gap:
                rule.forget()
            else:
                rule.observe(facts)
    trace.end_reason = reader.end_reason
    trace.lost_lines, trace.gaps = reader.lost_lines, reader.gaps
    found = [finding for rule in rules for finding in rule.findings(trace)]
    return sorted(found, key=lambda finding: (finding.severity, -finding.weight))


def report(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the findings as lines of text."""
    count = 0
    for count, finding in enumerate(findings, 1):
        yield f"{count}. {finding.severity.name.lower()}: {finding.summary}"
        if finding.location.line:
            yield f"   look at: {', '.join(_places(finding))}"
        yield from (f"   {detail}" for detail in finding.details)
        yield f"   do: {finding.advice}"
        yield ""
    yield ("nothing found", "1 finding")[count] if count < 2 else f"{count} findings"


def _places(finding: Finding) -> Iterator[str]:
    turn, thread, line, _ = finding.location
    yield f"turn {turn}{f' of thread {thread}' if thread > 1 else ''}"
    yield from filter(None, (finding.channel, finding.where))
    yield f"line {line} of the trace"
