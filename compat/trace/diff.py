"""Two traces of one scenario: the first call that differs.

Channels are matched by their class, and in that by the order in which they appeared:
the second ChatSession of the one is the second of the other. Each channel's own calls
are compared, in the order in which they began; which channel comes first is another
matter, for poll finishes with one before it turns to the next, and select reads from
all before it writes.

Rule 1: what loops may do differently is no difference. That is: how many turns it
takes, how long, and who waits for what; descriptors, addresses and ports, also inside
of what is said; how often a channel may write, how much of it goes at once, and when
what was gathered does (handle_write, send, "turn ends"); how often asyncore's own
handle_read has read, for what it found is in collect_incoming_data; when timers run,
and calls from other threads, though not what they do to channels; and that asyncore's
poll calls handle_close once more, when a channel has read its end and is hung up.
Rule 2: everything else is one: which method, how many bytes and which, the terminator,
what it raised. The same bytes cut otherwise are another conversation.
Rule 3: strictly, it is every call of a channel, in one order for all. It is right for
two runs of one loop, or for select and selectors, with peers that wait for each other.
Rule 4: what a trace that is cut short or full does not have is no difference, nor is
what stands behind a gap: there, nobody knows which call is which.
Rule 5: of what is the same, a few calls for each channel are kept.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from compat.trace.model import Call, Event, TracedChannel, Turn, walk
from compat.trace.render.formatting import readable
from compat.trace.render.messages import quoted_with_size

__all__ = ["CONTEXT", "ComparedCall", "TraceDifference", "first_difference"]

# Calls before the one that differs that are shown. What led there is seldom older.
CONTEXT = 3

# How often these are called is the kernel's to say, and the clock's.
UNEVEN = frozenset(("handle_write", "send", "recv", "turn ends", "timer", "soon"))

# A channel: its class, and which of that class it is, from 1 up.
Key: TypeAlias = tuple[str, int]

# Of what no channel is asked.
NOBODY: Key = ("", 0)


@dataclass
class ComparedCall:
    """A call, as far as it is compared.

    Attributes:
        key: whose it is: the channel's, or that of the call in which it was made.
        turn, thread, line: where it is in its trace.
        size: bytes that it was given, or has read; data: the first of them.
        to: how many were told, for an BroadcastGroup's push.
    """

    key: Key
    name: str
    turn: int
    thread: int
    line: int
    size: int | None
    data: bytes | None
    to: int | None
    error: str

    def __str__(self) -> str:
        said = readable(self.name)
        if self.size is not None and self.data is not None:
            said += f" {quoted_with_size(self.data, self.size)}"
        elif self.size is not None:
            said += f" {self.size:,} bytes"
        if self.to is not None:
            said += f" to {self.to}"
        return f"{said} raised {readable(self.error)}" if self.error else said


@dataclass
class TraceDifference:
    """The first call that differs.

    Attributes:
        what: "method", "bytes", "listeners" or "error"; "missing" if only b has no
            such call, "more" if only a has none; "channel", strictly, if the same is
            called of another channel.
        key: whose call it is; number: which of its calls, from 1 up.
        a, b: the call in each trace; None where there is none.
        before: the calls that were the same, the last one last: a's and b's.
    """

    kind: str
    key: Key
    number: int
    a: ComparedCall | None
    b: ComparedCall | None
    before: list[tuple[ComparedCall, ComparedCall]]

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{_name(self.key)}, call {self.number:,}: {_WHAT[self.kind]}"
        yield f"  a: {_at(self.a, self.key)}"
        yield f"  b: {_at(self.b, self.key)}"
        if not self.before:
            yield "it is the first call"
            return
        yield "the calls before it, the same in both:"
        for a, b in self.before:
            yield f"  {_turn(a)} in a, {_turn(b)} in b: {_called(a, self.key)}"


def first_difference(
    a: Iterable[Turn],
    b: Iterable[Turn],
    *,
    strict: bool = False,
    context: int = CONTEXT,
) -> TraceDifference | None:
    """The first call of *a* that is not in *b*, or is another one there.

    Args:
        a, b: as read_trace gives them. Both are walked through once, side by side.
        strict: every call counts, and the order between channels does, too.
        context: calls before it that are told of.

    Returns:
        None if there is none. The first is the first in *a*; of calls that only *b*
        has, the first in *b*.
    """
    comparison = _Comparison(strict, context)
    for ours, theirs in zip_longest(a, b):
        if ours is not None:
            comparison.a.take(ours)
        if theirs is not None:
            comparison.b.take(theirs)
        comparison.compare()
    return comparison.first()


class _Side:
    """One of the traces: what has been read and not been compared.

    Attributes:
        steps: by whose they are; strictly, all are nobody's.
        hosts, ports: of its channels' addresses, as text.
        whole: has it ended because the tracing did?
        is_torn: were lines lost? Then nothing more is taken.
    """

    def __init__(self, strict: bool) -> None:
        self.steps: dict[Key, deque[ComparedCall]] = {}
        self.hosts: set[str] = set()
        self.ports: set[str] = set()
        self.is_intact = False
        self.is_torn = False
        self._strict = strict
        self._keys: dict[int, Key] = {}
        self._kinds: Counter[str] = Counter()
        # Whose handle_close has been called in this turn.
        self._closed: set[Key] = set()

    def take(self, turn: Turn) -> None:
        """Another turn of it."""
        self.is_torn = self.is_torn or turn.has_gap
        if self.is_torn:
            return
        self._closed.clear()
        # Whose calls these are, the innermost last; None in a call that is passed over.
        keys: list[Key | None] = [NOBODY]
        for entry, begins in walk(turn.entries):
            key = keys[-1]
            if key is not None and entry.channel is not None:
                key = self._key(entry.channel)
            if isinstance(entry, Event):
                self._learn(entry)
            elif not begins:
                keys.pop()
            else:
                keys.append(None if key is None else self._take(turn, entry, key))

    def _take(self, turn: Turn, call: Call, key: Key) -> Key | None:
        """Note a call; give whose calls are inside of it."""
        if call.name == "handle_close" and not self._strict:
            if key in self._closed:
                return None
            self._closed.add(key)
        if self._counts(call, key):
            steps = self.steps.setdefault(NOBODY if self._strict else key, deque())
            steps.append(_step(turn, call, key))
        return key

    def _learn(self, event: Event) -> None:
        self.is_intact = self.is_intact or event.fields.get("why") == "closed"
        for end in ("local", "peer"):
            host, _, port = str(event.fields.get(end, "")).rpartition(":")
            self.hosts.add(host.strip("[]") if port.isdecimal() else host + port)
            self.ports.add(port)

    def _key(self, channel: TracedChannel) -> Key:
        if channel.number not in self._keys:
            self._kinds[channel.class_name] += 1
            self._keys[channel.number] = (
                channel.class_name,
                self._kinds[channel.class_name],
            )
        return self._keys[channel.number]

    def _counts(self, call: Call, key: Key) -> bool:
        if call.name in ("timer", "soon") or key == NOBODY:
            return False
        if self._strict:
            return True
        is_own = "f" not in call.fields and call.name == "handle_read"
        return call.name not in UNEVEN and not is_own


def _step(turn: Turn, call: Call, key: Key) -> ComparedCall:
    size = call.size if call.size is not None else call.received or None
    return ComparedCall(
        key,
        call.name,
        turn.number,
        turn.thread,
        call.line,
        size,
        call.data if size is not None else None,
        call.fields.get("to"),
        call.error,
    )


class _Comparison:
    """Two traces, side by side."""

    def __init__(self, strict: bool, context: int) -> None:
        self.a, self.b = _Side(strict), _Side(strict)
        self._context = context
        self._found: dict[Key, TraceDifference] = {}
        self._same: dict[Key, deque[tuple[ComparedCall, ComparedCall]]] = {}
        self._count: Counter[Key] = Counter()
        # Which port of b stands for which of a, and the other way round.
        self._ports: dict[str, str] = {}
        self._ports_back: dict[str, str] = {}

    def compare(self) -> None:
        """Compare what both have."""
        for key, ours in self.a.steps.items():
            theirs = self.b.steps.get(key, deque())
            while ours and theirs and key not in self._found:
                self._pair(key, ours.popleft(), theirs.popleft())
            if key in self._found:
                # What follows from a difference is another one.
                ours.clear()
                theirs.clear()
        for torn, other in ((self.a, self.b), (self.b, self.a)):
            for key, steps in other.steps.items() if torn.is_torn else ():
                if not torn.steps.get(key):
                    # Nothing comes that it could be compared with.
                    steps.clear()

    def first(self) -> TraceDifference | None:
        """What has been found, when both have ended."""
        for key in {**self.a.steps, **self.b.steps}:
            a, b = (
                next(iter(each.steps.get(key, ())), None) for each in (self.a, self.b)
            )
            if key in self._found:
                continue
            if a is not None and self.b.is_intact:
                self._differs(key, "missing", a, None)
            elif b is not None and self.a.is_intact:
                self._differs(key, "more", None, b)
        return _first(list(self._found.values()))

    def _pair(self, key: Key, a: ComparedCall, b: ComparedCall) -> None:
        what = self._difference(a, b)
        if what:
            self._differs(key, what, a, b)
            return
        self._count[key] += 1
        same = self._same.setdefault(key, deque(maxlen=self._context))
        same.append((a, b))

    def _differs(
        self, key: Key, what: str, a: ComparedCall | None, b: ComparedCall | None
    ) -> None:
        step = a or b
        assert step is not None
        before = list(self._same.get(key, ()))
        number = self._count[key] + 1
        self._found[key] = TraceDifference(what, step.key, number, a, b, before)

    def _difference(self, a: ComparedCall, b: ComparedCall) -> str:
        if a.key != b.key:
            return "channel"
        if a.name != b.name:
            return "method"
        if not self._are_same_bytes(a, b):
            return "bytes"
        if a.to != b.to:
            return "listeners"
        return "" if self._are_same(_plain(a.error), _plain(b.error)) else "error"

    def _are_same_bytes(self, a: ComparedCall, b: ComparedCall) -> bool:
        if a.data is None or b.data is None or a.size is None or b.size is None:
            # Without payloads, all there is to compare.
            return a.size == b.size
        if a.size == b.size and a.data == b.data:
            return True
        size = min(len(a.data), len(b.data))
        if size < min(a.size, b.size):
            # One is cut off, perhaps in the middle of a port.
            return self._begin_alike(a, b)
        return self._are_same(_text(a.data), _text(b.data))

    def _begin_alike(self, a: ComparedCall, b: ComparedCall) -> bool:
        ours, theirs = (
            re.split(r"\d+\Z", _text(each.data or b""))[0] for each in (a, b)
        )
        return self._are_same(ours, theirs) and a.size == b.size

    def _are_same(self, ours: str, theirs: str) -> bool:
        """The same but for addresses, and for ports that stand for each other."""
        if ours == theirs:
            return True
        ours, theirs = self._without(self.a, ours), self._without(self.b, theirs)
        pairs = list(zip_longest(_PORT.split(ours), _PORT.split(theirs), fillvalue=""))
        return all(p == q or self._stand_for_each_other(p, q) for p, q in pairs)

    def _without(self, side: _Side, text: str) -> str:
        for host in sorted(side.hosts, key=len, reverse=True):
            if len(host) > SHORTEST_HOST:
                text = text.replace(host, "<address>")
        return text

    def _stand_for_each_other(self, p: str, q: str) -> bool:
        if p not in self.a.ports or q not in self.b.ports:
            return False
        ours, theirs = self._ports_back.setdefault(q, p), self._ports.setdefault(p, q)
        return (ours, theirs) == (p, q)


def _first(found: list[TraceDifference]) -> TraceDifference | None:
    """The first in a; or one that only b has, if it comes before that one in b."""
    in_a = [(each.a.line, each) for each in found if each.a is not None]
    in_b = [(each.b.line, each) for each in found if each.b and each.a is None]
    first = min(in_a, key=lambda pair: pair[0], default=None)
    more = min(in_b, key=lambda pair: pair[0], default=None)
    if first is None or more is None:
        chosen = first or more
        return chosen and chosen[1]
    return more[1] if more[0] < _line_in_b(first[1]) else first[1]


def _line_in_b(difference: TraceDifference) -> int:
    if difference.b is not None:
        return difference.b.line
    return difference.before[-1][1].line if difference.before else 0


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _plain(error: str) -> str:
    """An error without addresses of memory, which no two runs have in common."""
    return re.sub(r"\b0x[0-9a-fA-F]+", "0x…", error)


def _at(step: ComparedCall | None, key: Key) -> str:
    if step is None:
        return "no call"
    return f"{_turn(step)}, line {step.line}: {_called(step, key)}"


def _turn(step: ComparedCall) -> str:
    thread = f" of thread {step.thread}" if step.thread > 1 else ""
    return f"turn {step.turn}{thread}"


def _called(step: ComparedCall, key: Key) -> str:
    """With whose call it is, if that is another one's."""
    return f"{step}" if step.key == key else f"{_name(step.key)}: {step}"


def _name(key: Key) -> str:
    return f"{readable(key[0])} {key[1]}"


_PORT = re.compile(r"(\d{2,5})")

# Characters of a host that may stand in what is said by accident.
SHORTEST_HOST = 3

_WHAT = {
    "method": "another method is called",
    "bytes": "other bytes",
    "listeners": "another number is told",
    "error": "another exception, or none",
    "missing": "it is not in b",
    "more": "it is only in b",
    "channel": "it is called of another channel",
}
