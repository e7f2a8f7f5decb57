"""The text of a rejected value in an error message."""

from __future__ import annotations

import reprlib

__all__ = ["shown"]

# Bits. Error messages print larger ints by their size only.
SHORT_INT = 128


def shown(value: object) -> str:
    """Return *value* as short text on one line, for an error message; never raises."""
    if isinstance(value, int) and value.bit_length() > SHORT_INT:
        # Python refuses to convert an int of thousands of digits.
        return f"an int of {value.bit_length()} bits"
    return reprlib.repr(value)
