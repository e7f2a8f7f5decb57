"""A trace changes nothing for the program, and leaves nothing behind."""

from __future__ import annotations

import asynchat
import asyncore
import gc
import os
import select
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import compat
from compat import broadcast, instrument, scheduler, selector_loop
from compat.trace.format import MIN_SIZE
from compat.trace.record.recorder import OUTSIDE
from compat.trace.record.session import Session
from tests.compat.trace.recording import Line, recorded
from tests.support import LOOKS, in_a_turn, is_interrupted, turn_once, turn_until


def everything() -> list[tuple[Any, str, Any]]:
    """Return all objects in which a trace could leave something."""
    places: list[Any] = [
        asyncore,
        asynchat,
        broadcast,
        sys.modules["compat.async_chat"],
        scheduler,
        selector_loop,
    ]
    for module in list(places):
        places += [each for each in vars(module).values() if isinstance(each, type)]
    places += family(asyncore.dispatcher)
    return [
        (place, name, value)
        for place in places
        for name, value in vars(place).items()
        if callable(value) or isinstance(value, ModuleType) or name == "_READ"
    ]


def family(kind: type) -> list[type]:
    return [kind, *(each for child in kind.__subclasses__() for each in family(child))]


@pytest.fixture(autouse=True)
def nothing_of_a_trace_left_behind(nothing_left_behind: None) -> Iterator[None]:
    """Check that all objects are as before, and that no new one is a trace's."""
    before = everything()
    yield
    assert Session.current is None
    assert instrument.current is None
    for place, name, value in before:
        assert vars(place)[name] is value
    for place, name, value in everything():
        code = getattr(value, "__code__", None)
        if code is not None:
            assert os.path.basename(code.co_filename) != "wrappers.py", (place, name)


def test_trace_may_begin_and_end_within_handlers(any_loop: str, tmp_path: Path) -> None:
    begun: list[Any] = []

    def begin() -> None:
        begun.append(compat.tracing(tmp_path / "a.trace"))
        begun[0].__enter__()

    def end() -> None:
        begun[0].__exit__(None, None, None)

    in_a_turn(any_loop, begin)
    line = Line()
    line.receive(any_loop, b"x")
    in_a_turn(any_loop, end)
    line.receive(any_loop, b"y")
    line.close()
    assert line.received == [b"x", b"y"]
    text = (tmp_path / "a.trace").read_text()
    assert text.endswith('"why":"closed"}\n')


def test_trace_may_become_full_during_a_call(any_loop: str, tmp_path: Path) -> None:
    class Makes(Line):
        """Makes new classes in its handler, while the trace gets full there."""

        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            for number in range(30):
                kind = type(f"New{number}", (Line,), {"push": lambda self, data: None})
                line = kind()
                line.push(b"x" * 30)
                turn_once(any_loop, timeout=0)
                line.close()
            assert Session.current is None

    with recorded(tmp_path, max_bytes=MIN_SIZE) as trace:
        line = Makes()
        line.receive(any_loop, b"x")
        line.close()
    assert trace.reader.end_reason == "full"


def test_trace_ended_by_another_thread_is_intact(loop: str, tmp_path: Path) -> None:
    line, go = Line(), threading.Event()
    session = compat.tracing(tmp_path / "a.trace")
    session.__enter__()

    def other() -> None:
        go.wait()
        session.__exit__(None, None, None)
        compat.call_soon_threadsafe(line.push, b"over")

    thread = threading.Thread(target=other)
    thread.start()
    compat.call_later(0, go.set)
    turn_until(loop, line.peer.receive_available, timeout=3600)
    thread.join()
    line.close()
    assert line.peer.got == b"over"


def test_method_set_while_tracing_stays(tmp_path: Path) -> None:
    class Changed(Line):
        def handle_connect(self) -> None:
            """Is replaced."""

    def mine(self: Any) -> None:
        """The program's own."""

    with recorded(tmp_path):
        Changed().close()
        Changed.handle_connect = mine  # type: ignore[method-assign]
    assert vars(Changed)["handle_connect"] is mine


def test_method_borrowed_from_a_traced_class_is_the_original(
    tmp_path: Path,
) -> None:
    with recorded(tmp_path) as trace:
        Line().close()

        class Alias(Line):
            handle_connect = Line.close

        line = Alias()
        line.handle_connect()
    assert vars(Alias)["handle_connect"] is Line.close
    assert len(trace.calls("handle_connect")) == 1


def test_class_that_rejects_attributes_is_traced_by_its_base(tmp_path: Path) -> None:
    class Frozen(type):
        def __setattr__(cls, name: str, value: Any) -> None:
            raise RuntimeError("this class is finished")

    class Fixed(Line, metaclass=Frozen):
        def push(self, data: Any) -> None:
            super().push(data)

    with recorded(tmp_path) as trace:
        line = Fixed()
        line.push(b"x")
        assert line.peer.receive_available() == b"x"
        line.close()
    # The calls of its base class are recorded nevertheless.
    assert [call.data for call in trace.calls("push")] == [b"x"]


class Odd:
    def __get__(self, channel: Any, kind: Any = None) -> Any:
        return lambda *args: "from a descriptor"


