"""Coalesced writes: one send per turn, and the same bytes in the same order."""

from __future__ import annotations

import asyncore
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from tests.support import (
    ORIGINALS,
    OURS,
    WatchedLock,
    in_a_turn,
    turn_once,
    turn_until,
)


class Coalescing(compat.async_chat):
    """A channel on one end of a socket pair; the test holds the other end."""

    ac_coalesce_writes = True

    def __init__(
        self,
        on_read: Callable[[Coalescing], object] | None = None,
        pair: tuple[socket.socket, socket.socket] | None = None,
    ) -> None:
        ours, self.peer = pair or socket.socketpair()
        self.peer.settimeout(10)
        self.on_read = on_read
        self.sends: list[int] = []
        self.errors = 0
        super().__init__(ours)
        self.set_terminator(None)

    def collect_incoming_data(self, data: bytes) -> None:
        if self.on_read is not None:
            self.on_read(self)

    def found_terminator(self) -> None:
        """Do nothing: there is no terminator."""

    def send(self, data: Any) -> int:
        self.sends.append(len(data))
        return super().send(data)

    def handle_error(self) -> None:
        self.errors += 1
        self.close()

    def wake(self) -> None:
        """Make the channel readable in the next turn."""
        self.peer.sendall(b"!")

    def got(self) -> bytes:
        """Return the data that has arrived so far."""
        self.peer.setblocking(False)
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return b""

    def rest(self) -> bytes:
        """Return all data until the end."""
        self.peer.settimeout(10)
        return b"".join(iter(lambda: self.peer.recv(1 << 20), b""))


@pytest.fixture
def make() -> Iterator[Callable[..., Coalescing]]:
    made: list[Coalescing] = []

    def make(*given: Any, kind: type[Coalescing] = Coalescing) -> Coalescing:
        made.append(kind(*given))
        return made[-1]

    yield make
    for channel in made:
        channel.discard_buffers()
        channel.close()
        channel.peer.close()


Make = Callable[..., Coalescing]


class Producer:
    """A producer that returns one piece at each call."""

    def __init__(self, *pieces: bytes) -> None:
        self.left = list(pieces)

    def more(self) -> bytes:
        return self.left.pop(0) if self.left else b""


# More data than one send accepts, by ac_out_buffer_size or because a producer is not
# bytes; and the part that the original has sent when the last push returns.
MORE_THAN_A_SEND: dict[str, tuple[Callable[[Coalescing], object], bytes]] = {
    "two pushes": (
        lambda channel: (channel.push(b"1" * 40_000), channel.push(b"2" * 40_000)),
        b"1" * 40_000 + b"2" * 40_000,
    ),
    "push and producer": (
        lambda channel: (
            channel.push(b"1"),
            channel.push_with_producer(Producer(b"2", b"3")),
        ),
        b"12",
    ),
}
more_than_a_send = pytest.mark.parametrize("what", MORE_THAN_A_SEND)


def loopback() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair over TCP, which a peer can reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        return listener.accept()[0], peer


def test_pushes_of_one_turn_are_one_send(loop: str, make: Make) -> None:
    seen: list[bytes] = []

    def push(channel: Coalescing) -> None:
        for word in (b"one ", b"two ", b"three"):
            channel.push(word)
        seen.append(channel.got())

    channel = make(push)
    channel.wake()
    turn_once(loop)
    assert seen == [b""]
    assert channel.sends == [len(b"one two three")]
    assert channel.got() == b"one two three"


def test_without_the_attribute_every_push_sends_at_once(loop: str, make: Make) -> None:
    def push(channel: Coalescing) -> None:
        channel.push(b"one ")
        channel.push(b"two")

    channel = make(push)
    channel.ac_coalesce_writes = False
    channel.wake()
    turn_once(loop)
    assert channel.sends == [4, 3]


def test_push_under_any_loop_is_sent_by_the_next_turn(
    any_loop: str, make: Make
) -> None:
    channel = make(lambda channel: (channel.push(b"one "), channel.push(b"two")))
    channel.wake()
    turn_until(any_loop, lambda: channel.sends)
    assert channel.sends == [7]
    assert channel.got() == b"one two"


def test_push_before_any_loop_is_sent(any_loop: str, make: Make) -> None:
    channel = make()
    channel.push(b"early")
    turn_until(any_loop, lambda: channel.sends)
    assert channel.got() == b"early"


