"""Faults around a room that runs for long; the room survives all of them.

The tests cause real faults; they inject only those that the kernel cannot be made to
produce.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from legacy_chat import ChatSession
from tests.legacy_chat.rooms import Room, our_room
from tests.support import DEADLINE, Peer, process, room

SERVE = (sys.executable, "-m", "legacy_chat", "serve", "--host", "127.0.0.1")


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the server's pause: the tests depend on the pause, not on its length."""
    monkeypatch.setattr("legacy_chat.listener.ACCEPT_PAUSE", 0.02)


def still_chats(room: Room, speaker: Peer, *listeners: Peer) -> None:
    speaker.send("still here.")
    room.until(
        lambda: (
            speaker.got.endswith(b"still here.")
            and all(peer.got.endswith(b"still here.") for peer in listeners)
        )
    )


# Clients.


def test_resets_during_a_broadcast_cost_other_clients_nothing(
    loop: str,
) -> None:
    with our_room(loop) as room:
        speaker, *others = room.join_many(31)
        fragile, steady = others[::2], others[1::2]
        before = {peer: len(peer.got) for peer in steady}
        # Each peer is reset while the broadcast iterates over it and its neighbours.
        victims = iter(fragile)
        speaking = room.session(speaker)
        tell = speaking.broadcasting

        def broadcasting(msg: bytes) -> None:
            next(victims).reset()
            tell(msg)
            next(victims).reset()

        speaking.broadcasting = broadcasting
        said = b""
        for number in range(7):
            text = b"%d." % number
            said += text
            speaker.send(text)
            room.until(lambda text=text: speaker.got.endswith(text))
        prefix = f"用户{speaker.name} 说:".encode()
        room.until(lambda: all(peer.got.endswith(b"6.") for peer in steady))
        for peer in steady:
            assert peer.got[before[peer] :].replace(prefix, b"") == said
        room.until(lambda: len(room.server.clients) == 1 + len(steady) + 1)
        closed = room.server.counters.closed
        assert closed["reset"] + closed["eof"] == 14
        assert closed["error"] == 0


def test_half_closed_client_gets_its_queue(loop: str) -> None:
    queued = bytes(range(ord("a"), ord("k"))) * 800_000
    with our_room(loop, send_queue=0) as room:
        a, b = room.join_many(2)
        room.peers.remove(a)
        session = room.session(a)
        session.push(queued)
        a.sock.shutdown(socket.SHUT_WR)
        room.until(lambda: session not in room.server.clients)
        assert not a.ended
        still_chats(room, b)
        room.peers.append(a)
        room.until(lambda: a.ended)
        assert a.got == queued
        assert room.server.counters.closed["eof"] == 1


def test_half_closed_client_that_sent_out_gets_its_queue(loop: str) -> None:
    queued = bytes(range(ord("a"), ord("k"))) * 800_000
    with our_room(loop, send_queue=0) as room:
        a, _ = room.join_many(2)
        room.peers.remove(a)
        session = room.session(a)
        session.push(queued)
        a.send("bye out")
        a.sock.shutdown(socket.SHUT_WR)
        room.until(lambda: session not in room.server.clients)
        room.peers.append(a)
        room.until(lambda: a.ended)
        assert a.got == queued + b"bye "
        assert room.server.counters.closed["out"] == 1


def test_client_that_vanishes_with_a_queue_is_closed(loop: str) -> None:
    with our_room(loop, send_queue=0) as room:
        a, b = room.join_many(2)
        room.peers.remove(a)
        session = room.session(a)
        session.push(b"x" * 8_000_000)
        a.close()
        room.until(lambda: not session.connected)
        still_chats(room, b)
        assert room.server.counters.bytes_dropped > 0


def test_hundred_stalled_readers_are_disconnected(
    loop: str,
) -> None:
    with our_room(loop, send_queue=20_000) as room:
        speaker, listener = room.join_many(2)
        deaf = room.join_many(100)
        sessions = [room.session(peer) for peer in deaf]
        for peer, session in zip(deaf, sessions, strict=True):
            room.peers.remove(peer)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        said = most = 0
        while len(room.server.clients) > 2:
            speaker.send(b"x" * 8000)
            said += 8000
            room.until(lambda said=said: listener.got.count(b"x") == said)
            queued = sum(session.ac_backlog_size() for session in room.server.clients)
            most = max(most, queued)
        assert most <= 100 * 30_000
        assert room.server.counters.closed["slow"] == 100
        assert speaker.got == b"x" * said
        for peer in deaf:
            peer.close()