def test_attributes_other_than_functions_stay_unchanged(tmp_path: Path) -> None:
    class Strange(Line):
        handle_accept = staticmethod(lambda: "static")
        handle_expt = classmethod(lambda cls: cls)
        handle_connect = Odd()
        connect = property(lambda self: "a property")
        handle_accepted = len

    with recorded(tmp_path):
        line: Any = Strange()
        assert line.handle_accept() == "static"
        assert line.handle_expt() is Strange
        assert line.handle_connect() == "from a descriptor"
        assert line.connect == "a property"
        assert line.handle_accepted(b"abc") == 3
        line.close()


def test_return_values_of_callbacks_are_passed_on(tmp_path: Path) -> None:
    class Answers(Line):
        def handle_connect(self) -> Any:
            return self

    with recorded(tmp_path):
        line = Answers()
        assert line.handle_connect() is line
        line.close()


def test_channel_is_freed_as_without_a_trace(any_loop: str, tmp_path: Path) -> None:
    class Mortal(Line):
        pass

    def once() -> list[bool]:
        map: Any = weakref.WeakValueDictionary()
        line = Mortal(map)
        line.receive(any_loop, b"x", map)
        timer = compat.call_later(3600, line.push, b"x", map={})
        timer.cancel()
        gone, ends = weakref.ref(line), (line.peer, line.socket)
        del line
        lives = [gone() is not None, bool(map)]
        for end in ends:
            end.close()
        return lives

    gc.collect()
    gc.disable()
    try:
        plain = once()
        with compat.tracing(tmp_path / "a.trace"):
            traced = once()
    finally:
        gc.enable()
    assert traced == plain == [False, False]


def test_map_is_freed_as_without_a_trace(any_loop: str, tmp_path: Path) -> None:
    with recorded(tmp_path):
        map: dict[Any, Any] = {}
        line = Line(map)
        line.receive(any_loop, b"x", map)
        line.close()
        gone = weakref.ref(line)
        del line, map
        assert gone() is None


def test_select_of_a_program_is_traced_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Own:
        error = select.error

        @staticmethod
        def select(*lists: Any) -> Any:
            asked.append(lists)
            return select.select(*lists)

    monkeypatch.setattr(asyncore, "select", Own)
    with recorded(tmp_path) as trace, compat.install("selectors"):
        line = Line()
        line.received.clear()
        line.peer.send(b"x")
        while not line.received:
            asyncore.loop(1, count=1)
        assert not hasattr(asyncore.select, "poll")
        line.close()
    assert asked
    assert [turn.loop for turn in trace.turns if turn.number] == ["select"] * len(asked)
    assert asyncore.select is Own


