"""Where a trace looks in: the places that every asyncore program goes through.

Rule 1: into the originals, and out again. A class keeps its identity, its methods
their names; what a program puts in a method's place meanwhile stays.
Rule 2: nothing of this is there while nothing is traced.
Rule 3: it makes no difference which loop turns: what asyncore calls ``select`` is
where its own loops wait, and SelectorLoop is where ours does.
Rule 4: a call of the same method of the same channel inside of itself is how a class
asks its base class; it is one call.
"""

from __future__ import annotations

import asyncore
import sys
from collections.abc import Callable
from functools import partial, wraps
from json.encoder import encode_basestring_ascii as quote
from operator import attrgetter
from time import perf_counter_ns as now
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from compat import broadcast, scheduler, selector_loop
from compat.async_chat import async_chat
from compat.pollers import GONE, IN, OUT, PRI
from compat.trace.record.channel_state import Seen
from compat.trace.record.recorder import (
    CHANNEL,
    DATA,
    DEPTH,
    END,
    GIVEN,
    METHOD,
    REST,
    TAKEN,
    Recorder,
    Trace,
    in_seconds,
    number_of,
)
from compat.trace.record.select_proxy import Kernel
from compat.trace.source import is_own, place_of

__all__ = ["Hooks"]

# Callbacks, and what a program asks of a channel.
CALLS = (
    "handle_read",
    "handle_write",
    "handle_expt",
    "handle_connect",
    "handle_accept",
    "handle_accepted",
    "handle_close",
    "handle_error",
    "handle_backlog",
    "found_terminator",
    "push_with_producer",
    "close_when_done",
    "connect",
    "close",
)

# Those that are given bytes.
GIVEN_BYTES = ("collect_incoming_data", "push")

# What the originals do in these is seen by what they call.
EVENTS = (
    "handle_read_event",
    "handle_write_event",
    "handle_expt_event",
    "handle_connect_event",
)

Function = Callable[..., Any]


