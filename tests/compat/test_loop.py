"""The choice of a loop, and the parts of loop() that equal asyncore's."""

from __future__ import annotations

import asyncore
import functools
import selectors
import socket
import sys
from typing import Any

import pytest

import compat
from compat._runtime import this_thread
from compat.cli import main
from compat.loop import FEW_MAPS, ORIGINALS
from tests.support import OURS, process, turn_once


class Probe(asyncore.dispatcher):
    """A channel on one end of a socket pair that counts its turns."""

    def __init__(self, map: Any = None) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(ours, map)
        self.asked = 0
        self.read: list[bytes] = []

    def readable(self) -> bool:
        self.asked += 1
        return True

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.read.append(self.recv(4096))

    def handle_close(self) -> None:
        self.close()

    def close(self) -> None:
        super().close()
        self.peer.close()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPAT_LOOP", raising=False)


def test_a_loop_requested_by_name_is_used(loop: str) -> None:
    assert compat.choose(loop) == compat.Choice(loop, "requested by name")


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(
        compat.UnknownLoopError,
        match="loop='epoll' is none of auto, select, poll, selectors",
    ):
        compat.loop(map={}, loop="epoll")


def test_a_loop_that_this_platform_lacks_is_another_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("select.poll")
    with pytest.raises(compat.MissingLoopError, match="does not have it"):
        compat.choose("poll")


