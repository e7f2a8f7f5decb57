"""The ranges of numbers: one table for ChatServer and the command line.

Rule 1: every value in these ranges works, alone and with every other one.
Rule 2: an error names the parameter, the rule and the value, on one line.
"""

from __future__ import annotations

from typing import NamedTuple

from compat.values import shown

__all__ = ["RANGES", "Range", "check", "described", "parse"]

# Bytes, messages or clients: more than any machine can hold, and exact as a float.
MOST = 10**12

# A day in seconds: the limit of every wait.
DAY = 86_400

# The largest TCP_KEEPIDLE of Linux, in seconds.
LONGEST_KEEPALIVE = 32_767

# A port has 16 bits; so had the backlog of listen() in older Linux.
LARGEST_UINT16 = 65_535


class Range(NamedTuple):
    """The numbers from *least* to *most*.

    Attributes:
        whole: whether only whole numbers count.
        or_zero: whether 0 is allowed beside them, which turns a limit off.
    """

    least: float
    most: float
    whole: bool = False
    or_zero: bool = False

    def has(self, value: object) -> bool:
        """Return whether *value* is in the range; a bool is not a number here."""
        kinds = int if self.whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        return self.least <= value <= self.most or (self.or_zero and value == 0)


RANGES = {
    "list_num": Range(1, LARGEST_UINT16, whole=True),
    "port": Range(0, LARGEST_UINT16, whole=True),
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
        message = f"{parameter or name} must be {_rule(RANGES[name])}"
        raise ValueError(f"{message}, got {shown(value)}")


def parse(name: str, text: str) -> float:
    """Return the number in *text*: an int where it is whole.

    Raises:
        ValueError: *text* is not a number, or the number is outside the range of
            *name*.
    """
    expected = RANGES[name]
    try:
        # int() would also accept signs, spaces, underscores and the digits of any
        # script.
        number = int(text) if text.isdecimal() else float(text)
        if not text.isascii():
            number = -1
    except ValueError:
        number = -1
    if isinstance(number, float) and number.is_integer() and not expected.whole:
        number = int(number)
    if not expected.has(number):
        raise ValueError(f"must be {_rule(expected)}, got {shown(text)}")
    return number


def described(name: str) -> str:
    """Return the range of *name* for a help text: ``0.01 to 3600``."""
    return f"{_number(RANGES[name].least)} to {_number(RANGES[name].most)}"


def _rule(expected: Range) -> str:
    kind = "a whole number" if expected.whole else "a number"
    zero = "0 or " if expected.or_zero else ""
    least, most = _number(expected.least), _number(expected.most)
    return f"{zero}{kind} from {least} to {most}"


def _number(number: float) -> str:
    return f"{number:,}" if number >= 1_000_000 else f"{number}"
