"""Text in columns, where a Chinese character takes two.

Rule 1: a line is never wider than asked for, unless a single character is.
Rule 2: Chinese breaks between any two characters, but no line begins with what closes
or ends with what opens. Other text breaks at its spaces.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from legacy_chat.baseline.text import fitted, width, wrapped

__all__ = ["beside", "code_wrapped", "filled", "folded", "spaced"]

# A word with the blanks before it, or one wide character; what closes stays with what
# it closes, and what opens with what it opens.
_CLOSING = "，。、；：！？）》」』”’…"
_OPENING = "（《「『“‘"
_UNIT = re.compile(
    rf"[ ]*[{_OPENING}]*"
    rf"(?:`[^`]*`|[\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef]|"
    rf"[^ `\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef{_OPENING}{_CLOSING}]+)?"
    rf"[{_CLOSING}]*"
)


_MEETING = re.compile(
    r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9_])|(?<=[A-Za-z0-9_])(?=[\u4e00-\u9fff])"
)


def filled(text: str, columns: int, indent: str = "") -> list[str]:
    """*text* in lines of so many columns at most, *indent* included."""
    lines, line = [], ""
    for unit in filter(None, _UNIT.findall(text)):
        if line and width(indent + line + unit) > columns:
            lines.append(indent + line)
            line = ""
        for piece in wrapped(unit if line else unit.lstrip(), columns - width(indent)):
            if line and width(indent + line + piece) > columns:
                lines.append(indent + line)
                line = ""
            line += piece
    return [*lines, indent + line] if line else lines


def beside(
    left: Iterable[str], right: Iterable[str], columns: int, middle: str = " │ "
) -> Iterator[str]:
    """Lines of two columns, the left one so wide; what is wider is wrapped."""
    for a, b in itertools.zip_longest(folded(left, columns), right, fillvalue=""):
        yield f"{fitted(a, columns)}{middle}{b}".rstrip()


def code_wrapped(line: str, columns: int) -> list[str]:
    """A line of code in so many columns: broken where a reader would, if it can be."""
    if width(line) <= columns:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 8)
    fits = len(wrapped(line, columns)[0])
    breaks = [at + 1 for at in range(fits - 1) if line[at] in " ,([.="]
    at = max((each for each in breaks if each > columns // 2), default=fits)
    rest = line[at:].lstrip()
    return [
        line[:at].rstrip(),
        *(indent + p for p in wrapped(rest, columns - len(indent))),
    ]


def spaced(text: str) -> str:
    """With a space wherever Chinese meets a word or a number of another script."""
    return _MEETING.sub(" ", text)


def folded(lines: Iterable[str], columns: int) -> Iterator[str]:
    """The lines in so many columns; what is left of one is below it, further in."""
    for line in lines:
        if width(line) <= columns:
            yield line
            continue
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        first, *_ = wrapped(line, columns)
        yield first
        rest = line[len(first) :]
        yield from (indent + part for part in wrapped(rest, columns - len(indent)))
