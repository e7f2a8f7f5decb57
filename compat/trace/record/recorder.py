"""What a loop does, made into lines: one Recorder for each thread, one Trace for all.

Rule 1: a program is traced as it runs: what it gets from its calls, and what they
raise, is what it would have got.
Rule 2: what cannot be seen is said in the trace, and stops nothing.
Rule 3: what is traced is kept alive by nobody here.
Rule 4: lines are written before a wait and after it, and when a call at depth 0 is over
and the last lines are a millisecond old: a program that hangs, or dies, leaves all but
its last millisecond, and says who was ready.
Rule 5: these lines are made for every call of a busy program. What is short here is
short for that reason.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from json.encoder import encode_basestring_ascii as quote
from time import perf_counter_ns as now
from types import CodeType, FunctionType
from typing import Any, TypeAlias

from compat.trace.record.channel_state import NEW, Seen, changes
from compat.trace.record.sink import Sink
from compat.trace.source import describe, place_of, short, sound, source_of

__all__ = ["Recorder", "Trace", "in_seconds", "number_of"]

# Nanoseconds that a line may wait to be written, while others are added to it; it does
# not while the loop waits.
LATEST = 1_000_000

# A call is a list, the quickest to be made and changed, of FIELDS: how its line begins,
# whose it is, from when to when, how deep; how many bytes it was given, the first of
# those that it was given, read or sent, how many it read and sent; what else there is;
# and while it lasts, its channel and which method it is. When it is over, these are
# added to one long list: to keep many small ones takes more time.
Call: TypeAlias = list[Any]
FIELDS = 12
END, DEPTH, DATA, TAKEN, GIVEN, REST, CHANNEL, METHOD = 3, 4, 6, 7, 8, 9, 10, 11

# Behind a line that is one already.
NO_CALL = (None,) * (FIELDS - 1)

# What a thread is in while nothing is called.
OUTSIDE = ("", "", 0, 0, -1, None, None, 0, 0, "", None, "")

# No system has as many descriptors.
MANY = 1 << 31


class Recorder:
    """The lines of one thread, and where it is."""

    __slots__ = (
        "__weakref__",
        "_due",
        "_trace",
        "_writing",
        "begun",
        "call",
        "entries",
        "known_lists",
        "polled",
        "shortened",
        "touched",
        "turn",
        "waiting_since",
        "whose",
    )

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._writing = False
        thread = next(trace.threads)
        trace.recorders[thread] = weakref.ref(self)
        # What ends every event.
        self.whose = "}\n" if thread == 1 else f',"th":{thread}}}\n'
        # Calls that are over, and lines: FIELDS for each.
        self.entries: list[Any] = []
        # When they are to be written.
        self._due = 0
        # The one that it is in.
        self.call: Call = list(OUTSIDE)
        # Whose state may have changed since the last look.
        self.touched: dict[int, Seen] = {}
        self.turn = 0
        # The times at which the present turn and its wait have begun.
        self.begun = self.waiting_since = 0
        # Channels polled in this turn, and the reason for a wait shorter than the
        # program's timeout.
        self.polled = 0
        self.shortened = ""
        # The lists that select() was given last, and who was known then.
        self.known_lists: Any = None

    def event(self, what: str, rest: str) -> None:
        """Write a line about this moment."""
        depth = f',"d":{self.depth}' if self.depth else ""
        at = (now() - self._trace.start) // 1000
        line = f'{{"e":"{what}","t":{at}{depth}{rest}{self.whose}'
        self.entries += (line, *NO_CALL)

    @property
    def depth(self) -> int:
        """How many calls it is in."""
        return int(self.call[DEPTH]) + 1

    def __del__(self) -> None:
        # Its thread is over.
        self.flush()

    def enter(
        self,
        whose: Any,
        head: str,
        mark: str = "",
        size: int | None = None,
        data: bytes | None = None,
        rest: str = "",
    ) -> Call:
        """Be in a call that is no channel's.

        Whoever asks for it says itself that it is in the outer one again, first of all:
        Ctrl+C may come as any function begins.
        """
        depth = self.call[DEPTH] + 1
        call = [head, mark, now(), 0, depth, size, data, 0, 0, rest, whose, ""]
        self.call = call
        return call

    def leave(self, call: Call, failure: str = "") -> None:
        """That call is over."""
        call[END] = end = now()
        call[REST] += failure
        call[CHANNEL] = None
        self.entries += call
        if not call[DEPTH]:
            self.settle(end)

    def settle(self, at: int = 0) -> None:
        """Nothing is called any more: say what became of whom, and write it.

        Args:
            at: the time, if it was just looked at.
        """
        if self.touched:
            # A look may call the program, and that its channels again.
            touched, self.touched = self.touched, {}
            for seen in touched.values():
                self._look(seen)
        if (at or now()) > self._due:
            self.flush()
        # For asyncore's own loop, which does not report when a turn begins.
        self.begun = now()

    def flush(self) -> None:
        """Write what has been recorded."""
        if self._writing:
            # A signal's handler, or a __del__, has called a channel in the middle.
            return
        self._writing = True
        try:
            # The list stays the same: somebody may be about to add to it.
            entries = self.entries[:]
            del self.entries[: len(entries)]
            if entries:
                self._trace.write("".join(self._formatted(entries)).encode())
            self._due = now() + LATEST
        finally:
            self._writing = False

    def _formatted(self, entries: list[Any]) -> list[str]:
        start, whose = self._trace.start, self.whose
        # The same goes to many channels, and through many calls.
        texts: dict[bytes | None, str] = {None: ""}
        lines: list[str] = []
        fields = iter(entries)
        for head, mark, began, end, depth, size, data, taken, given, rest, _, _ in zip(
            *[fields] * FIELDS, strict=True
        ):
            if mark is None:
                lines.append(head)
                continue
            text = texts.get(data)
            if text is None:
                told = quote(data.decode("utf-8", "surrogateescape"))
                text = texts[data] = f',"data":{told}'
            if size is not None:
                text = f',"n":{size}{text}'
            if taken:
                text = f',"in":{taken}{text}'
            if given:
                text = f',"out":{given}{text}'
            lines.append(
                f'{head}{mark},"t":{(began - start) // 1000}'
                f',"us":{(end - began) // 1000}{_DEPTHS[depth]}{text}{rest}{whose}'
            )
        return lines

    def wait(
        self,
        by: str,
        timeout: Any,
        channels: int,
        interests: Iterable[Any] = (),
        unit: int = 1,
    ) -> None:
        """Begin a wait.

        Args:
            unit: so many of what *timeout* is are a second.
        """
        self.turn += 1
        for seen, wanted in interests:
            self.want(seen, wanted)
        began = now()
        asked = (began - self.begun) // 1000 if self.begun else 0
        self.event(
            "turn",
            f',"n":{self.turn},"by":"{by}","timeout":{in_seconds(timeout, unit)}'
            f',"channels":{channels},"asked":{asked}',
        )
        self.settle()
        self.flush()
        self.waiting_since = now()

    def woke(self, ready: Iterable[list[int]], woken: bool) -> None:
        """End a wait.

        Args:
            ready: the channels to read, to write, and with urgent data.
        """
        read, write, urgent = ready
        if read or write or urgent:
            why = "ready"
        elif woken or self.shortened == "callback":
            why = "wake-up"
        else:
            why = self.shortened or "timeout"
        rest = f',"why":"{why}","waited":{(now() - self.waiting_since) // 1000}'
        for name, numbers in (("read", read), ("write", write), ("urgent", urgent)):
            if numbers:
                rest += f',"{name}":[{",".join(map(str, numbers))}]'
        self.event("woke", rest)
        # What is called from here on is not a base class's, asked by the handler that
        # turns this loop.
        self.call[CHANNEL] = None
        self.flush()
        self.begin_turn()

    def begin_turn(self, shortened: str = "") -> None:
        """Begin to poll the channels for the next turn."""
        self.begun, self.polled, self.shortened = now(), 0, shortened

    def want(self, seen: Seen, wanted: tuple[bool, bool]) -> None:
        """Write what a channel wants, if that is new."""
        if seen.interest != wanted:
            seen.interest = wanted
            reads, writes = ("true" if each else "false" for each in wanted)
            self.event("interest", f',"ch":{seen.number},"r":{reads},"w":{writes}')

    def _look(self, seen: Seen) -> None:
        channel = seen.channel()
        if channel is None:
            # Closing it may have let go of the last one.
            is_news = seen.last and seen.last[0] != "closed"
            fields = ',"is":"closed"' if is_news else ""
        else:
            try:
                fields = changes(seen, channel)
            except Exception as error:
                # A program's own attribute, which would not be looked at.
                fields = f',"unseen":{quote(self._trace.describe(error))}'
        if fields:
            self.event("state", f',"ch":{seen.number}{fields}')


class _Here(threading.local):
    def __init__(self, trace: Trace) -> None:
        self.recorder = Recorder(trace)


class Trace:
    """One recording: who has which number, and where the lines go.

    Args:
        sink: takes the lines.
        payload: bytes that are kept of what is read, said or sent; None for none.
    """

    def __init__(self, sink: Sink, payload: int | None) -> None:
        self.start = now()
        self.payload = payload
        self.threads = count(1)
        # Those of threads that are over are gone.
        self.recorders: dict[int, Callable[[], Recorder | None]] = {}
        self.here = _Here(self)
        # Who was last seen under which descriptor.
        self.by_fd: dict[int, Seen] = {}
        # Counts whenever that changes.
        self.version = 0
        self._sink = sink
        self._numbers = count(1)
        # By id(). Who is gone has been forgotten before its id is given out again.
        self.known: dict[int, Seen] = {}
        self._codes: dict[Any, tuple[int, CodeType | None]] = {}
        self._code_numbers = count(1)

    def write(self, block: bytes) -> None:
        self._sink.write(block, self.now())

    def flush(self) -> None:
        """Write what every thread has recorded."""
        for find in tuple(self.recorders.values()):
            recorder = find()
            if recorder is not None:
                recorder.flush()

    def now(self) -> int:
        """Microseconds since the trace began."""
        return (now() - self.start) // 1000

    def describe(self, error: BaseException) -> str:
        """An exception in a line. It may repeat what a trace without payloads hides."""
        return describe(error, spoken=bool(self.payload))

    def failure(self, error: BaseException | None) -> str:
        """Return the fields of an exception."""
        if error is None:
            return ""
        try:
            place = place_of(error)
            where = f',"where":{quote(place)}' if place else ""
            return f',"error":{quote(self.describe(error))}{where}'
        except RecursionError:
            # The stack has no room for a description.
            return ',"error":"RecursionError"'

    def given(self, data: Any) -> tuple[int | None, bytes | None]:
        """Return the size of data, and its first bytes as far as they are recorded."""
        payload = self.payload
        if type(data) is bytes and payload is not None:
            return len(data), data[:payload]
        if not isinstance(data, bytes | bytearray | memoryview | str):
            # An error of the program, which gets an exception for it.
            return None, None
        try:
            size = data.nbytes if isinstance(data, memoryview) else len(data)
            if payload is None:
                return size, None
            if isinstance(data, str):
                return size, data[:payload].encode("utf-8", "surrogatepass")[:payload]
            return size, bytes(data[:payload])[:payload]
        except Exception:
            # A released view, or a class with its own length: its use raises the error.
            return None, None

    def seen(self, channel: Any) -> Seen:
        """The number of a channel; it gets one if it has none."""
        return self.known.get(id(channel)) or self._meet(channel)

    def joined(self, channel: Any, key: Any) -> Seen:
        """Write that a channel is in its map now."""
        seen, fd = self.seen(channel), number_of(key)
        self.by_fd[fd] = seen
        self.version += 1
        seen.fd, seen.calm, seen.interest = fd, None, (False, False)
        # It may be gone before it is looked at.
        seen.last = seen.last or NEW
        kind = type(channel)
        r = self.here.recorder
        number = key if type(key) is int and 0 <= key < MANY else -1
        r.event(
            "open",
            f',"ch":{seen.number},"fd":{number},"class":{quote(kind.__name__)}'
            f',"module":{quote(sound(str(kind.__module__)))}',
        )
        r.touched[seen.number] = seen
        return seen

    def code(self, do: str, function: Any, kind: str | None, r: Recorder) -> int:
        """The number of a piece of code; its line is written, if it has none."""
        plain = function.__code__ if isinstance(function, FunctionType) else None
        key: Any = (kind, do) if plain is None else id(plain)
        if key not in self._codes:
            # The code is kept, for its id; the function, and what it knows, is not.
            number, _ = self._codes[key] = next(self._code_numbers), plain
            file, line, source = "?", 0, list[str]()
            if plain is not None:
                file, line = plain.co_filename, plain.co_firstlineno
                source = source_of(function)
            in_class = "null" if kind is None else quote(sound(kind))
            r.event(
                "code",
                f',"f":{number},"do":{quote(sound(do))},"class":{in_class}'
                f',"file":{quote(short(file))},"line":{line}'
                f',"source":[{",".join(map(quote, source))}]',
            )
            # Another thread may be about to call it.
            r.flush()
        return self._codes[key][0]

    def _meet(self, channel: Any) -> Seen:
        try:
            reference: Callable[[], Any] = weakref.ref(
                channel, partial(self._forget, id(channel))
            )
        except TypeError:
            # It can only be held.
            def reference() -> Any:
                return channel

        # Two threads may meet it at once.
        return self.known.setdefault(id(channel), Seen(next(self._numbers), reference))

    def _forget(self, key: int, gone: Any) -> None:
        found = self.known.get(key)
        if found is not None and found.channel is gone:
            self.known.pop(key, None)


def number_of(key: Any) -> int:
    """What a key of a map is known by here, where it is not kept alive."""
    return key if type(key) is int else id(key)


def in_seconds(given: Any, unit: int = 1) -> str:
    """What was given as a number of seconds; null if it is none, or has no end."""
    try:
        seconds = float(given) / unit
    except Exception:
        # None, or a mistake, which whoever takes it will tell of.
        return "null"
    return f"{seconds:.6g}" if math.isfinite(seconds) else "null"


class _Depths(dict[int, str]):
    """How deep a call is, as it stands in its line."""

    def __missing__(self, depth: int) -> str:
        text = self[depth] = f',"d":{depth}' if depth else ""
        return text


_DEPTHS = _Depths()
