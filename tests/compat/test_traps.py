"""Traps for loops that keep registrations in the kernel; ours avoid them.

A test here is a script: a generator that prepares a situation and yields predicates
that must become true while the loop runs. Each script is played turn by turn and in one
running ``loop()``, on each of our loops and on asyncore's own ``poll``, whose verified
substitute ours thereby is; test_traps_are_traps.py plays it on a naive epoll loop.

Rule 1: nothing waits for the clock. A fence proves that no event comes and that a loop
does not spin: a byte sent when the loop finds nothing ready and is about to block, so
that the loop must have come to rest before the byte arrives.
Rule 2: where poll2 or select is left out, the reason stands beside it.
"""

from __future__ import annotations

import asyncore
import errno
import fcntl
import inspect
import os
import select
import selectors
import signal
import socket
import sys
import threading
import time
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import compat
from tests.support import DEADLINE, ORIGINALS, OURS, Peer, turn_until

Holds = Callable[[], object]
Script = Iterator[Holds]

# The original functions; a script replaces those in the module.
real_select, real_poll, real_epoll = select.select, select.poll, select.epoll


class MissedError(AssertionError):
    """An expected event did not come."""


class SpunError(AssertionError):
    """The loop woke again and again without work."""


class Waits:
    """A layer between a loop and the kernel's waits that detects when the loop rests.

    Attributes:
        when_idle: called once, when a wait has found nothing and is about to block.
        rests: number of waits that have blocked.
        made: number of epolls that were made.
        changes: number of registration changes on epolls.
        limit: maximum waits in a row without blocking; no script needs as many.
    """

    def __init__(self) -> None:
        self.when_idle: Callable[[], object] | None = None
        self.rests = self.made = self.changes = self._awake = 0
        self.limit = 200
        self._patched = pytest.MonkeyPatch()

    def __enter__(self) -> Waits:
        self._awake = 0
        self._patched.setattr(select, "select", self._select)
        self._patched.setattr(select, "poll", lambda: _Poll(self, real_poll()))
        self._patched.setattr(select, "epoll", lambda: _Epoll(self, real_epoll()))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._patched.undo()

    def around(self, wait: Callable[[Any], Any], left: float | None) -> Any:
        """Call ``wait(left)``, but call ``when_idle`` before it blocks."""
        found = wait(0)
        if left == 0 or any(found):
            self._awake += 1
            if self._awake > self.limit:
                raise SpunError(f"{self._awake} waits in a row did not block: {found}")
            return found
        self._awake = 0
        self.rests += 1
        if self.when_idle is not None:
            call, self.when_idle = self.when_idle, None
            call()
        return wait(left)

    def _select(self, r: Any, w: Any, x: Any, left: float | None = None) -> Any:
        return self.around(lambda seconds: real_select(r, w, x, seconds), left)


class _Poll:
    def __init__(self, waits: Waits, real: Any) -> None:
        self._waits, self._real = waits, real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def poll(self, left: float | None = None) -> Any:
        return self._waits.around(self._real.poll, left)


class _Epoll(_Poll):
    def __init__(self, waits: Waits, real: Any) -> None:
        super().__init__(waits, real)
        waits.made += 1

    def register(self, *args: Any) -> None:
        self._waits.changes += 1
        self._real.register(*args)

    def modify(self, *args: Any) -> None:
        self._waits.changes += 1
        self._real.modify(*args)

    def poll(self, left: float | None = None, most: int = -1) -> Any:
        return self._waits.around(lambda seconds: self._real.poll(seconds, most), left)


class Turner:
    """Play a script turn by turn."""

    def __init__(self, name: str, kind: type[Records] | None = None) -> None:
        self.name = name
        self.kind = kind or Recorder

    def loop(self, timeout: Any = 30.0, map: Any = None, count: Any = None) -> None:
        """Run ``asyncore.loop`` on this loop."""
        if self.name in ORIGINALS:
            asyncore.loop(timeout, self.name == "asyncore.poll2", map, count)
        else:
            compat.loop(timeout, map=map, count=count, loop=self.name)

    def until(self, holds: Holds, map: Any) -> None:
        """Run the loop until *holds()*."""
        turn_until(self.name, holds, map)

    def play(self, script: Script, map: Callable[[], Any]) -> None:
        """Run each step as soon as the previously yielded predicate holds."""
        for holds in script:
            self.until(holds, map())


class Running(Turner):
    """Play a script in one running loop: its steps run between two turns."""

    def play(self, script: Script, map: Callable[[], Any]) -> None:
        holds = next(script)
        end = time.monotonic() + DEADLINE
        ended: list[BaseException] = []

        def step() -> None:
            nonlocal holds
            try:
                while holds():
                    holds = next(script)
                if time.monotonic() > end:
                    raise MissedError(f"it still does not hold: {holds}")
            except BaseException as error:
                ended.append(error)
                raise asyncore.ExitNow from None
            compat.call_later(0.005, step, map=turned)

        turned = map()
        timer = compat.call_later(0, step, map=turned)
        with suppress(asyncore.ExitNow):
            self.loop(DEADLINE, turned)
        timer.cancel()
        error = ended[0] if ended else MissedError("the loop ended before the script")
        if not isinstance(error, StopIteration):
            raise error


# One running loop(), without and with channels that announce.
RUNNING = tuple(f"{name}, running" for name in OURS)
ANNOUNCING = ("selectors, announcing",)
ALL = (*ORIGINALS, *OURS, *RUNNING, *ANNOUNCING)


def without(*names: str) -> tuple[str, ...]:
    """Return all loops but these."""
    return tuple(name for name in ALL if name.split(", ")[0] not in names)


# poll2 differs: the reason is at each test that leaves it out.
AS_SELECT = without("asyncore.poll2", "poll")
# A closed descriptor among others: select() raises EBADF out of the loop.
AS_POLL = without("asyncore.poll", "select")
# Where the selectors loop does better than both.
BEYOND = tuple(name for name in AS_SELECT if name in AS_POLL)


