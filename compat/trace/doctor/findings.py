"""The findings of the doctor: faults, their locations, and their remedies."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from compat.trace.model import TracedChannel
from compat.trace.render.formatting import readable
from compat.trace.render.messages import channel_name

__all__ = ["START", "Finding", "Location", "Severity"]


class Severity(IntEnum):
    """The effect of a fault; a smaller value is worse."""

    # The loop has ended.
    STOPPED = 1
    # No channel is served, or the loop uses a whole CPU.
    STALLS = 2
    # Memory or descriptors are never freed.
    LEAKS = 3
    # All channels waited, but for a small part of the time.
    DELAYS = 4
    # An operation failed, and no user was notified.
    HIDDEN = 5
    # The program worked as intended, and a peer lost its queued data.
    LOST = 6
    # The program works, at an unnecessary cost.
    WASTE = 7
    # About the trace, not the program.
    NOTE = 8


class Location(NamedTuple):
    """A place in a trace; *line* counts the lines of the file."""

    turn: int = 0
    thread: int = 1
    line: int = 1
    channel: TracedChannel | None = None


# The beginning of a trace.
START = Location()


@dataclass
class Finding:
    """A fault, with all its occurrences.

    Attributes:
        rule: the name of the rule, for scripts.
        weight: orders findings of one severity: microseconds, bytes or occurrences.
        summary: one line, with the figures.
        location: the first or the worst occurrence.
        advice: the remedy.
        where: "file:line" of the code, or "".
        details: further figures, one line each.
    """

    rule: str
    severity: Severity
    weight: float
    summary: str
    count: int
    location: Location
    advice: str
    where: str = ""
    details: list[str] = field(default_factory=list)

    @property
    def channel(self) -> str:
        """The channel to look at, with its peer; "" if there is none."""
        channel = self.location.channel
        if channel is None:
            return ""
        peer = f" ({readable(channel.peer)})" if channel.peer else ""
        return f"{channel_name(channel)}{peer}"
