"""A loop that is requested as poll2 behaves as ``asyncore.poll2``.

Rule 1: the original runs every test too, so that it confirms each expectation.
Rule 2: data for a channel, or a signal, ends a wait without a timeout.
"""

from __future__ import annotations

import asyncore
import errno
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import compat
from tests.support import OURS

pytestmark = pytest.mark.skipif(
    not hasattr(select, "poll"), reason="this platform has no poll"
)

# Runs one turn that is requested as poll2.
Turn = Callable[[Any, Any], None]


def by_compat_loop(loop: str, timeout: Any, map: Any) -> None:
    compat.loop(timeout, True, map, 1, loop=loop)


def by_installed_loop(loop: str, timeout: Any, map: Any) -> None:
    with compat.install(loop):
        asyncore.loop(timeout, True, map, 1)


def by_installed_poll2(loop: str, timeout: Any, map: Any) -> None:
    with compat.install(loop):
        asyncore.poll2(timeout, map)


def by_installed_poll3(loop: str, timeout: Any, map: Any) -> None:
    with compat.install(loop):
        asyncore.poll3(timeout, map)


def by_poll_that_is_poll2(loop: str, timeout: Any, map: Any) -> None:
    """As in programs that assign poll2 to poll."""
    with compat.install(loop), pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncore, "poll", asyncore.poll2)
        asyncore.loop(timeout, False, map, 1)


WAYS = (
    by_compat_loop,
    by_installed_loop,
    by_installed_poll2,
    by_installed_poll3,
    by_poll_that_is_poll2,
)


@pytest.fixture(params=["original", *((loop, way) for loop in OURS for way in WAYS)])
def turn(request: pytest.FixtureRequest) -> Turn:
    if request.param == "original":
        return asyncore.poll2
    loop, way = request.param
    return lambda timeout, map: way(loop, timeout, map)


class Channel(asyncore.dispatcher):
    """A channel that records its calls, with the interest that the test sets."""

    def __init__(self, map: Any, reads: bool = True, writes: bool = False) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(ours, map)
        self.reads, self.writes = reads, writes
        self.calls: list[str] = []

    def readable(self) -> bool:
        return self.reads

    def writable(self) -> bool:
        return self.writes

    def handle_read(self) -> None:
        self.calls.append(self.recv(4096).decode())

    def handle_write(self) -> None:
        self.calls.append("write")

    def handle_expt(self) -> None:
        self.calls.append("urgent")

    def handle_close(self) -> None:
        self.calls.append("close")
        self.close()

    def handle_error(self) -> None:
        self.calls.append("error")

    def close(self) -> None:
        super().close()
        self.peer.close()


@pytest.fixture
def map() -> Iterator[dict[Any, Any]]:
    map: dict[Any, Any] = {}
    yield map
    for channel in list(map.values()):
        channel.close()


class TimeIsUpError(Exception):
    """The alarm of a test."""


@pytest.fixture
def alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("timeout", [~0, -1e6, -0.001, None])
def test_timeout_without_end_waits_for_an_event(
    turn: Turn, map: dict[Any, Any], timeout: float | None
) -> None:
    channel = Channel(map)

    def readable() -> bool:
        threading.Thread(target=channel.peer.send, args=(b"x",)).start()
        return True

    channel.readable = readable  # type: ignore[method-assign]
    turn(timeout, map)
    assert channel.calls == ["x"]


@pytest.mark.parametrize("timeout", [-1, None])
def test_channel_that_wants_nothing_is_waited_for(
    turn: Turn, map: dict[Any, Any], alarm: None, timeout: float | None
) -> None:
    channel = Channel(map, reads=False)
    with pytest.raises(TimeIsUpError):
        turn(timeout, map)
    assert channel.calls == []


@pytest.mark.parametrize("timeout", [-0.0009, 0, 0.0, 0.0001])
def test_timeout_below_a_millisecond_ends_at_once(
    turn: Turn, map: dict[Any, Any], timeout: float
) -> None:
    channel = Channel(map)
    turn(timeout, map)
    assert channel.calls == []


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (float("nan"), ValueError),
        (float("inf"), OverflowError),
        (3e6, OverflowError),
        (-3e6, OverflowError),
    ],
)
def test_timeout_that_poll_refuses_is_an_error(
    turn: Turn, map: dict[Any, Any], timeout: float, error: type[Exception]
) -> None:
    Channel(map)
    with pytest.raises(error):
        turn(timeout, map)


def test_writer_without_a_reader_is_written_and_closed(
    turn: Turn, map: dict[Any, Any]
) -> None:
    class Pipe(asyncore.file_dispatcher):
        handle_write, handle_close = Channel.handle_write, Channel.handle_close

        def readable(self) -> bool:
            return False

    reader, writer = os.pipe()
    pipe: Any = Pipe(writer, map)
    pipe.calls = []
    # file_dispatcher makes a duplicate and adds it to asyncore's map.
    map[pipe._fileno] = asyncore.socket_map.pop(pipe._fileno, pipe)
    os.close(writer)
    os.close(reader)
    turn(1.0, map)
    assert pipe.calls == ["write", "close"]


