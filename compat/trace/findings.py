"""What the doctor finds, and from where on it is wrong.

Rule 1: what a healthy program also does, however busy it is, is no finding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from compat.trace.reading import Channel
from compat.trace.words import named, readable

__all__ = ["LIMITS", "Finding", "Limits", "Place", "Severity"]


class Severity(IntEnum):
    """How bad it is; a smaller one is worse."""

    # The loop is over.
    STOPPED = 1
    # Everybody waits, or a core is burnt.
    STALLS = 2
    # The memory goes, and it never comes back.
    LEAKS = 3
    # Something did not work, and nobody was told.
    HIDDEN = 4
    # It works, and costs more than it has to.
    WASTE = 5
    # About the trace, not the program.
    NOTE = 6


@dataclass(frozen=True)
class Limits:
    """From where on something is wrong."""

    # Microseconds of a callback. A tenth of a second is what a person notices, and what
    # asyncio's debug mode calls slow.
    slow_us: int = 100_000

    # How often it has to be slow, or how slow it has to be once: what happens once or
    # twice, another process may have done that had the core.
    slow_times: int = 3
    slow_once_us: int = 1_000_000

    # Turns in a row in which a channel was ready and nothing came of it. A handler may
    # find once that another has been faster, or that a TLS record is not whole; a loop
    # that spins makes thousands a second.
    idle_turns: int = 50

    # Microseconds that such a turn may have waited. Who waits longer burns no core.
    idle_wait_us: int = 1_000

    # Bytes of a backlog. Below this it is one asynchat buffer, which any peer may have
    # for a moment.
    backlog: int = 65_536

    # Turns in which a backlog has grown since it was last empty. One large push is one.
    backlog_turns: int = 20

    # The part of the largest backlog that is still there at the end, and at most half
    # of what came has been taken: a peer that catches up has less, or took more.
    backlog_left: float = 0.75
    backlog_taken: float = 0.5

    # Bytes that a channel has when it closes. A room that closes slow readers does so
    # at a few MB, and is right.
    backlog_closed: int = 16_777_216

    # Microseconds of asking, in a turn. A thousand channels of asyncore's own take half
    # of that.
    asked_us: int = 1_000

    # Microseconds of asking one channel for both. asyncore's and asynchat's own take
    # less than one.
    asked_each_us: int = 20

    # The part of the time that all asking takes: with less, nobody gains by a change.
    asked_part: float = 0.05

    # Turns. The first ones ask everybody for the first time.
    asked_turns: int = 20

    # The descriptor from which on select has few left: it ends at 1,023.
    select_fd: int = 960


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
