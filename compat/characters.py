"""The characters that a terminal shows.

``str.isprintable`` is False for control and format characters, separators, surrogates,
private use and unassigned code points. It is True for some characters that a terminal
does not show either: fillers, the grapheme joiner, variation selectors.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "is_printable"]

# The characters of Unicode's Default_Ignorable_Code_Point for which str.isprintable is
# True.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


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