@pytest.fixture
def turner(request: pytest.FixtureRequest) -> Turner:
    if request.param in ANNOUNCING:
        return Running(request.param.split(", ")[0], Announcing)
    if request.param in RUNNING:
        return Running(request.param.split(", ")[0])
    return Turner(request.param)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def on(names: tuple[str, ...]) -> Any:
    """Run a test, which calls ``turner.loop``, on the loops of these names."""
    called = [name for name in names if name not in (*RUNNING, *ANNOUNCING)]
    return pytest.mark.parametrize("turner", called, indirect=True)


def script(names: tuple[str, ...]) -> Callable[[Callable[..., Script]], Any]:
    """Make a test of a script: it is played on the loops of these names."""

    def decorate(written: Callable[..., Script]) -> Any:
        def test(turner: Turner, stage: Stage, **given: Any) -> None:
            stage.play(turner, written(stage, **given))

        own = [*inspect.signature(written).parameters.values()]
        turned = inspect.Parameter("turner", inspect.Parameter.KEYWORD_ONLY)
        test.__dict__["__signature__"] = inspect.Signature([*own, turned])
        test.__dict__["script"] = written
        test.__dict__["pytestmark"] = [*getattr(written, "pytestmark", ())]
        test.__name__ = test.__qualname__ = written.__name__
        return pytest.mark.parametrize("turner", names, indirect=True)(test)

    return decorate


class Pair(NamedTuple):
    """A connected socket for a channel, and the peer's end of it."""

    sock: socket.socket
    peer: Peer


class Records(asyncore.dispatcher):
    """A mixin that records the calls of a channel.

    Attributes:
        on: by the event's name, an action instead of the usual one.
    """

    reads: bool
    writes: bool

    def __init__(self, stage: Stage, name: str, reads: bool, writes: bool) -> None:
        super().__init__(map=stage.map)
        self.stage, self.name = stage, name
        self.reads, self.writes = reads, writes
        self.got = b""
        self.on: dict[str, Callable[[], object]] = {}

    def handle_read(self) -> None:
        self._note("read", self.take)

    def handle_write(self) -> None:
        self._note("write", self.rest)

    def handle_expt(self) -> None:
        self._note("expt", lambda: self.socket.recv(1, socket.MSG_OOB))

    def handle_connect(self) -> None:
        self._note("connect", lambda: None)

    def handle_accepted(self, sock: socket.socket, addr: Any) -> None:
        self._note("accepted", sock.close)

    def handle_close(self) -> None:
        self._note("close", self.close)

    def handle_error(self) -> None:
        self.stage.errors.append(sys.exc_info()[1])
        self._note("error", self.close)

    def take(self, size: int = 4096) -> None:
        """Read the available data."""
        self.got += self.recv(size)

    def rest(self) -> None:
        """End the write interest."""
        self.writes = False

    def _note(self, event: str, usual: Callable[[], object]) -> None:
        if self.name != "fence":
            self.stage.calls.append(f"{self.name}.{event}")
        self.on.get(event, usual)()


class Recorder(Records):
    """A channel with its own ``readable``, which the loop calls in every turn."""

    def readable(self) -> Any:
        return self.reads

    def writable(self) -> Any:
        return self.writes


class Announcing(Records, compat.async_chat):
    """A channel with the original ``readable``, always true; it announces the rest."""

    @property
    def writes(self) -> bool:  # type: ignore[override]
        return bool(self.producer_fifo)

    @writes.setter
    def writes(self, writes: bool) -> None:
        self.producer_fifo.clear()
        if writes:
            self.producer_fifo.append(b"not sent by anything here")
        self.interest_changed()


class Stage:
    """A map, its channels and their peers; all of them are closed at the end.

    Attributes:
        map: has a channel for the fence while a script is played.
        calls: ``channel.event``, in order.
        errors: the exceptions that reached ``handle_error``.
    """

    def __init__(self) -> None:
        self.map: Any = {}
        self.calls: list[str] = []
        self.errors: list[BaseException | None] = []
        self.waits = Waits()
        self.turner = Turner("select")
        self.at_end = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.at_end.close()

    def play(self, turner: Turner, script: Script) -> None:
        """Let *turner* run the steps. A forked child never returns from this call."""
        self.turner, process = turner, os.getpid()
        fence = self.pair()
        self._fence, self._fence_peer = self.channel("fence", fence.sock), fence.peer
        try:
            with self.waits:
                turner.play(script, lambda: self.map)
        except BaseException:
            if os.getpid() != process:
                os._exit(1)
            raise

    def nothing_comes(self) -> Script:
        """Yield until the loop rests; no channel may be called before."""
        before, fences = list(self.calls), len(self._fence.got) + 1
        self.waits.when_idle = lambda: self._fence_peer.send("|")
        yield lambda: len(self._fence.got) == fences
        assert self.calls == before

    def pair(self) -> Pair:
        """Return a socket pair."""
        return self._kept(*socket.socketpair())

    def tcp(self) -> Pair:
        """Return a TCP connection, which has resets and urgent data."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = socket.create_connection(server.getsockname())
            return self._kept(server.accept()[0], peer)

    def _kept(self, sock: socket.socket, peer: socket.socket) -> Pair:
        pair = Pair(sock, Peer(peer))
        self.at_end.callback(pair.sock.close)
        self.at_end.callback(pair.peer.close)
        return pair

    def channel(
        self, name: str, sock: Any = None, reads: bool = True, writes: bool = False
    ) -> Records:
        """Return a channel in the map; without *sock*, it has no socket yet."""
        kind = self.turner.kind if reads else Recorder
        channel = kind(self, name, reads, writes)
        if sock is not None:
            sock.setblocking(False)
            channel.set_socket(sock)
            channel.connected = True
        self.at_end.callback(channel.close)
        return channel

    def file(self, name: str, fd: int, reads: bool, writes: bool) -> Records:
        """Return a channel of a file, as file_dispatcher makes one; it owns *fd*."""
        channel = self.channel(name, None, reads, writes)
        os.set_blocking(fd, False)
        channel.set_socket(asyncore.file_wrapper(fd))
        channel.connected = True
        os.close(fd)
        return channel

    def listener(self, name: str, reads: bool, writes: bool) -> Records:
        """Return a channel that listens on a port of 127.0.0.1."""
        channel = self.channel(name, None, reads, writes)
        channel.create_socket()
        channel.bind(("127.0.0.1", 0))
        channel.listen(5)
        return channel

    def fork(self, run: Callable[[], object]) -> int:
        """Run it in a child; return the child's number."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run()
                status = 0
            finally:
                os._exit(status)
        return child


