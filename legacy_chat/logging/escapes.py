r"""Untrusted text, escaped for a terminal; and typed escapes, parsed to bytes.

    >>> visible("\x1b[2J")
    '\\x1b[2J'
    >>> parse_bytes(r"/quit\r\n")
    b'/quit\r\n'

Rule 1: no text is evaluated.
Rule 2: a character that a terminal does not show is escaped: control and format
characters (bidirectional controls, tags, U+00AD, U+200B, U+FEFF), line separators,
surrogates, private use, unassigned code points, fillers.
Rule 3: two kinds stay, because text needs them. Spaces of every width are the first.
The second is one joiner or variation selector after a character that accepts it: U+200C
and U+200D in scripts that join letters, and in emoji; a selector after any character
that is not ASCII, or in a keycap.
"""

from __future__ import annotations

import re
import unicodedata

from compat.characters import escaped, is_printable

__all__ = ["one_line", "parse_bytes", "visible"]

_JOINERS = "\u200c\u200d\u180b\u180c\u180d\u180f"

# The scripts that join letters: Arabic to Myanmar, Tagalog to Vedic with Khmer and
# Mongolian, Syloti Nagri to Meetei, Arabic's presentation forms, Kharoshthi to Tamil's
# supplement, Adlam.
_JOINED = re.compile(
    "[\u0600-\u109f\u1700-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    "\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)

_SELECTOR = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_TEXT_OR_EMOJI = "\ufe0e\ufe0f"
_KEYCAPS = "0123456789#*"

_KNOWN = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)


def visible(text: str) -> str:
    """Return *text* with invisible characters escaped, except newline and tab."""
    return _escaped(text, "\n\t")


def one_line(text: str) -> str:
    """Return *text* on one line, with all invisible characters escaped."""
    return _escaped(text, "")


def parse_bytes(text: str) -> bytes:
    r"""Return the UTF-8 of *text*, where ``\r \n \t \0 \\ \xHH`` are bytes.

    Raises:
        ValueError: *text* has another escape, or is empty.
    """
    parts, end = [], 0
    for found in _ESCAPE.finditer(text):
        parts += [_utf8(text[end : found.start()]), _byte(found[1])]
        end = found.end()
    data = b"".join((*parts, _utf8(text[end:])))
    if not data:
        raise ValueError("nothing is given: at least one byte is needed")
    return data


def _escaped(text: str, kept: str) -> str:
    if is_printable(text):
        return text
    parts, before = [], ""
    for each in text:
        is_seen = each in kept or _is_seen(each, before)
        parts.append(each if is_seen else escaped(each))
        before = each if is_seen else ""
    return "".join(parts)


def _is_seen(each: str, before: str) -> bool:
    if is_printable(each) or unicodedata.category(each) == "Zs":
        return True
    if not before or before in _JOINERS:
        return False
    if each in _JOINERS:
        return bool(_JOINED.match(before)) or _is_emoji(before)
    if before.isascii():
        return each in _TEXT_OR_EMOJI and before in _KEYCAPS
    return bool(_SELECTOR.match(each) and not _SELECTOR.match(before))


def _is_emoji(character: str) -> bool:
    # Symbols, skin tone modifiers, and the selector of the emoji style.
    return character == "\ufe0f" or unicodedata.category(character) in ("So", "Sk")


def _utf8(text: str) -> bytes:
    # Arguments that are not UTF-8 arrive as lone surrogates.
    return text.encode("utf8", "surrogateescape")


def _byte(escape: str) -> bytes:
    if len(escape) == 3:
        return bytes.fromhex(escape[1:])
    if escape not in _KNOWN:
        raise ValueError(
            rf"'\{one_line(escape)}' is none of \r, \n, \t, \0, \\ and \xHH"
        )
    return _KNOWN[escape]
