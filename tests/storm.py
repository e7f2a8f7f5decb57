"""Thousands of connections a second open and vanish at a room in which clients chat.

    python -m tests.storm [--rate N] [--seconds S] [--loop NAME]

Most vanish with a reset, some with a FIN, some before the server has accepted them,
some after a word. Two witnesses chat all the time, from their own addresses.

It is an error unless each witness receives each word of the other, in order; each
accepted client has ended, with a reason; and the server has as many descriptors after
the storm as before.

Rule: the rate is requested, not promised. The rate that was reached is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from tests.support import OURS, Peer, Process, descriptors, reset_on_close, room

__all__ = ["Result", "storm"]

# Several addresses: a FIN keeps a port in use for a minute, so one address runs out.
SOURCES = [f"127.0.1.{number}" for number in range(1, 255)]

# Connections for each word of the witnesses.
A_WORD = 50


class Result(NamedTuple):
    """Measurements of a storm.

    Attributes:
        opened: number of connections of the storm.
        seconds: duration of the storm.
        words: number of words that each witness sent and the other received.
        descriptors: numbers of the server's descriptors, before and after.
        counters: the server's counters at the end.
    """

    opened: int
    seconds: float
    words: int
    descriptors: tuple[int, int]
    counters: dict[str, float]


def storm(loop: str, connections: int, rate: float = math.inf) -> Result:
    """Run a storm, and check that no word is lost.

    Args:
        connections: number of connections.
        rate: maximum connections per second.

    Raises:
        AssertionError: a word is missing or out of order.
    """
    with room(loop, "--log-format", "json", "--backlog", "4096") as (server, address):
        one, other = Peer(address), Peer(address)
        other.send("other is in.")
        other.wait_for("other is in.")
        before = descriptors(server.pid)
        began = time.monotonic()
        opened = words = 0
        while opened < connections:
            if opened > rate * (time.monotonic() - began):
                # Ahead of time: let the server have the processor.
                os.sched_yield()
                continue
            _appear_and_vanish(address, opened)
            opened += 1
            if opened % A_WORD == 0:
                one.send(f"<one:{words}>")
                other.send(f"<other:{words}>")
                words += 1
        took = time.monotonic() - began
        for peer in (one, other):
            _check_words(peer, one, "one", words)
            _check_words(peer, other, "other", words)
        # A client that connects now is accepted after all of the storm.
        last = Peer(address)
        last.send("it is over.")
        last.wait_for("it is over.")
        counters = _counters(server)
        while counters["connections"] > 3:
            counters = _counters(server)
        after = descriptors(server.pid) - 1
        last.close()
        assert counters["clients"] == 3
        assert after == before, f"descriptors grew from {before} to {after}"
        assert "Traceback" not in "\n".join(server.err)
        return Result(opened, took, words, (before, after), counters)


def _appear_and_vanish(address: tuple[str, int], number: int) -> None:
    sock = socket.socket()
    sock.bind((SOURCES[number % len(SOURCES)], 0))
    if number % 4 == 3:
        # Connect without waiting for the answer.
        sock.setblocking(False)
        sock.connect_ex(address)
    else:
        sock.connect(address)
        if number % 4 == 1:
            sock.send(b"hi!")
    if number % 8:
        reset_on_close(sock)
    sock.close()


def _check_words(peer: Peer, speaker: Peer, name: str, words: int) -> None:
    """Check that the peer received each word of the speaker, once and in order."""
    peer.wait_for(f"<{name}:{words - 1}>")
    received = peer.got.replace(f"用户{speaker.name} 说:".encode(), b"").decode()
    assert re.findall(f"<{name}:(\\d+)>", received) == [str(n) for n in range(words)]


def _counters(server: Process) -> dict[str, float]:
    """Return the counters that SIGUSR1 writes to the log."""
    seen = len(server.err)
    os.kill(server.pid, signal.SIGUSR1)
    while True:
        server.wait_for('"event": "counters"', err=True)
        for line in server.err[seen:]:
            event = json.loads(line)
            if event.get("event") == "counters":
                return dict(event)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.storm",
        description="Open and drop connections in a room in which clients chat.",
    )
    parser.add_argument("--rate", type=float, default=5000, help="connections a second")
    parser.add_argument("--seconds", type=float, default=10, help="duration")
    parser.add_argument("--loop", choices=OURS, default="selectors")
    given = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        parser.error("the storm needs Linux: many loopback addresses, and /proc")
    result = storm(given.loop, int(given.rate * given.seconds), given.rate)
    ended = {
        name: int(count)
        for name, count in result.counters.items()
        if name.startswith(("closed_", "refused_")) and count
    }
    print(
        f"{result.opened} connections in {result.seconds:.1f} s: "
        f"{result.opened / result.seconds:.0f} a second",
        f"accepted {result.counters['accepted']:g}, ended: {ended}",
        f"{result.words} words of each witness, none lost",
        f"descriptors {result.descriptors[0]} before, {result.descriptors[1]} after",
        f"longest turn {1000 * result.counters['longest_turn']:.1f} ms",
        sep="\n",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