def close_and_reuse(channel: Records, sock: socket.socket) -> socket.socket:
    """Close the channel; return *sock* moved to the number that it had."""
    fd = channel.socket.fileno()
    channel.close()
    if sock.fileno() == fd:
        return sock
    moved = socket.socket(fileno=os.dup2(sock.fileno(), fd, inheritable=False))
    sock.close()
    return moved


def arrived(sock: socket.socket, size: int = 0, urgent: bool = False) -> None:
    """Wait until that many bytes, urgent data or an end have arrived."""
    assert any(real_select([] if urgent else [sock], [], [sock], DEADLINE))
    while size and len(sock.recv(size, socket.MSG_PEEK)) < size:
        assert any(real_select([sock], [], [], DEADLINE))


def fill(sock: Any) -> None:
    """Write until the kernel's buffers are full."""
    with suppress(BlockingIOError):
        while True:
            os.write(sock.fileno(), BIG)


BIG = bytes(range(250)) * 200


# Promise 3: descriptors.


@script(ALL)
def test_fd_reused_in_a_turn_belongs_to_its_new_channel(
    stage: Stage,
) -> Script:
    a, spare = stage.pair(), stage.pair()
    old = stage.channel("a", a.sock)
    old.on["read"] = lambda: stage.channel("b", close_and_reuse(old, spare.sock))
    a.peer.send("x")
    yield lambda: stage.calls == ["a.read"]
    yield from stage.nothing_comes()
    spare.peer.send("for b")
    yield lambda: stage.calls == ["a.read", "b.read"]


@script(ALL)
def test_fd_reused_between_turns_belongs_to_its_new_channel(
    stage: Stage,
) -> Script:
    a, spare = stage.pair(), stage.pair()
    old = stage.channel("a", a.sock)
    yield from stage.nothing_comes()
    stage.channel("b", close_and_reuse(old, spare.sock))
    spare.peer.send("for b")
    yield lambda: stage.calls == ["b.read"]


# asyncore calls the channel that the map has under the number at that moment.
@script(BEYOND)
def test_an_event_of_the_old_channel_is_not_given_to_the_new_one(
    stage: Stage,
) -> Script:
    a, b, spare = stage.pair(), stage.pair(), stage.pair()
    first, second = stage.channel("a", a.sock), stage.channel("b", b.sock)

    def replace_b() -> None:
        first.take()
        stage.channel("c", close_and_reuse(second, spare.sock))

    first.on["read"] = replace_b
    a.peer.send("x")
    b.peer.send("x")
    yield lambda: stage.calls
    yield from stage.nothing_comes()
    assert stage.calls == ["a.read"]


@script(ALL)
@pytest.mark.parametrize("when", ["in a turn", "between turns"])
def test_channel_that_reconnects_on_the_same_fd_is_read(
    stage: Stage, when: str
) -> Script:
    a, spare = stage.pair(), stage.pair()
    channel = stage.channel("a", a.sock)

    def reconnect() -> None:
        channel.set_socket(close_and_reuse(channel, spare.sock))
        channel.connected = True

    channel.on["read"] = reconnect
    if when == "in a turn":
        a.peer.send("x")
        yield lambda: stage.calls
    else:
        yield from stage.nothing_comes()
        reconnect()
    del channel.on["read"]
    spare.peer.send("again")
    yield lambda: channel.got == b"again"


# select() refuses the whole map: EBADF out of the loop.
@script(AS_POLL)
def test_socket_closed_without_its_channel_ends_in_handle_close(
    stage: Stage,
) -> Script:
    channel = stage.channel("a", stage.pair().sock)
    yield from stage.nothing_comes()
    channel.socket.close()
    yield lambda: stage.calls == ["a.close"]


@script(AS_POLL)
def test_sockets_closed_before_the_loop_end_in_handle_close(
    stage: Stage,
) -> Script:
    # Enough channels that the loop's own descriptors reuse some of their numbers.
    channels = [stage.channel("a", stage.pair().sock) for _ in range(8)]
    for channel in channels:
        channel.socket.close()
    yield lambda: stage.calls == ["a.close"] * 8


@script(ALL)
def test_fd_reused_by_a_plain_file_does_not_end_the_loop(
    stage: Stage,
) -> Script:
    channel = stage.channel("a", stage.pair().sock)
    yield from stage.nothing_comes()
    fd, file = channel.socket.fileno(), os.open(__file__, os.O_RDONLY)
    channel.close()
    stage.at_end.callback(os.close, file)
    stage.at_end.callback(os.close, os.dup2(file, fd))
    yield from stage.nothing_comes()


# Other holders of a socket that its channel has closed.
by_whom = pytest.mark.parametrize("held", ["duplicate", "child"])


