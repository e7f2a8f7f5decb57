"""Busy loops: a channel is ready, the turn makes no progress, so it is ready again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from compat.trace.doctor.facts import TraceFacts, TurnFacts
from compat.trace.doctor.findings import Finding, Location, Severity
from compat.trace.doctor.rule import Rule
from compat.trace.model import TracedChannel
from compat.trace.render.formatting import readable
from compat.trace.render.messages import count

__all__ = [
    "BusyWriter",
    "IgnoredEnd",
    "SpinningListener",
    "UnreadInput",
    "UnreadUrgentData",
]


@dataclass
class Streak:
    """Consecutive turns in which a channel was ready without progress."""

    begin: Location
    turns: int = 0
    us: int = 0
    is_counted: bool = False


@dataclass
class Spin:
    """The long streaks of a class's channels; a turn counts once for all of them."""

    longest: Streak
    channels: set[int] = field(default_factory=set)
    turns: int = 0
    us: int = 0
    error: str = ""


@dataclass
class BusyLoop(Rule):
    """Finds the long streaks; subclasses define a turn without progress."""

    severity = Severity.STALLS
    # The event that the channel is ready for: read, write or urgent.
    ready = ""
    # With the name of the class.
    summary = ""
    # By thread: the streaks that the last turn continued.
    _streaks: dict[int, dict[int, Streak]] = field(default_factory=dict)
    _spins: dict[str, Spin] = field(default_factory=dict)

    def is_idle(self, facts: TurnFacts, number: int) -> bool:
        """Return whether a ready channel moved no bytes and kept its status."""
        progress = facts.moved | facts.changed | facts.parents | facts.hidden
        return number not in progress

    def is_mistake(self, facts: TurnFacts, channel: TracedChannel) -> bool:
        """Return whether even a few such turns are certainly a mistake."""
        return True

    def observe(self, facts: TurnFacts) -> None:
        """Continue the streaks of idle channels; end all others."""
        turn, limits = facts.turn, self.thresholds
        spins = turn.waited is not None and turn.waited < limits.spin_wait_us
        before = self._streaks.get(turn.thread, {})
        now = self._streaks[turn.thread] = {}
        longest: dict[str, Streak] = {}
        for channel in getattr(turn, self.ready) if spins else ():
            if not self.is_idle(facts, channel.number):
                continue
            streak = before.get(channel.number) or Streak(facts.location(channel))
            streak.turns += 1
            streak.us += facts.us
            now[channel.number] = streak
            is_mistake = self.is_mistake(facts, channel)
            if streak.turns >= (limits.spin_few if is_mistake else limits.spin_turns):
                self._add(facts, channel, streak)
                other = longest.setdefault(channel.class_name, streak)
                if streak.turns > other.turns:
                    longest[channel.class_name] = streak
        for name, streak in longest.items():
            self._count(self._spins[name], streak, facts.us)

    def forget(self) -> None:
        self._streaks.clear()

    def _add(self, facts: TurnFacts, channel: TracedChannel, streak: Streak) -> None:
        spin = self._spins.setdefault(channel.class_name, Spin(streak))
        spin.channels.add(channel.number)
        spin.error = facts.errors.get(channel.number, spin.error)
        if streak.turns > spin.longest.turns:
            spin.longest = streak

    def _count(self, spin: Spin, streak: Streak, us: int) -> None:
        # A streak counts from its first turn.
        spin.turns += 1 if streak.is_counted else streak.turns
        spin.us += us if streak.is_counted else streak.us
        streak.is_counted = True

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        for name, spin in self._spins.items():
            is_large = spin.turns >= trace.turns * self.thresholds.spin_share
            is_certain = is_large and not trace.lost_lines
            if is_certain or spin.longest.turns >= self.thresholds.spin_turns:
                yield self.finding(
                    f"{self.summary.format(readable(name))}: {spin.turns:,} turns "
                    f"without progress, {trace.share(spin.us)}",
                    spin.us,
                    spin.turns,
                    spin.longest.begin,
                    details=self._details(spin, trace),
                )

    def _details(self, spin: Spin, trace: TraceFacts) -> Iterator[str]:
        yield f"{spin.longest.turns:,} in a row, from that turn on"
        if spin.longest.turns < self.thresholds.spin_turns:
            yield f"the trace has only {count(trace.turns, 'turn')}"
        if len(spin.channels) > 1:
            yield f"{len(spin.channels):,} channels did so"
        if spin.error:
            yield f"the last error: {readable(spin.error)}"


class SpinningListener(BusyLoop):
    """A connection is pending and cannot be accepted: no descriptor is left."""

    name = "spinning-listener"
    ready = "read"
    summary = "{} is ready and accepts no connection"
    advice = (
        "A pending connection keeps the listener ready: keep one descriptor in "
        "reserve, close it on EMFILE, accept and close the connection, and open it "
        "again; and raise the limit (ulimit -n)."
    )

    def is_idle(self, facts: TurnFacts, number: int) -> bool:
        is_failed = number in facts.listeners and number in facts.errors
        return is_failed and number not in facts.parents | facts.changed


class IgnoredEnd(BusyLoop):
    """The peer has closed, handle_close runs in every turn, and the channel stays."""

    name = "ignored-end"
    ready = "read"
    summary = "{}.handle_close does not close the channel"
    advice = (
        "A socket at its end stays readable: handle_close has to call close(), or "
        "readable() has to return false from then on."
    )

    def is_idle(self, facts: TurnFacts, number: int) -> bool:
        return number in facts.called["handle_close"] and super().is_idle(facts, number)


class UnreadInput(BusyLoop):
    """Data has arrived, and handle_read does not read it."""

    name = "unread-input"
    ready = "read"
    summary = "{} is ready to read and does not read"
    advice = (
        "Unread data keeps the socket ready: call recv() in handle_read before code "
        "that may raise, or return false from readable() until the channel can read."
    )

    def is_idle(self, facts: TurnFacts, number: int) -> bool:
        # An incomplete TLS record makes the socket ready without a handle_read.
        called = facts.called
        is_read = number in called["handle_read"] - called["handle_close"]
        return is_read and super().is_idle(facts, number)

    def is_mistake(self, facts: TurnFacts, channel: TracedChannel) -> bool:
        # Another thread may have read.
        return False


class BusyWriter(BusyLoop):
    """writable() is true without data to send, so the loop never waits."""

    name = "busy-writer"
    ready = "write"
    summary = "{}.writable() is true with nothing to send"
    advice = (
        "A socket is almost always ready to write: writable() has to be false unless "
        "data is queued (dispatcher's own is always true)."
    )

    def is_mistake(self, facts: TurnFacts, channel: TracedChannel) -> bool:
        # A producer may hold its data back. Without a handle_write, as under TLS, the
        # channel may have written bytes that a trace does not show.
        is_empty = not channel.backlog and not channel.queued
        return is_empty and channel.number in facts.called["handle_write"]


class UnreadUrgentData(BusyLoop):
    """Urgent data has arrived, and handle_expt does not read it."""

    name = "unread-urgent-data"
    ready = "urgent"
    summary = "{}.handle_expt does not read the urgent data"
    advice = (
        "Urgent data keeps the socket ready: handle_expt has to call "
        "self.socket.recv(1, socket.MSG_OOB), or close the channel."
    )

    def is_mistake(self, facts: TurnFacts, channel: TracedChannel) -> bool:
        # Another thread may have read.
        return False
