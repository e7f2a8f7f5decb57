"""What can be wrong with a program: a class for each rule, and a table of them.

Rule 1: a rule knows no other rule. It looks at turn after turn, and says in the end
what it has found: one finding for all that is alike.
Rule 2: it is certain, or it is silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from compat.trace.doctor.facts import CallFacts, TraceFacts, TurnFacts
from compat.trace.doctor.findings import Finding, Location, Severity
from compat.trace.doctor.thresholds import Thresholds
from compat.trace.model import Call, Event, TracedChannel, walk
from compat.trace.render.formatting import duration, readable
from compat.trace.render.messages import count as many

__all__ = ["RULES", "Rule"]


class Rule:
    """Looks at turn after turn, and says in the end what it has found."""

    name = ""

    def __init__(self, limits: Thresholds) -> None:
        self.limits = limits

    def look(self, seen: TurnFacts) -> None:
        """Another turn is over."""
        raise NotImplementedError

    def lose(self) -> None:
        """Lines are missing: forget what only an unbroken trace proves."""

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        """What was found."""
        raise NotImplementedError


# The rules, in the order of the table.


class LeftTheLoop(Rule):
    """handle_error raised an exception of its own, and the loop was over.

    Any other exception goes to handle_error. That a handler's was the last thing before
    the end says nothing: Ctrl-C may have come in between.
    """

    name = "left-the-loop"

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        # By thread, if it has made no turn since.
        self._last: dict[int, tuple[Call, Location]] = {}

    def look(self, seen: TurnFacts) -> None:
        thread = seen.turn.thread
        self._last.pop(thread, None)
        calls = [each for each in seen.turn.entries if isinstance(each, Call)]
        if len(calls) > 1 and self._raised(*calls[-2:]):
            last = calls[-1]
            self._last[thread] = last, seen.place(last.channel, last.line)

    def lose(self) -> None:
        self._last.clear()

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        for call, place in self._last.values():
            yield Finding(
                self.name,
                Severity.STOPPED,
                1,
                f"{_error(call)} left the loop through {_do(call)}",
                1,
                place,
                "Nothing is served after that: handle_error must never raise.",
                readable(call.where) or _where(call),
            )

    def _raised(self, before: Call, call: Call) -> bool:
        # Or its error is the one that it was called for.
        return (
            call.name == "handle_error"
            and before.channel is call.channel
            and bool(before.error)
            and before.error != call.error
            and not call.error.startswith(MEANT)
        )


class SlowCallbacks(Rule):
    """While a callback runs, nobody else is served."""

    name = "slow-callback"

    @dataclass
    class Group:
        call: Call
        place: Location
        worst: int = 0
        us: int = 0
        count: int = 0

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        self._groups: dict[str, SlowCallbacks.Group] = {}

    def look(self, seen: TurnFacts) -> None:
        for entry in seen.turn.entries:
            if isinstance(entry, Call) and entry.us >= self.limits.slow_us:
                self._slow(seen, entry)

    def _slow(self, seen: TurnFacts, call: Call) -> None:
        busy = _busy(call)
        us = busy[call.line]
        if us < self.limits.slow_us:
            return
        blamed = _blamed(call, busy)
        place = seen.place(blamed.channel or call.channel, blamed.line)
        key = f"{_do(blamed)} {_where(blamed)}"
        group = self._groups.setdefault(key, self.Group(blamed, place))
        group.count += 1
        group.us += us
        if us > group.worst:
            group.worst, group.call, group.place = us, blamed, place

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        for group in self._groups.values():
            if not self._is_certain(group):
                continue
            calls = sum(isinstance(each, Call) for each in group.call.children)
            yield Finding(
                self.name,
                self._severity(group, whole),
                group.us,
                f"{_do(group.call)} blocks everybody: {self._how_often(group, whole)}",
                group.count,
                group.place,
                "No other channel is served meanwhile: do it in pieces (call_later "
                "with 0 seconds), or in a thread that hands its result over with "
                "call_soon_threadsafe.",
                _where(group.call),
                [f"the worst one made {calls:,} calls"] if calls > 1 else [],
            )

    def _how_often(self, group: Group, whole: TraceFacts) -> str:
        part = whole.part(group.us)
        if group.count == 1:
            return f"once for {part}"
        return (
            f"{_times(group.count)} for {duration(self.limits.slow_us)} or more, "
            f"{duration(group.worst)} at worst, {part} in all"
        )

    def _is_certain(self, group: Group) -> bool:
        return (
            group.count >= self.limits.slow_times
            or group.worst >= self.limits.slow_once_us
        )

    def _severity(self, group: Group, whole: TraceFacts) -> Severity:
        limits = self.limits
        if group.worst >= limits.stalls_us or group.us >= whole.us * limits.stalls_part:
            return Severity.STALLS
        return Severity.DELAYS


def _busy(call: Call) -> dict[int, int]:
    """Microseconds of a call and of those in it, by line, without the waits of loops
    that they have turned.
    """
    busy: dict[int, int] = {}
    # What has been waited so far; what it was when a call began.
    waited, before = 0, []
    for entry, begins in walk([call]):
        if isinstance(entry, Event):
            waited += _number(entry.fields.get("waited"))
        elif begins:
            before.append(waited)
        else:
            busy[entry.line] = entry.us - (waited - before.pop())
    return busy


def _blamed(call: Call, busy: dict[int, int]) -> Call:
    """The innermost call that takes at least half of it, and whose code is known."""
    known = call
    while True:
        inner = [each for each in call.children if isinstance(each, Call)]
        slowest = max(inner, key=lambda each: busy[each.line], default=None)
        if slowest is None or busy[slowest.line] * 2 < busy[call.line]:
            return known
        call = slowest
        if call.code is not None or known.code is None:
            known = call


@dataclass
class Streak:
    """Turns in a row in which a channel was ready and nothing came of it."""

    begin: Location
    turns: int = 0
    us: int = 0
    # Has it been counted?
    counts: bool = False


@dataclass
class Spin:
    """All the long streaks of a class's channels; a turn of several counts once."""

    longest: Streak
    channels: set[int] = field(default_factory=set)
    turns: int = 0
    us: int = 0
    error: str = ""


