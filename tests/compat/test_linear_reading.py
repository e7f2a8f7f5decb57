"""compat.async_chat reads as the original does, in linear time."""

from __future__ import annotations

import asynchat
import asyncore
import io
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compat
from tests.support import ORIGINALS, OURS, Peer, turn_until

TERMINATORS = st.one_of(
    st.none(),
    st.integers(0, 5),
    st.sampled_from([b"a", b"ab", b"aab", b"abab", b"\r\n"]),
    st.binary(min_size=1, max_size=4),
)

# Results of recv: data or an exception; the end is b"".
READS = st.lists(
    st.one_of(
        st.text("ab\r\n", max_size=12).map(str.encode),
        st.binary(max_size=12),
        st.sampled_from([BlockingIOError(), ConnectionAbortedError()]),
    ),
    max_size=5,
)

# A handler's action: nothing, another terminator, the buffer consumed in part, the
# buffer replaced, an exception.
ACTS = st.one_of(
    st.none(),
    st.tuples(st.just("terminator"), TERMINATORS),
    st.tuples(st.just("consume"), st.integers(0, 4)),
    st.tuples(st.just("replace"), st.binary(max_size=4)),
    st.tuples(st.just("raise"), st.just(0)),
)


class Recorder:
    """Mixin for either async_chat: reads given data, and records every call."""

    def __init__(self, reads: list[Any], terminator: Any, acts: list[Any]) -> None:
        super().__init__(map={})
        self.reads, self.acts = list(reads), list(acts)
        self.seen: list[Any] = []
        self.set_terminator(terminator)

    def recv(self, size: int) -> bytes:
        read = self.reads.pop(0)
        if isinstance(read, Exception):
            raise read
        return bytes(read)

    def handle_error(self) -> None:
        self.seen.append("error")

    def collect_incoming_data(self, data: bytes) -> None:
        self.note("collect", bytes(data))

    def found_terminator(self) -> None:
        self.note("found", None)

    def note(self, what: str, data: bytes | None) -> None:
        self.seen.append((what, data, self.ac_in_buffer, self.get_terminator()))
        if len(self.seen) > 200:
            # A handler that puts back more than is consumed would never end.
            self.ac_in_buffer = b""
            raise OverflowError
        act = self.acts.pop(0) if self.acts else None
        match act:
            case "terminator", terminator:
                self.set_terminator(terminator)
            case "consume", size:
                self.ac_in_buffer = self.ac_in_buffer[size:]
            case "replace", data:
                self.ac_in_buffer = data
            case "raise", _:
                raise ZeroDivisionError


class Theirs(Recorder, asynchat.async_chat):  # type: ignore[misc]
    """On the original."""


class Ours(Recorder, compat.async_chat):  # type: ignore[misc]
    """On ours."""


def played(kind: type[Any], *given: Any) -> list[Any]:
    channel = kind(*given)
    while channel.reads:
        try:
            channel.handle_read()
        except (ZeroDivisionError, OverflowError) as error:
            channel.seen.append(type(error))
        except TypeError:
            # The case of a handler that leaves no number where one is counted down.
            channel.seen.append(TypeError)
        channel.seen.append((channel.ac_in_buffer, channel.get_terminator()))
    return list(channel.seen)


@settings(max_examples=400)
@given(
    READS,
    TERMINATORS,
    st.lists(ACTS, max_size=8),
)
def test_handlers_see_the_buffer_of_the_original(
    reads: list[Any], terminator: Any, acts: list[Any]
) -> None:
    assert played(Ours, reads, terminator, acts) == played(
        Theirs, reads, terminator, acts
    )


class OnASocket:
    """Mixin for either async_chat: reads a socket pair, and records every call."""

    def __init__(self, size: int, terminator: Any) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(ours)
        self.ac_in_buffer_size = size
        self.set_terminator(terminator)
        self.seen: list[Any] = []

    def collect_incoming_data(self, data: bytes) -> None:
        self.seen.append((bytes(data), self.ac_in_buffer))

    def found_terminator(self) -> None:
        self.seen.append((None, self.ac_in_buffer))

    def handle_close(self) -> None:
        self.seen.append(("close", self.ac_in_buffer))
        self.close()


