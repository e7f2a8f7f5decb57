"""Classes of a program work as with the original: mixins, queues and patches.

Each test makes a subclass of ``compat.async_chat`` in a way that the original allows,
and compares the calls with those that the original makes.
"""

from __future__ import annotations

import asynchat
import asyncore
import os
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

import compat
from tests.support import turn_until

Calls = list[str]


class Recording(asyncore.dispatcher):
    """A mixin that stands between asynchat's class and the dispatcher."""

    calls: Calls

    def send(self, data: Any) -> int:
        self.calls.append("send")
        return super().send(data)

    def connect(self, address: Any) -> None:
        self.calls.append("connect")
        super().connect(address)

    def add_channel(self, map: Any = None) -> None:
        self.calls.append("add_channel")
        super().add_channel(map)

    def del_channel(self, map: Any = None) -> None:
        self.calls.append("del_channel")
        super().del_channel(map)

    def close(self) -> None:
        self.calls.append("close")
        super().close()


class Helper:
    """A mixin with the names that only compat's class has."""

    ac_backlog_limit = "its own"
    ac_coalesce_writes = "its own"

    def _its_own(self, *given: object) -> str:
        return "its own"

    ac_backlog_size = interest_changed = handle_backlog = _its_own
    pause_reading = resume_reading = watch_reads = _its_own


class Shouting(deque[Any]):
    """A queue that changes its entries."""

    def append(self, entry: Any) -> None:
        super().append(entry and entry.upper())


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    with peer:
        yield ours, peer
        asyncore.close_all(ignore_all=True)


def received(peer: socket.socket, any_loop: str, size: int) -> bytes:
    got = b""

    def arrived() -> bool:
        nonlocal got
        try:
            got += peer.recv(size)
        except BlockingIOError:
            return False
        return len(got) >= size

    turn_until(any_loop, arrived)
    return got


@pytest.mark.parametrize("base", [asynchat.async_chat, compat.async_chat])
def test_methods_of_a_mixin_after_async_chat_are_called(base: Any) -> None:
    kind = type("Kind", (base, Recording), {"calls": []})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        channel = kind()
        channel.create_socket()
        channel.connect(listener.getsockname())
        channel.handle_connect_event()
        channel.push(b"data")
        channel.close()
    assert kind.calls == ["add_channel", "connect", "send", "close", "del_channel"]


