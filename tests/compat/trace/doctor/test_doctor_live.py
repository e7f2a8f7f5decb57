"""The doctor on real programs: each with one fault, on each loop; and a healthy room.

Nothing here depends on a clock: thresholds in microseconds have values that any machine
meets.
"""

from __future__ import annotations

import asyncore
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import compat
from compat.trace import doctor
from compat.trace.doctor.findings import Finding
from compat.trace.doctor.thresholds import Thresholds
from compat.trace.reader import Reader, read_trace
from tests.legacy_chat.rooms import original_room, our_room
from tests.support import ORIGINALS, Peer, turn_once, turn_until

# Streaks as long as a test's; any wait counts as short, for these tests do not wait.
DEFAULTS: dict[str, Any] = {
    "spin_turns": 15,
    "spin_wait_us": 1 << 40,
    "slow_us": 1 << 40,
    "interest_share": 2.0,
}
TURNS = 20


class Patient:
    """A trace, and the doctor's findings in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def findings(self, **limits: Any) -> list[Finding]:
        reader = Reader()
        turns = read_trace(self.path, reader)
        return doctor.examine(turns, reader, Thresholds(**{**DEFAULTS, **limits}))

    def only(self, rule: str, **limits: Any) -> Finding:
        findings = self.findings(**limits)
        assert [each.rule for each in findings] == [rule]
        return findings[0]


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    yield Patient(tmp_path / "patient")
    asyncore.close_all(ignore_all=True)


@contextmanager
def traced(patient: Patient, kind: type) -> Iterator[tuple[Any, Peer]]:
    """Yield a channel of that class, and its peer, while a trace is recorded."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, compat.tracing(patient.path):
        peer = Peer(listener.getsockname())
        ours, _ = listener.accept()
        yield kind(ours), peer
        peer.close()


def turn(loop: str, times: int = TURNS) -> None:
    for _ in range(times):
        turn_once(loop)


class Quiet(asyncore.dispatcher):
    def writable(self) -> bool:
        return False


class AlwaysWritable(asyncore.dispatcher):
    def handle_write(self) -> None:
        pass


class Deaf(Quiet):
    def handle_read(self) -> None:
        pass


class Endless(Quiet):
    def handle_read(self) -> None:
        self.recv(100)

    def handle_close(self) -> None:
        pass


class Urgent(Quiet):
    def handle_read(self) -> None:
        self.recv(100)


class Raises(Quiet):
    def handle_read(self) -> None:
        raise ValueError(f"cannot read {self.recv(1)!r}")

    def handle_error(self) -> None:
        pass


class RaisesTwice(Raises):
    def handle_error(self) -> None:
        raise NameError("there is no log")


class PastTheTrace(Quiet):
    def handle_read(self) -> None:
        self.socket.recv(1)


class Slow(Quiet):
    def handle_read(self) -> None:
        self.recv(1)
        self.reckon()

    def reckon(self) -> int:
        return sum(range(300_000))


class SlowReadable(Quiet):
    def readable(self) -> bool:
        return sum(range(30_000)) > 0

    def handle_read(self) -> None:
        self.recv(1)


@pytest.mark.parametrize(
    ("kind", "data", "rule"),
    [
        (AlwaysWritable, b"", "busy-writer"),
        (Deaf, b"hello", "unread-input"),
        (Urgent, None, "unread-urgent-data"),
    ],
)
def test_spinning_channel_is_found(
    any_loop: str, patient: Patient, kind: type, data: bytes | None, rule: str
) -> None:
    with traced(patient, kind) as (_, peer):
        if data is None:
            peer.sock.send(b"!", socket.MSG_OOB)
        else:
            peer.send(data)
        turn(any_loop)
    finding = patient.only(rule)
    assert finding.channel.startswith(f"{kind.__name__}#1 (127.0.0.1:")
    assert finding.count in (TURNS - 1, TURNS)


def test_handle_close_that_does_not_close_is_found(
    any_loop: str, patient: Patient
) -> None:
    with traced(patient, Endless) as (_, peer):
        peer.close()
        turn(any_loop)
    assert patient.only("ignored-end").summary.startswith(
        "Endless.handle_close does not close"
    )


def test_channel_that_reads_past_the_trace_is_healthy(
    any_loop: str, patient: Patient
) -> None:
    with traced(patient, PastTheTrace) as (_, peer):
        peer.send(b"x" * TURNS)
        turn(any_loop)
    assert patient.findings() == []


def test_swallowed_exception_is_a_finding(any_loop: str, patient: Patient) -> None:
    with traced(patient, Raises) as (_, peer):
        peer.send(b"x" * TURNS)
        turn(any_loop)
    finding = patient.only("swallowed-error")
    assert finding.count == TURNS
    assert finding.summary.startswith("ValueError: cannot read b'x': 20 times")
    assert Path(finding.where.rpartition(":")[0]).name == Path(__file__).name
    assert finding.details == ["the channel stayed open 20 times"]


