"""What a loop does, made into lines: one Recorder for each thread, one Trace for all.

Rule 1: a program is traced as it runs: what it gets from its calls, and what they
raise, is what it would have got.
Rule 2: what cannot be seen is said in the trace, and stops nothing.
Rule 3: what is traced is kept alive by nobody here.
Rule 4: lines are written when a call at depth 0 is over, before a wait and after it, so
that a program that dies, or hangs, leaves everything but the call that it is in.
Rule 5: these lines are made for every call of a busy program. What is short here is
short for that reason.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from json.encoder import encode_basestring_ascii as quote
from time import perf_counter_ns as now
from types import CodeType
from typing import Any

from compat.trace.output import Sink

__all__ = ["Code", "Recorder", "Seen", "Trace", "describe", "is_own", "place_of"]

# Entries of a queue that are added up anew each time; of a longer one, when its length
# has changed by an eighth.
FEW = 64

# Characters of an error, and lines of a function, that are kept.
LONGEST_ERROR = 200
LONGEST_SOURCE = 40

# What names all the ends of a socket that has no name.
NOWHERE = ("", None, b"")


class Seen:
    """A channel that has a number."""

    __slots__ = ("backlog", "channel", "counted", "fd", "interest", "last", "number")

    def __init__(self, number: int, channel: Callable[[], Any]) -> None:
        self.number = number
        # Gives the channel, or None if it is gone.
        self.channel = channel
        # Under which it joined its map; None if it is in none.
        self.fd: Any = None
        self.interest: tuple[bool, bool] = (False, False)
        # What was written of its state.
        self.last: tuple[Any, ...] = ()
        # Of its queue: bytes, and how many entries they were counted in.
        self.backlog = self.counted = 0


class Code:
    """A function that is called; its line is written before its first call."""

    __slots__ = ("do", "function", "kind", "number")

    def __init__(self, do: str, function: Any, kind: str | None) -> None:
        self.do = do
        self.function = function
        self.kind = kind
        self.number = 0


class Recorder:
    """The lines of one thread, and where it is."""

    __slots__ = (
        "_trace",
        "asked",
        "asking",
        "channel",
        "data",
        "depth",
        "due",
        "given",
        "known_lists",
        "lines",
        "map",
        "method",
        "said",
        "shortened",
        "taken",
        "touched",
        "turn",
        "whose",
    )

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        thread = next(trace.threads)
        # What ends every event.
        self.whose = "}\n" if thread == 1 else f',"th":{thread}}}\n'
        self.lines: list[str] = []
        # The call that it is in: whose, which, and what has gone through its socket.
        self.depth = 0
        self.channel: Any = None
        self.method = ""
        self.taken = self.given = 0
        self.data: Any = None
        # Has a recv or a send inside of the present one been counted?
        self.said = False
        # Whose state may have changed since the last look.
        self.touched: dict[int, Seen] = {}
        self.turn = 0
        # Of the turn that is being prepared: which map, since when, how many were
        # asked, and what made the wait shorter than the program's timeout.
        self.map: Any = None
        self.asking = 0
        self.asked = 0
        self.shortened = ""
        # Is a callback run that was asked for by a timer, or by call_soon_threadsafe?
        self.due: tuple[str, int] | None = None
        # The lists that select() was given last, and who was known then.
        self.known_lists: Any = None

    def event(self, what: str, rest: str) -> None:
        """Write a line about this moment."""
        depth = f',"d":{self.depth}' if self.depth else ""
        at = (now() - self._trace.start) // 1000
        self.lines.append(f'{{"e":"{what}","t":{at}{depth}{rest}{self.whose}')

    def leave(
        self,
        head: str,
        began: int,
        outer: tuple[Any, ...],
        rest: str = "",
        failure: str = "",
    ) -> None:
        """Write the line of a call that is over, and be in the outer one again."""
        self.depth = depth = self.depth - 1
        if self.taken:
            rest += f',"in":{self.taken}'
        if self.given:
            rest += f',"out":{self.given}'
        if self.data is not None:
            rest += f',"data":{self._trace.text(self.data)}'
        end = now()
        start = self._trace.start
        self.channel, self.method, self.taken, self.given, self.data = outer
        at, us = (began - start) // 1000, (end - began) // 1000
        if depth:
            rest += f',"d":{depth}'
        self.lines.append(f'{head},"t":{at},"us":{us}{rest}{failure}{self.whose}')
        if not depth:
            self.settle()

    def settle(self) -> None:
        """Nothing is called any more: say what became of whom, and write it."""
        if self.touched:
            for seen in self.touched.values():
                self._look(seen)
            self.touched.clear()
        self.flush()

    def flush(self) -> None:
        """Write what has been recorded."""
        block = "".join(self.lines).encode("ascii", "backslashreplace")
        self.lines.clear()
        if block:
            self._trace.write(block)

    def wait(
        self, by: str, timeout: float | None, channels: int, interests: Iterable[Any]
    ) -> int:
        """Begin a wait; give the time."""
        self.turn += 1
        for seen, wanted in interests:
            self.want(seen, wanted)
        began = now()
        asked = (began - self.asking) // 1000 if self.asking else 0
        limit = "null" if timeout is None else f"{timeout:.6g}"
        self.event(
            "turn",
            f',"n":{self.turn},"by":"{by}","timeout":{limit},"channels":{channels}'
            f',"asked":{asked}',
        )
        self.settle()
        return now()

    def woke(
        self,
        began: int,
        read: list[int],
        write: list[int],
        urgent: list[int],
        woken: bool,
    ) -> None:
        """End a wait."""
        if read or write or urgent:
            why = "ready"
        elif woken or self.shortened == "soon":
            why = "wake-up"
        else:
            why = self.shortened or "timeout"
        rest = f',"why":"{why}","waited":{(now() - began) // 1000}'
        for name, numbers in (("read", read), ("write", write), ("urgent", urgent)):
            if numbers:
                rest += f',"{name}":[{",".join(map(str, numbers))}]'
        self.event("woke", rest)
        self.flush()
        self.asking, self.shortened, self.asked = now(), "", 0

    def want(self, seen: Seen, wanted: tuple[bool, bool]) -> None:
        """Write what a channel wants, if that is new."""
        if seen.interest != wanted:
            seen.interest = wanted
            reads, writes = ("true" if each else "false" for each in wanted)
            self.event("interest", f',"ch":{seen.number},"r":{reads},"w":{writes}')

    def _look(self, seen: Seen) -> None:
        channel = seen.channel()
        if channel is None:
            return
        try:
            fields = _state(seen, channel)
        except Exception as error:
            # A program's own attribute, which would not be looked at.
            self.event(
                "state", f',"ch":{seen.number},"unseen":{quote(describe(error))}'
            )
            return
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
        self.here = _Here(self)
        # Who was last seen under which descriptor.
        self.by_fd: dict[Any, Seen] = {}
        # Counts whenever that changes.
        self.version = 0
        self._sink = sink
        self._numbers = count(1)
        self._seen: dict[int, Seen] = {}
        self._codes: dict[CodeType, Code] = {}
        self._code_numbers = count(1)

    def write(self, block: bytes) -> None:
        self._sink.write(block, self.now())

    def now(self) -> int:
        """Microseconds since the trace began."""
        return (now() - self.start) // 1000

    def seen(self, channel: Any) -> Seen:
        """The number of a channel; it gets one if it has none."""
        found = self._seen.get(id(channel))
        if found is not None and found.channel() is channel:
            return found
        return self._meet(channel)

    def joined(self, channel: Any, fd: Any) -> Seen:
        """Write that a channel is in its map now."""
        seen = self.seen(channel)
        self.by_fd[fd] = seen
        self.version += 1
        seen.fd, seen.last, seen.interest = fd, (), (False, False)
        kind = type(channel)
        r = self.here.recorder
        number = fd if isinstance(fd, int) else -1
        r.event(
            "open",
            f',"ch":{seen.number},"fd":{number},"class":{quote(kind.__name__)}'
            f',"module":{quote(kind.__module__)}',
        )
        r.touched[seen.number] = seen
        return seen

    def text(self, data: Any) -> str:
        """The first bytes of it, as JSON."""
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogateescape")
        return quote(bytes(data[: self.payload]).decode("utf-8", "surrogateescape"))

    def code(self, do: str, function: Any, kind: str | None) -> Code:
        """What a function is called by in the trace; written when it is first met."""
        plain = getattr(function, "__code__", None)
        found = self._codes.get(plain) if plain is not None else None
        if found is None:
            found = Code(do, function, kind)
            if plain is not None:
                self._codes[plain] = found
        return found

    def tell(self, code: Code, r: Recorder) -> int:
        """Write the line of a piece of code, if it has none; give its number."""
        if not code.number:
            code.number = next(self._code_numbers)
            plain = getattr(code.function, "__code__", None)
            file = plain.co_filename if plain is not None else "?"
            line = plain.co_firstlineno if plain is not None else 0
            kind = "null" if code.kind is None else quote(code.kind)
            source = ",".join(map(quote, _source(code.function)))
            r.event(
                "code",
                f',"f":{code.number},"do":{quote(code.do)},"class":{kind}'
                f',"file":{quote(_short(file))},"line":{line},"source":[{source}]',
            )
        return code.number

    def _meet(self, channel: Any) -> Seen:
        try:
            reference: Callable[[], Any] = weakref.ref(
                channel, partial(self._forget, id(channel))
            )
        except TypeError:
            # It can only be held.
            def reference() -> Any:
                return channel

        seen = self._seen[id(channel)] = Seen(next(self._numbers), reference)
        return seen

    def _forget(self, key: int, gone: Any) -> None:
        found = self._seen.get(key)
        if found is not None and found.channel is gone:
            del self._seen[key]


def describe(error: BaseException | None) -> str:
    """An exception in a line."""
    try:
        said = f"{type(error).__name__}: {error}"
    except Exception:
        said = f"{type(error).__name__}, which cannot be printed"
    return said[:LONGEST_ERROR]


def place_of(error: BaseException | None) -> str:
    """Where it was raised: file and line."""
    traceback = error.__traceback__ if error is not None else None
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{_short(traceback.tb_frame.f_code.co_filename)}:{traceback.tb_lineno}"


def _state(seen: Seen, channel: Any) -> str:
    """What has changed, as the fields of a line."""
    variables = vars(channel)
    fifo = variables.get("_compat_fifo") or variables.get("producer_fifo")
    if fifo is None:
        # A dispatcher_with_send has bytes in its place, others have nothing.
        fifo = [rest] if (rest := variables.get("out_buffer")) else ()
    held = variables.get("_compat_read")
    if held is None:
        held = variables.get("ac_in_buffer", b"")
    state = (
        _status(channel, fifo),
        getattr(channel, "terminator", None),
        len(held) - variables.get("_compat_gone", 0),
        _backlog(seen, fifo),
        len(fifo),
    )
    last, seen.last = seen.last or ("new", None, 0, 0, 0), state
    if state == last:
        return ""
    fields = ""
    if state[0] != last[0]:
        fields = f',"is":"{state[0]}"'
        if state[0] in _ADDRESSED:
            fields += _addresses(channel)
    if state[1] != last[1]:
        fields += f',"terminator":{_terminator(state[1])}'
    for name, new, old in zip(_COUNTS, state[2:], last[2:], strict=True):
        if new != old:
            fields += f',"{name}":{new}'
    return fields


# What a channel becomes when it gets an address, or another end.
_ADDRESSED = ("listening", "connecting", "connected")

_COUNTS = ("held", "backlog", "queued")


def _status(channel: Any, fifo: Any) -> str:
    if channel._fileno is None:
        return "closed"
    if channel.accepting:
        return "listening"
    if channel.connected:
        return "closing" if fifo and fifo[-1] is None else "connected"
    return "connecting" if channel.connecting else "new"


def _backlog(seen: Seen, fifo: Any) -> int:
    entries = len(fifo)
    if entries <= FEW or abs(entries - seen.counted) * 8 > seen.counted:
        seen.counted = entries
        seen.backlog = sum(
            len(entry)
            for entry in tuple(fifo)
            if isinstance(entry, bytes | bytearray | memoryview | str)
        )
    return seen.backlog


def _addresses(channel: Any) -> str:
    fields = ""
    for name, ask in (("local", "getsockname"), ("peer", "getpeername")):
        try:
            address = getattr(channel.socket, ask)()
        except (OSError, AttributeError):
            # It has none, or none any more, or is no socket.
            continue
        if address not in NOWHERE:
            fields += f',"{name}":{quote(_address(address))}'
    return fields


def _address(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    if isinstance(address, bytes):
        return os.fsdecode(address)
    return str(address)


def _terminator(terminator: Any) -> str:
    if isinstance(terminator, bytes):
        return quote(terminator.decode("utf-8", "surrogateescape"))
    if isinstance(terminator, int) and not isinstance(terminator, bool):
        return str(terminator)
    return "null" if terminator is None else quote(str(terminator))


def _source(function: Any) -> list[str]:
    # Not above: they are large, and a program without an error of its own, or a view
    # of its trace, may never need them.
    import inspect
    import textwrap

    try:
        lines, _ = inspect.getsourcelines(function)
    except (OSError, TypeError):
        # It was typed in, or made by something.
        return []
    return textwrap.dedent("".join(lines[:LONGEST_SOURCE])).splitlines()


def _short(file: str) -> str:
    """A file's path from where the program is, or from where it is imported."""
    for folder in (os.getcwd(), *sorted(sys.path, key=len, reverse=True)):
        if folder and file.startswith(folder.rstrip(os.sep) + os.sep):
            return file[len(folder.rstrip(os.sep)) + 1 :]
    return file


def is_own(function: Any) -> bool:
    """Is it asyncore's, asynchat's or compat's?"""
    module = str(getattr(function, "__module__", ""))
    return module in ("asyncore", "asynchat") or module.partition(".")[0] == "compat"