def test_environment_variable_chooses_the_loop_of_auto(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPAT_LOOP", loop)
    assert compat.choose() == compat.Choice(loop, "from COMPAT_LOOP")
    assert compat.choose("select").why == "requested by name"


@pytest.mark.parametrize("nothing", ["", "auto"])
def test_variable_that_is_empty_or_auto_chooses_nothing(
    nothing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPAT_LOOP", nothing)
    assert compat.choose().why.startswith("auto: ")


def test_a_wrong_variable_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COMPAT_LOOP", "epoll")
    with pytest.raises(compat.UnknownLoopError, match="COMPAT_LOOP='epoll' is none of"):
        compat.choose()


def test_auto_takes_select_where_there_is_nothing_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compat.choose().name == "selectors"
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    assert compat.choose().name == "select"


def test_use_poll_with_the_select_loop_calls_poll2(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turned_by = []
    for name in ("poll", "poll2"):
        note = functools.partial(lambda name, *args: turned_by.append(name), name)
        monkeypatch.setitem(ORIGINALS, name, note)
    monkeypatch.setenv("COMPAT_LOOP", "select")
    compat.loop(use_poll=True, map={0: None}, count=1)
    compat.loop(use_poll=True, map={0: None}, count=1, loop="select")
    compat.loop(map={0: None}, count=1)
    monkeypatch.undo()
    assert turned_by == ["poll2", "poll2", "poll"]


def test_the_loop_ends_with_the_map(any_loop: str) -> None:
    probe = Probe()
    probe.peer.sendall(b"last words")
    probe.peer.shutdown(socket.SHUT_WR)
    if any_loop in OURS:
        compat.loop(loop=any_loop)
    else:
        asyncore.loop(use_poll=any_loop == "asyncore.poll2")
    assert probe.read == [b"last words", b""]


def test_count_is_the_number_of_turns(loop: str) -> None:
    probe = Probe()
    for count in (0, 1, 3):
        probe.asked = 0
        compat.loop(0, count=count, loop=loop)
        assert probe.asked == count
    probe.close()


def test_an_empty_map_is_no_turn_at_all(loop: str) -> None:
    compat.loop(map={}, loop=loop)
    compat.loop(map={}, count=5, loop=loop)


def test_the_map_is_asyncores_at_the_time_of_the_call(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine: dict[int, Any] = {}
    monkeypatch.setattr(asyncore, "socket_map", mine)
    probe = Probe()
    assert list(mine.values()) == [probe]
    compat.loop(0, count=1, loop=loop)
    assert probe.asked == 1
    probe.close()


def test_the_callers_map_is_never_touched(loop: str) -> None:
    class Untouchable(dict[int, Any]):
        def __setitem__(self, key: int, value: Any) -> None:
            assert value is probe, "the loop put something into the map"
            super().__setitem__(key, value)

    map = Untouchable()
    probe = None
    probe = Probe.__new__(Probe)
    Probe.__init__(probe, map)
    seen = []
    probe.handle_read = lambda: seen.append((probe.recv(9), len(map)))
    probe.peer.sendall(b"x")
    compat.loop(map=map, count=1, loop=loop)
    assert seen == [(b"x", 1)]
    probe.close()


def test_nested_loops_each_keep_their_selector() -> None:
    maps: list[dict[int, Any]] = [{} for _ in range(FEW_MAPS + 2)]
    probes = [Probe(map) for map in maps]
    kept: list[bool] = []

    def turn(depth: int) -> None:
        if depth == len(maps):
            turning = this_thread.running
            kept.extend(any(each.descriptors.fds()) for each in turning)
            return
        probes[depth].__dict__["handle_read"] = lambda: turn(depth + 1)
        probes[depth].peer.sendall(b"x")
        compat.loop(map=maps[depth], count=1, loop="selectors")

    turn(0)
    assert kept == [True] * len(maps)
    for probe in probes:
        probe.close()


def test_which_prints_the_loop_the_reason_and_the_origin(
    loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--which", "--loop", loop]) == 0
    printed = capsys.readouterr().out
    assert f"loop:     {loop}, " in printed
    assert "why:      requested by name" in printed
    origin = "standard library" if sys.version_info < (3, 12) else "pyasyncore 1."
    assert f"asyncore: {origin}" in printed


def test_which_with_an_unknown_loop_is_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--which", "--loop", "epoll"])
    assert caught.value.code == 2
    assert "is none of auto, select, poll, selectors" in capsys.readouterr().err


def test_which_runs_as_a_module_without_a_warning() -> None:
    with process(sys.executable, "-m", "compat", "--which") as which:
        which.wait_for("^loop:     selectors")
        assert which.wait() == 0
        assert which.err == []


def test_importing_compat_touches_nothing() -> None:
    script = (
        "import asyncore, asynchat; before = vars(asyncore).copy(), "
        "vars(asynchat).copy(); import compat; "
        "print(before == (vars(asyncore), vars(asynchat)))"
    )
    with process(sys.executable, "-W", "ignore", "-c", script) as imports:
        imports.wait_for("^True$")


@pytest.mark.parametrize("name", ["asyncore.poll", "select", "selectors"])
def test_key_closed_by_anothers_readable_is_selects_error(name: str) -> None:
    first, second = Probe(), Probe()
    # asyncore accepts an object with a fileno() as a key.
    del asyncore.socket_map[first.socket.fileno()]
    asyncore.socket_map = {first.socket: first, **asyncore.socket_map}  # type: ignore[dict-item]
    second.__dict__["readable"] = first.socket.close
    try:
        with pytest.raises(ValueError, match="negative"):
            turn_once(name)
    finally:
        asyncore.socket_map = {}
        second.close()
        first.close()


@pytest.mark.parametrize("name", ["asyncore.poll", "select", "selectors"])
def test_all_channels_are_polled_before_an_invalid_key_fails(
    name: str,
) -> None:
    closed = socket.socket()
    closed.close()
    map: dict[Any, Any] = {}
    before, wrong, after = Probe(map), Probe({}), Probe(map)
    map.clear()
    map.update({before._fileno: before, closed: wrong, after._fileno: after})
    for turn in (1, 2):
        with pytest.raises(ValueError, match=r"negative|-1"):
            turn_once(name, map)
        assert (before.asked, wrong.asked, after.asked) == (turn, turn, turn)
    for probe in (before, wrong, after):
        probe.close()