def test_handle_error_that_raises_is_worst(any_loop: str, patient: Patient) -> None:
    with traced(patient, RaisesTwice) as (_, peer):
        peer.send(b"x")
        with pytest.raises(NameError):
            turn(any_loop)
    left, _ = patient.findings()
    assert left.rule == "escaped-error"
    assert left.summary.startswith("NameError: there is no log left the loop")


def test_callback_that_computes_is_slow(any_loop: str, patient: Patient) -> None:
    with traced(patient, Slow) as (_, peer):
        peer.send(b"x" * TURNS)
        turn(any_loop)
    finding = patient.only("slow-callback", slow_us=1)
    assert finding.summary.startswith("Slow.handle_read blocks the loop: 20 times for")
    assert Path(finding.where.rpartition(":")[0]).name == Path(__file__).name


def test_readable_that_computes_is_costly(any_loop: str, patient: Patient) -> None:
    with traced(patient, SlowReadable) as (_, peer):
        peer.send(b"x" * 2 * TURNS)
        turn(any_loop, 2 * TURNS)
    finding = patient.only("slow-interest", interest_share=0.0, interest_each_us=1)
    assert "in the map then: 1 SlowReadable" in finding.details


@contextmanager
def original_room_traced(loop: str, patient: Patient) -> Iterator[Any]:
    with compat.tracing(patient.path), original_room(loop) as room:
        yield room


def test_handler_that_reads_nothing_is_a_finding(
    any_loop: str, patient: Patient
) -> None:
    with original_room_traced(any_loop, patient) as room:
        speaker, listener = room.join_many(2)
        room.peers.remove(listener)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        session = room.session(listener)
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for number in range(1, 40):
            speaker.send(b"x" * 4000)
            room.until(lambda number=number: len(speaker.got) == 4000 * number)
    assert patient.only("growing-backlog", backlog=1_000).count == 1


def test_writes_after_close_of_the_tutorial_are_found(
    any_loop: str, patient: Patient
) -> None:
    with original_room_traced(any_loop, patient) as room:
        speaker, *others = room.join_many(4)
        for each in others:
            each.close()
        room.until(lambda: len(asyncore.socket_map) == 2)
        for number in range(10):
            speaker.send(b"<%d>" % number)
            room.until(lambda number=number: b"<%d>" % number in speaker.got)
    finding = patient.only("write-after-close")
    assert finding.count == 30
    assert finding.summary.startswith(
        "ChatSession: 3 closed channels still written to, 30 times"
    )
    assert "server.py:" in finding.where


def test_room_without_descriptors_spins(
    any_loop: str, patient: Patient, out_of_descriptors: Callable[[], None]
) -> None:
    with original_room_traced(any_loop, patient) as room:
        room.join()
        late = Peer(room.server.socket.getsockname())
        room.peers.append(late)
        out_of_descriptors()
        turn(any_loop)
    spin, hidden = patient.findings()
    assert (spin.rule, hidden.rule) == ("spinning-listener", "swallowed-error")
    assert spin.channel.startswith("ChatServer#")
    assert "the last error: OSError: [Errno 24] Too many open files" in spin.details


def test_busy_room_is_healthy(any_loop: str, patient: Patient) -> None:
    # With asyncore's own loop, called for one turn at a time, the time between two
    # turns counts as interest update.
    thresholds = (
        {} if any_loop in ORIGINALS else {"interest_share": Thresholds().interest_share}
    )
    with compat.tracing(patient.path), our_room(any_loop) as room:
        peers = room.join_many(12)
        for number in range(15):
            for each in peers:
                each.send(b"message %d " % number * 40)
            room.fence(peers[number % 12], *peers[:3])
        for each in peers[:4]:
            each.send(b"I shout")
        for each in peers[4:8]:
            each.close()
        for each in peers[8:10]:
            each.reset()
        room.until(lambda: len(room.server.clients) == 2)
        room.fence(peers[10], peers[11])
    assert patient.findings(**thresholds) == []


def test_room_of_the_tutorial_is_healthy_without_dropouts(
    any_loop: str, patient: Patient
) -> None:
    with original_room_traced(any_loop, patient) as room:
        peers = room.join_many(6)
        for number in range(10):
            for each in peers:
                each.send(b"<%d>" % number)
            room.until(
                lambda number=number: all(b"<%d>" % number in p.got for p in peers)
            )
        for each in peers:
            each.send(b"out")
        room.until(lambda: all(each.ended for each in peers))
    assert patient.findings() == []


def test_single_slow_turn_is_healthy(patient: Patient) -> None:
    with traced(patient, Slow) as (_, peer):
        peer.send(b"xx")
        turn_until("select", lambda: patient.path.read_bytes().count(b"handle_read"))
    assert patient.findings(slow_us=1, slow_once_us=1 << 40) == []