class Spins(Rule):
    """A channel is ready, nothing comes of it, and so it is ready again at once."""

    advice = ""

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        # By thread: the channels that were idle in its last turn.
        self._streaks: dict[int, dict[int, Streak]] = {}
        self._spins: dict[str, Spin] = {}

    def idle(self, seen: TurnFacts) -> Iterable[TracedChannel]:
        """The channels that were ready in vain in this turn."""
        raise NotImplementedError

    def says(self, kind: str) -> str:
        """What is wrong with the channels of that class."""
        raise NotImplementedError

    def least(self, seen: TurnFacts, channel: TracedChannel) -> int:
        """In how many turns in a row no healthy one would be ready in vain."""
        return self.limits.idle_turns

    def look(self, seen: TurnFacts) -> None:
        turn = seen.turn
        spun = turn.waited is not None and turn.waited < self.limits.idle_wait_us
        before = self._streaks.get(turn.thread, {})
        now = self._streaks[turn.thread] = {}
        spinning: dict[str, Streak] = {}
        for channel in self.idle(seen) if spun else ():
            streak = before.get(channel.number) or Streak(seen.place(channel))
            streak.turns += 1
            streak.us += seen.us
            now[channel.number] = streak
            if streak.turns >= self.least(seen, channel):
                self._note(seen, channel, streak)
                longest = spinning.setdefault(channel.class_name, streak)
                if streak.turns > longest.turns:
                    spinning[channel.class_name] = streak
        for kind, streak in spinning.items():
            self._count(self._spins[kind], streak, seen.us)

    def lose(self) -> None:
        self._streaks.clear()

    def _note(self, seen: TurnFacts, channel: TracedChannel, streak: Streak) -> None:
        spin = self._spins.setdefault(channel.class_name, Spin(streak))
        spin.channels.add(channel.number)
        spin.error = seen.errors.get(channel.number, spin.error)
        if streak.turns > spin.longest.turns:
            spin.longest = streak

    def _count(self, spin: Spin, longest: Streak, us: int) -> None:
        # From its beginning, if it is a streak only now.
        spin.turns += 1 if longest.counts else longest.turns
        spin.us += us if longest.counts else longest.us
        longest.counts = True

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        for kind, spin in self._spins.items():
            if not self._is_certain(spin, whole):
                continue
            yield Finding(
                self.name,
                Severity.STALLS,
                spin.us,
                f"{self.says(readable(kind))}: {spin.turns:,} turns for nothing, "
                f"{whole.part(spin.us)}",
                spin.turns,
                spin.longest.begin,
                self.advice,
                more=list(self._more(spin, whole)),
            )

    def _is_certain(self, spin: Spin, whole: TraceFacts) -> bool:
        is_most = spin.turns >= whole.turns * self.limits.idle_part
        return spin.longest.turns >= self.limits.idle_turns or (
            is_most and not whole.lost_lines
        )

    def _more(self, spin: Spin, whole: TraceFacts) -> Iterator[str]:
        yield f"{spin.longest.turns:,} in a row, from that turn on"
        if spin.longest.turns < self.limits.idle_turns:
            yield f"there are only {many(whole.turns, 'turn')} in the trace"
        if len(spin.channels) > 1:
            yield f"{len(spin.channels):,} channels did so"
        if spin.error:
            yield f"the last error: {readable(spin.error)}"


