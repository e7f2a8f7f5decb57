"""Another thread pushes at the worst moment: no message is lost or split.

The test chooses the moment: during a send, or during the creation of a queue, a second
thread pushes, and the test continues when that thread has pushed or waits.
"""

from __future__ import annotations

import asyncore
import errno
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import compat
from tests.support import (
    WatchedLock,
    in_a_turn,
    in_another_thread,
    process,
    turn_until,
)

MESSAGE = b"<one message to everybody>"
OTHER = b"<FROM ANOTHER THREAD>"


class Halting(socket.socket):
    """A socket whose first send accepts half of the data, while another thread acts."""

    meanwhile: Callable[[], object] | None = None

    def send(self, data: Any, flags: int = 0) -> int:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is None:
            return super().send(data, flags)
        sent = super().send(memoryview(data)[: len(data) // 2], flags)
        in_another_thread(meanwhile)
        return sent


class Channel(compat.async_chat):
    """One end of a socket pair, whose first send another thread interrupts."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.sock = Halting(fileno=ours.detach())
        super().__init__(self.sock)
        self.set_terminator(None)
        self.got = b""

    def halt(self) -> None:
        self.sock.meanwhile = lambda: self.push(OTHER)

    def collect_incoming_data(self, data: bytes) -> None:
        """Peers send nothing."""

    def found_terminator(self) -> None:
        """There is none."""

    def has_got(self, size: int) -> bool:
        self.peer.setblocking(False)
        try:
            self.got += self.peer.recv(1 << 20)
        except BlockingIOError:
            return False
        return len(self.got) >= size


class Coalescing(Channel):
    ac_coalesce_writes = True


def end_the_loop() -> None:
    raise asyncore.ExitNow


class Producer:
    """A producer of one message."""

    def __init__(self) -> None:
        self.data = [MESSAGE]

    def more(self) -> bytes:
        return self.data.pop() if self.data else b""


@pytest.fixture
def make() -> Iterator[Callable[[type[Channel]], Channel]]:
    made: list[Channel] = []

    def make(kind: type[Channel]) -> Channel:
        made.append(kind())
        return made[-1]

    yield make
    for channel in made:
        channel.discard_buffers()
        channel.close()
        channel.peer.close()


Make = Callable[[type[Channel]], Channel]
BOTH = len(MESSAGE) + len(OTHER)


@pytest.mark.parametrize("size", [1, 200_000])
def test_group_message_stays_whole(loop: str, make: Make, size: int) -> None:
    channel, group = make(Coalescing), compat.BroadcastGroup()
    group.add(channel)
    channel.halt()
    message = MESSAGE * size
    in_a_turn(loop, lambda: group.push(message))
    turn_until(loop, lambda: channel.has_got(len(message) + len(OTHER)))
    assert channel.got == message + OTHER


def test_speakers_part_of_the_log_stays_whole(loop: str, make: Make) -> None:
    channel, group = make(Coalescing), compat.BroadcastGroup()
    group.add(channel)
    channel.halt()

    def speak() -> None:
        channel.push(b"<mine>")
        group.push(MESSAGE, exclude=channel)
        group.push(b"<for all>")

    in_a_turn(loop, speak)
    expected = b"<mine><for all>" + OTHER
    turn_until(loop, lambda: channel.has_got(len(expected)))
    assert channel.got == expected


@pytest.mark.parametrize("kind", [Channel, Coalescing])
def test_pushed_message_stays_whole(loop: str, make: Make, kind: type[Channel]) -> None:
    channel = make(kind)
    channel.halt()
    in_a_turn(loop, lambda: channel.push(MESSAGE))
    turn_until(loop, lambda: channel.has_got(BOTH))
    assert channel.got == MESSAGE + OTHER


@pytest.mark.parametrize("kind", [Channel, Coalescing])
def test_producers_message_stays_whole(
    loop: str, make: Make, kind: type[Channel]
) -> None:
    channel = make(kind)
    channel.halt()
    in_a_turn(loop, lambda: channel.push_with_producer(Producer()))
    turn_until(loop, lambda: channel.has_got(BOTH))
    assert channel.got == MESSAGE + OTHER


def test_queued_message_stays_whole(loop: str, make: Make) -> None:
    """The loop sends the rest of an earlier send, again only half of it at first."""
    channel = make(Channel)
    channel.producer_fifo.append(MESSAGE)
    channel.halt()
    turn_until(loop, lambda: channel.has_got(BOTH))
    assert channel.got == MESSAGE + OTHER


def test_end_of_a_loop_does_not_split_a_message(loop: str, make: Make) -> None:
    """The channel is still sending when the loop that cached its interest ends."""
    channel = make(Channel)

    def run_a_loop_and_push() -> None:
        compat.call_soon_threadsafe(end_the_loop)
        with suppress(asyncore.ExitNow):
            compat.loop(loop=loop)
        channel.push(OTHER)

    channel.sock.meanwhile = run_a_loop_and_push
    channel.push(MESSAGE)
    turn_until(loop, lambda: channel.has_got(BOTH))
    assert channel.got == MESSAGE + OTHER


@pytest.mark.parametrize("kind", [Channel, Coalescing])
def test_failed_send_keeps_the_order(
    loop: str, make: Make, kind: type[Channel]
) -> None:
    channel = make(kind)

    def send(data: Any) -> int:
        del channel.sock.send  # type: ignore[method-assign]
        in_another_thread(lambda: channel.push(OTHER))
        raise BlockingIOError(errno.EWOULDBLOCK, "full")

    channel.sock.send = send  # type: ignore[method-assign, assignment]
    in_a_turn(loop, lambda: channel.push(MESSAGE))
    turn_until(loop, lambda: channel.has_got(BOTH))
    assert channel.got == MESSAGE + OTHER


@pytest.mark.parametrize("kind", [Channel, Coalescing])
def test_two_first_pushes_make_one_queue(
    loop: str, make: Make, kind: type[Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, lock = make(kind), WatchedLock()
    threads: list[threading.Thread] = []

    def second() -> None:
        channel.producer_fifo.append(OTHER)
        lock.has_to_wait.set()

    def slow_deque() -> deque[Any]:
        monkeypatch.setattr(sys.modules["compat._outbox"], "deque", deque)
        threads.append(threading.Thread(target=second))
        threads[0].start()
        lock.has_to_wait.wait()
        return deque()

    monkeypatch.setattr(sys.modules["compat._outbox"], "_lock", lock)
    monkeypatch.setattr(sys.modules["compat._outbox"], "deque", slow_deque)
    channel.producer_fifo.append(MESSAGE)
    threads[0].join()
    assert sorted(channel.producer_fifo) == [OTHER, MESSAGE]


class Sliced(bytes):
    """Bytes whose second slice is made while another thread acts."""

    meanwhile: Callable[[], object] | None = None

    def __getitem__(self, key: Any) -> Any:
        if self.meanwhile is not None and key.start:
            meanwhile, self.meanwhile = self.meanwhile, None
            in_another_thread(meanwhile)
        return super().__getitem__(key)


def test_large_message_stays_whole(loop: str, make: Make) -> None:
    channel, size = make(Channel), 200_000
    message = Sliced(b"x" * size)
    message.meanwhile = lambda: channel.push(OTHER)
    in_a_turn(loop, lambda: channel.push(message))
    turn_until(loop, lambda: channel.has_got(size + len(OTHER)))
    assert channel.got in (message + OTHER, OTHER + message)


@pytest.mark.parametrize("closed", [1, 2])
def test_member_closed_by_a_thread_costs_the_others_nothing(
    loop: str, make: Make, closed: int
) -> None:
    channels, group = [make(Coalescing) for _ in range(4)], compat.BroadcastGroup()
    for channel in channels:
        group.add(channel)
    channels[1].sock.meanwhile = channels[closed].close
    in_a_turn(loop, lambda: group.push(MESSAGE))
    for channel in channels:
        if channel is not channels[closed]:
            turn_until(loop, lambda channel=channel: channel.has_got(len(MESSAGE)))
            assert channel.got == MESSAGE
    assert channels[closed] not in group
    assert not channels[closed].producer_fifo


@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize("kind", [Channel, Coalescing])
def test_queue_discarded_during_a_send_keeps_later_data(
    loop: str, make: Make, kind: type[Channel], size: int
) -> None:
    channel = make(kind)

    def discard_and_push() -> None:
        channel.discard_buffers()
        channel.push(OTHER)

    channel.producer_fifo.append(memoryview(MESSAGE * size)[:60_000])
    channel.sock.meanwhile = discard_and_push
    turn_until(loop, lambda: channel.has_got(1) and channel.got.endswith(OTHER))
    assert channel.connected


# Another thread forks while this one sends, and the child pushes.
FORK = """
import os, socket, threading, warnings
import compat

warnings.simplefilter("ignore", DeprecationWarning)

class Socket(socket.socket):
    def send(self, data):
        Socket.send = socket.socket.send
        forker = threading.Thread(target=fork)
        forker.start()
        forker.join()
        return super().send(data)

def fork():
    pid = os.fork()
    if not pid:
        channel.push(b"the child")
        os._exit(len(channel.producer_fifo))
    print("left in the queue:", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

ours, peer = socket.socketpair()
channel = compat.async_chat(Socket(fileno=ours.detach()))
channel.push(b"the parent")
"""

COALESCED = """channel.ac_coalesce_writes = True
channel.push(b"the parent")
channel.initiate_send()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_child_forked_during_a_send_sends_at_once() -> None:
    with process(sys.executable, "-c", FORK) as program:
        assert program.wait() == 0
    assert program.err == []
    assert program.out[0] == "left in the queue: 0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("call", ["close()", "send(b'!')"])
def test_child_forked_during_a_send_flushes_first(call: str) -> None:
    script = FORK.replace('push(b"the child")', f'push(b"the child"); channel.{call}')
    script = script.replace('channel.push(b"the parent")', COALESCED)
    with process(sys.executable, "-c", script) as program:
        assert program.wait() == 0
    assert program.err == []
    assert program.out[0] == "left in the queue: 0"
