"""What an error says about the value that it refuses."""

from __future__ import annotations

import reprlib

__all__ = ["shown"]

# Bits of an int that is still worth printing, digit by digit.
SHORT_INT = 128


def shown(value: object) -> str:
    """Return *value* as an error shows it: on one line, short, and never an error."""
    if isinstance(value, int) and value.bit_length() > SHORT_INT:
        # Python refuses to print thousands of digits.
        return f"an int of {value.bit_length()} bits"
    return reprlib.repr(value)
