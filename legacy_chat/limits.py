"""Limits that protect the other clients and the machine from one client.

Rule 1: a limit that is off costs nothing, neither a call nor an attribute of a client.
Rule 2: clients within the limits are unaffected.
Rule 3: every value in the ranges works, alone and with every other one. ChatServer and
the command line have the same ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from compat.values import PORT, Range, shown

__all__ = ["RANGES", "LimitOptions", "Limits", "check"]

# Bytes, messages or clients: more than any machine can hold, and exact as a float.
MOST = 10**12

# A day in seconds: the limit of every wait.
DAY = 86_400

# The largest TCP_KEEPIDLE of Linux, in seconds.
LONGEST_KEEPALIVE = 32_767

# The backlog of listen() had 16 bits in older Linux.
LARGEST_BACKLOG = 65_535

RANGES = {
    "list_num": Range(1, LARGEST_BACKLOG, whole=True),
    "port": PORT,
    "max_clients": Range(0, MOST, whole=True),
    "max_per_address": Range(0, MOST, whole=True),
    "send_queue": Range(0, MOST, whole=True),
    # Below one byte a second, a client would wait for years.
    "flood_bytes": Range(1, MOST, or_zero=True),
    "flood_messages": Range(0.001, MOST, or_zero=True),
    "flood_burst": Range(0.01, 3600),
    # The sweep that finds idle clients visits all of them, four times in this period.
    "idle": Range(0.05, DAY, or_zero=True),
    "keepalive": Range(0, LONGEST_KEEPALIVE, whole=True),
    "grace": Range(0, DAY),
    "tls_timeout": Range(0.01, DAY),
}


@dataclass(frozen=True)
class Limits:
    """The limits that ChatServer accepts as keywords; 0 turns a limit off.

    RANGES has the range of each number.

    Attributes:
        max_clients: simultaneous connections, including sessions that are closing.
        max_per_address: the same, from one IP address.
        send_queue: bytes that may be queued for a client; it is disconnected if its
            queue still exceeds this after a turn that added to it.
        flood_bytes: bytes a second that are read from a client, 1 or more.
        flood_messages: messages a second, 0.001 or more; a message is the data of one
            read.
        flood_burst: seconds' worth of both that may arrive at once, 0.01 to 3600.
        idle: seconds without traffic in either direction after which a client is
            disconnected; 0.05 to 86400.
        keepalive: idle seconds before the first TCP keepalive probe; without an answer
            for as long again, the connection is dropped. At most 32767.
        terminator: the bytes that end a conversation.

    Raises:
        ValueError: a number is outside its range; the terminator is empty.
        TypeError: the terminator is not bytes.
    """

    max_clients: int = 0
    max_per_address: int = 0
    send_queue: int = 1 << 20
    flood_bytes: float = 0
    flood_messages: float = 0
    flood_burst: float = 5.0
    idle: float = 0
    keepalive: int = 90
    terminator: bytes = b"out"

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in RANGES:
                check(name, value)
        if not isinstance(self.terminator, bytes):
            raise TypeError(f"terminator must be bytes, got {shown(self.terminator)}")
        if not self.terminator:
            raise ValueError("terminator must have at least one byte, got b''")


class LimitOptions(TypedDict, total=False):
    """The same, as keywords of ChatServer."""

    max_clients: int
    max_per_address: int
    send_queue: int
    flood_bytes: float
    flood_messages: float
    flood_burst: float
    idle: float
    keepalive: int
    terminator: bytes


def check(name: str, value: object, parameter: str = "") -> None:
    """Raise ValueError unless *value* is in the range of *name*.

    Args:
        parameter: the parameter's name in the error, if that is not *name*.
    """
    if not RANGES[name].has(value):
        rule = f"{parameter or name} must be {RANGES[name].rule}"
        raise ValueError(f"{rule}, got {shown(value)}")
