"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from compat.trace.doctor.thresholds import DEFAULTS
from compat.trace.model import TracedChannel
from compat.trace.render.formatting import readable
from compat.trace.render.messages import channel_name

__all__ = ["RULES_IN_WORDS", "Finding", "Location", "Severity"]


class Severity(IntEnum):
    """How bad it is; a smaller one is worse."""

    # The loop is over.
    STOPPED = 1
    # Everybody waits, or a core is burnt.
    STALLS = 2
    # The memory goes, and it never comes back.
    LEAKS = 3
    # Everybody has waited, for a moment that is a small part of the time.
    DELAYS = 4
    # Something did not work, and nobody was told.
    HIDDEN = 5
    # The program did right, and a peer has lost what was queued for it.
    LOST = 6
    # It works, and costs more than it has to.
    WASTE = 7
    # About the trace, not the program.
    NOTE = 8


class Location(NamedTuple):
    """Where to look."""

    turn: int
    thread: int
    line: int
    channel: TracedChannel | None


@dataclass
class Finding:
    """Something that is wrong.

    Attributes:
        rule: its name, for scripts: the rule's, in the table RULES.
        severity: how bad; weight: for what is equally bad, how much of it, in
            microseconds, bytes or times.
        what: one line, with the figures.
        count: how often. where: "file:line" of the code, or "".
        turn, thread, line: where it was first, or worst; line: in the trace's file.
        channel: the name of the channel to look at, with its peer; "" if it is none's.
        more: figures that help, one line each.
        advice: one sentence.
    """

    rule: str
    severity: Severity
    weight: float
    summary: str
    count: int
    place: Location
    advice: str
    where: str = ""
    more: list[str] = field(default_factory=list)

    @property
    def turn(self) -> int:
        return self.place.turn

    @property
    def thread(self) -> int:
        return self.place.thread

    @property
    def line(self) -> int:
        return self.place.line

    @property
    def channel(self) -> str:
        return _whose(self.place.channel) if self.place.channel else ""


def _whose(channel: TracedChannel) -> str:
    peer = f" ({readable(channel.peer)})" if channel.peer else ""
    return f"{channel_name(channel)}{peer}"


_AT = DEFAULTS

# What the command line says of all that. A figure that people may meet stands here as
# it stands above.
RULES_IN_WORDS = f"""\
what is told of, worst first:
  stopped  an exception left the loop through handle_error
  stalls   a channel that is ready in turn after turn, and nothing comes of it: so the
           loop never waits. {_AT.idle_turns} turns in a row, or {_AT.idle_few} \
if each is a mistake by itself
           (writable() with nothing to send, accept that fails, handle_close that does
           not close) and they are {_AT.idle_part:.0%} of all turns
  stalls   a callback that takes {_AT.slow_once_us / 1e6:g} s once, or \
{_AT.slow_us / 1e6:g} s {_AT.slow_times} times (--slow SECONDS: once);
           nobody else is served meanwhile. Less than {_AT.stalls_us / 1e6:g} s at \
once and less than {_AT.stalls_part:.0%}
           of the time, it is "delays"
  leaks    what is queued for a peer only grows, to {_AT.backlog // 1024} KiB or more
  leaks    closed channels that are still spoken to
  leaks    descriptors from {_AT.select_fd} on, with select
  hidden   exceptions that handle_error or the log has swallowed
  lost     peers that read too slowly, and came to the program's own limit
  waste    readable() and writable() that cost more than all that is called
  note     a trace that is full, or has gaps: what happened there is not in it

The times are those of the clock: on a machine that has too much to do, what a callback
has waited for a core is in them. The exit status is 0 if nothing was found, 1 if
anything was, 2 if the trace could not be read.
"""
