"""Format text, bytes, times and locations for a terminal, a diagram or a timeline.

Rule 1: text of a program or its peers cannot control a terminal or end a line.
Invisible characters are escaped, so different texts look different.
Rule 2: text of a trace may hold U+DC80 to U+DCFF, bytes that are not UTF-8. They become
``\\xff``, so every result can be encoded.
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
    "file_and_line",
    "location",
    "packed",
    "quoted",
    "readable",
    "seconds",
    "width",
]

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def readable(text: str) -> str:
    """Return *text* on one line, with ``\\`` and invisible characters escaped."""
    if is_printable(text) and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def quoted(data: bytes, size: int | None = None, columns: int = 1 << 30) -> str:
    """Return bytes in quotes: ``"hell"``, or ``"he…"`` if bytes are missing.

    Args:
        size: the number of bytes before any were cut; None if none were.
        columns: the longest result, if this is at least ten.
    """
    text = readable(data.decode("utf-8", "surrogateescape")).replace('"', '\\"')
    room = max(columns, 10) - len('""')
    if size is not None and len(data) < size:
        text = clip(text, room - 1).removesuffix("…") + "…"
    return f'"{clip(text, room)}"'


def width(text: str) -> int:
    """Return the number of terminal columns of *text*."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def clip(text: str, columns: int) -> str:
    """Return *text*, cut with ``…`` if it is wider than *columns*; "" in none."""
    # A character is at most two columns wide.
    if 2 * len(text) <= columns or width(text) <= columns:
        return text
    if columns < 1:
        return ""
    used = 0
    for at, each in enumerate(text):
        used += _columns(each)
        if used > columns - 1:
            # Not two in a row.
            return text[:at].rstrip("…") + "…"
    return text


def packed(phrases: list[str], room: int, between: str = "; ") -> Iterator[str]:
    """Yield lines of phrases, as many in each as fit into *room* columns."""
    line = ""
    for phrase in phrases:
        longer = f"{line}{between}{phrase}" if line else phrase
        if line and width(longer) > room:
            yield line
            longer = phrase
        line = longer
    if line:
        yield line


def duration(us: int) -> str:
    """Format microseconds with three digits: ``61 µs``, ``12.1 ms``, ``1.20 s``."""
    if us < 1_000:
        return f"{us} µs"
    if us < 1_000_000:
        return f"{us / 1_000:.{_decimals(us)}f} ms"
    return f"{us / 1_000_000:,.{_decimals(us / 1_000)}f} s"


def seconds(us: int) -> str:
    """Format a time since the trace began: ``1.204318 s``."""
    return f"{us / 1_000_000:.6f} s"


def location(code: Code | None) -> str:
    """Return ``server.py:71``, or "" without code of the program."""
    return f"{file_and_line(code.file)}:{code.line}" if code is not None else ""


def file_and_line(path: str) -> str:
    """Return the last part of a path of any system, with its line if it has one."""
    name = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    return readable(name or path)


def _decimals(thousands: float) -> int:
    return 2 if thousands < 10_000 else 1 if thousands < 100_000 else 0


@lru_cache(4096)
def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character in _ESCAPES or not is_printable(character):
        return _ESCAPES.get(character) or character.encode("unicode_escape").decode()
    return character
