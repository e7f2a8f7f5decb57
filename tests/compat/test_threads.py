"""Another thread's changes to a channel do not wait for the loop's timeout."""

from __future__ import annotations

import asyncore
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

import compat
from tests.compat.test_loop import Probe
from tests.support import turn_once, turn_until


class Stopping(compat.async_chat):
    """A channel that collects its peer's data."""

    def __init__(self, map: Any = None) -> None:
        ours, self.peer = socket.socketpair()
        self.heard: list[bytes] = []
        super().__init__(ours, map)
        self.set_terminator(None)

    def collect_incoming_data(self, data: bytes) -> None:
        self.heard.append(data)
        raise asyncore.ExitNow

    def close(self) -> None:
        super().close()
        self.peer.close()


def while_it_waits(loop: str, act: Callable[[], object]) -> None:
    """Run the loop until a handler raises ExitNow; *act* runs in another thread."""

    def other() -> None:
        turning.wait()
        act()

    turning = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    compat.call_later(0, turning.set)
    with pytest.raises(asyncore.ExitNow):
        compat.loop(3600.0, loop=loop)
    thread.join()


def test_channel_added_by_another_thread_is_polled(loop: str) -> None:
    lines: list[Stopping] = []
    probe = Probe()

    def add() -> None:
        line = Stopping()
        lines.append(line)
        line.peer.sendall(b"hi")

    while_it_waits(loop, add)
    assert lines[0].heard == [b"hi"]
    lines[0].close()
    probe.close()


def test_push_from_another_thread_is_sent(loop: str) -> None:
    line = Stopping()

    def answer() -> None:
        got = 0
        # More than the kernel accepts at once: the loop sends the rest.
        while got < 5_000_000:
            got += len(line.peer.recv(1 << 20))
        line.peer.sendall(b"thanks")

    reader = threading.Thread(target=answer)
    reader.start()
    while_it_waits(loop, lambda: line.push(b"x" * 5_000_000))
    reader.join()
    assert line.heard == [b"thanks"]
    line.close()


def test_a_thread_that_closes_the_last_channel_ends_the_loop(loop: str) -> None:
    line = Stopping()
    turning = threading.Event()

    def close() -> None:
        turning.wait()
        line.close_when_done()

    thread = threading.Thread(target=close)
    thread.start()
    compat.call_later(0, turning.set)
    compat.loop(3600.0, loop=loop)
    thread.join()
    assert not asyncore.socket_map
    line.peer.close()


@pytest.mark.parametrize("index", [0, -1])
def test_push_survives_an_entry_that_another_thread_sends(index: int) -> None:
    class Taken(deque[Any]):
        """A queue that loses its entries when one of them is looked up."""

        def __getitem__(self, place: Any) -> Any:
            if place == index and len(self) == 1:
                self.clear()
            return super().__getitem__(place)

    line = Stopping()
    line.ac_coalesce_writes = True
    line.producer_fifo = Taken([b"x"])
    line.push(b"y")
    turn_once("select", timeout=0)
    if index:
        assert line.peer.recv(9) == b"y"
    line.close()


def test_channels_that_threads_make_and_close_are_served(loop: str) -> None:
    class Echo(compat.async_chat):
        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock)
            self.set_terminator(None)

        def collect_incoming_data(self, data: bytes) -> None:
            self.push(data)
            self.close_when_done()

    answers: list[bytes] = []

    def work() -> None:
        for _ in range(100):
            ours, peer = socket.socketpair()
            with peer:
                Echo(ours)
                peer.sendall(b"x")
                answers.append(peer.recv(9) + peer.recv(9))
        compat.call_soon_threadsafe(left.pop)

    probe, left = Probe(), [None] * 3
    threads = [threading.Thread(target=work) for _ in left]
    for thread in threads:
        thread.start()
    turn_until(loop, lambda: not left)
    for thread in threads:
        thread.join()
    assert answers == [b"x"] * 300
    probe.close()
