"""Code that takes time while no channel is served: callbacks and interest checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from compat.trace.doctor.facts import TraceFacts, TurnFacts
from compat.trace.doctor.findings import START, Finding, Location, Severity
from compat.trace.doctor.rule import Group, Rule, as_number, code_of, name_of, times
from compat.trace.model import Call, Event, TracedChannel, walk
from compat.trace.render.formatting import duration, readable

__all__ = ["SlowCallbacks", "SlowInterest"]


class SlowCallbacks(Rule):
    """A callback blocks the loop."""

    name = "slow-callback"
    advice = (
        "No other channel is served meanwhile: do the work in pieces (call_later with "
        "0 seconds), or in a thread that returns its result with "
        "call_soon_threadsafe."
    )

    def observe(self, facts: TurnFacts) -> None:
        least = self.thresholds.slow_us
        for call in facts.turn.entries:
            if not isinstance(call, Call) or call.us < least:
                continue
            busy = _busy(call)
            us = busy[call.line]
            if us >= least:
                cause = _cause(call, busy)
                location = facts.location(cause.channel or call.channel, cause.line)
                where = code_of(cause)
                group = self.group((name_of(cause), where), cause, location, where)
                group.total += us
                if us > group.worst:
                    group.worst, group.call, group.location = us, cause, location

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        limits = self.thresholds
        for group in self.groups.values():
            if group.count < limits.slow_times and group.worst < limits.slow_once_us:
                continue
            is_long = group.total >= trace.us * limits.stall_share
            stalls = is_long or group.worst >= limits.stall_us
            self.severity = Severity.STALLS if stalls else Severity.DELAYS
            calls = sum(isinstance(each, Call) for each in group.call.children)
            yield self.finding(
                f"{name_of(group.call)} blocks the loop: {self._total(group, trace)}",
                group.total,
                group.count,
                group.location,
                group.where,
                [f"the worst one made {calls:,} calls"] if calls > 1 else [],
            )

    def _total(self, group: Group, trace: TraceFacts) -> str:
        share = trace.share(group.total)
        if group.count == 1:
            return f"once for {share}"
        return (
            f"{times(group.count)} for {duration(self.thresholds.slow_us)} or more, "
            f"{duration(group.worst)} at worst, {share} in all"
        )


def _busy(call: Call) -> dict[int, int]:
    """Return the microseconds of a call and its children, by line.

    The waits of nested loops are subtracted.
    """
    busy: dict[int, int] = {}
    # The waits so far; those before each open call.
    waited, before = 0, []
    for entry, begins in walk([call]):
        if isinstance(entry, Event):
            waited += as_number(entry.fields.get("waited"))
        elif begins:
            before.append(waited)
        else:
            busy[entry.line] = entry.us - (waited - before.pop())
    return busy


def _cause(call: Call, busy: dict[int, int]) -> Call:
    """Return the innermost call with known code that takes at least half the time."""
    known = call
    while True:
        children = [each for each in call.children if isinstance(each, Call)]
        slowest = max(children, key=lambda each: busy[each.line], default=None)
        if slowest is None or busy[slowest.line] * 2 < busy[call.line]:
            return known
        call = slowest
        if call.code is not None or known.code is None:
            known = call


@dataclass
class SlowInterest(Rule):
    """readable() and writable() take longer than all callbacks.

    A trace has the time of each turn's interest update, not of each channel. So the
    finding names the channel if it is alone in its map, else the classes.
    """

    name = "slow-interest"
    severity = Severity.WASTE

    _open: dict[int, TracedChannel] = field(default_factory=dict)
    _us: int = 0
    _channels: int = 0
    _turns: int = 0
    _callbacks_us: int = 0
    # Turns in which the time for each channel was too long; for all of them.
    _slow_each: int = 0
    _slow_turns: int = 0
    _worst: int = 0
    _location: Location = START
    _classes: Counter[str] = field(default_factory=Counter)
    _is_certain: bool = True

    def observe(self, facts: TurnFacts) -> None:
        if not self._is_certain:
            return
        for event in facts.events:
            channel = event.channel
            if channel is not None and event.kind == "open":
                self._open[channel.number] = channel
            elif channel is not None and event.fields.get("is") == "closed":
                self._open.pop(channel.number, None)
        if facts.turn.channels:
            self._add(facts)

    def forget(self) -> None:
        # From here on, the contents of the map are unknown.
        self._is_certain = False

    def _add(self, facts: TurnFacts) -> None:
        limits, turn, us = self.thresholds, facts.turn, facts.interest_us
        if us > self._worst:
            alone = next(iter(self._open.values())) if len(self._open) == 1 else None
            self._worst, self._location = us, facts.location(alone)
            self._classes = Counter(each.class_name for each in self._open.values())
        least = max(limits.interest_min_us, turn.channels * limits.interest_each_us)
        self._slow_each += us >= least
        self._slow_turns += us >= limits.interest_us
        self._us += us
        self._channels += turn.channels
        self._turns += 1
        calls = (each.us for each in turn.entries if isinstance(each, Call))
        self._callbacks_us += sum(calls)

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        limits, us, turns = self.thresholds, self._us, self._turns
        least = max(self._callbacks_us, trace.us * limits.interest_share)
        often = max(1, turns * limits.interest_turn_share)
        if turns < limits.interest_turns or us <= least:
            return
        if self._slow_each >= often:
            self.advice = (
                "They run in every turn, for every channel: let them check a flag, and "
                "do the work where the flag changes."
            )
        elif self._slow_turns >= often:
            self.advice = (
                "Most channels are idle, and all are checked: the loop selectors "
                "checks channels of compat's async_chat only after they report a "
                "change."
            )
        else:
            return
        classes = self._classes.most_common(5)
        names = [f"{number:,} {readable(name)}" for name, number in classes]
        yield self.finding(
            f"readable() and writable() take {trace.share(us)}; all callbacks, "
            f"{duration(self._callbacks_us)}",
            us,
            turns,
            self._location,
            details=[
                f"{duration(us // turns)} a turn, {us / max(1, self._channels):.3g} µs "
                f"for each channel; {duration(self._worst)} in that turn",
                f"in the map then: {', '.join(names) or 'no channel'}",
            ],
        )