class SpinningListener(Spins):
    """A connection waits, and cannot be accepted: no descriptor is left."""

    name = "spinning-listener"
    advice = (
        "Who waits stays ready until it is accepted: keep one descriptor in reserve, "
        "close it on EMFILE, accept and close the one who waits, and open it again; "
        "and raise the limit (ulimit -n)."
    )

    def idle(self, seen: TurnFacts) -> Iterator[TracedChannel]:
        for channel in seen.turn.read:
            number = channel.number
            if (
                number in seen.listeners
                and number in seen.errors
                and number not in seen.parents | seen.changed
            ):
                yield channel

    def says(self, kind: str) -> str:
        return f"{kind} is ready and accepts nobody"

    def least(self, seen: TurnFacts, channel: TracedChannel) -> int:
        return self.limits.idle_few


class IgnoredEnd(Spins):
    """Its peer is gone, handle_close says so in every turn, and it stays open."""

    name = "ignored-end"
    advice = (
        "A socket at its end is readable for ever: handle_close has to call close(), "
        "or readable() has to be false from then on."
    )

    def idle(self, seen: TurnFacts) -> Iterator[TracedChannel]:
        for channel in _untouched(seen, seen.turn.read):
            if channel.number in seen.ends:
                yield channel

    def says(self, kind: str) -> str:
        return f"{kind}.handle_close does not close"

    def least(self, seen: TurnFacts, channel: TracedChannel) -> int:
        return self.limits.idle_few


class IdleReader(Spins):
    """Something has arrived for it, and it does not read it."""

    name = "idle-reader"
    advice = (
        "What is not read stays ready: let handle_read call recv() before anything "
        "that may raise, or let readable() be false while it cannot read."
    )

    def idle(self, seen: TurnFacts) -> Iterator[TracedChannel]:
        for channel in _untouched(seen, seen.turn.read):
            number = channel.number
            # Below TLS there are bytes that are no whole record yet: it is not called.
            if number in seen.reads and number not in seen.ends:
                yield channel

    def says(self, kind: str) -> str:
        return f"{kind} is ready to be read, and reads nothing"


class BusyWriter(Spins):
    """writable() is true, and there is nothing to write: the loop never waits."""

    name = "busy-writer"
    advice = (
        "A socket can nearly always be written to: writable() has to be false unless "
        "something is queued (dispatcher's own is always true)."
    )

    def idle(self, seen: TurnFacts) -> Iterator[TracedChannel]:
        return _untouched(seen, seen.turn.write)

    def says(self, kind: str) -> str:
        return f"{kind}.writable() is true with nothing to send"

    def least(self, seen: TurnFacts, channel: TracedChannel) -> int:
        # What a producer holds back is queued, and will be sent; who is not called, as
        # below TLS, may have written what a trace does not see.
        is_empty = not channel.backlog and not channel.queued
        is_certain = is_empty and channel.number in seen.writes
        return self.limits.idle_few if is_certain else self.limits.idle_turns


class UrgentSpin(Spins):
    """Urgent data has arrived, and nobody takes it."""

    name = "urgent-spin"
    advice = (
        "Urgent data stays ready until it is taken: let handle_expt call "
        "self.socket.recv(1, socket.MSG_OOB), or close."
    )

    def idle(self, seen: TurnFacts) -> Iterator[TracedChannel]:
        return _untouched(seen, seen.turn.urgent)

    def says(self, kind: str) -> str:
        return f"{kind}.handle_expt leaves urgent data where it is"


