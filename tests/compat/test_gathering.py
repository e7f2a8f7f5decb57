"""Gathered writes: one send a turn, and the same bytes in the same order."""

from __future__ import annotations

import asyncore
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import compat
from tests.support import turn_once, turn_until


class Gatherer(compat.async_chat):
    """One end of a socket pair; the test has the other."""

    ac_gather = True

    def __init__(self, on_read: Callable[[Gatherer], None] | None = None) -> None:
        ours, self.peer = socket.socketpair()
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
        """There is none."""

    def send(self, data: Any) -> int:
        self.sends.append(len(data))
        return super().send(data)

    def handle_error(self) -> None:
        self.errors += 1
        self.close()

    def wake(self) -> None:
        """Let it be called in the next turn."""
        self.peer.sendall(b"!")

    def got(self) -> bytes:
        """What has arrived by now."""
        self.peer.setblocking(False)
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return b""

    def rest(self) -> bytes:
        """Everything until the end."""
        self.peer.settimeout(10)
        return b"".join(iter(lambda: self.peer.recv(1 << 20), b""))


@pytest.fixture
def make() -> Iterator[Callable[..., Gatherer]]:
    made: list[Gatherer] = []

    def make(on_read: Callable[[Gatherer], None] | None = None) -> Gatherer:
        made.append(Gatherer(on_read))
        return made[-1]

    yield make
    for channel in made:
        channel.discard_buffers()
        channel.close()
        channel.peer.close()


Make = Callable[..., Gatherer]


def test_what_a_turn_pushes_is_one_send(loop: str, make: Make) -> None:
    seen: list[bytes] = []

    def push(channel: Gatherer) -> None:
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
    def push(channel: Gatherer) -> None:
        channel.push(b"one ")
        channel.push(b"two")

    channel = make(push)
    channel.ac_gather = False
    channel.wake()
    turn_once(loop)
    assert channel.sends == [4, 3]


def test_under_another_loop_the_next_turn_writes(any_loop: str, make: Make) -> None:
    channel = make(lambda channel: (channel.push(b"one "), channel.push(b"two")))
    channel.wake()
    turn_until(any_loop, lambda: channel.sends)
    assert channel.sends == [7]
    assert channel.got() == b"one two"


def test_what_was_pushed_before_any_loop_is_written(any_loop: str, make: Make) -> None:
    channel = make()
    channel.push(b"early")
    turn_until(any_loop, lambda: channel.sends)
    assert channel.got() == b"early"


def test_close_first_sends_what_was_pushed(any_loop: str, make: Make) -> None:
    channel = make(
        lambda channel: (channel.push(b"good"), channel.push(b"bye"), channel.close())
    )
    channel.wake()
    turn_once(any_loop)
    assert channel.rest() == b"goodbye"


def test_send_first_sends_what_was_pushed(any_loop: str, make: Make) -> None:
    channel = make(lambda channel: (channel.push(b"first "), channel.send(b"second")))
    channel.wake()
    turn_once(any_loop)
    assert channel.got() == b"first second"


def test_producers_and_the_end_keep_their_place(any_loop: str, make: Make) -> None:
    class Producer:
        def __init__(self) -> None:
            self.left = [b"2 ", b"3 "]

        def more(self) -> bytes:
            return self.left.pop(0) if self.left else b""

    def push(channel: Gatherer) -> None:
        channel.push(b"1 ")
        channel.push_with_producer(Producer())
        channel.push(b"4")
        channel.close_when_done()

    channel = make(push)
    channel.wake()
    turn_until(any_loop, lambda: not channel.connected)
    assert channel.rest() == b"1 2 3 4"


def test_what_was_pushed_may_be_changed_afterwards(loop: str, make: Make) -> None:
    def push(channel: Gatherer) -> None:
        data = bytearray(b"before")
        channel.push(data)
        channel.push(memoryview(data)[:2])
        data[:] = b"after!"

    channel = make(push)
    channel.wake()
    turn_once(loop)
    assert channel.got() == b"beforebe"


def test_what_is_no_bytes_is_an_error_at_once(make: Make) -> None:
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


def test_a_peer_that_takes_little_gets_everything_in_order(
    any_loop: str, make: Make
) -> None:
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


def test_an_error_of_one_costs_the_others_nothing(loop: str, make: Make) -> None:
    channels = [make() for _ in range(3)]

    class Broken:
        def more(self) -> bytes:
            raise ZeroDivisionError

    def push(_: Gatherer) -> None:
        channels[0].push(b"a")
        channels[1].push_with_producer(Broken())
        channels[2].push(b"c")

    speaker = make(push)
    speaker.wake()
    turn_once(loop)
    assert [channel.errors for channel in channels] == [0, 1, 0]
    assert channels[0].got() + channels[2].got() == b"ac"


@pytest.mark.parametrize("error", [ValueError, asyncore.ExitNow, KeyboardInterrupt])
def test_a_handler_that_pushes_to_many_and_raises_has_pushed_to_many(
    loop: str, make: Make, error: type[BaseException]
) -> None:
    channels = [make() for _ in range(3)]

    def push(_: Gatherer) -> None:
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


def test_a_timer_gathers_too(loop: str, make: Make) -> None:
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
def test_a_fork_in_a_handler_doubles_nothing(loop: str, make: Make) -> None:
    def push(channel: Gatherer) -> None:
        channel.push(b"once")
        child = os.fork()
        if child == 0:
            # As a server does whose child goes on with the loop.
            compat.loop(0, count=1, loop=loop)
            os._exit(0)
        os.waitpid(child, 0)

    channel = make(push)
    channel.wake()
    turn_once(loop)
    assert channel.got() == b"once"