class Hooks:
    """All that is put in place for one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._over = False
        self._kinds: set[type] = set()
        # Where, under which name, what was there (or not), and what is there now.
        self._put: list[tuple[Any, str, Any, Any]] = []
        # By the id of what is there now.
        self._originals: dict[int, Any] = {}
        self._timers: dict[int, int] = {}

    def set(self) -> None:
        """Look in, from now on."""
        self._watch_all(asyncore.dispatcher)
        self._replace(asyncore, "select", Kernel(asyncore.select, self))
        self._watch_selectors()
        self._watch_turns()
        self._watch_audiences()

    def remove(self) -> None:
        """Look no more."""
        self._over = True
        while self._put:
            where, name, before, ours = self._put.pop()
            if vars(where).get(name) is ours:
                setattr(where, name, before)

    def find(self, key: Any, channel: Any) -> Seen:
        """Who is in a map under that key."""
        seen = self._trace.known.get(id(channel))
        if seen is None:
            return self.meet(channel, key)
        if seen.fd == key or self._trace.by_fd.get(number_of(key)) is seen:
            return seen
        return self.meet(channel, key)

    def meet(self, channel: Any, key: Any) -> Seen:
        """Take notice of who has come into a map."""
        self._watch_all(type(channel))
        return self._trace.joined(channel, key)

    def _meet_called(self, channel: Any) -> Seen | None:
        """Take notice of who is called before it was seen in a map; None if it is
        no channel: what is mixed into a channel's class may serve others too.
        """
        if not issubclass(type(channel), asyncore.dispatcher):
            return None
        return self._trace.seen(channel)

    # Classes.

    def _watch_all(self, kind: type) -> None:
        """Look into a class, and into all that a program has for its channels."""
        if kind not in self._kinds:
            for each in (kind, *_family(asyncore.dispatcher)):
                self._watch(each)

    def _watch(self, kind: type) -> None:
        for each in kind.__mro__:
            if each not in self._kinds and each is not object:
                self._kinds.add(each)
                self._watch_methods(each)

    def _watch_methods(self, kind: type) -> None:
        for name, found in list(vars(kind).items()):
            make = _MAKERS.get(name)
            function = self._originals.get(id(found), found)
            if make is None or not isinstance(function, FunctionType):
                continue
            if name in EVENTS and is_own(function):
                continue
            code = ""
            if not is_own(function):
                # Now, and not in its first call, whose time is measured.
                r = self._trace.here.recorder
                number = self._trace.code(name, function, kind.__name__, r)
                code = f',"f":{number}'
            self._replace(kind, name, make(self, name, function, code))

    def _replace(self, where: Any, name: str, ours: Any) -> None:
        before = vars(where)[name]
        # A class that was made meanwhile may have taken ours from another one.
        before = self._originals.get(id(before), before)
        try:
            setattr(where, name, ours)
        except Exception:
            # A class that was not written in Python, or does not want to be changed.
            return
        self._originals[id(ours)] = before
        self._put.append((where, name, before, ours))
        if self._over:
            # Another thread has ended the trace meanwhile.
            self.remove()

    def around(
        self,
        name: str,
        function: Function,
        code: str,
        given: bool = False,
        original: Function | None = None,
    ) -> Function:
        """The same function, and a line for each call of it by a channel."""
        trace, meet = self._trace, self._meet_called
        here, known, payload = trace.here, trace.known, trace.payload
        head = f'{{"e":"call","do":"{name}"{code}'

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            r = here.recorder
            outer = r.call
            if outer[METHOD] is name and outer[CHANNEL] is channel:
                return function(channel, *args, **options)
            seen = known.get(id(channel)) or meet(channel)
            if seen is None:
                return (original or function)(channel, *args, **options)
            if outer[CHANNEL] is not channel:
                r.touched[seen.number] = seen
            size = data = None
            rest = ""
            if given:
                data = args[0] if args else options.get("data")
                if type(data) is bytes and payload is not None:
                    size, data = len(data), data[:payload]
                else:
                    size, data = _given(data, payload)
            elif name is _HANDLE_ERROR:
                rest = _failure(sys.exc_info()[1], trace)
            mark, depth = seen.mark, outer[DEPTH] + 1
            call = [head, mark, now(), 0, depth, size, data, 0, 0, rest, channel, name]
            # From here to the try, and from the finally to where that is undone, there
            # is no call, in which KeyboardInterrupt or RecursionError could be raised.
            r.call = call
            try:
                # What is quick with a few arguments is not with keywords.
                if options:
                    return function(channel, *args, **options)
                return function(channel, *args)
            except BaseException as error:
                call[REST] = _failure(error, trace)
                raise
            finally:
                r.call = outer
                call[END] = end = now()
                call[CHANNEL] = None
                r.entries += call
                if not depth:
                    r.settle(end)

        return traced

    def around_given(self, name: str, function: Function, code: str) -> Function:
        """As around, for a method that is given bytes."""
        return self.around(name, function, code, given=True)

    def around_recv(self, name: str, function: Function, code: str) -> Function:
        """Bytes that come are told of by the call that reads them."""
        here, payload = self._trace.here, self._trace.payload

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            call = here.recorder.call
            if call[CHANNEL] is not channel:
                return alone(channel, *args, **options)
            before = call[TAKEN]
            data = function(channel, *args, **options)
            # If the base class's has not counted them; a program's own gives anything.
            if call[TAKEN] == before and isinstance(data, _BYTES):
                call[TAKEN] += len(data)
                if call[DATA] is None and payload is not None:
                    call[DATA] = _first(data, payload)
            return data

        traced._compat_original = function  # type: ignore[attr-defined]
        alone = self.around(name, traced, code, original=function)
        return traced

    def around_send(self, name: str, function: Function, code: str) -> Function:
        """Bytes that go are told of by the call that sends them."""
        here, payload = self._trace.here, self._trace.payload

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            call = here.recorder.call
            if call[CHANNEL] is not channel:
                return alone(channel, *args, **options)
            before = call[GIVEN]
            sent = function(channel, *args, **options)
            if call[GIVEN] == before and type(sent) is int and sent > 0:
                call[GIVEN] += sent
                if call[DATA] is None and payload is not None:
                    data = args[0] if args else options.get("data")
                    call[DATA] = _given(data, payload)[1]
            return sent

        alone = self.around(name, traced, code, original=function)
        return traced

    def around_joining(self, name: str, function: Function, code: str) -> Function:
        """Who joins a map is met."""

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            result = function(channel, *args, **options)
            seen = self._meet_called(channel)
            fd = None if seen is None else vars(channel).get("_fileno")
            if seen is not None and seen.fd != fd:
                # Its state is looked at later: it is still being made.
                self.meet(channel, fd)
            return result

        return traced

    def around_touching(self, name: str, function: Function, code: str) -> Function:
        """What it changes is looked at when the call is over."""
        trace = self._trace

        @wraps(function)
        def traced(channel: Any, /, *args: Any, **options: Any) -> Any:
            try:
                return function(channel, *args, **options)
            finally:
                seen, r = self._meet_called(channel), trace.here.recorder
                if seen is not None:
                    if vars(channel).get("_fileno") is None:
                        seen.fd = None
                    r.touched[seen.number] = seen
                    if not r.depth:
                        r.settle()

        return traced

    # Turns.

    def _watch_selectors(self) -> None:
        hooks, trace = self, self._trace
        ask = selector_loop.SelectorLoop._ask
        wait = selector_loop.SelectorLoop._wait

        def traced_ask(loop: Any, known: Any) -> None:
            ask(loop, known)
            r = trace.here.recorder
            r.asked += 1
            interest = known.interest
            r.want(
                hooks.find(known.key, known.channel),
                (bool(interest & IN), bool(interest & OUT)),
            )

        def traced_wait(loop: Any, timeout: Any, everything: bool) -> Any:
            r = trace.here.recorder
            began = r.wait("selectors", timeout, r.asked, ())
            quiet, ready = wait(loop, timeout, everything)
            waker = loop._waker
            woken = waker is not None and ready.get(waker.fileno(), 0)
            r.woke(began, *hooks._ready(loop, quiet, ready), woken=bool(woken))
            return quiet, ready

        self._replace(selector_loop.SelectorLoop, "_ask", traced_ask)
        self._replace(selector_loop.SelectorLoop, "_wait", traced_wait)

    def _ready(
        self, loop: Any, quiet: list[Any], ready: dict[int, int]
    ) -> tuple[list[int], list[int], list[int]]:
        seen, met = self._trace.seen, self._trace.known
        if quiet:
            quiet = sorted(quiet, key=_PLACE)
            return [seen(known.channel).number for known in quiet], [], []
        active = [
            (
                known.number,
                (met.get(id(known.channel)) or seen(known.channel)).number,
                events & (known.interest | GONE),
            )
            for fd, events in ready.items()
            for known in loop._by_fd.get(fd, ())
        ]
        active.sort()
        read, write, urgent = (
            [number for _, number, events in active if events & wanted]
            for wanted in (IN | GONE, OUT, PRI)
        )
        return read, write, urgent

    def _watch_turns(self) -> None:
        trace = self._trace
        next_timeout = scheduler.Scheduler.next_timeout
        run_due = scheduler.Scheduler.run_due
        call = scheduler._call

        def traced_patience(plan: Any, timeout: Any) -> Any:
            r = trace.here.recorder
            result = next_timeout(plan, timeout)
            r.asking, r.asked, r.shortened = now(), 0, ""
            if result is not None and (timeout is None or result < timeout):
                # Who has to write in the next turn has it begin at once.
                at_once = "" if plan._writers else "timer"
                r.shortened = "soon" if plan._soon else at_once
            return result

        def traced_run_due(plan: Any) -> None:
            r = trace.here.recorder
            before, r.due = r.due, _SOON
            try:
                run_due(plan)
            finally:
                r.due = before

        def traced_call(callback: Any, args: tuple[Any, ...]) -> None:
            r = trace.here.recorder
            due, r.due = r.due, None
            try:
                if due is not None:
                    self._due(r, due, callback, call, args)
                else:
                    call(callback, args)
            finally:
                r.due = due

        self._replace(scheduler.Scheduler, "next_timeout", traced_patience)
        self._replace(scheduler.Scheduler, "run_due", traced_run_due)
        self._replace(scheduler, "_call", traced_call)
        self._watch_timers()

    def _watch_timers(self) -> None:
        trace, timers = self._trace, self._timers
        call_later = scheduler.Scheduler.call_later
        run, cancel = scheduler.Timer._run, scheduler.Timer.cancel
        numbers = iter(range(1, sys.maxsize))

        def traced_call_later(
            plan: Any, seconds: Any, callback: Any, *args: Any
        ) -> Any:
            timer = call_later(plan, seconds, callback, *args)
            timers[id(timer)] = number = next(numbers)
            r = trace.here.recorder
            code = self._code_of(callback, r)
            r.event("timer", f',"id":{number},"in":{in_seconds(seconds)},"f":{code}')
            return timer

        def traced_cancel(timer: Any) -> None:
            was_pending = timer.pending
            cancel(timer)
            number = timers.pop(id(timer), 0)
            if was_pending and number:
                trace.here.recorder.event("timer", f',"id":{number},"cancelled":true')

        def traced_run(timer: Any) -> None:
            r = trace.here.recorder
            before, r.due = r.due, ("timer", timers.pop(id(timer), 0))
            try:
                run(timer)
            finally:
                r.due = before

        self._replace(scheduler.Scheduler, "call_later", traced_call_later)
        self._replace(scheduler.Timer, "cancel", traced_cancel)
        self._replace(scheduler.Timer, "_run", traced_run)

    def _due(
        self,
        r: Recorder,
        due: tuple[str, int],
        callback: Any,
        call: Function,
        args: tuple[Any, ...],
    ) -> None:
        """Run what was asked for, as a call that is no channel's."""
        kind, number = due
        code = self._code_of(callback, r)
        head = f'{{"e":"call","do":"{kind}","f":{code}'
        if number:
            head += f',"id":{number}'
        observed = _Observed(callback, self._trace)
        outer = r.call
        entered = r.enter(None, head)
        try:
            call(observed, args)
        finally:
            r.call = outer
            r.leave(entered, observed.failure)

    def _code_of(self, callback: Any, r: Recorder) -> int:
        function = callback
        while isinstance(function, partial):
            function = function.func
        if isinstance(function, MethodType):
            function = function.__func__
        function = self._originals.get(id(function), function)
        if not isinstance(function, FunctionType | BuiltinFunctionType):
            function = type(function)
        kind, _, do = function.__qualname__.rpartition(".")
        return self._trace.code(do, function, kind.removesuffix(".<locals>") or None, r)

    # Audiences.

    def _watch_audiences(self) -> None:
        trace = self._trace
        here, known, payload = trace.here, trace.known, trace.payload
        push, leave = broadcast.BroadcastGroup.push, broadcast._leave
        end = broadcast.BroadcastGroup._compat_flush

        def traced_send(channel: Any, piece: Any) -> int:
            # Short, for what comes between two sends gives their receivers the time to
            # fall asleep again, and to wake them costs more than all the rest.
            seen = known.get(id(channel)) or trace.seen(channel)
            failure, sent, began = "", 0, now()
            try:
                sent = int(channel.socket.send(piece))
            except BaseException as error:
                failure = _failure(error, trace)
                raise
            finally:
                end, r = now(), here.recorder
                data = None if payload is None or not sent else bytes(piece[:payload])
                depth = r.call[DEPTH] + 1
                r.entries += (
                    _SEND,
                    seen.mark,
                    began,
                    end,
                    depth,
                    None,
                    data,
                    0,
                    sent,
                    failure,
                    None,
                    "",
                )
                if sent < len(piece):
                    r.touched[seen.number] = seen
            return sent

        def traced_leave(channel: Any, data: Any, *, at_the_front: bool) -> None:
            leave(channel, data, at_the_front=at_the_front)
            seen = trace.seen(channel)
            here.recorder.touched[seen.number] = seen

        def traced_push(listeners: Any, data: Any, exclude: Any = None) -> None:
            r, members = here.recorder, listeners._members
            rest = f',"to":{len(members)}'
            size, first = _given(data, payload)
            seen = None if exclude is None else known.get(id(exclude))
            if seen is not None and exclude in members:
                rest = f',"to":{len(members) - 1},"but":{seen.number}'
            outer, failure = r.call, ""
            call = r.enter(listeners, _PUSH, size, first, rest)
            try:
                push(listeners, data, exclude)
            except BaseException as error:
                failure = _failure(error, trace)
                raise
            finally:
                r.call = outer
                r.leave(call, failure)

        def traced_end(listeners: Any) -> None:
            r = here.recorder
            outer, failure = r.call, ""
            call = r.enter(listeners, _TURN_ENDS)
            try:
                end(listeners)
            except BaseException as error:
                failure = _failure(error, trace)
                raise
            finally:
                r.call = outer
                r.leave(call, failure)

        self._replace(broadcast.BroadcastGroup, "push", traced_push)
        self._replace(broadcast, "_send", traced_send)
        self._replace(broadcast, "_leave", traced_leave)
        self._replace(broadcast.BroadcastGroup, "_compat_flush", traced_end)
        self._replace(
            async_chat,
            "_compat_flush",
            self.around("turn ends", async_chat._compat_flush, ""),
        )


