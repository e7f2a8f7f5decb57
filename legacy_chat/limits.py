"""Limits that protect the other clients and the machine from one client.

Rule 1: a limit that is off costs nothing, neither a call nor an attribute of a client.
Rule 2: clients within the limits are unaffected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from compat.values import shown
from legacy_chat.ranges import RANGES, check

__all__ = ["LimitOptions", "Limits"]


@dataclass(frozen=True)
class Limits:
    """The limits that ChatServer accepts as keywords; 0 turns a limit off.

    legacy_chat.ranges lists the range of each value.

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