def _untouched(
    seen: TurnFacts, ready: Iterable[TracedChannel]
) -> Iterator[TracedChannel]:
    """Those that nothing came from or went to, and that are what they were."""
    touched = seen.moved | seen.changed | seen.parents | seen.hidden
    return (channel for channel in ready if channel.number not in touched)


@dataclass
class Grown:
    """A backlog since it was last empty: bytes, and in how many turns it has grown."""

    begin: Location
    now: int = 0
    peak: int = 0
    added: int = 0
    received: int = 0
    turns: int = 0
    queued: int = 0

    def becomes(self, backlog: int, queued: int) -> None:
        """So much waits when a turn is over, in so many entries of the queue."""
        self.added += max(0, backlog - self.now)
        self.received += max(0, self.now - backlog)
        # The bytes of a long queue are added up now and then, its entries always.
        self.turns += backlog > self.now or queued > self.queued
        self.peak = max(self.peak, backlog)
        self.now, self.queued = backlog, queued


class GrowingBacklog(Rule):
    """More is queued for a peer than it takes, turn after turn."""

    name = "growing-backlog"

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        self._open: dict[int, Grown] = {}
        # Of a class's channels that have closed with too much: how many, the worst.
        self._gone: dict[str, tuple[int, Grown]] = {}
        # Those that close in the last turn are closed because the program ends.
        self._closing: list[Grown] = []

    def look(self, seen: TurnFacts) -> None:
        self._closing.clear()
        became: dict[int, tuple[TracedChannel, dict[str, object]]] = {}
        for event in seen.events:
            channel = event.channel
            if event.kind != "state" or channel is None:
                continue
            number = channel.number
            if event.fields.get("is") == "closed":
                became.pop(number, None)
                self._close(channel, number in seen.behind)
            elif seen.status.get(number) != "closed":
                before = became.get(number, (channel, {}))[1]
                became[number] = channel, {**before, **event.fields}
        for channel, fields in became.values():
            if "backlog" in fields or "queued" in fields:
                self._becomes(seen, channel, fields)

    def lose(self) -> None:
        self._open.clear()
        self._closing.clear()

    def _becomes(
        self, seen: TurnFacts, channel: TracedChannel, fields: dict[str, object]
    ) -> None:
        grown = self._open.get(channel.number) or Grown(seen.place(channel))
        # Only what has changed is there.
        grown.becomes(
            _number(fields.get("backlog", grown.now)),
            _number(fields.get("queued", grown.queued)),
        )
        if grown.now:
            self._open[channel.number] = grown
        else:
            self._open.pop(channel.number, None)

    def _close(self, channel: TracedChannel, is_limited: bool) -> None:
        grown = self._open.pop(channel.number, None)
        if grown is None:
            return
        if grown.now >= self.limits.backlog_closed:
            if self._is_bad(grown):
                self._add(self._gone, channel.class_name, grown)
        elif not is_limited:
            self._closing.append(grown)

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        found = dict(self._gone)
        for grown in (*self._open.values(), *self._closing):
            if self._is_bad(grown, whole) and grown.begin.channel is not None:
                self._add(found, grown.begin.channel.class_name, grown)
        for kind, (count, worst) in found.items():
            yield Finding(
                self.name,
                Severity.LEAKS,
                worst.now,
                f"{readable(kind)}: what is queued for {many(count, 'peer')} only "
                f"grows, to {_size(worst.now)} at worst",
                count,
                worst.begin,
                "The peer reads too slowly, or not at all, and the queue has no limit: "
                "close it at a limit (ac_gather, ac_backlog_limit and handle_backlog), "
                "or stop what feeds it.",
                more=[
                    f"it grew in {worst.turns:,} turns from that one on; "
                    f"{_size(worst.added)} came, {_size(worst.received)} were taken"
                ],
            )

    def _add(self, to: dict[str, tuple[int, Grown]], kind: str, grown: Grown) -> None:
        count, worst = to.get(kind, (0, grown))
        to[kind] = count + 1, max(worst, grown, key=lambda each: each.now)

    def _is_bad(self, grown: Grown, whole: TraceFacts | None = None) -> bool:
        limits = self.limits
        is_long = grown.turns >= limits.backlog_turns
        return (
            (is_long or (whole is not None and self._is_most(grown, whole)))
            and grown.now >= limits.backlog
            and grown.now >= grown.peak * limits.backlog_left
            and grown.received <= grown.added * limits.backlog_taken
        )

    def _is_most(self, grown: Grown, whole: TraceFacts) -> bool:
        """Has it only grown, for a good part of a trace that may be short?"""
        least = max(self.limits.backlog_few, whole.turns * self.limits.backlog_part)
        return grown.turns >= least and not grown.received and not whole.lost_lines