class TheirsOnASocket(OnASocket, asynchat.async_chat):  # type: ignore[misc]
    """On the original."""


class OursOnASocket(OnASocket, compat.async_chat):  # type: ignore[misc]
    """On ours."""


def read_from_a_socket(kind: type[Any], name: str, said: bytes, *given: Any) -> Any:
    channel = kind(*given)
    with channel.peer:
        channel.peer.sendall(said)
        channel.peer.shutdown(socket.SHUT_WR)
        turn_until(name, lambda: not channel.connected)
    return channel.seen


@pytest.mark.parametrize("name", [*ORIGINALS, *OURS])
def test_a_socket_is_read_as_the_original_reads_it(name: str) -> None:
    @settings(max_examples=40)
    @given(
        st.text("ab\r\n", max_size=30).map(str.encode),
        st.integers(1, 8),
        TERMINATORS,
    )
    def holds(said: bytes, size: int, terminator: Any) -> None:
        ours = read_from_a_socket(OursOnASocket, name, said, size, terminator)
        assert ours == read_from_a_socket(TheirsOnASocket, name, said, size, terminator)

    holds()


class Counted(bytes):
    """Bytes that count how many of them are copied by slicing."""

    copied = 0

    def __add__(self, other: bytes) -> Counted:
        return Counted(bytes(self) + other)

    def __radd__(self, other: bytes) -> Counted:
        return Counted(other + bytes(self))

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        if isinstance(index, slice):
            Counted.copied += len(part)
            return Counted(part)
        return part


