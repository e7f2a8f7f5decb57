"""What the doctor finds, and from where on it is wrong.

Rule 1: what a healthy program also does, however busy it is, is no finding.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple

from compat.trace.reading import Channel
from compat.trace.words import named, readable

__all__ = ["LIMITS", "RULES_IN_WORDS", "Finding", "Limits", "Place", "Severity"]


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


@dataclass(frozen=True)
class Limits:
    """From where on something is wrong."""

    # Microseconds of a callback. A tenth of a second is what a person notices, and what
    # asyncio's debug mode calls slow.
    slow_us: int = 100_000

    # How often it has to be that slow; or how slow it has to be once. A trace has the
    # time of the clock, and what a callback waits for a core that others have is in it:
    # tens of milliseconds on a machine with several times as much to do as it can, and
    # nearly a tenth of a second where a container has used up its share of one.
    slow_times: int = 3
    slow_once_us: int = 250_000

    # When that is more than a moment: so many microseconds at once, or such a part of
    # the whole time.
    stalls_us: int = 1_000_000
    stalls_part: float = 0.05

    # Turns in a row in which a channel was ready and nothing came of it. A handler may
    # find once that another has been faster, or that a TLS record is not whole; a loop
    # that spins makes thousands a second.
    idle_turns: int = 50

    # As many where each of them is a mistake by itself, and such a part of all turns:
    # a trace may be short, as one of a single step is, or of a lesson.
    idle_few: int = 3
    idle_part: float = 0.1

    # Microseconds that such a turn may have waited. Who waits longer burns no core.
    idle_wait_us: int = 1_000

    # Bytes of a backlog. Below this it is one asynchat buffer, which any peer may have
    # for a moment.
    backlog: int = 65_536

    # Turns in which a backlog has grown since it was last empty. One large push is one.
    backlog_turns: int = 20

    # As many where not a byte was taken meanwhile, and such a part of all turns.
    backlog_few: int = 5
    backlog_part: float = 0.25

    # The part of the largest backlog that is still there at the end, and at most half
    # of what came has been taken: a peer that catches up has less, or took more.
    backlog_left: float = 0.75
    backlog_taken: float = 0.5

    # Bytes that a channel has when it closes. A room that closes slow readers does so
    # at a few MB, and is right.
    backlog_closed: int = 16_777_216

    # The part of the turns in which asking has to take as long as follows. In a few of
    # them, another process may have had the core.
    asked_often: float = 0.25

    # Microseconds of asking, in a turn. A thousand channels of asyncore's own take half
    # of that.
    asked_us: int = 1_000

    # Microseconds of asking one channel for both. asyncore's and asynchat's own take
    # less than one, and a turn's beginning some ten, whoever is in it.
    asked_each_us: int = 20
    asked_least_us: int = 100

    # The part of the time that all asking takes: with less, nobody gains by a change.
    asked_part: float = 0.05

    # Turns. The first ones ask everybody for the first time.
    asked_turns: int = 20

    # The descriptor from which on select has few left: it ends at 1,023.
    select_fd: int = 960

    def with_slow(self, seconds: float) -> Limits:
        """The same, but a callback that takes so long is told of, even once."""
        us = round(seconds * 1e6)
        return replace(self, slow_us=us, slow_once_us=us)


LIMITS = Limits()


class Place(NamedTuple):
    """Where to look."""

    turn: int
    thread: int
    line: int
    channel: Channel | None


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
    what: str
    count: int
    place: Place
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


def _whose(channel: Channel) -> str:
    peer = f" ({readable(channel.peer)})" if channel.peer else ""
    return f"{named(channel)}{peer}"


# What the command line says of all that. A figure that people may meet stands here as
# it stands above.
RULES_IN_WORDS = f"""\
what is told of, worst first:
  stopped  an exception left the loop through handle_error
  stalls   a channel that is ready in turn after turn, and nothing comes of it: so the
           loop never waits. {LIMITS.idle_turns} turns in a row, or {LIMITS.idle_few} \
if each is a mistake by itself
           (writable() with nothing to send, accept that fails, handle_close that does
           not close) and they are {LIMITS.idle_part:.0%} of all turns
  stalls   a callback that takes {LIMITS.slow_once_us / 1e6:g} s once, or \
{LIMITS.slow_us / 1e6:g} s {LIMITS.slow_times} times (--slow SECONDS: once);
           nobody else is served meanwhile. Less than {LIMITS.stalls_us / 1e6:g} s at \
once and less than {LIMITS.stalls_part:.0%}
           of the time, it is "delays"
  leaks    what is queued for a peer only grows, to {LIMITS.backlog // 1024} KiB or more
  leaks    closed channels that are still spoken to
  leaks    descriptors from {LIMITS.select_fd} on, with select
  hidden   exceptions that handle_error or the log has swallowed
  lost     peers that read too slowly, and came to the program's own limit
  waste    readable() and writable() that cost more than all that is called
  note     a trace that is full, or has gaps: what happened there is not in it

The times are those of the clock: on a machine that has too much to do, what a callback
has waited for a core is in them. The exit status is 0 if nothing was found, 1 if
anything was, 2 if the trace could not be read.
"""
