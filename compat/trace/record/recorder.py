"""Events as lines: one Recorder for each thread, one Trace for all.

Rule 1: a traced program gets the results and exceptions that it would get untraced.
Rule 2: an event that cannot be recorded is noted in the trace, and stops nothing.
Rule 3: nothing here keeps an object of the program alive.
Rule 4: lines are written before and after each wait, and at the end of an outermost
call if the last write is a millisecond ago. A program that hangs or dies leaves all
lines but those of its last millisecond.
Rule 5: a busy program makes a line for each of its calls, so this code is optimised for
speed. Each line is one list of ``FIELDS`` entries, the fastest object to create and
change. Finished calls are appended to one long list, which is faster than many lists.
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

from compat.trace.record.channel_state import NEW, TracedChannel, changes
from compat.trace.record.sink import Sink
from compat.trace.source import describe, place_of, short, sound, source_of

__all__ = ["Recorder", "Trace", "in_seconds", "number_of"]

# Nanoseconds after which the end of an outermost call writes all lines.
MAX_DELAY = 1_000_000

# A call: the start of its line; the channel's mark; begin and end in nanoseconds; its
# depth; size of its data, or None; the first bytes given, received or sent; bytes
# received; bytes sent; further fields; and until its end, its channel and its method.
Call: TypeAlias = list[Any]
FIELDS = 12
END, DEPTH, DATA, TAKEN, GIVEN, REST, CHANNEL, METHOD = 3, 4, 6, 7, 8, 9, 10, 11

# Behind a finished line.
NO_CALL = (None,) * (FIELDS - 1)

# The current call of a thread outside of all calls.
OUTSIDE = ("", "", 0, 0, -1, None, None, 0, 0, "", None, "")

# Larger than any system's descriptors.
MAX_FD = 1 << 31


class Recorder:
    """The lines of one thread.

    Attributes:
        call: the current call.
        entries: finished calls and lines, ``FIELDS`` entries each.
        touched: channels whose state may have changed, by number.
        polled: the number of channels polled in this turn.
        known_lists: the arguments of the last select(), and the version of the records.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._writing = False
        thread = next(trace.threads)
        trace.recorders[thread] = weakref.ref(self)
        # The end of every line.
        self._end = "}\n" if thread == 1 else f',"th":{thread}}}\n'
        self.entries: list[Any] = []
        # The time at which the next outermost call writes the lines.
        self._due = 0
        self.call: Call = list(OUTSIDE)
        self.touched: dict[int, TracedChannel] = {}
        self.known_lists: Any = None
        self._turn = self.polled = 0
        # The times at which the turn and its wait have begun.
        self._begun = self._waiting_since = 0
        # The reason for a wait shorter than the program's timeout.
        self._shortened_by = ""

    def __del__(self) -> None:
        # The thread has ended.
        self.flush()

    @property
    def depth(self) -> int:
        """The number of calls around the present moment."""
        return int(self.call[DEPTH]) + 1

    def event(self, what: str, rest: str) -> None:
        """Add a line about the present moment."""
        depth = f',"d":{self.depth}' if self.depth else ""
        at = (now() - self._trace.start) // 1000
        line = f'{{"e":"{what}","t":{at}{depth}{rest}{self._end}'
        self.entries += (line, *NO_CALL)

    def settle(self, at: int = 0) -> None:
        """Record the changed states at the end of an outermost call; write if due.

        Args:
            at: the present time, if the caller has just read it.
        """
        if self.touched:
            # Reading a state may call the program, which may call its channels.
            touched, self.touched = self.touched, {}
            for record in touched.values():
                self._record_state(record)
        if (at or now()) > self._due:
            self.flush()
        # For asyncore's own loop, which does not report when a turn begins.
        self._begun = now()

    def flush(self) -> None:
        """Write all lines."""
        if self._writing:
            # A signal handler or a __del__ has called a channel meanwhile.
            return
        self._writing = True
        try:
            # The list stays the same, because a caller may be about to append to it.
            entries = self.entries[:]
            del self.entries[: len(entries)]
            if entries:
                self._trace.write("".join(self._formatted(entries)).encode())
            self._due = now() + MAX_DELAY
        finally:
            self._writing = False

    def _formatted(self, entries: list[Any]) -> list[str]:
        start, line_end = self._trace.start, self._end
        # The same data goes to many channels, and through many calls.
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
                quoted = quote(data.decode("utf-8", "surrogateescape"))
                text = texts[data] = f',"data":{quoted}'
            if size is not None:
                text = f',"n":{size}{text}'
            if taken:
                text = f',"in":{taken}{text}'
            if given:
                text = f',"out":{given}{text}'
            lines.append(
                f'{head}{mark},"t":{(began - start) // 1000}'
                f',"us":{(end - began) // 1000}{_DEPTHS[depth]}{text}{rest}{line_end}'
            )
        return lines

    # Turns.

    def begin_turn(self, shortened_by: str = "") -> None:
        """Begin to poll the channels for the next turn."""
        self._begun, self.polled, self._shortened_by = now(), 0, shortened_by

    def begin_wait(
        self,
        loop: str,
        timeout: Any,
        channels: int,
        interests: Iterable[Any] = (),
        unit: int = 1,
    ) -> None:
        """Begin a wait.

        Args:
            unit: the number of *timeout*'s units in a second.
        """
        self._turn += 1
        for record, wanted in interests:
            self.want(record, wanted)
        asked = (now() - self._begun) // 1000 if self._begun else 0
        self.event(
            "turn",
            f',"n":{self._turn},"by":"{loop}","timeout":{in_seconds(timeout, unit)}'
            f',"channels":{channels},"asked":{asked}',
        )
        self.settle()
        self.flush()
        self._waiting_since = now()

    def end_wait(self, ready: Iterable[list[int]], woken: bool) -> None:
        """End a wait.

        Args:
            ready: the numbers of the channels to read, to write, and with urgent data.
        """
        read, write, urgent = ready
        if read or write or urgent:
            why = "ready"
        elif woken or self._shortened_by == "callback":
            why = "wake-up"
        else:
            why = self._shortened_by or "timeout"
        rest = f',"why":"{why}","waited":{(now() - self._waiting_since) // 1000}'
        for name, numbers in (("read", read), ("write", write), ("urgent", urgent)):
            if numbers:
                rest += f',"{name}":[{",".join(map(str, numbers))}]'
        self.event("woke", rest)
        # If a handler runs this loop, a call of its method is not one of a base class.
        self.call[CHANNEL] = None
        self.flush()
        self.begin_turn()

    def want(self, record: TracedChannel, wanted: tuple[bool, bool]) -> None:
        """Record a channel's interest if it has changed."""
        if record.interest != wanted:
            record.interest = wanted
            reads, writes = ("true" if each else "false" for each in wanted)
            self.event("interest", f',"ch":{record.number},"r":{reads},"w":{writes}')

    def _record_state(self, record: TracedChannel) -> None:
        channel = record.channel()
        if channel is None:
            # Its close() may have dropped the last reference.
            is_closed = record.last and record.last[0] != "closed"
            fields = ',"is":"closed"' if is_closed else ""
        else:
            try:
                fields = changes(record, channel)
            except Exception as error:
                # An attribute of the program has raised it.
                fields = f',"unseen":{quote(self._trace.describe(error))}'
        if fields:
            self.event("state", f',"ch":{record.number}{fields}')