class Failing:
    """A socket whose ``send`` fails once in a given way."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self._sock = sock
        self._number = number

    def send(self, data: Any) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize(
    "number", [errno.ENOBUFS, errno.ENOMEM, errno.EPIPE, errno.ENETDOWN]
)
def test_failed_send_closes_only_its_client(loop: str, number: int) -> None:
    """Injected: the loopback runs out of memory only after the test does."""
    with our_room(loop) as room:
        a, b, c = room.join_many(3)
        session = room.session(b)
        session.socket = Failing(session.socket, number)
        a.send("hi!")
        room.until(lambda: b.ended and c.got.endswith(b"hi!"))
        still_chats(room, a, c)
        assert sum(room.server.counters.closed.values()) == 1
        assert session not in room.server.clients


def test_broken_pipe_closes_only_its_client(loop: str) -> None:
    with our_room(loop) as room:
        a, b, c = room.join_many(3)
        session = room.session(b)
        # The kernel's own EPIPE.
        session.socket.shutdown(socket.SHUT_WR)
        a.send("hi!")
        room.until(lambda: not session.connected)
        still_chats(room, a, c)
        assert room.server.counters.closed["reset"] == 1


# Handlers.


def recurse() -> None:
    recurse()


def exhaust() -> None:
    bytearray(1 << 62)


def end_generator() -> None:
    raise GeneratorExit


class Odd(BaseException):
    """A BaseException that is not an Exception."""


def be_odd() -> None:
    raise Odd


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (recurse, "RecursionError"),
        (exhaust, "MemoryError"),
        (end_generator, "GeneratorExit"),
        (be_odd, "Odd"),
    ],
)
def test_exception_of_a_handler_closes_only_its_client(
    any_loop: str,
    what: Callable[[], None],
    error: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Fragile(ChatSession):
        def collect_incoming_data(self, data: bytes) -> None:
            if data == b"break.":
                what()
            super().collect_incoming_data(data)

    with our_room(any_loop, session_class=Fragile) as room:
        a, b, c = room.join_many(3)
        a.send("break.")
        room.until(lambda: a.ended)
        assert error in caplog.text
        assert room.server.counters.closed["error"] == 1
        still_chats(room, b, c)


# The listener.


def test_listener_that_was_shut_down_listens_again(
    any_loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with our_room(any_loop) as first:
        port = first.server.port
    with our_room(any_loop, port=port) as room:
        a = room.join()
        # Through a duplicate, as a child or a supervisor may hold one.
        with room.server.socket.dup() as twin:
            twin.shutdown(socket.SHUT_RDWR)
            room.until(lambda: "had stopped listening" in caplog.text)
        b = Peer(("127.0.0.1", port))
        room.peers.append(b)
        room.until(lambda: len(room.server.clients) == 2)
        still_chats(room, a, b)


FAMILIES = (socket.AF_INET, socket.AF_INET6)


def shut_down(sock: socket.socket) -> None:
    """Shut the listener down as the holder of a duplicate does."""
    with sock.dup() as twin:
        twin.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def three_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve every name to three loopback addresses."""

    def found(host: Any, port: int, **options: Any) -> list[Any]:
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET, stream, 0, "", ("127.0.0.1", port)),
            (socket.AF_INET6, stream, 0, "", ("::1", port, 0, 0)),
            (socket.AF_INET, stream, 0, "", ("127.0.0.2", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_listener_shut_down_returns_to_its_free_port(
    any_loop: str, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A free port differs from a given one only if the system releases the port."""
    with our_room(any_loop, host=host) as room:
        sock = room.server.socket
        shut_down(sock)
        room.until(lambda: "listens again" in caplog.text)
        with socket.create_connection((sock.getsockname()[0], room.server.port)):
            room.until(lambda: len(room.server.clients) == 1)
        assert "cannot accept" not in caplog.text


@pytest.mark.usefixtures("three_addresses")
def test_every_address_returns_to_the_same_free_port(any_loop: str) -> None:
    with our_room(any_loop, host="localhost") as room:
        port = room.server.port
        doors = [each for each in room.server._map.values() if each.accepting]
        addresses = [door.socket.getsockname()[:2] for door in doors]
        assert {each for _, each in addresses} == {port}
        for door in doors:
            shut_down(door.socket)
        room.until(lambda: all(listens(door.socket) for door in doors))
        for number, address in enumerate(addresses, 1):
            sock = socket.socket(FAMILIES[":" in address[0]])
            sock.connect(address)
            room.peers.append(Peer(sock))
            room.until(lambda number=number: len(room.server.clients) == number)


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def test_metrics_shut_down_return_to_their_free_port(any_loop: str) -> None:
    with our_room(any_loop, metrics=("127.0.0.1", 0)) as room:
        metrics = room.server.metrics
        shut_down(metrics.socket)
        room.until(lambda: listens(metrics.socket))
        scraper = Peer(("127.0.0.1", metrics.port))
        room.peers.append(scraper)
        scraper.send("GET /metrics HTTP/1.0\r\n\r\n")
        room.until(lambda: scraper.ended)
        assert b"200 OK" in scraper.got


def test_listener_logs_a_taken_port_until_it_is_free(
    any_loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with our_room(any_loop) as room:
        a = room.join()
        address = room.server.socket.getsockname()
        shut_down(room.server.socket)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                other.bind(address)
                other.listen()
            except OSError:
                pytest.skip("this system keeps the port of a socket that is shut down")
            cannot = f"cannot listen on 127.0.0.1 port {address[1]} again: "
            room.until(lambda: cannot in caplog.text)
            tries = len(caplog.records)
            still_chats(room, a)
            a.got = b""
            still_chats(room, a)
            assert len(caplog.records) == tries
        room.until(lambda: "listens again" in caplog.text)
        room.peers.append(Peer(address))
        room.until(lambda: len(room.server.clients) == 2)


def test_reserve_closes_no_reused_descriptor(
    out_of_descriptors: Callable[[], None],
) -> None:
    with our_room("select") as room:
        reserve = room.server._reserve
        number = reserve._fd
        # A daemon closes unknown descriptors, and opens another file.
        os.close(number)
        other = os.open(os.devnull, os.O_RDONLY)
        assert other == number
        room.server.close()
        os.fstat(other)
        os.close(other)


def test_client_without_a_free_descriptor_is_refused(
    loop: str, out_of_descriptors: Callable[[], None]
) -> None:
    with our_room(loop) as room:
        a, b = room.join_many(2)
        waiting = [socket.socket() for _ in range(20)]
        still_chats(room, a, b)
        out_of_descriptors()
        for sock in waiting:
            sock.connect(room.server.socket.getsockname())
            room.peers.append(Peer(sock))
        told = room.peers[2:]
        room.until(lambda: all(peer.ended for peer in told))
        assert {peer.got.decode() for peer in told} == {"服务器 说:服务器繁忙"}
        assert room.server.counters.refused["descriptors"] == 20
        still_chats(room, a, b)


# Standard output, standard error.


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until_it_listens(port: int) -> Peer:
    """Connect until the server answers: its output cannot be seen."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return Peer(socket.create_connection(("127.0.0.1", port)))
        except ConnectionRefusedError:
            assert time.monotonic() < end


@contextmanager
def started(argv: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options) as server:
        try:
            yield server
        finally:
            server.kill()


def fill(pipe: int) -> None:
    """Write until the descriptor takes no more."""
    os.set_blocking(pipe, False)
    try:
        while os.write(pipe, b"x" * 1024):
            continue
    except BlockingIOError:
        os.set_blocking(pipe, True)


def command(port: int, loop: str) -> list[str]:
    return [*SERVE, "-vv", "--port", str(port), "--loop", loop]


@pytest.mark.parametrize(
    "redirected",
    [
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        ">/dev/full",
        ">/dev/full 2>/dev/full",
    ],
)
def test_closed_or_full_output_does_not_stop_the_room(
    redirected: str,
) -> None:
    if "/dev/full" in redirected and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    port = free_port()
    words = shlex.join(command(port, "auto"))
    with started(["sh", "-c", f"exec {words} {redirected}"]) as server:
        a = wait_until_it_listens(port)
        for _ in range(20):
            passer_by = Peer(("127.0.0.1", port))
            passer_by.send("out")
            passer_by.wait_for_end()
        a.send("hi!")
        a.wait_for("hi!")
        server.send_signal(signal.SIGTERM)
        a.wait_for_end()
        assert server.wait(DEADLINE) == 0


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_unread_output_does_not_stop_the_room(loop: str, reader: str) -> None:
    """A pipe without a reader; and one that is full, whose reader does nothing."""
    reading, writing = os.pipe()
    fill(writing)
    if reader == "gone":
        os.close(reading)
    port = free_port()
    with started(command(port, loop), stdout=writing, stderr=writing) as server:
        os.close(writing)
        a = wait_until_it_listens(port)
        a.send("hi!")
        a.wait_for("hi!")
        server.send_signal(signal.SIGHUP)
        a.wait_for_end()
        assert server.wait(DEADLINE) == 0
    if reader == "asleep":
        os.close(reading)


# Signals.


def test_server_under_nohup_ignores_sighup() -> None:
    command = (*SERVE, "-v", "--port", "0")
    with process("nohup", *command) as server:
        port = int(server.wait_for(r"port (\d+), loop", err=True)[1])
        a = Peer(("127.0.0.1", port))
        os.kill(server.pid, signal.SIGHUP)
        a.send("hi!")
        a.wait_for("hi!")
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_during_traffic_flushes_the_queues(
    loop: str, number: signal.Signals
) -> None:
    with room(loop) as (server, address):
        speaker, *listeners = [Peer(address) for _ in range(21)]
        for peer in listeners:
            peer.send(f"{peer.name}.")
            peer.wait_for(f"{peer.name}.")
        speaker.send("begin.")
        speaker.wait_for("begin.")
        for turn in range(200):
            speaker.send(f"{turn}.")
        os.kill(server.pid, signal.SIGUSR1)
        os.kill(server.pid, number)
        # The room has echoed and broadcast all data that it has read.
        echo = speaker.wait_for_end().partition(b"begin.")[2]
        prefix = f"用户{speaker.name} 说:".encode()
        for peer in listeners:
            heard = peer.wait_for_end().partition(b"begin.")[2]
            assert heard.replace(prefix, b"") == echo
        assert server.wait() == 0
        server.wait_for("counters: clients=", err=True)
        assert "Traceback" not in "\n".join(server.err)
