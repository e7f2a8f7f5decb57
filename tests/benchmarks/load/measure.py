"""Connections to the server, and the server's cost."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "READ_SIZE",
    "STALL",
    "LoadError",
    "Window",
    "connect",
    "raise_limit",
    "resident",
]

HOST = "127.0.0.1"

# Source addresses of the loopback, used in turn. Each has 28,000 ports; a server that
# closes first occupies the port for a minute.
SOURCES = tuple(f"127.0.1.{last}" for last in range(1, 17))

# linux/in.h: connect chooses the port, and has more combinations than bind.
IP_BIND_ADDRESS_NO_PORT = 24

# Seconds without a delivery that is due.
STALL = 30.0

READ_SIZE = 65536


class LoadError(Exception):
    """The server has violated the protocol."""


class Window:
    """A span of time, and the CPU time in it.

    Args:
        pid: process id of the server.
    """

    def __init__(self, pid: int) -> None:
        # clock_getcpuclockid(3): the CPU time of all threads of another process.
        self._server_clock = (~pid << 3) | 2
        self._began = self._now()

    def _now(self) -> tuple[float, float, float]:
        return (
            time.perf_counter(),
            time.clock_gettime(self._server_clock),
            time.process_time(),
        )

    def close(self, latencies: Sequence[float]) -> dict[str, Any]:
        """Return the spans in seconds, and latencies in milliseconds."""
        spans = [
            end - began for end, began in zip(self._now(), self._began, strict=True)
        ]
        figures: dict[str, Any] = dict(
            zip(("seconds", "server_cpu", "generator_cpu"), spans, strict=True)
        )
        ranked = sorted(latencies)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            at = min(len(ranked) - 1, int(len(ranked) * share))
            figures[name] = 1000 * ranked[at] if ranked else None
        return figures


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def raise_limit() -> None:
    """Raise the limit of descriptors to the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connect(port: int, number: int = 0) -> socket.socket:
    """Return a non-blocking connection; *number* selects its source address."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((SOURCES[number % len(SOURCES)], 0))
        # Established by the kernel at once, unless the backlog is full.
        sock.settimeout(STALL)
        sock.connect((HOST, port))
    except OSError as error:
        sock.close()
        raise LoadError(f"client {number} could not connect: {error}") from None
    sock.setblocking(False)
    return sock
