"""When a wait is over, on a clock that the test turns."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import cast

import pytest

from legacy_chat.baseline.model.errors import NeverQuietError
from legacy_chat.baseline.replay.client_pool import ClientPool
from legacy_chat.baseline.replay.quiescence import (
    ECHO,
    LAST_POLL,
    QUIET,
    ROUNDS,
    LoadProbe,
    Quiescence,
)


class World:
    """A clock, a pool to which data comes at known times, and a probe.

    Args:
        arrivals: when something comes, in order.
        busy: seconds that a round trip takes.
    """

    def __init__(
        self, arrivals: Iterable[float], timeout: float = 20.0, busy: float = 0.0
    ) -> None:
        self.now = 0.0
        self.timeout = timeout
        self.came = 0
        self.trips = 0
        self._arrivals = iter(arrivals)
        self._next = next(self._arrivals, float("inf"))
        self._busy = busy
        world = cast(ClientPool, self), cast(LoadProbe, self)
        self.quiet = Quiescence(*world, clock=lambda: self.now)

    def pump(self, seconds: float) -> bool:
        if self._next > self.now + seconds:
            self.now += seconds
            return False
        self.now = max(self.now, self._next)
        self.came += 1
        self._next = next(self._arrivals, float("inf"))
        return True

    def round_trip(self) -> None:
        self.now += self._busy
        self.trips += 1


@pytest.mark.parametrize("arrivals", [[0.8], [2.9], [0.8, 3.0, 5.9], []])
def test_settle_ends_after_seconds_without_a_byte(arrivals: list[float]) -> None:
    world = World(arrivals)
    world.quiet.settle(QUIET)
    assert world.came == len(arrivals)
    last = max(arrivals, default=0.0)
    assert last + QUIET <= world.now < last + QUIET + 0.2


def test_settle_fails_if_the_server_is_never_quiet() -> None:
    world = World(itertools.count(0.0, 2.0))
    with pytest.raises(NeverQuietError, match="never quiet for 3 s within 20 s"):
        world.quiet.settle(QUIET)
    assert world.now <= 26


def test_settle_takes_longer_after_a_long_gap() -> None:
    world = World([0.4])
    world.quiet.settle(LAST_POLL)
    assert world.came == 0
    world = World([0.02, 0.04, 0.06])
    world.quiet.settle(LAST_POLL)
    assert world.came == 3
    assert world.now >= 0.06 + 0.08


def test_settle_takes_longer_on_a_busy_machine() -> None:
    world = World([], busy=0.5)
    world.quiet.settle(LAST_POLL)
    assert world.trips >= ROUNDS
    assert world.now >= ROUNDS * 0.5


@pytest.mark.parametrize("at", [0.001, 0.8, 5.0])
def test_wait_for_ends_after_the_expected_data(at: float) -> None:
    world = World([at])
    world.quiet.wait_for(lambda: world.came == 1, patience=6.0)
    assert at + LAST_POLL <= world.now < at + 2 * LAST_POLL


def test_wait_for_reads_more_than_expected() -> None:
    world = World([0.8, 0.81, 0.82])
    world.quiet.wait_for(lambda: world.came >= 1, patience=6.0)
    assert world.came == 3


def test_wait_for_gives_up_when_patience_ends() -> None:
    world = World([0.8])
    world.quiet.wait_for(lambda: False, patience=6.0)
    assert 6.8 <= world.now < 7.2


def test_wait_for_is_no_more_patient_than_the_timeout() -> None:
    world = World([], timeout=3.0)
    world.quiet.wait_for(lambda: False, patience=60.0)
    assert 3.0 <= world.now < 3.3


def test_wait_for_is_more_patient_on_a_busy_machine() -> None:
    world = World([30.0], timeout=60.0, busy=0.1)
    world.quiet.wait_for(lambda: world.came == 1, patience=3.0)
    assert world.came == 1


def test_wait_for_fails_if_data_arrives_without_end() -> None:
    world = World(itertools.count(0.0, 0.01), timeout=3.0)
    with pytest.raises(NeverQuietError, match="within 3 s"):
        world.quiet.wait_for(lambda: True)
    assert world.now <= 3.1


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no SIGPIPE here")
def test_yardstick_of_a_killed_command_ends_silently() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ECHO],
        input=b"?",
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")
