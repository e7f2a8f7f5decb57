"""After Ctrl+C at any moment, the next loop runs as if nothing had happened."""

from __future__ import annotations

import asyncore
import socket
import sys
from itertools import count

import pytest

import compat
from compat._runtime import this_process, this_thread
from tests.support import Peer, in_another_thread, is_interrupted, turn_until


class Echo(compat.async_chat):
    """A channel that echoes its data."""

    ac_coalesce_writes = True

    def __init__(self, sock: socket.socket) -> None:
        compat.async_chat.__init__(self, sock)
        self.set_terminator(b"\n")

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(data)

    def found_terminator(self) -> None:
        self.push(b"\n")


class Member(Echo):
    """A channel that also pushes to its group."""

    def __init__(self, sock: socket.socket, group: compat.BroadcastGroup) -> None:
        Echo.__init__(self, sock)
        self.group = group
        group.add(self)

    def collect_incoming_data(self, data: bytes) -> None:
        Echo.collect_incoming_data(self, data)
        self.group.push(data, exclude=self)


def stop() -> None:
    raise asyncore.ExitNow


# An interrupted socketpair() leaks its pair; an exception in __del__ is lost.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [1, 3, None])
def test_after_ctrl_c_at_any_moment_the_loop_can_be_turned_again(
    loop: str, number: int | None
) -> None:
    for moment in count(1):
        sock, there = socket.socketpair()
        sock.setblocking(False)
        echo, peer = Echo(sock), Peer(there)
        peer.send("one\n")
        timer = compat.call_later(0, stop)
        interrupted = is_interrupted(
            moment, lambda: compat.loop(0, count=number, loop=loop)
        )
        timer.cancel()
        nothing_is_turned()
        peer.send("two\n")
        turn_until(loop, lambda peer=peer: peer.receive_available()[-4:] == b"two\n")
        echo.close()
        peer.close()
        if not interrupted:
            break
    # The shortest is asyncore's own turn on select.
    assert moment > 100


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_group_goes_on_after_ctrl_c_at_any_moment(loop: str) -> None:
    for moment in count(1):
        group, pairs = (
            compat.BroadcastGroup(),
            [socket.socketpair() for _ in range(2)],
        )
        members = [Member(sock, group) for sock, _ in pairs]
        speaker, listener = (Peer(there) for _, there in pairs)
        speaker.send("one\n")
        timer = compat.call_later(0, stop)
        interrupted = is_interrupted(moment, lambda: compat.loop(0, loop=loop))
        timer.cancel()
        nothing_is_turned()
        speaker.send("two\n")
        for peer in (speaker, listener):
            turn_until(loop, lambda peer=peer: b"two" in peer.receive_available())
            peer.close()
        for member in members:
            member.close()
        if not interrupted:
            break
    assert moment > 100


@pytest.mark.parametrize("coalesces", [False, True])
@pytest.mark.parametrize("waiting", [0, 2])
def test_no_channel_stays_claimed_after_ctrl_c(coalesces: bool, waiting: int) -> None:
    for moment in count(1):
        sock, there = socket.socketpair()
        channel, peer = Echo(sock), Peer(there)
        channel.ac_coalesce_writes = coalesces
        channel.producer_fifo.extend([b"before"] * waiting)

        def send(channel: Echo = channel) -> None:
            channel.push(b"now")
            channel.initiate_send()

        interrupted = is_interrupted(moment, send)
        channel.ac_coalesce_writes = False
        channel.discard_buffers()
        in_another_thread(lambda channel=channel: channel.push(b"free"))
        assert peer.receive_available()[-4:] == b"free"
        channel.discard_buffers()
        channel.close()
        peer.close()
        if not interrupted:
            break
    assert moment > 10


def nothing_is_turned() -> None:
    assert (this_thread.depth, this_thread.running) == (0, [])
    assert not any(
        compat.is_running(each.map) for each in this_process.schedulers.values()
    )
    for lock in (this_process.lock, sys.modules["compat._outbox"]._lock):
        with pytest.raises(RuntimeError):
            lock.release()