def hold(stage: Stage, sock: socket.socket, held: str) -> None:
    """Keep a duplicate of *sock*, here or in a forked child, until the test ends."""
    if held == "duplicate":
        stage.at_end.callback(os.close, os.dup(sock.fileno()))
        return
    hear, tell = os.pipe()

    def until_the_parent_closes_the_pipe() -> None:
        os.close(tell)
        os.read(hear, 1)

    child = stage.fork(until_the_parent_closes_the_pipe)
    stage.at_end.callback(os.waitpid, child, 0)
    stage.at_end.callback(os.close, tell)
    os.close(hear)


@script(ALL)
@by_whom
def test_duplicate_of_a_closed_channel_does_not_wake_the_loop(
    stage: Stage, held: str
) -> Script:
    a = stage.pair()
    channel = stage.channel("a", a.sock)
    yield from stage.nothing_comes()
    hold(stage, a.sock, held)
    channel.close()
    a.peer.send("for a closed channel")
    yield from stage.nothing_comes()


@script(ALL)
@by_whom
def test_event_of_a_duplicate_is_not_given_to_the_fds_new_owner(
    stage: Stage, held: str
) -> Script:
    a, spare = stage.pair(), stage.pair()
    channel = stage.channel("a", a.sock)
    yield from stage.nothing_comes()
    hold(stage, a.sock, held)
    stage.channel("b", close_and_reuse(channel, spare.sock))
    a.peer.send("for a closed channel")
    yield from stage.nothing_comes()
    spare.peer.send("for b")
    yield lambda: stage.calls == ["b.read"]


@script(ALL)
@by_whom
def test_event_of_a_duplicate_does_not_wake_a_writing_new_owner(
    stage: Stage, held: str
) -> Script:
    a, spare = stage.pair(), stage.pair()
    channel = stage.channel("a", a.sock)
    yield from stage.nothing_comes()
    hold(stage, a.sock, held)
    new = close_and_reuse(channel, spare.sock)
    stage.channel("b", new, reads=False, writes=True)
    fill(new)
    a.peer.send("for a closed channel")
    yield from stage.nothing_comes()
    spare.peer.receive()
    yield lambda: stage.calls == ["b.write"]


@script(ALL)
def test_file_duplicated_onto_a_channels_fd_is_read(stage: Stage) -> Script:
    a, spare = stage.pair(), stage.pair()
    channel = stage.channel("a", a.sock)
    yield from stage.nothing_comes()
    os.dup2(spare.sock.fileno(), a.sock.fileno(), inheritable=False)
    spare.sock.close()
    spare.peer.send("x")
    yield lambda: channel.got == b"x"


@script(ALL)
def test_object_that_reopens_on_the_same_fd_is_read(
    stage: Stage,
) -> Script:
    a, spare = stage.pair(), stage.pair()
    channel = stage.channel("a", a.sock)
    line = channel.socket = Reopened(a.sock)
    yield from stage.nothing_comes()
    line.sock = close_and_reuse(channel, spare.sock)
    channel.set_socket(line)
    channel.connected = True
    spare.peer.send("x")
    yield lambda: channel.got == b"x"


class Reopened:
    """An object like a serial line: closed and reopened, it stays the same object."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


@script(ALL)
def test_a_regular_file_is_always_ready(stage: Stage, tmp_path: Path) -> Script:
    (tmp_path / "file").write_bytes(BIG)
    a, file = stage.pair(), os.open(tmp_path / "file", os.O_RDONLY)
    channel = stage.file("file", file, reads=True, writes=False)
    stage.channel("a", a.sock).on["read"] = lambda: a.sock.recv(1)
    a.peer.send("xy")
    yield lambda: "file.close" in stage.calls
    assert channel.got == BIG
    assert stage.calls[:4] == ["file.read", "a.read"] * 2
    yield from stage.nothing_comes()


# poll2 registers the number and the socket, and receives events by number.
@script(AS_SELECT)
def test_channel_under_its_fd_and_its_socket_is_called_for_both(
    stage: Stage,
) -> Script:
    a = stage.pair()
    channel = stage.channel("a", a.sock)
    channel.on["read"] = lambda: channel.take(1)
    stage.map[a.sock] = channel
    stage.at_end.callback(lambda: stage.map.pop(a.sock))
    a.peer.send("xy")
    yield lambda: stage.calls
    assert stage.calls == ["a.read", "a.read"]
    yield from stage.nothing_comes()


# poll2 calls by channel, not by event.
@script(AS_SELECT)
def test_a_channel_under_two_numbers_is_called_for_both(stage: Stage) -> Script:
    a = stage.pair()
    channel = stage.channel("a", a.sock, writes=True)
    channel.on["read"] = lambda: channel.take(1)
    twice = os.dup(a.sock.fileno())
    stage.map[twice] = channel
    stage.at_end.callback(os.close, twice)
    a.peer.send("xy")
    yield lambda: stage.calls
    assert stage.calls == ["a.read", "a.read", "a.write", "a.write"]
    yield from stage.nothing_comes()
    del stage.map[twice]


@script(ALL)
def test_channel_put_into_the_map_by_hand_is_read(stage: Stage) -> Script:
    elsewhere, a = Stage(), stage.pair()
    channel = elsewhere.channel("a", a.sock)
    yield from stage.nothing_comes()
    stage.map[a.sock.fileno()] = channel
    a.peer.send("x")
    yield lambda: elsewhere.calls == ["a.read"]
    del stage.map[a.sock.fileno()]
    a.peer.send("x")
    yield from stage.nothing_comes()
    assert elsewhere.calls == ["a.read"]


@script(ALL)
def test_channel_that_takes_over_anothers_socket_is_read(stage: Stage) -> Script:
    a = stage.pair()
    old = stage.channel("a", a.sock)
    yield from stage.nothing_comes()
    old.del_channel()
    stage.channel("b", a.sock)
    a.peer.send("x")
    yield lambda: stage.calls == ["b.read"]


class Plain:
    """No dispatcher: an object with only the methods that select's loop calls."""

    accepting = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.got: list[object] = []

    def readable(self) -> bool:
        return self.got[-1:] != [b""]

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self.got.append(self._sock.recv(1))

    def handle_error(self) -> None:
        self.got.append(sys.exc_info()[1])