class _Observed:
    """A callback, and what it raised. It looks like itself, for it may be logged."""

    def __init__(self, callback: Any, trace: Trace) -> None:
        self._callback = callback
        self._trace = trace
        self.failure = ""

    def __call__(self, *args: Any) -> None:
        try:
            self._callback(*args)
        except BaseException as error:
            self.failure = _failure(error, self._trace)
            raise

    def __repr__(self) -> str:
        return repr(self._callback)


def _family(kind: type) -> list[type]:
    """A class and all that are derived from it."""
    found = [kind]
    children: list[type] = kind.__subclasses__()
    for child in children:
        found += _family(child)
    return found


def _given(data: Any, payload: int | None) -> tuple[int | None, bytes | None]:
    """How many bytes, and the first of them."""
    if not isinstance(data, _GIVEN):
        # A mistake of the program's, which it will be told of.
        return None, None
    try:
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        return size, None if payload is None else _first(data, payload)
    except Exception:
        # A view that has been released, or a class with a length of its own: whoever
        # uses it raises what is to be raised.
        return None, None


def _first(data: Any, payload: int) -> bytes:
    """The first bytes of what is read, said or sent."""
    if isinstance(data, str):
        return data[:payload].encode("utf-8", "surrogatepass")[:payload]
    return bytes(data[:payload])[:payload]