def test_select_proxy_serves_other_callers(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with recorded(tmp_path) as trace, ours, theirs:
        theirs.send(b"x")
        module = asyncore.select
        assert module.select(iter([ours]), [], [], 0) == ([ours], [], [])
        poller = module.poll()
        poller.register(ours, select.POLLIN)
        assert poller.poll(0) == [(ours.fileno(), select.POLLIN)]
        assert module.error is OSError
    assert not any(turn.number for turn in trace.turns)


def test_loop_of_a_program_is_traced_by_its_calls(tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        line = Line()
        line.peer.send(b"x")
        select.select([line.socket], [], [], 20)
        asyncore.read(line)
        line.close()
    assert line.received == [b"x"]
    called = [call.name for call in trace.calls()]
    assert called == ["handle_read", "collect_incoming_data", "close"]


@pytest.mark.parametrize("name", ["select", "poll", "selectors"])
def test_installed_loop_is_traced_under_its_own_name(name: str, tmp_path: Path) -> None:
    with recorded(tmp_path) as trace, compat.install(name):
        line = Line()
        line.peer.send(b"x")
        while not line.received:
            asyncore.poll(0.05)
        line.peer.send(b"y")
        while len(line.received) < 2:
            asyncore.loop(0.05, count=1)
        line.close()
    assert {turn.loop for turn in trace.turns if turn.number} == {name}
    assert [call.data for call in trace.calls("handle_read")] == [b"x", b"y"]
    assert all(turn.channels == 1 for turn in trace.turns if turn.number)


def test_mixin_used_outside_a_channel_is_not_recorded(tmp_path: Path) -> None:
    class Parser:
        __slots__ = ("got",)

        def push(self, data: Any) -> int:
            return len(data)

        def set_terminator(self, terminator: Any) -> str:
            return "set"

        def send(self, data: Any) -> int:
            return len(data)

        def add_channel(self, map: Any) -> str:
            return "added"

    class Mixed(Parser, Line):  # type: ignore[misc]
        __slots__ = ()

    with recorded(tmp_path) as trace:
        line = Mixed()
        parser = Parser()
        assert parser.push(b"abc") == parser.send(b"abc") == 3
        assert parser.set_terminator(b"x") == "set"
        assert parser.add_channel({}) == "added"
        assert line.push(b"abc") == 3
        line._map.clear()
        line.socket.close()
    assert [call.channel and call.channel.number for call in trace.calls()] == [1]


def test_last_calls_of_each_thread_are_recorded(tmp_path: Path) -> None:
    done, end = threading.Event(), threading.Event()

    def work() -> None:
        for word in (b"a", b"b", b"c"):
            line.push(word)
        done.set()
        end.wait()

    with recorded(tmp_path) as trace:
        line = Line()
        threads = [threading.Thread(target=work) for _ in range(2)]
        threads[0].start()
        done.wait()
        end.set()
        threads[0].join()
        end.clear()
        done.clear()
        threads[1].start()
        done.wait()
    # One thread has ended, the other still runs.
    end.set()
    threads[1].join()
    line.close()
    pushed = [call.data for call in trace.calls("push")]
    assert sorted(map(str, pushed)) == sorted(map(str, [b"a", b"b", b"c"] * 2))


def test_calls_made_while_a_line_is_written_are_recorded(tmp_path: Path) -> None:
    def look(frame: FrameType, event: str, argument: object) -> None:
        # As a __del__, or a signal's handler: in the middle of anything.
        if event in LOOKS:
            line.push(b"x")

    with recorded(tmp_path) as trace:
        line = Line()
        sys.setprofile(look)
        try:
            for _ in range(20):
                line.set_terminator([])  # type: ignore[arg-type]
                line.handle_connect()
        finally:
            sys.setprofile(None)
        sent = len(line.peer.receive_available())
        line.close()
    assert sent
    assert sum(call.sent for call in trace.calls("push")) == sent
    assert trace.calls()[-1].depth == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_child_forked_in_a_call_writes_nothing(loop: str, tmp_path: Path) -> None:
    parent, children = os.getpid(), []
    held, forked = threading.Event(), threading.Event()

    def write() -> None:
        # Another thread is writing at this moment, and stays behind.
        assert Session.current is not None
        with Session.current._sink._lock:  # type: ignore[attr-defined]
            held.set()
            forked.wait()

    def fork() -> None:
        writer = threading.Thread(target=write)
        writer.start()
        held.wait()
        children.append(os.fork())
        if children[0]:
            forked.set()
            writer.join()
        else:
            signal.alarm(20)

    def live() -> None:
        in_a_turn(loop, fork)
        line = Line()
        line.push(b"%d" % os.getpid())
        line.close()

    with recorded(tmp_path) as trace:
        try:
            live()
            if os.getpid() != parent:
                os._exit(0 if vars(asyncore.dispatcher)["send"] is SEND else 1)
        finally:
            if os.getpid() != parent:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert [call.data for call in trace.calls("push")] == [b"%d" % parent]


SEND = vars(asyncore.dispatcher)["send"]


class Interrupts(Line):
    """Is interrupted after *after* calls and returns of any function."""

    after = 0

    def handle_connect(self) -> None:
        self.handle_expt()

    def handle_expt(self) -> None:
        self.ends += 1


@pytest.mark.parametrize("after", range(1, 20))
def test_ctrl_c_at_any_moment_leaves_the_depth_right(
    after: int, tmp_path: Path
) -> None:
    with compat.tracing(tmp_path / "a.trace"):
        assert Session.current is not None
        recorder = Session.current._trace.here.recorder
        line = Interrupts()
        events = ("c_call", "c_return", "c_exception")
        is_interrupted(after, line.handle_connect, ["wrappers.py"], events)
        assert recorder.depth == 0
        assert recorder.call == list(OUTSIDE)
        line.close()


class Leaves(Line):
    """Ends the loop as soon as it receives data."""

    ac_coalesce_writes = True

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(data)
        raise asyncore.ExitNow


@pytest.mark.parametrize("loop", ["select", "selectors"])
@pytest.mark.parametrize("kind", [Line, Leaves])
def test_ctrl_c_at_any_moment_of_a_turn_leaves_it(
    kind: type[Line], loop: str, tmp_path: Path
) -> None:
    def turn() -> None:
        # A loop with turns to come reads in another way than that of one turn.
        compat.loop(loop=loop, count=None if kind is Leaves else 1)

    files = ("wrappers.py", "instrument.py", "recorder.py")
    with compat.tracing(tmp_path / "a.trace"):
        assert Session.current is not None
        recorder = Session.current._trace.here.recorder
        for after in count(1):
            line, group = kind(), compat.BroadcastGroup()
            line.ac_coalesce_writes = True
            group.add(line)
            timer = compat.call_later(0, group.push, b"hello")
            line.peer.send(b"hello")
            interrupted = is_interrupted(after, turn, files)
            assert recorder.call == list(OUTSIDE), after
            timer.cancel()
            line.close()
            if not interrupted:
                break
    assert after > 50


@pytest.mark.parametrize("traced", [False, True])
def test_close_calls_no_handler_also_if_traced(traced: bool, tmp_path: Path) -> None:
    calls: list[str] = []

    class Session(compat.async_chat):
        ac_coalesce_writes = True

        def handle_close(self) -> None:
            calls.append("handle_close")

    ours, peer = socket.socketpair()
    session = Session(ours)
    peer.close()
    with compat.tracing(tmp_path / "a.trace") if traced else nullcontext():
        session.push(b"to a peer that is gone")
        session.close()
    assert calls == []