def test_closed_socket_is_reported_in_map_order(
    turn: Turn, map: dict[Any, Any]
) -> None:
    first, second, third = (Channel(map) for _ in range(3))
    called: list[Any] = []
    for each in (first, third):
        each.peer.send(b"x")
        each.handle_read = lambda each=each: called.append(each)  # type: ignore[misc]
    second.handle_close = lambda: called.append(second)  # type: ignore[method-assign]
    second.socket.close()
    turn(1.0, map)
    assert called == [first, second, third]


def test_hang_up_closes_after_one_read(turn: Turn, map: dict[Any, Any]) -> None:
    channel = Channel(map)
    channel.handle_read = lambda: channel.calls.append("read")  # type: ignore[method-assign]
    channel.peer.send(b"last words")
    channel.peer.close()
    turn(1.0, map)
    assert channel.calls == ["read", "close"]


def test_hang_up_closes_a_channel_that_does_not_read(
    turn: Turn, map: dict[Any, Any]
) -> None:
    channel = Channel(map, reads=False, writes=True)
    channel.peer.close()
    turn(1.0, map)
    assert channel.calls == ["write", "close"]


def test_channel_gets_all_its_events_before_the_next_channel(
    turn: Turn, map: dict[Any, Any]
) -> None:
    calls: list[str] = []
    for name in "ab":
        channel = Channel(map, writes=True)
        channel.calls = calls
        channel.peer.send(name.encode())
    turn(1.0, map)
    assert calls == ["a", "write", "b", "write"]


@pytest.mark.skipif(
    sys.platform != "linux", reason="where urgent data has come at once"
)
@pytest.mark.parametrize("reads", [True, False])
def test_urgent_data_comes_only_to_a_channel_that_reads(
    turn: Turn, map: dict[Any, Any], reads: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        channel = Channel(map, reads, writes=True)
        channel.close()
        channel.set_socket(server.accept()[0], map)
        channel.connected = True
    with peer:
        peer.send(b"!", socket.MSG_OOB)
        select.select([], [], [channel.socket], 20)
        turn(1.0, map)
    assert channel.calls == (["write", "urgent"] if reads else ["write"])


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EBADF, errno.ENOENT])
def test_error_that_means_a_lost_peer_closes(
    turn: Turn, map: dict[Any, Any], number: int
) -> None:
    channel = Channel(map)

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    channel.handle_read = fail  # type: ignore[method-assign]
    channel.peer.send(b"x")
    turn(1.0, map)
    assert channel.calls == (["error"] if number == errno.ENOENT else ["close"])


def test_key_that_is_a_socket_is_never_called(turn: Turn, map: dict[Any, Any]) -> None:
    channel = Channel({})
    map[channel.socket] = channel
    channel.peer.send(b"x")
    turn(0.0, map)
    assert channel.calls == []
    map.clear()
    channel.close()


@pytest.mark.parametrize(("key", "error"), [(-1, ValueError), (None, TypeError)])
def test_key_that_is_no_descriptor_is_an_error_at_once(
    turn: Turn, map: dict[Any, Any], key: Any, error: type[Exception]
) -> None:
    wrong, after = Channel({}), Channel({})
    map.update({key: wrong, after._fileno: after})
    asked: list[bool] = []
    after.readable = lambda: asked.append(True)  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(error):
        turn(0.0, map)
    assert asked == []
    wrong.close()


def test_empty_map_is_not_waited_for(turn: Turn) -> None:
    turn(None, {})


def test_readwrite_of_a_program_is_called(
    turn: Turn, map: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(asyncore, "readwrite", lambda *args: called.append(args))
    channel = Channel(map)
    channel.peer.send(b"x")
    turn(1.0, map)
    assert called == [(channel, select.POLLIN)]


@pytest.mark.parametrize("use_poll", [False, True])
def test_timer_ends_a_wait_without_end(loop: str, use_poll: bool) -> None:
    if not use_poll and loop != "poll":
        pytest.skip("only poll takes a negative timeout by itself")
    channel = Channel(None)
    compat.call_later(0, channel.close)
    compat.loop(-1, use_poll, loop=loop)
    assert asyncore.socket_map == {}


def test_use_poll_without_a_poll_answers_as_poll(
    loop: str, map: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    with compat.install(loop):
        monkeypatch.delattr(select, "poll")
        for name in "ab":
            channel = Channel(map, writes=True)
            channel.calls = calls
            channel.peer.send(name.encode())
        asyncore.loop(1.0, True, map, 1)
    assert calls == ["a", "b", "write", "write"]


def test_poll_and_poll2_of_one_map_alternate(loop: str, map: dict[Any, Any]) -> None:
    if loop == "poll":
        pytest.skip("poll answers as poll2 always")
    calls: list[str] = []
    for _ in range(2):
        Channel(map, writes=True).calls = calls
    for _ in range(2):
        for use_poll, answer in (
            (False, ["1", "2", "write", "write"]),
            (True, ["1", "write", "2", "write"]),
        ):
            for number, channel in enumerate(map.values(), 1):
                channel.peer.send(b"%d" % number)
            calls.clear()
            compat.loop(1.0, use_poll, map, 1, loop=loop)
            assert calls == answer
