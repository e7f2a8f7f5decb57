"""Compare two traces of one scenario: the first call that differs.

Channels match by their class and their order in it: the second ChatSession of one trace
is the second of the other. The calls of each channel are compared in the order of their
starts. The order between channels is not, because poll serves one channel after the
other, and select reads from all before it writes.

Rule 1: loops may differ in these: the number and duration of turns; the ready channels;
descriptors, addresses and ports, in payloads too; the number and size of writes, and
the time of a flush (handle_write, send, "turn ends"); the number of reads in asyncore's
own handle_read, because collect_incoming_data has the data; the time of timers and of
calls from other threads, but not their effects on channels; and a second handle_close,
which asyncore's poll makes when a channel is at its end and is hung up.
Rule 2: everything else is a difference: the method, the number of bytes and the bytes,
the terminator, the exception. The same bytes in other pieces differ.
Rule 3: strictly, every call counts, in one order for all channels. This suits two runs
of one loop, or select and selectors, if each peer waits for the other.
Rule 4: calls that are missing in an unfinished or full trace are not differences. Calls
after a gap are not compared.
Rule 5: of equal calls, only a few for each channel are kept.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from compat.trace.model import Call, Event, TracedChannel, Turn, walk
from compat.trace.render.formatting import readable
from compat.trace.render.messages import quoted_with_size

__all__ = ["CONTEXT", "ComparedCall", "TraceDifference", "first_difference"]

# Equal calls to show before a difference. Its cause is seldom earlier.
CONTEXT = 3

# The kernel and the clock determine how often these are called.
UNEVEN = ("handle_write", "send", "recv", "turn ends", "timer", "soon")

# A channel: its class, and its number in that class, from 1 up.
Key: TypeAlias = tuple[str, int]

# The key of calls without a channel; strictly, of all calls.
NO_CHANNEL: Key = ("", 0)


@dataclass
class ComparedCall:
    """The compared parts of a call.

    Attributes:
        key: its channel, or that of its caller.
        turn, thread, line: its place in the trace.
        size: bytes of its argument, or bytes received; data: the first of them.
        to: the number of receivers of a broadcast.
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
        text = readable(self.name)
        if self.size is not None and self.data is not None:
            text += f" {quoted_with_size(self.data, self.size)}"
        elif self.size is not None:
            text += f" {self.size:,} bytes"
        if self.to is not None:
            text += f" to {self.to}"
        return f"{text} raised {readable(self.error)}" if self.error else text

    def text(self, key: Key) -> str:
        """Return the call, with its channel unless that is *key*."""
        return f"{self}" if self.key == key else f"{_name(self.key)}: {self}"

    @property
    def place(self) -> str:
        """The turn."""
        thread = f" of thread {self.thread}" if self.thread > 1 else ""
        return f"turn {self.turn}{thread}"


@dataclass
class TraceDifference:
    """The first call that differs.

    Attributes:
        kind: "method", "bytes", "listeners" or "error"; "missing" if only a has the
            call, "more" if only b has it; strictly also "channel", for the same call of
            another channel.
        key: the channel; number: the number of its call, from 1 up.
        a, b: the call in each trace; None if it is missing.
        before: equal calls before it, as pairs of a and b, the last one last.
    """

    kind: str
    key: Key
    number: int
    a: ComparedCall | None
    b: ComparedCall | None
    before: list[tuple[ComparedCall, ComparedCall]]

    def lines(self) -> Iterator[str]:
        """Yield the difference as text."""
        yield f"{_name(self.key)}, call {self.number:,}: {_KINDS[self.kind]}"
        for trace, call in (("a", self.a), ("b", self.b)):
            text = "no call"
            if call is not None:
                text = f"{call.place}, line {call.line}: {call.text(self.key)}"
            yield f"  {trace}: {text}"
        if not self.before:
            yield "it is the first call"
            return
        yield "equal calls before it:"
        for a, b in self.before:
            yield f"  {a.place} in a, {b.place} in b: {a.text(self.key)}"


