"""Two real servers, one with TLS, with messages and faults at a rate."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests import secure
from tests.soak.faults import inject
from tests.soak.room import Outcome, Plan, Room
from tests.support import room

__all__ = ["soak"]

# Seconds between reads of the counters.
COUNTERS = 5.0


def soak(plan: Plan) -> list[Outcome]:
    """Run a plan in both rooms at once.

    Raises:
        AssertionError: the soak did not finish.
    """
    rng = random.Random(plan.seed)
    with contextlib.ExitStack() as stack:
        rooms = [stack.enter_context(_room(tls, plan)) for tls in (False, True)]
        _send_messages(rooms, plan, rng)
        for each in rooms:
            each.finish()
        return [each.outcome() for each in rooms]


@contextlib.contextmanager
def _room(tls: bool, plan: Plan) -> Iterator[Room]:
    options = ["--log-format", "json", "--backlog", "4096"]
    options += ["--send-queue", str(plan.send_queue)]
    with tempfile.TemporaryDirectory() as folder:
        if tls:
            files = secure.write_files(Path(folder))
            options += ["--tls-cert", files["cert"], "--tls-key", files["key"]]
        with room(plan.loop, *options) as (server, address):
            yield Room(server, address, tls, plan)


def _send_messages(rooms: list[Room], plan: Plan, rng: random.Random) -> None:
    """Send messages at the rate, and inject a fault after every second one."""
    began = counted = now = time.monotonic()
    sent = faults = 0
    while sent < plan.messages and now < began + plan.seconds:
        if sent <= plan.rate * (now - began):
            sent += rooms[sent % len(rooms)].send_next()
        if faults < sent // 2:
            inject(rooms[faults % len(rooms)], rng, faults)
            faults += 1
        for each in rooms:
            each.receive(0.005)
        now = time.monotonic()
        if now > counted + COUNTERS:
            counted = now
            for each in rooms:
                each.read_counters()
