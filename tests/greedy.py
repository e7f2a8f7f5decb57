"""Clients that send as fast as they can and receive nothing, and one that chats.

    python -m tests.greedy [--clients N] [--text TEXT] [--loop NAME]

It is an error if the server's memory exceeds the formula in legacy_chat/README.md,
section Security.
The longest turn is printed too, and the maximum and median time until the client that
chats received its own messages.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tests.support import OURS, Process, room

__all__ = ["Result", "greedy", "most_memory"]

# Bytes of one send; the server reads them in one recv.
PIECE = 65_536

# Seconds without progress after which the senders count as stuck.
STUCK = 20.0


class Result(NamedTuple):
    """Measurements of the server.

    Attributes:
        grown: bytes by which the peak of its memory has grown.
        closed: number of clients that it closed as slow.
        longest_turn: seconds.
        waits: seconds until the client that chats received each of its messages.
    """

    grown: int
    closed: int
    longest_turn: float
    waits: list[float]


def most_memory(clients: int, send_queue: int, tls: bool = False) -> int:
    """Return the bytes of memory that the guarantee allows for *clients*."""
    return clients * (send_queue + (1 << 19) + tls * (1 << 20)) + (32 << 20)


def greedy(loop: str, clients: int, text: str, send_queue: int, *tls: str) -> Result:
    """Let *clients* send and receive nothing, until the server has closed all of them.

    Args:
        text: one Latin-1 character, which is all that they send.
        tls: for TLS, the files of the server's certificate and key.
    """
    options = ["--send-queue", str(send_queue), "--log-format", "json"]
    if tls:
        options += ["--tls-cert", tls[0], "--tls-key", tls[1]]
    with room(loop, *options) as (server, address), ExitStack() as stack:
        before = _peak(server)
        chatter, *senders = (
            stack.enter_context(_connect(address, bool(tls)))
            for _ in range(1 + clients)
        )
        for sender in senders:
            sender.setblocking(False)
        waits = _send(senders, text.encode("latin-1") * PIECE, chatter)
        grown = _peak(server) - before
        os.kill(server.pid, signal.SIGUSR1)
        line = server.wait_for('"event": "counters"', err=True).string
        closed = re.search(r'"closed_slow": (\d+)', line)
        turn = re.search(r'"longest_turn": ([\d.e-]+)', line)
        assert closed is not None
        assert turn is not None
        return Result(grown, int(closed[1]), float(turn[1]), waits)


def _connect(address: tuple[str, int], tls: bool) -> socket.socket:
    sock = socket.create_connection(address)
    if not tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


def _send(
    senders: list[socket.socket], data: bytes, chatter: socket.socket
) -> list[float]:
    """Send until the server has closed all senders, and chat meanwhile.

    Returns:
        seconds until the client that chats received each of its messages.
    """
    left = set(senders)
    waits: list[float] = []
    word = tail = b""
    progress = time.monotonic()
    while left or word:
        if not word:
            word = b"<%d>" % len(waits)
            since = time.monotonic()
            chatter.send(word)
        ready, writable, _ = select.select([chatter], left, [], 1.0)
        now = time.monotonic()
        for sock in writable:
            try:
                sock.send(data)
            except (ssl.SSLWantWriteError, BlockingIOError):
                # With TLS, select() may report a socket with too little room for a
                # record.
                continue
            except OSError:
                # The server has closed this client as slow.
                left.remove(sock)
                progress = now
        if ready:
            tail = tail[-PIECE:] + chatter.recv(1 << 20)
            if word in tail:
                waits.append(now - since)
                word, progress = b"", now
        assert now - progress < STUCK, "the server makes no progress"
    return waits


def _peak(server: Process) -> int:
    """Return the peak of the server's memory in bytes."""
    with open(f"/proc/{server.pid}/status", encoding="ascii") as status:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
    assert found
    return int(found[1]) * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.greedy",
        description="Let clients send as fast as they can and receive nothing.",
    )
    parser.add_argument("--clients", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--text", default="x", help="one Latin-1 character")
    parser.add_argument("--send-queue", type=int, default=1 << 20)
    parser.add_argument("--loop", choices=OURS, default="selectors")
    given = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        parser.error("the measurement needs Linux: /proc")
    result = greedy(given.loop, given.clients, given.text, given.send_queue)
    allowed = most_memory(given.clients, given.send_queue)
    print(
        f"{result.closed} of {given.clients} clients were closed as slow",
        f"memory grew by {result.grown / 2**20:.1f} MiB of {allowed / 2**20:.0f} MiB",
        f"longest turn {1000 * result.longest_turn:.1f} ms",
        f"longest wait of the client that chats {1000 * max(result.waits):.1f} ms, "
        f"median {1000 * statistics.median(result.waits):.1f} ms",
        sep="\n",
    )
    return int(result.grown > allowed)


if __name__ == "__main__":
    sys.exit(main())
