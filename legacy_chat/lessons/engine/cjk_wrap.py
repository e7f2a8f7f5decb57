"""Text in columns, where a Chinese character takes two.

Rule 1: a line is never wider than asked for, unless a single character is.
Rule 2: no line begins with what closes or ends with what opens. Chinese breaks between
any two other characters, other text at its blanks; `code` and "what is said" stay in
one piece where they can.
Rule 3: what is too long for a line of its own breaks where a reader would break it, and
inside of a name only if nothing else is left.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from legacy_chat.baseline.report.text import fitted, width, wrapped

__all__ = ["MIDDLE", "beside", "code_wrapped", "filled", "folded", "spaced"]

# Between two columns.
MIDDLE = " │ "

_WIDE = "\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef"
_CLOSING = "，。、；：？！）》」』】”’…—,.;:?!)]}"
_OPENING = "（《「『【“‘([{"

# What no line ends in: code, what is said, blanks, one wide character, or a word.
_ATOM = re.compile(rf"`[^`]*`|(?:(?<=\s)|^)\"[^\"]*\"|\s+|[{_WIDE}]|[^\s`{_WIDE}]+|`")

_IS_WIDE = re.compile(f"[{_WIDE}]")

# Behind these, and before a dot, a line of code may end; a path, behind its slashes.
_CODE_ENDS = " ,([{/"

_CODE_PIECE = re.compile(r"(?<=[ ,(\[{/])|(?=\.)")

_MEETING = re.compile(
    r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9_])|(?<=[A-Za-z0-9_])(?=[\u4e00-\u9fff])"
)


def filled(text: str, columns: int, indent: str = "") -> list[str]:
    """*text* in lines of so many columns at most.

    Args:
        indent: what all but the first line begin with, in these columns.
    """
    lines, line = [], ""
    for unit in _units(text):
        if line.strip() and width(line + unit) > columns:
            lines.append(line.rstrip())
            line = indent
        line += unit if line.strip() else unit.lstrip() if lines else unit
        while width(line) > columns:
            at = _end_of_line(line, columns, len(indent))
            lines.append(line[:at].rstrip())
            line = indent + line[at:].lstrip()
    return [*lines, line] if line.strip() or not lines else lines


def beside(left: Iterable[str], right: Iterable[str], columns: int) -> Iterator[str]:
    """Lines of two columns, the left one so wide; what is wider is wrapped."""
    for a, b in itertools.zip_longest(folded(left, columns), right, fillvalue=""):
        yield f"{fitted(a, columns)}{MIDDLE}{b}".rstrip()


def code_wrapped(line: str, columns: int) -> list[str]:
    """A line of code in so many columns, what is left of it further in."""
    longest = max(map(width, _CODE_PIECE.split(line.strip())))
    deeper = len(line) - len(line.lstrip()) + 8
    indent = " " * max(2, min(deeper, columns - longest))
    lines = []
    while width(line) > columns:
        at = _end_of_line(line, columns, len(line) - len(line.lstrip()))
        lines.append(line[:at].rstrip())
        line = indent + line[at:].lstrip()
    return [*lines, line]


def spaced(text: str) -> str:
    """With a space wherever Chinese meets a word or a number of another script."""
    return _MEETING.sub(" ", text)


def folded(lines: Iterable[str], columns: int) -> Iterator[str]:
    """The lines in so many columns; what is left of one is below it, further in."""
    for line in lines:
        indent = len(line) - len(line.lstrip()) + 4
        yield from filled(line, columns, " " * indent)


def _units(text: str) -> Iterator[str]:
    """What a line may be broken between; blanks belong to what is behind them."""
    unit = ""
    for atom in _ATOM.findall(text):
        if unit and _may_break(unit, atom):
            yield unit
            unit = ""
        unit += atom
    yield unit


def _may_break(before: str, after: str) -> bool:
    if before.isspace():
        return False
    if after.isspace():
        return True
    if after[0] in _CLOSING + '"' or before[-1] in _OPENING:
        return False
    return bool(_IS_WIDE.match(before[-1]) or _IS_WIDE.match(after))


def _end_of_line(line: str, columns: int, indent: int) -> int:
    """Where to break what has nothing that it should be broken at."""
    fits = len(wrapped(line, columns)[0])
    found = (at for at in range(fits, indent + 1, -1) if _is_end(line, at))
    return next(found, fits)


def _is_end(line: str, at: int) -> bool:
    before, after = line[at - 1], line[at]
    if after in _CLOSING + '"':
        return after == "." and before not in _OPENING
    if before in _CODE_ENDS or after == " ":
        return True
    return bool(_IS_WIDE.match(before)) and before not in _OPENING