def test_close_first_sends_pushed_data(any_loop: str, make: Make) -> None:
    channel = make(
        lambda channel: (channel.push(b"good"), channel.push(b"bye"), channel.close())
    )
    channel.wake()
    turn_once(any_loop)
    assert channel.rest() == b"goodbye"


def test_send_first_sends_pushed_data(any_loop: str, make: Make) -> None:
    channel = make(lambda channel: (channel.push(b"first "), channel.send(b"second")))
    channel.wake()
    turn_once(any_loop)
    assert channel.got() == b"first second"


@more_than_a_send
def test_close_first_sends_more_than_one_send_of_pushes(
    any_loop: str, make: Make, what: str
) -> None:
    push, sent = MORE_THAN_A_SEND[what]
    channel = make()
    in_a_turn(any_loop, lambda: (push(channel), channel.close()))
    assert channel.rest() == sent


@more_than_a_send
def test_send_follows_more_than_one_send_of_pushes(
    any_loop: str, make: Make, what: str
) -> None:
    push, sent = MORE_THAN_A_SEND[what]
    channel = make()
    in_a_turn(any_loop, lambda: (push(channel), channel.send(b"!")))
    assert channel.got()[: len(sent) + 1] == sent + b"!"


def test_send_after_close_when_done_is_sent_before_the_close(
    any_loop: str, make: Make
) -> None:
    channel = make()

    def finish() -> None:
        channel.push(b"first ")
        channel.close_when_done()
        channel.send(b"second")

    in_a_turn(any_loop, finish)
    turn_until(any_loop, lambda: not channel.connected)
    assert channel.rest() == b"first second"


def test_discard_buffers_first_sends_earlier_pushes(any_loop: str, make: Make) -> None:
    channel = make()
    in_a_turn(any_loop, lambda: (channel.push(b"said"), channel.discard_buffers()))
    turn_once(any_loop, timeout=0)
    assert channel.got() == b"said"


def test_producers_and_close_when_done_keep_their_order(
    any_loop: str, make: Make
) -> None:
    def push(channel: Coalescing) -> None:
        channel.push(b"1 ")
        channel.push_with_producer(Producer(b"2 ", b"3 "))
        channel.push(b"4")
        channel.close_when_done()
        channel.push(b"too late")

    channel = make(push)
    channel.wake()
    turn_until(any_loop, lambda: not channel.connected)
    assert channel.rest() == b"1 2 3 4"


def test_pushed_data_may_be_changed_afterwards(loop: str, make: Make) -> None:
    def push(channel: Coalescing) -> None:
        data = bytearray(b"before")
        channel.push(data)
        channel.push(memoryview(data)[:2])
        data[:] = b"after!"

    channel = make(push)
    channel.wake()
    turn_once(loop)
    assert channel.got() == b"beforebe"


def test_push_of_text_is_an_error_at_once(make: Make) -> None:
    with pytest.raises(TypeError, match="'text' is not bytes"):
        make().push("text")  # type: ignore[arg-type]


def test_a_send_has_ac_out_buffer_size_bytes_at_most(any_loop: str, make: Make) -> None:
    channel = make()
    channel.ac_out_buffer_size = 10
    channel.push(b"x" * 25)
    channel.push(b"y" * 4)
    channel.close_when_done()
    turn_until(any_loop, lambda: not channel.connected)
    assert max(channel.sends) <= 10
    assert channel.rest() == b"x" * 25 + b"y" * 4


def test_slow_peer_receives_everything_in_order(any_loop: str, make: Make) -> None:
    channel = make()
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    text = b"".join(b"%07d " % number for number in range(40_000))
    got = bytearray()
    for begin in range(0, len(text), 9_999):
        channel.push(text[begin : begin + 9_999])
    channel.close_when_done()

    def all_arrived() -> bool:
        got.extend(channel.got())
        return len(got) == len(text)

    turn_until(any_loop, all_arrived)
    assert got == text


def test_a_push_behind_a_partial_send_keeps_its_place(
    any_loop: str, make: Make
) -> None:
    channel = make()
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    begun = b"begun " * 50_000
    in_a_turn(any_loop, lambda: channel.push(begun))
    turn_until(any_loop, lambda: channel.sends)
    # A part is in transit, the rest is queued; the peer does not read yet.
    in_a_turn(any_loop, lambda: (channel.push(b"later "), channel.push(b"last")))
    channel.close_when_done()
    got = bytearray()

    def all_arrived() -> bool:
        got.extend(channel.got())
        return not channel.connected

    turn_until(any_loop, all_arrived)
    assert got + channel.rest() == begun + b"later last"


