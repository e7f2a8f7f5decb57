"""The recorder on every loop, asyncore's own included."""

from __future__ import annotations

import asyncore
import errno
import gc
import logging
import os
import socket
import sys
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import compat
from compat.trace.model import Call
from tests.compat.trace.recording import Line, recorded
from tests.support import turn_once, turn_until


def test_read_and_held_back_bytes_are_recorded(any_loop: str, tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        line = Line()
        line.receive(any_loop, b"hello")
        line.close()
    assert line.received == [b"hell"]
    number = trace.number("Line")
    (read,) = trace.calls("handle_read", number)
    assert (read.received, read.data, read.size) == (5, b"hello", None)
    (collect,) = (each for each in read.children if isinstance(each, Call))
    assert (collect.name, collect.size, collect.data) == (
        "collect_incoming_data",
        4,
        b"hell",
    )
    assert collect.channel is read.channel
    assert trace.changes(number, "held") == [1]
    assert trace.changes(number, "terminator") == ["out"]


def test_callback_has_its_code(any_loop: str, tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        line = Line()
        line.receive(any_loop, b"x")
        line.close()
    (collect,) = trace.calls("collect_incoming_data")
    code = collect.code
    assert code is not None
    assert (code.name, code.class_name) == ("collect_incoming_data", "Line")
    assert code.file.endswith("recording.py")
    assert code.line == Line.collect_incoming_data.__code__.co_firstlineno
    assert code.source == [
        "def collect_incoming_data(self, data: bytes) -> None:",
        "    self.received.append(data)",
    ]
    (read,) = trace.calls("handle_read")
    assert read.code is None


def test_channel_freed_by_its_close_is_recorded_as_closed(
    any_loop: str, tmp_path: Path
) -> None:
    class Closes(Line):
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            # No other reference exists, and the channel is freed during this call.
            asyncore.socket_map[victim].close()

    with recorded(tmp_path) as trace:
        other, victim = Closes(), Line().fd
        turn_once(any_loop, timeout=0)
        other.receive(any_loop, b"now")
        other.close()
    assert trace.changes(trace.number("Line"), "is") == ["connected", "closed"]


def test_channel_made_and_closed_in_one_call_is_closed(
    any_loop: str, tmp_path: Path
) -> None:
    class Turns(Line):
        """A channel that makes and closes another one in its handler."""

        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            ours, theirs = socket.socketpair()
            asyncore.dispatcher(ours).close()
            theirs.close()

    with recorded(tmp_path) as trace:
        door = Turns()
        door.receive(any_loop, b"now")
        door.close()
    assert trace.changes(trace.number("dispatcher"), "is") == ["closed"]


def test_channel_is_recorded_as_closed_only_once(any_loop: str, tmp_path: Path) -> None:
    class LetsGo(Line):
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            kept.pop().close()

    with recorded(tmp_path) as trace:
        kept, other = [Line()], LetsGo()
        kept[0].close()
        other.receive(any_loop, b"now")
        other.close()
    assert trace.changes(trace.number("Line"), "is") == ["connected", "closed"]


def test_ready_channels_and_interest_are_recorded(
    any_loop: str, tmp_path: Path
) -> None:
    with recorded(tmp_path) as trace:
        quiet, line = Line(), Line()
        line.receive(any_loop, b"x")
        line.producer_fifo.append(b"y")
        line.interest_changed()
        turn_until(any_loop, lambda: not line.producer_fifo)
        turn_once(any_loop, timeout=0)
        quiet.close()
        line.close()
    number = trace.number_of(line)
    first = next(turn for turn in trace.turns if turn.read)
    assert [channel.number for channel in first.read] == [number]
    assert first.why == "ready"
    assert first.channels == 2
    wants = [
        (event.fields["r"], event.fields["w"])
        for event in trace.events("interest", number)
    ]
    assert wants == [(True, False), (True, True), (True, False)]
    second = next(turn for turn in trace.turns if turn.write)
    assert [channel.number for channel in second.write] == [number]
    (write,) = trace.calls("handle_write", number)
    assert (write.sent, write.data) == (1, b"y")
    assert trace.turns[-1].why == "timeout"
    assert trace.turns[-1].timeout == 0


def test_channel_made_before_the_trace_is_recorded(
    any_loop: str, tmp_path: Path
) -> None:
    line = Line()
    with recorded(tmp_path) as trace:
        line.receive(any_loop, b"x")
        line.close()
    number = trace.number("Line")
    assert [each.number for each in trace.turns[-1].read] == [number]
    (event,) = trace.events("open", number)
    assert event.fields["module"] == Line.__module__


def test_states_of_a_channel_are_recorded(any_loop: str, tmp_path: Path) -> None:
    class Door(asyncore.dispatcher):
        def handle_accepted(self, sock: socket.socket, address: Any) -> None:
            asyncore.dispatcher(sock)
            self.close()

    class Caller(compat.async_chat):
        def handle_connect(self) -> None:
            self.close_when_done()

    with recorded(tmp_path) as trace:
        door = Door()
        door.create_socket()
        door.bind(("127.0.0.1", 0))
        door.listen(1)
        address = door.socket.getsockname()
        caller = Caller()
        caller.create_socket()
        caller.set_terminator(b"x")
        fd = caller._fileno
        caller.connect(address)
        turn_until(any_loop, lambda: len(asyncore.socket_map) == 1)
        asyncore.close_all()
    called = trace.reader.channel(trace.number("Caller"))
    assert called.status == "closed"
    assert trace.changes(trace.number("Door"), "is") == ["listening", "closed"]
    changes = trace.changes(called.number, "is")
    assert changes[0] == "connecting"
    assert changes[-1] == "closed"
    assert called.peer in ("", f"127.0.0.1:{address[1]}")
    assert called.fd == fd
    listening = trace.reader.channel(trace.number("Door"))
    assert listening.local == f"127.0.0.1:{address[1]}"


def test_reused_descriptor_is_another_channel(any_loop: str, tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        fds = []
        for data in (b"a", b"b"):
            line = Line()
            fds.append(line._fileno)
            line.receive(any_loop, data)
            line.close()
    assert fds[0] == fds[1]
    opened = [event.channel for event in trace.events("open")]
    assert [channel.fd for channel in opened if channel] == fds
    numbers = [channel.number for channel in opened if channel]
    assert len(set(numbers)) == 2
    for number, data in zip(numbers, (b"a", b"b"), strict=True):
        (read,) = trace.calls("handle_read", number)
        assert read.data == data


def test_error_has_the_place_that_raised_it(any_loop: str, tmp_path: Path) -> None:
    class Fails(Line):
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            raise ValueError("no such word")

        def handle_error(self) -> None:
            self.close()

    with recorded(tmp_path) as trace:
        line = Fails()
        line.receive(any_loop, b"x")
    raised = "ValueError: no such word"
    for do in ("collect_incoming_data", "handle_read", "handle_error"):
        (call,) = trace.calls(do)
        assert call.error == raised
        first = Fails.collect_incoming_data.__code__.co_firstlineno
        assert call.where.endswith(f"test_recorder.py:{first + 2}")
    assert trace.reader.channel(trace.number("Fails")).status == "closed"


@pytest.mark.parametrize("kind", [asyncore.ExitNow, KeyboardInterrupt, SystemExit])
def test_exception_that_ends_the_loop_is_recorded(
    any_loop: str, tmp_path: Path, kind: type[BaseException]
) -> None:
    class Ends(Line):
        def collect_incoming_data(self, data: bytes) -> None:
            raise kind("enough")

    with recorded(tmp_path) as trace:
        line = Ends()
        line.peer.send(b"x")
        with pytest.raises(kind, match="enough"):
            turn_until(any_loop, lambda: False)
        line.close()
    (read,) = trace.calls("handle_read")
    assert read.error == f"{kind.__name__}: enough"
    assert not trace.calls("handle_error")


def test_base_class_call_is_not_recorded_twice(any_loop: str, tmp_path: Path) -> None:
    class Polite(Line):
        def push(self, data: Any) -> None:
            super().push(data + b", please")

    class Sub(Polite):
        def push(self, data: Any) -> None:
            super().push(data)

        def close(self) -> None:
            super().close()

    with recorded(tmp_path) as trace:
        line = Sub()
        line.push(b"tea")
        got = line.peer.receive_available()
        line.close()
    assert got == b"tea, please"
    (push,) = trace.calls("push")
    assert (push.size, push.data, push.sent) == (3, b"tea", 11)
    assert push.code is not None
    assert push.code.class_name == "Sub"
    assert len(trace.calls("close")) == 1


@pytest.mark.parametrize(
    ("payload", "kept"), [(64, b"hellhell"), (3, b"hel"), (0, b""), (None, None)]
)
def test_payload_is_cut_at_a_limit_or_left_out(
    payload: int | None, kept: bytes | None, tmp_path: Path
) -> None:
    with recorded(tmp_path, payload=payload) as trace:
        line = Line()
        line.receive("select", b"hellhell")
        line.push(b"hellhell")
        line.close()
    (read,) = trace.calls("handle_read")
    assert (read.received, read.data) == (8, kept)
    (collect,) = trace.calls("collect_incoming_data")
    assert (collect.size, collect.data) == (8, kept)
    (push,) = trace.calls("push")
    assert (push.size, push.sent, push.data) == (8, 8, kept)
    assert trace.reader.header is not None
    assert trace.reader.header.payload == payload


@pytest.mark.parametrize("payload", [None, 0])
def test_error_has_no_payload_if_payloads_are_left_out(
    payload: int | None, any_loop: str, tmp_path: Path
) -> None:
    class Blabbing(Line):
        raises: Exception
        data = b""

        def collect_incoming_data(self, data: bytes) -> None:
            self.data += data
            raise self.raises

        def handle_error(self) -> None:
            self.discard_buffers()

        @property
        def terminator(self) -> Any:
            if self.data:
                raise LookupError(f"no end in {self.data!r}")
            return self._terminator

        @terminator.setter
        def terminator(self, terminator: Any) -> None:
            self._terminator = terminator

    raised = (
        ValueError("cannot read 'secret'"),
        OSError(errno.EMFILE, os.strerror(errno.EMFILE), "secret"),
        OSError(errno.EMFILE, "no more secrets"),
        OSError("secret"),
    )
    with recorded(tmp_path, payload=payload) as trace:
        for error in raised:
            line = Blabbing()
            line.raises = error
            line.peer.send(b"secret")
            turn_until(any_loop, lambda line=line: bool(line.data))
            line.data = b""
            line.close()
    assert "secret" not in trace.path.read_text()
    unseen = {each.fields.get("unseen") for each in trace.events("state")}
    assert "LookupError" in unseen
    assert [call.error for call in trace.calls("handle_error")] == [
        "ValueError",
        f"OSError: [Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}",
        "OSError",
        "OSError",
    ]


def test_bytes_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    every = bytes(range(256))
    with recorded(tmp_path, payload=256) as trace:
        line = Line()
        line.receive("select", every)
        line.close()
    (read,) = trace.calls("handle_read")
    assert read.data == every


def test_timers_and_their_cancellation_are_recorded(loop: str, tmp_path: Path) -> None:
    ran: list[str] = []

    def remind(what: str) -> None:
        ran.append(what)

    with recorded(tmp_path) as trace:
        line = Line()
        compat.call_later(3600, remind, "never").cancel()
        compat.call_later(0, remind, "now")
        turn_until(loop, lambda: ran)
        line.close()
    assert ran == ["now"]
    first, cancelled, second = (event.fields for event in trace.events("timer"))
    assert (first["in"], second["in"]) == (3600, 0)
    assert cancelled["cancelled"]
    assert cancelled["id"] == first["id"]
    (call,) = trace.calls("timer")
    assert call.fields["id"] == second["id"]
    assert call.channel is None
    assert call.code is not None
    assert call.code.name == "remind"
    assert next(turn for turn in trace.turns if turn.number).why == "timer"


def test_another_thread_wakes_the_loop(loop: str, tmp_path: Path) -> None:
    ran: list[int] = []

    def fails() -> None:
        ran.append(threading.get_ident())
        raise ValueError("it went wrong")

    with recorded(tmp_path) as trace:
        line = Line()
        turning = threading.Event()

        def other() -> None:
            turning.wait()
            compat.call_soon_threadsafe(fails)

        thread = threading.Thread(target=other)
        thread.start()
        compat.call_later(0, turning.set)
        turn_until(loop, lambda: ran, timeout=3600)
        thread.join()
        line.close()
    assert ran == [threading.get_ident()]
    (call,) = trace.calls("soon")
    assert call.error == "ValueError: it went wrong"
    assert call.code is not None
    assert call.code.name == "fails"
    assert [turn.why for turn in trace.turns if turn.number][-1] == "wake-up"


def test_gathered_data_is_recorded_at_the_end_of_the_turn(
    loop: str, tmp_path: Path
) -> None:
    class Gathers(Line):
        ac_coalesce_writes = True

        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            for _ in range(3):
                self.push(b"echo")

    with recorded(tmp_path) as trace:
        line = Gathers()
        line.receive(loop, b"x")
        got = line.peer.receive_available()
        line.close()
    assert got == b"echo" * 3
    pushes = trace.calls("push")
    assert [(push.size, push.sent) for push in pushes] == [(4, 0)] * 3
    (end,) = trace.calls("turn ends")
    assert (end.sent, end.data) == (12, b"echo" * 3)
    assert end.channel is pushes[0].channel


def test_audience_message_is_recorded_once_with_all_sends(
    loop: str, tmp_path: Path
) -> None:
    class Guest(Line):
        ac_coalesce_writes = True

        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            audience.push(data, exclude=self)

    with recorded(tmp_path) as trace:
        audience = compat.BroadcastGroup()
        guests = [Guest() for _ in range(3)]
        for guest in guests:
            audience.add(guest)
        guests[0].receive(loop, b"hi")
        got = [guest.peer.receive_available() for guest in guests]
        for guest in guests:
            guest.close()
    assert got == [b"", b"hi", b"hi"]
    numbers = [trace.number_of(guest) for guest in guests]
    (push,) = trace.calls("push")
    assert (push.size, push.data) == (2, b"hi")
    assert (push.fields["to"], push.fields["but"]) == (2, numbers[0])
    sends = trace.calls("send")
    assert [send.channel.number for send in sends if send.channel] == numbers[1:]
    assert [(send.sent, send.data) for send in sends] == [(2, b"hi")] * 2


def test_bytes_of_overridden_recv_and_send_are_counted_once(
    any_loop: str, tmp_path: Path
) -> None:
    class Counted(Line):
        def recv(self, size: int) -> bytes:
            return super().recv(2) + super().recv(2)

        def send(self, data: Any) -> int:
            sent = super().send(data[:2])
            return sent + super().send(data[2:])

    with recorded(tmp_path) as trace:
        line = Counted()
        line.receive(any_loop, b"abcd")
        line.push(b"abcd")
        assert line.peer.receive_available() == b"abcd"
        line.close()
    (read,) = trace.calls("handle_read")
    assert read.received == 4
    (push,) = trace.calls("push")
    assert push.sent == 4


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (bytearray(b"abc"), 3),
        (memoryview(b"abc"), 3),
        (memoryview(b"abcd").cast("H"), 4),
        (b"", 0),
    ],
)
def test_push_of_any_bytes_like_object_is_recorded(
    data: Any, size: int, tmp_path: Path
) -> None:
    with recorded(tmp_path) as trace:
        line = Line()
        line.push(data)
        line.push(data=b"named")
        got = line.peer.receive_available()
        line.close()
    assert got == bytes(data) + b"named"
    first, second = trace.calls("push")
    assert (first.size, first.data) == (size, bytes(data))
    assert (second.size, second.data) == (5, b"named")


def test_datagrams_of_a_traced_channel_are_unchanged(
    any_loop: str, tmp_path: Path
) -> None:
    class Datagrams(asyncore.dispatcher):
        got: Any = None

        def recv(self, size: int) -> Any:
            return self.socket.recvfrom(size)

        def send(self, data: bytes, to: Any = None, *, channel: str = "") -> Any:
            return self.socket.sendto(data, to), channel

        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            self.got = self.recv(100)

    with recorded(tmp_path) as trace:
        ours = Datagrams()
        ours.create_socket(type=socket.SOCK_DGRAM)
        ours.bind(("127.0.0.1", 0))
        address = ours.socket.getsockname()
        assert ours.send(b"hello", to=address, channel="x") == (5, "x")
        turn_until(any_loop, lambda: ours.got)
        ours.close()
    assert ours.got == (b"hello", address)
    assert trace.calls("handle_read")
    assert trace.calls("send")


def test_push_of_no_bytes_raises_the_same_error_when_traced(tmp_path: Path) -> None:
    odd: list[Any] = [None, "\ud800", 3, object()]

    def errors() -> list[str]:
        line, errors = Line(), []
        for data in odd:
            try:
                line.push(data)
            except Exception as error:
                errors.append(repr(error))
        line.close()
        return errors

    plain = errors()
    with recorded(tmp_path):
        assert errors() == plain


def test_channel_of_another_map_is_recorded(any_loop: str, tmp_path: Path) -> None:
    map: dict[Any, Any] = {}
    line = Line(map)
    with recorded(tmp_path) as trace:
        line.receive(any_loop, b"x", map)
        line.close()
    number = trace.number("Line")
    assert [each.number for each in trace.turns[-1].read] == [number]
    assert trace.turns[-1].channels == 1


def test_object_other_than_a_dispatcher_is_traced(
    any_loop: str, tmp_path: Path
) -> None:
    class Plain:
        """All that a loop needs."""

        accepting = False
        connected = True

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.got = b""

        def __getattr__(self, name: str) -> Any:
            return {}[name]

        def __eq__(self, other: object) -> bool:
            raise NotImplementedError

        def __hash__(self) -> int:
            raise NotImplementedError

        def readable(self) -> bool:
            return True

        def writable(self) -> bool:
            return False

        def handle_read_event(self) -> None:
            self.got += self.sock.recv(100)

        def handle_close(self) -> None:
            """Nothing to close."""

        def handle_error(self) -> None:
            raise  # noqa: PLE0704

    ours, theirs = socket.socketpair()
    with recorded(tmp_path) as trace, ours, theirs:
        plain = Plain(ours)
        map = {ours.fileno(): plain}
        theirs.send(b"x")
        turn_until(any_loop, lambda: plain.got, map)
    number = trace.number("Plain")
    (read,) = trace.calls("handle_read_event", number)
    assert read.code is not None
    assert read.code.class_name == "Plain"


def test_interest_is_recorded_once_for_alternating_maps(
    any_loop: str, tmp_path: Path
) -> None:
    maps: list[dict[Any, Any]] = [{}, {}]
    with recorded(tmp_path) as trace:
        lines = [Line(map) for map in maps]
        for _ in range(3):
            for map in maps:
                turn_once(any_loop, map, timeout=0)
        for line in lines:
            line.close()
    wants = [
        (event.fields["r"], event.fields["w"]) for event in trace.events("interest")
    ]
    assert wants == [(True, False)] * 2


# poll() returns numbers, which are not the keys of such a map.
@pytest.mark.parametrize("name", ["asyncore.poll", "select", "selectors"])
def test_map_key_object_is_not_kept_alive(name: str, tmp_path: Path) -> None:
    class Key:
        def fileno(self) -> int:
            return line.fd

    with recorded(tmp_path) as trace:
        line = Line({})
        key = Key()
        map = {key: line}
        for _ in range(3):
            line.receive(name, b"x", map)
        line.close()
        gone = weakref.ref(key)
        del map, key
        assert gone() is None
    assert len(trace.events("open")) == 2
    number = trace.number("Line")
    assert len(trace.calls("handle_read", number)) == 3
    reads = [channel.number for turn in trace.turns for channel in turn.read]
    assert reads == [number] * 3


def test_odd_terminators_do_not_break_the_trace(tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        line = Line()
        for terminator in (1 << 80, "text \ud800", True, None, 0, b"\xff"):
            line.set_terminator(terminator)  # type: ignore[arg-type]
        line.close()
    assert trace.reader.channels[trace.number("Line")].status == "closed"


def test_odd_exceptions_are_recorded_as_text(tmp_path: Path) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError

    class Fails(Line):
        def handle_connect(self) -> None:
            raise self.error

    with recorded(tmp_path) as trace:
        line = Fails()
        for line.error in (
            OddError(),
            ValueError("\ud800\x00\n"),
            ValueError("x" * 10_000),
        ):
            with pytest.raises(type(line.error)):
                line.handle_connect()
        line.close()
    errors = [call.error for call in trace.calls("handle_connect")]
    assert errors[0] == "OddError, which cannot be printed"
    assert errors[1].startswith("ValueError: \\ud800")
    assert len(errors[2]) == 200


def test_failing_callback_is_logged_under_its_own_name(
    loop: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Reminder:
        def __call__(self) -> None:
            raise ValueError("too late")

        def __repr__(self) -> str:
            return "<the reminder>"

    with recorded(tmp_path) as trace:
        compat.call_later(0, Reminder())
        compat.loop(0, count=1, loop=loop, wait_for_timers=True)
    assert "<the reminder> raised" in caplog.text
    (call,) = trace.calls("timer")
    assert call.error == "ValueError: too late"
    assert call.code is not None
    assert call.code.name == "Reminder"


def test_failed_callback_is_not_kept_alive(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kept:
        """Held by a closure."""

    def remind() -> None:
        kept = Kept()
        gone.append(weakref.ref(kept))
        raise ValueError

    monkeypatch.setattr(logging.getLogger("compat"), "disabled", True)
    gone: list[Any] = []
    with recorded(tmp_path):
        kept = Kept()
        gone.append(weakref.ref(kept))
        compat.call_later(0, lambda kept: None, kept)
        compat.call_later(0, remind)
        del kept
        gc.disable()
        compat.loop(0, count=1, loop=loop, wait_for_timers=True)
        assert [each() for each in gone] == [None, None]
        gc.enable()


def test_timer_of_a_method_has_its_name(loop: str, tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        line = Line()
        compat.call_later(0, line.interest_changed)
        compat.call_later(0, partial(line.push, b"x"))
        compat.call_later(0, line.close)
        turn_until(loop, lambda: line._fileno is None)
    names = [call.code and call.code.name for call in trace.calls("timer")]
    assert names == ["interest_changed", "push", "close"]
    assert [call.code and call.code.class_name for call in trace.calls("timer")] == [
        "async_chat",
        "async_chat",
        "Line",
    ]


def test_equal_functions_of_two_files_have_two_numbers(tmp_path: Path) -> None:
    source = "class Twin(Line):\n    def handle_connect(self): self.ends += 1\n"
    twins: list[Any] = []
    for folder in ("a", "b"):
        names: dict[str, Any] = {"Line": Line, "__name__": folder}
        file = tmp_path / f"{folder}.py"
        file.write_text(source)
        exec(compile(source, str(file), "exec"), names)
        twins.append(names["Twin"])
    with recorded(tmp_path) as trace:
        for twin in twins:
            line = twin()
            line.handle_connect()
            line.close()
    files = [call.code and call.code.file for call in trace.calls("handle_connect")]
    assert [Path(file or "").name for file in files] == ["a.py", "b.py"]


def test_source_of_a_function_is_complete(tmp_path: Path) -> None:
    class Long(Line):
        def handle_connect(self) -> None:
            def inner() -> None:
                self.ends += 1

            self.set_terminator(
                b"x",
            )

        def handle_expt(self) -> None:
            """Its source ends here."""

        def handle_accept(self) -> None:
            self.ends += 1

    with recorded(tmp_path) as trace:
        line = Long()
        line.handle_connect()
        line.handle_expt()
        line.close()
    connect, expt = (
        call.code.source
        for call in trace.calls()
        if call.code is not None and call.name in ("handle_connect", "handle_expt")
    )
    assert connect[0] == "def handle_connect(self) -> None:"
    assert connect[-2:] == ['        b"x",', "    )"]
    assert len(connect) == 7
    assert expt == [
        "def handle_expt(self) -> None:",
        '    """Its source ends here."""',
    ]


def test_error_is_recorded_in_a_removed_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(Line):
        def handle_connect(self) -> None:
            raise ValueError("still this one")

    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    monkeypatch.setattr(sys, "path", [there, *sys.path])
    there.rmdir()
    with recorded(tmp_path) as trace:
        line = Fails()
        with pytest.raises(ValueError, match="still this one"):
            line.handle_connect()
        line.close()
    (call,) = trace.calls("handle_connect")
    assert "test_recorder.py:" in call.where


@pytest.mark.parametrize("timeout", ["1", float("nan"), float("inf"), -1])
def test_invalid_timeout_raises_as_without_a_trace(
    any_loop: str, tmp_path: Path, timeout: Any
) -> None:
    def turned() -> str:
        line = Line()
        line.peer.send(b"x")
        try:
            turn_once(any_loop, timeout=timeout)
        except Exception as error:
            return repr(error)
        finally:
            line.close()
        return ""

    plain = turned()
    with recorded(tmp_path):
        assert turned() == plain


def test_recursion_error_leaves_the_depth_right(tmp_path: Path) -> None:
    class Deep(Line):
        depth = 0

        def handle_connect(self) -> None:
            self.handle_expt()

        def handle_expt(self) -> None:
            self.depth += 1
            self.handle_connect()

    with recorded(tmp_path) as trace:
        line = Deep()
        with pytest.raises(RecursionError):
            line.handle_connect()
        line.push(b"x")
        line.close()
    assert line.depth > 100
    assert [turn.entries[-1].depth for turn in trace.turns] == [0]
    (push,) = trace.calls("push")
    assert push.depth == 0


def test_calls_of_two_threads_are_kept_apart(loop: str, tmp_path: Path) -> None:
    maps: list[dict[Any, Any]] = [{}, {}]
    lines = [Line(map) for map in maps]

    def turn(number: int) -> None:
        for word in range(3):
            lines[number].receive(loop, b"%d%d" % (number, word), maps[number])

    with recorded(tmp_path) as trace:
        threads = [threading.Thread(target=turn, args=(each,)) for each in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for line in lines:
        line.close()
    for number in (0, 1):
        data = [b"%d%d" % (number, word) for word in range(3)]
        collected = [
            call
            for call in trace.calls("collect_incoming_data")
            if call.data and call.data.startswith(b"%d" % number)
        ]
        assert [call.data for call in collected] == data
        assert len({call.thread for call in collected}) == 1
        assert len({call.channel.number for call in collected if call.channel}) == 1


def test_backlog_of_a_slow_peer_is_recorded(loop: str, tmp_path: Path) -> None:
    class Slow(Line):
        ac_coalesce_writes = True

    with recorded(tmp_path) as trace:
        audience, speaker = compat.BroadcastGroup(), Line()
        slow = Slow(size=4096)
        audience.add(slow)

        def speak(data: bytes) -> None:
            audience.push(b"x" * 100_000)

        speaker.collect_incoming_data = speak  # type: ignore[method-assign]
        backlogs = []
        for _ in range(3):
            speaker.peer.send(b"!")
            before = slow.ac_backlog_size()
            turn_until(loop, lambda before=before: slow.ac_backlog_size() > before)
            backlogs.append(slow.ac_backlog_size())
        slow.close()
        speaker.close()
    seen = trace.changes(trace.number("Slow"), "backlog")
    assert set(backlogs) <= set(seen)


def test_loop_inside_a_handler_is_recorded_in_its_call(
    any_loop: str, tmp_path: Path
) -> None:
    class Impatient(Line):
        def collect_incoming_data(self, data: bytes) -> None:
            super().collect_incoming_data(data)
            if data == b"first":
                self.receive(any_loop, b"again")

    with recorded(tmp_path) as trace:
        line = Impatient()
        line.receive(any_loop, b"first")
        line.close()
    # The data that is being collected is still in the buffer.
    assert line.received == [b"first", b"firstagain"]
    outer, inner = trace.calls("collect_incoming_data")
    assert (outer.data, inner.data) == (b"first", b"firstagain")
    reads = trace.calls("handle_read")
    assert [read.data for read in reads] == [b"first", b"again"]
    assert inner in list(outer.calls())


def test_reopened_channel_is_recorded_as_new(tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        client = asyncore.dispatcher()
        client.create_socket()
        client.handle_connect_event()
        client.close()
        client.create_socket()
        client.handle_connect_event()
        client.close()
    assert trace.changes(trace.number("dispatcher"), "is") == [
        "closed",
        "new",
        "closed",
    ]


@pytest.mark.parametrize("buffer", [bytearray(b"held"), None])
def test_raising_handler_may_leave_any_buffer(
    buffer: Any, loop: str, tmp_path: Path
) -> None:
    failed: list[BaseException | None] = []

    class Fails(Line):
        def collect_incoming_data(self, data: bytes) -> None:
            self.ac_in_buffer = buffer
            raise ValueError

        def handle_error(self) -> None:
            failed.append(sys.exc_info()[1])
            # The way of a loop that has turns to come is another than that of one.
            raise asyncore.ExitNow

    with recorded(tmp_path) as trace:
        line = Fails()
        line.peer.send(b"hello")
        with pytest.raises(asyncore.ExitNow):
            compat.loop(loop=loop)
        line.close()
    assert [type(error) for error in failed] == [ValueError]
    (read,) = trace.calls("handle_read")
    assert read.error == "ValueError: "
