"""Text, bytes and times for people: for a terminal, a diagram, a time line.

Rule 1: what a program or its peers wrote neither steers a terminal nor ends a line:
what cannot be seen is escaped, so that two different things never look the same.
Rule 2: text of a trace may hold U+DC80 to U+DCFF, bytes that are not UTF-8. They leave
here as ``\\xff``, so what leaves here can be encoded.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath, PureWindowsPath

from compat.characters import is_printable
from compat.trace.model import Code

__all__ = [
    "clip",
    "duration",
    "packed",
    "place",
    "quoted",
    "readable",
    "seconds",
    "where",
    "width",
]

# What is written otherwise in a string of Python, too.
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def readable(text: str) -> str:
    """*text* on one line, with escapes for what cannot be seen, and for ``\\``."""
    if is_printable(text) and "\\" not in text:
        return text
    return "".join(map(_seen, text))


def quoted(data: bytes, size: int | None = None, columns: int = 1 << 30) -> str:
    """Bytes for people: ``"hell"``, or ``"he…"``, which is not all of them.

    Args:
        size: bytes that there were; None if they are all here.
        columns: that it may take, if that is ten or more.
    """
    text = readable(data.decode("utf-8", "surrogateescape")).replace('"', '\\"')
    room = max(columns, 10) - len('""')
    if size is not None and len(data) < size:
        text = clip(text, room - 1).removesuffix("…") + "…"
    return f'"{clip(text, room)}"'


def width(text: str) -> int:
    """How many columns of a terminal it takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def clip(text: str, columns: int) -> str:
    """*text*, or its beginning and ``…`` in so many columns; "" in none."""
    # No character takes more than two.
    if 2 * len(text) <= columns or width(text) <= columns:
        return text
    if columns < 1:
        return ""
    used = 0
    for at, each in enumerate(text):
        used += _columns(each)
        if used > columns - 1:
            # What ends in one already has no need of another.
            return text[:at].rstrip("…") + "…"
    return text


def duration(us: int) -> str:
    """Microseconds in three figures or more: ``61 µs``, ``12.1 ms``, ``1.20 s``."""
    if us < 1_000:
        return f"{us} µs"
    if us < 1_000_000:
        return f"{us / 1_000:.{_decimals(us)}f} ms"
    return f"{us / 1_000_000:,.{_decimals(us / 1_000)}f} s"


def seconds(us: int) -> str:
    """When something was: ``1.204318 s``."""
    return f"{us / 1_000_000:.6f} s"


def place(code: Code | None) -> str:
    """``server.py:71``; "" if it is none of the program's code."""
    return f"{_base(code.file)}:{code.line}" if code is not None else ""


def where(error: str) -> str:
    """``server.py:71`` of a call's ``where``."""
    return _base(error)


def packed(phrases: list[str], room: int, between: str = "; ") -> Iterator[str]:
    """The phrases, as many on a line as go in *room* columns."""
    line = ""
    for phrase in phrases:
        longer = f"{line}{between}{phrase}" if line else phrase
        if line and width(longer) > room:
            yield line
            longer = phrase
        line = longer
    if line:
        yield line


def _base(file: str) -> str:
    """The last part of a path of any system."""
    name = PureWindowsPath(file).name if "\\" in file else PurePosixPath(file).name
    return readable(name or file)


def _decimals(thousands: float) -> int:
    return 2 if thousands < 10_000 else 1 if thousands < 100_000 else 0


@lru_cache(4096)
def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _seen(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character in _SHORT or not is_printable(character):
        return _SHORT.get(character) or character.encode("unicode_escape").decode()
    return character
