"""Wrappers of foreign code: the methods of a program's channels.

Rule 1: a class keeps its identity, and its methods their names. If the program assigns
to a wrapped method, its assignment stays.
Rule 2: no wrapper exists while nothing is traced.
Rule 3: a call of the same method of the same channel inside of that method is a call of
its base class. The trace has one call.
Rule 4: from the change of a thread's current call to its ``try``, and from the
``finally`` to the change back, nothing is called: KeyboardInterrupt and RecursionError
are raised by calls.
"""

from __future__ import annotations

import asyncore
import sys
from collections.abc import Callable
from functools import wraps
from time import perf_counter_ns as now
from types import FunctionType
from typing import Any, TypeAlias

from compat.trace.record.channel_state import TracedChannel
from compat.trace.record.recorder import (
    CHANNEL,
    DATA,
    DEPTH,
    END,
    GIVEN,
    METHOD,
    REST,
    TAKEN,
    Trace,
    number_of,
)
from compat.trace.source import is_own

__all__ = ["Wrappers"]

# Callbacks, and the methods by which a program uses a channel.
CALLS = (
    "handle_read",
    "handle_write",
    "handle_expt",
    "handle_connect",
    "handle_accept",
    "handle_accepted",
    "handle_close",
    "handle_backlog",
    "found_terminator",
    "push_with_producer",
    "close_when_done",
    "connect",
    "close",
)

# Methods that take bytes.
TAKE_BYTES = ("collect_incoming_data", "push")

# The originals of these are not wrapped: the trace has the calls that they make.
EVENTS = (
    "handle_read_event",
    "handle_write_event",
    "handle_expt_event",
    "handle_connect_event",
)

Function = Callable[..., Any]

# Of a call: the size and the first bytes of its data, and further fields of its line.
Noted: TypeAlias = tuple[int | None, bytes | None, str]
Note: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Noted]


