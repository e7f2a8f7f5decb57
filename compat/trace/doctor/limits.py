"""Limits: the descriptors of select, the size of a trace, the speed of its reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compat.trace.doctor.facts import TraceFacts, TurnFacts
from compat.trace.doctor.findings import START, Finding, Location, Severity
from compat.trace.doctor.rule import Rule, as_number
from compat.trace.render.formatting import duration
from compat.trace.render.messages import count

__all__ = ["FullTrace", "Gaps", "SelectLimit"]


@dataclass
class SelectLimit(Rule):
    """select accepts descriptors up to 1,023; the next one ends the loop."""

    name = "select-limit"
    severity = Severity.LEAKS
    advice = (
        "Use the loop poll or selectors, which have no such limit, or accept fewer "
        "connections."
    )

    _highest: int = -1
    _location: Location = START
    _uses_select: bool = False

    def observe(self, facts: TurnFacts) -> None:
        self._uses_select = self._uses_select or facts.turn.loop == "select"
        for event in facts.events:
            fd = as_number(event.fields.get("fd")) if event.kind == "open" else -1
            if fd > self._highest:
                self._highest = fd
                self._location = facts.location(event.channel, event.line)

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        if self._uses_select and self._highest >= self.thresholds.select_fd:
            yield self.finding(
                f"descriptor {self._highest}: select accepts up to 1,023, and a higher "
                "one raises out of the loop",
                self._highest,
                1,
                self._location,
            )


class FullTrace(Rule):
    """The trace reached its limit: later events are missing."""

    name = "full"
    advice = (
        "Raise the limit of the trace, or keep no payloads; later faults are not found."
    )

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        if trace.end_reason == "full":
            yield self.finding(
                f"the trace is full: it has the first {duration(trace.us)}, and the "
                "program continued",
                1,
                1,
                trace.last,
            )


class Gaps(Rule):
    """Lines of the trace are missing: the events there are unknown."""

    name = "gaps"
    advice = (
        "Write the trace to a regular file, or keep no payloads; faults in the gaps "
        "are not found."
    )

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        if trace.lost_lines:
            yield self.finding(
                f"{count(trace.lost_lines, 'line')} of the trace are missing in "
                f"{count(trace.gaps, 'place')}: its reader was too slow",
                trace.lost_lines,
                trace.gaps,
                trace.last,
            )