def _failure(error: BaseException | None, trace: Trace) -> str:
    if error is None:
        return ""
    try:
        place = place_of(error)
        where = f',"where":{quote(place)}' if place else ""
        return f',"error":{quote(trace.describe(error))}{where}'
    except RecursionError:
        # No room is left for a look at it.
        return _TOO_DEEP


_PLACE = attrgetter("number")
_BYTES = (bytes, bytearray)
_GIVEN = (bytes, bytearray, memoryview, str)

_TOO_DEEP = ',"error":"RecursionError"'

_SOON = ("soon", 0)

_SEND = '{"e":"call","do":"send"'
_PUSH = '{"e":"call","do":"push"'
_TURN_ENDS = '{"e":"call","do":"turn ends"'

_HANDLE_ERROR = CALLS[CALLS.index("handle_error")]

_MAKERS: dict[str, Callable[[Hooks, str, Function, str], Function]] = {
    **dict.fromkeys((*CALLS, *EVENTS), Hooks.around),
    **dict.fromkeys(GIVEN_BYTES, Hooks.around_given),
    "recv": Hooks.around_recv,
    "send": Hooks.around_send,
    "add_channel": Hooks.around_joining,
    "del_channel": Hooks.around_touching,
    "listen": Hooks.around_touching,
    "set_terminator": Hooks.around_touching,
}
