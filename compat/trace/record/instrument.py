"""The instrument of a trace: it writes the reports of compat's loops as lines.

Rule: from the change of a thread's current call to its ``try``, and from the
``finally`` to the change back, nothing is called: KeyboardInterrupt and RecursionError
are raised by calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from time import perf_counter_ns as now
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from compat._outbox import Outbox
from compat.instrument import Instrument
from compat.trace.record.recorder import (
    CHANNEL,
    DEPTH,
    END,
    REST,
    Recorder,
    Trace,
    in_seconds,
)
from compat.trace.record.wrappers import Wrappers

__all__ = ["TraceInstrument"]

_SEND = '{"e":"call","do":"send"'
_PUSH = '{"e":"call","do":"push"'
_FLUSH = '{"e":"call","do":"turn ends"'


class TraceInstrument(Instrument):
    """Records the steps of the loops, of their timers and of broadcast groups."""

    def __init__(self, trace: Trace, wrappers: Wrappers) -> None:
        self._trace = trace
        self._here = trace.here
        self._wrappers = wrappers
        # The pending timers' numbers, by id().
        self._timers: dict[int, int] = {}
        self._timer_numbers = count(1)

    def original(self, function: Any) -> Any:
        return self._wrappers.original(function)

    # Turns.

    def turn_begins(self, shortened_by: str) -> None:
        self._here.recorder.begin_turn(shortened_by)

    def channel_polled(self, key: Any, channel: Any, reads: bool, writes: bool) -> None:
        r = self._here.recorder
        r.polled += 1
        r.want(self._wrappers.find(key, channel), (reads, writes))

    def wait_begins(self, loop: str, timeout: float | None) -> None:
        r = self._here.recorder
        r.begin_wait(loop, timeout, r.polled)

    def wait_ends(
        self, read: list[Any], write: list[Any], urgent: list[Any], woken: bool
    ) -> None:
        record_of = self._trace.record_of
        numbers = (
            [record_of(channel).number for channel in ready]
            for ready in (read, write, urgent)
        )
        self._here.recorder.end_wait(numbers, woken)

    # Timers and callbacks.

    def timer_created(
        self, timer: object, seconds: float, callback: Callable[..., object]
    ) -> None:
        r, number = self._here.recorder, next(self._timer_numbers)
        self._timers[id(timer)] = number
        code = self._code_of(callback, r)
        r.event("timer", f',"id":{number},"in":{in_seconds(seconds)},"f":{code}')

    def timer_cancelled(self, timer: object) -> None:
        if number := self._timers.pop(id(timer), 0):
            self._here.recorder.event("timer", f',"id":{number},"cancelled":true')

    def run_callback(
        self,
        timer: object | None,
        callback: Callable[..., object],
        call: Callable[[], object],
    ) -> None:
        r = self._here.recorder
        kind = "soon" if timer is None else "timer"
        head = f'{{"e":"call","do":"{kind}","f":{self._code_of(callback, r)}'
        if timer is not None and (number := self._timers.pop(id(timer), 0)):
            head += f',"id":{number}'
        self._run(call, None, head)

    def _code_of(self, callback: Any, r: Recorder) -> int:
        function = callback
        while isinstance(function, partial):
            function = function.func
        if isinstance(function, MethodType):
            function = function.__func__
        function = self._wrappers.original(function)
        if not isinstance(function, FunctionType | BuiltinFunctionType):
            function = type(function)
        kind, _, do = function.__qualname__.rpartition(".")
        return self._trace.code(do, function, kind.removesuffix(".<locals>") or None, r)

    # Flushes and broadcasts.

    def flush(self, writer: Any, call: Callable[[], None]) -> None:
        if not isinstance(writer, Outbox):
            # A broadcast group.
            self._run(call, writer, _FLUSH)
        elif (channel := writer.channel) is None:
            call()
        else:
            record = self._trace.record_of(channel)
            self._here.recorder.touched[record.number] = record
            self._run(call, channel, _FLUSH, record.mark)

    def broadcast(
        self, group: Any, data: Any, exclude: Any, call: Callable[[], int]
    ) -> int:
        rest = f',"to":{len(group)}'
        record = None if exclude is None else self._trace.records.get(id(exclude))
        if record is not None and exclude in group:
            rest = f',"to":{len(group) - 1},"but":{record.number}'
        given = self._trace.given(data)
        count: int = self._run(call, group, _PUSH, "", *given, rest)
        return count

    def send(self, channel: Any, data: Any, call: Callable[[Any], int]) -> int:
        # Short, because the time between two sends lets their receivers fall asleep,
        # and to wake them again costs more than all the rest.
        trace = self._trace
        record = trace.records.get(id(channel)) or trace.record_of(channel)
        failure, sent, began = "", 0, now()
        try:
            sent = call(data)
        except BaseException as error:
            failure = self._trace.failure(error)
            raise
        finally:
            end, r, payload = now(), self._here.recorder, self._trace.payload
            head = bytes(data[:payload]) if sent and payload is not None else None
            mark, depth = record.mark, r.call[DEPTH] + 1
            line = (
                _SEND,
                mark,
                began,
                end,
                depth,
                None,
                head,
                0,
                sent,
                failure,
                None,
                "",
            )
            r.entries += line
            if sent < len(data):
                r.touched[record.number] = record
        return sent

    def state_changed(self, channel: Any) -> None:
        record = self._trace.record_of(channel)
        self._here.recorder.touched[record.number] = record

    def _run(
        self,
        call: Callable[[], object],
        owner: Any,
        head: str,
        mark: str = "",
        size: int | None = None,
        data: bytes | None = None,
        rest: str = "",
    ) -> Any:
        """Call *call*, and write a line of its duration and its exception."""
        r = self._here.recorder
        outer = r.call
        depth = outer[DEPTH] + 1
        line = [head, mark, now(), 0, depth, size, data, 0, 0, rest, owner, ""]
        r.call = line
        try:
            return call()
        except BaseException as error:
            line[REST] += self._trace.failure(error)
            raise
        finally:
            r.call = outer
            line[END] = end = now()
            line[CHANNEL] = None
            r.entries += line
            if not depth:
                r.settle(end)