def first_difference(
    a: Iterable[Turn],
    b: Iterable[Turn],
    *,
    strict: bool = False,
    context: int = CONTEXT,
) -> TraceDifference | None:
    """Return the first call of *a* that is missing or different in *b*.

    Args:
        a, b: turns, as read_trace yields them. Both are read once, in parallel.
        strict: compare every call, and the order between channels.
        context: the largest number of equal calls to report.

    Returns:
        None if the traces are equal. A call that only *b* has is the first difference
        if it comes first in *b*.
    """
    comparison = _Comparison(strict, context)
    for turn_a, turn_b in zip_longest(a, b):
        if turn_a is not None:
            comparison.a.add(turn_a)
        if turn_b is not None:
            comparison.b.add(turn_b)
        comparison.compare()
    return comparison.first()


class _Side:
    """One trace: the calls that were read and not compared yet.

    Attributes:
        calls: by channel; strictly, all are under NO_CHANNEL.
        hosts, ports: the parts of its channels' addresses.
        is_complete: whether the trace ended because tracing ended.
        has_gap: whether lines were lost. The rest is then ignored.
    """

    def __init__(self, strict: bool) -> None:
        self.calls: dict[Key, deque[ComparedCall]] = defaultdict(deque)
        self.hosts: set[str] = set()
        self.ports: set[str] = set()
        self.is_complete = False
        self.has_gap = False
        self._strict = strict
        self._keys: dict[int, Key] = {}
        self._counts: Counter[str] = Counter()
        # Channels whose handle_close was called in this turn.
        self._closed: set[Key] = set()

    def add(self, turn: Turn) -> None:
        """Add the calls of the next turn."""
        self.has_gap = self.has_gap or turn.has_gap
        if self.has_gap:
            return
        self._closed.clear()
        # The channels of the open calls, the innermost last; None in an ignored call.
        keys: list[Key | None] = [NO_CHANNEL]
        for entry, begins in walk(turn.entries):
            key = keys[-1]
            if key is not None and entry.channel is not None:
                key = self._key(entry.channel)
            if isinstance(entry, Event):
                self._learn(entry)
            elif not begins:
                keys.pop()
            elif key is None or self._is_repeated(entry, key):
                keys.append(None)
            else:
                keys.append(key)
                if self._counts_as_call(entry, key):
                    call = _compared(turn, entry, key)
                    self.calls[NO_CHANNEL if self._strict else key].append(call)

    def _is_repeated(self, call: Call, key: Key) -> bool:
        if call.name != "handle_close" or self._strict:
            return False
        is_repeated = key in self._closed
        self._closed.add(key)
        return is_repeated

    def _learn(self, event: Event) -> None:
        self.is_complete = self.is_complete or event.fields.get("why") == "closed"
        for end in ("local", "peer"):
            host, _, port = str(event.fields.get(end, "")).rpartition(":")
            self.hosts.add(host.strip("[]") if port.isdecimal() else host + port)
            self.ports.add(port)

    def _key(self, channel: TracedChannel) -> Key:
        if channel.number not in self._keys:
            name = channel.class_name
            self._counts[name] += 1
            self._keys[channel.number] = name, self._counts[name]
        return self._keys[channel.number]

    def _counts_as_call(self, call: Call, key: Key) -> bool:
        if call.name in ("timer", "soon") or key == NO_CHANNEL:
            return False
        is_own = "f" not in call.fields and call.name == "handle_read"
        return self._strict or not (call.name in UNEVEN or is_own)


