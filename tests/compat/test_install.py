"""Installing into the originals: programs may use these as before.

Each habit of programs is played twice, on the originals and on an installed loop, and
must have the same result.

Out of reach: a program that imported a function of asyncore before
(``from asyncore import poll``) keeps that function. ``from asyncore import loop`` works
nevertheless, because ``loop`` looks ``poll`` up in the module.
"""

from __future__ import annotations

import abc
import asynchat
import asyncore
import inspect
import select
import socket
import sys
import threading
import time
from asynchat import async_chat as early_async_chat
from asyncore import loop as early_loop
from asyncore import poll as early_poll
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import compat
from compat.loop import enter
from tests.support import OURS

PARTS = [
    (asyncore, "poll"),
    (asyncore, "poll2"),
    (asyncore, "poll3"),
    (asyncore, "loop"),
    (asynchat, "async_chat"),
]

# Plays a program on the originals and on an installed loop; returns the common result.
Same = Callable[[Callable[[pytest.MonkeyPatch], Any]], Any]

each_part = pytest.mark.parametrize(
    ("module", "part"), PARTS, ids=lambda value: getattr(value, "__name__", value)
)


class Collector(asyncore.dispatcher):
    """A channel that collects its peer's data, and closes at the end."""

    def __init__(self, *said: bytes, map: Any = None) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(ours, map)
        self.heard: list[bytes] = []
        for each in said:
            self.peer.sendall(each)
        self.peer.shutdown(socket.SHUT_WR)

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        if data := self.recv(1):
            self.heard.append(data)

    def handle_close(self) -> None:
        self.close()

    def close(self) -> None:
        super().close()
        self.peer.close()

    def __del__(self) -> None:
        # Of a test that failed.
        self.socket.close()
        self.peer.close()


class Answers:
    """A chat session's handlers: answer each line in capitals, close after "end"."""

    line = b""

    def collect_incoming_data(self, data: bytes) -> None:
        self.line += data

    def found_terminator(self: Any) -> None:
        line, self.line = self.line, b""
        self.push(line.upper())
        if line == b"end":
            self.close_when_done()


@pytest.fixture(autouse=True)
def nothing_stays_installed() -> Iterator[None]:
    before = [getattr(module, part) for module, part in PARTS]
    yield
    after = [getattr(module, part) for module, part in PARTS]
    compat.uninstall()
    for (module, part), original in zip(PARTS, before, strict=True):
        setattr(module, part, original)
    assert after == before