class SlowReaders(Rule):
    """Peers had more queued than the program lets them have, and were given up."""

    name = "slow-reader"

    @dataclass
    class Group:
        first: Location
        where: str
        channels: set[int] = field(default_factory=set)
        closed: int = 0
        size: int = 0

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        self._groups: dict[str, SlowReaders.Group] = {}

    def look(self, seen: TurnFacts) -> None:
        if not seen.behind:
            return
        for made in seen.made:
            if made.call.name == "handle_backlog":
                self._reaches_it(seen, made.call)
        for event in seen.events:
            channel = event.channel
            if channel is not None and event.fields.get("is") == "closed":
                self._closes(channel, channel.number in seen.behind)

    def _reaches_it(self, seen: TurnFacts, call: Call) -> None:
        if call.channel is not None:
            place = seen.place(call.channel, call.line)
            group = self.Group(place, _where(call))
            group = self._groups.setdefault(call.channel.class_name, group)
            group.channels.add(call.channel.number)

    def _closes(self, channel: TracedChannel, is_behind: bool) -> None:
        if is_behind:
            group = self._groups[channel.class_name]
            group.closed += 1
            group.size += channel.backlog

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        for kind, group in self._groups.items():
            count = len(group.channels)
            lost = f": {group.closed:,} closed, {_size(group.size)} or more lost"
            yield Finding(
                self.name,
                Severity.LOST,
                group.size,
                f"{readable(kind)}: {many(count, 'peer')} read too slowly and came to "
                f"the limit of what may be queued{lost if group.closed else ''}",
                count,
                group.first,
                "The limit did what it is for. If these peers are to stay, say less to "
                "them, or let more be queued (ac_backlog_limit, --send-queue).",
                group.where,
            )


@dataclass
class Ghost:
    """A channel that is spoken to after it has closed."""

    first: Location
    where: str
    times: int = 0
    size: int = 0


class Ghosts(Rule):
    """A channel has closed, and somebody who still has it goes on speaking to it."""

    name = "ghosts"

    SPEAKS = ("push", "push_with_producer", "send", "close_when_done")

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        self._ghosts: dict[str, dict[int, Ghost]] = {}

    def look(self, seen: TurnFacts) -> None:
        for made in seen.made:
            if made.late and self._is_said(made):
                self._spoken_to(seen, made)
        for event in seen.events:
            if event.kind == "open" and event.channel is not None:
                # It has been opened again, and what was queued can be sent.
                self._ghosts.get(event.channel.class_name, {}).pop(
                    event.channel.number, None
                )

    def lose(self) -> None:
        # It may have been opened again.
        self._ghosts.clear()

    def _is_said(self, made: CallFacts) -> bool:
        channel = made.call.channel
        return made.call.name in self.SPEAKS and not any(
            each.channel is channel and each.name in self.SPEAKS
            for each in made.around()
        )

    def _spoken_to(self, seen: TurnFacts, made: CallFacts) -> None:
        channel = made.call.channel
        assert channel is not None
        ghosts = self._ghosts.setdefault(channel.class_name, {})
        if channel.number not in ghosts:
            speaker = _where(*made.around())
            place = seen.place(channel, made.call.line)
            ghosts[channel.number] = Ghost(place, speaker)
        ghosts[channel.number].times += 1
        ghosts[channel.number].size += made.call.size or 0

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        for kind, ghosts in self._ghosts.items():
            if ghosts:
                yield self._finding(kind, list(ghosts.values()))

    def _finding(self, kind: str, ghosts: list[Ghost]) -> Finding:
        size = sum(each.size for each in ghosts)
        times = sum(each.times for each in ghosts)
        worst = max(ghosts, key=lambda each: each.size)
        return Finding(
            self.name,
            Severity.LEAKS,
            size,
            f"{readable(kind)}: {many(len(ghosts), 'closed channel')} still spoken to, "
            f"{_times(times)}, {_size(size)} queued for nobody",
            times,
            worst.first,
            "Something still holds it, and what is queued for it is never freed: "
            "override handle_close, take the channel out of every list there, then "
            "close().",
            worst.where,
            [f"the worst one: {_times(worst.times)}, {_size(worst.size)}"],
        )