class _Here(threading.local):
    def __init__(self, trace: Trace) -> None:
        self.recorder = Recorder(trace)


class Trace:
    """One trace: the numbers of its channels and functions, and its sink.

    Args:
        payload: bytes recorded of each read, push and send; None for none.

    Attributes:
        recorders: by thread; those of ended threads are gone.
        here: holds the recorder of the current thread.
        records: the records of all living channels, by ``id()``.
        by_fd: the record of the last channel under each descriptor.
        version: the number of changes of *by_fd*.
    """

    def __init__(self, sink: Sink, payload: int | None) -> None:
        self.start = now()
        self.payload = payload
        self.threads = count(1)
        self.recorders: dict[int, Callable[[], Recorder | None]] = {}
        self.here = _Here(self)
        # A weak reference removes a record before its channel's id is used again.
        self.records: dict[int, TracedChannel] = {}
        self.by_fd: dict[int, TracedChannel] = {}
        self.version = 0
        self._sink = sink
        self._numbers, self._code_numbers = count(1), count(1)
        self._codes: dict[Any, tuple[int, CodeType | None]] = {}

    def write(self, block: bytes) -> None:
        self._sink.write(block, self.now())

    def flush(self) -> None:
        """Write the lines of all threads."""
        for find in tuple(self.recorders.values()):
            recorder = find()
            if recorder is not None:
                recorder.flush()

    def now(self) -> int:
        """Return the microseconds since the trace began."""
        return (now() - self.start) // 1000

    def describe(self, error: BaseException) -> str:
        """Return an exception as one line; its message only if payloads are recorded.

        The message may quote data.
        """
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

    def record_of(self, channel: Any) -> TracedChannel:
        """Return the record of a channel; create it if necessary."""
        found = self.records.get(id(channel))
        if found is not None:
            return found
        try:
            reference: Callable[[], Any] = weakref.ref(
                channel, partial(self._forget, id(channel))
            )
        except TypeError:
            # A class without weak references: the trace keeps the channel alive.
            def reference() -> Any:
                return channel

        # Atomic, because two threads may get here at once.
        new = TracedChannel(next(self._numbers), reference)
        return self.records.setdefault(id(channel), new)

    def join(self, channel: Any, key: Any) -> TracedChannel:
        """Record that a channel has joined its map under *key*."""
        record, fd = self.record_of(channel), number_of(key)
        self.by_fd[fd] = record
        self.version += 1
        record.fd, record.calm, record.interest = fd, None, (False, False)
        # It may be gone before its state is recorded.
        record.last = record.last or NEW
        kind = type(channel)
        r = self.here.recorder
        number = key if type(key) is int and 0 <= key < MAX_FD else -1
        r.event(
            "open",
            f',"ch":{record.number},"fd":{number},"class":{quote(kind.__name__)}'
            f',"module":{quote(sound(str(kind.__module__)))}',
        )
        r.touched[record.number] = record
        return record

    def code(self, do: str, function: Any, kind: str | None, r: Recorder) -> int:
        """Return the number of a function's code; write its line if it is new."""
        plain = function.__code__ if isinstance(function, FunctionType) else None
        key: Any = (kind, do) if plain is None else id(plain)
        if key not in self._codes:
            # Keep the code, for its id, but not the function and its closure.
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

    def _forget(self, key: int, gone: Any) -> None:
        found = self.records.get(key)
        if found is not None and found.channel is gone:
            self.records.pop(key, None)


def number_of(key: Any) -> int:
    """Return the number for a map's key, which is not kept alive."""
    return key if type(key) is int else id(key)


def in_seconds(given: Any, unit: int = 1) -> str:
    """Return a time in seconds; null if it is not a finite number."""
    try:
        seconds = float(given) / unit
    except Exception:
        # None, or an error of the program, which gets an exception for it.
        return "null"
    return f"{seconds:.6g}" if math.isfinite(seconds) else "null"


class _Depths(dict[int, str]):
    """The field of a call's depth, by depth."""

    def __missing__(self, depth: int) -> str:
        text = self[depth] = f',"d":{depth}' if depth else ""
        return text


_DEPTHS = _Depths()
