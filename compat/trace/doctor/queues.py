"""Queues: backlogs that only grow, slow readers, and writes to closed channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from compat.trace.doctor.facts import CallFacts, TraceFacts, TurnFacts
from compat.trace.doctor.findings import Finding, Location, Severity
from compat.trace.doctor.rule import Group, Rule, as_number, as_size, code_of, times
from compat.trace.model import TracedChannel
from compat.trace.render.formatting import readable
from compat.trace.render.messages import count as count_of

__all__ = ["GrowingBacklog", "SlowReaders", "WritesAfterClose"]


@dataclass
class Backlog:
    """A backlog since it was last empty, in bytes, and the turns in which it grew."""

    begin: Location
    now: int = 0
    peak: int = 0
    added: int = 0
    sent: int = 0
    turns: int = 0
    queued: int = 0

    def update(self, size: int, queued: int) -> None:
        """Set the bytes and the queue's entries at the end of a turn."""
        self.added += max(0, size - self.now)
        self.sent += max(0, self.now - size)
        # The recorder adds up the bytes of a long queue only now and then.
        self.turns += size > self.now or queued > self.queued
        self.peak = max(self.peak, size)
        self.now, self.queued = size, queued


@dataclass
class GrowingBacklog(Rule):
    """A peer gets more data than it receives, turn after turn."""

    name = "growing-backlog"
    severity = Severity.LEAKS
    advice = (
        "The peer reads too slowly, or not at all, and the queue has no limit: close "
        "the channel at a limit (ac_coalesce_writes, ac_backlog_limit and "
        "handle_backlog), or pause the source of the data."
    )

    _open: dict[int, Backlog] = field(default_factory=dict)
    # By class: the number of channels that closed with too much, and the worst.
    _closed: dict[str, tuple[int, Backlog]] = field(default_factory=dict)
    # Channels that close in the last turn close because the program ends.
    _closing: list[Backlog] = field(default_factory=list)

    def observe(self, facts: TurnFacts) -> None:
        self._closing.clear()
        changes: dict[int, tuple[TracedChannel, dict[str, object]]] = {}
        for event in facts.events:
            channel = event.channel
            if event.kind != "state" or channel is None:
                continue
            number = channel.number
            if event.fields.get("is") == "closed":
                changes.pop(number, None)
                self._close(channel, number in facts.called["handle_backlog"])
            elif facts.status.get(number) != "closed":
                before = changes.get(number, (channel, {}))[1]
                changes[number] = channel, {**before, **event.fields}
        for channel, fields in changes.values():
            if "backlog" in fields or "queued" in fields:
                self._update(facts, channel, fields)

    def forget(self) -> None:
        # Forget the open backlogs: they may have been empty meanwhile.
        self._open.clear()
        self._closing.clear()

    def _update(
        self, facts: TurnFacts, channel: TracedChannel, fields: dict[str, object]
    ) -> None:
        backlog = self._open.get(channel.number) or Backlog(facts.location(channel))
        # The fields have only changes.
        backlog.update(
            as_number(fields.get("backlog", backlog.now)),
            as_number(fields.get("queued", backlog.queued)),
        )
        if backlog.now:
            self._open[channel.number] = backlog
        else:
            self._open.pop(channel.number, None)

    def _close(self, channel: TracedChannel, has_limit: bool) -> None:
        backlog = self._open.pop(channel.number, None)
        if backlog is None:
            return
        if backlog.now >= self.thresholds.backlog_closed:
            if self._grows(backlog):
                _add_worst(self._closed, channel.class_name, backlog)
        elif not has_limit:
            self._closing.append(backlog)

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        found = dict(self._closed)
        for backlog in (*self._open.values(), *self._closing):
            channel = backlog.begin.channel
            if channel is not None and self._grows(backlog, trace):
                _add_worst(found, channel.class_name, backlog)
        for name, (count, worst) in found.items():
            yield self.finding(
                f"{readable(name)}: the backlog of {count_of(count, 'peer')} only "
                f"grows, to {as_size(worst.now)} at worst",
                worst.now,
                count,
                worst.begin,
                details=[
                    f"it grew in {worst.turns:,} turns from that one on: "
                    f"{as_size(worst.added)} queued, {as_size(worst.sent)} sent"
                ],
            )

    def _grows(self, backlog: Backlog, trace: TraceFacts | None = None) -> bool:
        limits = self.thresholds
        is_long = backlog.turns >= limits.backlog_turns
        return (
            (is_long or (trace is not None and self._only_grew(backlog, trace)))
            and backlog.now >= limits.backlog
            and backlog.now >= backlog.peak * limits.backlog_left
            and backlog.sent <= backlog.added * limits.backlog_sent
        )

    def _only_grew(self, backlog: Backlog, trace: TraceFacts) -> bool:
        """Return whether it only grew, in a large share of a short trace's turns."""
        limits = self.thresholds
        least = max(limits.backlog_few, trace.turns * limits.backlog_share)
        return backlog.turns >= least and not backlog.sent and not trace.lost_lines