class HiddenErrors(Rule):
    """An exception went to handle_error, or to the log, and the program went on."""

    name = "hidden-error"

    @dataclass
    class Group:
        call: Call
        first: Location
        count: int = 0
        open: int = 0
        channels: set[int] = field(default_factory=set)

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        self._groups: dict[tuple[str, str], HiddenErrors.Group] = {}

    def look(self, seen: TurnFacts) -> None:
        for call, outer, _ in seen.made:
            # A handle_error may call the one that it overrides.
            again = outer is not None and outer.call.name == "handle_error"
            if self._is_swallowed(call) and not again:
                self._hidden(seen, call)

    def _is_swallowed(self, call: Call) -> bool:
        if call.error.startswith(MEANT):
            return False
        return call.name == "handle_error" or (
            call.name in ("timer", "soon") and bool(call.error)
        )

    def _hidden(self, seen: TurnFacts, call: Call) -> None:
        key = call.error.partition(":")[0], call.where
        place = seen.place(call.channel, call.line)
        group = self._groups.setdefault(key, self.Group(call, place))
        group.count += 1
        if call.channel is not None:
            group.channels.add(call.channel.number)
            group.open += seen.status.get(call.channel.number) != "closed"

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        for group in self._groups.values():
            handler = "handle_error" if group.channels else "the log"
            yield Finding(
                self.name,
                Severity.HIDDEN,
                group.count,
                f"{_error(group.call)}: {_times(group.count)}, swallowed by {handler}",
                group.count,
                group.first,
                "Mend what raises it, or catch it there; let handle_error write a "
                "traceback to the log and close the channel.",
                readable(group.call.where) or _where(group.call),
                list(self._more(group, whole)),
            )

    def _more(self, group: Group, whole: TraceFacts) -> Iterator[str]:
        if len(group.channels) > 1:
            yield f"{len(group.channels):,} channels had it"
        # What it is after a gap is not known.
        if group.open and not whole.lost_lines:
            yield f"the channel stayed open {_times(group.open)}"


class CostlyAsking(Rule):
    """readable() and writable() take longer than all that is done.

    A trace has what asking takes in a turn, not for each channel. So the channel is
    named if it was alone in its map, and its class if not.
    """

    name = "costly-asking"

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        self._open: dict[int, TracedChannel] = {}
        self._asked = self._channels = self._turns = self._work = 0
        # Turns in which each channel took too long; in which all of them did.
        self._each = self._all = 0
        self._worst = 0
        self._place = Location(0, 1, 0, None)
        self._there: Counter[str] = Counter()
        self._is_broken = False

    def look(self, seen: TurnFacts) -> None:
        if self._is_broken:
            return
        turn = seen.turn
        for event in seen.events:
            self._joins_or_leaves(event)
        if turn.channels:
            self._takes(seen)

    def lose(self) -> None:
        # From here on, nobody knows what is in the map.
        self._is_broken = True

    def _joins_or_leaves(self, event: Event) -> None:
        if event.channel is None:
            return
        if event.kind == "open":
            self._open[event.channel.number] = event.channel
        elif event.fields.get("is") == "closed":
            self._open.pop(event.channel.number, None)

    def _takes(self, seen: TurnFacts) -> None:
        limits, turn = self.limits, seen.turn
        if seen.interest_us > self._worst:
            alone = next(iter(self._open.values())) if len(self._open) == 1 else None
            self._worst, self._place = seen.interest_us, seen.place(alone)
            self._there = Counter(each.class_name for each in self._open.values())
        least = max(limits.asked_least_us, turn.channels * limits.asked_each_us)
        self._each += seen.interest_us >= least
        self._all += seen.interest_us >= limits.asked_us
        self._asked += seen.interest_us
        self._channels += turn.channels
        self._turns += 1
        self._work += sum(each.us for each in turn.entries if isinstance(each, Call))

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        limits, asked, turns = self.limits, self._asked, self._turns
        least = max(self._work, whole.us * limits.asked_part)
        if turns < limits.asked_turns or asked <= least:
            return
        each = asked / max(1, self._channels)
        often = max(1, turns * limits.asked_often)
        if self._each >= often:
            advice = (
                "They are called in every turn, for every channel: let them look at a "
                "flag, and do the work where that changes."
            )
        elif self._all >= often:
            advice = (
                "Most channels have nothing to do, and all are asked: the loop "
                "selectors asks those of compat's async_chat only when they announce."
            )
        else:
            return
        yield Finding(
            self.name,
            Severity.WASTE,
            asked,
            f"readable() and writable() cost {whole.part(asked)}; "
            f"all that was called, {duration(self._work)}",
            turns,
            self._place,
            advice,
            more=[
                f"{duration(asked // turns)} a turn, {each:.3g} µs for each channel "
                f"that was asked; {duration(self._worst)} in that turn",
                f"in the map then: {_kinds(self._there)}",
            ],
        )