def test_push_while_connecting_is_sent_once_connected(
    any_loop: str,
) -> None:
    class Caller(Coalescing):
        def handle_connect(self) -> None:
            """The closed descriptor causes no message and no warning."""

    with socket.create_server(("127.0.0.1", 0)) as listener:
        callers: list[Caller] = []

        def call() -> None:
            caller = Caller(None, (socket.socket(), socket.socket()))
            caller.peer.close()
            caller.connect(listener.getsockname())
            caller.push(b"hello ")
            caller.push(b"there")
            caller.close_when_done()
            callers.append(caller)

        in_a_turn(any_loop, call)
        (caller,) = callers
        turn_until(any_loop, lambda: caller.sends and not caller.connected)
        caller.peer = listener.accept()[0]
        assert caller.rest() == b"hello there"
        caller.peer.close()


# poll2 calls handle_close for the end that was read, and again for the hang-up.
TOLD_TWICE = ("asyncore.poll2", "poll")


class Left(Coalescing):
    """A channel that counts how often handle_close is called."""

    closed = 0

    def handle_close(self) -> None:
        self.closed += 1
        self.close()


@pytest.mark.parametrize("goes", ["away", "away with a reset"])
def test_only_the_vanished_peer_is_closed_at_the_turns_end(
    any_loop: str, make: Make, goes: str
) -> None:
    first, last = make(), make()
    gone = make(None, None if goes == "away" else loopback(), kind=Left)
    assert isinstance(gone, Left)

    def push() -> None:
        # A TCP peer that closes with unread data resets.
        gone.send(b"unread")
        gone.peer.close()
        for channel in (first, gone, last):
            channel.push(b"all the same")

    in_a_turn(any_loop, push)
    turn_until(any_loop, lambda: first.sends and last.sends and not gone.connected)
    assert gone.errors == 0
    assert gone.closed == 1 or (any_loop in TOLD_TWICE and gone.closed == 2)
    assert first.got() == last.got() == b"all the same"


def test_peer_found_gone_during_a_turn_is_closed_once(
    any_loop: str, make: Make
) -> None:
    speaker = make(lambda _: gone.push(b"anybody there?"))
    gone = make(kind=Left)
    assert isinstance(gone, Left)
    gone.peer.close()
    speaker.wake()
    turn_until(any_loop, lambda: not gone.connected)
    turn_once(any_loop, timeout=0)
    assert gone.closed == 1 or (any_loop in TOLD_TWICE and gone.closed == 2)


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_send_that_raises_is_that_channels_error_alone(
    any_loop: str, make: Make, error: type[Exception]
) -> None:
    class Broken(Coalescing):
        def send(self, data: Any) -> int:
            raise error

    first, broken, last = make(), make(kind=Broken), make()

    def push() -> None:
        for channel in (first, broken, last):
            channel.push(b"all the same")

    in_a_turn(any_loop, push)
    turn_until(any_loop, lambda: first.sends and last.sends and broken.errors)
    assert (first.errors, broken.errors, last.errors) == (0, 1, 0)
    assert first.got() == last.got() == b"all the same"


def test_push_of_handle_error_at_the_turns_end_arrives(
    any_loop: str, make: Make
) -> None:
    class Broken(Coalescing):
        def send(self, data: Any) -> int:
            raise ZeroDivisionError

        def handle_error(self) -> None:
            other.push(b"it ")
            other.push(b"failed")
            self.close()

    broken, other = make(kind=Broken), make()
    in_a_turn(any_loop, lambda: broken.push(b"nothing"))
    turn_until(any_loop, lambda: other.sends)
    assert other.sends == [9]
    assert other.got() == b"it failed"


@pytest.mark.parametrize("hook", ["handle_close", "handle_error"])
def test_pushes_of_a_hook_are_one_send(loop: str, make: Make, hook: str) -> None:
    other = make()

    class Hooked(Coalescing):
        def handle_close(self) -> None:
            self.push_name("handle_close")

        def handle_error(self) -> None:
            self.push_name("handle_error")

        def push_name(self, name: str) -> None:
            other.push(name.encode())
            other.push(b" was called")
            self.close()

    def fail(_: Coalescing) -> None:
        raise ZeroDivisionError

    hooked = make(fail, kind=Hooked)
    if hook == "handle_error":
        hooked.wake()
    else:
        hooked.peer.close()
    turn_once(loop)
    # poll calls handle_close for the end and again for the hang-up: still one send.
    assert len(other.sends) == 1
    assert other.got().startswith(hook.encode() + b" was called")