class WithMethod(Plain):
    """A channel whose ``socket`` is a method, not asyncore's attribute."""

    def socket(self) -> socket.socket:
        return self._sock


# poll2 calls handle_close when the peer has gone.
@script(AS_SELECT)
@pytest.mark.parametrize("kind", [Plain, WithMethod])
def test_an_object_that_is_no_dispatcher_needs_only_the_methods(
    stage: Stage, kind: type[Plain]
) -> Script:
    a = stage.pair()
    plain = stage.map[a.sock.fileno()] = kind(a.sock)
    yield from stage.nothing_comes()
    a.peer.send("xy")
    a.peer.close()
    yield lambda: len(plain.got) == 3
    assert plain.got == [b"x", b"y", b""]
    yield from stage.nothing_comes()


@on(ALL)
@pytest.mark.parametrize("key", [-1, None])
def test_a_key_that_is_no_descriptor_leaves_the_loop(
    turner: Turner, stage: Stage, key: Any
) -> None:
    stage.map[key] = stage.channel("a")
    with pytest.raises((TypeError, ValueError), match=r"descriptor|fileno"):
        turner.loop(0, stage.map, 1)


@script(ALL)
@pytest.mark.parametrize("key", [-1, None])
def test_invalid_key_without_interest_is_harmless(stage: Stage, key: Any) -> Script:
    stage.map[key] = stage.channel("a", reads=False)
    yield from stage.nothing_comes()


@script(ALL)
def test_a_forked_child_has_a_selector_of_its_own(stage: Stage) -> Script:
    a = stage.pair()
    channel = stage.channel("a", a.sock)
    yield from stage.nothing_comes()

    def forget_a_and_serve_b() -> None:
        channel.del_channel()
        b = stage.pair()
        b.peer.send("x")
        served = stage.channel("b", b.sock)
        stage.turner.until(lambda: served.got == b"x", stage.map)

    assert os.waitpid(stage.fork(forget_a_and_serve_b), 0)[1] == 0
    a.peer.send("y")
    yield lambda: channel.got == b"y"


@script(ALL)
def test_after_a_fork_in_a_handler_both_loops_go_on(stage: Stage) -> Script:
    a, b = stage.pair(), stage.pair()
    forked: list[int] = []
    channel = stage.channel("a", a.sock)
    channel.on["read"] = lambda: (channel.take(), forked.append(os.fork()))
    a.peer.send("x")
    yield lambda: forked
    del channel.on["read"]
    if forked == [0]:
        stage.channel("b", b.sock)
        b.peer.send("x")
        yield lambda: stage.calls == ["a.read", "b.read"]
        os._exit(0)
    assert os.waitpid(forked[0], 0)[1] == 0
    a.peer.send("y")
    yield lambda: channel.got == b"xy"


@on(ALL)
def test_after_a_fork_in_the_middle_of_a_wait_both_loops_go_on(
    turner: Turner, stage: Stage
) -> None:
    a = stage.pair()
    stage.channel("a", a.sock)
    status: list[int] = []

    def fork(*_: object) -> None:
        child = os.fork()
        if child == 0:
            signal.alarm(int(DEADLINE))
        status.append(os.waitpid(child, 0)[1] if child else -1)
        a.peer.send("x")

    before = signal.signal(signal.SIGUSR1, fork)
    stage.at_end.callback(signal.signal, signal.SIGUSR1, before)
    stage.waits.when_idle = lambda: signal.raise_signal(signal.SIGUSR1)
    with stage.waits:
        while not stage.calls:
            turner.loop(None, stage.map, 1)
    if status == [-1]:
        os._exit(stage.calls != ["a.read"])
    assert (status, stage.calls) == ([0], ["a.read"])


# Promise 3: the map is the caller's.


@script(ALL)
def test_any_mutable_mapping_is_a_map(stage: Stage) -> Script:
    stage.map = UserDict(stage.map)
    a, b = stage.pair(), stage.pair()
    channel = stage.channel("a", a.sock)
    channel.on["read"] = lambda: (channel.take(), stage.channel("b", b.sock))
    a.peer.send("x")
    b.peer.send("x")
    yield lambda: stage.calls == ["a.read", "b.read"]


@on(ALL)
def test_a_map_may_live_for_one_call(turner: Turner, stage: Stage) -> None:
    numbers = set()
    for _ in range(20):
        sock, peer = socket.socketpair()
        numbers.add(sock.fileno())
        with peer, stage.waits:
            stage.map = {}
            channel = stage.channel("a", sock)
            peer.send(b"x")
            turner.loop(0, stage.map, 1)
            channel.close()
    assert stage.calls == ["a.read"] * 20
    assert len(numbers) < 20


# poll2 receives events by number, and such a map has no numbers.
@script(AS_SELECT)
def test_the_keys_may_be_sockets(stage: Stage) -> Script:
    elsewhere, a = Stage(), stage.pair()
    stage.map[a.sock] = elsewhere.channel("a", a.sock)
    a.peer.send("x")
    yield lambda: elsewhere.calls == ["a.read"]
    yield from stage.nothing_comes()
    del stage.map[a.sock]


@on(ALL)
def test_a_descriptor_may_be_in_two_maps(turner: Turner, stage: Stage) -> None:
    a, other = stage.pair(), Stage()
    stage.channel("reads", a.sock)
    other.channel("writes", a.sock, reads=False, writes=True)
    a.peer.send("x")
    for each in (stage, other, other, stage):
        turner.loop(0, each.map, 1)
    assert stage.calls == ["reads.read"]
    assert other.calls == ["writes.write"]
    a.peer.send("y")
    for each in (other, stage):
        turner.loop(0, each.map, 1)
    assert stage.calls == ["reads.read"] * 2