class SelectsLimit(Rule):
    """select takes descriptors up to 1,023, and the next one ends the loop."""

    name = "selects-limit"

    def __init__(self, limits: Thresholds) -> None:
        super().__init__(limits)
        self._highest = -1
        self._place = Location(0, 1, 0, None)
        self._selects = False

    def look(self, seen: TurnFacts) -> None:
        self._selects = self._selects or seen.turn.loop == "select"
        for event in seen.events:
            fd = _number(event.fields.get("fd")) if event.kind == "open" else -1
            if fd > self._highest:
                self._highest, self._place = fd, seen.place(event.channel, event.line)

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        if self._selects and self._highest >= self.limits.select_fd:
            yield Finding(
                self.name,
                Severity.LEAKS,
                self._highest,
                f"descriptor {self._highest}: select ends at 1,023, and one beyond "
                "raises out of the loop",
                1,
                self._place,
                "Use the loop poll or selectors, which have no such limit, or accept "
                "fewer.",
            )


class CutShort(Rule):
    """The trace is full: what came later is not in it."""

    name = "full"

    def look(self, seen: TurnFacts) -> None:
        """Nothing: the reader knows."""

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        if whole.end_reason == "full":
            yield Finding(
                self.name,
                Severity.NOTE,
                1,
                f"the trace is full: it has the first {duration(whole.us)}, and the "
                "program went on",
                1,
                whole.last,
                "Let it be larger, or keep no payloads; what is wrong later is not "
                "found here.",
            )


class Gaps(Rule):
    """Lines are missing: what happened there is not known."""

    name = "gaps"

    def look(self, seen: TurnFacts) -> None:
        """Nothing: the reader knows."""

    def findings(self, whole: TraceFacts) -> Iterator[Finding]:
        if whole.lost_lines:
            yield Finding(
                self.name,
                Severity.NOTE,
                whole.lost_lines,
                f"{many(whole.lost_lines, 'line')} of the trace are missing in "
                f"{many(whole.gaps, 'place')}: its reader was too slow",
                whole.gaps,
                whole.last,
                "Write the trace to a regular file, or keep no payloads; what is wrong "
                "in the gaps is not found here.",
            )


# Words for people.


def _do(call: Call) -> str:
    code = call.code
    if code is None:
        kind, do = call.channel.class_name if call.channel else "", call.name
    else:
        kind, do = code.class_name or "", code.name
    return readable(f"{kind}.{do}" if kind else do)


def _error(call: Call) -> str:
    return readable(call.error) or "an exception"


def _where(*calls: Call) -> str:
    """Where the code of the first of them is that is known."""
    for call in calls:
        if call.code is not None:
            return f"{readable(call.code.file)}:{call.code.line}"
    return ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _size(size: int) -> str:
    for unit, least in (("MB", 10**6), ("kB", 10**3)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return many(size, "byte")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _kinds(kinds: Counter[str]) -> str:
    few = [f"{count:,} {readable(kind)}" for kind, count in kinds.most_common(5)]
    return ", ".join(few) or "nobody"


# Raised by those who want the loop to end.
MEANT = ("ExitNow", "KeyboardInterrupt", "SystemExit")

RULES: tuple[Callable[[Thresholds], Rule], ...] = (
    LeftTheLoop,
    SpinningListener,
    IgnoredEnd,
    IdleReader,
    BusyWriter,
    UrgentSpin,
    SlowCallbacks,
    Ghosts,
    GrowingBacklog,
    SlowReaders,
    SelectsLimit,
    HiddenErrors,
    CostlyAsking,
    CutShort,
    Gaps,
)