@pytest.fixture
def same(loop: str) -> Same:
    def play(program: Callable[[pytest.MonkeyPatch], Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            expected = program(patch)
        with compat.install(loop), pytest.MonkeyPatch.context() as patch:
            found = program(patch)
        assert found == expected
        return found

    return play


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the loops that are entered from now on, by name."""
    names: list[str] = []

    def noted(name: str, *args: Any, **options: Any) -> Any:
        names.append(name)
        return enter(name, *args, **options)

    for module in ("compat.loop", "compat.install"):
        monkeypatch.setattr(sys.modules[module], "enter", noted)
    return names


# install and uninstall


def test_uninstall_restores_the_parts_that_install_replaced(
    loop: str,
) -> None:
    theirs = [getattr(module, part) for module, part in PARTS]
    compat.install(loop)
    ours = [getattr(module, part) for module, part in PARTS]
    compat.uninstall()
    assert not set(map(id, ours)) & set(map(id, theirs))
    assert ours[-1] is compat.async_chat
    assert [getattr(module, part) for module, part in PARTS] == theirs


def test_install_changes_no_other_part_of_the_modules(loop: str) -> None:
    def rest(module: ModuleType) -> dict[str, int]:
        ours = {part for where, part in PARTS if where is module}
        return {name: id(it) for name, it in vars(module).items() if name not in ours}

    before = rest(asyncore), rest(asynchat)
    with compat.install(loop):
        asyncore.loop(count=1)
        assert (rest(asyncore), rest(asynchat)) == before
    assert (rest(asyncore), rest(asynchat)) == before


def test_the_installed_loop_is_the_one_that_turns(
    loop: str, entered: list[str]
) -> None:
    with compat.install(loop):
        for turn in (asyncore.loop, asyncore.poll, asyncore.poll2, asyncore.poll3):
            line = Collector(b"a")
            turn()
            line.close()
            assert (line.heard, set(entered)) == ([b"a"], {loop})
            entered.clear()


def test_installed_twice_is_installed_once(loop: str, entered: list[str]) -> None:
    original = asyncore.poll
    compat.install(loop)
    compat.install(loop)
    Collector(b"a")
    asyncore.loop()
    compat.uninstall()
    assert asyncore.poll is original
    assert set(entered) == {loop}


def test_the_second_time_may_name_another_loop(entered: list[str]) -> None:
    for name in OURS:
        compat.install(name)
        Collector()
        asyncore.loop()
    compat.uninstall()
    assert list(dict.fromkeys(entered)) == list(OURS)


def test_uninstall_without_install_does_nothing() -> None:
    before = dict(vars(asyncore))
    compat.uninstall()
    compat.uninstall()
    assert dict(vars(asyncore)) == before


def test_a_with_statement_restores_the_earlier_state(
    loop: str, entered: list[str]
) -> None:
    with compat.install("poll"):
        with compat.install(loop):
            Collector()
            asyncore.loop()
        Collector()
        asyncore.loop()
        assert asyncore.poll is not early_poll
    assert asyncore.poll is early_poll
    assert list(dict.fromkeys(entered)) == list(dict.fromkeys([loop, "poll"]))


def test_an_exception_leaves_nothing_installed(loop: str) -> None:
    with pytest.raises(ZeroDivisionError), compat.install(loop):
        raise ZeroDivisionError
    assert asyncore.poll is early_poll


def test_unknown_or_missing_loop_installs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(compat.UnknownLoopError):
        compat.install("epoll")
    monkeypatch.delattr("select.poll")
    with pytest.raises(compat.MissingLoopError):
        compat.install("poll")
    assert asyncore.poll is early_poll


def test_install_fixes_the_meaning_of_auto(
    loop: str, entered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPAT_LOOP", loop)
    with compat.install():
        monkeypatch.setenv("COMPAT_LOOP", "epoll")
        Collector()
        asyncore.loop()
    assert set(entered) == {loop}


def test_a_loop_that_was_imported_before_turns_ours(
    loop: str, entered: list[str]
) -> None:
    with compat.install(loop):
        line = Collector(b"a")
        early_loop()
    assert line.heard == [b"a"]
    assert set(entered) == {loop}


def test_poll_imported_before_install_stays_original(
    loop: str, entered: list[str]
) -> None:
    with compat.install(loop):
        line = Collector(b"a")
        early_poll()
        line.close()
    assert line.heard == [b"a"]
    assert entered == []


def test_uninstalled_by_a_handler_the_loop_goes_on_to_its_end(loop: str) -> None:
    line = Collector(b"a", b"b")
    line.handle_read = lambda: (Collector.handle_read(line), compat.uninstall())
    compat.install(loop)
    asyncore.loop()
    assert line.heard == [b"a", b"b"]
    assert asyncore.loop is early_loop


def test_installed_by_a_handler_the_loop_goes_on_to_its_end(loop: str) -> None:
    line = Collector(b"a", b"b")
    line.handle_read = lambda: (Collector.handle_read(line), compat.install(loop))
    asyncore.loop()
    compat.uninstall()
    assert line.heard == [b"a", b"b"]


def test_each_thread_turns_a_map_of_its_own(loop: str) -> None:
    maps: list[dict[int, Any]] = [{} for _ in range(4)]
    lines = [Collector(b"a", b"b", map=map) for map in maps]
    with compat.install(loop):
        threads = [
            threading.Thread(target=asyncore.loop, args=(30, False, map))
            for map in maps
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [line.heard for line in lines] == [[b"a", b"b"]] * 4


# Replacements of a program


@each_part
def test_uninstall_leaves_a_programs_replacement(
    module: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = SimpleNamespace()
    monkeypatch.setattr(module, part, getattr(module, part))
    compat.install()
    setattr(module, part, mine)
    compat.uninstall()
    assert getattr(module, part) is mine


@each_part
def test_second_install_leaves_a_programs_replacement(
    module: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = SimpleNamespace()
    with compat.install("select"):
        with monkeypatch.context() as patch, compat.install("poll"):
            patch.setattr(module, part, mine)
            compat.install("select")
            assert getattr(module, part) is mine
        assert getattr(module, part).__module__.startswith("compat")


@each_part
def test_first_install_leaves_a_programs_replacement(
    module: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = SimpleNamespace()
    monkeypatch.setattr(module, part, mine)
    with compat.install():
        assert getattr(module, part) is mine
    assert getattr(module, part) is mine


def test_original_restored_by_a_program_is_replaced_again(loop: str) -> None:
    with compat.install(loop):
        ours, asyncore.poll = asyncore.poll, early_poll
        compat.install(loop)
        assert asyncore.poll is ours


def wrap_poll(patch: pytest.MonkeyPatch, turns: list[float]) -> None:
    """Wrap asyncore's poll, as programs do to observe the loop."""
    wrapped = asyncore.poll

    def mine(timeout: float = 0.0, map: Any = None) -> None:
        turns.append(timeout)
        wrapped(timeout, map)

    patch.setattr(asyncore, "poll", mine)


def test_wrapped_poll_is_called_by_the_loop(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        turns: list[float] = []
        wrap_poll(patch, turns)
        line = Collector(b"a")
        asyncore.loop(7.0)
        return turns, line.heard

    assert same(program) == ([7.0, 7.0], [b"a"])


def test_wrapper_of_our_poll_works_after_a_second_install(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    with compat.install(loop), monkeypatch.context() as patch:
        wrap_poll(patch, turns)
        compat.install(loop)
        line = Collector(b"a")
        asyncore.loop(7.0)
    assert (turns, line.heard) == ([7.0, 7.0], [b"a"])


def test_wrapper_of_our_poll_works_after_uninstall(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    monkeypatch.setattr(asyncore, "poll", early_poll)
    with compat.install(loop):
        wrap_poll(pytest.MonkeyPatch(), turns)
    line = Collector(b"a")
    asyncore.loop(7.0)
    assert (turns, line.heard) == ([7.0, 7.0], [b"a"])


# The habits


def test_socket_map_may_be_another_dict(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        before = Collector(b"before")
        patch.setattr(asyncore, "socket_map", {})
        line = Collector(b"a")
        asyncore.loop()
        before.close()
        return before.heard, line.heard

    assert same(program) == ([], [b"a"])


def test_poll_may_be_the_programs_own(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        calls: list[Any] = []
        patch.setattr(asyncore, "poll", lambda *args: calls.append(("poll", *args)))
        patch.setattr(asyncore, "poll2", lambda *args: calls.append(("poll2", *args)))
        line = Collector()
        asyncore.loop(1.5, count=2)
        asyncore.loop(2.5, use_poll=True, count=1)
        line.close()
        names = [(name, timeout) for name, timeout, _ in calls]
        return names, all(map is asyncore.socket_map for _, _, map in calls)

    calls = [("poll", 1.5), ("poll", 1.5), ("poll2", 2.5)]
    assert same(program) == (calls, True)


def test_loop_may_be_the_programs_own(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        def mine(turns: int) -> None:
            for _ in range(turns):
                asyncore.poll(5.0, asyncore.socket_map)

        patch.setattr(asyncore, "loop", mine)
        line = Collector(b"abc")
        asyncore.loop(2)
        line.close()
        return line.heard

    assert same(program) == [b"a", b"b"]


def test_select_may_be_the_programs_own(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        calls: list[Any] = []

        def mine(r: Any, w: Any, x: Any, timeout: Any) -> Any:
            calls.append((len(r), len(w), len(x), timeout))
            return select.select(r, w, x, timeout)

        patch.setattr(asyncore, "select", SimpleNamespace(select=mine))
        line = Collector(b"a")
        asyncore.loop(4.0, use_poll=True)
        return calls, line.heard

    assert same(program) == ([(1, 0, 1, 4.0)] * 2, [b"a"])


def test_the_select_module_may_be_patched(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        calls: list[Any] = []
        real = select.select

        def mine(r: Any, w: Any, x: Any, timeout: Any) -> Any:
            calls.append((len(r), len(w), len(x), timeout))
            return real(r, w, x, timeout)

        patch.setattr(select, "select", mine)
        line = Collector(b"a")
        asyncore.loop(4.0)
        asyncore.poll(0.0, {0: line})
        return calls, line.heard

    assert same(program) == ([(1, 0, 1, 4.0), (1, 0, 1, 4.0), (1, 0, 1, 0.0)], [b"a"])


def test_the_poll_of_the_select_module_may_be_patched(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        waited: list[Any] = []
        real = select.poll

        class Mine:
            def __init__(self) -> None:
                self.register = (kernel := real()).register
                self.poll = lambda left: (waited.append(left), kernel.poll(left))[1]

        patch.setattr(select, "poll", Mine)
        line = Collector(b"a")
        asyncore.loop(4.0, use_poll=True)
        return waited, line.heard

    assert same(program) == ([4000, 4000], [b"a"])


def test_socket_may_be_the_programs_own(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        made: list[Any] = []

        def mine(*args: Any) -> socket.socket:
            made.append(args)
            return socket.socket(*args)

        patch.setattr(
            asyncore,
            "socket",
            SimpleNamespace(**{**vars(socket), "socket": mine}),
        )
        channel = asyncore.dispatcher()
        channel.create_socket()
        channel.close()
        return made

    assert same(program) == [(socket.AF_INET, socket.SOCK_STREAM)]


def test_async_chat_may_be_the_programs_own(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        class Mine(asynchat.async_chat):
            pass

        patch.setattr(asynchat, "async_chat", Mine)

        class Session(Answers, asynchat.async_chat):
            pass

        return issubclass(Session, Mine), converse(Session)

    assert same(program) == (True, ANSWER)


def test_the_settings_of_async_chat_may_be_changed(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        class Session(Answers, asynchat.async_chat):
            def recv(self, size: int) -> bytes:
                sizes.append(size)
                return super().recv(size)

        sizes: list[int] = []
        patch.setattr(asynchat.async_chat, "ac_in_buffer_size", 3)
        return converse(Session), sizes[0]

    assert same(program) == (ANSWER, 3)


def test_the_methods_of_async_chat_may_be_changed(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        class Session(Answers, asynchat.async_chat):
            pass

        push = asynchat.async_chat.push
        patch.setattr(
            asynchat.async_chat, "push", lambda self, data: push(self, data + b"!")
        )
        return converse(Session)

    assert same(program) == b"HELLO!END!"


def test_reading_may_be_the_programs_own(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        read: list[Any] = []

        def mine(line: Collector, flags: int = 0) -> None:
            read.append(line)
            line.close()

        # poll reads by the one, poll2 by the other.
        patch.setattr(asyncore, "read", mine)
        patch.setattr(asyncore, "readwrite", mine)
        line = Collector(b"a")
        asyncore.loop()
        return read == [line], line.heard

    assert same(program) == (True, [])


# The function that dispatches, and the name by which poll2 calls it.
DISPATCH = ("read", "write", "_exception", "readwrite")


@pytest.mark.parametrize("use_poll", [False, True])
@pytest.mark.parametrize("name", DISPATCH)
def test_replaced_dispatch_function_is_called_as_before(
    same: Same, name: str, use_poll: bool
) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        called: list[Any] = []
        patch.setattr(asyncore, name, lambda *args: called.append(args[1:]))
        line = Collector(b"a")
        line.writable = lambda: True
        asyncore.loop(1.0, use_poll, count=1)
        line.close()
        return called, line.heard

    same(program)


def idle_turns() -> None:
    """Run turns in which no channel has interest."""
    line = Collector()
    line.readable = lambda: False
    asyncore.loop(0.002, count=2)
    asyncore.poll(0.001)
    line.close()


def test_replaced_time_module_sleeps_in_an_idle_turn(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        slept: list[float] = []
        patch.setattr(asyncore, "time", SimpleNamespace(sleep=slept.append))
        idle_turns()
        return slept

    assert same(program) == [0.002, 0.002, 0.001]


def test_patched_time_sleep_sleeps_in_an_idle_turn(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        slept: list[float] = []
        patch.setattr(time, "sleep", slept.append)
        idle_turns()
        return slept

    assert same(program) == [0.002, 0.002, 0.001]


def test_loop_falls_back_when_the_process_loses_poll(same: Same) -> None:
    """As with eventlet, which removes poll."""

    def program(patch: pytest.MonkeyPatch) -> Any:
        patch.delattr(select, "poll")
        lines = [Collector(b"a"), Collector(b"b"), Collector(b"c")]
        asyncore.loop()
        asyncore.poll(0.0, {0: lines[0]})
        return [line.heard for line in lines]

    assert same(program) == [[b"a"], [b"b"], [b"c"]]


def test_replaced_exit_now_does_not_leave_the_loop(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        class MineError(Exception):
            pass

        theirs, errors = asyncore.ExitNow, []
        patch.setattr(asyncore, "ExitNow", MineError)
        for kind in (MineError, theirs):
            line = Collector(b"a")
            line.handle_read = lambda kind=kind: raise_it(kind)
            line.handle_error = lambda kind=kind: errors.append(kind)
            try:
                asyncore.loop(count=1)
            except theirs:
                errors.append("left")
            line.close()
        return [getattr(each, "__name__", each) for each in errors]

    assert same(program) == ["MineError", "left"]


def test_timer_leaves_the_loop_with_the_exit_now_of_the_import(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = asyncore.ExitNow
    monkeypatch.setattr(asyncore, "ExitNow", ZeroDivisionError)
    line = Collector(b"a")
    line.readable = lambda: False
    compat.call_later(0, raise_it, theirs)
    with pytest.raises(theirs):
        compat.loop(1.0, loop=loop)
    line.close()


def raise_it(kind: type[Exception]) -> None:
    raise kind


@pytest.mark.parametrize("name", ["poll", "poll2", "poll3"])
def test_a_program_may_have_a_loop_of_its_own(same: Same, name: str) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        turn, map, turns = getattr(asyncore, name), {}, 0
        line = Collector(b"ab", map=map)
        while map:
            turn(5.0, map)
            turns += 1
        turn(5.0, {})
        turn()
        return line.heard, turns

    heard, turns = same(program)
    # poll2 comes with the end of the connection once more, or not, as it likes.
    assert (heard, turns) == ([b"a", b"b"], 3)


def test_poll_called_by_a_program_keeps_its_timeout(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        ours, peer = socket.socketpair()
        channel = asyncore.dispatcher(ours)
        channel.writable = lambda: False
        asyncore.poll()
        asyncore.poll(0.001)
        asyncore.poll(timeout=0.001, map=asyncore.socket_map)
        channel.close()
        peer.close()

    same(program)


def test_poll_without_any_interest_waits_its_whole_timeout(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        line = Collector(b"a")
        line.readable = lambda: False
        began = time.monotonic()
        asyncore.poll(0.01)
        line.close()
        return line.heard, time.monotonic() - began >= 0.01

    assert same(program) == ([], True)


@pytest.mark.parametrize("use_poll", [True, False])
def test_loop_takes_use_poll(same: Same, use_poll: bool) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        line = Collector(b"a")
        asyncore.loop(use_poll=use_poll)
        return line.heard

    assert same(program) == [b"a"]


def test_loop_takes_all_four_by_position(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        map: dict[int, Any] = {}
        line, other = Collector(b"abcd", map=map), Collector(b"other")
        asyncore.loop(5.0, True, map, 3)
        line.close()
        other.close()
        return line.heard, other.heard

    assert same(program) == ([b"a", b"b", b"c"], [])


@pytest.mark.parametrize("count", [-1, 0, 1, 2, 100])
def test_loop_takes_a_map_and_a_count(same: Same, count: int) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        map: dict[int, Any] = {}
        line = Collector(b"abc", map=map)
        asyncore.loop(map=map, count=count)
        line.close()
        return line.heard

    assert same(program) == [b"a", b"b", b"c"][: max(count, 0)]


def test_close_all_in_a_handler_ends_the_loop(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        lines = [Collector(b"a"), Collector(b"b"), Collector(b"c")]
        lines[1].handle_read = asyncore.close_all
        asyncore.loop()
        return [line.heard for line in lines], asyncore.socket_map

    assert same(program) == ([[b"a"], [], []], {})


def test_close_all_takes_a_map(same: Same) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        map: dict[int, Any] = {}
        line = Collector(b"a", map=map)
        asyncore.loop(map=map, count=1)
        asyncore.close_all(map)
        return line.heard, map

    assert same(program) == ([b"a"], {})


@pytest.mark.parametrize("name", ["poll", "poll2", "poll3", "loop"])
def test_a_program_may_look_at_the_signature(same: Same, name: str) -> None:
    def program(patch: pytest.MonkeyPatch) -> Any:
        function = getattr(asyncore, name)
        parameters = [
            (each.name, each.kind, each.default)
            for each in inspect.signature(function).parameters.values()
        ]
        return function.__name__, function.__defaults__, parameters

    assert same(program)[0] == {"poll3": "poll2"}.get(name, name)


def test_poll3_is_another_name_of_poll2(same: Same) -> None:
    assert same(lambda patch: asyncore.poll3 is asyncore.poll2) is True


# Classes derived before and after


ANSWER = b"HELLOEND"


def converse(kind: Any) -> bytes:
    """Return a peer's data from a session of this class that asyncore.loop() runs."""
    ours, peer = socket.socketpair()
    with peer:
        session = kind(ours)
        session.set_terminator(b"\n")
        peer.sendall(b"hello\nend\n")
        asyncore.loop()
        return peer.recv(1000)


class DerivedBefore(Answers, asynchat.async_chat):
    """A class that calls its base class by super(), or not at all."""

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)

    def push(self, data: bytes) -> None:
        super().push(data)


class DerivedByModuleName(Answers, asynchat.async_chat):
    """A class that calls its base by the name in the module: ours, once installed."""

    def __init__(self, sock: Any) -> None:
        asynchat.async_chat.__init__(self, sock)

    def push(self, data: bytes) -> None:
        asynchat.async_chat.push(self, data)

    def close_when_done(self) -> None:
        asynchat.async_chat.close_when_done(self)

    def handle_close(self) -> None:
        asynchat.async_chat.close(self)


class DerivedByImportedName(Answers, early_async_chat):
    """A class that calls its base class by an imported name."""

    def __init__(self, sock: Any) -> None:
        early_async_chat.__init__(self, sock)

    def push(self, data: bytes) -> None:
        early_async_chat.push(self, data)


class DerivedWithAnotherMetaclass(Answers, asynchat.async_chat, abc.ABC):
    """A class with its own metaclass."""


DERIVED = [
    DerivedBefore,
    DerivedByModuleName,
    DerivedByImportedName,
    DerivedWithAnotherMetaclass,
]

each_derived = pytest.mark.parametrize("kind", DERIVED)


@each_derived
def test_class_derived_before_install_works_while_installed(
    same: Same, kind: Any
) -> None:
    assert same(lambda patch: converse(kind)) == ANSWER


@each_derived
def test_channel_made_before_install_works_while_installed(
    loop: str, kind: Any
) -> None:
    ours, peer = socket.socketpair()
    session = kind(ours)
    session.set_terminator(b"\n")
    peer.sendall(b"hello\nend\n")
    asyncore.poll(1.0)
    with compat.install(loop), peer:
        asyncore.loop()
        assert peer.recv(1000) == ANSWER


@each_derived
def test_channel_made_before_is_no_instance_of_our_class(loop: str, kind: Any) -> None:
    """A known difference. A metaclass could hide it, but would conflict with others."""
    session = kind(None)
    with compat.install(loop):
        assert not isinstance(session, asynchat.async_chat)
    assert isinstance(session, asynchat.async_chat)


def test_class_derived_while_installed_works_after_uninstall(loop: str) -> None:
    with compat.install(loop):

        class Session(Answers, asynchat.async_chat):
            def push(self, data: bytes) -> None:
                asynchat.async_chat.push(self, data)

        assert converse(Session) == ANSWER
    assert converse(Session) == ANSWER
    assert issubclass(Session, asynchat.async_chat)


def test_a_class_may_mix_async_chat_with_any_metaclass(loop: str) -> None:
    class Meta(type):
        pass

    with compat.install(loop):

        class Abstract(Answers, asynchat.async_chat, abc.ABC):
            pass

        class Other(Answers, asynchat.async_chat, metaclass=Meta):
            pass

        assert converse(Abstract) == converse(Other) == ANSWER