@on(ALL)
def test_the_map_may_be_rebound_while_the_loop_runs(
    turner: Turner, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.map = {}
    monkeypatch.setattr(asyncore, "socket_map", stage.map)
    a = stage.pair()
    channel = stage.channel("a", a.sock)

    def rebind() -> None:
        monkeypatch.setattr(asyncore, "socket_map", {})
        channel.take(1)

    channel.on["read"] = rebind
    a.peer.send("xy")
    a.peer.sock.shutdown(socket.SHUT_WR)
    turner.loop(DEADLINE)
    assert channel.got == b"xy"
    assert stage.calls == ["a.read", "a.read", "a.read", "a.close"]


@script(ALL)
def test_loop_may_be_called_from_inside_a_handler(stage: Stage) -> Script:
    a, b = stage.pair(), stage.pair()
    outer, inner = stage.channel("a", a.sock), stage.channel("b", b.sock)

    def serve_b_first() -> None:
        del outer.on["read"]
        outer.take()
        b.peer.send("x")
        stage.turner.until(lambda: inner.got == b"x", stage.map)

    outer.on["read"] = serve_b_first
    a.peer.send("x")
    yield lambda: stage.calls == ["a.read", "b.read"]
    yield from stage.nothing_comes()


# asyncore has no callbacks.
@on(OURS)
def test_loop_may_be_called_from_inside_a_callback(
    turner: Turner, stage: Stage
) -> None:
    ran: list[str] = []

    def first() -> None:
        turner.loop(0, stage.map, 1)
        ran.append("first")

    stage.channel("a", stage.pair().sock)
    compat.call_soon_threadsafe(first, map=stage.map)
    compat.call_soon_threadsafe(ran.append, "second", map=stage.map)
    turner.loop(0, stage.map, 1)
    assert ran == ["second", "first"]


# Promise 1: the same calls in the same order.


# poll2 calls channel by channel.
@script(AS_SELECT)
def test_reads_then_writes_then_urgent_data_each_in_map_order(
    stage: Stage,
) -> Script:
    pairs = {name: stage.tcp() for name in "abc"}
    for name, pair in pairs.items():
        stage.channel(name, pair.sock, writes=True)
    for pair in reversed(pairs.values()):
        pair.peer.send("x")
        pair.peer.sock.send(b"!", socket.MSG_OOB)
        arrived(pair.sock, urgent=True)
    yield lambda: stage.calls
    assert stage.calls == [
        *("a.read", "b.read", "c.read"),
        *("a.write", "b.write", "c.write"),
        *("a.expt", "b.expt", "c.expt"),
    ]


# select() ends at 1,024.
@script(AS_POLL)
def test_more_than_1024_descriptors_may_be_ready_at_once(stage: Stage) -> Script:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    stage.at_end.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    for number in range(1200):
        pair = stage.pair()
        stage.channel(str(number), pair.sock)
        pair.peer.send("x")
    yield lambda: stage.calls
    assert stage.calls == [f"{number}.read" for number in range(1200)]


# Promise 4: nothing is lost at the end.


# poll2 calls handle_close after one read.
@script(AS_SELECT)
@pytest.mark.parametrize("kind", ["pair", "tcp"])
def test_data_before_a_close_is_read_before_handle_close(
    stage: Stage, kind: str
) -> Script:
    sock, peer = stage.tcp() if kind == "tcp" else stage.pair()
    channel = stage.channel("a", sock)
    peer.send(BIG)
    peer.close()
    yield lambda: "a.close" in stage.calls
    assert channel.got == BIG
    assert stage.calls[-2:] == ["a.read", "a.close"]


# poll2 calls handle_close after one read.
@script(AS_SELECT)
def test_data_before_a_reset_is_read_before_handle_close(
    stage: Stage,
) -> Script:
    a = stage.tcp()
    a.peer.send(BIG)
    arrived(a.sock, len(BIG))
    a.peer.reset()
    channel = stage.channel("a", a.sock)
    yield lambda: "a.close" in stage.calls
    assert channel.got == BIG
    assert stage.calls[-2:] == ["a.read", "a.close"]


@script(ALL)
def test_a_reset_does_not_wake_a_channel_without_interest(stage: Stage) -> Script:
    a = stage.tcp()
    channel = stage.channel("a", a.sock, reads=False)
    yield from stage.nothing_comes()
    a.peer.reset()
    arrived(a.sock)
    yield from stage.nothing_comes()
    channel.reads = True
    yield lambda: stage.calls[:2] == ["a.read", "a.close"]


# poll2 calls handle_close as well.
@script(AS_SELECT)
def test_reset_calls_handle_write_of_a_write_only_channel(
    stage: Stage,
) -> Script:
    a = stage.tcp()
    stage.channel("a", a.sock, reads=False, writes=True)
    a.peer.reset()
    arrived(a.sock)
    yield lambda: stage.calls
    yield from stage.nothing_comes()
    assert stage.calls == ["a.write"]


# poll2 calls handle_close instead.
@script(AS_SELECT)
def test_vanished_pipe_reader_calls_handle_write(stage: Stage) -> Script:
    reader, writer = os.pipe()
    channel = stage.file("a", writer, reads=False, writes=True)
    fill(channel.socket)
    yield from stage.nothing_comes()
    os.close(reader)
    yield lambda: stage.calls
    yield from stage.nothing_comes()
    assert stage.calls == ["a.write"]


# poll2 calls handle_close.
@script(AS_SELECT)
def test_hang_up_does_not_wake_a_pipe_without_read_interest(
    stage: Stage,
) -> Script:
    reader, writer = os.pipe()
    # A dispatcher is writable by default.
    channel = stage.file("a", reader, reads=False, writes=True)
    yield from stage.nothing_comes()
    os.close(writer)
    yield from stage.nothing_comes()
    channel.reads = True
    yield lambda: stage.calls == ["a.read", "a.close"]


@script(ALL)
def test_a_listener_that_is_only_writable_is_never_woken(stage: Stage) -> Script:
    channel = stage.listener("a", reads=False, writes=True)
    client = socket.create_connection(channel.socket.getsockname(), DEADLINE)
    stage.at_end.callback(client.close)
    yield from stage.nothing_comes()
    # Now it hangs up, too.
    channel.socket.shutdown(socket.SHUT_RDWR)
    yield from stage.nothing_comes()


# poll2 writes to it.
@script(AS_SELECT)
def test_a_channel_closed_in_its_read_is_not_written_to(stage: Stage) -> Script:
    a = stage.pair()
    channel = stage.channel("a", a.sock, writes=True)
    channel.on["read"] = channel.close
    a.peer.send("x")
    yield lambda: stage.calls
    yield from stage.nothing_comes()
    assert stage.calls == ["a.read"]


# poll2 polls for urgent data only together with other data.
@script(AS_SELECT)
def test_urgent_data_comes_also_while_the_channel_does_not_read(
    stage: Stage,
) -> Script:
    a = stage.tcp()
    stage.channel("a", a.sock, reads=False, writes=True)
    a.peer.sock.send(b"!", socket.MSG_OOB)
    arrived(a.sock, urgent=True)
    yield lambda: stage.calls
    assert stage.calls == ["a.write", "a.expt"]


# poll2 does not poll for it.
@script(AS_SELECT)
def test_urgent_data_may_be_a_channels_only_event(stage: Stage) -> Script:
    a = stage.tcp()
    # The interest of select's loop for a listener that is only writable.
    stage.channel("a", a.sock, reads=False, writes=True).accepting = True
    yield from stage.nothing_comes()
    a.peer.send("x")
    a.peer.sock.send(b"!", socket.MSG_OOB)
    yield lambda: stage.calls
    yield from stage.nothing_comes()
    assert stage.calls == ["a.expt"]


# Promises 5 and 6: errors and exceptions.


@script(ALL)
@pytest.mark.parametrize("reads", [True, False])
def test_a_refused_connect_ends_in_handle_error(stage: Stage, reads: bool) -> Script:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        channel = stage.channel("a", None, reads, writes=not reads)
        channel.create_socket()
        channel.connect(nobody.getsockname())
        yield lambda: stage.calls == ["a.error"]
    [error] = stage.errors
    assert isinstance(error, OSError)
    assert error.errno == errno.ECONNREFUSED


@script(ALL)
def test_a_connection_calls_each_end_once(stage: Stage) -> Script:
    listener = stage.listener("listener", reads=True, writes=True)
    client = stage.channel("client", None, reads=False, writes=True)
    client.create_socket()
    client.connect(listener.socket.getsockname())
    yield lambda: len(stage.calls) == 3
    yield from stage.nothing_comes()
    assert sorted(stage.calls) == [
        *("client.connect", "client.write", "listener.accepted")
    ]


EVENTS = ("read", "write", "expt")


def ready(stage: Stage, event: str) -> Records:
    """Return a channel that the next turn calls for this event."""
    sock, peer = stage.tcp()
    if event != "write":
        peer.sock.send(b"!", socket.MSG_OOB if event == "expt" else 0)
        arrived(sock, urgent=event == "expt")
    return stage.channel("a", sock, writes=event == "write")


def raiser(error: BaseException) -> Callable[[], object]:
    """Return a function that raises *error*."""

    def throw() -> None:
        raise error

    return throw


@on(ALL)
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("error", [asyncore.ExitNow, KeyboardInterrupt, SystemExit])
def test_three_exceptions_leave_the_loop(
    turner: Turner, stage: Stage, event: str, error: type[BaseException]
) -> None:
    channel = ready(stage, event)
    channel.on[event] = raiser(error())
    with pytest.raises(error):
        turner.loop(DEADLINE, stage.map)
    channel.on[event] = channel.close
    turner.loop(DEADLINE, stage.map, 1)
    assert stage.calls == [f"a.{event}"] * 2


# Exceptions outside Exception, too: asyncore's ``except`` is bare.
@script(ALL)
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("error", [ValueError, GeneratorExit])
def test_every_other_exception_goes_to_the_channels_handle_error(
    stage: Stage, event: str, error: type[BaseException]
) -> Script:
    b = stage.pair()
    ready(stage, event).on[event] = raiser(error())
    stage.channel("b", b.sock)
    b.peer.send("x")
    yield lambda: len(stage.calls) == 3
    assert sorted(stage.calls) == sorted([f"a.{event}", "a.error", "b.read"])
    assert [type(each) for each in stage.errors] == [error]


# select() rejects the whole map.
@script(AS_POLL)
@pytest.mark.parametrize("error", [ValueError, GeneratorExit])
def test_exception_of_handle_close_goes_to_handle_error(
    stage: Stage, error: type[BaseException]
) -> Script:
    channel = stage.channel("a", stage.pair().sock)
    channel.on["close"] = raiser(error())
    yield from stage.nothing_comes()
    channel.socket.close()
    yield lambda: stage.calls == ["a.close", "a.error"]
    assert [type(each) for each in stage.errors] == [error]


@on(ALL)
@pytest.mark.parametrize("asked", ["readable", "writable"])
def test_readable_that_raises_leaves_the_loop(
    turner: Turner, stage: Stage, asked: str
) -> None:
    channel = stage.channel("a", stage.pair().sock)
    vars(channel)[asked] = raiser(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        turner.loop(0, stage.map, 1)


@script(ALL)
@pytest.mark.parametrize("event", EVENTS)
def test_a_handler_may_add_channels_and_close_others(
    stage: Stage, event: str
) -> Script:
    b, c = stage.pair(), stage.pair()
    channel, other = ready(stage, event), stage.channel("b", b.sock)

    def handler() -> None:
        channel.close()
        other.close()
        stage.channel("c", c.sock)

    channel.on[event] = handler
    c.peer.send("x")
    yield lambda: stage.calls == [f"a.{event}", "c.read"]


# Promise 6: turns, waits and maps.


@on(ALL)
@pytest.mark.parametrize(("count", "turns"), [(0, 0), (-1, 0), (3, 3), (2.5, 3)])
def test_count_is_the_number_of_turns(
    turner: Turner, stage: Stage, count: Any, turns: int
) -> None:
    asked: list[int] = []
    channel = stage.channel("a", stage.pair().sock)
    vars(channel)["readable"] = lambda: asked.append(1)
    with stage.waits:
        turner.loop(0, stage.map, count)
    assert len(asked) == turns


@on(ALL)
def test_the_loop_ends_with_its_map(turner: Turner, stage: Stage) -> None:
    stage.map = {}
    turner.loop(None, stage.map)
    channel = ready(stage, "read")
    channel.on["read"] = channel.close
    turner.loop(None, stage.map)
    assert stage.calls == ["a.read"]


@on(ALL)
def test_a_turn_without_a_timeout_waits_until_something_comes(
    turner: Turner, stage: Stage
) -> None:
    a = stage.pair()
    stage.channel("a", a.sock)
    stage.waits.when_idle = lambda: a.peer.send("x")
    with stage.waits:
        turner.loop(0, stage.map, 1)
        assert stage.calls == []
        turner.loop(None, stage.map, 1)
    assert stage.calls == ["a.read"]


# poll2 counts milliseconds in a C int: 24 days.
@on(AS_SELECT)
def test_a_timeout_may_be_a_year(turner: Turner, stage: Stage) -> None:
    ready(stage, "read")
    turner.loop(365 * 86_400.0, stage.map, 1)
    assert stage.calls == ["a.read"]


# poll2 treats it as no limit.
@on(AS_SELECT)
def test_a_negative_timeout_is_an_error(turner: Turner, stage: Stage) -> None:
    ready(stage, "read")
    with pytest.raises(ValueError, match="negative"):
        turner.loop(-1, stage.map, 1)


@on(ALL)
def test_a_private_map_is_the_only_one_that_is_turned(
    turner: Turner, stage: Stage
) -> None:
    public = Stage()
    public.map = asyncore.socket_map
    with public.at_end:
        ready(public, "read")
        ready(stage, "read")
        turner.loop(DEADLINE, stage.map, 1)
    assert (public.calls, stage.calls) == ([], ["a.read"])


@on(ALL)
def test_four_threads_turn_four_maps(turner: Turner) -> None:
    stages = [Stage() for _ in range(4)]
    together = threading.Barrier(len(stages))

    def run(stage: Stage) -> None:
        sock, peer = stage.pair()
        channel = stage.channel("a", sock)
        channel.on["read"] = lambda: channel.take(1)
        together.wait(DEADLINE)
        peer.send(bytes(1000))
        peer.sock.shutdown(socket.SHUT_WR)
        turner.loop(DEADLINE, stage.map)

    threads = [threading.Thread(target=run, args=(stage,)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread, stage in zip(threads, stages, strict=True):
        thread.join(DEADLINE)
        assert stage.calls == [*["a.read"] * 1001, "a.close"]
        stage.at_end.close()


@on(ALL)
def test_a_loop_that_has_ended_holds_no_descriptor(
    turner: Turner, stage: Stage
) -> None:
    def descriptors() -> int:
        return len([fd for fd in range(256) if is_open(fd)])

    def is_open(fd: int) -> bool:
        with suppress(OSError):
            return fcntl.fcntl(fd, fcntl.F_GETFD) >= 0
        return False

    after = []
    for _ in range(5):
        with ExitStack() as stage.at_end:
            channel = ready(stage, "read")
            channel.on["read"] = channel.close
            turner.loop(DEADLINE, stage.map)
        after.append(descriptors())
    assert after == after[:1] * 5


# The other loops build nothing.
SELECTORS = tuple(name for name in OURS if name == "selectors")


@on(SELECTORS)
def test_repeated_loop_calls_repeat_no_registration(
    turner: Turner, stage: Stage
) -> None:
    stage.waits.limit = 10_000
    with stage.waits:
        for _ in range(1000):
            turner.loop(0, stage.map, 1)
    assert stage.waits.made <= 1
    assert stage.waits.changes < 100


@on(SELECTORS)
def test_an_empty_map_turned_between_costs_no_selector(
    turner: Turner, stage: Stage
) -> None:
    with stage.waits:
        for _ in range(50):
            turner.loop(0, stage.map, 1)
            turner.loop(0, {}, 1)
    assert stage.waits.made <= 1


@on(SELECTORS)
def test_the_selector_is_looked_up_when_the_loop_begins(
    turner: Turner, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    class Patched(selectors.SelectSelector):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    ready(stage, "read").on["read"] = raiser(asyncore.ExitNow())
    monkeypatch.setattr(selectors, "DefaultSelector", Patched)
    with pytest.raises(asyncore.ExitNow):
        turner.loop(DEADLINE, stage.map)
    assert len(made) == 1


@on(SELECTORS)
def test_a_loop_that_could_not_begin_can_begin_later(
    turner: Turner, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(stage, "read")
    with monkeypatch.context() as full:
        full.setattr(select, "epoll", raiser(OSError(errno.EMFILE, "full")))
        with pytest.raises(OSError, match="full"):
            turner.loop(DEADLINE, stage.map, 1)
    turner.loop(0, stage.map, 1)
    assert stage.calls == ["a.read"]
