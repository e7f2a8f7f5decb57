"""The base of the doctor's rules, and the words of their findings.

Rule 1: the rules are independent of each other. Each one observes every turn, and at
the end reports one finding for all similar occurrences.
Rule 2: a rule is certain, or silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from compat.trace.doctor.facts import TraceFacts, TurnFacts
from compat.trace.doctor.findings import Finding, Location, Severity
from compat.trace.doctor.thresholds import Thresholds
from compat.trace.model import Call
from compat.trace.render.formatting import readable
from compat.trace.render.messages import count

__all__ = [
    "EXITS",
    "Group",
    "Rule",
    "as_number",
    "as_size",
    "code_of",
    "error_of",
    "name_of",
    "times",
]

# Exceptions that a program raises to end the loop.
EXITS = ("ExitNow", "KeyboardInterrupt", "SystemExit")


@dataclass
class Group:
    """Similar calls: the first or the worst one, and totals of all.

    Attributes:
        total, worst: microseconds or bytes.
        left_open: calls that did not close their channel.
    """

    call: Call
    location: Location
    where: str
    count: int = 0
    total: int = 0
    worst: int = 0
    left_open: int = 0
    channels: set[int] = field(default_factory=set)


@dataclass
class Rule:
    """Observes turn after turn, and reports its findings at the end."""

    name = ""
    severity = Severity.NOTE
    advice = ""

    thresholds: Thresholds
    groups: dict[Any, Group] = field(default_factory=dict)

    def observe(self, facts: TurnFacts) -> None:
        """Add the facts of the next turn."""

    def forget(self) -> None:
        """Lines are missing: drop all state that only a complete trace proves."""

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        """Yield the findings."""
        raise NotImplementedError

    def group(self, key: Any, call: Call, location: Location, where: str) -> Group:
        """Add a call to a group, and return the group."""
        group = self.groups.setdefault(key, Group(call, location, where))
        group.count += 1
        if call.channel is not None:
            group.channels.add(call.channel.number)
        return group

    def finding(
        self,
        summary: str,
        weight: float,
        count: int,
        location: Location,
        where: str = "",
        details: Iterable[str] = (),
    ) -> Finding:
        """Return a finding with the rule's severity and advice."""
        rule = self.name, self.severity, weight, summary
        return Finding(*rule, count, location, self.advice, where, list(details))


def name_of(call: Call) -> str:
    """Return the name of a call, with its class: ``ChatSession.handle_read``."""
    owner, name = call.channel.class_name if call.channel else "", call.name
    if call.code is not None:
        owner, name = call.code.class_name or "", call.code.name
    return readable(f"{owner}.{name}" if owner else name)


def error_of(call: Call) -> str:
    """Return the exception of a call."""
    return readable(call.error) or "an exception"


def code_of(*calls: Call) -> str:
    """Return "file:line" of the first call with known code, or ""."""
    for call in calls:
        if call.code is not None:
            return f"{readable(call.code.file)}:{call.code.line}"
    return ""


def as_number(value: object) -> int:
    """Return an int of a damaged trace; 0 for any other value."""
    return value if isinstance(value, int) else 0


def as_size(size: int) -> str:
    """Return a number of bytes as text: ``705.6 kB``."""
    for unit, least in (("MB", 10**6), ("kB", 10**3)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return count(size, "byte")


def times(number: int) -> str:
    """Return ``once`` or ``1,000 times``."""
    return "once" if number == 1 else f"{number:,} times"