class Wrappers:
    """The wrappers of one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._removed = False
        self._wrapped: set[type] = set()
        # The place, the name in it, the attribute before, and our replacement.
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        # The attributes before, by the id of our replacement.
        self._originals: dict[int, Any] = {}

    def remove(self) -> None:
        """Restore every attribute that the program has not replaced meanwhile."""
        self._removed = True
        while self._replaced:
            place, name, before, ours = self._replaced.pop()
            if vars(place).get(name) is ours:
                setattr(place, name, before)

    def original(self, function: Any) -> Any:
        """Return the function that *function* wraps, or *function* itself."""
        return self._originals.get(id(function), function)

    def find(self, key: Any, channel: Any) -> TracedChannel:
        """Return the record of the channel under *key* of a map."""
        record = self._trace.records.get(id(channel))
        if record is None:
            return self.join(channel, key)
        if record.fd == key or self._trace.by_fd.get(number_of(key)) is record:
            return record
        return self.join(channel, key)

    def join(self, channel: Any, key: Any) -> TracedChannel:
        """Record that a channel has joined a map, and wrap its class."""
        self.wrap_classes(type(channel))
        return self._trace.join(channel, key)

    def record_called(self, channel: Any) -> TracedChannel | None:
        """Return the record of a channel that is called, perhaps before it is in a map.

        None for an object that is not a channel: a mixin of a channel's class may serve
        other classes too.
        """
        if not issubclass(type(channel), asyncore.dispatcher):
            return None
        return self._trace.record_of(channel)

    # Classes.

    def wrap_classes(self, kind: type) -> None:
        """Wrap the methods of a class, and of all classes of dispatchers."""
        if kind not in self._wrapped:
            for each in (kind, *_family(asyncore.dispatcher)):
                self._wrap_class(each)

    def _wrap_class(self, kind: type) -> None:
        for each in kind.__mro__:
            if each not in self._wrapped and each is not object:
                self._wrapped.add(each)
                self._wrap_methods(each)

    def _wrap_methods(self, kind: type) -> None:
        for name, found in list(vars(kind).items()):
            make = _MAKERS.get(name)
            function = self.original(found)
            if make is None or not isinstance(function, FunctionType):
                continue
            if name in EVENTS and is_own(function):
                continue
            code = ""
            if not is_own(function):
                # Now, not in the first call, whose duration is measured.
                r = self._trace.here.recorder
                number = self._trace.code(name, function, kind.__name__, r)
                code = f',"f":{number}'
            self.replace(kind, name, make(self, name, function, code))

    def replace(self, place: Any, name: str, ours: Any) -> None:
        """Replace an attribute of a class or module until the trace ends."""
        # A class made meanwhile may have copied a wrapper from another class.
        before = self.original(vars(place)[name])
        try:
            setattr(place, name, ours)
        except Exception:
            # A class in C, or one that rejects assignments.
            return
        self._originals[id(ours)] = before
        self._replaced.append((place, name, before, ours))
        if self._removed:
            # Another thread has ended the trace meanwhile.
            self.remove()

    # Methods.

    def call(
        self, name: str, function: Function, code: str, note: Note | None = None
    ) -> Function:
        """Return *function* with a line for each of its calls by a channel."""
        trace, record_of = self._trace, self.record_called
        here, records = trace.here, trace.records
        head = f'{{"e":"call","do":"{name}"{code}'

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            r = here.recorder
            outer = r.call
            if outer[METHOD] is name and outer[CHANNEL] is channel:
                return function(channel, *args, **options)
            record = records.get(id(channel)) or record_of(channel)
            if record is None:
                return self.original(function)(channel, *args, **options)
            if outer[CHANNEL] is not channel:
                r.touched[record.number] = record
            size, data, rest = note(args, options) if note else _NO_NOTE
            mark, depth = record.mark, outer[DEPTH] + 1
            call = [head, mark, now(), 0, depth, size, data, 0, 0, rest, channel, name]
            r.call = call
            try:
                # Keywords are slow, even if there are none.
                if options:
                    return function(channel, *args, **options)
                return function(channel, *args)
            except BaseException as error:
                call[REST] = trace.failure(error)
                raise
            finally:
                r.call = outer
                call[END] = end = now()
                call[CHANNEL] = None
                r.entries += call
                if not depth:
                    r.settle(end)

        return traced

    def call_with_data(self, name: str, function: Function, code: str) -> Function:
        """As call, for a method that takes bytes."""
        given, payload = self._trace.given, self._trace.payload

        def note(args: tuple[Any, ...], options: dict[str, Any]) -> Noted:
            data = args[0] if args else options.get("data")
            if type(data) is bytes and payload is not None:
                return len(data), data[:payload], ""
            return *given(data), ""

        return self.call(name, function, code, note)

    def call_with_error(self, name: str, function: Function, code: str) -> Function:
        """As call, for a method that handles the current exception."""
        failure = self._trace.failure
        return self.call(
            name, function, code, lambda *_: (None, None, failure(sys.exc_info()[1]))
        )

    def transfer(self, name: str, function: Function, code: str) -> Function:
        """Add the bytes of recv and send to the line of the channel's current call."""
        here, given, receives = self._trace.here, self._trace.given, name == "recv"
        field, size_of = (TAKEN, _received) if receives else (GIVEN, _sent)

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            call = here.recorder.call
            if call[CHANNEL] is not channel:
                return alone(channel, *args, **options)
            before = call[field]
            result = function(channel, *args, **options)
            # Unless the base class's method has counted them.
            if call[field] == before and (size := size_of(result)) >= 0:
                call[field] += size
                if call[DATA] is None:
                    data = args[0] if args else options.get("data")
                    call[DATA] = given(result if receives else data)[1]
            return result

        self._originals[id(traced)] = function
        alone = self.call(name, traced, code)
        return traced

    def joins(self, name: str, function: Function, code: str) -> Function:
        """Record that the channel has joined its map."""

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            result = function(channel, *args, **options)
            record = self.record_called(channel)
            fd = None if record is None else vars(channel).get("_fileno")
            if record is not None and record.fd != fd:
                # Its state is recorded later, because its __init__ still runs.
                self.join(channel, fd)
            return result

        return traced

    def changes(self, name: str, function: Function, code: str) -> Function:
        """Record the channel's state after the call."""
        here = self._trace.here

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            try:
                return function(channel, *args, **options)
            finally:
                record, r = self.record_called(channel), here.recorder
                if record is not None:
                    if vars(channel).get("_fileno") is None:
                        record.fd = None
                    r.touched[record.number] = record
                    if not r.depth:
                        r.settle()

        return traced


def _family(kind: type) -> list[type]:
    """Return a class and all classes derived from it."""
    children: list[type] = kind.__subclasses__()
    return [kind, *(each for child in children for each in _family(child))]


def _received(result: Any) -> int:
    """Return the size of received data; -1 for another result of a program's recv."""
    return len(result) if isinstance(result, bytes | bytearray) else -1


def _sent(result: Any) -> int:
    return result if type(result) is int and result > 0 else -1


_NO_NOTE: Noted = (None, None, "")

_MAKERS: dict[str, Callable[[Wrappers, str, Function, str], Function]] = {
    **dict.fromkeys((*CALLS, *EVENTS), Wrappers.call),
    **dict.fromkeys(TAKE_BYTES, Wrappers.call_with_data),
    "handle_error": Wrappers.call_with_error,
    **dict.fromkeys(("recv", "send"), Wrappers.transfer),
    "add_channel": Wrappers.joins,
    **dict.fromkeys(("del_channel", "listen", "set_terminator"), Wrappers.changes),
}