def test_producer_that_raises_costs_other_channels_nothing(
    loop: str, make: Make
) -> None:
    channels = [make() for _ in range(3)]

    class Broken:
        def more(self) -> bytes:
            raise ZeroDivisionError

    def push(_: Coalescing) -> None:
        channels[0].push(b"a")
        channels[1].push_with_producer(Broken())
        channels[2].push(b"c")

    speaker = make(push)
    speaker.wake()
    turn_once(loop)
    assert [channel.errors for channel in channels] == [0, 1, 0]
    assert channels[0].got() + channels[2].got() == b"ac"


@pytest.mark.parametrize("error", [ValueError, asyncore.ExitNow, KeyboardInterrupt])
def test_pushes_before_a_handler_raises_are_sent(
    loop: str, make: Make, error: type[BaseException]
) -> None:
    channels = [make() for _ in range(3)]

    def push(_: Coalescing) -> None:
        for channel in channels:
            channel.push(b"last words")
        raise error

    speaker = make(push)
    speaker.wake()
    if error is ValueError:
        turn_once(loop)
        assert speaker.errors == 1
    else:
        with pytest.raises(error):
            turn_once(loop)
    assert [channel.got() for channel in channels] == [b"last words"] * 3


def test_pushes_of_a_timer_are_one_send(loop: str, make: Make) -> None:
    channel = make()

    def push() -> None:
        channel.push(b"tick ")
        channel.push(b"tock")

    compat.call_later(0, push)
    turn_until(loop, lambda: channel.sends)
    assert channel.sends == [9]


