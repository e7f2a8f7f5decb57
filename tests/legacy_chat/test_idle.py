"""The idle timeout."""

from __future__ import annotations

import logging

import pytest

from tests.legacy_chat.rooms import (
    Clock,
    Room,
    our_room,
    receive_a_little,
    stop_reading,
)
from tests.support import in_a_turn, turn_until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("legacy_chat.idle.time", clock)
    return clock


def sweep(room: Room, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    room.server._idle.cancel()
    room.server._idle.sweep()


def test_silent_client_is_closed(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with our_room(loop, idle=0.05) as room:
        a = room.join()
        name = room.session(a).user
        room.until(lambda: a.ended)
        assert room.server.counters.closed["idle"] == 1
        assert f"{name}: closed: idle" in caplog.text


def test_client_that_sends_or_reads_is_not_idle(loop: str, clock: Clock) -> None:
    with our_room(loop, idle=3600.0) as room:
        speaker, listener = room.join_many(2)
        for number in range(5):
            speaker.send(f"{number}.")
            room.until(lambda number=number: listener.got.endswith(b"%d." % number))
            sweep(room, clock, 3000)
        assert speaker.ended is listener.ended is False
        sweep(room, clock, 3000)
        sweep(room, clock, 3000)
        room.until(lambda: speaker.ended and listener.ended)


def test_client_that_reads_nothing_is_idle(loop: str, clock: Clock) -> None:
    with our_room(loop, idle=3600.0, send_queue=0) as room:
        speaker, deaf = room.join_many(2)
        session = stop_reading(room, deaf)
        for _ in range(3):
            before = len(speaker.got)
            speaker.send(b"x" * 300_000)
            room.until(lambda before=before: len(speaker.got) == before + 300_000)
            sweep(room, clock, 2000)
        assert session not in room.server.clients
        assert room.server.counters.closed["idle"] == 1
        assert not speaker.ended
        deaf.close()


def test_leaving_client_that_reads_nothing_is_idle(loop: str, clock: Clock) -> None:
    with our_room(loop, idle=3600.0, send_queue=0) as room:
        a, b, deaf = room.join_many(3)
        session = stop_reading(room, deaf)
        session.push(b"x" * 500_000)
        deaf.send("out")
        room.until(lambda: session not in room.server.clients)
        # At first, the kernel still accepts data for this client.
        for number in range(20):
            a.send(f"{number}.")
            room.until(lambda number=number: b.got.endswith(b"%d." % number))
            sweep(room, clock, 2000)
        assert not session.connected
        assert len(room.server.clients) == 2
        assert room.server.counters.closed["idle"] == 1
        deaf.close()


def test_client_is_idle_despite_a_broadcast_in_that_turn(
    loop: str, clock: Clock
) -> None:
    with our_room(loop, idle=3600.0, send_queue=0) as room:
        speaker, deaf = map(room.session, room.join_many(2))
        in_a_turn(loop, lambda: deaf.push(b"x" * 8_000_000))

        def push_more_than_before(size: int) -> None:
            speaker._push_to_others(b"x" * size)
            sweep(room, clock, 2000)

        for size in range(1, 5):
            in_a_turn(loop, lambda size=size: push_more_than_before(size))
        assert deaf not in room.server.clients


def test_slow_reader_with_a_growing_queue_is_not_idle(loop: str, clock: Clock) -> None:
    with our_room(loop, idle=3600.0, send_queue=0) as room:
        speaker, slow = room.join_many(2)
        room.peers.remove(slow)
        session = room.session(slow)
        session.push(b"x" * 8_000_000)
        room.fence(speaker, speaker)
        for _ in range(4):
            before, queued = len(speaker.got), session.ac_backlog_size()
            speaker.send(b"x" * 200_000)
            room.until(lambda before=before: len(speaker.got) == before + 200_000)
            full = queued + 200_000
            # Several reads for each turn: only many of them make room to write.
            turn_until(
                loop, lambda full=full: receive_a_little(slow, session, full), timeout=0
            )
            sweep(room, clock, 2000)
        assert session in room.server.clients
        slow.close()