def _compared(turn: Turn, call: Call, key: Key) -> ComparedCall:
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
    """Compares two traces in parallel."""

    def __init__(self, strict: bool, context: int) -> None:
        self.a, self.b = _Side(strict), _Side(strict)
        self._found: dict[Key, TraceDifference] = {}
        self._equal: dict[Key, deque[tuple[ComparedCall, ComparedCall]]] = defaultdict(
            lambda: deque(maxlen=context)
        )
        self._count: Counter[Key] = Counter()
        # Pairs of ports that stand for each other, in both directions.
        self._b_ports: dict[str, str] = {}
        self._a_ports: dict[str, str] = {}

    def compare(self) -> None:
        """Compare the calls that both traces have."""
        for key, in_a in self.a.calls.items():
            in_b = self.b.calls[key]
            while in_a and in_b and key not in self._found:
                self._compare(key, in_a.popleft(), in_b.popleft())
            if key in self._found:
                # Further differences may be consequences.
                in_a.clear()
                in_b.clear()
        for side, other in ((self.a, self.b), (self.b, self.a)):
            for key, calls in other.calls.items() if side.has_gap else ():
                if not side.calls.get(key):
                    # The calls to compare them with are not in the trace.
                    calls.clear()

    def first(self) -> TraceDifference | None:
        """Return the first difference, after the end of both traces."""
        for key in {**self.a.calls, **self.b.calls}:
            a, b = (next(iter(side.calls[key]), None) for side in (self.a, self.b))
            if key in self._found:
                continue
            if a is not None and self.b.is_complete:
                self._add(key, "missing", a, None)
            elif b is not None and self.a.is_complete:
                self._add(key, "more", None, b)
        found = self._found.values()
        in_a = [(each.a.line, each) for each in found if each.a is not None]
        in_b = [(each.b.line, each) for each in found if each.b and each.a is None]
        _, first = min(in_a, key=lambda pair: pair[0], default=(0, None))
        line_b, more = min(in_b, key=lambda pair: pair[0], default=(0, None))
        if first is None or more is None:
            return first or more
        return more if line_b < _line_in_b(first) else first

    def _compare(self, key: Key, a: ComparedCall, b: ComparedCall) -> None:
        kind = self._difference(a, b)
        if kind:
            self._add(key, kind, a, b)
            return
        self._count[key] += 1
        self._equal[key].append((a, b))

    def _add(
        self, key: Key, kind: str, a: ComparedCall | None, b: ComparedCall | None
    ) -> None:
        call = a or b
        assert call is not None
        number, before = self._count[key] + 1, list(self._equal[key])
        self._found[key] = TraceDifference(kind, call.key, number, a, b, before)

    def _difference(self, a: ComparedCall, b: ComparedCall) -> str:
        """Return the kind of the difference; "" if there is none."""
        if a.key != b.key:
            return "channel"
        if a.name != b.name:
            return "method"
        if not self._have_same_bytes(a, b):
            return "bytes"
        if a.to != b.to:
            return "listeners"
        return "" if self._are_same(_plain(a.error), _plain(b.error)) else "error"

    def _have_same_bytes(self, a: ComparedCall, b: ComparedCall) -> bool:
        if a.data is None or b.data is None or a.size is None or b.size is None:
            # Without payloads, only sizes can be compared.
            return a.size == b.size
        if a.size == b.size and a.data == b.data:
            return True
        text_a, text_b = _text(a.data), _text(b.data)
        if min(len(a.data), len(b.data)) < min(a.size, b.size):
            # A payload was cut, perhaps in the middle of a port.
            text_a, text_b = (re.split(r"\d+\Z", each)[0] for each in (text_a, text_b))
            return self._are_same(text_a, text_b) and a.size == b.size
        return self._are_same(text_a, text_b)

    def _are_same(self, text_a: str, text_b: str) -> bool:
        """Return whether texts are equal, apart from addresses and ports."""
        if text_a == text_b:
            return True
        parts_a = _PORT.split(_without_hosts(self.a, text_a))
        parts_b = _PORT.split(_without_hosts(self.b, text_b))
        pairs = zip_longest(parts_a, parts_b, fillvalue="")
        return all(p == q or self._are_same_port(p, q) for p, q in pairs)

    def _are_same_port(self, p: str, q: str) -> bool:
        if p not in self.a.ports or q not in self.b.ports:
            return False
        return (self._a_ports.setdefault(q, p), self._b_ports.setdefault(p, q)) == (
            p,
            q,
        )


def _line_in_b(difference: TraceDifference) -> int:
    if difference.b is not None:
        return difference.b.line
    return difference.before[-1][1].line if difference.before else 0


def _without_hosts(side: _Side, text: str) -> str:
    for host in sorted(side.hosts, key=len, reverse=True):
        if len(host) > SHORTEST_HOST:
            text = text.replace(host, "<address>")
    return text


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _plain(error: str) -> str:
    """Return an error without memory addresses, which differ in every run."""
    return re.sub(r"\b0x[0-9a-fA-F]+", "0x…", error)


def _name(key: Key) -> str:
    return f"{readable(key[0])} {key[1]}"


_PORT = re.compile(r"(\d{2,5})")

# Characters of a host; shorter ones occur in payloads by accident.
SHORTEST_HOST = 3

_KINDS = {
    "method": "another method is called",
    "bytes": "other bytes",
    "listeners": "another number of receivers",
    "error": "another exception, or none",
    "missing": "it is not in b",
    "more": "it is only in b",
    "channel": "it is a call of another channel",
}