def test_a_push_from_another_thread_does_not_wait(loop: str, make: Make) -> None:
    begun = threading.Event()
    channel = make(lambda channel: (begun.set(), channel.push(b"begun")))
    arrived: list[bytes] = []

    def push() -> None:
        begun.wait(10)
        while b"begun" not in b"".join(arrived):
            arrived.append(channel.peer.recv(100))
        channel.push(b"hello")
        while b"hello" not in b"".join(arrived):
            arrived.append(channel.peer.recv(100))
        compat.call_soon_threadsafe(channel.close)

    thread = threading.Thread(target=push)
    thread.start()
    channel.wake()
    # Longer than the test may take: only the push can end the wait.
    compat.loop(600, loop=loop)
    thread.join()
    assert b"".join(arrived) == b"begunhello"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("child", ["ends at once", "goes on with the loop"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_fork_in_a_handler_sends_pushes_once(
    loop: str, make: Make, child: str, pieces: int
) -> None:
    def push(channel: Coalescing) -> None:
        for begin in range(0, 4, 4 // pieces):
            channel.push(b"once"[begin : begin + 4 // pieces])
        pid = os.fork()
        if pid == 0:
            if child == "goes on with the loop":
                compat.loop(0, count=1, loop=loop)
            os._exit(0)
        os.waitpid(pid, 0)

    channel = make(push)
    # The original has sent all of them when push is over.
    channel.ac_out_buffer_size = 4 // pieces
    channel.wake()
    turn_once(loop)
    turn_once(loop, timeout=0)
    assert channel.got() == b"once"


FILES = [sys.modules[f"compat.{name}"].__file__ for name in ("async_chat", "_outbox")]


class Interruption:
    """For sys.settrace: another thread pushes b"!" at that line of a flush.

    The line continues when the push has returned, or waits for the lock of the queues.
    """

    def __init__(self, channel: Coalescing, line: int, lock: WatchedLock) -> None:
        self.channel, self.left, self.lock = channel, line, lock
        self.thread = threading.Thread(target=self.push)

    def push(self) -> None:
        self.channel.push(b"!")
        self.lock.has_to_wait.set()

    def __call__(self, frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.lock.has_to_wait.clear()
                self.thread.start()
                self.lock.has_to_wait.wait()
        return self


@pytest.mark.parametrize("pieces", [1, 2, 20])
def test_push_from_a_thread_at_any_line_of_the_flush_arrives(
    make: Make, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = WatchedLock()
    monkeypatch.setattr(sys.modules["compat._outbox"], "_lock", lock)
    came: list[Any] = []
    line = 0
    while True:
        line += 1
        channel = make()
        for _ in range(pieces):
            channel.push(b"x")
        interruption = Interruption(channel, line, lock)
        traced_before = sys.gettrace()
        sys.settrace(interruption)
        try:
            turn_once("selectors", timeout=0)
        finally:
            sys.settrace(traced_before)
        if interruption.left <= 0:
            interruption.thread.join()
        turn_once("selectors", timeout=0)
        got, errors = channel.got(), channel.errors
        channel.close()
        if interruption.left > 0:
            # The flush has fewer lines.
            break
        came.append((got, errors))
    assert set(came) == {(b"x" * pieces + b"!", 0)}


class Choppy(Coalescing):
    """Its socket accepts the bytes of one cut per send; after the cuts, everything."""

    def __init__(self, coalesces: bool, piece: int, cuts: list[int]) -> None:
        super().__init__()
        self.ac_coalesce_writes, self.ac_out_buffer_size = coalesces, piece
        self.cuts = list(cuts)

    def send(self, data: Any) -> int:
        if not self.cuts:
            return super().send(data)
        cut = self.cuts.pop(0)
        return super().send(data[:cut]) if cut else 0


DATA = st.binary(max_size=9)
PUSHES = st.lists(
    st.one_of(
        st.tuples(st.just("push"), DATA),
        st.tuples(st.just("push and change"), DATA),
        st.tuples(st.just("producer"), st.lists(DATA.filter(bool), max_size=3)),
        st.tuples(st.just("end"), st.none()),
        st.tuples(st.just("read"), st.integers(1, 9)),
        st.tuples(st.just("turn"), st.none()),
    ),
    max_size=20,
)


def received_by_peer(channel: Choppy, name: str, steps: list[Any]) -> bytes:
    got = bytearray()

    def play(turn: list[Any]) -> None:
        for action, detail in turn:
            match action:
                case "push":
                    channel.push(detail)
                case "push and change":
                    changing = bytearray(detail)
                    channel.push(changing if channel.ac_coalesce_writes else detail)
                    changing[:] = b"?" * len(changing)
                case "producer":
                    channel.push_with_producer(Producer(*detail))
                case "end":
                    channel.close_when_done()
                case "read":
                    channel.peer.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        got.extend(channel.peer.recv(detail))

    turns: list[list[Any]] = [[]]
    for step in steps:
        if step[0] == "turn":
            turns.append([])
        else:
            turns[-1].append(step)
    for turn in turns:
        in_a_turn(name, lambda turn=turn: play(turn))  # type: ignore[misc]
    channel.close_when_done()

    def over() -> bool:
        # The kernel queues few sends of one byte, so read them here.
        got.extend(channel.got())
        return not channel.connected

    turn_until(name, over)
    return bytes(got) + channel.rest()


@pytest.mark.parametrize("name", [*ORIGINALS, *OURS])
def test_peer_gets_the_same_bytes_with_or_without_coalescing(name: str) -> None:
    @settings(max_examples=50)
    @given(PUSHES, st.integers(1, 12), st.lists(st.integers(0, 5), max_size=12))
    def holds(steps: list[Any], piece: int, cuts: list[int]) -> None:
        got = []
        for coalesces in (False, True):
            channel = Choppy(coalesces, piece, cuts)
            try:
                got.append(received_by_peer(channel, name, steps))
            finally:
                channel.discard_buffers()
                channel.close()
                channel.peer.close()
        assert got[0] == got[1]

    holds()


class Limited(Coalescing):
    """A channel that counts the calls of handle_backlog."""

    ac_backlog_limit = 100_000
    too_much = 0

    def handle_backlog(self) -> None:
        self.too_much += 1
        assert self.ac_backlog_size() > self.ac_backlog_limit


def test_backlog_is_the_data_that_the_peer_has_not_received(
    any_loop: str, make: Make
) -> None:
    channel = make()
    assert channel.ac_backlog_size() == 0
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    whole = 500_000
    in_a_turn(any_loop, lambda: channel.push(b"x" * whole))
    turn_until(any_loop, lambda: channel.ac_backlog_size() < whole)
    taken = len(channel.got())
    while more := channel.got():
        taken += len(more)
    assert taken + channel.ac_backlog_size() == whole
    channel.push_with_producer(Producer(b"not known yet"))
    assert taken + channel.ac_backlog_size() == whole


def test_backlog_over_its_limit_calls_handle_backlog(loop: str, make: Make) -> None:
    channel = make(kind=Limited)
    assert isinstance(channel, Limited)
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(3):
        in_a_turn(loop, lambda: channel.push(b"x" * 30_000))
    assert channel.too_much == 0
    for _ in range(3):
        in_a_turn(loop, lambda: channel.push(b"x" * 30_000))
    assert channel.too_much > 0


def test_data_of_a_single_turn_does_not_call_handle_backlog(
    loop: str, make: Make
) -> None:
    channel = make(kind=Limited)
    assert isinstance(channel, Limited)
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def drained() -> bool:
        channel.got()
        return not channel.ac_backlog_size()

    for _ in range(2):
        in_a_turn(loop, lambda: channel.push(b"x" * 300_000))
        assert channel.ac_backlog_size() > channel.ac_backlog_limit
        turn_until(loop, drained)
    assert channel.too_much == 0
    in_a_turn(loop, lambda: channel.push(b"x" * 300_000))
    in_a_turn(loop, lambda: channel.push(b"x"))
    assert channel.too_much == 1


def test_backlog_grows_although_the_peer_reads_in_each_turn(
    loop: str, make: Make
) -> None:
    """Each turn sends a part before its end, after it has queued more."""
    channel = make(lambda channel: channel.push(b"x" * 30_000), kind=Limited)
    assert isinstance(channel, Limited)
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    while not channel.too_much:
        channel.wake()
        turn_once(loop)
        assert 0 < len(channel.got()) < 30_000
        assert channel.ac_backlog_size() <= channel.ac_backlog_limit + 30_000
    channel.too_much = 0
    channel.wake()
    turn_once(loop)
    assert channel.too_much == 1


def test_two_pushes_in_a_single_turn_do_not_call_handle_backlog(
    loop: str, make: Make
) -> None:
    def add(channel: Coalescing) -> None:
        for _ in range(2):
            channel.push(b"x" * 300_000)
            # send() first writes the data that waits for the end of the turn.
            channel.send(b"x")

    channel = make(add, kind=Limited)
    assert isinstance(channel, Limited)
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    channel.wake()
    turn_once(loop)
    assert channel.ac_backlog_size() > 500_000
    assert channel.too_much == 0
    channel.wake()
    turn_once(loop)
    assert channel.too_much == 1


def test_close_when_done_adds_nothing_to_the_backlog(loop: str, make: Make) -> None:
    channel = make(kind=Limited)
    assert isinstance(channel, Limited)
    in_a_turn(loop, lambda: channel.push(b"x" * 3_000_000))
    assert channel.ac_backlog_size() > channel.ac_backlog_limit
    in_a_turn(loop, channel.close_when_done)
    assert channel.too_much == 0


def test_handle_backlog_is_not_called_on_a_closed_channel(
    loop: str, make: Make
) -> None:
    channel = make(kind=Limited)
    assert isinstance(channel, Limited)
    in_a_turn(loop, lambda: channel.push(b"x" * 3_000_000))
    in_a_turn(loop, lambda: (channel.push(b"x"), channel.close()))
    assert channel.too_much == 0


def test_push_between_two_loops_counts_in_the_next_turn(loop: str, make: Make) -> None:
    channel = make(kind=Limited)
    assert isinstance(channel, Limited)
    in_a_turn(loop, lambda: channel.push(b"x" * 3_000_000))
    for calls in (1, 2):
        channel.push(b"x")
        channel.wake()
        turn_once(loop)
        assert channel.too_much == calls
    in_a_turn(loop, lambda: channel.push(b"x"))
    assert channel.too_much == 3


def test_data_of_a_producer_counts_in_the_backlog(loop: str, make: Make) -> None:
    channel = make(kind=Limited)
    assert isinstance(channel, Limited)
    in_a_turn(loop, lambda: channel.push_with_producer(Producer(b"x" * 3_000_000)))
    assert channel.too_much == 0
    in_a_turn(loop, lambda: channel.push(b"x"))
    assert channel.too_much == 1


def test_peer_that_receives_everything_has_no_backlog(loop: str, make: Make) -> None:
    channel = make(kind=Limited)
    assert isinstance(channel, Limited)
    for _ in range(20):
        in_a_turn(loop, lambda: channel.push(b"x" * 30_000))
        assert len(channel.got()) == 30_000
    assert channel.too_much == 0


def test_discarded_data_does_not_count_in_the_backlog(
    any_loop: str, make: Make
) -> None:
    channel = make()
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    in_a_turn(any_loop, lambda: channel.push(b"x" * 500_000))
    channel.discard_buffers()
    assert channel.ac_backlog_size() == 0
