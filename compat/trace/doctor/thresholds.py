"""The thresholds of the doctor's rules, with their units and reasons.

Rule: a healthy program does not reach them, however busy it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["DEFAULTS", "RULES_IN_WORDS", "Thresholds"]


@dataclass(frozen=True)
class Thresholds:
    """The limits between healthy and faulty; a share is a part of 1.0."""

    # Microseconds of a callback. People notice a tenth of a second, and asyncio's
    # debug mode calls that slow.
    slow_us: int = 100_000

    # Slow callbacks; or microseconds of a single one. Durations are wall-clock time, so
    # they include waits for a CPU: tens of milliseconds on an overloaded machine, and
    # nearly 100 ms where a container has used up its CPU quota.
    slow_times: int = 3
    slow_once_us: int = 250_000

    # A slow callback stalls the loop, rather than delays it, from these microseconds at
    # once, or this share of the whole time, on.
    stall_us: int = 1_000_000
    stall_share: float = 0.05

    # Consecutive turns in which a channel was ready without progress. A handler may
    # once find that another thread was faster, or that a TLS record is incomplete. A
    # busy loop makes thousands of such turns a second.
    spin_turns: int = 50

    # Turns where each is a mistake by itself, and their share of all turns: a trace may
    # be as short as one step of a lesson.
    spin_few: int = 3
    spin_share: float = 0.1

    # The longest wait of such a turn, in microseconds. Longer waits use no CPU.
    spin_wait_us: int = 1_000

    # Bytes of a backlog. Less is one buffer of asynchat, which any peer may have for a
    # moment.
    backlog: int = 65_536

    # Turns in which a backlog grew since it was last empty. One large push is one turn.
    backlog_turns: int = 20

    # Turns if the peer received no byte meanwhile, and their share of all turns.
    backlog_few: int = 5
    backlog_share: float = 0.25

    # The least share of the largest backlog that is left at the end, and the largest
    # share of the queued bytes that was sent: a peer that catches up receives more.
    backlog_left: float = 0.75
    backlog_sent: float = 0.5

    # Bytes of a closed channel's backlog. A room may rightly close slow readers at a
    # few MB.
    backlog_closed: int = 16_777_216

    # The least share of the turns with slow readable() and writable(). In a few turns,
    # another process may have used the CPU.
    interest_turn_share: float = 0.25

    # Microseconds of an interest update. A thousand of asyncore's channels need half.
    interest_us: int = 1_000

    # Microseconds for each channel, and for a turn. A channel of asyncore or asynchat
    # needs less than 1, and a turn has about 10 more.
    interest_each_us: int = 20
    interest_min_us: int = 100

    # The least share of the time. With less, a change would gain nothing.
    interest_share: float = 0.05

    # Turns. The first ones check new channels.
    interest_turns: int = 20

    # A descriptor. select accepts descriptors up to 1,023.
    select_fd: int = 960

    def with_slow(self, seconds: float) -> Thresholds:
        """Return a copy that reports every callback from *seconds* on."""
        us = round(seconds * 1e6)
        return replace(self, slow_us=us, slow_once_us=us)


DEFAULTS = Thresholds()


def _rules_in_words(at: Thresholds) -> str:
    return f"""\
faults, worst first:
  stopped  an exception left the loop through handle_error
  stalls   a busy loop: a channel is ready in turn after turn without progress, so the
           loop never waits. {at.spin_turns} consecutive turns; or {at.spin_few} turns \
that are mistakes by
           themselves (writable() with nothing to send, accept that fails,
           handle_close that does not close) and {at.spin_share:.0%} of all turns
  stalls   a callback that takes {at.slow_once_us / 1e6:g} s once, or \
{at.slow_us / 1e6:g} s {at.slow_times} times (--slow SECONDS: once):
           no other channel is served meanwhile. Below {at.stall_us / 1e6:g} s at once \
and below {at.stall_share:.0%}
           of the time, it is "delays"
  leaks    a backlog that only grows, to {at.backlog // 1024} KiB or more
  leaks    closed channels that are still written to
  leaks    descriptors from {at.select_fd} on, with select
  hidden   exceptions that handle_error or the log swallowed
  lost     peers that read too slowly and reached the program's limit
  waste    readable() and writable() that take more time than all callbacks
  note     a trace that is full or has gaps: faults there are not found

Durations are wall-clock time: on an overloaded machine they include waits for a CPU.
The exit status is 0 without findings, 1 with findings, 2 if the trace cannot be read.
"""


# The help text of the command line.
RULES_IN_WORDS = _rules_in_words(DEFAULTS)