def _add_worst(
    found: dict[str, tuple[int, Backlog]], name: str, backlog: Backlog
) -> None:
    count, worst = found.get(name, (0, backlog))
    found[name] = count + 1, max(worst, backlog, key=lambda each: each.now)


@dataclass
class SlowReaders(Rule):
    """Peers reached the program's backlog limit and were disconnected."""

    name = "slow-reader"
    severity = Severity.LOST
    advice = (
        "The limit worked as intended. To keep these peers, send them less, or raise "
        "the limit (ac_backlog_limit, --send-queue)."
    )
    _closed: Counter[str] = field(default_factory=Counter)

    def observe(self, facts: TurnFacts) -> None:
        limited = facts.called["handle_backlog"]
        for call, _, _ in facts.calls if limited else ():
            if call.name == "handle_backlog" and call.channel is not None:
                location = facts.location(call.channel, call.line)
                self.group(call.channel.class_name, call, location, code_of(call))
        for event in facts.events if limited else ():
            channel = event.channel
            if channel is None or event.fields.get("is") != "closed":
                continue
            if channel.number in limited:
                self.groups[channel.class_name].total += channel.backlog
                self._closed[channel.class_name] += 1

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        for name, group in self.groups.items():
            peers, closed = len(group.channels), self._closed[name]
            lost = f": {closed:,} closed, {as_size(group.total)} or more lost"
            yield self.finding(
                f"{readable(name)}: {count_of(peers, 'peer')} read too slowly and "
                f"reached the backlog limit{lost if closed else ''}",
                group.total,
                peers,
                group.location,
                group.where,
            )


class WritesAfterClose(Rule):
    """A channel has closed, and the program still writes to it."""

    name = "write-after-close"
    severity = Severity.LEAKS
    advice = (
        "The program still refers to the channel, so its queue is never freed: "
        "override handle_close, remove the channel from every list there, then call "
        "close()."
    )

    WRITES = ("push", "push_with_producer", "send", "close_when_done")

    def observe(self, facts: TurnFacts) -> None:
        for made in facts.calls:
            call, channel = made.call, made.call.channel
            if channel is not None and made.is_late and self._is_write(made):
                location, where = facts.location(channel, call.line), made.callers()
                group = self.group(channel.number, call, location, code_of(*where))
                group.total += call.size or 0
        for event in facts.events:
            if event.kind == "open" and event.channel is not None:
                # The channel is in use again.
                self.groups.pop(event.channel.number, None)

    def forget(self) -> None:
        # A channel may have been opened again.
        self.groups.clear()

    def _is_write(self, made: CallFacts) -> bool:
        call = made.call
        return call.name in self.WRITES and not any(
            each.channel is call.channel and each.name in self.WRITES
            for each in made.callers()
        )

    def findings(self, trace: TraceFacts) -> Iterator[Finding]:
        by_class: dict[str, list[Group]] = {}
        for group in self.groups.values():
            if (channel := group.location.channel) is not None:
                by_class.setdefault(channel.class_name, []).append(group)
        for name, groups in by_class.items():
            size = sum(each.total for each in groups)
            writes = sum(each.count for each in groups)
            worst = max(groups, key=lambda each: each.total)
            yield self.finding(
                f"{readable(name)}: {count_of(len(groups), 'closed channel')} still "
                f"written to, {times(writes)}, {as_size(size)} queued and never sent",
                size,
                writes,
                worst.location,
                worst.where,
                [f"the worst one: {times(worst.count)}, {as_size(worst.total)}"],
            )