@pytest.mark.parametrize("base", [asynchat.async_chat, compat.async_chat])
def test_patched_send_of_the_dispatcher_is_called(
    base: Any, ends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    send = asyncore.dispatcher.send

    def patched(self: Any, data: Any) -> int:
        sent.append(bytes(data))
        return send(self, data)

    channel = base(ends[0])
    monkeypatch.setattr(asyncore.dispatcher, "send", patched)
    channel.push(b"pushed")
    channel.send(b"sent")
    assert sent == [b"pushed", b"sent"]


def test_names_of_a_mixin_after_async_chat_are_its_own(ends: Any) -> None:
    class Kind(compat.async_chat, Helper):  # type: ignore[misc]
        """Both have them."""

    channel: Any = Kind(ends[0])
    names = [name for name in vars(Helper) if not name.startswith("_")]
    assert len(names) == 8
    for name in names:
        value = getattr(channel, name)
        assert (value(1, 2) if callable(value) else value) == "its own"


def test_queue_class_of_a_program_sees_every_push(any_loop: str, ends: Any) -> None:
    channel = compat.async_chat(ends[0])
    channel.producer_fifo = Shouting()
    channel.push(b"short ")
    channel.push(b"long" * 20_000)
    assert received(ends[1], any_loop, 80_006) == b"SHORT " + b"LONG" * 20_000


def test_list_serves_as_a_queue(any_loop: str, ends: Any) -> None:
    channel: Any = compat.async_chat(ends[0])
    channel.producer_fifo = []
    channel.push(b"x" * 300_000)
    channel.push(b"y")
    assert received(ends[1], any_loop, 300_001) == b"x" * 300_000 + b"y"


@pytest.mark.parametrize("place", ["property", "slot", "base"])
def test_queue_of_a_class_is_sent(any_loop: str, ends: Any, place: str) -> None:
    class Property(compat.async_chat):
        own: Any = None

        @property
        def producer_fifo(self) -> Any:
            self.own = self.own or deque()
            return self.own

        @producer_fifo.setter
        def producer_fifo(self, fifo: Any) -> None:
            """It stays."""

    class Slot(compat.async_chat):
        __slots__ = ("producer_fifo",)

    class Base(compat.async_chat):
        @property
        def producer_fifo(self) -> Any:
            return super().producer_fifo

        @producer_fifo.setter
        def producer_fifo(self, fifo: Any) -> None:
            """It stays."""

    kind: Any = {"property": Property, "slot": Slot, "base": Base}[place]
    channel = kind(ends[0])
    channel.push(b"pushed,")
    channel.push_with_producer(asynchat.simple_producer(b"produced,"))
    assert received(ends[1], any_loop, 16) == b"pushed,produced,"
    channel.producer_fifo.append(b"by hand")
    assert received(ends[1], any_loop, 7) == b"by hand"
    channel.close_when_done()
    turn_until(any_loop, lambda: not asyncore.socket_map)


@pytest.mark.parametrize("place", ["instance", "class"])
@pytest.mark.parametrize("name", ["send", "initiate_send"])
def test_replaced_method_is_called_by_the_next_push(
    ends: Any, place: str, name: str
) -> None:
    class Kind(compat.async_chat):
        """A class that the program changes after its first push."""

    channel = Kind(ends[0])
    channel.push(b"before,")
    originally = getattr(channel, name)
    calls: Calls = []

    def own(*args: Any) -> Any:
        calls.append(name)
        return originally(*args)

    if place == "instance":
        setattr(channel, name, own)
    else:
        setattr(Kind, name, lambda self, *args: own(*args))
    channel.push(b"after")
    assert calls == [name]
    assert ends[1].recv(100) == b"before,after"


def test_class_patched_after_its_channel_joined_is_polled(loop: str, ends: Any) -> None:
    """The class joins a running loop, and more channels than a turn compares anyway."""

    class Late(compat.async_chat):
        pass

    polled: list[str] = []
    others = [socket.socketpair() for _ in range(20)]
    for ours, _ in others:
        compat.async_chat(ours)

    def join() -> None:
        Late(ends[0])
        compat.call_later(0, compat.call_later, 0, patch)

    def patch() -> None:
        Late.writable = lambda self: bool(polled.append("polled"))  # type: ignore[method-assign]
        close = compat.call_later, 0, asyncore.close_all
        compat.call_later(0, compat.call_later, 0, compat.call_later, 0, *close)

    compat.call_later(0, join)
    compat.loop(loop=loop)
    for _, theirs in others:
        theirs.close()
    assert len(polled) > 2


@pytest.mark.parametrize("loop", ["select", "selectors"])
def test_override_by_an_earlier_handler_applies_next_turn(loop: str) -> None:
    read: list[Any] = []

    class Channel(compat.async_chat):
        def collect_incoming_data(self, data: bytes) -> None:
            read.append(self)
            if self is first:
                second.readable = lambda: False  # type: ignore[method-assign]
                compat.call_later(0, stop, map=map)

    def stop() -> None:
        raise asyncore.ExitNow

    map: dict[int, Any] = {}
    (ours, peer), (other, its_peer) = socket.socketpair(), socket.socketpair()
    first, second = Channel(ours, map), Channel(other, map)
    with ours, peer, other, its_peer:
        for channel, end in (first, peer), (second, its_peer):
            channel.set_terminator(None)
            end.send(b"data")
        with pytest.raises(asyncore.ExitNow):
            compat.loop(1.0, map=map, loop=loop)
    assert read == [first, second]


@pytest.mark.parametrize("loop", ["select", "selectors"])
def test_channel_with_a_reused_number_is_read_last(loop: str) -> None:
    read: list[str] = []

    class Polled(asyncore.dispatcher):
        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            number = ours.fileno()
            self.close()
            os.dup2(spare.fileno(), number)
            Channel(socket.socket(fileno=number), map).name = "newcomer"
            for end in spare_peer, resident_peer:
                end.send(b"data")

    class Channel(compat.async_chat):
        name = "resident"
        terminator = None

        def collect_incoming_data(self, data: bytes) -> None:
            read.append(self.name)
            if read[1:]:
                asyncore.close_all(map)

    map: dict[int, Any] = {}
    ours, peer = socket.socketpair()
    spare, spare_peer = socket.socketpair()
    resident, resident_peer = socket.socketpair()
    with peer, spare, spare_peer, resident_peer:
        Polled(ours, map)
        Channel(resident, map)
        peer.send(b"data")
        compat.loop(1.0, map=map, loop=loop)
    assert read == ["resident", "newcomer"]
