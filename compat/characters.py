r"""Untrusted text, escaped for display on a terminal.

    >>> visible("\x1b[2J")
    '\\x1b[2J'

Rule 1: a character that a terminal does not show is escaped: control and format
characters (bidirectional controls, tags, U+00AD, U+200B, U+FEFF), line separators,
surrogates, private use, unassigned code points, fillers.
Rule 2: two kinds stay, because text needs them. Spaces of every width are the first.
The second is one joiner or variation selector after a character that accepts it: U+200C
and U+200D in scripts that join letters, and in emoji; a selector after any character
that is not ASCII, or in a keycap.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "is_printable", "one_line", "visible"]

# The characters of Unicode's Default_Ignorable_Code_Point for which str.isprintable is
# True: fillers, the grapheme joiner, variation selectors.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)

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


def is_printable(text: str) -> bool:
    """Return whether a terminal shows every character of *text*, each in its place.

    A space is shown; other blanks are not.
    """
    return text.isprintable() and not _IGNORABLE.search(text)


def escaped(character: str) -> str:
    r"""Return ``\x1b``, ``\u200b`` or ``\U000e0041`` for *character*."""
    code = ord(character)
    digits, letter = (2, "x") if code < 0x100 else (4, "u")
    return f"\\{letter}{code:0{digits}x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str, kept: str = "\n\t") -> str:
    """Return *text* with invisible characters escaped, except those in *kept*."""
    if is_printable(text):
        return text
    parts, before = [], ""
    for each in text:
        is_shown = each in kept or _is_shown(each, before)
        parts.append(each if is_shown else escaped(each))
        before = each if is_shown else ""
    return "".join(parts)


def one_line(text: str) -> str:
    """Return *text* on one line, with all invisible characters escaped."""
    return visible(text, kept="")


def _is_shown(each: str, before: str) -> bool:
    if is_printable(each) or _category(each) == "Zs":
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
    return character == "\ufe0f" or _category(character) in ("So", "Sk")


def _category(character: str) -> str:
    # Imported here, because a program under compat should find few modules loaded.
    import unicodedata

    return unicodedata.category(character)
