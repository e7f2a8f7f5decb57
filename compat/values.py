r"""Values that a user gives: ranges, the types of options, and their error messages.

    >>> Range(0.01, 3600).parse("5")
    5
    >>> byte_string(r"/quit\r\n")
    b'/quit\r\n'

Rule 1: a rejected value is a ValueError that names the rule and the value: ``must be
RULE, got VALUE``, on one short line.
Rule 2: no text is evaluated, and digits are ASCII digits.
"""

from __future__ import annotations

import math
import re
import reprlib
from typing import NamedTuple

from compat.characters import one_line

__all__ = [
    "PORT",
    "Range",
    "address",
    "byte_count",
    "byte_string",
    "check_callable",
    "checked_seconds",
    "file_name",
    "shown",
]

# Bits. Error messages print larger ints by their size only.
SHORT_INT = 128

UNITS = {"K": 10, "M": 20, "G": 30}

_KNOWN = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)


def shown(value: object) -> str:
    """Return *value* as short text on one line, for an error message; never raises."""
    if isinstance(value, int) and value.bit_length() > SHORT_INT:
        # Python refuses to convert an int of thousands of digits.
        return f"an int of {value.bit_length()} bits"
    return reprlib.repr(value)


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

    def __str__(self) -> str:
        """Return the range for a help text: ``0.01 to 3600``."""
        return f"{_number(self.least)} to {_number(self.most)}"

    @property
    def rule(self) -> str:
        """The rule for an error message: ``a whole number from 1 to 65535``."""
        kind = "a whole number" if self.whole else "a number"
        zero = "0 or " if self.or_zero else ""
        return f"{zero}{kind} from {_number(self.least)} to {_number(self.most)}"

    def has(self, value: object) -> bool:
        """Return whether *value* is in the range; a bool is not a number here."""
        kinds = int if self.whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        return self.least <= value <= self.most or (self.or_zero and value == 0)

    def parse(self, text: str) -> float:
        """Return the number in *text*: an int where it is whole.

        Raises:
            ValueError: *text* is not a number, or is outside the range.
        """
        number = _parsed(text)
        if isinstance(number, float) and number.is_integer() and not self.whole:
            number = int(number)
        if not self.has(number):
            raise ValueError(f"must be {self.rule}, got {shown(text)}")
        return number


def file_name(text: str) -> str:
    """Return *text*, unless it is empty.

    '' is ``"$CERT"`` with an unset variable: it must not mean "no file".
    """
    if not text:
        raise ValueError("must be the name of a file, got ''")
    return text


def address(text: str, default: str = "") -> tuple[str, int]:
    """Return the host and the port of ``HOST:PORT``, such as ``[::1]:9100``.

    Args:
        default: the host if *text* has none, and may omit it; "" if it must have one.
    """
    host, _, port = text.rpartition(":")
    host = host or default
    if not host:
        raise ValueError(f"must be HOST:PORT, such as [::1]:9100, got {shown(text)}")
    try:
        number = int(PORT.parse(port))
    except ValueError as error:
        raise ValueError(f"port {error}") from None
    return host.removeprefix("[").removesuffix("]"), number


def byte_count(text: str) -> int:
    """Return the number of bytes in *text*, which may end in K, M or G; else -1."""
    unit = UNITS.get(text[-1:].upper(), 0)
    number = _parsed(text[:-1] if unit else text)
    return number << unit if isinstance(number, int) and number >= 0 else -1


def byte_string(text: str) -> bytes:
    r"""Return the UTF-8 of *text*, where ``\r \n \t \0 \\ \xHH`` are bytes."""
    parts, end = [], 0
    for found in _ESCAPE.finditer(text):
        parts += [_utf8(text[end : found.start()]), _byte(found[1])]
        end = found.end()
    data = b"".join((*parts, _utf8(text[end:])))
    if not data:
        raise ValueError("must have at least one byte, got ''")
    return data


def check_callable(callback: object) -> None:
    """Raise TypeError if *callback* cannot be called."""
    if not callable(callback):
        raise TypeError(f"callback must be callable, got {shown(callback)}")


def checked_seconds(seconds: float) -> float:
    """Return *seconds* as a float, or raise ValueError unless finite and >= 0."""
    try:
        # Not float() alone, which also accepts a str.
        finite = math.isfinite(seconds)
    except (TypeError, ValueError, OverflowError):
        # Not a number; a decimal's signaling NaN; an int that no float can hold.
        finite = False
    if not (finite and seconds >= 0):
        raise ValueError(f"seconds must be finite and >= 0, got {shown(seconds)}")
    return float(seconds)


def _parsed(text: str) -> float:
    """Return the number in *text*; -1 for any other text."""
    try:
        if text.isascii():
            # int() would also accept signs, spaces and underscores.
            return int(text) if text.isdecimal() else float(text)
    except ValueError:
        # Not a number, or thousands of digits.
        pass
    return -1


def _number(number: float) -> str:
    return f"{number:,}" if number >= 1_000_000 else f"{number}"


def _utf8(text: str) -> bytes:
    # Arguments that are not UTF-8 arrive as lone surrogates.
    return text.encode("utf8", "surrogateescape")


def _byte(escape: str) -> bytes:
    if len(escape) == 3:
        return bytes.fromhex(escape[1:])
    if escape not in _KNOWN:
        raise ValueError(
            rf"escapes must be \r, \n, \t, \0, \\ or \xHH, got '\{one_line(escape)}'"
        )
    return _KNOWN[escape]


# A port has 16 bits.
PORT = Range(0, 65_535, whole=True)