def bytes_copied(kind: type[Any], line: int, size: int, counts: bool) -> int:
    """Return bytes that one read of *size* bytes copies, in lines of *line* bytes.

    A line includes its "\\n".
    """
    terminator: Any = line if counts else b"\n"
    lines = 0

    class Counting(kind):  # type: ignore[misc,valid-type]
        def recv(self, buffer_size: int) -> bytes:
            return Counted((b"x" * (line - 1) + b"\n") * (size // line))

        def collect_incoming_data(self, data: bytes) -> None:
            """Ignore the data: only the copies count."""

        def found_terminator(self) -> None:
            nonlocal lines
            lines += 1
            self.set_terminator(terminator)

    channel = Counting(map={})
    channel.ac_in_buffer_size = size
    channel.set_terminator(terminator)
    Counted.copied = 0
    channel.ac_in_buffer = Counted(b"")
    channel.handle_read()
    assert lines == size // line
    return Counted.copied


by_bytes_or_by_number = pytest.mark.parametrize(
    "counts", [False, True], ids=["by bytes", "by number"]
)


@by_bytes_or_by_number
@pytest.mark.parametrize(("line", "size"), [(2, 1 << 16), (64, 1 << 22)])
def test_many_short_lines_are_copied_once(line: int, size: int, counts: bool) -> None:
    assert 0 < bytes_copied(compat.async_chat, line, size, counts) <= 2 * size


@by_bytes_or_by_number
def test_the_count_shows_the_copies_of_the_original(counts: bool) -> None:
    lines = 1 << 10
    copied = bytes_copied(asynchat.async_chat, 2, 2 * lines, counts)
    assert copied > lines * lines // 2


@pytest.mark.parametrize("terminator", [b"\n", 3, None])
@pytest.mark.parametrize("base", [asynchat.async_chat, compat.async_chat])
def test_buffer_that_recv_uses_again_is_copied(base: Any, terminator: Any) -> None:
    class Reusing(base):  # type: ignore[misc]
        def recv(self, size: int) -> memoryview:
            size = shared.readinto(view)
            return view[:size]

        def collect_incoming_data(self, data: Any) -> None:
            collected.append(data)

        def found_terminator(self) -> None:
            self.set_terminator(terminator)

    shared, view = io.BytesIO(b"hello" + b"world"), memoryview(bytearray(5))
    collected: list[Any] = []
    channel = Reusing(map={})
    channel.set_terminator(terminator)
    channel.handle_read()
    channel.handle_read()
    assert b"".join(collected) == b"helloworld"
    assert {type(data) for data in collected} == {bytes}


def test_class_with_its_own_buffer_reads_as_the_original() -> None:
    class Own(Recorder, compat.async_chat):  # type: ignore[misc]
        ac_in_buffer = b""

    reads, acts = [b"one\r\ntwo\r", b"\nthree"], [None] * 5
    assert played(Own, reads, b"\r\n", acts) == played(Theirs, reads, b"\r\n", acts)


class Listener(compat.async_chat):
    """A channel that collects its peer's data."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(ours)
        self.set_terminator(None)
        self.heard = b""

    def collect_incoming_data(self, data: bytes) -> None:
        self.heard += data

    def close(self) -> None:
        super().close()
        self.peer.close()


def run_to_the_end(name: str) -> None:
    """Run the loop once, until every channel has closed."""
    if name in ORIGINALS:
        asyncore.loop(1.0, name == "asyncore.poll2")
    else:
        compat.loop(1.0, loop=name)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def test_paused_channel_reads_nothing_until_it_resumes(
    any_loop: str, listener: Listener
) -> None:
    other = Listener()
    listener.pause_reading()
    listener.peer.send(b"later")
    other.peer.send(b"fence")
    turn_until(any_loop, lambda: other.heard)
    other.close()
    assert listener.heard == b""
    listener.resume_reading()
    turn_until(any_loop, lambda: listener.heard)
    assert listener.heard == b"later"
    listener.resume_reading()


def test_reading_is_paused_from_the_next_read_on(any_loop: str) -> None:
    class OneAtATime(Listener):
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            self.pause_reading()

    listener, other = OneAtATime(), Listener()
    listener.ac_in_buffer_size = 1
    listener.peer.send(b"two")
    other.peer.send(b"fence")
    turn_until(any_loop, lambda: other.heard and listener.heard)
    assert listener.heard == b"t"
    for heard in (b"tw", b"two"):
        listener.resume_reading()
        turn_until(any_loop, lambda heard=heard: listener.heard == heard)  # type: ignore[misc]
    listener.close()
    other.close()


@pytest.mark.parametrize(
    "name", ["handle_read_event", "handle_read", "recv", "get_terminator"]
)
def test_method_set_by_a_handler_is_used_at_the_next_read(
    any_loop: str, listener: Listener, name: str
) -> None:
    used: list[str] = []
    originally = getattr(listener, name)

    def own(*args: Any) -> Any:
        used.append(name)
        return originally(*args)

    def collect(data: bytes) -> None:
        listener.heard += data
        setattr(listener, name, own)

    listener.collect_incoming_data = collect  # type: ignore[method-assign]
    listener.ac_in_buffer_size = 1
    listener.peer.send(b"12")
    # In one run of the loop, which has registered the channel before.
    listener.handle_close = listener.close  # type: ignore[method-assign]
    listener.peer.shutdown(socket.SHUT_WR)
    run_to_the_end(any_loop)
    assert listener.heard == b"12"
    # Once for the second byte, once for the end.
    assert len(used) >= (1 if name == "get_terminator" else 2)


def test_a_channel_that_changes_its_class_reads_as_that_does(
    any_loop: str, listener: Listener
) -> None:
    class Second(Listener):
        def recv(self, size: int) -> bytes:
            return super().recv(size).upper()

    class First(Listener):
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            self.__class__ = Second  # type: ignore[assignment]

    first = First()
    first.ac_in_buffer_size = 1
    first.peer.send(b"ab")
    first.peer.shutdown(socket.SHUT_WR)
    listener.close()
    run_to_the_end(any_loop)
    assert first.heard == b"aB"
    first.close()


@pytest.mark.parametrize("kind", [asynchat.async_chat, compat.async_chat])
def test_handle_close_sees_the_error_that_a_reset_was(
    any_loop: str, kind: type[Any]
) -> None:
    class Recorded(kind):  # type: ignore[misc,valid-type]
        def handle_close(self) -> None:
            # poll2 calls it again, for the hang-up.
            whys.append(type(sys.exception()))
            self.close()

    whys: list[object] = []

    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Peer(server.getsockname())
        told = Recorded(server.accept()[0])
    told.set_terminator(None)
    peer.reset()
    turn_until(any_loop, lambda: not told.connected)
    assert whys[0] is ConnectionResetError
