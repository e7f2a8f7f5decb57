"""The ranges of numbers: one table for ChatServer and the command line.

Every value in these ranges works, alone and with every other one.
"""

from __future__ import annotations

from compat.values import PORT, Range, shown

__all__ = ["RANGES", "check"]

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


def check(name: str, value: object, parameter: str = "") -> None:
    """Raise ValueError unless *value* is in the range of *name*.

    Args:
        parameter: the parameter's name in the error, if that is not *name*.
    """
    if not RANGES[name].has(value):
        rule = f"{parameter or name} must be {RANGES[name].rule}"
        raise ValueError(f"{rule}, got {shown(value)}")
