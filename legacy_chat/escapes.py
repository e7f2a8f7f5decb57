r"""Text that others wrote, made fit to be seen; and bytes that people have to type.

    >>> visible("\x1b[2J")
    '\\x1b[2J'
    >>> parse_bytes(r"/quit\r\n")
    b'/quit\r\n'

Rule: nothing here evaluates anything.
"""

from __future__ import annotations

import re

__all__ = ["one_line", "parse_bytes", "visible"]

# C0, DEL, C1; and what turns a line around or breaks it.
_UNSEEN = [*range(0x20), *range(0x7F, 0xA0)]
_UNSEEN += [0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
# And halves of surrogate pairs, which no stream can encode.
_UNSEEN += range(0xD800, 0xE000)

_IN_A_LINE = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSEEN
}
_IN_A_TEXT = {
    code: escape for code, escape in _IN_A_LINE.items() if chr(code) not in "\n\t"
}

_KNOWN = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)


def visible(text: str) -> str:
    """*text* with every control character but newline and tab as ``\\x1b``."""
    return text.translate(_IN_A_TEXT)


def one_line(text: str) -> str:
    """*text* with every control character as ``\\x1b``: it stays one line."""
    return text.translate(_IN_A_LINE)


def parse_bytes(text: str) -> bytes:
    r"""The UTF-8 of *text*, with ``\r \n \t \0 \\ \xHH`` for bytes.

    Raises:
        ValueError: another escape, or nothing at all.
    """
    parts, end = [], 0
    for found in _ESCAPE.finditer(text):
        parts += [_utf8(text[end : found.start()]), _byte(found[1])]
        end = found.end()
    data = b"".join((*parts, _utf8(text[end:])))
    if not data:
        raise ValueError("nothing is given: at least one byte is needed")
    return data


def _utf8(text: str) -> bytes:
    # What the command line had that is not UTF-8 comes as halves of surrogate pairs.
    return text.encode("utf8", "surrogateescape")


def _byte(escape: str) -> bytes:
    if len(escape) == 3:
        return bytes.fromhex(escape[1:])
    if escape not in _KNOWN:
        raise ValueError(
            rf"'\{one_line(escape)}' is none of \r, \n, \t, \0, \\ and \xHH"
        )
    return _KNOWN[escape]
