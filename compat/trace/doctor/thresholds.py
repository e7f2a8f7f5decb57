"""The figures from which on something is wrong.

Rule: what a healthy program also does, however busy it is, is not a finding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["DEFAULTS", "Thresholds"]


@dataclass(frozen=True)
class Thresholds:
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

    def with_slow(self, seconds: float) -> Thresholds:
        """The same, but a callback that takes so long is told of, even once."""
        us = round(seconds * 1e6)
        return replace(self, slow_us=us, slow_once_us=us)


DEFAULTS = Thresholds()
