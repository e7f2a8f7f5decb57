"""The faults of guests and of pausing clients, each with random data.

Rule: all randomness comes from one generator with a seed.
"""

from __future__ import annotations

import random
import socket
import time

from tests.soak.model import STX
from tests.soak.room import Room
from tests.support import reset

__all__ = ["FAULTS", "inject"]

# Guests at a time, and guests that do not read.
GUESTS = 16
SLOW = 8

# Seconds in which a pausing client is not read.
PAUSE = 8.0

# The longest noise in bytes.
NOISE = 16384


def noise(rng: random.Random) -> bytes:
    """Return random bytes, rarely UTF-8, without the first byte of a message."""
    size = int(NOISE ** rng.random())
    return rng.randbytes(size).replace(STX, b"?")


def garbage(room: Room, rng: random.Random) -> None:
    sock = room.connect()
    sock.sendall(noise(rng))
    room.guests.append(sock)


def terminated(room: Room, rng: random.Random) -> None:
    sock = room.connect()
    sock.sendall(noise(rng) + b"out" + noise(rng))
    room.guests.append(sock)


def resetting(room: Room, rng: random.Random) -> None:
    sock = room.connect()
    sock.sendall(b"a message, and a reset")
    reset(sock)


def vanishing(room: Room, rng: random.Random) -> None:
    sock = room.connect()
    sock.sendall("in the middle of 聊天".encode()[:-1])
    sock.close()


def half_closing(room: Room, rng: random.Random) -> None:
    sock = room.connect()
    sock.sendall(b"the last message; the client still receives")
    sock.shutdown(socket.SHUT_WR)
    room.guests.append(sock)


def no_handshake(room: Room, rng: random.Random) -> None:
    """Send noise, with TLS in place of a handshake."""
    sock = room.connect(handshake=False)
    sock.sendall(noise(rng))
    room.guests.append(sock)


def slow(room: Room, rng: random.Random) -> None:
    if len(room.slow) < SLOW:
        room.slow.append(room.connect(narrow=True))
        room.faults["slow"] += 1


def pausing(room: Room, rng: random.Random) -> None:
    client = rng.choice(room.readers)
    client.pauses_until = time.monotonic() + PAUSE


FAULTS = (
    garbage,
    terminated,
    resetting,
    vanishing,
    half_closing,
    no_handshake,
    slow,
    pausing,
)


def inject(room: Room, rng: random.Random, number: int) -> None:
    """Inject the next kind of fault; close the oldest guest of too many."""
    fault = FAULTS[number // 2 % len(FAULTS)]
    fault(room, rng)
    if fault is not slow:
        room.faults[fault.__name__] += 1
    if len(room.guests) > GUESTS:
        room.guests.popleft().close()
